"""Training photos as a network sees them, to know what it does not know.

Two things are asked of a photo: that it lies near training photos, and that one
class stands out. A photo of something else may well fail at one of them only.

Its similarity is the cosine to each of its k nearest training photos, less
LOCAL_SHARE times what is usual for that one (its mean cosine to its own k
nearest); and the mean of that. Features are those before the classifier, scaled
to length 1. Similarity and largest logit are each standardized by the
validation photos, and the score is their soft minimum: about the lower one, and
less where both are low. The photo is known from a threshold on.

Nearest neighbours for this: Y. Sun, Y. Ming, X. Zhu, Y. Li: Out-of-Distribution
Detection with Deep Nearest Neighbors, arXiv 2204.06507. Comparing with what is
usual around a neighbour: M. M. Breunig et al.: LOF, SIGMOD 2000. The largest
logit: D. Hendrycks et al., arXiv 1911.11132. docs/unknown.md has what else was
tried, and what each is worth.

`known.npz` lies beside the checkpoint that its features are of.
"""

import collections
import os
import zipfile

import numpy as np

from errors import InputError
from runs import checkpoints

FILE_NAME = 'known.npz'

# Neighbours that count.
NUM_NEIGHBOURS = 10

# How much of what is usual around a neighbour is taken off.
LOCAL_SHARE = 0.5

# How hard the soft minimum is.
SHARPNESS = 2.0

# Training photos that are kept, and how many of each class even where that is
# more. With 1,024 features each, to compare one photo with 2,000 is 1 % of what
# MobileNet V1 takes for it.
MAX_PHOTOS = 2000
LEAST_A_CLASS = 5

# Share of the validation photos that count as known.
ACCEPTED = 0.95

# Of the threshold, below the photo that sets it: another order of the same sum
# must not refuse it.
_MARGIN = 1e-4

# Where all photos are alike, or there is one.
_LEAST_SPREAD = 1e-3

# Part of each file: raised when what is in it changes.
_FORM = 1

# Photos that are compared at once: 80 MB with 5,000 in the bank.
_ROWS = 4096

# features: [n, d] float32, rows of length 1. labels: [n] int64. filenames: list
# of n texts. positions: [n] int64, numbers of their records in the training
# split. usual: [n] float32. num_neighbours: k.
# center, spread: [2] float32, mean and standard deviation of similarity and
# largest logit over the photos that the threshold was set with.
# threshold: the least score of a known photo; photos: how many set it; refused:
# how many of these are below; split: its name.
# step, digest: of the checkpoint. records: fingerprint of the photos that both
# were taken from. moving_average_decay: None for the variables.
Bank = collections.namedtuple(
    'Bank', 'features labels filenames positions usual num_neighbours center '
    'spread threshold photos refused split step digest records '
    'moving_average_decay', defaults=(None,))

_ARRAYS = ('features', 'labels', 'positions', 'usual', 'center', 'spread')


def choose(labels, limit=MAX_PHOTOS):
  """Chooses the photos of a bank: as many of each class as there are, or fit.

  Args:
    labels: [photos] integers.
    limit: photos at most; but LEAST_A_CLASS of a class that has them.

  Returns:
    [chosen] positions, in rising order: the same each time.
  """
  labels = np.asarray(labels, np.int64)
  counts = np.bincount(labels)
  most = _most_a_class(counts[counts > 0], limit)
  order = np.random.RandomState(0).permutation(len(labels))
  # The number of each photo among those of its class, in that order.
  by_class = order[np.argsort(labels[order], kind='stable')]
  starts = np.cumsum(counts) - counts
  rank = np.arange(len(labels)) - starts[labels[by_class]]
  return np.sort(by_class[rank < most])


def _most_a_class(counts, limit):
  """Returns the largest number a class with which all classes fit."""
  low, high = LEAST_A_CLASS, max(counts.max(initial=1), LEAST_A_CLASS)
  while low < high:
    middle = (low + high + 1) // 2
    if np.minimum(counts, middle).sum() <= limit:
      low = middle
    else:
      high = middle - 1
  return low


def build(features, labels, filenames, positions, checkpoint, records,
          moving_average_decay=None):
  """Builds the Bank of a checkpoint; it has no threshold yet.

  Args:
    features: [n, d] floats: of the chosen training photos.
    labels: [n] integers.
    filenames: list of n texts.
    positions: [n] numbers of their records.
    checkpoint: prefix of the checkpoint that the features are of.
    records: fingerprint of the records that they come from.
    moving_average_decay: of the averages that gave them; None: the variables.

  Raises:
    InputError: there are fewer than two photos, or a feature is not finite.
  """
  return assemble(features, labels)._replace(
      filenames=list(filenames), positions=np.asarray(positions, np.int64),
      step=checkpoints.read_global_step(checkpoint),
      digest=checkpoints.digest(checkpoint), records=records,
      moving_average_decay=moving_average_decay)


def assemble(features, labels):
  """Returns a Bank of photos alone: nothing says where they come from.

  Args:
    features: [n, d] floats.
    labels: [n] integers.

  Raises:
    InputError: there are fewer than two photos, or a feature is not finite.
  """
  if len(labels) < 2:
    raise InputError('two training photos at least are needed to compare '
                     'with, got %d' % len(labels))
  rows = normalize(features)
  k = min(NUM_NEIGHBOURS, len(labels) - 1)
  usual = np.empty(len(rows), np.float32)
  for start in range(0, len(rows), _ROWS):
    cosines = rows[start:start + _ROWS] @ rows.T
    inside = np.arange(len(cosines))
    cosines[inside, start + inside] = -np.inf  # Itself.
    usual[start:start + _ROWS] = np.partition(
        cosines, -k, axis=1)[:, -k:].mean(axis=1)
  return Bank(
      features=rows, labels=np.asarray(labels, np.int64),
      filenames=[''] * len(rows), positions=np.arange(len(rows)), usual=usual,
      num_neighbours=k, center=None, spread=None, threshold=None, photos=0,
      refused=0, split=None, step=None, digest=None, records=None,
      moving_average_decay=None)


