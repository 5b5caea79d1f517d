"""Cells of NASNet and PNASNet, and their operations.

A cell has hidden states: its input (0), the previous layer (1), and five sums
of two earlier states, each after an operation. The output is the concatenation
of the unused states. The papers draw a cell as a figure; here it is a Cell row,
which `NasNetABaseCell` builds.
"""

import re
from typing import (
  Callable,
  ClassVar,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
  Union,
)

from common.errors import InputError
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.network_types import Number, Scope

# Value of data_format if neither an argument nor an arg scope sets it.
INVALID = 'null'

DATA_FORMAT_NCHW = 'NCHW'
DATA_FORMAT_NHWC = 'NHWC'
_CHANNEL_AXIS = {DATA_FORMAT_NHWC: 3, DATA_FORMAT_NCHW: 1}
_FIRST_SPATIAL_AXIS = {DATA_FORMAT_NHWC: 1, DATA_FORMAT_NCHW: 2}

# With use_bounded_activation no layer's values leave [-6, 6], which fixed-point
# numbers then cover well.
CLIP_BY_VALUE_CAP = 6


class Combination(NamedTuple):
  """The sum of two operations on hidden states."""

  # Name of an operation, and index of the hidden state that it reads.
  left: str
  left_state: int
  right: str
  right_state: int


class Cell(NamedTuple):
  """A table of combinations; each makes one hidden state."""

  combinations: Tuple[Combination, ...]
  # The hidden states that are concatenated.
  output: Tuple[int, ...]


# NASNet's figure 4.
NASNET_A_NORMAL = Cell((
    Combination('separable_5x5_2', 0, 'separable_3x3_2', 1),
    Combination('separable_5x5_2', 1, 'separable_3x3_2', 1),
    Combination('avg_pool_3x3', 0, 'none', 1),
    Combination('avg_pool_3x3', 1, 'avg_pool_3x3', 1),
    Combination('separable_3x3_2', 0, 'none', 0),
), output=(1, 2, 3, 4, 5, 6))

NASNET_A_REDUCTION = Cell((
    Combination('separable_5x5_2', 0, 'separable_7x7_2', 1),
    Combination('max_pool_3x3', 0, 'separable_7x7_2', 1),
    Combination('avg_pool_3x3', 0, 'separable_5x5_2', 1),
    Combination('none', 3, 'avg_pool_3x3', 2),
    Combination('separable_3x3_2', 2, 'max_pool_3x3', 0),
), output=(3, 4, 5, 6))


def calc_reduction_layers(num_cells: int,
                          num_reduction_layers: int) -> List[int]:
  """Returns the indices of the cells before which, or in which, size halves.

  They divide the cells evenly: 18 cells and 2 reductions give [6, 12].
  """
  return [num_cells * number // (num_reduction_layers + 1)
          for number in range(1, num_reduction_layers + 1)]


@slim.add_arg_scope
def get_channel_index(data_format: str = INVALID) -> int:
  """Returns the axis of the channels.

  Args:
    data_format: 'NHWC' or 'NCHW'.

  Raises:
    ValueError: `data_format` is neither, or is not set by an arg scope.
  """
  if data_format not in _CHANNEL_AXIS:
    raise InputError("data_format must be 'NHWC' or 'NCHW', got %r" %
                     (data_format,))
  return _CHANNEL_AXIS[data_format]


@slim.add_arg_scope
def get_channel_dim(shape: Union[Sequence[int], tf.TensorShape],
                    data_format: str = INVALID) -> int:
  """Returns the number of channels.

  Args:
    shape: list or TensorShape of 4 dimensions.
    data_format: 'NHWC' or 'NCHW'.

  Raises:
    ValueError: as for `get_channel_index`, or `shape` does not have 4
      dimensions.
  """
  axis = get_channel_index(data_format=data_format)
  if len(shape) != 4:
    raise InputError('a shape of 4 dimensions is needed, got %s' % (shape,))
  return int(shape[axis])


