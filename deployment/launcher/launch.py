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
from typing import Dict, List, NamedTuple, Optional

from deployment import hosts
from deployment.launcher import machine

# Seconds that the others have to end after the chief, when a worker finishes
# its step; and that each task has after SIGTERM, to write a last checkpoint.
END_SECS = 630.0

# Number of log lines printed for a failed task.
LAST_LINES = 15

_CHECK_SECS = 0.2


class Plan(NamedTuple):
  """The processes to start, and how."""

  # As the flags of these names.
  ps_hosts: str
  worker_hosts: str
  startup_timeout: float
  restarts: int
  # Other flags of the trainer.
  flags: List[str]
  # Path of the trainer.
  program: str
  # Folder of the logs.
  log_dir: str
  # Whether all workers are needed.
  is_synchronous: bool


class _Failed(Exception):
  """A task failed that the others need; the argument is its exit status."""


class Launcher:
  """All tasks of this machine.

  Raises:
    InputError: the lists are wrong, no task is here, or a port is taken.
  """

  def __init__(self, plan: Plan):
    self._plan = plan
    self._cluster = hosts.parse(plan.ps_hosts, plan.worker_hosts,
                                all_reduce=not plan.ps_hosts)
    self._chief = self._cluster.chief
    self._tasks = machine.of_this_machine(self._cluster)
    hosts.check_free(self._tasks)
    os.makedirs(plan.log_dir, exist_ok=True)
    self._logs = {task: os.path.join(plan.log_dir, task.name + '.log')
                  for task in self._tasks}
    self._printed: Dict[hosts.Task, int] = {}  # Bytes of each log.
    self._running: Dict[hosts.Task, subprocess.Popen] = {}
    self._statuses: Dict[hosts.Task, int] = {}  # Of tasks that have ended.
    self._restarts = dict.fromkeys(self._cluster.workers, plan.restarts)
    self._signal: Optional[int] = None
    self._first_failure = 0  # Exit status of the first task that failed.

  def run(self) -> int:
    """Starts the tasks and waits for their end.

    Returns:
      The exit status of the first task whose failure ended training, else of
      the chief if it is on this machine.

    Raises:
      InputError: a task does not answer in time.
    """
    with contextlib.ExitStack() as stack:
      for number in (signal.SIGTERM, signal.SIGINT):
        stack.callback(signal.signal, number,
                       signal.signal(number, self._note_signal))
      stack.callback(self._end_all)
      for task in self._tasks:
        self._start(task)
      _say('%s; logs in %s; the chief is %s' % (
          ', '.join(map(str, self._tasks)), self._plan.log_dir, self._chief))
      try:
        if hosts.wait_for(self._cluster.tasks, self._plan.startup_timeout,
                          self._check):
          _say('all %d tasks answer' % len(self._cluster.tasks))
        elif self._signal:
          return 128 + self._signal
        self._wait()
      except _Failed as failure:
        return failure.args[0]
    of_workers = [status for task, status in self._statuses.items()
                  if task.job == 'worker']
    return self._statuses.get(
        self._chief, self._first_failure if all(of_workers) else 0)

  def _note_signal(self, number, *_):
    """Notes the first SIGTERM or Ctrl-C; at the second one kills all tasks."""
    if self._signal:
      for process in self._running.values():
        process.kill()
      os._exit(128 + self._signal)
    self._signal = number
    # Not print: the signal may interrupt another one.
    os.write(sys.stdout.fileno(), (
        'run_cluster: %s: asking the workers to end; a second signal kills all '
        'tasks\n' % signal.Signals(number).name).encode())

  def _start(self, task):
    plan = self._plan
    with open(self._logs[task], 'ab') as file:
      self._printed[task] = file.tell()
      # In its own session, so that Ctrl-C reaches only the launcher, which
      # passes it on in the right order.
      self._running[task] = subprocess.Popen(
          [sys.executable, '-u', plan.program, *plan.flags,
           '--ps_hosts=' + plan.ps_hosts, '--worker_hosts=' + plan.worker_hosts,
           '--job_name=' + task.job, '--task=%d' % task.index,
           '--startup_timeout=%g' % plan.startup_timeout],
          stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
          start_new_session=True)

  def _print_log(self, task):
    """Prints new lines of a log: all of the chief's, the last of others."""
    with open(self._logs[task], 'rb') as file:
      file.seek(self._printed[task])
      lines = [line for line in file
               if line.endswith(b'\n') or task not in self._running]
    self._printed[task] += sum(map(len, lines))
    for line in lines if task == self._chief else lines[-LAST_LINES:]:
      print('[%s] %s' % (task.name, line.decode(errors='replace').rstrip()),
            flush=True)

  def _check(self):
    """Handles new lines and ended tasks; returns whether to stop waiting."""
    if self._chief in self._printed:
      self._print_log(self._chief)
    # The chief first: if it fails, the others fail because of it.
    for task in sorted(self._running, key=lambda task: task != self._chief):
      code = self._running[task].poll()
      if code is not None:
        del self._running[task]
        self._statuses[task] = code if code >= 0 else 128 - code
        if code and not self._signal:
          self._handle_failure(task)
    return bool(self._signal or self._chief in self._statuses or
                not self._running)

  def _handle_failure(self, task):
    """Restarts a failed task, continues without it, or raises _Failed."""
    text = '%s ended with status %d' % (task, self._statuses[task])
    if task.job == 'ps' or task == self._chief or self._plan.is_synchronous:
      self._print_log(task)
      _say('%s; the last lines of %s are on stdout' % (text, self._logs[task]),
           sys.stderr)
      raise _Failed(self._statuses[task])
    self._first_failure = self._first_failure or self._statuses[task]
    outcome = 'the others continue'
    if self._restarts[task]:
      self._restarts[task] -= 1
      self._start(task)
      outcome = 'started again, %d restarts left' % self._restarts[task]
    _say('%s (%s): %s' % (text, self._logs[task], outcome))

  def _wait(self):
    """Waits until all have ended, or too long after the chief has."""
    while not self._check():
      time.sleep(_CHECK_SECS)
    if self._signal:
      # The others follow the chief.
      for task in {self._chief} & set(self._running) or self._running:
        if task.job == 'worker':
          self._running[task].terminate()
    end = float('inf')
    while self._running and time.monotonic() < end:
      time.sleep(_CHECK_SECS)
      self._check()
      if self._chief in self._statuses:
        end = min(end, time.monotonic() + END_SECS)

  def _end_all(self):
    """Ends the running tasks: workers first, which may save a checkpoint."""
    for job in reversed(hosts.JOBS):
      processes = [process for task, process in self._running.items()
                   if task.job == job]
      for process in processes:
        process.terminate()
      end = time.monotonic() + END_SECS
      for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
          process.wait(max(0.0, end - time.monotonic()))
        process.kill()
        process.wait()
    if self._chief in self._printed:
      self._print_log(self._chief)


def _say(text, file=None):
  print('run_cluster: ' + text, file=file, flush=True)
