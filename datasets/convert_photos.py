"""From a folder of photos to records, labels and a manifest.

Two passes. The first reads and decodes every photo, so that the splits are made
of usable photos only. The second writes the records into a work folder, whose
files are moved to their place when all are complete, the manifest last: while
there is no manifest but a work folder, dataset_factory takes nothing for the
data set, and the next conversion starts from the photos again.
"""

import collections
import hashlib
import os
import random
import re
import shutil

from compat import tf
from datasets import manifest as manifests
from datasets import photo_folder, photos, record_dataset
from datasets.dataset_factory import work_dir
from errors import InputError

# Aimed-at size of a record file: a few for a small data set, so that several
# readers have something to do; none so large that copying it is a burden.
SHARD_BYTES = 64 * 1024 * 1024

SPLITS = ('train', 'validation')


def convert(dataset_dir, name, percent_validation=10, seed=0, num_shards=None,
            max_pixels=photos.MAX_PIXELS):
  """Converts the photos in `<dataset_dir>/<name>/<class>/`.

  Writes into dataset_dir: record files `<name>_train-00000-of-0000N.tfrecord`
  and `<name>_validation-...`, labels.txt, and the manifest `<name>.json`. The
  same photos and arguments give the same bytes on every machine. Record files
  of a former conversion of this data set are removed.

  Args:
    dataset_dir: folder that holds the folder of photos and gets the records.
    name: name of the data set and of its folder.
    percent_validation: integer 0 to 99, percent of each class for validation.
    seed: integer, decides the splits and the order.
    num_shards: record files a split; None: by size.
    max_pixels: photos with more pixels are skipped.

  Returns:
    The Manifest.

  Raises:
    InputError: if the folder is missing, holds fewer than two classes or a
      class without a usable photo, or if dataset_dir cannot be written to.
  """
  _check_arguments(name, percent_validation, num_shards)
  folder = os.path.join(dataset_dir, name)
  listing = photo_folder.list_photos(folder)
  usable, unusable = photo_folder.check_photos(folder, listing, max_pixels)
  skipped = sorted(listing.skipped + unusable, key=lambda entry: entry['file'])
  by_class = _group_by_class(usable, listing.classes, folder, skipped)

  split_of = {}
  for members in by_class.values():
    split_of.update(assign_splits(members, percent_validation, seed))
  splits, orders = _plan(name, by_class, split_of, num_shards, seed)
  manifest = manifests.Manifest(
      name=name, labels=listing.classes, splits=splits, seed=seed,
      percent_validation=percent_validation,
      files={photo.file: split_of[photo.file]
             for photo in sorted(usable, key=lambda photo: photo.file)},
      skipped=skipped)
  try:
    _write(dataset_dir, manifest, orders, max_pixels)
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (dataset_dir, error))
  except tf.errors.OpError as error:  # Of the record writer.
    raise InputError('cannot write to %s: %s' % (dataset_dir, error.message))
  return manifest


def assign_splits(members, percent_validation, seed):
  """Assigns the photos of one class to splits.

  By the rank of a hash of seed and content, so that neither names nor the
  order of a listing matter. Photos with equal bytes stay together.

  Args:
    members: list of photo_folder.CheckedPhoto of one class.
    percent_validation: integer 0 to 99.
    seed: integer.

  Returns:
    {file: split}. For validation that percentage, rounded, but at least one
    photo of two or more, and never all.
  """
  groups = collections.defaultdict(list)
  for photo in members:
    key = '%d:%s' % (seed, photo.digest)
    groups[hashlib.sha256(key.encode('ascii')).hexdigest()].append(photo.file)
  ranked = [groups[key] for key in sorted(groups)]

  count = len(members)
  wanted = round(count * percent_validation / 100)
  if percent_validation:
    wanted = max(wanted, 1)
  wanted = min(wanted, count - 1)
  chosen = set()
  for group in ranked:
    if len(chosen) + len(group) <= wanted:
      chosen.update(group)
  if wanted and not chosen and len(ranked) > 1:  # Only groups of duplicates.
    chosen.update(min(ranked, key=len))
  return {photo.file: 'validation' if photo.file in chosen else 'train'
          for photo in members}


