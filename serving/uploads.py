"""Keeps uploaded photos under names that nobody chose.

A visitor's file name is never used: neither as a path, nor to tell what the
file is. Its first bytes tell that.
"""

import os
import re
import secrets

from errors import InputError

# The first bytes of a file (JPEG: ITU T.81 B.1.1.3, start of image and the
# next marker; PNG: ISO 15948 5.2) and the extension it is kept under.
_SIGNATURES = ((b'\xff\xd8\xff', 'jpg'), (b'\x89PNG\r\n\x1a\n', 'png'))
_NAME = re.compile(r'[0-9a-f]{32}\.(jpg|png)')


def extension_of(data):
  """Returns 'jpg' or 'png' by the content of a file, None for anything else."""
  for signature, extension in _SIGNATURES:
    if data.startswith(signature):
      return extension
  return None


def make_folder(folder):
  """Makes the folder for uploads, where it is missing.

  Returns:
    Its absolute path.

  Raises:
    InputError: it cannot be made, or nothing can be written there.
  """
  folder = os.path.abspath(folder)
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise InputError('cannot make the folder for uploads %r: %s' %
                     (folder, error.strerror))
  if not os.access(folder, os.W_OK | os.X_OK):
    raise InputError('cannot write into the folder for uploads %r' % folder)
  return folder


def keep(folder, data):
  """Writes a photo into the folder under a new name.

  Args:
    folder: as `make_folder` returned it.
    data: bytes of a JPEG or PNG file.

  Returns:
    The name, which does not tell where it came from and cannot be guessed.

  Raises:
    InputError: `data` is neither.
    OSError: it cannot be written; nothing of it is left.
  """
  extension = extension_of(data)
  if extension is None:
    raise InputError('neither JPEG nor PNG: starts with %r' % data[:8])
  name = '%s.%s' % (secrets.token_hex(16), extension)
  path = os.path.join(folder, name)
  # 'x': never through a link that somebody put there.
  with open(path, 'xb') as file:
    try:
      file.write(data)
      file.flush()
    except OSError:
      os.remove(path)
      raise
  return name


def is_kept_name(name):
  """Whether `keep` may have made this name."""
  return _NAME.fullmatch(name) is not None
