"""Builds MobileNets from a table of layers; shared by all versions.

A network is a dict, such as mobilenet_v2.V2_DEF. Callers copy and change it:

  conv_defs = dict(
      defaults={(slim.conv2d,): {'activation_fn': tf.nn.relu6}},
      spec=[op(slim.conv2d, num_outputs=32, kernel_size=[3, 3], stride=2),
            op(expanded_conv, num_outputs=16)])
  logits, end_points = mobilenet(images, num_classes=10, conv_defs=conv_defs)

- 'spec': the layers, made by `op`, one after the other.
- 'defaults': {functions: {argument: value}}, arg scopes for all layers.
- 'overrides': the same; they are applied after the defaults.
"""

import contextlib
import functools
from typing import (
  Any,
  Callable,
  ContextManager,
  Dict,
  Iterable,
  Iterator,
  Mapping,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
  Union,
)

from common.errors import InputError, unknown_name
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.mobilenet import conv_blocks
from nets.mobilenet.conv_blocks import fixed_padding, make_divisible
from nets.network_types import (
  Activation,
  ArgScope,
  NetworkOutput,
  PredictionFn,
  Scope,
)

# A network: the dict described above.
ConvDefs = Dict[str, Any]

# The names that slim's own modules use.
_fixed_padding = fixed_padding
_make_divisible = make_divisible

# These have their own argument for explicit padding.
_PADDING_BLOCKS = (conv_blocks.expanded_conv, conv_blocks.fused_conv,
                   conv_blocks.split_separable_conv2d)


class _Op(NamedTuple):
  """A layer of a network's specification."""

  # Function from a tensor to a tensor.
  op: Callable
  # Its arguments.
  params: Dict[str, Any]
  # Scales the widths in a copy of `params`.
  multiplier_func: Callable


class NoOpScope:
  """A scope that does nothing."""

  def __enter__(self) -> None:
    return None

  def __exit__(self, exc_type, exc_value, traceback):
    return False


def safe_arg_scope(funcs: Sequence[Callable],
                   **kwargs: Any) -> ContextManager[Optional[ArgScope]]:
  """Returns `slim.arg_scope` of those arguments that are not None.

  Args:
    funcs: functions with these arguments.
    **kwargs: the arguments.

  Returns:
    An arg scope; if all arguments are None, one that does nothing.
  """
  given = {name: value for name, value in kwargs.items() if value is not None}
  return slim.arg_scope(funcs, **given) if given else NoOpScope()


@contextlib.contextmanager
def set_arg_scope_defaults(
    defaults: Union[Mapping[Tuple[Callable, ...], Dict[str, Any]],
                    Iterable[Tuple[Sequence[Callable], Dict[str, Any]]]]
) -> Iterator[None]:
  """Enters several arg scopes in order.

  Args:
    defaults: {functions: {argument: value}}, or a list of such pairs.

  Yields:
    Nothing.
  """
  items = defaults.items() if hasattr(defaults, 'items') else defaults
  with contextlib.ExitStack() as stack:
    for functions, arguments in items:
      stack.enter_context(slim.arg_scope(functions, **arguments))
    yield


_set_arg_scope_defaults = set_arg_scope_defaults


def apply_activation(x: tf.Tensor, name: Optional[str] = None,
                     activation_fn: Optional[Activation] = None) -> tf.Tensor:
  """Returns `activation_fn(x, name=name)`, or `x` without an activation_fn."""
  return activation_fn(x, name=name) if activation_fn else x


@slim.add_arg_scope
def depth_multiplier(output_params: Dict[str, Any], multiplier: float,
                     divisible_by: int = 8, min_depth: int = 8,
                     **unused_kwargs: Any) -> None:
  """Scales `num_outputs` in the arguments of a layer, if it is one of them.

  Args:
    output_params: dict of the layer's arguments, changed in place.
    multiplier: factor of the channels.
    divisible_by: divisor of the number of channels.
    min_depth: minimum number of channels.
    **unused_kwargs: for functions that replace this one.
  """
  if 'num_outputs' in output_params:
    output_params['num_outputs'] = make_divisible(
        output_params['num_outputs'] * multiplier, divisible_by, min_depth)


