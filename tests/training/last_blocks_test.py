"""Tests of training/last_blocks.py: --train_last_blocks."""

import os
import types

import numpy as np
import pytest

import export_inference_graph
from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from kits.helpers import parsed_flags
from kits.run_kit import evaluate, evaluations
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
from ood import photo_features
from runs import checkpoints, feature_cache, run_info
from serving.model import graph_files
from training import finetune_all, last_blocks

pytestmark = pytest.mark.slow
ONE_ENGINE_BY_TURNS = True  # See conftest.py.

CACHED = ['--cache_features', '--train_classifier_only', *MOBILENET]
# 3 epochs of 21 photos in batches of 4.
BLOCKS = [*CACHED, '--train_last_blocks=2', '--last_blocks_epochs=3',
          '--optimizer=adam', '--seed=1']
STEPS = 18


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
  """The train directory of a run with a head over layers, and its caches."""
  folder = tmp_path_factory.mktemp('run')
  train(data, folder / 'train', *BLOCKS, '--head=layers', '--flip_average',
        '--last_blocks_learning_rate=0.001', '--checkpoint_path=' + published,
        '--feature_cache_dir=%s' % (folder / 'caches'))
  return folder


def test_only_blocks_and_head_are_trained(run, published):
  folder = run / 'train'
  beginning = finetune_all.read(str(folder))
  assert (beginning.steps, beginning.last_blocks) == (STEPS, 2)
  newest = checkpoints.newest(str(folder))
  assert (checkpoints.read_global_step(newest) ==
          beginning.from_step + beginning.steps)
  before, after = read_variables(published), read_variables(newest)
  model = [name for name in before if name.startswith('MobilenetV1/Conv2d_') and
           not name.endswith(('/Adam', '/Adam_1'))]
  changed = {name.split('/')[1] for name in model
             if not np.array_equal(before[name], after[name])}
  assert changed == {'Conv2d_%d_%s' % (layer, kind) for layer in (12, 13)
                     for kind in ('depthwise', 'pointwise')}
  for name in model:
    if '/moving_' in name:
      np.testing.assert_array_equal(before[name], after[name], err_msg=name)
  head = read_variables('%s/model-all.ckpt-%d' % (folder, beginning.from_step))
  name = 'LayersHead/weights'
  assert head[name].any() and not np.array_equal(head[name], after[name])


def test_cache_has_both_views_of_the_layer_below_in_16_bits(run):
  use = feature_cache.load_use(str(run / 'train'))
  cache = feature_cache.open_cache(use.folders['train'], dtype='float16')
  # Layer 11 of the photo and of its mirror image, and the means of 9 and 10.
  assert sorted(cache.shapes) == [(2, 2, 128)] * 2 + [(128,)] * 4
  assert cache.row_bytes == 2 * 1536


def test_evaluation_and_frozen_graph_agree_with_training(data, run, tmp_path):
  newest = checkpoints.newest(str(run / 'train'))
  line = evaluations(run / 'train')[-1]
  assert line['step'] == checkpoints.read_global_step(newest)
  assert evaluate(newest, tmp_path) == (
      9, pytest.approx(line['accuracy']), pytest.approx(line['loss'], abs=0.02))
  info = run_info.load(str(run / 'train'))
  cached = photo_features.from_cache(info, newest, {
      'validation': dataset_factory.get_dataset(NAME, 'validation', data)})[
          'validation']
  assert np.mean(cached.logits.argmax(1) == cached.labels) == pytest.approx(
      line['accuracy'])
  frozen = str(tmp_path / 'frozen.pb')
  with parsed_flags(export_inference_graph.define_flags,
                    '--checkpoint_path=' + newest, '--dataset_dir=' + data,
                    '--frozen_file=' + frozen):
    export_inference_graph.main([])
  photos = np.random.RandomState(0).uniform(-1, 1, [4, 32, 32, 3]).astype('f')
  with tf.Graph().as_default(), tf.Session() as session:
    graph_files.import_into_default(
        graph_files.read_graph_def(frozen, 'frozen graph'))
    scores = session.run('LayersHead/Predictions:0', {'input:0': photos})
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, 32, 32, 3])
    logits, _ = run_info.network_fn(info)(images)
    tf.train.Saver(checkpoints.variables_to_restore()).restore(session, newest)
    expected = session.run(tf.nn.softmax(logits), {images: photos})
  np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_interrupted_run_is_continued_and_then_has_nothing_to_do(
    data, published, tmp_path, monkeypatch, log):
  take, steps = last_blocks.head_loop.HeadStep.take, []

  def interrupted_take(self, *args):
    steps.append(self.step)
    if len(steps) == 24:  # 20 of the classifier.
      self._stop.signal = 'SIGTERM'
    return take(self, *args)

  flags = [*BLOCKS, '--head=logits', '--max_number_of_steps=20']
  with monkeypatch.context() as patch:
    patch.setattr(last_blocks.head_loop.HeadStep, 'take', interrupted_take)
    newest = train(data, tmp_path, *flags, '--checkpoint_path=' + published)
  assert checkpoints.read_global_step(newest) == 24
  # Without the flag, it is continued as it began.
  newest = train(data, tmp_path, *CACHED, '--optimizer=adam')
  assert checkpoints.read_global_step(newest) == 20 + STEPS
  assert [line['step'] for line in evaluations(tmp_path)] == [20, 38]
  assert evaluate(newest, tmp_path / 'eval')[1] == pytest.approx(
      evaluations(tmp_path)[-1]['accuracy'])
  log.clear()
  assert train(data, tmp_path, *flags) == newest
  assert ('%s has all 18 steps of --train_last_blocks=2: nothing to do' % newest
          in log.text)
  with pytest.raises(InputError, match='holds a run with --train_last_blocks=2'
                     ', now it is 1'):
    train(data, tmp_path, *flags, '--train_last_blocks=1')


