"""Tests of nets/resnet_utils.py: layers, blocks and small networks.

registry_test.py builds the whole networks.
"""

import inspect

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import resnet_utils, resnet_v1, resnet_v2
from nets.resnet_utils import resnet_arg_scope

pytestmark = pytest.mark.slow


def _network_v1(inputs, blocks, **options):
  return resnet_v1.resnet_v1(inputs, blocks, scope='resnet', **options)


def _network_v2(inputs, blocks, **options):
  return resnet_v2.resnet_v2(inputs, blocks, scope='resnet', **options)


VERSIONS = pytest.mark.parametrize('block, network', [
    pytest.param(resnet_v1.resnet_v1_block, _network_v1, id='v1'),
    pytest.param(resnet_v2.resnet_v2_block, _network_v2, id='v2')])


def _blocks(block, last_stride=1):
  """Returns blocks with a total stride of 8; with the root block, of 32."""
  return [block('block1', 1, 1, 2), block('block2', 2, 1, 2),
          block('block3', 4, 2, 2), block('block4', 8, 1, last_stride)]


def _grid(*shape):
  """Returns an array of distinct values: 0.0, 0.1, 0.2 and so on."""
  return (np.arange(np.prod(shape)) / 10.0).reshape(shape).astype('float32')


def _run(tensors):
  with tf.Session() as session:
    nets_kit.load_seeded_weights(session, tf.global_variables())
    return session.run(tensors)


