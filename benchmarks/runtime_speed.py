"""Measures the forward pass of networks by each runtime and precision.

The networks have random weights, which take as much time as any others, at
their own image size. The runtimes take turns, so that all are affected alike
when the machine is busy with something else.
"""

import time
from typing import Any, Dict, List, NamedTuple

import numpy as np
from absl import flags

from common import flags as common_flags
from compat import tf
from nets import nets_factory
from runtime import forward_pass, openvino_model, tensorflow_session

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


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_list(
      'model_names', sorted(nets_factory.NETWORKS),
      'Names of networks, with commas between.')
  flags.DEFINE_integer('batch_size', 8, 'Photos per batch.', lower_bound=1)
  flags.DEFINE_float(
      'seconds', 6, 'Seconds per network, runtime and precision.',
      lower_bound=0)


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


def measure(name: str, batch_size: int, seconds: float,
            peak: float) -> List[Result]:
  """Returns a Result for each runtime and precision.

  Args:
    name: key of nets_factory.
    batch_size: photos per batch.
    seconds: duration for each of them.
    peak: operations per second, from peak_flops.
  """
  row = nets_factory.get_network(name)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(
        tf.float32, [None, row.image_size, row.image_size, row.channels])
    _, end_points = nets_factory.get_network_fn(
        name, num_classes=_CLASSES, is_training=False)(images)
    session.run(tf.global_variables_initializer())
    passes = [forward_pass.load_from_session(
        session, [images], [end_points[row.features]], options)
              for options in available()]
  rates = _rates(passes, np.random.RandomState(0).uniform(-1, 1, [
      batch_size, row.image_size, row.image_size, row.channels]).astype(
          np.float32), seconds)
  for forward in passes:
    forward.close()
  operations = 2 * row.cost.multiply_adds
  return [Result(forward.choice, rate, rate * operations / peak)
          for forward, rate in zip(passes, rates)]


def _rates(passes, photos, seconds):
  """Returns the photos per second of each ForwardPass."""
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
  peak = peak_flops(min(FLAGS.seconds, 2))
  print('product of float32 matrices: %.0f GFLOP/s; batches of %d' %
        (peak / 1e9, FLAGS.batch_size))
  print('%-20s %10s  %-32s %10s %8s' % (
      'network', 'mult-adds', 'runtime', 'photos/s', 'of peak'))
  for name, row in zip(FLAGS.model_names, networks):
    for result in measure(name, FLAGS.batch_size, FLAGS.seconds, peak):
      print('%-20s %8.2f G  %-32s %10.1f %8.2f' % (
          name, row.cost.multiply_adds / 1e9, result.choice.describe(),
          result.photos_per_second, result.share), flush=True)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
