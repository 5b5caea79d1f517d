"""Tests of common/show_help.py: --help of every script and program."""

import glob
import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest
from absl import flags

from common import show_help
from kits.helpers import ROOT, parsed_flags


def _files_containing(pattern, text):
  """Returns the project files that contain `text`, relative to the root."""
  paths = []
  for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
    with open(path, encoding='utf-8') as file:
      if os.path.isfile(path) and text in file.read():
        paths.append(os.path.relpath(path, ROOT))
  return paths


PROGRAMS = [path for pattern in ('*.py', 'benchmarks/*.py', 'tools/*.py',
                                 'datasets/*.py')
            for path in _files_containing(pattern, '\ndef define_flags(')]
SCRIPTS = ['setup.sh', 'run_tests.sh', 'quickstart.sh'] + [
    path for pattern in ('*.sh', 'scripts/*.sh', 'benchmarks/[a-z]*')
    for path in _files_containing(pattern, '/env_set.sh"\n')
    if path != 'quickstart.sh']
# All other variables must be in the help of the scripts that read them.
NOT_FOR_USERS = {'BASH_SOURCE', 'PROJECT_DIR', 'VENV_PYTHON', 'PYTHONPATH',
                 'BASH_REMATCH', 'PYTHON_VERSIONS', 'PIP_VERSION', 'TEXT',
                 'ENGINE_SUFFIX', 'ENGINE_NAME', 'PWD', 'VENV', 'PYENV_ROOT',
                 'VENV_MB', 'SECONDS', 'PROGRESS_FD'}


@pytest.mark.parametrize('program', PROGRAMS)
def test_flags_of_equals_the_flags_that_the_program_defines(program):
  module = importlib.import_module(program[:-len('.py')].replace('/', '.'))
  before = set(flags.FLAGS)
  with parsed_flags(module.define_flags) as values:
    defined = {name: values[name] for name in set(values) - before}
  docstring, found_flags = show_help.flags_of(os.path.join(ROOT, program))
  assert docstring == module.__doc__
  assert set(found_flags) == set(defined)
  for name, flag in found_flags.items():
    expected = defined[name]
    assert flag.default == expected.default, name
    assert len(flag.help) >= 10, name
    # absl prepends the choices to the text.
    assert flag.help in expected.help, name
    assert flag.choices == list(
        getattr(expected.parser, 'enum_values', [])), name
    for bound in ('lower_bound', 'upper_bound'):
      assert getattr(flag, bound) == getattr(expected.parser, bound, None), name


def test_source_evaluates_constants_with_annotations(tmp_path):
  path = tmp_path / 'sizes.py'
  path.write_text('from typing import Dict\nSIZES: Dict[str, int] = {"a": 1}\n'
                  'LIMIT: int = 3\nALL = [limit for limit in (LIMIT, 4)]\n')
  source = show_help.Source(str(path), show_help.FlagList({}), {})
  assert (source.SIZES, source.ALL) == ({'a': 1}, [3, 4])
  assert 'limit' not in source


def test_flag_lines_give_default_bounds_and_choices():
  flag = show_help.Flag('rate', 'float', 0.1, 'Share of it.', [], 0, 1)
  assert show_help.flag_lines(flag) == [
      '  --rate: Share of it.', '    (default: 0.1; 0 to 1)']
  assert show_help.flag_lines(flag._replace(
      name='page', kind='bool', default=True, lower_bound=None,
      upper_bound=None)) == [
          '  --[no]page: Share of it.', '    (default: true)']
  assert show_help.flag_lines(flag._replace(
      kind='enum', default=None, choices=['a', 'b'], upper_bound=None))[1:] == [
          '    (a, b; at least 0)']


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """Returns a folder: `project`, a bare checkout, and `bin`, a minimal PATH."""
  checkout_dir = tmp_path_factory.mktemp('fresh checkout')
  shutil.copytree(
      ROOT, str(checkout_dir / 'project'), ignore=shutil.ignore_patterns(
          '.*', 'tests', 'data', 'output', 'checkpoints', '__pycache__'))
  bin_dir = checkout_dir / 'bin'
  bin_dir.mkdir()
  for command in ('bash', 'dirname', 'env', 'sed'):
    (bin_dir / command).symlink_to(shutil.which(command))
  # -I and -S ignore the environment and installed packages.
  (bin_dir / 'python3').write_text('#!/usr/bin/env bash\nexec %s -I -S "$@"\n' %
                                   sys.executable)
  (bin_dir / 'python3').chmod(0o755)
  return checkout_dir


