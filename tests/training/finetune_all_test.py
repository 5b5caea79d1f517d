"""Tests of training/finetune_all.py: --finetune_all_steps."""

import json
import os
import re
import shutil
import types

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from kits.board_kit import Board, wait_for
from kits.run_kit import (
  TINY_HEAD,
  evaluate,
  evaluations,
  listed_paths,
  tiny_networks,
)
from kits.trained_kit import make_dataset, read_variables, train
from runs import checkpoints
from training import finetune_all, loop, validation, validation_history

pytestmark = pytest.mark.slow
ONE_ENGINE_BY_TURNS = True  # See conftest.py.

HEAD_STEPS, ALL_STEPS = 4, 6
RATE = 0.002
HEAD = [TINY_HEAD, '--optimizer=adam', '--learning_rate=0.01',
        '--max_number_of_steps=%d' % HEAD_STEPS]
ALL = ['--finetune_all_steps=%d' % ALL_STEPS,
       '--finetune_all_learning_rate=%g' % RATE]


OPTIMIZER_VARIABLE = re.compile('/Adam(_1)?$|^beta[12]_power$')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module', autouse=True)
def tiny():
  with tiny_networks():
    yield


def record_rates(monkeypatch, stop_after=None):
  """Records the learning rates of the training steps that follow.

  Args:
    monkeypatch: a pytest.MonkeyPatch.
    stop_after: number of steps after which training is asked to stop.

  Returns:
    A list, to which each step appends (global step, learning rate).
  """
  rates, original_take = [], loop.TrainStep.take

  def recording_take(self, session, train_op, global_step, train_step_kwargs):
    rates.append(session.run(
        (global_step, 'cosine_decay_learning_rate:0')))
    if len(rates) == stop_after:
      self._stop.signal = 'SIGTERM'
    return original_take(self, session, train_op, global_step,
                         train_step_kwargs)

  monkeypatch.setattr(loop.TrainStep, 'take', recording_take)
  return rates


def cosine(steps, first, number_of_steps):
  """Returns the (global step, learning rate) of steps with cosine decay."""
  return [(step, pytest.approx(RATE / 2 * (1 + np.cos(
      np.pi * (step - first) / number_of_steps)), rel=1e-5))
          for step in steps]


@pytest.fixture(scope='module')
def cached(data, tmp_path_factory):
  """(train directory, recorded rates) of a cached run with its best at step 2.

  The accuracies are made up, so that it is known which step is the best.
  """
  folder = tmp_path_factory.mktemp('cached')
  accuracies = iter([0.9, 0.5, 0.8, 0.8, 0.8])
  measure = validation.measure
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(validation, 'measure', lambda logits, labels: (
        next(accuracies), measure(logits, labels)[1]))
    rates = record_rates(patch)
    train(data, folder, *HEAD, *ALL, '--cache_features',
          '--evaluate_every_n_steps=2')
  return folder, rates


def test_cached_run_finetunes_best_weights_from_newest_step(cached):
  folder, _ = cached
  assert validation_history.read_best(str(folder / 'best'))['step'] == 2
  assert listed_paths(folder / 'best') == ['model.ckpt-2']
  assert listed_paths(folder)[0] == 'model-all.ckpt-4'
  assert listed_paths(folder)[-1] == 'model.ckpt-10'
  first = read_variables(str(folder / 'model-all.ckpt-4'))
  chosen = read_variables(checkpoints.newest(str(folder / 'best')))
  assert (first.pop('global_step'), chosen.pop('global_step')) == (4, 2)
  model = [name for name in chosen if not OPTIMIZER_VARIABLE.search(name)]
  assert len(model) == 12
  for name in model:
    np.testing.assert_array_equal(first[name], chosen[name], name)
  # Adam starts with zero moments.
  adam = [name for name in first if name.endswith(('/Adam', '/Adam_1'))]
  assert len(adam) == 2 * 8
  assert not any(first[name].any() for name in adam)


def test_cached_run_changes_all_weights_but_no_moving_statistics(cached):
  folder, _ = cached
  first, last = (read_variables(str(folder / name))
                 for name in ('model-all.ckpt-4', 'model.ckpt-10'))
  assert last['global_step'] == HEAD_STEPS + ALL_STEPS
  model = {name for name in last if not OPTIMIZER_VARIABLE.search(name)}
  unchanged = {name for name in model
               if np.array_equal(first[name], last[name])}
  assert unchanged == {
      '%s/BatchNorm/moving_%s' % (layer, kind)
      for layer in ('Backbone/conv', 'Head/fc')
      for kind in ('mean', 'variance')}
  assert len(model) == 12 + len({'global_step'})


def test_cached_run_learning_rate_decays_along_cosine(cached):
  _, rates = cached
  # Only the steps on all layers are recorded: the head's are HeadSteps.
  assert rates == cosine(range(4, 10), HEAD_STEPS, ALL_STEPS)
  assert rates[0][1] == pytest.approx(RATE)


def test_cached_run_appends_to_evaluations_of_head(cached):
  folder, _ = cached
  assert [(line['step'], line['accuracy']) for line in evaluations(folder)
         ] == [(2, 0.9), (4, 0.5), (6, 0.8), (8, 0.8), (10, 0.8)]


