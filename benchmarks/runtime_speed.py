"""Measures the forward pass of networks by each runtime and precision.

The networks have random weights, which take as much time as any others, at
their own image size. The runtimes take turns, so that all are affected alike
when the machine is busy with something else. The memory of each is measured in
a process of its own: how much loading the network and some forward passes raise
the peak, including the libraries of the runtime that TensorFlow does not load.
"""

import multiprocessing
import os
import re
import tempfile
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from absl import flags

from common import flags as common_flags
from compat import tf
from nets import nets_factory
from runtime import (
  forward_pass,
  openvino_model,
  rates,
  subgraph,
  tensorflow_session,
)

FLAGS = flags.FLAGS

_CLASSES = 10

# Side of the square matrices whose product measures the processor's peak.
_MATRIX = 2048


class Result(NamedTuple):
  """The forward pass of one network by one runtime."""

  choice: forward_pass.Choice
  photos_per_second: float
  # Of the peak of the processor with float32.
  share: float
  # Bytes by which it raises the peak memory; None: not measured.
  memory: Optional[int] = None


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_list(
      'model_names', sorted(nets_factory.NETWORKS),
      'Names of networks, with commas between.')
  flags.DEFINE_integer('batch_size', 8, 'Photos per batch.', lower_bound=1)
  flags.DEFINE_float(
      'seconds', 6, 'Seconds per network, runtime and precision.',
      lower_bound=0)
  flags.DEFINE_bool('memory', True, 'Also measure the memory, in a process for '
                    'each network, runtime and precision.')
  flags.DEFINE_string(
      'rates_file', None, 'JSON file to add the speeds to, for --rates_file of '
      'tools.list_models. None: only printed.')


def available() -> List[forward_pass.Options]:
  """Returns the Options of each runtime and precision of this machine."""
  found = []
  for runtime, module, installed in (
      (forward_pass.TENSORFLOW, tensorflow_session, True),
      (forward_pass.OPENVINO, openvino_model, openvino_model.is_installed())):
    if installed:
      found.append(forward_pass.Options(runtime, forward_pass.FLOAT32))
      if module.supports_bfloat16():
        found.append(forward_pass.Options(runtime, forward_pass.BFLOAT16))
  return found


def peak_flops(seconds: float) -> float:
  """Returns the operations per second of TensorFlow's product of matrices.

  NumPy's may be slower: its library is older than some processors.

  Args:
    seconds: duration; the best product counts.
  """
  best, end = float('inf'), time.perf_counter() + seconds
  with tf.Graph().as_default(), tf.Session() as session:
    matrix = tf.placeholder(tf.float32, [_MATRIX, _MATRIX])
    product = tf.matmul(matrix, matrix)[0, 0]
    feed = {matrix: np.ones([_MATRIX, _MATRIX], np.float32)}
    while best == float('inf') or time.perf_counter() < end:
      start = time.perf_counter()
      session.run(product, feed)
      best = min(best, time.perf_counter() - start)
  return 2 * _MATRIX ** 3 / best


def measure(name: str, batch_size: int, seconds: float, peak: float,
            with_memory: bool = False) -> List[Result]:
  """Returns a Result for each runtime and precision.

  Args:
    name: key of nets_factory.
    batch_size: photos per batch.
    seconds: duration for each of them.
    peak: operations per second, from peak_flops.
    with_memory: whether to measure the memory.
  """
  row = nets_factory.get_network(name)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(
        tf.float32, [None, row.image_size, row.image_size, row.channels])
    _, end_points = nets_factory.get_network_fn(
        name, num_classes=_CLASSES, is_training=False)(images)
    session.run(tf.global_variables_initializer())
    tensors = [images], [end_points[row.features]]
    passes = [forward_pass.load_from_session(session, *tensors, options)
              for options in available()]
    part = subgraph.freeze(session, *tensors) if with_memory else None
  photos = np.random.RandomState(0).uniform(-1, 1, [
      batch_size, row.image_size, row.image_size, row.channels]).astype(
          np.float32)
  speeds = measure_rates(passes, photos, seconds)
  for forward in passes:
    forward.close()
  operations = 2 * row.cost.multiply_adds
  return [Result(forward.choice, speed, speed * operations / peak,
                 part and peak_memory(part, images.op.name, photos,
                                      forward.choice))
          for forward, speed in zip(passes, speeds)]


