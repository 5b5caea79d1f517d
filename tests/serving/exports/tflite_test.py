"""Tests of serving/exports/tflite.py: conversion of networks."""

import os

import numpy as np
import pytest

import compat
from common.errors import InputError
from compat import slim, tf
from kits import nets_kit
from kits.trained_kit import CLASSES
from nets import nets_factory
from serving.exports import tflite
from serving.model import graph_info, inference_graph

needs_tensorflow_2 = pytest.mark.skipif(
    not compat.QUANTIZES_TFLITE, reason='int8 needs TensorFlow 2')


def test_convert_unsupported_operation_is_named_in_one_line(
    tmp_path, monkeypatch):
  def network_fn(images):
    net = tf.reshape(slim.avg_pool2d(images, 4, 4), [1, 8, 24])
    net = tf.matmul(net, net, transpose_b=True)
    net = tf.reshape(tf.matrix_determinant(net), [1, 1])
    return tf.concat([net, net, net], 1), {'fc4': net}

  monkeypatch.setattr(nets_factory, 'get_network_fn',
                      lambda *args, **kwargs: network_fn)
  with tf.Graph().as_default():
    info = inference_graph.build('cifarnet', CLASSES, batch_size=1)
    graph_def = inference_graph.to_graph_def(info)
  with pytest.raises(InputError) as error:
    tflite.convert(graph_def)
  assert str(error.value) == ('TensorFlow Lite cannot hold the network '
                              'cifarnet: it lacks MatrixDeterminant')


@pytest.mark.parametrize('quantization, inference_type, family, message', [
    (tflite.NONE, tflite.UINT8, 'inception',
     '--inference_type=uint8 needs --quantize=int8, got --quantize=none'),
    pytest.param(
        tflite.INT8, tflite.UINT8, 'cifarnet',
        "--inference_type=uint8: the preprocessing 'cifarnet' divides by the "
        'standard deviation of each photo', marks=needs_tensorflow_2),
    pytest.param(
        tflite.INT8, tflite.FLOAT32, 'inception',
        '--quantize=int8 needs TensorFlow 2, .* put ENGINE=tf2 in front',
        marks=pytest.mark.skipif(compat.QUANTIZES_TFLITE,
                                 reason='TensorFlow 2 quantizes')),
])
def test_check_refuses_with_a_reason(quantization, inference_type, family,
                                     message):
  with pytest.raises(InputError, match=message) as error:
    tflite.check(quantization, inference_type, family)
  assert '\n' not in str(error.value)


def test_describe_input_has_numbers_of_family():
  def describe(name, size=224):
    with tf.Graph().as_default():
      return tflite.describe_input(inference_graph.build(
          'lenet' if name == 'lenet' else 'cifarnet', CLASSES, size,
          preprocessing_name=name))

  assert '(value - 127.5) / 127.5' in describe('inception')
  assert describe('vgg').endswith('value - 123.68, 116.78, 103.94 of red, '
                                  'green, blue')
  assert 'made 256 pixels' in describe('vgg')
  assert 'made 300 pixels' in describe('vgg', 300)
  assert 'in grey' in describe('lenet', 28)
  assert "the image's standard deviation" in describe('cifarnet')


# One network for each kind of layers. TFLITE_NETWORKS=vgg_a,lenet tests others;
# in November 2026 all 41 networks were converted with float16 and with int8.
FAMILIES = os.environ.get(
    'TFLITE_NETWORKS', 'inception_v1,mobilenet_v3_small,resnet_v1_50'
).split(',')


@pytest.mark.slow
@pytest.mark.parametrize('quantization, error', [
    (tflite.NONE, 1e-4), (tflite.FLOAT16, 0.02),
    pytest.param(tflite.INT8, 0.25, marks=needs_tensorflow_2)])
@pytest.mark.parametrize('name', FAMILIES)
def test_convert_network_of_each_kind_keeps_logits(name, quantization, error,
                                                   tmp_path):
  """Compares logits: with untrained weights some probabilities are 0 or 1."""
  row = nets_factory.get_network(name)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.zeros([1, row.image_size, row.image_size, row.channels])
    nets_factory.get_network_fn(name, 7)(images)
    nets_kit.load_seeded_weights(session, tf.model_variables())
    prefix = tf.train.Saver(tf.model_variables()).save(
        session, str(tmp_path / 'model.ckpt'), write_meta_graph=False)
  with tf.Graph().as_default():
    info = inference_graph.build(name, list('abcdefg'), batch_size=1)
    graph_def = inference_graph.freeze(info, prefix)
  graph_info.attach(graph_def, info._replace(predictions=info.logits))
  random = np.random.RandomState(0)
  images = random.uniform(-1, 1, [
      2, 1, row.image_size, row.image_size, row.channels]).astype(np.float32)
  model = tflite.Model(
      tflite.convert(graph_def, quantization, images=iter(images)), info)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    expected = np.array([session.run(info.logits, {info.input: image})
                         for image in images])
  actual = np.array([model.scores(image) for image in images])
  assert np.ptp(expected, axis=-1).min() > 0.1
  np.testing.assert_allclose(actual, expected,
                             atol=error * np.abs(expected).max())