def _assert_close(got, expected):
  np.testing.assert_allclose(got, expected, rtol=1e-3,
                             atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize('size, kept', [(3, [0, 2, 6, 8]), (4, [0, 2, 8, 10])])
def test_subsample_factor_2_keeps_every_other_row_and_column(size, kept):
  with tf.Graph().as_default(), tf.Session():
    values = np.arange(size * size, dtype='float32').reshape(1, size, size, 1)
    output = resnet_utils.subsample(tf.constant(values), 2).eval()
  assert output.shape == (1, 2, 2, 1)
  assert list(output.flat) == kept


def test_subsample_factor_1_returns_its_input():
  with tf.Graph().as_default():
    inputs = tf.zeros([1, 3, 3, 1])
    assert resnet_utils.subsample(inputs, 1, 'shortcut') is inputs


@pytest.mark.parametrize('size', [5, 8])
@pytest.mark.parametrize('kernel, stride', [(3, 2), (7, 3), (4, 2)])
def test_conv2d_same_strided_equals_the_subsampled_output_of_stride_1(
    size, kernel, stride):
  with tf.Graph().as_default():
    inputs = tf.constant(_grid(1, size, size, 2))
    strided = resnet_utils.conv2d_same(inputs, 3, kernel, stride, scope='conv')
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      dense = resnet_utils.conv2d_same(inputs, 3, kernel, 1, scope='conv')
    strided, dense = _run([strided, dense])
  assert strided.shape[1] == -(-size // stride)
  assert dense.shape[1] == size
  np.testing.assert_allclose(strided, dense[:, ::stride, ::stride], rtol=1e-5)
  assert strided.max() > 0


def test_conv2d_same_even_size_differs_from_tensorflows_same_padding():
  with tf.Graph().as_default():
    inputs = tf.constant(_grid(1, 4, 4, 1))
    ours = resnet_utils.conv2d_same(inputs, 1, 3, 2, scope='conv')
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      tensorflows = slim.conv2d(inputs, 1, 3, 2, scope='conv')
    ours, tensorflows = _run([ours, tensorflows])
  assert ours.shape == tensorflows.shape == (1, 2, 2, 1)
  assert abs(ours - tensorflows).max() > 0.1


@VERSIONS
def test_block_stride_is_in_its_last_unit(block, network):
  row = block('block7', base_depth=5, num_units=3, stride=2)
  assert isinstance(row, resnet_utils.Block)
  scope, unit_fn, args = row
  assert scope == 'block7'
  assert unit_fn in (resnet_v1.bottleneck, resnet_v2.bottleneck)
  unit = {'depth': 20, 'depth_bottleneck': 5, 'stride': 1}
  assert args == [unit, unit, dict(unit, stride=2)]


@VERSIONS
def test_stack_collects_outputs_as_in_the_callers_arg_scope(block, network):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    with tf.variable_scope('tiny'), slim.arg_scope(
        [slim.conv2d], outputs_collections='end_points'):
      resnet_utils.stack_blocks_dense(
          tf.zeros([2, 32, 16, 3]), [block('block1', 1, 2, 2),
                                     block('block2', 2, 2, 1)])
    end_points = slim.utils.convert_collection_to_dict('end_points')
  units = {name.split('/', 1)[1] for name in end_points}
  kind = 'bottleneck_v1' if block is resnet_v1.resnet_v1_block else (
      'bottleneck_v2')
  assert units == {
      'block%d/unit_%d/%s/%s' % (number, unit, kind, layer)
      for number in (1, 2) for unit in (1, 2)
      for layer in ('shortcut', 'conv1', 'conv2', 'conv3')
      if layer != 'shortcut' or unit == 1}


def _units_one_by_one(net, blocks):
  """Builds the units one after another, each with its own stride."""
  for block in blocks:
    with tf.variable_scope(block.scope):
      for index, unit in enumerate(block.args):
        with tf.variable_scope('unit_%d' % (index + 1)):
          net = block.unit_fn(net, rate=1, **unit)
  return net


@VERSIONS
def test_stack_dilated_output_subsampled_equals_the_strided_output(block,
                                                                   network):
  blocks = _blocks(block)
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    with slim.arg_scope([slim.batch_norm], is_training=False):
      inputs = tf.constant(_grid(1, 30, 31, 3))
      strided = _units_one_by_one(inputs, blocks)
      tf.get_variable_scope().reuse_variables()
      dense = [resnet_utils.stack_blocks_dense(inputs, blocks, output_stride)
               for output_stride in (1, 2, 8)]
    assert [net.shape.as_list()[1] for net in dense] == [30, 15, 4]
    strided, dense = _run([strided, dense])
  for net, step in zip(dense, (8, 4, 1)):
    _assert_close(net[:, ::step, ::step], strided)


@VERSIONS
def test_stack_stores_the_activations_before_the_last_stride(block, network):
  blocks = _blocks(block, last_stride=2)
  nets, all_end_points = [], []
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    with slim.arg_scope([slim.batch_norm], is_training=False):
      for store, output_stride in ((False, None), (True, None), (True, 4)):
        key = 'stored_%s_%s' % (store, output_stride)
        nets.append(resnet_utils.stack_blocks_dense(
            tf.constant(_grid(1, 32, 32, 3)), blocks, output_stride,
            store_non_strided_activations=store, outputs_collections=key))
        all_end_points.append(slim.utils.convert_collection_to_dict(key))
        tf.get_variable_scope().reuse_variables()
    sizes = [[net.shape.as_list()[1] for net in end_points.values()]
             for end_points in all_end_points]
    assert sizes == [[16, 8, 4, 2], [32, 16, 8, 4], [32, 16, 8, 8]]
    assert {tuple(end_points) for end_points in all_end_points} == {
        ('block1', 'block2', 'block3', 'block4')}
    nets, all_end_points = _run([nets, all_end_points])
  _assert_close(nets[1], nets[0])
  _assert_close(nets[2][:, ::4, ::4], nets[0])
  for name in all_end_points[0]:
    _assert_close(all_end_points[1][name][:, ::2, ::2], all_end_points[0][name])


def test_stack_passes_each_unit_its_arguments():
  calls = []

  def unit_fn(net, rate, **unit):
    calls.append((rate, unit))
    return net

  args = [{'width': 1}, {'stride': 2}, {'width': 3, 'stride': 2}]
  with tf.Graph().as_default():
    resnet_utils.stack_blocks_dense(
        tf.zeros([1, 4, 4, 1]), [resnet_utils.Block('block', unit_fn, args),
                                 resnet_utils.Block('end', unit_fn, [{}])],
        output_stride=2)
  assert calls == [(1, {'width': 1}), (1, {'stride': 2}),
                   (1, {'width': 3, 'stride': 1}), (2, {})]
  assert args == [{'width': 1}, {'stride': 2}, {'width': 3, 'stride': 2}]


@pytest.mark.parametrize('output_stride', [3, 16, 0])
@VERSIONS
def test_stack_unreachable_output_stride_is_refused(block, network,
                                                    output_stride):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='must be 1, 2, 4, 8 or None for these '
                                         'blocks, got %d' % output_stride):
      resnet_utils.stack_blocks_dense(tf.zeros([1, 8, 8, 3]), _blocks(block),
                                      output_stride)


@pytest.mark.parametrize('output_stride', [6, 2, 64])
@VERSIONS
def test_network_unreachable_output_stride_is_refused(block, network,
                                                      output_stride):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='must be 4, 8, 16, 32 or None .*got '
                                         '%d' % output_stride):
      network(tf.zeros([1, 64, 64, 3]), _blocks(block),
              output_stride=output_stride)
    assert tf.global_variables() == []


