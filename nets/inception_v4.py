"""Inception V4, for photos of 299 x 299.

Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi:
Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning. arXiv:1602.07261, figures 3 to 9.

  with slim.arg_scope(inception_v4_arg_scope()):
    logits, end_points = inception_v4(images, num_classes=1001,
                                      is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- There is an auxiliary classifier on Mixed_6h; the paper names none for V4.
- Branch 2 of the C blocks has 3x1 then 1x3 before it forks; figure 6 has 1x3
  then 3x1.
- Branch 2 of the B blocks has 7x1, 1x7, 7x1, 1x7; figure 5 starts with 1x7.
- Branch 1 of Mixed_4a has 1x7 then 7x1; figure 3 has 7x1 then 1x7.
"""

from typing import Optional

from compat import slim, tf
from nets import inception_utils
from nets.inception_utils import (
  AvgPool,
  Block,
  Branch,
  Conv,
  Fork,
  MaxPool,
)
from nets.network_types import NetworkOutput, Scope, image_size

STEM_3A = (
    Branch('Branch_0', (MaxPool('MaxPool_0a_3x3', (3, 3), 2, 'VALID'),)),
    Branch('Branch_1', (Conv('Conv2d_0a_3x3', 96, (3, 3), 2, 'VALID'),)),
)

STEM_4A = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_1a_3x3', 96, (3, 3), 1, 'VALID'))),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_0b_1x7', 64, (1, 7)),
                        Conv('Conv2d_0c_7x1', 64, (7, 1)),
                        Conv('Conv2d_1a_3x3', 96, (3, 3), 1, 'VALID'))),
)

STEM_5A = (
    Branch('Branch_0', (Conv('Conv2d_1a_3x3', 192, (3, 3), 2, 'VALID'),)),
    Branch('Branch_1', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 4.
INCEPTION_A = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 96, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_0b_3x3', 96, (3, 3)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_0b_3x3', 96, (3, 3)),
                        Conv('Conv2d_0c_3x3', 96, (3, 3)))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', 96, (1, 1)))),
)

# Figure 7, with k = 192, l = 224, m = 256, n = 384 of table 1.
REDUCTION_A = (
    Branch('Branch_0', (Conv('Conv2d_1a_3x3', 384, (3, 3), 2, 'VALID'),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_0b_3x3', 224, (3, 3)),
                        Conv('Conv2d_1a_3x3', 256, (3, 3), 2, 'VALID'))),
    Branch('Branch_2', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 5.
INCEPTION_B = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 384, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_0b_1x7', 224, (1, 7)),
                        Conv('Conv2d_0c_7x1', 256, (7, 1)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_0b_7x1', 192, (7, 1)),
                        Conv('Conv2d_0c_1x7', 224, (1, 7)),
                        Conv('Conv2d_0d_7x1', 224, (7, 1)),
                        Conv('Conv2d_0e_1x7', 256, (1, 7)))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', 128, (1, 1)))),
)

# Figure 8.
REDUCTION_B = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_1a_3x3', 192, (3, 3), 2, 'VALID'))),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 256, (1, 1)),
                        Conv('Conv2d_0b_1x7', 256, (1, 7)),
                        Conv('Conv2d_0c_7x1', 320, (7, 1)),
                        Conv('Conv2d_1a_3x3', 320, (3, 3), 2, 'VALID'))),
    Branch('Branch_2', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 6.
INCEPTION_C = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 256, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 384, (1, 1)),
                        Fork((Conv('Conv2d_0b_1x3', 256, (1, 3)),
                              Conv('Conv2d_0c_3x1', 256, (3, 1)))))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 384, (1, 1)),
                        Conv('Conv2d_0b_3x1', 448, (3, 1)),
                        Conv('Conv2d_0c_1x3', 512, (1, 3)),
                        Fork((Conv('Conv2d_0d_1x3', 256, (1, 3)),
                              Conv('Conv2d_0e_3x1', 256, (3, 1)))))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', 256, (1, 1)))),
)

# Figure 9, with the stem of figure 3; output shapes at 299 x 299.
LAYERS = (
    Conv('Conv2d_1a_3x3', 32, (3, 3), 2, 'VALID'),  # 149 x 149 x 32
    Conv('Conv2d_2a_3x3', 32, (3, 3), 1, 'VALID'),  # 147 x 147 x 32
    Conv('Conv2d_2b_3x3', 64, (3, 3)),              # 147 x 147 x 64
    Block('Mixed_3a', STEM_3A),                     # 73 x 73 x 160
    Block('Mixed_4a', STEM_4A),                     # 71 x 71 x 192
    Block('Mixed_5a', STEM_5A),                     # 35 x 35 x 384
    Block('Mixed_5b', INCEPTION_A),                 # 35 x 35 x 384
    Block('Mixed_5c', INCEPTION_A),
    Block('Mixed_5d', INCEPTION_A),
    Block('Mixed_5e', INCEPTION_A),
    Block('Mixed_6a', REDUCTION_A),                 # 17 x 17 x 1024
    Block('Mixed_6b', INCEPTION_B),                 # 17 x 17 x 1024
    Block('Mixed_6c', INCEPTION_B),
    Block('Mixed_6d', INCEPTION_B),
    Block('Mixed_6e', INCEPTION_B),
    Block('Mixed_6f', INCEPTION_B),
    Block('Mixed_6g', INCEPTION_B),
    Block('Mixed_6h', INCEPTION_B),
    Block('Mixed_7a', REDUCTION_B),                 # 8 x 8 x 1536
    Block('Mixed_7b', INCEPTION_C),                 # 8 x 8 x 1536
    Block('Mixed_7c', INCEPTION_C),
    Block('Mixed_7d', INCEPTION_C),
)

