"""Tests of eval_image_classifier.py and evaluation/loop.py."""

import csv
import json
import os
import re
import shutil
import threading
import time

import numpy as np
import pytest

import eval_image_classifier
from common.errors import InputError
from compat import tf
from datasets import dataset_factory, split_files
from evaluation import loop
from kits.checkpoint_kit import write_checkpoints
from kits.helpers import parsed_flags, run_program
from kits.trained_kit import CLASSES, MODEL, NAME, make_dataset, train
from nets import nets_factory
from preprocessing import preprocessing_factory
from runs import checkpoints, run_info
from training import run_lock

PROGRAM = 'eval_image_classifier.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Returns a dataset_dir: 30 photos of 3 classes, 12 for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'), percent_validation=40)


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
  """Returns the train directory of a short run."""
  folder = str(tmp_path_factory.mktemp('run'))
  train(data, folder, '--max_number_of_steps=8', '--optimizer=adam',
        '--learning_rate=0.0001', '--moving_average_decay=0.9')
  return folder


def evaluate(checkpoint_path, eval_dir, *flags):
  """Evaluates the validation photos in this process."""
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % checkpoint_path,
                    '--eval_dir=%s' % eval_dir,
                    '--dataset_split_name=validation', *flags):
    eval_image_classifier.main([])


def read_results(eval_dir):
  """Returns the lines of metrics.jsonl."""
  with open(os.path.join(str(eval_dir), 'metrics.jsonl')) as stream:
    return [json.loads(line) for line in stream]


def read_predictions(eval_dir, step, split='validation'):
  path = os.path.join(str(eval_dir), 'predictions-%s-%d.csv' % (split, step))
  with open(path, encoding='utf-8', newline='') as stream:
    return list(csv.DictReader(stream))


def test_evaluation_counts_each_photo_once_for_any_batch_size(
    run, tmp_path, log, capsys):
  # All else is read from run.json: 12 photos in batches of 5, 5 and 2.
  evaluate(run, tmp_path, '--batch_size=5')
  assert re.findall(r'Evaluation \[\d/\d\]', log.text) == [
      'Evaluation [1/3]', 'Evaluation [2/3]', 'Evaluation [3/3]']
  rows = read_predictions(tmp_path, 8)
  files = [row['file'] for row in rows]
  assert len(files) == len(set(files)) == 12
  assert all(row['label'] == row['file'].split('/')[0] for row in rows)
  result, = read_results(tmp_path)
  assert result['photos'] == 12
  num_correct = sum(row['label'] == row['predicted'] for row in rows)
  assert result['accuracy'] == pytest.approx(num_correct / 12)
  stdout = capsys.readouterr().out
  assert stdout.startswith('eval/Accuracy[%.4g]\neval/Recall_5[1]\n' %
                           result['accuracy'])
  evaluate(run, tmp_path / 'other', '--batch_size=12')
  other_rows = read_predictions(tmp_path / 'other', 8)
  for key in ('file', 'predicted'):
    assert [row[key] for row in other_rows] == [row[key] for row in rows]
  assert [float(row['probability']) for row in other_rows] == pytest.approx(
      [float(row['probability']) for row in rows], abs=2e-6)


@pytest.mark.parametrize('wanted,split', [
    ('validation,test', 'validation'), ('test, validation', 'validation'),
    ('train,validation', 'train')])
def test_evaluation_of_several_splits_uses_the_first_that_exists(
    run, tmp_path, log, wanted, split):
  evaluate(run, tmp_path, '--dataset_split_name=' + wanted)
  result, = read_results(tmp_path)
  assert (result['split'], result['photos']) == (
      split, {'validation': 12, 'train': 18}[split])
  assert 'Evaluating split %s of colours: %d photos' % (
      split, result['photos']) in log.text


def test_evaluation_unknown_splits_error_lists_the_known_splits(run, tmp_path):
  for wanted in ('test', 'test,dev'):
    with pytest.raises(InputError, match="split of data set 'colours' '%s'; "
                       'known: train, validation' % wanted):
      evaluate(run, tmp_path, '--dataset_split_name=' + wanted)


def test_evaluation_unconverted_data_set_is_an_input_error(run, tmp_path):
  with pytest.raises(InputError, match='is not converted'):
    evaluate(run, tmp_path, '--dataset_split_name=validation,test',
             '--dataset_dir=%s' % tmp_path)


