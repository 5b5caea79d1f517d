"""Inception V1 (GoogLeNet), for photos of 224 x 224.

Christian Szegedy, Wei Liu, Yangqing Jia, Pierre Sermanet, Scott Reed, Dragomir
Anguelov, Dumitru Erhan, Vincent Vanhoucke, Andrew Rabinovich:
Going Deeper with Convolutions. arXiv:1409.4842, table 1 and figure 2b.

  with slim.arg_scope(inception_v1_arg_scope()):
    logits, end_points = inception_v1(images, num_classes=1001,
                                      is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- Branch 2 has 3x3 kernels; table 1 says 5x5.
- Convolutions are batch normalised; the paper normalises local responses
  around the second convolution.
- The last max pool is 2x2; table 1 says 3x3.
- There are no auxiliary classifiers.
- Dropout keeps 80 %; table 1 drops 40 %.
"""

from typing import Optional, Sequence

from common.errors import InputError
from compat import slim, tf
from nets import inception_utils
from nets.inception_utils import Block, Branch, Conv, MaxPool, Row, trunc_normal
from nets.network_types import NetworkOutput, PredictionFn, Scope, image_size

# Figure 2b. The widths are in BLOCKS.
INCEPTION = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', None, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', None, (1, 1)),
                        Conv('Conv2d_0b_3x3', None, (3, 3)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', None, (1, 1)),
                        Conv('Conv2d_0b_3x3', None, (3, 3)))),
    Branch('Branch_3', (MaxPool('MaxPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', None, (1, 1)))),
)

# The same, with the scope of branch 2 in the published checkpoint.
INCEPTION_5B = INCEPTION[:2] + (
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', None, (1, 1)),
                        Conv('Conv2d_0a_3x3', None, (3, 3)))),
) + INCEPTION[3:]

# Table 1, with its columns #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5 and pool
# proj; output shapes at 224 x 224.
ROOT = (
    Conv('Conv2d_1a_7x7', 64, (7, 7), 2),                    # 112 x 112 x 64
    MaxPool('MaxPool_2a_3x3', (3, 3), 2),                    # 56 x 56 x 64
    Conv('Conv2d_2b_1x1', 64, (1, 1)),                       # 56 x 56 x 64
    Conv('Conv2d_2c_3x3', 192, (3, 3)),                      # 56 x 56 x 192
    MaxPool('MaxPool_3a_3x3', (3, 3), 2),                    # 28 x 28 x 192
)

BLOCKS = (
    Block('Mixed_3b', INCEPTION, (64, 96, 128, 16, 32, 32)),  # 28 x 28 x 256
    Block('Mixed_3c', INCEPTION, (128, 128, 192, 32, 96, 64)),  # 28 x 28 x 480
    MaxPool('MaxPool_4a_3x3', (3, 3), 2),                    # 14 x 14 x 480
    Block('Mixed_4b', INCEPTION, (192, 96, 208, 16, 48, 64)),  # 14 x 14 x 512
    Block('Mixed_4c', INCEPTION, (160, 112, 224, 24, 64, 64)),
    Block('Mixed_4d', INCEPTION, (128, 128, 256, 24, 64, 64)),
    Block('Mixed_4e', INCEPTION, (112, 144, 288, 32, 64, 64)),  # 14 x 14 x 528
    Block('Mixed_4f', INCEPTION,
          (256, 160, 320, 32, 128, 128)),                    # 14 x 14 x 832
    MaxPool('MaxPool_5a_2x2', (2, 2), 2),                    # 7 x 7 x 832
    Block('Mixed_5b', INCEPTION_5B, (256, 160, 320, 32, 128, 128)),
    Block('Mixed_5c', INCEPTION,
          (384, 192, 384, 48, 128, 128)),                    # 7 x 7 x 1024
)

LAYERS = ROOT + BLOCKS

inception_v1_arg_scope = inception_utils.inception_arg_scope


def inception_v1_base(inputs: tf.Tensor, final_endpoint: str = 'Mixed_5c',
                      scope: Optional[Scope] = 'InceptionV1',
                      include_root_block: bool = True) -> NetworkOutput:
  """Builds the network without its classifier, up to `final_endpoint`.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1]; without the root
      block its output, `[batch, height, width, 192]`.
    final_endpoint: scope of the last layer to build, one of LAYERS.
    scope: name or object of the variable scope; None: 'InceptionV1'.
    include_root_block: whether to build the layers before Mixed_3b. The last
      argument, for compatibility with older programs.

  Returns:
    The output of the last layer, and a dict of all layers' outputs by scope.

  Raises:
    ValueError: `final_endpoint` is not one of the layers to build.
  """
  layers: Sequence[Row] = BLOCKS
  if include_root_block:
    layers = LAYERS
  with tf.variable_scope(scope, 'InceptionV1', [inputs]):
    with slim.arg_scope([slim.conv2d, slim.fully_connected],
                        weights_initializer=trunc_normal(0.01)):
      return inception_utils.add_layers(inputs, layers, final_endpoint)


@image_size(224)
def inception_v1(inputs: tf.Tensor, num_classes: Optional[int] = 1000,
                 is_training: bool = True, dropout_keep_prob: float = 0.8,
                 prediction_fn: Optional[PredictionFn] = slim.softmax,
                 spatial_squeeze: bool = True, reuse: Optional[bool] = None,
                 scope: Optional[Scope] = 'InceptionV1',
                 global_pool: bool = False) -> NetworkOutput:
  """Builds Inception V1.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether dropout is active and batch statistics are used.
    dropout_keep_prob: fraction of features that dropout keeps.
    prediction_fn: function from logits to the end point 'Predictions', called
      with `scope`; None: no such end point.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope.
    global_pool: whether to average over all positions, for photos of any size;
      otherwise over 7 x 7.

  Returns:
    Logits, or without classes the pooled features `[batch, 1, 1, 1024]`; and a
    dict of end points.

  Raises:
    ValueError: the photos are too small for the pool of 7 x 7, or so large that
      there is more than one position to squeeze.
  """
  with tf.variable_scope(scope, 'InceptionV1', [inputs], reuse=reuse) as scope:
    with slim.arg_scope([slim.batch_norm, slim.dropout],
                        is_training=is_training):
      net, end_points = inception_v1_base(inputs, scope=scope)
      with tf.variable_scope('Logits'):
        if global_pool:
          net = tf.reduce_mean(net, [1, 2], keepdims=True, name='global_pool')
          end_points['global_pool'] = net
        else:
          _check_pool_fits(net)
          net = slim.avg_pool2d(net, [7, 7], stride=1, padding='VALID',
                                scope='AvgPool_0a_7x7')  # 1 x 1 x 1024
          end_points['AvgPool_0a_7x7'] = net
        if not num_classes:
          return net, end_points
        net = slim.dropout(net, dropout_keep_prob, scope='Dropout_0b')
        logits = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                             normalizer_fn=None, scope='Conv2d_0c_1x1')
        if spatial_squeeze:
          logits = inception_utils.squeeze_logits(
              logits, 'inception_v1', 'global_pool=True averages first')
        end_points['Logits'] = logits
        if prediction_fn:
          end_points['Predictions'] = prediction_fn(logits, scope='Predictions')
  return logits, end_points


def _check_pool_fits(net):
  size = net.get_shape()[1:3]
  if any(pixels is not None and pixels < 7 for pixels in size.as_list()):
    raise InputError(
        'inception_v1 pools 7 x 7 positions and needs photos of 193 x 193 '
        'pixels or more, but its last layer is %s here; global_pool=True '
        'accepts photos of any size' % size)
