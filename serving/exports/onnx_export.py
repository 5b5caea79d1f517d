"""Converts a frozen graph to ONNX, and checks the result with ONNX Runtime.

  model = onnx_export.convert(graph_def, run_name='my_flower_5_inception_v4')
  found = onnx_export.check(graph_def, model, dataset)

The model takes preprocessed images, `[batch, size, size, channels]` float32
with the name `images`. Its outputs are those of OUTPUTS that the graph has. Its
metadata have what else an app needs: see _metadata.

The packages tf2onnx, onnx and onnxruntime are optional: ./setup.sh --onnx.
"""

import contextlib
import io
import json
import logging
import os
import random
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from common.errors import InputError
from compat import tf
from datasets.conversion import draw_flowers
from runtime import forward_pass, subgraph
from serving.exports import comparison, tflite
from serving.model import graph_files, graph_info, staged_graph

INPUT = 'images'

# {name of an output: field of GraphInfo that names its tensor}. Probabilities
# are `[batch, n]`, the others `[batch]`. A SavedModel has the same names.
OUTPUTS = {'probabilities': 'predictions',
           'calibrated_probabilities': 'calibrated_predictions',
           'known': 'known', 'known_score': 'known_score',
           'similarity': 'similarity'}

# Version of ONNX's operations: the lowest one that has all that the networks
# need, since runtimes of all years since 2020 know it.
OPSET = 13

# Largest accepted difference between a probability of the graph and of the
# model. Rounding errors of float32 are about 2e-6, with a kernel head 2e-5.
TOLERANCE = 1e-4

# Photos per call of `check`.
BATCH = 8

OutputsFn = Callable[[np.ndarray], Dict[str, np.ndarray]]


class Checked(NamedTuple):
  """Result of `check`."""

  # Of the graph with the model. Without a data set `photos` is 0.
  comparison: comparison.Comparison
  # How the graph was computed.
  choice: forward_pass.Choice
  # Milliseconds per photo of the graph, and of the model.
  milliseconds: Tuple[float, float]
  # Number of photos that only one of the two accepts as known; None: the graph
  # has no out-of-distribution detection.
  known_disagreed: Optional[int]


def _packages() -> Tuple[Any, Any, Any]:
  """Returns tf2onnx.convert, onnx and onnxruntime.

  Raises:
    InputError: one of them is not installed.
  """
  try:
    import onnx
    import onnxruntime
    from tf2onnx import convert as converter
  except ImportError as error:
    raise InputError('ONNX needs packages that are not installed here (%s): '
                     './setup.sh --onnx installs them' % error)
  # They report each step.
  logging.getLogger('tf2onnx').setLevel(logging.ERROR)
  # Else it copies all weights before each of many optimizations: 12 GB of
  # memory for ResNet 101 in place of 6.
  os.environ['TF2ONNX_CATCH_ERRORS'] = 'FALSE'
  return converter, onnx, onnxruntime


def convert(graph_def: tf.GraphDef, run_name: Optional[str] = None) -> bytes:
  """Converts a frozen graph.

  Args:
    graph_def: frozen GraphDef with classifier/info.
    run_name: name of the run, for the metadata; None: unknown.

  Returns:
    bytes of the ONNX model.

  Raises:
    InputError: a package is missing, the graph has a fixed batch size, or it
      has operations that ONNX lacks.
  """
  converter, onnx, _ = _packages()
  info = graph_info.require(graph_def)
  named = tensor_names(info)
  with tf.Graph().as_default() as graph:
    graph_files.import_into_default(graph_def)
  tensors = [staged_graph.find_tensor(graph, name) for name in named.values()]
  images = staged_graph.find_images(graph, info, tensors, tensors[0])
  if images.shape.as_list()[0]:
    raise InputError('the frozen graph accepts batches of %d only: export it '
                     'without --batch_size' % images.shape.as_list()[0])
  outputs = [name + ':0' for name in subgraph.output_names(tensors)]
  model, _ = converter.from_graph_def(
      subgraph.extract(graph_def, [images], tensors), info.model_name,
      [images.name], outputs, OPSET,
      tensors_to_rename={images.name: INPUT, **dict(zip(outputs, named))})
  for value in (*model.graph.input, *model.graph.output):
    value.type.tensor_type.shape.dim[0].dim_param = 'batch'
  onnx.helper.set_model_props(model, _metadata(info, run_name))
  try:
    onnx.checker.check_model(model)
  except onnx.checker.ValidationError as error:
    raise InputError('ONNX cannot hold the network %s: %s' % (
        info.model_name, str(error).split('\n')[0]))
  return model.SerializeToString()