def test_evaluation_matches_the_network_run_photo_by_photo(
    data, run, tmp_path):
  evaluate(run, tmp_path)
  expected = {row['file']: (row['predicted'], float(row['probability']))
              for row in read_predictions(tmp_path, 8)}
  dataset = dataset_factory.get_dataset(NAME, 'validation', data)
  with tf.Graph().as_default(), tf.Session() as session:
    photo = tf.placeholder(tf.string)
    image = tf.image.decode_jpeg(photo, channels=3)
    image = preprocessing_factory.get_preprocessing('cifarnet', False)(
        image, 32, 32)
    _, end_points = nets_factory.get_network_fn(MODEL, 3)(image[tf.newaxis])
    tf.train.Saver(tf.trainable_variables()).restore(
        session, checkpoints.newest(run))
    for path in dataset.data_sources:
      for record in tf.python_io.tf_record_iterator(path):
        feature = tf.train.Example.FromString(record).features.feature
        name = feature['image/filename'].bytes_list.value[0].decode()
        scores = session.run(end_points['Predictions'], {
            photo: feature['image/encoded'].bytes_list.value[0]})[0]
        predicted, probability = expected.pop(name)
        assert predicted == CLASSES[np.argmax(scores)]
        assert probability == pytest.approx(scores.max(), abs=2e-6)
  assert not expected


def test_evaluation_moving_averages_differ_from_plain_variables(
    run, tmp_path, log):
  evaluate(run, tmp_path / 'plain')
  assert '--moving_average_decay=0.9 uses them' in log.text
  evaluate(run, tmp_path / 'averages', '--moving_average_decay=0.9')
  plain, averages = (
      [float(row['probability']) for row in read_predictions(tmp_path / d, 8)]
      for d in ('plain', 'averages'))
  assert plain != pytest.approx(averages, abs=1e-4)


def test_evaluation_max_num_batches_limits_the_photos(run, tmp_path):
  evaluate(run, tmp_path, '--batch_size=5', '--max_num_batches=2')
  assert read_results(tmp_path)[0]['photos'] == 10


@pytest.mark.parametrize('flag,message', [
    ('--checkpoint_path=/no/where', 'no checkpoint at /no/where'),
    ('--checkpoint_path=/a[1]', '/a[1]: a path to checkpoints must not contain '
     'any of * ? [ \\'),
    ('--model_name=lenet', 'lacks LeNet/'),
    ('--dataset_split_name=nope', 'nope'),
    ('--labels_offset=1', '--labels_offset=1, but the run in'),
    ('--eval_dir=FILE/x/y', 'cannot write to --eval_dir=FILE/x/y: FILE: Not a'),
])
def test_evaluation_wrong_flag_is_an_input_error(
    run, tmp_path, flag, message):
  file = tmp_path / 'file'
  file.write_text('')
  flag, message = (text.replace('FILE', str(file)) for text in (flag, message))
  with pytest.raises(InputError, match=re.escape(message)) as caught:
    evaluate(run, tmp_path / 'eval', flag)
  assert '\n' not in str(caught.value)
  assert os.listdir(str(tmp_path)) == ['file']


def test_evaluation_run_on_other_classes_error_names_the_classes(run, tmp_path):
  shutil.copytree(str(run), str(tmp_path / 'run'))
  info = run_info.load(str(run))
  run_info.save(str(tmp_path / 'run'), info._replace(labels=['red', 'green']))
  with pytest.raises(InputError, match='was trained on the classes red, green '
                     'and colours has blue, green, red'):
    evaluate(tmp_path / 'run', tmp_path)


def test_evaluation_once_of_empty_folder_is_one_line_error(tmp_path):
  done = run_program(PROGRAM, '--checkpoint_path=%s' % tmp_path,
                     '--eval_dir=%s' % tmp_path)
  assert (done.returncode, done.stderr) == (
      1, 'eval_image_classifier.py: error: no checkpoint in the folder %s\n' %
      tmp_path)


def test_evaluation_that_does_not_wait_needs_a_checkpoint_or_a_training(
    run, tmp_path):
  folder = tmp_path / 'output'
  shutil.copytree(str(run), str(folder / 'colours_cifarnet' / 'train'))
  flags = ('--eval_interval_secs=0', '--eval_timeout_secs=0',
           '--nowait_for_run')
  missing = folder / 'colors_cifarnet' / 'train'
  message = 'there is no checkpoint in %s, and no process trains' % missing
  with pytest.raises(InputError, match=re.escape(message)) as caught:
    evaluate(missing, tmp_path / 'eval', *flags)
  assert str(caught.value).endswith('; did you mean colours_cifarnet?')
  with run_lock.hold(str(missing)):  # It trains: waits, until the timeout.
    evaluate(missing, tmp_path / 'eval', *flags)
  evaluate(missing, tmp_path / 'eval', *flags[:2])  # Waits as slim does.
  assert not (tmp_path / 'eval').exists()
  evaluate(folder / 'colours_cifarnet' / 'train', tmp_path / 'eval', *flags)
  assert len(read_results(tmp_path / 'eval')) == 1


def test_evaluation_fewer_records_than_in_manifest_is_an_input_error(
    data, run, tmp_path, monkeypatch):
  shutil.copytree(data, str(tmp_path / 'data'))
  dataset = dataset_factory.get_dataset(NAME, 'validation',
                                        str(tmp_path / 'data'))
  records = list(tf.python_io.tf_record_iterator(dataset.data_sources[0]))
  with tf.python_io.TFRecordWriter(dataset.data_sources[0]) as writer:
    for record in records[:-1]:
      writer.write(record)
  flag = '--dataset_dir=%s' % (tmp_path / 'data')
  with pytest.raises(InputError, match='hold 11 records, but the .* says 12'):
    evaluate(run, tmp_path, flag)
  # A split that is too large to be counted before the evaluation.
  monkeypatch.setattr(split_files, 'COUNT_LIMIT', 1)
  with pytest.raises(InputError, match='hold 11 photos but their .* 12'):
    evaluate(run, tmp_path, flag)


