"""Tests of training/exact_head.py: runs with --head=layers."""

import json
import os

import numpy as np
import pytest

import eval_image_classifier
import export_inference_graph
from common.errors import InputError
from compat import tf
from datasets.conversion import convert_photos
from kits.helpers import parsed_flags
from kits.trained_kit import (
  CLASSES,
  MOBILENET,
  NAME,
  make_dataset,
  make_photos,
  read_variables,
  train,
  train_published,
)
from runs import checkpoints, run_info
from serving.model import graph_files
from training import exact_fit, validation_history

pytestmark = pytest.mark.slow

CACHED = ['--cache_features', '--train_classifier_only', *MOBILENET]
KERNEL = [*CACHED, '--head=layers+kernel', '--flip_average']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def published(data, tmp_path_factory):
  """A checkpoint to fine-tune, in place of a published one."""
  return train_published(data, tmp_path_factory.mktemp('published'))


@pytest.fixture(scope='module')
def run(data, published, tmp_path_factory):
  """The train directory of a run with all parts of the head."""
  folder = tmp_path_factory.mktemp('run')
  train(data, folder, *KERNEL, '--checkpoint_path=' + published)
  return folder


def read_path(folder):
  return json.loads((folder / 'head.json').read_text())


def test_run_ends_with_the_regularization_that_the_folds_chose(run):
  path = read_path(run)
  steps = exact_fit.L2_FACTORS.index(path['l2']) + 1
  assert path['last_step'] == steps
  newest = checkpoints.newest(str(run))
  assert checkpoints.read_global_step(newest) == steps
  lines = [json.loads(line)
           for line in (run / 'validation.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == list(range(1, steps + 1))
  # The validation photos do not choose the checkpoint.
  assert validation_history.read_best(str(run / 'best')) == lines[-1]
  assert lines[-1]['accuracy'] > 0.6


def test_only_the_head_differs_from_the_published_checkpoint(run, published):
  before = read_variables(published)
  after = read_variables(checkpoints.newest(str(run)))
  head = {name for name in after if name.startswith('LayersHead/')}
  shared = (set(before) & set(after)) - {'global_step'}
  assert {'LayersHead/weights', 'LayersHead/Kernel/support'} <= head
  for name in shared:
    if '/Logits/' not in name:
      np.testing.assert_array_equal(after[name], before[name], err_msg=name)
  assert 'MobilenetV1/Logits/Conv2d_1c_1x1/weights' in after


def test_evaluation_and_frozen_graph_agree_with_training(
    data, run, tmp_path):
  best = validation_history.read_best(str(run / 'best'))
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % (run / 'best'),
                    '--eval_dir=%s' % tmp_path,
                    '--dataset_split_name=validation'):
    eval_image_classifier.main([])
  metrics = json.loads((tmp_path / 'metrics.jsonl').read_text())
  assert metrics['accuracy'] == pytest.approx(best['accuracy'])
  frozen = str(tmp_path / 'frozen.pb')
  with parsed_flags(export_inference_graph.define_flags,
                    '--checkpoint_path=%s' % (run / 'best'),
                    '--frozen_file=' + frozen, '--dataset_dir=' + data):
    export_inference_graph.main([])
  photos = np.random.RandomState(0).uniform(-1, 1, [4, 32, 32, 3]).astype('f')
  with tf.Graph().as_default(), tf.Session() as session:
    graph_files.import_into_default(
        graph_files.read_graph_def(frozen, 'frozen graph'))
    scores = session.run('LayersHead/Predictions:0', {'input:0': photos})
    mirrored = session.run('LayersHead/Predictions:0',
                           {'input:0': photos[:, :, ::-1]})
  np.testing.assert_allclose(scores, mirrored, atol=1e-4)
  info = run_info.load(str(run))
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, 32, 32, 3])
    logits, _ = run_info.network_fn(info)(images)
    tf.train.Saver(checkpoints.variables_to_restore()).restore(
        session, checkpoints.newest(str(run / 'best')))
    expected = session.run(tf.nn.softmax(logits), {images: photos})
  np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_finished_run_has_nothing_to_do_until_the_photos_change(
    published, tmp_path, log):
  data = make_dataset(tmp_path / 'data')
  flags = [*CACHED, '--head=layers', '--checkpoint_path=' + published]
  newest = train(data, tmp_path / 'run', *flags)
  log.clear()
  assert train(data, tmp_path / 'run', *flags) == newest
  assert 'Nothing to do: the head is fitted to these photos' in log.text
  first = read_path(tmp_path / 'run')
  for name in CLASSES:
    os.rename(str(tmp_path / 'data' / NAME / name),
              str(tmp_path / ('old ' + name)))
  make_photos(tmp_path / 'data' / NAME, per_class=12)
  convert_photos.convert(str(tmp_path / 'data'), NAME, percent_validation=30)
  assert train(data, tmp_path / 'run', *flags) != newest
  second = read_path(tmp_path / 'run')
  assert second['first_step'] == first['last_step']
  assert second['of'] != first['of']


