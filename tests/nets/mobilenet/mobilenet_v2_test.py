"""Tests of nets/mobilenet/mobilenet_v2.py: options.

To be fast to build, the network is SHALLOW (one bottleneck per stride) where
sizes matter, and TINY elsewhere. registry_test.py builds the whole network.
"""

import copy

import pytest

from compat import slim, tf
from kits import nets_kit
from nets import nets_factory
from nets.batch_norm import batch_norm
from nets.mobilenet import conv_blocks, mobilenet, mobilenet_v2

pytestmark = pytest.mark.slow


def _with_layers(*layers):
  return dict(mobilenet_v2.V2_DEF, spec=[
      mobilenet_v2.V2_DEF['spec'][layer] for layer in layers])


SHALLOW = _with_layers(0, 1, 2, 4, 7, 14, 18)
TINY = _with_layers(0, 1, 2, 18)


def _widths(graph):
  return {op.outputs[0].shape.as_list()[3] for op in graph.get_operations()
          if op.type == 'Conv2D'}


def _count(graph, kind):
  return len([op for op in graph.get_operations() if op.type == kind])


@pytest.fixture(scope='module')
def whole():
  """Yields (graph, logits, end points) of V2_DEF with 16 input channels."""
  with tf.Graph().as_default() as graph:
    logits, end_points = mobilenet.mobilenet(
        tf.placeholder(tf.float32, [10, 224, 224, 16]),
        conv_defs=dict(mobilenet_v2.V2_DEF))
    yield graph, logits, end_points


def test_definition_builds_two_convolutions_per_bottleneck(whole):
  graph, logits, end_points = whole
  # The first bottleneck has only one; the logits have one.
  assert _count(graph, 'Conv2D') == 2 * len(mobilenet_v2.V2_DEF['spec']) - 2
  for layer in range(2, 17):
    assert 'layer_%d/depthwise_output' % layer in end_points
  assert logits.shape.as_list() == [10, 1001]
  assert logits.op.name == 'Mobilenet/Logits/output'


def test_definition_end_points_have_slims_order(whole):
  _, _, end_points = whole
  blocks = ['layer_%d/%s' % (layer, name) for layer in range(2, 19)
            for name in ('expansion_output', 'depthwise_output', 'output')]
  blocks.remove('layer_2/expansion_output')  # There is nothing to expand.
  assert list(end_points) == ['layer_%d' % layer for layer in range(1, 20)
                              ] + blocks + ['global_pool', 'Logits',
                                            'Predictions']
  assert end_points['layer_18/output'] is end_points['layer_18']