def test_wait_for_checkpoint_times_out_on_a_missing_folder(tmp_path, log):
  assert loop.wait_for_checkpoint(str(tmp_path / 'x'), timeout_secs=0) is None
  assert 'Waiting for new checkpoint at %s' % (tmp_path / 'x') in log.text
  assert 'Timed-out waiting for a checkpoint.' in log.text


def test_polling_switches_to_best_checkpoints_once_one_exists(tmp_path, log):
  """Saves a best checkpoint, then newer and better ones, while polling."""
  saves = [lambda: write_checkpoints(tmp_path / 'best', [20]),
           lambda: (write_checkpoints(tmp_path, [30]),
                    write_checkpoints(tmp_path / 'best', [40])),
           lambda: write_checkpoints(tmp_path, [50])]
  write_checkpoints(tmp_path, [1])
  evaluated = []

  def evaluate(checkpoint):
    evaluated.append(os.path.relpath(checkpoint, str(tmp_path)))
    saves[len(evaluated) - 1]()

  first = loop.wait_for_checkpoint(str(tmp_path))
  loop.poll(str(tmp_path), first, evaluate, 0, timeout_secs=0)
  assert evaluated == [
      'model.ckpt-1', 'best/model.ckpt-20', 'best/model.ckpt-40']
  assert 'Only a checkpoint that is better' in log.text

  log.clear()
  del evaluated[:]
  saves = [lambda: write_checkpoints(tmp_path, [60]),
           lambda: write_checkpoints(tmp_path / 'best', [70])]
  first = loop.wait_for_checkpoint(str(tmp_path), which='newest')
  loop.poll(str(tmp_path), first, evaluate, 0, 0, 'newest')
  assert evaluated == ['model.ckpt-50', 'model.ckpt-60']
  assert 'Only a checkpoint' not in log.text


def test_evaluation_of_two_splits_keeps_the_files_of_both(run, tmp_path):
  for split in ('train', 'validation'):
    evaluate(run, tmp_path, '--dataset_split_name=' + split)
  assert sorted(name for name in os.listdir(str(tmp_path))
                if not name.startswith('events.')) == [
      'confusion-train-8.png', 'confusion-validation-8.png', 'metrics.jsonl',
      'predictions-train-8.csv', 'predictions-validation-8.csv']
  assert [(line['split'], line['global_step'], line['photos'])
          for line in read_results(tmp_path)] == [('train', 8, 18),
                                                  ('validation', 8, 12)]
  assert [len(read_predictions(tmp_path, 8, split))
          for split in ('train', 'validation')] == [18, 12]


@pytest.mark.slow
def test_polling_evaluates_each_new_checkpoint_and_retries_a_damaged_one(
    run, tmp_path, log):
  """At first the folder is missing; later one checkpoint is damaged."""
  train_dir = tmp_path / 'train'
  source = checkpoints.newest(run)

  def add_checkpoint(step, damaged=False):
    for suffix in ('.index', '.data-00000-of-00001'):
      target = str(train_dir / ('model.ckpt-%d' % step)) + suffix
      shutil.copy(source + suffix, target)
      if damaged and suffix != '.index':
        # Keeps its length: a shorter file would count as incomplete.
        with open(target, 'r+b') as file:
          file.write(bytes(os.path.getsize(target)))
    (train_dir / 'checkpoint').write_text(
        'model_checkpoint_path: "model.ckpt-%d"\n' % step)

  def wait_until(condition):
    end = time.time() + 60
    while not condition() and time.time() < end:
      time.sleep(0.1)
    assert condition()

  def add_checkpoints():
    time.sleep(1.5)
    train_dir.mkdir()
    shutil.copy(run_info.path(run), str(train_dir))
    add_checkpoint(8)
    wait_until(lambda: 'Wrote' in log.text)
    add_checkpoint(50, damaged=True)
    wait_until(lambda: 'trying again' in log.text)
    add_checkpoint(50)
    wait_until(lambda: log.text.count('Wrote') == 2)
    add_checkpoint(60)

  writer = threading.Thread(target=add_checkpoints)
  writer.start()
  evaluate(train_dir, tmp_path / 'eval', '--eval_interval_secs=0',
           '--eval_timeout_secs=6')
  writer.join()
  assert [os.path.basename(result['checkpoint'])
          for result in read_results(tmp_path / 'eval')] == [
              'model.ckpt-8', 'model.ckpt-50', 'model.ckpt-60']
  assert 'model.ckpt-50 cannot be read' in log.text
