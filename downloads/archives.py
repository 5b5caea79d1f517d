"""Reads and unpacks archives from the network without trusting them.

Python's own extraction can be made to write outside its folder by names, links
and devices, and 3.7 has no filter against that. Here only plain files and
folders below one folder are unpacked; an archive with anything else is refused.
So is an archive that would take far too much memory or disk: gzip compresses
zeros to a thousandth, and tarfile holds a member's headers in memory, whatever
their length.
"""

import contextlib
import errno
import glob
import gzip
import os
import posixpath
import re
import shutil
import tarfile
import uuid
import zipfile
import zlib
from typing import (
  IO,
  Callable,
  Iterator,
  List,
  NamedTuple,
  Optional,
  Set,
  Tuple,
)

from common.errors import InputError

_CHUNK = 1024 * 1024  # Bytes unpacked at a time.

# The limits of an archive, far above all published ones: the largest are
# checkpoints of 0.6 GB and 3,670 photos.
MOST_BYTES = 4 * 2 ** 30    # Unpacked, headers included.
_MOST_IN_MEMORY = 2 ** 30   # Bytes of a file that is read into memory.
_MOST_MEMBERS = 20000
_MOST_HEADER_BYTES = 2 ** 15  # Of one member.
_LONGEST_NAME = 1024        # Characters.

# tarfile searches headers with a regular expression that takes quadratic time
# for many digits: minutes for 60,000 (CVE-2024-6232).
_MANY_DIGITS = re.compile(rb'\d{65}')

# Errors of gzip, tarfile and zipfile on bytes that are not such a file, or
# damaged.
_READ_ERRORS = (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError,
                zlib.error, ValueError, OverflowError, IndexError, KeyError,
                TypeError, NotImplementedError)


class DamagedArchive(InputError):
  """A file that is not an archive of the expected kind, or is incomplete."""


class UnsafeArchive(InputError):
  """An archive that is too large or has members that are not allowed."""


class _Unpacked:
  """File object of a file's unpacked bytes, within limits; also for tarfile."""

  def __init__(self, path, most_bytes=MOST_BYTES):
    self._path, self._most_bytes = path, most_bytes
    self._file = gzip.open(path)
    self.close, self.tell = self._file.close, self._file.tell
    self._header_bytes = None  # Read so far of a header; None: in content.

  def begin_header(self):
    """Counts bytes read from here on as the headers of one member."""
    self._header_bytes = 0

  def end_header(self):
    self._header_bytes = None

  def read(self, size):
    """Returns up to `size` bytes, b'' at the end."""
    if self._header_bytes is not None:
      self._header_bytes += size
      # A crafted header may give a negative size, which would read all.
      if size < 0 or self._header_bytes > _MOST_HEADER_BYTES:
        raise UnsafeArchive('%s is not unpacked: the header of a member has '
                            'more than %d bytes' %
                            (self._path, _MOST_HEADER_BYTES))
    data = self._file.read(size)
    self.check(self._file.tell())
    if self._header_bytes is not None and _MANY_DIGITS.search(data):
      raise UnsafeArchive('%s is not unpacked: the header of a member has more '
                          'than 64 digits in a row' % self._path)
    return data

  def seek(self, place):
    self.check(place)
    self._file.seek(place)

  def check(self, place):
    """Raises UnsafeArchive if a position is beyond the limit."""
    if place > self._most_bytes:
      raise UnsafeArchive('%s is not unpacked: it unpacks to more than %d bytes'
                          % (self._path, self._most_bytes))


def check_gzip(path: str) -> None:
  """Reads a gzip file to its end, checksum included.

  Raises:
    DamagedArchive: it is not a gzip file, is cut off or is damaged.
    UnsafeArchive: it unpacks to more than a GiB.
  """
  with errors_of(path), _open_gzip(path, _MOST_IN_MEMORY) as source:
    while source.read(_CHUNK):
      pass


def read_gzip(path: str) -> bytes:
  """Returns the unpacked bytes of a gzip file; raises as check_gzip does."""
  with errors_of(path), _open_gzip(path, _MOST_IN_MEMORY) as source:
    return b''.join(iter(lambda: source.read(_CHUNK), b''))


