"""The blocks of MobileNets and networks that are made of tables of them."""

import nets_facts
import numpy as np
import pytest

from compat import slim, tf
from nets.mobilenet import conv_blocks, mobilenet
from nets.mobilenet.conv_blocks import expand_input_by_factor, expanded_conv
from nets.mobilenet.mobilenet import op


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as graph:
    yield graph


def _spec(*layers, **more):
  return dict(spec=list(layers), **more)


SMALL = _spec(op(slim.conv2d, stride=2, num_outputs=8, kernel_size=[3, 3]),
              op(expanded_conv, num_outputs=8),
              op(expanded_conv, stride=2, num_outputs=16),
              op(slim.conv2d, num_outputs=32, kernel_size=[1, 1]))


def _types(graph):
  return [operation.type for operation in graph.get_operations()]


def _run(outputs, seeded=True):
  """Returns the values of tensors, with weights by name or the first ones."""
  with tf.Session() as session:
    if seeded:
      nets_facts.load_seeded_weights(session, tf.global_variables())
    else:
      session.run(tf.global_variables_initializer())
    return session.run(outputs)


@pytest.mark.parametrize('v, divisor, min_value, expected', [
    (32, 8, None, 32), (44.8, 8, None, 48), (22.4, 8, None, 24),
    (33.6, 8, None, 32), (3.2, 8, None, 8), (3.2, 8, 32, 32), (0.3, 1, None, 1),
    (20, 16, None, 32),  # 16 would be less than 90 %.
    (11.2, 8, 8, 16), (12, 8, None, 16), (128000.0 * 0.01, 8, 8, 1280),
])
def test_make_divisible_rounds_as_slim(v, divisor, min_value, expected):
  assert conv_blocks.make_divisible(v, divisor, min_value) == expected
  assert mobilenet._make_divisible(v, divisor, min_value) == expected
  assert conv_blocks._make_divisible(v, divisor, min_value) == expected


@pytest.mark.parametrize('kernel_size, rate, shape, first', [
    ((3, 3), 1, [1, 5, 5, 2], (1, 1)), ((3, 3), 2, [1, 7, 7, 2], (2, 2)),
    ((5, 1), 1, [1, 7, 3, 2], (2, 0)), ((2, 4), 1, [1, 4, 6, 2], (0, 1)),
])
def test_fixed_padding_keeps_the_size_of_a_valid_convolution(kernel_size, rate,
                                                             shape, first):
  padded = conv_blocks.fixed_padding(tf.ones([1, 3, 3, 2]), kernel_size, rate)
  assert padded.shape.as_list() == shape
  value = _run(padded)
  assert value.sum() == 18
  top, left = first
  assert value[0, top:top + 3, left:left + 3].sum() == 18


@pytest.mark.parametrize('num, num_ways, divisible_by, expected', [
    (16, 2, 8, [8, 8]), (24, 2, 8, [16, 8]), (40, 3, 8, [16, 16, 8]),
    (64, 4, 8, [16, 16, 16, 16]), (5, 2, 1, [3, 2]),
])
def test_split_divisible_is_even(num, num_ways, divisible_by, expected):
  assert conv_blocks._split_divisible(num, num_ways, divisible_by) == expected


@pytest.mark.parametrize('num, num_ways', [(20, 2), (8, 2)])
def test_split_divisible_impossible_is_refused(num, num_ways):
  with pytest.raises(ValueError, match='%d channels .* %d parts .* 8' %
                     (num, num_ways)):
    conv_blocks._split_divisible(num, num_ways)


