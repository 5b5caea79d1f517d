"""Tests of downloads/zip_archives.py: damaged and hostile archives."""

import os
import stat
import zipfile

import pytest

from common.errors import InputError
from downloads import archives, zip_archives
from kits.download_kit import zip_bytes

FILES = {'top/a.txt': b'a' * 5000, './top//b.txt': b'b', 'folder/': b''}


def write(path, data):
  path.write_bytes(data)
  return str(path)


def member(name, mode=stat.S_IFREG, compression=zipfile.ZIP_STORED):
  info = zipfile.ZipInfo(name)
  info.external_attr = mode << 16
  info.compress_type = compression
  return info


def set_bits(data, offset, bits):
  """Returns a zip with bits set at an offset of each entry of its directory."""
  changed = bytearray(data)
  position = data.find(b'PK\1\2')
  while position >= 0:
    changed[position + offset] |= bits
    position = data.find(b'PK\1\2', position + 1)
  return bytes(changed)


def test_check_lists_normalized_names(tmp_path):
  path = write(tmp_path / 'x.zip', zip_bytes(FILES))
  assert zip_archives.check(path) == ['top/a.txt', 'top/b.txt']


def test_unpack_writes_the_missing_files(tmp_path):
  path = write(tmp_path / 'x.zip', zip_bytes(FILES))
  (tmp_path / 'out' / 'top').mkdir(parents=True)
  (tmp_path / 'out' / 'top' / 'b.txt').write_bytes(b'own')
  zip_archives.unpack(path, str(tmp_path / 'out'))
  assert {file.name: file.read_bytes()
          for file in (tmp_path / 'out' / 'top').iterdir()} == {
              'a.txt': b'a' * 5000, 'b.txt': b'own'}


@pytest.mark.parametrize('info, reason', [
    (member('/etc/owned'), 'leaves the folder'),
    (member('../owned'), 'leaves the folder'),
    (member('top/../../owned'), 'leaves the folder'),
    (member('..\\owned'), 'is not a plain name'),
    (member('.'), 'is not a plain name'),
    (member('link', stat.S_IFLNK), 'is a link or a device'),
    (member('pipe', stat.S_IFIFO), 'is a link or a device'),
    (member('packed', compression=zipfile.ZIP_BZIP2),
     'uses another compression than deflate')],
    ids=lambda value: getattr(value, 'filename', None))
def test_unpack_hostile_member_writes_nothing(tmp_path, info, reason):
  path = write(tmp_path / 'x.zip', zip_bytes({**FILES, info: b'x'}))
  for function in (zip_archives.check, lambda path: zip_archives.unpack(
      path, str(tmp_path / 'a' / 'b'))):
    with pytest.raises(archives.UnsafeArchive) as caught:
      function(path)
    assert str(caught.value) == '%s is not unpacked: its member %r %s' % (
        path, info.filename, reason)
  assert os.listdir(str(tmp_path)) == ['x.zip']


def test_check_encrypted_member_is_refused(tmp_path):
  path = write(tmp_path / 'x.zip', set_bits(zip_bytes(FILES), 8, 1))
  with pytest.raises(archives.UnsafeArchive, match="'top/a.txt' is encrypted"):
    zip_archives.check(path)


def test_check_archive_that_unpacks_to_too_much_is_refused(
    tmp_path, monkeypatch):
  path = write(tmp_path / 'x.zip', zip_bytes(
      {member('zeros', compression=zipfile.ZIP_DEFLATED): bytes(10 ** 6)}))
  zip_archives.check(path)
  monkeypatch.setattr(archives, 'MOST_BYTES', 10 ** 5)
  with pytest.raises(archives.UnsafeArchive, match='to more than 100000 bytes '
                     'beyond its own size'):
    zip_archives.check(path)


def test_unpack_never_writes_more_than_the_directory_says(tmp_path):
  data = zip_bytes({member('x', compression=zipfile.ZIP_DEFLATED): bytes(9999)})
  start = data.index(b'PK\1\2') + 24  # The size in the directory.
  path = write(tmp_path / 'x.zip', data[:start] + b'\5\0\0\0' +
               data[start + 4:])
  with pytest.raises(archives.DamagedArchive, match='not a zip archive: Bad C'):
    zip_archives.unpack(path, str(tmp_path / 'out'))
  assert not (tmp_path / 'out' / 'x').exists()
  assert sum(file.stat().st_size for file in (tmp_path / 'out').iterdir()) <= 5


def test_check_large_directory_is_refused_before_it_is_read(
    tmp_path, monkeypatch):
  path = write(tmp_path / 'x.zip', zip_bytes(
      {'%0500d' % number: b'' for number in range(200)}))
  zip_archives.check(path)
  monkeypatch.setattr(zip_archives, '_MOST_AT_ONCE', 100 * 1000)
  with pytest.raises(archives.UnsafeArchive, match='its directory has more'):
    zip_archives.check(path)


def test_check_name_that_is_listed_twice_is_refused(tmp_path):
  path = write(tmp_path / 'x.zip',
               zip_bytes({member('a'): b'1', member('./a'): b'2'}))
  with pytest.raises(archives.UnsafeArchive, match="holds 'a' twice"):
    zip_archives.check(path)


@pytest.mark.parametrize('data', [
    b'', b'no archive', zip_bytes(FILES)[:-30], zip_bytes(FILES)[40:]],
    ids=['empty', 'text', 'end cut', 'start cut'])
def test_unpack_damaged_archive_is_one_line_error(tmp_path, data):
  path = write(tmp_path / 'x.zip', data)
  with pytest.raises(archives.DamagedArchive, match='x.zip is damaged, or not '
                     'a zip archive: ') as caught:
    zip_archives.unpack(path, str(tmp_path / 'out'))
  assert '\n' not in str(caught.value)


def test_unpack_changed_byte_is_found_and_the_next_call_completes(tmp_path):
  good = zip_bytes(FILES)
  path = write(tmp_path / 'x.zip', good.replace(b'aaaa', b'abaa', 1))
  with pytest.raises(archives.DamagedArchive, match="CRC-32 for file 'top/a.t"):
    zip_archives.unpack(path, str(tmp_path / 'out'))
  assert not (tmp_path / 'out' / 'top' / 'a.txt').exists()
  write(tmp_path / 'x.zip', good)
  zip_archives.unpack(path, str(tmp_path / 'out'))
  assert (tmp_path / 'out' / 'top' / 'a.txt').read_bytes() == b'a' * 5000


def test_unpack_file_in_the_way_is_named_in_the_error(tmp_path):
  path = write(tmp_path / 'x.zip', zip_bytes(FILES))
  (tmp_path / 'out').write_bytes(b'')
  with pytest.raises(InputError, match='cannot write .*out/top/a.txt'):
    zip_archives.unpack(path, str(tmp_path / 'out'))
