"""Tests of both engines: each uses the files that the other wrote."""

import csv
import json
import os
import re
import subprocess

import pytest

from kits.helpers import ROOT
from kits.trained_kit import (
  CLASSES,
  MOBILENET,
  NAME,
  make_photos,
  train_arguments,
)

PYTHONS = {'tf1': os.path.join(ROOT, '.venv', 'bin', 'python'),
           'tf2': os.path.join(ROOT, '.venv-tf2', 'bin', 'python')}
# The fastest run with batch norm and Adam slots.
TRAINING = [*MOBILENET, '--optimizer=adam', '--learning_rate=0.01',
            '--batch_norm_decay=0.9']


@pytest.fixture(params=[
    pytest.param(names, marks=pytest.mark.engine(names[0]),
                 id=' then '.join(names))
    for names in (('tf1', 'tf2'), ('tf2', 'tf1'))])
def engines(request):
  """Returns the names of both engines, in either order."""
  for engine in request.param:
    if not os.path.exists(PYTHONS[engine]):
      pytest.skip('needs both engines: ENGINE=%s ./setup.sh' % engine)
  return request.param


def run(engine, program, *arguments):
  """Runs a program in the root; returns its stdout and stderr."""
  done = subprocess.run(
      [PYTHONS[engine], os.path.join(ROOT, program), *map(str, arguments)],
      capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout, done.stderr


def read_predictions(eval_dir, step):
  """Returns the rows of an evaluation's predictions."""
  with open(str(eval_dir / ('predictions-validation-%d.csv' % step))) as stream:
    return list(csv.DictReader(stream))


def frozen_graph_scores(engine, frozen, photos):
  """Returns {(file, label): score} of photos, from a frozen graph."""
  output, _ = run(engine, 'tools/classify_image.py',
                  '--frozen_graph=%s' % frozen, '--format=json', photos)
  return {(photo['file'], row['label']): row['score']
          for photo in json.loads(output) for row in photo['predictions']}


@pytest.mark.slow
def test_engines_use_each_others_files(engines, tmp_path):
  first, second = engines
  data, train_dir = str(tmp_path), tmp_path / 'train'
  make_photos(tmp_path / NAME)
  run(first, 'download_and_convert_data.py', '--dataset_dir=' + data,
      '--dataset_name=' + NAME, '--percent_validation=30')
  run(first, 'train_image_classifier.py', *train_arguments(
      data, train_dir, *TRAINING, '--max_number_of_steps=10'))

  # The second evaluates like the first, and continues the training.
  predictions = []
  for engine in engines:
    eval_dir = tmp_path / ('eval on ' + engine)
    run(engine, 'eval_image_classifier.py', '--dataset_dir=' + data,
        '--dataset_name=' + NAME, '--dataset_split_name=validation',
        '--checkpoint_path=%s' % train_dir, '--eval_dir=%s' % eval_dir)
    predictions.append(read_predictions(eval_dir, 10))
  assert len(predictions[0]) == 9
  for first_row, second_row in zip(*predictions):
    assert first_row['file'] == second_row['file']
    for column in ('probability', 'label_probability'):
      assert float(first_row[column]) == pytest.approx(
          float(second_row[column]), rel=1e-3)
  _, log = run(second, 'train_image_classifier.py', *train_arguments(
      data, train_dir, *TRAINING, '--max_number_of_steps=20'))
  assert 'model.ckpt-10' in log and 'global step 20:' in log
  assert not re.search(r'global step \d:', log)

  # The first freezes what the second trained, and the second serves it.
  frozen = tmp_path / 'frozen.pb'
  run(first, 'export_inference_graph.py', '--checkpoint_path=%s' % train_dir,
      '--input_type=encoded', '--frozen_file=%s' % frozen)
  photos = tmp_path / NAME / 'red'
  scores = [frozen_graph_scores(engine, frozen, photos) for engine in engines]
  assert len(scores[0]) == 10 * len(CLASSES)
  assert scores[1] == pytest.approx(scores[0], rel=1e-3)
  assert_serves(second, frozen, photos / '00.jpg')


def assert_serves(engine, frozen, photo):
  """Asserts that the server classifies an uploaded photo on an engine."""
  server = subprocess.Popen(
      [PYTHONS[engine], os.path.join(ROOT, 'server.py'), '--port=0',
       '--model_dir=%s' % frozen.parent, '--model_name=' + frozen.name,
       '--label_file=' + frozen.with_suffix('.label').name,
       '--upload_folder=%s' % (frozen.parent / 'uploads')],
      stdout=subprocess.PIPE, text=True)
  try:
    port = re.search(r'port (\d+)', server.stdout.readline()).group(1)
    done = subprocess.run(
        [PYTHONS[engine], '-m', 'tools.upload_photo', '--photo=%s' % photo,
         '--url=http://127.0.0.1:%s/' % port],
        cwd=ROOT, stdout=subprocess.PIPE, text=True)
  finally:
    server.terminate()
    server.wait()
  assert done.stdout.startswith('HTTP 200\n')
  lines = done.stdout.splitlines()
  assert set(CLASSES) <= set(lines)
  assert sum(line.endswith(' %') for line in lines) == len(CLASSES)
