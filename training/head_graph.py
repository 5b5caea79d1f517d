"""The training graph of a run whose trunk is frozen.

It is the graph of any other run. What is added: the photos can be replaced by
any others, or by the features at the end of the trunk; and a second graph, of
the network in evaluation mode, reads the same features.
"""

import collections

from compat import slim, tf
from datasets import input_pipeline
from errors import InputError
from nets import frozen_trunk
from preprocessing import preprocessing_factory
from training import graph as training_graph
from training import inference_twin, warm_start

# Least share of the photo in a crop. Features that are fixed, or get few steps,
# cannot learn to know a class by a twentieth of it, Inception's own share.
_LEAST_CROP_AREA = 0.7

# training: the TrainingGraph; its summary_op needs features and labels alone.
# photo_summary: summary of the first photos of the batch that comes next.
# cut: where the trunk ends. labels: [None] int64, to be fed with the features;
#   targets, [None, classes] float32, where these are mixed.
# photos: dict of tensors image, label, filename of the batch that comes next.
# starts: {(split, view): op that starts a pass}. skip: to be fed to it, the
#   records to leave out. trunk_variables: what the features depend on.
# twin: InferenceTwin that is fed the features.
HeadGraph = collections.namedtuple(
    'HeadGraph', 'training photo_summary cut labels targets photos starts skip '
    'trunk_variables twin')


def build_from_flags(values, datasets, info, network, trainable_scopes,
                     session_config=None):
  """Builds it in the default graph.

  Args:
    values: the parsed flags.
    datasets: {split: slim Dataset}; 'train' has the training photos.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    trainable_scopes: scopes to train.
    session_config: tf.ConfigProto of the evaluations.

  Returns:
    A HeadGraph.

  Raises:
    InputError: a trainable scope matches nothing, or there is no trunk.
  """
  with tf.device('/device:CPU:0'):
    photos, starts, skip = _photos(values, datasets, info, network)
    photo_summary = training_graph.summarize_photos(photos['image'])
  images = tf.placeholder_with_default(
      photos['image'], [None] + photos['image'].shape.as_list()[1:], 'images')
  labels = tf.placeholder_with_default(photos['label'], [None], 'labels')
  targets = tf.placeholder_with_default(
      slim.one_hot_encoding(labels, len(info.labels)),
      [None, len(info.labels)], 'targets')
  batch = {'image': images, 'label': labels}
  if values.mixup_alpha:
    batch['targets'] = targets
  training = training_graph.build_from_flags(
      values, datasets['train'], info, network, trainable_scopes,
      next_batch=lambda: batch)
  twin = inference_twin.InferenceTwin(info, network,
                                      values.moving_average_decay,
                                      session_config)
  try:
    cut = frozen_trunk.find_cut(
        images, tf.losses.get_losses(),
        warm_start.variables_to_train(trainable_scopes), within=twin.op_names)
  except InputError as error:
    raise InputError('--cache_features: %s; give --trainable_scopes, or '
                     '--nocache_features' % error)
  twin.start_from([tensor.name for tensor in cut.features])
  needed = frozen_trunk.ancestors(cut.features)
  return HeadGraph(
      training._replace(summary_op=_head_summaries(cut, images)),
      photo_summary, cut, labels, targets, photos, starts, skip,
      [v for v in tf.global_variables() if v.op in needed], twin)


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
              info.preprocessing_name, is_training=view > 0,
              fast_mode=values.fast_mode,
              min_crop_area=least_crop_area(values)),
          info.image_size, values.batch_size, channels=network.channels,
          num_threads=values.num_preprocessing_threads,
          labels_offset=info.labels_offset, skip=skip,
          seed=_view_seed(values.seed, view) if view else None)
      if iterator is None:
        iterator = tf.data.Iterator.from_structure(
            tf.data.get_output_types(batches),
            tf.data.get_output_shapes(batches))
      starts[split, view] = iterator.make_initializer(batches)
  return iterator.get_next(), starts, skip


def least_crop_area(values):
  """Returns the share of the photo that a crop takes at least.

  Of cached views, and where all layers are trained after the classifier.

  Args:
    values: the parsed flags.
  """
  if values.min_crop_area is None:
    return _LEAST_CROP_AREA
  return values.min_crop_area


def _view_seed(seed, view):
  """Returns the seed of an augmented view: the same when it goes on."""
  return 1000003 * (seed or 0) + view


def _head_summaries(cut, images):
  """Returns the merged summaries that do not need the trunk."""
  stop = {tensor.op for tensor in cut.features + cut.shapes}
  kept = []
  for summary in tf.get_collection(training_graph.SUMMARIES_OF_RUN):
    if images.op not in frozen_trunk.ancestors([summary], stop):
      kept.append(summary)
  return tf.summary.merge(kept)
