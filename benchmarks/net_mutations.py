"""Measures whether the tests of the networks notice changes of their tables.

Each value of each UPPERCASE table of nets/ is flipped, one at a time: a width,
a kernel, a stride, SAME or VALID, the kind of a pooling, a letter of a scope.
The tests of the networks that use the module then run on the flipped copy,
fastest first; the slow tests run only if the fast ones noticed nothing.
TensorFlow is imported once, and each flip is tried in a fork of this process.
"""

import ast
import glob
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import pytest
from absl import flags

from benchmarks import net_flips
from common import flags as common_flags
from common.errors import InputError, unknown_name

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REGISTRY_TEST = os.path.join('tests', 'nets', 'registry_test.py')

# The share of flips that must be caught.
WANTED = 0.98

# SLOWLY: caught, but only by the slow tests.
CAUGHT, SLOWLY, SURVIVED = 'caught', 'caught slowly', 'survives'
TIMED_OUT, KILLED = 'timed out', 'was killed'
BROKEN = 'could not be tried'
# By exit status of a fork.
_VERDICTS = {0: SURVIVED, 1: CAUGHT, 2: SLOWLY, 3: BROKEN}


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_integer(
      'sample', None, 'Number of flips to try, drawn at random. None: all.',
      lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Seed of the drawing.')
  flags.DEFINE_integer(
      'jobs', os.cpu_count(), 'Flips that are tried at a time.', lower_bound=1)
  flags.DEFINE_integer(
      'timeout_secs', 900, 'Seconds for one flip, which then counts as not '
      'caught.', lower_bound=1)
  flags.DEFINE_bool(
      'slow', True, 'Run the slow tests where the quick ones notice nothing.')
  flags.DEFINE_bool(
      'list', False, 'Print the flips instead of trying them.')
  flags.DEFINE_string(
      'root', ROOT, 'Folder with nets/ and tests/.')


class _Selection:
  """A pytest plugin: selects the tests of some networks, in a given order.

  The id of a registry test ends in [<network>]. Other tests are kept, at the
  end.
  """

  def __init__(self, networks):
    self._order = {name: number for number, name in enumerate(networks)}

  @pytest.hookimpl(trylast=True)
  def pytest_collection_modifyitems(self, items):
    kept = []
    for item in items:
      name = item.name.partition('[')[2].rstrip(']')
      of_registry = str(item.fspath).endswith(REGISTRY_TEST)
      if not (of_registry and name):
        kept.append((len(self._order), item))
      elif name in self._order:
        kept.append((self._order[name], item))
    items[:] = [item for _, item in sorted(kept, key=lambda pair: pair[0])]


def run_tests(arguments, networks=()):
  """Runs tests in this process, stopping at the first that fails.

  Args:
    arguments: of pytest: files and flags.
    networks: those whose registry tests run, in this order.

  Returns:
    Whether no test failed.
  """
  status = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '--tb=no',
                        *arguments], plugins=[_Selection(networks)])
  return status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED,
                    pytest.ExitCode.USAGE_ERROR)  # Of an unknown --full.


