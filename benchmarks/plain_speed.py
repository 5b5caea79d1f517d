"""Compares plain training with a frozen backbone to the forward pass.

A training step is that of train_image_classifier.py: its flags, its graph, its
input from records. The forward pass is that of evaluation, on photos in memory.
Both alternate in one process, so that other load on the machine affects both;
the ratio is the median of the rounds.
"""

import contextlib
import statistics
import tempfile
import time
from typing import NamedTuple

from absl import flags

import train_image_classifier
from benchmarks import input_speed
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from datasets import dataset_factory, input_pipeline
from training import config as train_config
from training import gradient_precision, inference_twin, start
from training import graph as training_graph

# Training flags that do not affect a step of one process, and the values with
# which the graph is built if it reads them.
NOT_OF_A_STEP = {
    'train_dir': None, 'log_every_n_steps': None, 'save_summaries_secs': None,
    'save_interval_secs': None, 'cache_features': False, 'cache_views': 0,
    'feature_cache_dir': None, 'early_stop_evals': 0,
    'evaluate_every_n_steps': None, 'finetune_all_steps': 0,
    'finetune_all_learning_rate': None, 'train_last_blocks': 0,
    'last_blocks_epochs': None, 'last_blocks_learning_rate': None,
    'master': '', 'num_clones': 1, 'clone_on_cpu': False, 'worker_replicas': 1,
    'num_ps_tasks': 0, 'task': 0, 'sync_replicas': False,
    'replicas_to_aggregate': 1, 'all_reduce': False}

# A process that computes for less than this share of these seconds is idle;
# this is checked at most so many times.
IDLE_SHARE = 0.1
IDLE_SECS = 0.1
MOST_IDLE_WAITS = 100


class Round(NamedTuple):
  """Speeds of one round."""

  forward: input_speed.Turn
  training: input_speed.Turn
  # Share of the training steps' time spent waiting for input.
  waiting: float


def define_flags():
  """Defines the training flags that affect a step, and this program's own."""
  train_image_classifier.define_flags()
  for name in NOT_OF_A_STEP:
    delattr(flags.FLAGS, name)
  # None: the benchmark's own photos.
  flags.FLAGS.set_default('dataset_name', None)
  flags.FLAGS.set_default('model_name', 'inception_v4')
  flags.FLAGS.set_default('train_classifier_only', True)
  flags.DEFINE_integer(
      'per_class', 300, 'Without --dataset_dir %s is converted if it is there, '
      'else this many photos per class are drawn, of five classes.' %
      input_speed.REAL_PHOTOS, lower_bound=2)
  flags.DEFINE_integer('steps', 2, 'Steps and forward passes a turn that are '
                       'measured.', lower_bound=1)
  flags.DEFINE_integer('rounds', 5, 'How often each has its turn.',
                       lower_bound=1)
  flags.DEFINE_float(
      'bar', 0.95, 'Least photos per second of a training step, as a share of '
      'the forward pass; below it, the exit status is 1.', lower_bound=0.0)
  flags.DEFINE_float(
      'most_waiting', 0.02, 'Largest share of a training step that may be '
      'spent waiting for input; above it, the exit status is 1.',
      lower_bound=0.0, upper_bound=1.0)


class Pair:
  """The training step and the forward pass of one network.

  Args:
    session: session of the training graph, initialized.
    graph: its TrainingGraph.
    twin: InferenceTwin with the same weights.

  Attributes:
    session, twin: the arguments.
    batch_size: photos per step and per forward pass.
    loss: of the last step; None before the first.
  """

  def __init__(self, session, graph, twin):
    self.session = session
    self.twin = twin
    self.loss = None
    self._fetches = [graph.train_op, graph.global_step]
    next_batch, = [op for op in session.graph.get_operations()
                   if op.type == 'IteratorGetNext']
    self._next_batch = next_batch.name
    self._photos = session.run([image for image in next_batch.outputs
                                if image.shape.ndims == 4][0])
    self.batch_size = len(self._photos)

  def step(self):
    """Runs a training step.

    TensorFlow itself reports the duration of the operation that takes the next
    batch. (A second operation that reads the time after it is not reliable: it
    may find no free thread before the end of the step.)

    Returns:
      The seconds of the step, and how many of them it spent waiting for its
      batch.
    """
    trace = tf.RunMetadata()
    begin = time.perf_counter()
    self.loss, _ = self.session.run(
        self._fetches, run_metadata=trace,
        options=tf.RunOptions(trace_level=tf.RunOptions.SOFTWARE_TRACE))
    seconds = time.perf_counter() - begin
    waited, = [node.all_end_rel_micros / 1e6
               for device in trace.step_stats.dev_stats
               for node in device.node_stats
               if node.node_name == self._next_batch]
    return seconds, waited

  def forward(self):
    """Computes the logits of a batch."""
    return self.twin.logits([[self._photos]])


@contextlib.contextmanager
def prepared(config, dataset, session_config=None):
  """Builds both graphs as training.plain_run does, and starts the input.

  Args:
    config: TrainConfig.
    dataset: slim Dataset.
    session_config: tf.ConfigProto.

  Yields:
    A Pair.

  Raises:
    InputError: a flag is wrong, a record is damaged, or the loss is not finite.
  """
  run = start.make_run(config, {'train': dataset},
                       session_config=session_config)
  session_config = gradient_precision.session_config(config, session_config)
  with tf.Graph().as_default(), contextlib.ExitStack() as stack:
    tf.set_random_seed(config.seed)
    graph = training_graph.build(
        config, dataset, run.info, run.network, run.trainable_scopes)
    read_weights = start.init_fn(run)
    twin = inference_twin.InferenceTwin(
        run.info, run.network, config.moving_average_decay, session_config)
    stack.callback(twin.close)
    session = stack.enter_context(tf.Session(config=session_config))
    stack.enter_context(_not_finite_as_advice())
    stack.enter_context(input_pipeline.errors_as_advice())
    # In the order of slim.learning.train.
    session.run(tf.global_variables_initializer())
    if read_weights:
      read_weights(session)
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    twin.load(session)
    yield Pair(session, graph, twin)


