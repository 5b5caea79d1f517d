"""Tests of convert_photos.py: other data sets in the output folder."""

import os

import pytest

from common.errors import InputError
from datasets import dataset_factory
from datasets.conversion import convert_photos
from kits import dataset_kit


def make(tmp_path, counts=None, name='pets'):
  dataset_kit.make_folder(tmp_path / name, counts or {'cat': 20, 'dog': 20})


def convert(folder, name='pets'):
  convert_photos.convert(str(folder), name, percent_validation=20,
                         percent_test=10)


def labels_of(folder, *names):
  return [dataset_factory.get_labels(name, str(folder)) for name in names]


def test_convert_second_data_set_keeps_the_labels_of_the_first(tmp_path):
  make(tmp_path)
  make(tmp_path, {'oak': 5, 'fir': 5, 'yew': 5}, 'trees')
  convert(tmp_path)
  convert(tmp_path, 'trees')
  trees = '0:fir\n1:oak\n2:yew\n'
  assert (tmp_path / 'labels.txt').read_text() == '0:cat\n1:dog\n'
  assert (tmp_path / 'trees_labels.txt').read_text() == trees
  assert labels_of(tmp_path, 'pets', 'trees') == [['cat', 'dog'],
                                                  ['fir', 'oak', 'yew']]
  # The first data set can still change its own labels.
  dataset_kit.make_folder(tmp_path / 'pets', {'emu': 5})
  for index, path in enumerate(sorted((tmp_path / 'pets' / 'emu').iterdir())):
    path.write_bytes(dataset_kit.photo_bytes(700 + index))
  convert(tmp_path)
  assert (tmp_path / 'labels.txt').read_text() == '0:cat\n1:dog\n2:emu\n'
  assert (tmp_path / 'trees_labels.txt').read_text() == trees
  # Once the first is gone, the second takes the name that slim looks for.
  for path in list(tmp_path.glob('pets*')):
    if path.is_file():
      path.unlink()
  convert(tmp_path, 'trees')
  assert (tmp_path / 'labels.txt').read_text() == trees
  assert not (tmp_path / 'trees_labels.txt').exists()


def test_convert_shared_labels_stay_with_the_data_set_that_still_has_them(
    tmp_path):
  for name in ('pets', 'strays'):
    make(tmp_path, {'cat': 5, 'dog': 5}, name)
    convert(tmp_path, name)
  assert not (tmp_path / 'strays_labels.txt').exists()
  (tmp_path / 'pets' / 'dog').rename(tmp_path / 'pets' / 'wolf')
  convert(tmp_path)
  assert (tmp_path / 'labels.txt').read_text() == '0:cat\n1:dog\n'
  assert (tmp_path / 'pets_labels.txt').read_text() == '0:cat\n1:wolf\n'


@pytest.mark.parametrize('record_file', [
    'flowers_train_00000-of-00005.tfrecord', 'cifar10_train.tfrecord',
    'train-00000-of-01024'])
def test_convert_next_to_records_of_slim_keeps_their_labels(
    tmp_path, record_file):
  (tmp_path / record_file).write_bytes(b'')
  (tmp_path / 'labels.txt').write_text('0:a\n1:b\n')
  make(tmp_path)
  for _ in range(2):
    convert(tmp_path)
    assert (tmp_path / 'labels.txt').read_text() == '0:a\n1:b\n'
    assert (tmp_path / 'pets_labels.txt').read_text() == '0:cat\n1:dog\n'


def test_convert_labels_that_no_data_set_uses_are_replaced(tmp_path):
  make(tmp_path)
  (tmp_path / 'labels.txt').write_text('0:a\n1:b\n')
  (tmp_path / 'notes.json').write_text('[]')
  convert(tmp_path)
  assert (tmp_path / 'labels.txt').read_text() == '0:cat\n1:dog\n'


def test_convert_data_sets_named_like_each_others_files_do_not_mix(tmp_path):
  names = ['a', 'a_train', 'a_skipped', 'a_labels']
  for index, name in enumerate(names):
    make(tmp_path, {'cat': 5 + index, 'dog': 5}, name)
  for name in names + names:
    convert(tmp_path, name)
  for index, name in enumerate(names):
    total = sum(
        dataset_factory.get_dataset(name, split, str(tmp_path)).num_samples
        for split in ('train', 'validation', 'test'))
    assert total == 10 + index


@pytest.mark.parametrize('folder', ['pets.json', 'pets_skipped.csv',
                                    'labels.txt', 'pets_labels.txt',
                                    'pets_train-00000-of-00001.tfrecord'])
def test_convert_folder_named_like_an_output_file_gives_one_line_error(
    tmp_path, folder):
  make(tmp_path)
  (tmp_path / folder).mkdir()
  with pytest.raises(InputError, match='%s is a folder, and a file' % folder):
    convert(tmp_path)
  assert sorted(os.listdir(str(tmp_path))) == sorted(['pets', folder])


def test_convert_file_in_place_of_a_folder_gives_one_line_error(tmp_path):
  (tmp_path / 'pets').write_text('a file')
  with pytest.raises(InputError, match='a file instead of a folder of photos'):
    convert(tmp_path)
  with pytest.raises(InputError, match='no folder of photos at'):
    convert(tmp_path / 'pets')  # dataset_dir is a file.
  (tmp_path / 'pets').unlink()
  make(tmp_path, {'cat': 5})
  (tmp_path / 'pets' / 'dog').write_text('a file')
  with pytest.raises(InputError, match=r'holds 1 class folders \(cat\)'):
    convert(tmp_path)
