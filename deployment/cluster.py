"""Distributed training with TensorFlow's own runtime.

Each task has a tf.train.Server. The variables are on the parameter servers; the
session of a worker contains only those and the worker itself, so training
continues if a worker dies. The chief is worker 0.

The tasks share their state through the parameter servers too: the board, in
variables that are not trained. It survives if the chief is killed, so the chief
can be restarted; if the chief ends, it says so on the board, and all tasks end.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Iterator, Optional

from common.errors import InputError
from compat import tf
from deployment import hosts
from deployment.board import ENDED, FAILED, LOST, STOPPED, Board
from deployment.hosts import Member

# Seconds without an answer after which a task counts as gone.
GONE_SECS = 15.0

# Seconds that the parameter servers wait for the workers' last step after
# training has ended.
LINGER_SECS = 600.0

# Seconds between two checks of the board, or of which tasks answer.
_LOOK_SECS = 0.5

# Exit status of training that was asked to stop: that of SIGTERM, after which
# Kubeflow's restart policy ExitCode starts a task again.
STOPPED_STATUS = 128 + signal.SIGTERM

# Errors of a step if its parameter server is gone; usually it just hangs.
LOST_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError)


class TaskLost(InputError):
  """Raised when a task that every step needs no longer answers."""


def find_member(ps_hosts: Optional[str], worker_hosts: Optional[str],
                job_name: Optional[str], index: int, master: str,
                all_reduce: bool = False) -> Optional[Member]:
  """Returns the cluster and the task of this process.

  Args:
    ps_hosts: comma-separated host:port of each parameter server.
    worker_hosts: comma-separated host:port of each worker.
    job_name: job of this process, of hosts.JOBS.
    index: number of its task in the job.
    master: address of another TensorFlow master, which is not accepted.
    all_reduce: whether there are no parameter servers.

  Returns:
    A Member; None without lists of hosts.

  Raises:
    InputError: the lists are wrong, or another argument contradicts them.
  """
  if not (ps_hosts or worker_hosts):
    if job_name:
      raise InputError('--job_name=%s needs --ps_hosts and --worker_hosts' %
                       job_name)
    return None
  cluster = hosts.parse(ps_hosts, worker_hosts, all_reduce)
  if not job_name:
    raise InputError('--worker_hosts is given without the task of this '
                     'process: add --job_name=ps or worker, and --task; '
                     'scripts/run_cluster.sh starts all tasks of a machine')
  if master:
    raise InputError('--master=%s: with --worker_hosts each worker has its '
                     'own server' % master)
  tasks = cluster.ps if job_name == 'ps' else cluster.workers
  if index >= len(tasks):
    raise InputError('--task=%d: --%s_hosts has tasks 0 to %d' % (
        index, job_name, len(tasks) - 1))
  return Member(cluster, tasks[index])


def session_config(config: tf.ConfigProto, index: int) -> tf.ConfigProto:
  """Returns the config of a worker's session, without other workers.

  Args:
    config: tf.ConfigProto.
    index: number of the worker.
  """
  filtered = tf.ConfigProto()
  filtered.CopyFrom(config)
  filtered.device_filters.extend(['/job:ps', '/job:worker/task:%d' % index])
  return filtered


def _start_server(member, config):
  """Returns the tf.train.Server of this process's task."""
  cluster, task = member
  hosts.check_free([task])
  # gRPC would use a web proxy for the other hosts.
  names = {other.host for other in cluster.tasks}
  for variable in ('no_proxy', 'no_grpc_proxy'):
    before = [os.environ[variable]] if os.environ.get(variable) else []
    os.environ[variable] = ','.join(before + sorted(names))
  spec = tf.train.ClusterSpec({
      job: [other.address for other in tasks]
      for job, tasks in zip(hosts.JOBS, cluster) if tasks})
  try:
    return tf.train.Server(spec, job_name=task.job, task_index=task.index,
                           config=config)
  except tf.errors.OpError as error:
    raise InputError('%s cannot be started: %s' % (
        task, error.message.splitlines()[0]))


