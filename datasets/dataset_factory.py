"""Finds a data set by its name and returns its slim Dataset.

Any folder of photos that download_and_convert_data.py has converted can be
named. So can records of slim's scripts, which have no manifest: their labels
come from labels.txt or the row in public_sets.py, and their records are
counted.
"""

import glob
import importlib
import os
import shlex
from typing import List, Optional

from common import label_files
from common.errors import InputError, did_you_mean, unknown_name
from compat import slim
from datasets import (
  imagenet_names,
  manifest,
  public_sets,
  record_dataset,
  split_files,
)
from datasets.split_files import work_dir

__all__ = ['datasets_map', 'find_split', 'get_dataset', 'get_labels',
           'labels_of_records', 'work_dir']


def get_dataset(name: str, split_name: str, dataset_dir: str,
                file_pattern: Optional[str] = None,
                reader: Optional[type] = None) -> slim.dataset.Dataset:
  """Returns the Dataset of one split.

  Args:
    name: name of the data set.
    split_name: 'train', 'validation' or another split of the records.
    dataset_dir: folder that holds the record files and the manifest.
    file_pattern: file names with wildcards inside dataset_dir, `%s` stands for
      the split; None: the files that the manifest names, or else
      `<name>_<split>-?????-of-?????.tfrecord` and slim's form of it.
    reader: class of a tf.ReaderBase; None: tf.TFRecordReader.

  Returns:
    A slim.dataset.Dataset with data_sources (sorted paths), num_samples,
    num_classes, labels_to_names {int: str} and items_to_descriptions; its
    decoder gives the items image ([height, width, 3] uint8), label (int64) and
    filename (string), and those of the row of a public data set.

  Raises:
    InputError: if the folder holds no such data set or split, or files are
      missing, cut off, not TFRecord files, or do not hold what the manifest
      says. Only the lengths in the files are checked here.
  """
  if file_pattern:
    sources, size = _from_pattern(file_pattern, split_name, dataset_dir)
  else:
    files = find_split(name, split_name, dataset_dir)
    sources = files.sources
    size = split_files.check(name, split_name, files, dataset_dir)
  labels = labels_of_records(name, dataset_dir)
  public_set = public_sets.PUBLIC_SETS.get(name)
  loaded = manifest.load(dataset_dir, name)
  if not public_set or loaded and loaded.files and (
      labels != public_set.labels()):  # A user's own photos under this name.
    return record_dataset.make_dataset(sources, size, labels, reader)
  return record_dataset.make_dataset(sources, size, labels, reader,
                                     public_set.channels, public_set.image,
                                     public_set.items)


def find_split(name: str, split_name: str,
               dataset_dir: str) -> split_files.SplitFiles:
  """Returns the SplitFiles of one split.

  Raises:
    InputError: if the folder holds no such data set or split.
  """
  splits = split_files.find(name, dataset_dir)
  if not splits:
    raise _not_converted(name, dataset_dir)
  if split_name not in splits:
    raise unknown_name('split of data set %r' % name, split_name, splits)
  return splits[split_name]


def get_labels(name: str, dataset_dir: str) -> List[str]:
  """Returns the list of a data set's class names.

  Args:
    name: name of the data set; the project includes the 1001 names of
      'imagenet'.
    dataset_dir: folder that holds the data set.

  Raises:
    InputError: if the folder does not hold it, or there are no class names.
  """
  if name == 'imagenet':
    return imagenet_names.labels()
  if not manifest.load(dataset_dir, name) and not split_files.find(
      name, dataset_dir):
    raise _not_converted(name, dataset_dir)
  return labels_of_records(name, dataset_dir)


def labels_of_records(name: str, dataset_dir: str) -> List[str]:
  """Returns the list of class names of a data set's records.

  They come from the manifest, or else labels.txt, or else the row of a public
  data set. 'imagenet' without a manifest always uses its row: slim's files of
  it come without labels.txt.

  Raises:
    InputError: if none of these exists.
  """
  loaded = manifest.load(dataset_dir, name)
  if loaded:
    return loaded.labels
  public_set = public_sets.PUBLIC_SETS.get(name)
  labels_path = os.path.join(dataset_dir, record_dataset.LABELS_FILE)
  if public_set and (name == 'imagenet' or not os.path.exists(labels_path)):
    return public_set.labels()
  if not os.path.exists(labels_path):
    raise InputError('no class names of data set %r: neither %s nor %s exists' %
                     (name, manifest.path(dataset_dir, name), labels_path))
  return label_files.read(labels_path)


def _not_converted(name, dataset_dir):
  return InputError(
      'data set %r is not converted (looked in %s): run DATASET_NAME=%s '
      'DATASET_DIR=%s ./convert_tfrecord.sh, or %s%s' %
      (name, dataset_dir, shlex.quote(name), shlex.quote(dataset_dir),
       split_files.command(name, dataset_dir),
       did_you_mean(name, _existing_names(dataset_dir))))


def _existing_names(dataset_dir):
  """Returns the names of the data sets with a manifest in a folder."""
  return [os.path.basename(path)[:-len('.json')] for path in
          glob.glob(os.path.join(glob.escape(dataset_dir), '*.json'))]


def _from_pattern(file_pattern, split_name, dataset_dir):
  """Returns (paths, number of records) of the files that a pattern matches."""
  if '%s' in file_pattern:
    file_pattern = file_pattern.replace('%s', split_name)
  sources = sorted(glob.glob(os.path.join(glob.escape(dataset_dir),
                                          file_pattern)))
  if not sources:
    raise InputError('no file in %s matches the file pattern %r' %
                     (dataset_dir, file_pattern))
  return sources, sum(map(record_dataset.count_records, sources))


# {name: slim's module of a public data set, with get_split}. After get_dataset,
# which these modules use.
datasets_map = {name: importlib.import_module('datasets.' + name)
                for name in sorted(public_sets.PUBLIC_SETS)}
