"""Tells what was downloaded from what a user has put in the same place.

fetch.fetch writes photos.tgz.downloaded beside photos.tgz: size and time of the
file as it came. So a later run still knows whose it is, if the one that
downloaded it fails or is killed before the file is used.
"""

import contextlib
import json
import os

from errors import InputError


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