def run_help(checkout, script, **variables):
  """Runs `script --help` of the checkout, with its `bin` alone on PATH."""
  return subprocess.run(
      [os.path.join('project', script), '--help'], cwd=str(checkout),
      env=dict(dict(PATH=str(checkout / 'bin')), **variables),
      capture_output=True, timeout=20)


@pytest.mark.parametrize('script', SCRIPTS)
def test_script_help_installs_nothing_and_is_complete(checkout, script):
  before = sorted(os.listdir(str(checkout / 'project')))
  done = run_help(checkout, script)
  assert done.returncode == 0 and not done.stderr, done.stderr.decode()
  assert sorted(os.listdir(str(checkout / 'project'))) == before
  output = done.stdout.decode()
  with open(os.path.join(ROOT, script), encoding='utf-8') as file:
    text = file.read()
  comment = re.match(r'#!.*\n((?:#.*\n)+)', text).group(1)
  assert output.startswith(re.sub(r'^# ?', '', comment, flags=re.MULTILINE))
  assert 'usage: ' in output and script in output
  variables = set(re.findall(r'\$\{!?([A-Z_]{4,})', text)) - NOT_FOR_USERS
  assert not [name for name in variables if name not in output]
  program = re.search(r'^program=(\S+)$', text, re.MULTILINE)
  if program and program.group(1) in PROGRAMS:
    _, program_flags = show_help.flags_of(os.path.join(ROOT, program.group(1)))
    listed_flags = re.findall(r'^  --(?:\[no\])?(\w+):', output, re.MULTILINE)
    assert listed_flags == sorted(program_flags)


def test_script_help_lists_variables_read_by_sourced_files(checkout):
  output = run_help(checkout, 'run_train.sh').stdout.decode()
  variables = dict(re.findall(r'^    ([A-Z_]+)=?(.*)$', output, re.MULTILINE))
  assert variables['MODEL_NAME'] == 'inception_v4'
  assert variables['TRAIN_DIR'] == '${OUTPUT_DIR}/train'
  assert {'CHECKPOINT', 'CHECKPOINT_EXCLUDE_SCOPES', 'ENGINE',
          'OUTPUT_DIR'} < set(variables)
  # Variables of other scripts, or only named in a hint of this one, are absent.
  assert not {'SERVER_PORT', 'FROZEN_FILE', 'EVAL_DIR'} & set(variables)


def test_script_help_without_python_prints_the_comment(checkout, tmp_path):
  for tool in ('bash', 'dirname', 'env', 'sed'):
    (tmp_path / tool).symlink_to(shutil.which(tool))
  done = run_help(checkout, 'run_eval.sh', PATH=str(tmp_path))
  assert done.returncode == 0
  assert 'usage: [RUN=…] [MODEL_NAME=…]' in done.stdout.decode()
  assert 'no Python here' in done.stdout.decode()


def test_script_help_on_an_ascii_terminal_escapes_characters(checkout):
  done = subprocess.run(
      [sys.executable, os.path.join(ROOT, 'common', 'show_help.py'),
       os.path.join(ROOT, 'run_eval.sh')], capture_output=True,
      env=dict(PATH='', PYTHONIOENCODING='ascii'))
  assert done.returncode == 0
  assert rb'[MODEL_NAME=\u2026]' in done.stdout
