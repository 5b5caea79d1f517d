"""Tests of export_inference_graph.py: flags, output and refused input."""

import logging
import os

import pytest
from google.protobuf import text_format

import export_inference_graph as program
from common import label_files
from common.errors import InputError
from compat import tf
from datasets import imagenet_names, manifest
from evaluation import calibration
from kits import serving_kit as kit
from runs import checkpoints
from serving.model import graph_info


def export_from_flags():
  return program.export_from_flags(program.checkpoint_from_flags())


@pytest.fixture(scope='module')
def train_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('train')
  kit.save_checkpoint(folder, 'cifarnet')
  return str(folder)


def _read(path):
  with open(str(path), 'rb') as file:
    return graph_info.read(tf.GraphDef.FromString(file.read()))


def _save_data_set(folder, labels):
  manifest.save(str(folder), manifest.Manifest(
      'flowers', labels, {}, 0, 10, {}, []))


def test_main_output_file_alone_writes_slims_graph(tmp_path):
  path = tmp_path / 'a.pb'
  assert kit.run(program, '--model_name=cifarnet',
                 '--output_file=%s' % path) == 0
  info = _read(path)
  assert info.labels == imagenet_names.labels()
  assert (info.input_kind, info.image_size, info.checkpoint) == (
      'float', 32, None)
  assert os.listdir(str(tmp_path)) == ['a.pb']
  graph_def = tf.GraphDef.FromString(path.read_bytes())
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    assert graph.get_tensor_by_name('input:0').shape.as_list() == [
        None, 32, 32, 3]
    assert graph.get_tensor_by_name(info.logits).shape.as_list() == [None, 1001]


def test_main_train_directory_needs_no_other_flag(tmp_path, train_dir, capsys):
  path = tmp_path / 'out' / 'my_cifarnet.pb'
  assert kit.run(program, '--checkpoint_path=' + train_dir,
                 '--input_type=encoded', '--output_file=%s' % path) == 0
  assert sorted(os.listdir(str(path.parent))) == [
      'my_cifarnet.pb', 'my_cifarnet_freeze.label', 'my_cifarnet_freeze.md',
      'my_cifarnet_freeze.pb']
  info = _read(path.parent / 'my_cifarnet_freeze.pb')
  assert info == _read(path)._replace(checkpoint='model.ckpt-7', global_step=7)
  assert (info.model_name, info.labels, info.input_kind) == (
      'cifarnet', kit.LABELS, 'encoded')
  label_path = path.parent / 'my_cifarnet_freeze.label'
  assert label_path.read_text().startswith('0:daisy\n1:dandelion\n')
  stdout = capsys.readouterr().out
  for text in ('Wrote %s: graph' % path, 'frozen graph of model.ckpt-7',
               '5 labels', 'CifarNet/logits/BiasAdd',
               'CifarNet/Predictions/Reshape_1'):
    assert text in stdout


def test_main_temperature_fitted_for_these_weights_adds_an_output(
    tmp_path, capsys, caplog):
  prefix = kit.save_checkpoint(tmp_path / 'train', 'cifarnet')
  calibration.save(prefix, calibration.Calibration(
      1.75, 0.2, 0.1, 'validation', 12, 7, checkpoints.digest(prefix), None))
  flags = ('--checkpoint_path=%s' % (tmp_path / 'train'),
           '--output_file=%s' % (tmp_path / 'a.pb'))
  caplog.set_level(logging.INFO, logger='tensorflow')
  assert kit.run(program, *flags) == 0
  for path in ('a.pb', 'a_freeze.pb'):
    info = _read(tmp_path / path)
    assert (info.temperature, info.calibrated_predictions) == (
        1.75, 'CalibratedPredictions:0')
  assert 'CalibratedPredictions (temperature 1.75)' in capsys.readouterr().out
  assert 'fitted on 12 photos of split validation' in caplog.text
  # A temperature of other weights, saved under the same name, is not exported.
  with open(prefix + '.index', 'rb') as stream:
    old = stream.read()
  kit.save_checkpoint(tmp_path / 'train', 'cifarnet', labels=list('abcde'),
                      size=40)
  with open(prefix + '.index', 'rb') as stream:
    assert stream.read() != old
  assert kit.run(program, *flags) == 0
  assert _read(tmp_path / 'a_freeze.pb').calibrated_predictions is None
  assert 'of other weights (step 7); ./report.sh fits one' in caplog.text


def test_main_given_file_names_are_used(tmp_path, train_dir):
  assert kit.run(program, '--checkpoint_path=' + train_dir,
                 '--frozen_file=%s' % (tmp_path / 'f.pb'),
                 '--label_file=%s' % (tmp_path / 'l.txt')) == 0
  assert sorted(os.listdir(str(tmp_path))) == [
      'f.md', 'f.pb', 'l.txt']
  assert label_files.read(str(tmp_path / 'l.txt')) == kit.LABELS


def test_main_failure_keeps_old_files(tmp_path, train_dir):
  path = tmp_path / 'f.pb'
  path.write_text('old')
  _save_data_set(tmp_path, ['a', 'b'])
  with pytest.raises(InputError, match='has the classes a, b, but .* daisy'):
    kit.run(program, '--checkpoint_path=' + train_dir,
            '--dataset_name=flowers', '--dataset_dir=%s' % tmp_path,
            '--frozen_file=%s' % path, '--label_file=%s' % (tmp_path / 'l'))
  assert path.read_text() == 'old'
  assert sorted(os.listdir(str(tmp_path))) == ['f.pb', 'flowers.json']


