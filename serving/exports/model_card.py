"""Model card of an exported graph: a Markdown file for users of the model.

Its fields are those that published models have: intended use, data, training,
metrics, limits. M. Mitchell et al.: Model Cards for Model Reporting, arXiv
1810.03993. Facts come from the run, the report and the graph. What no program
can know is 'not stated'; what a person writes there is kept by the next export.
"""

import os
import re
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from common import files
from datasets import manifest
from evaluation import metrics
from runs import run_info
from serving.model.graph_info import GraphInfo

NOT_STATED = 'not stated'
# In place of facts of programs, which no person states.
NOT_KNOWN = 'not known'

# With more classes than this they are not listed one by one.
_MAX_CLASSES = 100
# A recall from less than this many photos is called uncertain.
_FEW_PHOTOS = 30
# Settings of training that are listed if they were given.
_SETTINGS = ('optimizer', 'learning_rate', 'learning_rate_decay_type',
             'batch_size', 'max_number_of_steps', 'weight_decay',
             'dropout_keep_prob', 'label_smoothing', 'cache_features',
             'train_classifier_only', 'trainable_scopes')


class Facts(NamedTuple):
  """What is known of a model."""

  # Of the frozen graph.
  info: GraphInfo
  # File name and size in bytes of the frozen graph.
  file_name: str
  size: int
  # None without a run.json.
  run: Optional[run_info.RunInfo]
  # Whether the validation photos chose the checkpoint.
  is_best: bool
  # {flag: value as text} of training.
  flags: Dict[str, str]
  # None if the data set is not there.
  data: Optional[manifest.Manifest]
  # {split: line of metrics.jsonl}, validation and test.
  results: Dict[str, Dict[str, Any]]
  # Why the graph refuses photos or does not.
  refusal: str


def path_of(frozen_file: str) -> str:
  """Returns the path of the model card of a frozen graph."""
  return os.path.splitext(frozen_file)[0] + '.md'


def write(frozen_file: str, facts: Facts) -> str:
  """Writes the model card of a frozen graph and returns its path."""
  path = path_of(frozen_file)
  former = (files.read_if_exists(path) or b'').decode('utf-8', 'replace')
  text = keep_stated(render(facts), former)
  files.write_output(path, text.encode('utf-8', 'backslashreplace'))
  return path


def keep_stated(text: str, former: str) -> str:
  """Returns a card with what a person has stated in the former one.

  Args:
    text: the new card.
    former: the card that it replaces, '' for none.
  """
  # With the lines and indented paragraphs below.
  stated = dict(re.findall(
      r'^- \*\*(.+?):\*\* (.+(?:\n\n+(?=[ \t]).+|\n(?!- \*\*|#|\|).+)*)$',
      former, re.MULTILINE))

  def restore(match):
    value = stated.get(match.group(1), NOT_STATED)
    return match.group(0) if re.fullmatch(NOT_STATED + '.*', value) else (
        '- **%s:** %s' % (match.group(1), value))

  return re.sub(r'^- \*\*(.+?):\*\* %s.*$' % NOT_STATED, restore, text,
                flags=re.MULTILINE)


def render(facts: Facts) -> str:
  """Returns the text of a model card."""
  info, run = facts.info, facts.run
  name = info.model_name or facts.file_name
  title = '%s on %s' % (name, run.dataset_name) if run else name
  parts = [
      '# Model card: %s' % _text(title),
      'Written by export_inference_graph.py on %s. Replace %r where you know '
      'more: the next export keeps it.' % (
          time.strftime('%Y-%m-%d', time.gmtime()), NOT_STATED),
      _section('Model', _model(facts)),
      _section('Intended use', _use(facts)),
      _section('Training data', _data(facts)) + _class_table(facts),
      _section('Training', _training(facts)),
      '## Metrics\n\n' + _metrics(facts),
      _section('Limits', _limits(facts)),
      _section('Out-of-distribution photos', _refusal(facts)),
  ]
  return '\n\n'.join(parts) + '\n'