@pytest.mark.parametrize('flags', [[], ALL], ids=['', '--finetune_all_steps'])
def test_complete_run_trained_again_has_nothing_to_do(data, cached, log, flags):
  folder, _ = cached
  newest = checkpoints.newest(str(folder))
  before = os.stat(newest + '.index').st_mtime_ns
  assert train(data, folder, *HEAD, *flags,
               '--cache_features') == newest
  assert newest + ' has all --finetune_all_steps=6: nothing to do' in log.text
  assert 'Starting Session' not in log.text
  assert os.stat(newest + '.index').st_mtime_ns == before


@pytest.fixture(scope='module')
def stopped(data, tmp_path_factory):
  """(train directory, recorded rates) of a plain run stopped at step 6."""
  folder = tmp_path_factory.mktemp('stopped')
  with pytest.MonkeyPatch.context() as patch:
    # The tensor that record_rates reads exists only with cosine decay.
    rates = record_rates(patch, stop_after=HEAD_STEPS + 2)
    train(data, folder, *HEAD, *ALL, '--evaluate_every_n_steps=2',
          '--learning_rate_decay_type=cosine')
  return folder, rates


def test_stopped_run_resumes_at_its_step_and_learning_rate(
    data, stopped, tmp_path, monkeypatch, log):
  old, rates = stopped
  assert [step for step, _ in rates] == [0, 1, 2, 3, 4, 5]
  assert checkpoints.read_global_step(checkpoints.newest(str(old))) == 6
  folder = tmp_path / 'run'
  shutil.copytree(str(old), str(folder))
  newest = checkpoints.newest(str(folder))
  rates = record_rates(monkeypatch)
  accuracies = iter([1.1, 0.5])  # No other step has 1.1.
  monkeypatch.setattr(validation, 'measure', lambda logits, labels: (
      next(accuracies), 0.0))
  train(data, folder, *HEAD, *ALL, '--evaluate_every_n_steps=2')
  assert rates == cosine(range(6, 10), HEAD_STEPS, ALL_STEPS)
  assert 'Resuming from ' + newest in log.text
  assert 'Fine-tuning all layers' not in log.text
  assert [line['step'] for line in evaluations(folder)] == [2, 4, 6, 8, 10]
  # The best checkpoint may be from the steps on all layers.
  assert validation_history.read_best(str(folder / 'best'))['step'] == 8
  in_best = read_variables(checkpoints.newest(str(folder / 'best')))
  assert in_best['global_step'] == 8
  assert 'Backbone/conv/weights/Adam' in in_best


@pytest.fixture(scope='module')
def board(data, cached, stopped, tmp_path_factory):
  """TensorBoard on three runs in train/ and on a scalar in eval/.

  `killed` is a copy of the stopped run, resumed as if it had been killed: from
  the checkpoint of step 4, for one step.
  """
  output = tmp_path_factory.mktemp('tensorboard') / 'a, b:c'
  for name, (folder, _) in (('cached', cached), ('stopped', stopped),
                            ('killed', stopped)):
    shutil.copytree(str(folder), str(output / 'train' / name))
  killed = output / 'train' / 'killed'
  tf.train.update_checkpoint_state(str(killed), 'model-all.ckpt-4')
  train(data, killed, *HEAD, '--finetune_all_steps=1',
        '--evaluate_every_n_steps=2')
  with tf.summary.FileWriter(str(output / 'eval')) as writer:
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag='Accuracy', simple_value=0.5)]), 8)
  with Board(output, TENSORBOARD_HOST='127.0.0.1') as started:
    yield started


def test_tensorboard_has_a_run_for_each_folder_under_train_and_eval(board):
  # The folders in a train directory, such as best/, have no events.
  wait_for(lambda: len(board.runs()) > 3)
  assert board.runs() == ['eval', 'train/cached', 'train/killed',
                          'train/stopped']
  assert board.wait_for_curve('eval', 'Accuracy', [8]) == {8: 0.5}


@pytest.mark.parametrize('run,evaluated', [
    ('cached', [2, 4, 6, 8, 10]), ('stopped', [2, 4, 6]), ('killed', [2, 4, 5])
], ids=lambda value: value if isinstance(value, str) else '')
def test_tensorboard_has_all_curves_of_a_run(board, run, evaluated):
  name = 'train/' + run
  for tag in ('total_loss_1', 'learning_rate', 'batch_accuracy'):
    board.wait_for_curve(name, tag, list(range(1, evaluated[-1] + 1)))
  accuracies = board.wait_for_curve(name, 'validation/Accuracy', evaluated)
  assert accuracies == {
      line['step']: pytest.approx(line['accuracy'])
      for line in evaluations(board.output_dir / 'train' / run)}


@pytest.mark.parametrize('run', ['cached', 'stopped'])
def test_tensorboard_has_photos_from_the_first_step(board, run):
  step, picture = board.wait_for_picture('train/' + run, 'photos/image')
  assert step <= 1
  assert picture.startswith(b'\x89PNG')


