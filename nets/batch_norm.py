"""Batch normalisation that a training run can freeze layer by layer.

Every network here normalises with `batch_norm`. By default it is the same as
`slim.batch_norm`. A training run that fine-tunes part of a network wraps the
call of the network:

  with slim.arg_scope([batch_norm], trainable_scopes=['InceptionV4/Logits']):
    logits, end_points = network_fn(images)

Without this, layers with frozen weights would still normalise with the
statistics of the batch and update the published moving averages: the network
that is evaluated would then not be the one that was trained.
"""

import re
from typing import Any, Optional, Sequence

from compat import slim, tf


@slim.add_arg_scope
def batch_norm(inputs: tf.Tensor,
               trainable_scopes: Optional[Sequence[str]] = None,
               decay_override: Optional[float] = None,
               **kwargs: Any) -> tf.Tensor:
  """Normalises like `slim.batch_norm`, but frozen outside `trainable_scopes`.

  Arg scopes of `slim.batch_norm` still apply: `is_training` comes from the
  network as usual, unless the layer is frozen.

  Args:
    inputs: `[batch, ..., channels]` float tensor.
    trainable_scopes: regular expressions, matched from the start of the names
      of the layer's beta and gamma. A layer that none of them matches runs in
      inference mode: moving statistics, no update ops. None: no layer is
      frozen.
    decay_override: decay of the moving averages; None: the decay set by the
      network.
    **kwargs: as for `slim.batch_norm`.

  Returns:
    A tensor of the shape and type of `inputs`.

  Raises:
    ValueError: `trainable_scopes` is a string and not a list of strings.
  """
  if decay_override is not None:
    kwargs['decay'] = decay_override
  if trainable_scopes is not None:
    if isinstance(trainable_scopes, str):
      raise ValueError('trainable_scopes must be a list of regular '
                       'expressions, got the string %r' % trainable_scopes)
    if not _is_trainable(trainable_scopes, kwargs.get('scope')):
      kwargs['is_training'] = False
  return slim.batch_norm(inputs, **kwargs)


def _is_trainable(trainable_scopes, scope):
  """Returns whether a pattern matches a trainable variable of the layer."""
  # slim opens `scope` below the current scope, or re-enters a scope object.
  if isinstance(scope, tf.VariableScope):
    prefix = scope.name
  else:
    parts = (tf.get_variable_scope().name, scope or 'BatchNorm')
    prefix = '/'.join(part for part in parts if part)
  names = ['%s/%s:0' % (prefix, variable) for variable in ('beta', 'gamma')]
  return any(re.match(pattern, name)
             for pattern in trainable_scopes for name in names)
