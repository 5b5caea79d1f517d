"""One part of benchmarks/gpu_speed.py, in a process of its own.

Prints a line of JSON for each figure: `what` is measured, its `value` and
`unit`, and a `note` or None. A part prepares its graph, waits for a line on
stdin, and only then uses the graphics card: the next part can be prepared while
one is measured.
"""

import contextlib
import functools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
import types
from typing import NamedTuple, Optional, Tuple

import numpy as np
from absl import flags
from PIL import Image, ImageChops

from benchmarks import finetune_speed, input_speed, plain_speed
from common import flags as common_flags
from common import threads
from common.errors import InputError
from compat import slim, tf
from datasets import dataset_factory
from datasets.conversion import convert_photos
from nets import nets_factory
from runs import run_info
from runtime import forward_pass, subgraph, tensorflow_session
from training import gradient_precision, start
from training import graph as training_graph

FLAGS = flags.FLAGS

NAMES = ('devices', 'photos', 'speed', 'records', 'input', 'train',
         'finetune_all', 'server', 'agreement', 'clones')
_CLASSES = 1000
# Pixels of a made photo, as of a photo of the flowers data set.
_PHOTO_SIZE = (500, 375)
# Largest difference of a logit from the processor's, as a share of the largest
# logit. The weights are random, so that logits may be of any size.
_TOLERANCE = 1e-3
_BATCH_SIZE = 32  # Of run_train.sh.
_PROCESSOR = tf.ConfigProto(device_count={'GPU': 0})


class Sizes(NamedTuple):
  """How much is measured."""

  # Side of the networks' input in pixels; None: each network's own.
  image_size: Optional[int]
  # Photos per step; parts with one size take the first.
  batches: Tuple[int, ...]
  # Steps that are left out, and least seconds of those that are measured.
  warm_up: int
  seconds: float
  photos_per_class: int
  # Batches per number of threads of the input.
  input_batches: int
  finetune_steps: int
  server_seconds: float


CARD = Sizes(None, (128, 32), 20, 1.5, 740, 60, 100, 5)
SMALL = Sizes(128, (4, 2), 2, 0, 8, 2, 2, 1)


def define_flags():
  """Defines the training flags that affect a step, and this program's own."""
  plain_speed.define_flags()
  for name, value in (('train_classifier_only', False),
                      ('optimizer', 'momentum'), ('learning_rate', 0.001),
                      ('num_preprocessing_threads', os.cpu_count())):
    FLAGS.set_default(name, value)
  flags.DEFINE_enum('part', None, NAMES, 'What is measured.')
  flags.DEFINE_string('folder', None, 'Folder of the made photos, which the '
                      'parts share.')
  flags.DEFINE_bool('small', False, 'Few steps on small photos.')


def put(what, value, unit, note=None):
  """Prints a figure."""
  print(json.dumps(dict(what=what, value=value, unit=unit, note=note)),
        flush=True)


def wait_for_turn():
  """Waits for a line on stdin; ends this process if there is none."""
  if not sys.stdin.readline():
    sys.exit('nothing on stdin: the program that started this part has ended')


def devices(_):
  """Prints the graphics cards, and what computes beside them."""
  wait_for_turn()
  cards = len(tf.config.experimental.list_physical_devices('GPU'))
  put('graphics cards', cards, 'cards')
  if cards:
    try:
      note = subprocess.check_output(
          ['nvidia-smi', '--query-gpu=name,driver_version,memory.total',
           '--format=csv,noheader'], text=True).strip().replace('\n', '; ')
    except (OSError, subprocess.CalledProcessError) as error:
      note = 'nvidia-smi: %s' % error
    put('card, driver, memory', '', '', note)
  put('processor', os.cpu_count(), 'cores')
  put('TensorFlow', tf.__version__, '', 'Python %d.%d' % sys.version_info[:2])


