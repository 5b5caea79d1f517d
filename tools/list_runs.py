r"""Lists the training runs, removes, renames or compares them.

  ./runs.sh                        lists all; * marks the current run
  ./runs.sh --use NAME             makes another run the current one
  ./runs.sh --rename NAME NEW      renames a run and its folder
  ./runs.sh --remove NAME [--yes]  removes a run's folders, asks before that
  ./runs.sh --compare A B [--output_file=page.html]
                                   compares two runs on the same photos; writes
                                   a page, by default RUNS_DIR/A_B.html

Scripts use the current run, the one whose training was started last, unless
RUN=NAME or other variables choose another.
"""

import argparse
import os
import sys
import time
from typing import Any, List, Optional, Sequence

from common.errors import InputError
from common.paths import relative
from runs import run_list
from runs.run_list import Run

# Changed photos that --compare prints in each direction; the page has more.
_PRINTED = 5


def describe(run: Run) -> str:
  """Returns the data set, the network, the step and the accuracy of a run."""
  facts, result = run_list.facts(run), run_list.result(run)
  parts = [facts.get('dataset_name') or '?', facts.get('model_name') or '?',
           'no checkpoint yet' if result.step is None else
           'step %d' % result.step]
  if result.accuracy is not None:
    parts.append('accuracy %.4f on %s photos' % (result.accuracy, result.split))
  else:
    parts.append('not evaluated')
  if run_list.is_training(run.train_dir):
    parts.append('training')
  return ', '.join(parts)


def print_for_shell(runs_dir: str, name: Optional[str],
                    may_be_new: bool = False) -> None:
  """Prints what scripts/find_run.sh reads: a line per value.

  Prints nothing if there is no such run.

  Args:
    runs_dir: folder of the runs.
    name: name of the run; None: the current one.
    may_be_new: whether a name that no run has is accepted.

  Raises:
    InputError: no run has this name, or it cannot be a name.
  """
  if not name:
    run = run_list.current(runs_dir)
  elif may_be_new and name not in [
      other.name for other in run_list.find_all(runs_dir)]:
    run_list.check_name(name)
    run = None
  else:
    run = run_list.find(runs_dir, name)
  if run is None:
    return
  facts = run_list.facts(run)
  print('\n'.join(str(value or '').replace('\n', ' ') for value in (
      run.name, describe(run), facts.get('model_name'),
      facts.get('dataset_name'), facts.get('dataset_dir'),
      facts.get('checkpoint_path', '-'),  # Not known.
      run.output_dir, run.train_dir, run.eval_dir, run.export_dir,
      run.log_file)))


def rows(runs_dir: str) -> List[Sequence[str]]:
  """Returns the rows of the table of all runs, with a heading."""
  table: List[Sequence[str]] = [
      ('', 'name', 'data set', 'network', 'photos', 'accuracy',
       '95 % interval', 'date', 'size', 'where')]
  current = run_list.current(runs_dir)
  for run in run_list.find_all(runs_dir):
    facts, result = run_list.facts(run), run_list.result(run)
    table.append((
        '*' if run == current else '', run.name,
        facts.get('dataset_name') or '?', facts.get('model_name') or '?',
        _or_dash(_split_size(facts, 'train'), '%d'),
        _or_dash(result.accuracy, '%.4f'), _interval(facts, result),
        _date(run), _size(run_list.size(run_list.folders(run))), _where(run)))
  return table


def _or_dash(value, form):
  return '-' if value is None else form % value


def _split_size(facts, split):
  """Returns the photos in a split of a run's data set, None if not known."""
  folder, name = facts.get('dataset_dir'), facts.get('dataset_name')
  if not (folder and name):
    return None
  manifest = run_list.read_json(os.path.join(folder, name + '.json'))
  entry = (manifest.get('splits') or {}).get(split) or {}
  return entry.get('size')


def _interval(facts, result):
  from evaluation import metrics  # NumPy, which other actions do not need.
  photos = result.photos
  if photos is None and result.split:
    photos = _split_size(facts, result.split)
  if result.accuracy is None or not photos:
    return '-'
  return '%.4f to %.4f' % metrics.wilson_interval(
      round(result.accuracy * photos), photos)


def _date(run):
  if run_list.is_training(run.train_dir):
    return 'training'
  names = [os.path.join(run.train_dir, name)
           for name in ('checkpoint', run_list.INFO_FILE)]
  return time.strftime('%Y-%m-%d %H:%M', time.localtime(max(
      os.path.getmtime(name) for name in names if os.path.exists(name))))


def _size(size):
  return '%.1f MB' % (size / 1e6) if size < 1e9 else '%.2f GB' % (size / 1e9)


def _where(run):
  """Returns the folder of a run, relative to the current one if inside it."""
  folder = (run.output_dir if run.train_dir.startswith(run.output_dir + os.sep)
            and os.path.basename(run.train_dir) == 'train' else run.train_dir)
  return relative(folder)


def print_table(table: Sequence[Sequence[str]]) -> None:
  """Prints rows of text in columns; numbers are aligned right."""
  widths = [max(len(row[column]) for row in table)
            for column in range(len(table[0]))]
  right = {'photos', 'accuracy', 'size'}
  for row in table:
    cells = [text.rjust(width) if name in right else text.ljust(width)
             for text, width, name in zip(row, widths, table[0])]
    print('  '.join(cells).strip() if not widths[0] else
          ' '.join((cells[0], '  '.join(cells[1:]))).rstrip())


