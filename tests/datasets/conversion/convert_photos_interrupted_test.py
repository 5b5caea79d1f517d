"""Tests of convert_photos.py: conversions that are killed, fail or overlap."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

from common.errors import InputError
from datasets import dataset_factory
from datasets.conversion import converted_files
from kits import dataset_kit
from kits.conversion_kit import (
  add_photos,
  as_png,
  convert,
  make_photos,
  move_cats,
  resave_cats,
)
from kits.helpers import ROOT


def die(monkeypatch, calls):
  """Makes the process die before it moves or removes its n-th file.

  Returns:
    List to which the target of each move or removal is appended.
  """
  targets = []

  def with_limit(function):
    def wrapped(*paths, **kwargs):
      targets.append(paths[-1])
      if len(targets) == calls:
        raise SystemExit('killed')
      if len(targets) < calls:  # A killed process does not clean up.
        function(*paths, **kwargs)
    return wrapped

  for name in ('replace', 'remove'):
    monkeypatch.setattr(os, name, with_limit(getattr(os, name)))
  return targets


# 4 files are written to the work folder, the former manifest and 3 former files
# are moved away or removed, and 6 files are moved to their places.
_MOVES = 4 + 1 + 3 + 6


@pytest.mark.parametrize('calls', range(1, _MOVES + 1))
def test_convert_killed_with_photos_added_still_keeps_the_splits(
    tmp_path, monkeypatch, calls):
  """The former manifest is found in the work folder."""
  folder = make_photos(tmp_path)
  move_cats(tmp_path, convert(tmp_path))
  shutil.copytree(str(tmp_path), str(tmp_path / 'other'))
  add_photos(folder, 'cat', range(30))
  add_photos(tmp_path / 'other' / 'pets', 'cat', range(30))
  convert(tmp_path / 'other')
  for call in (calls, min(calls, 9)):  # The second run has less to do.
    with monkeypatch.context() as patch:
      targets = die(patch, call)
      with pytest.raises(SystemExit):
        convert(tmp_path)
      if call == _MOVES:
        assert targets[call - 1] == str(tmp_path / 'pets.json')
  convert(tmp_path)
  assert (dataset_kit.file_contents(tmp_path) ==
          dataset_kit.file_contents(tmp_path / 'other'))
  assert not os.path.exists(dataset_factory.work_dir(str(tmp_path), 'pets'))


# A separate process loads TensorFlow once; its children are killed.
KILLING_PROGRAM = '''
import os, shutil, signal, sys, time
from datasets.conversion import convert_photos

def convert(folder):
  convert_photos.convert(folder, 'pets', num_shards=4, percent_test=10)

def contents(folder):
  return {name: open(os.path.join(folder, name), 'rb').read()
          for name in os.listdir(folder)
          if os.path.isfile(os.path.join(folder, name))}

source, target, moments = sys.argv[1], sys.argv[2], int(sys.argv[3])
replace = os.replace

def slow_replace(*paths):  # So that some of the kills fall between moves.
  replace(*paths)
  time.sleep(0.02)

os.replace = slow_replace
shutil.copytree(source, target)
start = time.time()
convert(target)
seconds = time.time() - start
wanted = contents(target)
killed = 0
for moment in range(moments):
  shutil.rmtree(target)
  shutil.copytree(source, target)
  child = os.fork()
  if not child:
    convert(target)
    os._exit(0)
  time.sleep(seconds * (moment + 0.5) / moments)
  os.kill(child, signal.SIGKILL)
  killed += os.waitpid(child, 0)[1] == signal.SIGKILL
  convert(target)
  assert contents(target) == wanted, moment
  assert sorted(os.listdir(target)) == sorted(list(wanted) + ['pets'])
print(killed)
'''


@pytest.mark.slow
def test_convert_killed_by_sigkill_ends_with_the_same_bytes(tmp_path):
  source = tmp_path / 'source'
  folder = make_photos(source, {'cat': 20, 'dog': 20})
  convert(source, percent_validation=10)
  for number in range(60):
    (folder / 'cat' / ('new %d.jpg' % number)).write_bytes(
        dataset_kit.photo_bytes(1000 + number, size=(500, 300)))
  moments = 8
  done = subprocess.run(
      [sys.executable, '-c', KILLING_PROGRAM, str(source),
       str(tmp_path / 'target'), str(moments)],
      cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) >= moments // 2


def test_convert_while_another_process_converts_is_refused(tmp_path):
  folder = make_photos(tmp_path)
  with converted_files.hold(str(folder)):
    with pytest.raises(InputError, match='another process is converting'):
      convert(tmp_path)
  assert len(convert(tmp_path).files) == 40


def test_convert_write_failure_leaves_no_work_folder(tmp_path, monkeypatch):
  """After a full disk the user needs the space."""
  make_photos(tmp_path)

  def raise_disk_full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(converted_files.record_dataset, 'make_example',
                      raise_disk_full)
  with pytest.raises(InputError, match='cannot write to .*No space left'):
    convert(tmp_path)
  assert os.listdir(str(tmp_path)) == ['pets']


def test_convert_killed_with_resaved_photos_still_keeps_the_splits(
    tmp_path, monkeypatch):
  """The former records, with which pixels are compared, are deleted by then."""
  folder = make_photos(tmp_path)
  before = convert(tmp_path)
  move_cats(tmp_path, before)
  renamed = resave_cats(folder, as_png, 'anew')
  with monkeypatch.context() as patch:
    die(patch, _MOVES)
    with pytest.raises(SystemExit):
      convert(tmp_path)
  after = convert(tmp_path).files
  for file, new_file in renamed.items():
    assert after[new_file] == before.files[file]


def test_convert_full_disk_at_the_last_step_keeps_the_former_data(tmp_path):
  """Record files of one photo each are small enough; the manifest is not."""
  make_photos(tmp_path)
  convert(tmp_path, num_shards=28)
  before, limit = dataset_kit.file_contents(tmp_path), 4096
  assert [name for name, data in before.items() if len(data) > limit] == [
      'pets.json']
  done = subprocess.run(
      [sys.executable, 'download_and_convert_data.py', '--dataset_name=pets',
       '--dataset_dir=%s' % tmp_path, '--num_shards=27'], cwd=ROOT,
      capture_output=True, text=True,
      preexec_fn=lambda: resource.setrlimit(
          resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
  assert done.returncode == 1
  assert 'error: cannot write to %s: ' % tmp_path in done.stderr
  assert 'File too large' in done.stderr and done.stderr.count('\n') == 1
  assert dataset_kit.file_contents(tmp_path) == before
  assert sorted(os.listdir(str(tmp_path))) == sorted([*before, 'pets'])


# Children of one process, so that all are at the last step at the same time.
PARALLEL_PROGRAM = '''
import os, sys, time
from datasets.conversion import convert_photos
folder, names, rounds = sys.argv[1], sys.argv[2].split(','), int(sys.argv[3])
failed = 0
for _ in range(rounds):
  start, children = time.time() + 0.1, []
  for name in names:
    child = os.fork()
    if not child:
      time.sleep(max(0, start - time.time()))
      try:
        convert_photos.convert(folder, name)
      except ValueError as error:
        print(error)
        os._exit(1)
      os._exit(0)
    children.append(child)
  failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
sys.exit(failed)
'''


def test_convert_data_sets_in_one_folder_in_parallel_succeeds(tmp_path):
  names = ['pets', 'trees', 'stars', 'boats']
  for name in names:
    make_photos(tmp_path, {name + ' a': 3, name + ' b': 3}, name)
  done = subprocess.run(
      [sys.executable, '-c', PARALLEL_PROGRAM, str(tmp_path), ','.join(names),
       '12'], cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stdout + done.stderr
  for name in names:
    assert dataset_factory.get_labels(name, str(tmp_path)) == [
        name + ' a', name + ' b']
    (tmp_path / (name + '.json')).unlink()
  texts = sorted(path.read_text() for path in tmp_path.glob('*labels.txt'))
  assert texts == ['0:%s a\n1:%s b\n' % (name, name) for name in sorted(names)]
  assert not list(tmp_path.glob('.*')) and not list(tmp_path.glob('*.part'))
