"""Tests of nets/inception_v2.py: layers and options.

inception_heads_test.py tests what follows them: pool, logits and predictions.
"""

import pytest

from compat import slim, tf
from kits import inception_kit, nets_kit
from nets import inception, inception_v2

# End points of the base, in the order that they are built.
BASE = ['Conv2d_1a_7x7', 'MaxPool_2a_3x3', 'Conv2d_2b_1x1', 'Conv2d_2c_3x3',
        'MaxPool_3a_3x3', 'Mixed_3b', 'Mixed_3c', 'Mixed_4a', 'Mixed_4b',
        'Mixed_4c', 'Mixed_4d', 'Mixed_4e', 'Mixed_5a', 'Mixed_5b', 'Mixed_5c']
REDUCTIONS = ['Mixed_4a', 'Mixed_5a']


@pytest.fixture(scope='module')
def base():
  """Returns (graph, output, end points) of the base without an arg scope."""
  with tf.Graph().as_default() as graph:
    net, end_points = inception_v2.inception_v2_base(tf.zeros([5, 112, 112, 3]))
  return graph, net, end_points


def test_base_half_size_has_the_end_points_in_order(base):
  inception_kit.check_base(
      base, BASE, 'InceptionV2/Mixed_5c/concat', [5, 4, 4, 1024])


def test_base_pools_are_those_of_slim(base):
  with base[0].as_default():
    pools = inception_kit.pools()
  expected = {name: inception_kit.same_pool('MaxPool', 2)
              for name in ('MaxPool_2a_3x3', 'MaxPool_3a_3x3',
                           'Mixed_4a/Branch_2/MaxPool_1a_3x3',
                           'Mixed_5a/Branch_2/MaxPool_1a_3x3')}
  expected.update({
      name + '/Branch_3/AvgPool_0a_3x3': inception_kit.same_pool('AvgPool')
      for name in ('Mixed_3b', 'Mixed_3c', 'Mixed_4b', 'Mixed_4c', 'Mixed_4d',
                   'Mixed_4e', 'Mixed_5b')})
  expected['Mixed_5c/Branch_3/MaxPool_0a_3x3'] = (
      inception_kit.same_pool('MaxPool'))
  assert pools == expected


def test_base_initial_weights_are_those_of_slim(base):
  expected = {'Conv2d_1a_7x7/depthwise_weights': 1.0,
              'Conv2d_1a_7x7/pointwise_weights': 1.0,
              'Conv2d_2b_1x1/weights': 0.1}
  for name in BASE[5:]:
    if name in REDUCTIONS:
      layers = {'Branch_0/Conv2d_0a_1x1': 0.09, 'Branch_1/Conv2d_0a_1x1': 0.09}
    else:
      layers = {'Branch_1/Conv2d_0a_1x1': 0.09, 'Branch_2/Conv2d_0a_1x1': 0.09,
                'Branch_3/Conv2d_0b_1x1': 0.1}
    expected.update({'%s/%s/weights' % (name, layer): stddev
                     for layer, stddev in layers.items()})
  with base[0].as_default():
    assert inception_kit.stddevs() == expected


@pytest.mark.parametrize('final_endpoint, name, shape', [
    ('Conv2d_1a_7x7', 'Conv2d_1a_7x7/Relu', [1, 112, 112, 64]),
    ('MaxPool_3a_3x3', 'MaxPool_3a_3x3/MaxPool', [1, 28, 28, 192]),
    ('Mixed_4a', 'Mixed_4a/concat', [1, 14, 14, 576]),
])
def test_base_final_endpoint_builds_nothing_after_it(final_endpoint, name,
                                                     shape):
  with tf.Graph().as_default():
    net, end_points = inception_v2.inception_v2_base(
        tf.zeros([1, 224, 224, 3]), final_endpoint, scope='Mine')
    assert list(end_points) == BASE[:BASE.index(final_endpoint) + 1]
    assert net.op.name == 'Mine/' + name
    assert net.shape.as_list() == shape
    assert {name.split('/')[1] for name in nets_kit.variable_shapes()} == {
        name for name in end_points if not name.startswith('MaxPool')}


def test_base_use_separable_conv_false_builds_an_ordinary_convolution():
  with tf.Graph().as_default():
    _, end_points = inception_v2.inception_v2_base(
        tf.zeros([1, 224, 224, 3]), 'Conv2d_2b_1x1', use_separable_conv=False)
    assert list(end_points) == BASE[:3]
    assert end_points['Conv2d_1a_7x7'].shape.as_list() == [1, 112, 112, 64]
    shapes = nets_kit.variable_shapes()
    assert shapes['InceptionV2/Conv2d_1a_7x7/weights'] == [7, 7, 3, 64]
    assert inception_kit.stddevs() == {'Conv2d_1a_7x7/weights': 1.0,
                                       'Conv2d_2b_1x1/weights': 0.1}


