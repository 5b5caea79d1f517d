"""Tests of training/validation_history.py: evaluations and best checkpoint."""

import json
import os
import shutil

import pytest

from compat import tf
from runs import checkpoints, run_info
from training import validation_history

INFO = run_info.RunInfo('lenet', ['a', 'b'], 0, 28, 'lenet', 'letters', '/data',
                        None)


class Evaluations:
  """A ValidationHistory on a graph with a step alone."""

  def __init__(self, folder, from_step=0):
    self.folder = str(folder)
    self._session = tf.Session()
    step = tf.train.get_or_create_global_step()
    self._value = tf.placeholder(tf.int64, [])
    self._assign = tf.assign(step, self._value)
    self.history = validation_history.ValidationHistory(
        self.folder, INFO, tf.train.Saver(max_to_keep=1), step, from_step)

  def add(self, step, accuracy, loss):
    self._session.run(self._assign, {self._value: step})
    self.history.add(self._session, step, accuracy, loss)

  def kept(self):
    return checkpoints.read_global_step(
        checkpoints.newest(os.path.join(self.folder, checkpoints.BEST_DIR)))


@pytest.fixture
def make(tmp_path):
  """Makes the ValidationHistory of a process that begins at a step."""
  with tf.Graph().as_default():
    yield lambda from_step=0: Evaluations(tmp_path, from_step)


def test_best_is_the_most_accurate_then_the_one_of_least_loss(make):
  run = make()
  kept = []
  for step, accuracy, loss in [(1, 0.5, 2.0), (2, 0.8, 1.0), (3, 0.7, 0.1),
                               (4, 0.8, 0.9), (5, 0.8, 0.95)]:
    run.add(step, accuracy, loss)
    kept.append(run.kept())
  assert kept == [1, 2, 2, 4, 4]
  assert run.history.best == {'step': 4, 'accuracy': 0.8, 'loss': 0.9}


def test_run_is_over_when_only_the_loss_gets_better(make):
  run = make()
  for step in range(1, 5):
    assert not run.history.is_over(3)
    run.add(step, 1.0, 1.0 / step)
  assert run.kept() == 4
  assert run.history.is_over(3) and not run.history.is_over(4)
  assert not run.history.is_over(0)
  assert 'step 4' in run.history.describe()


def test_patience_counts_again_after_a_gain_and_not_after_a_tie(make):
  run = make()
  for step, accuracy in [(1, 0.5), (2, 0.4), (3, 0.6), (4, 0.5), (5, 0.6)]:
    run.add(step, accuracy, 1.0)
  assert run.history.is_over(2) and not run.history.is_over(3)


def test_facts_are_there_before_the_checkpoint(make, tmp_path, monkeypatch):
  run = make()
  monkeypatch.setattr(tf.train.Saver, 'save', lambda *_, **__: 1 // 0)
  with pytest.raises(ZeroDivisionError):
    run.add(1, 0.5, 1.0)
  assert run_info.load(str(tmp_path / 'best')) == INFO


def test_next_process_knows_the_evaluations_up_to_its_step(make, tmp_path):
  run = make()
  for step, accuracy in [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)]:
    run.add(step, accuracy, 1.0)
  run = make(from_step=2)  # Steps 3 and 4 were lost.
  assert not run.history.is_over(2)
  run.add(3, 0.45, 1.0)
  assert run.history.is_over(2)
  with open(str(tmp_path / validation_history.FILE_NAME)) as file:
    assert [json.loads(line)['accuracy'] for line in file] == [0.5, 0.4, 0.45]
  assert run.kept() == 1


def test_damaged_files_are_a_run_without_evaluations(make, tmp_path):
  run = make()
  run.add(1, 0.5, 1.0)
  for path in (tmp_path / validation_history.FILE_NAME,
               tmp_path / 'best' / 'best.json'):
    path.write_text('{')
  run = make(from_step=1)
  assert run.history.best is None and not run.history.is_over(1)
  run.add(2, 0.1, 1.0)
  assert run.kept() == 2


def test_without_the_best_checkpoint_the_evaluations_begin_anew(make, tmp_path):
  run = make()
  for step in (1, 2, 3):
    run.add(step, 0.5, 1.0)
  assert run.history.is_over(2)
  shutil.rmtree(str(tmp_path / 'best'))
  run = make(from_step=3)
  assert not run.history.is_over(2)
  run.add(4, 0.3, 1.0)
  assert run.kept() == 4
