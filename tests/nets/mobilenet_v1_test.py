"""Tests of nets/mobilenet_v1.py: options."""

import copy

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import mobilenet_v1
from nets.mobilenet_v1 import Conv, DepthSepConv

pytestmark = pytest.mark.slow

BASE = ['Conv2d_0'] + ['Conv2d_%d_%s' % (index, kind)
                       for index in range(1, 14)
                       for kind in ('depthwise', 'pointwise')]

SMALL = [Conv([3, 3], 2, 16), DepthSepConv([3, 3], 1, 32),
         DepthSepConv([5, 3], 2, 64)]


def test_base_has_the_end_points_in_order():
  with tf.Graph().as_default():
    net, end_points = mobilenet_v1.mobilenet_v1_base(tf.zeros([5, 224, 224, 3]))
    assert list(end_points) == BASE
    assert net.shape.as_list() == [5, 7, 7, 1024]
    assert net.op.name.startswith('MobilenetV1/Conv2d_13_pointwise')


def test_base_with_batch_norm_has_slims_number_of_parameters():
  with tf.Graph().as_default():
    with slim.arg_scope([slim.conv2d, slim.separable_conv2d],
                        normalizer_fn=slim.batch_norm):
      mobilenet_v1.mobilenet_v1_base(tf.zeros([5, 224, 224, 3]))
    # From slim's test of this function.
    assert sum(v.shape.num_elements() for v in slim.get_model_variables()) == (
        3217920)


@pytest.mark.parametrize('final_endpoint, shape', [
    ('Conv2d_0', [1, 16, 16, 32]),
    ('Conv2d_1_depthwise', [1, 16, 16, 32]),
    ('Conv2d_2_pointwise', [1, 8, 8, 128]),
])
def test_base_final_endpoint_builds_nothing_after_it(final_endpoint, shape):
  with tf.Graph().as_default():
    net, end_points = mobilenet_v1.mobilenet_v1_base(
        tf.zeros([1, 32, 32, 3]), final_endpoint, scope='Mine')
    assert list(end_points) == BASE[:BASE.index(final_endpoint) + 1]
    assert net.shape.as_list() == shape
    assert {name.split('/')[1] for name in nets_kit.variable_shapes()} == (
        set(end_points))


@pytest.mark.parametrize('output_stride, size', [(8, 28), (16, 14), (32, 7),
                                                 (None, 7)])
def test_base_output_stride_sets_the_size(output_stride, size):
  with tf.Graph().as_default():
    net, _ = mobilenet_v1.mobilenet_v1_base(
        tf.zeros([1, 224, 224, 3]), output_stride=output_stride,
        depth_multiplier=0.25)
    assert net.shape.as_list() == [1, size, size, 256]


# 65 x 65 has an odd number of rows at each stride: 65, 33, 17, 9, 5, 3. Strides
# then sample the same pixels with either padding.
def _run_base(**options):
  with tf.Graph().as_default(), tf.Session() as session:
    net, _ = mobilenet_v1.mobilenet_v1_base(
        tf.constant(nets_kit.seeded_image(65, 3)), depth_multiplier=0.25,
        **options)
    nets_kit.load_seeded_weights(session, tf.global_variables())
    return session.run(net)


@pytest.fixture(scope='module')
def strided():
  return _run_base()


@pytest.mark.parametrize('output_stride, step', [(16, 2), (8, 4)])
def test_base_dilated_output_subsampled_equals_the_strided_output(
    strided, output_stride, step):
  dilated = _run_base(output_stride=output_stride)
  assert dilated.shape[1] == {16: 5, 8: 9}[output_stride]
  np.testing.assert_allclose(dilated[:, ::step, ::step], strided, rtol=1e-4,
                             atol=1e-5 * abs(strided).max())


def test_base_explicit_padding_at_odd_sizes_equals_same_padding(strided):
  padded = _run_base(use_explicit_padding=True)
  np.testing.assert_allclose(padded, strided, rtol=1e-4,
                             atol=1e-5 * abs(strided).max())


def test_base_explicit_padding_of_dilated_layers_equals_same_padding():
  np.testing.assert_allclose(
      _run_base(use_explicit_padding=True, output_stride=8),
      _run_base(output_stride=8), rtol=1e-4, atol=1e-3)