@VERSIONS
def test_network_end_points_have_slims_order(block, network):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    logits, end_points = network(tf.zeros([2, 64, 64, 3]),
                                 [block('block1', 1, 2, 2)], num_classes=10)
    unit = 'resnet/block1/unit_%d/' + block('b', 1, 1, 1).unit_fn.__module__[
        -2:].replace('v', 'bottleneck_v')
    assert list(end_points) == [
        'resnet/conv1', unit % 1 + '/shortcut', unit % 1 + '/conv1',
        unit % 1 + '/conv2', unit % 1 + '/conv3', unit % 1, unit % 2 + '/conv1',
        unit % 2 + '/conv2', unit % 2 + '/conv3', unit % 2, 'resnet/block1',
        'global_pool', 'resnet/logits', 'resnet/spatial_squeeze', 'predictions']
    assert logits.op.name == 'resnet/SpatialSqueeze'
    assert end_points['resnet/spatial_squeeze'] is logits
    assert end_points['predictions'].shape.as_list() == [2, 10]
    assert end_points['global_pool'].shape.as_list() == [2, 1, 1, 4]
    assert end_points['global_pool'].op.name == 'resnet/pool5'


@VERSIONS
def test_network_unsqueezed_logits_keep_height_and_width(block, network):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    logits, end_points = network(
        tf.zeros([2, 321, 321, 3]), _blocks(block), num_classes=10,
        global_pool=False, spatial_squeeze=False)
    assert logits.op.name.startswith('resnet/logits')
    assert logits.shape.as_list() == [2, 11, 11, 10]
    assert end_points['predictions'].shape.as_list() == [2, 11, 11, 10]
    assert 'global_pool' not in end_points
    assert 'resnet/spatial_squeeze' not in end_points
    shapes = nets_kit.shapes(end_points)
    assert [shapes['resnet/block%d' % number][1:] for number in (1, 2, 3, 4)
            ] == [[41, 41, 4], [21, 21, 8], [11, 11, 16], [11, 11, 32]]


@VERSIONS
def test_network_without_root_block_starts_with_block1(block, network):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    net, end_points = network(
        tf.zeros([2, 128, 128, 3]), _blocks(block), global_pool=False,
        include_root_block=False, output_stride=4)
    assert net.shape.as_list() == [2, 32, 32, 32]
    assert list(end_points)[0].startswith('resnet/block1/')
    assert [end_points['resnet/block%d' % number].shape.as_list()[1]
            for number in (1, 2, 3, 4)] == [64, 32, 32, 32]


@VERSIONS
def test_network_squeeze_of_several_positions_is_refused(block, network):
  with tf.Graph().as_default():
    with pytest.raises(ValueError):
      network(tf.zeros([2, 64, 64, 3]), _blocks(block), num_classes=10,
              global_pool=False)


@VERSIONS
def test_network_dilated_features_subsampled_equal_the_strided_features(
    block, network):
  strides = [None, 4, 16, 32]
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    inputs = tf.constant(nets_kit.seeded_image(81, 3))
    nets = [network(inputs, _blocks(block), is_training=False, reuse=index > 0,
                    global_pool=False, output_stride=output_stride)[0]
            for index, output_stride in enumerate(strides)]
    strided, *dense = _run(nets)
  assert strided.shape == (1, 3, 3, 32)
  assert [net.shape[1] for net in dense] == [21, 6, 3]
  for net, step in zip(dense, (8, 2, 1)):
    _assert_close(net[:, ::step, ::step], strided)


