"""Inception-ResNet V2, for photos of 299 x 299.

Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi:
Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning. arXiv:1602.07261, figures 15 to 19.

  with slim.arg_scope(inception_resnet_v2_arg_scope()):
    logits, end_points = inception_resnet_v2(images, num_classes=1001,
                                             is_training=False)
  probabilities = end_points['Predictions']

Differences from the paper:
- The stem is that of Inception V3, followed by the block Mixed_5b; figure 15
  uses the stem of Inception V4, figure 3.
- The blocks are repeated 10, 20 and 10 times; figure 15 has 5, 10 and 5.
- The blocks read and write 320, 1088 and 2080 channels; figures 16, 17 and 19
  have 384, 1154 and 2048.
- Residuals are scaled by 0.17, 0.10 and 0.20, depending on the size of the
  grid; the paper says between 0.1 and 0.3. The last one is neither scaled nor
  activated.
- There is a 1 x 1 convolution to 1536 channels before the classifier, and an
  auxiliary classifier on the last layer of 17 x 17.
"""

from typing import NamedTuple, Optional, Tuple

from common.errors import InputError, unknown_name
from compat import slim, tf
from nets import inception_utils
from nets.batch_norm import batch_norm
from nets.inception_utils import AvgPool, Block, Branch, Conv, MaxPool
from nets.network_types import (
  Activation,
  ArgScope,
  NetworkOutput,
  Scope,
  image_size,
)


class Residual(NamedTuple):
  """Branches whose result is added to the block's input.

  Their concatenation is projected to the width of that input by a last
  convolution and multiplied by `scale`.
  """

  # None: the default of the function that adds the block.
  scope: Optional[Scope]
  branches: Tuple[Branch, ...]
  scale: float
  # Whether the activation function follows.
  is_activated: bool = True


class Repeat(NamedTuple):
  """Equal residual blocks under a scope, named <residual.scope>_1 and so on."""

  scope: str
  # How many.
  count: int  # type: ignore[assignment]  # Hides tuple.count.
  residual: Residual
  # End point name of the last block's output, or None.
  end_point: Optional[str] = None


MIXED_5B = (
    Branch('Branch_0', (Conv('Conv2d_1x1', 96, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 48, (1, 1)),
                        Conv('Conv2d_0b_5x5', 64, (5, 5)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 64, (1, 1)),
                        Conv('Conv2d_0b_3x3', 96, (3, 3)),
                        Conv('Conv2d_0c_3x3', 96, (3, 3)))),
    Branch('Branch_3', (AvgPool('AvgPool_0a_3x3', (3, 3)),
                        Conv('Conv2d_0b_1x1', 64, (1, 1)))),
)

# Figure 16.
BLOCK_35 = (
    Branch('Branch_0', (Conv('Conv2d_1x1', 32, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 32, (1, 1)),
                        Conv('Conv2d_0b_3x3', 32, (3, 3)))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 32, (1, 1)),
                        Conv('Conv2d_0b_3x3', 48, (3, 3)),
                        Conv('Conv2d_0c_3x3', 64, (3, 3)))),
)

# Figure 7, with k = 256, l = 256, m = 384, n = 384 of table 1.
MIXED_6A = (
    Branch('Branch_0', (Conv('Conv2d_1a_3x3', 384, (3, 3), 2, 'VALID'),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 256, (1, 1)),
                        Conv('Conv2d_0b_3x3', 256, (3, 3)),
                        Conv('Conv2d_1a_3x3', 384, (3, 3), 2, 'VALID'))),
    Branch('Branch_2', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 17.
BLOCK_17 = (
    Branch('Branch_0', (Conv('Conv2d_1x1', 192, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 128, (1, 1)),
                        Conv('Conv2d_0b_1x7', 160, (1, 7)),
                        Conv('Conv2d_0c_7x1', 192, (7, 1)))),
)

# Figure 18.
MIXED_7A = (
    Branch('Branch_0', (Conv('Conv2d_0a_1x1', 256, (1, 1)),
                        Conv('Conv2d_1a_3x3', 384, (3, 3), 2, 'VALID'))),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 256, (1, 1)),
                        Conv('Conv2d_1a_3x3', 288, (3, 3), 2, 'VALID'))),
    Branch('Branch_2', (Conv('Conv2d_0a_1x1', 256, (1, 1)),
                        Conv('Conv2d_0b_3x3', 288, (3, 3)),
                        Conv('Conv2d_1a_3x3', 320, (3, 3), 2, 'VALID'))),
    Branch('Branch_3', (MaxPool('MaxPool_1a_3x3', (3, 3), 2, 'VALID'),)),
)

