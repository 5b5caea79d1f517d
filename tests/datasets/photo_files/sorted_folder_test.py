"""Tests of sorted_folder.py: photos are placed once, and nothing is lost."""

import errno
import json
import os
import shutil

import pytest

from common.errors import InputError
from datasets.photo_files import sorted_folder
from datasets.photo_files.sorted_folder import SortedFolder, folder_names

LABELS = ['daisy', 'rose']


@pytest.fixture
def photos(tmp_path):
  """Writes five files; two of them have the same name."""
  paths = []
  for number, name in enumerate(['a.jpg', 'b.jpg', 'c.jpg', 'sub/a.jpg', 'd']):
    path = tmp_path / 'photos' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'photo %d' % number)
    paths.append(str(path))
  return paths


def place(folder, paths, way='copy', index=0):
  with SortedFolder(str(folder), way, paths) as target:
    target.set_labels(LABELS)
    for path in paths:
      if not target.has(path):
        target.add(path, index, 0.5)
    return dict(target.counts)


def contents(folder):
  """Returns {relative path: bytes} without the record."""
  return {str(path.relative_to(folder)): path.read_bytes()
          for path in folder.rglob('*')
          if path.is_file() and path.name != sorted_folder.RECORD_FILE}


EXPECTED = {'daisy/a.jpg': b'photo 0', 'daisy/b.jpg': b'photo 1',
            'daisy/c.jpg': b'photo 2', 'daisy/a_2.jpg': b'photo 3',
            'daisy/d': b'photo 4'}


@pytest.mark.parametrize('way', sorted_folder.WAYS)
def test_add_places_each_photo_under_a_name_of_its_own(photos, tmp_path, way):
  assert place(tmp_path / 'to', photos, way) == {'daisy': 5}
  assert contents(tmp_path / 'to') == EXPECTED
  is_link = (tmp_path / 'to' / 'daisy' / 'a_2.jpg').is_symlink()
  assert is_link == (way == 'link')
  assert all(os.path.exists(path) == (way != 'move') for path in photos)


def test_add_without_a_class_goes_to_a_folder_of_its_own(photos, tmp_path):
  assert place(tmp_path / 'to', photos[:1], index=None) == {'unknown': 1}


def test_add_never_overwrites_an_existing_file(photos, tmp_path):
  (tmp_path / 'to' / 'daisy').mkdir(parents=True)
  (tmp_path / 'to' / 'daisy' / 'a.jpg').write_bytes(b'mine')
  (tmp_path / 'to' / 'daisy' / 'a_2.jpg').symlink_to('/nowhere')
  place(tmp_path / 'to', photos[:1])
  assert contents(tmp_path / 'to') == {
      'daisy/a.jpg': b'mine', 'daisy/a_3.jpg': b'photo 0'}


def test_second_call_places_only_new_and_changed_photos(photos, tmp_path):
  place(tmp_path / 'to', photos[:3])
  with open(photos[0], 'wb') as file:
    file.write(b'another photo')
  assert place(tmp_path / 'to', photos) == {'daisy': 6}
  assert contents(tmp_path / 'to') == dict(
      EXPECTED, **{'daisy/a_2.jpg': b'another photo',
                   'daisy/a_3.jpg': b'photo 3'})


def test_second_call_leaves_photos_that_the_user_has_moved(photos, tmp_path):
  place(tmp_path / 'to', photos)
  (tmp_path / 'to' / 'daisy').rename(tmp_path / 'to' / 'rose')
  place(tmp_path / 'to', photos)
  assert set(contents(tmp_path / 'to')) == {
      name.replace('daisy', 'rose') for name in EXPECTED}


class Killed(BaseException):
  """Ends a process at once."""


@pytest.mark.parametrize('way', sorted_folder.WAYS)
@pytest.mark.parametrize('is_placed', [False, True])
def test_killed_process_is_continued_without_loss_or_duplicate(
    photos, tmp_path, monkeypatch, way, is_placed):
  place_file = sorted_folder.place

  def kill(source, *others):
    if source != photos[1]:
      place_file(source, *others)
    elif is_placed:
      shutil.copy2(source, others[0])
      raise Killed()
    else:
      (tmp_path / 'to' / sorted_folder._PART_FILE).write_bytes(b'phot')
      raise Killed()

  with monkeypatch.context() as patch:
    patch.setattr(sorted_folder, 'place', kill)
    with pytest.raises(Killed):
      place(tmp_path / 'to', photos, way)
  record = tmp_path / 'to' / sorted_folder.RECORD_FILE
  record.write_bytes(record.read_bytes() + b'{"file": "/half of a li')
  left = [path for path in photos if os.path.exists(path)]
  assert place(tmp_path / 'to', left, way) == {'daisy': 5}
  assert contents(tmp_path / 'to') == EXPECTED
  assert all(os.path.exists(path) == (way != 'move') for path in photos)


