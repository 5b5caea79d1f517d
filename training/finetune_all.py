"""Fine-tuning of all layers, after the classifier, at a small learning rate.

  head_run.train(run)
  finetune_all.train(run, number_of_steps=300)

The second call starts from the best checkpoint so far. Batch norm stays in
inference mode: its averages could not follow the weights in so few steps.
"""

import json
import os
from typing import NamedTuple, Optional

from common import files
from common.errors import InputError
from compat import slim, tf
from runs import checkpoints, run_info
from training import head_graph, plain_run, start, warm_start
from training.config import OptimizerConfig

_FILE_NAME = run_info.ALL_LAYERS_FILE

_FIRST_CHECKPOINT = 'model-all.ckpt'

# Evaluations spread over the steps; one more comes at the end.
_EVALUATIONS = 10

# Warm-up takes 1 / _WARM_UP_PART of the steps.
_WARM_UP_PART = 10

_AVERAGE = '/ExponentialMovingAverage'


class Beginning(NamedTuple):
  """How fine-tuning of all layers, or of the last blocks, began."""
  from_step: int  # Global step at which training of the classifier ended.
  steps: int  # How many more to train.
  weights: str  # Checkpoint whose weights are used.
  last_blocks: int = 0  # As --train_last_blocks; 0: all layers are trained.


def has_begun(train_dir: str) -> bool:
  """Whether the run in a train directory already trains more layers."""
  return read(train_dir) is not None


def train(run: start.Run, number_of_steps: int) -> bool:
  """Trains all layers, in the train directory of the run.

  Args:
    run: start.Run, whose classifier is already trained.
    number_of_steps: how many steps to train after the classifier's; 0: as many
      as were given when it began.

  Returns:
    True if training finished, False if it was asked to stop.
  """
  config = run.config
  found = plan(config.train_dir, number_of_steps, '--finetune_all_steps=%d')
  if found is None:
    return True
  beginning = found  # Not None in the function below, for mypy.
  number_of_steps = beginning.steps
  run = run._replace(trainable_scopes=[], config=config._replace(
      optimizer=decaying(config.optimizer, config.finetune_all_learning_rate,
                         number_of_steps),
      early_stop_evals=0,
      min_crop_area=head_graph.least_crop_area(config.min_crop_area)))
  every = None
  if 'validation' in run.datasets:
    every = config.evaluate_every_n_steps or max(
        1, number_of_steps // _EVALUATIONS)
  return plain_run.train(
      run, every, beginning.from_step + number_of_steps,
      lambda run: init_fn(run, beginning, 'all layers'),
      first_step=beginning.from_step,
      freeze_batch_norm=not config.train_frozen_batch_norm)


def plan(train_dir: str, number_of_steps: int, flag: str,
         last_blocks: int = 0) -> Optional[Beginning]:
  """Returns how training of more layers began, or how it will.

  Args:
    train_dir: of a run whose classifier is trained.
    number_of_steps: how many steps to train; 0: as many as when it began.
    flag: what asks for these steps, with %d for their number.
    last_blocks: field of Beginning.

  Returns:
    A Beginning, with the newest step and the best weights if it is new; None if
    all these steps are taken.

  Raises:
    InputError: the run has no checkpoint.
  """
  newest = checkpoints.newest(train_dir)
  if newest is None:
    raise InputError('%s has %s but no checkpoint: remove that file to start '
                     'from the beginning, or give another --train_dir' %
                     (train_dir, _FILE_NAME))
  step = checkpoints.read_global_step(newest)
  former = read(train_dir)
  if former is None:
    return Beginning(step, number_of_steps,
                     checkpoints.find(train_dir) or newest, last_blocks)
  if number_of_steps:
    former = former._replace(steps=number_of_steps)
  if step >= former.from_step + former.steps:
    tf.logging.info('%s has all %s: nothing to do', newest,
                    flag % former.steps)
    return None
  return former


def decaying(optimizer: OptimizerConfig, learning_rate: float,
             number_of_steps: int) -> OptimizerConfig:
  """Returns an OptimizerConfig with a warm-up, and with cosine decay to 0.

  Args:
    optimizer: OptimizerConfig of the run.
    learning_rate: the largest one.
    number_of_steps: at whose end it is 0.
  """
  return optimizer._replace(
      learning_rate=learning_rate,
      learning_rate_decay_type='cosine',
      learning_rate_decay_steps=number_of_steps,
      end_learning_rate=0.0,
      # Adam's first steps are full-size, however small the gradients are.
      warmup_steps=optimizer.warmup_steps or (
          0 if optimizer.warmup_epochs else number_of_steps // _WARM_UP_PART))


def init_fn(run: start.Run, beginning: Beginning,
            what: str) -> Optional[warm_start.InitFn]:
  """Prepares the checkpoint to resume from; returns None when it writes it.

  The supervisor resumes from the newest checkpoint of the train directory. The
  classifier's last one lacks the optimizer variables of the other layers, so a
  checkpoint that has them is written first, under another name: if the process
  is killed at any time, the newest checkpoint is complete.

  Args:
    run: start.Run.
    beginning: Beginning.
    what: layers that are trained, for the log.
  """
  train_dir = run.config.train_dir
  if not has_begun(train_dir):
    _write_first_checkpoint(run, beginning)
    files.write_text(os.path.join(train_dir, _FILE_NAME),
                     json.dumps(beginning._asdict()) + '\n')
    tf.logging.info('Fine-tuning %s from %s', what, beginning.weights)
    return None
  return start.init_fn(run)


def _write_first_checkpoint(run, beginning):
  """Writes the initial variables of the default graph to a checkpoint."""
  # The best weights, or their moving averages if the run keeps them, become
  # the weights.
  model = {v.op for v in slim.get_model_variables()}
  restores = {name: v for name, v in checkpoints.variables_to_restore(
      run.config.moving_average_decay).items() if v.op in model}
  restore_weights = slim.assign_from_checkpoint_fn(
      beginning.weights,
      checkpoints.with_plain_names(beginning.weights, restores))
  variables = {v.op.name: v for v in tf.global_variables()}
  averages = [tf.assign(variables[name], v) for name, v in (
      (v.op.name + _AVERAGE, v) for v in slim.get_model_variables())
              if name in variables]
  step = tf.train.get_global_step()
  saver = tf.train.Saver(save_relative_paths=True)
  # TensorFlow keeps the number of threads of the first session.
  with tf.Session(config=run.session_config) as session:
    session.run(tf.global_variables_initializer())
    restore_weights(session)
    session.run(averages)
    session.run(tf.assign(step, beginning.from_step))
    saver.save(session, os.path.join(run.config.train_dir, _FIRST_CHECKPOINT),
               global_step=step)


def read(train_dir: str) -> Optional[Beginning]:
  """Returns the Beginning of a run; None if only its classifier is trained."""
  try:
    with open(os.path.join(train_dir, _FILE_NAME)) as file:
      return Beginning(**json.load(file))
  except (OSError, ValueError, TypeError):
    return None
