"""CifarNet, for images of 32 x 32, as trained on CIFAR-10.

Alex Krizhevsky's cuda-convnet (layers-conv-local-13pct) with its locally
connected layers replaced by fully connected ones, as in TensorFlow's CIFAR-10
tutorial.

  with slim.arg_scope(cifarnet_arg_scope()):
    logits, end_points = cifarnet(images, num_classes=10, is_training=False)
  probabilities = end_points['Predictions']

Differences from cuda-convnet:
- 384 and 192 fully connected units instead of locally connected maps.
- Pooling windows are 2 x 2 and do not overlap; in cuda-convnet they are 3 x 3.
- Dropout follows the first fully connected layer.
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
from nets.plain_utils import trunc_normal


@image_size(32)
def cifarnet(images: tf.Tensor, num_classes: Optional[int] = 10,
             is_training: bool = False, dropout_keep_prob: float = 0.5,
             prediction_fn: Optional[PredictionFn] = slim.softmax,
             scope: Optional[Scope] = 'CifarNet') -> NetworkOutput:
  """Builds CifarNet.

  Args:
    images: `[batch, height, width, 3]` float32, standardised; height and width
      must be known.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether dropout is active.
    dropout_keep_prob: fraction of features that dropout keeps.
    prediction_fn: function from logits to the end point 'Predictions', called
      with `scope`; None: no such end point.
    scope: name of the variable scope.

  Returns:
    Logits `[batch, num_classes]`, or without classes the features
    `[batch, 192]`; and a dict of end points.
  """
  end_points = {}
  with tf.variable_scope(scope, 'CifarNet', [images]):
    net = slim.conv2d(images, 64, [5, 5], scope='conv1')  # 32 x 32 x 64
    end_points['conv1'] = net
    net = slim.max_pool2d(net, [2, 2], 2, scope='pool1')  # 16 x 16 x 64
    end_points['pool1'] = net
    net = _normalize_response(net, 'norm1')
    net = slim.conv2d(net, 64, [5, 5], scope='conv2')     # 16 x 16 x 64
    end_points['conv2'] = net
    net = _normalize_response(net, 'norm2')
    net = slim.max_pool2d(net, [2, 2], 2, scope='pool2')  # 8 x 8 x 64
    end_points['pool2'] = net
    net = slim.flatten(net)                               # 4096
    end_points['Flatten'] = net
    net = slim.fully_connected(net, 384, scope='fc3')
    end_points['fc3'] = net
    net = slim.dropout(net, dropout_keep_prob, is_training=is_training,
                       scope='dropout3')
    net = slim.fully_connected(net, 192, scope='fc4')
    end_points['fc4'] = net
    if not num_classes:
      return net, end_points
    logits = slim.fully_connected(
        net, num_classes, biases_initializer=tf.zeros_initializer(),
        weights_initializer=trunc_normal(1 / 192.0),
        weights_regularizer=None, activation_fn=None, scope='logits')
    end_points['Logits'] = logits
    if prediction_fn:
      end_points['Predictions'] = prediction_fn(logits, scope='Predictions')
  return logits, end_points


def _normalize_response(net, name):
  return tf.nn.lrn(net, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75, name=name)


def cifarnet_arg_scope(weight_decay: float = 0.004) -> ArgScope:
  """Returns the arg scope of CifarNet.

  Args:
    weight_decay: factor of the L2 loss of the fully connected weights.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  with slim.arg_scope([slim.conv2d],
                      weights_initializer=trunc_normal(5e-2),
                      activation_fn=tf.nn.relu):
    with slim.arg_scope([slim.fully_connected],
                        biases_initializer=tf.constant_initializer(0.1),
                        weights_initializer=trunc_normal(0.04),
                        weights_regularizer=slim.l2_regularizer(weight_decay),
                        activation_fn=tf.nn.relu) as scope:
      return scope
