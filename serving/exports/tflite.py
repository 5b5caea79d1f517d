"""Converts a network to TensorFlow Lite, and compares it with the graph.

  model = tflite.convert(graph_def)
  found = tflite.compare(graph_def, model, dataset)

The model takes one preprocessed image, `[1, size, size, channels]` float32, and
returns `[1, n]` float32 probabilities. Its weights are float32, or smaller:
float16, or int8 (tflite_int8.py). With int8 it can also take pixel values from
0 to 255, and return probabilities times 256, both as uint8.
"""

import contextlib
import re
import time
from typing import Any, Iterator, Optional

import numpy as np

import compat
from common.errors import InputError
from compat import tf
from preprocessing import preprocessing_factory
from runtime import forward_pass
from serving.exports import comparison, tflite_int8, tflite_metadata
from serving.model import graph_files, graph_info

# Number formats of the weights; with int8 also of the activations.
NONE, FLOAT16, INT8 = 'none', 'float16', 'int8'
QUANTIZATIONS = (NONE, FLOAT16, INT8)

# Number formats of input and output.
FLOAT32, UINT8 = 'float32', 'uint8'
INFERENCE_TYPES = (FLOAT32, UINT8)

# How the converters of 1.15 and of 2 report missing operations.
_MISSING_OPS = (r'custom implementations: ([\w, ]+)',
                r"'tf\.(\w+)' op is neither")

# Forward passes that are timed, after as many that are not.
_TIMED = 20


def check(quantization: str, inference_type: str,
          preprocessing_name: str) -> None:
  """Checks that `convert` can make a model.

  Args:
    quantization: one of QUANTIZATIONS.
    inference_type: one of INFERENCE_TYPES.
    preprocessing_name: key of preprocessing_factory.

  Raises:
    InputError: it cannot.
  """
  if quantization == INT8 and not compat.QUANTIZES_TFLITE:
    raise InputError(
        '--quantize=int8 needs TensorFlow 2, whose converter can leave parts '
        'of the network in float32: put ENGINE=tf2 in front of the command; it '
        'exports the runs of TensorFlow 1.15, too')
  if inference_type == FLOAT32:
    return
  if quantization != INT8:
    raise InputError('--inference_type=uint8 needs --quantize=int8, got '
                     '--quantize=%s' % quantization)
  if scaling_of(preprocessing_name).mean is None:
    raise InputError(
        '--inference_type=uint8: the preprocessing %r divides by the standard '
        'deviation of each photo, which is not a part of the model' %
        preprocessing_name)


