"""Tests of nets/inception_v4.py: options.

To be fast to build, the network has the few layers of SHALLOW where only the
heads matter. registry_test.py builds the whole network.
"""

import pytest

from compat import slim, tf
from kits import inception_kit, nets_kit
from nets import inception, inception_v4

pytestmark = pytest.mark.slow

# End points of the base, in the order that they are built.
BASE = ['Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'Mixed_3a',
        'Mixed_4a', 'Mixed_5a', 'Mixed_5b', 'Mixed_5c', 'Mixed_5d', 'Mixed_5e',
        'Mixed_6a', 'Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e', 'Mixed_6f',
        'Mixed_6g', 'Mixed_6h', 'Mixed_7a', 'Mixed_7b', 'Mixed_7c', 'Mixed_7d']

SHALLOW = tuple(row for row in inception_v4.LAYERS if row.scope in (
    'Conv2d_1a_3x3', 'Mixed_5a', 'Mixed_6h', 'Mixed_7d'))


@pytest.fixture
def shallow(monkeypatch):
  monkeypatch.setattr(inception_v4, 'LAYERS', SHALLOW)


def test_base_half_size_has_the_end_points_in_order():
  with tf.Graph().as_default():
    net, end_points = inception.inception_v4_base(tf.zeros([5, 150, 150, 3]))
    assert list(end_points) == BASE
    assert net.op.name == 'InceptionV4/Mixed_7d/concat'
    assert net.shape.as_list() == [5, 3, 3, 1536]
    halving = ('MaxPool', [3, 3], [2, 2], 'VALID')
    assert inception_kit.pools() == {
        'Mixed_3a/Branch_0/MaxPool_0a_3x3': halving,
        'Mixed_5a/Branch_1/MaxPool_1a_3x3': halving,
        'Mixed_6a/Branch_2/MaxPool_1a_3x3': halving,
        'Mixed_7a/Branch_2/MaxPool_1a_3x3': halving,
        **{'Mixed_%s/Branch_3/AvgPool_0a_3x3' % block:
           inception_kit.same_pool('AvgPool')
           for block in '5b 5c 5d 5e 6b 6c 6d 6e 6f 6g 6h 7b 7c 7d'.split()}}
    # Without an arg scope there is no batch norm.
    assert not [name for name in nets_kit.variable_shapes()
                if 'BatchNorm' in name]


def test_base_final_endpoint_builds_nothing_after_it():
  with tf.Graph().as_default():
    net, end_points = inception.inception_v4_base(
        tf.zeros([1, 299, 299, 3]), final_endpoint='Mixed_4a', scope='Mine')
    assert list(end_points) == BASE[:5]
    assert net.op.name == 'Mine/Mixed_4a/concat'
    assert net.shape.as_list() == [1, 71, 71, 192]
    assert {name.split('/')[1] for name in nets_kit.variable_shapes()} == (
        set(BASE[:5]))


def test_base_unknown_final_endpoint_is_refused():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="final_endpoint 'Mixed_8a'; known: "):
      inception.inception_v4_base(tf.zeros([1, 299, 299, 3]), 'Mixed_8a')


@pytest.mark.parametrize('block, scope, size, channels', [
    (inception_v4.block_inception_a, 'BlockInceptionA', 17, 384),
    (inception_v4.block_reduction_a, 'BlockReductionA', 8, 384 + 256 + 10),
    (inception_v4.block_inception_b, 'BlockInceptionB', 17, 1024),
    (inception_v4.block_reduction_b, 'BlockReductionB', 8, 192 + 320 + 10),
    (inception_v4.block_inception_c, 'BlockInceptionC', 17, 1536),
])
def test_block_function_has_slims_scope_and_reuses_variables(block, scope, size,
                                                             channels):
  with tf.Graph().as_default():
    inputs = tf.zeros([2, 17, 17, 10])
    output = block(inputs)
    assert output.shape.as_list() == [2, size, size, channels]
    names = sorted(nets_kit.variable_shapes())
    assert {name.split('/')[0] for name in names} == {scope}
    block(inputs, scope=scope, reuse=True)
    assert sorted(nets_kit.variable_shapes()) == names