def tensor_names(info: graph_info.GraphInfo) -> Dict[str, str]:
  """Returns {name of an output of the model: its tensor in the frozen graph}.

  Args:
    info: GraphInfo of the frozen graph.
  """
  return {name: getattr(info, field) for name, field in OUTPUTS.items()
          if getattr(info, field)}


def _metadata(info, run_name):
  """Returns {key: text}; lists are JSON, null is an unknown value."""
  scaling = tflite.scaling_of(info.preprocessing_name, info.channels)
  values = {
      'labels': info.labels, 'network': info.model_name, 'run': run_name,
      'checkpoint': info.checkpoint, 'global_step': info.global_step,
      'image_size': info.image_size,
      'channels': 'RGB' if info.channels == 3 else 'grey',
      'mean': scaling.mean, 'deviation': scaling.deviation,
      'preprocessing': tflite.describe_input(info),
      'threshold': info.threshold, 'temperature': info.temperature}
  metadata = {key: value if isinstance(value, str) else
              json.dumps(value, ensure_ascii=False)
              for key, value in values.items()}
  # The last one: graph_info.read_file reads it from the end of the file.
  metadata[graph_info.NODE] = graph_info.to_json(info).decode('utf-8')
  return metadata


class Model:
  """An ONNX model in ONNX Runtime, on the processor."""

  def __init__(self, content: bytes):
    """Loads a model.

    Args:
      content: its bytes.

    Raises:
      InputError: a package is missing.
    """
    _, _, onnxruntime = _packages()
    self._session = onnxruntime.InferenceSession(
        content, providers=['CPUExecutionProvider'])
    self._names = [output.name for output in self._session.get_outputs()]

  def outputs_of(self, images: np.ndarray) -> Dict[str, np.ndarray]:
    """Returns {name: array} of `[n, size, size, channels]` images."""
    return dict(zip(self._names, self._session.run(None, {INPUT: images})))


class _Measured:
  """A ScoreFn that also records its time, and which photos are known."""

  def __init__(self, outputs_of: OutputsFn):
    self._outputs_of = outputs_of
    self._seconds: List[float] = []
    self.known: List[bool] = []

  def __call__(self, images):
    start = time.perf_counter()
    outputs = self._outputs_of(images)
    self._seconds.append((time.perf_counter() - start) / len(images))
    self.known += list(outputs.get('known', ()))
    return outputs['probabilities']

  def milliseconds(self):
    """Returns the median per photo: the first calls take longer."""
    return 1000 * float(np.median(self._seconds))


def check(graph_def: tf.GraphDef, content: bytes, dataset: Any = None,
          max_photos: Optional[int] = None, num_threads: int = 4,
          runtime: str = forward_pass.AUTO) -> Checked:
  """Compares a graph with its model, and refuses one that differs.

  Args:
    graph_def: GraphDef that was converted.
    content: bytes of the model.
    dataset: slim Dataset of the photos; None: drawn flowers.
    max_photos: number of photos to use, from the first on; None: all.
    num_threads: number of threads that decode photos.
    runtime: of forward_pass.RUNTIMES, for the graph, with float32.

  Returns:
    Checked.

  Raises:
    InputError: a probability differs by more than TOLERANCE, a package is
      missing, or a record is damaged.
  """
  info = graph_info.require(graph_def)
  options = forward_pass.Options(runtime, forward_pass.FLOAT32)
  with contextlib.closing(staged_graph.StagedGraph(
      graph_def, info, tensor_names(info), 'probabilities', options)) as graph:
    first = _Measured(graph.outputs_of)
    second = _Measured(Model(content).outputs_of)
    if dataset is None:
      found = _compare_drawings(first, second, graph)
    else:
      found = comparison.compare(first, second, dataset, info, max_photos,
                                 BATCH, num_threads)
  if not found.largest_difference <= TOLERANCE:  # Also if it is NaN.
    raise InputError(
        'the ONNX model is not written: its probabilities differ from those of '
        'the frozen graph by %.1e, accepted: %.0e' %
        (found.largest_difference, TOLERANCE))
  return Checked(found, graph.choice,
                 (first.milliseconds(), second.milliseconds()),
                 sum(a != b for a, b in zip(first.known, second.known))
                 if info.known else None)


def _compare_drawings(first, second, graph):
  """Returns a Comparison of drawn flowers, whose labels are not the graph's."""
  encoded = []
  for kind in draw_flowers.KINDS:
    stream = io.BytesIO()
    draw_flowers.draw_flower(kind, random.Random(kind)).save(stream, 'JPEG')
    encoded.append(stream.getvalue())
  images = graph.images_of(encoded)
  scores = [first(images), second(images)]
  differences = np.abs(scores[0] - scores[1])
  different = scores[0].argmax(axis=1) != scores[1].argmax(axis=1)
  return comparison.Comparison(0, 0, 0, int(different.sum()),
                               float(differences.max()),
                               float(differences.mean()))
