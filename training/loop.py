"""slim's training loop with a clean shutdown.

Steps, checkpoints and log lines are those of `slim.learning.train`. In addition
SIGTERM and Ctrl-C end training after the current step, with a last checkpoint,
and a loss that is not finite ends it with advice.
"""

import contextlib
import errno
import os
import signal
import threading
import time
import warnings
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np

from common.errors import InputError
from common.progress import Progress
from compat import slim, tf
from datasets import input_pipeline
from runs import checkpoints
from training import summaries, warm_start
from training.graph import NOT_FINITE, TrainingGraph

# Loss of a step, None if none was taken, and whether it was the last.
StepResult = Tuple[Optional[float], bool]

# Part of the error message of TensorFlow's histogram summary kernel.
_NAN_SUMMARY = 'in summary histogram'

# System error messages for a full disk and an exhausted disk quota.
_NO_SPACE = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
# RuntimeError is raised by TensorFlow 2's writer of event files.
_DISK_ERRORS = (tf.errors.OpError, OSError, RuntimeError)


class StopRequest:
  """Whether this process was asked to stop."""

  def __init__(self) -> None:
    self.signal: Optional[str] = None

  @contextlib.contextmanager
  def listening(self) -> Iterator['StopRequest']:
    """Records the first SIGTERM or SIGINT; a second one interrupts at once."""
    old = {number: signal.getsignal(number)
           for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in old.items():
      # nohup and `&` in a script ignore Ctrl-C for what they start: keep that.
      if handler != signal.SIG_IGN:
        signal.signal(number, self._record)
    try:
      yield self
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)

  def _record(self, number, frame):
    del frame
    if self.signal is not None:
      raise KeyboardInterrupt
    self.signal = signal.Signals(number).name


class SaverBetweenSteps(tf.train.Saver):
  """A Saver that waits for the current step, or another save, to finish.

  The supervisor saves from its own thread. Without the lock, some variables
  could be saved before a step and some after it, and a slow save of an earlier
  step could end after the last one and be listed as the newest.

  Args:
    lock: threading.Lock that each step holds.
  """

  def __init__(self, lock: threading.Lock) -> None:
    super().__init__(save_relative_paths=True)
    self._lock = lock

  def save(self, *args: Any, **kwargs: Any) -> str:
    """Saves as tf.train.Saver does, once it has the lock."""
    with self._lock:
      return super().save(*args, **kwargs)


