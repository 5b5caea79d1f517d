"""Loss and accuracy curves of a run.

Training losses, averaged from one evaluation to the next, are `train_loss` in
`validation.jsonl`; before the first evaluation and after the last, the event
files have the losses of single steps. Validation results are read from
`validation.jsonl`, else from the event files, else from the `metrics.jsonl`
that eval_image_classifier.py writes.
"""

import glob
import json
import os
import re
from typing import List, NamedTuple, Optional, Tuple

from compat import tf

_VALIDATION_FILE = 'validation.jsonl'
_METRICS_FILE = 'metrics.jsonl'
_LOSS = 'total_loss'
_VALIDATION_LOSS = 'validation/loss'
_VALIDATION_ACCURACY = 'validation/Accuracy'
# TensorFlow appends a number to a summary name that is already in use.
_TAG = re.compile(r'(%s)(_\d+)?' % '|'.join(
    (_LOSS, _VALIDATION_LOSS, _VALIDATION_ACCURACY)))


class Curves(NamedTuple):
  """Points (step, value) in order of steps; empty if nothing was found."""

  training_loss: List[Tuple[int, float]]
  validation_loss: List[Tuple[int, float]]
  validation_accuracy: List[Tuple[int, float]]
  # Names of the files that could be read only in part.
  damaged: List[str]


def read(train_dir: str, eval_dir: Optional[str] = None,
         split: str = 'validation') -> Curves:
  """Reads the curves of a run.

  Args:
    train_dir: folder of the run.
    eval_dir: folder of eval_image_classifier.py, None for none.
    split: the split to read from its metrics.jsonl.

  Returns:
    A Curves.
  """
  damaged: List[str] = []
  events = _read_events(train_dir, damaged)
  lines = _read_lines(os.path.join(train_dir, _VALIDATION_FILE), damaged)
  training = _fill_up(_points(lines, 'step', 'train_loss'), events[_LOSS])
  losses = _points(lines, 'step', 'loss') or events[_VALIDATION_LOSS]
  accuracies = (_points(lines, 'step', 'accuracy')
                or events[_VALIDATION_ACCURACY])
  if not accuracies and eval_dir:
    lines = _read_lines(os.path.join(eval_dir, _METRICS_FILE), damaged)
    accuracies = _points([line for line in lines if line.get('split') == split],
                         'global_step', 'accuracy')
  return Curves(training, losses, accuracies, damaged)


def _read_events(train_dir, damaged):
  """Returns {tag: [(step, value)]} of all event files of a folder.

  If a killed run resumed from an earlier step, the lost steps are left out.
  """
  curves = {tag: {} for tag in (_LOSS, _VALIDATION_LOSS, _VALIDATION_ACCURACY)}
  names = glob.glob(os.path.join(glob.escape(train_dir),
                                 'events.out.tfevents.*'))
  for name in sorted(names, key=_age):
    part = {tag: {} for tag in curves}
    try:
      for event in tf.train.summary_iterator(name):
        for value in event.summary.value:
          tag = _TAG.fullmatch(value.tag)
          if tag and value.HasField('simple_value'):
            part[tag.group(1)][event.step] = value.simple_value
    except (tf.errors.OpError, ValueError):  # Keep the points before it.
      damaged.append(name)
    for tag, points in part.items():
      if points:
        start = min(points)
        curves[tag] = {step: value for step, value in curves[tag].items()
                      if step < start}
        curves[tag].update(points)
  return {tag: sorted(points.items()) for tag, points in curves.items()}


def _age(name):
  """Returns the sort key of an event file: its start time, from its name."""
  text = os.path.basename(name).split('.')[3:4]
  return int(text[0]) if text and text[0].isdigit() else 0, name


def _read_lines(path, damaged):
  """Returns the objects of a JSON lines file, without broken lines."""
  lines = []
  try:
    with open(path, encoding='utf-8', errors='replace') as stream:
      texts = stream.read().splitlines()
  except FileNotFoundError:
    return lines
  for text in texts:
    try:
      line = json.loads(text)
    except ValueError:
      line = None
    if isinstance(line, dict):
      lines.append(line)
    elif path not in damaged:
      damaged.append(path)
  return lines


def _fill_up(points, others):
  """Returns points, plus those of others before the first and after the last.

  Args:
    points, others: sorted lists of (step, value).
  """
  if not points:
    return others
  first, last = points[0][0], points[-1][0]
  return sorted(points + [point for point in others
                          if not first <= point[0] <= last])


def _points(lines, step, value):
  """Returns the sorted (step, value) of the lines that have both."""
  points = {line[step]: line[value] for line in lines
            if _is_number(line.get(step)) and _is_number(line.get(value))}
  return sorted(points.items())


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)
