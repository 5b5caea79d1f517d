"""MobileNet V3 and MobileNet EdgeTPU, for photos of 224 x 224.

Andrew Howard, Mark Sandler, Grace Chu, Liang-Chieh Chen, Bo Chen, Mingxing Tan,
Weijun Wang, Yukun Zhu, Ruoming Pang, Vijay Vasudevan, Quoc V. Le, Hartwig Adam:
Searching for MobileNetV3. arXiv:1905.02244, tables 1 (large) and 2 (small).

  with slim.arg_scope(training_scope(is_training=False)):
    logits, end_points = large(images, num_classes=1001)
  probabilities = end_points['Predictions']

The minimalistic networks have the same widths, without 5 x 5 kernels,
squeeze-and-excitation and hard swish, which some hardware computes slowly. The
EdgeTPU network is for the accelerator of that name: its first bottlenecks have
a full convolution in place of a depthwise one. Neither is in the paper.

Differences from the paper:
- The first bottleneck, which would not increase the channels, has no expansion
  layer.
- Widths are rounded to multiples of 8, those inside of squeeze-and-excitation
  too.
- The gate of squeeze-and-excitation has the factor 0.16667 in place of 1 / 6.
- The last convolution before the pooling of the small network has no
  squeeze-and-excitation.
- Before the classifier there is a second pooling, which changes nothing for
  square photos, and dropout.
"""

import functools
from typing import Any, NamedTuple, Optional

from common.errors import InputError
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.mobilenet import conv_blocks as ops
from nets.mobilenet import mobilenet as lib
from nets.mobilenet.mobilenet import wrapped_partial
from nets.network_types import NetworkOutput, Scope, image_size

op = lib.op
expand_input = ops.expand_input_by_factor
training_scope = lib.training_scope


def hard_swish(x: tf.Tensor) -> tf.Tensor:
  """Returns x * relu6(x + 3) / 6, of the shape of x."""
  with tf.name_scope('hard_swish'):
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)


# With the arguments of MobileNet V3.
squeeze_excite = functools.partial(
    ops.squeeze_excite, squeeze_factor=4, inner_activation_fn=tf.nn.relu,
    gating_fn=lambda x: tf.nn.relu6(x + 3) * 0.16667)


def _squeeze_excite(expansion_tensor, **_):
  """Is an expansion_transform of ops.expanded_conv."""
  return squeeze_excite(expansion_tensor)


def reduce_to_1x1(input_tensor: tf.Tensor, default_size: int = 7,
                  use_explicit_padding: bool = False,
                  **kwargs: Any) -> tf.Tensor:
  """Pools over all positions of a square.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    default_size: height and width of the pooling if those of the tensor are
      unknown, or differ.
    use_explicit_padding: accepted from `mobilenet_base`; has no effect.
    **kwargs: as for `slim.avg_pool2d`.

  Returns:
    `[batch, 1, 1, channels]`, if the stride is 1, there is no padding, and
    height and width are known and equal.
  """
  del use_explicit_padding
  height, width = input_tensor.get_shape().as_list()[1:3]
  size = default_size if height is None or height != width else height
  return slim.avg_pool2d(input_tensor, [size, size], **kwargs)


class Conv(NamedTuple):
  """A convolution."""

  kernel: int
  # Output channels.
  channels: int
  stride: int
  # Or ReLU.
  hard_swish: bool = False
  is_normalized: bool = True


class Bottleneck(NamedTuple):
  """A row bneck of tables 1 and 2."""

  # Of the depthwise layer.
  kernel: int
  # Channels of it. Scaled with the input's at other widths.
  expansion: int
  # Output channels.
  channels: int
  stride: int
  squeeze_excite: bool = False
  # Or ReLU, of the expansion and the depthwise layer.
  hard_swish: bool = False
  # Whether the input is added to an output of its shape.
  residual: bool = True


class FusedBottleneck(Bottleneck):
  """A bottleneck whose expansion has the kernel, without depthwise layer."""


