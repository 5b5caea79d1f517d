"""Shared parts of ResNet V1 and V2: their table of stages, blocks and units.

A network is a list of blocks, and a block is a list of units, each a dict of
arguments of one function:

  blocks = [Block('block1', bottleneck, [
      {'depth': 256, 'depth_bottleneck': 64, 'stride': 1},
      {'depth': 256, 'depth_bottleneck': 64, 'stride': 2},
  ])]
  net = stack_blocks_dense(net, blocks, output_stride=8)

Once height and width have shrunk by `output_stride`, later layers are dilated
instead of strided: that gives the same features at more positions.
"""

import contextlib
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from common.errors import InputError
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.network_types import (
  Activation,
  ArgScope,
  Collections,
  NetworkOutput,
  Scope,
)


class Block(NamedTuple):
  """A block of residual units."""

  scope: str
  # Builds a unit, with the arguments `rate` (the dilation) and those of the
  # unit.
  unit_fn: Callable
  # One dict per unit.
  args: List[Dict[str, Any]]


class Stage(NamedTuple):
  """A row of the tables of blocks."""

  # Of the block.
  scope: str
  # Channels inside the bottlenecks; they output four times as many.
  base_depth: int
  num_units: int
  # Of the block's last unit.
  stride: int


# Table 1 of arXiv:1512.03385; 200 layers: section 4 of arXiv:1603.05027.
# Output shapes at 224 x 224.
RESNET_50 = (
    Stage('block1', 64, 3, 2),    # 28 x 28 x 256
    Stage('block2', 128, 4, 2),   # 14 x 14 x 512
    Stage('block3', 256, 6, 2),   # 7 x 7 x 1024
    Stage('block4', 512, 3, 1),   # 7 x 7 x 2048
)
RESNET_101 = (
    Stage('block1', 64, 3, 2),    # 28 x 28 x 256
    Stage('block2', 128, 4, 2),   # 14 x 14 x 512
    Stage('block3', 256, 23, 2),  # 7 x 7 x 1024
    Stage('block4', 512, 3, 1),   # 7 x 7 x 2048
)
RESNET_152 = (
    Stage('block1', 64, 3, 2),    # 28 x 28 x 256
    Stage('block2', 128, 8, 2),   # 14 x 14 x 512
    Stage('block3', 256, 36, 2),  # 7 x 7 x 1024
    Stage('block4', 512, 3, 1),   # 7 x 7 x 2048
)
RESNET_200 = (
    Stage('block1', 64, 3, 2),    # 28 x 28 x 256
    Stage('block2', 128, 24, 2),  # 14 x 14 x 512
    Stage('block3', 256, 36, 2),  # 7 x 7 x 1024
    Stage('block4', 512, 3, 1),   # 7 x 7 x 2048
)

_ROOT_STRIDE = 4  # Of the first convolution and pooling together.

# slim's name of a scope that does nothing, used if `is_training` is None.
NoOpScope = contextlib.nullcontext


