"""Parses the lists of hosts of a cluster, and checks which tasks answer.

A task is one process of distributed training: a parameter server keeps
variables, a worker computes. Tasks are listed as for every TensorFlow 1
cluster:

  --ps_hosts=a:2222 --worker_hosts=a:2223,b:2223

Worker 0 is the chief: it begins and ends training, and writes checkpoints.
"""

import concurrent.futures
import re
import socket
import time
from typing import (
  Callable,
  Collection,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
)

import grpc

from common.errors import InputError

JOBS = ('ps', 'worker')
TITLES = {'ps': 'parameter server', 'worker': 'worker'}

# Seconds within which a task must answer.
ANSWER_SECS = 5.0

# RPC by which each task's server returns its device names (TensorFlow's
# worker_service.proto), and their prefix.
_GET_STATUS = '/tensorflow.WorkerService/GetStatus'
_DEVICES = b'/job:%s/replica:0/task:%d/'

# gRPC would use a web proxy for other hosts.
_NO_PROXY = [('grpc.enable_http_proxy', 0)]


class Task(NamedTuple):
  """One process of a cluster."""

  # 'ps' or 'worker'.
  job: str
  # In its job, from 0.
  index: int  # type: ignore[assignment]  # Hides tuple.index.
  host: str
  port: int

  @property
  def name(self) -> str:
    """Name as in log file names: worker-0."""
    return '%s-%d' % (self.job, self.index)

  @property
  def address(self) -> str:
    return '%s:%d' % (self.host, self.port)

  def __str__(self):
    return '%s %d at %s' % (self.job, self.index, self.address)


class Cluster(NamedTuple):
  """All tasks of a cluster."""

  # Parameter servers.
  ps: List[Task]
  workers: List[Task]

  @property
  def tasks(self) -> List[Task]:
    return self.ps + self.workers

  @property
  def chief(self) -> Task:
    return self.workers[0]


class Member(NamedTuple):
  """One process of a cluster."""

  cluster: Cluster
  # Of this process.
  task: Task


def parse(ps_hosts: Optional[str], worker_hosts: Optional[str],
          all_reduce: bool = False) -> Cluster:
  """Reads the lists of hosts.

  Args:
    ps_hosts: comma-separated host:port of each parameter server.
    worker_hosts: comma-separated host:port of each worker.
    all_reduce: whether there are no parameter servers.

  Returns:
    A Cluster.

  Raises:
    InputError: a list is empty, or an entry is not host:port or not unique.
  """
  if all_reduce and ps_hosts:
    raise InputError('--all_reduce has no parameter servers: omit '
                     '--ps_hosts=%s' % ps_hosts)
  cluster = Cluster([] if all_reduce else _parse_list('ps', ps_hosts),
                    _parse_list('worker', worker_hosts))
  if all_reduce and len(cluster.workers) < 2:
    raise InputError('--all_reduce needs two workers at least, --worker_hosts '
                     'has %d' % len(cluster.workers))
  seen: Dict[str, Task] = {}
  for task in cluster.tasks:
    other = seen.setdefault(task.address, task)
    if other is not task:
      raise InputError(
          '%s is listed twice, as %s and as %s: each task needs its own port'
          % (task.address, other.name, task.name))
  return cluster


def _parse_list(job, text):
  """Returns the Tasks of one flag."""
  flag = '--%s_hosts' % job
  entries = [entry.strip() for entry in (text or '').split(',')]
  if not any(entries):
    raise InputError('%s is empty: give the host:port of each %s, as in '
                     '%s=a:2222,b:2222%s' % (
                         flag, TITLES[job], flag,
                         ', or --all_reduce' * (job == 'ps')))
  tasks = []
  for index, entry in enumerate(entries):
    match = re.match(r'([^\s:/]+):(\d+)$', entry)
    if not match:
      raise InputError('%s: %r is not host:port, as in a:2222' % (flag, entry))
    port = int(match.group(2))
    if not 1 <= port <= 65535:
      raise InputError('%s: %r has an invalid port, it must be 1 to 65535' %
                       (flag, entry))
    tasks.append(Task(job, index, match.group(1), port))
  return tasks


def check_free(tasks: Iterable[Task]) -> None:
  """Checks that the ports of tasks are free on this machine.

  Args:
    tasks: Tasks of this machine.

  Raises:
    InputError: a port is not free; names the port and its task.
  """
  for task in tasks:
    with socket.socket() as probe:
      # As TensorFlow's server does, to ignore connections just closed.
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        probe.bind(('', task.port))
        probe.listen(1)
      except OSError as error:
        raise InputError('port %d of %s is not free: %s' % (
            task.port, task, error.strerror))


def why_silent(task: Task) -> Optional[str]:
  """Asks a task for its devices, to check that it answers and is that task.

  Returns:
    None if it does and is; else the reason, a few words.
  """
  try:
    with socket.create_connection((task.host, task.port), ANSWER_SECS):
      pass
  except socket.timeout:
    return 'no answer in %g s' % ANSWER_SECS
  except OSError as error:
    return error.strerror or str(error)
  # A connection is not enough: proxies accept it for any host.
  with grpc.insecure_channel(task.address, _NO_PROXY) as channel:
    get_status = channel.unary_unary(_GET_STATUS)
    try:
      devices = get_status(b'', timeout=ANSWER_SECS)
    except grpc.RpcError as error:
      return 'no TensorFlow answers: %s' % error.code().name
  if _DEVICES % (task.job.encode(), task.index) not in devices:
    return 'another task answers'
  return None


class Watch:
  """Tracks which tasks answer, and since when others do not.

  Args:
    tasks: Tasks to ask.
    answered: those of them that have just answered another check.
  """

  def __init__(self, tasks: Iterable[Task], answered: Collection[Task] = ()):
    now = time.monotonic()
    self._answered = {task: now if task in answered else None for task in tasks}
    self.reasons: Dict[Task, Optional[str]] = {}

  def look(self) -> None:
    """Asks all tasks in parallel."""
    tasks = list(self._answered)
    if not tasks:
      return
    with concurrent.futures.ThreadPoolExecutor(min(32, len(tasks))) as pool:
      reasons = list(pool.map(why_silent, tasks))
    now = time.monotonic()
    for task, reason in zip(tasks, reasons):
      self.reasons[task] = reason
      if reason is None:
        self._answered[task] = now

  def missing(self) -> List[Task]:
    """Returns the tasks that have never answered."""
    return [task for task, moment in self._answered.items() if moment is None]

  def gone_for(self, task: Task) -> float:
    """Returns seconds since a task last answered; 0 if it never did."""
    moment = self._answered[task]
    if moment is None or self.reasons[task] is None:
      return 0.0
    return time.monotonic() - moment


def wait_for(tasks: Iterable[Task], timeout: float,
             is_over: Callable[[], bool] = lambda: False) -> bool:
  """Waits until each task has answered once; returns whether all have.

  Args:
    tasks: Tasks.
    timeout: seconds.
    is_over: function that is called while waiting; the wait ends when it
      returns True.

  Raises:
    InputError: some did not answer in time.
  """
  watch = Watch(tasks)
  end = time.monotonic() + timeout
  while True:
    watch.look()
    missing = watch.missing()
    if not missing:
      return True
    if is_over():
      return False
    if time.monotonic() > end:
      raise InputError('no answer within --startup_timeout=%g s from %s' % (
          timeout, ', '.join('%s (%s)' % (task, watch.reasons[task])
                             for task in missing)))
    time.sleep(min(0.3, max(0.0, end - time.monotonic())))
