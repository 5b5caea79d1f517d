"""Tests of training/config.py."""

import json

import pytest

import train_image_classifier
from common.errors import InputError
from deployment import hosts
from kits.helpers import parsed_flags
from kits.trained_kit import make_dataset, train, train_config
from training import config

# Flags of the session and of the hosts, which are not in the configuration.
PROGRAM_FLAGS = {'gpu_allow_growth', 'session_threads', 'ps_hosts',
                 'worker_hosts', 'job_name', 'startup_timeout'}
CLUSTER = hosts.parse('a:1', 'a:2,b:3')


def flags_in(made_config):
  """Returns {flag: value} of the fields of a configuration."""
  values = {}
  for name, field in made_config._asdict().items():
    if hasattr(field, '_asdict'):
      values.update(field._asdict())
    elif name != 'given':
      values[name] = field
  return values


def test_config_from_flags_has_value_of_each_training_flag():
  with parsed_flags(lambda: None) as values:
    common = set(values)
  with parsed_flags(train_image_classifier.define_flags, '--seed=3',
                    '--momentum=0.5', '--task=2', '--trainable_scopes=a') as (
                        values):
    expected = {name: values[name].value for name in set(values) - common}
    actual = flags_in(train_image_classifier.config_from_flags())
  assert PROGRAM_FLAGS <= set(expected)
  assert actual == {name: value for name, value in expected.items()
                    if name not in PROGRAM_FLAGS}
  assert (actual['seed'], actual['momentum'], actual['task']) == (3, 0.5, 2)


def test_config_given_has_only_flags_of_command_line(tmp_path):
  assert train_config('--seed=0', '--nofast_mode').given == {
      'seed': 0, 'fast_mode': False}
  data = make_dataset(tmp_path)
  train(data, tmp_path / 'run', '--max_number_of_steps=1')
  assert json.loads((tmp_path / 'run' / 'flags.json').read_text()) == {
      'dataset_dir': data, 'dataset_name': 'colours', 'batch_size': 4,
      'train_dir': str(tmp_path / 'run'), 'model_name': 'cifarnet',
      'log_every_n_steps': 1, 'max_number_of_steps': 1}


@pytest.mark.parametrize('flags, to_aggregate', [
    (['--sync_replicas'], 2),
    (['--sync_replicas', '--replicas_to_aggregate=1'], 1),
    (['--worker_replicas=2'], 1)])
def test_with_task_counts_takes_counts_from_cluster(flags, to_aggregate):
  before = train_config(*flags)
  assert config.with_task_counts(before, CLUSTER) == before._replace(
      replicas=before.replicas._replace(
          worker_replicas=2, num_ps_tasks=1,
          replicas_to_aggregate=to_aggregate))


@pytest.mark.parametrize('flag, message', [
    ('--worker_replicas=3', '--worker_hosts, which has 2'),
    ('--num_ps_tasks=0', '--ps_hosts, which has 1')])
def test_with_task_counts_contradicting_flag_raises_input_error(flag, message):
  with pytest.raises(InputError, match='%s contradicts %s' % (flag, message)):
    config.with_task_counts(train_config(flag), CLUSTER)
