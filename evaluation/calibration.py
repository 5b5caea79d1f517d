"""Calibration of a classifier's scores: temperature and thresholds.

Of the photos with a score of 0.9, nine in ten should be right; most networks
are overconfident. A single number corrects most of it: the temperature T, by
which the logits are divided before the softmax. It changes the scores, but no
prediction.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On Calibration of Modern Neural
Networks, arXiv 1706.04599: temperature scaling in section 4.2, expected
calibration error and reliability diagram in section 2.

`calibration.json` is in the folder of the checkpoint that it calibrates.
"""

import json
import math
import os
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common import files
from common.errors import InputError
from runs import checkpoints

FILE_NAME = 'calibration.json'

# Most bins of equal width of the reliability diagram, those of the paper's
# figures. There are fewer if they had fewer photos than this on average.
NUM_BINS = 15
_LEAST_BINS = 4
_PHOTOS_PER_BIN = 20

# Relative precision of 1 / T at which the search ends.
_PRECISION = 1e-10
# This many doublings or halvings reach any temperature that floats can use.
_MAX_DOUBLINGS = 60
_MAX_STEPS = 200
# Photos processed at once: 33 MB of float64 logits with 1001 classes.
_ROWS = 4096


class Calibration(NamedTuple):
  """The temperature of a checkpoint."""

  temperature: float
  # Expected calibration error on the photos below, without the temperature.
  ece_before: float
  # The same with the temperature.
  ece_after: float
  # The split that the temperature was fitted on.
  split: str
  # How many photos it has.
  photos: int
  # Global step of the checkpoint.
  step: int
  # Digest of the checkpoint.
  digest: str
  # None for the plain variables.
  moving_average_decay: Optional[float]


class Bin(NamedTuple):
  """One bar of a reliability diagram."""

  # Edges.
  low: float
  high: float
  # How many photos have a score in it.
  photos: int
  # Their mean score, None without photos.
  score: Optional[float]
  # The share of them that is right, None without photos.
  accuracy: Optional[float]


class Threshold(NamedTuple):
  """A least score to accept, and what it accepts."""

  # Share that should be right.
  target: float
  # None if no score reaches the target.
  threshold: Optional[float]
  # How many photos have at least that score.
  photos: int
  # How many of these are right.
  right: int


