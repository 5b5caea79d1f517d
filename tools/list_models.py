r"""Lists the networks with size, cost, checkpoints and scopes to fine-tune.

  python -m tools.list_models
  python -m tools.list_models --model_name=inception_v4
  python -m tools.list_models --format=json
  python -m tools.list_models --rates_file=rates.json

Parameters are the trainable ones of the published classifier, without auxiliary
heads; multiply-adds are for one photo of the given size. The accuracies are
those of slim's README. To fine-tune a checkpoint on other classes, exclude the
scopes: --checkpoint_exclude_scopes of train_image_classifier.py. The speeds on
a machine are those that benchmarks/runtimes --rates_file=rates.json measured.
"""

import csv
import json
import sys
from typing import Any, Dict, Iterable, List, Sequence

from absl import flags

from common import flags as common_flags
from nets import nets_factory
from runtime import rates

FLAGS = flags.FLAGS

# Of the table and the CSV, which list the first checkpoint of each network.
COLUMNS = ('name', 'image_size', 'parameters', 'multiply_adds', 'top_1',
           'top_5', 'preprocessing', 'file', 'classifier_scopes')
_TITLES = ('network', 'size', 'parameters', 'multiply-adds', 'top-1', 'top-5',
           'preprocessing', 'published checkpoint', 'scopes to exclude')
_MILLIONS = {'parameters': '%.2f M', 'multiply_adds': '%.0f M'}
_NUMBERS = 6  # Columns 1 to 5 are right-aligned.


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'model_name', None,
      'The network to describe in detail. None: a table of all: %s.' %
      ', '.join(sorted(nets_factory.NETWORKS)))
  flags.DEFINE_enum(
      'format', 'table', ['table', 'json', 'csv'],
      'Output format. Only the table rounds numbers.')
  flags.DEFINE_string(
      'rates_file', None,
      'File of benchmarks/runtimes --rates_file: list the photos per second of '
      'each network by each runtime and precision. In a table they replace the '
      'columns about published checkpoints. None: without speeds.')


def main(_: List[str]) -> None:
  """Prints the networks in the form that the flags ask for."""
  names = ([FLAGS.model_name] if FLAGS.model_name is not None else
           sorted(nets_factory.NETWORKS))
  models = [nets_factory.describe(name) for name in names]
  measured = rates.load(FLAGS.rates_file) if FLAGS.rates_file else None
  ways: List[str] = []
  if measured:
    ways = sorted({rate.describe() for rate in measured.rates})
    for model in models:
      model['rates'] = [rate._asdict() for rate in measured.rates
                        if rate.network == model['name']]
  if FLAGS.format == 'json':
    print(json.dumps(models, indent=2))
  elif FLAGS.format == 'csv':
    writer = csv.writer(sys.stdout, lineterminator='\n')
    writer.writerow([*COLUMNS, *ways])
    writer.writerows([*_cells(model), *_speeds(model, ways)]
                     for model in models)
  elif FLAGS.model_name is not None:
    print('\n'.join(details(models[0])))
  elif measured:
    print('Photos per second of the forward pass, %s' % measured.processor)
    print('\n'.join(rates_table(models, ways)))
  else:
    print('\n'.join(table(models)))


def _cells(model):
  """Returns the values of COLUMNS; None for unpublished ones."""
  checkpoint = (model['checkpoints'] or [{}])[0]
  facts = dict(model, **{name: checkpoint.get(name)
                         for name in ('file', 'top_1', 'top_5')})
  facts['classifier_scopes'] = ','.join(model['classifier_scopes'])
  return [facts[name] for name in COLUMNS]


def table(models: Iterable[Dict[str, Any]]) -> List[str]:
  """Returns the lines of a table with one network per line.

  Args:
    models: dicts as nets_factory.describe returns them.
  """
  return _align([_TITLES] + [
      [_shorten(name, cell) for name, cell in zip(COLUMNS, _cells(model))]
      for model in models], _NUMBERS)


def rates_table(models: Iterable[Dict[str, Any]],
                ways: Sequence[str]) -> List[str]:
  """Returns the lines of a table of speeds with one network per line.

  Args:
    models: dicts as nets_factory.describe returns them, with `rates`: a list of
      rates.Rate as dicts.
    ways: the columns, as rates.Rate.describe returns them.
  """
  facts = ('name', 'image_size', 'multiply_adds')
  rows = [[_TITLES[COLUMNS.index(name)] for name in facts] + list(ways)]
  for model in models:
    rows.append([_shorten(name, model[name]) for name in facts] + [
        '-' if speed is None else '%.1f' % speed
        for speed in _speeds(model, ways)])
  return _align(rows, len(rows[0]))


def _align(rows, numbers):
  """Returns lines; columns 1 to `numbers` - 1 are right-aligned."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = []
  for row in rows:
    cells = [cell.rjust(width) if 0 < index < numbers else cell.ljust(width)
             for index, (cell, width) in enumerate(zip(row, widths))]
    lines.append('  '.join(cells).rstrip())
  return lines


def _speeds(model, ways):
  """Returns the photos per second of a model by way, None if not measured."""
  speeds = {rates.Rate(**rate).describe(): rate['photos_per_second']
            for rate in model.get('rates', ())}
  return [speeds.get(way) for way in ways]


def _shorten(name, cell):
  if cell is None:
    return '-'
  return _MILLIONS[name] % (cell / 1e6) if name in _MILLIONS else str(cell)


def details(model: Dict[str, Any]) -> List[str]:
  """Returns the lines about one network and all its checkpoints.

  Args:
    model: dict as nets_factory.describe returns it.
  """
  size = model['image_size']
  costs = ['  parameters:     not counted']
  if model['parameters'] is not None:
    costs = ['  parameters:     %s with %d classes' %
             (_shorten('parameters', model['parameters']), model['classes']),
             '  multiply-adds:  %s per photo' %
             _shorten('multiply_adds', model['multiply_adds'])]
  lines = [
      model['name'],
      '  input:          %d x %d x %d, preprocessing %s' %
      (size, size, model['channels'], model['preprocessing']), *costs,
      '  features:       end point %s' % model['features'],
      '  to fine-tune:   --checkpoint_exclude_scopes=%s' %
      ','.join(model['classifier_scopes'])]
  if model.get('rates'):
    lines.append('  speed:          photos per second')
  for rate in [rates.Rate(**fields) for fields in model.get('rates', ())]:
    memory = '' if rate.memory_mb is None else ', %.0f MB' % rate.memory_mb
    lines.append('    %-27s %6.1f  in batches of %d%s' % (
        rate.describe(), rate.photos_per_second, rate.batch_size, memory))
  if not model['checkpoints']:
    return lines + ['  published:      no checkpoint']
  lines.append('  published:      top-1, top-5 on ImageNet')
  width = max(len(row['name']) for row in model['checkpoints'])
  for row in model['checkpoints']:
    accuracies = ['   -  ' if row[name] is None else '%4.1f %%' % row[name]
                  for name in ('top_1', 'top_5')]
    lines.append('    %s  %s %s  %s%s' % (
        row['name'].ljust(width), *accuracies, row['url'],
        ' (8-bit)' if row['is_quantized'] else ''))
  if model['classes'] == 1000:
    lines.append('    these have no background class: --labels_offset=1 to '
                 'evaluate them on ImageNet')
  return lines + ['  download:       python -m tools.download_checkpoint %s' %
                  model['name']]


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
