"""Tests of convert_imagenet.py: one split converted again, and its settings."""

import os

import pytest

from common.errors import InputError
from datasets import manifest
from datasets.conversion import convert_imagenet, convert_photos
from datasets.records import verify
from kits import dataset_kit, imagenet_kit
from kits.imagenet_kit import (
  TRAIN,
  VALIDATION,
  convert,
  convert_split,
  make_tree,
  read,
)

# Fixtures that pytest finds by these names.
tree, converted = imagenet_kit.tree, imagenet_kit.converted


def inodes(folder):
  """Returns {file name: inode}: a file that is written again gets another."""
  return {path.name: path.stat().st_ino for path in folder.iterdir()}


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_convert_one_split_again_keeps_the_other_and_the_settings(
    tree, tmp_path, split):
  former = convert(tree, tmp_path)
  before = inodes(tmp_path)
  assert convert_split(tree, tmp_path, split) == former
  assert inodes(tmp_path) == before


def test_convert_one_split_with_new_seed_keeps_the_other_files(tree, tmp_path):
  former = convert(tree, tmp_path, max_pixels=1000)
  before = inodes(tmp_path)
  changed = convert_split(tree, tmp_path, 'train', seed=1)
  assert changed.splits['validation'] == former.splits['validation']
  assert changed.splits['train']['settings'] == dict(
      former.splits['train']['settings'], seed=1)
  after = inodes(tmp_path)
  assert sorted(after) == sorted(before)
  assert {name for name in after if after[name] == before[name]} == {
      *VALIDATION, 'labels.txt'}
  # The boxes and the number of files are unchanged.
  feature = read(tmp_path, *TRAIN)['n01440764_0.JPEG']
  assert list(feature['image/object/bbox/label'].int64_list.value) == [1, 1]
  assert [report.problems for report in verify.verify(
      str(tmp_path), 'imagenet', num_decoded=0)] == [[], []]


def test_convert_split_by_split_equals_both_together(tree, converted, tmp_path):
  convert_split(tree, tmp_path, 'validation', num_validation_shards=2,
                validation_labels=str(tree / 'classes.txt'),
                bounding_box_csv=str(tree / 'boxes.csv'))
  convert_split(tree, tmp_path, 'train', num_train_shards=4)
  separate, together = (dataset_kit.file_contents(folder)
                        for folder in (tmp_path, converted))
  assert manifest.load(str(tmp_path), 'imagenet').splits['train'][
      'settings']['boxes'] == str(tree / 'boxes.csv')
  assert sorted(separate) == sorted(together)
  assert all(separate[name] == together[name] for name in TRAIN + VALIDATION)


@pytest.mark.parametrize('split, missing, message', [
    ('train', 'boxes.csv', 'cannot read the boxes .*/boxes.csv.* last '
     'conversion, set another with --imagenet_bounding_boxes'),
    ('validation', 'classes.txt', 'cannot read the classes .*/classes.txt.* '
     'last conversion, set another with --imagenet_validation_labels')])
def test_convert_missing_file_of_the_last_conversion_names_the_flag(
    tmp_path, split, missing, message):
  make_tree(tmp_path, photos=1)
  out = tmp_path / 'out'
  convert(tmp_path, out)
  before = inodes(out)
  (tmp_path / missing).unlink()
  with pytest.raises(InputError, match=message):
    convert_split(tmp_path, out, split)
  assert inodes(out) == before


def test_convert_new_boxes_are_used(tree, tmp_path):
  convert(tree, tmp_path / 'out')
  (tmp_path / 'boxes.csv').write_text('n01440764_0.JPEG,0,0,1,1\n')
  convert_split(tree, tmp_path / 'out', 'train',
                bounding_box_csv=str(tmp_path / 'boxes.csv'))
  feature = read(tmp_path / 'out', *TRAIN)['n01440764_0.JPEG']
  assert list(feature['image/object/bbox/label'].int64_list.value) == [1]


def test_convert_same_folder_for_both_splits_gives_one_line_error(
    tree, tmp_path):
  (tmp_path / 'link').symlink_to(tree / 'train')
  out = tmp_path / 'out'
  for folder in (tree / 'train', tmp_path / 'link'):
    with pytest.raises(InputError, match='/train is the folder of train and of '
                       'validation; they must be two different folders'):
      convert(tree, out, validation_dir=str(folder))
  assert not out.exists()
  convert_imagenet.convert(str(out), validation_dir=str(tmp_path / 'link'))
  before = inodes(out)
  with pytest.raises(InputError, match=(
      r'validation \(validation was made from it before; set another with '
      r'--imagenet_validation_dir\)')):
    convert_split(tree, out, 'train')
  assert inodes(out) == before
  assert convert(tree, out).splits['validation']['size'] == 5


def test_convert_records_of_another_data_set_named_imagenet_are_kept(
    tree, tmp_path):
  dataset_kit.make_folder(tmp_path / 'imagenet', {'cat': 6, 'dog': 6})
  convert_photos.convert(str(tmp_path), 'imagenet')
  (tmp_path / 'imagenet').rename(tmp_path / 'away')
  before = inodes(tmp_path)
  with pytest.raises(InputError, match='imagenet.json describes other photos '
                     'than ILSVRC 2012, of 2 classes: move it'):
    convert(tree, tmp_path)
  assert inodes(tmp_path) == before


@pytest.mark.parametrize('change', [
    {'settings': None}, {'settings': {}}, {'plan': 1}, {'skipped': [{}]},
    {'shard_bytes': None}])
def test_convert_incomplete_manifest_gives_one_line_error(
    tree, tmp_path, change):
  incomplete = convert(tree, tmp_path)
  incomplete.splits['train'].update(change)
  for key, value in change.items():
    if value is None:
      del incomplete.splits['train'][key]
  manifest.save(str(tmp_path), incomplete)
  with pytest.raises(InputError, match="not say how split 'train' was made"):
    convert(tree, tmp_path)


def test_convert_path_that_is_not_utf8_gives_one_line_error(tmp_path):
  folder = os.fsdecode(b'train\xff')
  with pytest.raises(InputError, match=r'the path .*udcff.* is not UTF-8'):
    convert_imagenet.convert(str(tmp_path / 'out'), train_dir=folder)
  assert not list(tmp_path.iterdir())
