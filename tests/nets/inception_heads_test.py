"""Tests of inception_v1.py, v2 and v3: layers after the base, and options.

The bases have few and narrow layers, so that they are fast to build and run.
V3's auxiliary classifier is in inception_v3_test.py.
"""

from collections import namedtuple

import numpy as np
import pytest

from compat import slim, tf
from kits import inception_kit, nets_kit
from nets import inception_v1, inception_v2, inception_v3

# layers: replace those of the network. pool: scope of the average pool. after:
# end points after the layers; the average pool is the first. large: smallest
# image size at which the logits have several positions.
Head = namedtuple('Head', 'module layers size pool after large')

HEADS = {
    'inception_v1': Head(
        inception_v1, inception_kit.SMALL_V1, 224, 'AvgPool_0a_7x7',
        ['AvgPool_0a_7x7', 'Logits', 'Predictions'], 225),
    'inception_v2': Head(
        inception_v2, inception_kit.SMALL_V2, 224, 'AvgPool_1a_7x7',
        ['AvgPool_1a', 'Logits', 'Predictions'], 257),
    'inception_v3': Head(
        inception_v3, inception_kit.SMALL_V3, 299, 'AvgPool_1a_8x8',
        ['AvgPool_1a', 'PreLogits', 'Logits', 'Predictions'], 363),
}
# Of the last layer.
CHANNELS = 256


@pytest.fixture(params=sorted(HEADS))
def head(request, monkeypatch):
  row = HEADS[request.param]
  monkeypatch.setattr(row.module, 'LAYERS', row.layers)
  return row


def layers_of(head):
  """Returns the end points of the layers, in order."""
  return [layer.scope for layer in head.layers]


def name_of(head):
  return head.module.__name__.split('.')[1]


def scope_of(head):
  """Returns the network's scope, as in 'InceptionV1'."""
  return name_of(head).replace('inception_v', 'InceptionV')


def build(head, images, num_classes=7, **options):
  """Builds the network, without the auxiliary classifier of V3."""
  if head.module is inception_v3:
    options['create_aux_logits'] = False
  return getattr(head.module, name_of(head))(images, num_classes, **options)


def photos(head, batch=2, size=None):
  return tf.zeros([batch] + [size or head.size] * 2 + [3])


def test_network_end_points_have_slims_order(head):
  with tf.Graph().as_default():
    logits, end_points = build(head, photos(head))
    assert list(end_points) == layers_of(head) + head.after
    assert logits is end_points['Logits']
    assert logits.op.name == scope_of(head) + '/Logits/SpatialSqueeze'
    assert logits.shape.as_list() == [2, 7]
    pooled = end_points[head.after[0]]
    assert pooled.op.name == '%s/Logits/%s/AvgPool' % (scope_of(head),
                                                       head.pool)
    assert pooled.shape.as_list() == [2, 1, 1, CHANNELS]


@pytest.mark.parametrize('num_classes', [None, 0])
def test_network_no_classes_returns_the_pooled_features(head, num_classes):
  with tf.Graph().as_default():
    net, end_points = build(head, photos(head), num_classes)
    assert net is end_points[head.after[0]]
    assert list(end_points) == layers_of(head) + head.after[:1]
    assert not [name for name in nets_kit.variable_shapes()
                if 'Logits' in name]


def test_network_unsqueezed_logits_keep_height_and_width(head):
  with tf.Graph().as_default():
    logits, end_points = build(head, photos(head), spatial_squeeze=False)
    assert logits.shape.as_list() == [2, 1, 1, 7]
    assert end_points['Predictions'].shape.as_list() == [2, 1, 1, 7]


def test_network_global_pool_takes_any_image_size(head):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, end_points = build(head, images, is_training=False,
                               global_pool=True)
    assert list(end_points) == (layers_of(head) + ['global_pool'] +
                                head.after[1:])
    pooled = end_points['global_pool']
    assert pooled.shape.as_list() == [None, 1, 1, CHANNELS]
    assert pooled.op.name == '%s/Logits/%s' % (
        scope_of(head), {'InceptionV3': 'GlobalPool'}.get(scope_of(head),
                                                          'global_pool'))
    session.run(tf.global_variables_initializer())
    for size in ((250, 300), (80, 100)):
      image = np.random.RandomState(1).uniform(-1, 1, (1,) + size + (3,))
      output, mean, last = session.run(
          [logits, pooled, end_points[layers_of(head)[-1]]], {images: image})
      assert output.shape == (1, 7)
      np.testing.assert_allclose(mean[0, 0, 0], last[0].mean((0, 1)),
                                 rtol=1e-4, atol=1e-6)


def test_network_unknown_image_size_runs_at_the_default_size(head):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, end_points = build(head, images, is_training=False)
    assert logits.shape.as_list() == [None, 7]
    session.run(tf.global_variables_initializer())
    output, pooled, last = session.run(
        [logits, end_points[head.after[0]], end_points[layers_of(head)[-1]]],
        {images: nets_kit.seeded_image(head.size, 3)})
    assert output.shape == (1, 7)
    np.testing.assert_allclose(pooled, last.mean((1, 2), keepdims=True),
                               rtol=1e-4, atol=1e-6)


