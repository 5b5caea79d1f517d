"""Inception V3, for photos of 299 x 299.

Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew
Wojna:
Rethinking the Inception Architecture for Computer Vision. arXiv:1512.00567,
table 1 and figures 5 to 8 and 10.

  with slim.arg_scope(inception_v3_arg_scope()):
    logits, end_points = inception_v3(images, num_classes=1001,
                                      is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- From 73 x 73 on the stem has a 1x1 and a 3x3 convolution of 80 and 192
  channels and a max pool; table 1 has three 3x3 convolutions, of 80, 192 and
  288.
- Branch 1 of the first three blocks has a 5x5 kernel; figure 5 has a 3x3.
- There is dropout before the classifier; table 1 has none.
"""

from typing import Optional

from common.errors import InputError
from compat import slim, tf
from nets import inception_utils
from nets.inception_utils import (
  AvgPool,
  Block,
  Branch,
  Conv,
  Fork,
  MaxPool,
  trunc_normal,
)
from nets.network_types import NetworkOutput, PredictionFn, Scope, image_size

# Figure 5. The width of branch 3 is in LAYERS.
INCEPTION_A = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 64, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 48, (1, 1)),
                        Conv('Conv2d_0b_5x5', 64, (5, 5)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_0b_3x3', 96, (3, 3)),
                        Conv('Conv2d_0c_3x3', 96, (3, 3)))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', None, (1, 1)))),
)

# The same, with the scopes of branch 1 in the published checkpoint.
INCEPTION_A_5C = INCEPTION_A[:1] + (
    Branch('Branch_1', (Conv('Conv2d_0b_1x1', 48, (1, 1)),
                        Conv('Conv_1_0c_5x5', 64, (5, 5)))),
) + INCEPTION_A[2:]

# Figure 10. The 1x1 in the scopes of 3x3 kernels is the published name.
REDUCTION_A = (
    Branch('Branch_0', (Conv('Conv2d_1a_1x1', 384, (3, 3), 2, 'VALID'),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_0b_3x3', 96, (3, 3)),
                        Conv('Conv2d_1a_1x1', 96, (3, 3), 2, 'VALID'))),
    Branch('Branch_2', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 6 with n = 7. The widths within branches 1 and 2 are in LAYERS.
INCEPTION_B = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 192, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', None, (1, 1)),
                        Conv('Conv2d_0b_1x7', None, (1, 7)),
                        Conv('Conv2d_0c_7x1', 192, (7, 1)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', None, (1, 1)),
                        Conv('Conv2d_0b_7x1', None, (7, 1)),
                        Conv('Conv2d_0c_1x7', None, (1, 7)),
                        Conv('Conv2d_0d_7x1', None, (7, 1)),
                        Conv('Conv2d_0e_1x7', 192, (1, 7)))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', 192, (1, 1)))),
)

# From 17 x 17 to 8 x 8; the paper has no figure of this block.
REDUCTION_B = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_1a_3x3', 320, (3, 3), 2, 'VALID'))),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_0b_1x7', 192, (1, 7)),
                        Conv('Conv2d_0c_7x1', 192, (7, 1)),
                        Conv('Conv2d_1a_3x3', 192, (3, 3), 2, 'VALID'))),
    Branch('Branch_2', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 7.
INCEPTION_C = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 320, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 384, (1, 1)),
                        Fork((Conv('Conv2d_0b_1x3', 384, (1, 3)),
                              Conv('Conv2d_0c_3x1', 384, (3, 1)))))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 448, (1, 1)),
                        Conv('Conv2d_0b_3x3', 384, (3, 3)),
                        Fork((Conv('Conv2d_0c_1x3', 384, (1, 3)),
                              Conv('Conv2d_0d_3x1', 384, (3, 1)))))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', 192, (1, 1)))),
)

# The same, with the scope of branch 1 in the published checkpoint.
INCEPTION_C_7B = INCEPTION_C[:1] + (
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 384, (1, 1)),
                        Fork((Conv('Conv2d_0b_1x3', 384, (1, 3)),
                              Conv('Conv2d_0b_3x1', 384, (3, 1)))))),
) + INCEPTION_C[2:]

