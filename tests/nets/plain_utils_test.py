"""Tests of nets/plain_utils.py: the layers of VGG, AlexNet and OverFeat.

Networks that are run here have narrow layers: the real ones take seconds to
initialize.
"""

import inspect

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import alexnet, overfeat, plain_utils, vgg
from nets.plain_utils import Conv, MaxPool

LAYERS = (Conv('conv1', 4, [3, 3], 2, 'VALID'), Conv('conv2', 6, [5, 5]),
          MaxPool('pool2', [3, 3]))
FC6 = Conv('fc6', 8, [2, 2], padding='VALID')
FC7 = Conv('fc7', 9, [1, 1])


def _narrow(inputs, num_classes=5, is_training=True, keep=0.5, squeeze=True,
            global_pool=False, small_start=False, reuse=None):
  with tf.variable_scope('narrow', values=[inputs], reuse=reuse):
    return plain_utils.plain_network(inputs, LAYERS, FC6, FC7, num_classes,
                                     is_training, keep, squeeze, global_pool,
                                     small_start)


# Name, function, arg scope, image size, end points of the layers in order.
NETWORKS = [
    ('vgg_a', vgg.vgg_a, vgg.vgg_arg_scope, 224,
     ['conv1/conv1_1', 'pool1', 'conv2/conv2_1', 'pool2', 'conv3/conv3_1',
      'conv3/conv3_2', 'pool3', 'conv4/conv4_1', 'conv4/conv4_2', 'pool4',
      'conv5/conv5_1', 'conv5/conv5_2', 'pool5', 'fc6', 'fc7']),
    ('alexnet_v2', alexnet.alexnet_v2, alexnet.alexnet_v2_arg_scope, 224,
     ['conv1', 'pool1', 'conv2', 'pool2', 'conv3', 'conv4', 'conv5', 'pool5',
      'fc6', 'fc7']),
    ('overfeat', overfeat.overfeat, overfeat.overfeat_arg_scope, 231,
     ['conv1', 'pool1', 'conv2', 'pool2', 'conv3', 'conv4', 'conv5', 'pool5',
      'fc6', 'fc7']),
]
EACH_NETWORK = pytest.mark.parametrize(
    'name, function, arg_scope, size, layers', NETWORKS,
    ids=[row[0] for row in NETWORKS])


@EACH_NETWORK
def test_network_end_points_have_slims_order(name, function, arg_scope, size,
                                             layers):
  keys = ['%s/%s' % (name, layer) for layer in layers]
  with tf.Graph().as_default(), slim.arg_scope(arg_scope()):
    assert function.default_image_size == size
    logits, end_points = function(tf.zeros([5, size, size, 3]), 10)
    assert list(end_points) == keys + [name + '/fc8']
    assert logits is end_points[name + '/fc8']
    assert logits.op.name == name + '/fc8/squeezed'
    assert logits.shape.as_list() == [5, 10]
    assert set(slim.get_model_variables()) == set(tf.global_variables())


@EACH_NETWORK
def test_network_larger_photos_have_logits_at_several_positions(
    name, function, arg_scope, size, layers):
  with tf.Graph().as_default(), slim.arg_scope(arg_scope()):
    images = tf.zeros([1, size + 32, size + 64, 3])
    logits, _ = function(images, 10, spatial_squeeze=False)
    assert logits.op.name == name + '/fc8/BiasAdd'
    assert logits.shape.as_list() == [1, 2, 3, 10]
    tf.get_variable_scope().reuse_variables()
    logits, end_points = function(images, 10, global_pool=True)
    assert logits.shape.as_list() == [1, 10]
    assert list(end_points)[-2:] == ['global_pool', name + '/fc8']
    assert end_points['global_pool'].shape.as_list() == [1, 1, 1, 4096]
    assert end_points['global_pool'].op.name.endswith('/global_pool')
    with pytest.raises(ValueError, match='logits at 2 x 3 positions, so %s '
                                         'cannot squeeze' % name):
      function(images, 10)


