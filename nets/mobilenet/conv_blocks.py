"""Building blocks of the MobileNets.

  net = expanded_conv(net, num_outputs=24, stride=2)

builds the bottleneck of MobileNet V2 (arXiv:1801.04381, table 1 and figure 4):
a 1 x 1 convolution that expands the channels, a depthwise one, and a 1 x 1
convolution that projects to few channels, with the input added if the shapes
match. Activation and batch norm are set by the arg scope.
"""

import contextlib
import functools
from typing import Any, Callable, Optional, Sequence, Union

from common.errors import InputError
from compat import slim, tf
from nets.network_types import EndPoints, Scope

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
    split_expansion: int = 1,
    expansion_transform: Optional[Callable[..., tf.Tensor]] = None,
    depthwise_location: Optional[str] = 'expansion',
    depthwise_channel_multiplier: int = 1,
    endpoints: Optional[EndPoints] = None, use_explicit_padding: bool = False,
    padding: str = 'SAME', scope: Optional[Scope] = None) -> tf.Tensor:
  """Adds the bottleneck of MobileNet V2: expand, depthwise, project.

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
      _depthwise, endpoints=endpoints, kernel_size=kernel_size,
      depth_multiplier=depthwise_channel_multiplier, stride=stride, rate=rate,
      normalizer_fn=normalizer_fn,
      padding=None if use_explicit_padding else padding)
  pointwise = functools.partial(split_conv, stride=1,
                                normalizer_fn=normalizer_fn)
  with tf.variable_scope(scope, default_name='expanded_conv') as opened:
    with tf.name_scope(opened.original_name_scope):
      net = input_tensor = tf.identity(input_tensor, 'input')
      if depthwise_location == 'input':
        net = depthwise(net, activation_fn=None)
      num_inputs = input_tensor.get_shape().as_list()[_CHANNELS]
      if callable(expansion_size):
        expansion_size = expansion_size(num_inputs=num_inputs)
      if expansion_size > net.get_shape().as_list()[_CHANNELS]:
        net = pointwise(net, expansion_size, split_expansion, 'expand')
        net = tf.identity(net, 'expansion_output')
      endpoints['expansion_output'] = net
      if depthwise_location == 'expansion':
        net = depthwise(net)
      if expansion_transform:
        net = expansion_transform(expansion_tensor=net,
                                  input_tensor=input_tensor)
      net = pointwise(net, num_outputs, split_projection, 'project',
                      activation_fn=tf.identity)
      endpoints['projection_output'] = net
      if depthwise_location == 'output':
        net = depthwise(net, activation_fn=None)
      net = _add_residual(input_tensor, net, residual, stride)
      return tf.identity(net, name='output')


def _depthwise(net, endpoints, kernel_size, rate, padding, **kwargs):
  """Adds the depthwise layer; `padding` None: as `fixed_padding` does."""
  if padding is None:
    net = fixed_padding(net, kernel_size, rate)
  net = slim.separable_conv2d(net, None, kernel_size, rate=rate,
                              padding=padding or 'VALID', scope='depthwise',
                              **kwargs)
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