class TrainStep:
  """A training step, as `slim.learning.train` calls it.

  Args:
    stop: the StopRequest that is checked before each step.

  Attributes:
    step: global step, 0 before the first one.
    lock: held while variables change.
    summaries: the summaries.Summaries of the chief, else None.
    photos_per_step: for the progress display.
    number_of_steps: global step to end at, or None.
    may_stop_alone: whether it ends before a step if it was asked to stop.
  """

  may_stop_alone = True

  def __init__(self, stop: StopRequest) -> None:
    self.step = 0
    self.lock = threading.Lock()
    self._stop = stop
    self._has_begun = False
    self.summaries: Optional[summaries.Summaries] = None
    self.photos_per_step = 1
    self.number_of_steps: Optional[int] = None
    self._loss: Optional[float] = None
    self._progress: Optional[Progress] = None

  @property
  def stop_requested(self) -> bool:
    return self._stop.signal is not None

  def __call__(self, session: tf.Session, train_op: tf.Tensor,
               global_step: tf.Variable,
               train_step_kwargs: Dict[str, tf.Tensor]) -> StepResult:
    """Returns the loss and whether to stop."""
    if self.stop_requested and self.may_stop_alone:
      tf.logging.info('%s: stopping after this step.', self._stop.signal)
      return self._loss, True
    if not self._has_begun:
      self.step = session.run(global_step)
      self._has_begun = True
      self.check(session)
      _log_devices(session)
      self.begin(session)
    before = self.step
    self._loss, done = self.take(session, train_op, global_step,
                                 train_step_kwargs)
    self.step += 1
    if self._loss is not None:
      self._show_progress(before)
    return self._loss, done

  def _show_progress(self, before):
    """Shows that the steps from `before` to `self.step` were taken."""
    end = self.end_step()
    total = None if end is None else end * self.photos_per_step
    if self._progress is None:  # The first step takes longer: not counted.
      self._progress = Progress('trained', total,
                                done=self.step * self.photos_per_step,
                                is_logged=True)
    else:
      self._progress.add((self.step - before) * self.photos_per_step, total)

  def close_progress(self) -> None:
    """Ends the progress display."""
    if self._progress is not None:
      self._progress.close()

  def end_step(self) -> Optional[int]:
    """Returns the global step to end at, if it is known."""
    return self.number_of_steps

  def prepare(self) -> bool:
    """Hook before the session is created; returns whether to train at all."""
    return True

  def check(self, session: tf.Session) -> None:
    """Hook that runs first; raises InputError if training would fail later."""

  def begin(self, session: tf.Session) -> None:
    """Hook before the first step, after the devices are logged."""

  def feed(self) -> Optional[Dict[tf.Tensor, np.ndarray]]:
    """Hook that returns what `take` feeds into the step."""
    return None

  def end(self) -> None:
    """Hook after training, when the last checkpoint is written."""

  def take(self, session: tf.Session, train_op: tf.Tensor,
           global_step: tf.Variable,
           train_step_kwargs: Dict[str, tf.Tensor]) -> StepResult:
    """Takes one step; returns the loss and whether it was the last."""
    start = time.time()
    loss, step = self.run(session, train_op, global_step, self.feed())
    if session.run(train_step_kwargs['should_log']):
      tf.logging.info('global step %d: loss = %.4f (%.3f sec/step)', step, loss,
                      time.time() - start)
    return loss, session.run(train_step_kwargs['should_stop'])

  def run(self, session: tf.Session, train_op: tf.Tensor,
          global_step: tf.Variable,
          feed: Optional[Dict[tf.Tensor, np.ndarray]] = None
          ) -> Tuple[float, int]:
    """Runs one step, with the summaries that are due.

    Summaries come from the same session.run as the step. The supervisor's
    separate one would consume a batch and random numbers at times set by the
    clock, so two runs with the same seed would differ.

    Returns:
      The loss and the global step after it.
    """
    more = self.summaries.fetches() if self.summaries else []
    with self.lock:
      loss, step, *values = session.run([train_op, global_step] + more, feed)
    # global_step may have been read before it was incremented.
    step = max(step, self.step + 1)
    if self.summaries:
      self.summaries.add(values, step)
    return loss, step


@contextlib.contextmanager
def _not_finite_as_advice(train_step):
  """Turns TensorFlow's error about a loss that is not finite into advice.

  The gradient was not applied, and no checkpoint is written afterwards. Either
  the check in the step or a summary raises the error, whichever runs first.
  """
  try:
    yield
  except tf.errors.InvalidArgumentError as error:
    if not any(text in error.message for text in (NOT_FINITE, _NAN_SUMMARY)):
      raise
    raise InputError(
        '%s at step %d; lower --learning_rate (tenfold is a start), or check '
        'that --checkpoint_path belongs to --model_name' %
        (NOT_FINITE, train_step.step)) from None


@contextlib.contextmanager
def full_disk_as_advice(train_dir: str) -> Iterator[None]:
  """Turns an error about a full disk into advice.

  TensorFlow writes a checkpoint to temporary files and renames them, so
  complete checkpoints stay complete.

  Args:
    train_dir: folder that is written to.

  Raises:
    InputError: the disk is full.
  """
  try:
    with _no_report_of_threads():
      yield
  except _DISK_ERRORS as error:
    if not _is_full_disk(error):
      raise
    newest = checkpoints.newest(train_dir)
    if newest is None:
      state = 'no checkpoint has been written yet'
    else:
      state = 'training resumes from %s' % newest
    raise InputError(
        'no space is left on the disk of %s; make room and start again: %s' %
        (train_dir, state)) from None


