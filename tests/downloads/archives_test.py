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


def test_unpack_writes_what_has_a_place(archive, tmp_path):
  places = {'top/a.txt': 'new/name.txt', 'top/in/b.txt': 'b'}
  written = archives.unpack(archive, str(tmp_path / 'out'), places.get)
  assert written == ['new/name.txt', 'b']
  assert (tmp_path / 'out' / 'new' / 'name.txt').read_bytes() == b'a' * 5000
  assert (tmp_path / 'out' / 'b').read_bytes() == b'b'
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['b', 'new']


def test_read_members_reads_what_is_wanted(archive):
  assert dict(archives.read_members(archive, lambda name: 'b' in name)) == {
      'top/in/b.txt': b'b'}


@pytest.mark.parametrize('kind', sorted(HOSTILE))
def test_hostile_member_condemns_the_archive(tmp_path, kind):
  path = write(tmp_path / 'x.tgz', tar_gz(FILES, [HOSTILE[kind]]))
  inside = tmp_path / 'a' / 'b'
  for act in (archives.check_tar,
              lambda path: archives.unpack(path, str(inside), str)):
    with pytest.raises(archives.UnsafeArchive) as raised:
      act(path)
    assert repr(HOSTILE[kind].name) in str(raised.value)
    assert '\n' not in str(raised.value)
  found = {os.path.relpath(os.path.join(folder, name), str(tmp_path))
           for folder, _, names in os.walk(str(tmp_path)) for name in names}
  assert found == {'x.tgz', 'a/b/top/a.txt', 'a/b/top/in/b.txt', 'a/b/c'}


def test_unpack_member_twice_is_refused(tmp_path):
  path = write(tmp_path / 'x.tgz', tar_gz(FILES, [member('top/a.txt')]))
  with pytest.raises(archives.UnsafeArchive, match='twice'):
    archives.unpack(path, str(tmp_path / 'out'), str)


def test_unpack_file_in_the_way_of_a_folder_is_one_line(tmp_path):
  path = write(tmp_path / 'x.tgz', tar_gz({'a': b'1', 'a/b': b'2'}))
  with pytest.raises(InputError, match='cannot write .*out/a/b: '):
    archives.unpack(path, str(tmp_path / 'out'), str)


@pytest.mark.parametrize('data', [
    b'', b'<html>', gzip.compress(b''), gzip.compress(b'no tar' * 1000),
    tar_gz(FILES)[:-12], tar_gz(FILES)[:60], tar_gz(FILES) + b'rubbish',
], ids=['empty', 'text', 'no content', 'no tar', 'cut', 'cut early', 'longer'])
def test_check_tar_damaged_is_one_line(tmp_path, data):
  path = write(tmp_path / 'x.tgz', data)
  with pytest.raises(archives.DamagedArchive) as raised:
    archives.check_tar(path)
  assert 'x.tgz is damaged' in str(raised.value)
  assert '\n' not in str(raised.value)


def test_check_gzip_compares_the_checksum(tmp_path):
  good = gzip.compress(b'content')
  path = write(tmp_path / 'x.gz', good)
  archives.check_gzip(path)
  assert archives.read_gzip(path) == b'content'
  write(tmp_path / 'x.gz', good[:-8] + b'1234' + good[-4:])
  for act in (archives.check_gzip, archives.read_gzip):
    with pytest.raises(archives.DamagedArchive, match='CRC'):
      act(path)


def test_check_tar_finds_every_flipped_bit(tmp_path):
  rng = random.Random(0)
  content = {'f%d' % i: bytes(rng.getrandbits(8) for _ in range(300))
             for i in range(5)}
  good = tar_gz(content)
  path = tmp_path / 'x.tgz'
  passed = []
  for _ in range(300):
    broken = bytearray(good)
    # From byte 10 on: before it gzip has dates and names that nothing checks.
    place = rng.randrange(10, len(good))
    broken[place] ^= 1 << rng.randrange(8)
    write(path, bytes(broken))
    try:
      archives.check_tar(str(path))
      passed.append(place)
    except InputError:
      pass
  assert not passed


def test_check_tar_survives_any_tar_inside_a_sound_gzip(tmp_path):
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


def test_unpacking_folder_is_new_and_goes(tmp_path):
  path = str(tmp_path / 'aside')
  others = tmp_path / 'aside_of_mine'
  others.mkdir()
  for killed in ('aside', 'aside.1234abcd'):
    (tmp_path / killed).mkdir()
    (tmp_path / killed / 'old').write_text('')
  with archives.unpacking_folder(path) as first:
    assert os.listdir(first) == []
    assert {str(tmp_path / name) for name in os.listdir(str(tmp_path))} == {
        first, str(others)}
    open(os.path.join(first, 'new'), 'w').close()
  assert os.listdir(str(tmp_path)) == ['aside_of_mine']
  with archives.unpacking_folder(path) as second:
    assert first != second


def test_unpacking_folder_that_cannot_be_made_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot make the folder'):
    with archives.unpacking_folder(str(tmp_path / 'file' / 'aside')):
      pass


def test_unpack_disk_full_is_not_the_archives_fault(tmp_path, monkeypatch):
  # A small file: a buffer would only notice when it is closed.
  path = tmp_path / 'x.tgz'
  path.write_bytes(tar_gz({'a.txt': b'text'}))
  monkeypatch.setattr(archives, 'open', lambda *_, **kwargs: open(
      '/dev/full', 'wb', **kwargs), raising=False)
  with pytest.raises(InputError, match='No space left on device') as raised:
    archives.unpack(str(path), str(tmp_path), lambda name: name)
  assert not isinstance(raised.value, archives.DamagedArchive)


