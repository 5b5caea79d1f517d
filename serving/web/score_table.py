"""Formats the scores of a photo, for the command line and the page."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

# Number of classes that are listed for an out-of-distribution photo.
_MAX_LISTED = 12


class ScoreRow(NamedTuple):
  """One class and its score."""

  # Name of the class.
  label: str
  # In [0, 1].
  score: float
  # The score as text, such as '12.3 %'.
  percent: str


def top_classes(scores: np.ndarray, labels: Sequence[str],
                count: Optional[int] = None) -> Tuple[List[str], List[float]]:
  """Returns the labels and the scores of the largest scores, as two lists.

  Args:
    scores: `[num_classes]` float32 in [0, 1].
    labels: names by output index.
    count: how many; None, or more than the number of classes: all.
  """
  order = np.argsort(-scores, kind='stable')[:count]
  # Lists: accessing a thousand NumPy scalars one by one takes milliseconds.
  return list(map(labels.__getitem__, order.tolist())), scores[order].tolist()


def top_rows(scores: np.ndarray, labels: Sequence[str],
             count: Optional[int] = None) -> List[ScoreRow]:
  """Returns the result of `top_classes` as ScoreRows."""
  return [ScoreRow(label, score, '%.1f %%' % (100 * score))
          for label, score in zip(*top_classes(scores, labels, count))]


def none_of_text(labels: Sequence[str]) -> str:
  """Returns the line for a photo that is none of the classes.

  Args:
    labels: names of the classes.
  """
  names = ', '.join(labels[:_MAX_LISTED])
  if len(labels) > _MAX_LISTED:
    names = '%s and %d others' % (names, len(labels) - _MAX_LISTED)
  return 'none of: %s' % names