# Figure 19.
BLOCK_8 = (
    Branch('Branch_0', (Conv('Conv2d_1x1', 192, (1, 1)),)),
    Branch('Branch_1', (Conv('Conv2d_0a_1x1', 192, (1, 1)),
                        Conv('Conv2d_0b_1x3', 224, (1, 3)),
                        Conv('Conv2d_0c_3x1', 256, (3, 1)))),
)

# Figure 15; output shapes at 299 x 299.
LAYERS = (
    Conv('Conv2d_1a_3x3', 32, (3, 3), 2, 'VALID'),    # 149 x 149 x 32
    Conv('Conv2d_2a_3x3', 32, (3, 3), 1, 'VALID'),    # 147 x 147 x 32
    Conv('Conv2d_2b_3x3', 64, (3, 3)),                # 147 x 147 x 64
    MaxPool('MaxPool_3a_3x3', (3, 3), 2, 'VALID'),    # 73 x 73 x 64
    Conv('Conv2d_3b_1x1', 80, (1, 1)),                # 73 x 73 x 80
    Conv('Conv2d_4a_3x3', 192, (3, 3), 1, 'VALID'),   # 71 x 71 x 192
    MaxPool('MaxPool_5a_3x3', (3, 3), 2, 'VALID'),    # 35 x 35 x 192
    Block('Mixed_5b', MIXED_5B),                      # 35 x 35 x 320
    Repeat('Repeat', 10, Residual('block35', BLOCK_35, 0.17)),
    Block('Mixed_6a', MIXED_6A),                      # 17 x 17 x 1088
    Repeat('Repeat_1', 20, Residual('block17', BLOCK_17, 0.10),
           end_point='PreAuxLogits'),
    Block('Mixed_7a', MIXED_7A),                      # 8 x 8 x 2080
    Repeat('Repeat_2', 9, Residual('block8', BLOCK_8, 0.20)),
    Residual('Block8', BLOCK_8, 1.0, is_activated=False),
    Conv('Conv2d_7b_1x1', 1536, (1, 1)),              # 8 x 8 x 1536
)

# With output_stride 8 the first block below this row is not strided, and the
# rows up to the second are dilated instead.
_ATROUS_FROM, _ATROUS_TO = 'Mixed_6a', 'PreAuxLogits'

# The auxiliary classifier: its pooling, convolutions and last layer.
AUX_SCOPES = ('Conv2d_1a_3x3', 'Conv2d_1b_1x1', 'Conv2d_2a_5x5', 'Logits')


