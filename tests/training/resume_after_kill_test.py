"""Tests of training/loop.py: training continues after a kill or a full disk."""

import errno
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

from common import checkpoint_files
from common.errors import InputError
from compat import CHECKPOINT_ERRORS, tf
from kits.checkpoint_kit import write_checkpoints
from kits.helpers import ROOT
from kits.trained_kit import MOBILENET, make_dataset, train, train_arguments
from runs import checkpoints
from training import loop

SAVE_SECS = 2
# Additional time that a busy machine may need to save a step.
SLACK_SECS = 8
# KILLS=40 ./run_tests.sh --full -k killed_training kills it more often.
KILLS = int(os.environ.get('KILLS', '8'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def published(data, tmp_path_factory):
  return train(data, tmp_path_factory.mktemp('published'), *MOBILENET,
               '--max_number_of_steps=1')


class Trainer:
  """A training process, its log, and the times of its steps."""

  def __init__(self, arguments):
    self.steps = []  # (time, global step).
    self.log = ''
    self._process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, 'train_image_classifier.py'),
         *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True)
    self._reader = threading.Thread(target=self._read)
    self._reader.start()

  def _read(self):
    for line in self._process.stdout:
      self.log += line
      match = re.search(r'global step (\d+): loss', line)
      if match:
        self.steps.append((time.monotonic(), int(match.group(1))))

  def wait_for_steps(self, seconds=120):
    """Waits until the first step is logged."""
    end = time.monotonic() + seconds
    while not self.steps and time.monotonic() < end:
      assert self._process.poll() is None, self.log
      time.sleep(0.05)
    assert self.steps, self.log

  def kill(self):
    """Kills the process with SIGKILL; returns the time."""
    killed_at = time.monotonic()
    self._process.kill()
    self._process.wait()
    self._reader.join()
    return killed_at


def read_all(prefix):
  """Reads each variable of a checkpoint; returns its global step."""
  reader = checkpoint_files.open_reader(prefix)
  for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)
  return int(reader.get_tensor('global_step'))


@pytest.mark.slow
def test_killed_training_resumes_within_save_interval(
    data, published, tmp_path):
  rng = random.Random(0)
  before = -1
  # A run is either cached or plain: each has its own folder and half of the
  # kills.
  for cached in (True, False):
    folder = tmp_path / ('cached' if cached else 'plain')
    arguments = train_arguments(
        data, folder, *MOBILENET, '--train_classifier_only',
        '--checkpoint_path=' + published, '--optimizer=adam',
        '--early_stop_evals=0', '--save_interval_secs=%d' % SAVE_SECS,
        '--%scache_features' % ('' if cached else 'no'),
        '--log_every_n_steps=1')
    before = -1
    for _ in range(KILLS // 2):
      trainer = Trainer(arguments)
      delay = rng.uniform(0, 3 * SAVE_SECS)
      if delay > SAVE_SECS / 2:  # The others are killed while they start.
        trainer.wait_for_steps()
      time.sleep(delay)
      killed_at = trainer.kill()
      newest = checkpoints.newest(str(folder))
      assert newest or before == -1
      step = read_all(newest) if newest else -1
      assert step >= before
      safe_steps = [number for moment, number in trainer.steps
                    if moment < killed_at - SAVE_SECS - SLACK_SECS]
      assert step >= max(safe_steps, default=-1)
      before = step
  assert before > 0


@pytest.mark.parametrize('error', [
    OSError(errno.ENOSPC, 'No space left on device'),
    OSError(errno.EDQUOT, 'Disk quota exceeded'),
    tf.errors.ResourceExhaustedError(
        None, None, '/x/model.ckpt-2.index; No space left on device'),
    RuntimeError('/x/events.out.tfevents.1; No space left on device')], ids=str)
def test_full_disk_message_names_checkpoint_to_resume_from(tmp_path, error):
  with pytest.raises(InputError) as caught:
    with loop.full_disk_as_advice(str(tmp_path)):
      raise error
  advice = 'no space is left on the disk of %s; make room and start again: ' % (
      tmp_path)
  assert str(caught.value) == advice + 'no checkpoint has been written yet'
  prefix, = write_checkpoints(tmp_path, [1])
  with pytest.raises(InputError) as caught:
    with loop.full_disk_as_advice(str(tmp_path)):
      raise error
  assert str(caught.value) == advice + 'training resumes from ' + prefix


# With Adam's slots, a checkpoint of cifarnet has 19 MB: three fit on the first
# disk, and none on the second.
@pytest.mark.slow
@pytest.mark.parametrize('size,fits', [('75m', True), ('10m', False)])
def test_full_disk_prints_one_line_error_and_keeps_last_checkpoint(
    data, tmp_path, size, fits):
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = ['unshare', '--mount', 'sh', '-c',
           'mount -t tmpfs -o size=%s none "$0" && exec "$@"']
  try:
    subprocess.run([*mount[:4], mount[4] % '1m', str(disk), 'true'],
                   check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('a file system of a few MB cannot be mounted here')
  # Only the process sees the mount, so it copies the run out of it.
  saved = tmp_path / 'saved'
  script = ('"$0" "$@"; status=$?; cp -r %s %s; exit $status' %
            (disk / 'run', saved))
  completed = subprocess.run(
      [*mount[:4], mount[4] % size, str(disk), 'sh', '-c', script,
       sys.executable, os.path.join(ROOT, 'train_image_classifier.py'),
       *train_arguments(data, disk / 'run', '--optimizer=adam',
                        '--save_interval_secs=1')],
      capture_output=True, text=True, timeout=300)
  assert completed.returncode == 1, completed.stderr
  assert 'Traceback' not in completed.stderr
  reason = completed.stderr.strip().split('\n')[-1]
  assert 'no space is left on the disk of %s; ' % (disk / 'run') in reason
  newest = checkpoints.newest(str(saved))
  if fits:
    assert newest.startswith(str(saved)) and read_all(newest) > 0
    assert reason.endswith('training resumes from %s' % (
        disk / 'run' / os.path.basename(newest)))
  else:
    assert newest is None
    assert reason.endswith('no checkpoint has been written yet')


@pytest.mark.slow
def test_read_all_of_damaged_checkpoint_raises(
    published, tmp_path):
  for name in os.listdir(os.path.dirname(published)):
    if 'ckpt-1.' in name:
      shutil.copy(os.path.join(os.path.dirname(published), name), str(tmp_path))
  prefix = str(tmp_path / 'model.ckpt-1')
  assert read_all(prefix) == 1
  with open(prefix + '.data-00000-of-00001', 'r+b') as file:
    file.seek(1000)
    file.write(b'damaged' * 100)
  with pytest.raises(CHECKPOINT_ERRORS):
    read_all(prefix)
