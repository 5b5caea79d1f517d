"""Tests of the import contracts in pyproject.toml, and of other import rules.

./run_tests.sh runs import-linter, which checks the contracts themselves.
"""

import ast
import glob
import os
import shutil
import subprocess
import sys

import pytest
from importlinter import api

from kits.helpers import ROOT

PACKAGES = {os.path.basename(os.path.dirname(path))
            for path in glob.glob(os.path.join(ROOT, '*', '__init__.py'))}
# Modules in the root; import-linter reads packages only.
MODULES = {os.path.splitext(os.path.basename(path))[0]
           for path in glob.glob(os.path.join(ROOT, '*.py'))}

# Rows: a module, a module that it must not import, a line that imports that.
FORBIDDEN = [
    ('evaluation.new', 'training.loop', 'from training import loop'),
    ('serving.web.new', 'training.loop', 'import training.loop'),
    ('serving.model.new', 'deployment.model_deploy',
     'def f():\n  from deployment import model_deploy'),
    ('training.new3', 'deployment.launcher.machine',
     'from deployment.launcher import machine'),
    ('training.new', 'evaluation.loop', 'from evaluation import loop'),
    ('training.new2', 'ood.detector', 'from ood.detector import *'),
    ('datasets.new', 'runs.run_info', 'from runs import run_info'),
    ('datasets.records.new', 'nets.nets_factory', 'import nets.nets_factory'),
    ('deployment.new', 'datasets.manifest', 'from datasets import manifest'),
    ('nets.new', 'preprocessing.colors', 'from preprocessing import colors'),
    ('runs.new', 'tools.list_models', 'from tools import list_models'),
    ('common.new', 'compat', 'from compat import tf'),
    ('runs.new2', 'train_image_classifier', 'import train_image_classifier'),
    ('serving.new', 'absl', 'from absl import flags'),
]


@pytest.fixture
def project_copy(tmp_path):
  """Returns a folder with the project's packages and import contracts."""
  for package in PACKAGES:
    shutil.copytree(os.path.join(ROOT, package), str(tmp_path / package),
                    ignore=lambda folder, names: [
                        name for name in names if not name.endswith('.py') and
                        not os.path.isdir(os.path.join(folder, name))])
  shutil.copy(os.path.join(ROOT, 'pyproject.toml'), str(tmp_path))
  return tmp_path


def lint_imports(folder):
  """Runs import-linter as ./run_tests.sh does, in another folder."""
  return subprocess.run(
      [os.path.join(sys.prefix, 'bin', 'lint-imports'), '--no-cache'],
      cwd=str(folder), stdout=subprocess.PIPE, text=True)


def test_forbidden_imports_break_the_contracts(project_copy):
  assert lint_imports(project_copy).returncode == 0
  for importer, _, line in FORBIDDEN:
    path = project_copy.joinpath(*importer.split('.')).with_suffix('.py')
    path.write_text(line + '\n')
  result = lint_imports(project_copy)
  assert result.returncode == 1
  assert '0 kept, 7 broken' in result.stdout
  for importer, imported, _ in FORBIDDEN:
    assert '%s -> %s (' % (importer, imported) in result.stdout


def test_contracts_name_every_package_and_program(monkeypatch):
  monkeypatch.chdir(ROOT)
  configuration = api.read_configuration()
  assert set(configuration['session_options']['root_packages']) == PACKAGES
  contracts = {contract['name']: contract
               for contract in configuration['contracts_options']}
  layers, = (contract['layers'] for contract in contracts.values()
             if contract['type'] == 'layers')
  assert sorted(layers) == sorted(PACKAGES)
  programs = contracts['Packages do not import programs']
  assert set(programs['forbidden_modules']) == MODULES - {'compat'}
  for name in ('Packages do not import programs', 'Packages do not read flags'):
    assert set(contracts[name]['source_modules']) == (
        PACKAGES - {'benchmarks', 'tools'})


def imported_packages(path):
  """Yields the top-level packages and modules that a file imports."""
  with open(path, encoding='utf-8') as stream:
    tree = ast.parse(stream.read(), path)
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name.split('.')[0]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      yield node.module.split('.')[0]


def test_only_compat_imports_tensorflow_and_tf_slim():
  paths = glob.glob(os.path.join(ROOT, '*.py'))
  for package in PACKAGES:
    paths += glob.glob(os.path.join(ROOT, package, '**', '*.py'),
                       recursive=True)
  users = {os.path.relpath(path, ROOT) for path in paths
           if {'tensorflow', 'tf_slim'} & set(imported_packages(path))}
  assert users == {'common/compat.py'}
