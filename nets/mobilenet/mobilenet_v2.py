"""MobileNet V2, for photos of 224 x 224 (or 192, 160, 128, 96).

Mark Sandler, Andrew Howard, Menglong Zhu, Andrey Zhmoginov, Liang-Chieh Chen:
MobileNetV2: Inverted Residuals and Linear Bottlenecks. arXiv:1801.04381,
table 2.

  with slim.arg_scope(training_scope(is_training=False)):
    logits, end_points = mobilenet(images, num_classes=1001)
  probabilities = end_points['Predictions']

Differences from the paper:
- The first bottleneck, whose factor is 1, has no expansion layer.
- Widths are rounded to multiples of 8 (`divisible_by`), at least 8.
- There is dropout before the classifier.
- A width multiplier below 1 also narrows the last layer, unless
  `finegrain_classification_mode` keeps its 1280 channels, as in the paper.
"""

import copy
from typing import Any, NamedTuple, Optional

from common.errors import InputError
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.mobilenet import conv_blocks as ops
from nets.mobilenet import mobilenet as lib
from nets.mobilenet.mobilenet import wrapped_partial
from nets.network_types import (
  Activation,
  ArgScope,
  NetworkOutput,
  Scope,
  image_size,
)

op = lib.op
expand_input = ops.expand_input_by_factor


class Bottleneck(NamedTuple):
  """A row of table 2."""

  # t: factor of the channels inside the block.
  factor: int
  # c: output channels.
  channels: int
  # n.
  repeats: int
  # s: stride of the first repeat.
  stride: int


BOTTLENECKS = (
    Bottleneck(1, 16, 1, 1),   # 112 x 112 x 16
    Bottleneck(6, 24, 2, 2),   # 56 x 56 x 24
    Bottleneck(6, 32, 3, 2),   # 28 x 28 x 32
    Bottleneck(6, 64, 4, 2),   # 14 x 14 x 64
    Bottleneck(6, 96, 3, 1),   # 14 x 14 x 96
    Bottleneck(6, 160, 3, 2),  # 7 x 7 x 160
    Bottleneck(6, 320, 1, 1),  # 7 x 7 x 320
)

# The default expansion of bottlenecks. Rows do not repeat it, so that the
# default of a caller's copy of V2_DEF applies to them.
_FACTOR = 6


def _bottleneck_ops(row):
  """Returns the layers of a Bottleneck row."""
  params = {'num_outputs': row.channels}
  if row.factor != _FACTOR:
    params['expansion_size'] = expand_input(row.factor, divisible_by=1)
  return [op(ops.expanded_conv, stride=stride, **params)
          for stride in [row.stride] + [1] * (row.repeats - 1)]


_LAYER_FUNCTIONS = (slim.conv2d, slim.fully_connected, slim.separable_conv2d)


def _defaults(normalizer_fn):
  """Returns the 'defaults' of a definition, except for the normaliser's."""
  return {
      _LAYER_FUNCTIONS: {
          'normalizer_fn': normalizer_fn, 'activation_fn': tf.nn.relu6,
      },
      (ops.expanded_conv,): {
          'expansion_size': expand_input(_FACTOR),
          'split_expansion': 1,
          'normalizer_fn': normalizer_fn,
          'residual': True,
      },
      (slim.conv2d, slim.separable_conv2d): {'padding': 'SAME'},
  }


# Scopes are numbered by TensorFlow (Conv, expanded_conv, expanded_conv_1 ...
# Conv_1), in the published checkpoints too: a caller's copy may repeat or omit
# rows.
V2_DEF = dict(
    # Center and scale are part of the network and not of how it is trained.
    defaults={(slim.batch_norm,): {'center': True, 'scale': True},
              **_defaults(batch_norm)},
    spec=(
        # 112 x 112 x 32
        [op(slim.conv2d, stride=2, num_outputs=32, kernel_size=[3, 3])] +
        # 7 x 7 x 320
        [layer for row in BOTTLENECKS for layer in _bottleneck_ops(row)] +
        # 7 x 7 x 1280
        [op(slim.conv2d, stride=1, num_outputs=1280, kernel_size=[1, 1])]
    ),
)

V2_DEF_GROUP_NORM = dict(copy.deepcopy(V2_DEF),
                         defaults=_defaults(slim.group_norm))


