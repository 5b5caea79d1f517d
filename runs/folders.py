"""Whether a folder can be written to, known before hours of work go into it."""

import errno
import os

from errors import InputError


def check_writable(folder, flag):
  """Checks that files can be written to a folder, or that it can be made.

  Args:
    folder: path.
    flag: name of the flag that gave it.

  Raises:
    InputError: nothing can be written there.
  """
  reason = reason_not_writable(folder)
  if reason:
    raise InputError('cannot write to --%s=%s: %s' % (flag, folder, reason))


def reason_not_writable(folder):
  """Returns why nothing can be written to a folder; None where it can.

  Nothing is made or written to find out.

  Args:
    folder: path; where it does not exist, whether it could be made is asked.
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
