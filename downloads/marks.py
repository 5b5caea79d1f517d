"""Tells what was downloaded from what a user has put in the same place.

fetch.fetch writes photos.tgz.downloaded beside photos.tgz: size and time of the
file as it came. So a later run still knows whose it is, if the one that
downloaded it fails or is killed before the file is used.

Of a file whose checksum was not known before, it also writes photos.tgz.sha256,
a line as sha256sum writes it. That stays: the next download must be the same.
"""

import contextlib
import hashlib
import json
import os
import re

from errors import InputError

_CHUNK = 1024 * 1024  # Bytes that are read at a time.


def sha256_of(path):
  """Returns the SHA-256 of a file, 64 hexadecimal digits.

  Raises:
    OSError: it cannot be read.
  """
  digest = hashlib.sha256()
  with open(path, 'rb') as stream:
    for chunk in iter(lambda: stream.read(_CHUNK), b''):
      digest.update(chunk)
  return digest.hexdigest()


def record_path(path):
  """Returns where the SHA-256 of a download is recorded."""
  return path + '.sha256'


def recorded_sha256(path):
  """Returns the SHA-256 that a file had when it was downloaded before.

  Args:
    path: where the file goes; it need not be there any more.

  Returns:
    64 hexadecimal digits; None: nothing is recorded, or half a line.

  Raises:
    InputError: the record cannot be read.
  """
  try:
    with open(record_path(path), encoding='utf-8', errors='replace') as stream:
      match = re.match(r'([0-9a-f]{64}) ', stream.read())
  except FileNotFoundError:
    return None
  except OSError as error:
    raise InputError('cannot read %s: %s' % (record_path(path), error.strerror))
  return match and match.group(1)


def record_sha256(path, digest):
  """Records the SHA-256 of a download.

  Raises:
    InputError: it cannot be written.
  """
  try:
    with open(record_path(path), 'w', encoding='utf-8',
              errors='surrogateescape') as stream:
      stream.write('%s  %s\n' % (digest, os.path.basename(path)))
  except OSError as error:
    raise InputError('cannot write %s: %s' %
                     (record_path(path), error.strerror))


def mark(path, part):
  """Notes that a file is a download.

  Args:
    path: where it will be.
    part: where it is; moving it does not change what is noted.

  Raises:
    InputError: the mark cannot be written.
  """
  try:
    with open(_mark_path(path), 'w', encoding='ascii') as stream:
      json.dump(_facts(part), stream)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (_mark_path(path), error.strerror))


def is_downloaded(path):
  """Whether a file is there and is a download, unchanged since."""
  try:
    with open(_mark_path(path), encoding='ascii') as stream:
      return json.load(stream) == _facts(path)
  except (OSError, ValueError):  # No file, no mark, or half a mark.
    return False


def is_users_own(path):
  """Whether something is there that was not downloaded."""
  return os.path.lexists(path) and not is_downloaded(path)


def remove_downloaded(path):
  """Removes a file that was downloaded and is no longer needed.

  Args:
    path: the file. A user's own stays.
  """
  for unneeded in ([path] if is_downloaded(path) else []) + [_mark_path(path)]:
    with contextlib.suppress(FileNotFoundError):
      os.remove(unneeded)


def _mark_path(path):
  return path + '.downloaded'


def _facts(path):
  status = os.stat(path)
  return {'size': status.st_size, 'mtime_ns': status.st_mtime_ns}
