"""Writes record files of photos, each with a file of facts about it.

A record file is written under a temporary name and renamed, then its facts are
written next to it: a conversion that was killed continues from them. Those of a
finished data set follow from its manifest.
"""

import collections
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from common import files
from common.progress import Progress
from compat import tf
from datasets.photo_files import photos

# Function of the upright JPEG and the row of a photo.
MakeExample = Callable[[photos.Photo, Any], tf.train.Example]


class ShardFacts(NamedTuple):
  """Facts about a finished record file."""

  # How many it holds.
  records: int
  # Size of the file.
  bytes: int
  # [[label, records], ...].
  class_counts: Sequence[Sequence[int]]
  # {'file', 'reason', 'stamp'} of each photo that was skipped, see _stamp.
  skipped: List[Dict[str, Any]]


def write(path: str, rows: Sequence[Any], make_example: MakeExample,
          max_pixels: int, shown: Progress) -> ShardFacts:
  """Writes one record file and its facts.

  Args:
    path: path of the file, in the work folder.
    rows: its photos; tuples with the fields `path` and `label`.
    make_example: makes the record of a photo.
    max_pixels: photos with more pixels are skipped.
    shown: progress to update.

  Returns:
    The ShardFacts.
  """
  counts: Dict[int, int] = collections.Counter()
  skipped = []
  with files.replacing(path) as part, (
      tf.python_io.TFRecordWriter(part.name)) as writer:
    for row in rows:
      try:
        photo = photos.normalize_photo(_read_photo(row.path), max_pixels)
      except photos.PhotoError as error:
        skipped.append({'file': _short(row.path), 'reason': str(error),
                        'stamp': _stamp(row.path)})
      else:
        writer.write(make_example(photo, row).SerializeToString(
            deterministic=True))
        counts[row.label] += 1
      shown.add()
  facts = ShardFacts(sum(counts.values()), os.path.getsize(path),
                     sorted(counts.items()), skipped)
  files.write_text(path + '.json', json.dumps(facts._asdict()))
  return facts


def read_facts(path: str) -> Optional[ShardFacts]:
  """Returns the ShardFacts of a record file, or None; the file may be gone."""
  try:
    with open(path + '.json', encoding='utf-8') as source:
      return ShardFacts(**json.load(source))
  except FileNotFoundError:
    return None


def facts_of_split(
    entry: Dict[str, Any], shards: Dict[str, Sequence[Any]]
) -> Dict[str, ShardFacts]:
  """Returns {shard: ShardFacts} of a finished split.

  Args:
    entry: the split as returned by `describe`.
    shards: {shard: its photos} of the same plan. Shards whose number
      of records does not match, as when the folder of photos was renamed, are
      omitted.
  """
  skipped = {row['file']: row for row in entry['skipped']}
  facts = {}
  for shard, records, size in zip(entry['shards'], entry['shard_sizes'],
                                  entry['shard_bytes']):
    counts: Dict[int, int] = collections.Counter()
    lost = []
    for row in shards.get(shard, []):
      if _short(row.path) in skipped:
        lost.append(skipped[_short(row.path)])
      else:
        counts[row.label] += 1
    if sum(counts.values()) == records:
      facts[shard] = ShardFacts(records, size, sorted(counts.items()), lost)
  return facts


def describe(facts: Dict[str, ShardFacts], labels: List[str]) -> Dict[str, Any]:
  """Returns a split as the manifest holds it.

  Args:
    facts: {shard: ShardFacts}, in the order of the shards.
    labels: class names.
  """
  counts: Dict[str, int] = collections.Counter()
  for of_shard in facts.values():
    for label, count in of_shard.class_counts:
      counts[labels[label]] += count
  return {'size': sum(of_shard.records for of_shard in facts.values()),
          'shards': list(facts),
          'class_counts': {label: counts[label] for label in labels},
          'shard_sizes': [of_shard.records for of_shard in facts.values()],
          'shard_bytes': [of_shard.bytes for of_shard in facts.values()],
          'skipped': [entry for of_shard in facts.values()
                      for entry in of_shard.skipped]}


def some_changed(rows: Sequence[Any],
                 skipped: List[Dict[str, Any]]) -> bool:
  """Returns whether a photo that could not be used has changed since.

  Args:
    rows: the photos of a shard.
    skipped: as in ShardFacts.
  """
  if not skipped:
    return False
  stamps = {entry['file']: entry['stamp'] for entry in skipped}
  return any(stamps[_short(row.path)] != _stamp(row.path) for row in rows
             if _short(row.path) in stamps)


def _read_photo(path):
  try:
    with open(path, 'rb') as source:
      return source.read()
  except OSError as error:
    raise photos.PhotoError('cannot be read: %s' % error.strerror)


def _short(path):
  """Returns a photo's name in lists: its folder and its file name."""
  return '/'.join(path.split(os.sep)[-2:])


def _stamp(path):
  """Returns [bytes, time of the last change in ns]; [] if it is unreadable."""
  try:
    _read_photo(path)
    status = os.stat(path)
  except (OSError, photos.PhotoError):
    return []
  return [status.st_size, status.st_mtime_ns]
