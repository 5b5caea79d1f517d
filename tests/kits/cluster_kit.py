"""Tasks of a training cluster as processes."""

import contextlib
import os
import re
import subprocess
import sys
import time

import pytest

from deployment import hosts
from deployment.launcher import machine
from kits.helpers import ROOT
from kits.trained_kit import train_arguments

# Long enough for a machine with other load.
TIMEOUT_SECS = 300

# With the folders of the program ip.
PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'


class Task:
  """Process of one task of a cluster.

  Args:
    arguments: flags of train_image_classifier.py.
    log: pathlib.Path of its log, to which it appends.
    prefix: command in front of Python.
    variables: {environment variable: value} that are added.
  """

  def __init__(self, arguments, log, prefix=(), variables=()):
    self._log = log
    self._log_start = log.stat().st_size if log.exists() else 0
    with log.open('ab') as file:
      self._process = subprocess.Popen(
          [*prefix, sys.executable, '-u',
           os.path.join(ROOT, 'train_image_classifier.py'), *arguments],
          stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
          env=dict(os.environ, PATH=PATH, **dict(variables)))

  @property
  def log(self):
    """Text that this process has logged."""
    with self._log.open('rb') as file:
      file.seek(self._log_start)
      return file.read().decode()

  @property
  def steps(self):
    """Global steps that this process has logged."""
    return [step for step, _ in steps_and_losses(self.log)]

  def wait_for(self, condition):
    """Waits until a condition holds; fails if the task ends before."""
    deadline = time.monotonic() + TIMEOUT_SECS
    while not condition():
      assert self._process.poll() is None, self.log
      assert time.monotonic() < deadline, self.log
      time.sleep(0.1)

  def kill(self):
    self._process.kill()
    self._process.wait()

  def terminate(self):
    self._process.terminate()

  def wait(self):
    """Waits until the task ends; returns its exit status."""
    return self._process.wait(TIMEOUT_SECS)


class Tasks:
  """Starts tasks of servers and two workers; kills them on exit.

  Args:
    data: dataset_dir of trained_kit.make_dataset.
    folder: pathlib.Path of the logs and the train directory.
    *flags: further flags of all tasks.
    num_ps: parameter servers; 0: the flags have --all_reduce.
  """

  def __init__(self, data, folder, *flags, num_ps=1):
    self.train_dir = folder / 'train'
    self._folder = folder
    ps_hosts, worker_hosts = machine.local_lists(num_ps, 2)
    self.cluster = hosts.parse(ps_hosts, worker_hosts, not num_ps)
    self._arguments = train_arguments(
        data, self.train_dir, '--clone_on_cpu', '--ps_hosts=' + ps_hosts,
        '--worker_hosts=' + worker_hosts,
        '--startup_timeout=%d' % TIMEOUT_SECS, *flags)
    self._started = []

  def start(self, job, index, *flags):
    """Starts a task; returns the Task."""
    task = Task([*self._arguments, '--job_name=' + job, '--task=%d' % index,
                 *flags], self._folder / ('%s-%d.log' % (job, index)))
    self._started.append(task)
    return task

  def start_all(self):
    """Starts and returns the parameter server and the workers."""
    return (self.start('ps', 0), self.start('worker', 0),
            self.start('worker', 1))

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    for task in self._started:
      task.kill()


@contextlib.contextmanager
def machines(number):
  """Yields connected network namespaces: [(command prefix, address)].

  Skips the test where there are none.
  """
  names = ['cl%d-%d' % (os.getpid(), index) for index in range(number)]
  with contextlib.ExitStack() as stack:

    def ip(*arguments):
      return subprocess.run(['ip', *arguments], check=True,
                            env=dict(os.environ, PATH=PATH),
                            capture_output=True, text=True)

    try:
      for name in names:
        ip('netns', 'add', name)
        stack.callback(ip, 'netns', 'delete', name)
        ip('-n', name, 'link', 'set', 'lo', 'up')
      # A switch, in the first namespace.
      ip('-n', names[0], 'link', 'add', 'v0', 'type', 'bridge')
      for index, name in enumerate(names):
        if index:
          ip('-n', names[0], 'link', 'add', 'v%d' % index, 'type', 'veth',
             'peer', 'name', 'v0', 'netns', name)
          ip('-n', names[0], 'link', 'set', 'v%d' % index, 'master', 'v0', 'up')
        ip('-n', name, 'address', 'add', '10.77.0.%d/24' % (index + 1), 'dev',
           'v0')
        ip('-n', name, 'link', 'set', 'v0', 'up')
    except (OSError, subprocess.CalledProcessError) as error:
      pytest.skip('no network namespaces here: %s' % (
          getattr(error, 'stderr', None) or error))
    yield [(['ip', 'netns', 'exec', name], '10.77.0.%d' % (index + 1))
           for index, name in enumerate(names)]


def steps_and_losses(log):
  """Returns (global step, loss) of each logged step."""
  return [(int(step), float(loss)) for step, loss in re.findall(
      r'global step (\d+): loss = (\d+\.\d+)', log)]


def loss_fell(*logs):
  """Returns whether the last losses of workers are below half of the first.

  The maximum of the first losses is that of the initial weights: a worker that
  starts later may start with a low loss.
  """
  losses = [[loss for _, loss in steps_and_losses(log)] for log in logs]
  return (max(values[-1] for values in losses) <
          max(values[0] for values in losses) / 2)
