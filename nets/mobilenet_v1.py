"""MobileNet V1, for photos of 224 x 224 (or 192, 160, 128).

Andrew G. Howard, Menglong Zhu, Bo Chen, Dmitry Kalenichenko, Weijun Wang,
Tobias Weyand, Marco Andreetto, Hartwig Adam:
MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications. arXiv:1704.04861, table 1.

  with slim.arg_scope(mobilenet_v1_arg_scope(is_training=False)):
    logits, end_points = mobilenet_v1(images, num_classes=1001,
                                      is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- The last depthwise convolution has stride 1; table 1 prints 2, which would
  not give the 7 x 7 that follows.
- Activations are ReLU6; the paper says ReLU.
- There is dropout before the classifier.
"""

import functools
from typing import Callable, List, NamedTuple, Optional, Sequence, Union

from common.errors import InputError, unknown_name
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.network_types import (
  ArgScope,
  NetworkOutput,
  PredictionFn,
  Scope,
  image_size,
)


class Conv(NamedTuple):
  """A full convolution."""

  # [height, width].
  kernel: List[int]
  stride: int
  # Output channels before depth_multiplier.
  depth: int


class DepthSepConv(NamedTuple):
  """A depthwise and then a 1x1 convolution."""

  # As in Conv.
  kernel: List[int]
  stride: int
  depth: int


# A layer of a network.
Row = Union[Conv, DepthSepConv]

# Table 1. The scopes of these layers are Conv2d_<row>, as in the published
# checkpoints. It is a list, as in slim, because callers pass changed copies of
# it as `conv_defs`.
MOBILENETV1_CONV_DEFS = [
    Conv([3, 3], 2, 32),             # 112 x 112 x 32
    DepthSepConv([3, 3], 1, 64),     # 112 x 112 x 64
    DepthSepConv([3, 3], 2, 128),    # 56 x 56 x 128
    DepthSepConv([3, 3], 1, 128),
    DepthSepConv([3, 3], 2, 256),    # 28 x 28 x 256
    DepthSepConv([3, 3], 1, 256),
    DepthSepConv([3, 3], 2, 512),    # 14 x 14 x 512
    DepthSepConv([3, 3], 1, 512),
    DepthSepConv([3, 3], 1, 512),
    DepthSepConv([3, 3], 1, 512),
    DepthSepConv([3, 3], 1, 512),
    DepthSepConv([3, 3], 1, 512),
    DepthSepConv([3, 3], 2, 1024),   # 7 x 7 x 1024
    DepthSepConv([3, 3], 1, 1024),
]
_CONV_DEFS = MOBILENETV1_CONV_DEFS  # slim's name until 2018.

_OUTPUT_STRIDES = (8, 16, 32)


def mobilenet_v1_base(inputs: tf.Tensor,
                      final_endpoint: str = 'Conv2d_13_pointwise',
                      min_depth: int = 8, depth_multiplier: float = 1.0,
                      conv_defs: Optional[Sequence[Row]] = None,
                      output_stride: Optional[int] = None,
                      use_explicit_padding: bool = False,
                      scope: Optional[Scope] = None) -> NetworkOutput:
  """Builds the network without its classifier, up to `final_endpoint`.

  Args:
    inputs: `[batch, height, width, channels]` float32 in [-1, 1].
    final_endpoint: name of the last layer to build: Conv2d_0,
      Conv2d_<1 to 13>_depthwise or Conv2d_<1 to 13>_pointwise.
    min_depth: minimum number of channels of a layer.
    depth_multiplier: factor of the channels of all layers, above 0.
    conv_defs: Conv and DepthSepConv rows; None: MOBILENETV1_CONV_DEFS.
    output_stride: 8, 16 or 32: largest factor by which height and width shrink;
      later layers are dilated instead. None: 32, as published.
    use_explicit_padding: whether to pad the same way at all sizes and convolve
      without padding ('VALID'), as other frameworks do.
    scope: name or object of the variable scope; None: 'MobilenetV1'.

  Returns:
    The output of the last layer, and a dict of all layers' outputs by name.

  Raises:
    ValueError: `depth_multiplier` is not above 0, `output_stride` or
      `final_endpoint` is unknown, or a row of `conv_defs` is neither a Conv
      nor a DepthSepConv.
  """
  if depth_multiplier <= 0:
    raise InputError('depth_multiplier must be above 0, got %r' %
                     depth_multiplier)
  if output_stride is not None and output_stride not in _OUTPUT_STRIDES:
    raise InputError('output_stride must be 8, 16, 32 or None, got %r' %
                     output_stride)
  layers = _layers(conv_defs or MOBILENETV1_CONV_DEFS, output_stride)
  known = [layer.name for layer in layers]
  if final_endpoint not in known:
    raise unknown_name('final_endpoint', final_endpoint, known)

  net = inputs
  end_points = {}
  with tf.variable_scope(scope, 'MobilenetV1', [inputs]):
    with slim.arg_scope([slim.conv2d, slim.separable_conv2d],
                        padding='VALID' if use_explicit_padding else 'SAME'):
      for layer in layers[:known.index(final_endpoint) + 1]:
        if use_explicit_padding:
          net = _pad(net, layer.kernel, layer.rate)
        if layer.depth is None:
          net = slim.separable_conv2d(
              net, None, layer.kernel, depth_multiplier=1, stride=layer.stride,
              rate=layer.rate, scope=layer.name)
        else:
          depth = max(int(layer.depth * depth_multiplier), min_depth)
          net = slim.conv2d(net, depth, layer.kernel, stride=layer.stride,
                            scope=layer.name)
        end_points[layer.name] = net
  return net, end_points


