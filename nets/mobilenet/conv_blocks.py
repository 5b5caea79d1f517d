"""Building blocks of the MobileNets.

  net = expanded_conv(net, num_outputs=24, stride=2)

builds the bottleneck of MobileNet V2 (arXiv:1801.04381, table 1 and figure 4):
a 1 x 1 convolution that expands the channels, a depthwise one, and a 1 x 1
convolution that projects to few channels, with the input added if the shapes
match. Activation and batch norm are set by the arg scope. `squeeze_excite` is
what MobileNet V3 adds to it (arXiv:1905.02244, figure 4).
"""

import contextlib
import functools
from typing import Any, Callable, Optional, Sequence, Union

from common.errors import InputError
from compat import slim, tf
from nets.network_types import Activation, EndPoints, Scope

_CHANNELS = 3  # The axis of the channels: [batch, height, width, channels].
_LOCATIONS = (None, 'input', 'output', 'expansion')


def fixed_padding(inputs: tf.Tensor, kernel_size: Sequence[int],
                  rate: int = 1) -> tf.Tensor:
  """Pads height and width for a 'VALID' convolution that keeps the size.

  Unlike with 'SAME', the padding does not depend on the size of the input.

  Args:
    inputs: `[batch, height, width, channels]` tensor.
    kernel_size: `(height, width)` of the convolution after it.
    rate: its dilation.

  Returns:
    `[batch, height + pad, width + pad, channels]`.
  """
  paddings = [[0, 0]]
  for size in kernel_size:
    total = (size - 1) * rate
    paddings.append([total // 2, total - total // 2])
  return tf.pad(inputs, paddings + [[0, 0]])


def make_divisible(v: float, divisor: int,
                   min_value: Optional[int] = None) -> int:
  """Returns the multiple of `divisor` that is nearest to `v` channels.

  Args:
    v: number of channels, need not be whole.
    divisor: divisor of the result, unless `min_value` is not a multiple of it.
    min_value: smallest result; None: `divisor`.

  Returns:
    A whole number that is at least 90 % of `v`.
  """
  if min_value is None:
    min_value = divisor
  nearest = max(min_value, int(v + divisor / 2) // divisor * divisor)
  return nearest + divisor if nearest < 0.9 * v else nearest


# The names that slim's own modules use.
_fixed_padding = fixed_padding
_make_divisible = make_divisible


def _split_divisible(num, num_ways, divisible_by=8):
  """Returns `num_ways` multiples of `divisible_by` that add up to `num`.

  Args:
    num: number to split.
    num_ways: number of parts.
    divisible_by: divisor of each part.

  Returns:
    A list of parts that are as even as possible.

  Raises:
    ValueError: there are no such parts.
  """
  if num % divisible_by or num < num_ways * divisible_by:
    raise InputError('%d channels cannot be split into %d parts that are '
                     'multiples of %d' % (num, num_ways, divisible_by))
  ends = [-(-num * part // (num_ways * divisible_by)) * divisible_by
          for part in range(num_ways + 1)]
  return [end - start for start, end in zip(ends, ends[1:])]


def split_conv(input_tensor: tf.Tensor, num_outputs: int, num_ways: int,
               scope: str, divisible_by: int = 8, **kwargs: Any) -> tf.Tensor:
  """Adds a 1 x 1 convolution in groups: part i of the output reads part i.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    num_outputs: output channels.
    num_ways: number of groups. If a group would have fewer than `divisible_by`
      input or output channels, there is one group.
    scope: the layer's scope; several groups have the scopes <scope>_part_<i>.
    divisible_by: divisor of the number of channels of each group.
    **kwargs: as for `slim.conv2d`.

  Returns:
    `[batch, height, width, num_outputs]`.

  Raises:
    ValueError: channels are not a multiple of `divisible_by`.
  """
  num_inputs = input_tensor.get_shape().as_list()[_CHANNELS]
  smallest = min(num_inputs // num_ways, num_outputs // num_ways)
  if num_ways == 1 or smallest < divisible_by:
    return slim.conv2d(input_tensor, num_outputs, [1, 1], scope=scope, **kwargs)
  widths = _split_divisible(num_outputs, num_ways, divisible_by)
  parts = tf.split(input_tensor,
                   _split_divisible(num_inputs, num_ways, divisible_by),
                   axis=_CHANNELS, name='split_' + scope)
  outputs = []
  for index, (part, width) in enumerate(zip(parts, widths)):
    part_scope = '%s_part_%d' % (scope, index)
    net = slim.conv2d(part, width, [1, 1], scope=part_scope, **kwargs)
    outputs.append(tf.identity(net, part_scope + '_output'))
  return tf.concat(outputs, _CHANNELS, name=scope + '_concat')


@contextlib.contextmanager
def _separable_scope(scope):
  """Yields the prefix of the names of the two layers.

  In MobileNet V1's checkpoints they are <scope>_depthwise and
  <scope>_pointwise. Without a scope they are in a scope 'separable'.
  """
  if scope is None:
    with tf.variable_scope(None, default_name='separable') as opened:
      with tf.name_scope(opened.original_name_scope):
        yield ''
  else:
    yield scope + '_'


@slim.add_arg_scope
def split_separable_conv2d(input_tensor: tf.Tensor, num_outputs: int,
                           scope: Optional[str] = None,
                           normalizer_fn: Optional[Callable] = None,
                           stride: int = 1, rate: int = 1,
                           endpoints: Optional[EndPoints] = None,
                           use_explicit_padding: bool = False) -> tf.Tensor:
  """Adds the block of MobileNet V1: 3 x 3 depthwise, then 1 x 1.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    num_outputs: output channels.
    scope: prefix of the two layers' scopes; None: they are in a scope
      'separable'.
    normalizer_fn: normaliser of both layers.
    stride: stride of the depthwise layer.
    rate: dilation of the depthwise layer.
    endpoints: dict to which the two layers' outputs are added by name, or None.
    use_explicit_padding: whether to pad as `fixed_padding` does.

  Returns:
    `[batch, height / stride, width / stride, num_outputs]`.
  """
  endpoints = {} if endpoints is None else endpoints
  kernel_size = [3, 3]
  net = input_tensor
  with _separable_scope(scope) as prefix:
    if use_explicit_padding:
      net = fixed_padding(net, kernel_size, rate)
    net = slim.separable_conv2d(
        net, None, kernel_size, depth_multiplier=1, stride=stride, rate=rate,
        normalizer_fn=normalizer_fn,
        padding='VALID' if use_explicit_padding else 'SAME',
        scope=prefix + 'depthwise')
    endpoints[prefix + 'depthwise'] = net
    net = slim.conv2d(net, num_outputs, [1, 1], stride=1,
                      normalizer_fn=normalizer_fn, scope=prefix + 'pointwise')
    endpoints[prefix + 'pointwise'] = net
  return net


def expand_input_by_factor(n: float,
                           divisible_by: int = 8) -> Callable[..., int]:
  """Returns an `expansion_size` for `expanded_conv`: `n` times the input's.

  Args:
    n: factor.
    divisible_by: divisor of the number of channels.
  """
  return lambda num_inputs, **_: make_divisible(num_inputs * n, divisible_by)


_SIX_TIMES = expand_input_by_factor(6)


@slim.add_arg_scope
def expanded_conv(
    input_tensor: tf.Tensor, num_outputs: int,
    expansion_size: Union[int, Callable[..., int]] = _SIX_TIMES,
    stride: int = 1, rate: int = 1, kernel_size: Sequence[int] = (3, 3),
    residual: Union[bool, Callable[..., tf.Tensor]] = True,
    normalizer_fn: Optional[Callable] = None, split_projection: int = 1,
    split_expansion: int = 1, split_divisible_by: int = 8,
    expansion_transform: Optional[Callable[..., tf.Tensor]] = None,
    depthwise_location: Optional[str] = 'expansion',
    depthwise_channel_multiplier: int = 1,
    endpoints: Optional[EndPoints] = None, use_explicit_padding: bool = False,
    padding: str = 'SAME', inner_activation_fn: Optional[Activation] = None,
    depthwise_activation_fn: Optional[Activation] = None,
    project_activation_fn: Optional[Activation] = tf.identity,
    depthwise_fn: Callable[..., tf.Tensor] = slim.separable_conv2d,
    expansion_fn: Callable[..., tf.Tensor] = split_conv,
    projection_fn: Callable[..., tf.Tensor] = split_conv,
    scope: Optional[Scope] = None) -> tf.Tensor:
  """Adds the bottleneck of MobileNet V2 and V3: expand, depthwise, project.

  There is no expansion layer if it would not increase the number of channels.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    num_outputs: output channels.
    expansion_size: channels after the expansion; a number, or a function of
      `num_inputs` that accepts any further keyword arguments.
    stride: stride of the depthwise layer.
    rate: dilation of the depthwise layer.
    kernel_size: `(height, width)` of the depthwise layer.
    residual: whether to add the input to the output if the stride is 1 and the
      number of channels is the same; or a function of `input_tensor` and
      `output_tensor` that returns the sum.
    normalizer_fn: normaliser of the three layers.
    split_projection: number of groups of the projection, see `split_conv`.
    split_expansion: number of groups of the expansion.
    split_divisible_by: divisor of the number of channels of each group.
    expansion_transform: function of `expansion_tensor` and `input_tensor` that
      returns the tensor to project, or None.
    depthwise_location: position of the depthwise layer: before ('input'),
      between ('expansion') or after ('output') the two others; None: no such
      layer.
    depthwise_channel_multiplier: output channels of the depthwise layer per
      input channel.
    endpoints: dict to which 'expansion_output', 'depthwise_output' and
      'projection_output' are added, or None.
    use_explicit_padding: whether to pad as `fixed_padding` does.
    padding: padding of the depthwise layer.
    inner_activation_fn: activation of expansion and depthwise layer; None: that
      of the arg scope. Set by an arg scope of `slim.conv2d` and
      `slim.separable_conv2d`, so it applies to `expansion_transform` too.
    depthwise_activation_fn: activation of the depthwise layer between the two
      others; None: `inner_activation_fn`.
    project_activation_fn: activation of the projection; None: none.
    depthwise_fn: function that adds the depthwise layer, with the arguments of
      `slim.separable_conv2d`.
    expansion_fn: function of a tensor, a number of channels, `scope` and
      `normalizer_fn` that adds the expansion. `split_expansion` and
      `split_divisible_by` apply to `split_conv` only.
    projection_fn: function of the same and `activation_fn` that adds the
      projection. `split_projection` and `split_divisible_by` apply to
      `split_conv` only.
    scope: name of the scope; None: 'expanded_conv' with a number.

  Returns:
    `[batch, height / stride, width / stride, num_outputs]`.

  Raises:
    TypeError: `depthwise_location` is unknown, or `use_explicit_padding` is
      combined with a padding other than 'SAME'.
  """
  if depthwise_location not in _LOCATIONS:
    raise TypeError('depthwise_location must be one of %s, got %r' %
                    (_LOCATIONS, depthwise_location))
  if use_explicit_padding and padding != 'SAME':
    raise TypeError("use_explicit_padding needs padding 'SAME', got "
                    '%r' % padding)
  endpoints = {} if endpoints is None else endpoints
  depthwise = functools.partial(
      _depthwise, depthwise_fn, endpoints, kernel_size=kernel_size,
      depth_multiplier=depthwise_channel_multiplier, stride=stride, rate=rate,
      normalizer_fn=normalizer_fn,
      padding=None if use_explicit_padding else padding)
  with tf.variable_scope(scope, default_name='expanded_conv') as opened, \
      tf.name_scope(opened.original_name_scope), \
      _activation_scope(slim.conv2d, inner_activation_fn), \
      _activation_scope(slim.separable_conv2d,
                        depthwise_activation_fn or inner_activation_fn):
    net = input_tensor = tf.identity(input_tensor, 'input')
    if depthwise_location == 'input':
      net = depthwise(net, activation_fn=None)
    num_inputs = input_tensor.get_shape().as_list()[_CHANNELS]
    if callable(expansion_size):
      expansion_size = expansion_size(num_inputs=num_inputs)
    if expansion_size > net.get_shape().as_list()[_CHANNELS]:
      expand = _split(expansion_fn, split_expansion, split_divisible_by)
      net = expand(net, expansion_size, scope='expand',
                   normalizer_fn=normalizer_fn)
      net = tf.identity(net, 'expansion_output')
    endpoints['expansion_output'] = net
    if depthwise_location == 'expansion':
      net = depthwise(net)
    if expansion_transform:
      net = expansion_transform(expansion_tensor=net, input_tensor=input_tensor)
    project = _split(projection_fn, split_projection, split_divisible_by)
    net = project(net, num_outputs, scope='project',
                  normalizer_fn=normalizer_fn,
                  activation_fn=project_activation_fn)
    endpoints['projection_output'] = net
    if depthwise_location == 'output':
      net = depthwise(net, activation_fn=None)
    net = _add_residual(input_tensor, net, residual, stride)
    return tf.identity(net, name='output')


def _activation_scope(function, activation_fn):
  """Returns an arg scope with an activation; None: with the caller's."""
  given = {} if activation_fn is None else {'activation_fn': activation_fn}
  return slim.arg_scope([function], **given)


def _split(function, num_ways, divisible_by):
  """Returns `function`; `split_conv` with its numbers of groups."""
  if function is not split_conv:
    return function
  return functools.partial(split_conv, num_ways=num_ways,
                           divisible_by=divisible_by, stride=1)


def _depthwise(function, endpoints, net, kernel_size, rate, padding, **kwargs):
  """Adds the depthwise layer; `padding` None: as `fixed_padding` does."""
  if padding is None:
    net = fixed_padding(net, kernel_size, rate)
  net = function(net, num_outputs=None, kernel_size=kernel_size, rate=rate,
                 padding=padding or 'VALID', scope='depthwise', **kwargs)
  net = tf.identity(net, name='depthwise_output')
  endpoints['depthwise_output'] = net
  return net


def _add_residual(input_tensor, net, residual, stride):
  """Adds the input of a bottleneck to its output, if requested and possible."""
  if callable(residual):
    return residual(input_tensor=input_tensor, output_tensor=net)
  # Decided by the stride and not by the sizes, which may be unknown.
  fits = stride == 1 and (net.get_shape().as_list()[_CHANNELS] ==
                          input_tensor.get_shape().as_list()[_CHANNELS])
  return net + input_tensor if residual and fits else net


def fused_conv(input_tensor: tf.Tensor, num_outputs: int,
               kernel_size: Sequence[int] = (3, 3), stride: int = 1,
               rate: int = 1, use_explicit_padding: bool = False,
               **kwargs: Any) -> tf.Tensor:
  """Adds an `expanded_conv` with one full convolution: expand, project.

  The expansion has the kernel, in place of a depthwise layer. If there is no
  expansion (see `expanded_conv`), only the projection is left.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    num_outputs: output channels.
    kernel_size: `(height, width)` of the expansion.
    stride: stride of the expansion.
    rate: dilation of the expansion.
    use_explicit_padding: whether to pad as `fixed_padding` does.
    **kwargs: as for `expanded_conv`.

  Returns:
    `[batch, height / stride, width / stride, num_outputs]`.
  """
  def expand(net, num_channels, **layer):
    if use_explicit_padding:
      net = fixed_padding(net, kernel_size, rate)
    return slim.conv2d(net, num_channels, kernel_size, stride=stride, rate=rate,
                       padding='VALID' if use_explicit_padding else 'SAME',
                       **layer)

  return expanded_conv(input_tensor, num_outputs, stride=stride,
                       depthwise_location=None, expansion_fn=expand, **kwargs)


@slim.add_arg_scope
def squeeze_excite(input_tensor: tf.Tensor, divisible_by: int = 8,
                   squeeze_factor: float = 3,
                   inner_activation_fn: Activation = tf.nn.relu,
                   gating_fn: Activation = tf.sigmoid,
                   squeeze_input_tensor: Optional[tf.Tensor] = None,
                   pool: Optional[int] = None) -> tf.Tensor:
  """Multiplies each channel by a factor that is computed from all channels.

  Squeeze-and-excitation (arXiv:1709.01507): the mean of each channel, a 1 x 1
  convolution to few channels, and one back to a factor per channel.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    divisible_by: divisor of the number of channels in between.
    squeeze_factor: channels of the tensor that is read, per channel in between.
    inner_activation_fn: activation of the first convolution.
    gating_fn: activation of the second one.
    squeeze_input_tensor: tensor from which the factors are computed; None:
      `input_tensor`.
    pool: size of the parts whose means are used, in place of the mean over all
      positions; the factors are then enlarged, bilinearly. A tensor that is
      smaller is one part. None: one mean.

  Returns:
    A tensor of the shape of `input_tensor`.

  Raises:
    ValueError: `pool` is given, and height or width is unknown.
  """
  if squeeze_input_tensor is None:
    squeeze_input_tensor = input_tensor
  num_inputs = squeeze_input_tensor.get_shape().as_list()[_CHANNELS]
  num_outputs = input_tensor.get_shape().as_list()[_CHANNELS]
  convolve = functools.partial(slim.conv2d, kernel_size=[1, 1],
                               normalizer_fn=None)
  with tf.variable_scope('squeeze_excite'):
    factors = _pool_parts(squeeze_input_tensor, pool)
    factors = convolve(factors, make_divisible(num_inputs / squeeze_factor,
                                               divisible_by),
                       activation_fn=inner_activation_fn)
    factors = convolve(factors, num_outputs, activation_fn=gating_fn)
    if pool is not None:
      factors = tf.image.resize_bilinear(
          factors, input_tensor.get_shape().as_list()[1:3], align_corners=True)
    return input_tensor * factors


def _pool_parts(net, pool):
  """Returns the means of `pool` x `pool` positions; None: of all."""
  if pool is None:
    return tf.reduce_mean(net, [1, 2], keepdims=True)
  size = net.get_shape().as_list()[1:3]
  if None in size:
    raise InputError('pool needs a tensor of known height and width, got the '
                     'shape %s' % net.get_shape())
  stride = 1
  if min(size) >= pool:
    size, stride = [pool, pool], pool
  return tf.nn.avg_pool(net, [1, *size, 1], [1, stride, stride, 1], 'VALID')