def test_network_no_classes_returns_the_pooled_features(shallow):
  with tf.Graph().as_default():
    net, end_points = inception.inception_v4(tf.zeros([5, 299, 299, 3]), None)
    assert net.op.name.startswith('InceptionV4/Logits/AvgPool_1a')
    assert net.shape.as_list() == [5, 1, 1, 1536]
    assert list(end_points) == [row.scope for row in SHALLOW] + ['global_pool']
    assert not [name for name in nets_kit.variable_shapes()
                if 'Logits' in name]


def test_network_end_points_have_slims_order(shallow):
  with tf.Graph().as_default():
    logits, end_points = inception.inception_v4(tf.zeros([5, 299, 299, 3]), 7)
    assert list(end_points)[len(SHALLOW):] == [
        'AuxLogits', 'global_pool', 'PreLogitsFlatten', 'Logits', 'Predictions']
    assert logits.shape.as_list() == [5, 7]
    assert end_points['AuxLogits'].shape.as_list() == [5, 7]
    assert inception_kit.pools()['AuxLogits/AvgPool_1a_5x5'] == (
        'AvgPool', [5, 5], [3, 3], 'VALID')


def test_network_without_aux_logits_builds_none(shallow):
  with tf.Graph().as_default():
    _, end_points = inception.inception_v4(tf.zeros([5, 299, 299, 3]), 7,
                                           create_aux_logits=False)
    assert 'AuxLogits' not in end_points
    assert not [name for name in nets_kit.variable_shapes()
                if 'AuxLogits' in name]


def test_network_unknown_image_size_runs_at_two_sizes(shallow):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, end_points = inception.inception_v4(images, 7, is_training=False,
                                                create_aux_logits=False)
    assert logits.shape.as_list() == [None, 7]
    assert (end_points['global_pool'].op.name ==
            'InceptionV4/Logits/global_pool')
    session.run(tf.global_variables_initializer())
    for shape in ((2, 40, 40, 3), (1, 31, 50, 3)):
      output = session.run(logits, {images: tf.zeros(shape).eval()})
      assert output.shape == (shape[0], 7)


@pytest.mark.parametrize('size', [None, 20])
def test_network_aux_logits_at_unsuitable_size_are_refused(shallow, size):
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [1, size, size, 3])
    with pytest.raises(ValueError, match='create_aux_logits=False'):
      inception.inception_v4(images, 7)


def test_network_aux_logits_need_107_pixels():
  with tf.Graph().as_default():
    _, end_points = inception.inception_v4(tf.zeros([1, 107, 107, 3]), 7)
    assert end_points['Mixed_6h'].shape.as_list() == [1, 5, 5, 1024]
    assert end_points['AuxLogits'].shape.as_list() == [1, 7]
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=r'107 x 107 .* layer of \(4, 4\)'):
      inception.inception_v4(tf.zeros([1, 106, 106, 3]), 7)


def test_network_reuse_argument_shares_the_variables(shallow):
  with tf.Graph().as_default():
    images = tf.zeros([1, 299, 299, 3])
    inception.inception_v4(images, 7)
    before = tf.global_variables()
    inception.inception_v4(images, 7, is_training=False, reuse=True)
    assert tf.global_variables() == before


def test_network_scope_renames_the_variables(shallow):
  with tf.Graph().as_default():
    inception.inception_v4(tf.zeros([1, 299, 299, 3]), 7, scope='Mine')
    assert {name.split('/')[0] for name in nets_kit.variable_shapes()} == {
        'Mine'}


def test_network_dropout_keep_prob_is_used(shallow):
  with tf.Graph().as_default(), tf.Session() as session:
    # All inputs of dropout are 1, so that its outputs are 0 or 1 / 0.25.
    with slim.arg_scope([slim.conv2d],
                        weights_initializer=tf.zeros_initializer(),
                        biases_initializer=tf.ones_initializer()):
      _, end_points = inception.inception_v4(
          tf.zeros([1, 40, 40, 3]), 7, dropout_keep_prob=0.25,
          create_aux_logits=False)
    session.run(tf.global_variables_initializer())
    features = session.run(end_points['PreLogitsFlatten'])
  assert set(features.flat) == {0.0, 4.0}
  assert 0.15 < (features > 0).mean() < 0.35


def test_inception_v4_arg_scope_is_inception_arg_scope():
  assert inception.inception_v4_arg_scope is inception.inception_arg_scope