def test_base_depth_multiplier_and_min_depth_bound_the_channels():
  with tf.Graph().as_default():
    _, end_points = mobilenet_v1.mobilenet_v1_base(
        tf.zeros([1, 32, 32, 3]), 'Conv2d_4_pointwise', depth_multiplier=0.1,
        min_depth=10)
    channels = [end_points[name].shape.as_list()[3] for name in (
        'Conv2d_0', 'Conv2d_1_pointwise', 'Conv2d_2_pointwise',
        'Conv2d_4_pointwise')]
    assert channels == [10, 10, 12, 25]


def test_network_custom_conv_defs_are_built():
  with tf.Graph().as_default():
    logits, end_points = mobilenet_v1.mobilenet_v1(
        tf.zeros([2, 32, 32, 3]), 4, conv_defs=SMALL)
    assert list(end_points) == BASE[:5] + ['AvgPool_1a', 'Logits',
                                           'Predictions']
    assert logits.shape.as_list() == [2, 4]
    shapes = nets_kit.variable_shapes()
    assert shapes['MobilenetV1/Conv2d_2_depthwise/depthwise_weights'] == [
        5, 3, 32, 1]


@pytest.mark.parametrize('options, message', [
    ({'depth_multiplier': 0}, 'depth_multiplier must be above 0, got 0'),
    ({'depth_multiplier': -0.5}, 'depth_multiplier must be above 0, got -0.5'),
    ({'output_stride': 4}, 'output_stride must be 8, 16, 32 or None, got 4'),
    ({'final_endpoint': 'Conv2d_14'}, "unknown final_endpoint 'Conv2d_14'"),
    ({'conv_defs': [(3, 2, 8)]}, r'row 0 of conv_defs .* got \(3, 2, 8\)'),
])
def test_base_bad_argument_is_refused(options, message):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=message):
      mobilenet_v1.mobilenet_v1_base(tf.zeros([1, 32, 32, 3]), **options)
    assert tf.global_variables() == []


@pytest.mark.parametrize('shape', [[224, 224, 3], [1, 1, 224, 224, 3], None])
def test_network_inputs_of_other_rank_are_refused(shape):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='batch, height, width, channels'):
      mobilenet_v1.mobilenet_v1(tf.placeholder(tf.float32, shape))


@pytest.mark.parametrize('options', [{'depth_multiplier': 0.0},
                                     {'conv_defs': ['Conv']}])
def test_network_bad_argument_is_refused(options):
  with tf.Graph().as_default():
    with pytest.raises(ValueError):
      mobilenet_v1.mobilenet_v1(tf.zeros([1, 32, 32, 3]), **options)


def _network(images, **options):
  return mobilenet_v1.mobilenet_v1(images, 4, conv_defs=SMALL, **options)


def test_network_unsqueezed_logits_keep_height_and_width():
  with tf.Graph().as_default():
    logits, end_points = _network(tf.zeros([2, 64, 64, 3]),
                                  spatial_squeeze=False)
    # The pool of 7 x 7 has slim's default stride, 2: 16 x 16 to 5 x 5.
    assert logits.shape.as_list() == [2, 5, 5, 4]
    assert end_points['Predictions'].shape.as_list() == [2, 5, 5, 4]


def test_network_global_pool_takes_any_image_size():
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, end_points = _network(images, global_pool=True)
    assert 'AvgPool_1a' not in end_points
    assert end_points['global_pool'].shape.as_list() == [None, 1, 1, 64]
    session.run(tf.global_variables_initializer())
    for size in ((48, 64), (20, 20)):
      output = session.run(logits, {images: np.zeros((3,) + size + (3,))})
      assert output.shape == (3, 4)


def test_network_unknown_image_size_has_the_default_pool():
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, _ = _network(images)
    session.run(tf.global_variables_initializer())
    output = session.run(logits, {images: np.zeros((3, 28, 28, 3))})
    assert output.shape == (3, 4)  # 28 / 4 = 7, the size of the pool.


def test_network_small_images_reduce_the_pool():
  with tf.Graph().as_default():
    _, end_points = _network(tf.zeros([2, 16, 24, 3]))
    assert end_points['AvgPool_1a'].shape.as_list() == [2, 1, 1, 64]


