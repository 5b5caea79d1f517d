"""Golden values of slim's networks, and the seeded weights of their logits.

The values are in data/nets. make_nets_facts.py computes them with slim's own
networks on TensorFlow 1.15.5, for 11 classes and a batch of 1.
"""

import json
import os
import zlib

import numpy as np

from compat import tf
from kits.helpers import ROOT

NUM_CLASSES = 11

FOLDER = os.path.join(ROOT, 'tests', 'data', 'nets')


def load(name):
  """Returns a network's facts: variables, end points, logits and more."""
  with open(os.path.join(FOLDER, name + '.json')) as file:
    return json.load(file)


def seeded_image(size, channels):
  """Returns the `[1, size, size, channels]` input of the reference logits."""
  rng = np.random.RandomState(7)
  return rng.uniform(-1, 1, (1, size, size, channels)).astype('float32')


def load_seeded_weights(session, variables):
  """Sets each variable to values that depend on its name and shape only."""
  values = {}
  for variable in variables:
    initial = variable.initializer.inputs[1]
    values[initial] = _seeded_weight(variable.op.name,
                                     variable.shape.as_list())
  session.run([variable.initializer for variable in variables], values)


def _seeded_weight(name, shape):
  rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xffffffff)
  kind = name.split('/')[-1]
  if kind == 'gamma':
    value = 1 + 0.1 * rng.randn(*shape)
  elif kind == 'moving_variance':
    value = abs(1 + 0.1 * rng.randn(*shape))
  elif kind in ('beta', 'biases', 'bias', 'moving_mean'):
    value = 0.1 * rng.randn(*shape)
  else:
    fan_in = shape[:2] if kind == 'depthwise_weights' else shape[:-1]
    value = rng.randn(*shape) * np.sqrt(2 / np.prod(fan_in))
  return np.float32(value)


def shapes(tensors):
  """Returns {name: shape as a list} of a dict of tensors."""
  return {name: tensor.shape.as_list() for name, tensor in tensors.items()}


def variable_shapes():
  """Returns {name: shape as a list} of the default graph's variables."""
  return shapes({v.op.name: v for v in tf.global_variables()})
