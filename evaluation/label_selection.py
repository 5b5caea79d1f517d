"""Chooses which unlabelled photos to label next (active learning).

The photos with the smallest margins, the lead of the best class over the
second, help most (T. Scheffer, C. Decomain, S. Wrobel: Active Hidden Markov
Models for Information Extraction, IDA 2001). Of photos that are alike, one is
enough: they are chosen one by one, and those near a chosen one count less. On
clothes BADGE (J. T. Ash et al., arXiv 1906.03671) and Cluster-Margin (G.
Citovsky et al., arXiv 2107.14263) were less accurate; docs/measured.md.
"""

from typing import List, Sequence

import numpy as np

from datasets.photo_files import near_photos

# A photo counts less if it is nearer to a chosen one than this share of the
# mean distance of two photos.
_NEAR = 1 / 3


def margins(scores: np.ndarray) -> np.ndarray:
  """Returns the lead of the best class over the second: [photos] floats.

  Args:
    scores: [photos, classes] probabilities.
  """
  ranked = np.sort(scores, axis=1)
  return ranked[:, -1] - (ranked[:, -2] if scores.shape[1] > 1 else 0)


def choose(scores: np.ndarray, features: Sequence[np.ndarray],
           count: int) -> List[int]:
  """Returns the positions of the photos to label next, the best first.

  Args:
    scores: [photos, classes] probabilities.
    features: [n] floats of each photo.
    count: number of photos; all if there are fewer.
  """
  rows = np.array(features, np.float32)
  rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
  # 1 minus the mean cosine of all pairs.
  mean_distance = max(1 - np.square(rows.mean(axis=0)).sum(), 1e-6)
  uncertainty = 1 - margins(scores)
  # To the nearest chosen photo.
  distances = np.full(len(rows), np.inf)
  is_left = np.ones(len(rows), bool)
  chosen: List[int] = []
  for _ in range(min(count, len(rows))):
    values = uncertainty * np.clip(distances / (_NEAR * mean_distance), 0, 1)
    best = int(np.where(is_left, values, -1).argmax())
    is_left[best] = False
    chosen.append(best)
    distances = np.minimum(distances, 1 - rows @ rows[best])
  return chosen


def without_copies(sketches: np.ndarray, labelled: Sequence[np.ndarray],
                   uncertainty: np.ndarray) -> np.ndarray:
  """Returns the photos that are not copies: their positions, in rising order.

  Of photos that are copies of each other, the most uncertain one is kept; none
  is kept if one of them is labelled.

  Args:
    sketches: [photos, SIDE, SIDE], the near_photos.sketch of each photo.
    labelled: those of the labelled photos.
    uncertainty: [photos] floats.
  """
  is_kept = np.ones(len(sketches), bool)
  pairs = near_photos.find_pairs(np.stack([*labelled, *sketches]))
  for members in near_photos.group(pairs):
    photos = np.array(members) - len(labelled)
    is_kept[photos[photos >= 0]] = False
    if photos[0] >= 0:  # None is labelled: the members are sorted.
      is_kept[photos[uncertainty[photos].argmax()]] = True
  return np.flatnonzero(is_kept)