# Table 1; output shapes at 299 x 299.
LAYERS = (
    Conv('Conv2d_1a_3x3', 32, (3, 3), 2, 'VALID'),      # 149 x 149 x 32
    Conv('Conv2d_2a_3x3', 32, (3, 3), 1, 'VALID'),      # 147 x 147 x 32
    Conv('Conv2d_2b_3x3', 64, (3, 3)),                  # 147 x 147 x 64
    MaxPool('MaxPool_3a_3x3', (3, 3), 2, 'VALID'),      # 73 x 73 x 64
    Conv('Conv2d_3b_1x1', 80, (1, 1)),                  # 73 x 73 x 80
    Conv('Conv2d_4a_3x3', 192, (3, 3), 1, 'VALID'),     # 71 x 71 x 192
    MaxPool('MaxPool_5a_3x3', (3, 3), 2, 'VALID'),      # 35 x 35 x 192
    Block('Mixed_5b', INCEPTION_A, (32,)),              # 35 x 35 x 256
    Block('Mixed_5c', INCEPTION_A_5C, (64,)),           # 35 x 35 x 288
    Block('Mixed_5d', INCEPTION_A, (64,)),
    Block('Mixed_6a', REDUCTION_A),                     # 17 x 17 x 768
    Block('Mixed_6b', INCEPTION_B, (128, 128, 128, 128, 128, 128)),
    Block('Mixed_6c', INCEPTION_B, (160, 160, 160, 160, 160, 160)),
    Block('Mixed_6d', INCEPTION_B, (160, 160, 160, 160, 160, 160)),
    Block('Mixed_6e', INCEPTION_B, (192, 192, 192, 192, 192, 192)),
    Block('Mixed_7a', REDUCTION_B),                     # 8 x 8 x 1280
    Block('Mixed_7b', INCEPTION_C_7B),                  # 8 x 8 x 2048
    Block('Mixed_7c', INCEPTION_C),
)

inception_v3_arg_scope = inception_utils.inception_arg_scope
_reduced_kernel_size_for_small_input = inception_utils.reduced_kernel_size


def inception_v3_base(inputs: tf.Tensor, final_endpoint: str = 'Mixed_7c',
                      min_depth: int = 16, depth_multiplier: float = 1.0,
                      scope: Optional[Scope] = None) -> NetworkOutput:
  """Builds the network without its classifiers, up to `final_endpoint`.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    final_endpoint: scope of the last layer to build, one of LAYERS.
    min_depth: minimum number of channels of a layer.
    depth_multiplier: factor of the channels of all layers, above 0.
    scope: name or object of the variable scope; None: 'InceptionV3'.

  Returns:
    The output of the last layer, and a dict of all layers' outputs by scope.

  Raises:
    ValueError: `depth_multiplier` is not above 0, or `final_endpoint` is not in
      LAYERS.
  """
  with tf.variable_scope(scope, 'InceptionV3', [inputs]):
    return inception_utils.add_layers(inputs, LAYERS, final_endpoint,
                                      depth_multiplier, min_depth)