def test_check_tar_that_cannot_be_read_is_not_damaged(tmp_path):
  with pytest.raises(InputError, match='No such file') as raised:
    archives.check_tar(str(tmp_path / 'none.tgz'))
  assert not isinstance(raised.value, archives.DamagedArchive)


def block(name, size, kind=tarfile.REGTYPE, more_holes=False):
  """Returns a header, also one that tarfile would not write."""
  info = member(name, kind)
  info.size = size
  data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
  data[482] = more_holes  # The list of holes goes on in the next block.
  data[148:155] = b'%06o\0' % tarfile.calc_chksums(bytes(data))[0]
  return bytes(data)


def padded(data):
  return data + bytes(-len(data) % tarfile.BLOCKSIZE)


PAX, LONG_NAME = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME
HEADERS = 'the header of a member has more than 32768 bytes'
HOLES = 'has holes'
# {what it is: (tar file, the reason)}
BOMBS = {
    'pax header': (block('p', 2 ** 24, PAX) + bytes(2 ** 24), HEADERS),
    'global pax header': (
        block('p', 2 ** 24, tarfile.XGLTYPE) + bytes(2 ** 24), HEADERS),
    'long name': (block('p', 2 ** 24, LONG_NAME) + bytes(2 ** 24), HEADERS),
    'pax header of negative size': (
        block('p', -512, PAX) + bytes(2 ** 24), HEADERS),
    'chain of headers': (block('p', 0, PAX) * 3000, HEADERS),
    'chain of long names': (block('p', 0, LONG_NAME) * 3000, HEADERS),
    'digits': (block('p', 30000, PAX) + padded(b'1' * 30000) + block('f', 0),
               'more than 64 digits in a row'),
    'map of holes': (
        block('p', 0, tarfile.GNUTYPE_SPARSE, more_holes=True) +
        (bytes(504) + b'\1' + bytes(7)) * 3000, HEADERS),
    'negative size': (block('f', -512), 'has a negative size'),
    'size': (block('f', 2 ** 33), 'unpacks to more than 4294967296 bytes'),
    'holes': (block('f', 0, tarfile.GNUTYPE_SPARSE), HOLES),
    'holes in a pax header': (
        block('p', 60, PAX) + padded(b'22 GNU.sparse.major=0\n'
                                     b'22 GNU.sparse.minor=1\n'
                                     b'20 GNU.sparse.map=0,1\n') +
        block('f', 0), HOLES),
    'length of a name': (
        block('p', 2000, LONG_NAME) + padded(b'n' * 2000) + block('f', 0),
        'the name of a member has more than 1024 characters'),
}


@pytest.mark.parametrize('kind', sorted(BOMBS))
def test_bomb_is_refused_before_it_takes_memory_or_time(tmp_path, kind):
  content, reason = BOMBS[kind]
  path = write(tmp_path / 'x.tgz', gzip.compress(content + bytes(1024), 1))
  tracemalloc.start()
  try:
    with pytest.raises(InputError) as raised:
      archives.unpack(path, str(tmp_path / 'out'), str)
    most = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert reason in str(raised.value) and '\n' not in str(raised.value)
  assert most < 8 * 2 ** 20
  assert os.listdir(str(tmp_path)) == ['x.tgz']


def test_long_name_and_pax_header_of_usual_size_are_read(tmp_path):
  for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz', format=kind) as tar:
      tar.addfile(member('n' * 300 + 'é'))
    path = write(tmp_path / 'x.tgz', buffer.getvalue())
    assert archives.check_tar(path) == ['n' * 300 + 'é']


def test_too_many_members_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, '_MOST_MEMBERS', 3)
  good = write(tmp_path / 'x.tgz', tar_gz(FILES))
  assert len(archives.check_tar(good)) == 3
  path = write(tmp_path / 'y.tgz', tar_gz(FILES, [member('d')]))
  with pytest.raises(archives.UnsafeArchive, match='more than 3 members'):
    archives.check_tar(path)


def test_gzip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, '_MOST_IN_MEMORY', 2 ** 20)
  path = write(tmp_path / 'x.gz', gzip.compress(bytes(2 ** 20)))
  archives.check_gzip(path)
  assert len(archives.read_gzip(path)) == 2 ** 20
  write(tmp_path / 'x.gz', gzip.compress(bytes(2 ** 20 + 1)))
  for act in (archives.check_gzip, archives.read_gzip):
    with pytest.raises(archives.UnsafeArchive,
                       match='unpacks to more than 1048576 bytes'):
      act(path)


def test_read_members_twice_or_too_large_is_refused(tmp_path, monkeypatch):
  path = write(tmp_path / 'x.tgz', tar_gz(FILES, [member('c')]))
  with pytest.raises(archives.UnsafeArchive, match="holds 'c' twice"):
    list(archives.read_members(path, lambda name: True))
  monkeypatch.setattr(archives, '_MOST_IN_MEMORY', 4999)
  with pytest.raises(archives.UnsafeArchive, match='a.txt. has 5000 bytes'):
    list(archives.read_members(path, 'top/a.txt'.__eq__))
