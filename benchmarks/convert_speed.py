"""Compares the speed of conversion with the method of the 2017 script.

That method uses one process and one TensorFlow session, which decodes each JPEG
to get its size; no check, no other formats; five record files per split. It is
reimplemented here. Both write the same number of files, and alternate, so that
other load on the machine affects both; a figure is the median of the rounds.
"""

import os
import random
import statistics
import tempfile
import time

from absl import flags

from common import flags as common_flags
from compat import tf
from datasets import record_dataset
from datasets.conversion import convert_photos, draw_flowers
from datasets.photo_files import photo_folder

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REAL_PHOTOS = os.path.join(os.path.dirname(ROOT), 'shared', 'real',
                           'clothing_10')
NAME = 'photos'
NUM_SHARDS = 5
PERCENT_VALIDATION = 10


def define_flags():
  flags.DEFINE_string(
      'photos', None,
      'Folder with one folder of JPEGs per class. None: %s if it exists, else '
      'drawn photos.' % REAL_PHOTOS)
  flags.DEFINE_integer('per_class', 300, 'Photos drawn per class, of '
                       'five classes.', lower_bound=2)
  flags.DEFINE_integer('rounds', 5, 'How often each method has its turn.',
                       lower_bound=1)


def convert_as_in_2017(photo_dir, output_dir):
  """Converts a folder of JPEGs by the 2017 method; returns how many photos."""
  listing = photo_folder.list_photos(photo_dir)
  rows = [(listed.file, listing.classes.index(listed.class_name))
          for listed in listing.files]
  random.Random(0).shuffle(rows)
  num_validation = len(rows) * PERCENT_VALIDATION // 100
  with tf.Graph().as_default():
    encoded = tf.placeholder(tf.string)
    decoded = tf.image.decode_jpeg(encoded, channels=3)
    with tf.Session() as session:
      for split, part in (('train', rows[num_validation:]),
                          ('validation', rows[:num_validation])):
        for shard in range(NUM_SHARDS):
          path = os.path.join(output_dir, '%s_%s_%05d-of-%05d.tfrecord' %
                              (NAME, split, shard, NUM_SHARDS))
          with tf.python_io.TFRecordWriter(path) as writer:
            for file, label in part[shard::NUM_SHARDS]:
              with open(os.path.join(photo_dir, file), 'rb') as source:
                data = source.read()
              height, width, _ = session.run(decoded, {encoded: data}).shape
              example = record_dataset.make_example(
                  data, height, width, label, file)
              writer.write(example.SerializeToString())
  return len(rows)


def convert_now(photo_dir, output_dir):
  """Converts a folder of photos with this project; returns how many photos."""
  os.symlink(photo_dir, os.path.join(output_dir, NAME))
  manifest = convert_photos.convert(
      output_dir, NAME, percent_validation=PERCENT_VALIDATION,
      num_shards=NUM_SHARDS, max_bad_fraction=1)
  return len(manifest.files) + len(manifest.skipped)


METHODS = (('2017', convert_as_in_2017), ('this project', convert_now))


def measure(function, photo_dir):
  """Returns the photos per second of one conversion into a new folder."""
  with tempfile.TemporaryDirectory() as output_dir:
    start = time.perf_counter()
    count = function(photo_dir, output_dir)
    return count / (time.perf_counter() - start)


def compare(photo_dir, rounds):
  """Alternates the methods; returns {method: median photos per second}.

  A first round, which warms up the machine's file cache, is not counted.

  Args:
    photo_dir: folder with one folder of JPEGs per class.
    rounds: number of rounds.
  """
  figures = {name: [] for name, _ in METHODS}
  for number in range(rounds + 1):
    for name, function in METHODS:
      speed = measure(function, photo_dir)
      if number:
        figures[name].append(speed)
        print('round %d, %s: %.0f photos/s' % (number, name, speed),
              flush=True)
  return {name: statistics.median(speeds) for name, speeds in figures.items()}


def main(_):
  """Converts the photos by both methods and prints the ratio."""
  values = flags.FLAGS
  with tempfile.TemporaryDirectory() as drawn:
    photo_dir = values.photos
    if not photo_dir and os.path.isdir(REAL_PHOTOS):
      photo_dir = REAL_PHOTOS
    if not photo_dir:
      draw_flowers.draw_all(drawn, per_class=values.per_class)
      photo_dir = drawn
    photo_dir = os.path.abspath(photo_dir)
    print('photos of %s' % ('drawn flowers' if photo_dir == drawn else
                            photo_dir))
    speeds = compare(photo_dir, values.rounds)
  print('\nmedian of %d rounds, photos per second' % values.rounds)
  for name, _ in METHODS:
    print('%-14s %8.0f' % (name, speeds[name]))
  print('this project is %.2f times as fast' %
        (speeds['this project'] / speeds['2017']))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
