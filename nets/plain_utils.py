"""Shared parts of the plain networks: VGG, AlexNet and OverFeat.

They are a sequence of convolutions and poolings, then two wide convolutions
that replace fully connected layers, then the classifier. A network's layers are
rows:

  LAYERS = (
      Conv('conv1', 64, [11, 11], 4, 'VALID'),
      MaxPool('pool1', [3, 3]),
  )

Arguments that a row does not set come from the network's arg scope.
"""

from typing import Callable, Iterable, List, NamedTuple, Optional, Union

from common.errors import InputError
from compat import slim, tf
from nets.network_types import ArgScope, EndPoints, NetworkOutput


class Conv(NamedTuple):
  """A convolution."""

  scope: str
  # Output channels.
  width: int
  # [height, width].
  kernel: List[int]
  stride: int = 1
  # None: set by the arg scope.
  padding: Optional[str] = None


class MaxPool(NamedTuple):
  """A maximum pooling."""

  scope: str
  # [height, width].
  kernel: List[int]
  stride: int = 2


# A layer of a network.
Layer = Union[Conv, MaxPool]

def trunc_normal(stddev: float) -> tf.truncated_normal_initializer:
  """Returns an initializer: truncated normal around 0."""
  return tf.truncated_normal_initializer(0.0, stddev)


def plain_arg_scope(weight_decay: float,
                    biases_initializer: Callable) -> ArgScope:
  """Returns the arg scope that the plain networks share.

  Args:
    weight_decay: factor of the L2 loss of the weights.
    biases_initializer: initializer of the biases of all layers.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  with slim.arg_scope([slim.conv2d, slim.fully_connected],
                      activation_fn=tf.nn.relu,
                      biases_initializer=biases_initializer,
                      weights_regularizer=slim.l2_regularizer(weight_decay)):
    with slim.arg_scope([slim.conv2d], padding='SAME') as scope:
      return scope


def _add_layers(net, layers, end_points):
  """Adds layers one after the other.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    layers: Conv and MaxPool rows.
    end_points: dict to which the output of each layer is added, under the name
      of the current variable scope and the row's scope.

  Returns:
    The last output.

  Raises:
    ValueError: the input of a layer without padding is smaller than its kernel.
  """
  prefix = tf.get_variable_scope().name
  for layer in layers:
    name = '%s/%s' % (prefix, layer.scope)
    if isinstance(layer, MaxPool):
      net = slim.max_pool2d(net, layer.kernel, layer.stride, scope=layer.scope)
    else:
      options = {}
      if layer.padding:
        options['padding'] = layer.padding
        _check_covers(net, layer, name)
      net = slim.conv2d(net, layer.width, layer.kernel, layer.stride,
                        scope=layer.scope, **options)
    end_points[name] = net
  return net


def _check_covers(net, layer, name):
  """Refuses an input of known size that is smaller than an unpadded kernel."""
  size = net.get_shape().as_list()[1:3]
  if layer.padding == 'VALID' and any(
      have is not None and have < need
      for have, need in zip(size, layer.kernel)):
    raise InputError(
        'the photos are too small: %s covers %s x %s positions of its input, '
        'which has %s x %s' % (name, layer.kernel[0], layer.kernel[1], size[0],
                               size[1]))


def plain_network(inputs: tf.Tensor, layers: Iterable[Layer], fc6: Conv,
                  fc7: Conv, num_classes: Optional[int], is_training: bool,
                  dropout_keep_prob: float, spatial_squeeze: bool,
                  global_pool: bool,
                  small_start: bool = False) -> NetworkOutput:
  """Builds a plain network in the current variable scope.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    layers: Conv and MaxPool rows, up to the last pooling.
    fc6: Conv row of the first wide layer.
    fc7: Conv row of the second.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether dropout is active.
    dropout_keep_prob: fraction of the outputs of fc6 and fc7 that are kept.
    spatial_squeeze: whether to remove height and width of the logits, which
      must be 1 x 1.
    global_pool: whether to average over all positions.
    small_start: whether the wide layers and the classifier have their own
      initializers, with small weights, instead of the arg scope's.

  Returns:
    Logits `[batch, num_classes]`, unsqueezed `[batch, height, width,
    num_classes]`, or without classes the features `[batch, height, width,
    width of fc7]`; and a dict of end points.

  Raises:
    ValueError: the photos are too small, or too large to squeeze the logits.
  """
  wide, last = {}, {}
  if small_start:
    wide = {'weights_initializer': trunc_normal(0.005),
            'biases_initializer': tf.constant_initializer(0.1)}
    last = dict(wide, biases_initializer=tf.zeros_initializer())
  end_points: EndPoints = {}
  net = _add_layers(inputs, layers, end_points)
  with slim.arg_scope([slim.conv2d], **wide):
    net = _add_layers(net, [fc6], end_points)
    net = slim.dropout(net, dropout_keep_prob, is_training=is_training,
                       scope='dropout6')
    net = _add_layers(net, [fc7], end_points)
  if global_pool:
    net = tf.reduce_mean(net, [1, 2], keepdims=True, name='global_pool')
    end_points['global_pool'] = net
  if num_classes:
    net = slim.dropout(net, dropout_keep_prob, is_training=is_training,
                       scope='dropout7')
    net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                      normalizer_fn=None, scope='fc8', **last)
    network = tf.get_variable_scope().name
    if spatial_squeeze:
      net = _squeeze(net, network)
    end_points[network + '/fc8'] = net
  return net, end_points


def _squeeze(logits, network):
  height, width = logits.get_shape().as_list()[1:3]
  if height not in (1, None) or width not in (1, None):
    raise InputError(
        'photos of this size give logits at %s x %s positions, so %s cannot '
        'squeeze them; global_pool=True averages over the positions, '
        'spatial_squeeze=False keeps them' % (height, width, network))
  return tf.squeeze(logits, [1, 2], name='fc8/squeezed')
