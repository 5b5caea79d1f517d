"""Writes and reads whole files; a reader never sees a partly written file."""

import os

from common import locks
from common.errors import InputError


def write_aside(path, data):
  """Writes `data` beside `path`, then renames it over `path`.

  Args:
    path: file to write; its folder is created if it is missing.
    data: bytes.

  Raises:
    InputError: the folder or the file cannot be written.
  """
  folder = os.path.dirname(os.path.abspath(path))
  aside = '%s.%d.tmp' % (path, os.getpid())
  try:
    os.makedirs(folder, exist_ok=True)
    try:
      with open(aside, 'wb') as file:
        file.write(data)
      os.replace(aside, path)
    finally:
      if os.path.exists(aside):
        os.remove(aside)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (path, error.strerror))


def read(path, what):
  """Returns the bytes of the file `path`.

  Args:
    path: file to read.
    what: description of the file for the user, as in 'label file --label_file'.

  Raises:
    InputError: it is missing or unreadable.
  """
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as error:
    raise InputError('cannot read the %s %r: %s' % (what, path, error.strerror))


def write_text(file_path, text):
  """Writes a UTF-8 file under a temporary name and renames it.

  So it is never incomplete. Several processes may write the same file; the last
  one wins. If writing fails, no temporary file remains.

  Args:
    file_path: path of the file; the folder must exist.
    text: its content.

  Raises:
    OSError: if it cannot be written.
  """
  part_path = file_path + '.part'
  with locks.locked_file(part_path) as opened:
    opened.truncate(0)  # A process that was killed may have written to it.
    with open(opened.fileno(), 'wb', closefd=False) as target:
      target.write(text.encode('utf-8'))
    os.fsync(opened)
    os.replace(part_path, file_path)
