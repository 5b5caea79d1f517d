"""Checks uploaded files, and keeps them if the server is configured to.

The file name of an upload is neither used as a path nor as a sign of the
format: the first bytes show the format, and the header the number of pixels,
before anything is decoded.
"""

import collections
import contextlib
import io
import os
import re
import secrets
import stat
import threading
import time
from typing import Deque, NamedTuple, Optional

from PIL import Image

from common.errors import InputError
from datasets.photo_files import formats, jpeg_markers, photo_memory, photos
from datasets.photo_files.photo_colors import CostlyPhotoError
from serving.web import logs, photo_metadata
from serving.web.refusals import Refused

# Accepted formats, if photos can read them, and the file extension of a kept
# photo.
_EXTENSIONS = {'JPEG': 'jpg', 'PNG': 'png', 'WebP': 'webp', 'HEIC': 'heic'}
ACCEPTED = tuple(filter(photos.can_read, _EXTENSIONS))
# Formats recommended in error messages: every program can write these.
_ADVISED = ('JPEG', 'PNG')

# All formats: another engine may have kept files of a format that is not
# accepted here.
_NAME = re.compile(r'[0-9a-f]{32}\.(%s)' % '|'.join(_EXTENSIONS.values()))

# Longer side in pixels, and JPEG quality, of a preview on the page.
PREVIEW_SIDE, _PREVIEW_QUALITY = 720, 85


class _StoredPhoto(NamedTuple):
  """A file in the folder for uploads."""

  # Of the file.
  name: str
  # In bytes.
  size: int
  # When it was written, in seconds of _now().
  written_at: float


def _now():
  """Returns seconds of a clock that never jumps and includes suspended time."""
  return time.clock_gettime(time.CLOCK_BOOTTIME)


def extension_of(data: bytes) -> Optional[str]:
  """Returns the extension for a file of an accepted format, else None."""
  name = formats.name_of(data)
  return _EXTENSIONS[name] if name in ACCEPTED else None


