"""Describes a trained classifier in a few sentences.

  python -m tools.describe_run --eval_dir=output/flowers_mobilenet_v1/eval \
    --manifest=data/flowers.json

The last evaluation tells its accuracy, the two classes that it confuses most
often, and how many photos it refuses; the manifest, what it was trained on.
"""

import collections
import csv
import json
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from datasets import manifest as manifests
from evaluation import metrics
from runs import run_list


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string('eval_dir', None, 'Folder of ./run_eval.sh.')
  flags.DEFINE_string(
      'train_dir', None,
      'Folder of the run, where ./report.sh writes how many photos are refused '
      'if ./run_eval.sh could not tell.')
  flags.DEFINE_string(
      'manifest', None, 'Path of the manifest of the converted data set.')


def read(eval_dir: str) -> Tuple[Dict[str, Any], List[Dict[str, str]]]:
  """Returns the last line of metrics.jsonl and the rows of its predictions.

  Raises:
    InputError: there is no evaluation.
  """
  lines = run_list.read_metrics(eval_dir)
  try:
    last = lines[-1]
    path = os.path.join(eval_dir, 'predictions-%s-%d.csv' % (
        last['split'], last['global_step']))
    with open(path, encoding='utf-8', errors='surrogateescape',
              newline='') as stream:
      rows = [dict(row) for row in csv.DictReader(stream)]
  except (IndexError, KeyError, TypeError, OSError):
    rows = []
  if not rows:
    raise InputError('--eval_dir=%s: no evaluation; ./run_eval.sh makes one' %
                     eval_dir)
  return last, rows


def read_refused(train_dir: str, result: Dict[str, Any]) -> Optional[int]:
  """Returns how many photos the report of an evaluation refuses, or None.

  Args:
    train_dir: folder of the run.
    result: a line of metrics.jsonl.
  """
  for folder in ('best', ''):
    try:
      with open(os.path.join(train_dir, folder, 'results.json'),
                encoding='utf-8') as stream:
        line = json.load(stream)['splits'][result['split']]
      if line['global_step'] == result['global_step']:
        return line.get('refused')
    except (OSError, ValueError, KeyError, TypeError):
      pass
  return None


def sentences(result: Dict[str, Any], rows: Sequence[Dict[str, str]],
              manifest: manifests.Manifest,
              refused: Optional[int] = None) -> List[str]:
  """Returns the sentences.

  Args:
    result: a line of metrics.jsonl.
    rows: of the predictions of the same evaluation.
    manifest: Manifest of the data set.
    refused: number of refused photos, if the predictions do not have it.
  """
  photos, split = len(rows), result['split']
  right = sum(row['correct'] == '1' for row in rows)
  low, high = metrics.wilson_interval(right, photos)
  trained = manifest.splits.get('train', {}).get('size', 0)
  lines = [
      '%d photos of %d classes, %d of them for training.' % (
          len(manifest.files), len(manifest.labels), trained),
      '%d of %d %s photos are classified correctly: %.1f %% (95 %% interval '
      '%.1f to %.1f %%).' % (right, photos, split, 100 * right / photos,
                             100 * low, 100 * high)]
  label, count = collections.Counter(
      row['label'] for row in rows).most_common(1)[0]
  if low <= count / photos:
    lines.append(
        'That is not better than chance: always answering %s is right for %.1f '
        '%%. The network needs more steps, more photos, or a published '
        'checkpoint to start from.' % (label, 100 * count / photos))
  confused = collections.Counter(
      tuple(sorted((row['label'], row['predicted']))) for row in rows
      if row['correct'] != '1').most_common(1)
  if confused:
    ((one, other), times), = confused
    lines.append('Confused most often: %s and %s, %d %s.' % (
        one, other, times, 'photo' if times == 1 else 'photos'))
  known = [row['known'] for row in rows if row.get('known')]
  if known:
    refused = known.count('0')
  if refused is not None:
    lines.append('%d of %d photos of these classes are refused as none of them.'
                 % (refused, len(known) or photos))
  return lines


def main(_: List[str]) -> None:
  """Prints the sentences."""
  values = flags.FLAGS
  common_flags.require(values, 'eval_dir', 'manifest')
  manifest = manifests.load_file(values.manifest)
  if manifest is None:
    raise InputError('--manifest=%s: no such file; ./convert_tfrecord.sh '
                     'writes it' % values.manifest)
  result, rows = read(values.eval_dir)
  refused = values.train_dir and read_refused(values.train_dir, result)
  print('\n'.join(sentences(result, rows, manifest, refused)))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
