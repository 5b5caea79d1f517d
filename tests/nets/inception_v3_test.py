"""Tests of nets/inception_v3.py: layers and options.

inception_heads_test.py tests what follows them: pool, logits and predictions.
"""

import pytest

from compat import tf
from kits import inception_kit, nets_kit
from nets import inception, inception_v3

# End points of the base, in the order that they are built.
BASE = ['Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'MaxPool_3a_3x3',
        'Conv2d_3b_1x1', 'Conv2d_4a_3x3', 'MaxPool_5a_3x3', 'Mixed_5b',
        'Mixed_5c', 'Mixed_5d', 'Mixed_6a', 'Mixed_6b', 'Mixed_6c', 'Mixed_6d',
        'Mixed_6e', 'Mixed_7a', 'Mixed_7b', 'Mixed_7c']


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(inception_v3, 'LAYERS', inception_kit.SMALL_V3)


@pytest.fixture(scope='module')
def base():
  """Returns (graph, output, end points) of the base without an arg scope."""
  with tf.Graph().as_default() as graph:
    net, end_points = inception_v3.inception_v3_base(tf.zeros([5, 150, 150, 3]))
  return graph, net, end_points


def test_base_half_size_has_the_end_points_in_order(base):
  inception_kit.check_base(
      base, BASE, 'InceptionV3/Mixed_7c/concat', [5, 3, 3, 2048])


def test_base_pools_are_those_of_slim(base):
  with base[0].as_default():
    pools = inception_kit.pools()
  expected = {name: ('MaxPool', [3, 3], [2, 2], 'VALID')
              for name in ('MaxPool_3a_3x3', 'MaxPool_5a_3x3',
                           'Mixed_6a/Branch_2/MaxPool_1a_3x3',
                           'Mixed_7a/Branch_2/MaxPool_1a_3x3')}
  expected.update({
      name + '/Branch_3/AvgPool_0a_3x3': inception_kit.same_pool('AvgPool')
      for name in BASE if name.startswith('Mixed') and name[-1] != 'a'})
  assert pools == expected


def test_base_initial_weights_are_those_of_the_arg_scope(base):
  with base[0].as_default():
    assert inception_kit.stddevs() == {}


@pytest.mark.parametrize('final_endpoint, name, shape', [
    ('Conv2d_1a_3x3', 'Conv2d_1a_3x3/Relu', [1, 149, 149, 32]),
    ('MaxPool_5a_3x3', 'MaxPool_5a_3x3/MaxPool', [1, 35, 35, 192]),
    ('Mixed_5c', 'Mixed_5c/concat', [1, 35, 35, 288]),
])
def test_base_final_endpoint_builds_nothing_after_it(final_endpoint, name,
                                                     shape):
  with tf.Graph().as_default():
    net, end_points = inception_v3.inception_v3_base(
        tf.zeros([1, 299, 299, 3]), final_endpoint, scope='Mine')
    assert list(end_points) == BASE[:BASE.index(final_endpoint) + 1]
    assert net.op.name == 'Mine/' + name
    assert net.shape.as_list() == shape
    assert {name.split('/')[1] for name in nets_kit.variable_shapes()} == {
        name for name in end_points if not name.startswith('MaxPool')}


@pytest.mark.parametrize('options, message', [
    ({'depth_multiplier': 0.0}, 'depth_multiplier must be above 0, got 0.0'),
    ({'depth_multiplier': -0.1}, 'depth_multiplier must be above 0, got -0.1'),
    ({'final_endpoint': 'Mixed_7d'}, "final_endpoint 'Mixed_7d'; known: "),
])
def test_base_bad_argument_is_refused(options, message):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=message):
      inception_v3.inception_v3_base(tf.zeros([1, 299, 299, 3]), **options)
    assert tf.global_variables() == []


@pytest.mark.parametrize('depth_multiplier', [0.5, 2.0])
def test_base_depth_multiplier_scales_each_end_point(base, depth_multiplier):
  _, _, end_points = base
  with tf.Graph().as_default():
    _, scaled = inception_v3.inception_v3_base(
        tf.zeros([5, 150, 150, 3]), 'Mixed_5c',
        depth_multiplier=depth_multiplier, scope='Scaled')
    assert list(scaled) == BASE[:9]
    for name, end_point in scaled.items():
      assert (end_point.shape.as_list()[3] ==
              end_points[name].shape.as_list()[3] * depth_multiplier)


