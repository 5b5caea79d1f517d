"""Compares the speed of the training input with slim's queues.

slim's method of 2017 is reimplemented here: four reader threads fill a queue of
records, which are decoded at full size; the distortions work on the whole photo
as float32, one TensorFlow operation after the other; four threads fill the
queue of batches, and a last queue holds two of them. All methods read the same
records and alternate, so that other load on the machine affects all; a figure
is the median of the rounds.
"""

import functools
import os
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from compat import slim, tf
from datasets import dataset_factory, input_pipeline
from datasets.conversion import convert_photos, draw_flowers
from preprocessing import inception_preprocessing, preprocessing_factory

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REAL_PHOTOS = os.path.join(os.path.dirname(ROOT), 'shared', 'real',
                           'clothing_10')
NAME = 'photos'
NUM_SHARDS = 5  # As slim's flowers.


class Settings(NamedTuple):
  """Settings of the measurement."""

  # In pixels.
  image_size: int
  # In photos.
  batch_size: int
  num_batches: int
  num_readers: int
  num_threads: int


class Turn(NamedTuple):
  """Result of one measurement."""

  # Photos per second.
  speed: float
  # CPU time per photo, of all threads.
  milliseconds: float


def define_flags():
  flags.DEFINE_string(
      'dataset_dir', None,
      'Folder of the TFRecord files. None: %s is converted if it is there, '
      'else photos are drawn.' % REAL_PHOTOS)
  flags.DEFINE_string('dataset_name', None, 'Name of the converted data set.')
  flags.DEFINE_integer('per_class', 300, 'Photos drawn per class, of '
                       'five classes.', lower_bound=2)
  flags.DEFINE_integer('image_size', 224, "Side of the network's input in "
                       'pixels.', lower_bound=1)
  flags.DEFINE_integer('batch_size', 32, 'Photos a batch.', lower_bound=1)
  flags.DEFINE_integer('num_batches', 60, 'Batches a turn.', lower_bound=1)
  flags.DEFINE_integer('num_readers', 4, 'Files that are read at once (slim) '
                       'or in turn.', lower_bound=1)
  flags.DEFINE_integer('num_preprocessing_threads', 4,
                       'Threads that decode and preprocess photos.',
                       lower_bound=1)
  flags.DEFINE_integer('rounds', 5, 'How often each way has its turn.',
                       lower_bound=1)
  flags.DEFINE_float('wanted_photos_per_second', 1000.0,
                     'Speed of training for which the cores are counted.',
                     lower_bound=0.0)
  flags.DEFINE_float('bar', 1.6, 'How many times as fast this project must be; '
                     'else the exit status is 1.', lower_bound=0.0)


def batches_as_in_2017(dataset, settings):
  """Returns the operation that takes the next batch from slim's queues."""
  batch_size = settings.batch_size
  provider = slim.dataset_data_provider.DatasetDataProvider(
      dataset, num_readers=settings.num_readers,
      common_queue_capacity=20 * batch_size, common_queue_min=10 * batch_size)
  image, label = provider.get(['image', 'label'])
  image = distort_as_in_2017(image, settings.image_size)
  batch = tf.train.batch(
      [image, label], batch_size=batch_size, num_threads=settings.num_threads,
      capacity=5 * batch_size)
  queue = slim.prefetch_queue.prefetch_queue(batch, capacity=2)
  return queue.dequeue()[0].op


def distort_as_in_2017(image, size):
  """Returns `[size, size, 3]` float32 in [-1, 1], distorted as in fast_mode.

  Args:
    image: `[height, width, 3]` uint8.
    size: of the result, in pixels.
  """
  image = tf.image.convert_image_dtype(image, tf.float32)
  begin, extent, _ = tf.image.sample_distorted_bounding_box(
      tf.shape(image), tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
      min_object_covered=0.1, aspect_ratio_range=(0.75, 1.33),
      area_range=(0.05, 1.0), max_attempts=100,
      use_image_if_no_bounding_boxes=True)
  image = tf.slice(image, begin, extent)
  image.set_shape([None, None, 3])
  image = tf.image.resize_images(image, [size, size])
  image = tf.image.random_flip_left_right(image)
  lower, upper = inception_preprocessing.SATURATION

  def brightness(image):
    return tf.image.random_brightness(image, inception_preprocessing.BRIGHTNESS)

  def saturation(image):
    return tf.image.random_saturation(image, lower, upper)

  image = tf.cond(tf.random_uniform([]) < 0.25,
                  lambda: saturation(brightness(image)),
                  lambda: brightness(saturation(image)))
  image = tf.clip_by_value(image, 0.0, 1.0)
  return tf.multiply(tf.subtract(image, 0.5), 2.0)


