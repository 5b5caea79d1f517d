"""Tests of conversions in shares: the same files as those of one process."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from common import locks, shares
from common.errors import InputError
from datasets.conversion import convert_photos, share_files
from kits import dataset_kit, imagenet_kit
from kits.conversion_kit import add_photos, as_png, make_photos, resave_cats
from kits.helpers import ROOT, slow_by_turns


def make_two(tmp_path):
  """Makes two folders of the same photos: one is converted in shares."""
  folder = make_photos(tmp_path / 'one')
  for number in range(6):
    (folder / 'dog' / ('%d.png' % number)).write_bytes(
        dataset_kit.photo_bytes(500 + number, 'PNG'))
  (folder / 'cat' / 'text.jpg').write_text('text')
  shutil.copy(str(folder / 'cat' / '003.jpg'), str(folder / 'dog' / 'cat.jpg'))
  shutil.copy(str(folder / 'cat' / '004.jpg'), str(folder / 'cat' / 'copy.jpg'))
  as_png((folder / 'cat' / '005.jpg').read_bytes(),
         str(folder / 'cat' / 'same'))
  scene = np.add.outer(np.arange(90) ** 2, 40 * np.arange(120)) // 64 % 256
  for size in (120, 90), (60, 45), (40, 30):  # Near duplicates.
    Image.fromarray(scene.astype(np.uint8)).resize(size).save(
        str(folder / 'dog' / ('scene %d.png' % size[0])))
  shutil.copytree(str(tmp_path / 'one'), str(tmp_path / 'many'))
  return tmp_path / 'one', tmp_path / 'many'


def convert_in_shares(folder, total, **options):
  for share in shares.all_of(total):
    convert_photos.convert_share(str(folder), 'pets', share, **options)
  return convert_photos.convert(str(folder), 'pets', merge_shards=total,
                                **options)


@pytest.mark.parametrize('total', [1, 3])
def test_convert_in_shares_gives_the_same_bytes(tmp_path, monkeypatch, total):
  one, many = make_two(tmp_path)
  options = dict(num_shards=2, seed=3, percent_test=10, group_duplicates=True)
  manifest = convert_photos.convert(str(one), 'pets', **options)
  assert manifest.near_duplicates and manifest.duplicates and manifest.skipped
  for share in shares.all_of(total):
    convert_photos.convert_share(str(many), 'pets', share, **options)
  with monkeypatch.context() as patch:  # The merge decodes nothing for this.
    for name in ('photos.normalize_photo', 'photos.inspect_photo',
                 'near_photos.sketch'):
      patch.delattr('datasets.photo_files.' + name)
    convert_photos.convert(str(many), 'pets', merge_shards=total, **options)
  assert dataset_kit.file_contents(one) == dataset_kit.file_contents(many)
  assert sorted(os.listdir(str(one))) == sorted(os.listdir(str(many)))


def test_convert_in_shares_again_keeps_the_splits(tmp_path):
  one, many = make_two(tmp_path)
  for folder in (one, many):
    convert_photos.convert(str(folder), 'pets', seed=5, num_shards=2)
    add_photos(folder / 'pets', 'cat', range(9))
    resave_cats(folder / 'pets', as_png, 'saved again')
  convert_photos.convert(str(one), 'pets')
  assert convert_in_shares(many, 2).seed == 5
  assert dataset_kit.file_contents(one) == dataset_kit.file_contents(many)


def test_merge_reads_what_has_changed_since(tmp_path):
  one, many = make_two(tmp_path)
  for share in shares.all_of(2):
    convert_photos.convert_share(str(many), 'pets', share)
  for folder in (one, many):
    add_photos(folder / 'pets', 'cat', range(3))
    (folder / 'pets' / 'cat' / '000.jpg').unlink()
    for name in ('cat/text.jpg', 'cat/001.jpg'):
      (folder / 'pets' / name).write_bytes(dataset_kit.photo_bytes(len(name)))
  for path in (many / '.pets.shares').glob('*.data'):
    path.write_bytes(path.read_bytes()[::-1])
  (many / '.pets.shares' / '1-of-2.data').unlink()
  convert_photos.convert(str(one), 'pets')
  convert_photos.convert(str(many), 'pets', merge_shards=2)
  assert dataset_kit.file_contents(one) == dataset_kit.file_contents(many)


def test_merge_names_shares_that_are_missing_or_running(tmp_path):
  folder = str(make_photos(tmp_path).parent)
  for number in (1, 3):
    convert_photos.convert_share(folder, 'pets', shares.Share(number, 4))
  with pytest.raises(InputError, match='these are missing: 2/4, 4/4; each'):
    convert_photos.convert(folder, 'pets', merge_shards=4)
  with share_files.hold(folder, 'pets', shares.Share(3, 4)):
    with pytest.raises(InputError, match='these are still running: 3/4;'):
      convert_photos.convert(folder, 'pets', merge_shards=4)
    with pytest.raises(InputError, match='is converting share 3/4 of'):
      convert_photos.convert_share(folder, 'pets', shares.Share(3, 4))
  with pytest.raises(InputError, match='share 1/1 was converted with another'):
    convert_photos.convert_share(folder, 'pets', shares.Share(1, 1))
    convert_photos.convert(folder, 'pets', merge_shards=1, max_pixels=10 ** 6)
  assert not (tmp_path / 'pets.json').exists()


def test_imagenet_in_shares_gives_the_same_bytes(tmp_path):
  imagenet_kit.make_tree(tmp_path)
  (tmp_path / 'train' / imagenet_kit.IDS[0] / 'bad.JPEG').write_text('text')
  one, many = tmp_path / 'one', tmp_path / 'many'
  imagenet_kit.convert(tmp_path, one, max_bad_fraction=0.1)
  for number in (3, 1):
    assert imagenet_kit.convert(tmp_path, many,
                                shard_of=shares.Share(number, 3)) is None
  with pytest.raises(InputError, match='these are missing: 2/3;'):
    imagenet_kit.convert(tmp_path, many, merge_shards=3)
  with pytest.raises(InputError, match='other photos, or with other flags'):
    imagenet_kit.convert(tmp_path, many, merge_shards=3, seed=1)
  imagenet_kit.convert(tmp_path, many, shard_of=shares.Share(2, 3))
  written = {path.name: path.stat().st_mtime_ns
             for path in (many / '.imagenet.converting').glob('*-of-0000?')}
  imagenet_kit.convert(tmp_path, many, merge_shards=3, max_bad_fraction=0.1)
  assert dataset_kit.file_contents(one) == dataset_kit.file_contents(many)
  assert sorted(os.listdir(str(one))) == sorted(os.listdir(str(many)))
  assert len(written) == 6
  assert all((many / name).stat().st_mtime_ns == stamp
             for name, stamp in written.items())


def start(folder, *flags):
  return subprocess.Popen(
      [sys.executable, os.path.join(ROOT, 'download_and_convert_data.py'),
       '--dataset_dir=%s' % folder, *flags], stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE, universal_newlines=True)


def end(process):
  """Returns the exit status and what was written to stderr."""
  errors = process.communicate(timeout=300)[1]
  return process.returncode, errors


BEGUN = {'pets': '.pets.shares/2-of-4.data.part',
         'imagenet': '.imagenet.converting/train-00001-of-00040.json'}


@pytest.mark.parametrize('name', slow_by_turns(BEGUN))
def test_four_processes_one_killed_and_started_again(tmp_path, name):
  """Killed as soon as it has written a part of its work."""
  if name == 'pets':
    photos = make_photos(tmp_path, {'cat': 700, 'dog': 700})
    for path in list(photos.glob('cat/*5.jpg')):
      as_png(path.read_bytes(), str(path.with_suffix('')))
    flags = ['--photos_dir=%s' % photos, '--group_duplicates', '--num_shards=7']
  else:
    imagenet_kit.make_tree(tmp_path, 400)
    flags = ['--imagenet_train_dir=%s' % (tmp_path / 'train'),
             '--imagenet_train_shards=40', '--nopicture']
  flags.append('--dataset_name=' + name)
  many = tmp_path / 'many'
  many.mkdir()
  processes = [start(many, '--shard_of=%d/4' % number, *flags)
               for number in (1, 2, 3, 4)]
  while not (many / BEGUN[name]).exists():
    assert processes[1].poll() is None
    time.sleep(0.001)
  processes[1].send_signal(signal.SIGKILL)
  assert [end(process)[0] for process in processes] == [0, -signal.SIGKILL, 0,
                                                        0]
  lock = many / ('.%s.shares' % name) / '2-of-4.lock'
  assert lock.exists() and not locks.is_locked(str(lock))
  status, errors = end(start(many, '--merge_shards=4', *flags))
  assert status == 1 and 'these are missing: 2/4;' in errors
  for flag in ('--shard_of=2/4', '--merge_shards=4'):
    assert end(start(many, flag, *flags))[0] == 0
  assert end(start(tmp_path / 'one', *flags))[0] == 0
  assert dataset_kit.file_contents(many) == (
      dataset_kit.file_contents(tmp_path / 'one'))