def test_main_write_text_graphdef_writes_text(tmp_path):
  path = tmp_path / 'a.pbtxt'
  kit.run(program, '--model_name=lenet', '--output_file=%s' % path,
          '--write_text_graphdef')
  graph_def = text_format.Parse(path.read_text(), tf.GraphDef())
  assert graph_info.read(graph_def).model_name == 'lenet'


def test_main_is_training_keeps_dropout(tmp_path):
  has_dropout = []
  for flag in ('--is_training', '--nois_training'):
    path = tmp_path / 'a.pb'
    kit.run(program, '--model_name=cifarnet', flag, '--output_file=%s' % path)
    nodes = tf.GraphDef.FromString(path.read_bytes()).node
    has_dropout.append(any('dropout' in node.name.lower() and
                           node.op == 'RandomUniform' for node in nodes))
  assert has_dropout == [True, False]


@pytest.mark.parametrize('arguments, size', [
    ((), 32),
    (('--image_size=48',), 48),
    (('--default_image_size=40',), 40),
    (('--default_image_size=224',), 224),
    (('--default_image_size=40', '--image_size=48'), 48),
])
def test_export_size_flags_override_the_run(train_dir, arguments, size):
  with kit.parsed_flags(program, '--checkpoint_path=' + train_dir, *arguments):
    assert export_from_flags().image_size == size


@pytest.mark.parametrize('arguments, first, count', [
    ((), 'background', 1001),
    (('--labels_offset=1',), 'tench', 1000),
    (('--dataset_name=flowers', '--dataset_dir=DIR'), 'x', 3),
    (('--dataset_name=flowers', '--dataset_dir=DIR', '--labels_offset=1'),
     'y', 2),
])
def test_export_without_a_run_has_the_labels_of_the_data_set(
    tmp_path, arguments, first, count):
  _save_data_set(tmp_path, ['x', 'y', 'z'])
  arguments = [flag.replace('DIR', str(tmp_path)) for flag in arguments]
  with kit.parsed_flags(program, '--model_name=lenet', *arguments):
    labels = export_from_flags().labels
  assert (labels[0], len(labels)) == (first, count)


def test_export_of_the_runs_data_set_needs_no_folder(train_dir):
  with kit.parsed_flags(program, '--checkpoint_path=' + train_dir,
                        '--dataset_name=my_flower_5', '--dataset_dir=/nowhere',
                        '--preprocessing_name=vgg', '--model_name=cifarnet'):
    export = export_from_flags()
  assert export.labels == kit.LABELS
  assert export.preprocessing_name == 'vgg'


def test_export_for_app_has_batch_size_one():
  with kit.parsed_flags(program, '--for_app', '--model_name=lenet'):
    export = export_from_flags()
  assert (export.batch_size, export.input_kind) == (1, 'float')


@pytest.mark.parametrize('arguments, message', [
    (('--checkpoint_path=TRAIN', '--model_name=lenet'),
     '--model_name=lenet, but the run in .* was trained with cifarnet'),
    (('--checkpoint_path=TRAIN', '--labels_offset=1'),
     '--labels_offset=1, but the run .* was trained with 0'),
    (('--checkpoint_path=TRAIN/x.ckpt',), 'no checkpoint at .*x.ckpt'),
    (('--for_app', '--input_type=encoded'), '--for_app takes float images'),
    (('--for_app', '--batch_size=2'), '--for_app takes float images'),
    (('--dataset_name=flowers',), '--dataset_name=flowers.*--dataset_dir'),
    (('--dataset_name=flowers', '--dataset_dir=/nowhere'), 'flowers'),
    (('--labels_offset=1001',), '--labels_offset=1001 leaves none of the 1001'),
])
def test_export_contradictory_flags_are_refused(train_dir, arguments, message):
  arguments = [flag.replace('TRAIN', train_dir) for flag in arguments]
  with kit.parsed_flags(program, *arguments):
    with pytest.raises(InputError, match=message):
      export_from_flags()


@pytest.mark.parametrize('arguments, message', [
    ((), '--output_file is needed'),
    (('--frozen_file=a',), '--frozen_file needs --checkpoint_path'),
    (('--checkpoint_path=c',), '--frozen_file is needed'),
    (('--checkpoint_path=c', '--frozen_file=a', '--is_training'),
     '--is_training is only for graphs'),
    (('--checkpoint_path=c', '--frozen_file=a', '--output_file=./a'),
     'are both ./a'),
])
def test_paths_missing_or_useless_flags_are_refused(arguments, message):
  with kit.parsed_flags(program, *arguments):
    with pytest.raises(InputError, match=message):
      program.paths_from_flags()


def test_flags_have_slims_defaults():
  with kit.parsed_flags(program):
    values = program.FLAGS
    assert (values.model_name, values.dataset_name, values.dataset_dir,
            values.output_file, values.labels_offset, values.image_size,
            values.default_image_size, values.batch_size, values.is_training,
            values.for_app, values.write_text_graphdef) == (
                'inception_v3', 'imagenet', '', '', 0, None, 224, None, False,
                False, False)
