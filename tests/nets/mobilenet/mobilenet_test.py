"""Tests of nets/mobilenet/mobilenet.py: MobileNets from a table of layers."""

import numpy as np
import pytest

from compat import slim, tf
from kits import mobilenet_kit, nets_kit
from nets.mobilenet import conv_blocks, mobilenet
from nets.mobilenet.conv_blocks import expanded_conv
from nets.mobilenet.mobilenet import op


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as graph:
    yield graph


def _spec(*layers):
  return {'spec': list(layers)}


SMALL = _spec(op(slim.conv2d, stride=2, num_outputs=8, kernel_size=[3, 3]),
              op(expanded_conv, num_outputs=8),
              op(expanded_conv, stride=2, num_outputs=16),
              op(slim.conv2d, num_outputs=32, kernel_size=[1, 1]))


def test_op_keeps_its_arguments_and_multiplier_function():
  layer = op(slim.conv2d, num_outputs=4, stride=2)
  assert layer.op is slim.conv2d
  assert layer.params == {'num_outputs': 4, 'stride': 2}
  assert layer.multiplier_func is mobilenet.depth_multiplier

  def custom(params, multiplier):
    params['num_outputs'] += multiplier

  assert op(slim.conv2d, custom).multiplier_func is custom
  layer = op(slim.conv2d, multiplier_transform=custom, num_outputs=4)
  assert layer.multiplier_func is custom
  assert layer.params == {'num_outputs': 4}


def test_depth_multiplier_changes_only_num_outputs():
  params = {'num_outputs': 32, 'stride': 2}
  mobilenet.depth_multiplier(params, 0.5)
  assert params == {'num_outputs': 16, 'stride': 2}
  with slim.arg_scope([mobilenet.depth_multiplier], min_depth=24,
                      divisible_by=4):
    mobilenet.depth_multiplier(params, 0.5, unknown=1)
  assert params['num_outputs'] == 24
  params = {'stride': 2}
  mobilenet.depth_multiplier(params, 0.5)
  assert params == {'stride': 2}


def test_safe_arg_scope_omits_none_values():
  key = slim.arg_scope_func_key(slim.dropout)
  with mobilenet.safe_arg_scope([slim.dropout], keep_prob=None,
                                is_training=False) as scope:
    assert scope[key] == {'is_training': False}
  no_op = mobilenet.safe_arg_scope([slim.dropout], keep_prob=None)
  assert isinstance(no_op, mobilenet.NoOpScope)
  with no_op as scope:
    assert scope is None
  with pytest.raises(KeyError):
    with no_op:
      raise KeyError('not swallowed')


@pytest.mark.parametrize('as_pairs', [False, True])
def test_set_arg_scope_defaults_applies_all_in_order(as_pairs):
  defaults = {(slim.conv2d, slim.separable_conv2d): {'padding': 'VALID'},
              (slim.conv2d,): {'padding': 'SAME', 'stride': 2}}
  pairs = list(defaults.items()) if as_pairs else defaults
  with mobilenet.set_arg_scope_defaults(pairs):
    net = slim.conv2d(tf.zeros([1, 9, 9, 2]), 2, [3, 3])
    assert net.shape.as_list() == [1, 5, 5, 2]
    net = slim.separable_conv2d(tf.zeros([1, 9, 9, 2]), 2, [3, 3])
    assert net.shape.as_list() == [1, 7, 7, 2]
  net = slim.conv2d(tf.zeros([1, 9, 9, 2]), 2, [3, 3])
  assert net.shape.as_list() == [1, 9, 9, 2]


def test_apply_activation_none_changes_nothing():
  x = tf.constant([-1.0, 7.0])
  assert mobilenet.apply_activation(x) is x
  net = mobilenet.apply_activation(x, 'mine', tf.nn.relu6)
  assert net.op.name == 'mine'
  assert mobilenet_kit.run(net).tolist() == [0.0, 6.0]


@pytest.mark.parametrize('shape', [[2, 5, 3, 4], [None, None, 3, 4],
                                   [None, None, None, 4]])
@pytest.mark.parametrize('pool_op, reduce', [
    (tf.nn.avg_pool, np.mean), (tf.nn.avg_pool2d, np.mean),
    (tf.nn.max_pool, np.max)])
def test_global_pool_covers_all_positions(shape, pool_op, reduce):
  images = tf.placeholder(tf.float32, shape)
  net = mobilenet.global_pool(images, pool_op=pool_op)
  assert net.shape.as_list() == [shape[0], 1, 1, 4]
  value = np.random.RandomState(0).randn(2, 5, 3, 4)
  with tf.Session() as session:
    pooled = session.run(net, {images: value})
  np.testing.assert_allclose(pooled, reduce(value, axis=(1, 2), keepdims=True),
                             rtol=1e-4)