class Pool(NamedTuple):
  """The mean over all positions, see `reduce_to_1x1`."""

  default_size: int


LARGE = (
    Conv(3, 16, 2, True),                       # 112 x 112 x 16
    Bottleneck(3, 16, 16, 1),                   # 112 x 112 x 16
    Bottleneck(3, 64, 24, 2),                   # 56 x 56 x 24
    Bottleneck(3, 72, 24, 1),                   # 56 x 56 x 24
    Bottleneck(5, 72, 40, 2, True, False),      # 28 x 28 x 40
    Bottleneck(5, 120, 40, 1, True, False),     # 28 x 28 x 40
    Bottleneck(5, 120, 40, 1, True, False),     # 28 x 28 x 40
    Bottleneck(3, 240, 80, 2, False, True),     # 14 x 14 x 80
    Bottleneck(3, 200, 80, 1, False, True),     # 14 x 14 x 80
    Bottleneck(3, 184, 80, 1, False, True),     # 14 x 14 x 80
    Bottleneck(3, 184, 80, 1, False, True),     # 14 x 14 x 80
    Bottleneck(3, 480, 112, 1, True, True),     # 14 x 14 x 112
    Bottleneck(3, 672, 112, 1, True, True),     # 14 x 14 x 112
    Bottleneck(5, 672, 160, 2, True, True),     # 7 x 7 x 160
    Bottleneck(5, 960, 160, 1, True, True),     # 7 x 7 x 160
    Bottleneck(5, 960, 160, 1, True, True),     # 7 x 7 x 160
    Conv(1, 960, 1, True),                      # 7 x 7 x 960
    Pool(7),                                    # 1 x 1 x 960
    Conv(1, 1280, 1, True, is_normalized=False),  # 1 x 1 x 1280
)

SMALL = (
    Conv(3, 16, 2, True),                       # 112 x 112 x 16
    Bottleneck(3, 16, 16, 2, True, False),      # 56 x 56 x 16
    Bottleneck(3, 72, 24, 2),                   # 28 x 28 x 24
    Bottleneck(3, 88, 24, 1),                   # 28 x 28 x 24
    Bottleneck(5, 96, 40, 2, True, True),       # 14 x 14 x 40
    Bottleneck(5, 240, 40, 1, True, True),      # 14 x 14 x 40
    Bottleneck(5, 240, 40, 1, True, True),      # 14 x 14 x 40
    Bottleneck(5, 120, 48, 1, True, True),      # 14 x 14 x 48
    Bottleneck(5, 144, 48, 1, True, True),      # 14 x 14 x 48
    Bottleneck(5, 288, 96, 2, True, True),      # 7 x 7 x 96
    Bottleneck(5, 576, 96, 1, True, True),      # 7 x 7 x 96
    Bottleneck(5, 576, 96, 1, True, True),      # 7 x 7 x 96
    Conv(1, 576, 1, True),                      # 7 x 7 x 576
    Pool(7),                                    # 1 x 1 x 576
    Conv(1, 1024, 1, True, is_normalized=False),  # 1 x 1 x 1024
)