def peak_memory(part: tf.GraphDef, input_name: str, photos: np.ndarray,
                choice: forward_pass.Choice) -> Optional[int]:
  """Returns the bytes by which a runtime raises the peak of a new process.

  Args:
    part: GraphDef of subgraph.freeze, with one output.
    input_name: name of its placeholder.
    photos: a batch.
    choice: forward_pass.Choice.

  Returns:
    Bytes; None if this system does not tell.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'part.pb')
    with open(path, 'wb') as file:
      file.write(part.SerializeToString())
    with multiprocessing.get_context('spawn').Pool(1) as pool:
      return pool.apply(_measure_memory, (path, input_name, photos, choice))


def _measure_memory(path, input_name, photos, choice):
  """Does what peak_memory says in this process, for a graph in a file."""
  with open(path, 'rb') as file:
    part = tf.GraphDef.FromString(file.read())
  try:
    with open('/proc/self/clear_refs', 'w') as file:
      file.write('5')  # Sets the peak to what is used now.
    before = _status('VmHWM')
  except OSError:
    return None
  names = [input_name], subgraph.output_names([None])
  if choice.runtime == forward_pass.OPENVINO:
    engine = openvino_model.OpenVinoModel(part, *names, choice.precision)
  else:
    engine = tensorflow_session.TensorFlowSession(
        part, *names, choice.precision, forward_pass.has_graphics_card())
  for _ in range(3):
    engine.run([photos])
  return _status('VmHWM') - before


def _status(name):
  """Returns a number of bytes in /proc/self/status."""
  with open('/proc/self/status') as file:
    return 1024 * int(re.search(name + r':\s+(\d+) kB', file.read()).group(1))


def measure_rates(passes: Sequence[forward_pass.ForwardPass],
                  photos: np.ndarray, seconds: float) -> List[float]:
  """Returns the photos per second of each ForwardPass.

  Args:
    passes: they take turns.
    photos: a batch.
    seconds: duration for each of them.
  """
  done: Dict[Any, List[float]] = {forward: [] for forward in passes}
  for forward in passes:
    forward(photos)  # The first one takes longer.
  while any(sum(times) < seconds or not times for times in done.values()):
    for forward, times in done.items():
      start = time.perf_counter()
      forward(photos)
      times.append(time.perf_counter() - start)
  return [len(photos) / float(np.median(done[forward])) for forward in passes]


def main(_):
  """Prints a line for each network, runtime and precision."""
  networks = [nets_factory.get_network(name) for name in FLAGS.model_names]
  if FLAGS.rates_file:
    rates.add(FLAGS.rates_file, [])  # It may be of another processor.
  peak = peak_flops(min(FLAGS.seconds, 2))
  print('product of float32 matrices: %.0f GFLOP/s; batches of %d' %
        (peak / 1e9, FLAGS.batch_size))
  print('%-20s %10s  %-32s %10s %8s %10s' % (
      'network', 'mult-adds', 'runtime', 'photos/s', 'of peak', 'memory'))
  for name, row in zip(FLAGS.model_names, networks):
    results = measure(name, FLAGS.batch_size, FLAGS.seconds, peak, FLAGS.memory)
    for result in results:
      memory = '-'
      if result.memory is not None:
        memory = '%.0f MB' % (result.memory / 1e6)
      print('%-20s %8.2f G  %-32s %10.1f %8.2f %10s' % (
          name, row.cost.multiply_adds / 1e9, result.choice.describe(),
          result.photos_per_second, result.share, memory), flush=True)
    if FLAGS.rates_file:  # After each network: it may be interrupted.
      rates.add(FLAGS.rates_file, [_to_rate(name, result)
                                   for result in results])


def _to_rate(name, result):
  return rates.Rate(
      name, result.choice.name(), result.choice.precision, FLAGS.batch_size,
      round(result.photos_per_second, 2),
      None if result.memory is None else round(result.memory / 1e6, 1))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
