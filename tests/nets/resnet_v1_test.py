"""Tests of nets/resnet_v1.py: where V1 differs from V2."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import resnet_utils, resnet_v1
from nets.resnet_v1 import resnet_v1_block


@pytest.fixture
def two_stages(monkeypatch):
  """Returns a network that is built like resnet_v1_50, with fewer units."""
  stages = (resnet_utils.Stage('block1', 64, 2, 2),
            resnet_utils.Stage('block2', 128, 1, 1))
  return resnet_v1._published('tiny', stages)


def _run(tensors):
  with tf.Session() as session:
    nets_kit.load_seeded_weights(session, tf.global_variables())
    return session.run(tensors)


@pytest.mark.parametrize('depth', [4, 8])
def test_bottleneck_activates_after_the_sum(depth):
  with tf.Graph().as_default():
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
      inputs = tf.constant(nets_kit.seeded_image(6, 4))
      resnet_v1.bottleneck(inputs, depth, 2, 2, outputs_collections='mine',
                           scope='unit')
      graph = tf.get_default_graph()
      activations = {name: graph.get_tensor_by_name('unit/%s:0' % name)
                     for name in ('conv1/Relu', 'conv2/Relu')}
    collected = slim.utils.convert_collection_to_dict('mine')
    assert list(collected) == ['unit']
    assert collected['unit'].op.type == 'Relu'
    assert collected['unit'].shape.as_list() == [1, 3, 3, depth]
    names = nets_kit.variable_shapes()
    assert ('unit/shortcut/weights' in names) == (depth == 8)
    assert not [name for name in names if name.endswith('biases')]
    # The third convolution and the projection are not activated.
    assert {op.name for op in graph.get_operations() if op.type == 'Relu'} == {
        collected['unit'].op.name, 'unit/conv1/Relu', 'unit/conv2/Relu'}
    assert activations['conv1/Relu'].shape.as_list() == [1, 6, 6, 2]
    assert activations['conv2/Relu'].shape.as_list() == [1, 3, 3, 2]


@pytest.mark.parametrize('depth', [4, 8])
@pytest.mark.parametrize('bounded', [False, True])
def test_bottleneck_bounded_activations_are_clipped_at_6(bounded, depth):
  with tf.Graph().as_default() as graph:
    inputs = tf.constant(100 * nets_kit.seeded_image(6, 4))
    with slim.arg_scope([resnet_v1.bottleneck],
                        use_bounded_activations=bounded):
      output = resnet_v1.bottleneck(inputs, depth, 2, 1, scope='unit')
    shortcut = inputs
    if depth == 8:
      shortcut = graph.get_tensor_by_name(
          'unit/shortcut/Relu6:0' if bounded else 'unit/shortcut/BiasAdd:0')
    residual = graph.get_tensor_by_name('unit/conv3/BiasAdd:0')
    output, shortcut, residual = _run([output, shortcut, residual])
  assert abs(residual).max() > 6
  if bounded:
    expected = np.clip(shortcut + np.clip(residual, -6, 6), 0, 6)
  else:
    expected = np.maximum(shortcut + residual, 0)
  np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_network_root_is_normalised_and_activated():
  with tf.Graph().as_default():
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
      net, end_points = resnet_v1.resnet_v1(
          tf.zeros([1, 64, 64, 3]), [resnet_v1_block('block1', 1, 1, 1)],
          global_pool=False)
    assert end_points['resnet_v1/conv1'].op.type == 'Relu'
    assert net is end_points['resnet_v1/block1/unit_1/bottleneck_v1']
    assert 'resnet_v1/conv1/BatchNorm/gamma' in nets_kit.variable_shapes()


def test_network_stores_the_activations_before_the_strides():
  with tf.Graph().as_default(), slim.arg_scope(
      resnet_utils.resnet_arg_scope()):
    net, end_points = resnet_v1.resnet_v1(
        tf.zeros([1, 64, 64, 3]), [resnet_v1_block('block1', 1, 2, 2),
                                   resnet_v1_block('block2', 2, 1, 2)],
        global_pool=False, store_non_strided_activations=True, scope='net')
    assert net.shape.as_list() == [1, 4, 4, 8]
    assert end_points['net/block1'].shape.as_list() == [1, 16, 16, 4]
    assert end_points['net/block2'].shape.as_list() == [1, 8, 8, 8]


@pytest.mark.parametrize('options, depths', [
    ({}, [256, 512]),
    ({'depth_multiplier': 0.25}, [64, 128]),
    ({'depth_multiplier': 0.1}, [4 * 8, 4 * 12]),
    ({'depth_multiplier': 0, 'min_base_depth': 5}, [20, 20]),
])
def test_published_depth_multiplier_and_min_base_depth_set_the_depths(
    two_stages, options, depths):
  with tf.Graph().as_default():
    logits, end_points = two_stages(tf.zeros([2, 64, 64, 3]), 10, **options)
    assert logits.shape.as_list() == [2, 10]
    assert [end_points['tiny/block%d' % number].shape.as_list()[3]
            for number in (1, 2)] == depths
    assert end_points['tiny/conv1'].shape.as_list()[3] == 64


def test_published_options_reach_the_network(two_stages):
  with tf.Graph().as_default(), slim.arg_scope(
      resnet_utils.resnet_arg_scope()):
    images = tf.zeros([2, 64, 64, 3])
    net, end_points = two_stages(
        images, num_classes=None, is_training=False, global_pool=False,
        output_stride=4, store_non_strided_activations=True, scope='mine')
    assert net.shape.as_list() == [2, 16, 16, 512]
    assert 'predictions' not in end_points
    assert end_points['mine/block1'].shape.as_list() == [2, 16, 16, 256]
    before = tf.global_variables()
    logits, _ = two_stages(images, num_classes=None, global_pool=True,
                           reuse=True, scope='mine')
    assert logits.shape.as_list() == [2, 1, 1, 512]
    assert tf.global_variables() == before
    logits, _ = two_stages(images, 10, spatial_squeeze=False)
    assert logits.shape.as_list() == [2, 1, 1, 10]
    with pytest.raises(ValueError, match='got 6'):
      two_stages(images, output_stride=6)
