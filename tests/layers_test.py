"""The layers of docs/architecture.md: which package may import which."""

import ast
import glob
import os

import pytest

from kits.helpers import ROOT

# What each package or module may import of this project, beside itself: only
# what is above it in this table.
ALLOWED = {
    'common': '',
    'compat': 'common',
    'downloads': 'common',
    'nets': 'common compat',
    'preprocessing': 'common compat nets',
    'datasets': 'common compat downloads',
    'deployment': 'common compat',
    'runs': 'common compat downloads nets datasets',
    'training':
        'common compat downloads nets preprocessing datasets deployment runs',
    'evaluation': 'common compat nets preprocessing datasets runs',
    'ood': 'common compat nets preprocessing datasets runs evaluation',
    'serving':
        'common compat downloads nets preprocessing datasets runs ood',
}
# They import anything, and nothing above imports them. So do the programs.
HELPERS = {'benchmarks', 'tools'}

PACKAGES = {os.path.basename(os.path.dirname(path))
            for path in glob.glob(os.path.join(ROOT, '*', '__init__.py'))}
OURS = PACKAGES | {os.path.basename(path)[:-len('.py')]
                   for path in glob.glob(os.path.join(ROOT, '*.py'))}


def sources(package, root=ROOT):
  """Returns the paths of a package's modules, or of the one module."""
  return glob.glob(os.path.join(root, package, '**', '*.py'),
                   recursive=True) or [os.path.join(root, package + '.py')]


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


def violations(package, root=ROOT):
  """Returns the imports that ALLOWED does not have: {(file, name)}."""
  refused = OURS - set(ALLOWED[package].split()) - {package}
  return {(os.path.relpath(path, root), name)
          for path in sources(package, root) for name in imports_of(path)
          if name in refused}


def test_table_has_every_package_and_no_cycle():
  packages = list(ALLOWED)
  assert PACKAGES - HELPERS <= set(packages) <= OURS
  for number, package in enumerate(packages):
    assert set(ALLOWED[package].split()) <= set(packages[:number])


@pytest.mark.parametrize('package', ALLOWED)
def test_package_imports_only_what_the_table_allows(package):
  assert violations(package) == set()


@pytest.mark.parametrize('package, line', [
    ('evaluation', 'from training import loop'),
    ('serving', 'import training.loop'),
    ('serving', 'from training import graph'),
    ('training', 'from evaluation import loop'),
    ('serving', 'from evaluation import loop'),
    ('evaluation', 'from ood import detector'),
    ('downloads', 'from nets import nets_factory'),
    ('datasets', 'from runs import run_info'),
    ('deployment', 'from datasets import splits'),
    ('nets', 'def f():\n  from preprocessing import colors'),
    ('runs', 'from tools import list_models')])
def test_import_against_the_table_is_found(tmp_path, package, line):
  (tmp_path / package).mkdir()
  (tmp_path / package / 'new.py').write_text('import os\n%s\n' % line)
  (_, name), = violations(package, str(tmp_path))
  assert name in line


@pytest.mark.parametrize('package', ALLOWED)
def test_package_reads_no_flags_of_a_program(package):
  # training/optimizer.py defines the flags of the optimizers it knows.
  defining = {'common/flags.py', 'training/optimizer.py',
              'datasets/conversion/draw_flowers.py'}
  users = {os.path.relpath(path, ROOT) for path in sources(package)
           if 'absl' in imports_of(path)}
  assert users <= defining


def test_only_compat_imports_tensorflow_and_tf_slim():
  paths = [path for package in ALLOWED for path in sources(package)]
  for folder in ('', 'tools'):
    paths += glob.glob(os.path.join(ROOT, folder, '*.py'))
  users = {os.path.relpath(path, ROOT) for path in paths
           if {'tensorflow', 'tf_slim'} & set(imports_of(path))}
  assert users == {'common/compat.py'}
