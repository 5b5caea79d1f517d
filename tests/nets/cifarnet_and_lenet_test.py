"""Tests of nets/cifarnet.py and lenet.py: options and initial weights."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import cifarnet, lenet

NETWORKS = [
    (cifarnet.cifarnet, cifarnet.cifarnet_arg_scope, 3, [
        'conv1', 'pool1', 'conv2', 'pool2', 'Flatten', 'fc3', 'fc4', 'Logits',
        'Predictions']),
    (lenet.lenet, lenet.lenet_arg_scope, 1, [
        'conv1', 'pool1', 'conv2', 'pool2', 'Flatten', 'fc3', 'dropout3',
        'Logits', 'Predictions']),
]


@pytest.mark.parametrize('network, arg_scope, channels, names', NETWORKS)
def test_network_end_points_have_slims_order(network, arg_scope, channels,
                                             names):
  with tf.Graph().as_default():
    with slim.arg_scope(arg_scope()):
      logits, end_points = network(tf.zeros([2, 40, 24, channels]), 6)
    assert list(end_points) == names
    assert logits.shape.as_list() == [2, 6]
    assert end_points['Flatten'].shape.as_list() == [2, 10 * 6 * 64]


@pytest.mark.parametrize('network, arg_scope, channels, names', NETWORKS)
def test_network_prediction_fn_and_scope_are_used(network, arg_scope, channels,
                                                  names):
  del arg_scope, names
  with tf.Graph().as_default():
    _, end_points = network(
        tf.zeros([2, 8, 8, channels]), 6, scope='Mine',
        prediction_fn=lambda logits, scope: tf.sigmoid(logits, name=scope))
    assert end_points['Predictions'].op.type == 'Sigmoid'
    assert {name.split('/')[0] for name in nets_kit.variable_shapes()} == {
        'Mine'}


@pytest.mark.parametrize('network, arg_scope, channels, names', NETWORKS)
def test_network_dropout_is_off_unless_training(network, arg_scope, channels,
                                                names):
  del arg_scope, names
  images = np.random.RandomState(0).rand(1, 8, 8, channels)
  for is_training in (False, True):
    with tf.Graph().as_default(), tf.Session() as session:
      logits, _ = network(tf.constant(images, tf.float32), 6,
                          is_training=is_training, dropout_keep_prob=0.2)
      session.run(tf.global_variables_initializer())
      first, second = session.run(logits), session.run(logits)
    assert (first == second).all() != is_training


def _initial_values(network, arg_scope, channels):
  """Returns ({variable: initial value}, regularization losses)."""
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(arg_scope(0.5)):
      network(tf.zeros([1, 32, 32, channels]), 200)
    session.run(tf.global_variables_initializer())
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    values = {v.op.name: session.run(v) for v in tf.global_variables()}
    return values, session.run(losses)


# Truncation at two standard deviations leaves 0.88 of the standard deviation.
def test_cifarnet_arg_scope_has_slims_initial_weights():
  values, losses = _initial_values(cifarnet.cifarnet,
                                   cifarnet.cifarnet_arg_scope, 3)
  for name, deviation in (('conv1', 0.05), ('conv2', 0.05), ('fc3', 0.04),
                          ('fc4', 0.04), ('logits', 1 / 192)):
    np.testing.assert_allclose(values['CifarNet/%s/weights' % name].std(),
                               0.88 * deviation, rtol=0.05)
  assert set(values['CifarNet/fc3/biases']) == {np.float32(0.1)}
  assert set(values['CifarNet/logits/biases']) == {0.0}
  np.testing.assert_allclose(sorted(losses), sorted(
      0.5 * (values['CifarNet/%s/weights' % name] ** 2).sum() / 2
      for name in ('fc3', 'fc4')), rtol=1e-4)


def test_lenet_arg_scope_has_slims_initial_weights():
  values, losses = _initial_values(lenet.lenet, lenet.lenet_arg_scope, 1)
  for name in ('conv1', 'conv2', 'fc3', 'fc4'):
    np.testing.assert_allclose(values['LeNet/%s/weights' % name].std(), 0.088,
                               rtol=0.08)
  np.testing.assert_allclose(sorted(losses), sorted(
      0.5 * (values['LeNet/%s/weights' % name] ** 2).sum() / 2
      for name in ('conv1', 'conv2', 'fc3', 'fc4')), rtol=1e-4)


@pytest.mark.parametrize('network, arg_scope, channels, names', NETWORKS)
def test_network_without_prediction_fn_has_no_predictions(network, arg_scope,
                                                          channels, names):
  with tf.Graph().as_default(), slim.arg_scope(arg_scope()):
    _, end_points = network(tf.zeros([2, 40, 24, channels]), 6,
                            prediction_fn=None)
  assert list(end_points) == names[:-1]
