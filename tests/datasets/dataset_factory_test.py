"""Tests of dataset_factory.py: with a manifest, and for slim's records."""

import json
import os
import time

import numpy as np
import pytest

from common.errors import InputError
from compat import slim, tf
from datasets import (
  dataset_factory,
  imagenet_names,
  public_sets,
  record_dataset,
  split_files,
)
from datasets.conversion import convert_photos
from datasets.records import tfrecord_file
from kits import dataset_kit


@pytest.fixture(scope='module')
def pets(tmp_path_factory):
  """Returns a converted folder: 16 photos for training, 4 for validation."""
  folder = tmp_path_factory.mktemp('data')
  dataset_kit.make_folder(folder / 'pets', {'cat': 10, 'dog': 10})
  convert_photos.convert(str(folder), 'pets', percent_validation=20,
                         num_shards=3)
  return folder


def read_with_provider(dataset, count):
  """Returns images, labels and file names, read as in slim's README."""
  with tf.Graph().as_default():
    provider = slim.dataset_data_provider.DatasetDataProvider(
        dataset, shuffle=False)
    items = provider.get(['image', 'label', 'filename'])
    with tf.Session() as session:
      coordinator = tf.train.Coordinator()
      threads = tf.train.start_queue_runners(session, coordinator)
      rows = [session.run(items) for _ in range(count)]
      coordinator.request_stop()
      coordinator.join(threads)
  return tuple(zip(*rows))


def test_get_dataset_has_the_attributes_of_slims_dataset(pets):
  dataset = dataset_factory.get_dataset('pets', 'train', str(pets))
  assert dataset.num_samples == 16
  assert dataset.num_classes == 2
  assert dataset.labels_to_names == {0: 'cat', 1: 'dog'}
  assert sorted(dataset.items_to_descriptions) == ['filename', 'image', 'label']
  assert dataset.data_sources == [
      str(pets / ('pets_train-%05d-of-00003.tfrecord' % index))
      for index in range(3)]
  assert dataset.reader is tf.TFRecordReader
  assert sorted(dataset.decoder.list_items()) == ['filename', 'image', 'label']


def test_get_dataset_works_with_slims_data_provider(pets):
  dataset = dataset_factory.get_dataset('pets', 'validation', str(pets))
  images, labels, filenames = read_with_provider(dataset, 4)
  assert len(set(filenames)) == 4
  for image, label, filename in zip(images, labels, filenames):
    assert image.shape == (10, 12, 3) and image.dtype == np.uint8
    assert filename.decode('utf-8').split('/')[0] == ['cat', 'dog'][label]


def test_get_dataset_accepts_another_reader(pets):
  class Reader(tf.TFRecordReader):
    pass

  dataset = dataset_factory.get_dataset('pets', 'train', str(pets),
                                        reader=Reader)
  assert dataset.reader is Reader


def test_get_dataset_files_of_slims_file_pattern_are_counted(pets):
  dataset = dataset_factory.get_dataset('pets', 'validation', str(pets),
                                        file_pattern='pets_%s-*')
  assert dataset.num_samples == 4 and len(dataset.data_sources) == 3
  dataset = dataset_factory.get_dataset('pets', 'any', str(pets),
                                        file_pattern='*_train-00000-of-*')
  assert dataset.num_samples == 5


def test_get_dataset_file_pattern_without_match_is_named_in_the_error(pets):
  with pytest.raises(InputError, match="no file in .* matches .*'cats_train-"):
    dataset_factory.get_dataset('pets', 'train', str(pets),
                                file_pattern='cats_%s-*')


def test_get_dataset_prefers_the_manifest_to_labels_and_other_files(
    pets, tmp_path):
  for name, data in dataset_kit.file_contents(pets).items():
    (tmp_path / name).write_bytes(data)
  (tmp_path / 'labels.txt').write_text('0:wrong\n1:names\n')
  dataset_kit.make_shards(tmp_path, 'pets', 'train', [2, 2, 2, 2])
  dataset = dataset_factory.get_dataset('pets', 'train', str(tmp_path))
  assert dataset.labels_to_names == {0: 'cat', 1: 'dog'}
  assert dataset.num_samples == 16 and len(dataset.data_sources) == 3


def test_get_dataset_unknown_split_lists_the_known_splits(pets):
  with pytest.raises(InputError,
                     match="split of .*'pets' 'test'; known: train, validatio"):
    dataset_factory.get_dataset('pets', 'test', str(pets))


