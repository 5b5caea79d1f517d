"""Heat maps: the regions of a photo that raise the score of a class.

A map is computed from the network's last feature maps that still have a height
and a width, by Grad-CAM: each feature map is weighted by the mean of its
gradient of the class's logit, and the positive part of their sum is the heat
map. Only the layers after these maps are differentiated. Where they are a mean
and one linear layer (Inception, ResNet, MobileNet, NASNet), the gradient is the
layer's weights, and the heat map is the positive part of the class activation
map, divided by the number of places. A head over several layers has maps of
each of them (layer_maps.py).

Class activation maps: B. Zhou et al., arXiv 1512.04150. Grad-CAM: R. R.
Selvaraju et al., arXiv 1610.02391.
"""

import threading
from typing import Any, Callable, List, Optional

import numpy as np

from common.errors import InputError
from compat import tf
from nets import frozen_backbone, layers_head
from runtime import forward_pass, subgraph
from serving.model import (
  graph_files,
  graph_info,
  layer_maps,
  staged_graph,
)

# Their outputs have fewer places than what they pool.
_POOLING = ('MaxPool', 'AvgPool')

_NO_MAPS = ('no heat maps: the graph has no feature maps with a height and a '
            'width')


def is_possible(info: graph_info.GraphInfo) -> bool:
  """Returns whether the nodes that heat maps need are known."""
  return bool(info.logits and info.features)


class HeatMaps:
  """Computes heat maps with a frozen graph; safe to use from several threads.

  The graph's own outputs are computed elsewhere (staged_graph.py): this has a
  second copy of its weights, which is loaded when it is first needed.
  """

  def __init__(self, read: Callable[[], tf.GraphDef],
               info: graph_info.GraphInfo,
               options: forward_pass.Options = forward_pass.DEFAULT) -> None:
    """Stores where the graph is from.

    Args:
      read: function that returns the frozen GraphDef; called once.
      info: GraphInfo of it.
      options: forward_pass.Options of the layers before the feature maps.
    """
    self._read: Optional[Callable[[], tf.GraphDef]] = read
    self._info = info
    self._options = options._replace(overlaps=False)
    self._layers: List[layer_maps.Layer] = []
    self._lock = threading.Lock()

  def load(self) -> None:
    """Loads the graph, if that has not been done.

    Raises:
      InputError: the graph cannot be read again, or has no feature maps from
        which its logits are computed, or they are not known.
    """
    with self._lock:
      if self._read is not None:
        self._load(self._read())
        self._read = None  # Frees the graph that it may hold.

  def _load(self, graph_def):
    info = self._info
    if not is_possible(info):
      raise InputError('no heat maps: the graph does not name its features; '
                       './export_freeze.sh writes one that does')
    graph = _import(graph_def)
    logits = staged_graph.find_tensor(graph, info.logits)
    images = staged_graph.find_images(graph, info, [logits], logits)
    self._batch_size = images.shape.as_list()[0] or 1
    # Imported again: the shapes after the images are not in the graph.
    graph = _import(subgraph.extract(graph_def, [images], [logits]))
    if info.features == layers_head.FEATURES + ':0':
      maps = graph.get_tensor_by_name(info.features)
      self._layers = layer_maps.find(maps)
      if not self._layers:
        raise InputError(_NO_MAPS)
    else:
      maps = _find_maps(graph, images, logits)
    self._forward = forward_pass.load(
        graph_def, [images], [maps] + [graph.get_tensor_by_name(layer.maps)
                                       for layer in self._layers],
        self._options, info.precision)
    graph = _import(subgraph.extract(graph_def, [maps], [logits]))
    with graph.as_default():
      self._maps = maps.name
      self._index = tf.placeholder(tf.int32, [], name='class_index')
      inputs = [graph.get_tensor_by_name(maps.name),
                graph.get_tensor_by_name(logits.name), self._index]
      self._heat = (_gradient if self._layers else _grad_cam)(*inputs)
    graph.finalize()
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    self._session = tf.Session(graph=graph, config=config)

  def compute(self, image: np.ndarray, index: int) -> np.ndarray:
    """Returns the heat map of a class.

    Args:
      image: `[image_size, image_size, channels]` float32, preprocessed.
      index: of the class.

    Returns:
      `[height, width]` float32 in [0, 1], relative to its maximum; zeros if no
      region raises the score of the class.

    Raises:
      InputError: as for `load`.
    """
    self.load()
    maps, *others = self._forward(
        np.repeat(image[np.newaxis], self._batch_size, 0))
    heat = self._session.run(self._heat, {self._maps: maps,
                                          self._index: index})[0]
    if self._layers:
      heat = layer_maps.combine(self._layers, [array[0] for array in others],
                                heat)
    highest = heat.max()
    return heat / highest if highest > 0 else heat

  def close(self) -> None:
    """Frees the graph."""
    with self._lock:
      if self._read is None:
        self._session.close()
        self._forward.close()


def _import(graph_def):
  """Returns a graph with the nodes of a GraphDef."""
  with tf.Graph().as_default() as graph:
    graph_files.import_into_default(graph_def)
  return graph


def _find_maps(graph: tf.Graph, images: tf.Tensor,
               logits: tf.Tensor) -> tf.Tensor:
  """Returns the last feature maps, the only input of the layers after them.

  Raises:
    InputError: there are none.
  """
  images = graph.get_tensor_by_name(images.name)
  logits = graph.get_tensor_by_name(logits.name)
  for op in reversed(frozen_backbone.ancestors([logits], {images.op})):
    for tensor in op.outputs[:1]:
      shape = tensor.shape.as_list() if tensor.shape.ndims == 4 else [None] * 4
      if (op.type not in _POOLING and (shape[1] or 0) > 1 and
          (shape[2] or 0) > 1 and
          images.op in frozen_backbone.ancestors([tensor]) and
          images.op not in frozen_backbone.ancestors([logits], {op})):
        return tensor
  raise InputError(_NO_MAPS)


def _gradient(inputs, logits, index):
  """Returns the gradient of the logits of one class: the shape of inputs."""
  return tf.gradients(logits[:, index], inputs)[0]


def _grad_cam(maps: tf.Tensor, logits: tf.Tensor, index: Any) -> tf.Tensor:
  """Returns the heat map of one class for each photo of a batch.

  Args:
    maps: `[batch, height, width, n]` float32.
    logits: `[batch, classes]` float32, computed from the maps.
    index: scalar int32 tensor, of the class.

  Returns:
    `[batch, height, width]` float32, at least 0.
  """
  gradient, = tf.gradients(logits[:, index], maps)
  weights = tf.reduce_mean(gradient, [1, 2], keepdims=True)
  return tf.nn.relu(tf.reduce_sum(weights * maps, 3))
