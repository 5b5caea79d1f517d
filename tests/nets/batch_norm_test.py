"""Tests of nets/batch_norm.py: as in slim, frozen, and with another decay."""

import numpy as np
import pytest

from compat import slim, tf
from nets import inception_utils, mobilenet_v1
from nets.batch_norm import batch_norm
from nets.inception_utils import Branch, Conv


def _two_layers(images):
  """Builds two normalised convolutions in the arg scope of a network."""
  with slim.arg_scope(inception_utils.inception_arg_scope()):
    with slim.arg_scope([slim.batch_norm], is_training=True):
      with tf.variable_scope('Net'):
        return inception_utils.add_branches(images, (
            Branch('First', (Conv('Conv', 4, (3, 3)),)),
            Branch('Second', (Conv('Conv', 4, (3, 3)),)),
        ))


def _updated_variables():
  """Returns the names of the variables that the update ops assign to."""
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  return {op.inputs[0].op.name for op in updates}


def _images():
  rng = np.random.RandomState(3)
  return tf.constant(rng.uniform(2, 5, (4, 6, 6, 3)), tf.float32)


def _run(output):
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    return session.run(output)


def test_batch_norm_without_options_equals_slims():
  outputs, updates = [], []
  for normalizer in (batch_norm, slim.batch_norm):
    with tf.Graph().as_default():
      images = _images()
      output = normalizer(images, decay=0.7, scale=True, is_training=True)
      outputs.append(_run(output))
      updates.append([op.name for op in
                      tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
      assert output.op.name.startswith('BatchNorm/')
  np.testing.assert_array_equal(*outputs)
  assert updates[0] == updates[1] and len(updates[0]) == 2


def test_batch_norm_no_scopes_updates_all_layers():
  with tf.Graph().as_default():
    _two_layers(_images())
    assert _updated_variables() == {
        'Net/%s/Conv/BatchNorm/moving_%s' % (branch, kind)
        for branch in ('First', 'Second') for kind in ('mean', 'variance')}


@pytest.mark.parametrize('scopes, trained', [
    (['Net/Second'], ['Second']),
    (['Net/First', 'Net/Second/'], ['First', 'Second']),
    (['Net/.*/Conv'], ['First', 'Second']),
    (['.*/beta'], ['First', 'Second']),
    (['Net/First/Conv/BatchNorm/beta'], ['First']),
    (['Net/First/Conv/BatchNorm/beta:0$'], ['First']),
    (['Net/First/Conv/weights'], []),
    (['Second'], []),  # Matched from the start of the name.
    (['Logits', 'AuxLogits'], []),
    ([], []),
])
def test_batch_norm_trainable_scopes_update_matching_layers_only(scopes,
                                                                 trained):
  with tf.Graph().as_default():
    with slim.arg_scope([batch_norm], trainable_scopes=scopes):
      _two_layers(_images())
    assert {name.split('/')[1] for name in _updated_variables()} == set(trained)


def test_batch_norm_frozen_layer_uses_moving_statistics():
  with tf.Graph().as_default():
    images = _images()
    with slim.arg_scope([batch_norm], trainable_scopes=['Other']):
      output = batch_norm(images, is_training=True, epsilon=1e-4)
    # The moving mean is 0 and the variance 1, so hardly anything changes.
    result, expected = _run([output, images])
  np.testing.assert_allclose(result, expected, rtol=1e-4)


def test_batch_norm_trained_layer_uses_the_batch():
  with tf.Graph().as_default():
    with slim.arg_scope([batch_norm], trainable_scopes=['BatchNorm']):
      result = _run(batch_norm(_images(), is_training=True))
  assert abs(result.mean()) < 1e-4
  assert abs(result.std() - 1) < 1e-2


def test_batch_norm_trainable_scopes_match_the_scope_of_the_layer():
  with tf.Graph().as_default():
    with slim.arg_scope([batch_norm], trainable_scopes=['Block/preact/']):
      with tf.variable_scope('Block'):
        batch_norm(_images(), scope='preact', is_training=True)
        batch_norm(_images(), scope='postnorm', is_training=True)
    assert _updated_variables() == {'Block/preact/moving_mean',
                                    'Block/preact/moving_variance'}


def test_batch_norm_trainable_scopes_match_a_scope_object():
  with tf.Graph().as_default():
    with tf.variable_scope('Elsewhere') as scope:
      pass
    with slim.arg_scope([batch_norm], trainable_scopes=['Elsewhere/']):
      with tf.variable_scope('Block'):
        batch_norm(_images(), scope=scope, is_training=True)
    assert _updated_variables() == {'Elsewhere/moving_mean',
                                    'Elsewhere/moving_variance'}


def test_batch_norm_trainable_scopes_as_a_string_is_refused():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="list.*'Net/Second'"):
      batch_norm(_images(), trainable_scopes='Net/Second')


@pytest.mark.parametrize('override, decay', [(None, 0.9), (0.5, 0.5),
                                             (0.0, 0.0)])
def test_batch_norm_decay_override_changes_the_moving_average(override, decay):
  with tf.Graph().as_default():
    images = _images()
    with slim.arg_scope([batch_norm], decay_override=override):
      batch_norm(images, decay=0.9, is_training=True)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    moving_mean, = (v for v in tf.global_variables()
                    if v.op.name.endswith('moving_mean'))
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      session.run(updates)
      result = session.run(moving_mean)
      batch_mean = session.run(tf.reduce_mean(images, [0, 1, 2]))
  np.testing.assert_allclose(result, (1 - decay) * batch_mean, rtol=1e-5)


def test_batch_norm_decay_override_takes_precedence_over_slims_arg_scope():
  with tf.Graph().as_default():
    images = _images()
    with slim.arg_scope([batch_norm], decay_override=0.0):
      with slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope()):
        mobilenet_v1.mobilenet_v1_base(images, 'Conv2d_0')
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    moving_mean, = (v for v in tf.global_variables()
                    if v.op.name.endswith('moving_mean'))
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      session.run(updates)
      # With the 0.9997 of the network it would be close to 0.
      assert abs(session.run(moving_mean)).max() > 0.01


def test_batch_norm_arg_scope_of_slim_applies():
  with tf.Graph().as_default():
    with slim.arg_scope([slim.batch_norm], scale=True, is_training=False):
      batch_norm(_images())
    assert {v.op.name for v in tf.global_variables()} == {
        'BatchNorm/%s' % name for name in
        ('beta', 'gamma', 'moving_mean', 'moving_variance')}
    assert _updated_variables() == set()


def test_batch_norm_mobilenet_updates_only_trainable_scopes():
  with tf.Graph().as_default():
    with slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope()):
      with slim.arg_scope([batch_norm], trainable_scopes=[
          'MobilenetV1/Logits', 'MobilenetV1/Conv2d_13_pointwise']):
        mobilenet_v1.mobilenet_v1_025(tf.ones([2, 32, 32, 3]), 5)
    assert _updated_variables() == {
        'MobilenetV1/Conv2d_13_pointwise/BatchNorm/moving_mean',
        'MobilenetV1/Conv2d_13_pointwise/BatchNorm/moving_variance'}
