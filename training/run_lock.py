"""Lock of a train directory: only one process trains in it.

It is a kernel lock (flock), so it is released however its process ends; the
file holds the process id for stop_train.sh.
"""

import contextlib
import os
from typing import Iterator

from common import locks
from common.errors import InputError
from runs import run_list

FILE_NAME = run_list.LOCK_FILE


@contextlib.contextmanager
def hold(train_dir: str) -> Iterator[None]:
  """Locks the train directory for this process.

  Args:
    train_dir: folder of the run; created if missing, and removed at the end if
      nothing was written to it.

  Raises:
    InputError: another process trains there, or the folder cannot be made.
  """
  missing = _missing_folders(train_dir)
  try:
    with contextlib.ExitStack() as stack:
      try:
        os.makedirs(train_dir, exist_ok=True)
        path = os.path.join(train_dir, FILE_NAME)
        stream = stack.enter_context(locks.locked_file(path, wait=False))
      except BlockingIOError:
        raise InputError(
            'process %s already trains in %s; stop it with ./stop_train.sh, or '
            'give another --train_dir' % (_process_id(path), train_dir))
      except OSError as error:
        raise InputError('--train_dir=%s: %s' % (train_dir, error.strerror))
      stream.truncate(0)
      stream.write(b'%d\n' % os.getpid())
      yield
  finally:
    with contextlib.suppress(OSError):  # Stops at one that is not empty.
      for folder in missing:
        os.rmdir(folder)


def _process_id(path):
  """Returns the process id in the lock file, as text."""
  try:
    with open(path, encoding='ascii') as file:
      return file.read().strip()
  except FileNotFoundError:  # The process has just ended.
    return '?'


def _missing_folders(folder):
  """Returns the folders that must be created for a folder, innermost first."""
  folder = os.path.abspath(folder)
  missing = []
  while not os.path.lexists(folder):
    missing.append(folder)
    folder = os.path.dirname(folder)
  return missing