def _open_gzip(path, most_bytes=MOST_BYTES):
  return contextlib.closing(_Unpacked(path, most_bytes))


def check_tar(path: str) -> List[str]:
  """Reads a .tar.gz to its end: members, their paths, gzip's checksum.

  Returns:
    List of the names of its files, normalized ('./a//b' is 'a/b').

  Raises:
    DamagedArchive: it is not such an archive, is cut off or is damaged.
    UnsafeArchive: a member is absolute, leaves the folder with '..', is neither
      a file nor a folder, or has holes; or the archive has more members, longer
      headers or more content than any published one.
  """
  with _open_tar(path) as members:
    return [name for name, _ in members]


def read_members(path: str,
                 wanted: Callable[[str], bool]) -> Iterator[Tuple[str, bytes]]:
  """Yields the content of some files of a .tar.gz, in the archive's order.

  Args:
    path: the archive.
    wanted: function of a normalized name: whether to read it.

  Yields:
    (name, bytes).

  Raises:
    DamagedArchive, UnsafeArchive: as check_tar; or one of them is listed twice,
      or larger than a GiB.
  """
  seen: Set[str] = set()
  with _open_tar(path) as members:
    for name, member in members:
      if not wanted(name):
        continue
      check_new(path, name, name, seen)
      if member.size > _MOST_IN_MEMORY:
        raise UnsafeArchive('%s is not read: its member %r has %d bytes, more '
                            'than %d' %
                            (path, name, member.size, _MOST_IN_MEMORY))
      yield name, member.open().read()


def unpack(path: str, folder: str,
           place: Callable[[str], Optional[str]]) -> List[str]:
  """Writes files of a .tar.gz into a folder.

  Args:
    path: the archive.
    folder: existing files in it are replaced. After an error it holds a part of
      the files.
    place: function of a normalized name; returns the name below `folder`, or
      None for files to skip.

  Returns:
    List of the names below `folder`.

  Raises:
    DamagedArchive, UnsafeArchive: as check_tar; or one of them is listed twice.
    InputError: the files cannot be written.
  """
  written = []
  seen: Set[str] = set()
  with _open_tar(path) as members:
    for name, member in members:
      target = place(name)
      if target is None:
        continue
      check_new(path, name, target, seen)
      write_file(member.open(), os.path.join(folder, target))
      written.append(target)
  return written


def check_new(path: str, name: str, target: str, seen: Set[str]) -> None:
  """Adds a target to `seen`; raises UnsafeArchive if it is in it already."""
  if target in seen:
    raise UnsafeArchive('%s holds %r twice: it is not unpacked' % (path, name))
  seen.add(target)


def write_file(source: IO[bytes], target_path: str) -> None:
  """Writes a member of an archive to a file, which is never incomplete.

  Args:
    source: the member; errors of reading it are passed on.
    target_path: path of the file; its folder is created if missing.

  Raises:
    InputError: it cannot be written.
  """
  part_path = target_path + '.unpacking'
  try:
    os.makedirs(os.path.dirname(target_path), exist_ok=True)
    target = open(part_path, 'wb', buffering=0)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (target_path, error.strerror))
  with target:
    for chunk in iter(lambda: source.read(_CHUNK), b''):
      write_all(target, chunk)
  try:
    os.replace(part_path, target_path)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (target_path, error.strerror))


def write_all(target: IO[bytes], data: bytes) -> None:
  """Writes bytes to an unbuffered file.

  One call may write only a part, such as what fits on a full disk.

  Args:
    target: file object, opened with buffering=0.
    data: bytes.

  Raises:
    InputError: not all could be written.
  """
  rest = memoryview(data)
  try:
    while rest:
      rest = rest[target.write(rest):]
  except OSError as error:
    raise InputError('cannot write %s: %s' % (target.name, error.strerror))


