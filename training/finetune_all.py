"""After the classifier, the whole network at a small learning rate.

  head_run.train(run)
  finetune_all.train(run, number_of_steps=300)

goes on from the best checkpoint so far. Batch norm stays in inference mode: so
few steps would not move its averages to what the weights have become.
"""

import collections
import json
import os

from compat import slim, tf
from runs import checkpoints
from training import best, plain_run, start

_FILE_NAME = 'finetune_all.json'

# Evaluations in all; one more at the end.
_EVALUATIONS = 10

# from_step: global step at which the classifier was trained. weights: the
# checkpoint whose weights were taken.
Beginning = collections.namedtuple('Beginning', 'from_step weights')


class _Changed:
  """The parsed flags with some other values."""

  def __init__(self, values, **changes):
    self._values = values
    self._changes = changes

  def __getattr__(self, name):
    return self._changes.get(name, getattr(self._values, name))

  def __iter__(self):
    return iter(self._values)

  def __getitem__(self, name):
    return self._values[name]


def has_begun(train_dir):
  """Whether the run in a train directory trains all layers already."""
  return _read(train_dir) is not None


def train(run, number_of_steps):
  """Trains all layers, in the train directory of the run.

  Args:
    run: start.Run, whose classifier is trained.
    number_of_steps: how many steps more than the classifier's.

  Returns:
    Whether training came to its end: it was not asked to stop.
  """
  values = run.values
  beginning = _read(values.train_dir) or _choose(values.train_dir)
  last_step = beginning.from_step + number_of_steps
  changed = _Changed(
      values,
      learning_rate=values.finetune_all_learning_rate,
      learning_rate_decay_type='cosine',
      learning_rate_decay_steps=number_of_steps,
      end_learning_rate=0.0,
      early_stop_evals=0,
      first_step=beginning.from_step,
      freeze_batch_norm=not values.train_frozen_batch_norm)
  run = run._replace(values=changed, trainable_scopes=[])
  every = None
  if 'validation' in run.datasets:
    every = values.evaluate_every_n_steps or max(
        1, number_of_steps // _EVALUATIONS)
  return plain_run.train(
      run, every, last_step,
      init_fn=lambda run: _init_fn(run, beginning))


def _choose(train_dir):
  """Returns where to begin: at the newest step, with the best weights."""
  newest = checkpoints.newest(train_dir)
  folder = os.path.join(train_dir, best.BEST_DIR)
  return Beginning(checkpoints.read_global_step(newest),
                   checkpoints.newest(folder) or newest)


def _init_fn(run, beginning):
  """Returns None: a checkpoint with all that is needed is in place.

  The supervisor goes on with the newest checkpoint of the train directory. That
  of the classifier's training lacks the optimizer's variables of all other
  layers, so one that has them is written first.
  """
  train_dir = run.values.train_dir
  newest = checkpoints.newest(train_dir)
  if not has_begun(train_dir):
    variables = slim.get_model_variables()
    read = slim.assign_from_checkpoint_fn(beginning.weights, variables)
    step = tf.train.get_global_step()
    averages = {v.op.name: v for v in tf.moving_average_variables()}
    del averages
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      read(session)
      session.run(step.assign(beginning.from_step))
      newest = tf.train.Saver().save(
          session, os.path.join(train_dir, 'model.ckpt'),
          global_step=step)
    best.write_aside(os.path.join(train_dir, _FILE_NAME),
                     [json.dumps(beginning._asdict())])
    tf.logging.info('All layers go on from %s', beginning.weights)
  else:
    tf.logging.info('Resuming from %s', newest)
  return None


def _read(train_dir):
  try:
    with open(os.path.join(train_dir, _FILE_NAME)) as file:
      return Beginning(**json.load(file))
  except (OSError, ValueError, TypeError):
    return None