@image_size(299)
def inception_v3(inputs: tf.Tensor, num_classes: Optional[int] = 1000,
                 is_training: bool = True, dropout_keep_prob: float = 0.8,
                 min_depth: int = 16, depth_multiplier: float = 1.0,
                 prediction_fn: Optional[PredictionFn] = slim.softmax,
                 spatial_squeeze: bool = True, reuse: Optional[bool] = None,
                 create_aux_logits: bool = True,
                 scope: Optional[Scope] = 'InceptionV3',
                 global_pool: bool = False) -> NetworkOutput:
  """Builds Inception V3.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifiers are built.
    is_training: whether dropout is active and batch statistics are used.
    dropout_keep_prob: fraction of features that dropout keeps.
    min_depth: minimum number of channels of a layer.
    depth_multiplier: factor of the channels of all layers, above 0.
    prediction_fn: function from logits to the end point 'Predictions', called
      with `scope`; None: no such end point.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    reuse: whether to reuse the variables of an earlier network.
    create_aux_logits: whether to build the auxiliary classifier.
    scope: name of the variable scope.
    global_pool: whether to average over all positions; otherwise over 8 x 8,
      or less if the photos are known to be smaller.

  Returns:
    Logits, or without classes the pooled features `[batch, 1, 1, 2048]`; and a
    dict of end points.

  Raises:
    ValueError: `depth_multiplier` is not above 0, the photos are too small for
      the auxiliary classifier, or so large that there is more than one position
      to squeeze.
  """
  with tf.variable_scope(scope, 'InceptionV3', [inputs], reuse=reuse) as scope:
    with slim.arg_scope([slim.batch_norm, slim.dropout],
                        is_training=is_training):
      net, end_points = inception_v3_base(
          inputs, min_depth=min_depth, depth_multiplier=depth_multiplier,
          scope=scope)
      if create_aux_logits and num_classes:
        end_points['AuxLogits'] = _aux_logits(
            end_points['Mixed_6e'], num_classes, spatial_squeeze,
            depth_multiplier, min_depth)
      with tf.variable_scope('Logits'):
        name, net = _average(net, global_pool)  # 1 x 1 x 2048
        end_points[name] = net
        if not num_classes:
          return net, end_points
        net = slim.dropout(net, dropout_keep_prob, scope='Dropout_1b')
        end_points['PreLogits'] = net  # 1 x 1 x 2048
        logits = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                             normalizer_fn=None, scope='Conv2d_1c_1x1')
        if spatial_squeeze:
          logits = inception_utils.squeeze_logits(
              logits, 'inception_v3', 'global_pool=True averages first')
      end_points['Logits'] = logits
      if prediction_fn:
        end_points['Predictions'] = prediction_fn(logits, scope='Predictions')
  return logits, end_points


def _average(net, global_pool):
  """Returns the name of the pool's end point, and the end point."""
  if global_pool:
    return 'global_pool', tf.reduce_mean(net, [1, 2], keepdims=True,
                                         name='GlobalPool')
  kernel = _reduced_kernel_size_for_small_input(net, [8, 8])
  return 'AvgPool_1a', slim.avg_pool2d(
      net, kernel, stride=2, padding='VALID',
      scope='AvgPool_1a_%dx%d' % tuple(kernel))


def _aux_logits(net, num_classes, spatial_squeeze, depth_multiplier,
                min_depth):
  """Adds the auxiliary classifier on `net`, 17 x 17 x 768 at 299 x 299."""
  size = net.get_shape()[1:3]
  if any(pixels is not None and pixels < 5 for pixels in size.as_list()):
    raise InputError(
        'the auxiliary classifier of inception_v3 needs photos of 107 x 107 '
        'pixels or more, but reads a layer of %s; create_aux_logits=False '
        'builds the network without it' % size)
  first, second = [
      inception_utils.scaled_width(width, depth_multiplier, min_depth)
      for width in (128, 768)]
  with tf.variable_scope('AuxLogits'):
    net = slim.avg_pool2d(net, [5, 5], stride=3, padding='VALID',
                          scope='AvgPool_1a_5x5')                # 5 x 5 x 768
    net = slim.conv2d(net, first, [1, 1], scope='Conv2d_1b_1x1')
    kernel = _reduced_kernel_size_for_small_input(net, [5, 5])
    net = slim.conv2d(net, second, kernel, padding='VALID',
                      weights_initializer=trunc_normal(0.01),
                      scope='Conv2d_2a_%dx%d' % tuple(kernel))   # 1 x 1 x 768
    logits = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                         normalizer_fn=None,
                         weights_initializer=trunc_normal(0.001),
                         scope='Conv2d_2b_1x1')
    if spatial_squeeze:
      logits = inception_utils.squeeze_logits(
          logits, 'the auxiliary classifier of inception_v3',
          'create_aux_logits=False builds the network without it')
    return logits
