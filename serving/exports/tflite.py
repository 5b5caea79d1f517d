"""Converts a network to TensorFlow Lite, and compares it with the graph.

  model = tflite.convert(graph_def)
  found = tflite.compare(graph_def, model, dataset)

The model takes one preprocessed image, `[1, size, size, channels]` float32, and
returns `[1, n]` float32 probabilities. Its weights are float32: it is the same
network for phones, not a smaller one.
"""

import contextlib
import re
from typing import Any, Optional

import numpy as np

import compat
from common.errors import InputError
from compat import tf
from preprocessing import preprocessing_factory
from runtime import forward_pass
from serving.exports import comparison
from serving.model import graph_files, graph_info

# How the converters of 1.15 and of 2 report missing operations.
_MISSING_OPS = (r'custom implementations: ([\w, ]+)',
                r"'tf\.(\w+)' op is neither")


def convert(graph_def: tf.GraphDef) -> bytes:
  """Converts a frozen graph.

  Args:
    graph_def: GraphDef of inference_graph.freeze, with float input and a batch
      of 1.

  Returns:
    bytes of the model, whose only output is the predictions.

  Raises:
    InputError: the network has operations that TensorFlow Lite lacks.
  """
  info = graph_info.require(graph_def)
  graph_def = tf.graph_util.extract_sub_graph(
      graph_def, [info.predictions.split(':')[0]])
  with tf.Graph().as_default() as graph:
    graph_files.import_into_default(graph_def)
    try:
      with compat.tflite_tools() as lite:
        return lite.TFLiteConverter(
            graph_def, [graph.get_tensor_by_name(info.input)],
            [graph.get_tensor_by_name(info.predictions)]).convert()
    except compat.TFLiteError as error:
      raise InputError('TensorFlow Lite cannot hold the network %s: %s' %
                       (info.model_name, _reason(str(error))))


def _reason(message):
  """Returns the reason in a converter's message of many lines."""
  missing = set()
  for pattern in _MISSING_OPS:
    for names in re.findall(pattern, message):
      missing.update(names.split(', '))
  if missing:
    return 'it lacks %s' % ', '.join(sorted(missing))
  return message.strip().split('\n')[-1]


class Model:
  """A TensorFlow Lite model in its interpreter."""

  def __init__(self, content: bytes):
    """Loads a model.

    Args:
      content: its bytes.
    """
    with compat.tflite_tools() as lite:
      self._interpreter = lite.Interpreter(model_content=content)
      self._interpreter.allocate_tensors()
    self._input, = self._interpreter.get_input_details()
    self._output, = self._interpreter.get_output_details()

  def scores(self, image: np.ndarray) -> np.ndarray:
    """Returns the `[1, n]` probabilities of a `[1, s, s, channels]` image."""
    self._interpreter.set_tensor(self._input['index'], image)
    self._interpreter.invoke()
    return self._interpreter.get_tensor(self._output['index'])


def compare(graph_def: tf.GraphDef, content: bytes, dataset: Any,
            max_photos: Optional[int] = None, num_threads: int = 4,
            options: forward_pass.Options = forward_pass.DEFAULT
            ) -> comparison.Comparison:
  """Runs graph and model on the same photos of a data set, each once.

  Args:
    graph_def: GraphDef that was converted.
    content: bytes of the model.
    dataset: slim Dataset.
    max_photos: number of photos to use, from the first on; None: all.
    num_threads: number of threads that decode photos.
    options: forward_pass.Options of the graph.

  Returns:
    Comparison of the graph with the model.

  Raises:
    InputError: a record is damaged; or as for forward_pass.load.
  """
  with contextlib.closing(comparison.load_scores(graph_def, options)) as graph:
    tf.logging.info('Forward passes: %s', graph.choice.describe())
    return comparison.compare(
        comparison.score_fn(graph), Model(content).scores, dataset,
        graph_info.require(graph_def), max_photos, num_threads=num_threads)


def describe_input(info: graph_info.GraphInfo) -> str:
  """Returns a description of how an app must preprocess a photo.

  Args:
    info: GraphInfo of the graph that was converted.
  """
  family = preprocessing_factory.family_of(info.preprocessing_name)
  scaling = preprocessing_factory.FAMILIES[family].scaling
  part, mean = scaling.part, scaling.mean
  if info.channels == 1:
    part += ', in grey'
    mean = scaling.grey_mean or mean and mean[:1]
  if mean is None:
    values = "(value - the image's mean) / the image's standard deviation"
  elif len(set(mean)) == 1 and scaling.deviation is not None:
    values = '(value - %g) / %g' % (mean[0], scaling.deviation)
  else:
    values = 'value - %g, %g, %g of red, green, blue' % mean
  side = max(scaling.least_side, info.image_size)
  return 'of the upright photo %s; %s' % (part % {'side': side}, values)