@VERSIONS
def test_network_unknown_batch_and_image_size_runs_at_two_sizes(block, network):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    with slim.arg_scope(resnet_arg_scope()):
      logits, _ = network(images, _blocks(block), num_classes=10)
    assert logits.shape.as_list() == [None, 10]
    with slim.arg_scope(resnet_arg_scope()):
      features, _ = network(images, _blocks(block), global_pool=False,
                            reuse=True)
    assert features.shape.as_list() == [None, None, None, 32]
    session.run(tf.global_variables_initializer())
    for shape, size in (((2, 65, 33), (3, 2)), ((3, 32, 32), (1, 1))):
      outputs = session.run([logits, features], {images: np.ones(shape + (3,))})
      assert outputs[0].shape == (shape[0], 10)
      assert outputs[1].shape == (shape[0],) + size + (32,)


@pytest.mark.parametrize('is_training, updated', [(True, True), (False, False),
                                                  (None, False)])
@VERSIONS
def test_network_is_training_none_uses_the_callers_arg_scope(
    block, network, is_training, updated):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    with slim.arg_scope([slim.batch_norm], is_training=False):
      network(tf.zeros([2, 32, 32, 3]), [block('block1', 1, 1, 1)],
              is_training=is_training)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    moving = [v for v in tf.global_variables() if '/moving_' in v.op.name]
    assert len(moving) > 4
    assert len(updates) == (len(moving) if updated else 0)


@VERSIONS
def test_network_is_training_none_without_arg_scope_has_end_points(block,
                                                                   network):
  with tf.Graph().as_default():
    logits, end_points = network(tf.zeros([2, 32, 32, 3]), _blocks(block),
                                 num_classes=10, is_training=None)
    assert logits.shape.as_list() == [2, 10]
    assert end_points['predictions'].shape.as_list() == [2, 10]


@VERSIONS
def test_network_also_collects_outputs_for_the_caller(block, network):
  with tf.Graph().as_default(), slim.arg_scope(
      [slim.conv2d], outputs_collections='mine'):
    _, end_points = network(tf.zeros([2, 32, 32, 3]),
                            [block('block1', 1, 1, 1)])
    assert [name for name in end_points if 'conv' in name]
    collected = slim.utils.convert_collection_to_dict('mine')
    assert set(collected) == {name for name in end_points
                              if name.endswith(('conv1', 'conv2', 'conv3',
                                                'shortcut'))}
    # The network leaves no collection of its own behind.
    assert not [key for key in tf.get_default_graph().get_all_collection_keys()
                if 'end_points' in key]


@VERSIONS
def test_network_reuse_shares_variables_but_not_end_points(block, network):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope()):
    images = tf.zeros([2, 32, 32, 3])
    blocks = [block('block1', 1, 2, 2)]
    _, first = network(images, blocks, num_classes=4)
    before = tf.global_variables()
    _, second = network(images, blocks, num_classes=4, reuse=True)
    assert tf.global_variables() == before
    assert list(first) == list(second)
    assert not [name for name in first if first[name] is second[name]]


@VERSIONS
def test_network_arg_scope_options_reach_the_layers(block, network):
  with tf.Graph().as_default(), slim.arg_scope(resnet_arg_scope(
      weight_decay=0.5, batch_norm_decay=0.75, batch_norm_epsilon=0.125,
      batch_norm_scale=False, activation_fn=tf.nn.elu,
      batch_norm_updates_collections='mine')):
    network(tf.zeros([2, 32, 32, 3]), [block('block1', 1, 1, 1)])
    names = list(nets_kit.variable_shapes())
    assert not [name for name in names if 'gamma' in name]
    assert [name for name in names if 'beta' in name]
    assert len(tf.get_collection('mine')) == len(
        [name for name in names if '/moving_' in name])
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []
    operations = tf.get_default_graph().get_operations()
    assert [op for op in operations if op.type == 'Elu']
    norms = [op for op in operations if op.type.startswith('FusedBatchNorm')]
    assert {round(op.get_attr('epsilon'), 6) for op in norms} == {0.125}
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    weights = [v for v in tf.trainable_variables()
               if v.op.name.endswith('/weights')]
    assert len(losses) == len(weights)
    losses, weights = _run([losses, weights])
  assert sum(losses) == pytest.approx(
      sum(0.5 * (weight ** 2).sum() / 2 for weight in weights), rel=1e-4)