def _section(title, rows):
  return '## %s\n\n%s' % (title, '\n'.join(
      '- **%s:** %s' % (name, _text(value)) for name, value in rows))


def _text(value):
  """Returns a value as one line of Markdown, without markup of its own."""
  return re.sub(r'([\\`*|<>\[\]]|\b_|_\b)', r'\\\1',
                ' '.join(str(value).split()))


def _ask(hint):
  return '%s (%s)' % (NOT_STATED, hint)


def _model(facts):
  info = facts.info
  outputs = ['scores %s' % info.predictions]
  if info.calibrated_predictions:
    outputs.append('calibrated scores %s (temperature %.4g)' %
                   (info.calibrated_predictions, info.temperature))
  if info.known:
    outputs.append('known or not %s' % info.known)
  return [
      ('Network', info.model_name or NOT_KNOWN),
      ('File', '%s, frozen TensorFlow graph, %.1f MB' %
       (facts.file_name, facts.size / 1e6)),
      ('Weights', '%s, step %s' % (os.path.basename(info.checkpoint or '-'),
                                   info.global_step)),
      ('Input', '%s: %s, used at %d x %d pixels, preprocessing %s' % (
          info.input, 'encoded photos (JPEG, PNG)'
          if info.input_kind == 'encoded' else 'preprocessed float images',
          info.image_size, info.image_size, info.preprocessing_name)),
      ('Output', '; '.join(outputs)),
      ('Precision of its forward passes', info.precision or 'float32'),
      ('Made by', _ask('who trained it, and whom to ask')),
      ('License', _ask('of the weights; also that of the checkpoint that '
                       'training started from')),
  ]


def _use(facts):
  labels = facts.info.labels
  shown = ', '.join(labels[:_MAX_CLASSES])
  if len(labels) > _MAX_CLASSES:
    shown += ' and %d more' % (len(labels) - _MAX_CLASSES)
  return [
      ('Task', 'one of %d classes for a photo: %s' % (len(labels), shown)),
      ('Intended use', _ask('for whom, and for which decisions')),
      ('Not intended for', _ask('uses that would do harm')),
  ]


def _data(facts):
  data, run = facts.data, facts.run
  rows = [('Data set', run.dataset_name if run else NOT_KNOWN)]
  if data:
    rows.append(('Photos', ', '.join(
        '%d %s' % (entry['size'], split)
        for split, entry in data.splits.items())))
    if data.skipped:
      rows.append(('Files that were skipped', len(data.skipped)))
  return rows + [
      ('Origin of the photos', _ask('who took them, where and when')),
      ('License and consent', _ask('may they be used, and do they show '
                                   'persons?')),
  ]


def _class_table(facts):
  """Returns the table of photos per class, '' without a manifest."""
  data = facts.data
  if data is None or len(data.labels) > _MAX_CLASSES or not all(
      'class_counts' in entry for entry in data.splits.values()):
    return ''
  splits = list(data.splits)
  return '\n\n' + _table(['photos'] + splits, [
      [label] + [data.splits[split]['class_counts'].get(label, 0)
                 for split in splits] for label in data.labels])


def _table(head, rows):
  lines = [head, ['---'] + ['---:'] * (len(head) - 1)] + [
      [_text(cell) for cell in row] for row in rows]
  return '\n'.join('| %s |' % ' | '.join(map(str, line)) for line in lines)


