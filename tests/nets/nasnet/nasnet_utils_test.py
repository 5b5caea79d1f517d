"""Tests of nets/nasnet/nasnet_utils.py: cells and their parts."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets.batch_norm import batch_norm
from nets.nasnet import nasnet_utils, pnasnet

CELLS = {
    'normal': nasnet_utils.NasNetANormalCell,
    'reduction': nasnet_utils.NasNetAReductionCell,
    'pnasnet': pnasnet.PNasNetNormalCell,
}


def _random(*shape):
  return np.random.RandomState(7).uniform(-1, 1, shape).astype('float32')


def _cell_scope(data_format='NHWC', is_training=False):
  """Returns the arg scope in which a network builds its cells."""
  with slim.arg_scope(
      [slim.conv2d, slim.separable_conv2d, slim.batch_norm, slim.avg_pool2d,
       slim.max_pool2d, nasnet_utils.factorized_reduction,
       nasnet_utils.get_channel_index, nasnet_utils.get_channel_dim],
      data_format=data_format):
    with slim.arg_scope([slim.conv2d, slim.separable_conv2d],
                        activation_fn=None, biases_initializer=None):
      with slim.arg_scope([slim.batch_norm, nasnet_utils.drop_path],
                          is_training=is_training) as scope:
        return scope


def _cell(kind, keep_prob=1.0, bounded=False):
  return CELLS[kind](4, keep_prob, 10, 1000, use_bounded_activation=bounded)


def _base_cell(operations, states=None, used=(1, 1, 0), **options):
  """Returns a cell of one combination, which is faster to build."""
  return nasnet_utils.NasNetABaseCell(
      4, operations, used, states or [0] * len(operations),
      options.pop('keep_prob', 1.0), 10, 1000, **options)


@pytest.mark.parametrize('cells, reductions, expected', [
    (18, 2, [6, 12]), (12, 2, [4, 8]), (9, 2, [3, 6]), (20, 2, [6, 13]),
    (18, 1, [9]), (18, 0, [])])
def test_calc_reduction_layers_divides_the_cells_evenly(cells, reductions,
                                                        expected):
  assert nasnet_utils.calc_reduction_layers(cells, reductions) == expected


@pytest.mark.parametrize('data_format, axis, channels', [('NHWC', 3, 40),
                                                         ('NCHW', 1, 20)])
def test_channel_index_and_dim_depend_on_the_data_format(data_format, axis,
                                                         channels):
  shape = [10, 20, 30, 40]
  assert nasnet_utils.get_channel_index(data_format) == axis
  assert nasnet_utils.get_channel_dim(shape, data_format) == channels
  assert nasnet_utils.get_channel_dim(tf.TensorShape(shape),
                                      data_format) == channels
  with slim.arg_scope([nasnet_utils.get_channel_index],
                      data_format=data_format):
    assert nasnet_utils.get_channel_index() == axis


@pytest.mark.parametrize('call', [
    nasnet_utils.get_channel_index,
    lambda: nasnet_utils.get_channel_index('NWHC'),
    lambda: nasnet_utils.get_channel_dim([1, 2, 3, 4]),
    lambda: nasnet_utils.global_avg_pool(tf.zeros([1, 2, 2, 1])),
    lambda: nasnet_utils.factorized_reduction(tf.zeros([1, 2, 2, 1]), 2, 2),
])
def test_unknown_data_format_is_refused(call):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="'NHWC' or 'NCHW', got '"):
      call()


def test_shapes_of_rank_2_are_refused():
  with pytest.raises(ValueError, match=r'4 dimensions .* \[1, 2\]'):
    nasnet_utils.get_channel_dim([1, 2], 'NHWC')
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=r'4 dimensions, .* \(1, 2\)'):
      nasnet_utils.global_avg_pool(tf.zeros([1, 2]), 'NHWC')


@pytest.mark.parametrize('data_format, axes', [('NHWC', (1, 2)),
                                               ('NCHW', (2, 3))])
def test_global_avg_pool_averages_over_height_and_width(data_format, axes):
  images = _random(5, 2, 3, 4)
  with tf.Graph().as_default(), tf.Session() as session:
    pooled = session.run(nasnet_utils.global_avg_pool(tf.constant(images),
                                                      data_format))
  np.testing.assert_allclose(pooled, images.mean(axes), rtol=1e-5, atol=1e-6)


def _run_reduction(images, filters, stride):
  """Runs factorized_reduction with weights of 1; returns output and shapes."""
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(_cell_scope()), slim.arg_scope(
        [slim.conv2d], weights_initializer=tf.ones_initializer()), \
        slim.arg_scope([slim.batch_norm], epsilon=0.0):
      net = nasnet_utils.factorized_reduction(tf.constant(images), filters,
                                              stride)
    session.run(tf.global_variables_initializer())
    return session.run(net), nets_kit.variable_shapes()


@pytest.mark.parametrize('size', [6, 7])
def test_factorized_reduction_reads_even_and_odd_pixels(size):
  images = _random(2, size, size, 3)
  reduced, shapes = _run_reduction(images, 5, 2)
  padded = np.pad(images, [(0, 0), (0, 1), (0, 1), (0, 0)], 'constant')
  for channels, source in ((slice(0, 2), images[:, ::2, ::2]),
                           (slice(2, 5), padded[:, 1::2, 1::2])):
    for channel in range(*channels.indices(5)):
      np.testing.assert_allclose(reduced[..., channel], source.sum(3),
                                 rtol=1e-5, atol=1e-6)
  assert shapes['path1_conv/weights'] == [1, 1, 3, 2]
  assert shapes['path2_conv/weights'] == [1, 1, 3, 3]
  assert shapes['final_path_bn/beta'] == [5]


def test_factorized_reduction_stride_1_is_one_convolution():
  images = _random(2, 3, 3, 3)
  reduced, shapes = _run_reduction(images, 4, 1)
  np.testing.assert_allclose(reduced[..., 3], images.sum(3), rtol=1e-5,
                             atol=1e-6)
  assert {name.split('/')[0] for name in shapes} == {'path_conv', 'path_bn'}


def test_factorized_reduction_channels_first_shrinks_height_and_width():
  with tf.Graph().as_default():
    net = nasnet_utils.factorized_reduction(tf.zeros([2, 6, 8, 10]), 5, 2,
                                            data_format='NCHW')
    assert net.shape.as_list() == [2, 5, 4, 5]
    assert nets_kit.variable_shapes()['path1_conv/weights'] == [1, 1, 6, 2]


def test_drop_path_drops_whole_examples_and_scales_the_others():
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    images = tf.ones([2000, 2, 2, 3])
    dropped = session.run(nasnet_utils.drop_path(images, 0.8))
    assert set(np.unique(dropped)) == {0, np.float32(1.25)}
    assert (dropped == dropped[:, :1, :1, :1]).all()
    assert abs(dropped.mean() - 1) < 0.05
    np.testing.assert_array_equal(
        session.run(nasnet_utils.drop_path(images, tf.constant(1.0))), 1)
    assert nasnet_utils.drop_path(images, 0.8, is_training=False) is images


def _run_cell(kind, stride, bounded=False, prev_size=12, prev_channels=6):
  """Runs a seeded cell; returns its output, a digest and operation types."""
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(_cell_scope()):
      net = _cell(kind, bounded=bounded)(
          tf.constant(3 * _random(1, 6, 6, 8)), scope='cell', stride=stride,
          prev_layer=tf.constant(_random(1, prev_size, prev_size,
                                         prev_channels)))
    nets_kit.load_seeded_weights(session, tf.global_variables())
    output = session.run(net)
    types = {op.type for op in tf.get_default_graph().get_operations()}
  return output, (output * _random(*output.shape)).sum(), types


# Recorded when networks of these cells gave slim's logits.
@pytest.mark.parametrize('kind, stride, channels, digest', [
    ('normal', 1, 24, -54.10447), ('reduction', 2, 16, -5.972300),
    ('pnasnet', 1, 20, -39.43211), ('pnasnet', 2, 20, -15.68530)])
def test_cell_seeded_weights_give_the_recorded_output(kind, stride, channels,
                                                      digest):
  output, got, types = _run_cell(kind, stride)
  assert output.shape == (1, 6 // stride, 6 // stride, channels)
  assert got == pytest.approx(digest, rel=1e-4)
  assert 'Relu6' not in types


def test_cell_previous_layer_of_another_shape_is_projected():
  for size, channels, scopes in (
      (6, 6, {'prev_1x1', 'prev_bn'}), (6, 4, set()),
      (12, 4, {'path1_conv', 'path2_conv', 'final_path_bn'})):
    with tf.Graph().as_default(), slim.arg_scope(_cell_scope()):
      _base_cell(['none', 'none'])(
          tf.zeros([1, 6, 6, 8]), scope='cell',
          prev_layer=tf.zeros([1, size, size, channels]))
      names = {name.split('/')[1] for name in nets_kit.variable_shapes()}
    assert names == scopes | {'1x1', 'beginning_bn'}


def test_cell_without_previous_layer_reads_its_input_twice():
  with tf.Graph().as_default(), slim.arg_scope(_cell_scope()):
    net = _cell('reduction')(tf.zeros([1, 6, 6, 8]), scope='cell', stride=2,
                             filter_scaling=1.75)
    assert net.shape.as_list() == [1, 3, 3, 4 * 7]
    shapes = nets_kit.variable_shapes()
  assert shapes['cell/1x1/weights'] == [1, 1, 8, 7]
  assert shapes['cell/comb_iter_0/right/separable_7x7_1/depthwise_weights'] == [
      7, 7, 8, 1]


def test_cell_unknown_image_size_needs_prev_stride():
  with tf.Graph().as_default(), slim.arg_scope(_cell_scope()):
    images = tf.placeholder(tf.float32, [None, None, None, 8])
    previous = tf.placeholder(tf.float32, [None, None, None, 6])
    with pytest.raises(ValueError, match='needs prev_stride'):
      _base_cell(['none', 'none'])(images, scope='first', prev_layer=previous)
    with tf.Session() as session:
      cell = _base_cell(['none', 'max_pool_3x3'], [0, 1], used=(0, 0, 0))
      net = cell(images, scope='cell', prev_layer=previous, prev_stride=2)
      assert net.shape.as_list() == [None, None, None, 12]
      session.run(tf.global_variables_initializer())
      output = session.run(net, {images: _random(2, 5, 7, 8),
                                 previous: _random(2, 9, 14, 6)})
  assert output.shape == (2, 5, 7, 12)


def test_cell_channels_first_has_the_same_variables():
  results = []
  for data_format, shape, previous_shape in (
      ('NHWC', [1, 6, 6, 8], [1, 12, 12, 6]),
      ('NCHW', [1, 8, 6, 6], [1, 6, 12, 12])):
    with tf.Graph().as_default(), slim.arg_scope(_cell_scope(data_format)):
      # This cell has each kind of operation.
      net = _cell('reduction')(tf.zeros(shape), scope='cell', stride=2,
                               prev_layer=tf.zeros(previous_shape))
      results.append((nets_kit.variable_shapes(),
                      sorted(net.shape.as_list())))
  assert results[0] == results[1]


def test_cell_bounded_activation_keeps_values_within_0_and_6():
  assert _run_cell('reduction', 2)[0].max() > 6
  output, _, types = _run_cell('reduction', 2, bounded=True)
  assert 'Relu' not in types and 'Relu6' in types
  assert output.min() >= 0 and output.max() <= 6


def test_cell_bounded_activation_clips_each_operation():
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(_cell_scope()):
      cell = _base_cell(['max_pool_3x3', 'none'], [1, 1],
                        use_bounded_activation=True)
      net = cell(tf.zeros([1, 2, 2, 4]), scope='cell',
                 prev_layer=tf.fill([1, 2, 2, 4], 4.0))
    session.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(session.run(net), 6)  # Not 4 + 4.


@pytest.mark.parametrize('operation, layers, kernel', [
    ('separable_3x3_3', 3, 3), ('separable_5x5', 1, 5),
    ('separable_7x7_2', 2, 7)])
def test_cell_separable_operation_has_its_layers_and_kernels(operation, layers,
                                                             kernel):
  with tf.Graph().as_default(), slim.arg_scope(_cell_scope()):
    _base_cell([operation, 'none'])(tf.zeros([1, 6, 6, 8]), scope='cell')
    shapes = nets_kit.variable_shapes()
  kernels = {name: shape[:2] for name, shape in shapes.items()
             if name.endswith('depthwise_weights')}
  assert kernels == {
      'cell/comb_iter_0/left/separable_%dx%d_%d/depthwise_weights' %
      (kernel, kernel, layer): [kernel, kernel]
      for layer in range(1, layers + 1)}


@pytest.mark.parametrize('operation, expected', [
    ('max_pool_3x3', 8.0), ('avg_pool_3x3', 4.0), ('max_pool_2x2', 5.0),
    ('none', 0.0)])
def test_cell_pool_operation_reads_its_window(operation, expected):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(_cell_scope()):
      values = np.zeros([1, 3, 3, 4], 'float32')
      values[...] = np.arange(9).reshape(1, 3, 3, 1)
      net = _base_cell([operation, 'none'], [1, 0])(
          tf.zeros([1, 3, 3, 4]), scope='cell', prev_layer=tf.constant(values))
    session.run(tf.global_variables_initializer())
    window = {'none': (0, 0), 'max_pool_2x2': (0, 1)}.get(operation, (1, 1))
    assert session.run(net)[(0,) + window + (0,)] == pytest.approx(expected)


def test_cell_unused_inputs_are_reduced_to_the_output_size():
  with tf.Graph().as_default(), slim.arg_scope(_cell_scope()):
    net = _base_cell(['none', 'none'], used=(0, 0, 0))(
        tf.zeros([1, 6, 6, 8]), scope='cell', stride=2,
        prev_layer=tf.zeros([1, 6, 6, 8]))
    assert net.shape.as_list() == [1, 3, 3, 12]
    names = set(nets_kit.variable_shapes())
  assert 'cell/cell_output/reduction_0/path1_conv/weights' in names
  assert 'cell/cell_output/reduction_1/path2_conv/weights' in names


@pytest.mark.parametrize('operation', [
    'conv_3x3', 'separable_3x5_2', 'min_pool_3x3', 'avg_pool_3x3_2', 'None'])
def test_cell_unknown_operation_is_refused(operation):
  with pytest.raises(ValueError, match="unknown operation '%s'" % operation):
    _base_cell([operation, 'none'])


@pytest.mark.parametrize('options, counts', [
    ({'operations': ['none'] * 3}, '3, 3 and 3'),
    ({'operations': ['none'] * 2, 'states': [0]}, '2, 1 and 3'),
    ({'operations': ['none'] * 2, 'used': (0, 0)}, '2, 2 and 2')])
def test_cell_lists_of_mismatched_lengths_are_refused(options, counts):
  with pytest.raises(ValueError, match='got %s$' % counts):
    _base_cell(**options)


@pytest.fixture
def keep_probs(monkeypatch):
  """Records the keep_prob of each path that may be dropped."""
  recorded = []

  @slim.add_arg_scope
  def drop_path(net, keep_prob, is_training):
    assert is_training
    recorded.append(keep_prob)
    return net

  monkeypatch.setattr(nasnet_utils, 'drop_path', drop_path)
  return recorded


def test_cell_drops_the_paths_of_all_operations_except_identities(keep_probs):
  with tf.Graph().as_default(), slim.arg_scope(_cell_scope(is_training=True)):
    _cell('normal', keep_prob=0.6)(tf.zeros([1, 6, 6, 8]), scope='cell',
                                   cell_num=0, current_step=1)
  assert len(keep_probs) == 8


@pytest.mark.parametrize('cell_num, step, expected', [
    (9, 0, 1.0), (9, 500, 0.8), (9, 1000, 0.6), (9, 5000, 0.6), (4, 1000, 0.8),
    (0, 1000, 0.96)])
def test_cell_keeps_fewer_paths_with_depth_and_steps(keep_probs, cell_num, step,
                                                     expected):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(_cell_scope(is_training=True)):
      _base_cell(['max_pool_3x3', 'none'], keep_prob=0.6)(
          tf.zeros([1, 6, 6, 8]), scope='cell', cell_num=cell_num,
          current_step=tf.constant(step, tf.int64))
    assert session.run(keep_probs) == pytest.approx([expected])


def test_cell_without_current_step_uses_the_global_step(keep_probs):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(_cell_scope(is_training=True)), tf.variable_scope(
        'tower'):
      cell = _base_cell(['max_pool_3x3', 'none'], keep_prob=0.6)
      cell(tf.zeros([1, 6, 6, 8]), scope='a', cell_num=9)
      cell(tf.zeros([1, 6, 6, 8]), scope='b', cell_num=9)
    step = tf.train.get_global_step()
    assert step.op.name == 'global_step'
    assert tf.trainable_variables() and step not in tf.trainable_variables()
    session.run([tf.global_variables_initializer(), step.initializer])
    session.run(tf.assign(step, 250))
    assert session.run(keep_probs) == pytest.approx([0.9, 0.9])


def test_cell_that_drops_paths_needs_cell_num():
  with tf.Graph().as_default(), slim.arg_scope(_cell_scope()):
    with pytest.raises(ValueError, match='needs cell_num'):
      _cell('normal', keep_prob=0.6)(tf.zeros([1, 6, 6, 8]), scope='cell')


def test_cell_trainable_scopes_of_the_caller_limit_the_updates():
  with tf.Graph().as_default():
    with slim.arg_scope(_cell_scope(is_training=True)), slim.arg_scope(
        [batch_norm], trainable_scopes=['live']):
      for scope in ('frozen', 'live'):
        _base_cell(['separable_3x3_2', 'none'])(
            tf.zeros([1, 12, 12, 8]), scope=scope,
            prev_layer=tf.zeros([1, 24, 24, 8]))
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    # Two moving averages for each of the input, the previous layer and the two
    # separable convolutions.
    assert len(updates) == 2 * (2 + 2)
    assert all(op.name.startswith('live/') for op in updates)
