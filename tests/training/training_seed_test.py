"""Tests of --seed: bitwise equal runs with --session_threads=1."""

import pytest

from kits.helpers import run_program, slow_by_turns
from kits.trained_kit import (
  MOBILENET,
  make_dataset,
  read_variables,
  train,
  train_arguments,
)
from runs import checkpoints
from training import summaries

SEED = ['--seed=1', '--session_threads=1']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


def differing(first, second):
  """Returns names of the variables whose bits differ in two checkpoints."""
  first, second = read_variables(first), read_variables(second)
  assert sorted(first) == sorted(second) and 'global_step' in first
  return {name for name, value in first.items()
          if value.tobytes() != second[name].tobytes()}


QUICK = {
    'plain': ['--evaluate_every_n_steps=2'],
    'cached': ['--cache_features', '--train_classifier_only',
               '--cache_views=1'],
}


@pytest.fixture(scope='module', params=sorted(QUICK))
def base_run(request, data, tmp_path_factory):
  """(flags, newest checkpoint) of a run of CifarNet, which has dropout."""
  folder = tmp_path_factory.mktemp('base_run')
  flags = [*SEED, *QUICK[request.param], '--max_number_of_steps=5']
  return flags, train(data, folder, *flags,
                      '--feature_cache_dir=%s' % (folder / 'features'))


@pytest.mark.slow
def test_same_seed_gives_same_bits_with_summaries_at_every_step(
    data, base_run, tmp_path, monkeypatch):
  flags, newest = base_run
  make = summaries.Summaries
  monkeypatch.setattr(summaries, 'Summaries',
                      lambda *arguments: make(*arguments[:-1], secs=0))
  assert differing(newest, train(
      data, tmp_path / 'run', *flags,
      '--feature_cache_dir=%s' % (tmp_path / 'features'))) == set()


@pytest.mark.slow
@pytest.mark.parametrize('base_run', ['plain'], indirect=True)
def test_different_seed_gives_different_bits(data, base_run, tmp_path):
  flags, newest = base_run
  changed = differing(newest, train(
      data, tmp_path / 'run', *flags, '--seed=2',
      '--feature_cache_dir=%s' % (tmp_path / 'features')))
  assert {'CifarNet/conv1/weights', 'CifarNet/logits/weights'} <= changed


def run_in_process(data, folder, *flags):
  """Trains in a separate process; returns the newest checkpoint."""
  completed = run_program('train_image_classifier.py', *train_arguments(
      data, folder, *flags, '--feature_cache_dir=%s' % (folder / 'features')))
  assert completed.returncode == 0, completed.stderr
  return checkpoints.newest(str(folder))


CHECKPOINT = '--checkpoint_path'
RUN_KINDS = {
    'plain from scratch': [
        *MOBILENET, '--nofast_mode', '--evaluate_every_n_steps=10',
        '--moving_average_decay=0.9', '--mixup_alpha=0.2',
        '--clip_gradient_norm=1'],
    'plain fine-tuning of all': [CHECKPOINT],
    'plain fine-tuning of the classifier': [
        '--train_classifier_only', CHECKPOINT],
    'cached and all layers after that': [
        '--cache_features', '--train_classifier_only', '--cache_views=2',
        '--mixup_alpha=0.2', '--finetune_all_steps=20', CHECKPOINT],
}


@pytest.fixture(scope='module')
def published(data, tmp_path_factory):
  """A checkpoint to fine-tune, in place of a published one."""
  return train(data, tmp_path_factory.mktemp('published'),
               '--max_number_of_steps=2')


@pytest.mark.parametrize('kind', slow_by_turns(RUN_KINDS))
def test_same_seed_in_two_processes_gives_same_bits(
    data, published, tmp_path, kind):
  flags = [flag + '=' + published if flag == CHECKPOINT else flag
           for flag in RUN_KINDS[kind]]
  flags = [*SEED, '--optimizer=adam', '--max_number_of_steps=20', *flags]
  first = run_in_process(data, tmp_path / 'one', *flags)
  # Summaries and checkpoints are written at other steps.
  second = run_in_process(data, tmp_path / 'two', *flags,
                          '--save_summaries_secs=1', '--save_interval_secs=1')
  assert differing(first, second) == set()
