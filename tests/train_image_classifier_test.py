"""Tests of train_image_classifier.py on a tiny data set."""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from kits.helpers import ROOT, run_program
from kits.trained_kit import (
  CLASSES,
  MOBILENET,
  MODEL,
  NAME,
  make_dataset,
  read_variables,
  train,
  train_arguments,
)
from runs import run_info
from training import graph, loop

PROGRAM = 'train_image_classifier.py'
MOBILENET_HEAD = re.compile('MobilenetV1/Logits/')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def scratch(data, tmp_path_factory):
  """Returns the checkpoint of two steps of training from scratch."""
  return train(data, tmp_path_factory.mktemp('scratch'),
               '--max_number_of_steps=2')


@pytest.fixture(scope='module')
def mobilenet(data, tmp_path_factory):
  """Returns the same for a network with batch norm."""
  return train(data, tmp_path_factory.mktemp('mobilenet'), *MOBILENET,
               '--max_number_of_steps=2')


def changed_variables(before, after):
  """Returns the names of variables whose values differ between checkpoints."""
  old, new = read_variables(before), read_variables(after)
  return {name for name in set(old) & set(new)
          if not np.array_equal(old[name], new[name])}


def test_train_from_scratch_writes_run_json_and_changes_all_weights(
    data, scratch):
  info = run_info.load(os.path.dirname(scratch))
  assert info == run_info.RunInfo(
      MODEL, CLASSES, 0, 32, 'cifarnet', NAME, data, None, None, 'float32')
  first = scratch[:-1] + '0'
  changed = changed_variables(first, scratch)
  assert {name for name in changed if name.count('/') == 2} == {
      'CifarNet/%s/%s' % (layer, kind)
      for layer in ('conv1', 'conv2', 'fc3', 'fc4', 'logits')
      for kind in ('weights', 'biases')}


@pytest.mark.slow
def test_train_classifier_only_changes_nothing_but_the_classifier(
    data, mobilenet, tmp_path):
  after = train(data, tmp_path, *MOBILENET, '--max_number_of_steps=3',
                '--train_classifier_only', '--checkpoint_path=' + mobilenet)
  changed = changed_variables(mobilenet, after) - {'global_step'}
  assert changed and all(MOBILENET_HEAD.match(name) for name in changed)


