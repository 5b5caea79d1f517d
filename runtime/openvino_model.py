"""Forward passes by OpenVINO, on the processor."""

import collections
import functools
import os
import tempfile
import threading
from typing import Any, Deque, Dict, List, Sequence

import numpy as np

from compat import tf

_DEVICE = 'CPU'

# Rows of a batch that are computed at a time: the intermediate results of more
# do not fit in the processor's caches. 8 photos at a time were 1.05 (Inception
# V4) and 1.2 times (MobileNet V1) as fast as 32.
_ROWS_AT_ONCE = 8

# Streams for runs that overlap, each with a part of the cores. In the server
# other threads use the cores too: a run on all cores waits for the one that is
# in use, and MobileNet V1 takes 1.1 times as much processor time per photo.
_STREAMS = 2

# Largest graph, in bytes, that is compiled for streams as well: that takes its
# memory twice, and Inception V4 (165 MB) was not faster with it.
_LARGEST_FOR_STREAMS = 64 * 2 ** 20

# Starts of the lines of an error that do not give the reason.
_NO_REASON = ('Exception from', 'Check ', 'FrontEnd API failed',
              'To facilitate', 'Summary:')


class UnsupportedGraph(Exception):
  """OpenVINO cannot read or run a graph; the reason on one line."""


@functools.lru_cache(None)
def is_installed() -> bool:
  """Returns whether OpenVINO can be used; logs why not if it is broken."""
  try:
    return _module() is not None and bool(_capabilities())
  # A shared library may be missing, or another package may have this name.
  except (OSError, AttributeError, RuntimeError, ImportError) as error:
    tf.logging.warning('OpenVINO cannot be used (%s)', _reason(error))
    return False


def version() -> str:
  """Returns the version, for example '2023.1.0'."""
  return _module().get_version().split('-')[0]


def supports_bfloat16() -> bool:
  """Returns whether the processor has instructions for bfloat16."""
  return 'BF16' in _capabilities()


class OpenVinoModel:
  """A compiled graph; safe to run from several threads.

  Args:
    graph_def: frozen GraphDef.
    inputs: names of its placeholders.
    outputs: names of the nodes to compute.
    precision: 'float32' or 'bfloat16'.
    num_threads: number of threads that compute; 0: one per core.
    overlaps: whether several threads run it at once.

  Raises:
    UnsupportedGraph: OpenVINO cannot read or run it.
  """

  def __init__(self, graph_def: tf.GraphDef, inputs: Sequence[str],
               outputs: Sequence[str], precision: str,
               num_threads: int = 0, overlaps: bool = False) -> None:
    settings = {
        'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bfloat16' else 'f32'
    }
    if num_threads:
      settings['INFERENCE_NUM_THREADS'] = str(num_threads)
    # How many threads run it, and the lock that guards the number.
    self._running, self._lock = 0, threading.Lock()
    try:
      model = _read(graph_def)
      self._compiled = _core().compile_model(model, _DEVICE, dict(
          # One batch at a time on all cores; requests of other threads wait.
          settings, PERFORMANCE_HINT='LATENCY'))
      self._streams = _core().compile_model(model, _DEVICE, dict(
          settings, NUM_STREAMS=str(_STREAMS))) if (
              overlaps and num_threads != 1 and
              graph_def.ByteSize() <= _LARGEST_FOR_STREAMS) else self._compiled
      # Requests that no thread is using.
      self._idle: Dict[Any, Deque[Any]] = {
          compiled: collections.deque()
          for compiled in (self._compiled, self._streams)}
      # The order of the model's inputs and outputs is its own.
      self._inputs = [_position(self._compiled.inputs, name) for name in inputs]
      self._outputs = [_position(self._compiled.outputs, name)
                       for name in outputs]
      self._splits = all(
          port.get_partial_shape().rank.is_static and
          port.get_partial_shape().rank.get_length() and
          port.get_partial_shape()[0].is_dynamic
          for port in [*self._compiled.inputs, *self._compiled.outputs])
      # Some graphs compile, but do not run.
      self.run([_zeros(self._compiled.inputs[position])
                for position in self._inputs])
    # Of the folder for temporary files, and of graphs of more than 2 GB.
    except (RuntimeError, OSError, ValueError) as error:
      raise UnsupportedGraph(_reason(error))

  def run(self, arrays: Sequence[np.ndarray]) -> List[np.ndarray]:
    """Returns the values of the outputs, given those of the inputs."""
    with self._lock:
      overlaps, self._running = bool(self._running), self._running + 1
    try:
      return self._run(self._streams if overlaps else self._compiled, arrays)
    finally:
      with self._lock:
        self._running -= 1

  def _run(self, compiled, arrays):
    try:
      request = self._idle[compiled].pop()
    except IndexError:
      request = compiled.create_infer_request()
    # Kept until the end: the tensors share their memory.
    shared = [
        np.require(array, self._compiled.inputs[position].get_element_type(
            ).to_dtype(), ['C', 'W'])
        for position, array in zip(self._inputs, arrays)]
    if not self._splits or len(shared[0]) <= _ROWS_AT_ONCE:
      values = self._infer(request, shared)
    else:
      parts = [self._infer(request, [array[start:start + _ROWS_AT_ONCE]
                                     for array in shared])
               for start in range(0, len(shared[0]), _ROWS_AT_ONCE)]
      values = [np.concatenate(part) for part in zip(*parts)]
    self._idle[compiled].append(request)
    return values

  def _infer(self, request, arrays):
    """Returns the values of the outputs for arrays of the inputs' dtypes."""
    for position, array in zip(self._inputs, arrays):
      request.set_input_tensor(position, _module().Tensor(array, True))
    request.infer()
    return [np.array(request.get_output_tensor(position).data)
            for position in self._outputs]

  def close(self) -> None:
    """Frees the compiled graph."""
    for requests in self._idle.values():
      requests.clear()
    self._compiled = self._streams = None


@functools.lru_cache(None)
def _module():
  """Returns the module with OpenVINO's classes, None if there is none."""
  try:
    import openvino
  except ImportError:
    return None
  if not hasattr(openvino, 'Core'):  # 2023.1, the last one for Python 3.7.
    import openvino.runtime as openvino
  return openvino


@functools.lru_cache(None)
def _capabilities():
  """Returns what the processor can compute with, such as 'FP32'."""
  return _core().get_property(_DEVICE, 'OPTIMIZATION_CAPABILITIES')


@functools.lru_cache(None)
def _core():
  return _module().Core()


def _read(graph_def):
  """Returns the ov.Model of a GraphDef."""
  with tempfile.TemporaryDirectory() as folder:
    # OpenVINO recognizes a GraphDef by the suffix.
    path = os.path.join(folder, 'graph.pb')
    with open(path, 'wb') as file:
      file.write(graph_def.SerializeToString())
    return _core().read_model(path)


def _position(ports, name):
  """Returns the index of the input or output with a tensor of this name."""
  for position, port in enumerate(ports):
    if name + ':0' in port.get_names() or name in port.get_names():
      return position
  raise RuntimeError('no tensor %s after the conversion' % name)


def _zeros(port):
  """Returns zeros for an input, of size 1 in each dimension that is open."""
  shape = [dimension.get_length() if dimension.is_static else 1
           for dimension in port.get_partial_shape()]
  return np.zeros(shape, port.get_element_type().to_dtype())


def _reason(error):
  """Returns an error of OpenVINO on one line, without its source lines."""
  lines = [line.strip() for line in str(error).splitlines()]
  kept = [line for line in lines
          if line and not line.startswith(_NO_REASON)]
  return ' '.join(kept or lines)[:300]