class NoTemperature(ValueError):
  """The photos do not determine a best temperature."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
  """Finds the temperature with the lowest mean negative log likelihood.

  The negative log likelihood is convex in 1 / T, so Newton steps inside a
  bracket of the minimum find it from any start.

  Args:
    logits: [photos, classes] floats.
    labels: [photos] integers.

  Returns:
    A float greater than 0.

  Raises:
    NoTemperature: there is no best temperature: no photos, all photos are
      right, or the logits are no better than chance.
    InputError: a logit is not finite.
  """
  logits, labels = np.asarray(logits), np.asarray(labels)
  if not len(labels):
    raise NoTemperature('there is no photo')
  if not np.all(np.isfinite(logits)):
    raise InputError('the network returns logits that are not finite: the '
                     'checkpoint is from a failed run')
  label_logits = logits[np.arange(len(labels)), labels]
  if np.all(label_logits >= logits.max(axis=1)):
    raise NoTemperature('all %d photos are right, so any lower temperature '
                        'looks better' % len(labels))
  if _slope(0.0, logits, labels)[0] >= 0:
    raise NoTemperature('the scores of the %d photos are no better than '
                        'chance' % len(labels))
  low, high = _bracket(logits, labels)
  inverse = math.sqrt(low * high)
  for _ in range(_MAX_STEPS):
    slope, curvature = _slope(inverse, logits, labels)
    if slope < 0:
      low = inverse
    else:
      high = inverse
    newton = inverse - slope / curvature if curvature > 0 else math.inf
    next_inverse = newton if low < newton < high else math.sqrt(low * high)
    done = abs(next_inverse - inverse) <= _PRECISION * inverse
    inverse = next_inverse
    if done:
      break
  return 1 / inverse


def _bracket(logits, labels):
  """Returns two values of 1 / T with the minimum between them."""
  low = high = 1.0
  for _ in range(_MAX_DOUBLINGS):
    if _slope(high, logits, labels)[0] >= 0:
      break
    low, high = high, high * 2
  for _ in range(_MAX_DOUBLINGS):
    if _slope(low, logits, labels)[0] <= 0:
      break
    low, high = low / 2, low
  return low, high


def _slope(inverse, logits, labels):
  """Returns the first two derivatives of the mean loss with respect to 1 / T.

  They are the mean of (expected logit - the label's logit), and the mean
  variance of the logits, both under softmax(logits / T).
  """
  first = second = 0.0
  for start in range(0, len(labels), _ROWS):
    rows = logits[start:start + _ROWS].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    weights = softmax(rows * inverse)
    mean = np.sum(weights * rows, axis=1)
    label_logits = rows[np.arange(len(rows)), labels[start:start + _ROWS]]
    first += np.sum(mean - label_logits)
    second += np.sum(weights * (rows - mean[:, np.newaxis]) ** 2)
  return first / len(labels), second / len(labels)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
  """Returns softmax(logits / temperature) of each row, as float64."""
  scaled = np.asarray(logits, np.float64) / temperature
  powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
  return powers / powers.sum(axis=1, keepdims=True)


def reliability(probabilities: np.ndarray, labels: np.ndarray,
                num_bins: Optional[int] = None) -> List[Bin]:
  """Bins photos by the score of their predicted class.

  Args:
    probabilities: [photos, classes] floats.
    labels: [photos] integers.
    num_bins: bins of equal width over the scores 0 to 1; None: as many as the
      photos allow, 4 to NUM_BINS. A score on an edge belongs to the lower bin,
      as in the paper.

  Returns:
    A list of num_bins Bins.
  """
  scores, right = scores_of(probabilities, labels)
  num_bins = num_bins or min(
      NUM_BINS, max(_LEAST_BINS, len(scores) // _PHOTOS_PER_BIN))
  indices = np.clip(np.ceil(scores * num_bins).astype(int) - 1, 0, num_bins - 1)
  bins = []
  for index in range(num_bins):
    inside = indices == index
    photos = int(inside.sum())
    bins.append(Bin(
        index / num_bins, (index + 1) / num_bins, photos,
        float(scores[inside].mean()) if photos else None,
        float(right[inside].mean()) if photos else None))
  return bins


def scores_of(probabilities: np.ndarray, labels: np.ndarray
              ) -> Tuple[np.ndarray, np.ndarray]:
  """Returns each photo's highest score, and whether its class is right.

  Args:
    probabilities: [photos, classes] floats.
    labels: [photos] integers.
  """
  probabilities = np.asarray(probabilities)
  right = probabilities.argmax(axis=1) == np.asarray(labels)
  return probabilities.max(axis=1), right


def expected_calibration_error(bins: Sequence[Bin]) -> float:
  """Returns the mean gap between score and accuracy, weighted by photos.

  Args:
    bins: what `reliability` returns, of at least one photo.
  """
  total = sum(b.photos for b in bins)
  return sum(b.photos * abs(b.score - b.accuracy) for b in bins
             if b.score is not None and b.accuracy is not None) / total


def choose_threshold(scores: np.ndarray, right: np.ndarray,
                     target: float) -> Threshold:
  """Finds the lowest score at or above which enough photos are right.

  Args:
    scores: [photos] floats.
    right: [photos] booleans.
    target: share of the photos with at least that score that should be right.

  Returns:
    A Threshold.
  """
  scores, right = np.asarray(scores), np.asarray(right)
  order = np.argsort(-scores, kind='stable')
  ranked, hits = scores[order], np.cumsum(right[order])
  # Photos of equal score are accepted together or not at all.
  last_of_score = np.append(ranked[1:] != ranked[:-1], True)
  counts = np.arange(1, len(ranked) + 1)
  good = np.flatnonzero(last_of_score & (hits >= target * counts))
  if not good.size:
    return Threshold(target, None, 0, 0)
  return apply_threshold(scores, right, target, float(ranked[good[-1]]))


def apply_threshold(scores: np.ndarray, right: np.ndarray,
                    target: float, threshold: Optional[float]) -> Threshold:
  """Returns the Threshold of a given score, perhaps chosen on other photos.

  Args:
    scores: [photos] floats.
    right: [photos] booleans.
    target: share that should be right; only recorded.
    threshold: the score, None for none.
  """
  if threshold is None:
    return Threshold(target, None, 0, 0)
  accepted = np.asarray(scores) >= threshold
  return Threshold(target, threshold, int(accepted.sum()),
                   int(np.asarray(right)[accepted].sum()))


def calibrate(logits: np.ndarray, labels: np.ndarray, split: str,
              checkpoint: str,
              moving_average_decay: Optional[float] = None) -> Calibration:
  """Fits the temperature of a checkpoint.

  Args:
    logits: [photos, classes] floats.
    labels: [photos] integers.
    split: name of the split of the photos.
    checkpoint: prefix of the checkpoint.
    moving_average_decay: decay of the moving averages that the logits are
      from, None for the plain variables.

  Returns:
    A Calibration.

  Raises:
    NoTemperature, InputError: as `fit_temperature`.
  """
  temperature = fit_temperature(logits, labels)
  before, after = (
      expected_calibration_error(reliability(softmax(logits, t), labels))
      for t in (1.0, temperature))
  return Calibration(temperature, before, after, split, len(labels),
                     checkpoints.read_global_step(checkpoint),
                     checkpoints.digest(checkpoint), moving_average_decay)


def path(checkpoint: str) -> str:
  """Returns the path of the calibration of a checkpoint."""
  return os.path.join(os.path.dirname(checkpoint), FILE_NAME)


def save(checkpoint: str, calibration: Calibration) -> None:
  """Writes a Calibration next to its checkpoint, whole or not at all."""
  text = json.dumps(calibration._asdict(), indent=1)
  files.write_text(path(checkpoint), text + '\n')


def load(checkpoint: str) -> Optional[Calibration]:
  """Reads the Calibration next to a checkpoint, which may be of another one.

  Args:
    checkpoint: prefix of a checkpoint.

  Returns:
    A Calibration, or None if there is none.

  Raises:
    InputError: the file is damaged.
  """
  try:
    with open(path(checkpoint), encoding='utf-8') as stream:
      facts = json.load(stream)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise _damaged(checkpoint, error)
  try:
    calibration = Calibration(**{field: facts[field]
                                 for field in Calibration._fields})
    if not 0 < float(calibration.temperature) < math.inf:
      raise ValueError('temperature is %r' % calibration.temperature)
  except (KeyError, TypeError, ValueError) as error:
    raise _damaged(checkpoint, error)
  return calibration


def _damaged(checkpoint, error):
  return InputError('%s is damaged (%s: %s): ./report.sh writes it again' %
                    (path(checkpoint), type(error).__name__, error))


def temperature_of(checkpoint: str,
                   moving_average_decay: Optional[float] = None
                   ) -> Tuple[Optional[float], str]:
  """Returns the temperature that was fitted for exactly these weights.

  Args:
    checkpoint: prefix of a checkpoint.
    moving_average_decay: decay of the moving averages that are used, None for
      the plain variables.

  Returns:
    The temperature or None, and a description for the log.
  """
  try:
    calibration = load(checkpoint)
  except InputError as error:
    return None, 'no temperature: %s' % error
  if calibration is None:
    return None, ('no temperature: %s does not exist; ./report.sh fits one' %
                  path(checkpoint))
  if calibration.digest != checkpoints.digest(checkpoint):
    return None, ('no temperature: %s is of other weights (step %s); '
                  './report.sh fits one' % (path(checkpoint), calibration.step))
  if (calibration.moving_average_decay or None) != (
      moving_average_decay or None):
    return None, (
        'no temperature: that of %s is for --moving_average_decay=%s, not %s' %
        (path(checkpoint), calibration.moving_average_decay or None,
         moving_average_decay or None))
  return calibration.temperature, (
      'temperature %.4g, fitted on %d photos of split %s' %
      (calibration.temperature, calibration.photos, calibration.split))
