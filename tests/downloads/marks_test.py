"""Tests of downloads/marks.py: downloaded files and the user's own."""

import os

import pytest

from common.errors import InputError
from downloads import marks


@pytest.fixture
def path(tmp_path):
  """Returns a file that was downloaded as `x.tgz.part` and then renamed."""
  path, part = str(tmp_path / 'x.tgz'), str(tmp_path / 'x.tgz.part')
  with open(part, 'wb') as stream:
    stream.write(b'content')
  marks.mark(path, part)
  os.replace(part, path)
  return path


def test_remove_downloaded_removes_the_download_and_its_mark(path, tmp_path):
  assert marks.is_downloaded(path) and not marks.is_users_own(path)
  marks.remove_downloaded(path)
  assert os.listdir(str(tmp_path)) == []
  assert not marks.is_downloaded(path) and not marks.is_users_own(path)
  marks.remove_downloaded(path)  # A second call does nothing.


@pytest.mark.parametrize('change', ['content', 'time', 'mark', 'half'])
def test_remove_downloaded_keeps_a_file_of_the_user(path, tmp_path, change):
  if change == 'content':
    with open(path, 'ab') as stream:
      stream.write(b'!')
  elif change == 'time':  # As if another file had the same length.
    os.utime(path, ns=(1, 1))
  elif change == 'mark':
    os.remove(path + '.downloaded')
  else:
    os.truncate(path + '.downloaded', 5)
  assert marks.is_users_own(path)
  marks.remove_downloaded(path)
  assert os.listdir(str(tmp_path)) == ['x.tgz']


def test_is_users_own_broken_link_is_true(tmp_path):
  os.symlink('nowhere', str(tmp_path / 'x.tgz'))
  assert marks.is_users_own(str(tmp_path / 'x.tgz'))


def test_mark_that_cannot_be_written_gives_one_line_error(tmp_path):
  (tmp_path / 'x.tgz.downloaded').mkdir()
  with pytest.raises(InputError, match='cannot write .*x.tgz.downloaded: '):
    marks.mark(str(tmp_path / 'x.tgz'), str(tmp_path))
