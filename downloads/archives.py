"""Archives from the network: read whole, and unpacked without trusting them.

Python's own extraction can be told to leave its folder by names, links and
devices, and 3.7 has no filter against that. Here only plain files and folders
below one folder come out, and anything else condemns the archive.
"""

import contextlib
import glob
import gzip
import os
import posixpath
import shutil
import tarfile
import uuid
import zlib

from errors import InputError

_CHUNK = 1024 * 1024  # Bytes that are unpacked at a time.

# What gzip and tarfile raise on bytes that are no such file, or damaged.
_READ_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError,
                OverflowError, IndexError, KeyError, TypeError)


class DamagedArchive(InputError):
  """A file that is no archive of the expected kind, or not all of it."""


class UnsafeArchive(InputError):
  """An archive with members that do not belong into one."""


def check_gzip(path):
  """Reads a gzip file to its end, checksum included.

  Raises:
    DamagedArchive: it is no gzip file, is cut off or is damaged.
  """
  with _errors_of(path), gzip.open(path) as source:
    while source.read(_CHUNK):
      pass


def read_gzip(path):
  """Returns the unpacked bytes of a gzip file; raises as check_gzip does."""
  with _errors_of(path), gzip.open(path) as source:
    return source.read()


def check_tar(path):
  """Reads a .tar.gz to its end: members, their places, gzip's checksum.

  Returns:
    List of the names of its files, normalized ('./a//b' is 'a/b').

  Raises:
    DamagedArchive: it is no such archive, is cut off or is damaged.
    UnsafeArchive: a member is absolute, leaves the folder with '..', or is
      neither a file nor a folder.
  """
  with _open_tar(path) as members:
    return [name for name, _ in members]


def read_members(path, wanted):
  """Yields what some files of a .tar.gz hold, in the archive's order.

  Args:
    path: the archive.
    wanted: function of a normalized name: whether to read it.

  Yields:
    (name, bytes).

  Raises:
    DamagedArchive, UnsafeArchive: as check_tar.
  """
  with _open_tar(path) as members:
    for name, source in members:
      if wanted(name):
        yield name, source().read()


def unpack(path, folder, place):
  """Writes files of a .tar.gz into a folder.

  Args:
    path: the archive.
    folder: an empty folder. After an error it holds a part of the files: unpack
      aside, and move what is complete.
    place: function of a normalized name; returns the name below `folder`, or
      None for files that are left out.

  Returns:
    List of the names below `folder`.

  Raises:
    DamagedArchive, UnsafeArchive: as check_tar.
    InputError: the files cannot be written.
  """
  written = []
  with _open_tar(path) as members:
    for name, source in members:
      target = place(name)
      if target is None:
        continue
      if target in written:
        raise UnsafeArchive('%s holds %r twice: it is not unpacked' %
                            (path, name))
      _write(source(), os.path.join(folder, target))
      written.append(target)
  return written


def _write(source, target_path):
  """Copies an archive's member; an error of reading stays what it is."""
  try:
    os.makedirs(os.path.dirname(target_path), exist_ok=True)
    target = open(target_path, 'xb', buffering=0)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (target_path, error.strerror))
  with target:
    for chunk in iter(lambda: source.read(_CHUNK), b''):
      write_all(target, chunk)


def write_all(target, data):
  """Writes bytes to an unbuffered file.

  Such a file may take a part at a time: what fits where the disk is full.

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


@contextlib.contextmanager
def _open_tar(path):
  """Gives an iterator over (normalized name, function that opens the file)."""
  with _errors_of(path), gzip.open(path) as unzipped:
    with tarfile.open(fileobj=unzipped, mode='r:') as tar:
      yield _members(path, tar, unzipped)


def _members(path, tar, unzipped):
  """Yields the files of an open archive, then reads on to gzip's checksum."""
  for member in tar:
    name = _safe_name(path, member)
    if member.isreg():
      yield name, lambda member=member: tar.extractfile(member)
  # The checksum stands behind the last byte, which tar has no reason to read.
  while unzipped.read(_CHUNK):
    pass


def _safe_name(path, member):
  """Returns the member's name below the folder; UnsafeArchive if it has none.

  Args:
    path: the archive.
    member: tarfile.TarInfo.
  """
  name = posixpath.normpath(member.name)
  if member.name.startswith('/') or name.split('/')[0] == '..':
    reason = 'leaves the folder'
  elif '\\' in name or '\0' in name:
    reason = 'is no plain name'
  elif not (member.isreg() or member.isdir()):
    reason = 'is a link or a device'
  elif name == '.' and not member.isdir():
    reason = 'is no plain name'
  else:
    return name
  raise UnsafeArchive('%s is not unpacked: its member %r %s' %
                      (path, member.name, reason))


@contextlib.contextmanager
def _errors_of(path):
  try:
    yield
  except InputError:  # It is a ValueError itself.
    raise
  except _READ_ERRORS as error:
    if isinstance(error, OSError) and error.errno:  # The disk's, not gzip's.
      raise InputError('%s: %s' % (error.filename or path, error.strerror))
    raise DamagedArchive('%s is damaged, or no gzip archive: %s' %
                         (path, ' '.join(str(error).split()) or
                          type(error).__name__))


@contextlib.contextmanager
def unpacking_folder(path):
  """Gives an empty folder beside the place of what is unpacked in it.

  Args:
    path: how its name begins; the end is made up, so that no other process has
      the same. What earlier, killed runs left under such names is removed: hold
      a lock.

  Yields:
    The folder. All that is left in it at the end is removed.

  Raises:
    InputError: it cannot be made.
  """
  for left in [path] + glob.glob(glob.escape(path) + '.????????'):
    shutil.rmtree(left, ignore_errors=True)
  folder = '%s.%s' % (path, uuid.uuid4().hex[:8])
  try:
    os.makedirs(folder)
  except OSError as error:
    raise InputError('cannot make the folder %s: %s' % (folder, error.strerror))
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