def test_global_pool_other_function_needs_a_known_size():
  with pytest.raises(ValueError, match='pool_op must be .* got <function'):
    mobilenet.global_pool(tf.placeholder(tf.float32, [1, None, 3, 4]),
                          pool_op=tf.nn.max_pool_with_argmax)


def test_global_pool_reduce_mean_replaces_the_pooling():
  images = tf.constant(nets_kit.seeded_image(5, 4))
  nets = [mobilenet.global_pool(images, use) for use in (False, True)]
  assert nets[1].op.name == 'ReduceMean' != nets[0].op.name
  pooled, mean = mobilenet_kit.run(nets)
  np.testing.assert_allclose(mean, pooled, atol=1e-6)


@pytest.mark.parametrize('options, message', [
    ({'multiplier': 0}, 'multiplier must be above 0, got 0'),
    ({'multiplier': -1}, 'multiplier must be above 0, got -1'),
    ({'output_stride': 0}, 'output_stride must be 1, a .* got 0'),
    ({'output_stride': 3}, 'output_stride must be 1, a .* got 3'),
    ({'output_stride': -2}, 'output_stride must be 1, a .* got -2'),
    ({'final_endpoint': 'layer_5'}, "final_endpoint 'layer_5'; known: layer_1"),
    ({'conv_defs': {'defaults': {}}}, r"'spec', got the keys \['defaults'\]"),
    ({'conv_defs': {'spec': []}}, "must have layers in 'spec'"),
])
@pytest.mark.parametrize('build', [mobilenet.mobilenet_base,
                                   mobilenet.mobilenet])
def test_network_bad_argument_is_refused(build, options, message):
  with pytest.raises(ValueError, match=message):
    build(tf.zeros([1, 32, 32, 3]), **dict({'conv_defs': SMALL}, **options))
  assert tf.global_variables() == []


@pytest.mark.parametrize('shape', [[224, 224, 3], [1, 1, 224, 224, 3], None])
def test_network_inputs_of_other_rank_are_refused(shape):
  with pytest.raises(ValueError, match='batch, height, width, channels'):
    mobilenet.mobilenet(tf.placeholder(tf.float32, shape), conv_defs=SMALL)


def test_base_has_slims_end_points_in_order():
  net, end_points = mobilenet.mobilenet_base(tf.zeros([2, 33, 33, 3]), SMALL)
  blocks = ['layer_%d/%s' % (layer, name) for layer in (2, 3) for name in (
      'expansion_output', 'depthwise_output', 'output')]
  assert list(end_points) == ['layer_1', 'layer_2', 'layer_3', 'layer_4'
                              ] + blocks
  assert net is end_points['layer_4']
  assert net.shape.as_list() == [2, 9, 9, 32]
  assert end_points['layer_2/output'] is end_points['layer_2']
  assert end_points['layer_3/expansion_output'].shape.as_list() == [2, 17, 17,
                                                                    48]
  assert net.op.name.startswith('Mobilenet/Conv_1/')
  layers = {name.rpartition('/')[0] for name in mobilenet_kit.weights()}
  assert sorted(layers) == [
      'Mobilenet/Conv', 'Mobilenet/Conv_1',
      'Mobilenet/expanded_conv/depthwise', 'Mobilenet/expanded_conv/expand',
      'Mobilenet/expanded_conv/project', 'Mobilenet/expanded_conv_1/depthwise',
      'Mobilenet/expanded_conv_1/expand', 'Mobilenet/expanded_conv_1/project']


def test_base_second_call_has_separate_end_points():
  images = tf.zeros([2, 33, 33, 3])
  first = mobilenet.mobilenet(images, conv_defs=SMALL)[1]
  second = mobilenet.mobilenet(images, conv_defs=SMALL, reuse=True)[1]
  assert list(first) == list(second)
  assert not {point.op for point in first.values()} & {
      point.op for point in second.values()}
  assert len(mobilenet_kit.weights()) == 9


def test_base_final_endpoint_builds_nothing_after_it():
  net, end_points = mobilenet.mobilenet_base(
      tf.zeros([2, 33, 33, 3]), SMALL, final_endpoint='layer_2', scope='Mine')
  assert net is end_points['layer_2']
  assert list(end_points) == ['layer_1', 'layer_2', 'layer_2/expansion_output',
                              'layer_2/depthwise_output', 'layer_2/output']
  assert {name.split('/')[1] for name in mobilenet_kit.weights()} == {
      'Conv', 'expanded_conv'}