def op(opfunc: Callable, multiplier_func: Callable = depth_multiplier,
       **params: Any) -> _Op:
  """Returns one layer of a 'spec'.

  Args:
    opfunc: function that builds the layer, such as `slim.conv2d`.
    multiplier_func: function of `(params, multiplier)` that scales the widths
      in the dict `params`; slim also has it as `multiplier_transform`.
    **params: arguments of `opfunc`.
  """
  multiplier_func = params.pop('multiplier_transform', multiplier_func)
  return _Op(opfunc, params, multiplier_func)


@contextlib.contextmanager
def _scope_all(scope, default_scope=None):
  """Opens a variable scope; reuses its first name scope if re-entered."""
  with tf.variable_scope(scope, default_name=default_scope) as opened:
    with tf.name_scope(opened.original_name_scope):
      yield opened


@slim.add_arg_scope
def mobilenet_base(inputs: tf.Tensor, conv_defs: ConvDefs,
                   multiplier: float = 1.0,
                   final_endpoint: Optional[str] = None,
                   output_stride: Optional[int] = None,
                   use_explicit_padding: bool = False,
                   scope: Optional[Scope] = None,
                   is_training: Optional[bool] = False) -> NetworkOutput:
  """Builds the layers of a MobileNet, without pooling and classifier.

  Args:
    inputs: `[batch, height, width, channels]` float32 in [-1, 1].
    conv_defs: the network as a dict, see the top of this module.
    multiplier: factor of the channels of all layers, above 0.
    final_endpoint: name of the last layer to build, layer_<number from 1>;
      None: all are built.
    output_stride: 1 or a multiple of 2: largest factor by which height and
      width shrink; later layers are dilated instead. None: no limit.
    use_explicit_padding: whether to pad the same way at all sizes and convolve
      without padding ('VALID'), as other frameworks do.
    scope: name or object of the variable scope; None: 'Mobilenet'.
    is_training: whether batch statistics are used; None: not set here.

  Returns:
    The output of the last layer, and a dict of end points: each layer's output
    as layer_<number>, and each operation in the layer's scope whose name ends
    with 'output' as layer_<number>/<name>.

  Raises:
    ValueError: `multiplier` is not above 0, `output_stride` or
      `final_endpoint` is not one of the above, or `conv_defs` has no spec.
  """
  if multiplier <= 0:
    raise InputError('multiplier must be above 0, got %r' % multiplier)
  if output_stride is not None and output_stride != 1 and (
      output_stride < 1 or output_stride % 2):
    raise InputError('output_stride must be 1, a multiple of 2 or None, got %r'
                     % output_stride)
  if not conv_defs.get('spec'):
    raise InputError("conv_defs must have layers in 'spec', got the keys %s" %
                     sorted(conv_defs))
  names = ['layer_%d' % (i + 1) for i in range(len(conv_defs['spec']))]
  if final_endpoint is not None and final_endpoint not in names:
    raise unknown_name('final_endpoint', final_endpoint, names)
  overrides = dict(conv_defs.get('overrides', {}))
  if use_explicit_padding:
    overrides[(slim.conv2d, slim.separable_conv2d)] = {'padding': 'VALID'}

  end_points = {}
  name_scopes = {}
  net = inputs
  with _scope_all(scope, 'Mobilenet'), \
      safe_arg_scope([slim.batch_norm], is_training=is_training), \
      set_arg_scope_defaults(conv_defs.get('defaults', {})), \
      set_arg_scope_defaults(overrides):
    layers = _layers(conv_defs['spec'], multiplier, output_stride)
    for name, layer in zip(names, layers):
      net = _add_layer(net, layer, name, use_explicit_padding)
      end_points[name] = net
      name_scopes[_parent(net.op)] = name
      if name == final_endpoint:
        break
  for operation in net.graph.get_operations():
    layer = name_scopes.get(_parent(operation))
    if layer and operation.name.endswith('output'):
      key = '%s/%s' % (layer, operation.name.rpartition('/')[2])
      end_points[key] = operation.outputs[0]
  return net, end_points


