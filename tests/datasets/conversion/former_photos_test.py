"""Tests of former_photos.py: losslessly saved photos keep their splits."""

import io

import pytest
from PIL import Image

from datasets.photo_files import photos
from kits.conversion_kit import (
  add_photos,
  as_png,
  convert,
  make_photos,
  move_cats,
  resave_cats,
)


def convert_and_turn_cats(folder):
  """Converts, then writes a manifest in which each cat is in another split.

  Returns:
    {file: split}.
  """
  manifest = convert(folder)
  move_cats(folder, manifest)
  return manifest.files


def as_bmp(data, path):
  Image.open(io.BytesIO(data)).save(path + '.bmp')
  return 'bmp'


def with_comment(data, path):
  with open(path + '.jpg', 'wb') as target:
    target.write(data[:2] + b'\xff\xfe\x00\x04hi' + data[2:])
  return 'jpg'


@pytest.mark.parametrize('save', [as_png, with_comment])
def test_convert_photo_resaved_losslessly_keeps_its_split(tmp_path, save):
  folder = make_photos(tmp_path)
  before = convert_and_turn_cats(tmp_path)
  renamed = resave_cats(folder, save, 'anew')
  add_photos(folder, 'cat', range(10))
  after = convert(tmp_path).files
  assert len(renamed) == 10 and len(after) == 50
  for file, new_file in renamed.items():
    assert after[new_file] == before[file]
  assert {before[file] for file in renamed} == {'train', 'validation', 'test'}


def test_convert_photo_resaved_twice_keeps_its_split(tmp_path):
  """The record of a PNG has other pixels; the manifest has their digest."""
  folder = make_photos(tmp_path)
  jpegs = {path.name: path.read_bytes() for path in (folder / 'cat').iterdir()}
  before = convert_and_turn_cats(tmp_path)
  first = resave_cats(folder, as_png, 'anew')
  middle = convert(tmp_path)
  assert sorted(middle.pixels) == sorted(first.values())
  second = resave_cats(folder, as_bmp, 'anew')
  after = convert(tmp_path).files
  for file, new_file in first.items():
    assert after[second.get(new_file, new_file)] == before[file]
  assert set(second) & set(first.values())
  # Then the original JPEG again, under a third name.
  for path in list((folder / 'cat').glob('anew*')):
    path.unlink()
  for file in first:
    (folder / 'cat' / ('back ' + file[4:])).write_bytes(jpegs[file[4:]])
  after = convert(tmp_path).files
  for file in first:
    assert after['cat/back ' + file[4:]] == before[file]


def test_convert_added_photos_are_not_decoded_twice(tmp_path, monkeypatch):
  """Pixels are compared only if a photo is gone, and only with similar ones."""
  folder = make_photos(tmp_path)
  convert(tmp_path)
  (folder / 'cat' / '000.jpg').unlink()
  add_photos(folder, 'cat', range(10))
  decoded = []
  pixels_digest = photos.pixels_digest

  def spy(data, max_pixels):
    decoded.append(data)
    return pixels_digest(data, max_pixels)

  monkeypatch.setattr(photos, 'pixels_digest', spy)
  convert(tmp_path)
  assert len(decoded) == 1  # The former photo, from its record.
  decoded.clear()
  add_photos(folder, 'cat', range(10, 20))
  convert(tmp_path)
  assert decoded == []


@pytest.mark.parametrize('damage', ['gone', 'cut'])
def test_convert_without_former_records_keeps_splits_of_unchanged_photos(
    tmp_path, damage):
  folder = make_photos(tmp_path)
  before = convert_and_turn_cats(tmp_path)
  for path in tmp_path.glob('*.tfrecord'):
    if damage == 'gone':
      path.unlink()
    else:
      path.write_bytes(path.read_bytes()[:-1])
  resave_cats(folder, as_png, 'anew')
  after = convert(tmp_path).files
  assert len(after) == 40
  for file in set(after) & set(before):
    assert after[file] == before[file]
