"""Tests of training/plain_run.py: --evaluate_every_n_steps."""

import glob
import os
import re
import shutil

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from kits.run_kit import TINY_HEAD, evaluate, evaluations, tiny_networks
from kits.trained_kit import make_dataset, train
from runs import checkpoints, run_info
from training import loop, validation_history

PLAIN = ['--nocache_features', '--optimizer=adam', '--learning_rate=0.001']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module', autouse=True)
def tiny():
  with tiny_networks():
    yield


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
  """(train directory, loss of each step) of 5 steps, evaluated every 2."""
  folder = tmp_path_factory.mktemp('run')
  losses, original_take = [], loop.TrainStep.take

  def recording_take(*arguments):
    loss, done = original_take(*arguments)
    losses.append(loss)
    return loss, done

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.TrainStep, 'take', recording_take)
    train(data, folder, *PLAIN, '--max_number_of_steps=5',
          '--evaluate_every_n_steps=2')
  return folder, losses


def test_evaluations_are_at_every_second_step_and_at_the_last(run):
  folder, losses = run
  lines = evaluations(folder)
  assert [line['step'] for line in lines] == [2, 4, 5]
  assert len(losses) == 5
  assert [line['train_loss'] for line in lines] == pytest.approx(
      [np.mean(losses[:2]), np.mean(losses[2:4]), losses[4]])


def test_best_checkpoint_is_best_and_evaluates_as_it_did_during_training(
    run, tmp_path):
  folder, _ = run
  expected = max(evaluations(folder),
                 key=lambda line: (line['accuracy'], -line['loss']))
  assert validation_history.read_best(str(folder / 'best')) == expected
  indices = glob.glob(str(folder / 'best' / '*.index'))
  assert [os.path.basename(path) for path in indices] == [
      'model.ckpt-%d.index' % expected['step']]
  assert run_info.load(str(folder / 'best')) == run_info.load(str(folder))
  assert evaluate(folder / 'best', tmp_path) == (
      9, pytest.approx(expected['accuracy']),
      pytest.approx(expected['loss'], rel=1e-3))


@pytest.mark.slow
def test_evaluation_during_training_uses_moving_averages(data, tmp_path):
  averages = '--moving_average_decay=0.5'
  newest = train(data, tmp_path / 'run', *PLAIN, averages,
                 '--max_number_of_steps=4', '--evaluate_every_n_steps=4')
  line, = evaluations(tmp_path / 'run')
  _, accuracy, loss = evaluate(newest, tmp_path / 'averages', averages)
  assert (accuracy, loss) == (pytest.approx(line['accuracy']),
                              pytest.approx(line['loss'], rel=1e-3))
  # The plain variables have another loss.
  _, _, plain_loss = evaluate(newest, tmp_path / 'plain')
  assert abs(plain_loss - loss) > 0.01 * loss
  # The best checkpoint was chosen by its averages.
  _, _, best_loss = evaluate(tmp_path / 'run' / 'best', tmp_path / 'best')
  assert best_loss == pytest.approx(loss)
  _, _, best_loss = evaluate(tmp_path / 'run' / 'best', tmp_path / 'best',
                             '--moving_average_decay=0')
  assert best_loss == pytest.approx(plain_loss)


# The learning rate is 0 and batch norm in inference mode: nothing changes.
UNCHANGING = [*PLAIN, TINY_HEAD, '--learning_rate=0', '--early_stop_evals=3',
              '--evaluate_every_n_steps=2', '--max_number_of_steps=20']


@pytest.fixture(scope='module')
def stopped(data, tmp_path_factory):
  """The train directory of a run that stopped without improvement."""
  folder = tmp_path_factory.mktemp('stopped')
  train(data, folder, *UNCHANGING)
  return folder


def test_run_without_improvement_stops_and_stays_stopped(data, stopped, log):
  newest = checkpoints.newest(str(stopped))
  # The first evaluation is the best, the three after it are no better.
  assert checkpoints.read_global_step(newest) == 8
  assert validation_history.read_best(str(stopped / 'best'))['step'] == 2
  assert train(data, stopped, *UNCHANGING) == newest
  assert 'Nothing to do: the best validation accuracy, ' in log.text
  assert '--early_stop_evals=0 continues' in log.text


def test_stopped_run_with_early_stop_evals_0_continues(
    data, stopped, tmp_path, log):
  folder = tmp_path / 'run'
  shutil.copytree(str(stopped), str(folder))
  train(data, folder, *UNCHANGING, '--early_stop_evals=0',
        '--max_number_of_steps=11')
  assert [line['step'] for line in evaluations(folder)] == [
      2, 4, 6, 8, 10, 11]
  assert checkpoints.read_global_step(checkpoints.newest(str(folder))) == 11
  assert 'Stopping: ' not in log.text


@pytest.mark.slow
def test_run_without_evaluate_every_n_steps_is_not_evaluated(data, tmp_path):
  train(data, tmp_path, *PLAIN, '--max_number_of_steps=2')
  assert not (tmp_path / 'validation.jsonl').exists()
  assert not (tmp_path / 'best').exists()


@pytest.mark.parametrize('more_flags', [
    [], ['--cache_features', '--train_classifier_only']], ids=str)
def test_dataset_without_validation_photos_raises_one_line_error(
    tmp_path, more_flags):
  data = make_dataset(tmp_path / 'data', percent_validation=0)
  with pytest.raises(InputError, match=r"--evaluate_every_n_steps=2: data set "
                     r"'colours' in \S+ has no validation photos; convert it "
                     r'with --percent_validation') as caught:
    train(data, tmp_path / 'run', *PLAIN, '--evaluate_every_n_steps=2',
          *more_flags)
  assert '\n' not in str(caught.value)
  assert not glob.glob(str(tmp_path / 'run' / 'model.ckpt*'))


def test_damaged_validation_photo_raises_one_line_error(data, tmp_path):
  folder = shutil.copytree(data, str(tmp_path / 'data'))
  path, = glob.glob(os.path.join(folder, '*_validation-*.tfrecord'))
  records = list(tf.python_io.tf_record_iterator(path))
  with tf.python_io.TFRecordWriter(path) as writer:
    for record in records:
      # The photo still starts like a JPEG, but cannot be decoded.
      example = tf.train.Example.FromString(record)
      encoded = example.features.feature['image/encoded'].bytes_list
      encoded.value[0] = encoded.value[0][:30] + b'\0' * (
          len(encoded.value[0]) - 30)
      writer.write(example.SerializeToString())
  with pytest.raises(InputError, match=re.escape(path)) as caught:
    train(folder, tmp_path / 'run', *PLAIN, '--evaluate_every_n_steps=1')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('flags, message', [
    (['--worker_replicas=2', '--evaluate_every_n_steps=3'],
     '--evaluate_every_n_steps=3 needs a single worker, got '
     '--worker_replicas=2'),
    (['--worker_replicas=2', '--finetune_all_steps=3'],
     '--finetune_all_steps=3 needs a single worker'),
    (['--finetune_all_steps=3'], 'which has no end: give --max_number_of'),
    (['--finetune_all_steps=3', '--evaluate_every_n_steps=3',
      '--early_stop_evals=0'], 'which has no end'),
], ids=str)
def test_flags_that_exclude_each_other_raise_one_line_error(
    data, tmp_path, flags, message):
  with pytest.raises(InputError, match=message) as caught:
    train(data, tmp_path / 'run', *PLAIN, *flags)
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'run').exists()
