"""Locks between processes: the kernel's (flock), which end with the process.

Some network file systems cannot lock files; there, nothing is locked.
"""

import contextlib
import fcntl
import os
from io import FileIO
from typing import Iterator, Optional

from common.errors import InputError


def open_locked(path: str, wait: bool = False) -> FileIO:
  """Opens a file for appending and locks it; creates it if missing.

  Args:
    path: the file. The result is the file that has this name once it is locked,
      not one that another process has moved away meanwhile.
    wait: whether to wait for another process that has locked it.

  Returns:
    Unbuffered binary file. Closing it unlocks it.

  Raises:
    BlockingIOError: another process has locked it.
    OSError: it cannot be written.
  """
  while True:
    opened = open(path, 'ab', buffering=0)
    try:
      if not _lock(opened, wait) or _is_same_file(opened, path):
        return opened
    except BlockingIOError:
      opened.close()
      raise
    opened.close()


def _lock(opened, wait):
  """Locks an open file or folder; returns whether the file system can do so."""
  try:
    fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError:
    raise
  except OSError:
    return False
  return True


def _is_same_file(opened, path):
  try:
    return os.path.samestat(os.fstat(opened.fileno()), os.stat(path))
  except FileNotFoundError:
    return False


def is_locked(path: str) -> bool:
  """Returns whether a process holds the lock of a file; never creates it."""
  try:
    with open(path, 'rb') as opened:
      fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:
    pass
  return False


@contextlib.contextmanager
def locked_file(path: str, wait: bool = True) -> Iterator[FileIO]:
  """Opens and locks a file, and removes it at the end.

  A file that a killed process left is reused. A file that was renamed meanwhile
  is not removed.

  Args:
    path: path of the file, in an existing folder.
    wait: whether to wait for another process or thread that has locked it.

  Yields:
    The file, as from `open_locked`.

  Raises:
    BlockingIOError: another process has locked it.
    OSError: it cannot be written.
  """
  with open_locked(path, wait) as opened:
    try:
      yield opened
    finally:
      # Before it is unlocked: afterwards it may belong to another process.
      if _is_same_file(opened, path):
        with contextlib.suppress(FileNotFoundError):
          os.remove(path)


@contextlib.contextmanager
def locked_folder(path: str) -> Iterator[None]:
  """Locks a folder for a `with`, without a file in it.

  Raises:
    BlockingIOError: another process or thread has locked it.
    OSError: it cannot be opened.
  """
  opened = os.open(path, os.O_RDONLY)
  try:
    _lock(opened, wait=False)
    yield
  finally:
    os.close(opened)


@contextlib.contextmanager
def hold(path: str, message: Optional[str] = None) -> Iterator[None]:
  """Holds a lock file, and removes it at the end.

  Args:
    path: the lock file; its folder is created if missing.
    message: error message if another process holds it; None: wait until that
      process has released it.

  Raises:
    InputError: another process holds it, or it cannot be written.
  """
  with contextlib.ExitStack() as held:
    try:
      os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
      held.enter_context(locked_file(path, wait=message is None))
    except BlockingIOError:
      raise InputError(message)
    except OSError as error:
      raise InputError('cannot write %s: %s' % (path, error.strerror))
    yield
