"""Training graph of a run with a frozen backbone.

It is the usual training graph with two additions: the photos can be replaced by
other photos, or by features from the end of the backbone; and a second graph,
of the network in evaluation mode, is fed the same features.
"""

from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from common.errors import InputError
from compat import slim, tf
from datasets import input_pipeline
from nets import frozen_backbone, nets_factory
from preprocessing import preprocessing_factory
from runs import run_info
from training import graph as training_graph
from training import inference_twin, warm_start
from training.config import TrainConfig

# Least share of the photo's area in a crop. Inception's own is 0.05: features
# that are fixed, or trained for few steps, cannot learn to recognize a class
# from so little of it.
_LEAST_CROP_AREA = 0.7


class HeadGraph(NamedTuple):
  """Training graph and evaluation graph of a run with a frozen backbone."""
  # Its summary_op needs only features and labels.
  training: training_graph.TrainingGraph
  # Summary of the first photos of the next batch.
  photo_summary: tf.Tensor
  # `[None, height, width, channels]` float32; by default the next batch.
  images: tf.Tensor
  # Where the backbone ends.
  cut: frozen_backbone.Cut
  # `[None]` int64, fed with the features.
  labels: tf.Tensor
  # `[None, classes]` float32, fed instead of labels if they are mixed.
  targets: tf.Tensor
  # The next batch: image, label, filename.
  photos: Dict[str, tf.Tensor]
  # {(split, view): op that starts a pass}.
  starts: Dict[Tuple[str, int], tf.Operation]
  # Number of records to skip, fed to that op.
  skip: tf.Tensor
  # Variables of the backbone.
  backbone_variables: List[tf.Variable]
  # It is fed the features.
  twin: inference_twin.InferenceTwin


def build(config: TrainConfig, datasets: Mapping[str, slim.dataset.Dataset],
          info: run_info.RunInfo, network: nets_factory.Network,
          trainable_scopes: Sequence[str],
          session_config: Optional[tf.ConfigProto] = None) -> HeadGraph:
  """Builds the HeadGraph in the default graph.

  Args:
    config: TrainConfig of the run.
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
    photos, starts, skip = _photos(config, datasets, info, network)
    photo_summary = training_graph.summarize_photos(photos['image'])
  images = tf.placeholder_with_default(
      photos['image'], [None] + photos['image'].shape.as_list()[1:], 'images')
  labels = tf.placeholder_with_default(photos['label'], [None], 'labels')
  targets = tf.placeholder_with_default(
      slim.one_hot_encoding(labels, len(info.labels)),
      [None, len(info.labels)], 'targets')
  batch = {'image': images, 'label': labels}
  if config.mixup_alpha:
    batch['targets'] = targets
  training = training_graph.build(
      config, datasets['train'], info, network, trainable_scopes,
      next_batch=lambda: batch)
  twin = inference_twin.InferenceTwin(info, network,
                                      config.moving_average_decay,
                                      session_config)
  try:
    cut = frozen_backbone.find_cut(
        images, tf.losses.get_losses(),
        warm_start.variables_to_train(trainable_scopes), within=twin.op_names)
  except InputError as error:
    raise InputError('--cache_features: %s; give --trainable_scopes, or '
                     '--nocache_features' % error)
  twin.start_from([tensor.name for tensor in cut.features])
  needed = frozen_backbone.ancestors(cut.features)
  return HeadGraph(
      training._replace(summary_op=_head_summaries(cut, images)),
      photo_summary, images, cut, labels, targets, photos, starts, skip,
      [v for v in tf.global_variables() if v.op in needed], twin)


def _photos(config, datasets, info, network):
  """Returns the next batch of the current pass, the start ops, and `skip`.

  View 0 is preprocessed as for evaluation; the other views are augmented.
  """
  skip = tf.placeholder(tf.int64, [], 'skip')
  iterator, starts = None, {}
  for split, dataset in sorted(datasets.items()):
    num_views = 1 + (config.cache_views if split == 'train' else 0)
    for view in range(num_views):
      batches = input_pipeline.evaluation_batches(
          dataset,
          preprocessing_factory.get_preprocessing(
              info.preprocessing_name, is_training=view > 0,
              fast_mode=config.fast_mode,
              min_crop_area=least_crop_area(config.min_crop_area)),
          info.image_size, config.batch_size, channels=network.channels,
          num_threads=config.num_preprocessing_threads,
          labels_offset=info.labels_offset, skip=skip,
          seed=_view_seed(config.seed, view) if view else None)
      if iterator is None:
        iterator = tf.data.Iterator.from_structure(
            tf.data.get_output_types(batches),
            tf.data.get_output_shapes(batches))
      starts[split, view] = iterator.make_initializer(batches)
  return iterator.get_next(), starts, skip


def least_crop_area(min_crop_area: Optional[float]) -> float:
  """Returns the least share of a photo's area that a crop covers.

  It applies to cached views, and to training all layers after the classifier.

  Args:
    min_crop_area: value of the flag; None: the default for these two.
  """
  return _LEAST_CROP_AREA if min_crop_area is None else min_crop_area


def _view_seed(seed, view):
  """Returns the seed of an augmented view: the same when a run resumes."""
  return 1000003 * (seed or 0) + view


def _head_summaries(cut, images):
  """Returns the merged summaries that do not need the backbone."""
  stop = {tensor.op for tensor in cut.features + cut.shapes}
  kept = []
  for summary in tf.get_collection(training_graph.SUMMARIES_OF_RUN):
    if images.op not in frozen_backbone.ancestors([summary], stop):
      kept.append(summary)
  return tf.summary.merge(kept)
