"""Tests of nets/vgg.py: options."""

import inspect

from compat import slim, tf
from nets import vgg


def test_vgg_variants_have_their_names_and_numbers_of_layers():
  assert vgg.vgg_d is vgg.vgg_16
  assert vgg.vgg_e is vgg.vgg_19
  for name, stages in (('vgg_a', vgg.VGG_A), ('vgg_16', vgg.VGG_16),
                       ('vgg_19', vgg.VGG_19)):
    function = getattr(vgg, name)
    assert function.__name__ == name
    assert inspect.signature(function).parameters['scope'].default == name
    layers = sum(len(stage.convolutions) for stage in stages) + 3
    assert layers == {'vgg_a': 11, 'vgg_16': 16, 'vgg_19': 19}[name]


def test_vgg_same_padding_keeps_each_position_of_fc6():
  with tf.Graph().as_default(), slim.arg_scope(vgg.vgg_arg_scope()):
    logits, end_points = vgg.vgg_a(
        tf.zeros([1, 64, 96, 3]), 10, spatial_squeeze=False,
        fc_conv_padding='SAME')
    assert end_points['vgg_a/fc6'].shape.as_list() == [1, 2, 3, 4096]
    assert logits.shape.as_list() == [1, 2, 3, 10]


def test_vgg_reuse_argument_shares_the_variables():
  with tf.Graph().as_default():
    vgg.vgg_a(tf.zeros([1, 224, 224, 3]), 10)
    before = tf.global_variables()
    vgg.vgg_a(tf.zeros([2, 224, 224, 3]), 10, is_training=False, reuse=True)
    assert tf.global_variables() == before
