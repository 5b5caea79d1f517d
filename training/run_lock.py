"""One trainer a train directory.

The lock is the kernel's (flock), so it goes with its process however that ends;
the file holds the process id for stop_train.sh.
"""

import contextlib
import fcntl
import os

from errors import InputError

FILE_NAME = 'train.pid'


@contextlib.contextmanager
def hold(train_dir):
  """Holds the train directory for this process.

  Args:
    train_dir: folder of the run; made where there is none.

  Raises:
    InputError: another process trains there, or the folder cannot be made.
  """
  name = os.path.join(train_dir, FILE_NAME)
  try:
    os.makedirs(train_dir, exist_ok=True)
    stream = open(name, 'a+', encoding='ascii')
  except OSError as error:
    raise InputError('--train_dir=%s: %s' % (train_dir, error.strerror))
  with stream:
    try:
      fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      stream.seek(0)
      raise InputError(
          'process %s already trains in %s; stop it with ./stop_train.sh, or '
          'give another --train_dir' % (stream.read().strip(), train_dir))
    stream.truncate(0)
    stream.write('%d\n' % os.getpid())
    stream.flush()
    yield
    stream.truncate(0)
