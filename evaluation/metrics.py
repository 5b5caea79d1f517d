"""Metrics of a classifier, computed from its predictions in NumPy."""

import collections
import math

import numpy as np

# Quantile of the normal distribution for a two-sided interval of 95 %.
_Z95 = 1.959964

# precision: None if no photo was predicted as the class. recall: None if the
# split has no photo of the class. photos: how many it has.
ClassMetrics = collections.namedtuple(
    'ClassMetrics', 'label precision recall photos')

# confusion: [classes, classes] int64, rows are labels, columns predictions.
# accuracy_interval: (low, high), 95 % confidence interval.
Metrics = collections.namedtuple(
    'Metrics', 'photos accuracy accuracy_interval recall_5 classes confusion')


def compute(labels, probabilities, names):
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


def confusion_matrix(labels, predictions, num_classes):
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


def recall_at(labels, probabilities, k):
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


def class_metrics(confusion, names):
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


def wilson_interval(right, total):
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