def batches_now(dataset, settings, name='inception', **options):
  """Returns the operation that takes the next batch of this project.

  Args:
    dataset: slim Dataset.
    settings: Settings.
    name: of a network or a preprocessing family.
    **options: of preprocessing_factory.get_preprocessing.
  """
  batches = input_pipeline.training_batches(
      dataset, preprocessing_factory.get_preprocessing(name, True, **options),
      settings.image_size, settings.batch_size,
      num_readers=settings.num_readers, num_threads=settings.num_threads)
  iterator = tf.data.make_initializable_iterator(batches)
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
  return iterator.get_next()['image'].op


_ON_DEVICE = ', --preprocess_on_device'
METHODS = (('2017', batches_as_in_2017), ('this project', batches_now), *(
    (what + more, functools.partial(batches_now, on_device=bool(more),
                                    **options))
    for what, options in (('this project', {}),
                          ('--nofast_mode', {'fast_mode': False}),
                          ('vgg', {'name': 'vgg'}))
    for more in (['', _ON_DEVICE] if options else [_ON_DEVICE])))


def start_queues(session, coordinator):
  """Starts the threads of slim's queues; returns them, [] without queues."""
  if not tf.get_collection(tf.GraphKeys.QUEUE_RUNNERS):
    return []
  return tf.train.start_queue_runners(session, coordinator)


def stop_queues(session, coordinator, threads):
  """Stops those threads; closes the session, because some wait inside it."""
  coordinator.request_stop()
  session.close()
  coordinator.join(threads, stop_grace_period_secs=60)


def measure(function, dataset, settings):
  """Returns the Turn of one method, after its queues are full and in use."""
  with tf.Graph().as_default(), tf.Session() as session:
    batch = function(dataset, settings)
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    coordinator = tf.train.Coordinator()
    threads = start_queues(session, coordinator)
    for _ in range(2 + settings.num_batches // 4):
      session.run(batch)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(settings.num_batches):
      session.run(batch)
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - start_cpu
    stop_queues(session, coordinator, threads)
  photos = settings.num_batches * settings.batch_size
  return Turn(photos / seconds, 1000 * cpu_seconds / photos)


def compare(dataset, settings, rounds):
  """Alternates the methods; returns {method: [Turn]}.

  A first round, which warms up the machine's file cache, is not counted.

  Args:
    dataset: slim Dataset.
    settings: Settings.
    rounds: number of rounds.
  """
  figures = {name: [] for name, _ in METHODS}
  for number in range(rounds + 1):
    for name, function in METHODS:
      turn = measure(function, dataset, settings)
      if number:
        figures[name].append(turn)
        print('round %d, %s: %.0f photos/s, %.2f CPU ms per photo' %
              (number, name, turn.speed, turn.milliseconds), flush=True)
  return figures


def ratios(figures):
  """Returns the speed-up of this project, as medians of the rounds.

  Returns:
    The ratio of the photos per second, and that of the CPU time per photo. The
    second is more reliable if other programs are running.
  """
  rounds = list(zip(figures['2017'], figures['this project']))
  return (statistics.median(now.speed / before.speed for before, now in rounds),
          statistics.median(before.milliseconds / now.milliseconds
                            for before, now in rounds))


def make_records(folder, per_class):
  """Converts the real photos, or drawn ones, into a folder."""
  photos = os.path.join(folder, NAME)
  if os.path.isdir(REAL_PHOTOS):
    os.symlink(REAL_PHOTOS, photos)
  else:
    draw_flowers.draw_all(photos, per_class=per_class)
  convert_photos.convert(folder, NAME, num_shards=NUM_SHARDS)


def main(_):
  """Reads the records by both methods and prints the ratio."""
  values = flags.FLAGS
  if bool(values.dataset_dir) != bool(values.dataset_name):
    raise InputError('--dataset_dir and --dataset_name belong together, got %r '
                     'and %r' % (values.dataset_dir, values.dataset_name))
  settings = Settings(values.image_size, values.batch_size, values.num_batches,
                      values.num_readers, values.num_preprocessing_threads)
  with tempfile.TemporaryDirectory() as made:
    folder, name = values.dataset_dir, values.dataset_name
    if not folder:
      folder, name = made, NAME
      make_records(made, values.per_class)
    figures = compare(dataset_factory.get_dataset(name, 'train', folder),
                      settings, values.rounds)
  wanted = values.wanted_photos_per_second
  print('\nTensorFlow %s, %d pixels, medians of %d rounds: photos per second, '
        'ms of the processor per photo, photos per second and core, cores for '
        '%g photos per second' % (tf.__version__, settings.image_size,
                                  values.rounds, wanted))
  for name, turns in figures.items():
    speed, milliseconds = map(statistics.median, zip(*turns))
    print('%-38s %8.0f %8.2f %8.0f %8.1f' % (
        name, speed, milliseconds, 1000 / milliseconds,
        wanted * milliseconds / 1000))
  ratio, ratio_of_time = ratios(figures)
  print('this project is %.2f times as fast (by the time of the processor '
        '%.2f); it must be %.2f' % (ratio, ratio_of_time, values.bar))
  if ratio < values.bar:
    sys.exit(1)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
