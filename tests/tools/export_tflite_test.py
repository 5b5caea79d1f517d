"""Tests of tools/export_tflite.py: scores equal those of the frozen graph."""

import collections
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import compat
from common import progress
from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from kits import serving_kit as kit
from kits import trained_kit
from kits.helpers import ROOT
from kits.trained_kit import CLASSES, NAME
from preprocessing import preprocessing_factory
from runs import run_info
from serving.exports import comparison, export_folder, tflite
from serving.model import graph_info, inference_graph
from serving.model.classifier import Classifier
from tools import export_tflite as program

pytestmark = pytest.mark.slow

NETWORK = 'mobilenet_v1_025'

needs_tensorflow_2 = pytest.mark.skipif(
    not compat.QUANTIZES_TFLITE, reason='int8 needs TensorFlow 2')

# data: dataset_dir. train_dir: folder of the checkpoint. path: of the model.
# completed: the process that exported it. model: its bytes. graph_def: the
# frozen graph.
Exported = collections.namedtuple(
    'Exported', 'data train_dir path completed model graph_def')


def save_run(folder, data, **changes):
  """Writes a checkpoint whose run.json names the tiny data set."""
  kit.save_checkpoint(folder, NETWORK, CLASSES)
  run_info.save(str(folder), run_info.load(str(folder))._replace(
      dataset_name=NAME, dataset_dir=data, **changes))
  return str(folder)


def freeze(train_dir, name=NETWORK, labels=CLASSES):
  """Returns the frozen graph with float input and batch size 1."""
  with tf.Graph().as_default():
    info = inference_graph.build(name, labels, kit.SIZE, batch_size=1)
    return inference_graph.freeze(info, train_dir)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tflite')
  data = trained_kit.make_dataset(folder / 'data')
  train_dir = save_run(folder / 'train', data)
  path = folder / 'out' / 'my.tflite'
  completed = subprocess.run(
      [sys.executable, os.path.join(ROOT, 'tools', 'export_tflite.py'),
       '--checkpoint_path=' + train_dir, '--tflite_file=%s' % path],
      cwd='/', capture_output=True, text=True)
  assert completed.returncode == 0, completed.stderr
  return Exported(data, train_dir, str(path), completed, path.read_bytes(),
                  freeze(train_dir))


def validation_photos(data):
  """Returns the validation photos as bytes, and their labels."""
  dataset = dataset_factory.get_dataset(NAME, 'validation', data)
  records = []
  for source in dataset.data_sources:
    for record in tf.python_io.tf_record_iterator(source):
      feature = tf.train.Example.FromString(record).features.feature
      records.append((feature['image/encoded'].bytes_list.value[0],
                      feature['image/class/label'].int64_list.value[0]))
  return [encoded for encoded, _ in records], [label for _, label in records]


def interpret(model, encoded, size=kit.SIZE):
  """Returns the scores of photos from the interpreter, like an app."""
  with compat.tflite_tools() as lite:
    interpreter = lite.Interpreter(model_content=model)
    interpreter.allocate_tensors()
  input_details, = interpreter.get_input_details()
  output_details, = interpreter.get_output_details()
  assert input_details['shape'].tolist() == [1, size, size, 3]
  assert input_details['dtype'] == output_details['dtype'] == np.float32
  scores = []
  with tf.Graph().as_default(), tf.Session() as session:
    photo = tf.placeholder(tf.string, [1])
    image = inference_graph.photos_to_images(photo, 'inception', size, 3)
    for data in encoded:
      interpreter.set_tensor(input_details['index'],
                             session.run(image, {photo: [data]}))
      interpreter.invoke()
      scores.append(interpreter.get_tensor(output_details['index'])[0])
  return np.array(scores)


@pytest.mark.slow
def test_model_scores_equal_those_of_classifier(exported):
  encoded, _ = validation_photos(exported.data)
  expected = Classifier.from_checkpoint(exported.train_dir).classify(encoded)
  assert np.ptp(expected, axis=0).max() > 0.01, 'photos must differ'
  np.testing.assert_allclose(interpret(exported.model, encoded), expected,
                             atol=1e-4)