def _training(facts):
  run = facts.run
  if run is None:
    return [('Procedure', NOT_KNOWN + ' (no run.json is beside the '
             'checkpoint)')]
  rows = [('Started from', os.path.basename(run.checkpoint_path)
           if run.checkpoint_path else 'random weights')]
  if run.head:
    rows.append(('Head', '%s, fitted exactly to the features of several layers'
                 '; its regularization was chosen by cross-validation on the '
                 'training photos%s' % (
                     run.head, '; features are averaged over the photo and its '
                     'mirror image' if run.flip_average else '')))
  if facts.is_best:
    rows.append(('Checkpoint', 'the most accurate one on the validation '
                 'photos'))
  if facts.info.temperature:
    rows.append(('Temperature', '%.4g, fitted on the validation photos' %
                 facts.info.temperature))
  given = ['%s %s' % (name, facts.flags[name]) for name in _SETTINGS
           if name in facts.flags]
  rows.append(('Settings that were given',
               ', '.join(given) or
               NOT_KNOWN + ' (flags.json is missing or has none)'))
  return rows


def _metrics(facts):
  if not facts.results:
    return ('- **Accuracy:** %s' %
            _ask('./report.sh measures it; then export again'))
  rows = []
  for split, line in facts.results.items():
    rows.append([split, line['photos'], _share(line['accuracy']),
                 _interval(line['accuracy_interval_95']),
                 _share(line['recall_5'])])
  parts = [_table(['split', 'photos', 'accuracy', '95 % interval (Wilson)',
                   'label among the first 5'], rows)]
  split, line = list(facts.results.items())[-1]
  if line.get('ms_per_photo'):
    parts.append('%.1f ms per photo, one at a time, without decoding it, when '
                 'the report was made: %s.' % (line['ms_per_photo'],
                                               line['computed_by']))
  if len(line['classes']) <= _MAX_CLASSES:
    parts.append('Of the %s photos:\n\n' % split + _table(
        ['class', 'recall', '95 % interval', 'precision', 'photos'],
        [[c['label'], _share(c['recall']), _recall_interval(c),
          _share(c['precision']), c['photos']] for c in line['classes']]))
  return '\n\n'.join(parts)


def _share(value):
  return '–' if value is None else '%.1f %%' % (100 * value)


def _interval(pair):
  return '%.1f to %.1f %%' % (100 * pair[0], 100 * pair[1])


def _recall_interval(row):
  if not row['photos']:
    return '–'
  return _interval(metrics.wilson_interval(
      round(row['recall'] * row['photos']), row['photos']))


def _limits(facts) -> List[Tuple[str, str]]:
  rows = []
  if facts.results:
    split, line = list(facts.results.items())[-1]
    if split == 'validation' and facts.is_best:
      rows.append(('Optimistic numbers', 'the checkpoint was chosen on the '
                   'validation photos; other photos usually give lower ones'))
    missed = [c for c in line['classes'] if c['photos'] and c['recall'] < 1]
    if missed:
      worst = min(missed, key=lambda c: c['recall'])
      rows.append(('Weakest class', '%s: %s of its %d %s photos are recognized'
                   % (worst['label'], _share(worst['recall']), worst['photos'],
                      split)))
    few = [c['label'] for c in line['classes'] if c['photos'] < _FEW_PHOTOS]
    if few:
      rows.append(('Uncertain numbers', '%d of %d classes were measured on '
                   'fewer than %d photos' % (len(few), len(line['classes']),
                                             _FEW_PHOTOS)))
  return rows + [
      ('Other photos', 'the numbers hold for photos like those of the data '
       'set; those of other cameras, places or times were not measured'),
      ('Known failures', _ask('what it gets wrong in use')),
  ]


def _refusal(facts):
  info = facts.info
  if not info.known:
    return [('Refusal', 'none, so that every photo gets a class: %s' %
             facts.refusal)]
  rows = [('Rule', 'photos with a known score below %.4f are refused; the '
           'threshold was set with %s validation photos' %
           (info.threshold, info.threshold_photos)),
          ('Details', facts.refusal)]
  for split, line in facts.results.items():
    if line.get('refused') is not None:
      rows.append(('Refused of the %s photos, which all belong to the classes' %
                   split, '%d of %d (95 %% interval %s)' %
                   (line['refused'], line['photos'],
                    _interval(line['refused_interval_95']))))
  return rows + [('Refused of photos of no class', _ask(
      'classify a folder of such photos with tools.classify_image'))]
