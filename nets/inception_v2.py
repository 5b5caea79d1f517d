"""Inception V2 (BN-Inception), for photos of 224 x 224.

Sergey Ioffe, Christian Szegedy:
Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift. arXiv:1502.03167, figure 5.

  with slim.arg_scope(inception_v2_arg_scope()):
    logits, end_points = inception_v2(images, num_classes=1001,
                                      is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- The last layer of branch 3 has 96 channels in Mixed_4d and Mixed_4e; figure 5
  says 128.
- The separable first layer has biases and no batch norm.
- There are no auxiliary classifiers.
- There is dropout before the classifier; the paper removes it.
"""

from typing import Optional, Sequence

from common.errors import InputError
from compat import slim, tf
from nets import inception_utils
from nets.inception_utils import (
  AvgPool,
  Block,
  Branch,
  Conv,
  MaxPool,
  Row,
  SeparableConv,
)
from nets.network_types import NetworkOutput, PredictionFn, Scope, image_size

# Figure 5, the blocks of stride 1. The widths are in BLOCKS.
INCEPTION = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', None, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', None, (1, 1), stddev=0.09),
                        Conv('Conv2d_0b_3x3', None, (3, 3)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', None, (1, 1), stddev=0.09),
                        Conv('Conv2d_0b_3x3', None, (3, 3)),
                        Conv('Conv2d_0c_3x3', None, (3, 3)))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', None, (1, 1), stddev=0.1))),
)

# The last block uses max pooling.
INCEPTION_5C = INCEPTION[:3] + (
    Branch('Branch_3', (MaxPool('MaxPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', None, (1, 1), stddev=0.1))),
)

# The blocks of stride 2.
REDUCTION = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', None, (1, 1), stddev=0.09),
                        Conv('Conv2d_1a_3x3', None, (3, 3), 2))),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', None, (1, 1), stddev=0.09),
                        Conv('Conv2d_0b_3x3', None, (3, 3)),
                        Conv('Conv2d_1a_3x3', None, (3, 3), 2))),
    Branch('Branch_2', (MaxPool('MaxPool_1a_3x3', (3, 3), 2),)),
)

# Figure 5, with its columns #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double
# #3x3 (both of them) and pool proj; output shapes at 224 x 224.
ROOT = (
    SeparableConv('Conv2d_1a_7x7', 64, (7, 7), 2, 'SAME', 1.0,
                  multiplier=8),                          # 112 x 112 x 64
    MaxPool('MaxPool_2a_3x3', (3, 3), 2),                 # 56 x 56 x 64
    Conv('Conv2d_2b_1x1', 64, (1, 1), stddev=0.1),        # 56 x 56 x 64
    Conv('Conv2d_2c_3x3', 192, (3, 3)),                   # 56 x 56 x 192
    MaxPool('MaxPool_3a_3x3', (3, 3), 2),                 # 28 x 28 x 192
)

BLOCKS = (
    Block('Mixed_3b', INCEPTION,
          (64, 64, 64, 64, 96, 96, 32)),                  # 28 x 28 x 256
    Block('Mixed_3c', INCEPTION,
          (64, 64, 96, 64, 96, 96, 64)),                  # 28 x 28 x 320
    Block('Mixed_4a', REDUCTION, (128, 160, 64, 96, 96)),  # 14 x 14 x 576
    Block('Mixed_4b', INCEPTION,
          (224, 64, 96, 96, 128, 128, 128)),              # 14 x 14 x 576
    Block('Mixed_4c', INCEPTION, (192, 96, 128, 96, 128, 128, 128)),
    Block('Mixed_4d', INCEPTION, (160, 128, 160, 128, 160, 160, 96)),
    Block('Mixed_4e', INCEPTION, (96, 128, 192, 160, 192, 192, 96)),
    Block('Mixed_5a', REDUCTION,
          (128, 192, 192, 256, 256)),                     # 7 x 7 x 1024
    Block('Mixed_5b', INCEPTION,
          (352, 192, 320, 160, 224, 224, 128)),           # 7 x 7 x 1024
    Block('Mixed_5c', INCEPTION_5C, (352, 192, 320, 192, 224, 224, 128)),
)

LAYERS = ROOT + BLOCKS

# The axis of the channels.
_AXES = {'NHWC': 3, 'NCHW': 1}

inception_v2_arg_scope = inception_utils.inception_arg_scope
_reduced_kernel_size_for_small_input = inception_utils.reduced_kernel_size


