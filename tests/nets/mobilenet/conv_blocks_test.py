"""Tests of nets/mobilenet/conv_blocks.py."""

import numpy as np
import pytest

from compat import slim, tf
from kits import mobilenet_kit, nets_kit
from nets.mobilenet import conv_blocks, mobilenet
from nets.mobilenet.conv_blocks import expand_input_by_factor, expanded_conv


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as graph:
    yield graph


@pytest.mark.parametrize('v, divisor, min_value, expected', [
    (32, 8, None, 32), (44.8, 8, None, 48), (22.4, 8, None, 24),
    (33.6, 8, None, 32), (3.2, 8, None, 8), (3.2, 8, 32, 32), (0.3, 1, None, 1),
    (20, 16, None, 32),  # 16 would be less than 90 %.
    (11.2, 8, 8, 16), (12, 8, None, 16), (128000.0 * 0.01, 8, 8, 1280),
])
def test_make_divisible_rounds_like_slim(v, divisor, min_value, expected):
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
  value = mobilenet_kit.run(padded)
  assert value.sum() == 18
  top, left = first
  assert value[0, top:top + 3, left:left + 3].sum() == 18


@pytest.mark.parametrize('num, num_ways, divisible_by, expected', [
    (16, 2, 8, [8, 8]), (24, 2, 8, [16, 8]), (40, 3, 8, [16, 16, 8]),
    (64, 4, 8, [16, 16, 16, 16]), (5, 2, 1, [3, 2]),
])
def test_split_divisible_splits_evenly(num, num_ways, divisible_by, expected):
  assert conv_blocks._split_divisible(num, num_ways, divisible_by) == expected


@pytest.mark.parametrize('num, num_ways', [(20, 2), (8, 2)])
def test_split_divisible_impossible_split_is_refused(num, num_ways):
  with pytest.raises(ValueError, match='%d channels .* %d parts .* 8' %
                     (num, num_ways)):
    conv_blocks._split_divisible(num, num_ways)


def test_split_conv_part_reads_only_its_channels():
  images = tf.constant(nets_kit.seeded_image(4, 24))
  with slim.arg_scope([slim.conv2d], activation_fn=None):
    net = conv_blocks.split_conv(images, 16, 2, 'expand', normalizer_fn=None)
  shapes = nets_kit.variable_shapes()
  assert {name: shape for name, shape in shapes.items() if 'w' in name} == {
      'expand_part_0/weights': [1, 1, 16, 8],
      'expand_part_1/weights': [1, 1, 8, 8]}
  assert net.op.name == 'expand_concat'
  names = [o.name for o in net.graph.get_operations()]
  assert {'expand_part_0_output', 'expand_part_1_output'} <= set(names)
  first, second = mobilenet_kit.run([
      tf.gradients(net[..., :8], images)[0],
      tf.gradients(net[..., 8:], images)[0]])
  assert abs(first[..., :16]).min() > 0 and not first[..., 16:].any()
  assert abs(second[..., 16:]).min() > 0 and not second[..., :16].any()


@pytest.mark.parametrize('num_inputs, num_outputs, num_ways', [
    (24, 16, 1), (24, 16, 3), (8, 64, 2)])
def test_split_conv_too_narrow_to_split_is_one_convolution(
    num_inputs, num_outputs, num_ways):
  conv_blocks.split_conv(tf.zeros([1, 4, 4, num_inputs]), num_outputs, num_ways,
                         'expand')
  assert nets_kit.variable_shapes()['expand/weights'] == [
      1, 1, num_inputs, num_outputs]


@pytest.mark.parametrize('scope, prefix', [('Conv2d_1', 'Conv2d_1_'),
                                           (None, 'separable/')])