@pytest.mark.slow
def test_train_frozen_batch_norm_updates_statistics_as_slim_does(
    data, mobilenet, tmp_path):
  after = train(data, tmp_path, *MOBILENET, '--max_number_of_steps=3',
                '--train_classifier_only', '--train_frozen_batch_norm',
                '--checkpoint_path=' + mobilenet)
  changed = changed_variables(mobilenet, after)
  assert any(name.endswith('moving_mean') for name in changed)
  assert not any(name.endswith('depthwise_weights') for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize('flags,decay', [
    ([], 0.99), (['--batch_norm_decay=0.5'], 0.5),
    (['--checkpoint_path'], 0.9997)])
def test_train_batch_norm_decay_is_the_weight_of_old_statistics(
    data, mobilenet, tmp_path, flags, decay):
  if flags == ['--checkpoint_path']:
    flags = ['--checkpoint_path=' + mobilenet]
  after = train(data, tmp_path, *MOBILENET, '--max_number_of_steps=1',
                '--learning_rate=0', '--optimizer=sgd', '--seed=1', *flags)
  name = 'MobilenetV1/Conv2d_13_pointwise/BatchNorm/moving_variance'
  before = (read_variables(mobilenet)[name] if 'checkpoint' in str(flags)
            else np.ones_like(read_variables(after)[name]))
  # At 1 x 1 pixels the batch variance is far below 1, so that the new value is
  # the decay times the old one.
  ratio = np.median(read_variables(after)[name] / before)
  assert ratio == pytest.approx(decay, abs=0.3 * (1 - decay))


def test_train_resumed_run_logs_that_checkpoint_path_is_ignored(
    data, scratch, tmp_path, log):
  first = train(data, tmp_path, '--max_number_of_steps=1')
  log.clear()
  second = train(data, tmp_path, '--max_number_of_steps=3',
                 '--checkpoint_path=' + scratch)
  assert 'Ignoring --checkpoint_path because a checkpoint' in log.text
  assert 'Resuming from ' + first in log.text
  assert read_variables(second)['global_step'] == 3
  log.clear()
  assert train(data, tmp_path, '--max_number_of_steps=3') == second
  assert 'nothing to do' in log.text


def test_train_logs_slims_lines(data, scratch, tmp_path, log):
  train(data, tmp_path, '--max_number_of_steps=2', '--train_classifier_only',
        '--checkpoint_path=' + scratch)
  assert 'Fine-tuning from ' + scratch in log.text
  assert re.search(r'global step \d+: loss = \d+\.\d{4} '
                   r'\(\d+\.\d{3} sec/step\)', log.text)
  assert 'Finished training! Saving model to disk.' in log.text


def test_train_into_a_run_of_other_classes_is_refused(data, tmp_path):
  train(data, tmp_path / 'run', '--max_number_of_steps=1')
  info = run_info.load(str(tmp_path / 'run'))
  run_info.save(str(tmp_path / 'run'), info._replace(labels=['red', 'green']))
  with pytest.raises(InputError, match='holds a run on the classes red, green '
                     'and --dataset_name=colours has blue, green, red; give '
                     'another --train_dir'):
    train(data, tmp_path / 'run', '--max_number_of_steps=2')


@pytest.mark.parametrize('flag', [
    '--optimizer=adam', '--moving_average_decay=0.9'])
def test_train_resumed_with_another_optimizer_names_the_flags(
    data, scratch, flag):
  with pytest.raises(InputError, match='lacks .*; give the --optimizer, '):
    train(data, os.path.dirname(scratch), '--max_number_of_steps=3', flag)


def test_train_damaged_record_is_an_input_error(data, tmp_path):
  shutil.copytree(data, str(tmp_path / 'data'))
  path, = glob.glob(str(tmp_path / 'data' / '*_train-*'))
  with open(path, 'r+b') as stream:
    stream.seek(os.path.getsize(path) // 2)
    stream.write(b'damaged!')
  with pytest.raises(InputError, match=r'-of-\d+.tfrecord, record \d+ .*damaged'
                     '.*convert the data set again'):
    train(str(tmp_path / 'data'), tmp_path / 'run', '--max_number_of_steps=9')


def test_train_label_outside_the_classes_names_the_photo(data, tmp_path):
  with pytest.raises(InputError, match='--labels_offset=1: -1 of photo blue/'):
    train(data, tmp_path, '--max_number_of_steps=9', '--labels_offset=1')


@pytest.mark.parametrize('flag,message', [
    ('--checkpoint_path=/no/where', 'no checkpoint at /no/where'),
    ('--trainable_scopes=Nothing', "--trainable_scopes: 'Nothing' matches no"),
    ('--dataset_split_name=nope', 'nope'),
    ('--dataset_name=nope', 'nope'),
    ('--model_name=nope', "unknown network 'nope'; known: "),
    ('--preprocessing_name=nope', "'nope'"),
    ('--labels_offset=3', '--labels_offset=3 leaves none of the 3 classes'),
    ('--checkpoint_path=/a[1]/x.ckpt', '/a[1]/x.ckpt: a path to checkpoints '
     'must not contain any of * ? [ \\'),
])
def test_train_wrong_flag_is_an_input_error_and_writes_no_checkpoint(
    data, tmp_path, flag, message):
  with pytest.raises(InputError, match=re.escape(message)) as caught:
    train(data, tmp_path, '--max_number_of_steps=1', flag)
  assert '\n' not in str(caught.value)
  assert not glob.glob(str(tmp_path / 'model.ckpt*'))


def test_train_into_a_folder_named_like_a_pattern_is_refused(data, tmp_path):
  folder = tmp_path / 'run[1]'
  with pytest.raises(InputError, match='must not contain any of'):
    train(data, folder, '--max_number_of_steps=1')
  assert not folder.exists()


def test_train_without_dataset_dir_is_one_line_error(tmp_path):
  done = run_program(PROGRAM, '--train_dir=%s' % tmp_path)
  assert done.returncode == 1
  assert done.stderr == ('train_image_classifier.py: error: --dataset_dir is '
                         'needed: Folder of the TFRecord files.\n')


def test_train_loss_not_finite_names_the_step_and_keeps_a_finite_checkpoint(
    data, tmp_path):
  with pytest.raises(InputError,
                     match=r'not finite at step [1-9]\d*; lower --learning_rate'
                    ) as caught:
    train(data, tmp_path, '--max_number_of_steps=50', '--optimizer=sgd',
          '--learning_rate=1e30')
  assert '\n' not in str(caught.value)
  for name, value in read_variables(str(tmp_path / 'model.ckpt-0')).items():
    assert np.all(np.isfinite(value)), name


def test_train_with_moving_average_decay_saves_averages(data, tmp_path):
  after = read_variables(train(
      data, tmp_path, '--max_number_of_steps=3', '--moving_average_decay=0.5'))
  name = 'CifarNet/logits/weights'
  average = after[name + '/ExponentialMovingAverage']
  assert average.shape == after[name].shape
  assert not np.array_equal(average, after[name])


def test_train_summaries_have_losses_rate_accuracy_and_photos(scratch):
  event_file, = glob.glob(os.path.dirname(scratch) + '/events.*')
  tags = {value.tag for event in tf.train.summary_iterator(event_file)
          for value in event.summary.value}
  # slim's total loss is also named total_loss_1 in TensorBoard.
  for expected in ('total_loss_1', 'learning_rate', 'batch_accuracy',
                   'photos/image/0', 'losses/softmax_cross_entropy_loss/value'):
    assert expected in tags


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_train_stopped_by_signal_saves_and_ends_cleanly(data, tmp_path, number):
  process = subprocess.Popen(
      [sys.executable, '-u', PROGRAM, *train_arguments(
          data, tmp_path, '--max_number_of_steps=500')],
      cwd=ROOT, stderr=subprocess.PIPE, text=True,
      # A shell that runs the tests in the background may have ignored SIGINT.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
  lines = []
  for line in process.stderr:
    lines.append(line)
    if 'global step 5:' in line:
      process.send_signal(number)
  assert process.wait() == 0
  text = ''.join(lines)
  assert 'Traceback' not in text
  assert '%s: stopping' % signal.Signals(number).name in text
  steps = re.findall(r'model\.ckpt-(\d+)\.index',
                     ' '.join(os.listdir(str(tmp_path))))
  assert max(map(int, steps)) >= 5


@pytest.mark.slow
def test_train_console_has_only_log_lines_and_each_step_once(data, tmp_path):
  done = run_program(PROGRAM, *train_arguments(
      data, tmp_path, '--max_number_of_steps=2'))
  assert done.returncode == 0
  lines = done.stderr.strip().split('\n')
  assert all(line.startswith('INFO:tensorflow:') for line in lines)
  steps = [line for line in lines if 'global step' in line]
  assert len(steps) == len(set(steps))


@pytest.mark.parametrize('model, arguments', [
    ('cifarnet', {'dropout_keep_prob': 0.25}), ('nasnet_cifar', {})])
def test_train_dropout_keep_prob_is_passed_to_networks_that_take_it(
    data, tmp_path, monkeypatch, model, arguments):
  calls = []

  class NetworkCalled(Exception):
    """Ends the training when the network is built."""

  def get_network_fn(*_, **__):

    def network_fn(_, **kwargs):
      calls.append(kwargs)
      raise NetworkCalled

    return network_fn

  monkeypatch.setattr(graph.nets_factory, 'get_network_fn', get_network_fn)
  with pytest.raises(NetworkCalled):
    train(data, tmp_path, '--model_name=' + model, '--dropout_keep_prob=0.25')
  assert calls == [arguments]


def test_saver_saves_one_after_the_other(tmp_path, monkeypatch):
  events = []

  def slow_save(saver, session, path, global_step):
    step = session.run(global_step)
    events.append('begin %d' % step)
    time.sleep(0.3)
    events.append('end %d' % step)

  monkeypatch.setattr(tf.train.Saver, 'save', slow_save)
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.get_or_create_global_step()
    session.run(step.initializer)
    increment = tf.assign_add(step, 1)
    saver = loop.SaverBetweenSteps(threading.Lock())
    first = threading.Thread(
        target=saver.save, args=(session, str(tmp_path / 'a'), step))
    first.start()
    while not events:
      time.sleep(0.01)
    session.run(increment)
    saver.save(session, str(tmp_path / 'a'), step)
    first.join()
  assert events == ['begin 0', 'end 0', 'begin 1', 'end 1']


def test_saver_waits_for_the_running_step(tmp_path):
  events = []

  class Session:
    """Runs a training step in 0.3 s."""

    def run(self, fetches, feed):
      del fetches, feed
      events.append('step begins')
      time.sleep(0.3)
      events.append('step ends')
      return 0.5, 1

  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.get_or_create_global_step()
    session.run(step.initializer)
    train_step = loop.TrainStep(loop.StopRequest())
    saver = loop.SaverBetweenSteps(train_step.lock)
    training = threading.Thread(
        target=train_step.run, args=(Session(), None, step, {}))
    training.start()
    while not events:
      time.sleep(0.01)
    saver.save(session, str(tmp_path / 'a'), step)
    events.append('saved')
    training.join()
  assert events == ['step begins', 'step ends', 'saved']
