"""Metrics of a classifier, computed from its predictions in NumPy."""

import math
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

# Quantile of the normal distribution for a two-sided interval of 95 %.
_Z95 = 1.959964


class ClassMetrics(NamedTuple):
  """Metrics of one class."""

  # Its name.
  label: str
  # None if no photo was predicted as the class.
  precision: Optional[float]
  # None if the split has no photo of the class.
  recall: Optional[float]
  # How many photos the split has of it.
  photos: int


class Metrics(NamedTuple):
  """Metrics of a checkpoint on some photos."""

  # How many photos.
  photos: int
  accuracy: float
  # (low, high), 95 % confidence interval.
  accuracy_interval: Tuple[float, float]
  # Share of the photos whose label is among the 5 likeliest classes.
  recall_5: float
  classes: List[ClassMetrics]
  # [classes, classes] int64, rows are labels, columns predictions.
  confusion: np.ndarray


def compute(labels: np.ndarray, probabilities: np.ndarray,
            names: Sequence[str]) -> Metrics:
  """Computes the metrics of one evaluation.

  Args:
    labels: [photos] integers.
    probabilities: [photos, classes] floats.
    names: the class names by index.

  Returns:
    A Metrics.

  Raises:
    ValueError: there is no photo.
  """
  labels = np.asarray(labels)
  if not labels.size:
    raise ValueError('no photo was counted')
  predictions = np.argmax(probabilities, axis=1)
  confusion = confusion_matrix(labels, predictions, len(names))
  right = int(np.trace(confusion))
  return Metrics(
      photos=labels.size,
      accuracy=right / labels.size,
      accuracy_interval=wilson_interval(right, labels.size),
      recall_5=recall_at(labels, probabilities, 5),
      classes=class_metrics(confusion, names),
      confusion=confusion)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray,
                     num_classes: int) -> np.ndarray:
  """Counts pairs of label (row) and prediction (column).

  Args:
    labels: [photos] integers in [0, num_classes).
    predictions: [photos] integers in [0, num_classes).
    num_classes: how many classes there are.

  Returns:
    [num_classes, num_classes] int64.
  """
  pairs = np.asarray(labels) * num_classes + np.asarray(predictions)
  counts = np.bincount(pairs, minlength=num_classes ** 2)
  return counts.reshape(num_classes, num_classes)


def recall_at(labels: np.ndarray, probabilities: np.ndarray,
              k: int) -> float:
  """Returns the share of photos whose label is among the k likeliest classes.

  Ties rank by index, so a network that gives all classes the same probability
  gets no credit for it.

  Args:
    labels: [photos] integers.
    probabilities: [photos, classes] floats.
    k: how many classes count; capped at `classes`.
  """
  order = np.argsort(-np.asarray(probabilities), axis=1, kind='stable')
  hits = order[:, :k] == np.asarray(labels)[:, np.newaxis]
  return float(np.mean(np.any(hits, axis=1)))


def class_metrics(confusion: np.ndarray,
                  names: Sequence[str]) -> List[ClassMetrics]:
  """Returns the ClassMetrics of each class.

  Args:
    confusion: as `confusion_matrix` returns it.
    names: the class names by index.
  """
  right = np.diag(confusion)
  predicted, present = confusion.sum(axis=0), confusion.sum(axis=1)
  return [
      ClassMetrics(name, _share(right[i], predicted[i]),
                   _share(right[i], present[i]), int(present[i]))
      for i, name in enumerate(names)]


def _share(part, whole):
  return float(part / whole) if whole else None


def wilson_interval(right: int, total: int) -> Tuple[float, float]:
  """Returns the 95 % confidence interval of a share (Wilson 1927).

  Unlike the normal approximation it stays within [0, 1] and has a width at the
  shares 0 and 1.

  Args:
    right: number of successes.
    total: number of trials, at least 1.
  """
  share, z2 = right / total, _Z95 ** 2
  center = (share + z2 / (2 * total)) / (1 + z2 / total)
  half = _Z95 / (1 + z2 / total) * math.sqrt(
      share * (1 - share) / total + z2 / (4 * total ** 2))
  return max(0.0, center - half), min(1.0, center + half)