EDGETPU = (
    Conv(3, 32, 2),                             # 112 x 112 x 32
    FusedBottleneck(3, 32, 16, 1),              # 112 x 112 x 16
    FusedBottleneck(3, 128, 32, 2),             # 56 x 56 x 32
    FusedBottleneck(3, 128, 32, 1),             # 56 x 56 x 32
    FusedBottleneck(3, 128, 32, 1),             # 56 x 56 x 32
    FusedBottleneck(3, 128, 32, 1),             # 56 x 56 x 32
    FusedBottleneck(3, 256, 48, 2),             # 28 x 28 x 48
    FusedBottleneck(3, 192, 48, 1),             # 28 x 28 x 48
    FusedBottleneck(3, 192, 48, 1),             # 28 x 28 x 48
    FusedBottleneck(3, 192, 48, 1),             # 28 x 28 x 48
    Bottleneck(3, 384, 96, 2),                  # 14 x 14 x 96
    Bottleneck(3, 384, 96, 1),                  # 14 x 14 x 96
    Bottleneck(3, 384, 96, 1),                  # 14 x 14 x 96
    Bottleneck(3, 384, 96, 1),                  # 14 x 14 x 96
    Bottleneck(3, 768, 96, 1, residual=False),  # 14 x 14 x 96
    Bottleneck(3, 384, 96, 1),                  # 14 x 14 x 96
    Bottleneck(3, 384, 96, 1),                  # 14 x 14 x 96
    Bottleneck(3, 384, 96, 1),                  # 14 x 14 x 96
    Bottleneck(5, 768, 160, 2),                 # 7 x 7 x 160
    Bottleneck(5, 640, 160, 1),                 # 7 x 7 x 160
    Bottleneck(5, 640, 160, 1),                 # 7 x 7 x 160
    Bottleneck(5, 640, 160, 1),                 # 7 x 7 x 160
    Bottleneck(3, 1280, 192, 1),                # 7 x 7 x 192
    Conv(1, 1280, 1),                           # 7 x 7 x 1280
)


def _minimalistic(rows):
  """Returns rows without 5 x 5 kernels, squeeze-and-excitation, hard swish."""
  simpler = dict(kernel=3, squeeze_excite=False, hard_swish=False)
  return [row._replace(**simpler) if isinstance(row, Bottleneck) else
          row._replace(hard_swish=False) if isinstance(row, Conv) else row
          for row in rows]


def _op(row, num_inputs):
  """Returns the layer of a row; `num_inputs`: the channels of its input."""
  if isinstance(row, Pool):
    return op(reduce_to_1x1, default_size=row.default_size, stride=1,
              padding='VALID')
  params = {'num_outputs': row.channels, 'stride': row.stride,
            'kernel_size': (row.kernel, row.kernel)}
  activation_fn = hard_swish if row.hard_swish else tf.nn.relu
  if isinstance(row, Conv):
    if not row.is_normalized:
      params['normalizer_fn'] = None
    return op(slim.conv2d, activation_fn=activation_fn, **params)
  if not row.residual:
    params['residual'] = False
  return op(
      ops.fused_conv if isinstance(row, FusedBottleneck) else ops.expanded_conv,
      expansion_size=expand_input(row.expansion / num_inputs),
      inner_activation_fn=activation_fn,
      expansion_transform=_squeeze_excite if row.squeeze_excite else None,
      **params)


def _defaults(normalizer_fn, **arguments):
  """Returns the 'defaults' of a definition.

  Args:
    normalizer_fn: normaliser of all layers.
    **arguments: those of the normaliser that are part of the network and not of
      how it is trained.
  """
  scoped = slim.batch_norm if normalizer_fn is batch_norm else normalizer_fn
  return {
      (ops.expanded_conv,): {'normalizer_fn': normalizer_fn, 'residual': True},
      (slim.conv2d, slim.fully_connected, slim.separable_conv2d): {
          'normalizer_fn': normalizer_fn, 'activation_fn': tf.nn.relu,
      },
      (scoped,): arguments,
  }


DEFAULTS = _defaults(batch_norm, center=True, scale=True)
DEFAULTS_GROUP_NORM = _defaults(slim.group_norm, groups=8)


def _definition(rows):
  """Returns a network as a dict, see nets/mobilenet/mobilenet.py."""
  spec, channels = [], 3
  for row in rows:
    spec.append(_op(row, channels))
    channels = getattr(row, 'channels', channels)
  return dict(defaults=dict(DEFAULTS), spec=spec)


V3_LARGE = _definition(LARGE)
V3_SMALL = _definition(SMALL)
V3_LARGE_MINIMALISTIC = _definition(_minimalistic(LARGE))
V3_SMALL_MINIMALISTIC = _definition(_minimalistic(SMALL))
V3_EDGETPU = _definition(EDGETPU)


