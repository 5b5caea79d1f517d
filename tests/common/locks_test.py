"""Tests of common/locks.py: one process at a time."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from common import locks
from common.errors import InputError
from kits.helpers import ROOT


def test_locked_file_waits_for_who_has_it(tmp_path):
  path, order = str(tmp_path / 'lock'), []

  def second():
    with locks.locked_file(path):
      order.append('second')

  thread = threading.Thread(target=second)
  with locks.locked_file(path):
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    order.append('first')
  thread.join()
  assert order == ['first', 'second']
  assert os.listdir(str(tmp_path)) == []


def test_locked_file_that_got_another_name_is_not_removed(tmp_path):
  path = str(tmp_path / 'part')
  with locks.locked_file(path) as opened:
    opened.write(b'text')
    os.replace(path, str(tmp_path / 'whole'))
    (tmp_path / 'part').write_bytes(b'of somebody else')
  assert (tmp_path / 'whole').read_bytes() == b'text'
  assert (tmp_path / 'part').read_bytes() == b'of somebody else'


def test_locked_file_is_removed_after_an_error(tmp_path):
  with pytest.raises(KeyError), locks.locked_file(str(tmp_path / 'lock')):
    raise KeyError
  assert os.listdir(str(tmp_path)) == []


def test_locked_folder_refuses_a_second_one_and_writes_nothing(tmp_path):
  folder = str(tmp_path)
  with locks.locked_folder(folder):
    with pytest.raises(BlockingIOError), locks.locked_folder(folder):
      pytest.fail('locked twice')
    assert os.listdir(folder) == []
  with locks.locked_folder(folder):
    pass


def test_locked_folder_is_unlocked_after_an_error(tmp_path):
  with pytest.raises(KeyError), locks.locked_folder(str(tmp_path)):
    raise KeyError
  with locks.locked_folder(str(tmp_path)):
    pass


def test_locked_folder_that_is_missing_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    with locks.locked_folder(str(tmp_path / 'nowhere')):
      pytest.fail('locked')


def test_hold_refuses_a_second_one_and_leaves_nothing(tmp_path):
  path = str(tmp_path / 'new' / '.x.lock')
  with locks.hold(path, 'it is busy'):
    with pytest.raises(InputError, match='^it is busy$'):
      with locks.hold(path, 'it is busy'):
        pytest.fail('held twice')
    assert os.path.exists(path)
  assert os.listdir(str(tmp_path / 'new')) == []
  with locks.hold(path, 'it is busy'):
    pass


def test_hold_waits_and_never_lets_two_in(tmp_path):
  inside, most, done = [], [], []

  def work():
    for _ in range(30):
      with locks.hold(str(tmp_path / '.lock')):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.0005)
        inside.pop()
    done.append(1)

  threads = [threading.Thread(target=work) for _ in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(done) == 5 and max(most) == 1 and len(most) == 150
  assert os.listdir(str(tmp_path)) == []


def test_hold_of_a_killed_process_is_taken_over(tmp_path):
  path = str(tmp_path / '.lock')
  other = subprocess.Popen(
      [sys.executable, '-c', 'import sys, time; from common import locks\n'
       'with locks.hold(sys.argv[1]):\n  print(flush=True)\n  time.sleep(99)',
       path], cwd=ROOT, stdout=subprocess.PIPE)
  other.stdout.readline()
  with pytest.raises(InputError, match='busy'):
    with locks.hold(path, 'busy'):
      pytest.fail('held twice')
  other.send_signal(signal.SIGKILL)
  other.wait()
  other.stdout.close()
  assert os.path.exists(path)
  with locks.hold(path, 'busy'):
    pass
  assert not os.path.exists(path)


def test_where_nothing_can_be_locked_work_goes_on(tmp_path, monkeypatch):
  def cannot(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(locks.fcntl, 'flock', cannot)
  with locks.hold(str(tmp_path / 'a'), 'busy'):
    with locks.hold(str(tmp_path / 'a'), 'busy'):
      pass
  with locks.locked_folder(str(tmp_path)), locks.locked_folder(str(tmp_path)):
    pass
  assert os.listdir(str(tmp_path)) == []


def test_hold_folder_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write .*file/.lock: '):
    with locks.hold(str(tmp_path / 'file' / '.lock'), 'busy'):
      pytest.fail('held')
