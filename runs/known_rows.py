"""Reuse of cached features: rows of photos that another cache has.

When photos are added to a data set its records change, and so the key of its
caches. A photo is recognized by a hash of its encoded image, whatever its label
and its place in the records.
"""

import hashlib
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from google.protobuf.message import DecodeError

from compat import tf
from datasets.records import tfrecord_file
from runs import feature_cache

# Rows that are copied at a time.
_BLOCK = 256

# What caches may differ in, if a row of one can be used in the other.
_OF_PHOTOS = ('records', 'photos', 'split')


class Records(NamedTuple):
  """The records of a split."""

  # TFRecord files, in the order in which they are read.
  paths: Sequence[str]
  # Subtracted from each label.
  labels_offset: int


class Photos(NamedTuple):
  """The photos of a split, in the order of their records."""

  # feature_cache.DIGEST_BYTES each.
  digests: List[bytes]
  labels: List[int]
  filenames: List[str]


def read_photos(records: Records) -> Optional[Photos]:
  """Reads all records; returns None if one cannot be read."""
  photos = Photos([], [], [])
  for path in records.paths:
    for record in tfrecord_file.read(path):
      if record.data is None:
        return None
      try:
        feature = tf.train.Example.FromString(record.data).features.feature
        encoded, = feature['image/encoded'].bytes_list.value
        label, = feature['image/class/label'].int64_list.value
      except (DecodeError, ValueError):
        return None
      name = b''.join(feature['image/filename'].bytes_list.value)
      photos.digests.append(
          hashlib.sha256(encoded).digest()[:feature_cache.DIGEST_BYTES])
      photos.labels.append(label - records.labels_offset)
      photos.filenames.append(name.decode('utf-8', 'replace'))
  return photos


class KnownRows:
  """The photos of a split whose features other caches have.

  Attributes:
    known: [photos] bool.
  """

  def __init__(self, cache: feature_cache.FeatureCache,
               photos: Optional[Photos]):
    """Finds the rows, in all caches of the same folder.

    Args:
      cache: that lacks rows.
      photos: of its split; None: none are known.
    """
    self.known = np.zeros([cache.num_photos], bool)
    self._photos = photos
    self._rows: Dict[bytes, Tuple[List[np.ndarray], int]] = {}
    if photos is None:
      return
    wanted = set(photos.digests)
    for other in cache.like_this(_OF_PHOTOS):
      features = other.features()
      for row, digest in enumerate(other.digests()[:other.rows()]):
        if digest in wanted:
          self._rows[digest] = features, row
    self.known[:] = [digest in self._rows for digest in photos.digests]

  def copy(self, writer: feature_cache.Writer, until: int) -> None:
    """Appends the rows up to a photo, all of which must be known."""
    photos = self._photos
    while photos and writer.rows < until:
      part = slice(writer.rows, min(until, writer.rows + _BLOCK))
      rows = [self._rows[digest] for digest in photos.digests[part]]
      writer.append(
          [np.stack([features[index][row] for features, row in rows])
           for index in range(len(rows[0][0]))],
          photos.labels[part], photos.filenames[part])