def test_main_prints_accuracies_of_model_and_graph(exported):
  encoded, labels = validation_photos(exported.data)
  model_scores = interpret(exported.model, encoded)
  model_accuracy = np.mean(model_scores.argmax(axis=1) == labels)
  graph_scores = Classifier.from_checkpoint(exported.train_dir).classify(
      encoded)
  graph_accuracy = np.mean(graph_scores.argmax(axis=1) == labels)
  assert 0 < graph_accuracy < 1, '0 or 1 could hide a wrong count'
  last_line = exported.completed.stdout.splitlines()[-1]
  assert re.match(
      r'Accuracy on 9 validation photos: TensorFlow Lite %.4f, graph %.4f; '
      r'photos with different answers: 0; probabilities differ by at most '
      r'\d\.\de-(0[5-9]|1\d)$' % (model_accuracy, graph_accuracy),
      last_line), last_line


def test_main_writes_model_info_and_labels_only(exported):
  folder = os.path.dirname(exported.path)
  assert sorted(os.listdir(folder)) == ['my.tflite', 'my_info.json',
                                        'my_labels.txt']
  assert export_folder.read_tflite(exported.path).global_step == 7
  with open(os.path.join(folder, 'my_labels.txt')) as stream:
    assert stream.read() == 'blue\ngreen\nred\n'
  lines = exported.completed.stdout.splitlines()
  assert lines[0].startswith('Wrote %s: TensorFlow Lite model of model.ckpt-7, '
                             % exported.path)
  assert lines[3] == (
      '  in   float32 [1, 32, 32, 3]: of the upright photo the middle 87.5 % '
      'of height and width, resized; (value - 127.5) / 127.5')
  # The messages of the export are printed, those of the converter are not. A
  # slow machine also prints the progress.
  for line in exported.completed.stderr.splitlines():
    assert re.match('INFO:tensorflow:(Restoring |Froze |Converted |'
                    r'Forward passes: )|compared \d', line), line


def test_compare_counts_photos_with_different_predictions(
    exported, monkeypatch):
  encoded, labels = validation_photos(exported.data)
  graph_scores = Classifier.from_checkpoint(exported.train_dir).classify(
      encoded)
  model_scores = np.random.RandomState(0).dirichlet([1] * 3, 9).astype(
      np.float32)
  scores_by_photo = iter(model_scores)

  class Model:
    """Stands in for a model that the conversion has damaged."""

    def __init__(self, content, info):
      assert content == exported.model and info.labels == CLASSES

    @staticmethod
    def scores(image):
      assert image.shape == (1, kit.SIZE, kit.SIZE, 3)
      return next(scores_by_photo)[np.newaxis]

  monkeypatch.setattr(tflite, 'Model', Model)
  comparison = tflite.compare(
      exported.graph_def, exported.model,
      dataset_factory.get_dataset(NAME, 'validation', exported.data))
  correct = [np.sum(scores.argmax(axis=1) == labels)
             for scores in (graph_scores, model_scores)]
  num_different = np.sum(
      model_scores.argmax(axis=1) != graph_scores.argmax(axis=1))
  assert 0 < num_different < 9 and correct[0] != correct[1]
  assert comparison[:4] == (9, correct[0], correct[1], num_different)
  assert comparison.largest_difference == pytest.approx(
      np.abs(model_scores - graph_scores).max(), abs=1e-5)


def run_main(monkeypatch, exported, tmp_path, *flags, train_dir=None):
  """Runs the program with the exported model in place of a conversion."""
  monkeypatch.setattr(tflite, 'convert', lambda *args: exported.model)
  return kit.run(program, '--checkpoint_path=' + (train_dir or
                                                  exported.train_dir),
                 '--tflite_file=%s' % (tmp_path / 'a.tflite'), *flags)


