"""Puts the project's root on the path, and keeps slow tests behind --full."""

import logging
import os
import sys
import zlib

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

# Scripts that tests start run on the engine that the tests run on.
os.environ['ENGINE'] = 'tf2' if sys.prefix.endswith('-tf2') else 'tf1'
# Expected values are those of float32, whatever the processor can do.
os.environ['PRECISION'] = 'float32'


def pytest_addoption(parser):
  parser.addoption('--full', action='store_true',
                   help='also run the tests marked slow')
  parser.addoption('--by_turns', action='store_true',
                   help='of the tests marked slow, run half on each engine')


def pytest_configure(config):
  config.addinivalue_line('markers', 'slow: runs only with --full')
  config.addinivalue_line(
      'markers', 'engine(name): the engine has no part in it, or one of both '
      'will do: runs on this one, tf1 or tf2, only')


def pytest_collection_modifyitems(config, items):
  for item in items:
    mark = item.get_closest_marker('engine')
    engine = mark and mark.args[0]
    by_turns = config.getoption('--by_turns') and 'slow' in item.keywords
    if by_turns and not engine:
      # A module whose slow tests share a long fixture is run on one engine.
      name = (item.nodeid.split('::')[0]
              if getattr(item.module, 'ONE_ENGINE_BY_TURNS', False)
              else item.nodeid)
      engine = ('tf1', 'tf2')[zlib.crc32(name.encode()) % 2]
    if engine not in (None, os.environ['ENGINE']):
      item.add_marker(pytest.mark.skip(reason='runs on %s alone' % engine))
  if config.getoption('--full'):
    return
  for item in items:
    if 'slow' in item.keywords:
      item.add_marker(pytest.mark.skip(reason='slow: ./run_tests.sh --full'))


@pytest.fixture(scope='session')
def shared():
  """The folder SHARED_DIR; skips the test where the variable is not set."""
  from kits import helpers  # (It needs the path.)
  return helpers.shared_folder()


@pytest.fixture
def log(caplog):
  """pytest's caplog, with TensorFlow's INFO lines."""
  from compat import tf  # Not for tests that need no TensorFlow.
  caplog.set_level(logging.INFO, logger='tensorflow')
  tf.logging.set_verbosity('INFO')
  return caplog