@contextlib.contextmanager
def _not_finite_as_advice():
  """Turns the error about a non-finite loss into advice."""
  try:
    yield
  except tf.errors.InvalidArgumentError as error:
    if training_graph.NOT_FINITE not in error.message:
      raise
    raise InputError('%s; lower --learning_rate, or give --checkpoint_path' %
                     training_graph.NOT_FINITE) from None


def wait_until_idle():
  """Waits until the input has prefetched all of its batches."""
  for _ in range(MOST_IDLE_WAITS):
    before = time.process_time()
    time.sleep(IDLE_SECS)
    if time.process_time() - before < IDLE_SHARE * IDLE_SECS:
      return


def measure(pair, steps):
  """Measures one round of both; returns a Round.

  The forward pass must not run while the input prefetches batches, and training
  must not use batches that were prefetched meanwhile: that many steps are not
  counted.

  Args:
    pair: Pair.
    steps: number of forward passes and of training steps that are counted.
  """
  wait_until_idle()
  pair.forward()
  forward, _ = take_turn(pair.forward, steps, pair.batch_size)
  for _ in range(input_pipeline.PREFETCH_BATCHES):
    pair.step()
  training, taken = take_turn(pair.step, steps, pair.batch_size)
  seconds, waited = map(sum, zip(*taken))
  return Round(forward, training, waited / seconds)


def take_turn(function, times, batch_size):
  """Calls a function that processes one batch several times.

  Returns:
    An input_speed.Turn, and the list of the function's return values.
  """
  begin, begin_cpu = time.perf_counter(), time.process_time()
  returned = [function() for _ in range(times)]
  seconds = time.perf_counter() - begin
  cpu_seconds = time.process_time() - begin_cpu
  photos = times * batch_size
  turn = input_speed.Turn(photos / seconds, 1000 * cpu_seconds / photos)
  return turn, returned


def compare(pair, steps, rounds):
  """Alternates both; returns [Round].

  A first round, which warms up both graphs, is not counted.

  Args:
    pair: Pair.
    steps: as for measure.
    rounds: number of rounds that are counted.
  """
  figures = []
  measure(pair, 1)
  for number in range(1, rounds + 1):
    one = measure(pair, steps)
    figures.append(one)
    print('round %d: %.2f photos/s forward, %.2f in training, waiting %.4f' % (
        number, one.forward.speed, one.training.speed, one.waiting), flush=True)
  return figures


def report(figures, bar, most_waiting):
  """Prints the medians, and the longest wait; returns the exit status.

  Args:
    figures: [Round].
    bar: minimum ratio of training to forward pass.
    most_waiting: maximum share of a step spent waiting for input, in every
      round.
  """
  ratio = statistics.median(one.training.speed / one.forward.speed
                            for one in figures)
  ratio_of_time = statistics.median(
      one.forward.milliseconds / one.training.milliseconds for one in figures)
  waiting = max(one.waiting for one in figures)
  print('photos per second, ms of the processor per photo')
  for name, turns in (('forward pass', [one.forward for one in figures]),
                      ('training step', [one.training for one in figures])):
    print('%-14s %8.2f %8.1f' % (name, *map(statistics.median, zip(*turns))))
  # The second ratio is more reliable if other programs are running.
  print('training has %.3f of the speed of the forward pass (by the time of '
        'the processor %.3f); it must be %.3f' % (ratio, ratio_of_time, bar))
  print('waiting for input: %.4f of a step in the worst round; it may be %.4f' %
        (waiting, most_waiting))
  return 1 if ratio < bar or waiting > most_waiting else 0


def config_from_flags(**others):
  """Returns the TrainConfig of the flags.

  Args:
    **others: values that override flags.
  """
  values = flags.FLAGS.flag_values_dict()
  return train_config.make({**NOT_OF_A_STEP, **values, **others}, given={})


def main(_):
  """Measures both in alternation and prints the ratio."""
  values = flags.FLAGS
  if bool(values.dataset_dir) != bool(values.dataset_name):
    raise InputError('--dataset_dir and --dataset_name belong together, got %r '
                     'and %r' % (values.dataset_dir, values.dataset_name))
  with tempfile.TemporaryDirectory() as made:
    folder, name = values.dataset_dir, values.dataset_name
    if not folder:
      folder, name = made, input_speed.NAME
      input_speed.make_records(made, values.per_class)
    dataset = dataset_factory.get_dataset(name, values.dataset_split_name,
                                          folder)
    config = config_from_flags(dataset_dir=folder, dataset_name=name,
                               train_dir=made)
    with prepared(config, dataset,
                  common_flags.session_config(values)) as pair:
      figures = compare(pair, values.steps, values.rounds)
  print('\nTensorFlow %s, %s, %d photos per step, medians of %d rounds' % (
      tf.__version__, values.model_name, values.batch_size, values.rounds))
  return report(figures, values.bar, values.most_waiting)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
