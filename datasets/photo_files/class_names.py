"""Names of classes that people propose, which become names of folders."""

import re
import unicodedata
from typing import Sequence

from common.errors import InputError
from datasets.photo_files import folder_layout, side_files

MAX_LETTERS = 60

# Some file systems and programs accept none of these in names.
_UNSAFE = re.compile(r'[/\\:*?"<>|]')


def check(name: str, classes: Sequence[str] = ()) -> str:
  """Returns the name of a class, as the folder of its photos is named.

  Args:
    name: proposed by a person: one of the classes, also with other spaces or in
      other case; or a new one.
    classes: names that exist.

  Raises:
    InputError: it cannot be the name of a folder of photos.
  """
  if name in classes:
    return name
  new = ' '.join(unicodedata.normalize('NFC', name).split())
  for other in classes:
    if other.casefold() == new.casefold():
      return other
  if (not 0 < len(new) <= MAX_LETTERS or not new.isprintable() or
      _UNSAFE.search(new) or new.startswith('.') or new.endswith('.') or
      side_files.reason(new, is_folder=True) or
      folder_layout.is_split_name(new) or
      not any(letter.isalnum() for letter in new)):
    raise InputError(
        '%r cannot be the name of a class: up to %d printable characters with '
        'a letter or digit, without / \\ : * ? " < > | and . at the ends, not '
        'train, validation or test' % (name, MAX_LETTERS))
  return new
