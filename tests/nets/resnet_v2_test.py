"""Tests of nets/resnet_v2.py: where V2 differs from V1."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import resnet_utils, resnet_v2
from nets.batch_norm import batch_norm
from nets.resnet_v2 import resnet_v2_block


@pytest.mark.parametrize('depth', [4, 8])
def test_bottleneck_normalises_its_input_and_does_not_activate_the_sum(depth):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
      inputs = tf.constant(nets_kit.seeded_image(6, 4))
      output = resnet_v2.bottleneck(inputs, depth, 2, 2,
                                    outputs_collections='mine', scope='unit')
    collected = slim.utils.convert_collection_to_dict('mine')
    assert list(collected) == ['unit']
    assert collected['unit'] is output
    assert output.shape.as_list() == [1, 3, 3, depth]
    names = nets_kit.variable_shapes()
    assert {name for name in names if name.endswith('biases')} == (
        {'unit/conv3/biases'} | ({'unit/shortcut/biases'} if depth == 8
                                 else set()))
    assert names['unit/preact/gamma'] == [4]
    # The residual is zero, so the output is the shortcut.
    session.run(tf.global_variables_initializer())
    for variable in tf.trainable_variables():
      if '/conv3/' in variable.op.name:
        variable.load(np.zeros(variable.shape.as_list()), session)
    output_value, input_value = session.run([output, inputs])
    if depth == 4:  # The input itself, not the output of `preact`.
      np.testing.assert_array_equal(output_value, input_value[:, ::2, ::2])
      assert output_value.min() < 0
    else:
      projected = tf.get_default_graph().get_operation_by_name(
          'unit/shortcut/Conv2D').inputs[0]
      assert session.run(projected).min() >= 0


def test_network_root_is_not_normalised_but_the_output_is():
  with tf.Graph().as_default():
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
      net, end_points = resnet_v2.resnet_v2(
          tf.zeros([1, 64, 64, 3]), [resnet_v2_block('block1', 1, 1, 1)],
          global_pool=False)
    assert end_points['resnet_v2/conv1'].op.type == 'BiasAdd'
    assert net.op.name == 'resnet_v2/postnorm/Relu'
    root = {name for name in nets_kit.variable_shapes()
            if name.startswith('resnet_v2/conv1/')}
    assert root == {'resnet_v2/conv1/weights', 'resnet_v2/conv1/biases'}


def test_network_without_root_block_normalises_its_convolutions():
  with tf.Graph().as_default():
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
      resnet_v2.resnet_v2(tf.zeros([1, 8, 8, 3]),
                          [resnet_v2_block('block1', 1, 1, 1)],
                          include_root_block=False)
    names = nets_kit.variable_shapes()
    assert 'resnet_v2/block1/unit_1/bottleneck_v2/conv1/BatchNorm/beta' in names
    assert 'resnet_v2/postnorm/beta' in names
    assert not [name for name in names if name.startswith('resnet_v2/conv1')]


def test_network_frozen_layers_use_their_moving_averages():
  # `preact` and `postnorm` are normalised outside of convolutions.
  with tf.Graph().as_default():
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
      with slim.arg_scope([batch_norm], trainable_scopes=['net/postnorm']):
        resnet_v2.resnet_v2(tf.zeros([2, 32, 32, 3]),
                            [resnet_v2_block('block1', 1, 1, 1)], scope='net')
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert len(updates) == 2
    assert all(update.name.startswith('net/postnorm/') for update in updates)


def test_published_options_reach_the_network():
  network = resnet_v2._published('tiny', (
      resnet_utils.Stage('block1', 64, 1, 2),
      resnet_utils.Stage('block2', 128, 1, 1)))
  with tf.Graph().as_default(), slim.arg_scope(
      resnet_utils.resnet_arg_scope()):
    images = tf.zeros([2, 64, 64, 3])
    net, end_points = network(images, num_classes=None, is_training=False,
                              global_pool=False, output_stride=4, scope='mine')
    assert net.shape.as_list() == [2, 16, 16, 512]
    assert 'predictions' not in end_points
    assert end_points['mine/block1'].shape.as_list() == [2, 16, 16, 256]
    before = tf.global_variables()
    net, _ = network(images, reuse=True, scope='mine')
    assert net.shape.as_list() == [2, 1, 1, 512]
    assert tf.global_variables() == before
    logits, _ = network(images, 10, spatial_squeeze=False)
    assert logits.shape.as_list() == [2, 1, 1, 10]