def test_network_depth_multiplier_scales_the_auxiliary_classifier(small):
  with tf.Graph().as_default():
    inception_v3.inception_v3(tf.zeros([1, 299, 299, 3]), 7, min_depth=40,
                              depth_multiplier=0.25)
    shapes = nets_kit.variable_shapes()
    scope = 'InceptionV3/AuxLogits/'
    assert shapes[scope + 'Conv2d_1b_1x1/weights'] == [1, 1, 40, 40]
    assert shapes[scope + 'Conv2d_2a_5x5/weights'] == [5, 5, 40, 192]
    assert shapes[scope + 'Conv2d_2b_1x1/weights'] == [1, 1, 192, 7]


def test_network_initial_auxiliary_weights_are_small(small):
  with tf.Graph().as_default():
    inception_v3.inception_v3(tf.zeros([1, 299, 299, 3]), 7)
    assert inception_kit.stddevs() == {
        'AuxLogits/Conv2d_2a_5x5/weights': 0.01,
        'AuxLogits/Conv2d_2b_1x1/weights': 0.001}


def test_network_without_aux_logits_builds_none(small):
  with tf.Graph().as_default():
    _, end_points = inception_v3.inception_v3(tf.zeros([1, 299, 299, 3]), 7,
                                              create_aux_logits=False)
    assert 'AuxLogits' not in end_points
    assert not [name for name in nets_kit.variable_shapes()
                if 'AuxLogits' in name]


def test_network_half_size_reduces_both_kernels(small):
  with tf.Graph().as_default():
    logits, end_points = inception_v3.inception_v3(
        tf.zeros([5, 150, 150, 3]), 7)
    assert logits.shape.as_list() == [5, 7]
    assert end_points['AuxLogits'].shape.as_list() == [5, 7]
    assert end_points['AvgPool_1a'].op.name.startswith(
        'InceptionV3/Logits/AvgPool_1a_3x3/')
    shapes = nets_kit.variable_shapes()
    assert shapes['InceptionV3/AuxLogits/Conv2d_2a_1x1/weights'] == [
        1, 1, 128, 768]


def test_network_aux_logits_need_107_pixels(small):
  with tf.Graph().as_default():
    _, end_points = inception_v3.inception_v3(tf.zeros([1, 107, 107, 3]), 7)
    assert end_points['Mixed_6e'].shape.as_list() == [1, 5, 5, 64]
    assert end_points['AuxLogits'].shape.as_list() == [1, 7]
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=r'107 x 107 .* layer of \(4, 5\)'):
      inception_v3.inception_v3(tf.zeros([1, 106, 107, 3]), 7)


def test_network_large_photos_have_auxiliary_logits_at_several_positions(small):
  images = [1, 347, 299, 3]
  with tf.Graph().as_default():
    _, end_points = inception_v3.inception_v3(
        tf.zeros(images), 7, global_pool=True, spatial_squeeze=False)
    assert end_points['AuxLogits'].shape.as_list() == [1, 2, 1, 7]
  with tf.Graph().as_default():
    with pytest.raises(ValueError,
                       match=r'auxiliary .* at \(2, 1\) .* create_aux'):
      inception_v3.inception_v3(tf.zeros(images), 7, global_pool=True)


def test_network_unknown_image_size_has_auxiliary_logits(small):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    _, end_points = inception_v3.inception_v3(images, 7, is_training=False)
    assert end_points['AuxLogits'].shape.as_list() == [None, 7]
    session.run(tf.global_variables_initializer())
    image = nets_kit.seeded_image(299, 3)
    output = session.run(end_points['AuxLogits'], {images: image})
    assert output.shape == (1, 7)


def test_inception_module_has_the_same_functions():
  assert inception.inception_v3 is inception_v3.inception_v3
  assert inception.inception_v3_base is inception_v3.inception_v3_base
  assert inception.inception_v3_arg_scope is inception_v3.inception_v3_arg_scope
  assert inception.inception_v3_arg_scope is inception.inception_arg_scope
