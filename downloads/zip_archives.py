"""Reads and unpacks zip archives from the network without trusting them.

As in downloads/archives.py, only plain files and folders below one folder are
unpacked. zipfile never reads more of a member than the size that the archive's
directory gives, so the sum of these sizes bounds what is written.
"""

import contextlib
import io
import os
import stat
import zipfile
from typing import List, Set

from common.progress import Progress
from downloads import archives

# zipfile reads the directory into memory. That of the largest published
# archive, 82,783 photos, has 10 MB.
_MOST_AT_ONCE = 2 ** 25  # Bytes.

_ENCRYPTED = 1  # Bit of flag_bits (APPNOTE.TXT, 4.4.4).


class _File(io.BufferedReader):
  """A file that refuses to read too much at once."""

  def read(self, size=-1):
    rest = os.fstat(self.fileno()).st_size - self.tell()
    if (rest if size is None or size < 0 else min(size, rest)) > _MOST_AT_ONCE:
      raise archives.UnsafeArchive(
          '%s is not unpacked: its directory has more than %d bytes' %
          (self.name, _MOST_AT_ONCE))
    return super().read(size)


def check(path: str) -> List[str]:
  """Reads the directory of a zip archive; checksums are checked by `unpack`.

  Returns:
    List of the names of its files, normalized.

  Raises:
    archives.DamagedArchive: it is not such an archive, or is cut off.
    archives.UnsafeArchive: a member leaves the folder, is neither a file nor a
      folder, is encrypted, uses another compression than deflate, or is listed
      twice; or the archive unpacks to more than 4 GiB beyond its own size.
  """
  with _open(path) as (_, members):
    return list(members)


def unpack(path: str, folder: str) -> None:
  """Writes the files of a zip archive that a folder lacks, and shows progress.

  Existing files stay as they are. If it is interrupted, the next call
  continues.

  Args:
    path: the archive.
    folder: destination; created if missing.

  Raises:
    archives.DamagedArchive, archives.UnsafeArchive: as `check`, before a file
      is written; or a checksum is wrong.
    InputError: the files cannot be written.
  """
  with _open(path) as (archive, members):
    missing = {os.path.join(folder, name): info
               for name, info in members.items()
               if not os.path.exists(os.path.join(folder, name))}
    if not missing:
      return
    with Progress('unpacking ' + os.path.basename(path),
                  sum(info.file_size for info in missing.values()),
                  in_bytes=True) as shown:
      for target_path, info in missing.items():
        with archive.open(info) as source:
          archives.write_file(source, target_path)
        shown.add(info.file_size)


@contextlib.contextmanager
def _open(path):
  """Yields the ZipFile and {normalized name: ZipInfo} of its files."""
  with archives.errors_of(path, 'zip'), _File(io.FileIO(path)) as file:
    with zipfile.ZipFile(file) as archive:
      yield archive, _members(path, archive)


def _members(path, archive):
  """Returns {normalized name: ZipInfo} of the files, all of them checked."""
  members = {}
  seen: Set[str] = set()
  most = archives.MOST_BYTES + os.path.getsize(path)
  for info in archive.infolist():
    name = archives.safe_name(path, info.filename, info.is_dir(),
                              _fault_of(info))
    most -= info.file_size
    if most < 0:
      raise archives.UnsafeArchive(
          '%s is not unpacked: it unpacks to more than %d bytes beyond its own '
          'size' % (path, archives.MOST_BYTES))
    if not info.is_dir():
      archives.check_new(path, name, name, seen)
      members[name] = info
  return members


def _fault_of(info):
  """Returns why a zipfile.ZipInfo is not unpacked, apart from its name."""
  # The upper half is the mode of the file if the system has one.
  if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG,
                                                   stat.S_IFDIR):
    return 'is a link or a device'
  if info.flag_bits & _ENCRYPTED:
    return 'is encrypted'
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    return 'uses another compression than deflate'
  return None