def test_base_multiplier_scales_each_width():
  _, end_points = mobilenet.mobilenet_base(tf.zeros([2, 33, 33, 3]), SMALL,
                                           multiplier=3.0)
  assert [end_points['layer_%d' % layer].shape.as_list()[3]
          for layer in (1, 2, 3, 4)] == [24, 24, 48, 96]
  assert SMALL['spec'][0].params['num_outputs'] == 8


# 33 x 33 has an odd number of rows at each stride: 33, 17, 9, 5. Strides then
# sample the same pixels with either padding. Layers with a stride also change
# the number of channels, so that without the stride no residual is added.
STRIDED = _spec(op(slim.conv2d, stride=2, num_outputs=8, kernel_size=[3, 3]),
                op(conv_blocks.fused_conv, stride=2, num_outputs=16,
                   kernel_size=(3, 3)),
                op(slim.conv2d, num_outputs=8, kernel_size=[1, 1]),
                op(expanded_conv, stride=2, num_outputs=16, kernel_size=(5, 3)),
                op(slim.conv2d, num_outputs=16, kernel_size=[3, 3]),
                op(conv_blocks.fused_conv, num_outputs=8, kernel_size=(3, 5)),
                op(conv_blocks.split_separable_conv2d, num_outputs=16))


def _run_strided(**options):
  with tf.Graph().as_default():
    net, _ = mobilenet.mobilenet_base(
        tf.constant(nets_kit.seeded_image(33, 3)), STRIDED, **options)
    return mobilenet_kit.run(net)


@pytest.fixture(scope='module')
def strided():
  output = _run_strided()
  assert output.shape == (1, 5, 5, 16)
  return output


@pytest.mark.parametrize('explicit', [False, True])
@pytest.mark.parametrize('output_stride, step', [(8, 1), (4, 2), (2, 4),
                                                 (1, 8)])
def test_base_dilated_output_subsampled_equals_the_strided_output(
    strided, output_stride, step, explicit):
  dilated = _run_strided(output_stride=output_stride,
                         use_explicit_padding=explicit)
  assert dilated.shape[1:3] == (4 * step + 1,) * 2
  np.testing.assert_allclose(dilated[:, ::step, ::step], strided, rtol=1e-4,
                             atol=1e-5 * abs(strided).max())


def test_base_overrides_come_after_defaults():
  activation = {'activation_fn': tf.nn.relu}
  conv_defs = dict(SMALL, defaults={
      (slim.conv2d,): {'activation_fn': tf.nn.elu},
      (expanded_conv,): {'expansion_size': 24}})
  with slim.arg_scope([slim.conv2d], **activation):
    net, _ = mobilenet.mobilenet_base(tf.zeros([2, 9, 9, 3]), conv_defs)
  assert net.op.type == 'Elu'
  conv_defs['overrides'] = {(slim.conv2d,): {'activation_fn': tf.nn.relu6}}
  net, _ = mobilenet.mobilenet_base(tf.zeros([2, 9, 9, 3]), conv_defs,
                                    scope='Other', use_explicit_padding=True)
  assert net.op.type == 'Relu6'
  assert list(conv_defs['overrides']) == [(slim.conv2d,)]
  shapes = mobilenet_kit.weights()
  assert shapes['Other/expanded_conv/expand/weights'] == [1, 1, 8, 24]


def test_base_layer_that_cannot_be_built_is_logged(monkeypatch):
  lines = []
  monkeypatch.setattr(tf.logging, 'error',
                      lambda message, *args: lines.append(message % args))
  conv_defs = _spec(SMALL['spec'][0], op(slim.conv2d, kernel_size=[1, 1]))
  with pytest.raises(TypeError):
    mobilenet.mobilenet_base(tf.zeros([2, 9, 9, 3]), conv_defs)
  assert len(lines) == 1
  assert 'cannot build layer_2 of conv_defs' in lines[0]
  assert "'kernel_size': [1, 1]" in lines[0]


def test_network_no_classes_returns_the_pooled_features():
  for num_classes in (None, 0):
    net, end_points = mobilenet.mobilenet(tf.zeros([2, 33, 33, 3]), num_classes,
                                          conv_defs=SMALL,
                                          reuse=tf.AUTO_REUSE)
    assert net is end_points['global_pool']
    assert net.shape.as_list() == [2, 1, 1, 32]
    assert 'Logits' not in end_points
  assert not [name for name in mobilenet_kit.weights() if 'Logits' in name]


def test_network_base_only_has_no_pool():
  net, end_points = mobilenet.mobilenet(tf.zeros([2, 33, 33, 3]),
                                        conv_defs=SMALL, base_only=True)
  assert net is end_points['layer_4']
  assert 'global_pool' not in end_points