def test_split_conv_part_reads_its_part_alone():
  images = tf.constant(nets_facts.seeded_image(4, 24))
  with slim.arg_scope([slim.conv2d], activation_fn=None):
    net = conv_blocks.split_conv(images, 16, 2, 'expand', normalizer_fn=None)
  shapes = nets_facts.variable_shapes()
  assert {name: shape for name, shape in shapes.items() if 'w' in name} == {
      'expand_part_0/weights': [1, 1, 16, 8],
      'expand_part_1/weights': [1, 1, 8, 8]}
  assert net.op.name == 'expand_concat'
  names = [o.name for o in net.graph.get_operations()]
  assert {'expand_part_0_output', 'expand_part_1_output'} <= set(names)
  first, second = _run([tf.gradients(net[..., :8], images)[0],
                        tf.gradients(net[..., 8:], images)[0]])
  assert abs(first[..., :16]).min() > 0 and not first[..., 16:].any()
  assert abs(second[..., 16:]).min() > 0 and not second[..., :16].any()


@pytest.mark.parametrize('num_inputs, num_outputs, num_ways', [
    (24, 16, 1), (24, 16, 3), (8, 64, 2)])
def test_split_conv_too_narrow_for_groups_is_one(num_inputs, num_outputs,
                                                 num_ways):
  conv_blocks.split_conv(tf.zeros([1, 4, 4, num_inputs]), num_outputs, num_ways,
                         'expand')
  assert nets_facts.variable_shapes()['expand/weights'] == [
      1, 1, num_inputs, num_outputs]


@pytest.mark.parametrize('scope, prefix', [('Conv2d_1', 'Conv2d_1_'),
                                           (None, 'separable/')])
def test_split_separable_conv2d_has_the_names_of_mobilenet_v1(scope, prefix):
  endpoints = {}
  net = conv_blocks.split_separable_conv2d(
      tf.zeros([1, 9, 9, 4]), 6, scope=scope, stride=2, endpoints=endpoints,
      normalizer_fn=slim.batch_norm)
  shapes = nets_facts.variable_shapes()
  assert shapes[prefix + 'depthwise/depthwise_weights'] == [3, 3, 4, 1]
  assert shapes[prefix + 'pointwise/weights'] == [1, 1, 4, 6]
  assert prefix + 'depthwise/BatchNorm/beta' in shapes
  assert prefix + 'pointwise/BatchNorm/beta' in shapes
  start = '' if scope is None else prefix
  assert endpoints[start + 'depthwise'].shape.as_list() == [1, 5, 5, 4]
  assert endpoints[start + 'pointwise'] is net
  assert net.shape.as_list() == [1, 5, 5, 6]


@pytest.mark.parametrize('block', [conv_blocks.split_separable_conv2d,
                                   expanded_conv])
@pytest.mark.parametrize('rate', [1, 2])
def test_block_explicit_padding_equals_same_where_sizes_are_odd(block, rate):
  images = tf.constant(nets_facts.seeded_image(9, 8))
  nets = []
  for use_explicit_padding in (True, False):
    with tf.variable_scope('net', reuse=tf.AUTO_REUSE):
      nets.append(block(images, 16, rate=rate, stride=3 - rate, scope='block',
                        use_explicit_padding=use_explicit_padding))
  padded, same = _run(nets)
  assert padded.shape == (1, 9 if rate == 2 else 5, 9 if rate == 2 else 5, 16)
  np.testing.assert_allclose(padded, same, rtol=1e-4, atol=1e-5)


def _weights():
  return {name: shape for name, shape in nets_facts.variable_shapes().items()
          if 'weights' in name}


