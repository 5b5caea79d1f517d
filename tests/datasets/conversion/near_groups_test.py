"""Tests of --group_duplicates: near duplicates are in one split."""

import pytest

from datasets import manifest as manifests
from kits import scene_kit
from kits.conversion_kit import convert

CHANGES = (scene_kit.resized, scene_kit.mirrored, scene_kit.compressed)


@pytest.fixture
def folder(tmp_path):
  """Ten scenes per class, each as four near duplicates."""
  make_scenes(tmp_path, 10)
  return tmp_path


def make_scenes(folder, num_copied):
  """Makes ten scenes per class, of which some have three near duplicates."""
  for shift, label in ((0, 'cat'), (100, 'dog')):
    (folder / 'pets' / label).mkdir(parents=True)
    for number in range(10):
      image = scene_kit.scene(shift + number)
      for kind, data in enumerate([scene_kit.encode(image)] + [
          change(image) for change in CHANGES]):
        if kind == 0 or number < num_copied:
          write(folder, '%s/%02d_%d.jpg' % (label, number, kind), data)


def write(folder, file, data):
  (folder / 'pets' / file).write_bytes(data)


def split_groups(manifest):
  """Returns the scenes whose photos are in several splits."""
  splits = {}
  for file, split in manifest.files.items():
    splits.setdefault(file.split('_')[0], set()).add(split)
  return [scene for scene, found in splits.items() if len(found) > 1]


def test_convert_with_group_duplicates_keeps_copies_in_one_split(folder):
  assert split_groups(convert(folder))
  manifest = convert(folder, seed=1, group_duplicates=True)
  assert split_groups(manifest) == []
  assert len(manifest.near_duplicates) == 20
  assert manifest.splits['validation']['class_counts'] == {'cat': 8, 'dog': 8}
  # The setting is kept, and so are the splits.
  again = convert(folder, seed=1)
  assert again.group_duplicates and again == manifest
  assert manifests.load(str(folder), 'pets') == manifest


def test_convert_group_with_a_training_photo_moves_to_training(
    tmp_path, log):
  folder = tmp_path
  make_scenes(folder, 4)
  before = convert(folder, percent_validation=40, percent_test=0).files
  mixed = split_groups(manifests.load(str(folder), 'pets'))
  after = convert(folder, percent_validation=40, percent_test=0,
                  group_duplicates=True).files
  moved = {file for file in before if before[file] != after[file]}
  assert moved == {file for file in before if file.split('_')[0] in mixed and
                   before[file] == 'validation'}
  assert moved
  assert '%d photos are near duplicates of photos in another split' % len(
      moved) in log.text
  added = scene_kit.encode(scene_kit.scene(3), 75)
  write(folder, 'cat/new.jpg', added)
  final = convert(folder, percent_validation=40, percent_test=0).files
  assert final.pop('cat/new.jpg') == after['cat/03_0.jpg']
  assert final == after


def test_convert_copies_in_two_classes_are_in_one_split(folder):
  for number in range(10):
    write(folder, 'dog/cat%d.jpg' % number,
          scene_kit.encode(scene_kit.scene(number), 75))
  files = convert(folder, group_duplicates=True).files
  assert {files['dog/cat%d.jpg' % n] for n in range(10)} == {
      'train', 'validation', 'test'}
  for number in range(10):
    assert files['dog/cat%d.jpg' % number] == files['cat/%02d_0.jpg' % number]


def test_convert_ready_made_split_keeps_its_copies(folder):
  (folder / 'pets').rename(folder / 'all')
  (folder / 'pets').mkdir()
  (folder / 'all').rename(folder / 'pets' / 'train')
  for label in ('cat', 'dog'):
    (folder / 'pets' / 'test' / label).mkdir(parents=True)
  write(folder, 'test/cat/copy.jpg', scene_kit.encode(scene_kit.scene(3), 75))
  write(folder, 'test/dog/other.jpg', scene_kit.encode(scene_kit.scene(50)))
  files = convert(folder, percent_test=None, group_duplicates=True).files
  assert files['test/cat/copy.jpg'] == 'test'
  assert 'test' not in [split for file, split in files.items()
                        if file.startswith('train/')]