class _Member(NamedTuple):
  """A file in an archive."""

  # In bytes.
  size: int
  # Returns a binary file.
  open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def _open_tar(path):
  """Yields an iterator over (normalized name, _Member) of the files."""
  with errors_of(path), _open_gzip(path) as unpacked:
    unpacked.begin_header()  # tarfile.open reads the first header.
    with tarfile.open(fileobj=unpacked, mode='r:') as tar:
      yield _members(path, tar, unpacked)


def _members(path, tar, unpacked):
  """Yields the files of an open archive, then reads on to gzip's checksum."""
  count = 0
  while True:
    unpacked.begin_header()
    member = tar.next()
    unpacked.end_header()
    if member is None:
      break
    count += 1
    if count > _MOST_MEMBERS:
      raise UnsafeArchive('%s is not unpacked: it has more than %d members' %
                          (path, _MOST_MEMBERS))
    name = safe_name(path, member.name, member.isdir(), _fault_of(member))
    unpacked.check(member.offset_data + member.size)
    if member.isreg():
      yield name, _Member(member.size,
                          lambda member=member: tar.extractfile(member))
    del tar.members[:]  # tarfile would keep all of them.
  # The checksum follows the last byte, which tarfile does not read.
  while unpacked.read(_CHUNK):
    pass


def _fault_of(member):
  """Returns why a tarfile.TarInfo is not unpacked, apart from its name."""
  if not (member.isreg() or member.isdir()):
    return 'is a link or a device'
  if member.issparse():
    return 'has holes (a sparse file)'
  return 'has a negative size' if member.size < 0 else None


def safe_name(path: str, member_name: str, is_folder: bool,
              fault: Optional[str]) -> str:
  """Returns a member's name below the folder, normalized.

  Args:
    path: the archive.
    member_name: as in the archive.
    is_folder: whether it is a folder.
    fault: another reason not to unpack it, None if there is none.

  Raises:
    UnsafeArchive: the name leaves the folder or is not a plain name, or there
      is a fault.
  """
  name = posixpath.normpath(member_name)
  if member_name.startswith('/') or name.split('/')[0] == '..':
    fault = 'leaves the folder'
  elif '\\' in name or '\0' in name or name == '.' and not is_folder:
    fault = fault or 'is not a plain name'
  elif len(name) > _LONGEST_NAME:
    raise UnsafeArchive('%s is not unpacked: the name of a member has more '
                        'than %d characters' % (path, _LONGEST_NAME))
  if fault:
    raise UnsafeArchive('%s is not unpacked: its member %r %s' %
                        (path, member_name, fault))
  return name


@contextlib.contextmanager
def errors_of(path: str, kind: str = 'gzip') -> Iterator[None]:
  """Turns errors of reading an archive into InputErrors; for a `with`.

  Args:
    path: the archive.
    kind: for the message, as in 'gzip'.

  Raises:
    DamagedArchive: for errors of its content.
    InputError: for errors of the disk.
  """
  try:
    yield
  except InputError:  # It is a ValueError itself.
    raise
  except _READ_ERRORS as error:
    # gzip gives no errno; zipfile may seek to a negative offset (EINVAL).
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
      raise InputError('%s: %s' % (error.filename or path, error.strerror))
    raise DamagedArchive('%s is damaged, or not a %s archive: %s' %
                         (path, kind, ' '.join(str(error).split()) or
                          type(error).__name__))


@contextlib.contextmanager
def unpacking_folder(path: str) -> Iterator[str]:
  """Creates an empty temporary folder to unpack into; for a `with`.

  Args:
    path: start of its path; the end is random, so that no other process uses
      the same. Such folders left by earlier, killed runs are removed: hold a
      lock.

  Yields:
    The folder. At the end it is removed with its content.

  Raises:
    InputError: it cannot be created.
  """
  for leftover in [path] + glob.glob(glob.escape(path) + '.????????'):
    shutil.rmtree(leftover, ignore_errors=True)
  folder = '%s.%s' % (path, uuid.uuid4().hex[:8])
  try:
    os.makedirs(folder)
  except OSError as error:
    raise InputError('cannot make the folder %s: %s' % (folder, error.strerror))
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
