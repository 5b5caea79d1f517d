"""Tests of label_choices.py: choices of a person are carried out, or undone."""

import csv
import os
import re

import pytest

from common.errors import InputError
from datasets.conversion import label_choices
from kits import dataset_kit
from kits.conversion_kit import convert, make_photos

HEADER = 'file,label,action,new_label\n'


@pytest.fixture
def pets(tmp_path):
  make_photos(tmp_path, {'cat': 20, 'dog': 20, 'owl': 20})
  convert(tmp_path)
  return tmp_path


def contents(folder):
  """Returns {path: bytes} of all files in the folder of photos."""
  return {str(path.relative_to(folder / 'pets')): path.read_bytes()
          for path in (folder / 'pets').rglob('*') if path.is_file()}


def save(folder, rows, header=HEADER):
  path = folder / 'choices.csv'
  path.write_text(header + rows, encoding='utf-8')
  return str(path)


def apply(folder, rows, header=HEADER):
  return label_choices.apply(save(folder, rows, header), str(folder), 'pets')


def test_apply_moves_drops_and_keeps_and_undo_restores(pets):
  before = contents(pets)
  done = apply(pets, 'cat/001.jpg,cat,move,dog\ndog/002.jpg,dog,drop,\n'
               'owl/003.jpg,owl,keep,\nowl/004.jpg,owl,,cat\n')
  assert done[:4] == (1, 1, 0, 1)
  after = contents(pets)
  # dog/001.jpg exists, so the moved photo gets another name.
  assert after.pop('dog/001-2.jpg') == before['cat/001.jpg']
  assert after.pop('.dropped/dog/002.jpg') == before['dog/002.jpg']
  assert after == {file: data for file, data in before.items()
                   if file not in ('cat/001.jpg', 'dog/002.jpg')}
  assert label_choices.read_kept(str(pets), 'pets') == {('owl/003.jpg', 'owl')}
  changed = contents(pets)
  undone = label_choices.apply(done.undo, str(pets), 'pets')
  assert contents(pets) == before
  label_choices.apply(undone.undo, str(pets), 'pets')
  assert contents(pets) == changed


def test_convert_after_apply_keeps_the_split_and_ignores_dropped(pets):
  before = convert(pets)
  by_split = {split: next(file for file in sorted(before.files)
                          if file.startswith('cat') and
                          before.files[file] == split)
              for split in ('train', 'validation', 'test')}
  dropped = next(file for file in before.files if file.startswith('dog'))
  apply(pets, ''.join('%s,cat,move,owl\n' % file
                      for file in by_split.values()) + dropped + ',dog,drop,\n')
  after = convert(pets, percent_validation=None, percent_test=None, seed=None)
  for split, file in by_split.items():
    assert file not in after.files
    moved = next(new for new, digest in after.digests.items()
                 if digest == before.digests[file])
    assert moved.startswith('owl/')
    assert after.files[moved] == split
  for file in set(before.files) & set(after.files):
    assert after.files[file] == before.files[file]
  assert before.digests[dropped] not in after.digests.values()


def test_apply_that_was_killed_continues_and_again_does_nothing(
    pets, monkeypatch):
  rows = ''.join('cat/%03d.jpg,cat,move,dog\n' % number for number in range(6))
  rename, calls = os.rename, []

  def stop(source, target):
    if len(calls) == 3:
      raise KeyboardInterrupt
    calls.append(source)
    rename(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'rename', stop)
    with pytest.raises(KeyboardInterrupt):
      apply(pets, rows)
  assert apply(pets, rows)[:3] == (3, 0, 3)
  assert apply(pets, rows)[:3] == (0, 0, 6)
  assert len([file for file in contents(pets) if file.startswith('dog')]) == 26


@pytest.mark.parametrize('rows, message', [
    ('cat/001.jpg,cat,shoot,\n', "unknown action 'shoot'"),
    ('cat/001.jpg,cat,move,dgo\n', "unknown class 'dgo'.*did you mean dog"),
    ('cat/001.jpg,owl,move,dog\n', "is of class 'cat', not 'owl'"),
    ('cat/001.jpg,cat,move,cat\n', "is of class 'cat' already"),
    ('cat/x.jpg,cat,drop,\n', "there is no file 'cat/x.jpg'"),
    ('../pets.json,,drop,\n', 'is not a path in the folder'),
    ('/etc/passwd,,drop,\n', 'is not a path in the folder'),
    ('cat/../../pets.json,,drop,\n', 'is not a path in the folder'),
    ('cat/./001.jpg,,drop,\n', 'is not a path in the folder'),
    ('cat,,drop,\n', 'is not a photo in a class folder'),
    ('loose.jpg,,drop,\n', 'is not a photo in a class folder'),
    ('cat/link.jpg,cat,drop,\n', 'symbolic link'),
    ('linked/001.jpg,linked,drop,\n', 'symbolic link'),
    ('cat/001.jpg,cat,drop,\ncat/001.jpg,cat,keep,\n', 'is in the file twice'),
    ('cat/001.jpg,cat\n', 'line 2: expected 4 values'),
    ('cat/001.jpg,cat,drop,,\n', 'line 2: expected 4 values'),
    (''.join('cat/%03d.jpg,cat,move,dog\n' % n for n in range(20)),
     "class 'cat' would have no photo left in the "),
    ('"cat/001.jpg', 'is not a CSV file in UTF-8'),
])
def test_apply_wrong_row_is_an_error_and_nothing_is_moved(pets, rows, message):
  (pets / 'pets' / 'loose.jpg').write_bytes(b'')
  if 'link.jpg' in rows:
    (pets / 'pets' / 'cat' / 'link.jpg').symlink_to('001.jpg')
  if 'linked' in rows:
    (pets / 'pets' / 'linked').symlink_to(pets / 'pets' / 'cat')
  before = contents(pets)
  with pytest.raises(InputError, match=message):
    apply(pets, 'dog/001.jpg,dog,drop,\n' + rows
          if 'line 2' not in message else rows)
  assert contents(pets) == before
  assert not list(pets.glob('choices_undo*'))