def remove(runs_dir: str, name: str, is_confirmed: bool) -> int:
  """Removes a run, after asking; returns the exit status.

  Raises:
    InputError: there is no such run, it cannot be removed, or nobody can be
      asked.
  """
  run = run_list.find(runs_dir, name)
  folders = run_list.folders_to_remove(runs_dir, run)
  text = '%s (%s)' % (' and '.join(folders), _size(run_list.size(folders)))
  if not is_confirmed:
    if not sys.stdin.isatty():
      raise InputError('this would remove %s: give --yes' % text)
    try:
      answer = input('Remove %s? [y/N] ' % text)
    except EOFError:
      answer = ''
      print()
    if answer.strip().lower() not in ('y', 'yes'):
      print('Nothing is removed')
      return 1
  run_list.remove(runs_dir, run)
  print('Removed %s' % text)
  for folder in run_list.folders(run):
    print('Kept %s, which may have other files, too' % folder)
  return 0


def compare(runs_dir: str, names: Sequence[str],
            output_file: Optional[str]) -> None:
  """Prints a comparison of two runs, and writes it as a page.

  Args:
    runs_dir: folder of the runs.
    names: names of the two runs.
    output_file: path of the page; None: A_B.html in runs_dir.

  Raises:
    InputError: a run is unknown or not evaluated, or the page cannot be
      written.
  """
  from evaluation import run_comparison
  found = run_comparison.compare(*(run_list.find(runs_dir, name)
                                   for name in names))
  print_comparison(found)
  print('Writing a page with curves and photos', file=sys.stderr, flush=True)
  # These load TensorFlow, which takes seconds.
  from common import files
  from evaluation import comparison_page
  path = output_file or os.path.join(runs_dir, '%s_%s.html' % tuple(names))
  files.write_output(os.path.expanduser(path),
                     comparison_page.render(found).encode())
  print('Wrote %s' % relative(path))


def print_comparison(found: Any) -> None:
  """Prints a run_comparison.Comparison."""
  for letter, run, step in zip('AB', found.runs, found.steps):
    print('%s  %s, step %d' % (letter, run.name, step))
  print('\nSettings that differ%s' % ('' if found.settings else ': none'))
  if found.settings:
    print_table([('setting', 'A', 'B'), *(
        tuple(map(_shortened, row)) for row in found.settings)])
  print('\nAccuracy on the same %d %s photos' % (len(found.pairs),
                                                 found.split))
  for letter, accuracy, interval in zip('AB', found.accuracies(),
                                        found.intervals()):
    print('%s  %.4f, 95 %% interval %.4f to %.4f' % (letter, accuracy,
                                                    *interval))
  for count, letter in zip(found.others, 'AB'):
    if count:
      print('%d photos were evaluated with %s only' % (count, letter))
  print(found.verdict())
  for title, pairs in (('right to wrong', found.lost()),
                       ('wrong to right', found.gained())):
    print('\nFrom %s: %d photo%s' % (title, len(pairs),
                                      '' if len(pairs) == 1 else 's'))
    for a, b in pairs[:_PRINTED]:
      print('  %s: %s, then %s' % (a.file, a.predicted, b.predicted))
    if len(pairs) > _PRINTED:
      print('  and %d more' % (len(pairs) - _PRINTED))


def _shortened(text):
  return text if len(text) <= 50 else text[:20] + '…' + text[-29:]


def parser() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  made = argparse.ArgumentParser(prog='runs.sh', usage='./runs.sh --help',
                                 allow_abbrev=False)
  made.add_argument('--runs_dir', required=True)
  actions = made.add_mutually_exclusive_group()
  # For scripts/find_run.sh.
  actions.add_argument('--print_for_shell', nargs='?', const='')
  made.add_argument('--may_be_new', action='store_true')
  actions.add_argument('--use', metavar='NAME')
  actions.add_argument('--rename', nargs=2, metavar=('NAME', 'NEW'))
  actions.add_argument('--remove', metavar='NAME')
  actions.add_argument('--compare', nargs=2, metavar=('A', 'B'))
  made.add_argument('--yes', action='store_true')
  made.add_argument('--output_file')
  return made


def run_action(values: argparse.Namespace) -> int:
  """Does what the command line asks for; returns the exit status.

  Raises:
    InputError: a run is unknown, or the action is not possible.
  """
  runs_dir = values.runs_dir
  if values.print_for_shell is not None:
    print_for_shell(runs_dir, values.print_for_shell, values.may_be_new)
  elif values.use:
    run = run_list.find(runs_dir, values.use)
    run_list.use(runs_dir, run)
    print('The current run is %s: %s' % (run.name, describe(run)))
  elif values.rename:
    old = run_list.find(runs_dir, values.rename[0])
    run = run_list.rename(runs_dir, old, values.rename[1])
    print('%s is %s now, in %s' % (old.name, run.name, _where(run)))
  elif values.remove:
    return remove(runs_dir, values.remove, values.yes)
  elif values.compare:
    compare(runs_dir, values.compare, values.output_file)
  else:
    table = rows(runs_dir)
    if len(table) == 1:
      print('There is no run in %s yet; ./run_train.sh starts one' %
            relative(runs_dir))
    else:
      print_table(table)
  return 0


def main(arguments: Sequence[str]) -> int:
  """Runs the action of a command line; returns the exit status."""
  values = parser().parse_args(arguments)
  if sys.stdout is not None:  # Names of folders may be no valid text.
    sys.stdout.reconfigure(errors='surrogateescape')  # type: ignore[attr-defined,union-attr]
  try:
    return run_action(values)
  except InputError as error:
    message = str(error)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except OSError as error:
    message = str(error) if error.filename is None else '%s: %s' % (
        error.filename, error.strerror)
  except KeyboardInterrupt:
    message = 'interrupted'
  # In the name of the script that asks.
  print('%s: error: %s' % (os.environ.get('SCRIPT_NAME', 'runs.sh'),
                           relative(message)), file=sys.stderr)
  return 1


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
