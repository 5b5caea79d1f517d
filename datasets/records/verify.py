"""Verifies a whole data set, for `tools.verify_tfrecord`."""

import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from common import progress
from common.errors import InputError
from datasets import dataset_factory, manifest, record_dataset, split_files
from datasets.records import record_check


class SplitReport(NamedTuple):
  """Result of the verification of a split."""

  # Its name.
  split: str
  # How many record files it has.
  num_files: int
  # How many records they hold.
  num_records: int
  # Their size.
  num_bytes: int
  # How many photos were decoded.
  num_decoded: int
  problems: List[record_check.Problem]


def verify(dataset_dir: str, name: str, split_name: Optional[str] = None,
           num_decoded: int = 100) -> Iterator[SplitReport]:
  """Verifies the record files of a data set; shows progress on stderr.

  It checks both checksums and the content of every record, the numbers against
  the manifest and the file names, labels, and photos that occur twice, in one
  split or in two. It works without a manifest as well.

  Args:
    dataset_dir: folder that holds the files.
    name: name of the data set.
    split_name: the split to verify; None: all.
    num_decoded: photos per split to decode, spread evenly; 0: all.

  Yields:
    A SplitReport for each split.

  Raises:
    InputError: if the folder holds no such data set or split, or there are no
      class names.
  """
  splits = split_files.find(name, dataset_dir)
  if split_name or not splits:
    split = split_name or ''  # Not converted: find_split raises.
    splits = {split: dataset_factory.find_split(name, split, dataset_dir)}
  labels = range(len(dataset_factory.labels_of_records(name, dataset_dir)))
  seen: Dict[Tuple[str, Optional[int]], Tuple[str, int]] = {}
  with record_check.PhotoDecoder() as decoder:
    for split, files in sorted(splits.items()):
      origin = manifest.path(dataset_dir, name)
      yield _verify_split(name, split, files, origin, labels, num_decoded,
                          decoder, seen)


def _verify_split(name, split, files, origin, labels, num_decoded,
                  decoder, seen):
  """Returns the SplitReport of one split; adds its photos to `seen`."""
  problems = [_of_split(text)
              for text in split_files.problems_of_files(name, files, origin)]
  paths = [path for path in files.sources if os.path.isfile(path)]
  counts = [_count(path) for path in paths]
  indexes = _spread(paths, counts, num_decoded)
  reports = []
  with progress.Progress('verified', sum(counts)) as shown:
    for report in record_check.check_files(paths, labels, decoder, indexes,
                                           shown.add):
      problems += report.problems + _repeated(report, seen)
      reports.append(report)
  if paths == files.sources:
    text = split_files.compare_counts(
        files, [report.num_records for report in reports], origin)
    problems += [_of_split(text)] if text else []
  return SplitReport(
      split, len(paths), sum(report.num_records for report in reports),
      sum(map(os.path.getsize, paths)),
      sum(report.num_decoded for report in reports), problems)


def _of_split(text):
  return record_check.Problem(None, None, None, '', text)


def _count(path):
  """Returns how many records a file holds, 0 if its lengths are damaged."""
  try:
    return record_dataset.count_records(path)
  except InputError:  # Reading finds it again, and reports more about it.
    return 0


def _spread(paths, counts, num_decoded):
  """Returns {path: numbers of the records to decode}, None for all.

  If the records of a file cannot be counted, its first one is decoded.
  """
  if not num_decoded:
    return None
  total = sum(counts)
  chosen = sorted({number * total // num_decoded
                   for number in range(num_decoded)})
  indexes, start = {}, 0
  for path, count in zip(paths, counts):
    indexes[path] = {number - start for number in chosen
                     if start <= number < start + count} or (
                         set() if count else {0})
    start += count
  return indexes


def _repeated(report, seen):
  """Returns the Problems of photos that are in `seen`; adds all to it."""
  problems = []
  for index, offset, photo, checksum in report.photos:
    if (photo, checksum) in seen:
      problems.append(record_check.Problem(
          report.path, index, offset, photo,
          'a photo of this name is in %s, record %d, as well' %
          seen[photo, checksum]))
    else:
      seen[photo, checksum] = (report.path, index)
  return problems
