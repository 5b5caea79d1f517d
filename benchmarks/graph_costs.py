"""Counts the parameters and operations of a network from its graph."""

import numpy as np

from compat import tf


def count(output):
  """Counts the parameters and multiply-adds needed for one output.

  Heads that the output does not need, such as auxiliary heads, are not counted.

  Args:
    output: tensor of a graph for photos of a known size; the batch size does
      not matter.

  Returns:
    Number of trainable parameters; multiply-adds of the convolutions and matrix
    products for one photo.
  """
  operations = _needed(output.op)
  parameters = sum(variable.shape.num_elements()
                   for variable in tf.trainable_variables()
                   if variable.op in operations)
  return parameters, sum(map(_multiply_adds, operations))


def _needed(operation):
  found, todo = set(), [operation]
  while todo:
    operation = todo.pop()
    if operation not in found:
      found.add(operation)
      todo += [tensor.op for tensor in operation.inputs]
  return found


def _multiply_adds(operation):
  if operation.type == 'MatMul':
    return int(np.prod(operation.inputs[1].shape.as_list()))
  if operation.type in ('Conv2D', 'DepthwiseConv2dNative'):
    _, height, width, channels = operation.outputs[0].shape.as_list()
    kernel = operation.inputs[1].shape.as_list()
    # A depthwise filter reads one channel for each output channel.
    inputs = kernel[2] if operation.type == 'Conv2D' else 1
    return height * width * channels * kernel[0] * kernel[1] * inputs
  return 0
