"""Output of an evaluation: the console and the files in --eval_dir."""

import csv
import json
import os
import time
from typing import Any, Dict, List, Optional, Sequence, TextIO

import numpy as np

from compat import tf
from evaluation import confusion_plot, loop
from evaluation.metrics import Metrics

# With more classes than this only the totals are printed.
_MAX_PRINTED = 100


class EventFile:
  """The event file of a folder, created with the first summary.

  Args:
    folder: path; created if missing.
  """

  def __init__(self, folder: str):
    self._folder = folder
    self._writer: Optional[Any] = None

  def __enter__(self):
    return self

  def __exit__(self, *error):
    if self._writer:
      self._writer.close()

  def add_summary(self, summary: tf.Summary, global_step: int) -> None:
    if not self._writer:
      self._writer = tf.summary.FileWriter(self._folder)
    self._writer.add_summary(summary, global_step)

  def flush(self) -> None:
    """Writes the added summaries to disk."""
    if self._writer:
      self._writer.flush()


def print_metrics(metrics: Metrics, stream: TextIO) -> None:
  """Prints the metrics as slim does, then precision and recall per class.

  Args:
    metrics: a Metrics.
    stream: text stream.
  """
  lines = ['eval/Accuracy[%.4g]' % metrics.accuracy,
           'eval/Recall_5[%.4g]' % metrics.recall_5]
  lines.append('%d photos, 95 %% interval of the accuracy %.3f to %.3f' %
               ((metrics.photos,) + metrics.accuracy_interval))
  if len(metrics.classes) <= 5:
    lines.append('Recall_5 is always 1 with %d classes' % len(metrics.classes))
  if len(metrics.classes) > _MAX_PRINTED:
    lines.append('precision and recall of the %d classes: metrics.jsonl' %
                 len(metrics.classes))
  else:
    lines += _class_table(metrics.classes)
  print('\n'.join(lines), file=stream, flush=True)


def print_refused(refused: Any, set_here: bool, stream: TextIO) -> None:
  """Prints how many photos are refused as none of the classes.

  Args:
    refused: RefusedShare of the photos, see ood/detector.py.
    set_here: whether the threshold was set with these same photos.
    stream: text stream.
  """
  print('Refused as none of the classes: %d of %d photos, 95 %% interval %.3f '
        'to %.3f%s' % (
            refused.refused, refused.photos, *refused.interval,
            ' (the threshold was set with these photos)' if set_here else ''),
        file=stream, flush=True)


def _class_table(classes):
  width = max(len(c.label) for c in classes)
  yield '%-*s  precision  recall  photos' % (width, 'class')
  for c in classes:
    yield '%-*s  %9s  %6s  %6d' % (
        width, c.label, _three_decimals(c.precision),
        _three_decimals(c.recall), c.photos)


def _three_decimals(share):
  return '-' if share is None else '%.3f' % share


def write(eval_dir: str, counted: loop.Counted, metrics: Metrics,
          names: Sequence[str], split: str, writer: EventFile,
          detection: Optional[Any] = None) -> List[str]:
  """Writes metrics, predictions and the confusion matrix of one checkpoint.

  Args:
    eval_dir: folder; created if missing.
    counted: a Counted.
    metrics: its Metrics.
    names: the class names by index.
    split: name of the split.
    writer: EventFile of the folder.
    detection: Detection of the photos, see ood/detector.py, or None.

  Returns:
    The names of the files written.
  """
  files = {
      'predictions': 'predictions-%s-%d.csv' % (split, counted.global_step),
      'confusion': 'confusion-%s-%d.png' % (split, counted.global_step),
      'metrics': 'metrics.jsonl',
  }
  os.makedirs(eval_dir, exist_ok=True)
  paths = {key: os.path.join(eval_dir, name) for key, name in files.items()}
  _write_predictions(paths['predictions'], counted, names, detection)
  title = '%s, step %d: accuracy %.3f' % (
      split, counted.global_step, metrics.accuracy)
  png = confusion_plot.to_png(metrics.confusion, names, title)
  with open(paths['confusion'], 'wb') as stream:
    stream.write(png)
  _write_summary(writer, counted.global_step, split, metrics, png)
  with open(paths['metrics'], 'a', encoding='utf-8') as stream:
    stream.write(json.dumps(facts_of(counted, metrics, split, detection),
                            ensure_ascii=False) + '\n')
  return [paths[key] for key in ('metrics', 'predictions', 'confusion')]


def facts_of(counted: loop.Counted, metrics: Metrics, split: str,
             detection: Optional[Any] = None) -> Dict[str, Any]:
  """Returns the line of metrics.jsonl; arguments as for `write`."""
  facts: Dict[str, Any] = {
      'global_step': counted.global_step,
      'checkpoint': counted.checkpoint,
      'split': split,
      'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
      'photos': metrics.photos,
      'accuracy': metrics.accuracy,
      'accuracy_interval_95': list(metrics.accuracy_interval),
      'recall_5': metrics.recall_5,
      'classes': [c._asdict() for c in metrics.classes],
  }
  if detection:
    facts.update(refused=detection.refused.refused,
                 refused_interval_95=list(detection.refused.interval))
  return facts


def _write_predictions(path, counted, names, detection):
  """Writes a row per photo: file, label, prediction and probabilities."""
  with open(path, 'w', encoding='utf-8', newline='') as stream:
    rows = csv.writer(stream)
    rows.writerow(['file', 'label', 'predicted', 'correct', 'probability',
                   'label_probability'] +
                  (['known', 'similarity'] if detection else []))
    for position, (file_name, label, scores) in enumerate(zip(
        counted.filenames, counted.labels, counted.probabilities)):
      best = int(np.argmax(scores))
      row = [file_name, names[label], names[best], int(best == label),
             '%.6f' % scores[best], '%.6f' % scores[label]]
      if detection:
        row += [int(detection.known[position]),
                '%.6f' % detection.similarities[position]]
      rows.writerow(row)


def _write_summary(writer, global_step, split, metrics, png):
  """Writes the summaries of one split, with tags that name the split."""
  image = tf.Summary.Image(encoded_image_string=png)
  writer.add_summary(tf.Summary(value=[
      tf.Summary.Value(tag='eval/Accuracy/' + split,
                       simple_value=metrics.accuracy),
      tf.Summary.Value(tag='eval/Recall_5/' + split,
                       simple_value=metrics.recall_5),
      tf.Summary.Value(tag='confusion_matrix/' + split, image=image),
  ]), global_step)
  writer.flush()
