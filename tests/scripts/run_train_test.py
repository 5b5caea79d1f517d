"""Tests of run_train.sh: the flags that it passes to the training program."""

import os
import shutil
import subprocess

import pytest

from kits.helpers import ROOT
from kits.trained_kit import train_config
from nets import nets_factory
from training import start

# Prints its arguments, then the line for which the script waits.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" 'Training on CPU:0'
sleep 2
"""


@pytest.fixture
def folder(tmp_path):
  """Returns a folder with the script and a Python that prints its arguments."""
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


def test_run_train_with_max_number_of_steps_does_not_stop_early(folder):
  assert '--early_stop_evals=0' not in command_line(folder)
  assert '--early_stop_evals=0' in command_line(folder,
                                                MAX_NUMBER_OF_STEPS='7')


def scope_flags(arguments):
  return [argument for argument in arguments if '_scopes=' in argument]


@pytest.mark.parametrize('variables,expected', [
    ({}, []),
    ({'TRAINABLE_SCOPES': ''}, ['--trainable_scopes=']),
    ({'CHECKPOINT_EXCLUDE_SCOPES': 'a,b', 'TRAINABLE_SCOPES': 'c'},
     ['--checkpoint_exclude_scopes=a,b', '--trainable_scopes=c']),
    ({'CHECKPOINT_EXCLUDE_SCOPES': ''}, ['--checkpoint_exclude_scopes=']),
], ids=str)
def test_run_train_passes_on_scopes_that_are_set(folder, variables, expected):
  arguments = command_line(folder, **variables)
  assert '--checkpoint_path=/x.ckpt' in arguments
  assert '--train_classifier_only' in arguments
  assert scope_flags(arguments) == expected


def test_run_train_from_scratch_excludes_no_scopes(folder):
  arguments = command_line(folder, CHECKPOINT_PATH='', TRAINABLE_SCOPES='c',
                           CHECKPOINT_EXCLUDE_SCOPES='a')
  assert scope_flags(arguments) == ['--trainable_scopes=c']
  assert '--train_classifier_only' not in arguments


@pytest.mark.parametrize('name', sorted(nets_factory.NETWORKS))
def test_start_scopes_that_are_not_given_are_those_of_the_registry(name):
  row = nets_factory.get_network(name)
  scopes = list(row.classifier_scopes)
  main = scopes[:1]  # The others are of auxiliary classifiers.
  for flags, expected in [
      (['--train_classifier_only'], (scopes, main)),
      (['--train_classifier_only', '--train_aux_classifier'],
       (scopes, scopes)),
      (['--train_classifier_only', '--trainable_scopes='], (scopes, [])),
      (['--train_classifier_only', '--checkpoint_exclude_scopes='],
       ([], main)),
      (['--train_classifier_only', '--trainable_scopes=a'], (scopes, ['a'])),
      ([], ([], []))]:
    config = train_config(*flags)
    assert start._scopes(config.checkpoint, row) == expected, flags


def test_scripts_name_no_scope_of_a_network():
  for name in ('run_train.sh', 'env_set.sh'):
    with open(os.path.join(ROOT, name)) as file:
      text = file.read()
    for row in nets_factory.NETWORKS.values():
      assert not [scope for scope in row.classifier_scopes if scope in text]