def test_base_channels_first_has_the_same_end_points_transposed(base):
  _, _, end_points = base
  with tf.Graph().as_default():
    net, transposed = inception_v2.inception_v2_base(
        tf.zeros([5, 3, 112, 112]), 'Mixed_4b', use_separable_conv=False,
        data_format='NCHW')
    assert list(transposed) == BASE[:9]
    for name, end_point in transposed.items():
      batch, height, width, channels = end_points[name].shape.as_list()
      assert end_point.shape.as_list() == [batch, channels, height, width]
    assert net.shape.as_list() == [5, 576, 7, 7]


def test_base_channels_first_normalises_channels():
  with tf.Graph().as_default():
    with slim.arg_scope(inception_v2.inception_v2_arg_scope()):
      inception_v2.inception_v2_base(
          tf.zeros([5, 3, 56, 48]), 'Mixed_3b', use_separable_conv=False,
          data_format='NCHW')
    shapes = nets_kit.variable_shapes()
    published = nets_kit.load('inception_v2')['variables']
    batch_norm_variables = [name for name in shapes if 'BatchNorm' in name]
    assert len(batch_norm_variables) == 3 * 10
    for name in batch_norm_variables:
      # Conv2d_1a_7x7 is not normalised in the published network.
      assert shapes[name] == published.get(name, [64])


@pytest.mark.parametrize('options, message', [
    ({'data_format': 'NCWH', 'use_separable_conv': False},
     "must be NHWC or NCHW, got 'NCWH'"),
    ({'data_format': 'NCHW'}, 'NCHW needs use_separable_conv=False'),
    ({'depth_multiplier': 0.0}, 'depth_multiplier must be above 0, got 0.0'),
    ({'depth_multiplier': -0.1}, 'depth_multiplier must be above 0, got -0.1'),
    ({'final_endpoint': 'Mixed_6a'}, "final_endpoint 'Mixed_6a'; known: "),
    ({'final_endpoint': 'Conv2d_2b_1x1', 'include_root_block': False},
     "final_endpoint 'Conv2d_2b_1x1'; known: Mixed_3b, "),
])
def test_base_bad_argument_is_refused(options, message):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=message):
      inception_v2.inception_v2_base(tf.zeros([1, 224, 224, 3]), **options)
    assert tf.global_variables() == []


@pytest.mark.parametrize('options', [{}, {'use_separable_conv': False}])
def test_base_without_root_block_starts_at_the_first_block(options):
  with tf.Graph().as_default():
    net, end_points = inception_v2.inception_v2_base(
        tf.zeros([5, 28, 28, 192]), 'Mixed_4a', include_root_block=False,
        **options)
    assert list(end_points) == ['Mixed_3b', 'Mixed_3c', 'Mixed_4a']
    assert net.op.name == 'InceptionV2/Mixed_4a/concat'
    assert net.shape.as_list() == [5, 14, 14, 576]


@pytest.mark.parametrize('depth_multiplier', [0.5, 2.0])
def test_base_depth_multiplier_scales_each_end_point(base, depth_multiplier):
  _, _, end_points = base
  with tf.Graph().as_default():
    _, scaled = inception_v2.inception_v2_base(
        tf.zeros([5, 112, 112, 3]), 'Mixed_4a',
        depth_multiplier=depth_multiplier, scope='Scaled')
    assert list(scaled) == BASE[:8]
    for name, end_point in scaled.items():
      assert (end_point.shape.as_list()[3] ==
              end_points[name].shape.as_list()[3] * depth_multiplier)


# The depthwise multiplier is a third of the width, from 1 to 8.
@pytest.mark.parametrize('depth_multiplier, min_depth, multiplier, width', [
    (0.5, 16, 8, 32), (0.26, 4, 5, 16), (0.1, 4, 2, 6), (0.1, 16, 5, 16),
    (0.01, 2, 1, 2)])
def test_base_depth_multiplier_bounds_the_separable_convolution(
    depth_multiplier, min_depth, multiplier, width):
  with tf.Graph().as_default():
    inception_v2.inception_v2_base(
        tf.zeros([1, 32, 32, 3]), 'Conv2d_1a_7x7', min_depth, depth_multiplier)
    assert nets_kit.variable_shapes() == {
        'InceptionV2/Conv2d_1a_7x7/depthwise_weights': [7, 7, 3, multiplier],
        'InceptionV2/Conv2d_1a_7x7/pointwise_weights': [
            1, 1, 3 * multiplier, width],
        'InceptionV2/Conv2d_1a_7x7/biases': [width]}


def test_inception_module_has_the_same_functions():
  assert inception.inception_v2 is inception_v2.inception_v2
  assert inception.inception_v2_base is inception_v2.inception_v2_base
  assert inception.inception_v2_arg_scope is inception_v2.inception_v2_arg_scope
  assert inception.inception_v2_arg_scope is inception.inception_arg_scope
