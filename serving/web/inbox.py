"""The inbox: photos that visitors say were classified wrongly, with the class.

A photo and its facts are two files with a generated name, '<name>.jpg' and
'<name>.json'; the facts are written last, so a photo without them is not
complete. ./review_inbox.sh shows them, and moves them out of the folder.
"""

import contextlib
import json
import os
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional

from common import files
from common.errors import InputError
from datasets.photo_files.photos import PhotoError
from serving.web import logs, photo_metadata, uploads
from serving.web.refusals import Refused

_FACTS = '.json'

# A photo without facts that is older was left by a killed process.
_WRITING_SECS = 60


class Correction(NamedTuple):
  """A photo in the inbox."""

  # Name of its file.
  photo: str
  # The right class; None: none of the classes.
  right_class: Optional[str]
  # What the server answered, as the client said; None: unknown.
  answer: Optional[str]
  # When it came: '2026-11-30T06:00:00Z'.
  time: str


class Inbox:
  """A bounded folder of corrections; safe to use from several threads."""

  def __init__(self, folder: str, max_photos: int, max_mb: int,
               max_pixels: int):
    """Opens the folder; removes what an earlier process has not completed.

    Args:
      folder: created if it is missing.
      max_photos: number of photos above which more are refused.
      max_mb: total size above which more are refused, in units of 2^20 bytes.
      max_pixels: largest width times height that is decoded.

    Raises:
      InputError: the folder cannot be used.
    """
    self._folder = uploads.make_folder(folder)
    self._max_photos, self._max_bytes = max_photos, max_mb * 2 ** 20
    self._max_pixels = max_pixels
    self._lock = threading.Lock()
    self._warnings = logs.WarningLimiter()
    whole = {correction.photo for correction in read(self._folder)}
    for name in os.listdir(self._folder):
      path = os.path.join(self._folder, name)
      if uploads.is_upload_name(name) and name not in whole:
        with contextlib.suppress(FileNotFoundError):
          # Another server may be writing a photo.
          if time.time() > os.path.getmtime(path) + _WRITING_SECS:
            os.remove(path)

  def add(self, data: bytes, right_class: Optional[str],
          answer: Optional[str]) -> None:
    """Stores a photo without its metadata, whole or not at all.

    Args:
      data: bytes of a photo that uploads.check accepts.
      right_class, answer: as in Correction.

    Raises:
      Refused: unreadable_photo; inbox_full, also if it cannot be written.
    """
    try:
      data = photo_metadata.strip(data, self._max_pixels)
    except PhotoError:
      raise Refused('unreadable_photo')
    with self._lock:
      try:
        # The folder is counted again: a review may have emptied it.
        uploads.make_folder(self._folder)
        sizes = []
        for entry in os.scandir(self._folder):
          if uploads.is_upload_name(entry.name):
            with contextlib.suppress(FileNotFoundError):  # Just reviewed.
              sizes.append(entry.stat().st_size)
        if (len(sizes) >= self._max_photos or
            sum(sizes) + len(data) > self._max_bytes):
          raise Refused('inbox_full')
        self._write(data, right_class, answer)
      except (OSError, InputError) as error:
        self._warnings.warn('cannot write to the inbox: %s',
                            getattr(error, 'strerror', None) or error)
        raise Refused('inbox_full')

  def _write(self, data, right_class, answer):
    name = uploads.write_photo(self._folder, data)
    path = os.path.join(self._folder, name)
    try:
      files.write_text(facts_path(path), json.dumps(
          {'class': right_class, 'answer': answer, 'time': time.strftime(
              '%Y-%m-%dT%H:%M:%SZ', time.gmtime())}) + '\n')
    except OSError:
      os.remove(path)
      raise


def facts_path(photo: str) -> str:
  """Returns the path of the facts of a photo, from its path."""
  return os.path.splitext(photo)[0] + _FACTS


def read(folder: str) -> List[Correction]:
  """Returns the complete corrections in a folder, the oldest first.

  Raises:
    InputError: the folder, or a file of facts, cannot be read.
  """
  found = []
  try:
    names = os.listdir(folder)
  except OSError as error:
    raise InputError('cannot read the inbox %s: %s' % (folder, error.strerror))
  for name in filter(uploads.is_upload_name, names):
    path = facts_path(os.path.join(folder, name))
    text = files.read_if_exists(path)
    if text is None:
      continue
    try:
      facts: Dict[str, Any] = json.loads(text.decode('utf-8'))
      right_class, answer = facts['class'], facts['answer']
      if any(not isinstance(value, (str, type(None)))
             for value in (right_class, answer)):
        raise ValueError('a class is not a text')
      found.append(Correction(name, right_class, answer, str(facts['time'])))
    except (ValueError, KeyError, TypeError) as error:
      raise InputError('%s is damaged (%s): remove it and its photo' %
                       (path, error))
  return sorted(found, key=lambda correction: (correction.time,
                                               correction.photo))