@slim.add_arg_scope
def global_avg_pool(x: tf.Tensor, data_format: str = INVALID) -> tf.Tensor:
  """Averages over all positions: `[batch, channels]`.

  Args:
    x: float tensor of 4 dimensions.
    data_format: 'NHWC' or 'NCHW'.

  Raises:
    ValueError: as for `get_channel_index`, or `x` does not have 4 dimensions.
  """
  get_channel_index(data_format=data_format)
  if x.shape.ndims != 4:
    raise InputError('global_avg_pool needs 4 dimensions, got the shape %s' %
                     x.shape)
  first = _FIRST_SPATIAL_AXIS[data_format]
  return tf.reduce_mean(x, [first, first + 1])


@slim.add_arg_scope
def factorized_reduction(net: tf.Tensor, output_filters: int, stride: int,
                         data_format: str = INVALID) -> tf.Tensor:
  """Shrinks height and width with two shifted 1x1 convolutions.

  Each makes half of the channels: one from the pixels at multiples of `stride`,
  the other from those one row and one column further. So fewer pixels are
  skipped than by one convolution.

  Args:
    net: float tensor of 4 dimensions.
    output_filters: number of output channels.
    stride: factor by which height and width shrink. 1: one 1x1 convolution.
    data_format: 'NHWC' or 'NCHW'.

  Returns:
    A tensor of `output_filters` channels, batch normalised.

  Raises:
    ValueError: as for `get_channel_index`.
  """
  channel_axis = get_channel_index(data_format=data_format)
  layout = {'data_format': data_format}
  if stride == 1:
    net = slim.conv2d(net, output_filters, 1, scope='path_conv', **layout)
    return batch_norm(net, scope='path_bn', **layout)

  first = _FIRST_SPATIAL_AXIS[data_format]
  paddings = [[0, 0] for _ in range(4)]
  at_multiples, one_further = ([slice(None)] * 4 for _ in range(2))
  for axis in (first, first + 1):
    paddings[axis] = [0, 1]
    at_multiples[axis] = slice(0, None, stride)
    one_further[axis] = slice(1, None, stride)
  half = output_filters // 2
  path1 = slim.conv2d(net[tuple(at_multiples)], half, 1, scope='path1_conv',
                      **layout)
  path2 = slim.conv2d(tf.pad(net, paddings)[tuple(one_further)],
                      output_filters - half, 1, scope='path2_conv', **layout)
  return batch_norm(tf.concat([path1, path2], channel_axis),
                    scope='final_path_bn', **layout)


@slim.add_arg_scope
def drop_path(net: tf.Tensor, keep_prob: Number,
              is_training: bool = True) -> tf.Tensor:
  """Drops whole examples of a batch, and scales up the others.

  Args:
    net: `[batch, ?, ?, ?]` float tensor.
    keep_prob: fraction of examples to keep, in (0, 1]; a number or scalar
      tensor.
    is_training: whether anything is dropped.

  Returns:
    A tensor like `net`.
  """
  if not is_training:
    return net
  keep_prob = tf.cast(keep_prob, tf.float32)
  kept = tf.floor(keep_prob + tf.random_uniform([tf.shape(net)[0], 1, 1, 1]))
  return net * tf.cast(kept / keep_prob, net.dtype)


class _Separable(NamedTuple):
  """An operation of separable convolutions."""

  # Height and width.
  kernel: int
  # How many convolutions there are in sequence.
  layers: int


class _Pool(NamedTuple):
  """An operation that pools."""

  # Of slim.
  function: Callable
  # Height and width.
  kernel: int


_IDENTITY = 'none'


def _parse_operation(name):
  """Returns the operation with slim's name."""
  if name == _IDENTITY:
    return _IDENTITY
  separable = re.match(r'separable_(\d)x\1(?:_(\d+))?$', name)
  if separable:
    kernel, layers = separable.groups(default='1')
    return _Separable(int(kernel), int(layers))
  pool = re.match(r'(avg|max)_pool_(\d)x\2$', name)
  if pool:
    functions = {'avg': slim.avg_pool2d, 'max': slim.max_pool2d}
    return _Pool(functions[pool.group(1)], int(pool.group(2)))
  raise InputError(
      "unknown operation %r; known: 'none', 'separable_KxK_LAYERS', "
      "'avg_pool_KxK' and 'max_pool_KxK', as in 'separable_5x5_2'" % name)