def test_network_prediction_fn_is_called_or_omitted():
  images = tf.zeros([2, 33, 33, 3])
  _, end_points = mobilenet.mobilenet(images, 5, None, conv_defs=SMALL)
  assert 'Predictions' not in end_points
  _, end_points = mobilenet.mobilenet(
      images, 5, lambda logits, scope: tf.sigmoid(logits, name=scope),
      reuse=True, conv_defs=SMALL)
  assert end_points['Predictions'].op.type == 'Sigmoid'
  assert end_points['Predictions'].shape.as_list() == [2, 5]


def test_network_unknown_image_size_runs_at_two_sizes():
  images = tf.placeholder(tf.float32, [None, None, None, 3])
  logits, end_points = mobilenet.mobilenet(images, 5, conv_defs=SMALL)
  assert logits.shape.as_list() == [None, 5]
  assert logits is end_points['Logits']
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for shape in ((2, 20, 20, 3), (1, 31, 50, 3)):
      output = session.run(logits, {images: np.zeros(shape)})
      assert output.shape == (shape[0], 5)


NORMED = dict(SMALL, defaults={(expanded_conv,): {
    'normalizer_fn': slim.batch_norm}})


def _updates_and_dropout(graph, build, **options):
  build(tf.zeros([2, 9, 9, 3]), conv_defs=NORMED, **options)
  dropout = [o for o in graph.get_operations() if '/Dropout/dropout' in o.name]
  return (len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)), bool(dropout))


@pytest.mark.parametrize('scope, options, expected', [
    ({}, {}, (16, True)),
    ({'is_training': True}, {'is_training': False}, (0, False)),
    ({'is_training': False}, {'is_training': True}, (16, True)),
    ({'is_training': False}, {}, (0, False)),
    ({'is_training': None}, {'is_training': False}, (0, False)),
    ({'is_training': None}, {}, (16, True)),
    (None, {}, (0, False)),
    (None, {'is_training': True}, (12, True)),
])
def test_network_is_training_argument_overrides_the_scope(graph, scope, options,
                                                          expected):
  if scope is None:
    got = _updates_and_dropout(graph, mobilenet.mobilenet, **options)
  else:
    with slim.arg_scope(mobilenet.training_scope(**scope)):
      got = _updates_and_dropout(graph, mobilenet.mobilenet, **options)
  assert got == expected


@pytest.mark.parametrize('is_training, updates', [(True, 16), (False, 0),
                                                  (None, 16)])
def test_training_scope_is_training_applies_to_the_base(graph, is_training,
                                                        updates):
  with slim.arg_scope(mobilenet.training_scope(is_training)):
    got = _updates_and_dropout(graph, mobilenet.mobilenet_base)
  assert got == (updates, False)


@pytest.mark.parametrize('options, is_set', [
    ({}, True), ({'is_training': True}, True), ({'is_training': False}, True),
    ({'is_training': None}, False)])
def test_training_scope_sets_is_training_unless_none(options, is_set):
  scope = mobilenet.training_scope(**options)
  for function in (slim.batch_norm, slim.dropout):
    arguments = scope[slim.arg_scope_func_key(function)]
    assert ('is_training' in arguments) == is_set


def test_training_scope_options_reach_the_layers(graph):
  with slim.arg_scope(mobilenet.training_scope(
      weight_decay=0.1, stddev=0.5, dropout_keep_prob=0.25, bn_decay=0.5)):
    scope = slim.current_arg_scope()
    mobilenet.mobilenet(tf.zeros([2, 9, 9, 3]), 500, conv_defs=SMALL)
  assert scope[slim.arg_scope_func_key(slim.batch_norm)]['decay'] == 0.5
  assert scope[slim.arg_scope_func_key(slim.dropout)]['keep_prob'] == 0.25
  # Depthwise weights have no regularization loss.
  losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  assert len(losses) == len([name for name in mobilenet_kit.weights()
                             if name.endswith('/weights')]) == 7
  logits = [v for v in tf.trainable_variables()
            if v.op.name == 'Mobilenet/Logits/Conv2d_1c_1x1/weights'][0]
  # Truncated at two standard deviations.
  assert 0.35 < mobilenet_kit.run(logits, seeded=False).std() < 0.5


def test_training_scope_negative_stddev_selects_xavier():
  with slim.arg_scope(mobilenet.training_scope(stddev=-1)):
    slim.conv2d(tf.zeros([1, 9, 9, 10]), 50, [1, 1])
  weights = mobilenet_kit.run(tf.trainable_variables()[0], seeded=False)
  limit = np.sqrt(6 / (10 + 50))
  assert 0.9 * limit < abs(weights).max() <= limit