def test_get_dataset_missing_shard_is_named_in_the_error(pets, tmp_path):
  (tmp_path / 'pets.json').write_bytes((pets / 'pets.json').read_bytes())
  with pytest.raises(InputError, match=r'names 3 files that are missing.*'
                     r'pets_train-00000-of-00003\.tfrecord.*--dataset_name=pe'):
    dataset_factory.get_dataset('pets', 'train', str(tmp_path))


@pytest.mark.parametrize('folder', ['', 'nowhere'])
def test_get_dataset_not_converted_names_folder_and_command(tmp_path, folder):
  folder = str(tmp_path / folder)
  with pytest.raises(InputError) as caught:
    dataset_factory.get_dataset('birds', 'train', folder)
  message = str(caught.value)
  assert folder in message and '\n' not in message
  assert ('download_and_convert_data.py --dataset_name=birds --dataset_dir=' +
          folder) in message


def test_get_dataset_not_converted_suggests_a_similar_data_set(tmp_path):
  for name in ('flowers', 'birds'):
    (tmp_path / (name + '.json')).write_text('{}')
  with pytest.raises(InputError) as caught:
    dataset_factory.get_dataset('flowrs', 'train', str(tmp_path))
  assert ('run DATASET_NAME=flowrs DATASET_DIR=%s ./convert_tfrecord.sh, or ' %
          tmp_path) in str(caught.value)
  assert str(caught.value).endswith('; did you mean flowers?')


def slim_example(label):
  """Returns an Example with slim's keys only."""
  encoded = dataset_kit.photo_bytes(label)
  return tf.train.Example(features=tf.train.Features(feature={
      'image/encoded': tf.train.Feature(
          bytes_list=tf.train.BytesList(value=[encoded])),
      'image/format': tf.train.Feature(
          bytes_list=tf.train.BytesList(value=[b'jpg'])),
      'image/class/label': tf.train.Feature(
          int64_list=tf.train.Int64List(value=[label])),
      'image/height': tf.train.Feature(
          int64_list=tf.train.Int64List(value=[10])),
      'image/width': tf.train.Feature(
          int64_list=tf.train.Int64List(value=[12])),
  }))


def make_slim_flowers(folder, shards=5, name='flowers'):
  for index in range(shards):
    dataset_kit.write_records(
        folder / ('%s_train_%05d-of-%05d.tfrecord' % (name, index, shards)),
        [slim_example(index % 2), slim_example(1)])
  (folder / 'labels.txt').write_text('0:daisy\n1:roses\n')


def test_get_dataset_slim_records_with_underscore_are_read(tmp_path):
  make_slim_flowers(tmp_path)
  dataset = dataset_factory.get_dataset('flowers', 'train', str(tmp_path))
  assert dataset.num_samples == 10 and len(dataset.data_sources) == 5
  assert dataset.labels_to_names == {0: 'daisy', 1: 'roses'}
  images, labels, filenames = read_with_provider(dataset, 10)
  assert sorted(labels) == [0] * 3 + [1] * 7
  assert set(filenames) == {b''}
  assert images[0].shape == (10, 12, 3)


def test_get_dataset_records_with_dash_and_no_manifest_are_read(tmp_path):
  dataset_kit.make_shards(tmp_path, 'flowers', 'train', [3, 4])
  (tmp_path / 'labels.txt').write_text('0:daisy\n1:roses\n')
  dataset = dataset_factory.get_dataset('flowers', 'train', str(tmp_path))
  assert dataset.num_samples == 7
  with pytest.raises(InputError, match="'validation'; known: train"):
    dataset_factory.get_dataset('flowers', 'validation', str(tmp_path))


def test_get_dataset_incomplete_slim_records_are_refused(tmp_path):
  make_slim_flowers(tmp_path)
  (tmp_path / 'flowers_train_00003-of-00005.tfrecord').unlink()
  with pytest.raises(InputError, match='4 of the 5 files'):
    dataset_factory.get_dataset('flowers', 'train', str(tmp_path))


def test_get_dataset_records_without_labels_says_what_is_missing(tmp_path):
  make_slim_flowers(tmp_path, name='tulips')
  (tmp_path / 'labels.txt').unlink()
  with pytest.raises(InputError, match=r'tulips\.json nor .*labels\.txt'):
    dataset_factory.get_dataset('tulips', 'train', str(tmp_path))