def test_disk_without_room_is_refused_before_the_classifier_is_trained(
    data, tmp_path, monkeypatch, log):
  monkeypatch.setattr(feature_cache.shutil, 'disk_usage',
                      lambda folder: types.SimpleNamespace(free=30000))
  with pytest.raises(InputError, match='30 photos need 0.0 MB more in .* free; '
                     '.* or fewer --train_last_blocks'):
    train(data, tmp_path / 'run', *BLOCKS, '--feature_cache_dir=%s' % (
        tmp_path / 'caches'))
  # The layer below: 2 x 2 x 128 numbers of 2 bytes.
  assert ('above Conv2d_11_pointwise will be trained on its cached output: '
          '1024 bytes per photo, 0.0 MB in all') in log.text
  assert not checkpoints.newest(str(tmp_path / 'run'))


@pytest.mark.parametrize('flags,message', [
    (['--train_last_blocks=5'],
     '--train_last_blocks=5: accepted for mobilenet_v1_025 are 1 to 4, which '
     'train what follows Conv2d_12_pointwise, Conv2d_11_pointwise, '
     'Conv2d_10_pointwise, Conv2d_9_pointwise'),
    (['--nocache_features'], 'cannot be used with --nocache_features'),
    (['--trainable_scopes=MobilenetV1'], 'used with --trainable_scopes='),
    (['--mixup_alpha=0.2'], 'used with --mixup_alpha=0.2'),
    (['--finetune_all_steps=3'], 'used with --finetune_all_steps=3'),
    (['--head=layers+kernel'], r'used with --head=layers\+kernel'),
    (['--early_stop_evals=0'], '=2 begins after training of the classifier, '
     'which has no end'),
    (['--worker_replicas=2'], '--train_last_blocks=2 needs a single worker'),
], ids=str)
def test_wrong_flags_raise_one_line_error(data, tmp_path, flags, message):
  with pytest.raises(InputError, match=message) as caught:
    train(data, tmp_path, *BLOCKS, *flags)
  assert '\n' not in str(caught.value)
  assert not os.listdir(str(tmp_path))


@pytest.mark.parametrize('name,number,large', [
    # Several branches read the layer below.
    ('inception_v1', 1, [(7, 7, 832)] * 2),
    # The last cell also reads the one before.
    ('nasnet_cifar', 1, [(8, 8, 768)] * 4),
])
def test_layers_below_are_cached_once(data, monkeypatch, name, number, large):
  cuts = []
  monkeypatch.setattr(last_blocks, '_check_room',
                      lambda run, tap, cut: cuts.append(cut))
  row = nets_factory.get_network(name)
  info = run_info.RunInfo(
      name, ['a', 'b'], 0, row.image_size, row.preprocessing, 'a', data, None,
      head='layers', flip_average=True)
  config = train_config(*train_arguments(data, '/nowhere',
                                         '--model_name=' + name))
  last_blocks.find(types.SimpleNamespace(
      info=info, network=row, config=config), number)
  shapes = [tuple(t.shape.as_list()[1:]) for t in cuts[0].features]
  # Of the photo and of its mirror image; the other taps are averaged.
  assert [shape for shape in shapes if len(shape) > 1] == large
