"""Tests of benchmarks/net_mutations.py and net_flips.py, on a toy project."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import net_flips, net_mutations
from common.errors import InputError
from kits.helpers import ROOT

TOY = """
from typing import List, NamedTuple
from nets import kinds


class Row(NamedTuple):
  scope: str
  width: int


class MaxPool(NamedTuple):
  scope: str
  kernel: List[int]


class AvgPool(NamedTuple):
  scope: str
  kernel: List[int]


_SIZE = 3
TABLE = (
    Row('Conv', 16),  # 9 x 9
    MaxPool('avg_pool', [3, 1]),
)
_BY_NAME = {
    'a': dict(padding='SAME', factor=0.25),
    'b': kinds.Left(True, ''),
}
LIMIT = max(7, 8)
lower = (1, 2)


def total():
  return [list(row) for row in TABLE] + [type(TABLE[1]).__name__]
"""
KINDS = """
from typing import NamedTuple


class Left(NamedTuple):
  flag: bool
  name: str


class Right(NamedTuple):
  flag: bool
  name: str
"""


@pytest.fixture
def project(tmp_path):
  for folder in ('nets', 'tests', 'tests/nets'):
    (tmp_path / folder).mkdir()
  (tmp_path / 'nets' / '__init__.py').write_text('')
  (tmp_path / 'nets' / 'kinds.py').write_text(KINDS)
  (tmp_path / 'nets' / 'toy.py').write_text(TOY)
  return tmp_path


def test_find_flips_returns_each_value_of_each_table(project):
  modules = net_flips.find_modules(str(project))
  flips = net_flips.find_flips(str(project), 'nets.toy', modules)
  assert [(flip.old, flip.new) for flip in flips] == [
      ("'Conv'", "'Conw'"), ('16', '24'),
      ('MaxPool', 'AvgPool'), ("'avg_pool'", "'max_pool'"), ('3', '5'),
      ('1', '2'),
      ("'a'", "'b'"), ("'SAME'", "'VALID'"), ('0.25', '0.5'),
      ("'b'", "'c'"), ('Left', 'Right'), ('True', 'False')]
  assert [flip.entry for flip in flips] == [None] * 6 + ['a'] * 3 + ['b'] * 3
  lines = TOY.split('\n')
  assert all(lines[flip.line - 1][flip.start:flip.end] == flip.old
             for flip in flips)


def run(project, *arguments):
  return subprocess.run(
      [sys.executable, '-m', 'benchmarks.net_mutations', '--root=%s' % project,
       *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_main_flips_that_no_test_reads_survive_and_fail_the_check(project):
  # total() reads TABLE; nothing reads _BY_NAME.
  (project / 'tests' / 'nets' / 'toy_test.py').write_text("""
from nets import toy

def test_total():
  assert toy.total() == [['Conv', 16], ['avg_pool', [3, 1]], 'MaxPool']
""")
  done = run(project, 'toy')
  assert done.returncode == 1, done.stderr
  lines = done.stdout.splitlines()
  assert lines[-1] == 'caught 6 of 12 flips, 50.0 %'
  assert "nets/toy.py:27: 'SAME' -> 'VALID' survives" in lines
  assert len(lines) == 7 and all('toy.py:2' in line for line in lines[:-1])
  assert (project / 'nets' / 'toy.py').read_text() == TOY


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_main_slow_tests_run_on_flips_that_quick_tests_miss(project):
  (project / 'nets' / 'toy.py').write_text('TABLE = (16, 24)\n')
  (project / 'tests' / 'conftest.py').write_text("""
def pytest_addoption(parser):
  parser.addoption('--full', action='store_true')
""")
  (project / 'tests' / 'nets' / 'toy_test.py').write_text("""
import time
from nets import toy

def test_total(request):
  if request.config.getoption('--full'):
    assert toy.TABLE[0] == 16
    while toy.TABLE[1] != 24:
      time.sleep(1)
