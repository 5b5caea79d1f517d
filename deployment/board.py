"""State that the tasks of a cluster share through the parameter servers."""

import contextlib
from typing import NamedTuple, Optional, Sequence

from compat import tf
from deployment import hosts

# How training ended: normally; the chief failed; the chief was asked to stop;
# LOST + i: worker i, which the others need, no longer answers.
ENDED, FAILED, STOPPED, LOST = 0, 1, 2, 3

# Timeout of the board's own session, whose operations never wait.
_TIMEOUT_MS = 60000


class _Mark(NamedTuple):
  """A number on a parameter server, uninitialized until the first put."""

  # Whether it has been put.
  is_set: tf.Tensor
  value: tf.Tensor
  # Placeholder of the number to put.
  new: tf.Tensor
  # Assigns `new`.
  put: tf.Operation


class Board:
  """State that the tasks of a cluster share.

  It consists of numbers in variables that are in no collection and no
  checkpoint. Like everything on a parameter server, they outlive their writer.

  Args:
    target: address of this process's server.
    member: the Member of this process. A parameter server reads and writes only
      its own variables, a worker those of all servers.
  """

  def __init__(self, target: str, member: hosts.Member):
    cluster, task = member
    servers: Sequence[int] = range(len(cluster.ps))
    if task.job == 'ps':
      servers = [task.index]
    self._tokens = None
    with tf.Graph().as_default() as graph:
      self._ended = {server: _mark('ended', server) for server in servers}
      if 0 in servers:
        self._begun = _mark('begun', 0)
        self._joined = [_mark('joined_%d' % other.index, 0)
                        for other in cluster.workers]
        self._tokens = _tokens(len(cluster.workers))
      graph.finalize()
      self._session = tf.Session(target, config=tf.ConfigProto(
          device_filters=['/job:ps' + ('/task:%d' % task.index
                                       if task.job == 'ps' else ''),
                          '/job:%s/task:%d' % (task.job, task.index)],
          operation_timeout_in_ms=_TIMEOUT_MS))

  def _get(self, mark):
    if self._session.run(mark.is_set):
      return int(self._session.run(mark.value))
    return None

  def _put(self, mark, number):
    self._session.run(mark.put, {mark.new: number})

  def begin(self, needed: int) -> None:
    """Records that the variables are initialized and training has begun.

    Args:
      needed: least number of workers that training needs; 0: any number.
    """
    self._put(self._begun, needed)

  def needed(self) -> Optional[int]:
    """Returns the argument of `begin`, None before it was called."""
    return self._get(self._begun)

  def join(self, index: int) -> None:
    """Records that a worker has joined."""
    self._put(self._joined[index], 1)

  def joined(self, index: int) -> bool:
    """Returns whether a worker has ever joined."""
    return self._get(self._joined[index]) is not None

  def end(self, status: int) -> None:
    """Records that training has ended.

    Args:
      status: ENDED, FAILED, STOPPED, or LOST + index of a worker.
    """
    for mark in self._ended.values():
      self._put(mark, status)

  def ended(self) -> Optional[int]:
    """Returns the argument of `end`, None before it was called."""
    return self._get(min(self._ended.items())[1])

  def release(self) -> None:
    """Releases workers that wait for others in a synchronous step."""
    with contextlib.suppress(tf.errors.CancelledError, tf.errors.AbortedError):
      if self._tokens is not None:
        self._session.run(self._tokens)


def _mark(name, server):
  """Returns the _Mark of a name on a parameter server."""
  new = tf.placeholder(tf.int32, [])
  with tf.device('/job:ps/task:%d/device:CPU:0' % server):
    # The same name in the graphs of all tasks, which share it by name.
    variable = tf.Variable(0, trainable=False, collections=[], dtype=tf.int32,
                           name='board/%s_%d' % (name, server),
                           use_resource=False)
    # identity: TensorFlow warns if the result has no consumer.
    is_set = tf.identity(tf.is_variable_initialized(variable))
    return _Mark(is_set, variable.read_value(), new,
                 tf.assign(variable, new).op)


def _tokens(number):
  """Returns the operation that gives tokens to the workers.

  SyncReplicasOptimizer lets a worker begin its next step when it gets a token.
  The token queue has this name, and is on the first server, like the global
  step. Gradients of step -1 are stale, so they are dropped.
  """
  with tf.device('/job:ps/task:0/device:CPU:0'):
    queue = tf.FIFOQueue(-1, tf.int64, shapes=(), name='sync_token_q',
                         shared_name='sync_token_q')
    return queue.enqueue_many((tf.fill([number], tf.constant(-1, tf.int64)),))