def test_get_dataset_imagenet_has_its_1001_names(tmp_path):
  dataset_kit.write_records(tmp_path / 'imagenet_train-00000-of-00001',
                             [slim_example(7)])
  dataset_kit.write_records(tmp_path / 'train-00000-of-01024',
                             [slim_example(7)])
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  assert dataset.num_classes == 1001
  assert dataset.labels_to_names[1] == 'tench'
  # The file names of slim's own ImageNet.
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(tmp_path),
                                        file_pattern='%s-*')
  assert dataset.num_samples == 1


def test_record_without_label_is_an_error_not_class_zero(tmp_path):
  example = slim_example(0)
  del example.features.feature['image/class/label']
  with tf.Graph().as_default(), tf.Session() as session:
    parsed = tf.parse_single_example(example.SerializeToString(),
                                     record_dataset.features())
    with pytest.raises(tf.errors.InvalidArgumentError,
                       match='image/class/label'):
      session.run(parsed)


def test_get_labels_of_a_converted_folder(pets):
  assert dataset_factory.get_labels('pets', str(pets)) == ['cat', 'dog']


def test_get_labels_imagenet_does_not_depend_on_the_folder(pets):
  labels = dataset_factory.get_labels('imagenet', str(pets))
  assert len(labels) == 1001
  assert labels[:3] == ['background', 'tench', 'goldfish']
  assert labels[1000] == 'toilet_tissue'


@pytest.mark.parametrize('name', ['pets', 'flowers', 'mnist'])
def test_get_labels_of_a_folder_without_the_data_set_is_an_error(
    tmp_path, name):
  # These labels would be another data set's.
  (tmp_path / 'labels.txt').write_text('0:cow\n1:hen\n')
  for folder in (tmp_path, tmp_path / 'nowhere'):
    with pytest.raises(InputError, match='%r is not converted' % name):
      dataset_factory.get_labels(name, str(folder))


def test_get_labels_names_a_command_that_can_be_copied(tmp_path):
  with pytest.raises(InputError) as caught:
    dataset_factory.get_labels('my pets', str(tmp_path / "a'b"))
  assert "run DATASET_NAME='my pets' DATASET_DIR='%s/a'\"'\"'b' ./conv" % (
      tmp_path) in str(caught.value)
  assert "--dataset_name='my pets' --dataset_dir='" in str(caught.value)


def test_get_labels_of_records_without_names_says_what_is_missing(tmp_path):
  (tmp_path / 'pets_train_00000-of-00001.tfrecord').write_bytes(b'')
  with pytest.raises(InputError, match='no class names'):
    dataset_factory.get_labels('pets', str(tmp_path))


def test_synsets_are_sorted_by_id():
  synsets = imagenet_names.synsets()
  assert [synset.label for synset in synsets] == list(range(1, 1001))
  ids = [synset.wordnet_id for synset in synsets]
  assert ids == sorted(set(ids)) and ids[0] == 'n01440764'


def test_synsets_equal_the_reference(shared):
  with open(os.path.join(shared, 'reference', 'imagenet_synsets.txt'),
            encoding='utf-8') as source:
    rows = [tuple(line.split()) for line in source]
  assert rows == [(str(synset.label), synset.wordnet_id, synset.name)
                  for synset in imagenet_names.synsets()]


@pytest.mark.parametrize('text', [
    b'\xef\xbb\xbf0:daisy\r\n1:roses\r\n', b'daisy\nroses\n',
    b'1: roses \r0:daisy\r'])
def test_get_labels_of_slim_records_reads_any_label_file(tmp_path, text):
  make_slim_flowers(tmp_path)
  (tmp_path / 'labels.txt').write_bytes(text)
  assert dataset_factory.get_labels('flowers', str(tmp_path)) == [
      'daisy', 'roses']


def test_count_records_returns_the_number_of_records(tmp_path):
  path, = dataset_kit.make_shards(tmp_path, 'pets', 'train', [6])
  assert record_dataset.count_records(str(path)) == 6
  empty = tmp_path / 'empty'
  empty.write_bytes(b'')
  assert record_dataset.count_records(str(empty)) == 0


@pytest.mark.parametrize('cut', [1, 100, 5])
def test_count_records_truncated_file_names_file_and_record(tmp_path, cut):
  path, = dataset_kit.make_shards(tmp_path, 'pets', 'train', [6])
  path.write_bytes(path.read_bytes()[:-cut])
  with pytest.raises(InputError, match=r'pets_train.*ends inside record 5'):
    record_dataset.count_records(str(path))


