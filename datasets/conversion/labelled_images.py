"""Converts small images in memory to records, labels and a manifest.

For data sets that are published as arrays, not as photo files: each image
becomes a PNG, which is lossless. A conversion that was killed starts over (see
converted_files), and the same images give the same bytes.
"""

import contextlib
import io
import itertools
import os
import random
import reprlib
import shutil
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image

from common.errors import InputError
from common.threads import map_in_threads
from compat import tf
from datasets import manifest as manifests
from datasets import record_dataset
from datasets.conversion import converted_files
from datasets.records import shard_check
from datasets.split_files import work_dir


class Images(NamedTuple):
  """The images of one split."""

  # uint8 array [number, height, width] or [number, height, width, 3].
  pixels: np.ndarray
  # Integer array [number].
  labels: np.ndarray


_SEED = 0  # Decides the order of the records; the same seed as in slim.


def convert(dataset_dir: str, name: str, labels: Sequence[str],
            splits: Dict[str, Images],
            num_shards: Optional[int] = None) -> manifests.Manifest:
  """Writes the records of a data set, its labels and its manifest.

  Args:
    dataset_dir: folder of the files; it must exist.
    name: name of the data set.
    labels: class names; the index is the label.
    splits: {split name: Images}.
    num_shards: record files per split; 0: one, which is enough for small
      images; None: as in the former conversion, or else one.

  Returns:
    The Manifest.

  Raises:
    InputError: a label is not one of the classes, a split is empty, the former
      conversion was of other data, or the files cannot be written.
  """
  if num_shards is not None and not 0 <= num_shards <= 99999:
    raise InputError('num_shards is %r, expected 0 to 99999' % num_shards)
  for split, images in splits.items():
    _check(name, split, images, labels)
  former_path = converted_files.former_path(dataset_dir, name)
  former = manifests.load_file(former_path) if former_path else None
  if former:
    _check_former(former, former_path, labels, splits)
  shards = {split: _shard_names(
      name, split, min(_shard_count(num_shards, former, split),
                       len(images.labels)))
            for split, images in splits.items()}
  manifest = manifests.Manifest(
      name=name, labels=list(labels), seed=_SEED, percent_validation=0,
      files={}, skipped=[],
      splits={split: _describe(images, labels, shards[split])
              for split, images in splits.items()})

  def write_shards(work_path):
    for split, images in splits.items():
      _write_split(work_path, split, images, labels, shards[split])
      # Known only now; the manifest is written last.
      manifest.splits[split]['shard_bytes'] = [
          os.path.getsize(os.path.join(work_path, shard))
          for shard in shards[split]]

  try:
    converted_files.publish(dataset_dir, manifest, former, [], write_shards)
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (dataset_dir, error))
  except tf.errors.OpError as error:  # Of the record writer.
    raise InputError('cannot write to %s: %s' % (dataset_dir, error.message))
  return manifest


def already_converted(
    dataset_dir: str, name: str, labels: Sequence[str],
    split_names: Iterable[str],
    num_shards: Optional[int]) -> Optional[manifests.Manifest]:
  """Returns the Manifest of an earlier conversion, or None.

  All record files are read, see shard_check. If they are undamaged, the
  leftovers of a killed conversion are removed.

  Args:
    dataset_dir: folder of the files.
    name: name of the data set.
    labels: class names; the index is the label.
    split_names: the splits that the data set has.
    num_shards: requested record files per split; 0: one; None: any number.

  Returns:
    None also if a record file is missing or damaged, or their number is not the
    requested one.

  Raises:
    InputError: other data were converted under this name.
  """
  manifest = manifests.load(dataset_dir, name)
  if not manifest:
    return None
  _check_former(manifest, manifests.path(dataset_dir, name), labels,
                split_names)
  known_shards: List[shard_check.KnownShard] = []
  for split_name, split in manifest.splits.items():
    wanted = min(_shard_count(num_shards, manifest, split_name), split['size'])
    if len(split['shards']) != wanted or not (
        'shard_sizes' in split and 'shard_bytes' in split):  # Old manifest.
      return None
    known_shards += map(shard_check.KnownShard,
                 [os.path.join(dataset_dir, shard)
                  for shard in split['shards']],
                 split['shard_sizes'], split['shard_bytes'])
  damaged = shard_check.find_damaged(known_shards)
  if damaged:
    tf.logging.warning(
        '%d of %d record files of %s are missing or damaged, the first is %s: '
        'writing all again', len(damaged), len(known_shards), name, damaged[0])
    return None
  tf.logging.info('%s holds the records of %s already, %d files without damage',
                  dataset_dir, name, len(known_shards))
  work_path = work_dir(dataset_dir, name)
  try:
    if os.path.isdir(work_path):
      shutil.rmtree(work_path)
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (dataset_dir, error))
  return manifest