def test_arg_scope_batch_norm_decay_is_that_of_the_moving_average():
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(resnet_arg_scope(batch_norm_decay=0.75)):
      # The weights are 1 and the 8 input channels are ones, and the convolution
      # is normalized before it is activated: its mean is 8.
      slim.conv2d(tf.ones([1, 2, 2, 8]), 1, 1,
                  weights_initializer=tf.ones_initializer())
    session.run(tf.global_variables_initializer())
    session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    mean = [v for v in tf.global_variables() if 'moving_mean' in v.op.name]
    assert session.run(mean)[0] == pytest.approx([0.25 * 8])


@VERSIONS
def test_arg_scope_without_batch_norm_adds_biases(block, network):
  with tf.Graph().as_default():
    with slim.arg_scope(resnet_arg_scope(use_batch_norm=False)):
      slim.conv2d(tf.zeros([1, 8, 8, 3]), 4, 1, scope='conv')
      pooled = slim.max_pool2d(tf.zeros([1, 7, 7, 3]), [3, 3], 2)
    assert set(nets_kit.variable_shapes()) == {'conv/weights', 'conv/biases'}
    assert pooled.shape.as_list() == [1, 4, 4, 3]  # 'SAME' padding.


@VERSIONS
def test_bottleneck_inputs_of_rank_3_are_refused(block, network):
  unit_fn = block('block1', 1, 1, 1).unit_fn
  with tf.Graph().as_default():
    with pytest.raises(ValueError):
      unit_fn(tf.zeros([2, 8, 3]), depth=4, depth_bottleneck=1, stride=1)


SHARED = ['num_classes', 'is_training', 'global_pool', 'output_stride']


@pytest.mark.parametrize('function, after_inputs', [
    (resnet_utils.resnet_arg_scope, [
        'batch_norm_decay', 'batch_norm_epsilon', 'batch_norm_scale',
        'activation_fn', 'use_batch_norm', 'batch_norm_updates_collections']),
    (resnet_utils.conv2d_same, ['num_outputs', 'kernel_size', 'stride', 'rate',
                                'scope']),
    (resnet_utils.subsample, ['factor', 'scope']),
    (resnet_v1.resnet_v1, ['blocks'] + SHARED + [
        'include_root_block', 'spatial_squeeze',
        'store_non_strided_activations', 'reuse', 'scope']),
    (resnet_v1.resnet_v1_50, SHARED + [
        'spatial_squeeze', 'store_non_strided_activations', 'reuse', 'scope',
        'min_base_depth', 'depth_multiplier']),
    (resnet_v2.resnet_v2, ['blocks'] + SHARED + [
        'include_root_block', 'spatial_squeeze', 'reuse', 'scope']),
    (resnet_v2.resnet_v2_50, SHARED + ['spatial_squeeze', 'reuse', 'scope']),
])
def test_function_has_slims_arguments_in_order(function, after_inputs):
  parameters = list(inspect.signature(function).parameters)
  assert parameters[1:] == after_inputs


@pytest.mark.parametrize('module, version', [(resnet_v1, 1), (resnet_v2, 2)])
@pytest.mark.parametrize('layers', [50, 101, 152, 200])
def test_published_network_has_its_name_and_size(module, version, layers):
  name = 'resnet_v%d_%d' % (version, layers)
  function = getattr(module, name)
  assert function.__name__ == name
  assert inspect.signature(function).parameters['scope'].default == name
  assert function.default_image_size == 224
  assert module.resnet_arg_scope is resnet_arg_scope
  # A unit has three layers. The other two are conv1 and the logits.
  stages = getattr(resnet_utils, 'RESNET_%d' % layers)
  assert 2 + 3 * sum(stage.num_units for stage in stages) == layers
