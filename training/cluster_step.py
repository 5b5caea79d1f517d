"""Training steps of one worker of a cluster."""

import time
from typing import Any, Dict, Optional

from compat import tf
from deployment import all_reduce, cluster
from training import loop
from training.graph import FROZEN_LOSSES

# Seconds between two checks whether training has ended, in asynchronous
# training.
_CHECK_SECS = 1.0


class ClusterStep(loop.TrainStep):
  """A training step that starts and ends with the other workers.

  Args:
    worker: deployment.cluster.Worker.
    log_every_n_steps: steps between two log lines.
    is_synchronous: whether the workers wait for each other at each step.
    stop: a loop.StopRequest.
  """

  def __init__(self, worker: cluster.Worker, log_every_n_steps: int,
               is_synchronous: bool, stop: loop.StopRequest) -> None:
    super().__init__(stop)
    self._worker = worker
    self._every = log_every_n_steps
    self._check_secs = 0.0 if is_synchronous else _CHECK_SECS
    self._checked_at = 0.0
    self._logged_line: Optional[int] = None
    self._was_ended = False

  def prepare(self) -> bool:
    """Waits for the chief; returns whether to train."""
    return self._worker.wait_for_weights(lambda: self.stop_requested)

  def begin(self, session: tf.Session) -> None:
    """Waits for the workers before the first step."""
    del session
    self._worker.begin(lambda: self.stop_requested)

  def __call__(self, session: tf.Session, train_op: tf.Tensor,
               global_step: tf.Variable,
               train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Returns the loss and whether to stop."""
    try:
      if self._has_ended():
        tf.logging.info('Training has ended: stopping.')
        self._was_ended = True
        return self._loss, True
      return super().__call__(session, train_op, global_step,
                              train_step_kwargs)
    except cluster.LOST_ERRORS as error:
      # slim would restart, and wait forever for the lost task.
      raise self._worker.describe_loss(error) from None

  def _has_ended(self):
    if time.monotonic() < self._checked_at + self._check_secs:
      return False
    self._checked_at = time.monotonic()
    return self._worker.end_status() is not None

  def take(self, session: tf.Session, train_op: tf.Tensor,
           global_step: tf.Variable,
           train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Takes one step; returns the loss and whether it was the last."""
    start = time.time()
    loss, step = self.run(session, train_op, global_step)
    # Other workers take steps too, so this one may miss the step that is due.
    line = step // self._every
    if line != self._logged_line:
      tf.logging.info('global step %d: loss = %.4f (%.3f sec/step)', step, loss,
                      time.time() - start)
      self._logged_line = line
    self.step = step - 1  # The caller adds 1.
    return loss, session.run(train_step_kwargs['should_stop'])

  def end(self) -> None:
    """Checks how the other workers ended."""
    if self._was_ended:
      self._worker.check_end()


class AllReduceStep(loop.TrainStep):
  """A training step of workers that exchange gradients with each other.

  All end with the same step: that after which one of them was asked to stop, or
  the last.

  Args:
    worker: deployment.cluster.Worker.
    stop: a loop.StopRequest.
  """

  may_stop_alone = False

  def __init__(self, worker: cluster.Worker, stop: loop.StopRequest) -> None:
    super().__init__(stop)
    self._worker = worker

  def begin(self, session: tf.Session) -> None:
    """Takes over the chief's variables, and what depends on them."""
    graph = session.graph
    session.run(graph.get_operation_by_name(all_reduce.BEGIN))
    session.run(graph.get_collection(FROZEN_LOSSES))
    self.step = session.run(tf.train.get_global_step(graph))

  def __call__(self, session: tf.Session, train_op: tf.Tensor,
               global_step: tf.Variable,
               train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Returns the loss and whether to stop."""
    try:
      return super().__call__(session, train_op, global_step,
                              train_step_kwargs)
    except cluster.LOST_ERRORS as error:
      raise self._worker.describe_loss(error) from None

  def feed(self) -> Dict[Any, Any]:
    """Returns the request to stop, for all workers."""
    return {all_reduce.STOP: float(self.stop_requested)}

  def take(self, session: tf.Session, train_op: tf.Tensor,
           global_step: tf.Variable,
           train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Takes one step; returns the loss and whether it was the last."""
    loss, last = super().take(session, train_op, global_step,
                              train_step_kwargs)
    if session.run(all_reduce.STOPS):
      tf.logging.info('%s: stopping after this step.',
                      self._stop.signal or 'Another worker stops')
      self._worker.was_stopped = last = True
    if last:
      self._worker.leave()
    return loss, last
