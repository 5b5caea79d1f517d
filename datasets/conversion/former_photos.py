"""Recognizes photos of a former conversion that were saved again.

A photo that was saved again without loss (as PNG, without EXIF data, packed
better) under another name has neither the bytes nor the name listed in the
former manifest. It is recognized by its pixels: a digest of the former photo's
is in the manifest, or else its record holds the file itself.

Photos are rarely saved again, so they are decoded for this only if some former
photos are gone and new ones may look the same.
"""

import hashlib
import os
from typing import Dict, List, NamedTuple, Set, Tuple

from google.protobuf.message import DecodeError

from common import threads
from common.errors import InputError
from compat import tf
from datasets.conversion import same_photos
from datasets.manifest import Manifest
from datasets.photo_files import photos
from datasets.photo_files.photo_folder import CheckedPhoto
from datasets.records import tfrecord_file


class _Lost(NamedTuple):
  """Former photos whose bytes are gone, by what identifies them."""

  # {file: digest of its pixels}, of plain ones (see photos.Inspected).
  pixels: Dict[str, str]
  # The looks of these.
  looks: Set[str]
  # (height, width) of those that are not plain.
  sizes: Set[Tuple[int, int]]


def find(dataset_dir: str, folder: str, former: Manifest,
         groups: List[List[CheckedPhoto]],
         max_pixels: int) -> Tuple[Manifest, Dict[str, str]]:
  """Computes the digests by which former photos are recognized.

  Args:
    dataset_dir: folder of the former records.
    folder: the folder of photos.
    former: of the former conversion.
    groups: photos; those of a group have equal pixels.
    max_pixels: as in photos.normalize_photo.

  Returns:
    former: the Manifest, with `pixels` also for photos that are gone.
    pixels: {CheckedPhoto.digest: digest of the pixels}, of photos that may be
      one of these; one of each group.

  Raises:
    InputError: a file changed after it was checked.
  """
  current_digests = {photo.digest for members in groups for photo in members}
  former_digests = set(former.digests.values())
  gone = {file for file, digest in former.digests.items()
          if digest not in current_digests and file in former.files}
  # One photo per group; preferably one that is not plain, whose look is its
  # digest of pixels.
  new_photos = [
      min(members, key=lambda photo: photo.is_plain) for members in groups
      if not any(photo.digest in former_digests for photo in members)]
  if not gone or not new_photos:
    return former, {}
  lost = _read_lost(dataset_dir, former, gone, new_photos, max_pixels)
  pixels = {photo.digest: photo.look for photo in new_photos
            if not photo.is_plain}
  doubtful = [photo for photo in new_photos if photo.is_plain and (
      photo.look in lost.looks or (photo.height, photo.width) in lost.sizes)]
  pixels.update(same_photos.digest_pixels(folder, doubtful, max_pixels))
  return former._replace(pixels=dict(former.pixels, **lost.pixels)), pixels


def _read_lost(dataset_dir, former, gone, new_photos, max_pixels):
  """Reads the former records of photos that are gone; returns a _Lost.

  Args:
    dataset_dir: folder of the record files.
    former, max_pixels: as for `find`.
    gone: set of files of `former`.
    new_photos: list of CheckedPhoto; records of other sizes are skipped.
  """
  lost = _Lost({}, set(), set())
  sizes = {(photo.height, photo.width) for photo in new_photos}

  def read(path):
    for file, size, encoded in _records(path):
      if file not in gone or size not in sizes:
        continue
      if hashlib.sha256(encoded).hexdigest() != former.digests[file]:
        lost.sizes.add(size)
        continue
      try:
        lost.looks.add(photos.inspect_photo(encoded, max_pixels).look)
        lost.pixels[file] = photos.pixels_digest(encoded, max_pixels)
      except photos.PhotoError:  # More pixels than are accepted now.
        continue

  splits = {former.files[file] for file in gone} & set(former.splits)
  threads.run_in_threads(read, [
      os.path.join(dataset_dir, shard) for split in sorted(splits)
      for shard in former.splits[split]['shards']])
  return lost


def _records(path):
  """Yields (file, (height, width), encoded) of each record that can be read.

  Damaged or missing files are not an error: they are about to be replaced.
  """
  try:
    for record in tfrecord_file.read(path):
      if record.data is None:
        continue
      feature = tf.train.Example.FromString(record.data).features.feature
      names, encoded = (feature[key].bytes_list.value
                        for key in ('image/filename', 'image/encoded'))
      height, width = (feature[key].int64_list.value
                       for key in ('image/height', 'image/width'))
      if names and encoded and height and width:
        yield (names[0].decode('utf-8', 'replace'), (height[0], width[0]),
               encoded[0])
  except (InputError, DecodeError):
    return
