"""What the tasks of a training tell each other, on the parameter servers."""

import collections
import contextlib

from compat import tf

# What the end of a training is: as it should be; the chief failed; and from
# LOST on, which worker no longer answers that the others cannot do without.
ENDED, FAILED, LOST = 0, 1, 2

# Of a run of the board's own session: it never has to wait for anything.
_TIMEOUT_MS = 60000

# A number on a parameter server, which has no value until it is put there.
_Mark = collections.namedtuple('_Mark', 'is_there value new put')


class Board:
  """What the tasks of a training tell each other.

  They are numbers in variables that belong to no collection and no checkpoint.
  Like all that is on a parameter server, they stay when their writer is killed.

  Args:
    target: address of this process's server.
    member: the Member that this process is. A parameter server reads and
      writes what itself keeps, a worker all.
  """

  def __init__(self, target, member):
    cluster, task = member
    servers = range(len(cluster.ps))
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
    if self._session.run(mark.is_there):
      return int(self._session.run(mark.value))
    return None

  def _put(self, mark, number):
    self._session.run(mark.put, {mark.new: number})

  def begin(self, needed):
    """Says that the variables have their values, and training goes.

    Args:
      needed: workers that it cannot do without; 0: with any number.
    """
    self._put(self._begun, needed)

  def needed(self):
    """Returns what was given to `begin`, None before that."""
    return self._get(self._begun)

  def join(self, index):
    """Says that a worker takes part."""
    self._put(self._joined[index], 1)

  def joined(self, index):
    """Returns whether a worker takes part, or once did."""
    return self._get(self._joined[index]) is not None

  def end(self, status):
    """Says that training has ended.

    Args:
      status: ENDED, FAILED, or LOST and more.
    """
    for mark in self._ended.values():
      self._put(mark, status)

  def ended(self):
    """Returns what was given to `end`, None before that."""
    return self._get(min(self._ended.items())[1])

  def release(self):
    """Has workers go on that wait for the others of a synchronous step."""
    with contextlib.suppress(tf.errors.CancelledError, tf.errors.AbortedError):
      if self._tokens is not None:
        self._session.run(self._tokens)


def _mark(name, server):
  """Returns the _Mark of a name on a parameter server, of the default graph."""
  new = tf.placeholder(tf.int32, [])
  with tf.device('/job:ps/task:%d/device:CPU:0' % server):
    # The graphs of all tasks have it by this name.
    variable = tf.Variable(0, trainable=False, collections=[], dtype=tf.int32,
                           name='board/%s_%d' % (name, server),
                           use_resource=False)
    # TensorFlow complains where its answer is given to no other operation.
    is_there = tf.identity(tf.is_variable_initialized(variable))
    return _Mark(is_there, variable.read_value(), new,
                 tf.assign(variable, new).op)


def _tokens(number):
  """Returns the operation that gives tokens to the workers.

  By a token SyncReplicasOptimizer lets a worker begin its next step. Their
  queue has this name, and is where the global step is: on the first server.
  The gradients of step -1 are too old to count.
  """
  with tf.device('/job:ps/task:0/device:CPU:0'):
    queue = tf.FIFOQueue(-1, tf.int64, shapes=(), name='sync_token_q',
                         shared_name='sync_token_q')
    return queue.enqueue_many((tf.fill([number], tf.constant(-1, tf.int64)),))
