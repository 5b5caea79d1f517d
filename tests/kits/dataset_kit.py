"""Small folders of photos and record files."""

import io

import numpy as np
from PIL import Image

from compat import tf
from datasets import record_dataset


def photo_bytes(number, kind='JPEG', size=(12, 10)):
  """Returns the bytes of a photo of noise; `number` is the seed."""
  pixels = np.random.RandomState(number).randint(0, 256, (*size[::-1], 3))
  buffer = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
  return buffer.getvalue()


def make_folder(folder, counts):
  """Makes a folder of photos, all of them different.

  Args:
    folder: pathlib.Path of `<dataset_dir>/<name>`.
    counts: {class name: number of photos}.
  """
  number = 0
  for class_name, count in counts.items():
    (folder / class_name).mkdir(parents=True)
    for index in range(count):
      number += 1
      (folder / class_name / ('%03d.jpg' % index)).write_bytes(
          photo_bytes(number))


def write_records(path, examples):
  """Writes tf.train.Examples into one record file."""
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for example in examples:
      writer.write(example.SerializeToString())


def make_shards(folder, name, split, sizes, num_classes=2):
  """Writes a split's record files, without a manifest.

  The file name of each photo is its number, from 0.

  Args:
    folder: pathlib.Path.
    name: name of the data set.
    split: name of the split.
    sizes: number of records of each file.
    num_classes: labels are the photos' numbers modulo this.

  Returns:
    List of paths.
  """
  paths, number = [], 0
  for index, size in enumerate(sizes):
    paths.append(folder / ('%s_%s-%05d-of-%05d.tfrecord' %
                           (name, split, index, len(sizes))))
    examples = []
    for _ in range(size):
      examples.append(record_dataset.make_example(
          photo_bytes(number), 10, 12, number % num_classes, '%d' % number))
      number += 1
    write_records(paths[-1], examples)
  return paths


def file_contents(folder):
  """Returns {file name: bytes} of the files directly in a folder."""
  return {path.name: path.read_bytes() for path in folder.iterdir()
          if path.is_file()}
