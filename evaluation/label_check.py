"""Findings about the photos and labels of a data set, for a person to decide.

Suspect labels, near duplicates, outliers, and classes that look alike. See
label_scores and datasets.photo_files.near_photos for the methods.
"""

import itertools
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from datasets.photo_files import near_photos
from evaluation import label_scores, metrics

# Share of the labels that are replaced to measure how well these are found.
PLANTED = 0.05

# Neighbours of each photo that may be near duplicates of it.
_NEAREST = 3

# Outliers are below the first quartile by this many interquartile ranges.
_OUTLIER_RANGES = 1.5


class Photos(NamedTuple):
  """The photos of all splits, one row each."""

  splits: List[str]
  # Path in the folder of photos.
  files: List[str]
  # [photos] int64.
  labels: np.ndarray
  # Numbers of their records in the split.
  positions: np.ndarray
  # [photos, n] floats.
  features: np.ndarray
  # [photos] bool, whether the checkpoint predicts the label.
  is_right: np.ndarray


class Suspect(NamedTuple):
  """A photo whose label may be wrong."""

  number: int
  # Class index.
  suggested: int
  # 0.5 to 1.
  suspicion: float


class AlikeClasses(NamedTuple):
  """Two classes whose photos are mistaken for each other."""

  first: int
  second: int
  photos: int
  # Share of their photos that look more like the other class, its interval.
  mistaken: float
  interval: Tuple[float, float]
  # Whether choosing the larger class always would be as good.
  is_chance: bool


class Accuracy(NamedTuple):
  """Accuracy of the checkpoint on a split, with and without near duplicates."""

  split: str
  photos: int
  accuracy: float
  # Photos without a near duplicate in the training split.
  others: int
  accuracy_of_others: float


class Findings(NamedTuple):
  """What was found; numbers are rows of Photos."""

  # Highest suspicion first.
  suspects: List[Suspect]
  # Estimated number of wrong labels.
  expected: float
  # Planted wrong labels: how many, and how many of the first 10 and 50 ranks.
  planted: Tuple[int, int, int]
  pairs: List[near_photos.Pair]
  groups: List[List[int]]
  # (number, mean cosine to its nearest neighbours), lowest first.
  outliers: List[Tuple[int, float]]
  # Most mistaken first.
  alike: List[AlikeClasses]
  accuracies: List[Accuracy]


def find(photos: Photos, num_classes: int, sketches: np.ndarray,
         seed: int = 0) -> Findings:
  """Checks the photos and labels of a data set.

  Args:
    photos: Photos, of at least two classes.
    num_classes: number of classes.
    sketches: [photos, side, side] of near_photos.sketch.
    seed: of folds and planted labels.
  """
  neighbours = label_scores.find_neighbours(photos.features)
  scores = label_scores.score(photos.features, photos.labels, num_classes,
                              neighbours, seed)
  order = np.argsort(-scores.suspicion, kind='stable')
  pairs = near_photos.find_pairs(sketches, near_candidates(neighbours))
  groups = near_photos.group(pairs)
  return Findings(
      [Suspect(int(number), int(scores.suggested[number]),
               float(scores.suspicion[number]))
       for number in order if scores.suspicion[number] > 0.5],
      scores.expected, _plant(photos, num_classes, neighbours, seed),
      pairs, groups, _outliers(neighbours),
      _alike_classes(scores.probabilities, photos.labels),
      _accuracies(photos, groups))


def _plant(photos, num_classes, neighbours, seed):
  """Returns Findings.planted."""
  labels, is_wrong = label_scores.plant(photos.labels, PLANTED, num_classes,
                                        seed)
  scores = label_scores.score(photos.features, labels, num_classes, neighbours,
                              seed)
  ranked = is_wrong[np.argsort(-scores.suspicion, kind='stable')]
  return (int(is_wrong.sum()), int(ranked[:10].sum()), int(ranked[:50].sum()))


def near_candidates(
    neighbours: label_scores.Neighbours) -> Dict[Tuple[int, int], float]:
  """Returns {pair: cosine} of each photo and its nearest neighbours."""
  return {(min(one, other), max(one, other)): cosine
          for one, (others, cosines) in enumerate(zip(
              neighbours.rows[:, :_NEAREST].tolist(),
              neighbours.cosines[:, :_NEAREST].tolist()))
          for other, cosine in zip(others, cosines)}


def _outliers(neighbours):
  similarity = neighbours.cosines.mean(axis=1)
  low, high = np.percentile(similarity, [25, 75])
  order = np.argsort(similarity, kind='stable')
  return [(int(number), float(similarity[number])) for number in order
          if similarity[number] < low - _OUTLIER_RANGES * (high - low)]


def _alike_classes(probabilities, labels):
  found = []
  for first, second in itertools.combinations(range(probabilities.shape[1]), 2):
    is_first, is_second = labels == first, labels == second
    count = int(is_first.sum() + is_second.sum())
    likes_second = probabilities[:, second] > probabilities[:, first]
    mistaken = int((is_first & likes_second).sum() +
                   (is_second & ~likes_second).sum())
    if mistaken:
      low, high = metrics.wilson_interval(mistaken, count)
      smaller = min(is_first.sum(), is_second.sum()) / count
      found.append(AlikeClasses(first, second, count, mistaken / count,
                                (low, high), bool(high >= smaller)))
  return sorted(found, key=lambda pair: -pair.mistaken)


def _accuracies(photos: Photos,
                groups: Sequence[Sequence[int]]) -> List[Accuracy]:
  splits = np.array(photos.splits)
  with_twin = np.zeros(len(splits), bool)
  for members in groups:
    with_twin[members] = 'train' in splits[members]
  rows: List[Any] = []
  for split in dict.fromkeys(photos.splits):
    if split != 'train':
      inside = splits == split
      others = inside & ~with_twin
      rows.append(Accuracy(
          split, int(inside.sum()), float(photos.is_right[inside].mean()),
          int(others.sum()), float(photos.is_right[others].mean())
          if others.any() else float('nan')))
  return rows
