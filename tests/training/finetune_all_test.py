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


OF_THE_OPTIMIZER = re.compile('/Adam(_1)?$|^beta[12]_power$')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """30 photos, 3 classes, 9 of the photos for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module', autouse=True)
def tiny():
  with tiny_networks():
    yield


def note_rates(monkeypatch, stop_after=None):
  """Returns a list that is filled with (global step, learning rate) of steps.

  Args:
    monkeypatch: a pytest.MonkeyPatch.
    stop_after: number of steps after which this process is asked to stop.
  """
  rates, take = [], loop.TrainStep.take

  def noting_take(self, session, train_op, global_step, train_step_kwargs):
    rates.append(session.run(
        (global_step, 'cosine_decay_learning_rate:0')))
    if len(rates) == stop_after:
      self._stop.signal = 'SIGTERM'
    return take(self, session, train_op, global_step, train_step_kwargs)

  monkeypatch.setattr(loop.TrainStep, 'take', noting_take)
  return rates


def cosine(steps, first, number_of_steps):
  """Returns what note_rates should find."""
  return [(step, pytest.approx(RATE / 2 * (1 + np.cos(
      np.pi * (step - first) / number_of_steps)), rel=1e-5))
          for step in steps]


@pytest.fixture(scope='module')
def cached(data, tmp_path_factory):
  """(train directory, its learning rates) of a run whose best is at step 2.

  The accuracies are made up: as they are, they decide what is the best.
  """
  folder = tmp_path_factory.mktemp('cached')
  accuracies = iter([0.9, 0.5, 0.8, 0.8, 0.8])
  measure = validation.measure
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(validation, 'measure', lambda logits, labels: (
        next(accuracies), measure(logits, labels)[1]))
    rates = note_rates(patch)
    train(data, folder, *HEAD, *ALL, '--cache_features',
          '--evaluate_every_n_steps=2')
  return folder, rates


def test_cached_run_goes_on_with_the_best_weights_at_the_newest_step(cached):
  folder, _ = cached
  assert validation_history.read_best(str(folder / 'best'))['step'] == 2
  assert listed_paths(folder / 'best') == ['model.ckpt-2']
  assert listed_paths(folder)[0] == 'model-all.ckpt-4'
  assert listed_paths(folder)[-1] == 'model.ckpt-10'
  first = read_variables(str(folder / 'model-all.ckpt-4'))
  chosen = read_variables(checkpoints.newest(str(folder / 'best')))
  assert (first.pop('global_step'), chosen.pop('global_step')) == (4, 2)
  model = [name for name in chosen if not OF_THE_OPTIMIZER.search(name)]
  assert len(model) == 12
  for name in model:
    np.testing.assert_array_equal(first[name], chosen[name], name)
  # The optimizer knows nothing yet.
  adam = [name for name in first if name.endswith(('/Adam', '/Adam_1'))]
  assert len(adam) == 2 * 8
  assert not any(first[name].any() for name in adam)


def test_cached_run_changes_all_weights_and_no_moving_statistics(cached):
  folder, _ = cached
  first, last = (read_variables(str(folder / name))
                 for name in ('model-all.ckpt-4', 'model.ckpt-10'))
  assert last['global_step'] == HEAD_STEPS + ALL_STEPS
  model = {name for name in last if not OF_THE_OPTIMIZER.search(name)}
  same = {name for name in model if np.array_equal(first[name], last[name])}
  assert same == {
      '%s/BatchNorm/moving_%s' % (layer, kind)
      for layer in ('Backbone/conv', 'Head/fc')
      for kind in ('mean', 'variance')}
  assert len(model) == 12 + len({'global_step'})


def test_cached_run_learning_rate_falls_along_a_cosine_to_0(cached):
  _, rates = cached
  # The head's steps are not slim's, and its learning rate is another.
  assert rates == cosine(range(4, 10), HEAD_STEPS, ALL_STEPS)
  assert rates[0][1] == pytest.approx(RATE)


def test_cached_run_goes_on_with_the_list_of_evaluations(cached):
  folder, _ = cached
  assert [(line['step'], line['accuracy']) for line in evaluations(folder)
         ] == [(2, 0.9), (4, 0.5), (6, 0.8), (8, 0.8), (10, 0.8)]


@pytest.mark.parametrize('flags', [[], ALL], ids=['', '--finetune_all_steps'])
def test_complete_run_has_nothing_to_do(data, cached, log, flags):
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
  """(train directory, its rates): plain, stopped after 2 of all 6 steps."""
  folder = tmp_path_factory.mktemp('stopped')
  with pytest.MonkeyPatch.context() as patch:
    # The head's steps have no cosine.
    rates = note_rates(patch, stop_after=HEAD_STEPS + 2)
    train(data, folder, *HEAD, *ALL, '--evaluate_every_n_steps=2',
          '--learning_rate_decay_type=cosine')
  return folder, rates


def test_stopped_run_goes_on_where_it_was(data, stopped, tmp_path, monkeypatch,
                                          log):
  old, rates = stopped
  assert [step for step, _ in rates] == [0, 1, 2, 3, 4, 5]
  assert checkpoints.read_global_step(checkpoints.newest(str(old))) == 6
  folder = tmp_path / 'run'
  shutil.copytree(str(old), str(folder))
  newest = checkpoints.newest(str(folder))
  rates = note_rates(monkeypatch)
  accuracies = iter([1.1, 0.5])  # More than any other has.
  monkeypatch.setattr(validation, 'measure', lambda logits, labels: (
      next(accuracies), 0.0))
  train(data, folder, *HEAD, *ALL, '--evaluate_every_n_steps=2')
  assert rates == cosine(range(6, 10), HEAD_STEPS, ALL_STEPS)
  assert 'Resuming from ' + newest in log.text
  assert 'Fine-tuning all layers' not in log.text
  assert [line['step'] for line in evaluations(folder)] == [2, 4, 6, 8, 10]
  # The best may be one of all layers.
  assert validation_history.read_best(str(folder / 'best'))['step'] == 8
  in_best = read_variables(checkpoints.newest(str(folder / 'best')))
  assert in_best['global_step'] == 8
  assert 'Backbone/conv/weights/Adam' in in_best


@pytest.fixture(scope='module')
def board(data, cached, stopped, tmp_path_factory):
  """TensorBoard on three runs, and on a scalar in EVAL_DIR.

  The third is the stopped one as if it had been killed: with the checkpoint of
  step 4 as its last. It took one more step.
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
  # best/ and the rest of the folders have no events.
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
def test_tensorboard_has_photos_from_the_first_step_on(board, run):
  step, picture = board.wait_for_picture('train/' + run, 'photos/image')
  assert step <= 1
  assert picture.startswith(b'\x89PNG')


