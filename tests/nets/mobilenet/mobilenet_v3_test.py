"""Tests of nets/mobilenet/mobilenet_v3.py: tables and options.

To be fast to build, the networks have TINY definitions of a few layers.
registry_test.py builds the whole networks.
"""

import numpy as np
import pytest

from compat import slim, tf
from kits import mobilenet_kit, nets_kit
from nets.mobilenet import conv_blocks, mobilenet_v3

DEFINITIONS = {
    'mobilenet_v3_large': mobilenet_v3.V3_LARGE,
    'mobilenet_v3_small': mobilenet_v3.V3_SMALL,
    'mobilenet_v3_large_minimalistic': mobilenet_v3.V3_LARGE_MINIMALISTIC,
    'mobilenet_v3_small_minimalistic': mobilenet_v3.V3_SMALL_MINIMALISTIC,
    'mobilenet_edgetpu': mobilenet_v3.V3_EDGETPU,
}


def _with_layers(definition, *layers):
  return dict(definition, spec=[definition['spec'][layer] for layer in layers])


TINY = _with_layers(mobilenet_v3.V3_SMALL, 0, 1, 5, -3, -2, -1)
TINY_EDGETPU = _with_layers(mobilenet_v3.V3_EDGETPU, 0, 2, 3, 18, -1)


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as graph:
    yield graph


@pytest.mark.parametrize('name', sorted(DEFINITIONS))
def test_definition_has_the_shapes_of_slims_variables(name):
  facts = nets_kit.load(name)
  shapes = {key.partition('/')[2]: shape
            for key, shape in facts['variables'].items()}
  counts, size, inputs = {'Conv': 0, 'expanded_conv': 0}, 224, 3
  for number, layer in enumerate(DEFINITIONS[name]['spec'], 1):
    point = facts['end_points']['layer_%d' % number]
    params = layer.params
    if layer.op is mobilenet_v3.reduce_to_1x1:
      assert point[1:] == [1, 1, inputs]
      assert params['default_size'] == size
      size = 1
      continue
    size //= params['stride']
    outputs = params['num_outputs']
    assert point[1:] == [size, size, outputs]
    kind = 'Conv' if layer.op is slim.conv2d else 'expanded_conv'
    scope = kind + ('_%d' % counts[kind] if counts[kind] else '')
    counts[kind] += 1
    kernel = list(params['kernel_size'])
    if kind == 'Conv':
      assert shapes[scope + '/weights'] == kernel + [inputs, outputs]
      assert ('normalizer_fn' in params) == (
          scope + '/BatchNorm/beta' not in shapes)
    else:
      width = params['expansion_size'](num_inputs=inputs)
      depthwise = shapes.get(scope + '/depthwise/depthwise_weights')
      if layer.op is conv_blocks.expanded_conv:
        assert depthwise == kernel + [width, 1]
        kernel = [1, 1]
      else:
        assert layer.op is conv_blocks.fused_conv and depthwise is None
      assert shapes.get(scope + '/expand/weights') == (
          kernel + [inputs, width] if width > inputs else None)
      assert bool(params['expansion_transform']) == (
          scope + '/squeeze_excite/Conv/weights' in shapes)
    inputs = outputs
  assert number + 3 == len([key for key in facts['end_points']
                            if '/' not in key])


@pytest.mark.parametrize('name, layers', [
    ('mobilenet_v3_large', [1, *range(8, 18), 19]),
    ('mobilenet_v3_small', [1, *range(5, 14), 15]),
    ('mobilenet_v3_large_minimalistic', []),
    ('mobilenet_v3_small_minimalistic', []),
    ('mobilenet_edgetpu', []),
])
def test_definition_has_hard_swish_where_the_paper_has_it(name, layers):
  found = [number for number, layer in enumerate(DEFINITIONS[name]['spec'], 1)
           if mobilenet_v3.hard_swish in layer.params.values()]
  assert found == layers


def test_definition_has_one_bottleneck_of_equal_widths_without_residual():
  found = {name: [number for number, layer in enumerate(definition['spec'], 1)
                  if not layer.params.get('residual', True)]
           for name, definition in DEFINITIONS.items()}
  assert found.pop('mobilenet_edgetpu') == [15]
  assert not any(found.values())


@pytest.mark.parametrize('definition, whole, first, last', [
    (mobilenet_v3.V3_LARGE_DETECTION, mobilenet_v3.V3_LARGE, 14, 17),
    (mobilenet_v3.V3_SMALL_DETECTION, mobilenet_v3.V3_SMALL, 10, 13)])
def test_detection_definition_halves_the_last_widths(definition, whole, first,
                                                     last):
  factors = [half.params['num_outputs'] / full.params['num_outputs']
             for half, full in zip(definition['spec'], whole['spec'])
             if 'num_outputs' in full.params]
  assert factors == [0.5 if first <= number <= last else 1.0
                     for number in range(1, len(factors) + 1)]


def test_hard_swish_values_are_those_of_the_paper():
  values = mobilenet_kit.run(mobilenet_v3.hard_swish(
      tf.constant([-4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 9.0])))
  np.testing.assert_allclose(values, [0, 0, -0.375, 0, 1.125, 3, 9], rtol=1e-5)


@pytest.mark.parametrize('logit, factor', [(-4, 0), (0, 0.50001), (3, 1.00002),
                                           (5, 1.00002)])
def test_squeeze_excite_gates_by_a_hard_sigmoid(logit, factor):
  with slim.arg_scope([slim.conv2d],
                      weights_initializer=tf.zeros_initializer(),
                      biases_initializer=tf.constant_initializer(logit)):
    net = mobilenet_v3.squeeze_excite(tf.ones([1, 3, 3, 64]))
  values = mobilenet_kit.run(net, seeded=False)
  np.testing.assert_allclose(values, factor, rtol=1e-6)
  assert mobilenet_kit.weights() == {
      'squeeze_excite/Conv/weights': [1, 1, 64, 16],
      'squeeze_excite/Conv_1/weights': [1, 1, 16, 64]}