@pytest.mark.parametrize('location, options, weights, size', [
    ('expansion', {}, {'expand': [1, 1, 8, 48], 'depthwise': [3, 3, 48, 1],
                       'project': [1, 1, 48, 16]}, 5),
    ('input', {}, {'expand': [1, 1, 8, 48], 'depthwise': [3, 3, 8, 1],
                   'project': [1, 1, 48, 16]}, 5),
    ('output', {}, {'expand': [1, 1, 8, 48], 'depthwise': [3, 3, 16, 1],
                    'project': [1, 1, 48, 16]}, 5),
    (None, {}, {'expand': [1, 1, 8, 48], 'project': [1, 1, 48, 16]}, 9),
    ('expansion', {'expansion_size': 20, 'kernel_size': (5, 1),
                   'depthwise_channel_multiplier': 2},
     {'expand': [1, 1, 8, 20], 'depthwise': [5, 1, 20, 2],
      'project': [1, 1, 40, 16]}, 5),
    ('expansion', {'expansion_size': expand_input_by_factor(1)},
     {'depthwise': [3, 3, 8, 1], 'project': [1, 1, 8, 16]}, 5),
    ('expansion', {'expansion_size': expand_input_by_factor(1.3, 1)},
     {'expand': [1, 1, 8, 10], 'depthwise': [3, 3, 10, 1],
      'project': [1, 1, 10, 16]}, 5),
])
def test_expanded_conv_has_the_layers_asked_for(location, options, weights,
                                                size):
  net = expanded_conv(tf.zeros([1, 9, 9, 8]), 16, stride=2,
                      depthwise_location=location, **options)
  assert net.shape.as_list() == [1, size, size, 16]
  assert net.op.name == 'expanded_conv/output'
  kinds = {'depthwise': 'depthwise_weights'}
  assert _weights() == {
      'expanded_conv/%s/%s' % (layer, kinds.get(layer, 'weights')): shape
      for layer, shape in weights.items()}


def test_expanded_conv_default_activates_all_but_the_projection(graph):
  with slim.arg_scope([slim.conv2d, slim.separable_conv2d],
                      activation_fn=tf.nn.relu6):
    expanded_conv(tf.zeros([1, 9, 9, 8]), 16)
  assert [o.name for o in graph.get_operations() if o.type == 'Relu6'] == [
      'expanded_conv/expand/Relu6', 'expanded_conv/depthwise/Relu6']


@pytest.mark.parametrize('location', ['input', 'output'])
def test_expanded_conv_outer_depthwise_is_not_activated(graph, location):
  expanded_conv(tf.zeros([1, 9, 9, 8]), 16, depthwise_location=location)
  assert [o.name for o in graph.get_operations() if o.type == 'Relu'] == [
      'expanded_conv/expand/Relu']


@pytest.mark.parametrize('num_outputs, options, is_added', [
    (8, {}, True), (16, {}, False), (8, {'stride': 2}, False),
    (8, {'residual': False}, False)])
def test_expanded_conv_adds_its_input_where_it_fits(num_outputs, options,
                                                    is_added):
  images = tf.constant(nets_facts.seeded_image(9, 8))
  endpoints = {}
  net = expanded_conv(images, num_outputs, endpoints=endpoints, **options)
  assert sorted(endpoints) == ['depthwise_output', 'expansion_output',
                               'projection_output']
  assert endpoints['expansion_output'].op.name == (
      'expanded_conv/expansion_output')
  assert endpoints['depthwise_output'].op.name == (
      'expanded_conv/depthwise_output')
  net, projection, images = _run([net, endpoints['projection_output'], images])
  assert abs(projection).max() > 0
  expected = projection + images if is_added else projection
  np.testing.assert_allclose(net, expected, rtol=1e-5, atol=1e-6)


def test_expanded_conv_own_functions_are_called():
  images = tf.constant(nets_facts.seeded_image(5, 8))
  transformed = []

  def transform(expansion_tensor, input_tensor):
    transformed.append(input_tensor)
    return tf.zeros_like(expansion_tensor)

  net = expanded_conv(
      images, 8, expansion_transform=transform,
      residual=lambda input_tensor, output_tensor: output_tensor - input_tensor)
  assert len(transformed) == 1
  net, images = _run([net, images])
  # Of zeros the projection makes its biases, the same at each position.
  biases = net + images
  assert abs(biases).max() > 0
  np.testing.assert_allclose(biases, np.tile(biases[:, :1, :1], (1, 5, 5, 1)),
                             atol=1e-6)