def check(data: bytes, max_bytes: int, max_pixels: int,
          max_memory: int = photo_memory.MAX_BYTES) -> None:
  """Checks a file without decoding it.

  Args:
    data: bytes of the file.
    max_bytes: largest file size that is accepted.
    max_pixels: largest width times height.
    max_memory: most bytes that decoding it may take, by photos.memory_of.

  Raises:
    Refused: empty_file, too_large, not_a_photo, unreadable_photo (damaged
      header), too_costly, too_many_pixels, too_many_pixels_a_side or
      too_much_memory.
  """
  if not data:
    raise Refused('empty_file')
  if len(data) > max_bytes:
    raise Refused('too_large', max_mb=max_bytes // 2 ** 20)
  name = formats.name_of(data)
  if name not in ACCEPTED:
    raise Refused('not_a_photo', format=name, accepted=_ADVISED)
  try:
    width, height = _SIZES.get(name, _size_by_reader)(data)
  except CostlyPhotoError:
    raise Refused('too_costly')
  if not width or not height:
    raise Refused('unreadable_photo')
  if max(width, height) > photos.MAX_SIDE:
    raise Refused('too_many_pixels_a_side', width=width, height=height,
                  most=photos.MAX_SIDE)
  if width * height > max_pixels:
    raise Refused('too_many_pixels', width=width, height=height,
                  most='%g' % (max_pixels / 10 ** 6))
  memory = photos.memory_of(data)
  if memory > max_memory:
    is_progressive = name == 'JPEG' and jpeg_markers.coefficient_bytes(data)
    raise Refused(
        'too_much_memory', width=width, height=height,
        format='progressive JPEG' if is_progressive else name,
        needed=-(-memory // 10 ** 6), most=max_memory // 10 ** 6)


def _png_size(data):
  """Returns width and height from the header; zero if it is damaged."""
  if data[12:16] != b'IHDR' or len(data) < 24:
    return 0, 0
  return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')


def _size_by_reader(data):
  """Returns width and height; zero if the header is damaged."""
  try:
    return photos.size_of(data)
  except CostlyPhotoError:
    raise
  except photos.PhotoError:
    return 0, 0


_SIZES = {'JPEG': jpeg_markers.size_of, 'PNG': _png_size}


def preview(data: bytes, max_pixels: int, side: int = PREVIEW_SIDE) -> bytes:
  """Returns a small upright JPEG, as bytes, that contains nothing but pixels.

  Args:
    data: bytes of a photo.
    max_pixels: largest width times height that is decoded.
    side: longer side of the result in pixels, if the photo is larger.

  Raises:
    PhotoError: the photo cannot be decoded.
  """
  encoded = photos.normalize_photo(data, max_pixels).encoded
  image = Image.open(io.BytesIO(encoded), formats=['JPEG'])
  image.thumbnail((side, side))
  image.info = {}  # Pillow would copy a comment.
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=_PREVIEW_QUALITY)
  return stream.getvalue()


def make_folder(folder: str) -> str:
  """Creates the folder for uploads if needed, accessible to its owner only.

  Returns:
    Its absolute path.

  Raises:
    InputError: it cannot be created or written to, is a symbolic link, or
      belongs to another user (other than the system's, as /tmp does).
  """
  folder = os.path.abspath(folder)
  try:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    status = os.lstat(folder)
  except OSError as error:
    raise InputError('cannot make the folder for uploads %r: %s' %
                     (folder, error.strerror))
  if stat.S_ISLNK(status.st_mode):
    raise InputError('the folder for uploads %r is a symbolic link: give the '
                     'folder itself' % folder)
  if status.st_uid not in (0, os.geteuid()):
    raise InputError('the folder for uploads %r belongs to another user (uid '
                     '%d)' % (folder, status.st_uid))
  if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
    raise InputError('cannot read and write in the folder for uploads %r' %
                     folder)
  return folder


def write_photo(folder: str, data: bytes) -> str:
  """Writes a photo into the folder under a new name.

  Args:
    folder: as `make_folder` returned it.
    data: bytes of a file of an accepted format.

  Returns:
    The name, which does not reveal the photo's origin and cannot be guessed.

  Raises:
    InputError: `data` is not of an accepted format.
    OSError: it cannot be written; no partial file is left.
  """
  extension = extension_of(data)
  if extension is None:
    raise InputError('not one of %s: starts with %r' %
                     (', '.join(ACCEPTED), data[:8]))
  name = '%s.%s' % (secrets.token_hex(16), extension)
  path = os.path.join(folder, name)
  # 'x': never follows an existing link. Readable by the owner only.
  file = open(path, 'xb',
              opener=lambda path, flags: os.open(path, flags, 0o600))
  try:
    with file:  # A full disk may show only when the file is closed.
      file.write(data)
  except OSError:
    os.remove(path)
    raise
  return name


def is_upload_name(name: str) -> bool:
  """Whether this may be a name made by `write_photo`."""
  return _NAME.fullmatch(name) is not None


class UploadStore:
  """The photos kept in one folder, the oldest of which are removed.

  Files with names that `write_photo` does not make are left alone. Safe to use
  from several threads; each folder belongs to one server.

  Attributes:
    failures: number of photos that could not be kept.
  """

  def __init__(self, folder: str, days: float, megabytes: int,
               max_pixels: int):
    """Reads the existing contents of the folder.

    Args:
      folder: created if it is missing, also later.
      days: photos older than this are removed. The age of an existing file is
        taken from its time of change (a time in the future counts as now);
        later changes of the system clock have no effect.
      megabytes: maximum total size of the photos, in units of 2^20 bytes.
      max_pixels: largest width times height that is decoded.

    Raises:
      InputError: the folder cannot be used.
    """
    self._folder = make_folder(folder)
    self._seconds, self._bytes = days * 86400, megabytes * 2 ** 20
    self._max_pixels = max_pixels
    self.failures = 0
    self._keep_warnings = logs.WarningLimiter()
    self._remove_warnings = logs.WarningLimiter()
    self._lock = threading.Lock()
    stored = []
    for entry in os.scandir(self._folder):
      if is_upload_name(entry.name) and entry.is_file(follow_symlinks=False):
        with contextlib.suppress(FileNotFoundError):  # Removed meanwhile.
          stored.append(_stored_photo(entry))
    self._photos: Deque[_StoredPhoto] = collections.deque(
        sorted(stored, key=lambda photo: photo.written_at))
    self._total = sum(photo.size for photo in stored)
    self.remove_old()

  def keep(self, data: bytes) -> None:
    """Writes a photo without its metadata; removes old ones to make room.

    If a photo cannot be written, this is counted and logged, and the visitor
    sees no error. A photo larger than the total limit is not written.
    """
    try:
      data = photo_metadata.strip(data, self._max_pixels)
      if len(data) > self._bytes:
        return
      make_folder(self._folder)  # Some systems empty /tmp from time to time.
      name = write_photo(self._folder, data)
    except (OSError, InputError) as error:  # A PhotoError is an InputError.
      with self._lock:
        self.failures += 1
      self._keep_warnings.warn('cannot keep a photo: %s',
                               getattr(error, 'strerror', None) or error)
      return
    with self._lock:
      self._photos.append(_StoredPhoto(name, len(data), _now()))
      self._total += len(data)
    self.remove_old()

  def remove_old(self) -> None:
    """Removes photos that are too old or exceed the limit, oldest first."""
    oldest = _now() - self._seconds
    with self._lock:
      while self._photos and (self._photos[0].written_at < oldest or
                              self._total > self._bytes):
        photo = self._photos.popleft()
        self._total -= photo.size
        try:
          os.remove(os.path.join(self._folder, photo.name))
        except FileNotFoundError:  # Another program has removed it.
          pass
        except OSError as error:
          self._remove_warnings.warn('cannot remove a kept photo: %s',
                                     error.strerror)


def _stored_photo(entry):
  """Returns the _StoredPhoto for an os.DirEntry."""
  status, now = entry.stat(), time.time()
  if status.st_mtime > now:
    # The clock was ahead. Otherwise its age would start again at 0 with each
    # start of the server.
    with contextlib.suppress(PermissionError):  # Another user's, in /tmp.
      os.utime(entry.path)
  return _StoredPhoto(entry.name, status.st_size,
                      _now() - max(0, now - status.st_mtime))
