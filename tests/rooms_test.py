"""The rooms of docs/DESIGN.md: who may call whom, read from the source."""

import ast
import glob
import os

import pytest
from helpers import ROOT

# A room may import itself, the rooms of the blocks below, and the base.
BASE = ['compat', 'errors']
BLOCKS = [
    ['downloads'],
    ['nets', 'preprocessing'],
    ['datasets', 'deployment', 'runs'],
    ['training', 'evaluation', 'serving'],
]
FORBIDDEN = {'serving': ['training', 'evaluation'],
             'nets': ['preprocessing', 'downloads'],
             'preprocessing': ['nets', 'downloads'],
             'compat': ['errors'], 'errors': ['compat']}
ROOMS = [room for block in BLOCKS for room in block]
OURS = set(ROOMS + BASE + ['common_flags'])


def sources(room):
  """Returns the paths of a room's modules."""
  if room in ROOMS:
    return glob.glob(os.path.join(ROOT, room, '**', '*.py'), recursive=True)
  return [os.path.join(ROOT, room + '.py')]


def imports_of(path):
  """Returns the first parts of the names of all modules a file imports."""
  with open(path, encoding='utf-8') as stream:
    tree = ast.parse(stream.read(), path)
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name.split('.')[0]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      yield node.module.split('.')[0]


def allowed(room):
  """Returns what a room may import of this project."""
  below = list(BASE)
  for block in BLOCKS:
    if room in block:
      below += block
      break
    below += block
  else:
    below = list(BASE)
  return {room} | set(below) - set(FORBIDDEN.get(room, []))


@pytest.mark.parametrize('room', ROOMS + BASE)
def test_room_imports_only_what_stands_below(room):
  files = sources(room)
  assert files
  upward = {(os.path.relpath(path, ROOT), name) for path in files
            for name in imports_of(path)
            if name in OURS and name not in allowed(room)}
  assert not upward


@pytest.mark.parametrize('room', ROOMS)
def test_room_reads_no_flags_of_a_program(room):
  # training/optimizer.py defines the flags of the optimizers it knows.
  defining = {'training/optimizer.py', 'datasets/draw_flowers.py'}
  users = {os.path.relpath(path, ROOT) for path in sources(room)
           if 'absl' in imports_of(path)}
  assert users <= defining


def test_only_compat_imports_tensorflow_and_tf_slim():
  paths = [path for room in ROOMS for path in sources(room)]
  paths += glob.glob(os.path.join(ROOT, '*.py'))
  users = {os.path.relpath(path, ROOT) for path in paths
           if {'tensorflow', 'tf_slim'} & set(imports_of(path))}
  assert users == {'compat.py'}
