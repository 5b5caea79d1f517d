"""VGG, with 11, 16 and 19 weight layers, for photos of 224 x 224.

Karen Simonyan, Andrew Zisserman:
Very Deep Convolutional Networks for Large-Scale Image Recognition.
arXiv:1409.1556, table 1, columns A, D and E.

  with slim.arg_scope(vgg_arg_scope()):
    logits, end_points = vgg_16(images, num_classes=1000, is_training=False)
  probabilities = tf.nn.softmax(logits)

Differences from the paper:
- The fully connected layers are convolutions, as in the paper's test on whole
  photos; other photo sizes need spatial_squeeze=False or global_pool=True.
"""

from typing import NamedTuple, Tuple

from compat import tf
from nets import plain_utils
from nets.network_types import ArgScope, image_size
from nets.plain_utils import Conv, MaxPool


class Stage(NamedTuple):
  """3 x 3 convolutions of one width, then a pooling that halves the size."""

  # Output channels.
  width: int
  # Their scopes.
  convolutions: Tuple[str, ...]
  # Scope of the pooling.
  pool: str


# Column A.
VGG_A = (
    Stage(64, ('conv1/conv1_1',), 'pool1'),                   # 112 x 112 x 64
    Stage(128, ('conv2/conv2_1',), 'pool2'),                  # 56 x 56 x 128
    Stage(256, ('conv3/conv3_1', 'conv3/conv3_2'), 'pool3'),  # 28 x 28 x 256
    Stage(512, ('conv4/conv4_1', 'conv4/conv4_2'), 'pool4'),  # 14 x 14 x 512
    Stage(512, ('conv5/conv5_1', 'conv5/conv5_2'), 'pool5'),  # 7 x 7 x 512
)

# Column D.
VGG_16 = (
    Stage(64, ('conv1/conv1_1', 'conv1/conv1_2'), 'pool1'),   # 112 x 112 x 64
    Stage(128, ('conv2/conv2_1', 'conv2/conv2_2'), 'pool2'),  # 56 x 56 x 128
    Stage(256, ('conv3/conv3_1', 'conv3/conv3_2', 'conv3/conv3_3'),
          'pool3'),                                           # 28 x 28 x 256
    Stage(512, ('conv4/conv4_1', 'conv4/conv4_2', 'conv4/conv4_3'),
          'pool4'),                                           # 14 x 14 x 512
    Stage(512, ('conv5/conv5_1', 'conv5/conv5_2', 'conv5/conv5_3'),
          'pool5'),                                           # 7 x 7 x 512
)

# Column E.
VGG_19 = (
    Stage(64, ('conv1/conv1_1', 'conv1/conv1_2'), 'pool1'),   # 112 x 112 x 64
    Stage(128, ('conv2/conv2_1', 'conv2/conv2_2'), 'pool2'),  # 56 x 56 x 128
    Stage(256, ('conv3/conv3_1', 'conv3/conv3_2', 'conv3/conv3_3',
                'conv3/conv3_4'), 'pool3'),                   # 28 x 28 x 256
    Stage(512, ('conv4/conv4_1', 'conv4/conv4_2', 'conv4/conv4_3',
                'conv4/conv4_4'), 'pool4'),                   # 14 x 14 x 512
    Stage(512, ('conv5/conv5_1', 'conv5/conv5_2', 'conv5/conv5_3',
                'conv5/conv5_4'), 'pool5'),                   # 7 x 7 x 512
)


def vgg_arg_scope(weight_decay: float = 0.0005) -> ArgScope:
  """Returns the arg scope of the VGG networks.

  Args:
    weight_decay: factor of the L2 loss of the weights.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  return plain_utils.plain_arg_scope(weight_decay, tf.zeros_initializer())


def _vgg(name, stages):
  """Returns the function that builds the network in a column of table 1."""

  @image_size(224)
  def network(inputs, num_classes=1000, is_training=True, dropout_keep_prob=0.5,
              spatial_squeeze=True, scope=name, fc_conv_padding='VALID',
              global_pool=False, reuse=None):
    """Builds a VGG network.

    Args:
      inputs: `[batch, height, width, 3]` float32, 0 to 255 minus the mean of
        the training photos.
      num_classes: number of classes; 0 or None: no classifier is built.
      is_training: whether dropout is active.
      dropout_keep_prob: fraction of the outputs of fc6 and fc7 that are kept.
      spatial_squeeze: whether logits are `[batch, num_classes]`; otherwise they
        are `[batch, height, width, num_classes]`.
      scope: name of the variable scope.
      fc_conv_padding: 'VALID': logits at the positions where fc6 fits into its
        input; 'SAME': at each position of its input.
      global_pool: whether to average over all positions, for photos of any
        size.
      reuse: whether to reuse the variables of an earlier network.

    Returns:
      Logits, or without classes the features of fc7; and a dict of end points.

    Raises:
      ValueError: the photos are too small, or too large to squeeze the logits.
    """
    with tf.variable_scope(scope, name, [inputs], reuse=reuse):
      return plain_utils.plain_network(
          inputs, _layers(stages),
          Conv('fc6', 4096, [7, 7], padding=fc_conv_padding),  # 1 x 1 x 4096
          Conv('fc7', 4096, [1, 1]), num_classes, is_training,
          dropout_keep_prob, spatial_squeeze, global_pool)

  network.__name__ = network.__qualname__ = name
  return network


def _layers(stages):
  for stage in stages:
    for scope in stage.convolutions:
      yield Conv(scope, stage.width, [3, 3])
    yield MaxPool(stage.pool, [2, 2])


vgg_a = _vgg('vgg_a', VGG_A)
vgg_16 = _vgg('vgg_16', VGG_16)
vgg_19 = _vgg('vgg_19', VGG_19)

# Other names, by the columns of table 1.
vgg_d = vgg_16
vgg_e = vgg_19