def convert(graph_def: tf.GraphDef, quantization: str = NONE,
            inference_type: str = FLOAT32,
            images: Optional[Iterator[np.ndarray]] = None) -> bytes:
  """Converts a frozen graph.

  Args:
    graph_def: GraphDef of inference_graph.freeze, with float input and a batch
      of 1.
    quantization: one of QUANTIZATIONS.
    inference_type: one of INFERENCE_TYPES.
    images: for int8, of tflite_int8.training_images.

  Returns:
    bytes of the model, whose only output is the predictions, with metadata.

  Raises:
    InputError: the network has operations that TensorFlow Lite lacks.
  """
  info = graph_info.require(graph_def)
  is_uint8 = inference_type == UINT8
  graph_def = tf.graph_util.extract_sub_graph(
      graph_def, [info.predictions.split(':')[0]])
  with tf.Graph().as_default() as graph:
    inputs = _load(graph_def, info, is_uint8)
    try:
      with compat.tflite_tools() as lite:
        converter = lite.TFLiteConverter(
            graph.as_graph_def(), [inputs],
            [graph.get_tensor_by_name(info.predictions)])
        if quantization == INT8:
          assert images is not None
          content = tflite_int8.convert(
              lite, converter, _pixels(images, info) if is_uint8 else images,
              info, tf.as_dtype(inference_type))
        else:
          if quantization == FLOAT16:
            converter.optimizations = [lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
          content = converter.convert()
    except compat.TFLiteError as error:
      raise InputError('TensorFlow Lite cannot hold the network %s: %s' %
                       (info.model_name, _reason(str(error))))
  return tflite_metadata.attach(content, info, describe_input(info, is_uint8),
                                _mean_and_deviation(info, is_uint8))


def _load(graph_def, info, is_uint8):
  """Loads a graph, with its scaling for uint8; returns its input."""
  if not is_uint8:
    graph_files.import_into_default(graph_def)
    return tf.get_default_graph().get_tensor_by_name(info.input)
  pixels = tf.placeholder(
      tf.float32, [1, info.image_size, info.image_size, info.channels],
      'pixels')
  scaling = scaling_of(info.preprocessing_name, info.channels)
  graph_files.import_into_default(graph_def, {
      info.input: (pixels - scaling.mean) * (1 / scaling.deviation)})
  return pixels


def _pixels(images, info):
  """Yields images as pixel values, of which the least is 0, the largest 255.

  The byte of a value is then the value itself.
  """
  for number, image in enumerate(images):
    image = _to_pixels(image, info)
    if number == 0:
      image[0, 0, :2] = [[0], [255]]
    yield image


def _to_pixels(image, info):
  """Returns a preprocessed image as float32 from 0 to 255, without fraction."""
  mean, deviation = _mean_and_deviation(info, False)
  return np.clip(np.rint(image * deviation + mean), 0, 255)


def scaling_of(preprocessing_name: str, channels: int = 3
               ) -> preprocessing_factory.Scaling:
  """Returns the Scaling of a preprocessing, with a mean per channel.

  Args:
    preprocessing_name: key of preprocessing_factory.
    channels: 1 for grey photos, else 3.
  """
  scaling = preprocessing_factory.FAMILIES[
      preprocessing_factory.family_of(preprocessing_name)].scaling
  if channels > 1 or scaling.mean is None:
    return scaling
  return scaling._replace(mean=scaling.grey_mean or scaling.mean[:1])


def _mean_and_deviation(info, is_uint8):
  """Returns two `[channels]` float32 for a pixel value; None: of the photo."""
  scaling = scaling_of(info.preprocessing_name, info.channels)
  if scaling.mean is None:
    return None
  mean, deviation = (0, 1) if is_uint8 else scaling[1:3]
  return np.broadcast_to(np.float32(mean), info.channels), np.full(
      info.channels, deviation, np.float32)


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

  def __init__(self, content: bytes, info: graph_info.GraphInfo):
    """Loads a model.

    Args:
      content: its bytes.
      info: GraphInfo of the graph that was converted.
    """
    self._info = info
    with compat.tflite_tools() as lite:
      self._interpreter = lite.Interpreter(model_content=content)
      self._interpreter.allocate_tensors()
    self._input, = self._interpreter.get_input_details()
    self._output, = self._interpreter.get_output_details()

  def scores(self, image: np.ndarray) -> np.ndarray:
    """Returns the `[1, n]` probabilities of a `[1, s, s, channels]` image."""
    if self._input['dtype'] == np.uint8:
      image = _to_pixels(image, self._info).astype(np.uint8)
    self._interpreter.set_tensor(self._input['index'], image)
    self._interpreter.invoke()
    scores = self._interpreter.get_tensor(self._output['index'])
    if scores.dtype == np.uint8:
      scale, zero = self._output['quantization']
      scores = np.float32(scale) * (scores.astype(np.float32) - zero)
    return scores

  def milliseconds(self) -> float:
    """Returns the least time of 20 forward passes, after as many others."""
    self._interpreter.set_tensor(self._input['index'], np.zeros(
        self._input['shape'], self._input['dtype']))
    times = []
    for _ in range(2 * _TIMED):
      start = time.perf_counter()
      self._interpreter.invoke()
      times.append(time.perf_counter() - start)
    return 1e3 * min(times[_TIMED:])


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
  info = graph_info.require(graph_def)
  with contextlib.closing(comparison.load_scores(graph_def, options)) as graph:
    tf.logging.info('Forward passes: %s', graph.choice.describe())
    return comparison.compare(
        comparison.score_fn(graph), Model(content, info).scores, dataset, info,
        max_photos, num_threads=num_threads)


def describe_input(info: graph_info.GraphInfo, is_uint8: bool = False) -> str:
  """Returns a description of how an app must preprocess a photo.

  Args:
    info: GraphInfo of the graph that was converted.
    is_uint8: whether the input is uint8.
  """
  scaling = scaling_of(info.preprocessing_name, info.channels)
  if is_uint8:
    values = 'values from 0 to 255'
  elif scaling.mean is None:
    values = "(value - the image's mean) / the image's standard deviation"
  elif len(set(scaling.mean)) == 1 and scaling.deviation is not None:
    values = '(value - %g) / %g' % (scaling.mean[0], scaling.deviation)
  else:
    values = 'value - %g, %g, %g of red, green, blue' % scaling.mean
  part = scaling.part + (', in grey' if info.channels == 1 else '')
  side = max(scaling.least_side, info.image_size)
  return 'of the upright photo %s; %s' % (part % {'side': side}, values)