def test_apply_error_names_the_line_and_counts_the_others(pets):
  with pytest.raises(InputError, match=re.escape(
      "choices.csv, line 3: there is no file 'cat/x.jpg'") +
                     '.*and 1 more wrong rows.*nothing was moved'):
    apply(pets, 'dog/001.jpg,dog,drop,\ncat/x.jpg,,drop,\ncat/y.jpg,,drop,\n')


@pytest.mark.parametrize('new_file', [
    'owl/new.jpg', '../new.jpg', 'dog/001.jpg', 'dog/sub/new.jpg',
    '.dropped/new.jpg'])
def test_apply_new_file_elsewhere_is_refused(pets, new_file):
  with pytest.raises(InputError, match='nothing was moved'):
    apply(pets, 'cat/001.jpg,cat,move,dog,%s\n' % new_file,
          HEADER[:-1] + ',new_file\n')


def test_apply_without_the_columns_or_the_data_set_is_an_error(pets):
  with pytest.raises(InputError, match='lacks action, new_label; expected'):
    apply(pets, '', 'file,label\n')
  with pytest.raises(InputError, match="no photos of 'birds'"):
    label_choices.apply(save(pets, ''), str(pets), 'birds')
  with pytest.raises(InputError, match='cannot read the file of choices'):
    label_choices.apply(str(pets / 'none.csv'), str(pets), 'pets')


def test_apply_to_a_read_only_folder_is_an_error_that_says_how_to_continue(
    pets, monkeypatch):
  def fail(source, target):
    raise OSError(30, 'Read-only file system')

  monkeypatch.setattr(os, 'rename', fail)
  with pytest.raises(InputError, match='Read-only file system; 0 of 1 photos'):
    apply(pets, 'cat/001.jpg,cat,move,dog\n')


def test_apply_moves_within_a_ready_made_split(tmp_path):
  for number, split in enumerate(('train', 'val')):
    for label in ('cat', 'dog'):
      dataset_kit.make_folder(tmp_path / 'pets' / split, {})
      folder = tmp_path / 'pets' / split / label
      folder.mkdir(parents=True)
      for photo in range(4):
        (folder / ('%d.jpg' % photo)).write_bytes(dataset_kit.photo_bytes(
            100 * number + 10 * photo + (label == 'cat')))
  convert(tmp_path, percent_validation=None, percent_test=None)
  apply(tmp_path, 'val/cat/1.jpg,cat,move,dog\ntrain/dog/0.jpg,dog,drop,\n')
  files = contents(tmp_path)
  assert {'val/dog/1-2.jpg', '.dropped/train/dog/0.jpg'} <= set(files)
  assert 'val/cat/1.jpg' not in files
  after = convert(tmp_path, percent_validation=None, percent_test=None).files
  assert after['val/dog/1-2.jpg'] == 'validation'


def test_apply_dropped_photo_is_moved_back_but_not_kept_where_it_is(pets):
  apply(pets, 'dog/002.jpg,dog,drop,\n')
  with pytest.raises(InputError, match='is dropped: move it'):
    apply(pets, '.dropped/dog/002.jpg,,keep,\n')
  apply(pets, '.dropped/dog/002.jpg,,move,cat\n')
  assert 'cat/002-2.jpg' in contents(pets)


def test_undo_of_a_run_that_was_killed_moves_back_what_was_moved(pets):
  before = contents(pets)
  done = apply(pets, 'cat/001.jpg,cat,move,dog\ndog/002.jpg,dog,drop,\n')
  # As if it had been killed before the second photo.
  os.rename(str(pets / 'pets' / '.dropped' / 'dog' / '002.jpg'),
            str(pets / 'pets' / 'dog' / '002.jpg'))
  label_choices.apply(done.undo, str(pets), 'pets')
  assert contents(pets) == before


def test_keep_decided_renames_only_a_file_with_actions(tmp_path):
  path = tmp_path / 'labels.csv'
  label_choices.keep_decided(str(path))
  for action, is_kept in [('', False), ('drop', True)]:
    path.write_bytes(label_choices.to_csv(
        [('cat/1.jpg', 'cat', action, '', '')]).encode())
    label_choices.keep_decided(str(path))
    assert path.exists() != is_kept
  assert (tmp_path / 'labels.csv.old').exists()


def test_undo_file_has_a_row_per_moved_photo(pets):
  done = apply(pets, 'cat/001.jpg,cat,move,dog\ndog/002.jpg,dog,drop,\n')
  with open(done.undo, newline='') as stream:
    rows = [list(row.values()) for row in csv.DictReader(stream)]
  assert rows == [['dog/001-2.jpg', 'dog', 'move', 'cat', 'cat/001.jpg'],
                  ['.dropped/dog/002.jpg', '', 'move', 'dog', 'dog/002.jpg']]
