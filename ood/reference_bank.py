"""Reference bank of training features for out-of-distribution detection.

A photo is in-distribution ("known") if it is near training photos and one class
stands out. Out-of-distribution photos often fail only one of the two criteria.

The similarity of a photo is the mean, over its k nearest training photos, of
its cosine to that one less LOCAL_SHARE times the local density there (the
neighbour's mean cosine to its own k nearest). Features are those before the
classifier, scaled to length 1. Similarity and largest logit are standardized by
the validation photos; the score is their soft minimum: close to the lower one,
and lower still if both are low. Photos with a score from a threshold on are
known.

Nearest neighbours for this: Y. Sun, Y. Ming, X. Zhu, Y. Li: Out-of-Distribution
Detection with Deep Nearest Neighbors, arXiv 2204.06507. Comparison with a
neighbour's local density: M. M. Breunig et al.: LOF, SIGMOD 2000. Largest
logit: D. Hendrycks et al., arXiv 1911.11132. docs/unknown.md has the
alternatives that were tried, with results.

`known.npz` is in the folder of the checkpoint that its features are from.
"""

import os
import zipfile
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common import files
from common.errors import InputError
from runs import checkpoints

FILE_NAME = 'known.npz'

# k, the number of nearest neighbours.
NUM_NEIGHBOURS = 10

# Share of a neighbour's local density that is subtracted.
LOCAL_SHARE = 0.5

# Sharpness of the soft minimum.
SHARPNESS = 2.0

# Training photos in the bank, and the least number per class, which may exceed
# that. Comparing one photo with 2,000, with 1,024 features each, costs 1 % of
# running MobileNet V1 on it.
MAX_PHOTOS = 2000
LEAST_A_CLASS = 5

# Share of the validation photos that are known at the threshold.
ACCEPTED = 0.95

# Margin of the threshold below the photo that sets it, so that rounding, with
# another order of summation, does not refuse that photo.
_MARGIN = 1e-4

# Least standard deviation, for photos that are all alike or a single photo.
_LEAST_SPREAD = 1e-3

# File format version, stored in each file.
_FORM = 1

# Photos that are compared at once: 80 MB with a bank of 5,000 photos.
_ROWS = 4096


class Bank(NamedTuple):
  """Training photos to compare with, and the threshold of the OOD score.

  The optional fields are None until `build` and `set_threshold` set them.
  """

  # [n, d] float32, rows of length 1.
  features: np.ndarray
  # [n] int64.
  labels: np.ndarray
  # One per row.
  filenames: List[str]
  # [n] int64, numbers of the photos' records in the training split.
  positions: np.ndarray
  # [n] float32, mean cosine to the k nearest other rows.
  local_density: np.ndarray
  # k.
  num_neighbours: int
  # [2] float32, mean of similarity and largest logit over the photos that set
  # the threshold.
  center: Optional[np.ndarray] = None
  # [2] float32, their standard deviation.
  spread: Optional[np.ndarray] = None
  # The least score of a known photo.
  threshold: Optional[float] = None
  # How many photos set the threshold.
  photos: int = 0
  # How many of these are below it.
  refused: int = 0
  # Their split.
  split: Optional[str] = None
  # Global step of the checkpoint.
  step: Optional[int] = None
  # Digest of the checkpoint.
  digest: Optional[str] = None
  # Fingerprint of the records of all these photos.
  records: Optional[str] = None
  # None for the plain variables.
  moving_average_decay: Optional[float] = None
  # With which the features were computed; None: float32.
  precision: Optional[str] = None


# Names in the file where they differ from those of the fields.
_FILE_KEYS = {'local_density': 'usual'}

_ARRAYS = ('features', 'labels', 'positions', 'local_density', 'center',
           'spread')


def choose(labels: np.ndarray, limit: int = MAX_PHOTOS,
           least: int = LEAST_A_CLASS) -> np.ndarray:
  """Chooses the photos of a bank: all, or equally many of each class.

  Args:
    labels: [photos] integers.
    limit: largest number of photos, but at least `least` per class if it has
      them.
    least: number of photos.

  Returns:
    [chosen] positions, in rising order; deterministic.
  """
  labels = np.asarray(labels, np.int64)
  counts = np.bincount(labels)
  most = _most_per_class(counts[counts > 0], limit, least)
  order = np.random.RandomState(0).permutation(len(labels))
  # Rank of each photo within its class, in that order.
  by_class = order[np.argsort(labels[order], kind='stable')]
  starts = np.cumsum(counts) - counts
  rank = np.arange(len(labels)) - starts[labels[by_class]]
  return np.sort(by_class[rank < most])


