"""Training losses: class weights, label smoothing, mixup.

A photo's label is a row of `targets`, `[batch, classes]` float32, which sums to
1: all on one class, or split between the classes of two mixed photos.

  images, targets = losses.mix_photos(images, targets, alpha=0.2)
  logits, end_points = network_fn(images)
  losses.add_losses(logits, end_points.get('AuxLogits'), targets)
"""

from typing import List, Optional, Tuple

import numpy as np

from common.errors import InputError, name_some
from compat import tf
from datasets import manifest
from runs import run_info

# Weight of an auxiliary head's loss, as slim has it. (Szegedy et al. 2014,
# arXiv 1409.4842, has 0.3 for GoogLeNet's two.)
AUX_LOSS_WEIGHT = 0.4

BALANCED = 'balanced'


def make_class_weights(text: Optional[str], info: run_info.RunInfo,
                       split: str) -> Optional[np.ndarray]:
  """Returns the weight of a photo of each class.

  Args:
    text: comma-separated numbers, or BALANCED; None or '': all weights are 1.
    info: RunInfo of the run.
    split: name of the split that is trained on.

  Returns:
    `[classes]` float32, by the network's output; None: all weights are 1.

  Raises:
    InputError: --class_weights is invalid, or needs photo counts that the data
      set does not have.
  """
  if not text:
    return None
  if text == BALANCED:
    weights = _balanced_weights(info, split)
  else:
    weights = _parse_weights(text, info.labels)
  tf.logging.info('Class weights: %s', name_some(
      ['%.4g %s' % row for row in zip(weights, info.labels)]))
  return np.array(weights, np.float32)


def _parse_weights(text, labels):
  try:
    weights = [float(part) for part in text.split(',')]
  except ValueError:
    weights = []
  if len(weights) != len(labels) or not any(weights) or not all(
      0 <= weight < float('inf') for weight in weights):
    raise InputError(
        '--class_weights=%s: must be %r or %d comma-separated numbers, none '
        'negative and not all 0: one each for %s' %
        (text, BALANCED, len(labels), name_some(labels)))
  return weights


def _balanced_weights(info, split):
  """Returns photos / (classes * photos of the class) for each class.

  The mean weight over all photos is 1, so the loss keeps its scale. A class
  without photos has weight 0 and is not counted among the classes.
  """
  path = manifest.path(info.dataset_dir, info.dataset_name)
  photo_counts = manifest.load(info.dataset_dir, info.dataset_name)
  advice = 'give the weights themselves: --class_weights=NUMBER,NUMBER,…'
  if photo_counts is None or split not in photo_counts.splits:
    raise InputError(
        '--class_weights=%s: the number of photos per class is in %s, which is '
        'missing; convert the photos with ./convert_tfrecord.sh, or %s'
        % (BALANCED, path, advice))
  repeated = sorted({name for name in info.labels
                    if info.labels.count(name) > 1})
  if repeated:
    raise InputError(
        '--class_weights=%s: %s counts photos by class name, and several '
        'classes are called %s; %s' %
        (BALANCED, path, name_some(repeated), advice))
  by_name = photo_counts.splits[split]['class_counts']
  counts = [by_name[name] for name in info.labels]
  if not any(counts):
    raise InputError('--class_weights=%s: %s has no %s photos of %s' %
                     (BALANCED, path, split,
                      name_some(info.labels)))
  num_classes = sum(count > 0 for count in counts)
  return [sum(counts) / (num_classes * count) if count else 0.0
          for count in counts]