class Project:
  """The tests of one checkout, by module of nets/."""

  def __init__(self, root):
    self.root = os.path.abspath(root)
    self.modules = net_flips.find_modules(self.root)
    if not self.modules:
      raise InputError('%s has no nets/ with modules' % self.root)
    imports = {name: net_flips.imports_of(os.path.join(self.root, path))
               for name, path in self.modules.items()}
    self._uses = {name: self._closure(name, imports) for name in self.modules}
    self._tests = {
        path: net_flips.imports_of(path) for path in sorted(glob.glob(
            os.path.join(self.root, 'tests', 'nets', '**', '*_test.py'),
            recursive=True))
        if not path.endswith(REGISTRY_TEST)}

  def _closure(self, name, imports):
    found, todo = set(), [name]
    while todo:
      name = todo.pop()
      if name not in found:
        found.add(name)
        todo += [other for other in imports[name] if other in self.modules]
    return found

  def find_flips(self, module):
    """Returns the flips of a module."""
    return net_flips.find_flips(self.root, module, self.modules)

  def unit_tests(self, module):
    """Returns the test files that import a module, its own first."""
    own = '%s_test.py' % module.rpartition('.')[2]
    found = [path for path, names in self._tests.items() if module in names]
    return sorted(found, key=lambda path: not path.endswith(os.sep + own))

  def networks(self, flip):
    """Returns the networks that a flip can change, the smallest first.

    Imports nets_factory: call it only in a fork.
    """
    if 'nets.nets_factory' not in self.modules:
      return []
    rows = importlib.import_module('nets.nets_factory').NETWORKS
    if flip.entry in rows:
      return [flip.entry]
    found = [name for name, row in rows.items()
             if flip.module in self._uses.get(row.function.__module__, ())]
    facts = os.path.join(self.root, 'tests', 'data', 'nets', '%s.json')
    return sorted(found or rows, key=lambda name: (
        os.path.getsize(facts % name) if os.path.exists(facts % name) else 0))


def try_flip(project, flip, folder, slow):
  """Runs the tests on a flipped copy; returns the verdict.

  Call it only in a fork: it imports the copy.

  Args:
    project: Project.
    flip: the Flip.
    folder: where `make_copy` has written the copy.
    slow: whether to run the slow tests too.
  """
  _use_copy(project, folder)
  networks = project.networks(flip)
  units = project.unit_tests(flip.module)
  registry = os.path.join(project.root, REGISTRY_TEST)
  stages = [([registry], networks[:1], CAUGHT), (units, (), CAUGHT),
            ([registry], networks[1:], CAUGHT)]
  if slow:
    stages += [([registry, '--full'], networks, SLOWLY),
               (units and units + ['--full'], (), SLOWLY)]
  for arguments, names, verdict in stages:
    wanted = names if registry in arguments else arguments
    if wanted and not run_tests(arguments, names):
      return verdict
  return SURVIVED


def make_copy(project, flip, folder):
  """Copies nets/ into a folder, with one value flipped.

  Args:
    project: Project.
    flip: the Flip; if `new` equals `old`, nothing is changed.
    folder: an empty folder.
  """
  copy = os.path.join(folder, 'nets')
  shutil.copytree(os.path.join(project.root, 'nets'), copy)
  path = os.path.join(folder, flip.path)
  with open(path, encoding='utf-8') as file:
    lines = file.read().split('\n')
  line = lines[flip.line - 1]
  assert line[flip.start:flip.end] == flip.old, (flip, line)
  lines[flip.line - 1] = line[:flip.start] + flip.new + line[flip.end:]
  ast.parse('\n'.join(lines))  # Otherwise every flip would be caught trivially.
  os.remove(path)
  with open(path, 'w', encoding='utf-8') as file:
    file.write('\n'.join(lines))


def _use_copy(project, folder):
  """Makes `import nets` find the copy in a folder."""
  sys.dont_write_bytecode = True
  os.chdir(project.root)
  sys.path.insert(0, folder)
  # tests/conftest.py inserts the root first; `nets` is imported by then.
  importlib.import_module('nets')
  assert sys.modules['nets'].__file__.startswith(folder)


def _start(project, flip, folder, slow, timeout_secs):
  """Forks; the child ends with a status of _VERDICTS. Returns its pid."""
  pid = os.fork()
  if pid:
    return pid
  verdict = BROKEN
  try:
    signal.alarm(timeout_secs)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
      os.dup2(nowhere, stream)
    os.mkdir(folder)
    make_copy(project, flip, folder)
    verdict = CAUGHT  # Any exception from here on: the flip was noticed.
    verdict = try_flip(project, flip, folder, slow)
  finally:
    os._exit([status for status, name in _VERDICTS.items()
              if name == verdict][0])