def _parent(operation):
  """Returns the name scope of an operation."""
  return operation.name.rpartition('/')[0]


def _layers(spec, multiplier, output_stride):
  """Yields the layers of `spec` as they are built, with widths scaled.

  Once `output_stride` is reached, strides become 1, and the dilation (`rate`)
  of later layers, except those of 1 x 1, is multiplied by them instead.
  """
  current_stride, rate = 1, 1
  for row in spec:
    params = dict(row.params)
    row.multiplier_func(params, multiplier)
    stride = params.get('stride', 1)
    layer_rate = 1
    if current_stride == output_stride:
      layer_rate = rate
      rate *= stride
      stride = 1
    current_stride *= stride
    params['stride'] = stride
    if layer_rate > 1 and tuple(params.get('kernel_size', ())) != (1, 1):
      params['rate'] = layer_rate
    yield row._replace(params=params)


def _add_layer(net, layer, name, use_explicit_padding):
  """Adds one layer of a spec to `net`."""
  params = dict(layer.params)
  if use_explicit_padding:
    if 'kernel_size' in params and layer.op not in _PADDING_BLOCKS:
      net = fixed_padding(net, params['kernel_size'], params.get('rate', 1))
    else:
      params['use_explicit_padding'] = True
  try:
    return layer.op(net, **params)
  except (TypeError, ValueError):
    tf.logging.error('cannot build %s of conv_defs: %r with %s', name,
                     layer.op, params)
    raise


@slim.add_arg_scope
def mobilenet(inputs: tf.Tensor, num_classes: Optional[int] = 1001,
              prediction_fn: Optional[PredictionFn] = slim.softmax,
              reuse: Optional[bool] = None,
              scope: Optional[Scope] = 'Mobilenet', base_only: bool = False,
              use_reduce_mean_for_pooling: bool = False,
              **mobilenet_args: Any) -> NetworkOutput:
  """Builds a MobileNet.

  Args:
    inputs: `[batch, height, width, channels]` float32 in [-1, 1].
    num_classes: number of classes; 0 or None: no classifier is built.
    prediction_fn: function from logits and a scope to the end point
      'Predictions'; None: no such end point.
    reuse: whether to reuse the variables of an earlier network.
    scope: name of the variable scope.
    base_only: whether neither pooling nor classifier is built.
    use_reduce_mean_for_pooling: as for `global_pool`.
    **mobilenet_args: as for `mobilenet_base`, passed on to it. `is_training`
      applies to dropout too.

  Returns:
    Logits `[batch, num_classes]`; without classes the pooled features `[batch,
    1, 1, channels]`; with `base_only` the output of the last layer; and a dict
    of end points.

  Raises:
    ValueError: `inputs` does not have 4 dimensions, or as for `mobilenet_base`.
  """
  shape = inputs.get_shape()
  if shape.ndims != 4:
    raise InputError('inputs of a MobileNet must be [batch, height, width, '
                     'channels], got the shape %s' % shape)
  is_training = mobilenet_args.get('is_training', False)
  with tf.variable_scope(scope, 'Mobilenet', reuse=reuse) as opened:
    inputs = tf.identity(inputs, 'input')
    net, end_points = mobilenet_base(inputs, scope=opened, **mobilenet_args)
    if base_only:
      return net, end_points
    net = tf.identity(net, name='embedding')
    with tf.variable_scope('Logits'):
      net = global_pool(net, use_reduce_mean_for_pooling)
      end_points['global_pool'] = net
      if not num_classes:
        return net, end_points
      with safe_arg_scope([slim.dropout], is_training=is_training):
        net = slim.dropout(net, scope='Dropout')
      # The scope keeps its number from MobileNet V1.
      net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None,
                        normalizer_fn=None,
                        biases_initializer=tf.zeros_initializer(),
                        scope='Conv2d_1c_1x1')
      logits = tf.identity(tf.squeeze(net, [1, 2]), name='output')
    end_points['Logits'] = logits
    if prediction_fn:
      end_points['Predictions'] = prediction_fn(logits, 'Predictions')
  return logits, end_points