@contextlib.contextmanager
def _no_report_of_threads():
  """Suppresses what a thread reports when a full disk ends it.

  The error ends TensorFlow 2's event writer thread and is raised again in the
  training thread. Python 3.7 has no such hook.
  """
  hook = getattr(threading, 'excepthook', None)
  threading.excepthook = lambda arguments: (
      _is_full_disk(arguments.exc_value) or hook(arguments))
  try:
    yield
  finally:
    threading.excepthook = hook


def _is_full_disk(error):
  return (isinstance(error, _DISK_ERRORS) and
          any(text in str(error) for text in _NO_SPACE))


def _log_devices(session):
  names = [device.name.split('device:')[-1]
           for device in session.list_devices()
           if device.device_type in ('CPU', 'GPU')]
  tf.logging.info('Training on %s', ', '.join(names))


def run(graph: TrainingGraph, train_dir: str, master: str = '',
        is_chief: bool = True, has_own_variables: bool = False,
        init_fn: Optional[warm_start.InitFn] = None,
        number_of_steps: Optional[int] = None, log_every_n_steps: int = 10,
        save_summaries_secs: int = 600, save_interval_secs: int = 600,
        session_config: Optional[tf.ConfigProto] = None,
        make_step: Callable[[StopRequest], TrainStep] = TrainStep) -> bool:
  """Trains until the number of steps is reached or a stop is requested.

  Args:
    graph: a TrainingGraph of the default graph.
    train_dir: folder of checkpoints and summaries; a run there is resumed.
    master: address of the TensorFlow master, '' for this process.
    is_chief: whether this worker writes checkpoints and summaries.
    has_own_variables: whether each worker has its own variables.
    init_fn: function of the session that reads a published checkpoint.
    number_of_steps: global step to end at, None for no end.
    log_every_n_steps: steps between two log lines.
    save_summaries_secs: seconds between two summaries of photos, activations
      and weights; scalars are written every log_every_n_steps.
    save_interval_secs: seconds between two checkpoints.
    session_config: tf.ConfigProto.
    make_step: function of a StopRequest that returns the TrainStep.

  Returns:
    True if training finished, False if it was asked to stop.

  Raises:
    InputError: the loss is not finite.
  """
  stop = StopRequest()
  train_step = make_step(stop)
  with contextlib.ExitStack() as stack:
    stack.enter_context(stop.listening())
    stack.enter_context(warnings.catch_warnings())
    stack.enter_context(_not_finite_as_advice(train_step))
    stack.enter_context(input_pipeline.errors_as_advice())
    # The supervisor closes its summary writer twice, which causes a warning.
    warnings.filterwarnings('ignore', message='.*closed FileWriter')
    if graph.sync_optimizer:
      stack.callback(graph.sync_optimizer.finish)
    if not train_step.prepare():
      return stop.signal is None
    if is_chief:
      train_step.summaries = summaries.Summaries(
          train_dir, graph, log_every_n_steps, save_summaries_secs)
    train_step.photos_per_step = graph.photos_per_step
    train_step.number_of_steps = number_of_steps
    stack.callback(train_step.close_progress)
    files: Dict[str, Any] = dict(logdir=None)
    if is_chief or not has_own_variables:
      files = dict(logdir=train_dir, summary_op=None,
                   saver=SaverBetweenSteps(train_step.lock))
    slim.learning.train(
        graph.train_op,
        train_step_fn=train_step,
        master=master, is_chief=is_chief or has_own_variables, init_fn=init_fn,
        summary_writer=train_step.summaries and train_step.summaries.writer,
        number_of_steps=number_of_steps,
        log_every_n_steps=log_every_n_steps,
        save_summaries_secs=save_summaries_secs,  # Of the steps per second.
        save_interval_secs=save_interval_secs,
        sync_optimizer=graph.sync_optimizer,
        session_config=session_config, **files)
    train_step.end()
  return stop.signal is None
