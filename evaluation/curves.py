"""Reads the losses and accuracies of a run, step by step.

The mean training losses between two evaluations are in the lines of
`validation.jsonl` as `train_loss`; before the first evaluation and after the
last, the losses of single steps are in the event files. The evaluations on the
validation photos are in `validation.jsonl`, or else in the event files too, or
else in the `metrics.jsonl` that eval_image_classifier.py writes.
"""

import collections
import glob
import json
import os
import re

from compat import tf

# training_loss, validation_loss, validation_accuracy: lists of (step, value) in
# the order of the steps; empty where nothing was found. damaged: names of the
# files that could be read in part only.
Curves = collections.namedtuple(
    'Curves', 'training_loss validation_loss validation_accuracy damaged')

_VALIDATION_FILE = 'validation.jsonl'
_METRICS_FILE = 'metrics.jsonl'
_LOSS = 'total_loss'
_VALIDATION_LOSS = 'validation/loss'
_VALIDATION_ACCURACY = 'validation/Accuracy'
# TensorFlow numbers a summary whose name an operation has already.
_TAG = re.compile(r'(%s)(_\d+)?' % '|'.join(
    (_LOSS, _VALIDATION_LOSS, _VALIDATION_ACCURACY)))


def read(train_dir, eval_dir=None, split='validation'):
  """Reads the curves of a run.

  Args:
    train_dir: folder of the run.
    eval_dir: folder of eval_image_classifier.py, None for none.
    split: the split that counts in its metrics.jsonl.

  Returns:
    A Curves.
  """
  damaged = []
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

  Where a killed run went on from an earlier step, its lost steps are left out.
  """
  found = {tag: {} for tag in (_LOSS, _VALIDATION_LOSS, _VALIDATION_ACCURACY)}
  names = glob.glob(os.path.join(glob.escape(train_dir),
                                 'events.out.tfevents.*'))
  for name in sorted(names, key=_age):
    part = {tag: {} for tag in found}
    try:
      for event in tf.train.summary_iterator(name):
        for value in event.summary.value:
          tag = _TAG.fullmatch(value.tag)
          if tag and value.HasField('simple_value'):
            part[tag.group(1)][event.step] = value.simple_value
    except (tf.errors.OpError, ValueError):  # What came before it counts.
      damaged.append(name)
    for tag, points in part.items():
      if points:
        start = min(points)
        found[tag] = {step: value for step, value in found[tag].items()
                      if step < start}
        found[tag].update(points)
  return {tag: sorted(points.items()) for tag, points in found.items()}


def _age(name):
  """Sorts event files by the second of their start, which their name has."""
  text = os.path.basename(name).split('.')[3:4]
  return int(text[0]) if text and text[0].isdigit() else 0, name


def _read_lines(path, damaged):
  """Returns the objects of a JSON lines file; a broken line is left out."""
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
  """Returns points with those of others that are before or after all of them.

  Args:
    points, others: sorted lists of (step, value).
  """
  if not points:
    return others
  first, last = points[0][0], points[-1][0]
  return sorted(points + [point for point in others
                          if not first <= point[0] <= last])


def _points(lines, step, value):
  """Returns the sorted (step, value) of those lines that have both."""
  points = {line[step]: line[value] for line in lines
            if _is_number(line.get(step)) and _is_number(line.get(value))}
  return sorted(points.items())


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)
