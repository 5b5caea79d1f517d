"""Sorts photo files into a folder with one sub-folder per class.

A hidden file in that folder records each photo before it is placed: a killed
process continues after the last one, and a photo that the user has moved to
another class since is not placed again. Existing files are never overwritten.
"""

import collections
import contextlib
import errno
import filecmp
import json
import os
import re
import shutil
from typing import Counter, Dict, List, Optional, Sequence, Set, Tuple

from common import files, folders, locks
from common.errors import InputError, name_some

COPY, LINK, MOVE = WAYS = ('copy', 'link', 'move')

RECORD_FILE = '.sorted_photos.jsonl'
_PART_FILE = '.sorted_photos.part'
_UNKNOWN = 'unknown'

# Some file systems and programs accept none of these in names.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
# Bytes of the longest name, with room for a suffix.
_MAX_NAME = 240


class SortedFolder(contextlib.ExitStack):
  """A folder with one sub-folder per class; for a `with`.

  Attributes:
    counts: {name of a sub-folder: photos that were placed in it}.
    former: number of photos that were placed before.
  """

  def __init__(self, folder: str, way: str, sources: Sequence[str]) -> None:
    """Opens a folder, which need not exist, and completes the last photo.

    Args:
      folder: path.
      way: one of WAYS.
      sources: files and folders that are sorted.

    Raises:
      InputError: the folder is not writable, contains a source or is in one,
        or another process sorts photos into it.
    """
    super().__init__()
    self.folder, self._way = folder, way
    self._part = os.path.join(folder, _PART_FILE)
    self.counts: Counter[str] = collections.Counter()
    self._names: List[str] = []
    self._labels: Optional[List[str]] = None
    # {path of a photo: its size and time}.
    self._placed: Dict[str, Tuple[int, int]] = {}
    # {path of a photo without its number: the number of the next}.
    self._numbers: Dict[str, int] = {}
    _check_apart(folder, sources)
    folders.check_writable(folder, 'sort_into')
    with self._errors_as_advice():
      os.makedirs(folder, exist_ok=True)
      try:
        self.enter_context(locks.locked_folder(folder))
      except BlockingIOError:
        raise InputError('another process sorts photos into %s: wait until it '
                         'has ended' % folder)
      with contextlib.suppress(FileNotFoundError):
        os.remove(self._part)  # A killed process left it.
      path = os.path.join(folder, RECORD_FILE)
      last = self._load(path)
      self._record = self.enter_context(open(path, 'ab', buffering=0))
      self._is_placing = False
      self.callback(self._end)
      if last is not None:
        self._complete(last)
    self.former = sum(self.counts.values())

  def _load(self, path):
    """Reads the record; returns the photo that may not be in place, or None.

    That is the last one, if the process that placed it was killed.
    """
    last, end = None, 0
    if not os.path.exists(path):
      return None
    with open(path, 'r+b') as stream:
      for line in stream:
        if not line.endswith(b'\n'):  # A process was killed while writing it.
          stream.truncate(end)
          break
        end += len(line)
        try:
          entry = json.loads(line.decode('utf-8'))
          if 'labels' in entry:
            self._labels = entry['labels']
          elif 'ended' in entry:
            last = None
          else:
            last = entry
            self._placed[entry['file']] = entry['size'], entry['changed']
            self.counts[os.path.dirname(entry['to'])] += 1
        except (ValueError, KeyError, TypeError):
          raise InputError('%s is damaged: sort into another folder' % path)
    return last

  def _complete(self, entry):
    """Places a recorded photo, if it is not in place."""
    source, target = entry['file'], os.path.join(self.folder, entry['to'])
    if not os.path.exists(source):
      return
    if not os.path.lexists(target):
      os.makedirs(os.path.dirname(target), exist_ok=True)
      place(source, target, entry['way'], self._part)
    elif entry['way'] == MOVE and filecmp.cmp(source, target, shallow=False):
      os.remove(source)

  def has(self, path: str) -> bool:
    """Returns whether a photo was placed, and has not changed since."""
    placed = self._placed.get(os.path.abspath(path))
    try:
      return placed is not None and placed == files.stamp(path)
    except FileNotFoundError:  # It has just been moved.
      return True

  def set_labels(self, labels: Sequence[str]) -> None:
    """Sets the classes, in the order of the network's outputs.

    Raises:
      InputError: the folder has photos of other classes.
    """
    self._names = folder_names(labels)
    if self._labels is None:
      with self._errors_as_advice():
        self._write({'labels': list(labels)})
    elif self._labels != list(labels):
      raise InputError(
          '%s has photos of other classes (%s): sort into another folder' %
          (self.folder, name_some(self._labels)))

  def add(self, path: str, index: Optional[int], score: float) -> None:
    """Places a photo.

    Args:
      path: of the photo.
      index: of its class; None: it is of none.
      score: recorded only.

    Raises:
      InputError: it cannot be placed: the disk is full, for example.
    """
    name = self._names[-1 if index is None else index]
    with self._errors_as_advice():
      folder = os.path.join(self.folder, name)
      if os.path.islink(folder):
        raise InputError('%s is a symbolic link: photos are not placed in '
                         'other folders' % folder)
      os.makedirs(folder, exist_ok=True)
      target = self._free_path(os.path.join(folder, os.path.basename(path)))
      size, changed = files.stamp(path)
      start = self._record.seek(0, os.SEEK_END)
      self._is_placing = True  # It stays so after an interrupt.
      try:
        self._write({'file': os.path.abspath(path), 'size': size,
                     'changed': changed, 'way': self._way,
                     'to': os.path.relpath(target, self.folder),
                     'score': round(float(score), 6)})
        place(path, target, self._way, self._part)
      except OSError:
        self._record.truncate(start)
        self._is_placing = False
        raise
      with contextlib.suppress(OSError):
        self._write({'ended': True})
      self._is_placing = False
    self.counts[name] += 1

  def _free_path(self, path):
    """Returns a path that does not exist, with a number if necessary."""
    if not os.path.lexists(path):
      return path
    stem, suffix = os.path.splitext(path)
    folder, name = os.path.split(stem)
    stem = os.path.join(folder, _shorten(name, _MAX_NAME - len(suffix)))
    number = self._numbers.get(path, 2)
    while os.path.lexists('%s_%d%s' % (stem, number, suffix)):
      number += 1
    self._numbers[path] = number + 1
    return '%s_%d%s' % (stem, number, suffix)

  def _write(self, entry):
    """Appends a line to the record, whole or not at all."""
    line = json.dumps(entry).encode('ascii') + b'\n'
    start = self._record.seek(0, os.SEEK_END)
    if self._record.write(line) < len(line):
      self._record.truncate(start)
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  def _end(self):
    if not self._is_placing:
      with contextlib.suppress(OSError):
        self._write({'ended': True})

  @contextlib.contextmanager
  def _errors_as_advice(self):
    try:
      yield
    except OSError as error:
      raise InputError('cannot sort into %s: %s%s' % (
          self.folder, error.strerror,
          ': %s' % error.filename if error.filename else ''))


