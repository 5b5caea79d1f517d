"""Tests of convert_imagenet.py: again after a kill, damage or an error."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from common.errors import InputError
from datasets import dataset_factory, manifest
from datasets.conversion import (
  convert_imagenet,
  converted_files,
  imagenet_shards,
)
from datasets.records import verify
from kits import dataset_kit, helpers, imagenet_kit
from kits.damage_kit import cut, flip, overwrite
from kits.imagenet_kit import (
  IDS,
  TRAIN,
  convert,
  make_tree,
  only,
)

# Fixtures that pytest finds by these names.
tree, converted = imagenet_kit.tree, imagenet_kit.converted


def stop_moving(patch, folder, moved):
  """Lets a conversion end when it has moved some files into a folder."""
  replace, moves = os.replace, []

  def move(source, target):
    if os.path.dirname(target) == str(folder):
      if len(moves) == moved:
        raise KeyboardInterrupt
      moves.append(target)
    replace(source, target)

  patch.setattr(convert_imagenet.os, 'replace', move)


def mend(path, number):
  """Writes a photo over what was none, later."""
  path.write_bytes(dataset_kit.photo_bytes(number))
  os.utime(str(path), ns=(0, path.stat().st_mtime_ns + 1))


def test_convert_photos_mended_after_an_error_are_looked_at_again(tmp_path):
  make_tree(tmp_path)
  bad = [tmp_path / 'train' / IDS[0] / ('n01440764_%d.JPEG' % number)
         for number in (1, 4)]
  for path in bad:
    path.write_bytes(b'no photo')
  for path, number in zip(bad, (1, 4)):
    with pytest.raises(InputError, match='photos cannot be used'):
      convert(tmp_path, tmp_path / 'out', max_bad_fraction=0)
    mend(path, number)
  manifest = convert(tmp_path, tmp_path / 'out', max_bad_fraction=0)
  assert not manifest.skipped
  convert(tmp_path, tmp_path / 'whole')
  assert dataset_kit.file_contents(tmp_path / 'out') == (
      dataset_kit.file_contents(tmp_path / 'whole'))


def test_convert_error_again_reads_only_what_was_bad(tmp_path, monkeypatch):
  make_tree(tmp_path)
  (tmp_path / 'train' / IDS[0] / 'n01440764_1.JPEG').write_bytes(b'no photo')
  with pytest.raises(InputError, match='1 of 23 photos'):
    convert(tmp_path, tmp_path / 'out', max_bad_fraction=0)
  monkeypatch.setattr(imagenet_shards, 'write', None)  # All is there.
  read = []
  read_photo = imagenet_shards._read_photo
  monkeypatch.setattr(imagenet_shards, '_read_photo',
                      lambda path: read.append(path) or read_photo(path))
  convert(tmp_path, tmp_path / 'out', max_bad_fraction=1)
  assert [os.path.basename(path) for path in read] == ['n01440764_1.JPEG']


def test_convert_photo_mended_after_a_conversion_is_taken(tmp_path):
  make_tree(tmp_path)
  bad = tmp_path / 'train' / IDS[0] / 'n01440764_1.JPEG'
  bad.write_bytes(b'no photo')
  out = tmp_path / 'out'
  assert len(convert(tmp_path, out, max_bad_fraction=1).skipped) == 1
  before = {path.name: path.stat().st_ino for path in out.iterdir()}
  convert(tmp_path, out, max_bad_fraction=1)
  assert before == {path.name: path.stat().st_ino for path in out.iterdir()}
  mend(bad, 1)
  assert not convert(tmp_path, out).skipped
  convert(tmp_path, tmp_path / 'whole')
  assert dataset_kit.file_contents(out) == (
      dataset_kit.file_contents(tmp_path / 'whole'))


@pytest.mark.parametrize('moved', [1, 4])
@pytest.mark.parametrize('former', [False, True])
def test_convert_killed_in_moving_and_run_with_another_plan_mixes_nothing(
    tree, tmp_path, monkeypatch, moved, former):
  if former:
    convert(tree, tmp_path, num_train_shards=3)
  with monkeypatch.context() as patch:
    stop_moving(patch, tmp_path, moved)
    with pytest.raises(KeyboardInterrupt):
      convert(tree, tmp_path)
  assert (tmp_path / TRAIN[0]).exists()
  two = convert(tree, tmp_path, num_train_shards=2, validation_dir=None)
  assert list(two.splits) == (['train', 'validation'] if former else ['train'])
  assert [report.problems for report in verify.verify(
      str(tmp_path), 'imagenet', num_decoded=0)] == [[]] * len(two.splits)
  # What the killed run made of the other split is still of use.
  convert(tree, tmp_path, train_dir=None)
  convert(tree, tmp_path / 'whole', num_train_shards=2)
  assert dataset_kit.file_contents(tmp_path) == (
      dataset_kit.file_contents(tmp_path / 'whole'))
  assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [
      'whole']


def test_convert_while_another_process_converts_is_one_line(tree, tmp_path):
  with converted_files.hold(str(tmp_path)):
    with pytest.raises(InputError, match='another process is converting'):
      convert(tree, tmp_path)
  assert not list(tmp_path.iterdir())


def test_convert_again_keeps_what_is_there(tree, tmp_path):
  convert(tree, tmp_path)
  before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
  convert(tree, tmp_path)
  assert before == {path.name: path.stat().st_ino
                    for path in tmp_path.iterdir()}
  convert(tree, tmp_path, num_train_shards=2)  # Another plan: made anew.
  names = {path.name for path in tmp_path.iterdir()}
  assert 'train-00001-of-00002' in names and TRAIN[0] not in names


@pytest.mark.parametrize('moved', [0, 3, 6])
def test_convert_killed_run_goes_on_with_the_same_bytes(
    tree, converted, tmp_path, monkeypatch, moved):
  """Stops it after two files, and again after some are in their place."""
  write_shard = imagenet_shards.write
  written = []

  def write_two(path, *args):
    if len(written) == 2:
      raise KeyboardInterrupt
    facts = write_shard(path, *args)
    written.append(path)
    return facts

  monkeypatch.setattr(convert_imagenet.threads, 'run_in_threads',
                      lambda function, items: list(map(function, items)))
  monkeypatch.setattr(imagenet_shards, 'write', write_two)
  with pytest.raises(KeyboardInterrupt):
    convert(tree, tmp_path)
  with pytest.raises(InputError, match='not converted'):
    dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))

  def write_others(path, *args):
    assert path not in written
    return write_shard(path, *args)

  monkeypatch.setattr(imagenet_shards, 'write', write_others)
  with monkeypatch.context() as patch:
    stop_moving(patch, tmp_path, moved)
    with pytest.raises(KeyboardInterrupt):
      convert(tree, tmp_path)
  with pytest.raises(InputError, match='not converted'):
    dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  monkeypatch.setattr(imagenet_shards, 'write', None)  # All is there.
  convert(tree, tmp_path)
  assert dataset_kit.file_contents(tmp_path) == (
      dataset_kit.file_contents(converted))
  assert not [path for path in tmp_path.iterdir() if path.is_dir()]


KILLED = """
import sys
from datasets.conversion import convert_imagenet
convert_imagenet.convert(sys.argv[1], train_dir=sys.argv[2],
                         num_train_shards=12)