@pytest.mark.parametrize('shape, default_size, expected', [
    ([2, 5, 5, 8], 7, [1, 1]), ([2, 7, 9, 8], 7, [1, 3]),
    ([2, None, None, 8], 7, [2, 2]), ([2, None, None, 8], 8, [1, 1])])
def test_reduce_to_1x1_pools_a_square_or_the_default_size(shape, default_size,
                                                          expected):
  images = tf.placeholder(tf.float32, shape)
  net = mobilenet_v3.reduce_to_1x1(images, default_size, stride=1,
                                   padding='VALID')
  with tf.Session() as session:
    value = session.run(net, {images: np.ones([size or 8 for size in shape])})
  assert value.shape == (2, *expected, 8)
  assert (value == 1).all()


@pytest.mark.parametrize('definition, scope, last', [
    (TINY, 'MobilenetV3', 1024), (TINY_EDGETPU, 'MobilenetEdgeTPU', 1280)])
def test_network_has_its_scope_and_end_points(definition, scope, last):
  network = mobilenet_v3.edge_tpu if last == 1280 else mobilenet_v3.small
  assert network.default_image_size == 224
  logits, end_points = network(tf.zeros([2, 64, 64, 3]), 5,
                               conv_defs=definition)
  assert logits.op.name == scope + '/Logits/output'
  assert end_points['global_pool'].shape.as_list() == [2, 1, 1, last]
  logits, _ = network(tf.zeros([2, 64, 64, 3]), 5, conv_defs=definition,
                      scope='Mine')
  assert logits.op.name == 'Mine/Logits/output'


# slim's test reads this sentence.
def test_network_docstring_names_the_mode():
  assert 'Inference mode is created by default' in mobilenet_v3.edge_tpu.__doc__


@pytest.mark.parametrize('network, first, last', [
    (mobilenet_v3.edge_tpu, 32, 1280), (mobilenet_v3.edge_tpu_075, 24, 1280)])
def test_scaled_network_keeps_the_last_layers_width(network, first, last):
  _, end_points = network(tf.zeros([1, 32, 32, 3]), 5, conv_defs=TINY_EDGETPU)
  assert end_points['layer_1'].shape.as_list()[3] == first
  assert end_points['layer_5'].shape.as_list()[3] == last


@pytest.mark.parametrize('finegrain, last', [(False, 512), (True, 1024)])
def test_network_finegrain_keeps_the_last_layers_width(finegrain, last):
  _, end_points = mobilenet_v3.mobilenet(
      tf.zeros([1, 32, 32, 3]), conv_defs=TINY, depth_multiplier=0.5,
      finegrain_classification_mode=finegrain)
  assert end_points['layer_6'].shape.as_list()[3] == last
  assert end_points['layer_4'].shape.as_list()[3] == 288


@pytest.mark.parametrize('options, kind, count', [
    ({}, 'BatchNorm/moving_mean', 7), ({'use_groupnorm': True}, 'GroupNorm', 7),
    ({'use_groupnorm': True, 'groups': 4}, 'GroupNorm', 7)])
def test_network_use_groupnorm_replaces_batch_norm(graph, options, kind, count):
  with slim.arg_scope(mobilenet_v3.training_scope()):
    mobilenet_v3.mobilenet(tf.zeros([2, 32, 32, 3]), 5, conv_defs=TINY,
                           **options)
  names = list(nets_kit.variable_shapes())
  norms = [name for name in names if 'Norm/' in name]
  assert {name.split('Norm/')[0].rpartition('/')[2] + 'Norm' for name in norms
          } == {kind.partition('/')[0]}
  assert len([name for name in norms if name.endswith('/beta')]) == count
  groups = {o.outputs[0].shape.as_list()[-2] for o in graph.get_operations()
            if o.type == 'Reshape' and o.outputs[0].shape.ndims == 5}
  assert groups == ({options.get('groups', 8)} if options else set())


@pytest.mark.parametrize('reduce_mean', [False, True])
def test_network_use_reduce_mean_for_pooling_names_the_operation(graph,
                                                                 reduce_mean):
  mobilenet_v3.mobilenet(tf.zeros([1, 32, 32, 3]), conv_defs=TINY,
                         use_reduce_mean_for_pooling=reduce_mean)
  found = [o.name for o in graph.get_operations() if 'ReduceMean' in o.name]
  assert bool(found) == reduce_mean


def test_network_multiplier_is_refused():
  with pytest.raises(ValueError, match='got 0.5; use depth_multiplier'):
    mobilenet_v3.mobilenet(tf.zeros([1, 32, 32, 3]), multiplier=0.5)


@pytest.mark.parametrize('definition', [TINY, TINY_EDGETPU])
def test_base_explicit_padding_keeps_the_sizes(definition):
  spec = definition['spec']
  images = tf.zeros([1, 64, 64, 3])
  shapes = [nets_kit.shapes(mobilenet_v3.mobilenet_base(
      images, conv_defs=definition, use_explicit_padding=explicit,
      reuse=explicit)[1]) for explicit in (False, True)]
  assert shapes[0] == shapes[1]
  assert 'layer_%d' % len(spec) in shapes[0]


def test_base_unknown_image_size_has_the_last_convolution():
  net, end_points = mobilenet_v3.mobilenet(
      tf.placeholder(tf.float32, [None, None, None, 3]), conv_defs=TINY,
      base_only=True, final_endpoint='layer_4')
  assert net is end_points['layer_4']
  assert net.shape.as_list() == [None, None, None, 576]
