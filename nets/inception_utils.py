"""Shared parts of the Inception networks: branch tables and their arg scope.

The papers give each Inception block as a figure of parallel branches. Here a
block is a table of such branches, and `add_branches` builds it:

  MIXED_3A = (
      Branch('Branch_0', (MaxPool('MaxPool_0a_3x3', (3, 3), 2, 'VALID'),)),
      Branch('Branch_1', (Conv('Conv2d_0a_3x3', 96, (3, 3), 2, 'VALID'),)),
  )

A scope is written in full in each row, because it is a name in the published
checkpoints and cannot be derived from the kernel or the position.

Blocks that differ only in their widths share one table. There these widths are
None, and are set by the row of the block, as in the papers' tables:

  Block('Mixed_6b', INCEPTION_B, (128, 128)),
  Block('Mixed_6c', INCEPTION_B, (160, 160)),
"""

from typing import (
  Any,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
  Union,
)

from common.errors import InputError, unknown_name
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.network_types import Activation, ArgScope, NetworkOutput, Scope


class Conv(NamedTuple):
  """A convolution."""

  scope: str
  # Output channels; None: the next of the block's widths.
  width: Optional[int]
  # (height, width).
  kernel: Tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'
  # Standard deviation of the weights' truncated normal initializer; None: the
  # arg scope's initializer.
  stddev: Optional[float] = None


class SeparableConv(NamedTuple):
  """A depthwise and then a 1x1 convolution; fields as in Conv."""

  scope: str
  width: int
  kernel: Tuple[int, int]
  stride: int
  padding: str
  stddev: float
  # Maximum number of channels per input channel between the two.
  multiplier: int


class MaxPool(NamedTuple):
  """A maximum pooling; fields as in Conv."""

  scope: str
  kernel: Tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'


class AvgPool(NamedTuple):
  """An average pooling; fields as in Conv."""

  scope: str
  kernel: Tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'


class Fork(NamedTuple):
  """Convolutions of the same input; their outputs are concatenated."""

  layers: Tuple[Conv, ...]


# A layer of a branch.
Layer = Union[Conv, SeparableConv, MaxPool, AvgPool, Fork]


class Branch(NamedTuple):
  """Sequential layers under a scope."""

  scope: str
  layers: Tuple[Layer, ...]


class Block(NamedTuple):
  """Branches that read the same input; their outputs are concatenated."""

  scope: str
  branches: Tuple[Branch, ...]
  # Of the block's convolutions that have width None, in order.
  widths: Tuple[int, ...] = ()


# A layer or block of a network.
Row = Union[Conv, SeparableConv, MaxPool, AvgPool, Block]

_CHANNELS = 3  # The axis of the channels: [batch, height, width, channels].
_COLORS = 3    # Channels of a photo.


