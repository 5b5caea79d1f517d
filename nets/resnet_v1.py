"""ResNet V1, with 50, 101, 152 and 200 layers, for photos of 224 x 224.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun:
Deep Residual Learning for Image Recognition. arXiv:1512.03385, table 1; the
bottleneck is figure 5, right.

  with slim.arg_scope(resnet_arg_scope()):
    logits, end_points = resnet_v1_50(images, num_classes=1000,
                                      is_training=False)
  probabilities = end_points['predictions']

Differences from the paper:
- The last unit of a block has the stride, in its 3 x 3 convolution; in the
  paper it is the first unit of the next block, in its first convolution.
- Strided convolutions pad the same way at all sizes, so that dilation gives the
  strided network's features at more positions (`conv2d_same`).
- The paper has no 200 layers; they are those of arXiv:1603.05027.
"""

from typing import Optional, Sequence

from compat import slim, tf
from nets import resnet_utils
from nets.network_types import Collections, NetworkOutput, Scope, image_size

resnet_arg_scope = resnet_utils.resnet_arg_scope
NoOpScope = resnet_utils.NoOpScope

_IMAGE_SIZE = 224  # Default height and width of photos, in pixels.


@slim.add_arg_scope
def bottleneck(inputs: tf.Tensor, depth: int, depth_bottleneck: int,
               stride: int, rate: int = 1,
               outputs_collections: Optional[Collections] = None,
               scope: Optional[Scope] = None,
               use_bounded_activations: bool = False) -> tf.Tensor:
  """Adds a unit: input plus the output of three convolutions, activated.

  Args:
    inputs: `[batch, height, width, channels]` float tensor.
    depth: output channels.
    depth_bottleneck: channels between the convolutions.
    stride: stride of the unit.
    rate: dilation of the 3 x 3 convolution.
    outputs_collections: collections that the output is added to.
    scope: name of the variable scope; None: 'bottleneck_v1'.
    use_bounded_activations: whether to limit outputs to [0, 6] and residuals to
      [-6, 6], for inference with few bits.

  Returns:
    `[batch, height / stride, width / stride, depth]`.

  Raises:
    ValueError: `inputs` does not have 4 dimensions, or its channels are
      unknown.
  """
  activation = tf.nn.relu6 if use_bounded_activations else tf.nn.relu
  with tf.variable_scope(scope, 'bottleneck_v1', [inputs]) as opened:
    shortcut = resnet_utils.shortcut(
        inputs, inputs, depth, stride,
        activation_fn=tf.nn.relu6 if use_bounded_activations else None)
    residual = resnet_utils.residual(inputs, depth, depth_bottleneck, stride,
                                     rate, activation_fn=None)
    if use_bounded_activations:
      residual = tf.clip_by_value(residual, -6.0, 6.0)
    return slim.utils.collect_named_outputs(
        outputs_collections, opened.name, activation(shortcut + residual))


@image_size(_IMAGE_SIZE)
def resnet_v1(inputs: tf.Tensor, blocks: Sequence[resnet_utils.Block],
              num_classes: Optional[int] = None,
              is_training: Optional[bool] = True, global_pool: bool = True,
              output_stride: Optional[int] = None,
              include_root_block: bool = True, spatial_squeeze: bool = True,
              store_non_strided_activations: bool = False,
              reuse: Optional[bool] = None,
              scope: Optional[Scope] = None) -> NetworkOutput:
  """Builds a ResNet V1 of any blocks.

  Args:
    inputs: `[batch, height, width, 3]` float32, 0 to 255 minus the mean of the
      training photos.
    blocks: resnet_utils.Block rows.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether batch statistics are used; None: by the arg scope.
    global_pool: whether to average over all positions.
    output_stride: largest factor by which height and width shrink; later layers
      are dilated instead. None: by the strides of all units.
    include_root_block: whether to add the first convolution and pooling.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    store_non_strided_activations: whether the end point of a block is its
      output before the stride of its last unit.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope; None: 'resnet_v1'.

  Returns:
    Logits, or without classes the features; and a dict of end points.

  Raises:
    ValueError: `output_stride` is not reached, or logits of more than one
      position are to be squeezed.
  """
  with tf.variable_scope(scope, 'resnet_v1', [inputs], reuse=reuse):
    return resnet_utils.resnet(
        inputs, blocks, bottleneck, False, num_classes, is_training,
        global_pool, output_stride, include_root_block, spatial_squeeze,
        store_non_strided_activations)


def resnet_v1_block(scope: str, base_depth: int, num_units: int,
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
  """Returns the function that builds the network in a column of table 1."""

  @image_size(_IMAGE_SIZE)
  def network(inputs, num_classes=None, is_training=True, global_pool=True,
              output_stride=None, spatial_squeeze=True,
              store_non_strided_activations=False, reuse=None, scope=name,
              min_base_depth=8, depth_multiplier=1):
    """Builds a ResNet V1; see `resnet_v1` for details.

    Args:
      inputs: as for `resnet_v1`.
      num_classes: as for `resnet_v1`.
      is_training: as for `resnet_v1`.
      global_pool: as for `resnet_v1`.
      output_stride: 4, 8, 16, 32 or None, as for `resnet_v1`.
      spatial_squeeze: as for `resnet_v1`.
      store_non_strided_activations: as for `resnet_v1`.
      reuse: as for `resnet_v1`.
      scope: name of the variable scope.
      min_base_depth: minimum number of channels inside a bottleneck.
      depth_multiplier: factor of the channels of all blocks.

    Returns:
      Logits, or without classes the features; and a dict of end points.

    Raises:
      ValueError: as for `resnet_v1`.
    """
    blocks = [
        resnet_v1_block(stage.scope, max(int(stage.base_depth *
                                             depth_multiplier), min_base_depth),
                        stage.num_units, stage.stride) for stage in stages]
    return resnet_v1(
        inputs, blocks, num_classes, is_training, global_pool, output_stride,
        True, spatial_squeeze, store_non_strided_activations, reuse, scope)

  network.__name__ = network.__qualname__ = name
  return network


resnet_v1_50 = _published('resnet_v1_50', resnet_utils.RESNET_50)
resnet_v1_101 = _published('resnet_v1_101', resnet_utils.RESNET_101)
resnet_v1_152 = _published('resnet_v1_152', resnet_utils.RESNET_152)
resnet_v1_200 = _published('resnet_v1_200', resnet_utils.RESNET_200)
