"""Tests of convert_imagenet.py: repeated after a kill, damage or an error."""

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
  photo_shards,
  planned_conversion,
)
from datasets.records import verify
from kits import dataset_kit, helpers, imagenet_kit
from kits.damage_kit import flip_bit, overwrite, truncate
from kits.imagenet_kit import (
  IDS,
  TRAIN,
  convert,
  convert_split,
  make_tree,
)

# Fixtures that pytest finds by these names.
tree, converted = imagenet_kit.tree, imagenet_kit.converted


def stop_after_moves(patch, folder, moved):
  """Makes a conversion stop after it has moved `moved` files into `folder`."""
  replace, moves = os.replace, []

  def move(source, target):
    if os.path.dirname(target) == str(folder):
      if len(moves) == moved:
        raise KeyboardInterrupt
      moves.append(target)
    replace(source, target)

  patch.setattr(planned_conversion.os, 'replace', move)


def repair(path, number):
  """Replaces an unusable file by a photo with a later time stamp."""
  path.write_bytes(dataset_kit.photo_bytes(number))
  os.utime(str(path), ns=(0, path.stat().st_mtime_ns + 1))


def test_convert_photos_repaired_after_an_error_are_read_again(tmp_path):
  make_tree(tmp_path)
  bad = [tmp_path / 'train' / IDS[0] / ('n01440764_%d.JPEG' % number)
         for number in (1, 4)]
  for path in bad:
    path.write_bytes(b'no photo')
  for path, number in zip(bad, (1, 4)):
    with pytest.raises(InputError, match='photos cannot be used'):
      convert(tmp_path, tmp_path / 'out', max_bad_fraction=0)
    repair(path, number)
  manifest = convert(tmp_path, tmp_path / 'out', max_bad_fraction=0)
  assert not manifest.skipped
  convert(tmp_path, tmp_path / 'whole')
  assert dataset_kit.file_contents(tmp_path / 'out') == (
      dataset_kit.file_contents(tmp_path / 'whole'))


def test_convert_after_an_error_reads_only_the_bad_photos_again(
    tmp_path, monkeypatch):
  make_tree(tmp_path)
  (tmp_path / 'train' / IDS[0] / 'n01440764_1.JPEG').write_bytes(b'no photo')
  with pytest.raises(InputError, match='1 of 23 photos'):
    convert(tmp_path, tmp_path / 'out', max_bad_fraction=0)
  monkeypatch.setattr(photo_shards, 'write', None)  # All shards exist.
  read_paths = []
  read_photo = photo_shards._read_photo
  monkeypatch.setattr(photo_shards, '_read_photo',
                      lambda path: read_paths.append(path) or read_photo(path))
  convert(tmp_path, tmp_path / 'out', max_bad_fraction=1)
  assert [os.path.basename(path) for path in read_paths] == ['n01440764_1.JPEG']


def test_convert_photo_repaired_after_a_conversion_is_added(tmp_path):
  make_tree(tmp_path)
  bad = tmp_path / 'train' / IDS[0] / 'n01440764_1.JPEG'
  bad.write_bytes(b'no photo')
  out = tmp_path / 'out'
  assert len(convert(tmp_path, out, max_bad_fraction=1).skipped) == 1
  before = {path.name: path.stat().st_ino for path in out.iterdir()}
  convert(tmp_path, out, max_bad_fraction=1)
  assert before == {path.name: path.stat().st_ino for path in out.iterdir()}
  repair(bad, 1)
  assert not convert(tmp_path, out).skipped
  convert(tmp_path, tmp_path / 'whole')
  assert dataset_kit.file_contents(out) == (
      dataset_kit.file_contents(tmp_path / 'whole'))


