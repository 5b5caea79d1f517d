"""Types of the arguments and results of networks, and their image size.

  @image_size(224)
  def network(images: tf.Tensor, scope: Optional[Scope] = None
              ) -> NetworkOutput:
"""

from typing import Any, Callable, Dict, Sequence, Tuple, TypeVar, Union

from compat import tf

# {name: output of a layer}.
EndPoints = Dict[str, tf.Tensor]

# Logits, or features, or the output of the last layer; and the end points.
NetworkOutput = Tuple[tf.Tensor, EndPoints]

# For slim.arg_scope: {key of a layer function: {argument: value}}.
ArgScope = Dict[str, Dict[str, Any]]

# Name or object of a variable scope.
Scope = Union[str, tf.VariableScope]

# Name or names of collections of the graph.
Collections = Union[str, Sequence[str]]

# A number or a scalar tensor.
Number = Union[float, tf.Tensor]

# Function from a tensor to a tensor of the same shape, such as tf.nn.relu.
Activation = Callable[..., tf.Tensor]

# Function from logits to probabilities that accepts `scope`.
PredictionFn = Callable[..., tf.Tensor]

_Function = TypeVar('_Function', bound=Callable)


def image_size(pixels: int) -> Callable[[_Function], _Function]:
  """Returns a decorator that sets `default_image_size` of a network's function.

  Args:
    pixels: default height and width of the images.
  """
  def set_size(function: _Function) -> _Function:
    # mypy knows only the attributes that all functions have.
    function.default_image_size = pixels  # type: ignore[attr-defined]
    return function
  return set_size
