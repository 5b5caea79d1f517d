"""Tests of downloads/archives.py: damaged and hostile archives."""

import gzip
import io
import os
import random
import tarfile
import tracemalloc

import pytest

from common.errors import InputError
from downloads import archives
from kits.download_kit import tar_gz

FILES = {'./top/a.txt': b'a' * 5000, 'top/in//b.txt': b'b', 'c': b''}


def write(path, data):
  path.write_bytes(data)
  return str(path)


def member(name, kind=tarfile.REGTYPE, link=''):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, link
  return info


HOSTILE = {
    'absolute': member('/etc/owned'),
    'parent': member('../owned'),
    'parent inside': member('top/../../owned'),
    'parent folder': member('..', tarfile.DIRTYPE),
    'backslash': member('..\\owned'),
    'symbolic link': member('link', tarfile.SYMTYPE, '/etc'),
    'hard link': member('link', tarfile.LNKTYPE, 'top/a.txt'),
    'device': member('null', tarfile.CHRTYPE),
    'block device': member('disk', tarfile.BLKTYPE),
    'fifo': member('pipe', tarfile.FIFOTYPE),
}


@pytest.fixture
def archive(tmp_path):
  return write(tmp_path / 'x.tgz',
               tar_gz(FILES, [member('d', tarfile.DIRTYPE)]))


def test_check_tar_lists_normalized_names(archive):
  assert archives.check_tar(archive) == ['top/a.txt', 'top/in/b.txt', 'c']


def test_unpack_writes_the_members_that_have_a_target(archive, tmp_path):
  targets = {'top/a.txt': 'new/name.txt', 'top/in/b.txt': 'b'}
  written = archives.unpack(archive, str(tmp_path / 'out'), targets.get)
  assert written == ['new/name.txt', 'b']
  assert (tmp_path / 'out' / 'new' / 'name.txt').read_bytes() == b'a' * 5000
  assert (tmp_path / 'out' / 'b').read_bytes() == b'b'
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['b', 'new']


def test_read_members_returns_the_requested_members(archive):
  assert dict(archives.read_members(archive, lambda name: 'b' in name)) == {
      'top/in/b.txt': b'b'}


@pytest.mark.parametrize('kind', sorted(HOSTILE))
def test_hostile_member_makes_the_archive_unsafe(tmp_path, kind):
  path = write(tmp_path / 'x.tgz', tar_gz(FILES, [HOSTILE[kind]]))
  inside = tmp_path / 'a' / 'b'
  for function in (archives.check_tar,
                   lambda path: archives.unpack(path, str(inside), str)):
    with pytest.raises(archives.UnsafeArchive) as caught:
      function(path)
    assert repr(HOSTILE[kind].name) in str(caught.value)
    assert '\n' not in str(caught.value)
  paths = {os.path.relpath(os.path.join(folder, name), str(tmp_path))
           for folder, _, names in os.walk(str(tmp_path)) for name in names}
  assert paths == {'x.tgz', 'a/b/top/a.txt', 'a/b/top/in/b.txt', 'a/b/c'}


def test_unpack_duplicate_member_is_refused(tmp_path):
  path = write(tmp_path / 'x.tgz', tar_gz(FILES, [member('top/a.txt')]))
  with pytest.raises(archives.UnsafeArchive, match='twice'):
    archives.unpack(path, str(tmp_path / 'out'), str)


def test_unpack_file_in_place_of_a_folder_gives_one_line_error(tmp_path):
  path = write(tmp_path / 'x.tgz', tar_gz({'a': b'1', 'a/b': b'2'}))
  with pytest.raises(InputError, match='cannot write .*out/a/b: '):
    archives.unpack(path, str(tmp_path / 'out'), str)


@pytest.mark.parametrize('data', [
    b'', b'<html>', gzip.compress(b''), gzip.compress(b'no tar' * 1000),
    tar_gz(FILES)[:-12], tar_gz(FILES)[:60], tar_gz(FILES) + b'rubbish',
], ids=['empty', 'text', 'no content', 'no tar', 'cut', 'cut early', 'longer'])
def test_check_tar_damaged_archive_gives_one_line_error(tmp_path, data):
  path = write(tmp_path / 'x.tgz', data)
  with pytest.raises(archives.DamagedArchive) as caught:
    archives.check_tar(path)
  assert 'x.tgz is damaged' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_check_gzip_verifies_the_checksum(tmp_path):
  good = gzip.compress(b'content')
  path = write(tmp_path / 'x.gz', good)
  archives.check_gzip(path)
  assert archives.read_gzip(path) == b'content'
  write(tmp_path / 'x.gz', good[:-8] + b'1234' + good[-4:])
  for function in (archives.check_gzip, archives.read_gzip):
    with pytest.raises(archives.DamagedArchive, match='CRC'):
      function(path)


