"""Tests of common/locks.py: locked_file."""

import os
import threading

import pytest

from common.locks import locked_file


def test_locked_file_waits_for_who_has_it(tmp_path):
  path, order = str(tmp_path / 'lock'), []

  def second():
    with locked_file(path):
      order.append('second')

  thread = threading.Thread(target=second)
  with locked_file(path):
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    order.append('first')
  thread.join()
  assert order == ['first', 'second']
  assert os.listdir(str(tmp_path)) == []


def test_locked_file_that_got_another_name_is_not_removed(tmp_path):
  path = str(tmp_path / 'part')
  with locked_file(path) as opened:
    opened.write(b'text')
    os.replace(path, str(tmp_path / 'whole'))
    (tmp_path / 'part').write_bytes(b'of somebody else')
  assert (tmp_path / 'whole').read_bytes() == b'text'
  assert (tmp_path / 'part').read_bytes() == b'of somebody else'


def test_locked_file_is_removed_after_an_error(tmp_path):
  with pytest.raises(KeyError), locked_file(str(tmp_path / 'lock')):
    raise KeyError
  assert os.listdir(str(tmp_path)) == []
