"""Tests of side_files.py: files of operating systems and photo programs."""

import pytest

from datasets.conversion import convert_photos
from datasets.photo_files import side_files
from kits import dataset_kit
from tools.classify_image import find_photos

FOLDERS = ['__MACOSX', '@eaDir', '$RECYCLE.BIN', 'System Volume Information',
           '.AppleDouble', 'lost+found', '#recycle']
FILES = ['ehthumbs.db', 'ehthumbs_vista.db', 'Thumbs.db', 'Desktop.ini',
         'Icon\r', '._a.jpg', '.picasa.ini', 'Picasa.ini', 'IMG_1.jpg.json',
         'IMG_1.jpg.supplemental-metadata.json', 'metadata.json', 'IMG_1.xmp',
         'IMG_1.AAE', 'IMG_1.jpg:Zone.Identifier']


@pytest.mark.parametrize('name, is_folder, reason', [
    ('daisy', True, None), ('data.json', True, None), ('thumbs', True, None),
    ('a.jpg', False, None), ('thumbs.jpg', False, None), ('icon', False, None),
    ('json', False, None), ('Icon\r', False, 'hidden'),
    ('THUMBS.DB', False, 'hidden'), ('@eaDir', True, 'hidden'),
    ('a.JPG.JSON', False, 'a side file of a photo program')])
def test_reason_distinguishes_photos_and_classes_from_side_files(
    name, is_folder, reason):
  assert side_files.reason(name, is_folder) == reason


def test_convert_side_files_are_neither_classes_nor_bad_photos(tmp_path):
  folder = tmp_path / 'pets'
  dataset_kit.make_folder(folder, {'cat': 4, 'dog': 4})
  for parent in (folder, folder / 'cat'):
    for name in FOLDERS:
      (parent / name).mkdir()
      (parent / name / 'a.jpg').write_bytes(dataset_kit.photo_bytes(1))
    for name in FILES:
      (parent / name).write_bytes(b'{}')
  manifest = convert_photos.convert(str(tmp_path), 'pets', max_bad_fraction=0)
  assert manifest.labels == ['cat', 'dog']
  assert len(manifest.files) == 8 and manifest.skipped == []
  # All of them are listed.
  rows = (tmp_path / 'pets_skipped.csv').read_text('utf-8')
  assert rows.count('"hidden"\n') == 2 * (len(FOLDERS) + len(FILES) - 5)
  assert rows.count('"a side file of a photo program"\n') == 2 * 5


def test_find_photos_in_a_folder_omits_side_files(tmp_path):
  for name in FOLDERS:
    (tmp_path / name).mkdir()
    (tmp_path / name / 'a.jpg').write_bytes(b'')
  for name in FILES + ['photo.jpg']:
    (tmp_path / name).write_bytes(b'')
  assert find_photos([str(tmp_path)]) == [str(tmp_path / 'photo.jpg')]
  # A file that is named itself is used.
  named = str(tmp_path / 'IMG_1.jpg.json')
  assert find_photos([named]) == [named]