@pytest.mark.parametrize('way', sorted_folder.WAYS[::2])
def test_full_disk_is_one_line_and_the_photo_is_placed_later(
    photos, tmp_path, monkeypatch, way):
  def fail(source, target, **_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

  with monkeypatch.context() as patch:
    patch.setattr(shutil, 'copy2', fail)
    patch.setattr(os, 'link', fail)
    with pytest.raises(InputError, match='No space left on device'):
      place(tmp_path / 'to', photos, way)
  assert not contents(tmp_path / 'to')
  assert place(tmp_path / 'to', photos, way) == {'daisy': 5}
  assert contents(tmp_path / 'to') == EXPECTED


@pytest.mark.parametrize('code', [errno.EXDEV, errno.EPERM])
def test_move_without_hard_links_copies_or_renames(photos, tmp_path,
                                                   monkeypatch, code):
  def fail(source, target):
    raise OSError(code, os.strerror(code))

  def link(source, target):
    if 'photos/' in source or code == errno.EPERM:
      fail(source, target)
    shutil.copy2(source, target)

  monkeypatch.setattr(os, 'link', link)
  place(tmp_path / 'to', photos, 'move')
  assert contents(tmp_path / 'to') == EXPECTED
  assert not any(map(os.path.exists, photos))


@pytest.mark.parametrize('folder', ['photos', 'photos/sub', '.', 'link/new'])
def test_folder_inside_the_photos_or_around_them_is_refused(
    photos, tmp_path, folder):
  (tmp_path / 'link').symlink_to(tmp_path / 'photos')
  with pytest.raises(InputError, match='none inside the other'):
    SortedFolder(str(tmp_path / folder), 'copy', [str(tmp_path / 'photos')])
  assert contents(tmp_path / 'photos').keys() == {
      os.path.relpath(path, str(tmp_path / 'photos')) for path in photos}


def test_folder_that_is_not_writable_is_refused(photos):
  with pytest.raises(InputError, match='--sort_into=/dev/null/x: '):
    SortedFolder('/dev/null/x', 'copy', photos)


def test_folder_of_a_class_that_is_a_link_is_refused(photos, tmp_path):
  (tmp_path / 'to').mkdir()
  (tmp_path / 'to' / 'daisy').symlink_to(tmp_path)
  with pytest.raises(InputError, match='daisy is a symbolic link'):
    place(tmp_path / 'to', photos)


def test_folder_in_use_by_another_process_is_refused(photos, tmp_path):
  with SortedFolder(str(tmp_path / 'to'), 'copy', photos):
    with pytest.raises(InputError, match='another process sorts photos'):
      SortedFolder(str(tmp_path / 'to'), 'copy', photos)


def test_folder_of_other_classes_is_refused(photos, tmp_path):
  place(tmp_path / 'to', photos)
  with SortedFolder(str(tmp_path / 'to'), 'copy', photos) as target:
    with pytest.raises(InputError, match=r'of other classes \(daisy, rose\)'):
      target.set_labels(['cat', 'dog'])


def test_damaged_record_is_refused(photos, tmp_path):
  (tmp_path / 'to').mkdir()
  (tmp_path / 'to' / sorted_folder.RECORD_FILE).write_text('nonsense\n')
  with pytest.raises(InputError, match='is damaged: sort into another folder'):
    SortedFolder(str(tmp_path / 'to'), 'copy', photos)


def test_record_has_where_each_photo_is(photos, tmp_path):
  place(tmp_path / 'to', photos)
  lines = (tmp_path / 'to' / sorted_folder.RECORD_FILE).read_text().splitlines()
  entry = [json.loads(line) for line in lines if 'file' in json.loads(line)][3]
  assert entry['file'] == photos[3] and entry['to'] == 'daisy/a_2.jpg'


def test_folder_names_are_safe_and_different():
  names = folder_names(['a/b', 'a_b', 'A/B', '..', '', '.hidden', 'x\ny\0', 'ü',
                        'unknown', 'crane', 'crane', 'é' * 300])
  assert names[:-2] == ['a_b', 'a_b_2', 'A_B_3', '_', '__2', 'hidden', 'x_y_',
                        'ü', 'unknown', 'crane', 'crane_2']
  assert len(os.fsencode(names[-2])) == 240
  assert names[-1] == 'unknown_2'


def test_name_that_is_not_text_or_too_long_is_placed(tmp_path):
  source = tmp_path / 'photos'
  source.mkdir()
  paths = [os.path.join(os.fsencode(str(source)), name)
           for name in (b'\xff\n.jpg', b'x' * 251 + b'.jpg')]
  paths = [os.fsdecode(path) for path in paths]
  for path in paths:
    with open(path, 'wb') as file:
      file.write(b'photo')
  place(tmp_path / 'to', paths)
  os.utime(paths[1], (1, 1))
  assert place(tmp_path / 'to', paths) == {'daisy': 3}
