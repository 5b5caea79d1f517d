"""Tests of training graphs with --preprocess_on_device."""

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from kits import network_kit
from kits.trained_kit import NAME, make_dataset, train_config
from nets import nets_factory
from training import graph as training_graph
from training import start


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


def step(monkeypatch, data, *arguments):
  """Takes a training step; returns the clones' photos, and the loss."""
  config = train_config(
      '--model_name=cifarnet', '--preprocessing_name=inception', '--seed=3',
      '--train_image_size=24', '--batch_size=4', '--optimizer=sgd',
      '--learning_rate=0.01', '--train_dir=/nowhere', '--dataset_dir=%s' % data,
      '--dataset_name=' + NAME, *arguments)
  run = start.make_run(config, {'train': dataset_factory.get_dataset(
      NAME, 'train', str(data))})
  photos = []

  def network_fn(*args, **kwargs):
    build = network_kit.network_fn(*args, **kwargs)
    return lambda images: photos.append(images) or build(images)

  monkeypatch.setattr(nets_factory, 'get_network_fn', network_fn)
  with tf.Graph().as_default():
    graph = training_graph.build(config, run.datasets['train'], run.info,
                                 run.network, run.trainable_scopes)
    taken, = {output.dtype for op in tf.get_default_graph().get_operations()
              if op.type == 'IteratorGetNext' for output in op.outputs
              if output.shape.ndims == 4}
    assert taken == (tf.uint8 if config.preprocess_on_device else tf.float32)
    for images in photos:
      assert images.dtype == tf.float32
      assert images.shape.as_list()[:3] == [4, 24, 24]
    with network_kit.session() as session:
      values, loss = session.run([photos, graph.train_op])
  # Which clone takes the first batch is not fixed.
  return np.concatenate(sorted(values, key=np.mean)), loss


@pytest.mark.parametrize('arguments, unit', [
    ((), 1 / 127.5), (('--nofast_mode',), 1 / 127.5),
    (('--preprocessing_name=vgg',), 1.0), (('--use_grayscale',), 1 / 127.5),
    (('--num_clones=2', '--clone_on_cpu'), 1 / 127.5)], ids=str)
def test_graph_on_device_has_the_same_photos_but_for_rounding(
    monkeypatch, data, arguments, unit):
  expected, _ = step(monkeypatch, data, *arguments)
  got, loss = step(monkeypatch, data, *arguments, '--preprocess_on_device')
  assert np.abs(got - expected).mean() < 0.5 * unit
  assert np.abs(got - expected).max() > 0
  assert np.ptp(got) > 50 * unit
  assert np.isfinite(loss)


def test_graph_on_device_mixes_photos_after_they_are_distorted(monkeypatch,
                                                               data):
  plain, _ = step(monkeypatch, data, '--preprocess_on_device')
  mixed, loss = step(monkeypatch, data, '--preprocess_on_device',
                     '--mixup_alpha=1')
  assert np.isfinite(loss) and not np.allclose(plain, mixed)
  # Each is between two of the batch, and their shares add up to 1.
  for image in mixed:
    shares, error, _, _ = np.linalg.lstsq(
        plain.reshape(4, -1).T, image.ravel(), rcond=None)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert error < 1e-3


def test_make_run_on_device_with_another_preprocessing_is_refused(
    monkeypatch, data):
  with pytest.raises(InputError, match="--preprocess_on_device .* 'lenet'"):
    step(monkeypatch, data, '--preprocess_on_device',
         '--preprocessing_name=lenet')
