"""Tests of training/run_lock.py."""

import os
import signal
import subprocess
import sys

import pytest

from common.errors import InputError
from kits.helpers import ROOT
from training import run_lock

HOLDER = '''
import sys, time
from training import run_lock
with run_lock.hold(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
'''


@pytest.fixture
def other_process(tmp_path):
  """A process that holds the lock of tmp_path."""
  process = subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path)],
                             cwd=ROOT, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b'held\n'
  yield process
  process.kill()
  process.wait()


def test_hold_by_second_process_raises_with_id_of_first(
    tmp_path, other_process):
  with pytest.raises(InputError,
                     match='process %d already trains' % other_process.pid):
    with run_lock.hold(str(tmp_path)):
      pass


def test_hold_after_holder_is_killed_succeeds(tmp_path, other_process):
  other_process.send_signal(signal.SIGKILL)
  other_process.wait()
  with run_lock.hold(str(tmp_path)):
    assert (tmp_path / 'train.pid').read_text() == '%d\n' % os.getpid()
  assert not os.listdir(str(tmp_path))


def test_hold_of_run_that_writes_nothing_removes_its_folders(tmp_path):
  (tmp_path / 'output').mkdir()
  train_dir = tmp_path / 'output' / 'flowers' / 'train'
  with pytest.raises(InputError, match='no checkpoint'):
    with run_lock.hold(str(train_dir)):
      raise InputError('no checkpoint')
  assert os.listdir(str(tmp_path / 'output')) == []
  with run_lock.hold(str(train_dir)):
    (train_dir / 'run.json').write_text('{}')
  assert os.listdir(str(train_dir)) == ['run.json']


def test_hold_folder_that_cannot_be_created_names_flag(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='--train_dir=.*file/run'):
    with run_lock.hold(str(tmp_path / 'file' / 'run')):
      pass