def test_definition_sets_the_same_parameters_as_slims():
  spec = mobilenet_v2.V2_DEF['spec']
  assert [op.params['num_outputs'] for op in spec] == (
      [32, 16] + [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 +
      [320, 1280])
  assert [op.params['stride'] for op in spec] == [2, 1, 2, 1, 2, 1, 1, 2, 1, 1,
                                                  1, 1, 1, 1, 2, 1, 1, 1, 1]
  # The other layers use the default, which a caller's copy can change.
  assert [i for i, op in enumerate(spec) if 'expansion_size' in op.params] == [
      1]


@pytest.mark.parametrize('input_size, output_size', [(192, 6), (96, 3)])
def test_network_input_size_sets_the_output_size(input_size, output_size):
  with tf.Graph().as_default():
    net, end_points = mobilenet_v2.mobilenet(
        tf.zeros([2, input_size, input_size, 3]), conv_defs=SHALLOW)
    assert end_points['layer_6/output'].shape.as_list() == [
        2, output_size, output_size, 160]
    assert net.shape.as_list() == [2, 1001]
    assert net.op.name == 'MobilenetV2/Logits/output'


@pytest.mark.parametrize('output_stride, size', [(8, 28), (16, 14)])
@pytest.mark.parametrize('explicit', [False, True])
def test_base_output_stride_sets_the_size(output_stride, size, explicit):
  with tf.Graph().as_default():
    net, _ = mobilenet.mobilenet_base(
        tf.zeros([2, 224, 224, 16]), conv_defs=SHALLOW, scope='MobilenetV2',
        output_stride=output_stride, use_explicit_padding=explicit)
    assert net.shape.as_list() == [2, size, size, 1280]


def test_definition_overrides_split_the_expansion():
  spec = copy.deepcopy(TINY)
  spec['overrides'] = {(conv_blocks.expanded_conv,): dict(split_expansion=2)}
  with tf.Graph().as_default() as graph:
    mobilenet.mobilenet(tf.zeros([1, 32, 32, 16]), conv_defs=spec)
    # The first and last layers, the first bottleneck and the logits have one
    # each, the other bottlenecks three.
    assert _count(graph, 'Conv2D') == 3 * len(spec['spec']) - 5
  assert 'overrides' not in mobilenet_v2.V2_DEF


def test_definition_copy_may_repeat_rows():
  spec = copy.deepcopy(TINY)
  spec['spec'].insert(3, spec['spec'][2])
  with tf.Graph().as_default():
    _, end_points = mobilenet_v2.mobilenet(tf.zeros([1, 32, 32, 3]),
                                           conv_defs=spec)
    assert 'layer_5' in end_points
    assert ('MobilenetV2/expanded_conv_2/project/weights' in
            nets_kit.variable_shapes())


@pytest.mark.parametrize('options, widths', [
    ({}, {32, 16, 96, 24, 1280, 1001}),
    ({'divisible_by': 16}, {32, 16, 96, 1280, 1001}),
    ({'min_depth': 32}, {32, 192, 1280, 1001}),
])
@pytest.mark.parametrize('as_arg_scope', [False, True])
def test_network_divisible_by_and_min_depth_bound_the_widths(
    options, widths, as_arg_scope):
  with tf.Graph().as_default() as graph:
    images = tf.zeros([1, 32, 32, 3])
    if as_arg_scope:
      with slim.arg_scope([mobilenet.depth_multiplier], **options):
        mobilenet_v2.mobilenet(images, conv_defs=TINY)
    else:
      mobilenet_v2.mobilenet(images, conv_defs=TINY, **options)
    assert _widths(graph) == widths


def test_network_min_depth_of_the_arg_scope_applies_to_small_multipliers():
  with tf.Graph().as_default() as graph:
    with slim.arg_scope((mobilenet.depth_multiplier,), min_depth=32):
      mobilenet_v2.mobilenet(tf.zeros([1, 32, 32, 2]), conv_defs=TINY,
                             depth_multiplier=0.1)
      assert _widths(graph) == {32, 192, 128, 1001}
      net, _ = mobilenet_v2.mobilenet_base(
          tf.zeros([1, 224, 224, 2]), conv_defs=TINY, depth_multiplier=0.1,
          reuse=True)
    assert net.shape.as_list() == [1, 56, 56, 128]


@pytest.mark.parametrize('multiplier, finegrain, last', [
    (0.01, True, 1280), (0.01, False, 16), (1.4, True, 1792)])
def test_network_finegrain_keeps_the_last_layers_width(multiplier, finegrain,
                                                       last):
  with tf.Graph().as_default() as graph:
    _, end_points = mobilenet_v2.mobilenet(
        tf.zeros([1, 32, 32, 3]), conv_defs=TINY,
        depth_multiplier=multiplier, finegrain_classification_mode=finegrain)
    assert end_points['global_pool'].shape.as_list() == [1, 1, 1, last]
    if multiplier < 1:
      assert _widths(graph) == {8, 48, last, 1001}
  assert TINY['spec'][-1].params['num_outputs'] == 1280


@pytest.mark.parametrize('network, first, last', [
    (mobilenet_v2.mobilenet, 32, 1280),
    (mobilenet_v2.mobilenet_v2_140, 48, 1792),
    (mobilenet_v2.mobilenet_v2_130, 40, 1664),
    (mobilenet_v2.mobilenet_v2_075, 24, 1280),
    (mobilenet_v2.mobilenet_v2_050, 16, 1280),
    (mobilenet_v2.mobilenet_v2_035, 16, 1280),
])
def test_scaled_network_has_scaled_widths(network, first, last):
  assert network.default_image_size == 224
  with tf.Graph().as_default():
    _, end_points = network(tf.zeros([1, 32, 32, 3]), 5, conv_defs=TINY)
    assert end_points['layer_1'].shape.as_list()[3] == first
    assert end_points['layer_4'].shape.as_list()[3] == last


@pytest.mark.parametrize('options, message', [
    ({'multiplier': 0.5}, 'got 0.5; use depth_multiplier'),
    ({'depth_multiplier': 0}, 'multiplier must be above 0, got 0'),
    ({'depth_multiplier': 0, 'finegrain_classification_mode': True},
     'multiplier must be above 0, got 0'),
    ({'final_endpoint': 'layer_20'}, "unknown final_endpoint 'layer_20'"),
])
@pytest.mark.parametrize('build', [mobilenet_v2.mobilenet,
                                   mobilenet_v2.mobilenet_base])
def test_network_bad_argument_is_refused(build, options, message):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=message):
      build(tf.zeros([1, 32, 32, 3]), **options)
    assert tf.global_variables() == []


@pytest.mark.parametrize('conv_defs', [
    TINY, {'spec': TINY['spec'][:1] + TINY['spec'][-1:]}])
def test_network_activation_fn_overrides_the_definition(conv_defs):
  with tf.Graph().as_default() as graph:
    mobilenet_v2.mobilenet(tf.zeros([1, 32, 32, 3]), conv_defs=conv_defs,
                           activation_fn=tf.nn.elu)
    bottlenecks = len(conv_defs['spec']) - 2
    # The first bottleneck is not expanded.
    assert _count(graph, 'Elu') == 2 + max(0, 2 * bottlenecks - 1)
    assert _count(graph, 'Relu6') == _count(graph, 'Relu') == 0
  layers = (slim.conv2d, slim.fully_connected, slim.separable_conv2d)
  defaults = mobilenet_v2.V2_DEF['defaults']
  assert defaults[layers]['activation_fn'] is tf.nn.relu6


