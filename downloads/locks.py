"""Locks between processes: the kernel's (flock), so they go with a process.

Some network file systems cannot lock files; there, nothing is held.
"""

import contextlib
import fcntl
import os

from errors import InputError


def open_locked(path, wait=False):
  """Opens a file for appending and locks it; makes it where it is missing.

  Args:
    path: the file. What is returned is what has this name now, not what another
      process has moved away meanwhile.
    wait: whether to wait for another process that has it.

  Returns:
    Unbuffered binary file. Closing it unlocks it.

  Raises:
    BlockingIOError: another process has it.
    OSError: it cannot be written.
  """
  while True:
    opened = open(path, 'ab', buffering=0)
    try:
      if not _lock(opened, wait) or _is_called(opened, path):
        return opened
    except BlockingIOError:
      opened.close()
      raise
    opened.close()


def _lock(opened, wait):
  """Locks a file; returns whether the file system can do so."""
  try:
    fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError:
    raise
  except OSError:
    return False
  return True


def _is_called(opened, path):
  try:
    return os.path.samestat(os.fstat(opened.fileno()), os.stat(path))
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def locked_file(path, wait=True):
  """Opens a file that nobody else has, and removes it at the end.

  What a killed process left is taken over. A file that has got another name
  meanwhile is not removed.

  Args:
    path: of the file, in a folder that exists.
    wait: whether to wait for another process or thread that has it.

  Yields:
    The file, as `open_locked` gives it.

  Raises:
    BlockingIOError: another process has it.
    OSError: it cannot be written.
  """
  with open_locked(path, wait) as opened:
    try:
      yield opened
    finally:
      # Before it is unlocked: afterwards it may be another process's.
      if _is_called(opened, path):
        with contextlib.suppress(FileNotFoundError):
          os.remove(path)


@contextlib.contextmanager
def hold(path, message=None):
  """Holds a lock file, and removes it at the end.

  Args:
    path: the lock file; its folder is made where missing.
    message: what the user reads if another process holds it; None waits until
      that one has ended.

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
