"""Tests of --seed: equal bits with --session_threads=1."""

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
  """30 photos, 3 classes, 9 of the photos for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


def differing(one, other):
  """Returns names of the variables whose bits differ in two checkpoints."""
  one, other = read_variables(one), read_variables(other)
  assert sorted(one) == sorted(other) and 'global_step' in one
  return {name for name, value in one.items()
          if value.tobytes() != other[name].tobytes()}


QUICK = {
    'plain': ['--evaluate_every_n_steps=2'],
    'cached': ['--cache_features', '--train_classifier_only',
               '--cache_views=1'],
}


@pytest.fixture(scope='module', params=sorted(QUICK))
def one(request, data, tmp_path_factory):
  """Flags of a run of CifarNet, which has dropout, and its last checkpoint."""
  folder = tmp_path_factory.mktemp('one')
  flags = [*SEED, *QUICK[request.param], '--max_number_of_steps=5']
  return flags, train(data, folder, *flags,
                      '--feature_cache_dir=%s' % (folder / 'features'))


@pytest.mark.slow
def test_same_seed_gives_the_same_bits_whenever_there_are_summaries(
    data, one, tmp_path, monkeypatch):
  flags, newest = one
  make = summaries.Summaries
  monkeypatch.setattr(summaries, 'Summaries',
                      lambda *arguments: make(*arguments[:-1], secs=0))
  assert differing(newest, train(
      data, tmp_path / 'run', *flags,
      '--feature_cache_dir=%s' % (tmp_path / 'features'))) == set()


@pytest.mark.slow
@pytest.mark.parametrize('one', ['plain'], indirect=True)
def test_another_seed_gives_other_bits(data, one, tmp_path):
  flags, newest = one
  changed = differing(newest, train(
      data, tmp_path / 'run', *flags, '--seed=2',
      '--feature_cache_dir=%s' % (tmp_path / 'features')))
  assert {'CifarNet/conv1/weights', 'CifarNet/logits/weights'} <= changed


def run_in_process(data, folder, *flags):
  """Trains in a process of its own; returns the newest checkpoint."""
  done = run_program('train_image_classifier.py', *train_arguments(
      data, folder, *flags, '--feature_cache_dir=%s' % (folder / 'features')))
  assert done.returncode == 0, done.stderr
  return checkpoints.newest(str(folder))


CHECKPOINT = '--checkpoint_path'
WAYS = {
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
  """A checkpoint to start from."""
  return train(data, tmp_path_factory.mktemp('published'),
               '--max_number_of_steps=2')


@pytest.mark.parametrize('way', slow_by_turns(WAYS))
def test_same_seed_in_two_processes_gives_the_same_bits(
    data, published, tmp_path, way):
  flags = [flag + '=' + published if flag == CHECKPOINT else flag
           for flag in WAYS[way]]
  flags = [*SEED, '--optimizer=adam', '--max_number_of_steps=20', *flags]
  one = run_in_process(data, tmp_path / 'one', *flags)
  # Summaries and checkpoints come when the clock says so.
  two = run_in_process(data, tmp_path / 'two', *flags,
                       '--save_summaries_secs=1', '--save_interval_secs=1')
  assert differing(one, two) == set()