class _Layer(NamedTuple):
  """A single convolution."""

  # Its scope and end point.
  name: str
  # [height, width].
  kernel: List[int]
  stride: int
  # The dilation.
  rate: int
  # None for a depthwise convolution.
  depth: Optional[int]


def _layers(conv_defs, output_stride):
  """Returns the single convolutions of `conv_defs`.

  Once `output_stride` is reached, strides become 1, and the dilation (`rate`)
  of later depthwise convolutions is multiplied by them instead.
  """
  layers = []
  current_stride, rate = 1, 1
  for index, row in enumerate(conv_defs):
    if not isinstance(row, (Conv, DepthSepConv)):
      raise InputError('row %d of conv_defs must be a Conv or a DepthSepConv, '
                       'got %r' % (index, row))
    name = 'Conv2d_%d' % index
    if current_stride == output_stride:
      stride, layer_rate = 1, rate
      rate *= row.stride
    else:
      stride, layer_rate = row.stride, 1
      current_stride *= row.stride
    if isinstance(row, Conv):
      layers.append(_Layer(name, row.kernel, stride, 1, row.depth))
    else:
      layers.append(_Layer(name + '_depthwise', row.kernel, stride, layer_rate,
                           None))
      layers.append(_Layer(name + '_pointwise', [1, 1], 1, 1, row.depth))
  return layers