def _most_per_class(counts: np.ndarray, limit: int, least: int) -> int:
  """Returns the largest number of photos per class that fits the limit."""
  low, high = least, max(counts.max(initial=1), least)
  while low < high:
    middle = (low + high + 1) // 2
    if np.minimum(counts, middle).sum() <= limit:
      low = middle
    else:
      high = middle - 1
  return low


def build(features: np.ndarray, labels: np.ndarray,
          filenames: Sequence[str], positions: np.ndarray, checkpoint: str,
          records: str, moving_average_decay: Optional[float] = None) -> Bank:
  """Builds the Bank of a checkpoint, without a threshold.

  Args:
    features: [n, d] floats, of the chosen training photos.
    labels: [n] integers.
    filenames: list of n str.
    positions: [n] numbers of their records.
    checkpoint: prefix of the checkpoint that the features are from.
    records: fingerprint of the records of the photos.
    moving_average_decay: decay of the averages that were used; None: the plain
      variables.

  Raises:
    InputError: there are fewer than two photos, or a feature is not finite.
  """
  return assemble(features, labels)._replace(
      filenames=list(filenames), positions=np.asarray(positions, np.int64),
      step=checkpoints.read_global_step(checkpoint),
      digest=checkpoints.digest(checkpoint), records=records,
      moving_average_decay=moving_average_decay)


def assemble(features: np.ndarray, labels: np.ndarray) -> Bank:
  """Builds a Bank without the facts about photos and checkpoint.

  Args:
    features: [n, d] floats.
    labels: [n] integers.

  Raises:
    InputError: there are fewer than two photos, or a feature is not finite.
  """
  if len(labels) < 2:
    raise InputError('at least two training photos are needed to compare '
                     'with, got %d' % len(labels))
  rows = normalize(features)
  k = min(NUM_NEIGHBOURS, len(labels) - 1)
  local_density = np.empty(len(rows), np.float32)
  for start in range(0, len(rows), _ROWS):
    cosines = rows[start:start + _ROWS] @ rows.T
    own_rows = np.arange(len(cosines))
    cosines[own_rows, start + own_rows] = -np.inf  # Not to itself.
    local_density[start:start + _ROWS] = np.partition(
        cosines, -k, axis=1)[:, -k:].mean(axis=1)
  return Bank(
      features=rows, labels=np.asarray(labels, np.int64),
      filenames=[''] * len(rows), positions=np.arange(len(rows)),
      local_density=local_density, num_neighbours=k)


def normalize(features: np.ndarray) -> np.ndarray:
  """Scales rows to length 1; rows of zeros stay as they are.

  Args:
    features: [n, d] floats.

  Raises:
    InputError: a feature is not finite.
  """
  features = np.asarray(features, np.float32)
  if not np.all(np.isfinite(features)):
    raise InputError('the network returns features that are not finite: the '
                     'checkpoint is from a failed run')
  lengths = np.sqrt(np.square(features).sum(axis=1, keepdims=True))
  return features / np.maximum(lengths, 1e-12)


def similarities(bank: Bank, features: np.ndarray) -> np.ndarray:
  """Returns the similarity of photos to the bank: [photos] float32.

  Args:
    bank: Bank.
    features: [photos, d] floats.
  """
  parts = []
  rows = normalize(features)
  for start in range(0, len(rows), _ROWS):
    cosines = rows[start:start + _ROWS] @ bank.features.T
    k = bank.num_neighbours
    places = np.argpartition(cosines, -k, axis=1)[:, -k:]
    parts.append(np.mean(np.take_along_axis(cosines, places, axis=1) -
                         LOCAL_SHARE * bank.local_density[places], axis=1))
  return np.concatenate(parts) if parts else np.zeros([0], np.float32)