def test_expanded_conv_groups_follow_the_arguments():
  expanded_conv(tf.zeros([1, 5, 5, 16]), 32, split_expansion=2,
                split_projection=4, normalizer_fn=slim.batch_norm)
  assert {name: shape for name, shape in _weights().items()
          if 'depthwise' not in name} == {
      'expanded_conv/expand_part_0/weights': [1, 1, 8, 48],
      'expanded_conv/expand_part_1/weights': [1, 1, 8, 48],
      'expanded_conv/project_part_0/weights': [1, 1, 24, 8],
      'expanded_conv/project_part_1/weights': [1, 1, 24, 8],
      'expanded_conv/project_part_2/weights': [1, 1, 24, 8],
      'expanded_conv/project_part_3/weights': [1, 1, 24, 8]}
  betas = [name for name in nets_facts.variable_shapes() if 'beta' in name]
  assert len(betas) == 7


@pytest.mark.parametrize('options, message', [
    ({'depthwise_location': 'middle'}, "one of .* got 'middle'"),
    ({'use_explicit_padding': True, 'padding': 'VALID'}, "got 'VALID'")])
def test_expanded_conv_bad_argument_is_a_type_error(options, message):
  with pytest.raises(TypeError, match=message):
    expanded_conv(tf.zeros([1, 5, 5, 16]), 32, **options)
  assert tf.global_variables() == []


def test_expanded_conv_takes_its_arg_scope():
  with slim.arg_scope([expanded_conv], expansion_size=12, kernel_size=(1, 5)):
    expanded_conv(tf.zeros([1, 5, 5, 4]), 4)
  assert _weights()['expanded_conv/depthwise/depthwise_weights'] == [1, 5, 12,
                                                                     1]


def test_op_keeps_its_arguments_and_widths_function():
  layer = op(slim.conv2d, num_outputs=4, stride=2)
  assert layer.op is slim.conv2d
  assert layer.params == {'num_outputs': 4, 'stride': 2}
  assert layer.multiplier_func is mobilenet.depth_multiplier
  own = lambda params, multiplier: None  # noqa: E731
  assert op(slim.conv2d, own).multiplier_func is own
  layer = op(slim.conv2d, multiplier_transform=own, num_outputs=4)
  assert layer.multiplier_func is own
  assert layer.params == {'num_outputs': 4}


def test_depth_multiplier_changes_num_outputs_alone():
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


def test_safe_arg_scope_leaves_none_out():
  key = slim.arg_scope_func_key(slim.dropout)
  with mobilenet.safe_arg_scope([slim.dropout], keep_prob=None,
                                is_training=False) as scope:
    assert scope[key] == {'is_training': False}
  nothing = mobilenet.safe_arg_scope([slim.dropout], keep_prob=None)
  assert isinstance(nothing, mobilenet.NoOpScope)
  with nothing as scope:
    assert scope is None
  with pytest.raises(KeyError):
    with nothing:
      raise KeyError('not swallowed')


@pytest.mark.parametrize('as_pairs', [False, True])
def test_set_arg_scope_defaults_enters_all_in_order(as_pairs):
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
  assert _run(net).tolist() == [0.0, 6.0]


@pytest.mark.parametrize('shape', [[2, 5, 3, 4], [None, None, 3, 4],
                                   [None, None, None, 4]])
@pytest.mark.parametrize('pool_op, reduce', [(tf.nn.avg_pool, np.mean),
                                             (tf.nn.max_pool, np.max)])
def test_global_pool_covers_all_positions(shape, pool_op, reduce):
  images = tf.placeholder(tf.float32, shape)
  net = mobilenet.global_pool(images, pool_op)
  assert net.shape.as_list() == [shape[0], 1, 1, 4]
  value = np.random.RandomState(0).randn(2, 5, 3, 4)
  with tf.Session() as session:
    pooled = session.run(net, {images: value})
  np.testing.assert_allclose(pooled, reduce(value, axis=(1, 2), keepdims=True),
                             rtol=1e-4)


