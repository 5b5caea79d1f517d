"""Tests of nets/frozen_backbone.py, in small graphs and in each network."""

import re

import numpy as np
import pytest

from compat import slim, tf
from kits.helpers import slow_by_turns
from nets import frozen_backbone, nets_factory
from nets.batch_norm import batch_norm
from training import warm_start


def _names(tensors):
  return [tensor.op.name for tensor in tensors]


@pytest.fixture
def images():
  with tf.Graph().as_default():
    yield tf.placeholder(tf.float32, [None, 8, 8, 3], name='images')


def _layer(net, name):
  return slim.conv2d(net, 4, 3, scope=name)


def _trained(*scopes):
  return warm_start.matching(tf.trainable_variables(), scopes)


def test_find_cut_trained_layer_returns_its_input(images):
  net = _layer(_layer(images, 'one'), 'two')
  cut = frozen_backbone.find_cut(images, [_layer(net, 'three')],
                                 _trained('three'))
  assert cut.features == [net]
  assert cut.shapes == []


def test_find_cut_two_heads_returns_the_input_of_each(images):
  backbone = _layer(images, 'one')
  low, high = _layer(backbone, 'low'), _layer(_layer(backbone, 'two'), 'high')
  cut = frozen_backbone.find_cut(
      images, [_layer(low, 'a'), _layer(high, 'b')], _trained('a', 'b'))
  assert cut.features == [high, low]


def test_find_cut_random_operation_ends_the_backbone(images):
  net = _layer(images, 'one')
  within = {op.name for op in net.graph.get_operations()}
  dropped = slim.dropout(net, 0.5, is_training=True)
  outputs = [_layer(_layer(dropped, 'two'), 'three')]
  cut = frozen_backbone.find_cut(images, outputs, _trained('three'),
                                 within)
  assert cut.features == [net]
  # The shape that dropout reads is fed, not computed.
  assert [tensor.op.inputs[0] for tensor in cut.shapes] == [net]


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('is_training', [True, False])
def test_find_cut_batch_statistics_end_the_backbone(images, fused, is_training):
  net = _layer(images, 'one')
  normal = slim.batch_norm(net, is_training=is_training, fused=fused,
                           scope='norm')
  outputs = [_layer(tf.nn.relu(normal, name='relu'), 'two')]
  cut = frozen_backbone.find_cut(images, outputs, _trained('two'))
  assert _names(cut.features) == ['one/Relu' if is_training else 'relu']


def test_find_cut_mean_over_the_batch_is_not_in_the_backbone(images):
  net = _layer(images, 'one')
  centred = net - tf.reduce_mean(net, 0, keepdims=True)
  cut = frozen_backbone.find_cut(images, [_layer(centred, 'two')],
                                 _trained('two'))
  assert cut.features == [net]


def test_find_cut_reshape_by_batch_size_is_in_the_backbone(images):
  net = tf.reshape(_layer(images, 'one'), [tf.shape(images)[0], 8 * 8 * 4])
  flat = tf.identity(net, name='flat')
  cut = frozen_backbone.find_cut(
      images, [slim.fully_connected(flat, 2, scope='two')], _trained('two'))
  assert _names(cut.features) == ['flat']


def test_find_cut_first_layer_trained_is_refused(images):
  outputs = [_layer(_layer(images, 'one'), 'two')]
  with pytest.raises(ValueError, match='one/Conv2D reads the photos'):
    frozen_backbone.find_cut(images, outputs, _trained('one'))


def test_find_cut_known_batch_size_is_refused():
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [2, 8, 8, 3])
    with pytest.raises(ValueError, match='batch size .* must be unknown'):
      frozen_backbone.find_cut(images, [_layer(images, 'one')], [])


def test_find_cut_outputs_of_other_inputs_are_refused(images):
  other = tf.placeholder(tf.float32, [None, 8, 8, 3])
  with pytest.raises(ValueError, match='do not depend on images'):
    frozen_backbone.find_cut(images, [_layer(other, 'one')], _trained('one'))


