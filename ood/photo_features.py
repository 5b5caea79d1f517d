"""Features and logits of a checkpoint for the photos of a data set.

They are computed from the run's feature cache (runs.feature_cache) if it still
fits; otherwise the photos are run through the network.
"""

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np

from common import checkpoint_files
from compat import tf
from evaluation import loop
from nets import frozen_backbone, nets_factory
from runs import checkpoints, feature_cache, run_info
from runtime import forward_pass

# Cached photos per batch.
_BATCH = 256


class Features(NamedTuple):
  """What a checkpoint computes of some photos."""

  # [photos, n] float32, the input of the classifier.
  values: np.ndarray
  # [photos, classes] float32.
  logits: np.ndarray
  # [photos] int64.
  labels: np.ndarray
  filenames: List[str]
  # [photos] int64, the numbers of their records.
  positions: np.ndarray


def from_cache(
    run: run_info.RunInfo, checkpoint: str, datasets: Dict[str, Any],
    moving_average_decay: Optional[float] = None,
    options: forward_pass.Options = forward_pass.DEFAULT,
    choose: Optional[Dict[str, Callable]] = None
) -> Optional[Dict[str, Features]]:
  """Returns the features of a checkpoint from the caches of its run.

  Args:
    run: RunInfo.
    checkpoint: prefix of the checkpoint.
    datasets: {split: slim Dataset}.
    moving_average_decay: decay of the averages to use; None: the variables.
    options: forward_pass.Options.
    choose: {split: function of the [photos] labels that returns the positions
      to use, in rising order}; other splits are used whole.

  Returns:
    {split: Features}; None if the run has no complete cache of all these photos
    and these weights.
  """
  folder = os.path.dirname(checkpoint)
  use = (feature_cache.load_use(folder) or
         feature_cache.load_use(os.path.dirname(folder)))
  if use is None or not set(datasets) <= set(use.folders):
    return None
  precision = forward_pass.choose(options, run.precision).precision
  caches = _open(run, checkpoint, datasets, use, precision)
  if caches is None:
    return None
  with tf.Graph().as_default():
    rest = _rest_of_network(run, use.tensors)
    if rest is None:
      return None
    needed, inputs, outputs = rest
    restores = {
        name: variable for name, variable in checkpoints.with_plain_names(
            checkpoint, checkpoints.variables_to_restore(moving_average_decay)
        ).items() if variable.op in needed}
    with tf.Session(config=options.session_config) as session:
      if restores:
        checkpoints.restore(tf.train.Saver(restores), session, checkpoint)
      chosen = {split: function(caches[split].labels())
                for split, function in (choose or {}).items()}
      return {split: _run(session, cache, inputs, outputs, chosen.get(split))
              for split, cache in caches.items()}


def _open(run, checkpoint, datasets, use, precision):
  """Returns {split: FeatureCache}, or None if one does not fit."""
  reader = checkpoint_files.open_reader(checkpoint)
  if not all(reader.has_tensor(name) for name in use.variables):
    return None
  facts = dict(
      feature_cache.facts_of_run(run), engine=tf.__version__,
      precision=None if precision == forward_pass.FLOAT32 else precision,
      weights=feature_cache.fingerprint_values(
          (name, reader.get_tensor(name)) for name in use.variables))
  caches = {}
  for split, dataset in datasets.items():
    facts['records'] = feature_cache.fingerprint_records(dataset.data_sources)
    caches[split] = feature_cache.open_cache(use.folders[split], split=split,
                                             **facts)
    if caches[split] is None:
      return None
  return caches


def _rest_of_network(run, names):
  """Builds the network; finds the part of it that follows some tensors.

  Returns:
    The operations after these tensors, the tensors themselves (None for those
    that evaluation does not need), and a dict of the outputs `values` and
    `logits`. None if the outputs also need the images.
  """
  network = nets_factory.get_network(run.model_name, run.use_grayscale)
  images = tf.placeholder(tf.float32, [
      None, run.image_size, run.image_size, network.channels])
  logits, end_points = run_info.network_fn(run)(images)
  outputs = {'values': nets_factory.get_features(run.model_name, end_points),
             'logits': logits}
  graph = tf.get_default_graph()
  needed_by_outputs = set(frozen_backbone.ancestors(list(outputs.values())))
  inputs = []
  for name in names:
    try:
      tensor = graph.get_tensor_by_name(name)
    except KeyError:
      return None
    inputs.append(tensor if tensor.op in needed_by_outputs else None)
  needed = set(frozen_backbone.ancestors(
      list(outputs.values()), {t.op for t in inputs if t is not None}))
  return None if images.op in needed else (needed, inputs, outputs)


def _run(session, cache, inputs, outputs, positions):
  """Returns the Features of one cache at some positions, None for all."""
  if positions is None:
    positions = np.arange(cache.num_photos)
  rows, parts = cache.features(), []
  for start in range(0, len(positions), _BATCH):
    batch = positions[start:start + _BATCH]
    parts.append(session.run(outputs, {
        tensor: value[batch] for tensor, value in zip(inputs, rows)
        if tensor is not None}))
  names = cache.filenames()
  return Features(*[np.concatenate([part[name] for part in parts])
                    for name in ('values', 'logits')],
                  cache.labels()[positions],
                  [names[position] for position in positions], positions)


def from_photos(run: run_info.RunInfo, checkpoint: str, dataset: Any,
                batch_size: int, num_threads: int = 4,
                moving_average_decay: Optional[float] = None,
                options: forward_pass.Options = forward_pass.DEFAULT,
                keep: Optional[np.ndarray] = None) -> Features:
  """Computes the features of a checkpoint from photos.

  Args:
    run: RunInfo.
    checkpoint: prefix of the checkpoint.
    dataset: slim Dataset.
    batch_size: photos per batch.
    num_threads: threads that decode photos.
    moving_average_decay: decay of the averages to use; None: the variables.
    options: forward_pass.Options.
    keep: positions of the records to use, in rising order; None: all.

  Returns:
    Features.
  """
  with tf.Graph().as_default():
    graph = loop.build_graph(
        dataset, run, batch_size, num_threads,
        moving_average_decay=moving_average_decay, with_logits=True,
        with_features=True, keep=keep)
    counted = loop.count(graph, checkpoint, options)
  assert counted.features is not None and counted.logits is not None
  return Features(counted.features, counted.logits, counted.labels,
                  counted.filenames,
                  np.arange(len(counted.labels)) if keep is None else keep)
