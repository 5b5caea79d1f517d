"""Formats the scores of a photo, for the command line and the page."""

import collections

import numpy as np

# Number of classes that are listed for a photo that is none of them.
_NAMED = 12

Row = collections.namedtuple('Row', 'label score percent')


def top(scores, labels, count=None):
  """Returns the labels and the scores of the largest scores, as two lists.

  Args:
    scores: `[num_classes]` float32 in [0, 1].
    labels: names by output index.
    count: how many; None, or more than the number of classes: all.
  """
  order = np.argsort(-scores, kind='stable')[:count]
  # Lists: accessing a thousand NumPy scalars one by one takes milliseconds.
  return list(map(labels.__getitem__, order.tolist())), scores[order].tolist()


def top_rows(scores, labels, count=None):
  """Returns the result of `top` as Rows."""
  return [Row(label, score, '%.1f %%' % (100 * score))
          for label, score in zip(*top(scores, labels, count))]


def none_of(labels, words=('none of: %s', '%s and %d others', ', ')):
  """Returns the text for a photo that is none of the classes.

  Args:
    labels: names of the classes.
    words: the sentence, the text for further classes that are not listed, and
      the separator.
  """
  sentence, more, comma = words
  names = comma.join(labels[:_NAMED])
  if len(labels) > _NAMED:
    names = more % (names, len(labels) - _NAMED)
  return sentence % names
