"""Tests of make_report.py and report.sh: report and temperature of a run."""

import base64
import io
import json
import logging
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import eval_image_classifier
import export_inference_graph
from common.errors import InputError
from datasets import dataset_factory
from datasets.conversion import convert_photos
from evaluation import calibration, run_results
from kits import serving_kit as kit
from kits.helpers import run_program
from kits.script_kit import run_script
from kits.trained_kit import CLASSES, NAME, make_photos, train
from runs import checkpoints, run_info
from serving.exports import export_folder
from serving.model.classifier import Classifier
from tools import make_report as program


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set with 4 of 10 photos of each class under a wrong class.

  It has 12 validation photos and 9 test photos.
  """
  folder = tmp_path_factory.mktemp('data')
  make_photos(folder / NAME)
  for number in range(4):
    swapped = [folder / NAME / name / ('%02d.jpg' % number) for name in CLASSES]
    contents = [path.read_bytes() for path in swapped]
    for path, content in zip(swapped, contents[1:] + contents[:1]):
      path.write_bytes(content)
  (folder / NAME / 'red' / 'no<b>photo.jpg').write_bytes(b'not a photo')
  convert_photos.convert(str(folder), NAME, percent_validation=40,
                         percent_test=30, max_bad_fraction=0.5)
  return str(folder)


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
  """The train directory of a run that has learned the colours."""
  folder = str(tmp_path_factory.mktemp('run'))
  train(data, folder, '--max_number_of_steps=60', '--optimizer=adam',
        '--learning_rate=0.0003', '--save_summaries_secs=1', '--seed=1')
  return folder


@pytest.fixture
def run(finished, tmp_path):
  """A copy of the train directory `finished`."""
  shutil.copytree(finished, str(tmp_path / 'train'))
  return str(tmp_path / 'train')


def read_page(train_dir):
  with open(os.path.join(train_dir, 'report.html'), encoding='utf-8') as stream:
    return stream.read()


def evaluate(train_dir, eval_dir, split):
  """Evaluates a split; returns the metrics that the program writes."""
  kit.run(eval_image_classifier, '--checkpoint_path=%s' % train_dir,
          '--eval_dir=%s' % eval_dir, '--dataset_split_name=%s' % split)
  with open(os.path.join(str(eval_dir), 'metrics.jsonl')) as stream:
    return json.loads(stream.read().splitlines()[-1])


def test_report_agrees_with_evaluation_and_shows_wrong_photos(
    data, run, tmp_path, capsys):
  assert kit.run(program, '--train_dir=' + run, '--batch_size=5',
                 '--num_refused=0') == 0
  test = evaluate(run, tmp_path / 'eval', 'test')
  validation = evaluate(run, tmp_path / 'eval', 'validation')
  assert (validation['photos'], test['photos']) == (12, 9)
  assert 'accuracy %.4f on 9 test photos' % test['accuracy'] in (
      capsys.readouterr().out)
  page = read_page(run)
  for line in (validation, test):
    assert '%.1f %%</b> of the %d %s photos are right' % (
        100 * line['accuracy'], line['photos'], line['split']) in page
  assert 'training loss' in page
  assert 'red/no&lt;b&gt;photo.jpg' in page
  assert re.search(r'\d\.\d ms</b> per photo', page)
  section, = re.findall(r'<section id="wrong">.*?</section>', page, re.DOTALL)
  names = re.findall(r'title="([a-z]+/\d\d.jpg)">(validation|test): ', section)
  pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"', section)
  wrong = sum(round((1 - line['accuracy']) * line['photos'])
              for line in (validation, test))
  # Two heat maps follow each photo.
  assert len(names) == len(pictures) / 3 == wrong > 0
  for picture in pictures[1::3] + pictures[2::3]:
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (40, 36)
  pictures = pictures[::3]
  # Each picture is the photo of that name.
  for (name, _), picture in zip(names, pictures):
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    photo = Image.open(os.path.join(data, NAME, name))
    assert image.size == photo.size
    difference = np.asarray(image, int).mean((0, 1)) - (
        np.asarray(photo, int).mean((0, 1)))
    assert abs(difference).max() < 3


@pytest.mark.slow
def test_report_fits_temperature_on_validation_for_export(
    data, run, tmp_path, caplog):
  assert kit.run(program, '--train_dir=' + run) == 0
  checkpoint = checkpoints.newest(run)
  fitted = calibration.load(checkpoint)
  assert (fitted.split, fitted.photos) == ('validation', 12)
  results = run_results.measure(run_info.load(run), checkpoint, NAME, data, 12)
  counted = results[0].counted
  assert fitted.temperature == pytest.approx(
      calibration.fit_temperature(counted.logits, counted.labels), rel=1e-4)
  frozen = str(tmp_path / 'a.pb')
  kit.run(export_inference_graph, '--checkpoint_path=' + run,
          '--input_type=encoded', '--frozen_file=' + frozen)
  path = os.path.join(data, NAME, counted.filenames[0])
  with open(path, 'rb') as stream:
    photo = stream.read()
  for calibrated, temperature in ((False, 1.0), (True, fitted.temperature)):
    scores = Classifier.from_frozen_graph(
        frozen, calibrated=calibrated).classify([photo])
    np.testing.assert_allclose(
        scores, calibration.softmax(counted.logits[:1], temperature), atol=1e-5)


@pytest.mark.slow
def test_report_takes_best_checkpoint_and_calls_validation_optimistic(
    run, tmp_path):
  best = os.path.join(run, 'best')
  os.makedirs(best)
  newest = checkpoints.newest(run)
  prefix = os.path.join(best, os.path.basename(newest))
  for suffix in ('.index', '.data-00000-of-00001'):
    shutil.copy(newest + suffix, prefix + suffix)
  shutil.copy(run_info.path(run), best)
  with open(os.path.join(run, 'flags.json'), 'w') as stream:
    json.dump({'learning_rate': 0.0003, 'note': '<b>'}, stream)
  assert kit.run(program, '--train_dir=' + run) == 0
  page = read_page(run)
  assert 'Checkpoint %s,' % prefix in page
  assert 'optimistic:</strong> the checkpoint is the one that was best' in page
  assert '--note</td><td class="text">&lt;b&gt;</td>' in page
  assert os.path.exists(os.path.join(best, 'calibration.json'))
  assert not os.path.exists(os.path.join(run, 'calibration.json'))
  # The export takes the same checkpoint, with its temperature.
  frozen = str(tmp_path / 'a_freeze.pb')
  kit.run(export_inference_graph, '--checkpoint_path=' + run, '--known=off',
          '--frozen_file=' + frozen)
  info = export_folder.read_frozen(frozen)
  assert info.global_step == 60
  assert info.temperature == calibration.load(prefix).temperature
  # The newest checkpoint can still be requested.
  other = tmp_path / 'other.html'
  kit.run(program, '--train_dir=' + run, '--which_checkpoint=newest',
          '--output_file=%s' % other, '--nocalibrate', '--num_wrong=1',
          '--num_refused=0', '--noexplain')
  text = other.read_text(encoding='utf-8')
  assert 'model.ckpt-60' in text
  assert 'optimistic:</strong> the threshold of refusal was set' in text
  assert '--nocalibrate was given' in text
  assert text.count('<figure>') == 1
  assert not os.path.exists(os.path.join(run, 'calibration.json'))


@pytest.mark.slow
def test_report_of_training_ended_by_validation_is_optimistic(run):
  with open(os.path.join(run, 'validation.jsonl'), 'w') as stream:
    stream.write('{"step": 5, "accuracy": 0.5, "loss": 1.0}\n')
  kit.run(program, '--train_dir=' + run, '--nocalibrate')
  page = read_page(run)
  assert 'optimistic:</strong> training ended by its accuracy on these' in page
  assert 'Validation accuracy by step' in page


def test_measure_counts_each_split_in_order_of_records(data, run):
  results = run_results.measure(run_info.load(run), checkpoints.newest(run),
                                NAME, data, batch_size=5)
  assert [result.name for result in results] == ['validation', 'test']
  for result in results:
    assert result.sources == dataset_factory.get_dataset(
        NAME, result.name, data).data_sources
    assert [CLASSES[label] for label in result.counted.labels] == [
        name.split('/')[0] for name in result.counted.filenames]
    np.testing.assert_allclose(
        calibration.softmax(result.counted.logits),
        result.counted.probabilities, atol=1e-5)
  filenames = [set(result.counted.filenames) for result in results]
  assert [len(names) for names in filenames] == [12, 9]
  assert not filenames[0] & filenames[1]


@pytest.mark.slow
def test_report_without_possible_temperature_is_written(
    run, monkeypatch, caplog):
  def refuse(*_):
    raise calibration.NoTemperature('all 12 photos are right')

  monkeypatch.setattr(calibration, 'fit_temperature', refuse)
  caplog.set_level(logging.INFO, logger='tensorflow')
  assert kit.run(program, '--train_dir=' + run) == 0
  assert 'No temperature: all 12 photos are right' in caplog.text
  assert 'No temperature: all 12 photos are right.' in read_page(run)
  assert not os.path.exists(os.path.join(run, 'calibration.json'))


@pytest.mark.parametrize('arguments,message', [
    ((), '--train_dir is needed'),
    (('--train_dir=/no/where',), '--train_dir=/no/where is not a folder'),
    (('--train_dir=EMPTY',), 'no checkpoint in the folder'),
    (('--train_dir=RUN', '--checkpoint_path=/no/x'), 'no checkpoint at /no/x'),
    (('--train_dir=RUN', '--dataset_dir=EMPTY'), 'is not converted'),
    (('--train_dir=RUN', '--output_file=/no/where/a'), 'its folder does not'),
    (('--train_dir=RUN', '--moving_average_decay=0.9'), 'lacks CifarNet/'),
    (('--train_dir=RUN', '--dataset_name=other', '--dataset_dir=OTHER'),
     'trained on the classes blue, green, red and other in .* has x, y'),
    (('--train_dir=RUN', '--dataset_name=bare', '--dataset_dir=OTHER'),
     'neither a validation nor a test split: convert it with --percent_valid'),
])
def test_report_with_wrong_flags_raises_input_error(
    finished, tmp_path, arguments, message):
  (tmp_path / 'empty').mkdir()
  if '--dataset_dir=OTHER' in arguments:
    for name, percent in (('other', 40), ('bare', 0)):
      for label in ('x', 'y'):
        (tmp_path / name / label).mkdir(parents=True)
        for number in range(3):
          (tmp_path / name / label / ('%d.jpg' % number)).write_bytes(
              kit.make_photo(10 * number + len(name) + ord(label)))
      convert_photos.convert(str(tmp_path), name, percent_validation=percent)
  arguments = [a.replace('EMPTY', str(tmp_path / 'empty'))
               .replace('RUN', finished).replace('OTHER', str(tmp_path))
               for a in arguments]
  with pytest.raises(InputError, match=message) as caught:
    kit.run(program, *arguments)
  assert '\n' not in str(caught.value)


def test_report_of_checkpoint_without_run_json_prints_one_line_error(tmp_path):
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet', with_run=False)
  completed = run_program('tools/make_report.py', '--checkpoint_path=' + prefix)
  assert (completed.returncode, completed.stderr) == (
      1, 'make_report.py: error: %s is missing: the report needs what '
      'training recorded\n' % (tmp_path / 'run.json'))


@pytest.mark.slow
def test_script_writes_report_of_run_in_train_dir(data, run):
  completed = run_script('report.sh', '--num_wrong=0', env=dict(
      os.environ, MODEL_NAME='cifarnet', DATASET_NAME=NAME, DATASET_DIR=data,
      TRAIN_DIR=run, EVAL_DIR='/no/where', BATCH_SIZE='4'))
  assert 'Wrote %s/report.html: accuracy' % run in completed.stdout
  assert '(--num_wrong=0)' in read_page(run)