def inception_arg_scope(
    weight_decay: float = 0.00004, use_batch_norm: bool = True,
    batch_norm_decay: float = 0.9997, batch_norm_epsilon: float = 0.001,
    activation_fn: Optional[Activation] = tf.nn.relu,
    batch_norm_updates_collections: Optional[str] = tf.GraphKeys.UPDATE_OPS,
    batch_norm_scale: bool = False) -> ArgScope:
  """Returns the arg scope of the Inception networks.

  Args:
    weight_decay: factor of the L2 loss of the weights.
    use_batch_norm: whether convolutions are batch normalised.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance to avoid division by zero.
    activation_fn: activation of the convolutions.
    batch_norm_updates_collections: collection of the update ops; None: the
      moving averages are updated in place.
    batch_norm_scale: whether batch normalisation has a gamma. The published
      checkpoints have none.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  normalizer: Dict[str, Any] = {'normalizer_fn': None,
                                'normalizer_params': {}}
  if use_batch_norm:
    normalizer = {
        'normalizer_fn': batch_norm,
        'normalizer_params': {
            'decay': batch_norm_decay,
            'epsilon': batch_norm_epsilon,
            'updates_collections': batch_norm_updates_collections,
            'fused': None,  # Fused if TensorFlow supports it.
            'scale': batch_norm_scale,
        },
    }
  with slim.arg_scope([slim.conv2d, slim.fully_connected],
                      weights_regularizer=slim.l2_regularizer(weight_decay)):
    with slim.arg_scope([slim.conv2d],
                        weights_initializer=slim.variance_scaling_initializer(),
                        activation_fn=activation_fn, **normalizer) as scope:
      return scope


def trunc_normal(stddev: float) -> tf.truncated_normal_initializer:
  """Returns an initializer: normal around 0, truncated at two deviations."""
  return tf.truncated_normal_initializer(0.0, stddev)


def scaled_width(width: int, depth_multiplier: float, min_depth: int) -> int:
  """Returns `depth_multiplier` times `width`, at least `min_depth`."""
  return max(int(width * depth_multiplier), min_depth)


def with_widths(layers: Iterable[Row], depth_multiplier: float = 1.0,
                min_depth: int = 0) -> Tuple[Row, ...]:
  """Returns `layers` with all widths set and scaled.

  Args:
    layers: rows as for `add_layers`.
    depth_multiplier: factor of all widths, above 0.
    min_depth: minimum number of channels of a layer.

  Returns:
    The rows; no width is None and no Block has widths of its own.

  Raises:
    ValueError: `depth_multiplier` is not above 0, or a Block has more or fewer
      widths than its branches need.
  """
  if depth_multiplier <= 0:
    raise InputError('depth_multiplier must be above 0, got %r' %
                     depth_multiplier)

  def resolve(row, widths):
    if isinstance(row, Block):
      own = list(row.widths)
      branches = tuple(resolve(branch, own) for branch in row.branches)
      if own:
        raise ValueError('%s has %d widths too many' % (row.scope, len(own)))
      return Block(row.scope, branches)
    if isinstance(row, (Branch, Fork)):
      return row._replace(layers=tuple(resolve(part, widths)
                                       for part in row.layers))
    if not isinstance(row, (Conv, SeparableConv)):
      return row
    if row.width is None and not widths:
      raise ValueError('no width is left for %s' % row.scope)
    width = widths.pop(0) if row.width is None else row.width
    return row._replace(width=scaled_width(width, depth_multiplier, min_depth))

  return tuple(resolve(row, []) for row in layers)


def add_layer(net: tf.Tensor, layer: Layer, axis: int = _CHANNELS) -> tf.Tensor:
  """Adds one layer: a Conv, SeparableConv, MaxPool, AvgPool or Fork row.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    layer: the row.
    axis: the channel axis of `net`.

  Returns:
    The layer's output.
  """
  if isinstance(layer, Fork):
    return tf.concat([add_layer(net, part, axis) for part in layer.layers],
                     axis)
  options = dict(stride=layer.stride, padding=layer.padding, scope=layer.scope)
  if isinstance(layer, (Conv, SeparableConv)):
    if layer.stddev is not None:
      options['weights_initializer'] = trunc_normal(layer.stddev)
    if isinstance(layer, Conv):
      return slim.conv2d(net, layer.width, layer.kernel, **options)
    multiplier = max(1, min(layer.width // _COLORS, layer.multiplier))
    return slim.separable_conv2d(net, layer.width, layer.kernel, multiplier,
                                 **options)
  pool = {MaxPool: slim.max_pool2d, AvgPool: slim.avg_pool2d}[type(layer)]
  return pool(net, layer.kernel, **options)


def add_branches(net: tf.Tensor, branches: Iterable[Branch],
                 axis: int = _CHANNELS) -> tf.Tensor:
  """Adds the branches of a block and concatenates them.

  Args:
    net: `[batch, height, width, channels]` float tensor, read by each branch.
    branches: Branch rows.
    axis: the channel axis of `net`.

  Returns:
    `[batch, height, width, sum of the branches' channels]`.
  """
  outputs = []
  for branch in branches:
    with tf.variable_scope(branch.scope):
      output = net
      for layer in branch.layers:
        output = add_layer(output, layer, axis)
    outputs.append(output)
  return tf.concat(outputs, axis)


def add_block(net: tf.Tensor, branches: Iterable[Branch],
              scope: Optional[Scope], default_scope: Optional[str],
              reuse: Optional[bool] = None, axis: int = _CHANNELS) -> tf.Tensor:
  """Adds a block under a scope of its own, as slim's block functions do.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    branches: Branch rows.
    scope: the block's scope, or None.
    default_scope: its name if `scope` is None.
    reuse: whether to reuse the variables of an earlier block.
    axis: the channel axis of `net`.

  Returns:
    The block's output.
  """
  with tf.variable_scope(scope, default_scope, [net], reuse=reuse):
    return add_branches(net, branches, axis)


def add_layers(net: tf.Tensor, layers: Sequence[Row], final_endpoint: str,
               depth_multiplier: float = 1.0, min_depth: int = 0,
               axis: int = _CHANNELS) -> NetworkOutput:
  """Adds layers and blocks one after the other, up to `final_endpoint`.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    layers: Conv, SeparableConv, MaxPool, AvgPool and Block rows; each is an end
      point under the name of its scope.
    final_endpoint: the scope of the last row to build.
    depth_multiplier: factor of all widths, above 0.
    min_depth: minimum number of channels of a layer.
    axis: the channel axis of `net`.

  Returns:
    The last output, and an ordered dict of end points.

  Raises:
    ValueError: no row has the name `final_endpoint`, or as for `with_widths`.
  """
  known = [layer.scope for layer in layers]
  if final_endpoint not in known:
    raise unknown_name('final_endpoint', final_endpoint, known)
  end_points = {}
  for layer in with_widths(layers, depth_multiplier,
                           min_depth)[:known.index(final_endpoint) + 1]:
    if isinstance(layer, Block):
      net = add_block(net, layer.branches, layer.scope, None, axis=axis)
    else:
      net = add_layer(net, layer, axis)
    end_points[layer.scope] = net
  return net, end_points


def reduced_kernel_size(net: tf.Tensor, kernel: List[int]) -> List[int]:
  """Returns `kernel`, or the size of `net` if that is known and smaller.

  Args:
    net: `[batch, height, width, channels]` tensor.
    kernel: `[height, width]`.

  Returns:
    `[height, width]`; `kernel` itself if a size of `net` is unknown.
  """
  size = net.get_shape()[1:3]
  if not size.is_fully_defined():
    return kernel
  return [min(pair) for pair in zip(size.as_list(), kernel)]


def squeeze_logits(logits: tf.Tensor, network: str,
                   otherwise: str) -> tf.Tensor:
  """Removes height and width, which must be 1, from the logits of a network.

  Args:
    logits: `[batch, 1, 1, num_classes]` float tensor; unknown sizes are
      checked when the graph runs.
    network: name of the network or classifier, for the message.
    otherwise: another solution, for the message.

  Returns:
    `[batch, num_classes]`.

  Raises:
    ValueError: the logits are at more than one position.
  """
  size = logits.get_shape()[1:3]
  if any(pixels not in (None, 1) for pixels in size.as_list()):
    raise InputError(
        '%s gives logits at %s positions for photos of this size, but '
        'spatial_squeeze=True needs (1, 1); spatial_squeeze=False keeps them, '
        '%s' % (network, size, otherwise))
  return tf.squeeze(logits, [1, 2], name='SpatialSqueeze')


def pool_all(net: tf.Tensor, scope: str) -> tf.Tensor:
  """Averages over all positions.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    scope: scope of the pooling, used if the size of `net` is known.

  Returns:
    `[batch, 1, 1, channels]`.
  """
  size = net.get_shape()[1:3]
  if size.is_fully_defined():
    return slim.avg_pool2d(net, size.as_list(), padding='VALID', scope=scope)
  return tf.reduce_mean(net, [1, 2], keepdims=True, name='global_pool')


def add_aux_logits(net: tf.Tensor, num_classes: int, network: str,
                   scopes: Sequence[str]) -> tf.Tensor:
  """Adds the auxiliary classifier of the 299 x 299 networks of 2016.

  Args:
    net: `[batch, height, width, channels]` float tensor, 17 x 17 at 299 x 299.
    num_classes: number of classes.
    network: its name, for the message.
    scopes: scopes of the pooling, the two convolutions and the last layer.

  Returns:
    Logits `[batch, num_classes]`.

  Raises:
    ValueError: the height or width of `net` is unknown or below 5.
  """
  size = net.get_shape()[1:3]
  if not size.is_fully_defined() or min(size.as_list()) < 5:
    raise InputError(
        'the auxiliary classifier of %s needs photos of a known size, of '
        '107 x 107 pixels or more, but reads a layer of %s; '
        'create_aux_logits=False builds the network without it' %
        (network, size))
  pool, first, second, last = scopes
  with tf.variable_scope('AuxLogits'):
    net = slim.avg_pool2d(net, (5, 5), stride=3, padding='VALID',
                          scope=pool)                     # 5 x 5
    net = slim.conv2d(net, 128, (1, 1), scope=first)      # 5 x 5 x 128
    net = slim.conv2d(net, 768, net.get_shape()[1:3].as_list(),
                      padding='VALID', scope=second)      # 1 x 1 x 768
    return slim.fully_connected(slim.flatten(net), num_classes,
                                activation_fn=None, scope=last)
