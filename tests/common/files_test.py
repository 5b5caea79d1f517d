"""Tests of common/files.py: files are written completely or not at all."""

import concurrent.futures
import os

import pytest

from common import files


def test_write_text_that_fails_leaves_nothing_aside(tmp_path, monkeypatch):
  def full(_):
    raise OSError(28, 'No space left on device')

  path = tmp_path / 'labels.txt'
  files.write_text(str(path), 'old\n')
  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    files.write_text(str(path), 'new\n')
  assert os.listdir(str(tmp_path)) == ['labels.txt']
  assert path.read_text() == 'old\n'


def test_write_text_takes_over_what_a_killed_process_left(tmp_path):
  (tmp_path / 'labels.txt.part').write_text('much longer than the text\n')
  files.write_text(str(tmp_path / 'labels.txt'), 'short\n')
  assert os.listdir(str(tmp_path)) == ['labels.txt']
  assert (tmp_path / 'labels.txt').read_text() == 'short\n'


def test_write_text_from_many_threads_leaves_one_of_the_texts(tmp_path):
  path = str(tmp_path / 'labels.txt')
  texts = [('%d' % number) * 5000 * number for number in range(1, 9)]
  with concurrent.futures.ThreadPoolExecutor(8) as executor:
    list(executor.map(lambda text: files.write_text(path, text), texts * 20))
  assert os.listdir(str(tmp_path)) == ['labels.txt']
  assert (tmp_path / 'labels.txt').read_text() in texts
