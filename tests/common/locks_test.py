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


def test_locked_file_waits_until_it_is_unlocked(tmp_path):
  path, order = str(tmp_path / 'lock'), []

  def wait_for_lock():
    with locks.locked_file(path):
      order.append('second')

  thread = threading.Thread(target=wait_for_lock)
  with locks.locked_file(path):
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    order.append('first')
  thread.join()
  assert order == ['first', 'second']
  assert os.listdir(str(tmp_path)) == []


def test_is_locked_tells_who_holds_it_and_creates_nothing(tmp_path):
  path = str(tmp_path / 'lock')
  assert not locks.is_locked(path) and not os.listdir(str(tmp_path))
  with locks.locked_file(path):
    assert locks.is_locked(path)
  open(path, 'w').close()
  assert not locks.is_locked(path)


def test_locked_file_that_was_renamed_is_not_removed(tmp_path):
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


def test_locked_folder_second_lock_is_refused_and_writes_nothing(tmp_path):
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


def test_locked_folder_missing_folder_is_named_in_the_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    with locks.locked_folder(str(tmp_path / 'nowhere')):
      pytest.fail('locked')


def test_hold_second_holder_is_refused_and_no_file_is_left(tmp_path):
  path = str(tmp_path / 'new' / '.x.lock')
  with locks.hold(path, 'it is busy'):
    with pytest.raises(InputError, match='^it is busy$'):
      with locks.hold(path, 'it is busy'):
        pytest.fail('held twice')
    assert os.path.exists(path)
  assert os.listdir(str(tmp_path / 'new')) == []
  with locks.hold(path, 'it is busy'):
    pass


def test_hold_by_many_threads_admits_one_at_a_time(tmp_path):
  holders, holder_counts, finished = [], [], []

  def work():
    for _ in range(30):
      with locks.hold(str(tmp_path / '.lock')):
        holders.append(1)
        holder_counts.append(len(holders))
        time.sleep(0.0005)
        holders.pop()
    finished.append(1)

  threads = [threading.Thread(target=work) for _ in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(finished) == 5
  assert max(holder_counts) == 1 and len(holder_counts) == 150
  assert os.listdir(str(tmp_path)) == []


def test_hold_of_a_killed_process_is_taken_over(tmp_path):
  path = str(tmp_path / '.lock')
  process = subprocess.Popen(
      [sys.executable, '-c', 'import sys, time; from common import locks\n'
       'with locks.hold(sys.argv[1]):\n  print(flush=True)\n  time.sleep(99)',
       path], cwd=ROOT, stdout=subprocess.PIPE)
  process.stdout.readline()
  with pytest.raises(InputError, match='busy'):
    with locks.hold(path, 'busy'):
      pytest.fail('held twice')
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  assert os.path.exists(path)
  with locks.hold(path, 'busy'):
    pass
  assert not os.path.exists(path)


def test_locks_not_supported_by_the_file_system_are_skipped(
    tmp_path, monkeypatch):
  def raise_not_supported(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(locks.fcntl, 'flock', raise_not_supported)
  with locks.hold(str(tmp_path / 'a'), 'busy'):
    with locks.hold(str(tmp_path / 'a'), 'busy'):
      pass
  with locks.locked_folder(str(tmp_path)), locks.locked_folder(str(tmp_path)):
    pass
  assert os.listdir(str(tmp_path)) == []


def test_hold_unwritable_folder_gives_one_line_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write .*file/.lock: '):
    with locks.hold(str(tmp_path / 'file' / '.lock'), 'busy'):
      pytest.fail('held')