def serve(member: Member, timeout: float) -> int:
  """Serves variables until training has ended.

  On SIGTERM it continues until the chief, which an orchestrator asks to stop at
  the same time, has saved the last checkpoint.

  Args:
    member: the Member of this process, of the job ps.
    timeout: seconds within which the chief must answer, at the start and again
      after it was killed.

  Returns:
    The exit status: 0 if training ended normally, STOPPED_STATUS if it was
    asked to stop.

  Raises:
    InputError: the chief does not answer.
  """
  cluster, task = member
  server = _start_server(member, tf.ConfigProto(device_count={'GPU': 0}))
  tf.logging.info('Serving variables as %s', task)
  hosts.wait_for([cluster.chief], timeout)
  board = Board(server.target, member)
  watch = hosts.Watch(cluster.workers, answered=[cluster.chief])
  stop = threading.Event()
  signal.signal(signal.SIGTERM, lambda *unused: stop.set())
  while board.ended() is None:
    time.sleep(_LOOK_SECS)
    watch.look()
    gone = watch.gone_for(cluster.chief)
    if gone and stop.is_set():
      return STOPPED_STATUS
    if gone > timeout:
      raise InputError('%s, the chief, has not answered for %.0f s: ending' % (
          cluster.chief, gone))
    if task.index == 0:
      _end_if_too_few_workers(board, watch, cluster)
  tf.logging.info('Training has ended: waiting for the workers')
  end = time.monotonic() + LINGER_SECS
  while time.monotonic() < end:
    board.release()
    watch.look()
    if all(watch.reasons[worker] for worker in cluster.workers):
      break
    time.sleep(_LOOK_SECS)
  ended = board.ended()
  if ended == STOPPED:
    return STOPPED_STATUS
  return 0 if ended == ENDED else 1


def _end_if_too_few_workers(board, watch, cluster):
  """Ends synchronous training if too few workers are left."""
  needed = board.needed()
  if not needed:
    return
  # Without the chief, which may be restarted.
  gone = [worker for worker in cluster.workers[1:]
          if watch.gone_for(worker) > GONE_SECS]
  if gone and len(cluster.workers) - len(gone) < needed:
    tf.logging.info('%s no longer answers: ending', gone[0])
    board.end(LOST + gone[0].index)


