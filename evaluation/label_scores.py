"""Scores of how likely a label is wrong, from the features of the photos.

Each photo is classified by a head that was not trained on it, and by its
nearest neighbours. A label that both contradict is suspect. Confident learning
estimates how many labels are wrong (C. G. Northcutt, L. Jiang, I. L. Chuang:
Confident Learning: Estimating Uncertainty in Dataset Labels, arXiv 1911.00068).
The library cleanlab needs Python 3.10, and scikit-learn and pandas.
"""

from typing import NamedTuple, Optional, Tuple

import numpy as np

from evaluation import calibration

# Parts of the photos; each is classified by a head trained on the others.
NUM_FOLDS = 5

# Neighbours that vote, with weights exp(_SHARPNESS * cosine), and the share of
# the votes that is spread over all classes.
NUM_NEIGHBOURS = 20
_SHARPNESS, _PRIOR = 10.0, 0.02

# Weight decay of a head, and steps of gradient descent: with 0.0001 to 0.001
# and 60 to 300 the ranks of planted wrong labels differ little.
_WEIGHT_DECAY, _STEPS = 1e-3, 60

# Photos that are compared with all others at once.
_ROWS = 2048


class Scores(NamedTuple):
  """Scores of the labels of some photos."""

  # [photos, classes], the mean of head and neighbours.
  probabilities: np.ndarray
  # [photos] most probable class besides the label.
  suggested: np.ndarray
  # [photos] its probability, relative to that and the label's together.
  suspicion: np.ndarray
  # Estimated number of wrong labels.
  expected: float


class Neighbours(NamedTuple):
  """The nearest other photos of each photo, nearest first."""

  # [photos, k] numbers of photos.
  rows: np.ndarray
  # [photos, k] cosines of their features.
  cosines: np.ndarray


def score(features: np.ndarray, labels: np.ndarray, num_classes: int,
          neighbours: Optional[Neighbours] = None, seed: int = 0) -> Scores:
  """Scores the labels of photos.

  Args:
    features: [photos, n] floats.
    labels: [photos] integers.
    num_classes: number of classes.
    neighbours: of `find_neighbours`; None: they are computed.
    seed: of the folds.

  Returns:
    Scores.
  """
  neighbours = neighbours or find_neighbours(features)
  probabilities = (out_of_fold(features, labels, num_classes, seed) +
                   _votes(neighbours, labels, num_classes)) / 2
  rows = np.arange(len(labels))
  own = probabilities[rows, labels]
  others = probabilities.copy()
  others[rows, labels] = -1
  suggested = others.argmax(axis=1)
  other = others[rows, suggested]
  return Scores(probabilities, suggested,
                other / np.maximum(other + own, 1e-12),
                expected_errors(probabilities, labels))


def out_of_fold(features: np.ndarray, labels: np.ndarray, num_classes: int,
                seed: int = 0) -> np.ndarray:
  """Returns the probabilities of heads that were not trained on the photo.

  Args:
    features, labels, num_classes, seed: as for `score`.

  Returns:
    [photos, classes] floats.
  """
  rng = np.random.RandomState(seed)
  folds = np.zeros(len(labels), np.int64)
  for label in range(num_classes):
    order = rng.permutation(np.flatnonzero(labels == label))
    folds[order] = (np.arange(len(order)) + rng.randint(NUM_FOLDS)) % NUM_FOLDS
  centred = np.asarray(features, np.float32) - np.mean(features, axis=0)
  centred /= max(np.sqrt(np.square(centred).sum(axis=1).mean()), 1e-12)
  probabilities = np.zeros([len(labels), num_classes])
  for fold in range(NUM_FOLDS):
    inside = folds == fold
    if inside.any() and not inside.all():
      weights, biases = fit_head(centred[~inside], labels[~inside], num_classes)
      probabilities[inside] = calibration.softmax(
          centred[inside] @ weights + biases)
  return probabilities