def _pad(net, kernel, rate):
  """Pads height and width for a 'VALID' convolution that keeps the size."""
  paddings = [[0, 0], [0, 0], [0, 0], [0, 0]]
  for axis, size in zip((1, 2), kernel):
    total = (size - 1) * rate
    paddings[axis] = [total // 2, total - total // 2]
  if not any(before or after for before, after in paddings):
    return net
  return tf.pad(net, paddings)


@image_size(224)
def mobilenet_v1(inputs: tf.Tensor, num_classes: Optional[int] = 1000,
                 dropout_keep_prob: float = 0.999, is_training: bool = True,
                 min_depth: int = 8, depth_multiplier: float = 1.0,
                 conv_defs: Optional[Sequence[Row]] = None,
                 prediction_fn: Optional[PredictionFn] = slim.softmax,
                 spatial_squeeze: bool = True, reuse: Optional[bool] = None,
                 scope: Optional[Scope] = 'MobilenetV1',
                 global_pool: bool = False) -> NetworkOutput:
  """Builds MobileNet V1.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifier is built.
    dropout_keep_prob: fraction of features that dropout keeps.
    is_training: whether dropout is active and batch statistics are used.
    min_depth: minimum number of channels of a layer.
    depth_multiplier: factor of the channels of all layers, above 0.
    conv_defs: Conv and DepthSepConv rows; None: MOBILENETV1_CONV_DEFS.
    prediction_fn: function from logits to the end point 'Predictions', called
      with `scope`; None: no such end point.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope.
    global_pool: whether to average over all positions; otherwise over 7 x 7,
      or less if the photos are known to be smaller.

  Returns:
    Logits, or without classes the pooled features `[batch, 1, 1, channels]`;
    and a dict of end points.

  Raises:
    ValueError: `inputs` does not have 4 dimensions, or as for
      `mobilenet_v1_base`.
  """
  shape = inputs.get_shape()
  if shape.ndims != 4:
    raise InputError('inputs of mobilenet_v1 must be [batch, height, width, '
                     'channels], got the shape %s' % shape)
  with tf.variable_scope(scope, 'MobilenetV1', [inputs], reuse=reuse) as scope:
    with slim.arg_scope([slim.batch_norm, slim.dropout],
                        is_training=is_training):
      net, end_points = mobilenet_v1_base(
          inputs, min_depth=min_depth, depth_multiplier=depth_multiplier,
          conv_defs=conv_defs, scope=scope,
          final_endpoint=_last_name(conv_defs or MOBILENETV1_CONV_DEFS))
      with tf.variable_scope('Logits'):
        if global_pool:
          net = tf.reduce_mean(net, [1, 2], keepdims=True, name='global_pool')
          end_points['global_pool'] = net
        else:
          net = slim.avg_pool2d(net, _pool_size(net, 7), padding='VALID',
                                scope='AvgPool_1a')  # 1 x 1 x 1024
          end_points['AvgPool_1a'] = net
        if not num_classes:
          return net, end_points
        net = slim.dropout(net, keep_prob=dropout_keep_prob, scope='Dropout_1b')
        logits = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                             normalizer_fn=None, scope='Conv2d_1c_1x1')
        if spatial_squeeze:
          logits = tf.squeeze(logits, [1, 2], name='SpatialSqueeze')
      end_points['Logits'] = logits
      if prediction_fn:
        end_points['Predictions'] = prediction_fn(logits, scope='Predictions')
  return logits, end_points


def _last_name(conv_defs):
  return _layers(conv_defs, None)[-1].name


def _pool_size(net, largest):
  """Returns `[height, width]` of the pooling window: at most `largest`."""
  return [min(size or largest, largest)
          for size in net.get_shape().as_list()[1:3]]


def _scaled(depth_multiplier):
  network = functools.partial(mobilenet_v1, depth_multiplier=depth_multiplier)
  return functools.update_wrapper(network, mobilenet_v1)


mobilenet_v1_075 = _scaled(0.75)
mobilenet_v1_050 = _scaled(0.50)
mobilenet_v1_025 = _scaled(0.25)


def mobilenet_v1_arg_scope(
    is_training: Optional[bool] = True, weight_decay: float = 0.00004,
    stddev: float = 0.09, regularize_depthwise: bool = False,
    batch_norm_decay: float = 0.9997, batch_norm_epsilon: float = 0.001,
    batch_norm_updates_collections: Optional[str] = tf.GraphKeys.UPDATE_OPS,
    normalizer_fn: Optional[Callable] = batch_norm) -> ArgScope:
  """Returns the arg scope of MobileNet V1.

  Args:
    is_training: whether batch statistics are used; None: not set here.
      `mobilenet_v1` sets it again.
    weight_decay: factor of the L2 loss of the weights.
    stddev: standard deviation of the initial weights.
    regularize_depthwise: whether the L2 loss includes depthwise weights.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance to avoid division by zero.
    batch_norm_updates_collections: collection of the update ops; None: the
      moving averages are updated in place.
    normalizer_fn: normaliser of the convolutions.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  params = {
      'center': True,
      'scale': True,
      'decay': batch_norm_decay,
      'epsilon': batch_norm_epsilon,
      'updates_collections': batch_norm_updates_collections,
  }
  if is_training is not None:
    params['is_training'] = is_training
  regularizer = slim.l2_regularizer(weight_decay)
  depthwise_regularizer = regularizer if regularize_depthwise else None
  with slim.arg_scope([slim.conv2d, slim.separable_conv2d],
                      weights_initializer=tf.truncated_normal_initializer(
                          stddev=stddev),
                      activation_fn=tf.nn.relu6, normalizer_fn=normalizer_fn):
    with slim.arg_scope([slim.batch_norm], **params):
      with slim.arg_scope([slim.conv2d], weights_regularizer=regularizer):
        with slim.arg_scope([slim.separable_conv2d],
                            weights_regularizer=depthwise_regularizer) as scope:
          return scope
