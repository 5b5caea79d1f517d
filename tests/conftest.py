"""Adds the project's root to sys.path; runs slow tests only with --full."""

import logging
import os
import sys
import tempfile
import zlib

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

# Scripts started by tests use the engine that runs the tests.
os.environ['ENGINE'] = 'tf2' if sys.prefix.endswith('-tf2') else 'tf1'
# The user's own runs stay as they are, and so does the current one.
_RUNS_DIR = tempfile.TemporaryDirectory(prefix='runs-')
os.environ['RUNS_DIR'] = _RUNS_DIR.name
# Expected values are those of float32, whatever the processor can do.
os.environ['PRECISION'] = 'float32'

# Folders and files of tests that hardly depend on the engine.
_HARDLY_DEPEND = (
    'benchmarks', 'common', 'datasets/conversion', 'datasets/photo_files',
    'download_and_convert_data_test.py', 'downloads', 'flags_test.py',
    'scripts', 'server_test.py', 'serving/web', 'tools')


def pytest_addoption(parser):
  parser.addoption('--full', action='store_true',
                   help='also run the tests marked slow')
  parser.addoption('--by_turns', action='store_true',
                   help='run half of the tests marked slow on each engine, and '
                        'of those that hardly depend on it')


def pytest_configure(config):
  config.addinivalue_line('markers', 'slow: runs only with --full')
  config.addinivalue_line(
      'markers', 'engine(name): runs on this engine only, tf1 or tf2: the test '
      'does not depend on the engine, or one of them is enough')


def pytest_collection_modifyitems(config, items):
  for item in items:
    mark = item.get_closest_marker('engine')
    engine = mark and mark.args[0]
    if config.getoption('--by_turns') and not engine:
      engine = _engine_by_turns(item)
    if engine not in (None, os.environ['ENGINE']):
      item.add_marker(pytest.mark.skip(reason='runs on %s only' % engine))
  if config.getoption('--full'):
    return
  for item in items:
    if 'slow' in item.keywords:
      item.add_marker(pytest.mark.skip(reason='slow: ./run_tests.sh --full'))


def _engine_by_turns(item):
  """Returns the engine that runs a test with --by_turns; None: both."""
  path = item.nodeid.split('::')[0]
  # Slow tests of a module that share a slow fixture run on one engine.
  name = (path if getattr(item.module, 'ONE_ENGINE_BY_TURNS', False)
          else item.nodeid)
  if 'slow' not in item.keywords:
    folder = os.path.relpath(os.path.join(ROOT, path), os.path.join(
        ROOT, 'tests')).split(os.sep)
    if not (folder[0] in _HARDLY_DEPEND or os.sep.join(folder[:2]) in
            _HARDLY_DEPEND):
      return None
    name = path
  return ('tf1', 'tf2')[zlib.crc32(name.encode()) % 2]


@pytest.fixture(scope='session')
def shared():
  """Returns the folder SHARED_DIR; skips the test if it is not set."""
  from kits import helpers  # Needs the sys.path set above.
  return helpers.shared_folder()


@pytest.fixture
def log(caplog):
  """Returns pytest's caplog, which also records TensorFlow's INFO lines."""
  from compat import tf  # Only for tests that use this fixture.
  caplog.set_level(logging.INFO, logger='tensorflow')
  tf.logging.set_verbosity('INFO')
  return caplog