def test_global_pool_other_function_needs_a_known_size():
  with pytest.raises(ValueError, match='pool_op must be .* got <function'):
    mobilenet.global_pool(tf.placeholder(tf.float32, [1, None, 3, 4]),
                          tf.nn.max_pool_with_argmax)


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
  assert sorted({name.rpartition('/')[0] for name in _weights()}) == [
      'Mobilenet/Conv', 'Mobilenet/Conv_1',
      'Mobilenet/expanded_conv/depthwise', 'Mobilenet/expanded_conv/expand',
      'Mobilenet/expanded_conv/project', 'Mobilenet/expanded_conv_1/depthwise',
      'Mobilenet/expanded_conv_1/expand', 'Mobilenet/expanded_conv_1/project']


def test_base_second_call_has_end_points_of_its_own():
  images = tf.zeros([2, 33, 33, 3])
  first = mobilenet.mobilenet(images, conv_defs=SMALL)[1]
  second = mobilenet.mobilenet(images, conv_defs=SMALL, reuse=True)[1]
  assert list(first) == list(second)
  assert not {point.op for point in first.values()} & {
      point.op for point in second.values()}
  assert len(_weights()) == 9


def test_base_final_endpoint_builds_nothing_after_it():
  net, end_points = mobilenet.mobilenet_base(
      tf.zeros([2, 33, 33, 3]), SMALL, final_endpoint='layer_2', scope='Mine')
  assert net is end_points['layer_2']
  assert list(end_points) == ['layer_1', 'layer_2', 'layer_2/expansion_output',
                              'layer_2/depthwise_output', 'layer_2/output']
  assert {name.split('/')[1] for name in _weights()} == {'Conv',
                                                         'expanded_conv'}


def test_base_multiplier_scales_each_width():
  _, end_points = mobilenet.mobilenet_base(tf.zeros([2, 33, 33, 3]), SMALL,
                                           multiplier=3.0)
  assert [end_points['layer_%d' % layer].shape.as_list()[3]
          for layer in (1, 2, 3, 4)] == [24, 24, 48, 96]
  assert SMALL['spec'][0].params['num_outputs'] == 8


# 33 x 33 has an odd number of rows at each stride: 33, 17, 9, 5. Then strides
# sample the same pixels however the convolution is padded. Where there is a
# stride the channels change, or without it a residual would be added.
STRIDED = _spec(op(slim.conv2d, stride=2, num_outputs=8, kernel_size=[3, 3]),
                op(expanded_conv, stride=2, num_outputs=16),
                op(slim.conv2d, num_outputs=8, kernel_size=[1, 1]),
                op(expanded_conv, stride=2, num_outputs=16, kernel_size=(5, 3)),
                op(slim.conv2d, num_outputs=16, kernel_size=[3, 3]),
                op(conv_blocks.split_separable_conv2d, num_outputs=16))


def _run_strided(**options):
  with tf.Graph().as_default():
    net, _ = mobilenet.mobilenet_base(
        tf.constant(nets_facts.seeded_image(33, 3)), STRIDED, **options)
    return _run(net)


@pytest.fixture(scope='module')
def strided():
  output = _run_strided()
  assert output.shape == (1, 5, 5, 16)
  return output


@pytest.mark.parametrize('explicit', [False, True])
@pytest.mark.parametrize('output_stride, step', [(8, 1), (4, 2), (2, 4),
                                                 (1, 8)])
