"""Comparison of two runs: settings, and predictions for the same photos.

Uses what training and evaluation have written; imports no TensorFlow.
"""

import csv
import glob
import json
import math
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from common.errors import InputError
from evaluation import metrics
from runs import run_list
from runs.run_list import Run

# Two accuracies differ by more than chance if a difference of this size would
# be less probable than this with equally good runs.
SIGNIFICANCE = 0.05
_FLAGS_FILE = 'flags.json'
# Differ between any two runs.
_OWN_FLAGS = ('train_dir',)
_PREDICTIONS = re.compile(r'predictions-(.+)-(\d+)\.csv')


class Prediction(NamedTuple):
  """A photo of a split, as one run classifies it."""

  # Name of the photo.
  file: str
  label: str
  predicted: str
  # Number of its record in the split, from 0.
  position: int

  @property
  def is_right(self) -> bool:
    return self.label == self.predicted


class Comparison(NamedTuple):
  """Two runs A and B, compared on the photos that both were evaluated on."""

  runs: Tuple[Run, Run]
  steps: Tuple[int, int]
  # (name, value of A, value of B) as texts, where they differ.
  settings: List[Tuple[str, str, str]]
  # Name of the split.
  split: str
  # Predictions of A and B for the same photo.
  pairs: List[Tuple[Prediction, Prediction]]
  # Photos of the split that only one run was evaluated on.
  others: Tuple[int, int]
  # Path of the predictions of A, whose positions are used.
  predictions_file: str

  def accuracies(self) -> Tuple[float, float]:
    return (self._right(0) / len(self.pairs), self._right(1) / len(self.pairs))

  def intervals(self) -> List[Tuple[float, float]]:
    """Returns the 95 % intervals of both accuracies."""
    return [metrics.wilson_interval(self._right(index), len(self.pairs))
            for index in (0, 1)]

  def _right(self, index):
    return sum(pair[index].is_right for pair in self.pairs)

  def lost(self) -> List[Tuple[Prediction, Prediction]]:
    """Returns the pairs of which only A is right."""
    return [pair for pair in self.pairs
            if pair[0].is_right and not pair[1].is_right]

  def gained(self) -> List[Tuple[Prediction, Prediction]]:
    """Returns the pairs of which only B is right."""
    return [pair for pair in self.pairs
            if pair[1].is_right and not pair[0].is_right]

  def p_value(self) -> float:
    return mcnemar(len(self.lost()), len(self.gained()))

  def verdict(self) -> str:
    """Returns a sentence on the difference of the accuracies."""
    a, b = self.accuracies()
    if a == b:
      return 'Both have the same accuracy.'
    better = 'B' if b > a else 'A'
    p = self.p_value()
    return '%s is better by %.1f percentage points: %s (McNemar, p %s).' % (
        better, 100 * abs(b - a),
        'more than chance' if p < SIGNIFICANCE else
        'no more than chance',
        '< 0.0001' if p < 0.0001 else '= %.4f' % p)


def mcnemar(only_a: int, only_b: int) -> float:
  """Returns the p-value of the exact two-sided McNemar test.

  It is the probability that the photos of which only one run is right are
  distributed at least as unequally, if for each of them both runs are equally
  likely to be the right one (McNemar 1947; exact binomial form).

  Args:
    only_a: photos of which only the first run is right.
    only_b: photos of which only the second run is right.
  """
  total, least = only_a + only_b, min(only_a, only_b)
  term = tail = 1  # Binomial coefficients of `total` over 0 to `least`.
  for number in range(1, least + 1):
    term = term * (total - number + 1) // number
    tail += term
  # Integers may exceed floats: the logarithm does not.
  return min(1.0, math.exp(math.log(2 * tail) - total * math.log(2)))


def compare(a: Run, b: Run) -> Comparison:
  """Compares the used checkpoints of two runs on the same photos.

  Raises:
    InputError: one is not evaluated, or they have no photos in common.
  """
  if a == b:
    raise InputError('%s is compared with itself: give two runs' % a.name)
  found = [_prediction_files(run) for run in (a, b)]
  splits = [split for split in found[0] if split in found[1]]
  if not splits:
    raise InputError(
        '%s was evaluated on the photos of %s and %s on those of %s: '
        'RUN=%s EVAL_SPLIT=%s EVAL_INTERVAL_SECS= ./run_eval.sh' %
        (a.name, ', '.join(found[0]), b.name, ', '.join(found[1]), b.name,
         sorted(found[0])[0]))
  # Nothing was chosen with the test photos.
  split = 'test' if 'test' in splits else splits[0]
  paths = found[0][split], found[1][split]
  tables = [{(row.file, row.label): row for row in _read(path)}
            for path in paths]
  steps, lengths = list(map(_step, paths)), list(map(len, tables))
  common = [key for key in tables[0] if key in tables[1]]
  if not common:
    raise InputError('%s and %s have no %s photo in common (%s, %s)' %
                     (a.name, b.name, split, *paths))
  return Comparison(
      (a, b), (steps[0], steps[1]), different_settings(a, b), split,
      [(tables[0][key], tables[1][key]) for key in common],
      (lengths[0] - len(common), lengths[1] - len(common)), paths[0])


def _prediction_files(run):
  """Returns {split: path} of the predictions of a run's used checkpoint."""
  step = run_list.result(run).step
  paths = {}
  for path in sorted(glob.glob(os.path.join(glob.escape(run.eval_dir),
                                            'predictions-*.csv'))):
    match = _PREDICTIONS.fullmatch(os.path.basename(path))
    if match and int(match.group(2)) == step:
      paths[match.group(1)] = path
  if not paths:
    raise InputError(
        '%s is not evaluated at step %s: RUN=%s EVAL_INTERVAL_SECS= '
        './run_eval.sh evaluates it' % (run.name, step, run.name))
  return paths


def _step(path):
  match = _PREDICTIONS.fullmatch(os.path.basename(path))
  assert match  # It was found by this pattern.
  return int(match.group(2))


def _read(path):
  """Returns the list of Predictions in a file."""
  try:
    with open(path, encoding='utf-8', errors='replace', newline='') as stream:
      return [Prediction(row['file'], row['label'], row['predicted'], position)
              for position, row in enumerate(csv.DictReader(stream))
              if row['file']]
  except (csv.Error, KeyError) as error:
    raise InputError('%s is damaged (%s): evaluate the run again' %
                     (path, error))


def different_settings(a: Run, b: Run) -> List[Tuple[str, str, str]]:
  """Returns (name, value of A, value of B) of settings that differ."""
  rows = []
  for prefix, tables in (
      ('', [_with_class_count(run_list.facts(run)) for run in (a, b)]),
      ('--', [run_list.read_json(os.path.join(run.train_dir, _FLAGS_FILE))
              for run in (a, b)])):
    for name in sorted(set(tables[0]) | set(tables[1])):
      left, right = (table.get(name) for table in tables)
      if left != right and name not in _OWN_FLAGS:
        rows.append((prefix + name, _text(left), _text(right)))
  # A flag of the same name as a fact says the same.
  facts = {name for name, _, _ in rows}
  return [row for row in rows
          if not (row[0].startswith('--') and row[0][2:] in facts)]


def _with_class_count(facts: Dict[str, Any]) -> Dict[str, Any]:
  labels = facts.pop('labels', None)
  return dict(facts, classes=labels and len(labels), labels=labels and (
      ', '.join(map(str, labels))))


def _text(value: Optional[Any]) -> str:
  if value is None:
    return '-'
  return value if isinstance(value, str) else json.dumps(value,
                                                         ensure_ascii=False)
