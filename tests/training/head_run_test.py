"""Tests of training/head_run.py: the head is trained on cached features."""

import glob
import json
import os
import re
import shutil
import types

import numpy as np
import pytest

import eval_image_classifier
from common import folders
from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from kits.helpers import parsed_flags, slow_by_turns
from kits.run_kit import listed_paths
from kits.trained_kit import (
  MOBILENET,
  NAME,
  make_dataset,
  read_variables,
  train,
  train_arguments,
  train_config,
  train_published,
)
from nets import nets_factory
from runs import checkpoints, run_info
from training import head_graph, validation_history, warm_start

pytestmark = pytest.mark.slow

HEAD = re.compile('MobilenetV1/Logits/')
CACHED = ['--cache_features', '--train_classifier_only', *MOBILENET,
          '--optimizer=adam', '--learning_rate=0.01']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation.

  The characters of its folder are forbidden only in paths of checkpoints.
  """
  return make_dataset(tmp_path_factory.mktemp('data') / 'a[b]*?\\c, d')


@pytest.fixture(scope='module')
def published(data, tmp_path_factory):
  """A checkpoint to fine-tune, in place of a published one."""
  return train_published(data, tmp_path_factory.mktemp('published'))


@pytest.fixture(scope='module')
def run(data, published, tmp_path_factory):
  """The train directory of a run of 40 steps, evaluated every 10 steps."""
  folder = tmp_path_factory.mktemp('run')
  train(data, folder, *CACHED, '--checkpoint_path=' + published,
        '--max_number_of_steps=40', '--evaluate_every_n_steps=10')
  return folder


@pytest.mark.slow
def test_checkpoint_has_variables_of_uncached_run_and_changes_only_head(
    data, published, run, tmp_path):
  plain = train(data, tmp_path, *CACHED, '--nocache_features',
                '--checkpoint_path=' + published, '--max_number_of_steps=1')
  cached, start = (read_variables(path) for path in (
      checkpoints.newest(str(run)), published))
  plain = read_variables(plain)
  assert ({name: value.shape for name, value in cached.items()} ==
          {name: value.shape for name, value in plain.items()})
  changed = {name for name, value in start.items()
             if name in cached and not np.array_equal(value, cached[name])}
  assert changed == {'global_step', 'beta1_power', 'beta2_power'} | {
      name for name in cached if HEAD.match(name) and name in start}


def test_best_checkpoint_evaluates_as_it_did_during_training(
    data, run, tmp_path):
  with open(str(run / 'validation.jsonl')) as file:
    lines = [json.loads(line) for line in file]
  assert [line['step'] for line in lines] == [10, 20, 30, 40]
  expected = max(lines, key=lambda line: (line['accuracy'], -line['loss']))
  assert validation_history.read_best(str(run / 'best')) == expected
  names = [os.path.basename(path)
           for path in glob.glob(str(run / 'best' / '*.index'))]
  assert names == ['model.ckpt-%d.index' % expected['step']]
  # The paths are relative, so that the lists are valid in a copy of the run.
  assert listed_paths(run / 'best') == ['model.ckpt-%d' % expected['step']]
  assert listed_paths(run) == ['model.ckpt-0', 'model.ckpt-40']
  assert run_info.load(str(run / 'best')) == run_info.load(str(run))
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % (run / 'best'),
                    '--eval_dir=%s' % tmp_path,
                    '--dataset_split_name=validation'):
    eval_image_classifier.main([])
  with open(str(tmp_path / 'metrics.jsonl')) as file:
    metrics = json.loads(file.readline())
  assert metrics['accuracy'] == pytest.approx(expected['accuracy'])


def test_run_learns_the_photos(run):
  assert validation_history.read_best(str(run / 'best'))['accuracy'] > 0.6


@pytest.mark.slow
def test_features_are_computed_once_per_checkpoint(
    data, published, run, tmp_path, log):
  train(data, tmp_path / 'again', *CACHED, '--checkpoint_path=' + published,
        '--max_number_of_steps=1')
  assert 'Features of 21 train photos: ' in log.text
  assert 'Computing the features' not in log.text
  log.clear()
  # Another checkpoint gives other features.
  train(data, tmp_path / 'other', *CACHED, '--max_number_of_steps=1')
  assert 'Computing the features of 21 train photos, once, into' in log.text


@pytest.mark.slow
def test_training_without_improvement_stops_and_stays_stopped(
    data, published, tmp_path, log):
  arguments = [*CACHED, '--learning_rate=0', '--checkpoint_path=' + published,
               '--evaluate_every_n_steps=5', '--early_stop_evals=3']
  newest = train(data, tmp_path, *arguments)
  assert checkpoints.read_global_step(newest) == 20
  assert 'Stopping: the best validation accuracy, ' in log.text
  log.clear()
  assert train(data, tmp_path, *arguments) == newest
  assert 'Nothing to do: the best validation accuracy, ' in log.text
  newest = train(data, tmp_path, *arguments, '--early_stop_evals=0',
                 '--max_number_of_steps=25')
  assert checkpoints.read_global_step(newest) == 25


@pytest.mark.slow
def test_run_without_validation_photos_ends_at_default_step(
    published, tmp_path, log):
  data = make_dataset(tmp_path / 'data', percent_validation=0)
  newest = train(data, tmp_path / 'run', *CACHED, '--batch_size=30',
                 '--checkpoint_path=' + published)
  assert 'ending at step 500' in log.text
  assert checkpoints.read_global_step(newest) == 500
  assert not (tmp_path / 'run' / 'best').exists()


@pytest.mark.slow
def test_cache_views_are_augmented_except_the_first(
    data, published, tmp_path):
  caches = {}
  for views in (0, 2):
    folder = tmp_path / str(views)
    train(data, tmp_path / ('run-%d' % views), *CACHED,
          '--checkpoint_path=' + published, '--max_number_of_steps=1',
          '--cache_views=%d' % views, '--feature_cache_dir=%s' % folder)
    rows = [np.fromfile(path, '<f4').reshape([-1, 256]) for path in
            glob.glob(str(folder / '*' / 'features-0.f32'))]
    caches[views] = {len(array): array for array in rows}
  assert sorted(caches[0]) == [9, 21] and sorted(caches[2]) == [9, 63]
  np.testing.assert_array_equal(caches[2][9], caches[0][9])
  plain, views = caches[0][21], caches[2][63].reshape([3, 21, 256])
  np.testing.assert_array_equal(views[0], plain)
  # The other views have different features of the same photos.
  for view in views[1:]:
    differences = np.linalg.norm(view[:, None] - plain[None], axis=2)
    assert (np.diag(differences) > 0).all()
  assert (views[1] != views[2]).any()


@pytest.mark.parametrize('flags,message', [
    (['--trainable_scopes='], '--cache_features: no layer comes before .*'
     'MobilenetV1/MobilenetV1/Conv2d_0/.* reads the photos; give '
     '--trainable_scopes, or --nocache_features'),
    (['--num_clones=2'], 'got --num_clones=2; give --nocache_features'),
    (['--trainable_scopes=Nothing'], "'Nothing' matches no variable"),
], ids=str)
def test_wrong_flags_raise_one_line_error(
    data, published, tmp_path, flags, message):
  with pytest.raises(InputError, match=message) as caught:
    train(data, tmp_path, *CACHED, '--checkpoint_path=' + published,
          '--max_number_of_steps=1', *flags)
  assert '\n' not in str(caught.value)
  assert not glob.glob(str(tmp_path / 'model.ckpt*'))


def reason_caches_not_writable(folder):
  return 'a CD' if 'caches' in folder else None


@pytest.mark.slow
@pytest.mark.parametrize('is_full', [False, True])
@pytest.mark.parametrize('has_others', [False, True])
def test_unwritable_cache_raises_before_training_begins(
    data, published, tmp_path, log, monkeypatch, is_full, has_others):
  (tmp_path / 'caches').mkdir()
  if has_others:
    (tmp_path / 'caches' / 'of-other-weights').mkdir()
  if is_full:
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda folder: types.SimpleNamespace(free=0))
    message = 'the features of 30 photos need .* but 0.0 MB are free'
  else:
    monkeypatch.setattr(folders, 'reason_not_writable',
                        reason_caches_not_writable)
    message = '^cannot write to the feature cache .*: a CD; --feature_cache_dir'
  with pytest.raises(InputError, match=message):
    train(data, tmp_path / 'run', *CACHED, '--checkpoint_path=' + published,
          '--feature_cache_dir=%s' % (tmp_path / 'caches'))
  # The line that run_train.sh waits for.
  assert 'Training on ' not in log.text
  if not has_others:  # Nor has the first checkpoint been written.
    assert not (tmp_path / 'run').exists()


def test_complete_cache_need_not_be_writable(data, published, tmp_path,
                                             monkeypatch):
  flags = [*CACHED, '--checkpoint_path=' + published,
           '--feature_cache_dir=%s' % (tmp_path / 'caches'),
           '--max_number_of_steps=1']
  train(data, tmp_path / 'first', *flags)
  monkeypatch.setattr(folders, 'reason_not_writable',
                      reason_caches_not_writable)
  assert train(data, tmp_path / 'second', *flags)


def gradients_of(data, arguments, cached):
  """Returns the head's gradients on a batch of photos or cached features."""
  config = train_config(*train_arguments(data, '/nowhere', *arguments))
  row = nets_factory.get_network(config.model_name)
  info = run_info.RunInfo(
      config.model_name, ['a', 'b', 'c'], 0,
      config.train_image_size or row.image_size, row.preprocessing, NAME,
      data, None, '/a/checkpoint')
  dataset = dataset_factory.get_dataset(NAME, 'train', data)
  with tf.Graph().as_default():
    tf.set_random_seed(1)
    graph = head_graph.build(
        config, {'train': dataset}, info, row, list(row.classifier_scopes))
    variables = warm_start.variables_to_train(list(row.classifier_scopes))
    gradients = tf.gradients(tf.losses.get_total_loss(), variables)
    rng = np.random.RandomState(2)
    photos = rng.uniform(-1, 1, [2, info.image_size, info.image_size,
                                 row.channels]).astype(np.float32)
    with tf.Session(config=tf.ConfigProto(
        allow_soft_placement=True)) as session:
      session.run(tf.global_variables_initializer())
      feed = {'images:0': photos}
      if cached:
        feed = graph.backbone.cut.feed(
            session.run(graph.backbone.cut.features, feed))
      feed[graph.labels] = [1, 2]
      return session.run(gradients, feed)


@pytest.mark.parametrize('arguments', [
    [*MOBILENET],
    ['--model_name=cifarnet'],
    *slow_by_turns(['--model_name=' + name] for name in (
        'inception_v3', 'inception_resnet_v2', 'nasnet_mobile', 'mobilenet_v2',
        'resnet_v2_50', 'vgg_a')),
], ids=lambda arguments: arguments[0])
def test_head_gradients_from_features_equal_those_from_photos(data, arguments):
  from_photos = gradients_of(data, arguments, cached=False)
  from_features = gradients_of(data, arguments, cached=True)
  assert from_photos and len(from_photos) == len(from_features)
  for expected, actual in zip(from_photos, from_features):
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * largest)
