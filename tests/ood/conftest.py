"""A trained run with a feature cache, for the tests of this folder."""

import os

import pytest

from kits import ood_kit
from runs import checkpoints, run_info


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return ood_kit.make_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
  """Returns the train directory of a run with a feature cache."""
  return os.path.dirname(ood_kit.make_run(
      data, tmp_path_factory.mktemp('run'), '--moving_average_decay=0.9'))


@pytest.fixture
def train_dir(finished, tmp_path):
  """Returns a copy of `finished` that the test may change."""
  return ood_kit.copy_run(finished, tmp_path / 'train')


@pytest.fixture
def checkpoint(train_dir):
  return checkpoints.newest(train_dir)


@pytest.fixture
def run(train_dir):
  return run_info.load(train_dir)
