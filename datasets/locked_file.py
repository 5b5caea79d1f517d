"""A file that one process or thread at a time has."""

import contextlib
import fcntl
import os


@contextlib.contextmanager
def locked_file(path):
  """Opens a file that nobody else has, waiting for it; gives its descriptor.

  The lock is the kernel's (flock) and goes with its process: what a killed one
  left is simply taken over. At the end the file is removed, unless the body
  has given it another name. Some network file systems cannot lock; there,
  nothing is held.

  Args:
    path: of the file; made where it is missing, in a folder that exists.

  Raises:
    OSError: if the file cannot be opened.
  """
  while True:
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(opened, fcntl.LOCK_EX)
    except OSError:
      pass
    if _is_at(opened, path):
      break
    os.close(opened)  # Who had it has moved or removed it.
  try:
    yield opened
  finally:
    try:
      if _is_at(opened, path):
        os.remove(path)
    finally:
      os.close(opened)


def _is_at(opened, path):
  """Whether an open file is the one at a path."""
  try:
    return os.path.samestat(os.fstat(opened), os.stat(path))
  except FileNotFoundError:
    return False