def test_cut_feed_runs_only_the_head(images):
  net = _layer(images, 'one')
  within = {op.name for op in net.graph.get_operations()}
  net = slim.dropout(net, 0.5, is_training=True)
  logits = slim.fully_connected(slim.flatten(net), 2, scope='two')
  cut = frozen_backbone.find_cut(images, [logits], _trained('two'),
                                 within)
  with tf.Session() as session:
    session.run([v.initializer for v in _trained('two')])
    # The variables of the backbone have no value: reading one would fail.
    feed = cut.feed([np.ones([5, 8, 8, 4], np.float32)])
    assert session.run(logits, feed).shape == (5, 2)


# Networks whose cut is not the end point that feeds the classifier: an
# auxiliary classifier has a separate cut, and dropout and the layers after it
# are in the head.
CUTS = {
    'alexnet_v2': ['alexnet_v2/fc6/Relu'],
    'cifarnet': ['CifarNet/fc3/Relu'],
    'inception_resnet_v2': [
        'InceptionResnetV2/AuxLogits/Conv2d_1a_3x3/AvgPool',
        'InceptionResnetV2/Logits/Flatten/flatten/Reshape'],
    'inception_v3': ['InceptionV3/AuxLogits/AvgPool_1a_5x5/AvgPool',
                     'InceptionV3/Logits/AvgPool_1a_8x8/AvgPool'],
    'inception_v4': ['InceptionV4/AuxLogits/AvgPool_1a_5x5/AvgPool',
                     'InceptionV4/Logits/AvgPool_1a/AvgPool'],
    'nasnet_mobile': ['cell_7/cell_output/concat', 'final_layer/Mean'],
    'pnasnet_mobile': ['cell_5/cell_output/concat', 'final_layer/Mean'],
    'overfeat': ['overfeat/fc6/Relu'],
    'vgg_16': ['vgg_16/fc6/Relu'],
    'vgg_19': ['vgg_19/fc6/Relu'],
    'vgg_a': ['vgg_a/fc6/Relu'],
}

# Networks with drop-path. It is random from the first cell on, so the cut is
# inside the first two cells: the number of features, and a pattern for their
# names.
DROP_PATH = {
    'nasnet_cifar': (17, 'cell_[01]/'),
    'nasnet_large': (10, 'cell_stem_[01]/'),
    'pnasnet_large': (12, 'cell_stem_[01]/'),
}

QUICK = ('inception_v1', 'lenet', 'mobilenet_v1_025', 'resnet_v1_50', 'vgg_a')


# Further networks; the others differ from one of these in width or depth only.
SLOW = (*DROP_PATH, 'alexnet_v2', 'cifarnet', 'inception_resnet_v2',
        'inception_v2', 'inception_v3', 'inception_v4', 'mobilenet_v2',
        'nasnet_mobile', 'overfeat', 'pnasnet_mobile', 'resnet_v2_50')


@pytest.mark.parametrize('name', [*QUICK, *slow_by_turns(sorted(set(SLOW)))])
def test_find_cut_each_family_is_cut_after_the_last_frozen_layer(name):
  row = nets_factory.get_network(name)
  scopes = list(row.classifier_scopes)
  shape = [None, row.image_size, row.image_size, row.channels]
  with tf.Graph().as_default() as evaluation:
    nets_factory.get_network_fn(name, 5)(tf.placeholder(tf.float32, shape))
  within = {op.name for op in evaluation.get_operations()}
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, shape)
    with slim.arg_scope([batch_norm], trainable_scopes=scopes):
      logits, end_points = nets_factory.get_network_fn(
          name, 5, is_training=True)(images)
    outputs = [logits] + [end_points[key] for key in ['AuxLogits']
                          if key in end_points]
    features = _names(frozen_backbone.find_cut(
        images, outputs, warm_start.variables_to_train(scopes),
        within).features)
    if name in DROP_PATH:
      count, pattern = DROP_PATH[name]
      assert len(features) == count
      assert all(re.match(pattern, operation) for operation in features)
    else:
      assert features == CUTS.get(name, [end_points[row.features].op.name])