def normalize(features):
  """Scales rows to length 1; one of zeros stays.

  Args:
    features: [n, d] floats.

  Raises:
    InputError: a feature is not finite.
  """
  features = np.asarray(features, np.float32)
  if not np.all(np.isfinite(features)):
    raise InputError('the network gives features that are not finite: the '
                     'checkpoint is of a run that failed')
  lengths = np.sqrt(np.square(features).sum(axis=1, keepdims=True))
  return features / np.maximum(lengths, 1e-12)


def similarities(bank, features):
  """Returns how near photos are to the bank: [photos] float32.

  Args:
    bank: Bank.
    features: [photos, d] floats.
  """
  found = []
  rows = normalize(features)
  for start in range(0, len(rows), _ROWS):
    cosines = rows[start:start + _ROWS] @ bank.features.T
    k = bank.num_neighbours
    nearest = np.argpartition(cosines, -k, axis=1)[:, -k:]
    found.append(np.mean(np.take_along_axis(cosines, nearest, axis=1) -
                         LOCAL_SHARE * bank.usual[nearest], axis=1))
  return np.concatenate(found) if found else np.zeros([0], np.float32)


def nearest(bank, features, count):
  """Returns the photos of the bank that are nearest to each of some photos.

  Args:
    bank: Bank.
    features: [photos, d] floats.
    count: how many a photo.

  Returns:
    [photos, count] rows of the bank, nearest first, and their cosines.
  """
  cosines = normalize(features) @ bank.features.T
  rows = np.argsort(-cosines, axis=1, kind='stable')[:, :count]
  return rows, np.take_along_axis(cosines, rows, axis=1)


def scores(bank, found, logits):
  """Returns by how much photos are known: [photos] float32.

  Args:
    bank: Bank with a threshold.
    found: [photos] floats, their similarities.
    logits: [photos, classes] floats.
  """
  both = np.stack([found, np.max(logits, axis=1)], axis=1).astype(np.float32)
  standard = (both - bank.center) / bank.spread
  return -np.logaddexp.reduce(-SHARPNESS * standard, axis=1) / SHARPNESS


def set_threshold(bank, found, logits, split, accepted=ACCEPTED):
  """Returns the Bank with the threshold at which a share of photos is known.

  Args:
    bank: Bank.
    found: [photos] similarities of photos that are not in it.
    logits: [photos, classes] floats.
    split: name of the split that they are of.
    accepted: the share.

  Raises:
    InputError: there is no photo.
  """
  if not len(found):
    raise InputError('no photo to set the threshold with')
  both = np.stack([found, np.max(logits, axis=1)], axis=1)
  bank = bank._replace(
      center=both.mean(axis=0).astype(np.float32),
      spread=np.maximum(both.std(axis=0), _LEAST_SPREAD).astype(np.float32))
  ranked = np.sort(scores(bank, found, logits))
  # Half a photo is not refused.
  refused = int(len(ranked) * (1 - accepted) + 1e-9)
  threshold = float(ranked[refused])
  # Of equal scores all are accepted, or none.
  below = float(max(ranked[ranked < ranked[refused]], default=-np.inf))
  threshold -= min(_MARGIN, (threshold - below) / 2)
  return bank._replace(threshold=threshold, photos=len(ranked),
                       refused=int(np.sum(ranked < threshold)), split=split)


def path(checkpoint):
  """Returns where the bank of a checkpoint is kept."""
  return os.path.join(os.path.dirname(checkpoint), FILE_NAME)


def save(checkpoint, bank):
  """Writes a Bank beside its checkpoint, whole or not at all."""
  name = path(checkpoint)
  aside = '%s.%d.tmp' % (name, os.getpid())
  facts = {field: value for field, value in bank._asdict().items()
           if value is not None}
  facts['filenames'] = np.array(
      [text.encode('utf-8', 'surrogateescape') for text in bank.filenames])
  try:
    with open(aside, 'wb') as stream:
      np.savez(stream, form=_FORM, **facts)
    os.replace(aside, name)
  finally:
    if os.path.exists(aside):
      os.remove(aside)


def load(checkpoint, records=None, moving_average_decay=None):
  """Reads the Bank of exactly these weights.

  Args:
    checkpoint: prefix of a checkpoint.
    records: fingerprint of the records that it must be of; None: any.
    moving_average_decay: of the moving averages that are used, None for the
      plain variables.

  Returns:
    A Bank; None where there is none, or it is damaged or of other weights: it
    can be built again.
  """
  name = path(checkpoint)
  try:
    if not zipfile.is_zipfile(name):  # NumPy complains twice of what is none.
      return None
    with np.load(name) as kept:
      facts = {name: kept[name] for name in kept.files}
    if int(facts.pop('form')) != _FORM:
      return None
    bank = Bank(**{
        field: facts[field] if field in _ARRAYS else
        [text.decode('utf-8', 'surrogateescape') for text in facts[field]]
        if field == 'filenames' else
        facts[field].item()
        for field in Bank._fields
        if field in facts or field != 'moving_average_decay'})
  # zipfile raises RuntimeError for flags in it that make no sense.
  except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError,
          RuntimeError, zipfile.BadZipFile):
    return None
  if (bank.digest != checkpoints.digest(checkpoint) or
      records not in (None, bank.records) or
      (bank.moving_average_decay or None) != (moving_average_decay or None)):
    return None
  return bank
