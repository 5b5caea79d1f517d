"""Summaries that a training process writes to its event file.

A process has one writer. TensorBoard reads the event files of a folder one
after the other, and treats each new session as a restart: it drops the points
of earlier files from the new session's first step on.
"""

import time
from typing import List, Optional, Sequence

from compat import tf
from training.graph import TrainingGraph

# A killed process loses at most the points of this many seconds.
_FLUSH_SECS = 5


class _Writer(tf.summary.FileWriter):
  """A FileWriter whose sessions start at the step after the checkpoint's.

  The supervisor passes the checkpoint's own step, so TensorBoard would drop the
  points of that step, such as its evaluation.
  """

  def add_session_log(self, session_log, global_step=None):
    """Adds a session log as tf.summary.FileWriter does."""
    if session_log.status == tf.SessionLog.START:
      global_step += 1
    super().add_session_log(session_log, global_step)


class Summaries:
  """Writes the summaries of training steps.

  Args:
    train_dir: folder of the event file.
    graph: the TrainingGraph.
    every_n_steps: steps between two points of the scalars; they include the
      first step.
    secs: seconds between two summaries of photos, activations and weights; they
      include the first step.

  Attributes:
    writer: tf.summary.FileWriter, for all other summaries of the process.
  """

  def __init__(self, train_dir: str, graph: TrainingGraph, every_n_steps: int,
               secs: int) -> None:
    self.writer = _Writer(train_dir, flush_secs=_FLUSH_SECS)
    self._graph = graph
    self._every_n_steps = every_n_steps
    self._secs = secs
    self._written_at = 0.0
    self._last_part: Optional[int] = None

  def fetches(self) -> List[tf.Tensor]:
    """Returns the summary tensors that the next step computes.

    The scalars are always computed: they are nearly free, whereas
    TensorFlow 1.15 needs time for each new set of fetches.
    """
    if time.time() < self._written_at + self._secs:
      return [self._graph.scalar_op]
    return [self._graph.scalar_op, self._graph.summary_op]

  def add(self, values: Sequence[bytes], step: int) -> None:
    """Writes the summaries that are due.

    Args:
      values: values of `fetches` from a step.
      step: its global step; not consecutive if other workers take steps too.
    """
    part = step // self._every_n_steps
    if part != self._last_part:
      self._last_part = part
      self.writer.add_summary(values[0], step)
    for summary in values[1:]:
      tf.logging.info('Recording summary at step %d.', step)
      self.writer.add_summary(summary, step)
      self._written_at = time.time()
