"""Training runs on this machine: their names, folders and results.

The runs are the folders in `RUNS_DIR`, and the folders elsewhere that
`RUNS_DIR/runs.tsv` lists: run_train.sh appends a line to this file when a
training starts, so the last line is the current run. A run that was removed by
hand is not listed. Imports no TensorFlow: the scripts ask which run to use
before they start.
"""

import contextlib
import glob
import json
import os
import re
import shutil
from typing import (
  Any,
  Dict,
  Iterator,
  List,
  NamedTuple,
  Optional,
  Sequence,
)

from common import locks
from common.errors import InputError, unknown_name

HISTORY_FILE = 'runs.tsv'
# Facts of a run, see runs/run_info.py.
INFO_FILE = 'run.json'
BEST_DIR = 'best'
# Next to the checkpoint that was best on the validation photos.
BEST_FILE = 'best.json'
# The trainer keeps it locked.
LOCK_FILE = 'train.pid'
METRICS_FILE = 'metrics.jsonl'

# Folders of runs, in RUNS_DIR: those of run_train.sh, of the second step of
# scripts/finetune_on_flowers.sh, and of quickstart.sh before it used RUNS_DIR.
_PATTERNS = ('*/train', '*/train/all', 'quickstart/*/train')
_NAME = re.compile(r'[A-Za-z0-9_][\w.-]*')


class Run(NamedTuple):
  """Name and absolute folders of a run."""

  name: str
  train_dir: str
  eval_dir: str
  export_dir: str
  # '' if it is not known.
  log_file: str

  @property
  def output_dir(self) -> str:
    """The folder that has the others, as OUTPUT_DIR of the scripts."""
    return _output_dir(self.train_dir)


class Result(NamedTuple):
  """Accuracy of the checkpoint of a run that scripts use."""

  # Global step, None if there is no checkpoint.
  step: Optional[int] = None
  # The other fields are None if it was not evaluated.
  accuracy: Optional[float] = None
  split: Optional[str] = None
  # How many photos; None if it is not known.
  photos: Optional[int] = None


class _Line(NamedTuple):
  """A line of the history; '' for a field that is not known."""

  # Given by the user.
  name: str
  train_dir: str
  eval_dir: str
  export_dir: str
  log_file: str


def find_all(runs_dir: str) -> List[Run]:
  """Returns all runs, sorted by name."""
  lines = _existing(runs_dir)
  by_folder = {os.path.realpath(line.train_dir): line for line in lines}
  given = {os.path.realpath(line.train_dir): line.name for line in lines
           if line.name}
  for pattern in _PATTERNS:
    for folder in sorted(glob.glob(os.path.join(
        glob.escape(os.path.abspath(runs_dir)), pattern))):
      if _is_run(folder):
        by_folder.setdefault(os.path.realpath(folder),
                             _Line('', folder, '', '', ''))
  # Names of folders in RUNS_DIR come first, so that those are kept.
  order = sorted(by_folder, key=lambda folder: (
      folder not in given, not _is_default(by_folder[folder], runs_dir),
      by_folder[folder].train_dir))
  runs: Dict[str, Run] = {}
  for folder in order:
    line = by_folder[folder]
    name = _free_name(given.get(folder) or _name_of(line.train_dir, runs_dir),
                      runs)
    output = _output_dir(line.train_dir)
    runs[name] = Run(name, line.train_dir,
                     line.eval_dir or _sibling(line.train_dir, 'eval'),
                     line.export_dir or os.path.join(output, 'export'),
                     line.log_file)
  return [runs[name] for name in sorted(runs)]


def find(runs_dir: str, name: str) -> Run:
  """Returns the run with this name.

  Raises:
    InputError: there is none.
  """
  runs = {run.name: run for run in find_all(runs_dir)}
  if name not in runs:
    if not runs:
      raise InputError('unknown run %r: there is no run in %s yet; '
                       './run_train.sh starts one' % (name, runs_dir))
    raise unknown_name('run', name, runs)
  return runs[name]


def current(runs_dir: str) -> Optional[Run]:
  """Returns the existing run whose training was started last, or None."""
  lines = _existing(runs_dir)
  if not lines:
    return None
  last = os.path.realpath(lines[-1].train_dir)
  return next(run for run in find_all(runs_dir)
              if os.path.realpath(run.train_dir) == last)


def is_training(train_dir: str) -> bool:
  """Whether a process of this machine trains in a folder."""
  return locks.is_locked(os.path.join(train_dir, LOCK_FILE))


def facts(run: Run) -> Dict[str, Any]:
  """Returns the content of a run's run.json; {} if it cannot be read."""
  return read_json(os.path.join(run.train_dir, INFO_FILE))


def result(run: Run) -> Result:
  """Returns the newest result of the best, or else the newest checkpoint."""
  best = os.path.join(run.train_dir, BEST_DIR)
  found = read_json(os.path.join(best, BEST_FILE))
  step = found.get('step', _newest_step(best))
  if step is None:
    step = _newest_step(run.train_dir)
  measured = Result(step, found.get('accuracy'),
                    'validation' if found else None)
  for line in read_metrics(run.eval_dir):
    if line.get('global_step') == step:
      measured = Result(step, line.get('accuracy'), line.get('split'),
                        line.get('photos'))
  return measured