def test_main_keeps_model_with_more_classes_and_rejects_another_step(
    exported, tmp_path, monkeypatch, caplog):
  path = tmp_path / 'a.tflite'
  run_main(monkeypatch, exported, tmp_path, '--max_photos=1')
  assert 'had' not in caplog.text
  info = export_folder.read_tflite(str(path))
  (tmp_path / 'a_info.json').write_bytes(graph_info.to_json(
      info._replace(labels=info.labels + ['white'])))
  run_main(monkeypatch, exported, tmp_path, '--max_photos=1')
  assert '%s had the classes white, which the new one lacks; ' % (
      path) in caplog.text
  assert (tmp_path / 'a_step7.tflite').read_bytes() == path.read_bytes()
  graph_def = tf.GraphDef()
  graph_info.attach(graph_def, info._replace(global_step=6))
  (tmp_path / 'a_freeze.pb').write_bytes(graph_def.SerializeToString())
  path.unlink()
  with pytest.raises(InputError, match='is of step 6, and .* of step 7: run'):
    run_main(monkeypatch, exported, tmp_path)
  assert not path.exists()


def test_main_max_photos_takes_the_first_and_prints_number(exported, tmp_path,
                                                           monkeypatch, capsys):
  run_main(monkeypatch, exported, tmp_path, '--max_photos=4')
  encoded, labels = validation_photos(exported.data)
  correct = np.mean(interpret(exported.model, encoded[:4]).argmax(axis=1) ==
                    labels[:4])
  assert ('Accuracy on the first 4 of 9 validation photos: TensorFlow Lite '
          '%.4f, graph' % correct) in capsys.readouterr().out
  run_main(monkeypatch, exported, tmp_path, '--max_photos=9')
  assert 'Accuracy on 9 validation photos: ' in capsys.readouterr().out


@pytest.mark.parametrize('flags, reason', [
    (['--dataset_dir=/no/where'],
     "data set 'colours' in /no/where has no validation or test photos"),
    (['--dataset_split_name=test'],
     "data set 'colours' in DATA has no test photos")])
def test_main_without_validation_photos_writes_model_and_prints_reason(
    exported, tmp_path, monkeypatch, capsys, flags, reason):
  assert run_main(monkeypatch, exported, tmp_path, *flags) == 0
  assert capsys.readouterr().out.splitlines()[-1] == (
      'Accuracy not measured: ' + reason.replace('DATA', exported.data))
  assert (tmp_path / 'a.tflite').read_bytes() == exported.model


def test_compare_shows_progress(exported, monkeypatch, capsys):
  monkeypatch.setattr(progress, '_LINE_SECONDS', 0)
  tflite.compare(exported.graph_def, exported.model,
                 dataset_factory.get_dataset(NAME, 'validation', exported.data))
  assert 'compared: 1 of 9 photos' in capsys.readouterr().err


@needs_tensorflow_2
def test_main_int8_prints_pixel_values_and_size(exported, tmp_path, capsys):
  path = tmp_path / 'a.tflite'
  assert kit.run(
      program, '--checkpoint_path=' + exported.train_dir,
      '--tflite_file=%s' % path, '--quantize=int8', '--inference_type=uint8',
      '--calibration_photos=9', '--max_accuracy_loss=1') == 0
  assert path.stat().st_size < 0.5 * len(exported.model)
  lines = capsys.readouterr().out.splitlines()
  assert re.match(r'  in   uint8 \[1, 32, 32, 3\]: .*; values from 0 to 255',
                  lines[3]), lines[3]
  assert lines[4] == ('  out  uint8 [1, 3]: probabilities times 256 in the '
                      'order of the labels')
  assert re.match(r'\d+\.\d ms per photo \(fastest of 20; TensorFlow 2',
                  lines[5]), lines[5]
  assert lines[6].startswith('Accuracy on 9 validation photos: ')