def test_tensorboard_listens_on_the_address_of_tensorboard_host(board):
  assert board.answers_at('127.0.0.1')
  assert not board.answers_at('127.0.0.2')


def test_stopped_run_takes_as_many_steps_as_before_and_then_more(
    data, stopped, tmp_path, monkeypatch):
  folder = shutil.copytree(str(stopped[0]), str(tmp_path / 'run'))
  rates = note_rates(monkeypatch)
  train(data, folder, *HEAD, '--finetune_all_learning_rate=%g' % RATE)
  assert rates == cosine(range(6, 10), HEAD_STEPS, ALL_STEPS)
  rates.clear()
  train(data, folder, *HEAD, *ALL, '--finetune_all_steps=8')
  assert rates == cosine(range(10, 12), HEAD_STEPS, 8)


def test_stopped_run_with_another_optimizer_is_one_line(data, stopped,
                                                        tmp_path):
  folder = shutil.copytree(str(stopped[0]), str(tmp_path / 'run'))
  with pytest.raises(InputError, match='lacks .*; give the --optimizer, '
                    ) as caught:
    train(data, folder, *HEAD, *ALL, '--optimizer=momentum')
  assert '\n' not in str(caught.value)


def test_checkpoint_is_evaluated_as_it_was_meanwhile(stopped, tmp_path):
  folder, _ = stopped
  line = evaluations(folder)[-1]
  assert line['step'] == 6
  assert evaluate(checkpoints.newest(str(folder)), tmp_path) == (
      9, pytest.approx(line['accuracy']), pytest.approx(line['loss'], rel=1e-3))


def test_run_stopped_before_the_end_of_the_head_is_not_finetuned(
    data, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    note_rates(patch, stop_after=2)
    flags = [*HEAD, '--finetune_all_steps=1',
             '--learning_rate_decay_type=cosine']
    newest = train(data, tmp_path, *flags)
  assert checkpoints.read_global_step(newest) == 2
  assert not finetune_all.has_begun(str(tmp_path))
  newest = train(data, tmp_path, *flags)
  assert checkpoints.read_global_step(newest) == HEAD_STEPS + 1


@pytest.mark.slow
def test_run_killed_between_checkpoint_and_note_begins_again(
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


def test_head_is_whole_while_the_first_checkpoint_is_written(
    data, tmp_path, monkeypatch):
  flags = [*HEAD, '--max_number_of_steps=1']
  head = train(data, tmp_path, *flags)
  before = read_variables(head)

  def save_and_die(self, *args, **kwargs):
    # Renamed: the data, and not yet the index.
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
def test_run_without_validation_photos_goes_on_with_the_newest_weights(
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


def test_run_without_its_checkpoints_is_one_line(tmp_path):
  beginning = finetune_all.Beginning(steps=300, from_step=600, weights='gone')
  (tmp_path / 'finetune_all.json').write_text(json.dumps(beginning._asdict()))
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(train_dir=str(tmp_path)))
  with pytest.raises(InputError, match='has finetune_all.json but no checkpoint'
                     ': remove that file to start from the beginning'):
    finetune_all.train(run, 300)
