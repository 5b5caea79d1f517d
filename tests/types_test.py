"""Tests of the packages' type annotations: every public function has them.

./run_tests.sh checks the types themselves, by mypy.
"""

import ast
import glob
import os

import pytest

from kits.helpers import ROOT

PACKAGES = ('common', 'datasets', 'deployment', 'downloads', 'evaluation',
            'nets', 'ood', 'preprocessing', 'runs', 'runtime', 'serving',
            'tools', 'training')


def is_annotated(function, is_method):
  """Returns whether the arguments and the result of a function have types.

  Args:
    function: its ast.FunctionDef.
    is_method: whether it is in a class: then `self` or `cls` needs no type,
      nor does the result of `__init__`.
  """
  arguments = function.args
  needed = arguments.args + arguments.kwonlyargs
  # Python 3.7 has no positional-only arguments.
  needed = getattr(arguments, 'posonlyargs', []) + needed
  if is_method and needed and needed[0].arg in ('self', 'cls'):
    needed = needed[1:]
  needed += [
      argument for argument in (arguments.vararg, arguments.kwarg) if argument]
  return (all(argument.annotation for argument in needed) and
          (function.returns is not None or function.name == '__init__'))


def without_types(source):
  """Returns the names of the public functions that lack a type.

  Those inside of functions and of private classes are not public.
  """
  def visit(body, prefix):
    for node in body:
      if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
        yield from visit(node.body, prefix + node.name + '.')
      elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        public = not node.name.startswith('_') or node.name == '__init__'
        if public and not is_annotated(node, bool(prefix)):
          yield prefix + node.name
      elif isinstance(node, (ast.If, ast.Try, ast.With)):
        yield from visit(node.body + getattr(node, 'orelse', []), prefix)
  return list(visit(ast.parse(source).body, ''))


@pytest.mark.parametrize('package', PACKAGES)
def test_public_functions_have_types(package):
  paths = glob.glob(os.path.join(ROOT, package, '**', '*.py'), recursive=True)
  found = {}
  for path in paths:
    with open(path, encoding='utf-8') as file:
      names = without_types(file.read())
    if names:
      found[os.path.relpath(path, ROOT)] = names
  assert paths and found == {}


@pytest.mark.parametrize('source, names', [
    ('def f(): pass', ['f']),
    ('def f() -> None: pass', []),
    ('def f(a) -> int: pass', ['f']),
    ('def f(a: int, *b, **c: int) -> int: pass', ['f']),
    ('def f(a: int, *b: int, **c) -> int: pass', ['f']),
    ('def f(a: int, *, b) -> int: pass', ['f']),
    ('async def f(a: int): pass', ['f']),
    ('def _f(a): pass', []),
    ('def f() -> None:\n  def g(a): pass', []),
    ('class C:\n  def __init__(self, a: int): pass', []),
    ('class C:\n  def __init__(self, a): pass', ['C.__init__']),
    ('class C:\n  def f(self): pass', ['C.f']),
    ('class C:\n  def __eq__(self, a): pass', []),
    ('class C:\n  class D:\n    def f(self): pass', ['C.D.f']),
    ('class _C:\n  def f(self): pass', []),
    ('if True:\n  pass\nelse:\n  def f(a): pass', ['f'])])
def test_function_without_types_is_found(source, names):
  assert without_types(source) == names
