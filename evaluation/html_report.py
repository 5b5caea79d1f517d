"""HTML report of a run: one self-contained page.

It has no scripts: pictures are data: URIs, charts are SVG, and the page forbids
the browser to fetch anything. Its only link out of the page is that to the
picture of the data set.
"""

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import jinja2

from evaluation import (
  calibration,
  charts,
  confusion_plot,
  metrics,
  run_facts,
  run_results,
  wrong_photos,
)
from evaluation.calibration import Calibration
from evaluation.curves import Curves
from runs import run_info

# Shares of the accepted photos that should be right.
TARGETS = (0.9, 0.95, 0.99)

# With more classes than this the confusion matrix is a picture without names.
_MAX_TABLE = 30
_MAX_PAIRS = 12
_MAX_SKIPPED = 500
# Photos shown for each class, and longest shown name of a file.
_CLASS_PHOTOS = 4
_MAX_NAME = 24

# Widths of a chart in pixels on broad and on narrow screens.
_WIDTHS = (('broad', 960), ('narrow', 360))

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                         'templates')


class Report(NamedTuple):
  """What the page shows."""

  run: run_info.RunInfo
  # Prefix of the checkpoint.
  checkpoint: str
  # How it was chosen, a clause like 'the checkpoint is the best of 9
  # evaluations'; None if the validation photos did not decide.
  chosen: Optional[str]
  results: Sequence[run_results.SplitResult]
  calibration: Optional[Calibration]
  # Why there is no calibration.
  calibration_note: Optional[str]
  curves: Curves
  wrong: Sequence[wrong_photos.ClassifiedPhoto]
  # data: URIs of the wrong photos, None for those that cannot be shown.
  pictures: Sequence[Optional[str]]
  # refused_photos.OodResults of the package ood, which imports this one.
  ood: Any
  # (name, value).
  flags: Sequence[Tuple[str, str]]
  # Why the flags cannot be read.
  flags_note: Optional[str]
  skipped: run_facts.Skipped
  # {class name: photos}.
  training_photos: Dict[str, int]
  # (component, version).
  versions: Sequence[Tuple[str, str]]
  # Of the network; None: not counted.
  weights: Optional[int] = None
  # Photos of the cells of the confusion matrix, and their data: URIs.
  cells: Sequence[wrong_photos.ClassifiedPhoto] = ()
  cell_pictures: Sequence[Optional[str]] = ()
  # data: URIs of two heat maps of each wrong photo, for its predicted class and
  # its label, None for those without; empty: there are none.
  heat_maps: Sequence[Optional[Tuple[str, str]]] = ()
  # Address of the picture of the data set, relative to the page.
  data_picture: Optional[str] = None


def render(report: Report) -> str:
  """Returns the HTML page of a Report, as text that UTF-8 can encode."""
  reported = run_results.reported(report.results)
  cells = _cells(report)
  page = environment().get_template('report.html').render(
      report=report,
      reported=reported,
      step=reported.counted.global_step,
      time=time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime()),
      optimistic=_optimistic(report),
      errors=[_calibration_errors(report, result)
              for result in report.results],
      loss_charts=_loss_charts(report),
      accuracy_charts=_accuracy_charts(report),
      loss_note=_loss_note(report),
      cells=cells,
      class_photos=_class_photos(cells, len(report.run.labels)),
      matrix=_matrix(reported.metrics.confusion),
      matrix_picture=_matrix_picture(reported, report.run.labels),
      pairs=_confused_pairs(reported.metrics.confusion),
      classes=class_rows(reported.metrics, report.training_photos),
      wrong=list(zip(report.wrong, report.pictures,
                     report.heat_maps or [None] * len(report.wrong))),
      wrong_in_all=sum(
          result.metrics.photos - int(result.metrics.confusion.trace())
          for result in report.results),
      reliability=_reliability_charts(report, reported),
      num_bins=len(calibration.reliability(reported.counted.probabilities,
                                           reported.counted.labels)),
      worse=_is_worse(report, reported),
      ood=report.ood,
      ood_rows=ood_rows(report),
      ood_charts=_ood_charts(report),
      thresholds=threshold_rows(report),
      skipped_files=report.skipped.files[:_MAX_SKIPPED])
  return page.encode('utf-8', 'backslashreplace').decode('utf-8')


