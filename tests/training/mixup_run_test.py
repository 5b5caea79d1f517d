"""Tests of training runs with --mixup_alpha, on features and on photos."""

import glob

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from kits.run_kit import TINY_HEAD, evaluations, tiny_networks
from kits.trained_kit import (
  MOBILENET,
  NAME,
  make_dataset,
  read_variables,
  train,
  train_arguments,
  train_config,
)
from nets import nets_factory
from runs import run_info
from training import head_graph, head_loop, losses

pytestmark = pytest.mark.slow

MIXUP = ['--mixup_alpha=1', '--optimizer=adam', '--learning_rate=0.01',
         '--train_classifier_only', '--max_number_of_steps=3']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


def test_cached_run_is_fed_mixed_features_and_labels(data, tmp_path,
                                                     monkeypatch):
  feeds, original_feed = [], head_loop.HeadStep._feed
  mixes, original_mix = [], losses.mix_features

  def recording_mix(*arguments):
    mixes.append((arguments, original_mix(*arguments)))
    return mixes[-1][1]

  def recording_feed(self, batch):
    feeds.append((batch, original_feed(self, batch)))
    return feeds[-1][1]

  monkeypatch.setattr(losses, 'mix_features', recording_mix)
  monkeypatch.setattr(head_loop.HeadStep, '_feed', recording_feed)
  after = read_variables(train(data, tmp_path, *MIXUP, '--cache_features'))
  assert after['global_step'] == len(feeds) == len(mixes) == 3
  for (batch, feed), ((features, labels, alpha, _), mixed) in zip(feeds, mixes):
    assert alpha == 1
    np.testing.assert_array_equal(labels, np.eye(3)[batch.labels])
    assert features is batch.features
    by_name = {tensor.op.name: value for tensor, value in feed.items()}
    assert 'labels' not in by_name
    np.testing.assert_array_equal(by_name['targets'], mixed[1])
    np.testing.assert_array_equal(by_name['CifarNet/fc3/Relu'], mixed[0][0])
    assert (mixed[0][0] != features[0]).any()
  # Some of the 12 photos were mixed with a photo of another class.
  targets = np.concatenate([mixed[1] for _, mixed in mixes])
  np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
  assert (targets.max(1) < 0.999).any()


def test_cached_graph_loss_uses_mixed_labels(data):
  config = train_config(
      *train_arguments(data, '/nowhere', *MOBILENET, *MIXUP))
  row = nets_factory.get_network(config.model_name)
  info = run_info.RunInfo(
      config.model_name, ['a', 'b', 'c'], 0, 32, row.preprocessing, NAME,
      data, None, '/a/checkpoint')
  with tf.Graph().as_default() as tf_graph:
    graph = head_graph.build(
        config, {'train': dataset_factory.get_dataset(NAME, 'train', data)},
        info, row, list(row.classifier_scopes))
    loss, = tf.losses.get_losses()
    logits = tf_graph.get_tensor_by_name('MobilenetV1/Logits/SpatialSqueeze:0')
    rng = np.random.RandomState(1)
    features = rng.uniform(
        0, 1, [4] + graph.backbone.cut.features[0].shape.as_list()[1:])
    targets = rng.dirichlet([1, 1, 1], 4).astype(np.float32)
    feed = {**graph.backbone.cut.feed([features.astype(np.float32)]),
            graph.targets: targets}
    with tf.Session(config=tf.ConfigProto(
        allow_soft_placement=True)) as session:
      session.run(tf.global_variables_initializer())
      actual, scores = session.run((loss, logits), feed)
    graph.twin.close()
  logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
  assert actual == pytest.approx(-np.mean((targets * logs).sum(1)), rel=1e-5)
  assert actual != pytest.approx(
      -np.mean(logs[range(4), targets.argmax(1)]), rel=1e-3)


def test_cached_run_with_mixup_learns_the_photos(data, tmp_path):
  with tiny_networks():
    train(data, tmp_path, TINY_HEAD, *MIXUP[1:3], '--mixup_alpha=0.2',
          '--cache_features', '--seed=1', '--max_number_of_steps=60')
  first, _, last = evaluations(tmp_path)
  assert last['loss'] < first['loss'] < np.log(3)


@pytest.mark.slow
def test_plain_run_trains_on_mixed_photos_and_evaluates_unmixed(
    data, tmp_path, monkeypatch):
  shapes, original_mix = [], losses.mix_photos

  def recording_mix(images, targets, alpha):
    shapes.append((images.shape.as_list(), targets.shape.as_list(), alpha))
    return original_mix(images, targets, alpha)

  monkeypatch.setattr(losses, 'mix_photos', recording_mix)
  after = read_variables(train(
      data, tmp_path, *MIXUP, '--nocache_features',
      '--evaluate_every_n_steps=3'))
  assert shapes == [([4, 32, 32, 3], [4, 3], 1)]
  assert after['global_step'] == 3
  weights = after['CifarNet/logits/weights']
  assert np.isfinite(weights).all() and weights.any()


@pytest.mark.parametrize('cache', ['--cache_features', '--nocache_features'])
def test_mixup_batch_of_one_raises_one_line_error(data, tmp_path, cache):
  with pytest.raises(InputError, match='--mixup_alpha=1 mixes the photos of a '
                     'batch, but --batch_size=1 leaves nothing to mix; give a '
                     '--batch_size of 2 or more') as caught:
    train(data, tmp_path, *MIXUP, cache, '--batch_size=1')
  assert '\n' not in str(caught.value)
  assert not glob.glob(str(tmp_path / 'model.ckpt*'))