def test_count_records_missing_file_is_named_in_the_error(tmp_path):
  with pytest.raises(InputError, match='cannot read .*nowhere'):
    record_dataset.count_records(str(tmp_path / 'nowhere'))


@pytest.mark.parametrize('data, message', [
    (b'version https://git-lfs.github.com/spec/v1', 'is it a TFRecord file'),
    (b'\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0', r'compressed \(gzip\): unpack it'),
    (b'short', 'it ends inside record 0')])
def test_count_records_other_kind_of_file_is_named_in_the_error(
    tmp_path, data, message):
  path = tmp_path / 'file'
  path.write_bytes(data)
  with pytest.raises(InputError, match='file is damaged: .*' + message):
    record_dataset.count_records(str(path))


def test_count_records_damaged_length_names_the_record(tmp_path):
  path, = dataset_kit.make_shards(tmp_path, 'pets', 'train', [6])
  data = path.read_bytes()
  start = tfrecord_file.record_offsets(str(path))[2]
  path.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1:])
  with pytest.raises(InputError,
                     match=r'length of record 2 \(byte %d\) is wrong' % start):
    record_dataset.count_records(str(path))


# Public data sets.


@pytest.mark.parametrize('name, file_name, split, shape', [
    ('flowers', 'flowers_validation_00000-of-00001.tfrecord', 'validation',
     (10, 12, 3)),
    ('cifar10', 'cifar10_train.tfrecord', 'train', (10, 12, 3)),
    ('mnist', 'mnist_test.tfrecord', 'test', (10, 12, 1)),
    ('imagenet', 'validation-00000-of-00001', 'validation', (10, 12, 3)),
    ('visualwakewords', 'val.record-00000-of-00001', 'val', (10, 12, 3))])
def test_get_dataset_public_set_is_read_by_slims_file_names(
    tmp_path, name, file_name, split, shape):
  dataset_kit.write_records(tmp_path / file_name, [slim_example(1)] * 3)
  (tmp_path / 'mnist_extra.tfrecord').write_bytes(b'')
  dataset = dataset_factory.get_dataset(name, split, str(tmp_path))
  spec = public_sets.PUBLIC_SETS[name]
  assert dataset.num_samples == 3  # Counted: this is not the full set.
  assert dataset.num_classes == len(spec.labels())
  assert dataset.labels_to_names == dict(enumerate(spec.labels()))
  assert dataset.items_to_descriptions['image'] == spec.image
  images, labels, _ = read_with_provider(dataset, 2)
  assert images[0].shape == shape and labels == (1, 1)


def test_public_sets_have_slims_sizes_and_labels():
  facts = {name: (spec.split_sizes, len(spec.labels()), spec.labels()[:2])
           for name, spec in public_sets.PUBLIC_SETS.items()}
  assert facts == {
      'flowers': ({'train': 3320, 'validation': 350}, 5,
                  ['daisy', 'dandelion']),
      'cifar10': ({'train': 50000, 'test': 10000}, 10,
                  ['airplane', 'automobile']),
      'mnist': ({'train': 60000, 'test': 10000}, 10, ['zero', 'one']),
      'imagenet': ({'train': 1281167, 'validation': 50000}, 1001,
                   ['background', 'tench']),
          'visualwakewords': ({'train': 82783, 'val': 40504}, 2,
                              ['background', 'person'])}


def test_get_dataset_own_photos_with_public_name_have_their_classes(tmp_path):
  dataset_kit.make_folder(tmp_path / 'mnist', {'cat': 3, 'dog': 3})
  convert_photos.convert(str(tmp_path), 'mnist', percent_validation=40)
  dataset = dataset_factory.get_dataset('mnist', 'train', str(tmp_path))
  assert dataset.labels_to_names == {0: 'cat', 1: 'dog'}
  images, _, _ = read_with_provider(dataset, 1)
  assert images[0].shape == (10, 12, 3)


def make_large_set(folder, monkeypatch, sizes):
  """Writes shards with slim's ImageNet names, of a set whose full size is 20.

  Returns:
    List to which the path of each counted file is appended.
  """
  spec = public_sets.PUBLIC_SETS['imagenet']
  monkeypatch.setitem(public_sets.PUBLIC_SETS, 'imagenet', spec._replace(
      split_sizes={'train': 20, 'validation': 5}))
  monkeypatch.setattr(split_files, 'COUNT_LIMIT', 10)
  for index, size in enumerate(sizes):
    dataset_kit.write_records(
        folder / ('train-%05d-of-00005' % index), [slim_example(1)] * size)
  counted = []
  monkeypatch.setattr(
      record_dataset, 'count_records',
      lambda path: counted.append(path) or len(
          tfrecord_file.record_offsets(path)))
  return counted