def inception_v2_base(inputs: tf.Tensor, final_endpoint: str = 'Mixed_5c',
                      min_depth: int = 16, depth_multiplier: float = 1.0,
                      use_separable_conv: bool = True,
                      data_format: str = 'NHWC', scope: Optional[Scope] = None,
                      include_root_block: bool = True) -> NetworkOutput:
  """Builds the network without its classifier, up to `final_endpoint`.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1]; without the root
      block its output, `[batch, height, width, 192]`.
    final_endpoint: scope of the last layer to build, one of LAYERS.
    min_depth: minimum number of channels of a layer.
    depth_multiplier: factor of the channels of all layers, above 0.
    use_separable_conv: whether the first layer is a separable convolution, as
      in the published checkpoint; otherwise it is an ordinary one.
    data_format: 'NHWC', or 'NCHW' for tensors `[batch, channels, height,
      width]`, which needs `use_separable_conv=False`.
    scope: name or object of the variable scope; None: 'InceptionV2'.
    include_root_block: whether to build the layers before Mixed_3b. The last
      argument, for compatibility with older programs.

  Returns:
    The output of the last layer, and a dict of all layers' outputs by scope.

  Raises:
    ValueError: `depth_multiplier` is not above 0, `data_format` is unknown or
      not supported by the separable convolution, or `final_endpoint` is not one
      of the layers to build.
  """
  if data_format not in _AXES:
    raise InputError('data_format must be NHWC or NCHW, got %r' % data_format)
  if data_format == 'NCHW' and use_separable_conv:
    raise InputError('data_format NCHW needs use_separable_conv=False, because '
                     'separable convolutions support NHWC only')
  layers: Sequence[Row] = BLOCKS
  if include_root_block and use_separable_conv:
    layers = LAYERS
  elif include_root_block:
    layers = (_common_conv(LAYERS[0]),) + LAYERS[1:]
  with tf.variable_scope(scope, 'InceptionV2', [inputs]):
    # slim.batch_norm too: slim.conv2d does not pass it to its normaliser.
    with slim.arg_scope([slim.conv2d, slim.max_pool2d, slim.avg_pool2d,
                         slim.batch_norm], data_format=data_format):
      return inception_utils.add_layers(
          inputs, layers, final_endpoint, depth_multiplier, min_depth,
          axis=_AXES[data_format])


def _common_conv(row):
  """Returns the Conv row with the values of a SeparableConv row."""
  return Conv(**{field: getattr(row, field) for field in Conv._fields})


@image_size(224)
def inception_v2(inputs: tf.Tensor, num_classes: Optional[int] = 1000,
                 is_training: bool = True, dropout_keep_prob: float = 0.8,
                 min_depth: int = 16, depth_multiplier: float = 1.0,
                 prediction_fn: Optional[PredictionFn] = slim.softmax,
                 spatial_squeeze: bool = True, reuse: Optional[bool] = None,
                 scope: Optional[Scope] = 'InceptionV2',
                 global_pool: bool = False) -> NetworkOutput:
  """Builds Inception V2.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether dropout is active and batch statistics are used.
    dropout_keep_prob: fraction of features that dropout keeps.
    min_depth: minimum number of channels of a layer.
    depth_multiplier: factor of the channels of all layers, above 0.
    prediction_fn: function from logits to the end point 'Predictions', called
      with `scope`; None: no such end point.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope.
    global_pool: whether to average over all positions; otherwise over 7 x 7,
      or less if the photos are known to be smaller.

  Returns:
    Logits, or without classes the pooled features `[batch, 1, 1, 1024]`; and a
    dict of end points.

  Raises:
    ValueError: `depth_multiplier` is not above 0, or the photos are so large
      that there is more than one position to squeeze.
  """
  with tf.variable_scope(scope, 'InceptionV2', [inputs], reuse=reuse) as scope:
    with slim.arg_scope([slim.batch_norm, slim.dropout],
                        is_training=is_training):
      net, end_points = inception_v2_base(
          inputs, min_depth=min_depth, depth_multiplier=depth_multiplier,
          scope=scope)
      with tf.variable_scope('Logits'):
        if global_pool:
          net = tf.reduce_mean(net, [1, 2], keepdims=True, name='global_pool')
          end_points['global_pool'] = net
        else:
          kernel = _reduced_kernel_size_for_small_input(net, [7, 7])
          net = slim.avg_pool2d(net, kernel, stride=2, padding='VALID',
                                scope='AvgPool_1a_%dx%d' % tuple(kernel))
          end_points['AvgPool_1a'] = net  # 1 x 1 x 1024
        if not num_classes:
          return net, end_points
        net = slim.dropout(net, dropout_keep_prob, scope='Dropout_1b')
        logits = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                             normalizer_fn=None, scope='Conv2d_1c_1x1')
        if spatial_squeeze:
          logits = inception_utils.squeeze_logits(
              logits, 'inception_v2', 'global_pool=True averages first')
      end_points['Logits'] = logits
      if prediction_fn:
        end_points['Predictions'] = prediction_fn(logits, scope='Predictions')
  return logits, end_points
