"""The event file of a training process: what is written to it, and when.

A process has one writer. TensorBoard reads the event files of a folder one
after the other, and takes each new session for a restart: points of earlier
files from its first step on are dropped.
"""

import time

from compat import tf

# A process that is killed loses the points of so many seconds.
_FLUSH_SECS = 5


class _Writer(tf.summary.FileWriter):
  """A FileWriter whose sessions start with the step that comes next.

  The supervisor gives the step of the checkpoint, which would drop the points
  of that very step, the evaluation among them.
  """

  def add_session_log(self, session_log, global_step=None):
    """Adds it as tf.summary.FileWriter does."""
    if session_log.status == tf.SessionLog.START:
      global_step += 1
    super().add_session_log(session_log, global_step)


class Summaries:
  """Writes the summaries of a run's steps.

  Args:
    train_dir: folder of the event file.
    graph: the TrainingGraph.
    every_n_steps: steps between two points of the scalars; the first step has
      one.
    secs: seconds between two summaries of photos, activations and weights; the
      first step has one.

  Attributes:
    writer: tf.summary.FileWriter, for all other summaries of the process.
  """

  def __init__(self, train_dir, graph, every_n_steps, secs):
    self.writer = _Writer(train_dir, flush_secs=_FLUSH_SECS)
    self._graph = graph
    self._every_n_steps = every_n_steps
    self._secs = secs
    self._written_at = 0.0
    self._last_part = None

  def fetches(self):
    """Returns the summaries that the next step computes: list of tensors.

    The scalars are always computed: they cost next to nothing, whereas
    TensorFlow 1.15 needs time for each new set of fetches.
    """
    if time.time() < self._written_at + self._secs:
      return [self._graph.scalar_op]
    return [self._graph.scalar_op, self._graph.summary_op]

  def add(self, values, step):
    """Writes the values of `fetches` where they are due.

    Args:
      values: of a step.
      step: its global step. Other workers may have taken those between it and
        the one before.
    """
    part = step // self._every_n_steps
    if part != self._last_part:
      self._last_part = part
      self.writer.add_summary(values[0], step)
    for summary in values[1:]:
      tf.logging.info('Recording summary at step %d.', step)
      self.writer.add_summary(summary, step)
      self._written_at = time.time()
