"""Finds where the frozen backbone of a network ends in its graph.

If only the last layers are trained, the outputs of the layers before them are
functions of the photo: they can be computed once and cached. The cut is the set
of the last tensors that depend on the photo alone.

  cut = frozen_backbone.find_cut(images, [loss], trained_variables)
  features = session.run(cut.features, {images: photos})
  session.run(train_op, cut.feed(features))  # The backbone does not run.
"""

from typing import (
  Container,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
  Sequence,
)

import numpy as np

from common.errors import InputError
from compat import tf

# What an operation's output depends on.
_FIXED = 'fixed'    # Only constants and variables that are not trained.
_SHAPE = 'shape'    # The shape of a batch of photos, and so the batch size.
_BACKBONE = 'backbone'    # The photos; each row depends on its own photo alone.
_HEAD = 'head'      # Trained variables, random values, or the whole batch.

_SHAPE_OPS = ('Shape', 'ShapeN', 'Size', 'Rank')
_VARIABLE_OPS = ('VariableV2', 'Variable', 'VarHandleOp')
# Reads of resource variables are marked as stateful, but always repeatable.
_READ_OPS = ('ReadVariableOp', 'ResourceGather')
_BATCH_NORM_OPS = ('FusedBatchNorm', 'FusedBatchNormV2', 'FusedBatchNormV3')


class Cut(NamedTuple):
  """The end of a frozen backbone."""

  # `[None, ...]`, sorted by name; each row depends only on the photo of the
  # same row.
  features: List[tf.Tensor]
  # `Shape` outputs that the head also reads.
  shapes: List[tf.Tensor]

  def feed(self, values: Sequence[np.ndarray]) -> Dict[tf.Tensor, np.ndarray]:
    """Returns a feed dict that runs only the head.

    Args:
      values: list of arrays, one per tensor of `features`, of equal length.
    """
    feed = dict(zip(self.features, values))
    for tensor in self.shapes:
      rest = tensor.op.inputs[0].shape.as_list()[1:]
      feed[tensor] = np.array([len(values[0])] + rest,
                              tensor.dtype.as_numpy_dtype)
    return feed


def find_cut(images: tf.Tensor, outputs: Sequence[tf.Tensor],
             trained_variables: Iterable[tf.Variable],
             within: Optional[Container[str]] = None,
             ends: Container[str] = ()) -> Cut:
  """Returns the last tensors whose rows depend on one photo alone.

  They do not depend on trained variables, random operations or statistics of
  the batch (a batch norm in training mode ends the backbone).

  Args:
    images: the placeholder of the network's input, `[None, height, width,
      channels]`. Its batch size must be unknown: a tensor with one row per
      photo is recognized by its unknown first dimension.
    outputs: tensors that training needs, such as the losses.
    trained_variables: variables that training changes.
    within: names of the operations that may belong to the backbone: those that
      another graph of the network also has. None: all.
    ends: names of operations after which nothing belongs to the backbone.

  Returns:
    A Cut.

  Raises:
    InputError: the first layers are trained, so there is no frozen backbone; or
      the batch size of `images` is known.
  """
  if images.shape.ndims is None or images.shape.dims[0].value is not None:
    raise InputError('the batch size of the images must be unknown, got the '
                     'shape %s' % images.shape)
  order = ancestors(outputs)
  kinds = _kinds(images, order, {v.op for v in trained_variables}, within, ends)
  features: Dict[str, tf.Tensor] = {}
  shapes: Dict[str, tf.Tensor] = {}
  for op in order:
    if kinds[op] == _HEAD:
      for tensor in op.inputs:
        for source in _sources(tensor, kinds):
          tensors = shapes if kinds[source.op] == _SHAPE else features
          tensors[source.name] = source
  _check_features(images, features, order, kinds)
  return Cut([features[name] for name in sorted(features)],
             [shapes[name] for name in sorted(shapes)])


def _check_features(images, features, order, kinds):
  if not features:
    raise InputError('the trained layers do not depend on %s' % images.name)
  if images.name in features:
    first = [op.name for op in order
             if kinds[op] == _HEAD and images in list(op.inputs)]
    raise InputError(
        'no layer comes before those that are trained, random or normalised '
        'by the batch: %s reads the photos' % ', '.join(sorted(first)[:3]))


def ancestors(outputs: Iterable[tf.Tensor],
              stop: Iterable[tf.Operation] = ()) -> List[tf.Operation]:
  """Returns the operations that some tensors depend on.

  Args:
    outputs: list of tensors.
    stop: operations whose results are given: they and their inputs are omitted.

  Returns:
    List of operations, each after its inputs.
  """
  order, seen = [], set(stop)
  stack = [(tensor.op, False) for tensor in outputs]
  while stack:
    op, ready = stack.pop()
    if ready:
      order.append(op)
    elif op not in seen:
      seen.add(op)
      stack.append((op, True))
      stack.extend((before, False) for before in
                   [tensor.op for tensor in op.inputs] + op.control_inputs)
  return order


def _kinds(images, order, trained, within, ends):
  """Returns {operation: what its outputs depend on}."""
  kinds = {}
  for op in order:
    if op is images.op:
      kinds[op] = _BACKBONE
    elif op.type in _VARIABLE_OPS:
      kinds[op] = _HEAD if op in trained else _FIXED
    else:
      inputs = {kinds[tensor.op] for tensor in op.inputs}
      # In a while loop an operation may come before its control input.
      if _HEAD in {kinds.get(before) for before in op.control_inputs}:
        inputs.add(_HEAD)
      kinds[op] = _kind(op, inputs)
      if kinds[op] == _BACKBONE and (
          within is not None and op.name not in within or
          any(tensor.op.name in ends for tensor in op.inputs)):
        kinds[op] = _HEAD
  return kinds


def _kind(op, inputs):
  """Returns what an operation depends on, given the kinds of its inputs."""
  if _HEAD in inputs or _may_vary(op):
    return _HEAD
  if _BACKBONE in inputs:
    if op.type in _SHAPE_OPS:
      return _SHAPE
    return _HEAD if _mixes_photos(op) else _BACKBONE
  return _SHAPE if _SHAPE in inputs else _FIXED


def _may_vary(op):
  """Returns whether an operation may give a different result each time."""
  if op.type == 'Placeholder':
    return True
  return (op.op_def is not None and op.op_def.is_stateful and
          op.type not in _READ_OPS)


def _mixes_photos(op):
  """Returns whether an operation's first output lacks one row per photo."""
  if op.type in _BATCH_NORM_OPS and op.get_attr('is_training'):
    return True
  shape = op.outputs[0].shape if op.outputs else tf.TensorShape([])
  return not shape.ndims or shape.dims[0].value is not None


def _sources(tensor, kinds):
  """Yields the tensors to feed if the head reads `tensor`."""
  kind = kinds[tensor.op]
  if kind == _BACKBONE:
    yield tensor
  elif kind == _SHAPE:
    before = list(tensor.op.inputs)
    if tensor.op.type == 'Shape' and before[0].shape[1:].is_fully_defined():
      yield tensor
    else:
      for source in before:
        yield from _sources(source, kinds)
