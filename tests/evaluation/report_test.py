"""Tests of evaluation/report.py and evaluation/confusion_plot.py."""

import csv
import io
import json
import re

import numpy as np
from PIL import Image

from compat import tf
from evaluation import confusion_plot, metrics, report
from evaluation.loop import Counted

NAMES = ['daisy', '蒲公英', 'a "quoted", name']


def counted(photos=6):
  """Returns the Counted of two photos per class, the last one wrong."""
  labels = np.array([0, 0, 1, 1, 2, 2])[:photos]
  probabilities = np.eye(3, dtype=np.float32)[labels] * 0.8 + 0.1
  probabilities[-1] = [0.7, 0.2, 0.1]
  names = ['c/%d.jpg' % i for i in range(photos)]
  return Counted('/x/model.ckpt-40', 40, names, labels, probabilities)


def metrics_of(case):
  return metrics.compute(case.labels, case.probabilities, NAMES)


def test_print_metrics_has_slims_format_and_one_row_per_class():
  stream = io.StringIO()
  report.print_metrics(metrics_of(counted()), stream)
  lines = stream.getvalue().split('\n')
  assert lines[:2] == ['eval/Accuracy[0.8333]', 'eval/Recall_5[1]']
  assert '6 photos' in lines[2]
  assert 'always 1 with 3 classes' in lines[3]
  rows = [re.split(r'  +', line) for line in lines[5:8]]
  assert rows == [['daisy', '0.667', '1.000', '2'],
                  ['蒲公英', '1.000', '1.000', '2'],
                  ['a "quoted", name', '1.000', '0.500', '2']]


def test_print_metrics_of_many_classes_refers_to_file():
  many_classes = metrics.compute([0], np.eye(1, 1001),
                                 [str(i) for i in range(1001)])
  stream = io.StringIO()
  report.print_metrics(many_classes, stream)
  assert 'metrics.jsonl' in stream.getvalue()
  assert stream.getvalue().count('\n') < 6


def test_write_appends_metrics_and_writes_predictions_and_picture(tmp_path):
  case = counted()
  with tf.Graph().as_default():
    with report.EventFile(str(tmp_path)) as writer:
      for _ in range(2):
        paths = report.write(str(tmp_path), case, metrics_of(case), NAMES,
                             'validation', writer)
  assert [path.split('/')[-1] for path in paths] == [
      'metrics.jsonl', 'predictions-validation-40.csv',
      'confusion-validation-40.png']
  lines = (tmp_path / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
  evaluations = [json.loads(line) for line in lines]
  assert [row['accuracy'] for row in evaluations] == [5 / 6, 5 / 6]
  assert evaluations[0]['classes'][2] == {'label': NAMES[2], 'precision': 1.0,
                                          'recall': 0.5, 'photos': 2}
  with open(paths[1], encoding='utf-8', newline='') as stream:
    rows = list(csv.DictReader(stream))
  assert len(rows) == 6
  assert rows[5] == {'file': 'c/5.jpg', 'label': NAMES[2],
                     'predicted': 'daisy', 'correct': '0',
                     'probability': '0.700000',
                     'label_probability': '0.100000'}
  assert Image.open(paths[2]).format == 'PNG'


def test_write_gives_each_split_its_own_tensorboard_curves(tmp_path):
  case = counted()
  with tf.Graph().as_default():
    with report.EventFile(str(tmp_path)) as writer:
      report.write(str(tmp_path), case, metrics_of(case), NAMES, 'validation',
                   writer)
      report.write(str(tmp_path), case._replace(
          probabilities=np.eye(3)[case.labels]), metrics_of(case)._replace(
              accuracy=1.0), NAMES, 'train', writer)
  event_file, = tmp_path.glob('events.*')
  values = {value.tag: (event.step, value)
            for event in tf.train.summary_iterator(str(event_file))
            for value in event.summary.value}
  assert set(values) == {tag + split for split in ('validation', 'train')
                         for tag in ('eval/Accuracy/', 'eval/Recall_5/',
                                     'confusion_matrix/')}
  step, accuracy = values['eval/Accuracy/validation']
  assert (step, round(accuracy.simple_value, 4)) == (40, 0.8333)
  assert values['eval/Accuracy/train'][1].simple_value == 1
  png = values['confusion_matrix/train'][1].image.encoded_image_string
  assert png.startswith(b'\x89PNG')


def test_confusion_png_shows_cells():
  names = ['a', 'b']
  right = confusion_plot.to_png(np.array([[9, 0], [0, 9]]), names, 't')
  wrong = confusion_plot.to_png(np.array([[0, 9], [9, 0]]), names, 't')
  pictures = [np.asarray(Image.open(io.BytesIO(png)).convert('L'), np.int32)
              for png in (right, wrong)]
  assert pictures[0].shape == pictures[1].shape
  assert np.mean(abs(pictures[0] - pictures[1]) > 50) > 0.2


def test_confusion_png_of_1000_classes_stays_small():
  png = confusion_plot.to_png(np.eye(1000, dtype=int),
                              [str(i) for i in range(1000)], 'ImageNet')
  assert max(Image.open(io.BytesIO(png)).size) < 3000
