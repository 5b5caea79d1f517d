"""Uploads get names of their own and are known by their content."""

import os

import pytest

from errors import InputError
from serving import uploads

JPEG = b'\xff\xd8\xff\xe0' + b'j' * 10
PNG = b'\x89PNG\r\n\x1a\n' + b'p' * 10


@pytest.mark.parametrize('data, extension', [
    (JPEG, 'jpg'),
    (PNG, 'png'),
    (b'', None),
    (b'\xff\xd8', None),
    (b'GIF89a' + b'g' * 10, None),
    (b'<html>', None),
    (b' ' + JPEG, None),
])
def test_extension_of_content_decides(data, extension):
  assert uploads.extension_of(data) == extension


def test_keep_writes_the_bytes_under_a_new_name(tmp_path):
  folder = uploads.make_folder(str(tmp_path / 'a' / 'b'))
  names = [uploads.keep(folder, data) for data in (JPEG, JPEG, PNG)]
  assert len(set(names)) == 3
  assert sorted(os.listdir(folder)) == sorted(names)
  assert [name[-4:] for name in names] == ['.jpg', '.jpg', '.png']
  for name, data in zip(names, (JPEG, JPEG, PNG)):
    assert uploads.is_kept_name(name)
    with open(os.path.join(folder, name), 'rb') as file:
      assert file.read() == data


def test_keep_other_content_is_refused(tmp_path):
  with pytest.raises(InputError, match='neither JPEG nor PNG'):
    uploads.keep(str(tmp_path), b'<html>')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', [
    '', 'a.jpg', '0' * 32, '0' * 32 + '.gif', '0' * 31 + '.jpg',
    'A' * 32 + '.jpg', '0' * 32 + '.jpg\n', '../' + '0' * 32 + '.jpg',
    '0' * 32 + '.jpg/..',
])
def test_is_kept_name_other_name_is_refused(name):
  assert not uploads.is_kept_name(name)


def test_make_folder_on_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot make the folder.*file'):
    uploads.make_folder(str(tmp_path / 'file'))