@pytest.mark.parametrize('moved', [1, 4])
@pytest.mark.parametrize('has_former', [False, True])
def test_convert_killed_while_moving_then_other_num_shards_mixes_no_files(
    tree, tmp_path, monkeypatch, moved, has_former):
  if has_former:
    convert(tree, tmp_path, num_train_shards=3)
  with monkeypatch.context() as patch:
    stop_after_moves(patch, tmp_path, moved)
    with pytest.raises(KeyboardInterrupt):
      convert(tree, tmp_path)
  assert (tmp_path / TRAIN[0]).exists()
  second = convert(tree, tmp_path, num_train_shards=2, validation_dir=None)
  assert list(second.splits) == (
      ['train', 'validation'] if has_former else ['train'])
  assert [report.problems for report in verify.verify(
      str(tmp_path), 'imagenet', num_decoded=0)] == [[]] * len(second.splits)
  # The shards that the killed run wrote of the other split are still used.
  convert(tree, tmp_path, train_dir=None)
  convert(tree, tmp_path / 'whole', num_train_shards=2)
  assert dataset_kit.file_contents(tmp_path) == (
      dataset_kit.file_contents(tmp_path / 'whole'))
  assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [
      'whole']


def test_convert_while_another_process_converts_gives_one_line_error(
    tree, tmp_path):
  with converted_files.hold(str(tmp_path)):
    with pytest.raises(InputError, match='another process is converting'):
      convert(tree, tmp_path)
  assert not list(tmp_path.iterdir())


def test_convert_again_keeps_the_existing_files(tree, tmp_path):
  convert(tree, tmp_path)
  before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
  convert(tree, tmp_path)
  assert before == {path.name: path.stat().st_ino
                    for path in tmp_path.iterdir()}
  convert(tree, tmp_path, num_train_shards=2)  # All shards are replaced.
  names = {path.name for path in tmp_path.iterdir()}
  assert 'train-00001-of-00002' in names and TRAIN[0] not in names


@pytest.mark.parametrize('moved', [0, 3, 6])
def test_convert_after_a_kill_continues_to_the_same_bytes(
    tree, converted, tmp_path, monkeypatch, moved):
  """Stops after two shards are written, then after `moved` files are moved."""
  write_shard = photo_shards.write
  written = []

  def write_at_most_two(path, *args):
    if len(written) == 2:
      raise KeyboardInterrupt
    facts = write_shard(path, *args)
    written.append(path)
    return facts

  monkeypatch.setattr(planned_conversion.threads, 'run_in_threads',
                      lambda function, items: list(map(function, items)))
  monkeypatch.setattr(photo_shards, 'write', write_at_most_two)
  with pytest.raises(KeyboardInterrupt):
    convert(tree, tmp_path)
  with pytest.raises(InputError, match='not converted'):
    dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))

  def write_others(path, *args):
    assert path not in written
    return write_shard(path, *args)

  monkeypatch.setattr(photo_shards, 'write', write_others)
  with monkeypatch.context() as patch:
    stop_after_moves(patch, tmp_path, moved)
    with pytest.raises(KeyboardInterrupt):
      convert(tree, tmp_path)
  with pytest.raises(InputError, match='not converted'):
    dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  monkeypatch.setattr(photo_shards, 'write', None)  # All shards exist.
  convert(tree, tmp_path)
  assert dataset_kit.file_contents(tmp_path) == (
      dataset_kit.file_contents(converted))
  assert not [path for path in tmp_path.iterdir() if path.is_dir()]


CONVERT_PROGRAM = """
import sys
from datasets.conversion import convert_imagenet
convert_imagenet.convert(sys.argv[1], train_dir=sys.argv[2],
                         num_train_shards=12)
"""


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_convert_after_sigkill_continues_to_the_same_bytes(tmp_path):
  make_tree(tmp_path, photos=400)
  command = [sys.executable, '-c', CONVERT_PROGRAM, str(tmp_path / 'out'),
             str(tmp_path / 'train')]
  kwargs = dict(cwd=helpers.ROOT)
  work_dir = tmp_path / 'out' / '.imagenet.converting'
  stamps_before = {}
  for min_shards in (1, 5):
    process = subprocess.Popen(command, **kwargs)
    while process.poll() is None and (
        not work_dir.exists() or
        len(list(work_dir.glob('train*.json'))) < min_shards):
      time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stamps = {path.name: path.stat().st_mtime_ns
              for path in work_dir.glob('*.json')}
    assert set(stamps_before) <= set(stamps)
    assert all(stamps[name] == stamp for name, stamp in stamps_before.items())
    stamps_before = stamps
  subprocess.run(command, check=True, **kwargs)
  convert_imagenet.convert(str(tmp_path / 'once'),
                           train_dir=str(tmp_path / 'train'),
                           num_train_shards=12)
  assert dataset_kit.file_contents(tmp_path / 'out') == (
      dataset_kit.file_contents(tmp_path / 'once'))