class NasNetABaseCell:
  """A cell: called with a layer, it adds itself and returns its output.

  Args:
    num_conv_filters: channels of the operations at filter_scaling 1.
    operations: names of operations: left and right of each combination.
    used_hiddenstates: for each hidden state, whether it is omitted from the
      output.
    hiddenstate_indices: the hidden states that `operations` read.
    drop_path_keep_prob: fraction of paths that are kept at the end of training
      in the last cell; 1: no path is ever dropped.
    total_num_cells: number of cells of the network.
    total_training_steps: number of steps over which the rate of dropped paths
      increases.
    use_bounded_activation: whether all values are kept in [-6, 6].

  Raises:
    ValueError: an operation is unknown, or the lengths of the lists do not
      match.
  """

  def __init__(self, num_conv_filters: int, operations: Sequence[str],
               used_hiddenstates: Sequence[bool],
               hiddenstate_indices: Sequence[int], drop_path_keep_prob: float,
               total_num_cells: int, total_training_steps: int,
               use_bounded_activation: bool = False):
    combinations = len(operations) // 2
    if not (len(operations) == len(hiddenstate_indices) == 2 * combinations and
            len(used_hiddenstates) == 2 + combinations):
      raise InputError(
          'a cell of N combinations has 2 N operations, 2 N '
          'hiddenstate_indices and 2 + N used_hiddenstates, got %d, %d and %d' %
          (len(operations), len(hiddenstate_indices), len(used_hiddenstates)))
    self._num_conv_filters = num_conv_filters
    self._paths = [(_parse_operation(operation), state)
                   for operation, state in zip(operations, hiddenstate_indices)]
    self._used_hiddenstates = used_hiddenstates
    self._drop_path_keep_prob = drop_path_keep_prob
    self._total_num_cells = total_num_cells
    self._total_training_steps = total_training_steps
    self._bounded = use_bounded_activation
    self._activation = tf.nn.relu6 if use_bounded_activation else tf.nn.relu

  def __call__(self, net: tf.Tensor, scope: Optional[Scope] = None,
               filter_scaling: float = 1, stride: int = 1,
               prev_layer: Optional[tf.Tensor] = None, cell_num: int = -1,
               current_step: Optional[Number] = None,
               prev_stride: Optional[int] = None) -> tf.Tensor:
    """Adds the cell.

    Args:
      net: the cell's input, a float tensor of 4 dimensions.
      scope: name of the cell's variable scope.
      filter_scaling: factor of the channels.
      stride: factor by which height and width shrink.
      prev_layer: the previous layer; None: `net` is used for it.
      cell_num: index of the cell in the network; needed if paths are dropped.
      current_step: step of the training, a number or a scalar tensor; None: the
        global step.
      prev_stride: factor by which `prev_layer` is higher and wider than `net`;
        None: 2 if their widths differ. Both must be known then.

    Returns:
      The output; its channels are those of all unused states.

    Raises:
      ValueError: paths are dropped and `cell_num` is not given, or a width is
        needed and unknown.
    """
    num_filters = int(self._num_conv_filters * filter_scaling)
    keep_prob = self._keep_prob(cell_num, current_step)
    with tf.variable_scope(scope):
      prev_layer = self._previous(prev_layer, prev_stride, net, num_filters)
      net = slim.conv2d(self._activation(net), num_filters, 1, scope='1x1')
      states = [batch_norm(net, scope='beginning_bn'), prev_layer]
      for number in range(len(self._paths) // 2):
        with tf.variable_scope('comb_iter_%d' % number):
          sides = []
          for side, (operation, state) in zip(
              ('left', 'right'), self._paths[2 * number:2 * number + 2]):
            # Only the inputs still have their full size.
            step = stride if state < 2 else 1
            with tf.variable_scope(side):
              sides.append(self._apply(operation, states[state], num_filters,
                                       step, keep_prob))
          with tf.variable_scope('combine'):
            total = sides[0] + sides[1]
            states.append(tf.nn.relu6(total) if self._bounded else total)
      with tf.variable_scope('cell_output'):
        return self._output(states, num_filters, stride)

  def _previous(self, prev_layer, prev_stride, net, num_filters):
    """Returns the previous layer with the size and channels of the input."""
    if prev_layer is None:
      return net
    if prev_stride is None:
      widths = [layer.shape.as_list()[2] for layer in (net, prev_layer)]
      if None in widths:
        raise InputError('a cell needs prev_stride if the width of its input '
                         'or of the previous layer is unknown')
      prev_stride = 1 if widths[0] == widths[1] else 2
    if prev_stride != 1:
      return factorized_reduction(self._activation(prev_layer), num_filters,
                                  prev_stride)
    if get_channel_dim(prev_layer.shape) != num_filters:
      prev_layer = slim.conv2d(self._activation(prev_layer), num_filters, 1,
                               scope='prev_1x1')
      prev_layer = batch_norm(prev_layer, scope='prev_bn')
    return prev_layer

  def _apply(self, operation, net, num_filters, stride, keep_prob):
    """Adds one operation."""
    fits = get_channel_dim(net.shape) == num_filters
    if operation == _IDENTITY:
      if stride == 1 and fits:
        return self._activation(net) if self._bounded else net
      return self._clip(_project(self._activation(net), num_filters, stride))
    if isinstance(operation, _Separable):
      for layer in range(1, operation.layers + 1):
        suffix = '%dx%d_%d' % (operation.kernel, operation.kernel, layer)
        net = slim.separable_conv2d(
            self._activation(net), num_filters, operation.kernel,
            depth_multiplier=1, stride=stride, scope='separable_' + suffix)
        net = batch_norm(net, scope='bn_sep_' + suffix)
        stride = 1
    else:
      net = self._activation(net) if self._bounded else net
      net = operation.function(net, operation.kernel, stride=stride,
                               padding='SAME')
      net = net if fits else _project(net, num_filters, 1)
    net = self._clip(net)
    return net if keep_prob is None else drop_path(net, keep_prob)

  def _clip(self, net):
    cap = CLIP_BY_VALUE_CAP
    return tf.clip_by_value(net, -cap, cap) if self._bounded else net

  def _output(self, states, num_filters, stride):
    """Concatenates the unused states, after reducing them to one size."""
    unused = []
    for index, state in enumerate(states):
      if self._used_hiddenstates[index]:
        continue
      step = stride if index < 2 else 1
      if step != 1 or get_channel_dim(state.shape) != num_filters:
        with tf.variable_scope('reduction_%d' % index):
          state = factorized_reduction(state, num_filters, step)
      unused.append(state)
    return tf.concat(unused, get_channel_index())

  def _keep_prob(self, cell_num, current_step):
    """Returns the fraction of paths to keep, or None if all are kept.

    It decreases with the depth of the cell and with the steps of the training.
    """
    if self._drop_path_keep_prob >= 1.0:
      return None
    if cell_num < 0:
      raise InputError('a cell that drops paths needs cell_num, its index in '
                       'the network, got %d' % cell_num)
    depth = (cell_num + 1) / self._total_num_cells
    if current_step is None:
      current_step = global_step()
    progress = tf.minimum(
        1.0, tf.cast(current_step, tf.float32) / self._total_training_steps)
    return 1 - progress * depth * (1 - self._drop_path_keep_prob)


def _project(net, num_filters, stride):
  return batch_norm(slim.conv2d(net, num_filters, 1, stride=stride,
                                scope='1x1'), scope='bn_1')


def global_step() -> tf.Variable:
  """Returns the global step, and creates it if there is none."""
  step = tf.train.get_global_step()
  if step is None:
    # Outside of all scopes: cell_0/global_step would not be found.
    with tf.variable_scope(tf.VariableScope(reuse=False),
                           auxiliary_name_scope=False):
      step = tf.train.create_global_step()
  return step


class TableCell(NasNetABaseCell):
  """A cell described by a Cell row, the class attribute `cell`."""

  cell: ClassVar[Cell]

  def __init__(self, num_conv_filters: int, drop_path_keep_prob: float,
               total_num_cells: int, total_training_steps: int,
               use_bounded_activation: bool = False):
    rows = self.cell.combinations
    super().__init__(
        num_conv_filters,
        [name for row in rows for name in (row.left, row.right)],
        [state not in self.cell.output for state in range(2 + len(rows))],
        [state for row in rows for state in (row.left_state, row.right_state)],
        drop_path_keep_prob, total_num_cells, total_training_steps,
        use_bounded_activation)


class NasNetANormalCell(TableCell):
  """The cell of NASNet-A that keeps height and width."""

  cell = NASNET_A_NORMAL


class NasNetAReductionCell(TableCell):
  """The cell of NASNet-A that halves height and width."""

  cell = NASNET_A_REDUCTION
