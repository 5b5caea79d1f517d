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
  """A ValidationHistory on a graph with only a global step."""

  def __init__(self, folder, from_step=0, data=None):
    self.folder = str(folder)
    self._session = tf.Session()
    step = tf.train.get_or_create_global_step()
    self._value = tf.placeholder(tf.int64, [])
    self._assign = tf.assign(step, self._value)
    self.history = validation_history.ValidationHistory(
        self.folder, INFO, tf.train.Saver(max_to_keep=1), step, from_step,
        data)

  def add(self, step, accuracy, loss):
    self._session.run(self._assign, {self._value: step})
    self.history.add(self._session, step, accuracy, loss)

  def kept_step(self):
    """Returns the step of the best checkpoint on disk."""
    return checkpoints.read_global_step(
        checkpoints.newest(os.path.join(self.folder, checkpoints.BEST_DIR)))


@pytest.fixture
def make_run(tmp_path):
  """A function that makes the Evaluations of a process from a given step."""
  with tf.Graph().as_default():
    yield lambda from_step=0, data=None: Evaluations(tmp_path, from_step,
                                                     data)


def test_best_is_most_accurate_then_lowest_loss(make_run):
  run = make_run()
  kept_steps = []
  for step, accuracy, loss in [(1, 0.5, 2.0), (2, 0.8, 1.0), (3, 0.7, 0.1),
                               (4, 0.8, 0.9), (5, 0.8, 0.95)]:
    run.add(step, accuracy, loss)
    kept_steps.append(run.kept_step())
  assert kept_steps == [1, 2, 2, 4, 4]
  assert run.history.best == {'step': 4, 'accuracy': 0.8, 'loss': 0.9}


def test_run_that_returns_to_former_photos_is_not_over(make_run):
  for data, accuracy, step in [('a', 0.8, 1), ('b', 0.6, 3), ('a', 0.7, 5)]:
    run = make_run(step, data)
    # The checkpoint of these photos was replaced by that of others.
    assert run.history.best is None and not run.history.is_over(1)
    for later in range(2):
      run.add(step + later, accuracy, 1.0)
    assert run.history.is_over(1) and run.kept_step() == step
  run.history.forget_best()
  assert not os.path.exists(os.path.join(run.folder, checkpoints.BEST_DIR))


def test_is_over_ignores_better_loss_at_same_accuracy(make_run):
  run = make_run()
  for step in range(1, 5):
    assert not run.history.is_over(3)
    run.add(step, 1.0, 1.0 / step)
  assert run.kept_step() == 4
  assert run.history.is_over(3) and not run.history.is_over(4)
  assert not run.history.is_over(0)
  assert 'step 4' in run.history.describe()


def test_end_step_moves_on_when_accuracy_improves(make_run):
  run = make_run()
  assert run.history.end_step(3, 10) == 30
  for step, accuracy, end in [(10, 0.5, 40), (20, 0.4, 40), (30, 0.6, 60)]:
    run.add(step, accuracy, 1.0)
    assert run.history.end_step(3, 10) == end
  assert run.history.end_step(0, 10) is None


def test_is_over_restarts_count_after_gain_but_not_after_tie(make_run):
  run = make_run()
  for step, accuracy in [(1, 0.5), (2, 0.4), (3, 0.6), (4, 0.5), (5, 0.6)]:
    run.add(step, accuracy, 1.0)
  assert run.history.is_over(2) and not run.history.is_over(3)


def test_add_writes_run_info_before_best_checkpoint(
    make_run, tmp_path, monkeypatch):
  run = make_run()
  monkeypatch.setattr(tf.train.Saver, 'save', lambda *_, **__: 1 // 0)
  with pytest.raises(ZeroDivisionError):
    run.add(1, 0.5, 1.0)
  assert run_info.load(str(tmp_path / 'best')) == INFO


def test_next_process_reads_evaluations_up_to_its_step(make_run, tmp_path):
  run = make_run()
  for step, accuracy in [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)]:
    run.add(step, accuracy, 1.0)
  run = make_run(from_step=2)  # Steps 3 and 4 were lost.
  assert not run.history.is_over(2)
  run.add(3, 0.45, 1.0)
  assert run.history.is_over(2)
  with open(str(tmp_path / validation_history.FILE_NAME)) as file:
    assert [json.loads(line)['accuracy'] for line in file] == [0.5, 0.4, 0.45]
  assert run.kept_step() == 1


def test_damaged_files_count_as_no_evaluations(make_run, tmp_path):
  run = make_run()
  run.add(1, 0.5, 1.0)
  for path in (tmp_path / validation_history.FILE_NAME,
               tmp_path / 'best' / 'best.json'):
    path.write_text('{')
  run = make_run(from_step=1)
  assert run.history.best is None and not run.history.is_over(1)
  run.add(2, 0.1, 1.0)
  assert run.kept_step() == 2


def test_missing_best_checkpoint_starts_evaluations_again(make_run, tmp_path):
  run = make_run()
  for step in (1, 2, 3):
    run.add(step, 0.5, 1.0)
  assert run.history.is_over(2)
  shutil.rmtree(str(tmp_path / 'best'))
  run = make_run(from_step=3)
  assert not run.history.is_over(2)
  run.add(4, 0.3, 1.0)
  assert run.kept_step() == 4