def environment() -> jinja2.Environment:
  """Returns the environment of the templates, with the project's filters."""
  made = jinja2.Environment(
      loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True,
      undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  made.filters.update(share=_share, interval=_interval, short=_short)
  return made


def _share(value):
  return '–' if value is None else '%.1f %%' % (100 * value)


def _interval(pair):
  return '–' if pair is None else '%.1f to %.1f %%' % (
      100 * pair[0], 100 * pair[1])


def _short(name):
  """Returns the name of a file without its folders, shortened in the middle."""
  name = os.path.basename(name)
  if len(name) <= _MAX_NAME:
    return name
  return '%s…%s' % (name[:_MAX_NAME // 2], name[1 - _MAX_NAME // 2:])


def remark(report: Report, result: run_results.SplitResult) -> Optional[str]:
  """Returns a clause on what was chosen with the photos of a split, or None.

  Args:
    report: a Report.
    result: one of its SplitResults.
  """
  if result.name != run_results.VALIDATION:
    return None
  chosen = [report.chosen] if report.chosen else []
  if report.calibration:
    chosen.append('the temperature was fitted on these photos')
  if report.ood.set_with == result.name:
    chosen.append('the threshold of refusal was set with them')
  return ', and '.join(chosen) or None


def _optimistic(report):
  """Returns (split, what was chosen with its photos), None for no split."""
  for result in report.results:
    chosen = remark(report, result)
    if chosen:
      return result.name, chosen
  return None


def ood_rows(report: Report) -> List[Dict[str, Any]]:
  """Returns one dict per split: refused photos, and accuracies.

  Args:
    report: a Report.
  """
  rows = []
  for result, detection in zip(report.results, report.ood.detections):
    right = (result.counted.probabilities.argmax(axis=1) ==
             result.counted.labels)
    rows.append({
        'split': result.name, 'photos': detection.refused.photos,
        'refused': detection.refused.refused,
        'share': detection.refused.refused / detection.refused.photos,
        'interval': detection.refused.interval,
        'accuracy_of_known': _mean(right[detection.known]),
        'accuracy_of_refused': _mean(right[~detection.known])})
  return rows


def _mean(values):
  return float(values.mean()) if len(values) else None


def _ood_charts(report):
  """Returns the histogram of the known scores, {} if there are none."""
  if not report.ood.detections:
    return {}
  return {kind: charts.histogram(
      [('%s photos' % result.name, detection.scores)
       for result, detection in zip(report.results, report.ood.detections)],
      'Share of the photos over known score', 'known score',
      report.ood.bank.threshold, width=width) for kind, width in _WIDTHS}


def _temperatures(report):
  """Returns the temperatures to compare: 1, and the fitted one if any."""
  fitted = report.calibration
  return [1.0, fitted.temperature] if fitted else [1.0]


def _probabilities(result, temperature):
  return calibration.softmax(result.counted.logits, temperature)


def _calibration_errors(report, result):
  """Returns the calibration errors [before, after or None] of a split."""
  errors = [calibration.expected_calibration_error(calibration.reliability(
      _probabilities(result, temperature), result.counted.labels))
            for temperature in _temperatures(report)]
  return (errors + [None])[:2]


def _reliability_charts(report, result):
  """Returns a list of (title, chart)."""
  titled_charts = []
  for temperature, title in zip(
      _temperatures(report), ('Uncalibrated scores', 'After the temperature')):
    bins = calibration.reliability(_probabilities(result, temperature),
                                   result.counted.labels)
    titled_charts.append((title, charts.reliability_chart(
        bins, '%s: accuracy over score' % title)))
  return titled_charts


def _is_worse(report, result):
  """Returns whether the temperature does not lower the calibration error."""
  before, after = _calibration_errors(report, result)
  return after is not None and after >= before


def _loss_charts(report):
  series = [('training loss', report.curves.training_loss),
            ('validation loss', report.curves.validation_loss)]
  return _charts(report, series, 'Loss by step')


def _accuracy_charts(report):
  return _charts(
      report, [('validation accuracy', report.curves.validation_accuracy)],
      'Validation accuracy by step', (0, 1))


def _charts(report, series, title, y_range=None):
  """Returns {'broad', 'narrow': chart} of the curves that have a point, or {}.

  The step of the checkpoint is marked.
  """
  series = [(name, row) for name, row in series if row]
  steps = [step for _, row in series for step, _ in row]
  step = report.results[0].counted.global_step
  mark = None
  if steps and min(steps) <= step <= max(steps):
    mark = step, '%s: step %d' % (
        'best' if run_info.is_best(report.checkpoint) else 'this report', step)
  try:
    return {kind: charts.line_chart(series, title, 'step', y_range, width, mark)
            for kind, width in _WIDTHS}
  except ValueError:  # No point is finite.
    return {}


def _loss_note(report):
  """Returns why training loss is above validation loss; None: it is not."""
  training = dict(report.curves.training_loss)
  if not any(training.get(step, loss) > loss
             for step, loss in report.curves.validation_loss):
    return None
  flags = dict(report.flags)
  reasons = ['it also counts the penalty on large weights (weight decay)']
  if _number(flags.get('dropout_keep_prob'), 1) < 1 and not report.run.head:
    reasons.append('dropout switches off part of the features in training only')
  if _number(flags.get('label_smoothing'), 0) > 0:
    reasons.append('label smoothing spreads the labels in training only')
  if flags.get('cache_features') != 'true' and not report.flags_note:
    reasons.append('training distorts the photos')
  if not report.run.head:
    reasons.append('it is the mean of the steps since the previous evaluation, '
                   'with earlier weights')
  return '; '.join(reasons)


def _number(text, default):
  try:
    return float(text)
  except (TypeError, ValueError):
    return default


def _cells(report):
  """Returns {(label, predicted): [(photo, picture)]} of the cells' photos."""
  cells: Dict[Tuple[int, int], List[Any]] = {}
  for photo, picture in zip(report.cells, report.cell_pictures):
    cells.setdefault((photo.label, photo.predicted), []).append(
        (photo, picture))
  return dict(sorted(cells.items()))


def _class_photos(cells, num_classes):
  """Returns a few (photo, picture) of each class, right ones first."""
  if num_classes > _MAX_TABLE:
    return [[]] * num_classes
  return [sum((photos for cell, photos in sorted(
      cells.items(), key=lambda item, label=label: item[0][1] != label)
               if cell[0] == label), [])[:_CLASS_PHOTOS]
          for label in range(num_classes)]


def _matrix(confusion):
  """Returns rows of (count, share of the row); None for too many classes."""
  if len(confusion) > _MAX_TABLE:
    return None
  shares = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
  return [[(int(count), float(share)) for count, share in zip(*rows)]
          for rows in zip(confusion, shares)]


def _matrix_picture(result, names):
  """Returns the matrix as a data: URI; None for few classes."""
  if len(names) <= _MAX_TABLE:
    return None
  return wrong_photos.uri('image/png', confusion_plot.to_png(
      result.metrics.confusion, names, result.name))


def _confused_pairs(confusion):
  """Returns (label, predicted, photos) of the most frequent errors."""
  pairs = [(-int(confusion[row, column]), row, column)
           for row, column in zip(*confusion.nonzero()) if row != column]
  return [(row, column, -count)
          for count, row, column in sorted(pairs)[:_MAX_PAIRS]]


def class_rows(found: metrics.Metrics,
               training_photos: Dict[str, int]) -> List[Dict[str, Any]]:
  """Returns one dict per class: precision and recall with their intervals.

  Args:
    found: a Metrics.
    training_photos: {class name: training photos}; classes may be missing.
  """
  rows = []
  for index, row in enumerate(found.classes):
    right = int(found.confusion[index, index])
    predicted = int(found.confusion[:, index].sum())
    rows.append({
        'label': row.label, 'photos': row.photos, 'predicted': predicted,
        'training': training_photos.get(row.label),
        'precision': row.precision, 'recall': row.recall,
        'precision_interval': _wilson(right, predicted),
        'recall_interval': _wilson(right, row.photos)})
  return rows


def _wilson(right, total):
  return metrics.wilson_interval(right, total) if total else None


def threshold_rows(report: Report) -> List[Dict[str, Any]]:
  """Returns one dict per target accuracy: the threshold, and its results.

  Thresholds are chosen on the validation photos and reported on the test photos
  if there are any. The list is empty without validation photos.

  Args:
    report: a Report.
  """
  base = run_results.decided(report.results)
  if base is None:
    return []
  reported = run_results.reported(report.results)
  rows = []
  for calibrated, temperature in enumerate(_temperatures(report)):
    on_base, on_reported = (
        calibration.scores_of(_probabilities(result, temperature),
                              result.counted.labels)
        for result in (base, reported))
    for target in TARGETS:
      chosen = calibration.choose_threshold(*on_base, target)
      applied = calibration.apply_threshold(*on_reported, target,
                                            chosen.threshold)
      rows.append({
          'calibrated': bool(calibrated),
          'target': target, 'threshold': chosen.threshold,
          'accepted': applied.photos / reported.metrics.photos,
          'accuracy': (applied.right / applied.photos if applied.photos
                       else None),
          'interval': _wilson(applied.right, applied.photos)})
  return rows
