"""Files in which the shares of a conversion store results for the merge.

Each share (--shard_of) reads, checks and encodes its photos, and writes into
`<dataset_dir>/.<name>.shares/`

  2-of-4.json    size and time of each file, and its CheckedPhoto or the reason
                 why it cannot be used; digests of pixels; written last
  2-of-4.data    the JPEGs of photos that a record holds in other bytes than
                 their file, and the sketches for near duplicates

The merge (--merge_shards) is a conversion that uses the stored results and
reads all other photos itself, so it writes the same records.
"""

import contextlib
import json
import os
import shutil
import zlib
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from common import files, locks, shares, threads
from common.errors import InputError, name_some
from compat import tf
from datasets.conversion import same_photos
from datasets.photo_files import near_photos, photo_folder, photos
from datasets.photo_files.photo_folder import CheckedPhoto, Listing

_JPEG, _SKETCH = '.jpg', '.sketch'


def remove(dataset_dir: str, name: str) -> None:
  """Removes the files of all shares of a data set."""
  shutil.rmtree(_folder(dataset_dir, name), ignore_errors=True)


def _folder(dataset_dir, name):
  return os.path.join(dataset_dir, '.%s.shares' % name)


def _path(dataset_dir, name, share, suffix):
  return os.path.join(_folder(dataset_dir, name),
                      '%d-of-%d%s' % (*share, suffix))


@contextlib.contextmanager
def hold_all(dataset_dir: str, name: str) -> Iterator[None]:
  """Waits until no other share of a data set is in this `with`."""
  with locks.hold(os.path.join(_folder(dataset_dir, name), 'all.lock')):
    yield


@contextlib.contextmanager
def hold(dataset_dir: str, name: str, share: shares.Share) -> Iterator[None]:
  """Keeps other processes from converting a share, or raises InputError."""
  with locks.hold(
      _path(dataset_dir, name, share, '.lock'),
      'another process is converting share %s of %s: wait until it has ended' %
      (share, os.path.join(dataset_dir, name))):
    yield


def check_done(dataset_dir: str, name: str, total: int,
               missing: Sequence[shares.Share]) -> None:
  """Raises InputError if a share is missing, or a process is converting it."""
  running = [share for share in shares.all_of(total)
             if locks.is_locked(_path(dataset_dir, name, share, '.lock'))]
  for what, waiting in (('still running', running), ('missing', missing)):
    if waiting:
      raise InputError(
          'of the %d shares of %s, these are %s: %s; each must have been run '
          'with --shard_of before --merge_shards' %
          (total, os.path.join(dataset_dir, name), what,
           name_some(list(map(str, waiting)))))


def write(dataset_dir: str, name: str, folder: str, listing: Listing,
          share: shares.Share, max_pixels: int, with_sketches: bool) -> None:
  """Checks and encodes the photos of a share; writes its files.

  Args:
    dataset_dir: folder of the record files.
    name: name of the data set.
    folder: the folder of photos.
    listing: all that is in it.
    share: the share.
    max_pixels: as in photos.normalize_photo.
    with_sketches: whether near duplicates are searched for.

  Raises:
    InputError: another process converts this share, or a photo changed.
    OSError: the files cannot be written.
  """
  def encode(photo):
    encoded = photo_folder.read_again(folder, photo, max_pixels).encoded
    sketch = near_photos.sketch(encoded) if with_sketches else None
    return {_JPEG: b'' if photo.is_plain else encoded,
            _SKETCH: b'' if sketch is None else sketch.tobytes()}

  index_path, data_path = (_path(dataset_dir, name, share, suffix)
                           for suffix in ('.json', '.data'))
  with hold(dataset_dir, name, share):
    with contextlib.suppress(FileNotFoundError):
      os.remove(index_path)
    paths = {os.path.join(folder, listed.file): listed
             for listed in listing.files}
    own = share.select(list(paths))
    stamps = {paths[path].file: _stamp(path) for path in own}
    usable, skipped = photo_folder.check_photos(
        folder, listing._replace(files=[paths[path] for path in own]),
        max_pixels)
    results = {photo.file: [stamps[photo.file], photo] for photo in usable}
    results.update((entry['file'], [stamps[entry['file']], entry['reason']])
                   for entry in skipped)
    firsts = list({photo.digest: photo for photo in usable}.values())
    to_encode = [photo for photo in firsts
                 if with_sketches or not photo.is_plain]
    pixels = same_photos.digest_pixels(folder, same_photos.doubtful(firsts),
                                       max_pixels)
    places = {}
    with files.replacing(data_path) as target:
      for photo, contents in zip(to_encode, threads.map_in_threads(
          encode, to_encode, 'encoded')):
        for suffix, content in contents.items():
          if content:
            places[photo.digest + suffix] = (target.tell(), len(content),
                                             zlib.crc32(content))
            target.write(content)
    files.write_text(index_path, json.dumps(
        {'settings': _settings(max_pixels), 'photos': results,
         'pixels': pixels, 'places': places}))
  tf.logging.info('Share %s of %s: %d photos, %d other files that cannot be '
                  'used', share, folder, len(usable), len(skipped))