def resnet_arg_scope(
    weight_decay: float = 0.0001, batch_norm_decay: float = 0.997,
    batch_norm_epsilon: float = 1e-5, batch_norm_scale: bool = True,
    activation_fn: Optional[Activation] = tf.nn.relu,
    use_batch_norm: bool = True,
    batch_norm_updates_collections: Optional[str] = tf.GraphKeys.UPDATE_OPS
) -> ArgScope:
  """Returns the arg scope of the ResNets.

  Args:
    weight_decay: factor of the L2 loss of the weights.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance to avoid division by zero.
    batch_norm_scale: whether batch normalisation has a gamma.
    activation_fn: activation of the convolutions.
    use_batch_norm: whether convolutions are batch normalised.
    batch_norm_updates_collections: collection of the update ops; None: the
      moving averages are updated in place.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  params = {
      'decay': batch_norm_decay,
      'epsilon': batch_norm_epsilon,
      'scale': batch_norm_scale,
      'updates_collections': batch_norm_updates_collections,
      'fused': None,  # Fused if TensorFlow supports it.
  }
  with slim.arg_scope([slim.conv2d],
                      weights_regularizer=slim.l2_regularizer(weight_decay),
                      weights_initializer=slim.variance_scaling_initializer(),
                      activation_fn=activation_fn,
                      normalizer_fn=batch_norm if use_batch_norm else None,
                      normalizer_params=params):
    # V2 normalises outside of its convolutions too.
    with slim.arg_scope([slim.batch_norm], **params):
      # The published networks were trained so. `subsample` needs no padding.
      with slim.arg_scope([slim.max_pool2d], padding='SAME') as scope:
        return scope


def subsample(inputs: tf.Tensor, factor: int,
              scope: Optional[str] = None) -> tf.Tensor:
  """Keeps one of `factor` rows and columns, beginning with the first.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    factor: the stride.
    scope: name of the operation.

  Returns:
    `[batch, ceil(height / factor), ceil(width / factor), channels]`.
  """
  if factor == 1:
    return inputs
  return slim.max_pool2d(inputs, [1, 1], stride=factor, scope=scope)


def conv2d_same(inputs: tf.Tensor, num_outputs: int, kernel_size: int,
                stride: int, rate: int = 1,
                scope: Optional[Scope] = None) -> tf.Tensor:
  """Convolves as with 'SAME' padding, then keeps every `stride`-th position.

  TensorFlow's own 'SAME' padding with a stride depends on whether the size is
  even, so its outputs are not always a subset of those of stride 1. Here they
  are.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    num_outputs: output channels.
    kernel_size: height and width of the kernel, one int.
    stride: stride of the output.
    rate: dilation of the kernel.
    scope: name of the variable scope.

  Returns:
    `[batch, ceil(height / stride), ceil(width / stride), num_outputs]`.
  """
  padding = 'SAME'
  if stride != 1:
    padding = 'VALID'
    total = (kernel_size - 1) * rate
    around = [total // 2, total - total // 2]
    inputs = tf.pad(inputs, [[0, 0], around, around, [0, 0]])
  return slim.conv2d(inputs, num_outputs, kernel_size, stride=stride, rate=rate,
                     padding=padding, scope=scope)


@slim.add_arg_scope
def stack_blocks_dense(net: tf.Tensor, blocks: Sequence[Block],
                       output_stride: Optional[int] = None,
                       store_non_strided_activations: bool = False,
                       outputs_collections: Optional[Collections] = None
                       ) -> tf.Tensor:
  """Adds blocks, dilated once `output_stride` is reached.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    blocks: Block rows.
    output_stride: factor by which height and width of `net` shrink; None: by
      the strides of all units.
    store_non_strided_activations: whether the stride of a block's last unit is
      applied only after the block's output was collected.
    outputs_collections: collections to which the output of each block is added,
      by the name of its scope.

  Returns:
    The last output.

  Raises:
    ValueError: the strides of the units do not reach `output_stride`.
  """
  _check_output_stride(output_stride, blocks)
  current, rate = 1, 1
  for block in blocks:
    with tf.variable_scope(block.scope, 'block', [net]) as scope:
      stride_after = 1
      for index, unit in enumerate(block.args):
        unit = dict(unit)
        if store_non_strided_activations and index == len(block.args) - 1:
          stride_after = unit.pop('stride', 1)
          unit['stride'] = 1
        unit_rate = rate
        if 'stride' in unit:
          unit['stride'], current, rate = _apply(unit['stride'], current, rate,
                                                 output_stride)
        with tf.variable_scope('unit_%d' % (index + 1), values=[net]):
          net = block.unit_fn(net, rate=unit_rate, **unit)
      net = slim.utils.collect_named_outputs(outputs_collections, scope.name,
                                             net)
      stride_after, current, rate = _apply(stride_after, current, rate,
                                           output_stride)
      net = subsample(net, stride_after)
  return net


def _apply(stride, current, rate, output_stride):
  """Returns the stride to apply, and the new `current` and `rate`.

  Once `current` has reached `output_stride`, strides become dilation.
  """
  if current == output_stride:
    return 1, current, rate * stride
  return stride, current * stride, rate


def _check_output_stride(output_stride, blocks, root_stride=1):
  """Refuses an output_stride that the strides of the units do not reach."""
  if output_stride is None:
    return
  reached = [root_stride]
  for block in blocks:
    for unit in block.args:
      stride = unit.get('stride', 1)
      if stride != 1:
        reached.append(reached[-1] * stride)
  if output_stride not in reached:
    raise InputError('output_stride must be %s or None for these blocks, '
                     'got %r' % (', '.join(map(str, reached)), output_stride))


def bottleneck_block(scope: str, unit_fn: Callable, base_depth: int,
                     num_units: int, stride: int) -> Block:
  """Returns a Block of equal units; only the last one has the stride."""
  unit = {'depth': base_depth * 4, 'depth_bottleneck': base_depth, 'stride': 1}
  return Block(scope, unit_fn,
               [dict(unit) for _ in range(num_units - 1)] +
               [dict(unit, stride=stride)])


def shortcut(inputs: tf.Tensor, projected: tf.Tensor, depth: int, stride: int,
             **options: Any) -> tf.Tensor:
  """Adds the shortcut of a bottleneck, under the scope 'shortcut'.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    projected: tensor to project if `inputs` does not have `depth` channels.
    depth: output channels.
    stride: stride of the unit.
    **options: arguments of the projecting convolution.

  Returns:
    `[batch, height / stride, width / stride, depth]`.

  Raises:
    ValueError: `inputs` does not have 4 dimensions, or its channels are
      unknown.
  """
  if depth == slim.utils.last_dimension(inputs.get_shape(), min_rank=4):
    return subsample(inputs, stride, 'shortcut')
  return slim.conv2d(projected, depth, [1, 1], stride=stride, scope='shortcut',
                     **options)


def residual(net: tf.Tensor, depth: int, depth_bottleneck: int, stride: int,
             rate: int, **options: Any) -> tf.Tensor:
  """Adds the three convolutions of a bottleneck.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    depth: output channels.
    depth_bottleneck: channels of the first two convolutions.
    stride: stride of the second.
    rate: dilation of the second.
    **options: arguments of the third.

  Returns:
    `[batch, height / stride, width / stride, depth]`.
  """
  net = slim.conv2d(net, depth_bottleneck, [1, 1], stride=1, scope='conv1')
  net = conv2d_same(net, depth_bottleneck, 3, stride, rate=rate, scope='conv2')
  return slim.conv2d(net, depth, [1, 1], stride=1, scope='conv3', **options)


def resnet(inputs: tf.Tensor, blocks: Sequence[Block], unit_fn: Callable,
           preactivation: bool, num_classes: Optional[int],
           is_training: Optional[bool], global_pool: bool,
           output_stride: Optional[int], include_root_block: bool,
           spatial_squeeze: bool,
           store_non_strided_activations: bool = False) -> NetworkOutput:
  """Builds a ResNet in the current variable scope.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    blocks: Block rows.
    unit_fn: the function of the units, whose outputs become end points.
    preactivation: whether units normalise and activate their input, as in V2;
      then the first convolution does not, and the last output is normalised and
      activated at the end.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether batch statistics are used; None: not set here.
    global_pool: whether to average over all positions.
    output_stride: factor by which height and width shrink; None: all strides.
    include_root_block: whether to add the first convolution and pooling.
    spatial_squeeze: whether to remove height and width of the logits, which
      must be 1 x 1.
    store_non_strided_activations: as for `stack_blocks_dense`.

  Returns:
    Logits, or without classes the features; and a dict of end points.

  Raises:
    ValueError: `output_stride` is not reached, or logits of more than one
      position are to be squeezed.
  """
  _check_output_stride(output_stride, blocks,
                       _ROOT_STRIDE if include_root_block else 1)
  bare = {'activation_fn': None, 'normalizer_fn': None} if preactivation else {}
  collection = tf.get_default_graph().unique_name('resnet_end_points')
  with _collecting([slim.conv2d, unit_fn, stack_blocks_dense], collection), (
      NoOpScope() if is_training is None else
      slim.arg_scope([slim.batch_norm], is_training=is_training)):
    net = inputs
    if include_root_block:
      with slim.arg_scope([slim.conv2d], **bare):
        net = conv2d_same(net, 64, 7, stride=2, scope='conv1')  # 112 x 112 x 64
      net = slim.max_pool2d(net, [3, 3], 2, scope='pool1')      # 56 x 56 x 64
      if output_stride is not None:
        output_stride //= _ROOT_STRIDE
    net = stack_blocks_dense(net, blocks, output_stride,
                             store_non_strided_activations)
    if preactivation:
      net = batch_norm(net, activation_fn=tf.nn.relu, scope='postnorm')
  end_points = slim.utils.convert_collection_to_dict(collection,
                                                     clear_collection=True)
  net = _add_head(net, end_points, num_classes, global_pool, spatial_squeeze)
  return net, end_points


@contextlib.contextmanager
def _collecting(functions, collection):
  """Adds the functions' outputs to `collection` too, besides the caller's."""
  with contextlib.ExitStack() as stack:
    for function in functions:
      options = slim.current_arg_scope().get(slim.arg_scope_func_key(function))
      callers = (options or {}).get('outputs_collections') or []
      if isinstance(callers, str):
        callers = [callers]
      stack.enter_context(slim.arg_scope(
          [function], outputs_collections=list(callers) + [collection]))
    yield


def _add_head(net, end_points, num_classes, global_pool, spatial_squeeze):
  """Adds the requested pooling, logits and predictions."""
  if global_pool:
    net = tf.reduce_mean(net, [1, 2], keepdims=True, name='pool5')
    end_points['global_pool'] = net  # 1 x 1 x 2048
  if num_classes:
    name = tf.get_variable_scope().name
    net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                      normalizer_fn=None, scope='logits')
    end_points[name + '/logits'] = net
    if spatial_squeeze:
      net = tf.squeeze(net, [1, 2], name='SpatialSqueeze')
      end_points[name + '/spatial_squeeze'] = net
    end_points['predictions'] = slim.softmax(net, scope='predictions')
  return net
