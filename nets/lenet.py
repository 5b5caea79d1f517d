"""LeNet, for grey images of 28 x 28, as trained on MNIST.

Yann LeCun, Léon Bottou, Yoshua Bengio, Patrick Haffner: Gradient-Based Learning
Applied to Document Recognition. Proceedings of the IEEE, 1998, figure 2.

  with slim.arg_scope(lenet_arg_scope()):
    logits, end_points = lenet(images, num_classes=10, is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- 32 and 64 maps and 1024 units instead of 6, 16 and 120, 84.
- ReLU, max pooling, dropout and softmax instead of tanh, trainable
  subsampling and radial basis functions.
- Convolutions are padded, so that 28 x 28 stays 28 x 28.
"""

from typing import Optional

from compat import slim, tf
from nets.network_types import (
  ArgScope,
  NetworkOutput,
  PredictionFn,
  Scope,
  image_size,
)


@image_size(28)
def lenet(images: tf.Tensor, num_classes: Optional[int] = 10,
          is_training: bool = False, dropout_keep_prob: float = 0.5,
          prediction_fn: Optional[PredictionFn] = slim.softmax,
          scope: Optional[Scope] = 'LeNet') -> NetworkOutput:
  """Builds LeNet.

  Args:
    images: `[batch, height, width, 1]` float32 in [-1, 1]; height and width
      must be known.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether dropout is active.
    dropout_keep_prob: fraction of features that dropout keeps.
    prediction_fn: function from logits to the end point 'Predictions', called
      with `scope`; None: no such end point.
    scope: name of the variable scope.

  Returns:
    Logits `[batch, num_classes]`, or without classes the features
    `[batch, 1024]`; and a dict of end points.
  """
  end_points = {}
  with tf.variable_scope(scope, 'LeNet', [images]):
    net = slim.conv2d(images, 32, [5, 5], scope='conv1')  # 28 x 28 x 32
    end_points['conv1'] = net
    net = slim.max_pool2d(net, [2, 2], 2, scope='pool1')  # 14 x 14 x 32
    end_points['pool1'] = net
    net = slim.conv2d(net, 64, [5, 5], scope='conv2')     # 14 x 14 x 64
    end_points['conv2'] = net
    net = slim.max_pool2d(net, [2, 2], 2, scope='pool2')  # 7 x 7 x 64
    end_points['pool2'] = net
    net = slim.flatten(net)                               # 3136
    end_points['Flatten'] = net
    net = slim.fully_connected(net, 1024, scope='fc3')
    end_points['fc3'] = net
    if not num_classes:
      return net, end_points
    net = slim.dropout(net, dropout_keep_prob, is_training=is_training,
                       scope='dropout3')
    end_points['dropout3'] = net
    logits = slim.fully_connected(net, num_classes, activation_fn=None,
                                  scope='fc4')
    end_points['Logits'] = logits
  # Outside the scope, as in slim: the op is named Predictions, not
  # LeNet/Predictions.
  if prediction_fn:
    end_points['Predictions'] = prediction_fn(logits, scope='Predictions')
  return logits, end_points


def lenet_arg_scope(weight_decay: float = 0.0) -> ArgScope:
  """Returns the arg scope of LeNet.

  Args:
    weight_decay: factor of the L2 loss of the weights.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  with slim.arg_scope([slim.conv2d, slim.fully_connected],
                      weights_regularizer=slim.l2_regularizer(weight_decay),
                      weights_initializer=tf.truncated_normal_initializer(
                          stddev=0.1),
                      activation_fn=tf.nn.relu) as scope:
    return scope
