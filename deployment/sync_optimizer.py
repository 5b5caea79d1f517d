"""Gradients of several workers applied as one."""

import threading

from compat import tf

# Seconds that the last update may take to notice that its session is closed.
_JOIN_SECS = 60.0


class SyncOptimizer(tf.train.SyncReplicasOptimizer):
  """TensorFlow's SyncReplicasOptimizer, with an end.

  Its queue runner, which the chief starts, waits for the next gradients while
  nobody sends any: the supervisor waits two minutes for it and gives up. And
  on TensorFlow 2 it closes the queue of tokens, so that a chief that is started
  again finds it closed.
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self._updates = None

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """Returns the operation of a worker's step, as TensorFlow's does."""
    step = super().apply_gradients(grads_and_vars, global_step, name)
    # A task that ends before it has a session would be told, with the stack,
    # that this is used by nobody.
    self.ready_for_local_init_op = tf.identity(self.ready_for_local_init_op)
    return step

  def get_chief_queue_runner(self):
    """Returns what the supervisor starts as the chief's queue runner."""
    self._updates = _Updates(super().get_chief_queue_runner().enqueue_ops)
    return self._updates

  def finish(self):
    """Waits for the last update, when the session is closed."""
    if self._updates is not None:
      self._updates.join()


class _Updates:
  """Applies the gradients, step after step, as a queue runner would.

  Args:
    ops: operations of one update.
  """

  def __init__(self, ops):
    self._ops = ops
    self._thread = None

  def create_threads(self, sess, coord, daemon, start):
    """Starts a thread; returns none, for the supervisor is to join none."""
    self._thread = threading.Thread(target=self._run, args=(sess, coord),
                                    daemon=daemon)
    if start:
      self._thread.start()
    return []

  def join(self):
    # A thread inside TensorFlow aborts a Python that ends.
    if self._thread is not None:
      self._thread.join(_JOIN_SECS)

  def _run(self, session, coordinator):
    while not coordinator.should_stop():
      try:
        session.run(self._ops)
      except (tf.errors.OpError, RuntimeError) as error:
        # The end closes the session; a RuntimeError says that it is closed.
        coordinator.request_stop(
            None if coordinator.should_stop() else error)
        return