# Pooling ops, which need a size that is known when the graph is built, and what
# replaces them otherwise. avg_pool2d is TensorFlow 2's name of avg_pool.
_REDUCTIONS = {tf.nn.avg_pool: tf.reduce_mean, tf.nn.avg_pool2d: tf.reduce_mean,
               tf.nn.max_pool: tf.reduce_max}


def global_pool(input_tensor: tf.Tensor,
                use_reduce_mean_for_pooling: bool = False,
                pool_op: Callable[..., tf.Tensor] = tf.nn.avg_pool
                ) -> tf.Tensor:
  """Pools over all positions.

  Args:
    input_tensor: `[batch, height, width, channels]` float tensor.
    use_reduce_mean_for_pooling: whether to use `tf.reduce_mean` in place of
      `pool_op`, in an operation 'ReduceMean'.
    pool_op: `tf.nn.avg_pool`, `tf.nn.max_pool` or, if height and width are
      known, any function with the same arguments.

  Returns:
    `[batch, 1, 1, channels]`.

  Raises:
    ValueError: height or width is unknown and `pool_op` is another function.
  """
  if use_reduce_mean_for_pooling:
    return tf.reduce_mean(input_tensor, [1, 2], keepdims=True,
                          name='ReduceMean')
  height, width = input_tensor.get_shape().as_list()[1:3]
  if height is not None and width is not None:
    return pool_op(input_tensor, ksize=[1, height, width, 1],
                   strides=[1, 1, 1, 1], padding='VALID')
  if pool_op in _REDUCTIONS:
    return _REDUCTIONS[pool_op](input_tensor, [1, 2], keepdims=True)
  raise InputError('pool_op must be tf.nn.avg_pool or tf.nn.max_pool if '
                   'height or width is unknown, got %r' % pool_op)


def training_scope(is_training: Optional[bool] = True,
                   weight_decay: float = 0.00004, stddev: float = 0.09,
                   dropout_keep_prob: float = 0.8,
                   bn_decay: float = 0.997) -> ArgScope:
  """Returns the arg scope for training a MobileNet.

    with slim.arg_scope(training_scope()):
      logits, end_points = mobilenet_v2.mobilenet(images)

  Args:
    is_training: whether batch statistics are used and dropout is active, unless
      set by an argument of the network's function; None: not set here.
    weight_decay: factor of the L2 loss of the weights, except depthwise ones.
    stddev: standard deviation of the initial weights; below 0: Xavier's.
    dropout_keep_prob: fraction of features that dropout keeps.
    bn_decay: decay of the moving averages.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  if stddev < 0:
    initializer = slim.initializers.xavier_initializer()
  else:
    initializer = tf.truncated_normal_initializer(stddev=stddev)
  with slim.arg_scope(
      [slim.conv2d, slim.fully_connected, slim.separable_conv2d],
      weights_initializer=initializer, normalizer_fn=batch_norm), \
      slim.arg_scope([mobilenet_base, mobilenet], is_training=is_training), \
      safe_arg_scope([slim.batch_norm], decay=bn_decay,
                     is_training=is_training), \
      safe_arg_scope([slim.dropout], keep_prob=dropout_keep_prob,
                     is_training=is_training), \
      slim.arg_scope([slim.conv2d],
                     weights_regularizer=slim.l2_regularizer(weight_decay)), \
      slim.arg_scope([slim.separable_conv2d],
                     weights_regularizer=None) as scope:
    return scope


def wrapped_partial(func: Callable, *args: Any, **kwargs: Any) -> Callable:
  """Returns `functools.partial` with the attributes of `func`."""
  return functools.update_wrapper(functools.partial(func, *args, **kwargs),
                                  func)