def folder_names(labels: Sequence[str]) -> List[str]:
  """Returns the names of the folders of the classes, and of no class last.

  Characters that are not possible in names are replaced. Names that differ only
  in case would be the same folder on some file systems, so they get a number.
  """
  names: List[str] = []
  taken: Set[str] = set()
  for label in [*labels, _UNKNOWN]:
    base = _shorten(_UNSAFE.sub('_', label).strip(' .'), _MAX_NAME) or '_'
    name, number = base, 1
    while name.casefold() in taken:
      number += 1
      name = '%s_%d' % (base, number)
    taken.add(name.casefold())
    names.append(name)
  return names


def _shorten(name, length):
  """Returns a name of at most `length` bytes."""
  return os.fsdecode(os.fsencode(name)[:length])


def _check_apart(folder, sources):
  """Raises InputError if a folder contains a source or is in one."""
  inside = os.path.realpath(folder)
  for source in sources:
    path = os.path.realpath(source)
    if os.path.commonpath([inside, path]) in (inside, path):
      raise InputError('--sort_into=%s and %s must be two folders, none inside '
                       'the other' % (folder, source))


def place(source: str, target: str, way: str, part: str) -> None:
  """Copies, links or moves a file to a path that does not exist.

  Args:
    source, target: paths.
    way: one of WAYS.
    part: path of a copy that is not complete.

  Raises:
    OSError: the target exists, or cannot be written.
  """
  if way == LINK:
    os.symlink(os.path.abspath(source), target)
    return
  if way == MOVE:
    folder = os.path.dirname(os.path.abspath(source))
    if not os.access(folder, os.W_OK | os.X_OK):
      raise PermissionError(errno.EACCES, 'photos cannot be moved out of it',
                            folder)
    try:
      _rename(source, target)
      return
    except OSError as error:
      if error.errno != errno.EXDEV:  # It is another file system.
        raise
  try:
    shutil.copy2(source, part)
    _rename(part, target)
  except OSError:
    with contextlib.suppress(OSError):
      os.remove(part)
    raise
  if way == MOVE:
    os.remove(source)


def _rename(source, target):
  """Renames a file; unlike os.rename it never overwrites another."""
  try:
    os.link(source, target)
  except OSError as error:
    # Some file systems have no hard links.
    if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK,
                           errno.ENOSYS):
      raise
    if os.path.lexists(target):
      raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target)
  else:
    os.remove(source)
