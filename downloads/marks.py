"""Distinguishes downloaded files from files that a user has put in their place.

fetch.fetch writes photos.tgz.downloaded next to photos.tgz, with the size and
time of the downloaded file. So a later run knows that it was downloaded, even
if the first one fails or is killed before it uses the file.

If no checksum was known before, it also writes photos.tgz.sha256, a line in the
format of sha256sum. That stays: the next download must be the same file.
"""

import contextlib
import json
import os
import re
from typing import Optional

from common import files
from common.errors import InputError


def record_path(path: str) -> str:
  """Returns the path of the recorded SHA-256 of a download."""
  return path + '.sha256'


def recorded_sha256(path: str) -> Optional[str]:
  """Returns the SHA-256 that a file had when it was downloaded before.

  Args:
    path: path of the file, which need not exist any more.

  Returns:
    64 hexadecimal digits; None: nothing is recorded, or an incomplete line.

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
  return match.group(1) if match else None


def record_sha256(path: str, digest: str) -> None:
  """Records the SHA-256 of a download.

  Raises:
    InputError: it cannot be written.
  """
  line = '%s  %s\n' % (digest, os.path.basename(path))
  files.write_output(record_path(path), line.encode('utf-8', 'surrogateescape'))


def mark(path: str, part: str) -> None:
  """Marks a file as downloaded.

  Args:
    path: its later path.
    part: its current path; moving it does not invalidate the mark.

  Raises:
    InputError: the mark cannot be written.
  """
  files.write_output(_mark_path(path), json.dumps(_facts(part)).encode('ascii'))


def is_downloaded(path: str) -> bool:
  """Returns whether a file exists and was downloaded, unchanged since."""
  try:
    with open(_mark_path(path), encoding='ascii') as stream:
      return json.load(stream) == _facts(path)
  except (OSError, ValueError):  # No file, no mark, or an incomplete mark.
    return False


def is_users_own(path: str) -> bool:
  """Returns whether the path exists but was not downloaded."""
  return os.path.lexists(path) and not is_downloaded(path)


def remove_downloaded(path: str) -> None:
  """Removes a file that was downloaded and is no longer needed.

  Args:
    path: the file. A user's own file is kept.
  """
  for unneeded in ([path] if is_downloaded(path) else []) + [_mark_path(path)]:
    with contextlib.suppress(FileNotFoundError):
      os.remove(unneeded)


def _mark_path(path):
  return path + '.downloaded'


def _facts(path):
  status = os.stat(path)
  return {'size': status.st_size, 'mtime_ns': status.st_mtime_ns}