def test_network_prediction_fn_is_called_or_omitted():
  with tf.Graph().as_default():
    _, end_points = _network(tf.zeros([2, 16, 16, 3]), prediction_fn=None)
    assert 'Predictions' not in end_points
    _, end_points = _network(
        tf.zeros([2, 16, 16, 3]), reuse=True,
        prediction_fn=lambda logits, scope: tf.sigmoid(logits, name=scope))
    assert end_points['Predictions'].op.type == 'Sigmoid'


def test_network_reuse_argument_shares_the_variables():
  with tf.Graph().as_default():
    _network(tf.zeros([2, 16, 16, 3]))
    before = tf.global_variables()
    _network(tf.zeros([2, 16, 16, 3]), is_training=False, reuse=True)
    assert tf.global_variables() == before


@pytest.mark.parametrize('network, factor', [
    (mobilenet_v1.mobilenet_v1_075, 0.75),
    (mobilenet_v1.mobilenet_v1_050, 0.50),
    (mobilenet_v1.mobilenet_v1_025, 0.25),
])
def test_scaled_network_has_fewer_channels(network, factor):
  assert network.default_image_size == 224
  with tf.Graph().as_default():
    _, end_points = network(tf.zeros([1, 16, 16, 3]), 4, conv_defs=SMALL)
    assert end_points['AvgPool_1a'].shape.as_list()[3] == 64 * factor


def _count_updates(is_training, network_is_training=None):
  with tf.Graph().as_default():
    with slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope(
        is_training=is_training)):
      if network_is_training is None:
        mobilenet_v1.mobilenet_v1_base(tf.zeros([1, 8, 8, 3]), 'Conv2d_0')
      else:
        _network(tf.zeros([1, 8, 8, 3]), is_training=network_is_training)
    return len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))


@pytest.mark.parametrize('is_training, updates', [(True, 2), (False, 0),
                                                  (None, 2)])
def test_arg_scope_is_training_applies_to_the_base(is_training, updates):
  assert _count_updates(is_training) == updates


def test_arg_scope_is_training_is_overridden_by_the_network():
  assert _count_updates(True, network_is_training=False) == 0
  assert _count_updates(False, network_is_training=True) == 2 * 5


@pytest.mark.parametrize('regularize_depthwise, losses', [(False, 2),
                                                          (True, 3)])
def test_arg_scope_regularizes_depthwise_weights_on_request(
    regularize_depthwise, losses):
  with tf.Graph().as_default():
    with slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope(
        weight_decay=0.1, regularize_depthwise=regularize_depthwise)):
      mobilenet_v1.mobilenet_v1_base(tf.zeros([1, 8, 8, 3]),
                                     'Conv2d_1_pointwise')
    collected = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    assert len(collected) == losses


def test_arg_scope_options_reach_the_layers():
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope(
        stddev=0.5, normalizer_fn=None)):
      net, _ = mobilenet_v1.mobilenet_v1_base(tf.zeros([1, 8, 8, 3]),
                                              'Conv2d_1_pointwise')
    assert net.op.type == 'Relu6'
    assert not [name for name in nets_kit.variable_shapes()
                if 'BatchNorm' in name]
    session.run(tf.global_variables_initializer())
    weights = session.run(tf.trainable_variables()[0])
  assert 0.35 < weights.std() < 0.5  # Truncated at 2 * stddev.


def test_arg_scope_updates_collection_is_used():
  with tf.Graph().as_default():
    with slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope(
        batch_norm_updates_collections='mine', batch_norm_decay=0.5)):
      mobilenet_v1.mobilenet_v1_base(tf.zeros([1, 8, 8, 3]), 'Conv2d_0')
    assert len(tf.get_collection('mine')) == 2
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []


def test_base_changed_copy_of_conv_defs_is_built():
  # Object detectors change the last layers like this.
  rows = copy.deepcopy(mobilenet_v1.MOBILENETV1_CONV_DEFS)
  rows[-1] = mobilenet_v1.DepthSepConv([3, 3], 1, 256)
  with tf.Graph().as_default():
    net, _ = mobilenet_v1.mobilenet_v1_base(
        tf.zeros([1, 32, 32, 3]), conv_defs=rows + [rows[-1]],
        final_endpoint='Conv2d_14_pointwise')
  assert net.shape.as_list() == [1, 1, 1, 256]
  assert len(mobilenet_v1._CONV_DEFS) == 14
