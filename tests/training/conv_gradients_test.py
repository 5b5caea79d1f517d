"""Tests of training/conv_gradients.py against TensorFlow's gradients."""

import numpy as np
import pytest

from compat import slim, tf
from training import conv_gradients


def gradients(build, inputs, ours):
  """Returns the gradients of input and variables, and the operation types.

  Args:
    build: function from images to the output of a layer.
    inputs: array of images.
    ours: whether the gradients of conv_gradients.py are used.
  """
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
    gradient_tensors = tf.gradients(
        net * weights, [images] + tf.trainable_variables())
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      op_types = {op.type for op in graph.get_operations()}
      return session.run(gradient_tensors, {images: inputs}), op_types


# A dilated convolution splits 5 x 5 pixels into four images of 3 x 3.
LAYERS = {
    'full window': dict(kernel_size=5, padding='VALID'),
    'full window with a stride': dict(kernel_size=5, padding='VALID', stride=2),
    'whole but padded': dict(kernel_size=5, padding='SAME'),
    'part': dict(kernel_size=3, padding='VALID'),
    'part with a stride': dict(kernel_size=3, padding='SAME', stride=2),
    'full window when dilated': dict(kernel_size=3, padding='VALID', rate=2),
}


@pytest.mark.parametrize('name', LAYERS)
def test_fast_full_windows_gradients_equal_tensorflows(name):
  images = np.random.RandomState(0).randn(4, 5, 5, 6).astype(np.float32)

  def build(net):
    return slim.conv2d(net, 7, scope='layer', **LAYERS[name])

  expected, _ = gradients(build, images, ours=False)
  actual, op_types = gradients(build, images, ours=True)
  assert len(actual) == len(expected) == 3
  for ours, theirs in zip(actual, expected):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
  is_full_window = name.startswith('full')
  assert ('Conv2DBackpropInput' in op_types) != is_full_window
  assert ('MatMul' in op_types) == is_full_window