"""


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_convert_killed_by_signal_goes_on(tmp_path):
  make_tree(tmp_path, photos=400)
  command = [sys.executable, '-c', KILLED, str(tmp_path / 'out'),
             str(tmp_path / 'train')]
  kwargs = dict(cwd=helpers.ROOT)
  aside = tmp_path / 'out' / '.imagenet.converting'
  kept = {}
  for wanted in (1, 5):
    process = subprocess.Popen(command, **kwargs)
    while process.poll() is None and (
        not aside.exists() or len(list(aside.glob('train*.json'))) < wanted):
      time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    now = {path.name: path.stat().st_mtime_ns for path in aside.glob('*.json')}
    assert set(kept) <= set(now)
    assert all(now[name] == stamp for name, stamp in kept.items())
    kept = now
  subprocess.run(command, check=True, **kwargs)
  convert_imagenet.convert(str(tmp_path / 'once'),
                           train_dir=str(tmp_path / 'train'),
                           num_train_shards=12)
  assert dataset_kit.file_contents(tmp_path / 'out') == (
      dataset_kit.file_contents(tmp_path / 'once'))


@pytest.mark.parametrize('damage', [cut, flip, overwrite, os.remove])
def test_convert_damaged_file_alone_is_made_again(tmp_path, monkeypatch,
                                                  damage):
  make_tree(tmp_path)
  (tmp_path / 'train' / IDS[0] / 'n01440764_1.JPEG').write_bytes(b'no photo')
  out = tmp_path / 'out'
  convert(tmp_path, out, max_bad_fraction=1)
  before = dataset_kit.file_contents(out)
  damage(out / TRAIN[2])
  written, write = [], imagenet_shards.write
  monkeypatch.setattr(
      imagenet_shards, 'write',
      lambda path, *args: written.append(path) or write(path, *args))
  convert(tmp_path, out, max_bad_fraction=1)
  assert [os.path.basename(path) for path in written] == [TRAIN[2]]
  assert dataset_kit.file_contents(out) == before
  assert not [path for path in out.iterdir() if path.is_dir()]


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_convert_leftover_of_a_run_killed_at_its_end_is_removed(
    tree, tmp_path, monkeypatch, split):
  with monkeypatch.context() as patch:
    patch.setattr(convert_imagenet, '_clean', stop)
    with pytest.raises(KeyboardInterrupt):
      convert(tree, tmp_path)
  before = {path.name for path in tmp_path.iterdir()}
  only(tree, tmp_path, split)
  assert before - {path.name for path in tmp_path.iterdir()} == {
      '.imagenet.converting'}


def test_convert_other_split_after_a_kill_in_moving_is_refused(
    tree, tmp_path, monkeypatch):
  convert(tree, tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(manifest, 'save', stop)
    with pytest.raises(KeyboardInterrupt):
      only(tree, tmp_path, 'train', seed=1)
  with pytest.raises(InputError, match='the last conversion of train in .* was '
                     'stopped .* give --imagenet_train_dir as well'):
    only(tree, tmp_path, 'validation', num_validation_shards=1)
  assert len(convert(tree, tmp_path, seed=1).splits) == 2
  assert [report.problems for report in verify.verify(
      str(tmp_path), 'imagenet', num_decoded=0)] == [[], []]


def stop(*_, **__):
  raise KeyboardInterrupt


class StopAt:
  """Counts what changes folders, and stops before number `last`."""

  def __init__(self, monkeypatch, last):
    self.count, self.last = 0, last
    for module, names in ((os, ('replace', 'remove', 'mkdir', 'rmdir')),
                          (convert_imagenet.shutil, ('rmtree',))):
      for name in names:
        monkeypatch.setattr(module, name, self.wrap(getattr(module, name)))

  def wrap(self, function):
    def wrapped(*args, **kwargs):
      if self.count == self.last:
        raise KeyboardInterrupt
      self.count += 1
      return function(*args, **kwargs)
    return wrapped


@pytest.mark.slow
@pytest.mark.engine('tf1')
@pytest.mark.parametrize('then', ['again', 'back'])
@pytest.mark.parametrize('change', ['seed', 'num_train_shards', 'damage'])
def test_convert_killed_anywhere_ends_with_the_same_bytes(
    tmp_path, monkeypatch, change, then):
  """Kills it wherever it changes the folder; then runs it or the former one."""
  make_tree(tmp_path, photos=2)
  monkeypatch.setattr(convert_imagenet.threads, 'run_in_threads',
                      lambda function, items: list(map(function, items)))
  more = {} if change == 'damage' else {change: 3}
  last_run = {'seed': 0, **(more if then == 'again' else {})}
  convert(tmp_path, tmp_path / 'former', **last_run)
  expected = dataset_kit.file_contents(tmp_path / 'former')
  shutil.rmtree(str(tmp_path / 'former'))
  convert(tmp_path, tmp_path / 'former')
  if change == 'damage':
    flip(tmp_path / 'former' / TRAIN[1])
  for last in range(1000):
    out = tmp_path / ('out%d' % last)
    shutil.copytree(str(tmp_path / 'former'), str(out))
    with monkeypatch.context() as patch:
      stopping = StopAt(patch, last)
      try:
        convert(tmp_path, out, **more)
      except KeyboardInterrupt:
        pass
    if stopping.count < last:
      break
    convert(tmp_path, out, **last_run)
    assert dataset_kit.file_contents(out) == expected, last
    assert not [path for path in out.iterdir() if path.is_dir()], last
  assert last > 8