def read_metrics(eval_dir: str) -> List[Dict[str, Any]]:
  """Returns the lines of an evaluation's metrics.jsonl that can be read."""
  lines = []
  with contextlib.suppress(OSError):
    with open(os.path.join(eval_dir, METRICS_FILE), encoding='utf-8',
              errors='replace') as stream:
      for text in stream:
        with contextlib.suppress(ValueError):
          lines.append(json.loads(text))
  return [line for line in lines if isinstance(line, dict)]


def read_json(path: str) -> Dict[str, Any]:
  """Returns the object in a JSON file; {} if it cannot be read."""
  try:
    with open(path, encoding='utf-8') as stream:
      found = json.load(stream)
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def folders(run: Run) -> List[str]:
  """Returns the existing folders of a run, without those inside others."""
  return _outermost(run[1:4])


def size(tops: Sequence[str]) -> int:
  """Returns the size of the files in some folders, in bytes."""
  total = 0
  for top in tops:
    for folder, _, names in os.walk(top):
      for name in names:
        with contextlib.suppress(OSError):
          total += os.lstat(os.path.join(folder, name)).st_size
  return total


def folders_to_remove(runs_dir: str, run: Run) -> List[str]:
  """Returns the folders that `remove` removes.

  Those that another run uses, too, stay, and folders of evaluation and export
  that are neither in RUNS_DIR nor beside the train directory.

  Raises:
    InputError: a process trains there, or they contain something else.
  """
  _check_idle(run)
  kept = [('the run %s' % other.name, path) for other in find_all(runs_dir)
          if other != run for path in other[1:4]]
  found = _outermost([
      folder for folder in run[1:4]
      if folder not in [path for _, path in kept]
      and (folder == run.train_dir or _is_inside(folder, run, runs_dir))])
  kept += [('the data set', facts(run).get('dataset_dir') or ''),
           ('the current folder', os.getcwd()),
           ('the project', os.path.dirname(os.path.dirname(
               os.path.abspath(__file__))))]
  for folder in found:
    for what, path in kept:
      if path and _contains(folder, path):
        raise InputError('%s contains %s, %s: the run %s cannot be removed' %
                         (folder, what, path, run.name))
  return found


def remove(runs_dir: str, run: Run) -> None:
  """Removes a run: folders_to_remove, and its lines in the history.

  The folder around them is removed if it has nothing else.

  Raises:
    InputError: as for folders_to_remove.
    OSError: a file cannot be removed.
  """
  for folder in folders_to_remove(runs_dir, run):
    shutil.rmtree(os.path.realpath(folder))
    if os.path.islink(folder):
      os.unlink(folder)
  output = run.output_dir
  with contextlib.suppress(OSError):  # It is a link, or not ours to change.
    if set(os.listdir(output)) <= {'origin'} and output != os.getcwd():
      shutil.rmtree(output)
  with _changing(runs_dir) as lines:
    lines[:] = [line for line in lines if line.train_dir != run.train_dir]


def rename(runs_dir: str, run: Run, name: str) -> Run:
  """Renames a run, and its folder if that is in RUNS_DIR.

  The name of another folder is kept in the history. If that was empty, the run
  becomes the current one.

  Raises:
    InputError: the name is taken or cannot be typed, or a process trains there.
    OSError: the folder cannot be renamed.
  """
  check_name(name)
  folder = os.path.join(os.path.abspath(runs_dir), name)
  if name in {other.name for other in find_all(runs_dir)} or (
      os.path.lexists(folder)):
    raise InputError('the name %s is taken: %s' % (name, folder))
  _check_idle(run)
  moved = run._replace(name=name)
  if _has_own_folder(run, runs_dir):
    old = run.output_dir
    for other in find_all(runs_dir):
      if _contains(old, other.train_dir):
        _check_idle(other)
    os.rename(old, folder)
    moved = Run(name, *(_moved(path, old, folder) for path in run[1:]))
    with _changing(runs_dir) as lines:
      lines[:] = [_Line(line.name, *(_moved(path, old, folder)
                                     for path in line[1:])) for line in lines]
  else:
    with _changing(runs_dir) as lines:
      if not any(line.train_dir == run.train_dir for line in lines):
        lines.insert(0, _Line(*run))
      lines[:] = [line._replace(name=name)
                  if line.train_dir == run.train_dir else line
                  for line in lines]
  return moved


def check_name(name: str) -> None:
  """Raises InputError if a run cannot have a name."""
  if not _NAME.fullmatch(name):
    raise InputError('a run cannot be named %r: letters, digits and _ . - are '
                     'possible' % name)


def use(runs_dir: str, run: Run) -> None:
  """Makes a run the current one."""
  with _changing(runs_dir) as lines:
    named = [line.name for line in lines if line.train_dir == run.train_dir]
    lines.append(_Line(*run)._replace(name=''.join(named[-1:])))