def block35(net: tf.Tensor, scale: float = 1.0,
            activation_fn: Optional[Activation] = tf.nn.relu,
            scope: Optional[Scope] = None,
            reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds a residual block of figure 16; keeps the shape of `net`."""
  return _residual(net, Residual(scope, BLOCK_35, scale), activation_fn,
                   'Block35', reuse)


def block17(net: tf.Tensor, scale: float = 1.0,
            activation_fn: Optional[Activation] = tf.nn.relu,
            scope: Optional[Scope] = None,
            reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds a residual block of figure 17; keeps the shape of `net`."""
  return _residual(net, Residual(scope, BLOCK_17, scale), activation_fn,
                   'Block17', reuse)


def block8(net: tf.Tensor, scale: float = 1.0,
           activation_fn: Optional[Activation] = tf.nn.relu,
           scope: Optional[Scope] = None,
           reuse: Optional[bool] = None) -> tf.Tensor:
  """Adds a residual block of figure 19; keeps the shape of `net`."""
  return _residual(net, Residual(scope, BLOCK_8, scale), activation_fn,
                   'Block8', reuse)


def _residual(net, row, activation_fn, default_scope=None, reuse=None):
  """Adds a residual block, a Residual row, to `net`."""
  with tf.variable_scope(row.scope, default_scope, [net], reuse=reuse):
    mixed = inception_utils.add_branches(net, row.branches)
    up = slim.conv2d(mixed, net.get_shape().as_list()[3], (1, 1),
                     normalizer_fn=None, activation_fn=None,
                     scope='Conv2d_1x1')
    scaled = up * row.scale
    if activation_fn is tf.nn.relu6:
      # Keeps the residual within the range of a quantised network too.
      scaled = tf.clip_by_value(scaled, -6.0, 6.0)
    net += scaled
    if activation_fn and row.is_activated:
      net = activation_fn(net)
  return net


def _repeat(net, row, activation_fn):
  """Adds the residual blocks of a Repeat row."""
  with tf.variable_scope(row.scope):
    for number in range(1, row.count + 1):
      scope = '%s_%d' % (row.residual.scope, number)
      net = _residual(net, row.residual._replace(scope=scope), activation_fn)
  return net


def _end_point(row):
  """Returns the end point name of a row's output, or None."""
  if isinstance(row, Repeat):
    return row.end_point
  return None if isinstance(row, Residual) else row.scope


def _with(row, **changes):
  """Returns a copy of a row with changed layers of padding 'VALID'."""
  if isinstance(row, Block):
    return row._replace(branches=tuple(
        branch._replace(layers=tuple(_with(layer, **changes)
                                     for layer in branch.layers))
        for branch in row.branches))
  if getattr(row, 'padding', None) == 'VALID':
    return row._replace(**changes)
  return row


def inception_resnet_v2_base(inputs: tf.Tensor,
                             final_endpoint: str = 'Conv2d_7b_1x1',
                             output_stride: int = 16,
                             align_feature_maps: bool = False,
                             scope: Optional[Scope] = None,
                             activation_fn: Optional[Activation] = tf.nn.relu
                             ) -> NetworkOutput:
  """Builds the network without its classifiers, up to `final_endpoint`.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    final_endpoint: name of the last layer to build: the scope of a layer of
      LAYERS that is not repeated, or 'PreAuxLogits'.
    output_stride: 8 or 16: factor by which height and width shrink up to
      PreAuxLogits. With 8 no layers after that can be built.
    align_feature_maps: whether all layers are padded, so that positions in the
      layers' outputs are aligned and sizes halve exactly.
    scope: name or object of the variable scope; None: 'InceptionResnetV2'.
    activation_fn: activation of the residual blocks; that of the other
      layers comes from the arg scope.

  Returns:
    The output of the last layer, and a dict of outputs by name.

  Raises:
    ValueError: `output_stride` is neither 8 nor 16, or 8 and `final_endpoint`
      is after PreAuxLogits; or `final_endpoint` is unknown.
  """
  if output_stride not in (8, 16):
    raise InputError('output_stride must be 8 or 16, got %r' % output_stride)
  names = [_end_point(row) for row in LAYERS]
  known = [name for name in names if name]
  if final_endpoint not in known:
    raise unknown_name('final_endpoint', final_endpoint, known)
  if output_stride == 8 and (names.index(final_endpoint) >
                             names.index(_ATROUS_TO)):
    raise InputError('output_stride=8 works only up to the end point %s, got '
                     'the final_endpoint %s' % (_ATROUS_TO, final_endpoint))
  end_points = {}
  net = inputs
  rate = 1
  with tf.variable_scope(scope, 'InceptionResnetV2', [inputs]):
    # Up to final_endpoint.
    for row, name in zip(LAYERS, names[:names.index(final_endpoint) + 1]):
      if output_stride == 8 and name == _ATROUS_FROM:
        row = _with(row, stride=1)
      if align_feature_maps:
        row = _with(row, padding='SAME')
      with slim.arg_scope([slim.conv2d], rate=rate):
        net = _add_row(net, row, activation_fn)
      if output_stride == 8 and name == _ATROUS_FROM:
        rate = 2
      if name:
        end_points[name] = net
  return net, end_points


def _add_row(net, row, activation_fn):
  """Adds the layer or blocks of a row of LAYERS."""
  if isinstance(row, Repeat):
    return _repeat(net, row, activation_fn)
  if isinstance(row, Residual):
    return _residual(net, row, activation_fn)
  if isinstance(row, Block):
    return inception_utils.add_block(net, row.branches, row.scope, None)
  return inception_utils.add_layer(net, row)


@image_size(299)
def inception_resnet_v2(inputs: tf.Tensor, num_classes: Optional[int] = 1001,
                        is_training: bool = True,
                        dropout_keep_prob: float = 0.8,
                        reuse: Optional[bool] = None,
                        scope: Optional[Scope] = 'InceptionResnetV2',
                        create_aux_logits: bool = True,
                        activation_fn: Optional[Activation] = tf.nn.relu
                        ) -> NetworkOutput:
  """Builds Inception-ResNet V2.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifiers are built.
    is_training: whether dropout is active and batch statistics are used.
    dropout_keep_prob: fraction of features that dropout keeps.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope.
    create_aux_logits: whether to build the auxiliary classifier.
    activation_fn: activation of the residual blocks.

  Returns:
    Logits `[batch, num_classes]`, or without classes the pooled features
    `[batch, 1, 1, 1536]`; and a dict of end points.

  Raises:
    ValueError: an auxiliary classifier is requested, but the height or width
      of `inputs` is unknown or too small for it.
  """
  with tf.variable_scope(scope, 'InceptionResnetV2', [inputs],
                         reuse=reuse) as scope:
    with slim.arg_scope([slim.batch_norm, slim.dropout],
                        is_training=is_training):
      net, end_points = inception_resnet_v2_base(inputs, scope=scope,
                                                 activation_fn=activation_fn)
      if create_aux_logits and num_classes:
        end_points['AuxLogits'] = inception_utils.add_aux_logits(
            end_points['PreAuxLogits'], num_classes, 'inception_resnet_v2',
            AUX_SCOPES)
      with tf.variable_scope('Logits'):
        net = inception_utils.pool_all(net, 'AvgPool_1a_8x8')  # 1 x 1 x 1536
        end_points['global_pool'] = net
        if not num_classes:
          return net, end_points
        net = slim.flatten(net)
        net = slim.dropout(net, dropout_keep_prob, scope='Dropout')  # 1536
        end_points['PreLogitsFlatten'] = net
        logits = slim.fully_connected(net, num_classes, activation_fn=None,
                                      scope='Logits')
        end_points['Logits'] = logits
        end_points['Predictions'] = tf.nn.softmax(logits, name='Predictions')
  return logits, end_points


def inception_resnet_v2_arg_scope(
    weight_decay: float = 0.00004, batch_norm_decay: float = 0.9997,
    batch_norm_epsilon: float = 0.001,
    activation_fn: Optional[Activation] = tf.nn.relu,
    batch_norm_updates_collections: Optional[str] = tf.GraphKeys.UPDATE_OPS,
    batch_norm_scale: bool = False) -> ArgScope:
  """Returns the arg scope of Inception-ResNet V2.

  Args:
    weight_decay: factor of the L2 loss of the weights and of the biases.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance to avoid division by zero.
    activation_fn: activation of the convolutions.
    batch_norm_updates_collections: collection of the update ops; None: the
      moving averages are updated in place.
    batch_norm_scale: whether batch normalisation has a gamma. The published
      checkpoint has none.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  with slim.arg_scope([slim.conv2d, slim.fully_connected],
                      weights_regularizer=slim.l2_regularizer(weight_decay),
                      biases_regularizer=slim.l2_regularizer(weight_decay)):
    with slim.arg_scope(
        [slim.conv2d], activation_fn=activation_fn, normalizer_fn=batch_norm,
        normalizer_params={
            'decay': batch_norm_decay,
            'epsilon': batch_norm_epsilon,
            'updates_collections': batch_norm_updates_collections,
            'fused': None,  # Fused if TensorFlow supports it.
            'scale': batch_norm_scale,
        }) as scope:
      return scope
