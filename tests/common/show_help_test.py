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


def _find(pattern, text):
  """Returns the files of the project with a text, relative to it."""
  found = []
  for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
    with open(path, encoding='utf-8') as file:
      if os.path.isfile(path) and text in file.read():
        found.append(os.path.relpath(path, ROOT))
  return found


PROGRAMS = [path for pattern in ('*.py', 'benchmarks/*.py', 'tools/*.py',
                                 'datasets/*.py')
            for path in _find(pattern, '\ndef define_flags(')]
SCRIPTS = ['setup.sh', 'run_tests.sh', 'quickstart.sh'] + [
    path for pattern in ('*.sh', 'scripts/*.sh', 'benchmarks/[a-z]*')
    for path in _find(pattern, '/env_set.sh"\n')
    if path != 'quickstart.sh']
# Others of the shell that a user may set are in the comment of the script.
NOT_FOR_USERS = {'BASH_SOURCE', 'PROJECT_DIR', 'VENV_PYTHON', 'PYTHONPATH',
                 'BASH_REMATCH', 'PYTHON_VERSIONS', 'PIP_VERSION', 'TEXT',
                 'ENGINE_SUFFIX', 'ENGINE_NAME', 'PWD', 'VENV', 'PYENV_ROOT'}


@pytest.mark.parametrize('program', PROGRAMS)
def test_flags_found_are_those_that_the_program_defines(program):
  module = importlib.import_module(program[:-len('.py')].replace('/', '.'))
  before = set(flags.FLAGS)
  with parsed_flags(module.define_flags) as values:
    defined = {name: values[name] for name in set(values) - before}
  docstring, found = show_help.flags_of(os.path.join(ROOT, program))
  assert docstring == module.__doc__
  assert set(found) == set(defined)
  for name, flag in found.items():
    expected = defined[name]
    assert flag.default == expected.default, name
    assert len(flag.help) >= 10, name
    # absl puts the choices in front of the text.
    assert flag.help in expected.help, name
    assert flag.choices == list(
        getattr(expected.parser, 'enum_values', [])), name
    for bound in ('lower_bound', 'upper_bound'):
      assert getattr(flag, bound) == getattr(expected.parser, bound, None), name


def test_lines_of_a_flag_have_its_facts():
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
def fresh(tmp_path_factory):
  """A checkout without environments, and a PATH without packages."""
  folder = tmp_path_factory.mktemp('fresh checkout')
  shutil.copytree(ROOT, str(folder / 'project'), ignore=shutil.ignore_patterns(
      '.*', 'tests', 'data', 'output', 'checkpoints', '__pycache__'))
  tools = folder / 'bin'
  tools.mkdir()
  for tool in ('bash', 'dirname', 'env', 'sed'):
    (tools / tool).symlink_to(shutil.which(tool))
  # -I and -S: neither the environment nor what is installed.
  (tools / 'python3').write_text('#!/usr/bin/env bash\nexec %s -I -S "$@"\n' %
                                 sys.executable)
  (tools / 'python3').chmod(0o755)
  return folder


def help_of(fresh, script, **variables):
  return subprocess.run(
      [os.path.join('project', script), '--help'], cwd=str(fresh),
      env=dict(dict(PATH=str(fresh / 'bin')), **variables), capture_output=True,
      timeout=20)


@pytest.mark.parametrize('script', SCRIPTS)
def test_script_help_installs_nothing_and_is_complete(fresh, script):
  before = sorted(os.listdir(str(fresh / 'project')))
  done = help_of(fresh, script)
  assert done.returncode == 0 and not done.stderr, done.stderr.decode()
  assert sorted(os.listdir(str(fresh / 'project'))) == before
  shown = done.stdout.decode()
  with open(os.path.join(ROOT, script), encoding='utf-8') as file:
    text = file.read()
  comment = re.match(r'#!.*\n((?:#.*\n)+)', text).group(1)
  assert shown.startswith(re.sub(r'^# ?', '', comment, flags=re.MULTILINE))
  assert 'usage: ' in shown and script in shown
  read = set(re.findall(r'\$\{!?([A-Z_]{4,})', text)) - NOT_FOR_USERS
  assert not [name for name in read if name not in shown]
  program = re.search(r'^program=(\S+)$', text, re.MULTILINE)
  if program and program.group(1) in PROGRAMS:
    _, flags_found = show_help.flags_of(os.path.join(ROOT, program.group(1)))
    named = re.findall(r'^  --(?:\[no\])?(\w+):', shown, re.MULTILINE)
    assert named == sorted(flags_found)


def test_script_help_lists_the_variables_that_it_reads_elsewhere(fresh):
  shown = help_of(fresh, 'run_train.sh').stdout.decode()
  variables = dict(re.findall(r'^    ([A-Z_]+)=?(.*)$', shown, re.MULTILINE))
  assert variables['MODEL_NAME'] == 'inception_v4'
  assert variables['TRAIN_DIR'] == '${OUTPUT_DIR}/train'
  assert {'CHECKPOINT', 'CHECKPOINT_EXCLUDE_SCOPES', 'ENGINE',
          'OUTPUT_DIR'} < set(variables)
  # Neither what other scripts read nor what a hint of this one names.
  assert not {'SERVER_PORT', 'FROZEN_FILE', 'EVAL_DIR'} & set(variables)


def test_script_help_without_any_python_has_the_comment(fresh, tmp_path):
  for tool in ('bash', 'dirname', 'env', 'sed'):
    (tmp_path / tool).symlink_to(shutil.which(tool))
  done = help_of(fresh, 'run_eval.sh', PATH=str(tmp_path))
  assert done.returncode == 0
  assert 'usage: [MODEL_NAME=…]' in done.stdout.decode()
  assert 'no Python here' in done.stdout.decode()


def test_script_help_goes_to_any_terminal(fresh):
  done = subprocess.run(
      [sys.executable, os.path.join(ROOT, 'common', 'show_help.py'),
       os.path.join(ROOT, 'run_eval.sh')], capture_output=True,
      env=dict(PATH='', PYTHONIOENCODING='ascii'))
  assert done.returncode == 0
  assert rb'[MODEL_NAME=\u2026]' in done.stdout
