"""Tests of datasets/conversion/convert_flowers.py: slim's split."""

import pytest

from datasets import public_sets
from datasets.conversion import convert_flowers, public
from kits import dataset_kit


@pytest.mark.parametrize('extra_files, is_whole', [
    ({}, True), ({'tulips/.DS_Store': b'x', 'roses/Thumbs.db': b'x',
                  '.ipynb_checkpoints/a.jpg': b'x'}, True),
    ({'tulips/mine.jpg': b'x'}, False), ({'mine/1.jpg': b'x'}, False)], ids=str)
def test_is_whole_set_counts_photos_and_ignores_hidden_files(
    tmp_path, monkeypatch, extra_files, is_whole):
  flowers = public_sets.PUBLIC_SETS['flowers']._replace(
      split_sizes={'train': 18, 'validation': 2})
  monkeypatch.setitem(public_sets.PUBLIC_SETS, 'flowers', flowers)
  dataset_kit.make_folder(tmp_path, dict.fromkeys(flowers.labels(), 4))
  for file, data in extra_files.items():
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(data)
  assert convert_flowers.is_whole_set(str(tmp_path)) == is_whole


@pytest.mark.parametrize('name, data', [
    ('mine.jpg', dataset_kit.photo_bytes(999)), ('.DS_Store', b'hidden')],
                         ids=['photo', 'hidden'])
def test_convert_flowers_with_added_file_keeps_every_photo_in_its_split(
    tmp_path, monkeypatch, name, data):
  # Of 20 photos per class slim's share for validation is 5, the default's is 2.
  monkeypatch.setitem(public_sets.PUBLIC_SETS, 'flowers',
                      public_sets.PUBLIC_SETS['flowers']._replace(
                          split_sizes={'train': 75, 'validation': 25}))
  dataset_kit.make_folder(tmp_path / 'flowers',
                           dict.fromkeys(public_sets.FLOWERS_LABELS, 20))
  before = public.convert('flowers', str(tmp_path), percent_validation=None,
                          num_shards=None)
  assert {split: (row['size'], len(row['shards']))
          for split, row in before.splits.items()} == {
              'train': (75, 5), 'validation': (25, 5)}
  (tmp_path / 'flowers' / 'tulips' / name).write_bytes(data)
  after = public.convert('flowers', str(tmp_path))
  assert after.percent_validation == before.percent_validation == 25
  assert {file: after.files[file] for file in before.files} == before.files
  changed = public.convert('flowers', str(tmp_path), percent_validation=10,
                           num_shards=3)
  assert changed.splits['validation']['size'] == 10
  again = public.convert('flowers', str(tmp_path))
  assert len(again.splits['train']['shards']) == again.num_shards == 3
