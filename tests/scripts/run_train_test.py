"""Tests of run_train.sh: scopes that are excluded or trained by default."""

import os
import shutil
import subprocess

import pytest

import train_image_classifier
from kits.helpers import ROOT, parsed_flags
from nets import nets_factory
from training import start

# What the script waits for, after the command line.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" 'Training on CPU:0'
sleep 2
"""


@pytest.fixture
def folder(tmp_path):
  """The script in a folder whose Python prints its command line."""
  shutil.copytree(os.path.join(ROOT, 'scripts'), str(tmp_path / 'scripts'))
  for name in ('run_train.sh', 'env_set.sh'):
    shutil.copy(os.path.join(ROOT, name), str(tmp_path))
  stubs = {'setup.sh': '#!/usr/bin/env bash\n'}
  stubs.update({venv + '/bin/python': PYTHON for venv in ('.venv',
                                                          '.venv-tf2')})
  for name, text in stubs.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
  return tmp_path


def command_line(folder, **variables):
  """Returns the arguments that the script gives to the trainer."""
  env = {key: value for key, value in os.environ.items()
         if not key.endswith('_SCOPES')}
  env.update(dict(MODEL_NAME='lenet', CHECKPOINT_PATH='/x.ckpt'), **variables)
  subprocess.run([str(folder / 'run_train.sh')], env=env, check=True,
                 stdout=subprocess.DEVNULL)
  return (folder / 'output.log').read_text().splitlines()


def test_run_train_to_a_number_of_steps_takes_all_of_them(folder):
  assert '--early_stop_evals=0' not in command_line(folder)
  assert '--early_stop_evals=0' in command_line(folder,
                                                MAX_NUMBER_OF_STEPS='7')


def scopes_in(arguments):
  return [argument for argument in arguments if '_scopes=' in argument]


@pytest.mark.parametrize('variables,expected', [
    ({}, []),
    ({'TRAINABLE_SCOPES': ''}, ['--trainable_scopes=']),
    ({'CHECKPOINT_EXCLUDE_SCOPES': 'a,b', 'TRAINABLE_SCOPES': 'c'},
     ['--checkpoint_exclude_scopes=a,b', '--trainable_scopes=c']),
    ({'CHECKPOINT_EXCLUDE_SCOPES': ''}, ['--checkpoint_exclude_scopes=']),
], ids=str)
def test_run_train_passes_scopes_on_that_are_set(folder, variables, expected):
  arguments = command_line(folder, **variables)
  assert '--checkpoint_path=/x.ckpt' in arguments
  assert '--train_classifier_only' in arguments
  assert scopes_in(arguments) == expected


def test_run_train_from_scratch_excludes_nothing(folder):
  arguments = command_line(folder, CHECKPOINT_PATH='', TRAINABLE_SCOPES='c',
                           CHECKPOINT_EXCLUDE_SCOPES='a')
  assert scopes_in(arguments) == ['--trainable_scopes=c']
  assert '--train_classifier_only' not in arguments


@pytest.mark.parametrize('name', sorted(nets_factory.NETWORKS))
def test_scopes_not_given_are_those_of_the_registry(name):
  row = nets_factory.get_network(name)
  own = list(row.classifier_scopes)
  for flags, expected in [
      (['--train_classifier_only'], (own, own)),
      (['--train_classifier_only', '--trainable_scopes='], (own, [])),
      (['--train_classifier_only', '--checkpoint_exclude_scopes='], ([], own)),
      (['--train_classifier_only', '--trainable_scopes=a'], (own, ['a'])),
      ([], ([], []))]:
    with parsed_flags(train_image_classifier.define_flags, *flags) as values:
      assert start._scopes(values, row) == expected, flags


def test_scripts_hold_no_scope_of_a_network():
  for name in ('run_train.sh', 'env_set.sh'):
    with open(os.path.join(ROOT, name)) as file:
      text = file.read()
    for row in nets_factory.NETWORKS.values():
      assert not [scope for scope in row.classifier_scopes if scope in text]
