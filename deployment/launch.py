"""Launcher of the tasks of this machine.

It is run on each machine of a cluster, with the same lists of hosts, and ends
with its tasks. Each task has its own log; the chief's lines are also printed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

from deployment import hosts

# Seconds within which the other tasks must end by themselves after the chief: a
# worker finishes its step.
END_SECS = 630.0

# Seconds from SIGTERM until a task is killed: a worker writes the last
# checkpoint.
STOP_SECS = 600.0

# Number of log lines printed for a failed task.
LAST_LINES = 15

_CHECK_SECS = 0.2


class Plan(NamedTuple):
  """The processes to start, and how."""

  # As the flags of these names.
  ps_hosts: str
  worker_hosts: str
  # Other flags of the trainer.
  flags: List[str]
  # Path of the trainer.
  program: str
  # Folder of the logs.
  log_dir: str
  # Seconds.
  startup_timeout: float
  # Whether all workers are needed.
  is_synchronous: bool
  # How often a failed worker is started again.
  restarts: int


class _Process:
  """A task that runs as a process with a log file."""

  def __init__(self, task, command, log_dir):
    self.task = task
    self.log = os.path.join(log_dir, task.name + '.log')
    with open(self.log, 'ab') as file:
      self._begin = file.tell()
      # In its own session, so that Ctrl-C reaches only the launcher, which
      # passes it on in the right order.
      self._process = subprocess.Popen(
          command, stdin=subprocess.DEVNULL, stdout=file,
          stderr=subprocess.STDOUT, start_new_session=True)
    self._shown = self._begin
    self._is_asked = False

  @property
  def status(self):
    """Exit status as in a shell; None while it runs."""
    code = self._process.poll()
    return code if code is None or code >= 0 else 128 - code

  def ask_to_end(self):
    """Sends SIGTERM once: a second one would interrupt the last checkpoint."""
    if not self._is_asked:
      self._is_asked = True
      self._process.terminate()

  def kill(self):
    self._process.kill()

  def wait(self, seconds):
    """Waits at most `seconds` for its end; returns whether it has ended."""
    try:
      self._process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
      return False
    return True

  def new_lines(self):
    """Returns the complete log lines that were not returned before."""
    with open(self.log, 'rb') as file:
      file.seek(self._shown)
      data = file.read()
    data = data[:data.rfind(b'\n') + 1]
    self._shown += len(data)
    return data.decode(errors='replace').splitlines()

  def last_lines(self):
    """Returns the last log lines of this process."""
    with open(self.log, 'rb') as file:
      file.seek(self._begin)
      data = file.read()
    return data.decode(errors='replace').splitlines()[-LAST_LINES:]


class _Failed(Exception):
  """A task failed that the others need."""

  def __init__(self, process):
    super().__init__()
    self.process = process


class _Over(Exception):
  """Training ended before all tasks had answered."""


class _Interrupted(Exception):
  """A signal arrived before training began, or a second signal."""

  def __init__(self, number):
    super().__init__()
    self.number = number  # Of the first signal.


class Launcher:
  """All tasks of this machine.

  Args:
    plan: Plan.

  Raises:
    InputError: the lists are wrong, no task is here, or a port is taken.
  """

  def __init__(self, plan: Plan):
    self._plan = plan
    self._cluster = hosts.parse(plan.ps_hosts, plan.worker_hosts,
                                all_reduce=not plan.ps_hosts)
    self._tasks = hosts.of_this_machine(self._cluster)
    hosts.check_free(self._tasks)
    os.makedirs(plan.log_dir, exist_ok=True)
    self._processes: Dict[hosts.Task, _Process] = {}
    self._restarts = dict.fromkeys(self._cluster.workers, plan.restarts)
    self._signal: Optional[int] = None
    self._lost: List[int] = []  # Exit statuses of lost workers.
    self._seen: Set[hosts.Task] = set()  # Tasks whose end was handled.

  def run(self) -> int:
    """Starts the tasks and waits for their end.

    Returns:
      The exit status of the first task whose failure ended training, else of
      the chief if it is on this machine.

    Raises:
      InputError: a task does not answer in time.
    """
    with self._listening():
      try:
        for task in self._tasks:
          self._start(task)
        _say('%s; logs in %s' % (
            ', '.join(str(task) for task in self._tasks), self._plan.log_dir))
        with contextlib.suppress(_Over):
          hosts.wait_for(self._cluster.tasks, self._plan.startup_timeout,
                         self._check_during_startup)
          _say('all %d tasks answer' % len(self._cluster.tasks))
        if self._chief() is None:
          _say('the chief is %s; here: tail -f %s' % (
              self._cluster.chief,
              os.path.join(self._plan.log_dir, '*.log')))
        return self._wait()
      except _Failed as failure:
        return self._fail(failure.process)
      except _Interrupted as interrupted:
        return 128 + interrupted.number
      finally:
        self._end_all()

  @contextlib.contextmanager
  def _listening(self):
    """Passes on the first SIGTERM or Ctrl-C; a second one kills all tasks."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    old = {number: signal.signal(number, self._note) for number in numbers}
    try:
      yield
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)

  def _note(self, number, frame):
    del frame
    if self._signal is not None:
      for process in self._processes.values():
        process.kill()
      raise _Interrupted(self._signal)
    self._signal = number
    _say('%s: asking the workers to end' % signal.Signals(number).name)
    self._ask_workers()

  def _start(self, task):
    plan = self._plan
    self._processes[task] = _Process(task, [
        sys.executable, '-u', plan.program, *plan.flags,
        '--ps_hosts=' + plan.ps_hosts, '--worker_hosts=' + plan.worker_hosts,
        '--job_name=' + task.job, '--task=%d' % task.index,
        '--startup_timeout=%g' % plan.startup_timeout], plan.log_dir)
    self._seen.discard(task)

  def _chief(self):
    """Returns the chief's process, None if it is on another machine."""
    return self._processes.get(self._cluster.chief)

  def _ask_workers(self):
    """Asks the chief to end, whom the others follow, or else all workers."""
    chief = self._chief()
    if chief is not None:
      chief.ask_to_end()
      return
    for task, process in list(self._processes.items()):
      if task.job == 'worker':
        process.ask_to_end()

  def _check(self):
    """Checks the processes once; prints new lines of the chief.

    Raises:
      _Failed: a task failed that the others need.
    """
    chief = self._chief()
    if chief is not None:
      _print_new_lines(chief)
    # The chief first: if it fails, the others fail because of it.
    for task in sorted(self._processes, key=lambda t: t != self._cluster.chief):
      process = self._processes[task]
      if process.status is None or task in self._seen:
        continue
      self._seen.add(task)
      if process.status and self._signal is None:
        self._judge(process)

  def _check_during_startup(self):
    self._check()
    if self._signal is not None:
      raise _Interrupted(self._signal)
    decisive = [self._chief()] if self._chief() else self._processes.values()
    if all(process.status is not None for process in decisive):
      raise _Over

  def _judge(self, process):
    """Restarts a failed task, continues without it, or raises _Failed."""
    task = process.task
    if (task.job == 'ps' or task == self._cluster.chief or
        self._plan.is_synchronous):
      raise _Failed(process)
    if self._restarts[task]:
      self._restarts[task] -= 1
      _say('%s ended with status %d (%s): started again, %d restarts left' % (
          task, process.status, process.log, self._restarts[task]))
      self._start(task)
      return
    self._lost.append(process.status)
    _say('%s ended with status %d (%s): the others continue' % (
        task, process.status, process.log))

  def _wait(self):
    """Waits until all have ended; returns the exit status."""
    end = None
    while any(process.status is None for process in self._processes.values()):
      self._check()
      chief = self._chief()
      if chief is not None and chief.status is not None:
        end = end or time.monotonic() + END_SECS
        if time.monotonic() > end:
          _say('not all tasks ended within %g s' % END_SECS)
          break
      time.sleep(_CHECK_SECS)
    self._check()
    chief = self._chief()
    if chief is not None:
      return chief.status
    workers = [process for task, process in self._processes.items()
               if task.job == 'worker']
    if self._lost and all(process.status for process in workers):
      return self._lost[0]
    return 0

  def _fail(self, process):
    """Prints which task failed and the end of its log; returns its status."""
    if process is self._chief():
      _print_new_lines(process)
    else:
      print('\n'.join(process.last_lines()), file=sys.stderr, flush=True)
    print('run_cluster: %s ended with status %d; the last lines of %s are above'
          % (process.task, process.status, process.log),
          file=sys.stderr, flush=True)
    return process.status

  def _end_all(self):
    """Ends the running tasks: workers first, which may save a checkpoint."""
    for job in ('worker', 'ps'):
      processes = [process for task, process in self._processes.items()
                   if task.job == job]
      for process in processes:
        process.ask_to_end()
      end = time.monotonic() + STOP_SECS
      for process in processes:
        if not process.wait(end - time.monotonic()):
          _say('%s does not end: killed' % (process.task,))
          process.kill()
          process.wait(STOP_SECS)
    chief = self._chief()
    if chief is not None:
      _print_new_lines(chief)


def _print_new_lines(process):
  for line in process.new_lines():
    print('[%s] %s' % (process.task.name, line), flush=True)


def _say(text):
  print('run_cluster: ' + text, flush=True)


def local_lists(num_ps: int, num_workers: int) -> Tuple[str, str]:
  """Returns the two lists of hosts for this machine alone, with free ports.

  Args:
    num_ps: number of parameter servers.
    num_workers: number of workers.
  """
  addresses = ['127.0.0.1:%d' % port
               for port in hosts.free_ports(num_ps + num_workers)]
  return ','.join(addresses[:num_ps]), ','.join(addresses[num_ps:])