def photos(sizes):
  """Makes photos of random colours with noise, and converts them."""
  wait_for_turn()
  noises = [Image.merge('RGB', [Image.effect_noise(_PHOTO_SIZE, 10)] * 3)
            for _ in range(8)]

  def make(path):
    values = random.Random(path)
    colours = Image.frombytes('RGB', (8, 6), bytes(
        values.randrange(256) for _ in range(8 * 6 * 3)))
    ImageChops.add(colours.resize(_PHOTO_SIZE, Image.BICUBIC),
                   values.choice(noises), 1, -128).save(path, quality=90)

  paths = []
  for name in 'abcde':
    folder = os.path.join(FLAGS.folder, input_speed.NAME, name)
    os.makedirs(folder, exist_ok=True)
    paths += [os.path.join(folder, '%d.jpg' % number)
              for number in range(sizes.photos_per_class)]
  threads.run_in_threads(make, paths)
  begin = time.perf_counter()
  convert_photos.convert(FLAGS.folder, input_speed.NAME,
                         num_shards=input_speed.NUM_SHARDS)
  put('converted to records', len(paths) / (time.perf_counter() - begin),
      'photos/s', '%d photos' % len(paths))


class MadePhotos:
  """A batch of random photos, kept where the network computes.

  Attributes:
    image: `[None, size, size, channels]` float32 tensor in [-1, 1].
  """

  def __init__(self, size, channels):
    self._shape = [size, size, channels]
    self._value = tf.placeholder(tf.float32, [None, *self._shape])
    variable = tf.Variable(
        self._value, trainable=False, collections=[], use_resource=True,
        shape=tf.TensorShape([None, *self._shape]))
    self._set = variable.initializer
    self.image = tf.identity(variable)

  def make(self, session, batch_size):
    """Makes a batch in a session."""
    session.run(self._set, {self._value: np.random.RandomState(0).uniform(
        -1, 1, [batch_size, *self._shape])})

  def next_batch(self):
    """Returns what training.graph.build takes of a batch."""
    return {'image': self.image, 'label': tf.cast(
        tf.range(tf.shape(self.image)[0]) % _CLASSES, tf.int64)}


def measure_rate(function, batch_size, sizes):
  """Returns photos per second after warm-up, and a note about that.

  XLA compiles within the first calls.
  """
  begin = time.perf_counter()
  for _ in range(sizes.warm_up):
    function()
  note = 'first %d: %.1f s' % (sizes.warm_up, time.perf_counter() - begin)
  count, begin = 0, time.perf_counter()
  while not count or time.perf_counter() - begin < sizes.seconds:
    function()
    count += 1
  return count * batch_size / (time.perf_counter() - begin), note


def prepare_run(sizes):
  """Returns the start.Run on made photos, and its session's config."""
  dataset = slim.dataset.Dataset(
      [], None, None, _CLASSES, {}, num_classes=_CLASSES,
      labels_to_names=dict(enumerate(map(str, range(_CLASSES)))))
  config = plain_speed.config_from_flags(
      dataset_dir=FLAGS.folder, dataset_name='made',
      train_dir=os.path.join(FLAGS.folder, 'none'),
      train_image_size=sizes.image_size)
  base = common_flags.session_config(FLAGS)
  run = start.make_run(config, {'train': dataset}, session_config=base)
  return run, gradient_precision.session_config(config, base)


def build_step(run):
  """Builds the training step; returns MadePhotos and the operation."""
  made = MadePhotos(run.info.image_size, run.network.channels)
  graph = training_graph.build(
      run.config, run.datasets['train'], run.info, run.network,
      run.trainable_scopes, next_batch=made.next_batch)
  return made, graph.train_op


def measure_step(what, graph, made, step, config, sizes):
  """Prints the speed of a step on MadePhotos for each batch size."""
  with graph.as_default(), tf.Session(config=config) as session:
    session.run(tf.global_variables_initializer())
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    for batch_size in sizes.batches:
      made.make(session, batch_size)
      rate, note = measure_rate(lambda: session.run(step), batch_size, sizes)
      put('%s, batch %d' % (what, batch_size), rate, 'photos/s', note)


@contextlib.contextmanager
def random_network(name, size):
  """Yields session, photos and logits of a network with random weights.

  Args:
    name: key of nets_factory.
    size: of its input in pixels; None: the network's own.
  """
  row = nets_factory.get_network(name)
  size = size or row.image_size
  with tf.Graph().as_default(), tf.Session(config=_PROCESSOR) as session:
    tf.set_random_seed(1)
    images = tf.placeholder(tf.float32, [None, size, size, row.channels])
    logits, _ = nets_factory.get_network_fn(name, _CLASSES)(images)
    session.run(tf.global_variables_initializer())
    yield session, images, logits


