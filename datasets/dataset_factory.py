"""From the name of a data set to its slim Dataset.

Any folder of photos that download_and_convert_data.py has converted is a data
set by its name. So are records of slim's scripts, without a manifest: their
labels come from labels.txt, and their records are counted.
"""

import glob
import os

from datasets import imagenet_names, manifest, record_dataset
from errors import InputError, unknown_name

# Class names that ship with the project: function that returns the list.
_KNOWN_LABELS = {'imagenet': imagenet_names.labels}


def work_dir(dataset_dir, name):
  """Returns the folder in which the converter builds a data set's files."""
  return os.path.join(dataset_dir, '.%s.converting' % name)


def get_dataset(name, split_name, dataset_dir, file_pattern=None, reader=None):
  """Returns the Dataset of one split.

  Args:
    name: name of the data set.
    split_name: 'train' or 'validation', or what else the records hold.
    dataset_dir: folder that holds the record files and the manifest.
    file_pattern: file names with wildcards inside dataset_dir, `%s` stands for
      the split; None: the files that the manifest names, or else
      `<name>_<split>-?????-of-?????.tfrecord` and slim's form of it.
    reader: class of a tf.ReaderBase; None: tf.TFRecordReader.

  Returns:
    A slim.dataset.Dataset with data_sources (sorted paths), num_samples,
    num_classes, labels_to_names {int: str} and items_to_descriptions; its
    decoder gives the items image ([height, width, 3] uint8), label (int64) and
    filename (string).

  Raises:
    InputError: if the folder holds no such data set or split, or files that
      the manifest names are missing.
  """
  if file_pattern:
    sources, size = _from_pattern(file_pattern, split_name, dataset_dir)
  else:
    sources, size = _find_records(name, split_name, dataset_dir)
  labels = _labels_of_records(name, dataset_dir)
  return record_dataset.make_dataset(sources, size, labels, reader)


def get_labels(name, dataset_dir):
  """Returns the list of a data set's class names.

  Args:
    name: name of the data set; 'imagenet' has its 1001 names in the project.
    dataset_dir: folder that holds the manifest or labels.txt.

  Raises:
    InputError: if the folder holds neither.
  """
  if name in _KNOWN_LABELS:
    return _KNOWN_LABELS[name]()
  return _labels_of_records(name, dataset_dir)


def _labels_of_records(name, dataset_dir):
  """Returns the labels as the manifest, the project or labels.txt has them."""
  found = manifest.load(dataset_dir, name)
  if found:
    return found.labels
  if name in _KNOWN_LABELS:
    return _KNOWN_LABELS[name]()
  labels_path = os.path.join(dataset_dir, record_dataset.LABELS_FILE)
  if not os.path.exists(labels_path):
    raise InputError('no class names of data set %r: neither %s nor %s exists' %
                     (name, manifest.path(dataset_dir, name), labels_path))
  return record_dataset.read_labels(labels_path)


def _from_pattern(file_pattern, split_name, dataset_dir):
  """Returns (paths, number of records) of what a pattern matches."""
  if '%s' in file_pattern:
    file_pattern = file_pattern.replace('%s', split_name)
  sources = sorted(glob.glob(os.path.join(glob.escape(dataset_dir),
                                          file_pattern)))
  if not sources:
    raise InputError('no file in %s matches the file pattern %r' %
                     (dataset_dir, file_pattern))
  return sources, sum(map(record_dataset.count_records, sources))


def _find_records(name, split_name, dataset_dir):
  """Returns (paths, number of records) of a split."""
  found = manifest.load(dataset_dir, name)
  if found:
    if split_name not in found.splits:
      raise unknown_name('split of data set %r' % name, split_name,
                         found.splits)
    split = found.splits[split_name]
    sources = [os.path.join(dataset_dir, shard) for shard in split['shards']]
    _check_present(sources, name, dataset_dir)
    return sources, split['size']
  shards = record_dataset.find_shards(dataset_dir, name)
  if not shards or os.path.isdir(work_dir(dataset_dir, name)):
    raise InputError('data set %r is not converted (looked in %s): run %s' %
                     (name, dataset_dir, _command(name, dataset_dir)))
  if split_name not in shards:
    raise unknown_name('split of data set %r' % name, split_name, shards)
  sources = [os.path.join(dataset_dir, shard) for shard in shards[split_name]]
  _check_complete(sources)
  return sources, sum(map(record_dataset.count_records, sources))


def _check_present(sources, name, dataset_dir):
  missing = [source for source in sources if not os.path.isfile(source)]
  if missing:
    raise InputError(
        'the manifest %s names %d files that are missing, the first is %s: '
        'copy them there, or run %s' %
        (manifest.path(dataset_dir, name), len(missing), missing[0],
         _command(name, dataset_dir)))


def _check_complete(sources):
  """Raises InputError unless files 00000 to N of N are all there."""
  total = int(sources[0].split('-of-')[-1][:5])
  if len(sources) != total:
    raise InputError('%d of the %d files like %s are there' %
                     (len(sources), total, sources[0]))


def _command(name, dataset_dir):
  return ('download_and_convert_data.py --dataset_name=%s --dataset_dir=%s '
          'on the photos in %s/<class>/' %
          (name, dataset_dir, os.path.join(dataset_dir, name)))