# The auxiliary classifier: its pooling, convolutions and last layer.
AUX_SCOPES = ('AvgPool_1a_5x5', 'Conv2d_1b_1x1', 'Conv2d_2a', 'Aux_logits')

inception_v4_arg_scope = inception_utils.inception_arg_scope


def block_inception_a(inputs: tf.Tensor, scope: Optional[Scope] = None,
                      reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds an A block, from `[b, h, w, c]` to `[b, h, w, 384]`."""
  return inception_utils.add_block(inputs, INCEPTION_A, scope,
                                   'BlockInceptionA', reuse)


def block_reduction_a(inputs: tf.Tensor, scope: Optional[Scope] = None,
                      reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds the block that halves 35 x 35; adds 640 channels to `inputs`."""
  return inception_utils.add_block(inputs, REDUCTION_A, scope,
                                   'BlockReductionA', reuse)


def block_inception_b(inputs: tf.Tensor, scope: Optional[Scope] = None,
                      reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds a B block, from `[b, h, w, c]` to `[b, h, w, 1024]`."""
  return inception_utils.add_block(inputs, INCEPTION_B, scope,
                                   'BlockInceptionB', reuse)


def block_reduction_b(inputs: tf.Tensor, scope: Optional[Scope] = None,
                      reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds the block that halves 17 x 17; adds 512 channels to `inputs`."""
  return inception_utils.add_block(inputs, REDUCTION_B, scope,
                                   'BlockReductionB', reuse)


def block_inception_c(inputs: tf.Tensor, scope: Optional[Scope] = None,
                      reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds a C block, from `[b, h, w, c]` to `[b, h, w, 1536]`."""
  return inception_utils.add_block(inputs, INCEPTION_C, scope,
                                   'BlockInceptionC', reuse)


def inception_v4_base(inputs: tf.Tensor, final_endpoint: str = 'Mixed_7d',
                      scope: Optional[Scope] = None) -> NetworkOutput:
  """Builds the network without its classifiers, up to `final_endpoint`.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    final_endpoint: scope of the last layer to build, one of LAYERS.
    scope: name or object of the variable scope; None: 'InceptionV4'.

  Returns:
    The output of the last layer, and a dict of all layers' outputs by scope.

  Raises:
    ValueError: `final_endpoint` is not in LAYERS.
  """
  with tf.variable_scope(scope, 'InceptionV4', [inputs]):
    return inception_utils.add_layers(inputs, LAYERS, final_endpoint)


@image_size(299)
def inception_v4(inputs: tf.Tensor, num_classes: Optional[int] = 1001,
                 is_training: bool = True, dropout_keep_prob: float = 0.8,
                 reuse: Optional[bool] = None,
                 scope: Optional[Scope] = 'InceptionV4',
                 create_aux_logits: bool = True) -> NetworkOutput:
  """Builds Inception V4.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifiers are built.
    is_training: whether dropout is active and batch statistics are used.
    dropout_keep_prob: fraction of features that dropout keeps.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope.
    create_aux_logits: whether to build the auxiliary classifier.

  Returns:
    Logits `[batch, num_classes]`, or without classes the pooled features
    `[batch, 1, 1, 1536]`; and a dict of end points.

  Raises:
    ValueError: an auxiliary classifier is requested, but the height or width
      of `inputs` is unknown or too small for it.
  """
  with tf.variable_scope(scope, 'InceptionV4', [inputs], reuse=reuse) as scope:
    with slim.arg_scope([slim.batch_norm, slim.dropout],
                        is_training=is_training):
      net, end_points = inception_v4_base(inputs, scope=scope)
      if create_aux_logits and num_classes:
        end_points['AuxLogits'] = inception_utils.add_aux_logits(
            end_points['Mixed_6h'], num_classes, 'inception_v4', AUX_SCOPES)
      with tf.variable_scope('Logits'):
        net = inception_utils.pool_all(net, 'AvgPool_1a')  # 1 x 1 x 1536
        end_points['global_pool'] = net
        if not num_classes:
          return net, end_points
        net = slim.dropout(net, dropout_keep_prob, scope='Dropout_1b')
        net = slim.flatten(net, scope='PreLogitsFlatten')  # 1536
        end_points['PreLogitsFlatten'] = net
        logits = slim.fully_connected(net, num_classes, activation_fn=None,
                                      scope='Logits')
        end_points['Logits'] = logits
        end_points['Predictions'] = tf.nn.softmax(logits, name='Predictions')
  return logits, end_points