def fit_head(features: np.ndarray, labels: np.ndarray, num_classes: int,
             weight_decay: float = _WEIGHT_DECAY, steps: int = _STEPS
             ) -> Tuple[np.ndarray, np.ndarray]:
  """Fits a linear classifier by accelerated gradient descent on all photos.

  Args:
    features: [photos, n] float32 with a mean of 0 and a mean length of about 1.
    labels: [photos] integers.
    num_classes: number of classes.
    weight_decay: of the weights and biases.
    steps: of gradient descent.

  Returns:
    Weights [n, classes] and biases [classes].
  """
  rows = np.concatenate([features, np.ones([len(features), 1], np.float32)], 1)
  targets = np.eye(num_classes, dtype=np.float32)[labels]
  # The curvature of softmax is at most 1/2.
  rate = 1 / (_largest_eigenvalue(rows) / 2 + weight_decay)
  weights = ahead = np.zeros([rows.shape[1], num_classes], np.float32)
  for step in range(steps):
    error = calibration.softmax(rows @ ahead).astype(np.float32) - targets
    before = weights
    weights = ahead - rate * (rows.T @ error / len(rows) +
                              weight_decay * ahead)
    ahead = weights + step / (step + 3) * (weights - before)
  return weights[:-1], weights[-1]


def _largest_eigenvalue(rows):
  """Returns that of the rows' covariance by power iteration, and 10 % more."""
  vector, value = np.ones(rows.shape[1], np.float32), 1.0
  for _ in range(20):
    vector = rows.T @ (rows @ vector) / len(rows)
    value = max(float(np.sqrt(np.square(vector).sum())), 1e-12)
    vector /= value
  return 1.1 * value


def find_neighbours(features: np.ndarray) -> Neighbours:
  """Returns the nearest other photos of each photo by their features.

  Args:
    features: [photos, n] floats, at least two photos.
  """
  rows = np.asarray(features, np.float32)
  rows = rows / np.maximum(
      np.sqrt(np.square(rows).sum(axis=1, keepdims=True)), 1e-12)
  count = min(NUM_NEIGHBOURS, len(rows) - 1)
  parts = []
  for start in range(0, len(rows), _ROWS):
    cosines = rows[start:start + _ROWS] @ rows.T
    cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -2
    places = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    found = np.take_along_axis(cosines, places, axis=1)
    order = np.argsort(-found, axis=1, kind='stable')
    parts.append((np.take_along_axis(places, order, axis=1),
                  np.take_along_axis(found, order, axis=1)))
  return Neighbours(*map(np.concatenate, zip(*parts)))


def _votes(neighbours, labels, num_classes):
  """Returns the shares of the classes among the neighbours."""
  weights = np.exp(_SHARPNESS * (neighbours.cosines.astype(np.float64) - 1))
  votes = np.stack([np.sum(weights * (labels[neighbours.rows] == label), axis=1)
                    for label in range(num_classes)], axis=1)
  votes /= votes.sum(axis=1, keepdims=True)
  return (1 - _PRIOR) * votes + _PRIOR / num_classes


def expected_errors(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Returns the number of wrong labels that confident learning estimates.

  A photo counts for a class if its probability is at least the mean of those
  with this label: for the most probable such class. The counts of each label
  are scaled to its photos.

  Args:
    probabilities: [photos, classes], each from heads not trained on the photo.
    labels: [photos] integers.
  """
  num_classes = probabilities.shape[1]
  thresholds = np.array([
      probabilities[labels == label, label].mean() if np.any(labels == label)
      else np.inf for label in range(num_classes)])
  confident = np.where(probabilities >= thresholds, probabilities, -1)
  counted = confident.max(axis=1) >= 0
  joint = np.zeros([num_classes, num_classes])
  np.add.at(joint, (labels[counted], confident.argmax(axis=1)[counted]), 1)
  wrong = 1 - np.diag(joint) / np.maximum(joint.sum(axis=1), 1)
  return float(np.sum(np.where(
      joint.sum(axis=1) > 0, wrong, 0) *
                      np.bincount(labels, minlength=num_classes)))


def plant(labels: np.ndarray, share: float, num_classes: int, seed: int,
          similar: Optional[np.ndarray] = None
          ) -> Tuple[np.ndarray, np.ndarray]:
  """Replaces some labels by wrong ones.

  Args:
    labels: [photos] integers.
    share: of the labels, 0 to 1; at least one is replaced.
    num_classes: number of classes, at least 2.
    seed: decides which ones.
    similar: [classes] the wrong label of each class; None: any other class.

  Returns:
    The labels, and whether each is wrong: [photos] bool.
  """
  rng = np.random.RandomState(seed)
  chosen = rng.choice(len(labels), max(1, round(share * len(labels))), False)
  planted, is_wrong = labels.copy(), np.zeros(len(labels), bool)
  is_wrong[chosen] = True
  planted[chosen] = (
      similar[labels[chosen]] if similar is not None else
      (labels[chosen] + rng.randint(1, num_classes, len(chosen))) % num_classes)
  return planted, is_wrong