@pytest.mark.parametrize('damage', [truncate, flip_bit, overwrite, os.remove])
def test_convert_damaged_shard_alone_is_rewritten(
    tmp_path, monkeypatch, damage):
  make_tree(tmp_path)
  (tmp_path / 'train' / IDS[0] / 'n01440764_1.JPEG').write_bytes(b'no photo')
  out = tmp_path / 'out'
  convert(tmp_path, out, max_bad_fraction=1)
  before = dataset_kit.file_contents(out)
  damage(out / TRAIN[2])
  written, write = [], photo_shards.write
  monkeypatch.setattr(
      photo_shards, 'write',
      lambda path, *args: written.append(path) or write(path, *args))
  convert(tmp_path, out, max_bad_fraction=1)
  assert [os.path.basename(path) for path in written] == [TRAIN[2]]
  assert dataset_kit.file_contents(out) == before
  assert not [path for path in out.iterdir() if path.is_dir()]


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_convert_leftover_of_a_run_killed_at_its_end_is_removed(
    tree, tmp_path, monkeypatch, split):
  with monkeypatch.context() as patch:
    patch.setattr(planned_conversion, '_clean', stop)
    with pytest.raises(KeyboardInterrupt):
      convert(tree, tmp_path)
  before = {path.name for path in tmp_path.iterdir()}
  convert_split(tree, tmp_path, split)
  assert before - {path.name for path in tmp_path.iterdir()} == {
      '.imagenet.converting'}


def test_convert_other_split_after_a_kill_while_moving_is_refused(
    tree, tmp_path, monkeypatch):
  convert(tree, tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(manifest, 'save', stop)
    with pytest.raises(KeyboardInterrupt):
      convert_split(tree, tmp_path, 'train', seed=1)
  with pytest.raises(InputError, match='the last conversion of train in .* was '
                     'stopped .* give --imagenet_train_dir as well'):
    convert_split(tree, tmp_path, 'validation', num_validation_shards=1)
  assert len(convert(tree, tmp_path, seed=1).splits) == 2
  assert [report.problems for report in verify.verify(
      str(tmp_path), 'imagenet', num_decoded=0)] == [[], []]


def stop(*_, **__):
  raise KeyboardInterrupt


class StopAt:
  """Counts the calls that change folders; raises at call number `last`."""

  def __init__(self, monkeypatch, last):
    self.count, self.last = 0, last
    for module, names in ((os, ('replace', 'remove', 'mkdir', 'rmdir')),
                          (planned_conversion.shutil, ('rmtree',))):
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
@pytest.mark.parametrize('next_run', ['again', 'back'])
@pytest.mark.parametrize('change', ['seed', 'num_train_shards', 'damage'])
def test_convert_killed_at_any_change_ends_with_the_same_bytes(
    tmp_path, monkeypatch, change, next_run):
  """Stops at each change of the folder, then repeats this or the former run."""
  make_tree(tmp_path, photos=2)
  monkeypatch.setattr(planned_conversion.threads, 'run_in_threads',
                      lambda function, items: list(map(function, items)))
  changed_options = {} if change == 'damage' else {change: 3}
  last_run = {'seed': 0, **(changed_options if next_run == 'again' else {})}
  convert(tmp_path, tmp_path / 'former', **last_run)
  expected = dataset_kit.file_contents(tmp_path / 'former')
  shutil.rmtree(str(tmp_path / 'former'))
  convert(tmp_path, tmp_path / 'former')
  if change == 'damage':
    flip_bit(tmp_path / 'former' / TRAIN[1])
  for last in range(1000):
    out = tmp_path / ('out%d' % last)
    shutil.copytree(str(tmp_path / 'former'), str(out))
    with monkeypatch.context() as patch:
      counter = StopAt(patch, last)
      try:
        convert(tmp_path, out, **changed_options)
      except KeyboardInterrupt:
        pass
    if counter.count < last:
      break
    convert(tmp_path, out, **last_run)
    assert dataset_kit.file_contents(out) == expected, last
    assert not [path for path in out.iterdir() if path.is_dir()], last
  assert last > 8
