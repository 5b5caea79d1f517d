"""Training graph of a run with a frozen backbone.

It is the usual training graph with two additions: the photos can be replaced by
other photos, or by features from the end of the backbone; and a second graph,
of the network in evaluation mode, is fed the same features.
"""

import collections

from common.errors import InputError
from compat import slim, tf
from datasets import input_pipeline
from nets import frozen_trunk
from preprocessing import preprocessing_factory
from training import graph as training_graph
from training import inference_twin, warm_start

# Least share of the photo's area in a crop. Inception's own is 0.05: features
# that are fixed, or trained for few steps, cannot learn to recognize a class
# from so little of it.
_LEAST_CROP_AREA = 0.7

# training: the TrainingGraph; its summary_op needs only features and labels.
# photo_summary: summary of the first photos of the next batch.
# cut: where the backbone ends. labels: [None] int64, fed with the features;
#   targets: [None, classes] float32, fed instead of labels if they are mixed.
# photos: dict of tensors image, label, filename of the next batch.
# starts: {(split, view): op that starts a pass}. skip: number of records to
#   skip, fed to that op. trunk_variables: variables of the backbone.
# twin: InferenceTwin that is fed the features.
HeadGraph = collections.namedtuple(
    'HeadGraph', 'training photo_summary cut labels targets photos starts skip '
    'trunk_variables twin')


def build_from_flags(values, datasets, info, network, trainable_scopes,
                     session_config=None):
  """Builds the HeadGraph in the default graph.

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
    InputError: a trainable scope matches nothing, or no backbone is frozen.
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
  """Returns the next batch of the current pass, the start ops, and `skip`.

  View 0 is preprocessed as for evaluation; the other views are augmented.
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
  """Returns the least share of a photo's area that a crop covers.

  It applies to cached views, and to training all layers after the classifier.

  Args:
    values: the parsed flags.
  """
  if values.min_crop_area is None:
    return _LEAST_CROP_AREA
  return values.min_crop_area


def _view_seed(seed, view):
  """Returns the seed of an augmented view: the same when a run resumes."""
  return 1000003 * (seed or 0) + view


def _head_summaries(cut, images):
  """Returns the merged summaries that do not need the backbone."""
  stop = {tensor.op for tensor in cut.features + cut.shapes}
  kept = []
  for summary in tf.get_collection(training_graph.SUMMARIES_OF_RUN):
    if images.op not in frozen_trunk.ancestors([summary], stop):
      kept.append(summary)
  return tf.summary.merge(kept)