def _settings(max_pixels):
  """Returns what else decides whether a file is a usable photo."""
  return {'max_pixels': max_pixels, 'formats': photos.ACCEPTED}


def _stamp(path):
  """Returns [bytes, time of the last change in ns]; None: no such file."""
  try:
    return list(files.stamp(path))
  except OSError:
    return None


class PhotoReader:
  """Checks and reads photos, or takes what shares have found out about them."""

  def __init__(self, folder: str, max_pixels: int) -> None:
    """Reads all photos from their files.

    Args:
      folder: the folder of photos.
      max_pixels: as in photos.normalize_photo.
    """
    self._folder, self._max_pixels = folder, max_pixels
    # {file: [stamp, fields of its CheckedPhoto or the reason]}.
    self._results: Dict[str, List[Any]] = {}
    # Of same_photos.digest_pixels, of photos that may equal others.
    self.pixels: Dict[str, str] = {}
    # {digest + suffix: (path, first byte, bytes, checksum)}.
    self._places: Dict[str, Tuple[str, int, int, int]] = {}

  def load(self, dataset_dir: str, name: str, total: int) -> None:
    """Loads what all shares have written.

    Args:
      dataset_dir: folder of the record files.
      name: name of the data set.
      total: number of shares.

    Raises:
      InputError: one is missing, still running, or had other settings.
    """
    paths = {share: _path(dataset_dir, name, share, '')
             for share in shares.all_of(total)}
    check_done(dataset_dir, name, total, [
        share for share, path in paths.items()
        if not os.path.exists(path + '.json')])
    for share, path in paths.items():
      content = json.loads(files.read(path + '.json', 'file of a share'))
      if content['settings'] != _settings(self._max_pixels):
        raise InputError(
            'share %s was converted with another --max_pixels or ENGINE: give '
            'the same ones, or run the share again' % str(share))
      self._results.update(content['photos'])
      self.pixels.update(content['pixels'])
      self._places.update((key, (path + '.data', start, size, checksum))
                          for key, (start, size, checksum)
                          in content['places'].items())

  def check(self, listing: Listing
            ) -> Tuple[List[CheckedPhoto], List[Dict[str, str]]]:
    """Checks photos as photo_folder.check_photos does.

    Files that no share has, or that have changed since, are read.
    """
    is_known = dict.fromkeys(listing.files, False)
    if self._results:
      is_known = dict(zip(listing.files, threads.map_in_threads(
          self._knows, listing.files, 'compared')))
    usable, skipped = photo_folder.check_photos(
        self._folder, listing._replace(
            files=[listed for listed in listing.files if not is_known[listed]]),
        self._max_pixels)
    for listed in filter(is_known.get, listing.files):
      result = self._results[listed.file][1]
      if isinstance(result, str):
        skipped.append({'file': listed.file, 'reason': result})
      else:  # Its class and split are those of this listing.
        usable.append(CheckedPhoto(*result)._replace(**listed._asdict()))
    order = {listed.file: place for place, listed in enumerate(listing.files)}
    return sorted(usable, key=lambda photo: order[photo.file]), skipped

  def _knows(self, listed):
    """Returns whether a share has checked a file that has not changed since."""
    stamp, _ = self._results.get(listed.file, (None, None))
    return stamp is not None and stamp == _stamp(
        os.path.join(self._folder, listed.file))

  def read(self, photo: CheckedPhoto) -> photos.Photo:
    """Returns a photo as photo_folder.read_again does, with its errors."""
    encoded = self._stored(photo.digest + _JPEG)
    if encoded is None:
      return photo_folder.read_again(self._folder, photo, self._max_pixels)
    return photos.Photo(encoded, photo.height, photo.width)

  def sketch(self, photo: CheckedPhoto) -> Optional[np.ndarray]:
    """Returns what near_photos.sketch does, with the errors of `read`."""
    data = self._stored(photo.digest + _SKETCH)
    if data is None:
      return near_photos.sketch(self.read(photo).encoded)
    return np.frombuffer(data, np.uint8).reshape(2 * (near_photos.SIDE,))

  def _stored(self, key):
    """Returns what a share has stored under a key; None: nothing, or damaged.

    The share may also be run again meanwhile, which replaces its files.
    """
    if key not in self._places:
      return None
    path, start, size, checksum = self._places[key]
    try:
      with open(path, 'rb') as source:
        source.seek(start)
        data = source.read(size)
    except OSError:
      return None
    return data if zlib.crc32(data) == checksum else None
