"""Synchronous optimizer that applies the gradients of several workers."""

import threading
from typing import Any, Optional, Sequence, Tuple

from compat import tf

# Seconds for the last update to notice that its session is closed.
_JOIN_SECS = 60.0


class SyncOptimizer(tf.train.SyncReplicasOptimizer):
  """TensorFlow's SyncReplicasOptimizer with a clean shutdown.

  TensorFlow's queue runner, which the chief starts, keeps waiting for gradients
  at the end: the supervisor waits two minutes for it and gives up. On
  TensorFlow 2 it also closes the token queue, so a restarted chief finds it
  closed.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self._updates: Optional[_Updates] = None

  def apply_gradients(self, grads_and_vars: Sequence[Tuple[Any, tf.Variable]],
                      global_step: Optional[tf.Variable] = None,
                      name: Optional[str] = None) -> tf.Operation:
    """Returns the operation of a worker's step, as TensorFlow's does."""
    step = super().apply_gradients(grads_and_vars, global_step, name)
    # identity: TensorFlow would warn, with a stack trace, that the op is unused
    # if a task ends before it has a session.
    self.ready_for_local_init_op: tf.Tensor = tf.identity(
        self.ready_for_local_init_op)
    return step

  def get_chief_queue_runner(self) -> '_Updates':
    """Returns the chief's queue runner, for the supervisor to start."""
    self._updates = _Updates(super().get_chief_queue_runner().enqueue_ops)
    return self._updates

  def finish(self) -> None:
    """Waits for the last update, after the session is closed."""
    if self._updates is not None:
      self._updates.join()


class _Updates:
  """Applies the gradients step by step; used as a queue runner.

  Args:
    ops: operations of one update.
  """

  def __init__(self, ops):
    self._ops = ops
    self._thread = None

  def create_threads(self, sess, coord, daemon, start):
    """Starts a thread; returns [], so that the supervisor joins none."""
    self._thread = threading.Thread(target=self._run, args=(sess, coord),
                                    daemon=daemon)
    if start:
      self._thread.start()
    return []

  def join(self):
    # Python aborts if it exits while a thread is inside TensorFlow.
    if self._thread is not None:
      self._thread.join(_JOIN_SECS)

  def _run(self, session, coordinator):
    while not coordinator.should_stop():
      try:
        session.run(self._ops)
      except (tf.errors.OpError, RuntimeError) as error:
        # At the end the session is closed, which raises a RuntimeError.
        coordinator.request_stop(
            None if coordinator.should_stop() else error)
        return
