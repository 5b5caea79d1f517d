"""Checks that folders are writable, before hours of work."""

import errno
import os
from typing import Optional

from common.errors import InputError


def check_writable(folder: str, flag: str) -> None:
  """Checks that a folder is writable, or that it can be created.

  Args:
    folder: path.
    flag: name of the flag that gave it.

  Raises:
    InputError: the folder is not writable.
  """
  reason = reason_not_writable(folder)
  if reason:
    raise InputError('cannot write to --%s=%s: %s' % (flag, folder, reason))


def reason_not_writable(folder: str) -> Optional[str]:
  """Returns why a folder is not writable, or None if it is.

  Nothing is created or written to find out.

  Args:
    folder: path; if it does not exist, checks whether it could be created.
  """
  folder = os.path.abspath(folder)
  while not os.path.lexists(folder):
    folder = os.path.dirname(folder)
  if not os.path.isdir(folder):
    return '%s: %s' % (folder, os.strerror(errno.ENOTDIR))
  if os.access(folder, os.W_OK | os.X_OK):
    return None
  read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
  return '%s: %s' % (
      folder, os.strerror(errno.EROFS if read_only else errno.EACCES))
