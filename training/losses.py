"""What training makes small: class weights, smoothed labels, mixed photos.

A photo's label is a row of `targets`, `[batch, classes]` float32, which sums to
1: all on one class, or shared by the classes of two photos that were mixed.

  images, targets = losses.mix_photos(images, targets, alpha=0.2)
  logits, end_points = network_fn(images)
  losses.add_losses(logits, end_points.get('AuxLogits'), targets)
"""

import numpy as np

from compat import tf
from datasets import manifest
from errors import InputError
from runs import checkpoints

# Weight of an auxiliary head's loss, as slim has it. (Szegedy et al. 2014,
# arXiv 1409.4842, has 0.3 for GoogLeNet's two.)
AUX_LOSS_WEIGHT = 0.4

BALANCED = 'balanced'


def class_weights_from_flags(values, info):
  """Returns what a photo of each class counts.

  Args:
    values: the parsed flags.
    info: RunInfo of the run.

  Returns:
    `[classes]` float32, by the network's output; None: each counts 1.

  Raises:
    InputError: --class_weights is wrong, or asks for counts of photos that the
      data set has not.
  """
  text = values.class_weights
  if not text:
    return None
  if text == BALANCED:
    weights = _balanced_weights(info, values.dataset_split_name)
  else:
    weights = _parse_weights(text, info.labels)
  tf.logging.info('Class weights: %s', checkpoints.name_some(
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
        '--class_weights=%s: accepted are %r and %d numbers from 0 on, not all '
        '0, with commas between them: one each for %s' %
        (text, BALANCED, len(labels), checkpoints.name_some(labels)))
  return weights


def _balanced_weights(info, split):
  """Returns photos / (classes * photos of the class) for each class.

  Over all photos the mean weight is 1, so the loss keeps its scale. A class
  without photos has 0, and is not one of the classes.
  """
  path = manifest.path(info.dataset_dir, info.dataset_name)
  found = manifest.load(info.dataset_dir, info.dataset_name)
  advice = 'give the weights themselves: --class_weights=NUMBER,NUMBER,…'
  if found is None or split not in found.splits:
    raise InputError(
        '--class_weights=%s: how many photos each class has stands in %s, '
        'which is missing; convert the photos with ./convert_tfrecord.sh, or %s'
        % (BALANCED, path, advice))
  several = sorted({name for name in info.labels
                    if info.labels.count(name) > 1})
  if several:
    raise InputError(
        '--class_weights=%s: %s counts photos by the name of their class, and '
        'several classes are called %s; %s' %
        (BALANCED, path, checkpoints.name_some(several), advice))
  by_name = found.splits[split]['class_counts']
  counts = [by_name[name] for name in info.labels]
  if not any(counts):
    raise InputError('--class_weights=%s: %s has no %s photos of %s' %
                     (BALANCED, path, split,
                      checkpoints.name_some(info.labels)))
  num_classes = sum(count > 0 for count in counts)
  return [sum(counts) / (num_classes * count) if count else 0.0
          for count in counts]


def add_losses(logits, aux_logits, targets, class_weights=None,
               label_smoothing=0.0):
  """Adds the cross entropy of each head to the collection of losses.

  With class weights it is the mean over the batch of weight * loss, whatever
  the weights: one photo of weight 2 pulls as two photos do. A mixed photo has
  the mixed weight of its classes.

  Args:
    logits: `[batch, classes]` float32.
    aux_logits: the same of the auxiliary head, which counts
      AUX_LOSS_WEIGHT; None where there is none.
    targets: `[batch, classes]` float32, rows sum to 1; not yet smoothed.
    class_weights: `[classes]` float32; None: all are 1.
    label_smoothing: share of each label that is spread over all classes.
  """
  weights, reduction = 1.0, tf.losses.Reduction.SUM_BY_NONZERO_WEIGHTS
  if class_weights is not None:
    weights = tf.linalg.matvec(targets, tf.constant(class_weights, tf.float32))
    # Else a photo of weight 0 would not count as one of the batch.
    reduction = tf.losses.Reduction.SUM_OVER_BATCH_SIZE
  if aux_logits is not None:
    tf.losses.softmax_cross_entropy(
        targets, aux_logits, weights=AUX_LOSS_WEIGHT * weights,
        label_smoothing=label_smoothing, scope='aux_loss', reduction=reduction)
  tf.losses.softmax_cross_entropy(
      targets, logits, weights=weights, label_smoothing=label_smoothing,
      reduction=reduction)


def check_mixing(alpha, batch_size):
  """Raises InputError where photos are to be mixed and a batch has only one."""
  if alpha and batch_size < 2:
    raise InputError(
        '--mixup_alpha=%g mixes the photos of a batch and --batch_size=%d '
        'leaves nothing to mix; give a --batch_size of 2 or more, or '
        '--mixup_alpha=0' % (alpha, batch_size))


def mix_photos(images, targets, alpha):
  """Mixes each photo of a batch with another one, and their labels alike.

  Zhang et al. 2017, mixup: beyond empirical risk minimization, arXiv
  1710.09412, with a share of its own for each photo.

  Args:
    images: `[batch, height, width, channels]` float32, preprocessed.
    targets: `[batch, classes]` float32.
    alpha: of the Beta distribution of the shares; more than 0.

  Returns:
    Images and targets of the same shapes.
  """
  # A Beta(alpha, alpha) number from two Gamma(alpha) ones. With a small alpha
  # most of these are too small for float32.
  size = tf.shape(images)[0]
  parts = tf.random.gamma([2, size], alpha, dtype=tf.float64)
  share = tf.cast(parts[0] / (parts[0] + parts[1]), tf.float32)
  other = tf.random.shuffle(tf.range(size))

  def mix(batch):
    share_of_row = tf.reshape(share, [-1] + [1] * (batch.shape.ndims - 1))
    return (share_of_row * batch +
            (1 - share_of_row) * tf.gather(batch, other))

  return mix(images), mix(targets)


def mix_features(features, targets, alpha, random):
  """Does what `mix_photos` does, in NumPy, for features at one depth.

  That is what Verma et al. 2019, Manifold mixup, arXiv 1806.05236, do at one
  layer. Features of one photo are mixed in the same share.

  Args:
    features: list of arrays `[batch, ...]` float32, as Cut.features.
    targets: `[batch, classes]` float32.
    alpha: of the Beta distribution of the shares; more than 0.
    random: a np.random.RandomState.

  Returns:
    A list of arrays, and the targets.
  """
  share = random.beta(alpha, alpha, len(targets))
  other = random.permutation(len(targets))

  def mix(batch):
    share_of_row = share.reshape([-1] + [1] * (batch.ndim - 1)).astype(
        batch.dtype)
    return share_of_row * batch + (1 - share_of_row) * batch[other]

  return [mix(batch) for batch in features], mix(targets)