@image_size(224)
@slim.add_arg_scope
def mobilenet(input_tensor: tf.Tensor, num_classes: Optional[int] = 1001,
              depth_multiplier: float = 1.0,
              scope: Optional[Scope] = 'MobilenetV2',
              conv_defs: Optional[lib.ConvDefs] = None,
              finegrain_classification_mode: bool = False,
              min_depth: Optional[int] = None,
              divisible_by: Optional[int] = None,
              activation_fn: Optional[Activation] = None,
              **kwargs: Any) -> NetworkOutput:
  """Builds MobileNet V2.

  Args:
    input_tensor: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifier is built.
    depth_multiplier: factor of the channels of all layers, above 0.
    scope: name of the variable scope.
    conv_defs: the network as a dict, see nets/mobilenet/mobilenet.py; None:
      V2_DEF.
    finegrain_classification_mode: whether the last layer keeps its channels if
      `depth_multiplier` is below 1.
    min_depth: minimum number of channels of a layer; None: as set by the arg
      scope of `mobilenet.depth_multiplier`, or 8.
    divisible_by: divisor of the number of channels; None: as set by that arg
      scope, or 8.
    activation_fn: activation of the layers; None: that of `conv_defs`, ReLU6.
    **kwargs: as for `mobilenet` and `mobilenet_base` of
      nets/mobilenet/mobilenet.py: prediction_fn, reuse, base_only,
      final_endpoint, output_stride, use_explicit_padding, is_training.

  Returns:
    Logits `[batch, num_classes]`, or without classes the pooled features
    `[batch, 1, 1, channels]`; and a dict of end points.

  Raises:
    ValueError: `multiplier` is given, or as for nets/mobilenet/mobilenet.py.
  """
  if 'multiplier' in kwargs:
    raise InputError('multiplier is not accepted by mobilenet_v2, got %r; use '
                     'depth_multiplier' % kwargs['multiplier'])
  definition: lib.ConvDefs = V2_DEF if conv_defs is None else conv_defs
  if finegrain_classification_mode and 0 < depth_multiplier < 1:
    definition = copy.deepcopy(definition)
    definition['spec'][-1].params['num_outputs'] /= depth_multiplier
  if activation_fn:
    definition = copy.deepcopy(definition)
    definition.setdefault('defaults', {}).setdefault(_LAYER_FUNCTIONS, {})[
        'activation_fn'] = activation_fn
  with lib.safe_arg_scope([lib.depth_multiplier], min_depth=min_depth,
                          divisible_by=divisible_by):
    return lib.mobilenet(input_tensor, num_classes=num_classes,
                         conv_defs=definition, scope=scope,
                         multiplier=depth_multiplier, **kwargs)


# Those below 1 keep the 1280 channels of the last layer.
mobilenet_v2_140 = wrapped_partial(mobilenet, depth_multiplier=1.4)
mobilenet_v2_130 = wrapped_partial(mobilenet, depth_multiplier=1.3)
mobilenet_v2_075 = wrapped_partial(mobilenet, depth_multiplier=0.75,
                                   finegrain_classification_mode=True)
mobilenet_v2_050 = wrapped_partial(mobilenet, depth_multiplier=0.50,
                                   finegrain_classification_mode=True)
mobilenet_v2_035 = wrapped_partial(mobilenet, depth_multiplier=0.35,
                                   finegrain_classification_mode=True)


@slim.add_arg_scope
def mobilenet_base(input_tensor: tf.Tensor, depth_multiplier: float = 1.0,
                   **kwargs: Any) -> NetworkOutput:
  """Builds MobileNet V2 without pooling and classifier; see `mobilenet`."""
  return mobilenet(input_tensor, depth_multiplier=depth_multiplier,
                   base_only=True, **kwargs)


@slim.add_arg_scope
def mobilenet_base_group_norm(input_tensor: tf.Tensor,
                              depth_multiplier: float = 1.0, groups: int = 8,
                              **kwargs: Any) -> NetworkOutput:
  """Builds MobileNet V2 with group norm, without pooling and classifier.

  Args:
    input_tensor: `[batch, height, width, 3]` float32 in [-1, 1].
    depth_multiplier: factor of the channels of all layers, above 0.
    groups: of the channels, in each layer; the mean and the variance of each
      are normalised.
    **kwargs: as for `mobilenet`, except `conv_defs`.

  Returns:
    The output of the last layer, and a dict of end points.
  """
  defaults = {**V2_DEF_GROUP_NORM['defaults'],
              (slim.group_norm,): {'groups': groups}}
  kwargs['conv_defs'] = dict(V2_DEF_GROUP_NORM, defaults=defaults)
  return mobilenet_base(input_tensor, depth_multiplier=depth_multiplier,
                        **kwargs)


def training_scope(**kwargs: Any) -> ArgScope:
  """Returns the training arg scope; see `training_scope` of mobilenet.py."""
  return lib.training_scope(**kwargs)
