"""ResNet V2, with 50, 101, 152 and 200 layers, for photos of 224 x 224.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun:
Identity Mappings in Deep Residual Networks. arXiv:1603.05027, figure 4 (e); the
depths are those of arXiv:1512.03385, table 1, and of section 4 (200 layers).

  with slim.arg_scope(resnet_arg_scope()):
    logits, end_points = resnet_v2_50(images, num_classes=1001,
                                      is_training=False)
  probabilities = end_points['predictions']

The published checkpoints need photos of 299 x 299 in [-1, 1].

Differences from the paper:
- The last unit of a block has the stride, in its 3 x 3 convolution; in the
  paper it is the first unit of the next block.
- Strided convolutions pad the same way at all sizes, so that dilation gives the
  strided network's features at more positions (`conv2d_same`).
- Convolutions that are not followed by batch normalisation have biases.
"""

from typing import Optional, Sequence

from compat import slim, tf
from nets import resnet_utils
from nets.batch_norm import batch_norm
from nets.network_types import Collections, NetworkOutput, Scope, image_size

resnet_arg_scope = resnet_utils.resnet_arg_scope
NoOpScope = resnet_utils.NoOpScope

_IMAGE_SIZE = 224  # Default height and width of photos, in pixels.


@slim.add_arg_scope
def bottleneck(inputs: tf.Tensor, depth: int, depth_bottleneck: int,
               stride: int, rate: int = 1,
               outputs_collections: Optional[Collections] = None,
               scope: Optional[Scope] = None) -> tf.Tensor:
  """Adds a unit: input plus three convolutions of the activated input.

  The input is normalised and activated before the convolutions.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    depth: output channels.
    depth_bottleneck: channels between the convolutions.
    stride: stride of the unit.
    rate: dilation of the 3 x 3 convolution.
    outputs_collections: collections that the output is added to.
    scope: name of the variable scope; None: 'bottleneck_v2'.

  Returns:
    `[batch, height / stride, width / stride, depth]`.

  Raises:
    ValueError: `inputs` does not have 4 dimensions, or its channels are
      unknown.
  """
  bare = {'normalizer_fn': None, 'activation_fn': None}
  with tf.variable_scope(scope, 'bottleneck_v2', [inputs]) as opened:
    preact = batch_norm(inputs, activation_fn=tf.nn.relu, scope='preact')
    shortcut = resnet_utils.shortcut(inputs, preact, depth, stride, **bare)
    residual = resnet_utils.residual(preact, depth, depth_bottleneck, stride,
                                     rate, **bare)
    return slim.utils.collect_named_outputs(outputs_collections, opened.name,
                                            shortcut + residual)


@image_size(_IMAGE_SIZE)
def resnet_v2(inputs: tf.Tensor, blocks: Sequence[resnet_utils.Block],
              num_classes: Optional[int] = None,
              is_training: Optional[bool] = True, global_pool: bool = True,
              output_stride: Optional[int] = None,
              include_root_block: bool = True, spatial_squeeze: bool = True,
              reuse: Optional[bool] = None,
              scope: Optional[Scope] = None) -> NetworkOutput:
  """Builds a ResNet V2 of any blocks.

  Args:
    inputs: `[batch, height, width, 3]` float32 in [-1, 1].
    blocks: resnet_utils.Block rows.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether batch statistics are used; None: by the arg scope.
    global_pool: whether to average over all positions.
    output_stride: largest factor by which height and width shrink; later layers
      are dilated instead. None: by the strides of all units.
    include_root_block: whether to add the first convolution and pooling.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope; None: 'resnet_v2'.

  Returns:
    Logits, or without classes the features; and a dict of end points.

  Raises:
    ValueError: `output_stride` is not reached, or logits of more than one
      position are to be squeezed.
  """
  with tf.variable_scope(scope, 'resnet_v2', [inputs], reuse=reuse):
    return resnet_utils.resnet(
        inputs, blocks, bottleneck, True, num_classes, is_training, global_pool,
        output_stride, include_root_block, spatial_squeeze)


def resnet_v2_block(scope: str, base_depth: int, num_units: int,
                    stride: int) -> resnet_utils.Block:
  """Returns a block of bottlenecks whose last one has the stride.

  Args:
    scope: name of the block's variable scope.
    base_depth: channels inside the bottlenecks; they output four times as many.
    num_units: number of bottlenecks.
    stride: stride of the last one.

  Returns:
    A resnet_utils.Block.
  """
  return resnet_utils.bottleneck_block(scope, bottleneck, base_depth, num_units,
                                       stride)


def _published(name, stages):
  """Returns the function that builds the network of some depth."""

  @image_size(_IMAGE_SIZE)
  def network(inputs, num_classes=None, is_training=True, global_pool=True,
              output_stride=None, spatial_squeeze=True, reuse=None, scope=name):
    """Builds a ResNet V2; see `resnet_v2` for details.

    Args:
      inputs: as for `resnet_v2`.
      num_classes: as for `resnet_v2`.
      is_training: as for `resnet_v2`.
      global_pool: as for `resnet_v2`.
      output_stride: 4, 8, 16, 32 or None, as for `resnet_v2`.
      spatial_squeeze: as for `resnet_v2`.
      reuse: as for `resnet_v2`.
      scope: name of the variable scope.

    Returns:
      Logits, or without classes the features; and a dict of end points.

    Raises:
      ValueError: as for `resnet_v2`.
    """
    return resnet_v2(
        inputs, [resnet_v2_block(*stage) for stage in stages], num_classes,
        is_training, global_pool, output_stride, True, spatial_squeeze, reuse,
        scope)

  network.__name__ = network.__qualname__ = name
  return network


resnet_v2_50 = _published('resnet_v2_50', resnet_utils.RESNET_50)
resnet_v2_101 = _published('resnet_v2_101', resnet_utils.RESNET_101)
resnet_v2_152 = _published('resnet_v2_152', resnet_utils.RESNET_152)
resnet_v2_200 = _published('resnet_v2_200', resnet_utils.RESNET_200)
