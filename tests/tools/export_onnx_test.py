"""Tests of tools/export_onnx.py: outputs equal those of the frozen graph."""

import collections
import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

import export_inference_graph
from common.errors import InputError
from compat import slim, tf
from kits import nets_kit, ood_kit
from kits import serving_kit as kit
from kits.helpers import ROOT
from kits.trained_kit import CLASSES, NAME
from nets import layers_head, nets_factory
from runs import run_info
from serving.exports import export_folder, onnx_export
from serving.model import graph_files, graph_info, inference_graph
from serving.model.classifier import Classifier
from tools import export_onnx as program

NETWORK = 'mobilenet_v1_025'

# data: dataset_dir. train_dir: of the run. frozen: path of the frozen graph.
# path: of the model. printed: what the program printed.
Exported = collections.namedtuple('Exported',
                                  'data train_dir frozen path printed')


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """Exports a run with out-of-distribution detection."""
  folder = tmp_path_factory.mktemp('onnx')
  data = ood_kit.make_data(folder / 'data')
  train_dir = str(folder / 'train')
  kit.save_checkpoint(train_dir, NETWORK, CLASSES)
  run_info.save(train_dir, run_info.load(train_dir)._replace(
      dataset_name=NAME, dataset_dir=data))
  frozen = str(folder / 'my_freeze.pb')
  kit.run(export_inference_graph, '--checkpoint_path=' + train_dir,
          '--input_type=encoded', '--known=on', '--noexamples',
          '--frozen_file=' + frozen)
  path = str(folder / 'my.onnx')
  done = subprocess.run(
      [sys.executable, os.path.join(ROOT, 'tools', 'export_onnx.py'),
       '--frozen_file=' + frozen, '--checkpoint_path=' + train_dir,
       '--onnx_file=' + path, '--run_name=my run'],
      cwd='/', capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return Exported(data, train_dir, frozen, path, done.stdout)


def photos(exported):
  """Returns some photos of each class, and some of other things."""
  encoded = []
  for label in CLASSES:
    folder = os.path.join(exported.data, NAME, label)
    for name in sorted(os.listdir(folder))[:2]:
      with open(os.path.join(folder, name), 'rb') as stream:
        encoded.append(stream.read())
  return encoded + [kit.make_photo(seed) for seed in range(6)]


@pytest.mark.parametrize('batch_size', [1, 12])
def test_model_outputs_equal_those_of_the_frozen_graph(exported, batch_size):
  encoded = photos(exported)
  graph_def = graph_files.read_frozen(exported.frozen, 'graph')
  info = graph_info.require(graph_def)
  names = onnx_export.tensor_names(info)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    expected = session.run(names, {info.input: encoded})
  with tf.Graph().as_default(), tf.Session() as session:
    images = session.run(inference_graph.photos_to_images(
        tf.constant(encoded), info.preprocessing_name, kit.SIZE, 3))
  session = onnxruntime.InferenceSession(exported.path,
                                         providers=['CPUExecutionProvider'])
  assert [value.shape for value in session.get_inputs()] == [
      ['batch', kit.SIZE, kit.SIZE, 3]]
  assert [value.name for value in session.get_outputs()] == list(names) == [
      'probabilities', 'known', 'known_score', 'similarity']
  batches = [session.run(None, {'images': images[start:start + batch_size]})
             for start in range(0, len(images), batch_size)]
  outputs = dict(zip(names, map(np.concatenate, zip(*batches))))
  assert np.ptp(expected['probabilities'], axis=0).max() > 0.01
  assert set(expected['known'].tolist()) == {True, False}
  for name, values in expected.items():
    np.testing.assert_allclose(outputs[name], values, atol=1e-4, err_msg=name)


def test_model_metadata_describe_run_and_preprocessing(exported):
  model = onnx.load(exported.path)
  facts = {entry.key: entry.value for entry in model.metadata_props}
  info = graph_info.read_file(exported.frozen[:-len('_freeze.pb')] + '.onnx')
  assert info == export_folder.read_frozen(exported.frozen)
  assert facts.pop(graph_info.NODE)
  assert facts == {
      'labels': '["blue", "green", "red"]', 'network': NETWORK, 'run': 'my run',
      'checkpoint': 'model.ckpt-7', 'global_step': '7', 'image_size': '32',
      'channels': 'RGB', 'mean': '[127.5, 127.5, 127.5]', 'deviation': '127.5',
      'preprocessing': 'of the upright photo the middle 87.5 % of height and '
                       'width, resized; (value - 127.5) / 127.5',
      'threshold': json.dumps(info.threshold), 'temperature': 'null'}


def test_main_prints_outputs_accuracies_and_times(exported):
  lines = exported.printed.splitlines()
  assert lines[0].startswith('Wrote %s: ONNX model of model.ckpt-7, ' %
                             exported.path)
  assert lines[2].startswith('  in   images  float32 [batch, 32, 32, 3]: of ')
  assert [line.split()[1] for line in lines[3:7]] == [
      'probabilities:', 'known:', 'known_score:', 'similarity:']
  accuracies = re.match(
      r'Accuracy on 21 validation photos: ONNX Runtime (0\.\d{4}), graph '
      r'(0\.\d{4}); photos with different answers: 0; probabilities differ by '
      r'at most \d\.\de-(0[5-9]|1\d)$', lines[7])
  assert accuracies and accuracies.group(1) == accuracies.group(2)
  assert lines[8] == 'Photos that only one of the two accepts as known: 0'
  assert re.match(r'Milliseconds per photo, in batches of 8: ONNX Runtime '
                  r'\d+\.\d, graph \d+\.\d \(.*, float32\)$', lines[9])


def test_documented_program_without_tensorflow_classifies_alike(exported,
                                                                tmp_path):
  with open(os.path.join(ROOT, 'docs', 'export.md'),
            encoding='utf-8') as stream:
    code, = re.findall('```python\n(import json\n.*?)```', stream.read(), re.S)
  code = code.replace('my_inception_v4.onnx', exported.path) + (
      'import sys; assert not {"tensorflow", "compat"} & set(sys.modules)')
  encoded = kit.make_photo(3, height=170, width=150)
  (tmp_path / 'photo.jpg').write_bytes(encoded)
  done = subprocess.run([sys.executable, '-c', code], cwd=str(tmp_path),
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  scores, = Classifier.from_frozen_graph(exported.frozen).classify([encoded])
  label, score = done.stdout.split()
  assert np.sort(scores)[-1] - np.sort(scores)[-2] > 0.1
  assert label == CLASSES[scores.argmax()]
  assert float(score) == pytest.approx(scores.max(), abs=0.03)


def run_main(exported, path, *flags):
  return kit.run(program, '--frozen_file=' + exported.frozen,
                 '--onnx_file=%s' % path, *flags)


@pytest.mark.parametrize('change', [2e-4, np.nan])
@pytest.mark.parametrize('with_photos', [True, False])
def test_main_model_that_differs_is_not_written(
    exported, tmp_path, monkeypatch, change, with_photos):
  outputs_of = onnx_export.Model.outputs_of

  def changed(self, images):
    outputs = outputs_of(self, images)
    outputs['probabilities'][-1, 0] += change
    return outputs

  monkeypatch.setattr(onnx_export.Model, 'outputs_of', changed)
  with open(exported.path, 'rb') as stream:
    content = stream.read()
  monkeypatch.setattr(onnx_export, 'convert', lambda *args: content)
  flags = ['--checkpoint_path=' + exported.train_dir] * with_photos
  with pytest.raises(InputError, match='is not written: its probabilities '
                     r'differ from those of the frozen graph by (2.0e-04|nan), '
                     'accepted: 1e-04$'):
    run_main(exported, tmp_path / 'a.onnx', *flags)
  assert not os.listdir(str(tmp_path))


def test_main_without_photos_compares_drawings_and_keeps_former_classes(
    exported, tmp_path, capsys, caplog):
  path = tmp_path / 'a.onnx'
  info = graph_info.read_file(exported.path)
  path.write_bytes(graph_info.to_json(info._replace(labels=['white'])))
  assert run_main(exported, path) == 0
  assert re.search(
      "Accuracy not measured: data set 'imagenet' in no folder has no "
      'validation or test photos; on drawings the probabilities differ by at '
      r'most \d\.\de-(0[5-9]|1\d)\n', capsys.readouterr().out)
  assert '%s had the classes white, which the new one lacks' % path in (
      caplog.text)
  assert sorted(os.listdir(str(tmp_path))) == ['a.onnx', 'a_step7.onnx']


def test_main_graph_of_another_step_than_the_checkpoint_is_refused(
    exported, tmp_path):
  other = kit.save_checkpoint(tmp_path / 'train', 'lenet', size=28, step=8)
  with pytest.raises(InputError, match='is of step 7, and .* is of step 8: run '
                     './export_freeze.sh first'):
    run_main(exported, tmp_path / 'a.onnx', '--checkpoint_path=' + other)


def test_convert_without_packages_names_the_command(exported, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tf2onnx', None)
  with pytest.raises(InputError, match='ONNX needs packages that are not '
                     r'installed here \(.*tf2onnx.*\): ./setup.sh --onnx'):
    onnx_export.convert(graph_files.read_frozen(exported.frozen, 'graph'))


def test_convert_fixed_batch_size_is_refused():
  with tf.Graph().as_default():
    info = inference_graph.build('cifarnet', CLASSES, batch_size=2)
    graph_def = inference_graph.to_graph_def(info)
  with pytest.raises(InputError, match='accepts batches of 2 only: export it '
                     'without --batch_size'):
    onnx_export.convert(graph_def)


def test_convert_unsupported_operation_is_named_in_one_line(monkeypatch):
  def network_fn(images):
    net = tf.lgamma(slim.flatten(images)[:, :3])
    return net, {'fc4': net}

  monkeypatch.setattr(nets_factory, 'get_network_fn',
                      lambda *args, **kwargs: network_fn)
  with tf.Graph().as_default():
    graph_def = inference_graph.to_graph_def(
        inference_graph.build('cifarnet', CLASSES))
  with pytest.raises(InputError, match='^ONNX cannot hold the network '
                     'cifarnet: .*Lgamma[^\n]*$'):
    onnx_export.convert(graph_def)


def test_rename_outdated_onnx_model_of_another_step_is_renamed(tmp_path):
  with tf.Graph().as_default():
    info = inference_graph.build('lenet', CLASSES)._replace(global_step=280)
  model, frozen = tmp_path / 'my_x.onnx', str(tmp_path / 'my_x_freeze.pb')
  model.write_bytes(b'\x08\x07' + graph_info.to_json(info))
  assert export_folder.rename_outdated(frozen, info) == []
  message, = export_folder.rename_outdated(
      frozen, info._replace(global_step=680))
  assert message == (
      '%s was of step 280, and %s is of step 680: it is called %s now; '
      'scripts/export_onnx.sh writes one of the same step' % (
          model, frozen, tmp_path / 'my_x_step280.onnx'))
  assert os.listdir(str(tmp_path)) == ['my_x_step280.onnx']


HEADS = [layers_head.Head(), layers_head.Head(flip_average=True),
         layers_head.Head(layers_head.KERNEL, support_points=20)]
# A small network of each family; ONNX_NETWORKS=vgg_a,lenet tests others.
FAMILIES = os.environ.get(
    'ONNX_NETWORKS', 'inception_v1,lenet,mobilenet_v2_035,mobilenet_v3_small,'
    'resnet_v1_50').split(',')


@pytest.mark.slow
@pytest.mark.parametrize('name, head', [(name, None) for name in FAMILIES] +
                         [(NETWORK, head) for head in HEADS])
def test_convert_network_of_each_family_and_head_keeps_logits(name, head,
                                                              tmp_path):
  """Compares logits, because many probabilities are 0 or 1."""
  row = nets_factory.get_network(name)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.zeros([1, row.image_size, row.image_size, row.channels])
    nets_factory.get_network_fn(name, 7, head=head)(images)
    nets_kit.load_seeded_weights(session, tf.model_variables())
    prefix = tf.train.Saver(tf.model_variables()).save(
        session, str(tmp_path / 'model.ckpt'), write_meta_graph=False)
  with tf.Graph().as_default():
    info = inference_graph.build(name, list('abcdefg'), head=head)
    graph_def = inference_graph.freeze(info, prefix)
  graph_info.attach(graph_def, info._replace(predictions=info.logits))
  model = onnx_export.Model(onnx_export.convert(graph_def))
  images = np.random.RandomState(0).uniform(-1, 1, [
      2, row.image_size, row.image_size, row.channels]).astype(np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    expected = session.run(info.logits, {info.input: images})
  assert np.ptp(expected, axis=-1).min() > 0.1
  np.testing.assert_allclose(model.outputs_of(images)['probabilities'],
                             expected, atol=1e-4 * np.abs(expected).max())
