"""Finds the record files of each split, with a cheap check of them.

The check reads lengths only. `tools.verify_tfrecord` reads everything.
"""

import fnmatch
import os
import shlex
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional

from common.errors import InputError
from compat import tf
from datasets import manifest as manifests
from datasets import public_sets, record_dataset
from datasets.records import tfrecord_file

# Up to this many records of a split are counted before training: a quarter of a
# second if the files are in the page cache. In larger splits only the start of
# each file is checked, and its size if the manifest has it.
COUNT_LIMIT = 100 * 1000


class SplitFiles(NamedTuple):
  """The record files of a split."""

  # Sorted paths.
  sources: List[str]
  # Records that they should hold together; None: not known.
  size: Optional[int] = None
  # Records that each should hold; None: not known.
  shard_sizes: Optional[List[int]] = None
  # Size that each file should have; None: not known.
  shard_bytes: Optional[List[int]] = None


def work_dir(dataset_dir: str, name: str) -> str:
  """Returns the folder in which the converter builds a data set's files."""
  return os.path.join(dataset_dir, '.%s.converting' % name)


def find(name: str, dataset_dir: str) -> Dict[str, SplitFiles]:
  """Finds the splits of a data set, by its manifest or else by file names.

  Args:
    name: name of the data set.
    dataset_dir: folder that holds the files.

  Returns:
    {split name: SplitFiles}; empty if the data set is not converted, or a
    conversion has not ended. Files that a manifest names may be missing.

  Raises:
    InputError: if the manifest cannot be read.
  """
  def in_folder(names):
    return [os.path.join(dataset_dir, file_name) for file_name in names]

  manifest = manifests.load(dataset_dir, name)
  if manifest:
    return {split: SplitFiles(in_folder(entry['shards']), entry['size'],
                              entry.get('shard_sizes'),
                              entry.get('shard_bytes'))
            for split, entry in manifest.splits.items()}
  if os.path.isdir(work_dir(dataset_dir, name)):
    return {}
  shards = record_dataset.find_shards(dataset_dir, name)
  if not shards and name in public_sets.PUBLIC_SETS:
    shards = by_pattern(public_sets.PUBLIC_SETS[name], dataset_dir)
  return {split: SplitFiles(in_folder(names))
          for split, names in shards.items()}


def check(name: str, split: str, files: SplitFiles, dataset_dir: str) -> int:
  """Checks a split's files by their lengths, and counts their records.

  Args:
    name: name of the data set.
    split: name of the split.
    files: its files.
    dataset_dir: folder that holds the files.

  Returns:
    How many records there are.

  Raises:
    InputError: a file is missing, cut off or not a TFRecord file, or the files
      do not hold what the manifest says.
  """
  origin = manifests.path(dataset_dir, name)
  for problem in problems_of_files(name, files, origin):
    raise InputError('%s: copy the files again, or run %s' %
                     (problem, command(name, dataset_dir)))
  if files.size is None:
    if _is_full_set(name, split, files.sources):
      return public_sets.PUBLIC_SETS[name].split_sizes[split]
    return sum(count_records(files.sources))
  if files.size > COUNT_LIMIT:
    for source in files.sources:
      tfrecord_file.check_start(source)
    return files.size
  mismatch = compare_counts(files, count_records(files.sources), origin)
  if mismatch:
    raise InputError('%s: run %s' % (mismatch, command(name, dataset_dir)))
  return files.size


def count_records(sources: Iterable[str]) -> List[int]:
  """Returns the list of how many records each file holds."""
  return [record_dataset.count_records(source) for source in sources]


def problems_of_files(name: str, files: SplitFiles,
                      origin: str) -> Iterator[str]:
  """Compares the existing files and their sizes with a SplitFiles.

  Args:
    name: name of the data set.
    files: what should exist.
    origin: path of the manifest.

  Yields:
    A line about each problem.
  """
  missing = [source for source in files.sources if not os.path.isfile(source)]
  if missing:
    yield ('the manifest %s names %d files that are missing, the first is %s' %
           (origin, len(missing), missing[0]))
  elif files.size is None and len(files.sources) != _total(files.sources[0]):
    text = 'only %d of the %d files like %s exist' % (
        len(files.sources), _total(files.sources[0]), files.sources[0])
    if name == 'imagenet':  # A part is useful, and slim uses what exists.
      tf.logging.warning('%s: using these', text)
    else:
      yield text
  for source, wanted in zip(files.sources, files.shard_bytes or ()):
    size = os.path.getsize(source) if source not in missing else wanted
    if size != wanted:
      yield ('%s is damaged: it has %d bytes, but the manifest %s says %d' %
             (source, size, origin, wanted))


def compare_counts(files: SplitFiles, counts: List[int],
                   origin: str) -> Optional[str]:
  """Compares the numbers of records with the manifest.

  Args:
    files: what the manifest says.
    counts: how many records each of its files holds.
    origin: path of the manifest.

  Returns:
    A text about the problem, None if there is none.
  """
  for source, count, wanted in zip(files.sources, counts,
                                   files.shard_sizes or ()):
    if count != wanted:
      return ('%s holds %d records, but the manifest %s says %d' %
              (source, count, origin, wanted))
  if files.size is not None and files.size != sum(counts):
    # The converter fills all files of a split evenly.
    even = files.size / len(counts)
    source, count = max(zip(files.sources, counts),
                        key=lambda row: abs(row[1] - even))
    return ('the files hold %d records, but the manifest %s says %d; %s holds '
            '%d of them' % (sum(counts), origin, files.size, source, count))
  return None


def command(name: str, dataset_dir: str) -> str:
  """Returns the command that makes a data set's files, for messages."""
  program = ('download_and_convert_data.py --dataset_name=%s --dataset_dir=%s' %
             (shlex.quote(name), shlex.quote(dataset_dir)))
  try:
    folder = manifests.photos_folder(dataset_dir, name,
                                     manifests.load(dataset_dir, name))
  except InputError:  # Reported elsewhere.
    folder = manifests.photos_folder(dataset_dir, name)
  if name not in public_sets.PUBLIC_SETS or os.path.isdir(folder):
    return '%s on the photos in %s/<class>/' % (program, folder)
  if name == 'imagenet':
    return ('%s with --imagenet_train_dir, --imagenet_validation_dir or both' %
            program)
  return program


def by_pattern(public_set: public_sets.PublicSet,
               dataset_dir: str) -> Dict[str, List[str]]:
  """Returns {split: file names} of records with slim's names."""
  names = sorted(os.listdir(dataset_dir) if os.path.isdir(dataset_dir) else [])
  by_split = {split: fnmatch.filter(names, public_set.file_pattern % split)
              for split in public_set.split_sizes}
  return {split: files for split, files in by_split.items() if files}


def _total(source):
  """Returns the N of a file name with 'K-of-N', 1 for others."""
  _, of, total = os.path.basename(source).partition('-of-')
  return int(total[:5]) if of else 1


def _is_full_set(name, split, sources):
  """Returns whether these are all files of a large public data set.

  Its files are filled evenly, so only the first, the middle and the last are
  counted. (A million seeks in 140 GB would take hours on some disks.)
  """
  public_set = public_sets.PUBLIC_SETS.get(name)
  size = public_set.split_sizes.get(split, 0) if public_set else 0
  if size <= COUNT_LIMIT or len(sources) != _total(sources[0]):
    return False
  for source in sources:
    tfrecord_file.check_start(source)
  sample = [sources[0], sources[len(sources) // 2], sources[-1]]
  return all(abs(count - size / len(sources)) < 2
             for count in count_records(sample))
