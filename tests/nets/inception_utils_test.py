"""Tests of inception_utils.py: interpreter of branch tables, and arg scope."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import inception_utils
from nets.inception_utils import (
  AvgPool,
  Block,
  Branch,
  Conv,
  Fork,
  MaxPool,
  SeparableConv,
)


def _ramp():
  return tf.reshape(tf.range(1 * 5 * 5 * 2, dtype=tf.float32), [1, 5, 5, 2])


def _weights_of_one():
  return slim.arg_scope([slim.conv2d],
                        weights_initializer=tf.ones_initializer(),
                        activation_fn=None)


def _run(*tensors):
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    return session.run(tensors)


def test_add_layer_conv_has_width_kernel_stride_and_scope():
  with tf.Graph().as_default():
    output = inception_utils.add_layer(
        _ramp(), Conv('Odd_name', 7, (1, 3), 2, 'VALID'))
    assert output.shape.as_list() == [1, 3, 2, 7]
    assert nets_kit.variable_shapes() == {
        'Odd_name/weights': [1, 3, 2, 7], 'Odd_name/biases': [7]}


def test_add_layer_max_pool_and_avg_pool_differ():
  with tf.Graph().as_default():
    image = _ramp()
    largest = inception_utils.add_layer(image, MaxPool('P', (3, 3), 2, 'VALID'))
    mean = inception_utils.add_layer(image, AvgPool('P', (3, 3), 2, 'VALID'))
    image, largest, mean = _run(image, largest, mean)
  np.testing.assert_allclose(largest[0, 0, 0], image[0, :3, :3].max((0, 1)))
  np.testing.assert_allclose(mean[0, 1, 1], image[0, 2:, 2:].mean((0, 1)))
  assert largest.shape == mean.shape == (1, 2, 2, 2)


def test_add_layer_default_keeps_height_and_width():
  with tf.Graph().as_default():
    for row in (Conv('A', 2, (3, 3)), MaxPool('B', (3, 3)),
                AvgPool('C', (3, 3))):
      output = inception_utils.add_layer(_ramp(), row)
      assert output.shape.as_list() == [1, 5, 5, 2]


def test_add_layer_fork_reads_one_input_twice():
  with tf.Graph().as_default(), _weights_of_one():
    image = _ramp()
    output = inception_utils.add_layer(image, Fork((
        Conv('One', 1, (1, 1)), Conv('Two', 2, (1, 1)))))
    image, output = _run(image, output)
  total = image.sum(-1)
  np.testing.assert_allclose(output, np.stack([total] * 3, -1))


def test_add_branches_concatenates_in_the_order_of_the_table():
  with tf.Graph().as_default(), _weights_of_one():
    image = _ramp()
    output = inception_utils.add_branches(image, (
        Branch('Branch_1', (Conv('Conv', 1, (1, 1)), Conv('Conv2', 1, (1, 1)))),
        Branch('Branch_0', (AvgPool('Pool', (1, 1)),)),
    ))
    assert output.op.name == 'concat'
    assert sorted(nets_kit.variable_shapes()) == [
        'Branch_1/Conv/biases', 'Branch_1/Conv/weights',
        'Branch_1/Conv2/biases', 'Branch_1/Conv2/weights']
    image, output = _run(image, output)
  np.testing.assert_allclose(output[..., 0], image.sum(-1))
  np.testing.assert_allclose(output[..., 1:], image)


def test_add_block_reuse_shares_the_variables():
  branches = (Branch('Branch_0', (Conv('Conv', 2, (1, 1)),)),)
  with tf.Graph().as_default():
    inception_utils.add_block(_ramp(), branches, 'Mixed', 'Default')
    inception_utils.add_block(_ramp(), branches, 'Mixed', 'Default', reuse=True)
    inception_utils.add_block(_ramp(), branches, None, 'Default')
    assert {name.split('/')[0] for name in nets_kit.variable_shapes()} == {
        'Mixed', 'Default'}


LAYERS = (
    Conv('Stem', 4, (3, 3)),
    Block('Mixed', (Branch('B', (Conv('Conv', 3, (1, 1)),)),)),
    MaxPool('Last', (3, 3), 2),
)


@pytest.mark.parametrize('final_endpoint, names, shape', [
    ('Stem', ['Stem'], [1, 5, 5, 4]),
    ('Mixed', ['Stem', 'Mixed'], [1, 5, 5, 3]),
    ('Last', ['Stem', 'Mixed', 'Last'], [1, 3, 3, 3]),
])
def test_add_layers_stops_at_the_final_endpoint(final_endpoint, names, shape):
  with tf.Graph().as_default():
    net, end_points = inception_utils.add_layers(_ramp(), LAYERS,
                                                 final_endpoint)
    assert list(end_points) == names
    assert net is end_points[final_endpoint]
    assert net.shape.as_list() == shape


def test_add_layers_unknown_final_endpoint_lists_the_known_names():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="'Mixed_9z'; known: Last, Mixed, St"):
      inception_utils.add_layers(_ramp(), LAYERS, 'Mixed_9z')
    assert tf.global_variables() == []


def test_add_layer_stddev_is_that_of_the_initial_weights():
  with tf.Graph().as_default():
    for row in (Conv('A', 64, (5, 5), stddev=0.02),
                SeparableConv('B', 64, (5, 5), 1, 'SAME', 0.5, 8)):
      inception_utils.add_layer(tf.zeros([1, 5, 5, 64]), row)
    weights = [v for v in tf.global_variables() if 'weights' in v.op.name]
    values = dict(zip([v.op.name for v in weights], _run(*weights)))
  # Truncation at two standard deviations leaves 0.88 of the deviation.
  for name, stddev in (('A/weights', 0.02), ('B/depthwise_weights', 0.5),
                       ('B/pointwise_weights', 0.5)):
    assert abs(values[name]).max() <= 2 * stddev
    np.testing.assert_allclose(values[name].std(), 0.88 * stddev, rtol=0.05)


# The depthwise multiplier is a third of the width, from 1 to that of the row.
@pytest.mark.parametrize('width, multiplier', [(64, 4), (11, 3), (2, 1)])
def test_add_layer_separable_conv_width_limits_the_multiplier(width,
                                                              multiplier):
  with tf.Graph().as_default():
    output = inception_utils.add_layer(
        _ramp(), SeparableConv('S', width, (3, 3), 2, 'VALID', 1.0, 4))
    assert output.shape.as_list() == [1, 2, 2, width]
    assert nets_kit.variable_shapes() == {
        'S/depthwise_weights': [3, 3, 2, multiplier],
        'S/pointwise_weights': [1, 1, 2 * multiplier, width],
        'S/biases': [width]}


def test_add_layers_channels_first_concatenates_on_axis_1():
  layers = (Block('Mixed', (Branch('B', (Fork((Conv('One', 3, (1, 1)),
                                               Conv('Two', 4, (1, 1)))),)),
                            Branch('C', (Conv('Three', 5, (1, 1)),)))),)
  with tf.Graph().as_default():
    with slim.arg_scope([slim.conv2d], data_format='NCHW'):
      net, _ = inception_utils.add_layers(tf.zeros([1, 2, 6, 7]), layers,
                                          'Mixed', axis=1)
    assert net.shape.as_list() == [1, 12, 6, 7]


MIXED = (
    Branch('A', (Conv('One', None, (1, 1)), MaxPool('Pool', (3, 3)))),
    Branch('B', (Conv('Two', 9, (1, 1)), Fork((Conv('Three', None, (1, 1)),
                                               Conv('Four', 2, (1, 1)))))),
)


def _widths(layers):
  """Returns the widths of all convolutions, in the order of the rows."""
  widths = []
  for layer in layers:
    if isinstance(layer, Block):
      widths += _widths(layer.branches)
    elif isinstance(layer, (Branch, Fork)):
      widths += _widths(layer.layers)
    elif isinstance(layer, Conv):
      widths.append(layer.width)
  return widths


def test_with_widths_fills_missing_widths_in_order():
  rows = inception_utils.with_widths((
      Conv('Stem', 7, (1, 1)), Block('M', MIXED, (20, 30)),
      Block('N', MIXED, (40, 50))))
  assert _widths(rows) == [7, 20, 9, 30, 2, 40, 9, 50, 2]
  assert inception_utils.with_widths(rows) == rows
  assert [row.scope for row in rows] == ['Stem', 'M', 'N']
  assert rows[1].branches[0].layers[1] == MIXED[0].layers[1]


@pytest.mark.parametrize('depth_multiplier, min_depth, widths', [
    (0.5, 0, [10, 4, 15, 1]), (0.5, 5, [10, 5, 15, 5]),
    (1.5, 8, [30, 13, 45, 8])])
def test_with_widths_depth_multiplier_scales_to_at_least_min_depth(
    depth_multiplier, min_depth, widths):
  rows = inception_utils.with_widths((Block('M', MIXED, (20, 30)),),
                                     depth_multiplier, min_depth)
  assert _widths(rows) == widths


@pytest.mark.parametrize('widths, message', [
    ((20,), 'no width is left for Three'),
    ((20, 30, 40, 50), 'M has 2 widths too many')])
def test_with_widths_wrong_number_of_widths_is_refused(widths, message):
  with pytest.raises(ValueError, match=message):
    inception_utils.with_widths((Block('M', MIXED, widths),))


@pytest.mark.parametrize('depth_multiplier', [0, -0.5])
def test_with_widths_depth_multiplier_not_above_0_is_refused(depth_multiplier):
  with pytest.raises(ValueError, match='must be above 0, got %r' %
                     depth_multiplier):
    inception_utils.with_widths(LAYERS, depth_multiplier)


@pytest.mark.parametrize('shape, expected', [
    ([1, 9, 9, 4], [7, 5]), ([1, 3, 9, 4], [3, 5]), ([1, 3, 2, 4], [3, 2]),
    ([1, None, 2, 4], [7, 5])])
def test_reduced_kernel_size_is_limited_by_the_known_input_size(shape,
                                                                expected):
  with tf.Graph().as_default():
    net = tf.placeholder(tf.float32, shape)
    assert inception_utils.reduced_kernel_size(net, [7, 5]) == expected


def test_squeeze_logits_removes_height_and_width_of_1():
  with tf.Graph().as_default():
    for shape, expected in (([1, 1, 1, 4], [1, 4]),
                            ([None, None, 1, 4], [None, 4])):
      logits = inception_utils.squeeze_logits(
          tf.placeholder(tf.float32, shape), 'net', 'or not')
      assert logits.shape.as_list() == expected


@pytest.mark.parametrize('shape, size', [
    ([2, 2, 1, 4], r'\(2, 1\)'), ([1, None, 3, 4], r'\(\?, 3\)|\(None, 3\)')])
def test_squeeze_logits_several_positions_are_refused(shape, size):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='a net .*(%s).*, or not' % size):
      inception_utils.squeeze_logits(tf.placeholder(tf.float32, shape),
                                     'a net', 'or not')


def _conv_in_arg_scope(**options):
  with slim.arg_scope(inception_utils.inception_arg_scope(**options)):
    return slim.conv2d(_ramp(), 3, [1, 1], scope='Conv')


def test_inception_arg_scope_default_normalises_without_gamma():
  with tf.Graph().as_default():
    output = _conv_in_arg_scope()
    assert set(nets_kit.variable_shapes()) == {
        'Conv/weights', 'Conv/BatchNorm/beta', 'Conv/BatchNorm/moving_mean',
        'Conv/BatchNorm/moving_variance'}
    assert output.op.type == 'Relu'
    assert len(tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)) == 1


def test_inception_arg_scope_scale_adds_gamma():
  with tf.Graph().as_default():
    _conv_in_arg_scope(batch_norm_scale=True)
    assert 'Conv/BatchNorm/gamma' in nets_kit.variable_shapes()


def test_inception_arg_scope_no_batch_norm_has_biases():
  with tf.Graph().as_default():
    _conv_in_arg_scope(use_batch_norm=False, activation_fn=tf.nn.relu6)
    assert set(nets_kit.variable_shapes()) == {'Conv/weights', 'Conv/biases'}
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []


def test_inception_arg_scope_activation_is_used():
  with tf.Graph().as_default():
    assert _conv_in_arg_scope(activation_fn=tf.nn.relu6).op.type == 'Relu6'


def test_inception_arg_scope_updates_collection_is_used():
  with tf.Graph().as_default():
    _conv_in_arg_scope(batch_norm_updates_collections='mine')
    assert len(tf.get_collection('mine')) == 2
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []


def test_inception_arg_scope_weight_decay_scales_the_loss():
  losses = []
  for weight_decay in (0.1, 0.3):
    with tf.Graph().as_default(), slim.arg_scope(
        inception_utils.inception_arg_scope(weight_decay)):
      slim.conv2d(_ramp(), 3, [1, 1], scope='Conv',
                  weights_initializer=tf.ones_initializer())
      loss, = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
      losses += _run(loss)
  # Half of the sum of the squares of 6 weights.
  np.testing.assert_allclose(losses, [0.1 * 3, 0.3 * 3], rtol=1e-6)


@pytest.mark.parametrize('decay', [0.0, 0.75])
def test_inception_arg_scope_batch_norm_decay_is_used(decay):
  with tf.Graph().as_default():
    _conv_in_arg_scope(batch_norm_decay=decay)
    mean, = (v for v in tf.global_variables() if 'moving_mean' in v.op.name)
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
      once = session.run(mean)
      session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
      twice = session.run(mean)
  # m1 = (1 - d) m, m2 = m1 d + (1 - d) m = m1 (1 + d).
  np.testing.assert_allclose(twice, once * (1 + decay), rtol=1e-5)
  assert abs(once).max() > 0