""")
  done = run(project, '--timeout_secs=4')
  assert done.returncode == 1, done.stderr
  assert done.stdout.splitlines() == [
      'nets/toy.py:1: 24 -> 32 timed out', 'caught 1 of 2 flips, 50.0 %']


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_main_slow_tests_that_fail_without_a_flip_are_an_error(project):
  (project / 'nets' / 'toy.py').write_text('TABLE = (16,)\n')
  (project / 'tests' / 'conftest.py').write_text("""
def pytest_addoption(parser):
  parser.addoption('--full', action='store_true')
""")
  (project / 'tests' / 'nets' / 'toy_test.py').write_text("""
from nets import toy

def test_total(request):
  assert toy.TABLE and not request.config.getoption('--full')
""")
  done = run(project)
  assert done.returncode == 1
  assert 'the slow tests of nets.toy fail' in done.stderr
  assert done.stdout == ''


@pytest.mark.slow
def test_main_tests_that_fail_without_a_flip_are_an_error(project):
  (project / 'tests' / 'nets' / 'toy_test.py').write_text(
      'from nets import toy\n\ndef test_total():\n  assert toy.total() == 0\n')
  done = run(project)
  assert done.returncode == 1
  assert 'nets.toy fail or take longer' in done.stderr
  assert done.stdout == ''


def test_selection_keeps_registry_tests_of_the_networks_in_their_order():
  tests = [('test_a[lenet]', net_mutations.REGISTRY_TEST),
           ('test_a[vgg_a]', net_mutations.REGISTRY_TEST),
           ('test_a[vgg_16]', net_mutations.REGISTRY_TEST),
           ('test_b[other]', 'tests/nets/vgg_test.py')]
  items = [SimpleNamespace(name=name, fspath=os.path.join(ROOT, file))
           for name, file in tests]
  selection = net_mutations._Selection(['vgg_16', 'lenet'])
  selection.pytest_collection_modifyitems(items)
  assert [item.name for item in items] == [
      'test_a[vgg_16]', 'test_a[lenet]', 'test_b[other]']


def test_choose_draws_the_same_flips_for_a_seed():
  project = net_mutations.Project(ROOT)
  flips = net_mutations.choose(project, ['inception_v4'], 5, seed=1)
  assert flips == net_mutations.choose(project, ['inception_v4'], 5, seed=1)
  assert flips != net_mutations.choose(project, ['inception_v4'], 5, seed=2)
  assert {flip.path for flip in flips} == {'nets/inception_v4.py'}
  all_flips = net_mutations.choose(project, [], None, seed=0)
  assert len(all_flips) > 1000
  assert {flip.module for flip in all_flips} >= {
      'nets.inception_v4', 'nets.mobilenet_v1', 'nets.networks'}


def test_choose_unknown_module_error_lists_the_known():
  project = net_mutations.Project(ROOT)
  with pytest.raises(InputError, match="'inception_v9'; known: alexnet, "):
    net_mutations.choose(project, ['inception_v9'], None, seed=0)
  with pytest.raises(InputError, match='no tables in nets.batch_norm'):
    net_mutations.choose(project, ['batch_norm'], None, seed=0)
  with pytest.raises(InputError, match='has no nets/ with modules'):
    net_mutations.Project('/no/where')


def test_project_finds_the_tests_and_networks_of_a_module():
  project = net_mutations.Project(ROOT)
  names = [path.rpartition('/')[2]
           for path in project.unit_tests('nets.inception_v4')]
  assert names[0] == 'inception_v4_test.py'
  assert project.unit_tests('nets.nasnet.pnasnet')[0].endswith(
      '/tests/nets/nasnet/pnasnet_test.py')
  flip = net_flips.Flip('nets.mobilenet_v1', '', 1, 0, 1, '1', '2', None)
  networks = project.networks(flip)
  assert set(networks) == {'mobilenet_v1', 'mobilenet_v1_075',
                           'mobilenet_v1_050', 'mobilenet_v1_025'}
  factory_flip = flip._replace(module='nets.nets_factory', entry='lenet')
  assert project.networks(factory_flip) == ['lenet']
