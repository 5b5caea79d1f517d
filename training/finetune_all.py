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
from training import best, head_graph, plain_run, start

_FILE_NAME = 'finetune_all.json'

_FIRST_CHECKPOINT = 'model-all.ckpt'

# Evaluations in all; one more at the end.
_EVALUATIONS = 10

# The first of so many parts of the steps warms up.
_WARM_UP_PART = 10

_AVERAGE = '/ExponentialMovingAverage'

# from_step: global step at which the classifier was trained. steps: how many
# more are wanted. weights: the checkpoint whose weights were taken.
Beginning = collections.namedtuple('Beginning', 'from_step steps weights')


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
    number_of_steps: how many steps more than the classifier's; 0: as many as
      were asked for when it began.

  Returns:
    Whether training came to its end: it was not asked to stop.
  """
  values = run.values
  beginning = _read(values.train_dir) or _choose(values.train_dir,
                                                 number_of_steps)
  number_of_steps = number_of_steps or beginning.steps
  last_step = beginning.from_step + number_of_steps
  newest = checkpoints.newest(values.train_dir)
  if (has_begun(values.train_dir) and
      checkpoints.read_global_step(newest) >= last_step):
    tf.logging.info('%s has all --finetune_all_steps=%d: nothing to do', newest,
                    number_of_steps)
    return True
  changed = _Changed(
      values,
      learning_rate=values.finetune_all_learning_rate,
      learning_rate_decay_type='cosine',
      learning_rate_decay_steps=number_of_steps,
      end_learning_rate=0.0,
      # Adam's first steps are as large as any, whatever the gradient.
      warmup_steps=values.warmup_steps or number_of_steps // _WARM_UP_PART,
      min_crop_area=head_graph.least_crop_area(values),
      early_stop_evals=0)
  run = run._replace(values=changed, trainable_scopes=[])
  every = None
  if 'validation' in run.datasets:
    every = values.evaluate_every_n_steps or max(
        1, number_of_steps // _EVALUATIONS)
  return plain_run.train(
      run, every, last_step, lambda run: _init_fn(run, beginning),
      first_step=beginning.from_step,
      freeze_batch_norm=not values.train_frozen_batch_norm)


def _choose(train_dir, number_of_steps):
  """Returns where to begin: at the newest step, with the best weights."""
  newest = checkpoints.newest(train_dir)
  return Beginning(checkpoints.read_global_step(newest), number_of_steps,
                   checkpoints.find(train_dir) or newest)


def _init_fn(run, beginning):
  """Returns None: a checkpoint with all that is needed is in place.

  The supervisor goes on with the newest checkpoint of the train directory. That
  of the classifier's training lacks the optimizer's variables of all other
  layers, so one that has them is written first, under another name: whenever
  the process is killed, the newest one is whole.
  """
  train_dir = run.values.train_dir
  if not has_begun(train_dir):
    _write_first_checkpoint(run, beginning)
    best.write_aside(os.path.join(train_dir, _FILE_NAME),
                     [json.dumps(beginning._asdict())])
    tf.logging.info('All layers go on from %s', beginning.weights)
    return None
  return start.init_fn(run)


def _write_first_checkpoint(run, beginning):
  """Writes the variables of the default graph, as training begins with them."""
  # What was best, the averages where there are some, are the weights now.
  model = {v.op for v in slim.get_model_variables()}
  restores = {name: v for name, v in checkpoints.variables_to_restore(
      run.values.moving_average_decay).items() if v.op in model}
  read = slim.assign_from_checkpoint_fn(
      beginning.weights,
      checkpoints.with_plain_names(beginning.weights, restores))
  there = {v.op.name: v for v in tf.global_variables()}
  averages = [tf.assign(there[name], v) for name, v in (
      (v.op.name + _AVERAGE, v) for v in slim.get_model_variables())
              if name in there]
  step = tf.train.get_global_step()
  saver = tf.train.Saver(save_relative_paths=True)
  # TensorFlow keeps the number of threads of the first session.
  with tf.Session(config=run.session_config) as session:
    session.run(tf.global_variables_initializer())
    read(session)
    session.run(averages)
    session.run(tf.assign(step, beginning.from_step))
    saver.save(session, os.path.join(run.values.train_dir, _FIRST_CHECKPOINT),
               global_step=step)


def _read(train_dir):
  try:
    with open(os.path.join(train_dir, _FILE_NAME)) as file:
      return Beginning(**json.load(file))
  except (OSError, ValueError, TypeError):
    return None
