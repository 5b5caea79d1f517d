"""Settings of a NASNet: named values that users may change.

  config = nasnet.cifar_config()
  config.set_hparam('num_cells', 6)
  logits, end_points = nasnet.build_nasnet_cifar(images, 10, config=config)

slim's functions return HParams of contrib, which TensorFlow 2 no longer has.
This class has the methods that programs use.
"""

from typing import TYPE_CHECKING, Any, Dict, Mapping

from common.errors import InputError, unknown_name


class HParams:
  """Named values, read and set as attributes; `set_hparam` checks them."""

  if TYPE_CHECKING:
    def __getattr__(self, name: str) -> Any:
      """Tells mypy that a value, of any type, is an attribute."""

  def __init__(self, **values: Any):
    self._types = {name: type(value) for name, value in values.items()}
    self.__dict__.update(values)

  def __contains__(self, name):
    return name in self._types

  def get(self, name: str, default: Any = None) -> Any:
    """Returns the value of `name`, or `default` if there is none."""
    return getattr(self, name) if name in self else default

  def values(self) -> Dict[str, Any]:
    """Returns all values: {name: value}."""
    return {name: getattr(self, name) for name in self._types}

  def set_hparam(self, name: str, value: Any) -> None:
    """Sets one value.

    Args:
      name: one of the names in `values()`.
      value: value of the current value's type; an int is accepted for a float.

    Raises:
      ValueError: the name is unknown, or the value has another type.
    """
    if name not in self:
      raise unknown_name('hyperparameter', name, self._types)
    expected = self._types[name]
    accepted = (int, float) if expected is float else (expected,)
    # In Python True is an int, but it is not a number of cells.
    if not isinstance(value, accepted) or (isinstance(value, bool) !=
                                           (expected is bool)):
      raise InputError('the hyperparameter %s must be of type %s, got %r' %
                       (name, expected.__name__, value))
    setattr(self, name, expected(value))

  def add_hparam(self, name: str, value: Any) -> None:
    """Adds a value; later values must have the same type.

    Args:
      name: a new name.
      value: a number, text or boolean.

    Raises:
      ValueError: the name exists already.
    """
    if name in self or hasattr(self, name):
      raise InputError('the hyperparameter %r exists already' % name)
    self._types[name] = type(value)
    setattr(self, name, value)

  def parse(self, text: str) -> 'HParams':
    """Sets values from text, such as the value of a flag.

    Args:
      text: 'name=value,name=value'; booleans are true or false.

    Returns:
      The settings themselves.

    Raises:
      ValueError: the text has another form, a name is unknown, or a value is
        not of the current value's type.
    """
    for part in filter(None, text.split(',')):
      name, sign, value = (piece.strip() for piece in part.partition('='))
      if not sign:
        raise InputError('hyperparameters are given as name=value,name=value, '
                         'got %r' % part)
      if name not in self:
        raise unknown_name('hyperparameter', name, self._types)
      self.set_hparam(name, self._from_text(name, value))
    return self

  def _from_text(self, name, text):
    kind = self._types[name]
    try:
      if kind is bool:
        return {'true': True, '1': True, 'false': False,
                '0': False}[text.lower()]
      return kind(text)
    except (KeyError, ValueError):
      raise InputError('the hyperparameter %s must be of type %s, got %r' %
                       (name, kind.__name__, text))

  def override_from_dict(self, values: Mapping[str, Any]) -> 'HParams':
    """Sets several values.

    Args:
      values: {name: value}, as for `set_hparam`.

    Returns:
      The settings themselves.

    Raises:
      ValueError: a name is unknown, or a value has another type.
    """
    for name, value in values.items():
      self.set_hparam(name, value)
    return self


def network_config(num_cells: int, num_conv_filters: int,
                   stem_multiplier: float, drop_path_keep_prob: float,
                   dense_dropout_keep_prob: float,
                   skip_reduction_layer_input: int,
                   total_training_steps: int = 250000) -> HParams:
  """Returns the settings of a network, including those common to all.

  Args:
    num_cells: number of normal cells.
    num_conv_filters: channels of a cell's operations before any reduction.
    stem_multiplier: factor of the channels of the first convolution.
    drop_path_keep_prob: fraction of paths that are kept at the end of training
      in the last cell.
    dense_dropout_keep_prob: fraction of features that dropout keeps.
    skip_reduction_layer_input: 1 or 0: whether the cell after a reduction also
      reads the layer before the reduction's input, instead of that input. In
      PNASNet: whether reductions read two layers back, as all other cells do,
      instead of three.
    total_training_steps: number of steps over which the rate of dropped paths
      increases.
  """
  return HParams(
      num_cells=num_cells,
      num_conv_filters=num_conv_filters,
      stem_multiplier=stem_multiplier,
      drop_path_keep_prob=drop_path_keep_prob,
      dense_dropout_keep_prob=dense_dropout_keep_prob,
      skip_reduction_layer_input=skip_reduction_layer_input,
      total_training_steps=total_training_steps,
      filter_scaling_rate=2.0,
      num_reduction_layers=2,
      use_aux_head=1,
      data_format='NHWC',
      use_bounded_activation=False)