def _halve(definition, first, last):
  """Returns a definition whose layers `first` to `last` have half the width."""
  spec = list(definition['spec'])
  for index in range(first, last + 1):
    params = spec[index].params
    spec[index] = spec[index]._replace(
        params=dict(params, num_outputs=params['num_outputs'] // 2))
  return dict(definition, spec=spec)


# Feature extractors of object detectors (section 6.3 of the paper): the last
# convolutions have half the width.
V3_LARGE_DETECTION = _halve(V3_LARGE, 13, 16)
V3_SMALL_DETECTION = _halve(V3_SMALL, 9, 12)


@image_size(224)
@slim.add_arg_scope
def mobilenet(input_tensor: tf.Tensor, num_classes: Optional[int] = 1001,
              depth_multiplier: float = 1.0,
              scope: Optional[Scope] = 'MobilenetV3',
              conv_defs: Optional[lib.ConvDefs] = None,
              finegrain_classification_mode: bool = False,
              use_groupnorm: bool = False, groups: int = 8,
              **kwargs: Any) -> NetworkOutput:
  """Builds MobileNet V3.

  Inference mode is created by default; `training_scope` is for training.

  Args:
    input_tensor: `[batch, height, width, 3]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifier is built.
    depth_multiplier: factor of the channels of all layers, above 0.
    scope: name of the variable scope.
    conv_defs: the network as a dict, see nets/mobilenet/mobilenet.py; None:
      V3_LARGE.
    finegrain_classification_mode: whether the last layer keeps its channels at
      any `depth_multiplier`.
    use_groupnorm: whether the layers have group norm in place of batch norm;
      the 'defaults' of `conv_defs` are not used then.
    groups: number of groups of the channels, with `use_groupnorm`.
    **kwargs: as for `mobilenet` and `mobilenet_base` of
      nets/mobilenet/mobilenet.py: prediction_fn, reuse, base_only,
      use_reduce_mean_for_pooling, final_endpoint, output_stride,
      use_explicit_padding, is_training.

  Returns:
    Logits `[batch, num_classes]`, or without classes the pooled features
    `[batch, 1, 1, channels]`; and a dict of end points.

  Raises:
    ValueError: `multiplier` is given, or as for nets/mobilenet/mobilenet.py.
  """
  if 'multiplier' in kwargs:
    raise InputError('multiplier is not accepted by mobilenet_v3, got %r; use '
                     'depth_multiplier' % kwargs['multiplier'])
  definition: lib.ConvDefs = V3_LARGE if conv_defs is None else conv_defs
  if use_groupnorm:
    definition = dict(definition, defaults={
        **DEFAULTS_GROUP_NORM, (slim.group_norm,): {'groups': groups}})
  if finegrain_classification_mode:
    *layers, last = definition['spec']
    definition = dict(definition, spec=layers + [
        last._replace(multiplier_func=lambda params, multiplier: None)])
  return lib.mobilenet(input_tensor, num_classes=num_classes,
                       conv_defs=definition, scope=scope,
                       multiplier=depth_multiplier, **kwargs)


large = wrapped_partial(mobilenet, conv_defs=V3_LARGE)
small = wrapped_partial(mobilenet, conv_defs=V3_SMALL)
large_minimalistic = wrapped_partial(mobilenet, conv_defs=V3_LARGE_MINIMALISTIC)
small_minimalistic = wrapped_partial(mobilenet, conv_defs=V3_SMALL_MINIMALISTIC)
edge_tpu = wrapped_partial(mobilenet, conv_defs=V3_EDGETPU,
                           scope='MobilenetEdgeTPU')
edge_tpu_075 = wrapped_partial(
    mobilenet, conv_defs=V3_EDGETPU, scope='MobilenetEdgeTPU',
    depth_multiplier=0.75, finegrain_classification_mode=True)


@slim.add_arg_scope
def mobilenet_base(input_tensor: tf.Tensor, depth_multiplier: float = 1.0,
                   **kwargs: Any) -> NetworkOutput:
  """Builds MobileNet V3 without pooling and classifier; see `mobilenet`."""
  return mobilenet(input_tensor, depth_multiplier=depth_multiplier,
                   base_only=True, **kwargs)