def test_interrupted_path_is_continued(data, published, tmp_path, monkeypatch):
  monkeypatch.setattr(exact_fit, 'L2_FACTORS', (100.0, 30.0, 10.0, 3.0))
  flags = [*KERNEL, '--checkpoint_path=' + published]
  whole = train(data, tmp_path / 'whole', *flags)
  assert checkpoints.read_global_step(whole) >= 3
  summaries = []

  def interrupt(self, step, line):
    summaries.append(step)
    if step == 2:
      self._stop.signal = 'SIGTERM'

  with monkeypatch.context() as patch:
    patch.setattr('training.exact_head.ExactHeadStep._summarize', interrupt)
    newest = train(data, tmp_path / 'run', *flags)
  assert checkpoints.read_global_step(newest) == 2 and summaries == [1, 2]
  resumed = read_variables(train(data, tmp_path / 'run', *flags))
  for name, value in read_variables(whole).items():
    if name.startswith('LayersHead/'):
      # From another start L-BFGS ends at slightly other biases, which are not
      # regularized: 0.0025 apart on one processor.
      np.testing.assert_allclose(
          resumed[name], value, err_msg=name,
          atol=1e-2 if name == 'LayersHead/biases' else 2e-3)


def test_all_layers_are_trained_afterwards(data, published, tmp_path):
  newest = train(data, tmp_path, *CACHED, '--head=layers',
                 '--checkpoint_path=' + published, '--finetune_all_steps=4',
                 '--optimizer=adam')
  steps = read_path(tmp_path)['last_step']
  assert checkpoints.read_global_step(newest) == steps + 4
  before, after = read_variables(published), read_variables(newest)
  name = 'MobilenetV1/Conv2d_0/weights'
  assert not np.array_equal(after[name], before[name])
  assert all(np.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize('flags,head', [
    ([], 'layers'), (['--nocache_features'], None),
    (['--mixup_alpha=0.2'], None),
    (['--trainable_scopes=MobilenetV1/Logits'], None)], ids=str)
def test_auto_takes_layers_unless_other_flags_contradict(
    data, published, tmp_path, flags, head):
  train(data, tmp_path, *CACHED, '--head=auto', '--max_number_of_steps=1',
        '--checkpoint_path=' + published, *flags)
  assert run_info.load(str(tmp_path)).head == head
  train(data, tmp_path, *CACHED, '--head=auto', '--max_number_of_steps=2',
        *flags)
  assert run_info.load(str(tmp_path)).head == head


@pytest.mark.parametrize('flags,message', [
    (['--head=layers', '--nocache_features'],
     '--head=layers is fitted to cached features .* used with '
     '--nocache_features'),
    (['--head=layers', '--mixup_alpha=0.2'], '--mixup_alpha=0.2'),
    (['--head=layers+kernel', '--cache_views=2'], '--cache_views=2'),
    (['--flip_average'], '--flip_average needs --head=layers'),
], ids=str)
def test_wrong_flags_raise_one_line_error(data, published, tmp_path, flags,
                                          message):
  with pytest.raises(InputError, match=message) as caught:
    train(data, tmp_path, *CACHED, '--checkpoint_path=' + published, *flags)
  assert '\n' not in str(caught.value)
  assert not os.listdir(str(tmp_path))


def test_run_with_another_head_is_refused(data, run, published):
  with pytest.raises(InputError, match='holds a run with --head='):
    train(data, run, *CACHED, '--checkpoint_path=' + published)
