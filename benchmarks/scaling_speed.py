"""Measures training with several workers and several clones on one machine.

A worker computes with one thread, so that two of them have one core each on the
smallest machine; the reference without communication is the same number of
processes that train independently at the same time. Clones share the resources
of one clone: all threads, and the photos of a step. The difference is the cost
of communication: variables and gradients over the loopback, their sums, and
waiting for others.

Photos per second are computed from the global step in the chief's log, from the
first line after --warm_steps to the last; the traffic, from the bytes that the
loopback has carried between these lines. To count no other program's:

  sudo unshare --net sh -c 'ip link set lo up; exec benchmarks/scaling'
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import List, NamedTuple

from absl import flags

from benchmarks import input_speed
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from deployment.launcher import machine

FLAGS = flags.FLAGS

ROOT = input_speed.ROOT

_STEP = re.compile(r'global step (\d+): loss')


class Way(NamedTuple):
  """A way to train."""

  name: str
  # Flags of each process.
  tasks: List[List[str]]
  # Per global step.
  photos: int
  # Whether the processes are workers that train independently: their rates are
  # added.
  apart: bool
  # Parameter servers.
  servers: int = 0


def define_flags():
  """Defines the flags for the training and its duration."""
  flags.DEFINE_string('model_name', 'mobilenet_v1', 'Name of the network.')
  flags.DEFINE_integer('train_image_size', 96, "Side of the network's input in "
                       'pixels.', lower_bound=1)
  flags.DEFINE_integer('batch_size', 16, 'Photos per step and worker, shared '
                       'by its clones.', lower_bound=4)
  flags.DEFINE_integer('steps', 60, 'Steps of each worker that are counted.',
                       lower_bound=2)
  flags.DEFINE_integer('warm_steps', 10, 'Steps before these.', lower_bound=1)
  flags.DEFINE_integer('rounds', 3, 'How often each way has its turn.',
                       lower_bound=1)
  flags.DEFINE_string(
      'dataset_dir', None, 'Folder of the TFRecord files. None: real photos, '
      'or drawn ones, as benchmarks/input takes them.')
  flags.DEFINE_string('dataset_name', None, 'Name of that data set.')
  flags.DEFINE_integer('per_class', 100, 'Photos drawn per class.',
                       lower_bound=2)


class Task:
  """A process of train_image_classifier.py; records the times of its steps.

  Attributes:
    steps: list of (global step, time.monotonic(), bytes over the loopback).
    lines: its output.
  """

  def __init__(self, arguments):
    self.steps, self.lines = [], []
    self.process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, 'train_image_classifier.py'),
         *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors='replace')
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    for line in self.process.stderr:
      self.lines.append(line.rstrip())
      found = _STEP.search(line)
      if found:
        self.steps.append((int(found.group(1)), time.monotonic(),
                           _loopback_bytes()))

  def wait(self):
    """Waits for its end.

    Raises:
      InputError: it failed.
    """
    status = self.process.wait()
    self._reader.join(10)
    if status:
      raise InputError('a training ended with status %d: %s' %
                       (status, ' / '.join(self.lines[-3:])))

  def rate(self, warm_steps):
    """Returns global steps per second after warm-up, and bytes per step."""
    counted = [step for step in self.steps if step[0] > warm_steps]
    if len(counted) < 2:
      raise InputError('--steps=%d: too few lines of the log were seen' %
                       FLAGS.steps)
    (first, start, before), (last, end, after) = counted[0], counted[-1]
    return (last - first) / (end - start), (after - before) / (last - first)


def _loopback_bytes():
  """Returns how many bytes the loopback has carried."""
  with open('/proc/net/dev', encoding='ascii') as file:
    return int(re.search(r'lo:\s*(\d+)', file.read()).group(1))


def ways():
  """Returns the Ways to measure, together with their references."""
  batch = FLAGS.batch_size
  single = ['--session_threads=1', '--batch_size=%d' % batch]
  found = [Way('1 training alone, 1 thread', [single], batch, True),
           Way('2 independent trainings, 1 thread each', [single] * 2, batch,
               True)]
  for workers in (1, 2):
    found.append(Way(
        '1 parameter server, %d worker%s' % (workers, 's' * (workers > 1)),
        [single] * workers, batch, False, 1))
  for name, servers, flag in (
      ('1 parameter server, 2 synchronous', 1, '--sync_replicas'),
      ('2 workers, --all_reduce', 0, '--all_reduce')):
    found.append(Way(name, [[*single, flag]] * 2, 2 * batch, False, servers))
  for clones in (1, 2, 4):
    found.append(Way(
        '%d clone%s' % (clones, 's' * (clones > 1)),
        [['--num_clones=%d' % clones, '--clone_on_cpu',
          '--batch_size=%d' % (batch // clones)]],
        batch // clones * clones, True))
  return found


def measure(way, dataset_dir, dataset_name):
  """Trains in one way.

  Returns:
    Photos per second over all its processes; MB over the loopback for a step of
    one worker.
  """
  # Global steps in which each worker takes one step.
  turn = 1
  if not way.apart:
    turn = len(way.tasks) * FLAGS.batch_size // way.photos
    servers, workers = machine.local_lists(way.servers, len(way.tasks))
    cluster = ['--ps_hosts=' + servers, '--worker_hosts=' + workers]
  steps = (FLAGS.warm_steps + FLAGS.steps) * turn
  common = ['--dataset_dir=' + dataset_dir, '--dataset_name=' + dataset_name,
            '--model_name=' + FLAGS.model_name, '--log_every_n_steps=1',
            '--train_image_size=%d' % FLAGS.train_image_size,
            '--learning_rate=0.001', '--optimizer=sgd',
            '--max_number_of_steps=%d' % steps,
            '--save_interval_secs=100000', '--save_summaries_secs=100000']
  with tempfile.TemporaryDirectory() as made:
    tasks, all_tasks = [], []
    try:
      for number, options in enumerate(way.tasks):
        where = ['--train_dir=' + os.path.join(
            made, str(number) if way.apart else 'all')]
        if not way.apart:
          where += cluster + ['--job_name=worker', '--task=%d' % number]
        tasks.append(Task(common + options + where))
        all_tasks.append(tasks[-1])
      if way.servers:
        all_tasks.append(Task(cluster + ['--job_name=ps', '--task=0']))
      for task in all_tasks:
        task.wait()
    finally:
      for task in all_tasks:
        task.process.kill()
  counted = tasks if way.apart else tasks[:1]
  rates = [task.rate(FLAGS.warm_steps * turn) for task in counted]
  return (way.photos * sum(rate for rate, _ in rates),
          rates[0][1] * turn / len(way.tasks) / 1e6)


def main(_):
  """Measures all ways in turn, several times, and prints the medians."""
  if bool(FLAGS.dataset_dir) != bool(FLAGS.dataset_name):
    raise InputError('--dataset_dir and --dataset_name belong together, got %r '
                     'and %r' % (FLAGS.dataset_dir, FLAGS.dataset_name))
  with tempfile.TemporaryDirectory() as made:
    folder, name = FLAGS.dataset_dir, FLAGS.dataset_name
    if not folder:
      folder, name = made, input_speed.NAME
      input_speed.make_records(made, FLAGS.per_class)
    rates, traffic = {way.name: [] for way in ways()}, {}
    for number in range(1, FLAGS.rounds + 1):
      for way in ways():
        rate, traffic[way.name] = measure(way, folder, name)
        rates[way.name].append(rate)
        print('round %d, %s: %.1f photos/s' % (number, way.name, rate),
              flush=True)
  print_table(rates, traffic)


def print_table(rates, traffic):
  """Prints medians, and the share that was lost to communication.

  Args:
    rates: {name of a Way: photos per second of each round}.
    traffic: {name of a Way: MB for a step of one worker}.
  """
  names = list(rates)
  alone, apart, one_worker, *two_workers, _, _, _ = names
  clones = names[-3:]
  held_to = {one_worker: alone, **dict.fromkeys(two_workers, apart)}
  held_to.update({name: clones[0] for name in clones[1:]})
  print('\nTensorFlow %s, %s at %d pixels, %d photos per step, medians of %d '
        'rounds' % (tf.__version__, FLAGS.model_name, FLAGS.train_image_size,
                    FLAGS.batch_size, FLAGS.rounds))
  print('%-37s %10s %8s %s' % ('', 'photos/s', 'MB/step',
                               'lost to communication'))
  for name in names:
    lost = ''
    if name in held_to:
      lost = '%.3f' % statistics.median(
          1 - rate / base for rate, base in zip(rates[name],
                                                rates[held_to[name]]))
    print('%-37s %10.1f %8.1f %s' % (
        name, statistics.median(rates[name]), traffic[name], lost))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
