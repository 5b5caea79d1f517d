"""Classifier head over several layers of a network.

  features = layers_head.pool(end_points, ('Mixed_7b', 'Mixed_7c', ...))
  logits = layers_head.classify(features, num_classes, head)

Each layer is averaged over height and width; signed square roots of the means
are standardized and classified by one linear layer. U. Evci et al.: Head2Toe,
arXiv 2201.03529, shows what the layers below the last one add; the square root
evens out means whose distribution is skewed.

With a kernel, the scores are averaged with those of a radial basis function
network: kernel ridge regression on principal components, whose support points
are training photos.

training/exact_fit.py computes the variables, which are all in the scope
LayersHead.
"""

from typing import Dict, NamedTuple, Optional, Sequence

import numpy as np

from compat import slim, tf

SCOPE = 'LayersHead'

# Name of the operation and of the end point of the pooled features.
FEATURES = SCOPE + '/features'

# Graph collection of the layers that are pooled: first those of the photo, then
# those of its mirror image.
POOLED = SCOPE + '/pooled'

# The network's own classifier; the head over layers; the same with a kernel.
LOGITS, LAYERS, KERNEL = 'logits', 'layers', 'layers+kernel'
KINDS = (LOGITS, LAYERS, KERNEL)

# Upper limits of the support points and of the principal components they are
# compared in: 4 MB of float32.
MAX_SUPPORT_POINTS = 2000
MAX_COMPONENTS = 512

# Added below the root, so that its gradient is finite at 0.
_ROOT_OFFSET = 1e-4

# Least probability whose logarithm is taken.
_LEAST_PROBABILITY = 1e-12


class Head(NamedTuple):
  """Which head a network gets in place of its own classifier."""

  # LAYERS or KERNEL.
  kind: str = LAYERS
  # Whether features are averaged over the photo and its mirror image.
  flip_average: bool = False
  # Rows of the kernel's support points; 0 without a kernel.
  support_points: int = 0


def pool(end_points: Dict[str, tf.Tensor],
         layers: Sequence[str]) -> tf.Tensor:
  """Returns the means of some layers over height and width.

  Args:
    end_points: tensors of a network: `[batch, height, width, channels]` or
      `[batch, channels]`.
    layers: keys of end_points.

  Returns:
    `[batch, n]` float32, the layers one after the other.
  """
  means = []
  for layer in layers:
    tensor = end_points[layer]
    tf.add_to_collection(POOLED, tensor)
    means.append(tensor if tensor.shape.ndims == 2 else
                 tf.reduce_mean(tensor, [1, 2]))
  return tf.concat(means, 1)


def classify(features: tf.Tensor, num_classes: int, head: Head) -> tf.Tensor:
  """Returns the logits of the head, and creates its variables.

  Args:
    features: `[batch, n]` float32, as `pool` returns them.
    num_classes: number of classes.
    head: Head.

  Returns:
    `[batch, num_classes]` float32. With a kernel their softmax is the mean of
    both probabilities, and their log-sum-exp is that of the linear layer.
  """
  size = features.shape.as_list()[1]
  with tf.variable_scope(SCOPE):
    # With operations that TensorFlow Lite 1.15 has: no Sign, no LogSumExp.
    roots = features / (tf.sqrt(tf.abs(features) + _ROOT_OFFSET) +
                        _ROOT_OFFSET ** 0.5)
    standard = ((roots - _constant('center', [size])) *
                _constant('scale', [size], 1.0))
    weights = slim.model_variable('weights', [size, num_classes],
                                  initializer=tf.zeros_initializer())
    biases = slim.model_variable('biases', [num_classes],
                                 initializer=tf.zeros_initializer())
    linear = tf.nn.bias_add(tf.matmul(standard, weights), biases)
    if head.kind != KERNEL:
      return tf.identity(linear, 'logits')
    scores = _kernel_scores(standard, num_classes, head.support_points)
    share = _constant('Kernel/share', [])
    mean = ((1 - share) * tf.nn.softmax(linear) +
            share * tf.nn.softmax(scores))
    return tf.add(tf.log(tf.maximum(mean, _LEAST_PROBABILITY)),
                  linear - tf.nn.log_softmax(linear), 'logits')


def _kernel_scores(standard, num_classes, support_points):
  """Returns the scores of kernel ridge regression: [batch, num_classes]."""
  size = standard.shape.as_list()[1]
  components = min(size, MAX_COMPONENTS)
  with tf.variable_scope('Kernel'):
    points = tf.matmul(standard, _constant('components', [size, components]))
    support = _constant('support', [support_points, components])
    distances = (tf.reduce_sum(tf.square(points), 1, keepdims=True) +
                 tf.reduce_sum(tf.square(support), 1) -
                 2 * tf.matmul(points, support, transpose_b=True))
    kernel = tf.exp(-_constant('gamma', []) * tf.maximum(distances, 0.0))
    return (tf.matmul(kernel, _constant(
        'coefficients', [support_points, num_classes])) +
            _constant('offset', [num_classes]))


def _constant(name, shape, value=0.0):
  """Returns a variable that gradients do not change."""
  return slim.model_variable(name, shape, trainable=False,
                             initializer=tf.constant_initializer(value))


def square_roots(features: np.ndarray) -> np.ndarray:
  """Returns the signed square roots that `classify` computes.

  They are sign(f) * (sqrt(abs(f) + offset) - sqrt(offset)), as one quotient.

  Args:
    features: `[rows, n]` float32.
  """
  roots = np.sqrt(np.abs(features) + np.float32(_ROOT_OFFSET))
  roots += np.float32(_ROOT_OFFSET ** 0.5)
  return np.divide(features, roots, out=roots)


def last_layer(features: tf.Tensor, size: int) -> tf.Tensor:
  """Returns the last layer of pooled features: `[batch, size]`."""
  return features[:, -size:]


def make(kind: Optional[str], flip_average: bool = False,
         support_points: int = 0) -> Optional[Head]:
  """Returns a Head, or None for the network's own classifier.

  Args:
    kind: one of KINDS, or None.
    flip_average, support_points: fields of Head.
  """
  if kind is None or kind == LOGITS:
    return None
  return Head(kind, flip_average, support_points if kind == KERNEL else 0)
