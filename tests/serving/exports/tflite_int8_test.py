"""Tests of serving/exports/tflite_int8.py, and of models with uint8 input."""

import numpy as np
import pytest

import compat
from compat import tf
from datasets import dataset_factory
from kits import serving_kit as kit
from kits.trained_kit import CLASSES, NAME, make_dataset
from nets import layers_head
from serving.exports import tflite, tflite_int8
from serving.model import graph_info, inference_graph

NETWORK = 'mobilenet_v1_025'

needs_tensorflow_2 = pytest.mark.skipif(
    not compat.QUANTIZES_TFLITE, reason='TensorFlow 1.15 is refused')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  data = make_dataset(tmp_path_factory.mktemp('data'))
  return dataset_factory.get_dataset(NAME, 'train', data)


@pytest.fixture(scope='module')
def graph_def(tmp_path_factory):
  """A frozen graph with float input and random weights."""
  folder = str(tmp_path_factory.mktemp('train'))
  kit.save_checkpoint(folder, NETWORK, CLASSES)
  return freeze(folder)


def freeze(folder, **options):
  with tf.Graph().as_default():
    info = inference_graph.build(NETWORK, CLASSES, kit.SIZE, batch_size=1,
                                 **options)
    return inference_graph.freeze(info, folder)


def quantize(graph_def, dataset, inference_type=tflite.FLOAT32):
  return tflite.convert(
      graph_def, tflite.INT8, inference_type,
      tflite_int8.training_images(dataset, graph_info.require(graph_def)))


def tensors_of(content):
  """Returns the {name: details} of a model's tensors, and its operations."""
  with compat.tflite_tools() as lite:
    interpreter = lite.Interpreter(model_content=content)
  return ({tensor['name']: tensor for tensor in interpreter.get_tensor_details()
           }, interpreter._get_ops_details())


def scores_of(content, graph_def, dataset):
  """Returns the probabilities of the training photos."""
  info = graph_info.require(graph_def)
  model = tflite.Model(content, info)
  return np.concatenate([model.scores(image) for image in
                         tflite_int8.training_images(dataset, info)])


@pytest.mark.parametrize('max_photos, expected', [
    (200, [7, 7, 7]), (8, [2, 2, 2]), (2, [1, 1])])
def test_training_images_are_equally_many_of_each_class(
    graph_def, dataset, max_photos, expected):
  info = graph_info.require(graph_def)
  both = [list(tflite_int8.training_images(dataset, info, max_photos))
          for _ in range(2)]
  np.testing.assert_array_equal(*both)
  assert {image.shape for image in both[0]} == {(1, kit.SIZE, kit.SIZE, 3)}
  # A photo of class n is mostly of the colour channel 2 - n.
  channels = [image.mean(axis=(0, 1, 2)).argmax() for image in both[0]]
  counts = np.bincount(2 - np.array(channels))
  assert sorted(counts[counts > 0]) == expected


@needs_tensorflow_2
def test_first_layers_and_classifier_stay_float32(graph_def, dataset):
  tensors, operations = tensors_of(quantize(graph_def, dataset))
  names = {tensor['index']: tensor for tensor in tensors.values()}
  weights = [names[operation['inputs'][1]] for operation in operations
             if operation['op_name'] in ('CONV_2D', 'DEPTHWISE_CONV_2D')]
  assert len(weights) == 28
  types = [tensor['dtype'] for tensor in weights]
  assert types == [np.float32] * 2 + [np.int8] * 25 + [np.float32]
  for tensor in weights[2:-1]:
    scales = tensor['quantization_parameters']['scales']
    assert len(scales) in tensor['shape'] and len(scales) > 1


def test_hard_swish_and_all_around_the_backbone_stay_float32():
  """Lists operations: (kind, name of the output, inputs, output)."""
  operations = [
      ('CONV_2D', 'MobilenetV3/Conv/relu', [0, 10], 1),
      ('HARD_SWISH', 'MobilenetV3/Conv/swish', [1], 2),
      ('DEPTHWISE_CONV_2D', 'MobilenetV3/conv_1/depthwise', [2, 11], 3),
      ('MEAN', 'MobilenetV3/conv_1/squeeze', [3], 4),
      ('MUL', 'MobilenetV3/conv_1/excite', [3, 4], 5),
      ('MEAN', 'Mean', [5], 6),
      ('HARD_SWISH', 'MobilenetV3/conv_2/swish', [5], 7),
      ('CONV_2D', 'MobilenetV3/conv_2/relu', [7, 12], 8),
      ('MEAN', 'Mean_1', [8], 9),
      ('FULLY_CONNECTED', 'x;LayersHead/MatMul', [9, 6], 13)]

  class Interpreter:
    """Stands in for the interpreter of a model."""

    @staticmethod
    def get_tensor_details():
      return [{'index': output, 'name': name}
              for _, name, _, output in operations]

    @staticmethod
    def _get_ops_details():
      return [{'op_name': kind, 'inputs': inputs, 'outputs': [output]}
              for kind, _, inputs, output in operations]

  with tf.Graph().as_default():
    info = inference_graph.build('mobilenet_v3_small', CLASSES)
  kept = tflite_int8._float_operations(Interpreter(), info)
  assert set(kept) == {
      'MobilenetV3/Conv/relu', 'MobilenetV3/Conv/swish',
      'MobilenetV3/conv_1/depthwise', 'Mean', 'MobilenetV3/conv_2/swish',
      'Mean_1', 'x;LayersHead/MatMul'}


@needs_tensorflow_2
def test_head_over_layers_stays_float32(tmp_path, dataset):
  head = layers_head.Head()
  with tf.Graph().as_default(), tf.Session() as session:
    inference_graph.build(NETWORK, CLASSES, kit.SIZE, batch_size=1, head=head)
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'))
  _, operations = tensors_of(quantize(freeze(prefix, head=head), dataset))
  kinds = [operation['op_name'] for operation in operations]
  last = len(kinds) - 1 - kinds[::-1].index('CONV_2D')
  assert 'SQRT' in kinds[last:] and 'FULLY_CONNECTED' in kinds[last:]
  assert 'QUANTIZE' not in kinds[last:]
  assert kinds.count('DEQUANTIZE') == kinds.count('MEAN')


@needs_tensorflow_2
@pytest.mark.parametrize('inference_type', tflite.INFERENCE_TYPES)
def test_int8_scores_are_near_those_of_float32(graph_def, dataset,
                                               inference_type):
  content = quantize(graph_def, dataset, inference_type)
  expected = scores_of(tflite.convert(graph_def), graph_def, dataset)
  actual = scores_of(content, graph_def, dataset)
  assert np.ptp(expected, axis=0).max() > 0.01, 'photos must differ'
  # Random weights give less exact scores than trained ones.
  assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > 0.9
  assert np.abs(actual - expected).mean() < 0.1


@needs_tensorflow_2
def test_uint8_input_is_pixel_values(graph_def, dataset):
  tensors, _ = tensors_of(quantize(graph_def, dataset, tflite.UINT8))
  assert [(tensor['shape'].tolist(), tensor['quantization'])
          for tensor in tensors.values() if tensor['dtype'] == np.uint8] == [
              ([1, kit.SIZE, kit.SIZE, 3], (1.0, 0)), ([1, 3], (1 / 256, 0))]
