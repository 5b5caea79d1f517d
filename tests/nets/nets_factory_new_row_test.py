"""Tests that the programs need only the row of a new network."""

import glob
import json
import os

import pytest

import eval_image_classifier
import export_inference_graph
from compat import slim, tf
from kits import download_kit, trained_kit
from kits import serving_kit as kit
from nets import nets_factory
from nets.networks import Checkpoint, Cost, Network
from preprocessing import preprocessing_factory
from serving.model.classifier import Classifier
from tools import (
  download_checkpoint,
  inspect_checkpoint,
  list_models,
  summarize_graph,
)

NAME = 'new_network'
SIZE = 24
ARCHIVE = 'new_network_2020_02_02.tar.gz'
ROW = Network(
    None, None, 'vgg', SIZE, 3, ('NewNetwork/Logits',), 'features', (),
    Cost(7, 16247, 78336), (
        Checkpoint('new_network_24', 'https://localhost/' + ARCHIVE,
                   'inside.ckpt', 61.0, 82.5),))


def build(images, num_classes, is_training=False):
  """Builds the network, as its module in nets/ would."""
  del is_training
  with tf.variable_scope('NewNetwork'):
    net = slim.conv2d(images, 4, 3, scope='conv')
    features = slim.flatten(net, scope='features')
    logits = slim.fully_connected(features, num_classes, activation_fn=None,
                                  scope='Logits')
  return logits, {'features': features, 'Logits': logits}


def arg_scope(weight_decay=0.0):
  with slim.arg_scope(
      [slim.conv2d], weights_regularizer=slim.l2_regularizer(weight_decay)) as (
          scope):
    return scope


@pytest.fixture(autouse=True)
def row(monkeypatch):
  """Adds the row to the table; returns it."""
  row = ROW._replace(function=build, arg_scope=arg_scope)
  monkeypatch.setitem(nets_factory.NETWORKS, NAME, row)
  return row


def listing(capsys, *flags):
  """Returns the output of list_models."""
  assert kit.run(list_models, *flags) == 0
  return capsys.readouterr().out


def table_row(capsys):
  line, = [line for line in listing(capsys).splitlines()
           if line.startswith(NAME)]
  return line.split()


def test_list_models_shows_a_network_with_costs_and_checkpoint(capsys):
  assert table_row(capsys) == [
      NAME, '24', '0.02', 'M', '0', 'M', '61.0', '82.5', 'vgg', ARCHIVE,
      'NewNetwork/Logits']
  details = listing(capsys, '--model_name=' + NAME)
  assert '0.02 M with 7 classes' in details
  assert 'new_network_24' in details and ARCHIVE in details
  model, = json.loads(listing(capsys, '--format=json', '--model_name=' + NAME))
  assert (model['classes'], model['parameters'], model['multiply_adds']) == (
      ROW.cost)
  assert model['checkpoints'] == [{
      'name': 'new_network_24', 'file': ARCHIVE,
      'url': 'https://localhost/' + ARCHIVE, 'top_1': 61.0, 'top_5': 82.5,
      'is_quantized': False}]


def test_list_models_shows_a_network_without_counted_costs(capsys, row,
                                                           monkeypatch):
  monkeypatch.setitem(nets_factory.NETWORKS, NAME, row._replace(
      cost=None, checkpoints=()))
  assert table_row(capsys) == [NAME, '24', '-', '-', '-', '-', 'vgg', '-',
                               'NewNetwork/Logits']
  details = listing(capsys, '--model_name=' + NAME)
  assert 'parameters:     not counted\n' in details and 'None' not in details
  assert '24 x 24 x 3, preprocessing vgg' in details
  assert NAME in listing(capsys, '--format=csv')
  model, = json.loads(listing(capsys, '--format=json', '--model_name=' + NAME))
  assert model['parameters'] is None and model['checkpoints'] == []


def test_preprocessing_of_a_network_is_that_of_its_row():
  assert preprocessing_factory.family_of(NAME) == 'vgg'
  with tf.Graph().as_default():
    image = preprocessing_factory.get_preprocessing(NAME, True)(
        tf.zeros([30, 40, 3], tf.uint8), SIZE, SIZE)
    assert image.shape.as_list() == [SIZE, SIZE, 3]


def put_archive(folder):
  """Writes the archive of the published checkpoint, with 7 classes."""
  prefix = kit.save_checkpoint(folder / 'made', NAME, list('abcdefg'), SIZE,
                               with_run=False)
  files = {'inside.ckpt' + path[len(prefix):]: open(path, 'rb').read()
           for path in glob.glob(prefix + '.*')}
  (folder / ARCHIVE).write_bytes(download_kit.tar_gz(files))


@pytest.mark.slow
def test_programs_download_train_evaluate_and_export_a_network(tmp_path,
                                                               capsys):
  put_archive(tmp_path)
  assert kit.run(download_checkpoint, '--checkpoint_dir=%s' % tmp_path,
                 '--model_name=' + NAME) == 0
  start = str(tmp_path / (NAME + '.ckpt'))
  assert 'CHECKPOINT_PATH=%s ' % start in capsys.readouterr().out
  assert os.path.isfile(str(tmp_path / 'new_network_24.ckpt.index'))
  data, train_dir = trained_kit.make_dataset(tmp_path), tmp_path / 'train'
  checkpoint = trained_kit.train(
      data, train_dir, '--model_name=' + NAME, '--max_number_of_steps=2',
      '--checkpoint_path=' + start,
      '--checkpoint_exclude_scopes=' + ','.join(ROW.classifier_scopes),
      '--preprocessing_name=' + NAME)
  assert kit.run(
      eval_image_classifier, '--checkpoint_path=%s' % train_dir,
      '--eval_dir=%s' % (tmp_path / 'eval'), '--dataset_dir=' + data,
      '--dataset_name=' + trained_kit.NAME,
      '--dataset_split_name=validation') == 0
  assert kit.run(inspect_checkpoint, '--model_name=' + NAME,
                 '--checkpoint_path=' + checkpoint) == 0
  frozen = tmp_path / 'frozen.pb'
  assert kit.run(
      export_inference_graph, '--checkpoint_path=%s' % train_dir,
      '--output_file=%s' % (tmp_path / 'graph.pb'),
      '--frozen_file=%s' % frozen, '--input_type=encoded') == 0
  capsys.readouterr()
  assert kit.run(summarize_graph, '--in_graph=%s' % frozen) == 0
  assert NAME in capsys.readouterr().out
  classifier = Classifier.from_frozen_graph(str(frozen))
  scores = classifier.classify([trained_kit.colour_photo(0, 0)])
  assert scores.shape == (1, 3)