def test_base_dilated_has_the_strided_outputs_among_its_own(
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
  assert _weights()['Other/expanded_conv/expand/weights'] == [1, 1, 8, 24]


def test_base_layer_that_cannot_be_built_is_named(monkeypatch):
  lines = []
  monkeypatch.setattr(tf.logging, 'error',
                      lambda message, *args: lines.append(message % args))
  conv_defs = _spec(SMALL['spec'][0], op(slim.conv2d, kernel_size=[1, 1]))
  with pytest.raises(TypeError):
    mobilenet.mobilenet_base(tf.zeros([2, 9, 9, 3]), conv_defs)
  assert len(lines) == 1
  assert 'cannot build layer_2 of conv_defs' in lines[0]
  assert "'kernel_size': [1, 1]" in lines[0]


def test_network_no_classes_gives_the_pooled_features():
  for num_classes in (None, 0):
    net, end_points = mobilenet.mobilenet(tf.zeros([2, 33, 33, 3]), num_classes,
                                          conv_defs=SMALL,
                                          reuse=tf.AUTO_REUSE)
    assert net is end_points['global_pool']
    assert net.shape.as_list() == [2, 1, 1, 32]
    assert 'Logits' not in end_points
  assert not [name for name in _weights() if 'Logits' in name]


def test_network_base_only_has_no_pool():
  net, end_points = mobilenet.mobilenet(tf.zeros([2, 33, 33, 3]),
                                        conv_defs=SMALL, base_only=True)
  assert net is end_points['layer_4']
  assert 'global_pool' not in end_points


def test_network_prediction_fn_is_called_or_left_out():
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
def test_network_is_training_gives_way_to_the_argument(graph, scope, options,
                                                       expected):
  if scope is None:
    found = _updates_and_dropout(graph, mobilenet.mobilenet, **options)
  else:
    with slim.arg_scope(mobilenet.training_scope(**scope)):
      found = _updates_and_dropout(graph, mobilenet.mobilenet, **options)
  assert found == expected


@pytest.mark.parametrize('is_training, updates', [(True, 16), (False, 0),
                                                  (None, 16)])
def test_training_scope_is_training_holds_for_the_base(graph, is_training,
                                                       updates):
  with slim.arg_scope(mobilenet.training_scope(is_training)):
    found = _updates_and_dropout(graph, mobilenet.mobilenet_base)
  assert found == (updates, False)


@pytest.mark.parametrize('options, is_there', [
    ({}, True), ({'is_training': True}, True), ({'is_training': False}, True),
    ({'is_training': None}, False)])
def test_training_scope_says_is_training_unless_none(options, is_there):
  scope = mobilenet.training_scope(**options)
  for function in (slim.batch_norm, slim.dropout):
    arguments = scope[slim.arg_scope_func_key(function)]
    assert ('is_training' in arguments) == is_there


def test_training_scope_options_reach_the_layers(graph):
  with slim.arg_scope(mobilenet.training_scope(
      weight_decay=0.1, stddev=0.5, dropout_keep_prob=0.25, bn_decay=0.5)):
    scope = slim.current_arg_scope()
    mobilenet.mobilenet(tf.zeros([2, 9, 9, 3]), 500, conv_defs=SMALL)
  assert scope[slim.arg_scope_func_key(slim.batch_norm)]['decay'] == 0.5
  assert scope[slim.arg_scope_func_key(slim.dropout)]['keep_prob'] == 0.25
  # Depthwise weights have none.
  losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  assert len(losses) == len([name for name in _weights()
                             if name.endswith('/weights')]) == 7
  logits = [v for v in tf.trainable_variables()
            if v.op.name == 'Mobilenet/Logits/Conv2d_1c_1x1/weights'][0]
  assert 0.35 < _run(logits, seeded=False).std() < 0.5  # Truncated.


def test_training_scope_negative_stddev_is_xavier():
  with slim.arg_scope(mobilenet.training_scope(stddev=-1)):
    slim.conv2d(tf.zeros([1, 9, 9, 10]), 50, [1, 1])
  weights = _run(tf.trainable_variables()[0], seeded=False)
  limit = np.sqrt(6 / (10 + 50))
  assert 0.9 * limit < abs(weights).max() <= limit