class Worker:
  """This process as a worker of a cluster.

  Args:
    member: the Member of this process.
    config: tf.ConfigProto of its server.
    timeout: seconds within which the others must answer.
    needed: least number of workers that training needs; 0: any number.

  Attributes:
    target: address for sessions.
    was_stopped: whether training was asked to stop; set by the caller.

  Raises:
    InputError: the port is not free, or others do not answer.
  """

  def __init__(self, member: Member, config: tf.ConfigProto, timeout: float,
               needed: int = 0) -> None:
    cluster, task = member
    self._member, self._timeout, self._needed = member, timeout, needed
    self._server = _start_server(member, config)
    self.is_chief = task == cluster.chief
    self.was_stopped = False
    self.target = self._server.target
    others = cluster.ps + (cluster.workers[1:] if self.is_chief
                           else [cluster.chief])
    # Those without which no step can end.
    self._needed_tasks = cluster.ps
    if not cluster.ps:
      others = [other for other in cluster.workers if other != task]
      self._needed_tasks = others
    tf.logging.info('Waiting for %s', ', '.join(map(str, others)))
    hosts.wait_for(others, timeout)
    self._over = threading.Event()
    # Only parameter servers have one.
    self._board: Any = Board(self.target, member) if cluster.ps else None

  @contextlib.contextmanager
  def ending_all(self) -> Iterator['Worker']:
    """Context that, on the chief, ends all tasks when its body ends.

    If a task was lost without which no step can end, the process ends here:
    closing a session would wait for that task.
    """
    watching = threading.Thread(target=self._watch_needed_tasks, daemon=True)
    watching.start()
    status = FAILED
    try:
      yield self
      status = STOPPED if self.was_stopped else ENDED
    except TaskLost as lost:
      _end_process(lost)
    except LOST_ERRORS as error:
      _end_process(self.describe_loss(error))
    finally:
      if self.is_chief and self._board:
        try:
          self._board.end(status)
        except tf.errors.OpError as error:
          tf.logging.warning('The parameter servers cannot be told to end: %s',
                             error.message.splitlines()[0])
      self.leave()
      # Python aborts if it exits while a thread is inside a library.
      watching.join()

  def leave(self) -> None:
    """Ends the watch over the other tasks, which may end from now on."""
    self._over.set()

  def _watch_needed_tasks(self):
    """Ends this process when a task is gone without which no step can end.

    A step would wait for it forever, and cannot be interrupted. The variables
    are gone, or changed by an incomplete step.
    """
    watch = hosts.Watch(self._needed_tasks, answered=self._needed_tasks)
    while not self._over.wait(2 * _LOOK_SECS):
      watch.look()
      if any(watch.gone_for(task) > GONE_SECS
             for task in self._needed_tasks) and not self._over.is_set():
        _end_process(_loss_of_tasks(watch))

  def wait_for_weights(self, is_stopped: Callable[[], bool]) -> bool:
    """Waits until the chief, unless this is it, has initialized the variables.

    Args:
      is_stopped: function that returns whether a stop was requested.

    Returns:
      Whether to train: False if training has ended or a stop was requested.

    Raises:
      InputError: the training failed, or the chief no longer answers.
    """
    chief = self._member.cluster.chief
    watch = hosts.Watch([chief], answered=[chief])
    if not self.is_chief:
      tf.logging.info('Waiting for the chief to initialize the variables')
    while not self.is_chief and self._board.needed() is None:
      if is_stopped() or self.end_status() is not None:
        self.check_end()
        return False
      watch.look()
      gone = watch.gone_for(chief)
      if gone > self._timeout:
        raise InputError('%s, the chief, has not answered for %.0f s' % (
            chief, gone))
      time.sleep(_LOOK_SECS)
    return True

  def begin(self, is_stopped: Callable[[], bool]) -> None:
    """Records that this worker begins; the chief waits for all others.

    Args:
      is_stopped: function that returns whether a stop was requested.
    """
    cluster, task = self._member
    if not self.is_chief:
      self._board.join(task.index)
      return
    self._board.begin(self._needed)
    others = cluster.workers[1:]
    watch = hosts.Watch(others, answered=others)
    end = time.monotonic() + self._timeout
    while time.monotonic() < end and not is_stopped():
      watch.look()
      if all(self._board.joined(worker.index) or
             watch.gone_for(worker) > GONE_SECS for worker in others):
        break
      time.sleep(_LOOK_SECS)

  def end_status(self) -> Optional[int]:
    """Returns how training ended, None while it runs."""
    return self._board.ended()

  def check_end(self) -> None:
    """Raises InputError if training has failed."""
    status = self.end_status()
    self.was_stopped |= status == STOPPED
    if status is None or status in (ENDED, STOPPED):
      return
    if status == FAILED:
      raise InputError('%s, the chief, failed: its log has the reason' % (
          self._member.cluster.chief,))
    raise InputError(
        '%s no longer answers, and --sync_replicas needs at least %d workers: '
        'training has ended' % (
            self._member.cluster.workers[status - LOST], self._needed))

  def describe_loss(self, error: tf.errors.OpError) -> TaskLost:
    """Returns the TaskLost for an error of LOST_ERRORS.

    Args:
      error: the error that a step raised.
    """
    watch = hosts.Watch(self._needed_tasks)
    watch.look()
    return _loss_of_tasks(watch, error.message.splitlines()[0])


def _loss_of_tasks(watch, reason=''):
  """Returns the TaskLost that names the tasks that no longer answer."""
  gone = ['%s (%s)' % (task, silence)
          for task, silence in watch.reasons.items() if silence]
  job = min(watch.reasons).job
  return TaskLost(
      'a %s was lost: %s; start all tasks again, training resumes from the '
      'newest checkpoint' % (hosts.TITLES[job], ', '.join(gone) or reason))


def _end_process(lost):
  """Prints a TaskLost, and ends this process at once."""
  print('%s: error: %s' % (os.path.basename(sys.argv[0]), lost),
        file=sys.stderr, flush=True)
  os._exit(1)
