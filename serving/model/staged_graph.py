"""A frozen graph of a classifier, run in three stages.

The photos become images, the images features, and the features scores. The
runtime of a StagedGraph computes the second stage, which takes nearly all the
time. TensorFlow computes the others, always with float32.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from common.errors import InputError
from compat import tf
from nets import frozen_backbone
from runtime import forward_pass, subgraph
from serving.model import graph_files, graph_info, inference_graph

# Runs TensorFlow in the thread that calls it: its own threads would wait
# actively for more work, on the cores that the forward pass then needs.
_IN_THIS_THREAD = tf.RunOptions(inter_op_thread_pool=-1)


class StagedGraph:
  """The stages of one graph; safe to use from several threads.

  Attributes:
    choice: forward_pass.Choice of the second stage.
    batch_size: the only batch size that the graph accepts; None: any.
    num_scores: number of scores; None: it is undefined in the graph.
  """

  def __init__(self, graph_def: tf.GraphDef, info: graph_info.GraphInfo,
               outputs: Mapping[str, str], scores: str,
               options: forward_pass.Options = forward_pass.DEFAULT) -> None:
    """Loads a frozen graph.

    Args:
      graph_def: frozen GraphDef.
      info: GraphInfo of it.
      outputs: {name: tensor} of the outputs to compute.
      scores: name of the output with the scores.
      options: forward_pass.Options of the second stage.

    Raises:
      InputError: the graph cannot be loaded, lacks a tensor that its info
        names, or cannot be run as the options demand.
    """
    graph = tf.Graph()
    with graph.as_default():
      graph_files.import_into_default(graph_def)
    results = {name: find_tensor(graph, tensor)
               for name, tensor in outputs.items()}
    images = find_images(graph, info, list(results.values()), results[scores])
    self.batch_size = _first_dimension(images)
    features = _features(graph, info, images, list(results.values()))
    last = list(results.values()) if features is None else [features]
    self._names = list(results)
    self.num_scores = last_dimension(results[scores])
    self._forward = forward_pass.load(graph_def, [images], last, options,
                                      info.precision)
    self.choice = self._forward.choice
    self._features = None if features is None else features.name
    self._outputs = [tensor.name for tensor in results.values()]
    kept = [find_tensor(graph, name) for name in (
        info.bank_filenames, info.bank_labels) if name]
    if features is not None:
      kept += results.values()
    self._session = self._make_session(graph_def, info, images, features, kept)

  def _make_session(self, graph_def, info, images, features, kept):
    """Returns the session of the first and the last stage.

    Args:
      graph_def: frozen GraphDef.
      info: GraphInfo of it.
      images: tensor of the images.
      features: tensor of the features; None: there is no last stage.
      kept: list of the tensors of the last stage, and of constants.
    """
    # A graph with a fixed batch size would decode as many photos at a time.
    decodes = info.input_kind == 'encoded' and not self.batch_size
    if decodes:
      kept = kept + [images]
    with tf.Graph().as_default() as graph:
      if kept:
        tf.import_graph_def(subgraph.extract(
            graph_def, [] if features is None else [features], kept), name='')
      self._encoded, self._images = info.input, images.name
      if not decodes:
        photos = tf.placeholder(tf.string, [None], name='encoded_photos')
        self._encoded = photos.name
        self._images = inference_graph.photos_to_images(
            photos, info.preprocessing_name, info.image_size,
            info.channels).name
    graph.finalize()
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    return tf.Session(graph=graph, config=config)

  def images_of(self, encoded: Sequence[bytes]) -> np.ndarray:
    """Returns `[n, image_size, image_size, channels]` float32.

    Args:
      encoded: list of JPEG or PNG files.

    Raises:
      tf.errors.InvalidArgumentError: TensorFlow cannot decode one of them.
    """
    return self._session.run(self._images, {self._encoded: list(encoded)},
                             options=_IN_THIS_THREAD)

  def outputs_of(self, images: np.ndarray) -> Dict[str, np.ndarray]:
    """Returns {name: `[n, ...]` array} of the outputs.

    Args:
      images: `[n, image_size, image_size, channels]` float32.
    """
    missing = (self.batch_size or len(images)) - len(images)
    if missing:
      images = np.concatenate([images, np.repeat(images[-1:], missing, 0)])
    values = self._forward(images)
    if self._features is not None:
      values = self._session.run(self._outputs, {self._features: values[0]},
                                 options=_IN_THIS_THREAD)
    return dict(zip(self._names, values))

  def constants(self, names: Sequence[str]) -> List[Any]:
    """Returns the values of constants of the graph."""
    return self._session.run(list(names))

  def close(self) -> None:
    """Frees the graph."""
    self._session.close()
    self._forward.close()


def find_images(graph: tf.Graph, info: graph_info.GraphInfo,
                outputs: Sequence[tf.Tensor], scores: tf.Tensor) -> tf.Tensor:
  """Returns the tensor of preprocessed images, with its static shape.

  Args:
    graph: graph with the nodes of a frozen graph.
    info: GraphInfo of it.
    outputs: tensors that depend on the images.
    scores: tensor with the batch size of the graph in its shape, if it is
      fixed.

  Raises:
    InputError: there is none.
  """
  encoded = find_tensor(graph, info.input)
  batch_size = _first_dimension(encoded) or _first_dimension(scores)
  images = encoded
  if info.input_kind == 'encoded':
    images = _decoded_images(encoded, outputs, info)
  # The shape of decoded photos is not in the graph.
  images.set_shape([batch_size, info.image_size, info.image_size,
                    info.channels])
  return images


def _decoded_images(encoded, outputs, info):
  """Returns the tensor of preprocessed images in a graph of encoded photos.

  Raises:
    InputError: there is none.
  """
  shape = [info.image_size, info.image_size, info.channels]
  order = frozen_backbone.ancestors(outputs)
  # Photos are decoded in a loop, which has tensors of unknown shape.
  loop = set(frozen_backbone.ancestors(
      [op.outputs[0] for op in order if op.type == 'NextIteration']))
  for op in order:
    if op in loop or op.type == 'Exit':
      continue
    for tensor in op.outputs[:1]:
      if (tensor.dtype == tf.float32 and tensor.shape.ndims in (None, 4) and
          tensor.shape.is_compatible_with([None] + shape) and
          encoded.op in frozen_backbone.ancestors([tensor]) and
          encoded.op not in frozen_backbone.ancestors(outputs, {op})):
        return tensor
  raise InputError('the graph has no tensor of %d x %d x %d images between '
                   'its input and its scores' % tuple(shape))


def _features(graph, info, images, outputs) -> Optional[Any]:
  """Returns the features if all outputs are functions of them, else None."""
  if not info.features:
    return None
  tensor = find_tensor(graph, info.features)
  if images.op in frozen_backbone.ancestors(outputs, {tensor.op}):
    return None
  return tensor


def find_tensor(graph: tf.Graph, name: str) -> tf.Tensor:
  """Returns a tensor of a graph; InputError if it does not exist."""
  try:
    return graph.get_tensor_by_name(name)
  except KeyError:
    raise InputError('the graph has no tensor %s, but its classifier/info '
                     'names it' % name)


def _first_dimension(tensor):
  """Returns a tensor's static batch size, None if it is undefined."""
  return tensor.shape.as_list()[0] if tensor.shape.ndims else None


def last_dimension(tensor: tf.Tensor) -> Optional[int]:
  """Returns a tensor's static number of columns, None if it is undefined."""
  return tensor.shape.as_list()[-1] if tensor.shape.ndims else None
