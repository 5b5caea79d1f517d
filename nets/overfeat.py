"""OverFeat, the fast model, for photos of 231 x 231.

Pierre Sermanet, David Eigen, Xiang Zhang, Michael Mathieu, Rob Fergus, Yann
LeCun: OverFeat: Integrated Recognition, Localization and Detection using
Convolutional Networks. arXiv:1312.6229, table 1.

  with slim.arg_scope(overfeat_arg_scope()):
    logits, end_points = overfeat(images, num_classes=1000, is_training=False)
  probabilities = tf.nn.softmax(logits)

Differences from the paper:
- conv1 has 64 channels; table 1 has 96.
- The fully connected layers are convolutions, as in the paper's test on whole
  photos; other photo sizes need spatial_squeeze=False or global_pool=True.
"""

from typing import Optional

from compat import slim, tf
from nets import plain_utils
from nets.network_types import ArgScope, NetworkOutput, Scope, image_size
from nets.plain_utils import Conv, MaxPool

LAYERS = (
    Conv('conv1', 64, [11, 11], 4, 'VALID'),  # 56 x 56 x 64
    MaxPool('pool1', [2, 2]),                 # 28 x 28 x 64
    Conv('conv2', 256, [5, 5], 1, 'VALID'),   # 24 x 24 x 256
    MaxPool('pool2', [2, 2]),                 # 12 x 12 x 256
    Conv('conv3', 512, [3, 3]),               # 12 x 12 x 512
    Conv('conv4', 1024, [3, 3]),              # 12 x 12 x 1024
    Conv('conv5', 1024, [3, 3]),              # 12 x 12 x 1024
    MaxPool('pool5', [2, 2]),                 # 6 x 6 x 1024
)
FC6 = Conv('fc6', 3072, [6, 6], padding='VALID')  # 1 x 1 x 3072
FC7 = Conv('fc7', 4096, [1, 1])                   # 1 x 1 x 4096

trunc_normal = plain_utils.trunc_normal


def overfeat_arg_scope(weight_decay: float = 0.0005) -> ArgScope:
  """Returns the arg scope of OverFeat.

  Args:
    weight_decay: factor of the L2 loss of the weights.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  with slim.arg_scope(plain_utils.plain_arg_scope(
      weight_decay, tf.zeros_initializer())):
    with slim.arg_scope([slim.max_pool2d], padding='VALID') as scope:
      return scope


@image_size(231)
def overfeat(inputs: tf.Tensor, num_classes: Optional[int] = 1000,
             is_training: bool = True, dropout_keep_prob: float = 0.5,
             spatial_squeeze: bool = True, scope: Optional[Scope] = 'overfeat',
             global_pool: bool = False) -> NetworkOutput:
  """Builds OverFeat.

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
  with tf.variable_scope(scope, 'overfeat', [inputs]):
    return plain_utils.plain_network(
        inputs, LAYERS, FC6, FC7, num_classes, is_training, dropout_keep_prob,
        spatial_squeeze, global_pool, small_start=True)
