"""Heat maps of a head over several layers (nets/layers_head.py).

Its features are means of feature maps. The gradient of a logit by the features
weights the maps of each layer; their sum, in the size of the largest map, is
the part that each region has in the logit.
"""

from typing import List, NamedTuple, Sequence

import numpy as np
from PIL import Image

from compat import tf

# Operations between maps and their means, which keep the channels.
_POOLING = ('Mean', 'AvgPool', 'Identity', 'Squeeze', 'Reshape')


class Layer(NamedTuple):
  """One layer that the features have means of."""

  # Name of the tensor `[batch, height, width, channels]`.
  maps: str
  # Its columns in the features.
  columns: slice
  # Whether its input is the mirror image of the photo.
  is_mirrored: bool


def find(features: tf.Tensor) -> List[Layer]:
  """Returns the layers with a height and a width that features are means of.

  Args:
    features: tensor layers_head.FEATURES of a frozen graph with known shapes.
  """
  layers = []
  for view, concat in enumerate(_concatenations(features.op)):
    start = 0
    for tensor in concat.inputs[:-1]:  # The last one is the axis.
      end = start + tensor.shape.as_list()[-1]
      maps = _maps_of(tensor)
      if maps is not None:
        layers.append(Layer(maps.name, slice(start, end), view > 0))
      start = end
  return layers


def _concatenations(op):
  """Returns those of the photo and, if they are averaged, its mirror image."""
  if op.type == 'ConcatV2':
    return [op]
  return [found for tensor in op.inputs for found in _concatenations(tensor.op)]


def _maps_of(tensor):
  """Returns the maps that a mean is of, None if the layer has none."""
  while not _has_places(tensor):
    if tensor.op.type not in _POOLING:
      return None
    tensor = tensor.op.inputs[0]
  return tensor


def _has_places(tensor):
  shape = tensor.shape.as_list()
  return len(shape) == 4 and (shape[1] or 0) > 1 and (shape[2] or 0) > 1


def combine(layers: Sequence[Layer], maps: Sequence[np.ndarray],
            gradient: np.ndarray) -> np.ndarray:
  """Returns the heat map: `[height, width]` float32, at least 0.

  Args:
    layers: list of Layer.
    maps: the maps of each layer, `[height, width, channels]`.
    gradient: `[n]`, of the logit by the features.
  """
  height, width = (max(array.shape[axis] for array in maps) for axis in (0, 1))
  heat = np.zeros([height, width], np.float32)
  for layer, array in zip(layers, maps):
    part = (array @ gradient[layer.columns]).astype(np.float32)
    if layer.is_mirrored:
      part = part[:, ::-1]
    heat += np.asarray(Image.fromarray(part).resize(
        (width, height), Image.Resampling.BILINEAR))
  return np.maximum(heat, 0)