def _check_former(former, former_path, labels, split_names):
  """Raises InputError if a manifest is not that of this public data set.

  It may be that of a folder of photos of this name that is now gone, whose
  records must not be replaced by others.
  """
  if (former.labels != list(labels) or former.files or
      set(former.splits) != set(split_names)):
    raise InputError(
        '%s describes other data than the public data set %s, %d photos of %s: '
        'move it and its record files away, or use another folder' %
        (former_path, former.name,
         sum(split['size'] for split in former.splits.values()),
         reprlib.repr(former.labels)))


def _shard_count(num_shards, former, split):
  """Returns how many record files a split gets.

  Args:
    num_shards: as given.
    former: Manifest of the former conversion, or None.
    split: its name.
  """
  if num_shards is None and former:
    return len(former.splits[split]['shards'])
  return num_shards or 1


def _check(name, split, images, labels):
  if not len(images.labels):
    raise InputError('%s: split %r holds no image' % (name, split))
  outside = np.flatnonzero((images.labels < 0) |
                           (images.labels >= len(labels)))
  if len(outside):
    raise InputError('%s: image %d of split %r has label %d, expected 0 to %d' %
                     (name, outside[0], split, images.labels[outside[0]],
                      len(labels) - 1))


def _shard_names(name, split, count):
  return ['%s_%s-%05d-of-%05d.tfrecord' % (name, split, index, count)
          for index in range(count)]


def _describe(images, labels, shards):
  """Returns a split as the manifest holds it."""
  counts = np.bincount(images.labels, minlength=len(labels))
  ranges = _record_ranges(len(images.labels), len(shards))
  return {'size': len(images.labels), 'shards': shards,
          'shard_sizes': [end - start for start, end in ranges],
          'class_counts': {label: int(count)
                           for label, count in zip(labels, counts)}}


def _record_ranges(size, num_shards):
  """Returns [(first record, last record + 1)], one per shard."""
  return [(index * size // num_shards, (index + 1) * size // num_shards)
          for index in range(num_shards)]


def _write_split(folder, split, images, labels, shards):
  """Writes a split's record files; the images are shuffled across them."""
  order = list(range(len(images.labels)))
  random.Random(_SEED).shuffle(order)

  def make_record(index):
    pixels, label = images.pixels[index], int(images.labels[index])
    # The image's position in the published files, as a photo's name.
    file = '%s/%s_%05d.png' % (labels[label], split, index)
    return record_dataset.make_example(
        _png(pixels), *pixels.shape[:2], label, file,
        image_format=b'png').SerializeToString(deterministic=True)

  with contextlib.closing(
      map_in_threads(make_record, order, 'written')) as records:
    for shard, (start, end) in zip(
        shards, _record_ranges(len(order), len(shards))):
      with tf.python_io.TFRecordWriter(os.path.join(folder, shard)) as writer:
        for record in itertools.islice(records, end - start):
          writer.write(record)


def _png(pixels):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'PNG')
  return buffer.getvalue()
