"""The steps of one worker among several."""

import time

from compat import tf
from deployment import cluster
from training import loop

# Seconds between two looks at whether training has ended, where steps do not
# wait for each other.
_LOOK_SECS = 1.0


class ClusterStep(loop.TrainStep):
  """slim's step, which begins with the others and ends with them.

  Args:
    worker: deployment.cluster.Worker.
    log_every_n_steps: steps between two log lines.
    is_synchronous: whether steps wait for each other.
    stop: a loop.StopRequest.
  """

  def __init__(self, worker, log_every_n_steps, is_synchronous, stop):
    super().__init__(stop)
    self._worker = worker
    self._every = log_every_n_steps
    self._look_secs = 0.0 if is_synchronous else _LOOK_SECS
    self._looked_at = 0.0
    self._logged = None
    self._was_ended = False

  def prepare(self):
    """Waits for the chief; returns whether there is something to do."""
    return self._worker.wait_for_weights(lambda: self.stop_requested)

  def begin(self, session):
    """Is called before the first step."""
    del session
    self._worker.begin(lambda: self.stop_requested)

  def __call__(self, session, train_op, global_step, train_step_kwargs):
    """Returns the loss and whether to stop."""
    try:
      if self._has_ended():
        tf.logging.info('Training has ended: stopping.')
        self._was_ended = True
        return self._loss, True
      return super().__call__(session, train_op, global_step,
                              train_step_kwargs)
    except cluster.LOST_ERRORS as error:
      # slim would begin anew, and wait for the lost one for ever.
      raise self._worker.describe_loss(error) from None

  def _has_ended(self):
    if time.monotonic() < self._looked_at + self._look_secs:
      return False
    self._looked_at = time.monotonic()
    return self._worker.end_status() is not None

  def take(self, session, train_op, global_step, train_step_kwargs):
    """Takes one step; returns the loss and whether it was the last."""
    start = time.time()
    loss, step = self.run(session, train_op, global_step)
    # Others take steps too: the one whose line is due may not be seen here.
    line = step // self._every
    if line != self._logged:
      tf.logging.info('global step %d: loss = %.4f (%.3f sec/step)', step, loss,
                      time.time() - start)
      self._logged = line
    self.step = step - 1  # The caller adds the one.
    return loss, session.run(train_step_kwargs['should_stop'])

  def end(self):
    """Is called when training has ended, with its last checkpoint."""
    if self._was_ended:
      self._worker.check_end()
