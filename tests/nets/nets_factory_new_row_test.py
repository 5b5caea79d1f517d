"""Tests of nets_factory.py: programs need only the row of a new network."""

import json

import pytest

import eval_image_classifier
import export_inference_graph
from compat import slim, tf
from kits import serving_kit as kit
from kits import trained_kit
from nets import nets_factory
from preprocessing import preprocessing_factory
from serving.model.classifier import Classifier
from tools import inspect_checkpoint, list_models, summarize_graph

NAME = 'new_network'
SIZE = 24


def build(images, num_classes, is_training=False):
  """Builds the network, as the module that a developer writes would."""
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
  """Adds the row."""
  monkeypatch.setitem(nets_factory.NETWORKS, NAME, nets_factory.Network(
      build, arg_scope, 'vgg', SIZE, 3, ('NewNetwork/Logits',), 'features'))


def test_list_models_shows_a_network_without_counted_costs(capsys):
  assert kit.run(list_models) == 0
  line, = [line for line in capsys.readouterr().out.splitlines()
           if line.startswith(NAME)]
  assert line.split() == [NAME, '24', '-', '-', '-', '-', 'vgg', '-',
                          'NewNetwork/Logits']
  assert kit.run(list_models, '--model_name=' + NAME) == 0
  shown = capsys.readouterr().out
  assert 'parameters:     not counted\n' in shown and 'None' not in shown
  assert '24 x 24 x 3, preprocessing vgg' in shown
  for form in ('json', 'csv'):
    assert kit.run(list_models, '--format=' + form) == 0
    shown = capsys.readouterr().out
    assert NAME in shown
    if form == 'json':
      model, = [model for model in json.loads(shown) if model['name'] == NAME]
      assert model['parameters'] is None and model['checkpoints'] == []


def test_preprocessing_of_a_network_is_the_one_of_its_row():
  assert preprocessing_factory.family_of(NAME) == 'vgg'
  with tf.Graph().as_default():
    image = preprocessing_factory.get_preprocessing(NAME, True)(
        tf.zeros([30, 40, 3], tf.uint8), SIZE, SIZE)
    assert image.shape.as_list() == [SIZE, SIZE, 3]


def test_programs_train_evaluate_and_export_a_network(tmp_path, capsys):
  data, train_dir = trained_kit.make_dataset(tmp_path), tmp_path / 'train'
  checkpoint = trained_kit.train(
      data, train_dir, '--model_name=' + NAME, '--max_number_of_steps=2',
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
