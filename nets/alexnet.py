"""AlexNet V2, for photos of 224 x 224.

Alex Krizhevsky:
One weird trick for parallelizing convolutional neural networks.
arXiv:1404.5997, section 5 and footnote 1.

  with slim.arg_scope(alexnet_v2_arg_scope()):
    logits, end_points = alexnet_v2(images, num_classes=1000,
                                    is_training=False)
  probabilities = tf.nn.softmax(logits)

Differences from the paper:
- conv4 has 384 channels and conv5 256, as in the first AlexNet
  (Krizhevsky et al. 2012); the paper's code has 384, 256 and 256.
- There is no response normalisation after the convolutions.
- The fully connected layers are convolutions; other photo sizes need
  spatial_squeeze=False or global_pool=True.
"""

from typing import Optional

from compat import slim, tf
from nets import plain_utils
from nets.network_types import ArgScope, NetworkOutput, Scope, image_size
from nets.plain_utils import Conv, MaxPool

LAYERS = (
    Conv('conv1', 64, [11, 11], 4, 'VALID'),  # 54 x 54 x 64
    MaxPool('pool1', [3, 3]),                 # 26 x 26 x 64
    Conv('conv2', 192, [5, 5]),               # 26 x 26 x 192
    MaxPool('pool2', [3, 3]),                 # 12 x 12 x 192
    Conv('conv3', 384, [3, 3]),               # 12 x 12 x 384
    Conv('conv4', 384, [3, 3]),               # 12 x 12 x 384
    Conv('conv5', 256, [3, 3]),               # 12 x 12 x 256
    MaxPool('pool5', [3, 3]),                 # 5 x 5 x 256
)
FC6 = Conv('fc6', 4096, [5, 5], padding='VALID')  # 1 x 1 x 4096
FC7 = Conv('fc7', 4096, [1, 1])                   # 1 x 1 x 4096

trunc_normal = plain_utils.trunc_normal


def alexnet_v2_arg_scope(weight_decay: float = 0.0005) -> ArgScope:
  """Returns the arg scope of AlexNet V2.

  Args:
    weight_decay: factor of the L2 loss of the weights.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  with slim.arg_scope(plain_utils.plain_arg_scope(
      weight_decay, tf.constant_initializer(0.1))):
    with slim.arg_scope([slim.max_pool2d], padding='VALID') as scope:
      return scope


@image_size(224)
def alexnet_v2(inputs: tf.Tensor, num_classes: Optional[int] = 1000,
               is_training: bool = True, dropout_keep_prob: float = 0.5,
               spatial_squeeze: bool = True,
               scope: Optional[Scope] = 'alexnet_v2',
               global_pool: bool = False) -> NetworkOutput:
  """Builds AlexNet V2.

  Args:
    inputs: `[batch, height, width, 3]` float32, 0 to 255 minus the mean of the
      training photos.
    num_classes: number of classes; 0 or None: no classifier is built.
    is_training: whether dropout is active.
    dropout_keep_prob: fraction of the outputs of fc6 and fc7 that are kept.
    spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
      are `[batch, height, width, num_classes]`.
    scope: name of the variable scope.
    global_pool: whether to average over all positions, for photos of any size.

  Returns:
    Logits, or without classes the features of fc7; and a dict of end points.

  Raises:
    ValueError: the photos are too small, or too large to squeeze the logits.
  """
  with tf.variable_scope(scope, 'alexnet_v2', [inputs]):
    return plain_utils.plain_network(
        inputs, LAYERS, FC6, FC7, num_classes, is_training, dropout_keep_prob,
        spatial_squeeze, global_pool, small_start=True)
