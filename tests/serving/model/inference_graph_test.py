"""Tests of inference_graph.py: nodes, both kinds of inputs, freezing."""

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from datasets import input_pipeline
from kits import serving_kit as kit
from nets import nets_factory
from preprocessing import preprocessing_factory
from serving.model import graph_info, inference_graph

# Op names that slim gives (num_classes 11); computed with its own networks.
OUTPUT_NODES = {
    'cifarnet': ('CifarNet/logits/BiasAdd', 'CifarNet/Predictions/Reshape_1'),
    'inception_v4': ('InceptionV4/Logits/Logits/BiasAdd',
                     'InceptionV4/Logits/Predictions'),
    'lenet': ('LeNet/fc4/BiasAdd', 'Predictions/Reshape_1'),
    'mobilenet_v1': ('MobilenetV1/Logits/SpatialSqueeze',
                     'MobilenetV1/Predictions/Reshape_1'),
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  return kit.save_checkpoint(tmp_path_factory.mktemp('train'), 'cifarnet')


@pytest.fixture(scope='module')
def mobilenet(tmp_path_factory):
  """Checkpoint of a network with batch norm; its moving averages are zero."""
  return kit.save_checkpoint(tmp_path_factory.mktemp('mobilenet'), decay=0.99)


def _freeze(prefix, input_kind, labels=None, decay=None, name='cifarnet',
            **kwargs):
  with tf.Graph().as_default():
    info = inference_graph.build(name, labels or kit.LABELS, kit.SIZE,
                                 input_kind=input_kind, **kwargs)
    return inference_graph.freeze(info, prefix, decay)


def _run(graph_def, outputs, feed):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    return session.run(outputs, {'input:0': feed})


def _scores_from_checkpoint(prefix, photos):
  """Returns the scores that evaluation computes, and its input images."""
  preprocess = preprocessing_factory.get_preprocessing('inception', False)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.stack([
        input_pipeline.photo_to_input(tf.constant(p), preprocess, kit.SIZE,
                                      kit.SIZE) for p in photos])
    network_fn = nets_factory.get_network_fn('mobilenet_v1_025',
                                             len(kit.LABELS))
    logits, _ = network_fn(images)
    tf.train.Saver(tf.model_variables()).restore(session, prefix)
    return session.run([tf.nn.softmax(logits), images])


@pytest.mark.parametrize('name', sorted(OUTPUT_NODES))
def test_build_output_nodes_have_the_names_of_slim(name):
  with tf.Graph().as_default() as graph:
    info = inference_graph.build(name, ['class %d' % i for i in range(11)])
    shape = graph.get_tensor_by_name(info.input).shape.as_list()
    row = nets_factory.get_network(name)
    assert (info.logits, info.predictions) == tuple(
        node + ':0' for node in OUTPUT_NODES[name])
    assert info.input == 'input:0'
    assert shape == [None, row.image_size, row.image_size, row.channels]
    assert graph.get_tensor_by_name(info.features).shape.ndims in (2, 4)
    assert info.preprocessing_name == row.preprocessing


def test_build_network_without_predictions_gets_softmax(monkeypatch):
  def network_fn(images):
    logits = tf.identity(tf.reduce_mean(images, [1, 2]), name='net/logits')
    return logits, {'fc3': logits}

  monkeypatch.setattr(nets_factory, 'get_network_fn',
                      lambda *args, **kwargs: network_fn)
  with tf.Graph().as_default(), tf.Session() as session:
    info = inference_graph.build('lenet', ['only'])
    assert info.predictions == 'Predictions:0'
    images = np.ones([3, 28, 28, 1], np.float32)
    assert session.run(info.predictions, {info.input: images}).tolist() == [
        [1.0]] * 3


@pytest.mark.parametrize('input_kind, batch_size, shape', [
    ('float', 1, [1, 32, 32, 3]), ('float', None, [None, 32, 32, 3]),
    ('encoded', None, None),
])
def test_build_input_has_the_requested_shape(input_kind, batch_size, shape):
  with tf.Graph().as_default() as graph:
    info = inference_graph.build('cifarnet', kit.LABELS, input_kind=input_kind,
                                 batch_size=batch_size)
    tensor = graph.get_tensor_by_name(info.input)
    assert (tensor.shape.as_list() if shape else tensor.shape.ndims) == shape
    assert tensor.op.type == 'Placeholder'
    logits = graph.get_tensor_by_name(info.logits)
    assert logits.shape.as_list() == [batch_size, 5]


def test_build_invalid_arguments_are_refused():
  with tf.Graph().as_default():
    with pytest.raises(InputError, match="'video'; known: float, encoded"):
      inference_graph.build('cifarnet', ['a'], input_kind='video')
    with pytest.raises(InputError, match='at least one label'):
      inference_graph.build('cifarnet', [])
    with pytest.raises(InputError, match="unknown network 'resnet'"):
      inference_graph.build('resnet', ['a'])


@pytest.mark.slow
def test_freeze_agrees_with_checkpoint_for_every_input_kind(mobilenet):
  photos = [kit.make_photo(seed) for seed in range(3)]
  photos.append(kit.make_photo(4, 'PNG', 33, 90))
  expected, images = _scores_from_checkpoint(mobilenet, photos)
  assert np.ptp(expected, axis=0).max() > 0.01, 'photos must differ'
  encoded = _freeze(mobilenet, 'encoded', name='mobilenet_v1_025')
  info = graph_info.read(encoded)
  vector = _run(encoded, info.predictions, photos)
  scalars = [_run(encoded, info.predictions, photo) for photo in photos]
  floats = _run(_freeze(mobilenet, 'float', name='mobilenet_v1_025'),
                info.predictions, images)
  assert [scalar.shape for scalar in scalars] == [(1, 5)] * 4
  for scores in (vector, np.concatenate(scalars), floats):
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_freeze_keeps_outputs_and_info_but_no_variables(trained):
  graph_def = _freeze(trained, 'encoded', labels_offset=1)
  info = graph_info.read(graph_def)
  assert info.labels == kit.LABELS
  assert (info.labels_offset, info.checkpoint) == (1, 'model.ckpt-7')
  logits, predictions, features = _run(
      graph_def, [info.logits, info.predictions, info.features],
      [kit.make_photo(1)])
  np.testing.assert_allclose(
      predictions, np.exp(logits) / np.exp(logits).sum(), atol=1e-6)
  assert features.shape == (1, 192)
  op_types = {node.op for node in graph_def.node}
  assert not op_types & {'VariableV2', 'VarHandleOp', 'Assign', 'SaveV2'}


def test_freeze_with_temperature_adds_scores_and_keeps_predictions(trained):
  plain, graph_def = (_freeze(trained, 'encoded', temperature=t)
                      for t in (None, 2.5))
  info = graph_info.read(graph_def)
  assert (info.calibrated_predictions, info.temperature) == (
      'CalibratedPredictions:0', 2.5)
  photos = [kit.make_photo(seed) for seed in range(3)]
  logits, predictions, calibrated = _run(
      graph_def, [info.logits, info.predictions, info.calibrated_predictions],
      photos)
  powers = np.exp(logits / 2.5)
  np.testing.assert_allclose(
      calibrated, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
  assert abs(calibrated - predictions).max() > 0.01
  assert graph_info.read(plain).calibrated_predictions is None
  assert 'CalibratedPredictions' not in {node.name for node in plain.node}
  np.testing.assert_array_equal(
      _run(plain, info.predictions, photos), predictions)


def test_freeze_with_decay_uses_moving_averages(mobilenet):
  graph_def = _freeze(mobilenet, 'encoded', name='mobilenet_v1_025', decay=0.99)
  scores = _run(graph_def, graph_info.read(graph_def).predictions,
                kit.make_photo(1))
  np.testing.assert_allclose(scores, [[0.2] * 5], atol=1e-6)


def test_freeze_train_directory_uses_newest_checkpoint(tmp_path):
  kit.save_checkpoint(tmp_path, 'cifarnet', step=7)
  kit.save_checkpoint(tmp_path, 'cifarnet', step=12)
  info = graph_info.read(_freeze(str(tmp_path), 'float'))
  assert info.checkpoint == 'model.ckpt-12'


def test_freeze_missing_checkpoint_is_named(tmp_path):
  with pytest.raises(InputError, match='no checkpoint.*nothing.ckpt'):
    _freeze(str(tmp_path / 'nothing.ckpt'), 'float')


def test_freeze_other_number_of_classes_is_refused(trained):
  with pytest.raises(InputError, match='trained for 5 classes, the labels '
                     'name 3.*--dataset_name'):
    _freeze(trained, 'float', labels=['a', 'b', 'c'])


def test_freeze_other_network_error_names_variable_and_flag(trained, mobilenet):
  with pytest.raises(InputError, match='lacks MobilenetV1/Conv2d_0/.*'
                     '--model_name'):
    _freeze(trained, 'float', name='mobilenet_v1_025')
  with pytest.raises(InputError, match=r'MobilenetV1/.*checkpoint \[8\], '
                     r'network \[16\].*--model_name'):
    _freeze(mobilenet, 'float', name='mobilenet_v1_050')


def test_freeze_missing_moving_averages_error_names_the_flag(trained):
  with pytest.raises(InputError, match='ExponentialMovingAverage.*omit '
                     '--moving_average_decay'):
    _freeze(trained, 'float', decay=0.9)


@pytest.mark.parametrize('name', ['cifarnet', 'lenet', 'mobilenet_v1_025'])
def test_num_classes_is_read_from_the_checkpoint(tmp_path, name):
  size = nets_factory.get_network(name).image_size if name == 'lenet' else 32
  prefix = kit.save_checkpoint(tmp_path, name, ['a', 'b', 'c'], size)
  assert inference_graph.num_classes(prefix, name) == 3
  assert inference_graph.num_classes(prefix, 'inception_v4') is None