def _newest_step(folder):
  """Returns the largest step of the checkpoints in a folder, or None."""
  steps = [int(match.group(1)) for match in (
      re.search(r'-(\d+)\.index$', name) for name in glob.glob(
          os.path.join(glob.escape(folder), '*.index'))) if match]
  return max(steps, default=None)


def _is_run(train_dir):
  return os.path.isfile(os.path.join(train_dir, INFO_FILE))


def _existing(runs_dir):
  """Returns the lines of the history whose runs exist, oldest first."""
  return [line for line in _read(runs_dir) if _is_run(line.train_dir)]


def _read(runs_dir: str) -> List[_Line]:
  """Returns the lines of the history with absolute paths; [] without one."""
  top = os.path.abspath(runs_dir)
  try:
    with open(os.path.join(top, HISTORY_FILE), encoding='utf-8',
              errors='surrogateescape') as stream:
      rows = [text.rstrip('\n').split('\t') for text in stream]
  except OSError:
    return []
  return [_Line(row[0], *(path and os.path.join(top, path)
                          for path in row[1:]))
          for row in rows if len(row) == len(_Line._fields)]


@contextlib.contextmanager
def _changing(runs_dir: str) -> Iterator[List[_Line]]:
  """Yields the list of all lines of the history, and writes it at the end."""
  top = os.path.abspath(runs_dir)
  path = os.path.join(top, HISTORY_FILE)
  with locks.open_locked(path, wait=True) as opened:  # As run_train.sh does.
    lines = _read(runs_dir)
    yield lines
    text = ''.join(
        '\t'.join((line.name, *(_moved(folder, top, '')
                                for folder in line[1:]))) + '\n'
        for line in lines)
    opened.truncate(0)
    opened.write(text.encode('utf-8', 'surrogateescape'))


def _moved(path, old, new):
  """Returns a path with the folder `old` replaced; '' for a relative path."""
  if not path.startswith(old + os.sep):
    return path
  return os.path.join(new, path[len(old) + 1:])


def _output_dir(train_dir):
  """Returns the folder that has train, eval and export."""
  folder, name = os.path.split(train_dir)
  if name != 'train' and os.path.basename(folder) == 'train':
    return os.path.dirname(folder)
  return folder if name == 'train' else train_dir


def _sibling(train_dir, name):
  """Returns a folder like OUTPUT_DIR/eval/all for OUTPUT_DIR/train/all."""
  output = _output_dir(train_dir)
  return os.path.join(output, name, *(
      [] if os.path.basename(train_dir) == 'train' or output == train_dir
      else [os.path.basename(train_dir)]))


def _is_default(line, runs_dir):
  """Whether a run is in RUNS_DIR/NAME/train."""
  return (os.path.dirname(os.path.dirname(line.train_dir)) ==
          os.path.abspath(runs_dir))


def _has_own_folder(run, runs_dir):
  """Whether a folder in RUNS_DIR has a run, and not its data set, too."""
  output = run.output_dir
  return (_contains(runs_dir, output) and not _contains(output, runs_dir) and
          not _contains(output, facts(run).get('dataset_dir') or os.sep) and
          os.path.basename(run.train_dir) == 'train')


def _is_inside(folder, run, runs_dir):
  """Whether a folder is inside RUNS_DIR or the output folder of a run."""
  tops = (run.output_dir, runs_dir)
  return (any(_contains(top, folder) for top in tops) and
          not any(_contains(folder, top) for top in tops))


def _outermost(paths):
  """Returns the existing folders of some paths, without those inside others."""
  found = [path for path in dict.fromkeys(paths) if os.path.isdir(path)]
  return [folder for folder in found
          if not any(other != folder and _contains(other, folder)
                     for other in found)]


def _contains(folder, path):
  """Whether a path is a folder or is inside it."""
  folder, path = os.path.realpath(folder), os.path.realpath(path)
  return path == folder or path.startswith(folder + os.sep)


def _name_of(train_dir, runs_dir):
  """Returns the name of a run that follows from its folder."""
  top = os.path.abspath(runs_dir)
  if train_dir.startswith(top + os.sep):
    parts = os.path.relpath(train_dir, top).split(os.sep)
    if parts[0] == 'quickstart':
      parts = parts[1:]
  else:
    parts = train_dir.split(os.sep)
    parts = parts[-3:] if parts[-2] == 'train' else parts[-2:] if (
        parts[-1] == 'train') else parts[-1:]
  return '-'.join([part for part in parts if part != 'train']) or 'train'


def _free_name(name, taken):
  """Returns the name, with a number if it is taken."""
  number, free = 1, name
  while free in taken:
    number += 1
    free = '%s-%d' % (name, number)
  return free


def _check_idle(run):
  if is_training(run.train_dir):
    raise InputError('a process trains in %s; RUN=%s ./stop_train.sh stops it' %
                     (run.train_dir, run.name))