def add_losses(logits: tf.Tensor, aux_logits: Optional[tf.Tensor],
               targets: tf.Tensor, class_weights: Optional[np.ndarray] = None,
               label_smoothing: float = 0.0) -> None:
  """Adds the cross entropy of each head to the collection of losses.

  With class weights it is the mean of weight * loss over the batch, not divided
  by the weights: one photo of weight 2 counts as two photos. A mixed photo has
  the mixed weight of its classes.

  Args:
    logits: `[batch, classes]` float32.
    aux_logits: the same of the auxiliary head, whose loss is weighted by
      AUX_LOSS_WEIGHT; None if there is none.
    targets: `[batch, classes]` float32, rows sum to 1; not yet smoothed.
    class_weights: `[classes]` float32; None: all are 1.
    label_smoothing: share of each label that is spread over all classes.
  """
  weights, reduction = 1.0, tf.losses.Reduction.SUM_BY_NONZERO_WEIGHTS
  if class_weights is not None:
    weights = tf.linalg.matvec(targets, tf.constant(class_weights, tf.float32))
    # Otherwise photos of weight 0 would not count in the batch size.
    reduction = tf.losses.Reduction.SUM_OVER_BATCH_SIZE
  if aux_logits is not None:
    tf.losses.softmax_cross_entropy(
        targets, aux_logits, weights=AUX_LOSS_WEIGHT * weights,
        label_smoothing=label_smoothing, scope='aux_loss', reduction=reduction)
  tf.losses.softmax_cross_entropy(
      targets, logits, weights=weights, label_smoothing=label_smoothing,
      reduction=reduction)


def check_mixing(alpha: float, batch_size: int) -> None:
  """Raises InputError if photos are to be mixed but a batch has only one."""
  if alpha and batch_size < 2:
    raise InputError(
        '--mixup_alpha=%g mixes the photos of a batch, but --batch_size=%d '
        'leaves nothing to mix; give a --batch_size of 2 or more, or '
        '--mixup_alpha=0' % (alpha, batch_size))


def mix_photos(images: tf.Tensor, targets: tf.Tensor,
               alpha: float) -> Tuple[tf.Tensor, tf.Tensor]:
  """Mixes each photo of a batch with another one, and their labels equally.

  Zhang et al. 2017, mixup: beyond empirical risk minimization, arXiv
  1710.09412, with a separate share for each photo.

  Args:
    images: `[batch, height, width, channels]` float32, preprocessed.
    targets: `[batch, classes]` float32.
    alpha: of the Beta distribution of the shares; more than 0.

  Returns:
    Images and targets of the same shapes.
  """
  # A Beta(alpha, alpha) sample from two Gamma(alpha) samples, most of which
  # underflow in float32 with a small alpha.
  size = tf.shape(images)[0]
  parts = tf.random.gamma([2, size], alpha, dtype=tf.float64)
  share = tf.cast(parts[0] / (parts[0] + parts[1]), tf.float32)
  other = tf.random.shuffle(tf.range(size))

  def mix(batch):
    share_of_row = tf.reshape(share, [-1] + [1] * (batch.shape.ndims - 1))
    return (share_of_row * batch +
            (1 - share_of_row) * tf.gather(batch, other))

  return mix(images), mix(targets)


def mix_features(
    features: List[np.ndarray], targets: np.ndarray, alpha: float,
    random: np.random.RandomState) -> Tuple[List[np.ndarray], np.ndarray]:
  """Mixes features of one depth as `mix_photos` mixes photos, in NumPy.

  Verma et al. 2019, Manifold mixup, arXiv 1806.05236, do this at one layer. All
  features of a photo are mixed with the same share.

  Args:
    features: list of arrays `[batch, ...]` float32, one per Cut.features.
    targets: `[batch, classes]` float32.
    alpha: of the Beta distribution of the shares; more than 0.
    random: a np.random.RandomState.

  Returns:
    Features and targets of the same shapes.
  """
  share = random.beta(alpha, alpha, len(targets))
  other = random.permutation(len(targets))

  def mix(batch):
    share_of_row = share.reshape([-1] + [1] * (batch.ndim - 1)).astype(
        batch.dtype)
    return share_of_row * batch + (1 - share_of_row) * batch[other]

  return [mix(batch) for batch in features], mix(targets)
