"""Reads and writes whole files; a reader never sees a partly written file."""

import contextlib
import hashlib
import os
from typing import BinaryIO, Iterator, Optional, Tuple

from common import locks
from common.errors import InputError

_CHUNK = 1024 * 1024  # Bytes read at a time.


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
  """Opens `<path>.part`, and renames it to `path` at the end; for a `with`.

  So `path` is never incomplete, also if the system crashes. Several processes
  and threads may write the same file, if the file system can lock files: each
  waits for the one before it, and the last one wins. What a killed process left
  is overwritten. After an error `path` is unchanged, and no `<path>.part`
  remains.

  Args:
    path: path of the file; its folder must exist.

  Yields:
    The `<path>.part`, a binary file. A library that opens files itself may
    write to its `name`, if it replaces the content without a new file.

  Raises:
    OSError: it cannot be written; the error names `path`.
  """
  part_path = path + '.part'
  try:
    with locks.locked_file(part_path):
      with open(part_path, 'wb') as part:  # Not `ab` as the lock: may seek.
        yield part
        part.flush()
        os.fsync(part.fileno())
      os.replace(part_path, path)
  except OSError as error:
    if error.filename in (None, part_path):  # None: the disk is full.
      error.filename = path
    raise


def write_bytes(path: str, data: bytes) -> None:
  """Writes bytes to a file as `replacing` does, with the same errors."""
  with replacing(path) as part:
    part.write(data)


def write_text(path: str, text: str) -> None:
  """Writes text as UTF-8 as `replacing` does, with the same errors."""
  write_bytes(path, text.encode('utf-8'))


def write_output(path: str, data: bytes) -> None:
  """Writes bytes as `replacing` does, for a user who gave the path.

  Args:
    path: path of the file; its folder is created if it is missing.
    data: bytes.

  Raises:
    InputError: the folder or the file cannot be written.
  """
  try:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    write_bytes(path, data)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (path, error.strerror))


def read(path: str, what: str) -> bytes:
  """Returns the bytes of the file `path`.

  Args:
    path: file to read.
    what: description of the file for the user, as in 'label file --label_file'.

  Raises:
    InputError: it is missing or unreadable.
  """
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as error:
    raise InputError('cannot read the %s %r: %s' % (what, path, error.strerror))


def sha256_of(path: str) -> str:
  """Returns the SHA-256 of a file, 64 hexadecimal digits.

  Raises:
    OSError: it cannot be read.
  """
  digest = hashlib.sha256()
  with open(path, 'rb') as stream:
    for chunk in iter(lambda: stream.read(_CHUNK), b''):
      digest.update(chunk)
  return digest.hexdigest()


def stamp(path: str) -> Tuple[int, int]:
  """Returns the size of a file in bytes, and when it was changed, in ns."""
  status = os.stat(path)
  return status.st_size, status.st_mtime_ns


def read_if_exists(path: str) -> Optional[bytes]:
  """Returns the bytes of a file; None if it does not exist."""
  try:
    with open(path, 'rb') as source:
      return source.read()
  except FileNotFoundError:
    return None