def test_check_tar_detects_every_flipped_bit(tmp_path):
  rng = random.Random(0)
  content = {'f%d' % i: bytes(rng.getrandbits(8) for _ in range(300))
             for i in range(5)}
  good = tar_gz(content)
  path = tmp_path / 'x.tgz'
  undetected = []
  for _ in range(300):
    broken = bytearray(good)
    # From byte 10 on: no checksum covers the header of gzip before it.
    position = rng.randrange(10, len(good))
    broken[position] ^= 1 << rng.randrange(8)
    write(path, bytes(broken))
    try:
      archives.check_tar(str(path))
      undetected.append(position)
    except InputError:
      pass
  assert not undetected


def test_check_tar_corrupt_tar_in_valid_gzip_gives_one_line_errors(tmp_path):
  rng = random.Random(1)
  good = gzip.decompress(tar_gz(FILES))
  outcomes = set()
  for _ in range(300):
    broken = bytearray(good)
    for _ in range(rng.randint(1, 20)):
      broken[rng.randrange(2048)] = rng.randrange(256)
    path = write(tmp_path / 'x.tgz', gzip.compress(bytes(broken), 1))
    try:
      archives.check_tar(path)
      outcomes.add(None)
    except InputError as error:
      assert '\n' not in str(error)
      outcomes.add(type(error))
  assert archives.DamagedArchive in outcomes


def test_unpacking_folder_is_new_and_removed_at_the_end(tmp_path):
  path = str(tmp_path / 'aside')
  other_folder = tmp_path / 'aside_of_mine'
  other_folder.mkdir()
  for leftover in ('aside', 'aside.1234abcd'):
    (tmp_path / leftover).mkdir()
    (tmp_path / leftover / 'old').write_text('')
  with archives.unpacking_folder(path) as first:
    assert os.listdir(first) == []
    assert {str(tmp_path / name) for name in os.listdir(str(tmp_path))} == {
        first, str(other_folder)}
    open(os.path.join(first, 'new'), 'w').close()
  assert os.listdir(str(tmp_path)) == ['aside_of_mine']
  with archives.unpacking_folder(path) as second:
    assert first != second


def test_unpacking_folder_that_cannot_be_made_gives_one_line_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot make the folder'):
    with archives.unpacking_folder(str(tmp_path / 'file' / 'aside')):
      pass


def test_unpack_full_disk_is_not_reported_as_damage(tmp_path, monkeypatch):
  # A small file: a buffered writer fails only when it is closed.
  path = tmp_path / 'x.tgz'
  path.write_bytes(tar_gz({'a.txt': b'text'}))
  monkeypatch.setattr(archives, 'open', lambda *_, **kwargs: open(
      '/dev/full', 'wb', **kwargs), raising=False)
  with pytest.raises(InputError, match='No space left on device') as caught:
    archives.unpack(str(path), str(tmp_path), lambda name: name)
  assert not isinstance(caught.value, archives.DamagedArchive)


def test_check_tar_missing_file_is_not_reported_as_damage(tmp_path):
  with pytest.raises(InputError, match='No such file') as caught:
    archives.check_tar(str(tmp_path / 'none.tgz'))
  assert not isinstance(caught.value, archives.DamagedArchive)


def header(name, size, kind=tarfile.REGTYPE, more_holes=False):
  """Returns the header of a member, also one that tarfile would not write."""
  info = member(name, kind)
  info.size = size
  data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
  data[482] = more_holes  # The list of holes continues in the next block.
  data[148:155] = b'%06o\0' % tarfile.calc_chksums(bytes(data))[0]
  return bytes(data)


def padded(data):
  return data + bytes(-len(data) % tarfile.BLOCKSIZE)