def test_base_final_endpoint_and_scope_object_are_used():
  with tf.Graph().as_default():
    with tf.variable_scope('FeatureExtractor') as scope:
      net, end_points = mobilenet_v2.mobilenet_base(
          tf.zeros([1, 64, 64, 3]), scope=scope, final_endpoint='layer_4')
    assert net is end_points['layer_4']
    assert 'layer_4/expansion_output' in end_points
    assert 'layer_5' not in end_points
    assert 'FeatureExtractor/expanded_conv_2/expand/weights' in (
        nets_kit.variable_shapes())


def _updates():
  return tf.get_collection(tf.GraphKeys.UPDATE_OPS)


@pytest.mark.parametrize('outside', [None, True, False])
@pytest.mark.parametrize('is_training', [True, False])
def test_network_fn_is_training_overrides_the_outer_arg_scope(outside,
                                                              is_training):
  network_fn = nets_factory.get_network_fn('mobilenet_v2', 5,
                                           is_training=is_training)
  with tf.Graph().as_default() as graph:
    with mobilenet.safe_arg_scope([slim.batch_norm, slim.dropout],
                                  is_training=outside):
      network_fn(tf.zeros([1, 32, 32, 3]), conv_defs=TINY)
    norms = [name for name in nets_kit.variable_shapes() if 'beta' in name]
    assert len(norms) == 2 + 3 * 2 - 1
    assert len(_updates()) == (2 * len(norms) if is_training else 0)
    dropout = [op for op in graph.get_operations() if '/Dropout/' in op.name]
    assert any('dropout' in op.name for op in dropout) == is_training


def test_training_scope_is_training_applies_to_the_network():
  with tf.Graph().as_default():
    with slim.arg_scope(mobilenet_v2.training_scope(is_training=False)):
      mobilenet_v2.mobilenet(tf.zeros([1, 32, 32, 3]), conv_defs=TINY)
    assert _updates() == []
    with slim.arg_scope(mobilenet_v2.training_scope(weight_decay=0.1)):
      mobilenet_v2.mobilenet(tf.zeros([1, 32, 32, 3]), conv_defs=TINY,
                             reuse=True)
    assert len(_updates()) == 2 * 7


def test_network_frozen_layers_make_no_updates():
  with tf.Graph().as_default():
    with slim.arg_scope([batch_norm],
                        trainable_scopes=['MobilenetV2/Conv_1']):
      with slim.arg_scope(mobilenet_v2.training_scope()):
        mobilenet_v2.mobilenet(tf.zeros([1, 32, 32, 3]), conv_defs=TINY)
    assert len(_updates()) == 2
    assert all('/Conv_1/' in update.name for update in _updates())


def test_base_arg_scope_sets_the_multiplier():
  with tf.Graph().as_default():
    with slim.arg_scope([mobilenet_v2.mobilenet_base], depth_multiplier=2.0,
                        final_endpoint='layer_1'):
      net, _ = mobilenet_v2.mobilenet_base(tf.zeros([1, 32, 32, 3]))
    assert net.shape.as_list() == [1, 16, 16, 64]


@pytest.mark.parametrize('options, groups', [({}, 8), ({'groups': 4}, 4)])
def test_base_group_norm_replaces_batch_norm(monkeypatch, options, groups):
  monkeypatch.setitem(mobilenet_v2.V2_DEF_GROUP_NORM, 'spec', TINY['spec'])
  with tf.Graph().as_default() as graph:
    with slim.arg_scope(mobilenet_v2.training_scope()):
      net, _ = mobilenet_v2.mobilenet_base_group_norm(
          tf.zeros([2, 32, 32, 3]), **options)
    assert net.shape.as_list() == [2, 8, 8, 1280]
    names = list(nets_kit.variable_shapes())
    assert len([name for name in names if '/GroupNorm/beta' in name]) == 7
    assert not [name for name in names if 'BatchNorm' in name]
    assert {o.outputs[0].shape.as_list()[-2] for o in graph.get_operations()
            if o.type == 'Reshape' and o.outputs[0].shape.ndims == 5} == {
                groups}
  assert (slim.group_norm,) not in mobilenet_v2.V2_DEF_GROUP_NORM['defaults']


def test_wrapped_partial_keeps_the_attributes():
  def network(images, width):
    return images, width
  network.default_image_size = 96
  partial = mobilenet_v2.wrapped_partial(network, width=3)
  assert partial(2) == (2, 3)
  assert partial.default_image_size == 96
  assert partial.__name__ == 'network'
