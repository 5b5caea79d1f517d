"""Tests of downloads/archives.py: damaged and hostile archives."""

import gzip
import os
import random
import tarfile

import pytest
from file_server import tar_gz

from downloads import archives
from errors import InputError

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