PAX, LONG_NAME = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME
HEADERS = 'the header of a member has more than 32768 bytes'
HOLES = 'has holes'
# {kind: (tar file, reason of the error)}
BOMBS = {
    'pax header': (header('p', 2 ** 24, PAX) + bytes(2 ** 24), HEADERS),
    'global pax header': (
        header('p', 2 ** 24, tarfile.XGLTYPE) + bytes(2 ** 24), HEADERS),
    'long name': (header('p', 2 ** 24, LONG_NAME) + bytes(2 ** 24), HEADERS),
    'pax header of negative size': (
        header('p', -512, PAX) + bytes(2 ** 24), HEADERS),
    'chain of headers': (header('p', 0, PAX) * 3000, HEADERS),
    'chain of long names': (header('p', 0, LONG_NAME) * 3000, HEADERS),
    'digits': (header('p', 30000, PAX) + padded(b'1' * 30000) + header('f', 0),
               'more than 64 digits in a row'),
    'map of holes': (
        header('p', 0, tarfile.GNUTYPE_SPARSE, more_holes=True) +
        (bytes(504) + b'\1' + bytes(7)) * 3000, HEADERS),
    'negative size': (header('f', -512), 'has a negative size'),
    'size': (header('f', 2 ** 33), 'unpacks to more than 4294967296 bytes'),
    'holes': (header('f', 0, tarfile.GNUTYPE_SPARSE), HOLES),
    'holes in a pax header': (
        header('p', 60, PAX) + padded(b'22 GNU.sparse.major=0\n'
                                      b'22 GNU.sparse.minor=1\n'
                                      b'20 GNU.sparse.map=0,1\n') +
        header('f', 0), HOLES),
    'length of a name': (
        header('p', 2000, LONG_NAME) + padded(b'n' * 2000) + header('f', 0),
        'the name of a member has more than 1024 characters'),
}


@pytest.mark.parametrize('kind', sorted(BOMBS))
def test_unpack_bomb_is_refused_before_it_takes_memory_or_time(tmp_path, kind):
  content, reason = BOMBS[kind]
  path = write(tmp_path / 'x.tgz', gzip.compress(content + bytes(1024), 1))
  tracemalloc.start()
  try:
    with pytest.raises(InputError) as caught:
      archives.unpack(path, str(tmp_path / 'out'), str)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert reason in str(caught.value) and '\n' not in str(caught.value)
  assert peak < 8 * 2 ** 20
  assert os.listdir(str(tmp_path)) == ['x.tgz']


def test_check_tar_long_name_and_pax_header_of_usual_size_are_read(tmp_path):
  for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz', format=kind) as tar:
      tar.addfile(member('n' * 300 + 'é'))
    path = write(tmp_path / 'x.tgz', buffer.getvalue())
    assert archives.check_tar(path) == ['n' * 300 + 'é']


def test_check_tar_too_many_members_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, '_MOST_MEMBERS', 3)
  good = write(tmp_path / 'x.tgz', tar_gz(FILES))
  assert len(archives.check_tar(good)) == 3
  path = write(tmp_path / 'y.tgz', tar_gz(FILES, [member('d')]))
  with pytest.raises(archives.UnsafeArchive, match='more than 3 members'):
    archives.check_tar(path)


def test_check_gzip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, '_MOST_IN_MEMORY', 2 ** 20)
  path = write(tmp_path / 'x.gz', gzip.compress(bytes(2 ** 20)))
  archives.check_gzip(path)
  assert len(archives.read_gzip(path)) == 2 ** 20
  write(tmp_path / 'x.gz', gzip.compress(bytes(2 ** 20 + 1)))
  for function in (archives.check_gzip, archives.read_gzip):
    with pytest.raises(archives.UnsafeArchive,
                       match='unpacks to more than 1048576 bytes'):
      function(path)


def test_read_members_duplicate_or_too_large_member_is_refused(
    tmp_path, monkeypatch):
  path = write(tmp_path / 'x.tgz', tar_gz(FILES, [member('c')]))
  with pytest.raises(archives.UnsafeArchive, match="holds 'c' twice"):
    list(archives.read_members(path, lambda name: True))
  monkeypatch.setattr(archives, '_MOST_IN_MEMORY', 4999)
  with pytest.raises(archives.UnsafeArchive, match='a.txt. has 5000 bytes'):
    list(archives.read_members(path, 'top/a.txt'.__eq__))
