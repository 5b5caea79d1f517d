"""Tests of training/conv_gradients.py against TensorFlow's gradients."""

import numpy as np
import pytest

from compat import slim, tf
from training import conv_gradients


def gradients(build, inputs, ours):
  """Returns gradients of input and kernels, and the types of the operations."""
  with tf.Graph().as_default() as graph:
    tf.set_random_seed(1)
    images = tf.placeholder(tf.float32, [None] + list(inputs.shape[1:]))
    if ours:
      with conv_gradients.fast_full_windows(graph):
        net = build(images)
    else:
      net = build(images)
    weights = tf.constant(
        np.random.RandomState(2).randn(*net.shape.as_list()[1:]), tf.float32)
    found = tf.gradients(net * weights, [images] + tf.trainable_variables())
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      types = {op.type for op in graph.get_operations()}
      return session.run(found, {images: inputs}), types


# Dilated by 2, 5 x 5 pixels are four images of 3 x 3.
LAYERS = {
    'full window': dict(kernel_size=5, padding='VALID'),
    'full window with a stride': dict(kernel_size=5, padding='VALID', stride=2),
    'whole but padded': dict(kernel_size=5, padding='SAME'),
    'part': dict(kernel_size=3, padding='VALID'),
    'part with a stride': dict(kernel_size=3, padding='SAME', stride=2),
    'full window when dilated': dict(kernel_size=3, padding='VALID', rate=2),
}


@pytest.mark.parametrize('name', LAYERS)
def test_gradients_are_tensorflows(name):
  images = np.random.RandomState(0).randn(4, 5, 5, 6).astype(np.float32)

  def build(net):
    return slim.conv2d(net, 7, scope='layer', **LAYERS[name])

  expected, _ = gradients(build, images, ours=False)
  found, types = gradients(build, images, ours=True)
  assert len(found) == len(expected) == 3
  for one, other in zip(found, expected):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  full = name.startswith('full')
  assert ('Conv2DBackpropInput' in types) != full
  assert ('MatMul' in types) == full