def test_tensorboard_listens_only_on_tensorboard_host(board):
  assert board.answers_at('127.0.0.1')
  assert not board.answers_at('127.0.0.2')


def test_stopped_run_keeps_number_of_steps_unless_flag_raises_it(
    data, stopped, tmp_path, monkeypatch):
  folder = shutil.copytree(str(stopped[0]), str(tmp_path / 'run'))
  rates = record_rates(monkeypatch)
  train(data, folder, *HEAD, '--finetune_all_learning_rate=%g' % RATE)
  assert rates == cosine(range(6, 10), HEAD_STEPS, ALL_STEPS)
  rates.clear()
  train(data, folder, *HEAD, *ALL, '--finetune_all_steps=8')
  assert rates == cosine(range(10, 12), HEAD_STEPS, 8)


def test_stopped_run_with_another_optimizer_raises_one_line_error(
    data, stopped, tmp_path):
  folder = shutil.copytree(str(stopped[0]), str(tmp_path / 'run'))
  with pytest.raises(InputError, match='lacks .*; give the --optimizer, '
                    ) as caught:
    train(data, folder, *HEAD, *ALL, '--optimizer=momentum')
  assert '\n' not in str(caught.value)


def test_checkpoint_evaluates_as_it_did_during_training(stopped, tmp_path):
  folder, _ = stopped
  line = evaluations(folder)[-1]
  assert line['step'] == 6
  assert evaluate(checkpoints.newest(str(folder)), tmp_path) == (
      9, pytest.approx(line['accuracy']), pytest.approx(line['loss'], rel=1e-3))


def test_run_stopped_during_head_steps_is_not_finetuned(
    data, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    record_rates(patch, stop_after=2)
    flags = [*HEAD, '--finetune_all_steps=1',
             '--learning_rate_decay_type=cosine']
    newest = train(data, tmp_path, *flags)
  assert checkpoints.read_global_step(newest) == 2
  assert not finetune_all.has_begun(str(tmp_path))
  newest = train(data, tmp_path, *flags)
  assert checkpoints.read_global_step(newest) == HEAD_STEPS + 1


@pytest.mark.slow
def test_run_killed_before_finetune_all_json_starts_finetuning_again(
    data, tmp_path, monkeypatch):
  flags = [*HEAD, '--max_number_of_steps=1', '--finetune_all_steps=1']
  write = finetune_all._write_first_checkpoint

  def write_and_die(run, beginning):
    write(run, beginning)
    raise RuntimeError('killed')

  with monkeypatch.context() as patch:
    patch.setattr(finetune_all, '_write_first_checkpoint', write_and_die)
    with pytest.raises(RuntimeError, match='killed'):
      train(data, tmp_path, *flags)
  assert not finetune_all.has_begun(str(tmp_path))
  newest = train(data, tmp_path, *flags)
  assert checkpoints.read_global_step(newest) == 2


def test_head_checkpoint_is_intact_while_finetuning_writes_its_first(
    data, tmp_path, monkeypatch):
  flags = [*HEAD, '--max_number_of_steps=1']
  head = train(data, tmp_path, *flags)
  before = read_variables(head)

  def save_and_die(self, *args, **kwargs):
    # The data file has been renamed, the index not yet.
    prefix = '%s-%d' % (args[1], 1)
    with open(prefix + '.data-00000-of-00001', 'wb') as file:
      file.write(b'of other variables' * 10000)
    raise RuntimeError('killed')

  with monkeypatch.context() as patch:
    patch.setattr(tf.train.Saver, 'save', save_and_die)
    with pytest.raises(RuntimeError, match='killed'):
      train(data, tmp_path, *flags, '--finetune_all_steps=1')
  assert checkpoints.newest(str(tmp_path)) == head
  for name, value in read_variables(head).items():
    np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize('cache', [
    '--cache_features',
    pytest.param('--nocache_features', marks=pytest.mark.slow)])
def test_run_without_validation_photos_finetunes_newest_weights(
    tmp_path, log, cache):
  data = make_dataset(tmp_path / 'data', percent_validation=0)
  folder = tmp_path / 'run'
  newest = train(data, folder, *HEAD, cache, '--finetune_all_steps=2')
  assert checkpoints.read_global_step(newest) == HEAD_STEPS + 2
  assert ('Fine-tuning all layers from %s' % (folder / 'model.ckpt-4')
          in log.text)
  assert not (folder / 'best').exists()
  first, last = (read_variables(str(folder / name))
                 for name in ('model-all.ckpt-4', 'model.ckpt-6'))
  name = 'Backbone/conv/weights'
  assert not np.array_equal(first[name], last[name])


def test_run_without_checkpoints_raises_input_error(tmp_path):
  beginning = finetune_all.Beginning(steps=300, from_step=600, weights='gone')
  (tmp_path / 'finetune_all.json').write_text(json.dumps(beginning._asdict()))
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(train_dir=str(tmp_path)))
  with pytest.raises(InputError, match='has finetune_all.json but no checkpoint'
                     ': remove that file to start from the beginning'):
    finetune_all.train(run, 300)