def nearest(bank: Bank, features: np.ndarray,
            count: int) -> Tuple[np.ndarray, np.ndarray]:
  """Returns the photos of the bank that are nearest to each photo.

  Args:
    bank: Bank.
    features: [photos, d] floats.
    count: how many per photo.

  Returns:
    [photos, count] rows of the bank, nearest first, and their cosines.
  """
  cosines = normalize(features) @ bank.features.T
  rows = np.argsort(-cosines, axis=1, kind='stable')[:, :count]
  return rows, np.take_along_axis(cosines, rows, axis=1)


def scores(bank: Bank, found: np.ndarray, logits: np.ndarray) -> np.ndarray:
  """Returns the OOD scores of photos: [photos] float32, higher if known.

  Args:
    bank: Bank with a threshold.
    found: [photos] floats, their similarities to the bank.
    logits: [photos, classes] floats.
  """
  assert bank.center is not None and bank.spread is not None
  both = np.stack([found, np.max(logits, axis=1)], axis=1).astype(np.float32)
  standard = (both - bank.center) / bank.spread
  return -np.logaddexp.reduce(-SHARPNESS * standard, axis=1) / SHARPNESS


def set_threshold(bank: Bank, found: np.ndarray, logits: np.ndarray,
                  split: str, accepted: float = ACCEPTED) -> Bank:
  """Returns the Bank with the threshold at which a share of photos is known.

  Args:
    bank: Bank.
    found: [photos] similarities of photos that are not in the bank.
    logits: [photos, classes] floats.
    split: name of their split.
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
  # Rounded down; 1e-9 allows for rounding errors.
  refused = int(len(ranked) * (1 - accepted) + 1e-9)
  threshold = float(ranked[refused])
  # Photos of equal score are accepted together or not at all.
  below = float(max(ranked[ranked < ranked[refused]], default=-np.inf))
  threshold -= min(_MARGIN, (threshold - below) / 2)
  return bank._replace(threshold=threshold, photos=len(ranked),
                       refused=int(np.sum(ranked < threshold)), split=split)


def path(checkpoint: str) -> str:
  """Returns the path of the bank of a checkpoint."""
  return os.path.join(os.path.dirname(checkpoint), FILE_NAME)


def save(checkpoint: str, bank: Bank) -> None:
  """Writes a Bank next to its checkpoint, whole or not at all."""
  facts: Dict[str, Any] = {
      _FILE_KEYS.get(field, field): value
      for field, value in bank._asdict().items() if value is not None}
  facts['filenames'] = np.array(
      [text.encode('utf-8', 'surrogateescape') for text in bank.filenames])
  with files.replacing(path(checkpoint)) as part:
    np.savez(part, form=_FORM, **facts)


def load(checkpoint: str, records: Optional[str] = None,
         moving_average_decay: Optional[float] = None,
         precision: Optional[str] = None) -> Optional[Bank]:
  """Reads the Bank of a checkpoint.

  Args:
    checkpoint: prefix of a checkpoint.
    records: fingerprint of the records that it must be from; None: any.
    moving_average_decay: decay of the moving averages that are used, None for
      the plain variables.
    precision: with which its features must be computed; None: any.

  Returns:
    A Bank; None if there is none, or if it is damaged or from other weights: it
    can be built again.
  """
  name = path(checkpoint)
  try:
    if not zipfile.is_zipfile(name):  # NumPy would warn twice.
      return None
    with np.load(name) as stored:
      facts = {field: stored[field] for field in stored.files}
    if int(facts.pop('form')) != _FORM:
      return None
    values: Dict[str, Any] = {
        field: facts[_FILE_KEYS.get(field, field)] for field in Bank._fields
        if field in facts or
        field not in ('moving_average_decay', 'precision')}
    for field, value in values.items():
      if field == 'filenames':
        values[field] = [text.decode('utf-8', 'surrogateescape')
                         for text in value]
      elif field not in _ARRAYS:
        values[field] = value.item()
    bank = Bank(**values)
  # zipfile raises RuntimeError for invalid flags in the file.
  except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError,
          RuntimeError, zipfile.BadZipFile):
    return None
  if (bank.digest != checkpoints.digest(checkpoint) or
      records not in (None, bank.records) or
      precision not in (None, bank.precision or 'float32') or
      (bank.moving_average_decay or None) != (moving_average_decay or None)):
    return None
  return bank