def test_main_less_accurate_model_is_not_written(exported, tmp_path,
                                                 monkeypatch):
  monkeypatch.setattr(tflite, 'compare', lambda *args: comparison.Comparison(
      200, 190, 187, 5, 0.1, 0.01))
  with pytest.raises(InputError, match=(
      r'--quantize=float16 loses 0.0150 of accuracy on 200 photos \(TensorFlow '
      r'Lite 0.9350, graph 0.9500\), accepted is --max_accuracy_loss=0.01: ')):
    run_main(monkeypatch, exported, tmp_path, '--quantize=float16')
  assert not os.listdir(str(tmp_path))
  run_main(monkeypatch, exported, tmp_path, '--quantize=float16',
           '--max_accuracy_loss=0.015')
  assert (tmp_path / 'a.tflite').exists()


@pytest.mark.parametrize('flags, message', [
    (['--inference_type=uint8'], 'uint8 needs --quantize=int8, got'),
    pytest.param(['--quantize=int8', '--dataset_dir=/no/where'],
                 '--quantize=int8 needs training photos, but data set '
                 "'colours' in /no/where has no train photos",
                 marks=needs_tensorflow_2),
    (['--tflite_file='], '--tflite_file is needed'),
    (['--model_name=lenet'],
     '--model_name=lenet, but the run in .* was trained with mobilenet_v1_025'),
    (['--labels_offset=1'], '--labels_offset=1, but the run in'),
    (['--label_file=OUT/a.tflite'], '--tflite_file and --label_file are both'),
    (['--dataset_name=other', '--dataset_dir=OUT'],
     r'the network has the classes blue, green, red and other has'),
])
def test_main_with_wrong_flags_writes_nothing(exported, tmp_path, monkeypatch,
                                              flags, message):
  trained_kit.make_photos(tmp_path / 'other', 4)
  os.rename(str(tmp_path / 'other' / 'red'), str(tmp_path / 'other' / 'black'))
  trained_kit.convert_photos.convert(str(tmp_path), 'other',
                                     percent_validation=50)
  flags = [flag.replace('OUT', str(tmp_path)) for flag in flags]
  with pytest.raises(InputError, match=message) as error:
    run_main(monkeypatch, exported, tmp_path, *flags)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'a.tflite').exists()


def test_main_checkpoint_without_run_needs_model_name_and_has_imagenet_labels(
    exported, tmp_path, monkeypatch, capsys):
  labels = dataset_factory.get_labels('imagenet', None)
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet', labels, with_run=False)
  with pytest.raises(InputError, match='there is no run.json beside .*: give '
                     '--model_name$'):
    run_main(monkeypatch, exported, tmp_path, train_dir=prefix)
  with pytest.raises(InputError, match='was trained for 1001 classes, the '
                     'labels name 1000'):
    run_main(monkeypatch, exported, tmp_path, '--model_name=cifarnet',
             '--labels_offset=1', train_dir=prefix)
  run_main(monkeypatch, exported, tmp_path, '--model_name=cifarnet',
           train_dir=prefix)
  output = capsys.readouterr().out
  assert "Accuracy not measured: data set 'imagenet' in no folder" in output
  assert (tmp_path / 'a_labels.txt').read_text().split('\n') == labels + ['']


@pytest.mark.parametrize('name', sorted(preprocessing_factory.FAMILIES))
def test_family_scaling_equals_preprocessing(name):
  """Preprocesses a photo of one colour, for cifarnet with one other pixel."""
  channels = 1 if name == 'lenet' else 3
  image = np.full([32, 32, channels], (200, 90, 10)[:channels], np.uint8)
  if name == 'cifarnet':
    image[3, 4] = 7
  with tf.Graph().as_default(), tf.Session() as session:
    actual = session.run(preprocessing_factory.get_preprocessing(name, False)(
        tf.constant(image), 32, 32))
  scaling = preprocessing_factory.FAMILIES[name].scaling
  mean, deviation = scaling.mean, scaling.deviation
  if mean is None:
    mean, deviation = image.mean(), image.std()
  np.testing.assert_allclose(actual, (image - np.float64(mean)) / deviation,
                             atol=1e-4)