def try_all(project, tries, slow, timeout_secs, jobs):
  """Tries flips, several in parallel.

  Args:
    project: Project.
    tries: Flips.
    slow: whether to run the slow tests if the fast ones notice nothing.
    timeout_secs: seconds for one flip.
    jobs: number of parallel forks.

  Yields:
    (flip, its verdict), in the order in which they finish.
  """
  waiting, running = list(enumerate(tries))[::-1], {}
  with tempfile.TemporaryDirectory() as base:
    while waiting or running:
      while waiting and len(running) < jobs:
        number, flip = waiting.pop()
        folder = os.path.join(os.path.realpath(base), str(number))
        running[_start(project, flip, folder, slow, timeout_secs)] = (flip,
                                                                      folder)
      pid, status = os.wait()
      flip, folder = running.pop(pid)
      shutil.rmtree(folder, ignore_errors=True)
      yield flip, _verdict(status)


def _verdict(status):
  """Returns the verdict for a fork's exit status, as os.wait returns it."""
  if os.WIFSIGNALED(status):
    return TIMED_OUT if os.WTERMSIG(status) == signal.SIGALRM else KILLED
  return _VERDICTS.get(os.WEXITSTATUS(status), BROKEN)


def check_unflipped(project, tries, values, slow=False):
  """Raises InputError if the tests fail without any flip.

  Args:
    project: Project.
    tries: Flips; the tests run once for each module, and for each entry.
    values: the parsed flags.
    slow: whether to run the slow tests too.
  """
  firsts = {}
  for flip in tries:
    firsts.setdefault((flip.module, flip.entry), flip._replace(new=flip.old))
  for flip, verdict in try_all(project, firsts.values(), slow,
                               values.timeout_secs, values.jobs):
    if verdict != SURVIVED:
      raise InputError(
          'the %stests of %s fail or take longer than --timeout_secs=%d before '
          'anything is flipped' % ('slow ' if slow else '', flip.module,
                                   values.timeout_secs))


def choose(project, names, sample, seed):
  """Returns the flips to try.

  Args:
    project: Project.
    names: of modules, with or without their package; none means all.
    sample: number of flips to draw, None for all.
    seed: of the random draw.
  """
  short = {name.rpartition('.')[2]: name for name in project.modules}
  modules = []
  for name in names or sorted(project.modules):
    full = short.get(name, name)
    if full not in project.modules:
      raise unknown_name('module of nets/', name, short)
    modules.append(full)
  found = [flip for module in modules for flip in project.find_flips(module)]
  if not found:
    raise InputError('no tables in %s' % ', '.join(modules))
  if sample and sample < len(found):
    found = random.Random(seed).sample(found, sample)
  return found


def describe(flip):
  """Returns a flip as `file:line: old -> new`."""
  return '%s:%d: %s -> %s' % (flip.path, flip.line, flip.old, flip.new)


def main(argv):
  """Tries the flips; returns 0 if enough are caught."""
  values = flags.FLAGS
  project = Project(values.root)
  tries = choose(project, argv[1:], values.sample, values.seed)
  if values.list:
    print('\n'.join(describe(flip) for flip in tries))
    return 0
  importlib.import_module('compat')  # TensorFlow, once for all forks.
  check_unflipped(project, tries, values)
  verdicts = {}
  start = time.time()
  for flip, verdict in try_all(project, tries, values.slow,
                               values.timeout_secs, values.jobs):
    verdicts[flip] = verdict
    if verdict not in (CAUGHT, SLOWLY):
      print('%s %s' % (describe(flip), verdict), flush=True)
    if len(verdicts) % 20 == 0:
      print('%d of %d flips, %d s' % (len(verdicts), len(tries),
                                      time.time() - start),
            file=sys.stderr, flush=True)
  check_unflipped(project, [flip for flip, verdict in verdicts.items()
                            if verdict == SLOWLY], values, slow=True)
  caught = sum(verdict in (CAUGHT, SLOWLY) for verdict in verdicts.values())
  share = caught / len(tries)
  print('caught %d of %d flips, %.1f %%' % (caught, len(tries),
                                           int(1000 * share) / 10))
  return 0 if share >= WANTED else 1


if __name__ == '__main__':
  define_flags()
  common_flags.run(main, positional=True)