def test_split_separable_conv2d_has_the_names_of_mobilenet_v1(scope, prefix):
  endpoints = {}
  net = conv_blocks.split_separable_conv2d(
      tf.zeros([1, 9, 9, 4]), 6, scope=scope, stride=2, endpoints=endpoints,
      normalizer_fn=slim.batch_norm)
  shapes = nets_kit.variable_shapes()
  assert shapes[prefix + 'depthwise/depthwise_weights'] == [3, 3, 4, 1]
  assert shapes[prefix + 'pointwise/weights'] == [1, 1, 4, 6]
  assert prefix + 'depthwise/BatchNorm/beta' in shapes
  assert prefix + 'pointwise/BatchNorm/beta' in shapes
  start = '' if scope is None else prefix
  assert endpoints[start + 'depthwise'].shape.as_list() == [1, 5, 5, 4]
  assert endpoints[start + 'pointwise'] is net
  assert net.shape.as_list() == [1, 5, 5, 6]


@pytest.mark.parametrize('block', [
    conv_blocks.split_separable_conv2d, conv_blocks.fused_conv, expanded_conv])
@pytest.mark.parametrize('rate', [1, 2])
def test_block_explicit_padding_at_odd_sizes_equals_same_padding(block, rate):
  images = tf.constant(nets_kit.seeded_image(9, 8))
  nets = []
  for use_explicit_padding in (True, False):
    with tf.variable_scope('net', reuse=tf.AUTO_REUSE):
      nets.append(block(images, 16, rate=rate, stride=3 - rate, scope='block',
                        use_explicit_padding=use_explicit_padding))
  padded, same = mobilenet_kit.run(nets)
  assert padded.shape == (1, 9 if rate == 2 else 5, 9 if rate == 2 else 5, 16)
  np.testing.assert_allclose(padded, same, rtol=1e-4, atol=1e-5)


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
def test_expanded_conv_has_the_requested_layers(location, options, weights,
                                                size):
  net = expanded_conv(tf.zeros([1, 9, 9, 8]), 16, stride=2,
                      depthwise_location=location, **options)
  assert net.shape.as_list() == [1, size, size, 16]
  assert net.op.name == 'expanded_conv/output'
  weight_names = {'depthwise': 'depthwise_weights'}
  assert mobilenet_kit.weights() == {
      'expanded_conv/%s/%s' % (layer, weight_names.get(layer, 'weights')): shape
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
def test_expanded_conv_adds_its_input_if_the_shapes_match(num_outputs, options,
                                                          is_added):
  images = tf.constant(nets_kit.seeded_image(9, 8))
  endpoints = {}
  net = expanded_conv(images, num_outputs, endpoints=endpoints, **options)
  assert sorted(endpoints) == ['depthwise_output', 'expansion_output',
                               'projection_output']
  assert endpoints['expansion_output'].op.name == (
      'expanded_conv/expansion_output')
  assert endpoints['depthwise_output'].op.name == (
      'expanded_conv/depthwise_output')
  net, projection, images = mobilenet_kit.run(
      [net, endpoints['projection_output'], images])
  assert abs(projection).max() > 0
  expected = projection + images if is_added else projection
  np.testing.assert_allclose(net, expected, rtol=1e-5, atol=1e-6)


def test_expanded_conv_custom_functions_are_called():
  images = tf.constant(nets_kit.seeded_image(5, 8))
  transformed = []

  def transform(expansion_tensor, input_tensor):
    transformed.append(input_tensor)
    return tf.zeros_like(expansion_tensor)

  net = expanded_conv(
      images, 8, expansion_transform=transform,
      residual=lambda input_tensor, output_tensor: output_tensor - input_tensor)
  assert len(transformed) == 1
  net, images = mobilenet_kit.run([net, images])
  # The projection of zeros is its biases, the same at each position.
  biases = net + images
  assert abs(biases).max() > 0
  np.testing.assert_allclose(biases, np.tile(biases[:, :1, :1], (1, 5, 5, 1)),
                             atol=1e-6)


def test_expanded_conv_is_split_as_the_arguments_request():
  expanded_conv(tf.zeros([1, 5, 5, 16]), 32, split_expansion=2,
                split_projection=4, normalizer_fn=slim.batch_norm)
  assert {name: shape for name, shape in mobilenet_kit.weights().items()
          if 'depthwise' not in name} == {
      'expanded_conv/expand_part_0/weights': [1, 1, 8, 48],
      'expanded_conv/expand_part_1/weights': [1, 1, 8, 48],
      'expanded_conv/project_part_0/weights': [1, 1, 24, 8],
      'expanded_conv/project_part_1/weights': [1, 1, 24, 8],
      'expanded_conv/project_part_2/weights': [1, 1, 24, 8],
      'expanded_conv/project_part_3/weights': [1, 1, 24, 8]}
  betas = [name for name in nets_kit.variable_shapes() if 'beta' in name]
  assert len(betas) == 7


@pytest.mark.parametrize('options, message', [
    ({'depthwise_location': 'middle'}, "one of .* got 'middle'"),
    ({'use_explicit_padding': True, 'padding': 'VALID'}, "got 'VALID'")])
def test_expanded_conv_bad_argument_is_a_type_error(options, message):
  with pytest.raises(TypeError, match=message):
    expanded_conv(tf.zeros([1, 5, 5, 16]), 32, **options)
  assert tf.global_variables() == []


def test_expanded_conv_arg_scope_is_used():
  with slim.arg_scope([expanded_conv], expansion_size=12, kernel_size=(1, 5)):
    expanded_conv(tf.zeros([1, 5, 5, 4]), 4)
  shapes = mobilenet_kit.weights()
  assert shapes['expanded_conv/depthwise/depthwise_weights'] == [1, 5, 12, 1]


@pytest.mark.parametrize('options, activations', [
    ({}, {'Relu6': ['expand', 'depthwise']}),
    ({'inner_activation_fn': tf.nn.elu}, {'Elu': ['expand', 'depthwise']}),
    ({'depthwise_activation_fn': tf.nn.elu},
     {'Relu6': ['expand'], 'Elu': ['depthwise']}),
    ({'inner_activation_fn': tf.nn.elu, 'depthwise_activation_fn': tf.nn.relu},
     {'Elu': ['expand'], 'Relu': ['depthwise']}),
    ({'project_activation_fn': tf.nn.elu},
     {'Relu6': ['expand', 'depthwise'], 'Elu': ['project']}),
    ({'project_activation_fn': None}, {'Relu6': ['expand', 'depthwise']}),
])
def test_expanded_conv_activations_are_those_requested(graph, options,
                                                       activations):
  with slim.arg_scope([slim.conv2d, slim.separable_conv2d],
                      activation_fn=tf.nn.relu6):
    expanded_conv(tf.zeros([1, 9, 9, 8]), 16, **options)
  found = {}
  for operation in graph.get_operations():
    if operation.type in ('Relu', 'Relu6', 'Elu'):
      found.setdefault(operation.type, []).append(operation.name.split('/')[-2])
  assert found == activations


def test_expanded_conv_functions_of_the_layers_are_called():
  calls = {}

  def layer(function, name, net, num_outputs, **arguments):
    calls[name] = (num_outputs, sorted(arguments))
    arguments.setdefault('kernel_size', [1, 1])
    return function(net, num_outputs, **arguments)

  def convolve(name):
    return lambda net, num_outputs, **arguments: layer(
        slim.conv2d, name, net, num_outputs, **arguments)

  net = expanded_conv(
      tf.zeros([1, 5, 5, 16]), 32, split_expansion=2, split_projection=2,
      expansion_fn=convolve('expand'), projection_fn=convolve('project'),
      depthwise_fn=lambda net, num_outputs, **arguments: layer(
          slim.separable_conv2d, 'depthwise', net, num_outputs, **arguments))
  assert net.shape.as_list() == [1, 5, 5, 32]
  assert calls == {
      'expand': (96, ['normalizer_fn', 'scope']),
      'depthwise': (None, ['depth_multiplier', 'kernel_size', 'normalizer_fn',
                           'padding', 'rate', 'scope', 'stride']),
      'project': (32, ['activation_fn', 'normalizer_fn', 'scope'])}
  assert sorted(mobilenet_kit.weights()) == [
      'expanded_conv/depthwise/depthwise_weights',
      'expanded_conv/expand/weights', 'expanded_conv/project/weights']


def test_expanded_conv_split_divisible_by_bounds_the_groups():
  expanded_conv(tf.zeros([1, 5, 5, 12]), 8, expansion_size=24,
                split_expansion=3, split_projection=2, split_divisible_by=4)
  assert {name: shape for name, shape in mobilenet_kit.weights().items()
          if 'depthwise' not in name} == {
      'expanded_conv/expand_part_0/weights': [1, 1, 4, 8],
      'expanded_conv/expand_part_1/weights': [1, 1, 4, 8],
      'expanded_conv/expand_part_2/weights': [1, 1, 4, 8],
      'expanded_conv/project_part_0/weights': [1, 1, 12, 4],
      'expanded_conv/project_part_1/weights': [1, 1, 12, 4]}


def test_fused_conv_has_no_depthwise_layer():
  net = conv_blocks.fused_conv(tf.zeros([1, 9, 9, 8]), 16, (5, 3), stride=2)
  assert net.shape.as_list() == [1, 5, 5, 16]
  assert mobilenet_kit.weights() == {
      'expanded_conv/expand/weights': [5, 3, 8, 48],
      'expanded_conv/project/weights': [1, 1, 48, 16]}


def _squeeze_excite(**options):
  """Returns values of a 6 x 6 tensor with 16 channels, and the tensor."""
  images = tf.constant(nets_kit.seeded_image(6, 16))
  net = conv_blocks.squeeze_excite(images, **options)
  assert net.shape.as_list() == [1, 6, 6, 16]
  return mobilenet_kit.run([net, images])


def _factors(means, gate, squeezed):
  """Returns the factors of each channel with the seeded weights."""
  with tf.Session() as session:
    nets_kit.load_seeded_weights(session, tf.global_variables())
    values = {v.op.name: session.run(v) for v in tf.global_variables()}
  first, second = [(values['squeeze_excite/%s/weights' % name][0, 0],
                    values['squeeze_excite/%s/biases' % name])
                   for name in ('Conv', 'Conv_1')]
  assert first[0].shape == (means.shape[-1], squeezed)
  return gate(np.maximum(0, means @ first[0] + first[1]) @ second[0] +
              second[1])


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize('options, gate, squeezed', [
    ({}, _sigmoid, 8),
    ({'squeeze_factor': 2, 'divisible_by': 1, 'gating_fn': tf.nn.tanh},
     np.tanh, 8),
    ({'squeeze_factor': 4, 'divisible_by': 2}, _sigmoid, 4)])
def test_squeeze_excite_multiplies_channels_by_factors_of_their_means(
    options, gate, squeezed):
  values, images = _squeeze_excite(**options)
  factors = _factors(images.mean((1, 2)), gate, squeezed)
  np.testing.assert_allclose(values, images * factors[:, None, None],
                             rtol=1e-4, atol=1e-5)


def test_squeeze_excite_reads_the_squeeze_input():
  other = tf.constant(nets_kit.seeded_image(3, 24))
  values, images = _squeeze_excite(squeeze_input_tensor=other)
  factors = _factors(mobilenet_kit.run(other).mean((1, 2)), _sigmoid, 8)
  np.testing.assert_allclose(values, images * factors[:, None, None],
                             rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('pool, parts', [(3, 2), (7, 1)])
def test_squeeze_excite_pool_has_factors_of_parts(pool, parts):
  values, images = _squeeze_excite(pool=pool)
  means = images.reshape(1, parts, 6 // parts, parts, 6 // parts, 16
                         ).mean((2, 4))
  factors = _factors(means, _sigmoid, 8)
  # Between the corners they are interpolated.
  corners = (0, 0, -1, -1), (0, -1, 0, -1)
  np.testing.assert_allclose(values[0][corners],
                             images[0][corners] * factors[0][corners],
                             rtol=1e-4, atol=1e-5)


def test_squeeze_excite_pool_of_unknown_size_is_refused():
  with pytest.raises(ValueError, match='pool needs a tensor of known height'):
    conv_blocks.squeeze_excite(tf.placeholder(tf.float32, [1, None, 4, 8]),
                               pool=2)
