"""Writes the record files of ImageNet, each with a file of facts about it.

A record file is written under a temporary name and renamed, then its facts are
written next to it: a conversion that was killed continues from them. Those of a
finished data set follow from its manifest.
"""

import collections
import json
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from common import files
from common.progress import Progress
from compat import tf
from datasets import imagenet_names, record_dataset
from datasets.conversion import imagenet_source
from datasets.photo_files import photos


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


def make_example(photo: photos.Photo, row: imagenet_source.SourcePhoto,
                 boxes: List[imagenet_source.Box]) -> tf.train.Example:
  """Returns the tf.train.Example of a photo.

  Args:
    photo: the upright JPEG.
    row: its file and class.
    boxes: its bounding boxes.
  """
  synset = imagenet_names.synsets()[row.label - 1]
  extra = {
      'image/colorspace': record_dataset.bytes_feature([b'RGB']),
      'image/channels': record_dataset.int64_feature([3]),
      'image/class/synset': record_dataset.bytes_feature(
          [synset.wordnet_id.encode('ascii')]),
      'image/class/text': record_dataset.bytes_feature(
          [synset.name.replace('_', ' ').encode('utf-8')]),
      'image/object/bbox/label': record_dataset.int64_feature(
          [row.label] * len(boxes)),
  }
  for side in imagenet_source.Box._fields:
    extra['image/object/bbox/' + side] = record_dataset.float_feature(
        [getattr(box, side) for box in boxes])
  return record_dataset.make_example(
      photo.encoded, photo.height, photo.width, row.label,
      os.path.basename(row.path), image_format=b'JPEG', extra=extra)


def write(path: str, rows: List[imagenet_source.SourcePhoto],
          boxes: Dict[str, List[imagenet_source.Box]], max_pixels: int,
          shown: Progress) -> ShardFacts:
  """Writes one record file and its facts.

  Args:
    path: path of the file, in the work folder.
    rows: its photos.
    boxes: {file name: its bounding boxes}.
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
        example = make_example(photo, row,
                               boxes.get(os.path.basename(row.path), []))
        writer.write(example.SerializeToString(deterministic=True))
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
    entry: Dict[str, Any], shards: Dict[str, List[imagenet_source.SourcePhoto]]
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


def some_changed(rows: List[imagenet_source.SourcePhoto],
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
