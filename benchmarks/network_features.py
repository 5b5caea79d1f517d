"""Features of a checkpoint for all photos, and the time of its forward pass."""

import contextlib
from typing import Dict, NamedTuple, Optional

import numpy as np

from benchmarks import runtime_speed
from common.errors import InputError
from compat import slim, tf
from datasets import input_pipeline
from nets import frozen_backbone, layers_head, nets_factory
from runs import checkpoints, feature_cache, run_info
from runtime import forward_pass
from training import head_graph, head_loop, warm_start

# Photos per batch, and threads that decode photos, where no time is measured.
_BATCH, _THREADS = 32, 4


class UnusableCheckpoint(InputError):
  """A checkpoint is damaged, or lacks variables of its network."""


class Features(NamedTuple):
  """What a checkpoint computes, and what that takes."""

  # [photos, n] float32, the input of the classifier.
  values: np.ndarray
  # [photos] int64.
  labels: np.ndarray
  photos_per_second: float
  # Of the network with a classifier of the photos' classes.
  weight_bytes: int
  # Columns of the last layer, which are the last ones.
  last_size: int


def compute(prefix: str, model_name: str,
            datasets: Dict[str, slim.dataset.Dataset], dataset_name: str,
            dataset_dir: str, cache_dir: str, options: forward_pass.Options,
            batch_size: int, seconds: float,
            head: Optional[layers_head.Head] = None) -> Features:
  """Returns the Features of a checkpoint.

  They are cached. ./run_train.sh uses the same caches, unless the network has
  dropout before its last layers: the features of training then end there.

  Args:
    prefix: of the checkpoint.
    model_name: its network.
    datasets: {split: slim Dataset} of all photos.
    dataset_name, dataset_dir: of these.
    cache_dir: folder of feature caches.
    options: forward_pass.Options, with a precision.
    batch_size: photos per batch when the time is measured.
    seconds: duration of that.
    head: the head whose input is computed; None: the network's own classifier.

  Raises:
    UnusableCheckpoint: it cannot be restored.
    InputError: the records are damaged, or the cache cannot be written.
  """
  network = nets_factory.get_network(model_name)
  info = run_info.RunInfo(
      model_name, run_info.labels_of(next(iter(datasets.values())), 0), 0,
      network.image_size, network.preprocessing, dataset_name, dataset_dir,
      moving_average_decay=None)
  with contextlib.ExitStack() as stack:
    stack.enter_context(tf.Graph().as_default())
    backbone, last_size = _build(datasets, info, network, head)
    session = stack.enter_context(tf.Session())
    _restore(session, prefix, backbone.variables)
    forward = forward_pass.load_from_session(
        session, [backbone.images], backbone.cut.features, options)
    stack.callback(forward.close)
    caches = head_loop.caches_of(
        backbone, datasets, cache_dir, feature_cache.facts_of_run(info), 0, {})(
            session)(forward.choice)
    feature_cache.check_room(list(caches.values()))
    with input_pipeline.errors_as_advice():
      for split, cache in caches.items():
        head_loop.fill(session, split, cache, backbone.passes, forward)
    values = np.concatenate([_flat(cache) for cache in caches.values()])
    photos = np.random.RandomState(0).uniform(
        -1, 1, [batch_size] + backbone.images.shape.as_list()[1:])
    speed, = runtime_speed.measure_rates(
        [forward], photos.astype(np.float32), seconds)
  head = (values.shape[1] + 1) * len(info.labels)
  return Features(
      values, np.concatenate([cache.labels() for cache in caches.values()]),
      speed, 4 * (head + sum(variable.shape.num_elements()
                             for variable in backbone.variables)), last_size)


def _build(datasets, info, network, head):
  """Returns the head_graph.Backbone, in the default graph, and last_size."""
  with tf.device('/device:CPU:0'):
    passes = head_graph.photo_passes(datasets, info, network, _BATCH, _THREADS)
  images = head_graph.batch_of_images(passes)
  logits, end_points = nets_factory.get_network_fn(
      info.model_name, len(info.labels), is_training=False, head=head)(images)
  scopes = [layers_head.SCOPE] if head else network.classifier_scopes[:1]
  backbone = head_graph.make_backbone(
      images, frozen_backbone.find_cut(
          images, [logits], warm_start.variables_to_train(scopes),
          ends=[layers_head.FEATURES]), passes)
  return backbone, nets_factory.get_features(
      info.model_name, end_points).shape.as_list()[1]


def _restore(session, prefix, variables):
  """Restores the variables of the backbone.

  Raises:
    UnusableCheckpoint: the checkpoint lacks some, or is damaged.
  """
  names = {variable.op.name: variable for variable in variables}
  try:
    checkpoints.check_fits(prefix, names, 'it does not fit its network')
    checkpoints.restore(tf.train.Saver(names), session, prefix)
  except InputError as error:
    raise UnusableCheckpoint(error)


def _flat(cache):
  """Returns the features of a cache: [photos, n]."""
  return np.concatenate([np.reshape(feature, [cache.num_photos, -1])
                         for feature in cache.features()], axis=1)
