"""Compares training with gradients in float32 and in bfloat16.

Both take the steps of train_image_classifier.py, with the same flags, seed and
photos. They alternate in one process, so that other load on the machine affects
both. Needs TensorFlow 2 and a processor with instructions for bfloat16.
"""

import contextlib
import statistics
import tempfile
import time
from typing import NamedTuple

import numpy as np
from absl import flags

import train_image_classifier
from benchmarks import plain_speed
from common import flags as common_flags
from compat import tf
from datasets import dataset_factory
from runtime import forward_pass

PRECISIONS = (forward_pass.FLOAT32, forward_pass.BFLOAT16)

# Lines of the table of losses.
LINES = 10


class Step(NamedTuple):
  """A training step."""

  loss: float
  # Elapsed seconds, and processor seconds of all cores.
  seconds: float
  cpu_seconds: float


def define_flags():
  """Defines the training flags that affect a step, and this program's own."""
  train_image_classifier.define_flags()
  for name in (*plain_speed.NOT_OF_A_STEP, 'precision'):
    delattr(flags.FLAGS, name)
  flags.FLAGS.set_default('dataset_name', None)
  flags.FLAGS.set_default('model_name', 'inception_v4')
  flags.FLAGS.set_default('seed', 1)
  flags.DEFINE_integer('steps', 60, 'Training steps in each precision.',
                       lower_bound=2)


def take(pair):
  """Takes a training step of a plain_speed.Pair; returns the Step."""
  begin_cpu = time.process_time()
  seconds, _ = pair.step()
  return Step(float(pair.loss), seconds, time.process_time() - begin_cpu)


def compare(pairs, steps):
  """Alternates training steps, and prints the losses.

  Args:
    pairs: {precision: plain_speed.Pair}.
    steps: number of steps of each.

  Returns:
    {precision: [Step]}.
  """
  taken = {name: [] for name in pairs}
  every = max(1, steps // LINES)
  print('%-12s' % 'steps', *('%10s' % name for name in pairs), ' mean loss')
  for step in range(1, steps + 1):
    for name, pair in pairs.items():
      taken[name].append(take(pair))
    if step % every == 0 or step == steps:
      first = (step - 1) // every * every
      print('%-12s' % ('%d to %d' % (first + 1, step)), *(
          '%10.4f' % np.mean([one.loss for one in taken[name][first:]])
          for name in pairs), flush=True)
  return taken


def report(taken):
  """Prints the seconds per step of the {precision: [Step]} of `compare`."""
  # The first step prepares the graph.
  seconds, cpu_seconds = (
      {name: statistics.median(getattr(step, field) for step in steps[1:])
       for name, steps in taken.items()} for field in ('seconds',
                                                       'cpu_seconds'))
  for title, of_name in (('seconds per step', seconds),
                         ('of all cores together', cpu_seconds)):
    exact, near = (of_name[name] for name in PRECISIONS)
    print('%s, median: float32 %.2f, bfloat16 %.2f: %.2f times as fast' % (
        title, exact, near, exact / near))


def main(_):
  """Trains in both precisions, and prints losses and seconds per step."""
  values = flags.FLAGS
  common_flags.require(values, 'dataset_dir', 'dataset_name')
  session_config = common_flags.session_config(values)
  dataset = dataset_factory.get_dataset(
      values.dataset_name, values.dataset_split_name, values.dataset_dir)
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    taken = compare({
        precision: stack.enter_context(plain_speed.prepared(
            plain_speed.config_from_flags(train_dir=folder,
                                          precision=precision),
            dataset, session_config)) for precision in PRECISIONS},
        values.steps)
  print('\nTensorFlow %s, %s, %d photos per step' % (
      tf.__version__, values.model_name, values.batch_size))
  report(taken)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
