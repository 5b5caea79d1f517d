"""Training graph of a run with a frozen backbone.

It is the usual training graph with two additions: the photos can be replaced by
other photos, or by features from the end of the backbone; and a second graph,
of the network in evaluation mode, is fed the same features.
"""

from typing import (
  Any,
  Dict,
  List,
  Mapping,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

from common.errors import InputError
from compat import slim, tf
from datasets import input_pipeline
from nets import frozen_backbone, layers_head, nets_factory
from preprocessing import preprocessing_factory
from runs import known_rows, run_info
from training import graph as training_graph
from training import inference_twin, warm_start
from training.config import TrainConfig

# Least share of the photo's area in a crop. Inception's own is 0.05: features
# that are fixed, or trained for few steps, cannot learn to recognize a class
# from so little of it.
_LEAST_CROP_AREA = 0.7


class PhotoPasses(NamedTuple):
  """Passes over the photos of some splits."""
  # The next batch: image, label, filename.
  photos: Dict[str, tf.Tensor]
  # {(split, view): op that starts a pass}.
  starts: Dict[Tuple[str, int], tf.Operation]
  # [records] bool, fed to that op: whether a record is used.
  wanted: tf.Tensor
  # {split: its records}.
  records: Dict[str, known_rows.Records]


class Backbone(NamedTuple):
  """The frozen part of a network, and the photos to compute features of."""
  # `[None, height, width, channels]` float32; by default the next batch.
  images: tf.Tensor
  # Where it ends.
  cut: frozen_backbone.Cut
  variables: List[tf.Variable]
  passes: PhotoPasses


class HeadGraph(NamedTuple):
  """Training graph and evaluation graph of a run with a frozen backbone."""
  # Its summary_op needs only features and labels.
  training: training_graph.TrainingGraph
  # Summary of the first photos of the next batch.
  photo_summary: tf.Tensor
  backbone: Backbone
  # `[None]` int64, fed with the features.
  labels: tf.Tensor
  # `[None, classes]` float32, fed instead of labels if they are mixed.
  targets: tf.Tensor
  # It is fed the features.
  twin: inference_twin.InferenceTwin


def build(config: TrainConfig, datasets: Mapping[str, slim.dataset.Dataset],
          info: run_info.RunInfo, network: nets_factory.Network,
          trainable_scopes: Sequence[str],
          session_config: Optional[tf.ConfigProto] = None,
          ends: Sequence[str] = (), **arguments: Any) -> HeadGraph:
  """Builds the HeadGraph in the default graph.

  Args:
    config: TrainConfig of the run.
    datasets: {split: slim Dataset}; 'train' has the training photos.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    trainable_scopes: scopes to train.
    session_config: tf.ConfigProto of the evaluations.
    ends: names of operations after which nothing is cached.
    **arguments: others of training.graph.build.

  Returns:
    A HeadGraph.

  Raises:
    InputError: a trainable scope matches nothing, or no backbone is frozen.
  """
  with tf.device('/device:CPU:0'):
    passes = photo_passes(
        datasets, info, network, config.batch_size,
        config.num_preprocessing_threads, config.cache_views, config.seed,
        fast_mode=config.fast_mode,
        min_crop_area=least_crop_area(config.min_crop_area))
    photo_summary = training_graph.summarize_photos(passes.photos['image'])
  images = batch_of_images(passes)
  labels = tf.placeholder_with_default(passes.photos['label'], [None], 'labels')
  targets = tf.placeholder_with_default(
      slim.one_hot_encoding(labels, len(info.labels)),
      [None, len(info.labels)], 'targets')
  batch = {'image': images, 'label': labels}
  if config.mixup_alpha:
    batch['targets'] = targets
  training = training_graph.build(
      config, datasets['train'], info, network, trainable_scopes,
      next_batch=lambda: batch, **arguments)
  twin = inference_twin.InferenceTwin(info, network,
                                      config.moving_average_decay,
                                      session_config)
  try:
    cut = frozen_backbone.find_cut(
        images, tf.losses.get_losses(),
        warm_start.variables_to_train(trainable_scopes), within=twin.op_names,
        ends=[layers_head.FEATURES, *ends])
  except InputError as error:
    raise InputError('--cache_features: %s; give --trainable_scopes, or '
                     '--nocache_features' % error)
  twin.start_from([tensor.name for tensor in cut.features])
  return HeadGraph(
      training._replace(summary_op=_head_summaries(cut, images)),
      photo_summary, make_backbone(images, cut, passes), labels, targets, twin)


def batch_of_images(passes: PhotoPasses) -> tf.Tensor:
  """Returns the placeholder of a Backbone's images."""
  batch = passes.photos['image']
  return tf.placeholder_with_default(
      batch, [None] + batch.shape.as_list()[1:], 'images')


def make_backbone(images: tf.Tensor, cut: frozen_backbone.Cut,
                  passes: PhotoPasses) -> Backbone:
  """Returns the Backbone of the default graph that ends at a cut."""
  needed = set(frozen_backbone.ancestors(cut.features))
  return Backbone(images, cut,
                  [v for v in tf.global_variables() if v.op in needed], passes)


def photo_passes(datasets: Mapping[str, slim.dataset.Dataset],
                 info: run_info.RunInfo, network: nets_factory.Network,
                 batch_size: int, num_threads: int, num_views: int = 0,
                 seed: Optional[int] = None,
                 **augmentation: Any) -> PhotoPasses:
  """Returns passes over photos, for the default graph.

  View 0 is preprocessed as for evaluation; the other views are augmented.

  Args:
    datasets: {split: slim Dataset}.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    batch_size: photos per batch.
    num_threads: threads that decode photos.
    num_views: augmented views of each training photo.
    seed: of these views.
    **augmentation: options of preprocessing_factory.get_preprocessing.
  """
  wanted = tf.placeholder(tf.bool, [None], 'wanted')
  iterator: Any = None
  starts = {}
  for split, dataset in sorted(datasets.items()):
    for view in range(1 + (num_views if split == 'train' else 0)):
      batches = input_pipeline.evaluation_batches(
          dataset,
          preprocessing_factory.get_preprocessing(
              info.preprocessing_name, is_training=view > 0, **augmentation),
          info.image_size, batch_size, channels=network.channels,
          num_threads=num_threads, labels_offset=info.labels_offset,
          keep=wanted, seed=_view_seed(seed, view) if view else None)
      if iterator is None:
        iterator = tf.data.Iterator.from_structure(
            tf.data.get_output_types(batches),
            tf.data.get_output_shapes(batches))
      starts[split, view] = iterator.make_initializer(batches)
  return PhotoPasses(iterator.get_next(), starts, wanted, {
      split: known_rows.Records(dataset.data_sources, info.labels_offset)
      for split, dataset in datasets.items()})


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
