"""Where a network's frozen part ends, found in its graph.

When only the last layers are trained, all that lies before them is a function
of the photo: computed once, it can be kept. The cut is the set of the last
tensors that are such a function.

  cut = frozen_trunk.find_cut(images, [loss], trained_variables)
  features = session.run(cut.features, {images: photos})
  session.run(train_op, cut.feed(features))  # The trunk does not run.
"""

from collections import namedtuple

import numpy as np

from compat import tf
from errors import InputError

# What an operation's output is a function of.
_FIXED = 'fixed'    # Constants and variables that are not trained.
_SHAPE = 'shape'    # The shape of a batch of photos: so, of its size.
_TRUNK = 'trunk'    # The photos, each row of its own photo alone.
_HEAD = 'head'      # What is trained, random, or mixes the photos of a batch.

_SHAPE_OPS = ('Shape', 'ShapeN', 'Size', 'Rank')
_VARIABLE_OPS = ('VariableV2', 'Variable', 'VarHandleOp')
# Reads of resource variables are stateful in name only.
_READ_OPS = ('ReadVariableOp', 'ResourceGather')
_BATCH_NORM_OPS = ('FusedBatchNorm', 'FusedBatchNormV2', 'FusedBatchNormV3')


class Cut(namedtuple('Cut', 'features shapes')):
  """The end of a frozen trunk.

  features: list of tensors `[None, ...]`, by name; a row depends on the photo
    of the same row only.
  shapes: list of `Shape` outputs that the head reads beside them.
  """

  def feed(self, values):
    """Returns the feed that runs the head alone.

    Args:
      values: list of arrays, one a tensor of `features`, of equal length.
    """
    feed = dict(zip(self.features, values))
    for tensor in self.shapes:
      rest = tensor.op.inputs[0].shape.as_list()[1:]
      feed[tensor] = np.array([len(values[0])] + rest,
                              tensor.dtype.as_numpy_dtype)
    return feed


def find_cut(images, outputs, trained_variables, within=None):
  """Returns the last tensors that depend on nothing but each photo.

  They depend on no trained variable, no random operation and no statistics of
  the batch (a batch norm in training mode ends the trunk).

  Args:
    images: the placeholder of the network's input, `[None, height, width,
      channels]`. Its batch size must be unknown: that is how a tensor with a
      row for each photo is told from others.
    outputs: tensors that the training needs, as the losses.
    trained_variables: variables that training changes.
    within: names of the operations that may be of the trunk: those that
      another graph of the network has as well. None: all.

  Returns:
    A Cut.

  Raises:
    InputError: the first layers are trained, so there is no trunk; or the
      batch size of `images` is known.
  """
  if images.shape.ndims is None or images.shape.dims[0].value is not None:
    raise InputError('the batch size of the images must be unknown, got the '
                     'shape %s' % images.shape)
  order = ancestors(outputs)
  kinds = _kinds(images, order, {v.op for v in trained_variables}, within)
  features, shapes = {}, {}
  for op in order:
    if kinds[op] == _HEAD:
      for tensor in op.inputs:
        for source in _sources(tensor, kinds):
          found = shapes if kinds[source.op] == _SHAPE else features
          found[source.name] = source
  _check_features(images, features, order, kinds)
  return Cut([features[name] for name in sorted(features)],
             [shapes[name] for name in sorted(shapes)])


def _check_features(images, features, order, kinds):
  if not features:
    raise InputError('what is trained does not depend on %s' % images.name)
  if images.name in features:
    first = [op.name for op in order
             if kinds[op] == _HEAD and images in list(op.inputs)]
    raise InputError(
        'no layer comes before what is trained, random or normalised by the '
        'batch: %s reads the photos' % ', '.join(sorted(first)[:3]))


def ancestors(outputs, stop=()):
  """Returns the operations that some tensors need.

  Args:
    outputs: list of tensors.
    stop: operations whose results are given: what they need is left out.

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


def _kinds(images, order, trained, within):
  """Returns {operation: what its outputs are a function of}."""
  kinds = {}
  for op in order:
    if op is images.op:
      kinds[op] = _TRUNK
    elif op.type in _VARIABLE_OPS:
      kinds[op] = _HEAD if op in trained else _FIXED
    else:
      inputs = {kinds[tensor.op] for tensor in op.inputs}
      # In a loop of the graph an operation comes before its control input.
      if _HEAD in {kinds.get(before) for before in op.control_inputs}:
        inputs.add(_HEAD)
      kinds[op] = _kind(op, inputs)
      if kinds[op] == _TRUNK and within is not None and op.name not in within:
        kinds[op] = _HEAD
  return kinds


def _kind(op, inputs):
  """Returns what an operation is a function of, given that of its inputs."""
  if _HEAD in inputs or _may_vary(op):
    return _HEAD
  if _TRUNK in inputs:
    if op.type in _SHAPE_OPS:
      return _SHAPE
    return _HEAD if _mixes_photos(op) else _TRUNK
  return _SHAPE if _SHAPE in inputs else _FIXED


def _may_vary(op):
  """Whether an operation may give another result each time."""
  if op.type == 'Placeholder':
    return True
  return (op.op_def is not None and op.op_def.is_stateful and
          op.type not in _READ_OPS)


def _mixes_photos(op):
  """Whether an operation's first output has not one row for each photo."""
  if op.type in _BATCH_NORM_OPS and op.get_attr('is_training'):
    return True
  shape = op.outputs[0].shape if op.outputs else tf.TensorShape([])
  return not shape.ndims or shape.dims[0].value is not None


def _sources(tensor, kinds):
  """Yields the tensors to feed where the head reads `tensor`."""
  kind = kinds[tensor.op]
  if kind == _TRUNK:
    yield tensor
  elif kind == _SHAPE:
    before = list(tensor.op.inputs)
    if tensor.op.type == 'Shape' and before[0].shape[1:].is_fully_defined():
      yield tensor
    else:
      for source in before:
        yield from _sources(source, kinds)
