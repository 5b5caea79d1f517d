"""Tells which record files of a finished data set are whole.

For who converts a data set again: what is damaged is made anew. Every byte is
read and its checksum compared, which takes as long as reading the files, much
less than making them: for the 140 GB of ImageNet some minutes to an hour, for
MNIST a second.
"""

import collections
import os

from datasets import progress, tfrecord_file
from errors import InputError

KnownShard = collections.namedtuple('KnownShard', 'path records bytes')
KnownShard.__doc__ = """A record file, and what it should hold.

path: of the file, which may be missing.
records: how many there should be.
bytes: size that the file should have; None: nobody knows.
"""


def find_damaged(shards):
  """Reads record files, several at once, and shows progress.

  Args:
    shards: list of KnownShard.

  Returns:
    Sorted list of the paths of those that are missing or damaged.
  """
  damaged = []
  if not shards:
    return damaged
  with progress.Progress('checked', sum(shard.records for shard in shards)
                         ) as shown:

    def check(shard):
      if not _is_whole(shard, shown.add):
        damaged.append(shard.path)

    progress.run_in_threads(check, shards)
  return sorted(damaged)


def _is_whole(shard, on_record):
  """Whether a file has its size, its records and their checksums."""
  if not os.path.isfile(shard.path):
    return False
  if shard.bytes not in (None, os.path.getsize(shard.path)):
    return False
  count = 0
  try:
    for record in tfrecord_file.read(shard.path):
      if record.problem:
        return False
      count += 1
      on_record()
  except InputError:  # It cannot be read, which is as bad.
    return False
  return count == shard.records