@EACH_NETWORK
def test_network_photos_that_are_too_small_are_refused(name, function,
                                                       arg_scope, size, layers):
  with tf.Graph().as_default(), slim.arg_scope(arg_scope()):
    with pytest.raises(ValueError, match='too small: %s/fc6 covers' % name):
      function(tf.zeros([1, size // 2, size, 3]), 10)


@EACH_NETWORK
@pytest.mark.parametrize('num_classes', [None, 0])
def test_network_no_classes_returns_the_features(name, function, arg_scope,
                                                 size, layers, num_classes):
  with tf.Graph().as_default(), slim.arg_scope(arg_scope()):
    net, end_points = function(tf.zeros([2, size, size, 3]), num_classes,
                               scope='mine')
    assert net.shape.as_list() == [2, 1, 1, 4096]
    assert list(end_points) == ['mine/' + layer for layer in layers]
    assert not [key for key in nets_kit.variable_shapes() if 'fc8' in key]


@EACH_NETWORK
def test_network_has_slims_arguments_in_order(name, function, arg_scope, size,
                                              layers):
  parameters = inspect.signature(function).parameters
  assert list(parameters)[:6] == [
      'inputs', 'num_classes', 'is_training', 'dropout_keep_prob',
      'spatial_squeeze', 'scope']
  defaults = {key: parameters[key].default for key in list(parameters)[1:]}
  extra = ({'fc_conv_padding': 'VALID', 'reuse': None} if name == 'vgg_a'
           else {})
  assert defaults == dict(extra, num_classes=1000, is_training=True,
                          dropout_keep_prob=0.5, spatial_squeeze=True,
                          scope=name, global_pool=False)


@EACH_NETWORK
def test_network_arg_scope_decays_weights_and_initializes_biases(
    name, function, arg_scope, size, layers):
  biases = {'alexnet_v2': 0.1}.get(name, 0)
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(arg_scope(weight_decay=0.5)):
      slim.conv2d(tf.zeros([1, 7, 7, 3]), 4, [3, 3], scope='conv')
      net = slim.max_pool2d(tf.zeros([1, 7, 7, 3]), [2, 2])
      slim.fully_connected(tf.zeros([1, 3]), 2, scope='fc')
    assert net.shape.as_list() == [1, 3, 3, 3]
    assert tf.get_default_graph().get_operation_by_name('conv/Relu')
    assert tf.get_default_graph().get_operation_by_name('fc/Relu')
    session.run(tf.global_variables_initializer())
    values = {v.op.name: session.run(v) for v in tf.global_variables()}
    losses = session.run(tf.get_collection(
        tf.GraphKeys.REGULARIZATION_LOSSES))
  assert values['conv/biases'] == pytest.approx(biases)
  assert values['fc/biases'] == pytest.approx(biases)
  assert losses == pytest.approx([0.25 * (values['conv/weights'] ** 2).sum(),
                                  0.25 * (values['fc/weights'] ** 2).sum()])


def test_plain_network_runs_at_unknown_sizes():
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, _ = _narrow(images)
    pooled, _ = _narrow(images, global_pool=True, reuse=True)
    assert logits.shape.as_list() == pooled.shape.as_list() == [None, 5]
    session.run(tf.global_variables_initializer())
    # 11 x 11 pixels become 5 x 5, then 2 x 2 positions: the kernel of fc6.
    assert session.run(logits, {images: np.ones((3, 11, 11, 3))}).shape == (
        3, 5)
    assert session.run(pooled, {images: np.ones((2, 30, 40, 3))}).shape == (
        2, 5)


def test_plain_network_global_pool_averages_the_features():
  with tf.Graph().as_default(), tf.Session() as session:
    _, end_points = _narrow(
        tf.constant(nets_kit.seeded_image(23, 3)), is_training=False,
        global_pool=True)
    nets_kit.load_seeded_weights(session, tf.global_variables())
    features, pooled = session.run([end_points['narrow/fc7'],
                                    end_points['global_pool']])
  assert features.shape == (1, 4, 4, 9)
  np.testing.assert_allclose(pooled[:, 0, 0], features.mean((1, 2)), rtol=1e-5)


def test_plain_network_input_smaller_than_the_kernel_of_fc6_is_refused():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='the photos are too small: '
                       'narrow/fc6 covers 2 x 2 positions of its input, which '
                       'has 1 x 2'):
      _narrow(tf.zeros([1, 9, 11, 3]))


@pytest.mark.parametrize('is_training, keep, dropped', [
    (True, 0.25, True), (True, 1.0, False), (False, 0.25, False)])
def test_plain_network_dropout_follows_fc6_and_fc7(is_training, keep, dropped):
  with tf.Graph().as_default(), tf.Session() as session:
    # Each layer outputs 1, so that the outputs of dropout are 0 or 1 / 0.25.
    with slim.arg_scope([slim.conv2d],
                        weights_initializer=tf.zeros_initializer(),
                        biases_initializer=tf.ones_initializer()):
      _narrow(tf.zeros([30, 11, 11, 3]), is_training=is_training, keep=keep)
    graph = tf.get_default_graph()
    session.run(tf.global_variables_initializer())
    for reader, width in (('fc7', 8), ('fc8', 9)):
      inputs = session.run(graph.get_operation_by_name(
          'narrow/%s/Conv2D' % reader).inputs[0])
      assert inputs.shape == (30, 1, 1, width)
      assert set(inputs.flat) == ({0.0, 4.0} if dropped else {1.0})
    dropouts = {op.name.split('/')[1] for op in graph.get_operations()
                if 'dropout' in op.name}
    assert dropouts <= {'dropout6', 'dropout7'}


@pytest.mark.parametrize('small_start', [True, False])
def test_plain_network_small_start_initializes_fc6_fc7_and_fc8(small_start):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope([slim.conv2d],
                        weights_initializer=tf.ones_initializer(),
                        biases_initializer=tf.constant_initializer(0.5)):
      _narrow(tf.zeros([1, 11, 11, 3]), small_start=small_start)
    session.run(tf.global_variables_initializer())
    values = {v.op.name: session.run(v) for v in tf.global_variables()}
  biases = {name: set(value) for name, value in values.items()
            if name.endswith('biases')}
  fc_biases = {np.float32(0.1)} if small_start else {0.5}
  assert biases == {
      'narrow/conv1/biases': {0.5}, 'narrow/conv2/biases': {0.5},
      'narrow/fc6/biases': fc_biases, 'narrow/fc7/biases': fc_biases,
      'narrow/fc8/biases': {0.0} if small_start else {0.5}}
  for scope in ('fc6', 'fc7', 'fc8'):
    weights = values['narrow/%s/weights' % scope]
    if small_start:  # Truncated at two standard deviations, 2 * 0.005.
      assert 0.003 < weights.std() < 0.006 and abs(weights).max() <= 0.01
    else:
      assert set(weights.flat) == {1.0}
  assert set(values['narrow/conv2/weights'].flat) == {1.0}


def test_plain_network_keys_are_full_names_and_outputs_are_collected():
  with tf.Graph().as_default():
    with tf.variable_scope('outer'), slim.arg_scope(
        [slim.conv2d], outputs_collections='mine'):
      _, first = _narrow(tf.zeros([1, 11, 11, 3]))
      _, second = _narrow(tf.zeros([1, 11, 11, 3]), reuse=True)
    assert list(first) == list(second) == [
        'outer/narrow/' + scope
        for scope in ('conv1', 'conv2', 'pool2', 'fc6', 'fc7', 'fc8')]
    assert len(tf.get_collection('mine')) == 2 * 5
    assert first['outer/narrow/fc6'] in tf.get_collection('mine')