def frozen_network(name, size):
  """Returns a function that adds the network of `random_network`, with its
  weights as constants, to the default graph; it returns MadePhotos, logits."""
  with random_network(name, size) as (session, images, logits):
    part = subgraph.freeze(session, [images], [logits])
    output = subgraph.output_names([logits])[0] + ':0'

  def add():
    made = MadePhotos(*images.shape.as_list()[2:])
    return (made, *tf.import_graph_def(
        part, {images.op.name: made.image}, [output]))

  return add


def speed(sizes):
  """Measures training and forward passes of a network, on made photos."""
  run, config = prepare_run(sizes)
  with tf.Graph().as_default() as training:
    step = build_step(run)
  with tf.Graph().as_default() as forward:
    logits = frozen_network(FLAGS.model_name, sizes.image_size)()
  wait_for_turn()
  for batch_size in sizes.batches:  # Compiling for all may take too long.
    one = sizes._replace(batches=(batch_size,))
    measure_step('training', training, *step, config, one)
    measure_step('forward', forward, *logits, config, one)


def made_dataset():
  """Returns the training split of the made photos."""
  return dataset_factory.get_dataset(input_speed.NAME, 'train', FLAGS.folder)


def records(sizes):
  """Measures training on records, and how long its steps wait for input."""
  config = plain_speed.config_from_flags(
      dataset_dir=FLAGS.folder, dataset_name=input_speed.NAME,
      train_dir=os.path.join(FLAGS.folder, 'none'),
      train_image_size=sizes.image_size, batch_size=sizes.batches[0])
  wait_for_turn()
  with plain_speed.prepared(config, made_dataset(),
                            common_flags.session_config(FLAGS)) as pair:
    taken = []
    rate, note = measure_rate(lambda: taken.append(pair.step()),
                              pair.batch_size,
                              sizes._replace(seconds=4 * sizes.seconds))
  seconds, waited = map(sum, zip(*taken[sizes.warm_up:]))
  put('training, batch %d' % pair.batch_size, rate, 'photos/s', note)
  put('of a step, waiting for input', 100 * waited / seconds, '%',
      '%d threads' % config.num_preprocessing_threads)


def input_alone(sizes):
  """Measures the training input without a network."""
  size = sizes.image_size or nets_factory.get_network(
      FLAGS.model_name).image_size
  wait_for_turn()
  dataset = made_dataset()
  for on_device, count in ((False, 4), (False, 8), (False, 16), (True, 16)):
    turn = input_speed.measure(
        functools.partial(input_speed.batches_now, on_device=on_device),
        dataset,
        input_speed.Settings(size, 32, sizes.input_batches, 4, count))
    for what, rate in (('', turn.speed), (', per core',
                                          1000 / turn.milliseconds)):
      put('%d threads%s%s' % (
          count, ', on device' if on_device else '', what), rate,
          'photos/s')


def train_program(sizes, *more):
  """Trains as run_train.sh does; returns the log and the seconds."""
  if sizes.image_size:
    more += ('--train_image_size=%d' % sizes.image_size,)
  values = types.SimpleNamespace(
      dataset_dir=FLAGS.folder, dataset_name=input_speed.NAME,
      model_name=FLAGS.model_name, batch_size=_BATCH_SIZE,
      checkpoint_path=os.path.join(FLAGS.folder, 'start.ckpt'))
  return finetune_speed.train(
      values, os.path.join(FLAGS.folder, 'run'), '--cache_features',
      '--dropout_keep_prob=0.5', '--log_every_n_steps=1',
      '--feature_cache_dir=' + os.path.join(FLAGS.folder, 'features'), *more)


def train(sizes):
  """Trains a classifier to the end, as run_train.sh does."""
  with random_network(FLAGS.model_name, sizes.image_size) as (session, *_):
    tf.train.Saver().save(session, os.path.join(FLAGS.folder, 'start.ckpt'),
                          write_meta_graph=False)
  for name in ('run', 'features'):  # Of an earlier call.
    shutil.rmtree(os.path.join(FLAGS.folder, name), ignore_errors=True)
  wait_for_turn()
  log, seconds = train_program(sizes)
  for split, count, rate in re.findall(
      r'(\w+) features: \d+ of (\d+) photos, ([\d.]+) photos/s', log):
    put('feature cache, ' + split, float(rate), 'photos/s', count + ' photos')
  put('records to trained classifier', seconds, 's')