def test_get_dataset_complete_public_set_is_not_fully_counted(
    tmp_path, monkeypatch):
  counted = make_large_set(tmp_path, monkeypatch, [4, 4, 4, 4, 4])
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  assert dataset.num_samples == 20 and len(counted) == 3


@pytest.mark.parametrize('sizes', [[1, 4, 2, 4, 2], [4, 4, 4, 4]], ids=str)
def test_get_dataset_partial_public_set_is_counted(
    tmp_path, monkeypatch, sizes):
  make_large_set(tmp_path, monkeypatch, sizes)
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  assert dataset.num_samples == sum(sizes)


# The quick check before training.


def copy_pets(pets, folder, **entries):
  """Copies the data set, and adds entries to split train of its manifest.

  Returns:
    pathlib.Path of the second training shard.
  """
  for name, data in dataset_kit.file_contents(pets).items():
    (folder / name).write_bytes(data)
  fields = json.loads((pets / 'pets.json').read_text(encoding='utf-8'))
  fields['splits']['train'].update(entries)
  (folder / 'pets.json').write_text(json.dumps(fields), encoding='utf-8')
  return folder / 'pets_train-00001-of-00003.tfrecord'


def test_get_dataset_truncated_file_is_named_in_the_error(pets, tmp_path):
  path = copy_pets(pets, tmp_path)
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(InputError, match=r'00001-of-00003\.tfrecord is damaged: '
                     r'it ends inside record 4 \(byte'):
    dataset_factory.get_dataset('pets', 'train', str(tmp_path))
  assert dataset_factory.get_dataset('pets', 'validation', str(tmp_path))


def test_get_dataset_record_count_unlike_manifest_names_the_file(
    pets, tmp_path):
  path = copy_pets(pets, tmp_path)
  start = tfrecord_file.record_offsets(str(path))[2]
  path.write_bytes(path.read_bytes()[:start])
  with pytest.raises(InputError, match='hold 13 records, but the manifest '
                     r'.*pets\.json says 16; .*train-00001.* holds 2 of them'):
    dataset_factory.get_dataset('pets', 'train', str(tmp_path))


@pytest.mark.parametrize('entries, message', [
    ({'shard_sizes': [5, 6, 5]}, r'00001-of-00003.tfrecord holds 5 records, '
     r'but the manifest .* says 6'),
    ({'shard_bytes': [1, 2, 3]}, r'00000-of-00003.tfrecord is damaged: it has '
     r'\d+ bytes, but the manifest .* says 1')])
def test_get_dataset_shard_unlike_manifest_is_refused(
    pets, tmp_path, entries, message):
  copy_pets(pets, tmp_path, **entries)
  with pytest.raises(InputError, match=message):
    dataset_factory.get_dataset('pets', 'train', str(tmp_path))


def test_get_dataset_large_split_checks_only_the_start_of_files(
    pets, tmp_path, monkeypatch):
  monkeypatch.setattr(split_files, 'COUNT_LIMIT', 10)
  path = copy_pets(pets, tmp_path)
  path.write_bytes(path.read_bytes()[:-9])
  dataset = dataset_factory.get_dataset('pets', 'train', str(tmp_path))
  assert dataset.num_samples == 16
  for data, message in ((b'', 'it is empty'), (b'x' * 99, 'a TFRecord file')):
    path.write_bytes(data)
    with pytest.raises(InputError, match='00001-of-00003.* ' + message):
      dataset_factory.get_dataset('pets', 'train', str(tmp_path))


def test_check_of_1000_files_takes_less_than_a_second(tmp_path):
  paths = dataset_kit.make_shards(tmp_path, 'pets', 'train', [1])
  data = paths[0].read_bytes()
  names = ['%04d' % index for index in range(1000)]
  for name in names:
    (tmp_path / name).write_bytes(data * 5)
  sources = [str(tmp_path / name) for name in names]
  # Records are counted for the first size, and not for the second.
  for size in (5000, split_files.COUNT_LIMIT + 1):
    files = split_files.SplitFiles(sources, size,
                                   shard_bytes=[5 * len(data)] * 1000)
    start = time.process_time()
    assert split_files.check('pets', 'train', files, str(tmp_path)) == size
    assert time.process_time() - start < 1
