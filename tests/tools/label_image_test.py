"""Tests of tools/label_image.py: the flags of TensorFlow's sample."""

import re

import numpy as np
import pytest
from PIL import Image

import export_inference_graph
from common import files
from common.errors import InputError
from compat import tf
from evaluation import calibration
from kits import serving_kit as kit
from kits.helpers import run_program
from runs import checkpoints
from runtime import forward_pass, openvino_model
from serving.model import graph_info
from serving.model.classifier import Classifier
from tools import label_image


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with frozen graphs of one network, photo.jpg and labels.txt."""
  folder = tmp_path_factory.mktemp('graphs')
  kit.save_checkpoint(folder / 'train', 'cifarnet')
  for name, flags in (('encoded', ['--input_type=encoded']), ('float', []),
                      ('fixed', ['--batch_size=3'])):
    kit.run(export_inference_graph, '--checkpoint_path=%s' % (folder / 'train'),
            '--frozen_file=%s' % (folder / (name + '.pb')), *flags)
  graph_def = tf.GraphDef.FromString((folder / 'float.pb').read_bytes())
  for node in list(graph_def.node):
    if node.name == graph_info.NODE:
      graph_def.node.remove(node)
  files.write_bytes(str(folder / 'foreign.pb'), graph_def.SerializeToString())
  (folder / 'photo.jpg').write_bytes(kit.make_photo(3, height=45, width=70))
  (folder / 'labels.txt').write_text('\n'.join(kit.LABELS) + '\n')
  return folder


def label(folder, capsys, graph, *flags):
  """Returns {index: (label, score)} of the printed lines, best first."""
  capsys.readouterr()
  assert kit.run(label_image, '--image=%s' % (folder / 'photo.jpg'),
                 '--graph=%s' % (folder / (graph + '.pb')), *flags) == 0
  lines = capsys.readouterr().out.splitlines()
  matches = [re.match(r'^(\w+) \((\d+)\): (\S+)$', line) for line in lines]
  assert all(matches), lines
  return {int(index): (name, float(value))
          for name, index, value in (match.groups() for match in matches)}


def scores_of(rows):
  return [rows[index][1] for index in range(len(rows))]


@pytest.mark.parametrize('graph', ['encoded', 'float', 'fixed'])
def test_graph_with_info_has_scores_of_classifier(folder, capsys, graph):
  rows = label(folder, capsys, graph)
  photo = (folder / 'photo.jpg').read_bytes()
  expected = Classifier.from_frozen_graph(
      str(folder / 'encoded.pb')).classify([photo])[0]
  np.testing.assert_allclose(scores_of(rows), expected, atol=1e-5)
  assert [index for index in rows] == list(np.argsort(-expected))
  assert [rows[index][0] for index in range(5)] == kit.LABELS


@pytest.mark.parametrize('graph,scale_flags,mean,std', [
    ('foreign', ['--input_width=32', '--input_height=32'], 0, 255),
    ('foreign', ['--input_mean=127.5', '--input_std=64'], 127.5, 64),
    ('float', ['--input_mean=100', '--input_std=50'], 100, 50),
    ('float', ['--input_mean=128'], 128, 255),
], ids=str)
def test_photo_is_scaled_like_in_tensorflows_sample(
    folder, capsys, graph, scale_flags, mean, std):
  output = 'CifarNet/Predictions/Reshape_1'
  output_flags = ['--labels=%s' % (folder / 'labels.txt'),
                  '--output_layer=' + output]
  rows = label(folder, capsys, graph, *output_flags, *scale_flags)
  pixels = np.array(Image.open(str(folder / 'photo.jpg')), np.float32)
  with tf.Graph().as_default() as g, tf.Session() as session:
    tf.import_graph_def(tf.GraphDef.FromString(
        (folder / 'float.pb').read_bytes()), name='')
    image = session.run(tf.image.resize_bilinear(pixels[None], [32, 32]))
    expected = session.run(g.get_tensor_by_name(output + ':0'),
                           {'input:0': (image - mean) / std})[0]
  # Pillow and TensorFlow round a decoded pixel differently by 1.
  np.testing.assert_allclose(scores_of(rows), expected, atol=0.02)
  default_rows = label(folder, capsys, 'float')
  assert np.abs(np.subtract(scores_of(default_rows), expected)).max() > 0.03


def test_output_layer_can_be_the_logits(folder, capsys):
  rows = label(folder, capsys, 'float', '--num_top_predictions=2',
               '--output_layer=CifarNet/logits/BiasAdd')
  plain = scores_of(label(folder, capsys, 'float'))
  best, second = sorted(plain)[:-3:-1]
  (_, high), (_, low) = rows.values()
  np.testing.assert_allclose(high - low, np.log(best / second), rtol=1e-3)


def test_output_layer_can_be_the_calibrated_scores(tmp_path, capsys):
  prefix = kit.save_checkpoint(tmp_path / 'train', 'cifarnet')
  calibration.save(prefix, calibration.Calibration(
      3.0, 0.2, 0.1, 'validation', 12, 7, checkpoints.digest(prefix), None))
  kit.run(export_inference_graph, '--checkpoint_path=' + prefix,
          '--frozen_file=%s' % (tmp_path / 'a.pb'))
  (tmp_path / 'photo.jpg').write_bytes(kit.make_photo(3))
  plain = label(tmp_path, capsys, 'a')
  calibrated = label(tmp_path, capsys, 'a',
                     '--output_layer=CalibratedPredictions')
  assert list(calibrated.items())[0][1][0] == list(plain.items())[0][1][0]
  roots = np.power(scores_of(plain), 1 / 3)
  np.testing.assert_allclose(scores_of(calibrated), roots / roots.sum(),
                             atol=1e-5)
  differences = np.subtract(scores_of(calibrated), scores_of(plain))
  assert np.abs(differences).max() > 0.01


@pytest.mark.parametrize('graph,flags,message', [
    ('encoded', ['--input_mean=0'],
     '--input_mean: the graph preprocesses photos'),
    ('float', ['--input_std=0'], '--input_std=0'),
    ('float', ['--input_width=31'], '--input_width=31: the graph takes 32'),
    ('float', ['--output_layer=none'],
     '--output_layer: the graph has no node none; tools.summarize_graph'),
    ('float', ['--input_layer=a:b:c'], '--input_layer: the graph has no node'),
    ('float', ['--input_layer=CifarNet/fc3/weights'],
     '--input_layer=CifarNet/fc3/weights takes float32 of shape'),
    ('float', ['--output_layer=CifarNet/conv1/Relu'],
     '--output_layer=CifarNet/conv1/Relu gives values of shape'),
    ('foreign', ['--output_layer=CifarNet/Predictions/Reshape_1'],
     '--labels is needed: the graph has 5 classes'),
    ('foreign', [], '--output_layer: the graph has no node InceptionV3/'),
    ('none', [], r'none.pb.*No such file'),
    ('../graphs', ['--graph='], '--graph is needed'),
    ('float', ['--image='], '--image is needed'),
    ('float', ['--image=/nowhere.jpg'], '/nowhere.jpg'),
], ids=str)
def test_wrong_flags_raise_one_line_error(folder, graph, flags, message):
  with pytest.raises(InputError, match=re.escape(message)
                     if '.*' not in message else message) as caught:
    kit.run(label_image, '--image=%s' % (folder / 'photo.jpg'),
            '--graph=%s' % (folder / (graph + '.pb')), *flags)
  assert '\n' not in str(caught.value)


def test_graph_with_1001_classes_uses_imagenets_labels(tmp_path, capsys):
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, [None, None, None, 3], name='input')
    logits = tf.reduce_sum(images, [1, 2, 3], keepdims=True)[:, 0, 0]
    tf.add(logits * 0, tf.one_hot([3], 1001), name='output')
    files.write_bytes(str(tmp_path / 'a.pb'),
                      graph.as_graph_def().SerializeToString())
  (tmp_path / 'photo.jpg').write_bytes(kit.make_photo(1))
  assert kit.run(label_image, '--image=%s' % (tmp_path / 'photo.jpg'),
                 '--graph=%s' % (tmp_path / 'a.pb'), '--output_layer=output',
                 '--num_top_predictions=1') == 0
  assert capsys.readouterr().out == 'great_white_shark (3): 1\n'


def test_program_with_text_file_as_photo_prints_one_line_error(folder):
  completed = run_program('tools/label_image.py',
                          '--image=%s' % (folder / 'labels.txt'),
                          '--graph=%s' % (folder / 'float.pb'))
  assert completed.returncode == 1
  last_line = completed.stderr.strip().split('\n')[-1]
  assert last_line.startswith('label_image.py: error: ')
  assert 'Traceback' not in completed.stderr


@pytest.mark.parametrize('runtime', ['tensorflow', pytest.param(
    'openvino', marks=pytest.mark.skipif(
        not openvino_model.is_installed(), reason='no OpenVINO here'))])
@pytest.mark.parametrize('graph', ['encoded', 'foreign'])
def test_runtime_flag_is_what_computes(folder, capsys, log, graph, runtime):
  flags = [] if graph == 'encoded' else [
      '--labels=%s' % (folder / 'labels.txt'),
      '--output_layer=CifarNet/Predictions/Reshape_1']
  rows = label(folder, capsys, graph, '--runtime=' + runtime, *flags)
  assert len(rows) == len(kit.LABELS)
  choice = forward_pass.Choice(runtime, 'float32')
  assert 'Forward passes: ' + choice.describe() in log.text


def test_runtime_that_cannot_run_the_graph_is_an_error(folder, monkeypatch):
  monkeypatch.setattr(openvino_model, 'is_installed', lambda: False)
  with pytest.raises(InputError, match='^--runtime=openvino: .*not installed'):
    kit.run(label_image, '--image=%s' % (folder / 'photo.jpg'),
            '--graph=%s' % (folder / 'float.pb'), '--runtime=openvino')
