"""Converts a network to TensorFlow Lite, and compares it with the graph.

  model = tflite.convert(graph_def)
  comparison = tflite.compare(graph_def, model, dataset)

The model takes one preprocessed image, `[1, size, size, channels]` float32, and
returns `[1, n]` float32 probabilities. Its weights are float32: it is the same
network for phones, not a smaller one.
"""

import re
from typing import Any, NamedTuple, Optional

import numpy as np

import compat
from common import progress
from common.errors import InputError
from compat import tf
from datasets import input_pipeline
from preprocessing import preprocessing_factory
from serving.model import graph_files, graph_info


class Comparison(NamedTuple):
  """Results of a graph and of its TensorFlow Lite model on the same photos."""

  # Number of photos compared.
  photos: int
  # Number of photos that the graph classifies correctly.
  graph_correct: int
  # Number of photos that the model classifies correctly.
  model_correct: int
  # Number of photos for which their labels differ.
  disagreed: int
  # Largest difference between two probabilities.
  largest_difference: float


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
            max_photos: Optional[int] = None, num_threads: int = 4
            ) -> Comparison:
  """Runs graph and model on the same photos of a data set, each once.

  Args:
    graph_def: GraphDef that was converted.
    content: bytes of the model.
    dataset: slim Dataset.
    max_photos: number of photos to use, from the first on; None: all.
    num_threads: number of threads that decode photos.

  Returns:
    Comparison.

  Raises:
    InputError: a record is damaged.
  """
  info = graph_info.require(graph_def)
  model = Model(content)
  count = min(max_photos or dataset.num_samples, dataset.num_samples)
  graph_correct = model_correct = disagreed = 0
  largest = 0.0
  with tf.Graph().as_default():
    iterator = tf.data.make_initializable_iterator(
        input_pipeline.evaluation_batches(
            dataset, preprocessing_factory.get_preprocessing(
                info.preprocessing_name, is_training=False),
            info.image_size, 1, channels=info.channels,
            num_threads=num_threads, labels_offset=info.labels_offset))
    batch = iterator.get_next()
    graph_files.import_into_default(graph_def, {info.input: batch['image']})
    fetched = [batch['label'], batch['image'],
               tf.get_default_graph().get_tensor_by_name(info.predictions)]
    with tf.Session() as session, input_pipeline.errors_as_advice(), (
        progress.Progress('compared', count)) as bar:
      session.run(iterator.initializer)
      for _ in range(count):
        (label,), image, expected = session.run(fetched)
        scores = model.scores(image)
        by_graph, by_model = expected.argmax(), scores.argmax()
        graph_correct += int(by_graph == label)
        model_correct += int(by_model == label)
        disagreed += int(by_graph != by_model)
        largest = max(largest, float(np.abs(expected - scores).max()))
        bar.add()
  return Comparison(count, graph_correct, model_correct, disagreed, largest)


def describe_input(info: graph_info.GraphInfo) -> str:
  """Returns a description of how an app must preprocess a photo.

  Args:
    info: GraphInfo of the graph that was converted.
  """
  family = preprocessing_factory.family_of(info.preprocessing_name)
  scaling = preprocessing_factory.FAMILIES[family].scaling
  if scaling.mean is None:
    values = "(value - the image's mean) / the image's standard deviation"
  elif len(set(scaling.mean)) == 1 and scaling.deviation is not None:
    values = '(value - %g) / %g' % (scaling.mean[0], scaling.deviation)
  else:
    values = 'value - %g, %g, %g of red, green, blue' % scaling.mean
  side = max(scaling.least_side, info.image_size)
  return 'of the upright photo %s; %s' % (scaling.part % {'side': side}, values)
