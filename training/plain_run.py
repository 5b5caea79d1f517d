"""Training on photos from the records, as slim trains."""

import contextlib
from typing import Callable, Dict, Optional

from compat import tf
from training import (
  gradient_precision,
  inference_twin,
  loop,
  start,
  validation,
  warm_start,
)
from training import graph as training_graph
from training.validation_history import ValidationHistory


class ValidatedStep(loop.TrainStep):
  """A training step of slim's loop that also evaluates now and then.

  Args:
    stop: a loop.StopRequest.
    validation_of_run: training.validation.Validation.
    history: ValidationHistory of the run.
    every: steps from one evaluation to the next.
    patience: evaluations without improvement after which training ends; 0:
      never.
    number_of_steps: global step to end at, or None.
  """

  def __init__(self, stop: loop.StopRequest,
               validation_of_run: validation.Validation,
               history: ValidationHistory, every: int, patience: int,
               number_of_steps: Optional[int] = None) -> None:
    super().__init__(stop)
    self._validation = validation_of_run
    self._history = history
    self._every = every
    self._patience = patience
    self._last_step = number_of_steps

  def take(self, session: tf.Session, train_op: tf.Tensor,
           global_step: tf.Variable,
           train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Takes one step; returns the loss and whether it was the last."""
    if self._history.is_over(self._patience):
      tf.logging.info('Nothing to do: %s; --early_stop_evals=0 continues',
                      self._history.describe())
      return None, True
    loss, last = super().take(session, train_op, global_step,
                              train_step_kwargs)
    assert loss is not None and self.summaries is not None
    self._validation.note(loss)
    step = self.step + 1
    if step % self._every == 0 or step == self._last_step:
      self._validation.evaluate(session, step, self.summaries.writer)
      if self._history.is_over(self._patience):
        tf.logging.info('Stopping: %s', self._history.describe())
        last = True
    return loss, last

  def end_step(self) -> Optional[int]:
    """Returns the step to end at if accuracy does not improve."""
    return min(filter(None, (
        self._last_step, self._history.end_step(self._patience, self._every))),
               default=None)


def train(run: start.Run, evaluate_every_n_steps: Optional[int] = None,
          number_of_steps: Optional[int] = None,
          init_fn: Callable[
              [start.Run], Optional[warm_start.InitFn]] = start.init_fn,
          first_step: int = 0, freeze_batch_norm: bool = False,
          make_step: Callable[
              [loop.StopRequest], loop.TrainStep] = loop.TrainStep) -> bool:
  """Trains, and evaluates during training if asked to.

  Args:
    run: start.Run.
    evaluate_every_n_steps: steps between two evaluations, which need
      'validation' in run.datasets; None: no evaluation.
    number_of_steps: global step to end at; None: train until stopped.
    init_fn: function of the run that returns the function that restores the
      initial weights; it is called once the graph is built.
    first_step, freeze_batch_norm: as for training.graph.
    make_step: as for loop.run; used only without evaluation.

  Returns:
    True if training finished, False if it was asked to stop.
  """
  config = run.config
  replicas = config.replicas
  session_config = gradient_precision.session_config(config, run.session_config)
  with tf.Graph().as_default(), contextlib.ExitStack() as stack:
    if replicas.is_cluster:
      # Ops without a device, above all those of the checkpoints, run on this
      # worker and not on a parameter server.
      stack.enter_context(tf.device('/job:worker/task:%d' % replicas.task))
    if config.seed is not None:
      # Each worker has its own random numbers.
      tf.set_random_seed(config.seed + replicas.task)
    graph = training_graph.build(
        config, run.datasets['train'], run.info, run.network,
        run.trainable_scopes, first_step=first_step,
        freeze_batch_norm=freeze_batch_norm)
    read_weights = None
    if run.is_chief:
      read_weights = init_fn(run)
      start.save_facts(run)
      if evaluate_every_n_steps:
        make_step = _validated_steps(run, graph, evaluate_every_n_steps,
                                     number_of_steps, session_config, stack)
    finished = loop.run(
        graph, config.train_dir, master=replicas.master, is_chief=run.is_chief,
        has_own_variables=replicas.all_reduce, init_fn=read_weights,
        number_of_steps=number_of_steps,
        log_every_n_steps=config.log_every_n_steps,
        save_summaries_secs=config.save_summaries_secs,
        save_interval_secs=config.save_interval_secs,
        session_config=session_config,
        make_step=make_step)
  return finished


def _validated_steps(run, graph, every, number_of_steps, session_config, stack):
  """Returns the function that makes the ValidatedStep of a run."""
  config = run.config
  twin = inference_twin.InferenceTwin(
      run.info, run.network, config.moving_average_decay, session_config)
  stack.callback(twin.close)
  history = start.validation_history(run, graph.global_step)
  validation_of_run = validation.Validation(
      twin, history, validation.photo_batches(
          run.datasets['validation'], run.info, run.network,
          config.batch_size, config.num_preprocessing_threads,
          run.session_config))
  return lambda stop: ValidatedStep(
      stop, validation_of_run, history, every, config.early_stop_evals,
      number_of_steps)