def finetune_all(sizes):
  """Continues that run with --finetune_all_steps."""
  wait_for_turn()
  log, seconds = train_program(
      sizes, '--finetune_all_steps=%d' % sizes.finetune_steps)
  put('%d steps' % sizes.finetune_steps, seconds, 's', 'the whole program')
  step = statistics.median(map(float, re.findall(r'\(([\d.]+) sec/step', log)))
  put('step', _BATCH_SIZE / step, 'photos/s', 'batch %d' % _BATCH_SIZE)


def server(sizes):
  """Exports that run, and measures server.py under load."""
  frozen = os.path.join(FLAGS.folder, 'server.pb')
  wait_for_turn()
  finetune_speed.run('export_inference_graph.py', '--input_type=encoded',
                     '--checkpoint_path=' + os.path.join(FLAGS.folder, 'run'),
                     '--frozen_file=' + frozen, '--noexamples')
  done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.server_load',
       '--frozen_file=' + frozen, '--clients=8,64', '--num_photos=16',
       '--photos=' + os.path.join(FLAGS.folder, input_speed.NAME),
       '--seconds=%g' % sizes.server_seconds, '--noold', '--bar=0',
       '--bare_seconds=%g' % (sizes.server_seconds / 2)],
      stdout=subprocess.PIPE, text=True, cwd=finetune_speed.ROOT)
  for line in done.stdout.splitlines():
    found = re.match(r' *server\.py +\d', line)
    if found:
      _, clients, _, rate, _, p95, _, _, _, _, bare, _ = line.split()
      put('%s clients' % clients, float(rate), 'photos/s',
          '95 %% within %s s; session alone %s photos/s' % (p95, bare))
  if done.returncode:
    raise InputError((done.stdout.strip() or 'no output').splitlines()[-1])


def agreement(sizes):
  """Compares the logits of networks with the processor's."""
  networks = {name: frozen_network(name, sizes.image_size)
              for name in FLAGS.model_name.split(',')}
  wait_for_turn()
  ways = {'float32': tf.ConfigProto(), 'float32 (TF32)': tf.ConfigProto()}
  if forward_pass.has_graphics_card():
    ways['float16'] = tensorflow_session.with_precision(
        tf.ConfigProto(), 'float16', True)
  wrong = []
  for name, network in networks.items():
    expected = _logits(network, _PROCESSOR)
    for what, config in ways.items():
      if hasattr(tf.config.experimental, 'enable_tensor_float_32_execution'):
        tf.config.experimental.enable_tensor_float_32_execution(
            what != 'float32')
      difference = float(np.abs(_logits(network, config) - expected).max() /
                         np.abs(expected).max())
      put('%s %s' % (name, what), difference, '', 'of the largest logit')
      if what == 'float32' and not difference <= _TOLERANCE:
        wrong.append(name)
  if wrong:
    raise InputError('float32 logits of %s differ by more than %g of the '
                     'largest' % (', '.join(wrong), _TOLERANCE))


def _logits(network, config):
  """Returns the logits of two made photos."""
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    made, logits = network()
    made.make(session, 2)
    return session.run(logits)


def clones(sizes):
  """Compares a step of --num_clones=1 with one without deployment."""
  run, config = prepare_run(sizes)
  with tf.Graph().as_default() as deployed:
    step = build_step(run)
  with tf.Graph().as_default() as bare:
    made = MadePhotos(run.info.image_size, run.network.channels)
    batch = made.next_batch()
    logits, _ = run_info.network_fn(
        run.info, run.config.optimizer.weight_decay, is_training=True)(
            batch['image'])
    tf.losses.sparse_softmax_cross_entropy(batch['label'], logits)
    bare_step = slim.learning.create_train_op(
        tf.losses.get_total_loss(), tf.train.MomentumOptimizer(
            FLAGS.learning_rate, FLAGS.momentum))
  wait_for_turn()
  sizes = sizes._replace(batches=sizes.batches[:1])
  measure_step('--num_clones=1', deployed, *step, config, sizes)
  measure_step('without clones', bare, made, bare_step, config, sizes)


def main(_):
  """Measures the part."""
  common_flags.require(FLAGS, 'part', 'folder')
  part = dict(zip(NAMES, (devices, photos, speed, records, input_alone, train,
                          finetune_all, server, agreement, clones)))
  part[FLAGS.part](SMALL if FLAGS.small else CARD)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
