"""Tests of nets/inception_v1.py: layers and options.

inception_heads_test.py tests what follows them: pool, logits and predictions.
"""

import pytest

from compat import tf
from kits import inception_kit, nets_kit
from nets import inception, inception_v1

# End points of the base, in the order that they are built.
BASE = ['Conv2d_1a_7x7', 'MaxPool_2a_3x3', 'Conv2d_2b_1x1', 'Conv2d_2c_3x3',
        'MaxPool_3a_3x3', 'Mixed_3b', 'Mixed_3c', 'MaxPool_4a_3x3', 'Mixed_4b',
        'Mixed_4c', 'Mixed_4d', 'Mixed_4e', 'Mixed_4f', 'MaxPool_5a_2x2',
        'Mixed_5b', 'Mixed_5c']


@pytest.fixture(scope='module')
def base():
  """Returns (graph, output, end points) of the base without an arg scope."""
  with tf.Graph().as_default() as graph:
    net, end_points = inception_v1.inception_v1_base(tf.zeros([5, 112, 112, 3]))
  return graph, net, end_points


def test_base_half_size_has_the_end_points_in_order(base):
  inception_kit.check_base(
      base, BASE, 'InceptionV1/Mixed_5c/concat', [5, 4, 4, 1024])


def test_base_pools_are_those_of_slim(base):
  with base[0].as_default():
    pools = inception_kit.pools()
  expected = {name: inception_kit.same_pool('MaxPool', 2)
              for name in ('MaxPool_2a_3x3', 'MaxPool_3a_3x3',
                           'MaxPool_4a_3x3')}
  expected['MaxPool_5a_2x2'] = ('MaxPool', [2, 2], [2, 2], 'SAME')
  expected.update({
      name + '/Branch_3/MaxPool_0a_3x3': inception_kit.same_pool('MaxPool')
      for name in BASE if name.startswith('Mixed')})
  assert pools == expected


def test_base_initial_weights_are_small(base):
  with base[0].as_default():
    stddevs = inception_kit.stddevs()
    weights = [v.op.name.split('/', 1)[1] for v in tf.global_variables()
               if v.op.name.endswith('/weights')]
  assert stddevs == {name: 0.01 for name in weights}
  assert len(weights) == 3 + 9 * 6


@pytest.mark.parametrize('final_endpoint, name, shape', [
    ('Conv2d_1a_7x7', 'Conv2d_1a_7x7/Relu', [1, 112, 112, 64]),
    ('MaxPool_4a_3x3', 'MaxPool_4a_3x3/MaxPool', [1, 14, 14, 480]),
    ('Mixed_4b', 'Mixed_4b/concat', [1, 14, 14, 512]),
])
def test_base_final_endpoint_builds_nothing_after_it(final_endpoint, name,
                                                     shape):
  with tf.Graph().as_default():
    net, end_points = inception_v1.inception_v1_base(
        tf.zeros([1, 224, 224, 3]), final_endpoint, scope='Mine')
    assert list(end_points) == BASE[:BASE.index(final_endpoint) + 1]
    assert net.op.name == 'Mine/' + name
    assert net.shape.as_list() == shape
    assert {name.split('/')[1] for name in nets_kit.variable_shapes()} == {
        name for name in end_points if not name.startswith('MaxPool')}


def test_base_without_root_block_starts_at_the_first_block():
  with tf.Graph().as_default():
    net, end_points = inception_v1.inception_v1_base(
        tf.zeros([5, 28, 28, 192]), 'Mixed_4b', include_root_block=False)
    assert list(end_points) == BASE[5:9]
    assert net.op.name == 'InceptionV1/Mixed_4b/concat'
    assert net.shape.as_list() == [5, 14, 14, 512]


@pytest.mark.parametrize('final_endpoint, options', [
    ('Mixed_5d', {}),
    ('Conv2d_1a_7x7', {'include_root_block': False}),
])
def test_base_unknown_final_endpoint_is_refused(final_endpoint, options):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="final_endpoint '%s'; known: " %
                       final_endpoint):
      inception_v1.inception_v1_base(tf.zeros([1, 224, 224, 192]),
                                     final_endpoint, **options)
    assert tf.global_variables() == []


def test_inception_module_has_the_same_functions():
  assert inception.inception_v1 is inception_v1.inception_v1
  assert inception.inception_v1_base is inception_v1.inception_v1_base
  assert inception.inception_v1_arg_scope is inception_v1.inception_v1_arg_scope
  assert inception.inception_v1_arg_scope is inception.inception_arg_scope


def test_base_third_positional_argument_is_the_scope():
  with tf.Graph().as_default():
    net, _ = inception.inception_v1_base(tf.zeros([1, 32, 32, 3]),
                                         'MaxPool_2a_3x3', 'Mine')
  assert net.op.name.startswith('Mine/')
