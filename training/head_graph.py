"""The training graph of a run whose trunk is frozen.

It is the graph of any other run. What is added: the photos can be replaced by
any others, or by the features at the end of the trunk; and a second graph, of
the network in evaluation mode, reads the same features.
"""

import collections

import numpy as np

from compat import tf
from datasets import input_pipeline
from nets import nets_factory
from preprocessing import preprocessing_factory
from runs import checkpoints
from training import frozen_trunk, warm_start
from training import graph as training_graph

# training: the TrainingGraph; its summary_op needs features and labels alone.
# cut: where the trunk ends. labels: [None] int64, to be fed with the features.
# photos: dict of tensors image, label, filename of the batch that comes next.
# starts: {(split, view): op that starts a pass}. skip: to be fed to it, the
#   records to leave out. trunk_variables: what the features depend on.
# evaluation: the HeadEvaluation.
HeadGraph = collections.namedtuple(
    'HeadGraph', 'training cut labels photos starts skip trunk_variables '
    'evaluation')


def build_from_flags(values, datasets, info, network, trainable_scopes):
  """Builds it in the default graph.

  Args:
    values: the parsed flags.
    datasets: {split: slim Dataset}; 'train' has the training photos.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    trainable_scopes: scopes to train.

  Returns:
    A HeadGraph.

  Raises:
    InputError: a trainable scope matches nothing, or there is no trunk.
  """
  with tf.device('/device:CPU:0'):
    photos, starts, skip = _photos(values, datasets, info, network)
  images = tf.placeholder_with_default(
      photos['image'], [None] + photos['image'].shape.as_list()[1:], 'images')
  labels = tf.placeholder_with_default(photos['label'], [None], 'labels')
  training = training_graph.build_from_flags(
      values, datasets['train'], info, network, trainable_scopes,
      next_batch=lambda: {'image': images, 'label': labels})
  evaluation = HeadEvaluation(info, network, values.moving_average_decay)
  losses = tf.losses.get_losses()
  cut = frozen_trunk.find_cut(
      images, losses, warm_start.variables_to_train(trainable_scopes),
      within=evaluation.op_names)
  evaluation.set_cut(cut)
  needed = frozen_trunk.ancestors(cut.features)
  return HeadGraph(
      training._replace(summary_op=_head_summaries(cut, images)), cut, labels,
      photos, starts, skip,
      [v for v in tf.global_variables() if v.op in needed], evaluation)


def _photos(values, datasets, info, network):
  """Returns the photos of the pass that was started, and what starts one.

  View 0 is the photo as evaluation sees it, the others are augmented.
  """
  skip = tf.placeholder(tf.int64, [], 'skip')
  iterator, starts = None, {}
  for split, dataset in sorted(datasets.items()):
    num_views = 1 + (values.cache_views if split == 'train' else 0)
    for view in range(num_views):
      batches = input_pipeline.evaluation_batches(
          dataset,
          preprocessing_factory.get_preprocessing(
              info.preprocessing_name, is_training=view > 0),
          info.image_size, values.batch_size, channels=network.channels,
          num_threads=values.num_preprocessing_threads,
          labels_offset=info.labels_offset, skip=skip)
      if iterator is None:
        iterator = tf.data.Iterator.from_structure(
            tf.data.get_output_types(batches),
            tf.data.get_output_shapes(batches))
      starts[split, view] = iterator.make_initializer(batches)
  return iterator.get_next(), starts, skip


def _head_summaries(cut, images):
  """Returns the merged summaries that do not need the trunk."""
  stop = {tensor.op for tensor in cut.features + cut.shapes}
  kept = []
  for summary in tf.get_collection(training_graph.SUMMARIES_OF_RUN):
    if images.op not in frozen_trunk.ancestors([summary], stop):
      kept.append(summary)
  return tf.summary.merge(kept)


class HeadEvaluation:
  """The network in evaluation mode, from the end of the trunk on.

  Args:
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    moving_average_decay: None where the run keeps no moving averages.
  """

  def __init__(self, info, network, moving_average_decay=None):
    self._graph = tf.Graph()
    with self._graph.as_default():
      images = tf.placeholder(tf.float32, [
          None, info.image_size, info.image_size, network.channels], 'images')
      logits, _ = nets_factory.get_network_fn(
          info.model_name, num_classes=len(info.labels),
          is_training=False)(images)
      self._probabilities = tf.nn.softmax(logits)
      self._restores = checkpoints.variables_to_restore(moving_average_decay)
    self.op_names = {op.name for op in self._graph.get_operations()}
    self._session = None

  def set_cut(self, cut):
    """Says which tensors are given.

    Args:
      cut: the Cut of the training graph.
    """
    graph = self._graph
    # Not all of them: in evaluation some networks have no auxiliary classifier.
    needed = frozen_trunk.ancestors([self._probabilities])
    named = [graph.get_tensor_by_name(t.name) for t in cut.features]
    self._inputs = [t if t.op in needed else None for t in named]
    ops = frozen_trunk.ancestors(
        [self._probabilities], {t.op for t in self._inputs if t is not None})
    self._variables = {name: v for name, v in self._restores.items()
                       if v.op in ops}
    with graph.as_default():
      self._values = {name: tf.placeholder(v.dtype.base_dtype, v.shape)
                      for name, v in self._variables.items()}
      self._assign = tf.group(*[
          tf.assign(v, self._values[name])
          for name, v in self._variables.items()])

  @property
  def variable_names(self):
    """Names of the head's variables in a checkpoint."""
    return sorted(self._variables)

  def probabilities(self, variables, features):
    """Returns what the head makes of features: `[n, num_classes]` float32.

    Args:
      variables: {name: array} of `variable_names`.
      features: iterable of lists of arrays, as `Cut.features`.
    """
    if self._session is None:
      self._session = tf.Session(graph=self._graph)
    self._session.run(self._assign, {
        self._values[name]: variables[name] for name in self._variables})
    return np.concatenate([
        self._session.run(self._probabilities, {
            tensor: value for tensor, value in zip(self._inputs, batch)
            if tensor is not None})
        for batch in features])