def _check_arguments(name, percent_validation, num_shards):
  if not name or name.startswith('.') or re.search(r'[/\\*?\[\]\x00-\x1f]',
                                                   name):
    raise InputError('dataset_name is %r, accepted is a plain folder name '
                     'without / \\ * ? [ ] and no leading dot' % name)
  if not 0 <= percent_validation <= 99:
    raise InputError('percent_validation is %r, accepted are 0 to 99' %
                     percent_validation)
  if num_shards is not None and not 1 <= num_shards <= 99999:
    raise InputError('num_shards is %r, accepted are 1 to 99999' % num_shards)


def _group_by_class(usable, classes, folder, skipped):
  """Returns {class: list of CheckedPhoto}, in the order of the labels."""
  by_class = {class_name: [] for class_name in classes}
  for photo in usable:
    by_class[photo.class_name].append(photo)
  reasons = {entry['file']: entry['reason'] for entry in skipped}
  for class_name in classes:
    if not by_class[class_name]:
      first = [' (%s: %s)' % row for row in reasons.items()
               if row[0].startswith(class_name + '/')][:1]
      raise InputError(
          'class %r in %s has no usable photo%s: add photos (%s), or remove '
          'the folder' % (class_name, folder, ''.join(first), photos.ACCEPTED))
  return by_class


def _plan(name, by_class, split_of, num_shards, seed):
  """Decides the order of the photos and their files.

  Returns:
    splits: as in the Manifest.
    orders: {shard: list of (CheckedPhoto, label)}.
  """
  splits, orders = {}, {}
  for split in SPLITS:
    rows = [(photo, label)
            for label, members in enumerate(by_class.values())
            for photo in members if split_of[photo.file] == split]
    if not rows:
      continue
    rows.sort(key=lambda row: row[0].file)
    random.Random(seed).shuffle(rows)
    total_bytes = sum(photo.num_bytes for photo, _ in rows)
    count = min(num_shards or -(-total_bytes // SHARD_BYTES), len(rows))
    shards = ['%s_%s-%05d-of-%05d.tfrecord' % (name, split, index, count)
              for index in range(count)]
    for index, shard in enumerate(shards):
      orders[shard] = rows[index * len(rows) // count:
                           (index + 1) * len(rows) // count]
    counts = collections.Counter(photo.class_name for photo, _ in rows)
    splits[split] = {
        'size': len(rows), 'shards': shards,
        'class_counts': {label: counts[label] for label in by_class}}
  return splits, orders


def _write(dataset_dir, manifest, orders, max_pixels):
  """Writes all files of the data set; see the module's docstring."""
  folder = os.path.join(dataset_dir, manifest.name)
  aside = work_dir(dataset_dir, manifest.name)
  if os.path.isdir(aside):
    shutil.rmtree(aside)
  os.mkdir(aside)
  for shard, rows in orders.items():
    with tf.python_io.TFRecordWriter(os.path.join(aside, shard)) as writer:
      for photo, label in rows:
        normal = photo_folder.read_again(folder, photo, max_pixels)
        example = record_dataset.make_example(
            normal.encoded, normal.height, normal.width, label, photo.file)
        writer.write(example.SerializeToString(deterministic=True))

  manifest_path = manifests.path(dataset_dir, manifest.name)
  if os.path.exists(manifest_path):
    os.remove(manifest_path)
  stale = re.compile(r'%s_(?:train|validation|test)-\d{5}-of-\d{5}\.tfrecord' %
                     re.escape(manifest.name))
  for file_name in os.listdir(dataset_dir):
    if stale.fullmatch(file_name):
      os.remove(os.path.join(dataset_dir, file_name))
  for shard in orders:
    os.replace(os.path.join(aside, shard), os.path.join(dataset_dir, shard))
  manifests.write_text(os.path.join(dataset_dir, record_dataset.LABELS_FILE),
                       record_dataset.format_labels(manifest.labels))
  manifests.save(dataset_dir, manifest)
  os.rmdir(aside)