def test_network_large_photos_have_logits_at_several_positions(head):
  with tf.Graph().as_default():
    logits, _ = build(head, photos(head, size=head.large - 1))
    assert logits.shape.as_list() == [2, 7]
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=r'\(2, 2\) .*spatial_squeeze=False'):
      build(head, photos(head, size=head.large))
  with tf.Graph().as_default():
    logits, _ = build(head, photos(head, size=head.large),
                      spatial_squeeze=False)
    assert logits.shape.as_list() == [2, 2, 2, 7]


@pytest.mark.parametrize('head, size, pool', [
    ('inception_v2', 112, 'AvgPool_1a_4x4'),
    ('inception_v2', 33, 'AvgPool_1a_2x2'),
    ('inception_v3', 150, 'AvgPool_1a_3x3'),
    ('inception_v3', 75, 'AvgPool_1a_1x1'),
], indirect=['head'])
def test_network_small_photos_reduce_the_pool(head, size, pool):
  with tf.Graph().as_default():
    logits, end_points = build(head, photos(head, size=size))
    assert logits.shape.as_list() == [2, 7]
    assert end_points['AvgPool_1a'].op.name == '%s/Logits/%s/AvgPool' % (
        scope_of(head), pool)


@pytest.mark.parametrize('head', ['inception_v1'], indirect=True)
def test_network_v1_small_photos_need_the_global_pool(head):
  with tf.Graph().as_default():
    logits, _ = build(head, photos(head, size=193))
    assert logits.shape.as_list() == [2, 7]
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=r'193 x 193 .* is \(6, 7\) here; '
                                         'global_pool=True'):
      build(head, tf.zeros([2, 192, 193, 3]))
  with tf.Graph().as_default():
    logits, _ = build(head, photos(head, size=112), global_pool=True)
    assert logits.shape.as_list() == [2, 7]


@pytest.mark.parametrize('head', ['inception_v2', 'inception_v3'],
                         indirect=True)
@pytest.mark.parametrize('depth_multiplier', [0.0, -0.1])
def test_network_bad_depth_multiplier_is_refused(head, depth_multiplier):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='depth_multiplier must be above 0'):
      build(head, photos(head), depth_multiplier=depth_multiplier)


@pytest.mark.parametrize('head', ['inception_v2', 'inception_v3'],
                         indirect=True)
def test_network_depth_multiplier_and_min_depth_bound_the_channels(head):
  with tf.Graph().as_default():
    _, end_points = build(head, photos(head), depth_multiplier=0.25,
                          min_depth=33)
    channels = {end_points[name].shape.as_list()[3]
                for name in layers_of(head)}
    assert channels == {33, 64}  # A quarter of 16, 64 and 256; at least 33.


def test_network_prediction_fn_of_the_caller_is_used(head):
  def predict(logits, scope):
    return tf.negative(logits, name=scope)

  with tf.Graph().as_default():
    _, end_points = build(head, photos(head), prediction_fn=predict)
    assert end_points['Predictions'].op.type == 'Neg'
    assert end_points['Predictions'].op.name in (
        scope_of(head) + '/Predictions',
        scope_of(head) + '/Logits/Predictions')
  with tf.Graph().as_default():
    _, end_points = build(head, photos(head), prediction_fn=None)
    assert list(end_points) == layers_of(head) + head.after[:-1]


def test_network_reuse_argument_shares_the_variables(head):
  with tf.Graph().as_default():
    build(head, photos(head))
    before = tf.global_variables()
    build(head, photos(head), is_training=False, reuse=True)
    assert tf.global_variables() == before


def test_network_scope_renames_the_variables(head):
  with tf.Graph().as_default():
    build(head, photos(head), scope='Mine')
    assert {name.split('/')[0] for name in nets_kit.variable_shapes()} == {
        'Mine'}


def test_network_dropout_keep_prob_is_used_in_training(head):
  with tf.Graph().as_default(), tf.Session() as session:
    logits, _ = build(head, photos(head), dropout_keep_prob=0.25)
    evaluation_logits, _ = build(head, photos(head), is_training=False,
                                 reuse=True, dropout_keep_prob=0.25)
    # The features are 1, and the logits are their sum plus 1.
    for variable in tf.global_variables():
      zero = (variable.op.name.endswith('weights') and
              '/Logits/' not in variable.op.name)
      session.run(variable.assign(tf.zeros_like(variable) if zero else
                                  tf.ones_like(variable)))
    trained, evaluated = session.run([logits, evaluation_logits])
  np.testing.assert_allclose(evaluated, 1 + CHANNELS)
  share = (trained - 1) / 4 / CHANNELS
  assert (0.12 < share).all() and (share < 0.38).all()
  assert (share * CHANNELS == (share * CHANNELS).round()).all()


def test_network_batch_norm_scale_adds_gammas(head):
  with tf.Graph().as_default():
    with slim.arg_scope(head.module.inception_utils.inception_arg_scope(
        batch_norm_scale=True)):
      build(head, photos(head))
    names = set(nets_kit.variable_shapes())
    beta = {name for name in names if name.endswith('/BatchNorm/beta')}
    assert {name[:-len('beta')] + 'gamma' for name in beta} <= names
    assert len(beta) in (2, 3)  # One per convolution of the base.
