"""Tests of tools/verify_tfrecord.py: problems found, and output."""

import gzip
import os
import struct
import zlib

import pytest

from common.errors import InputError
from compat import tf
from datasets import manifest, record_dataset
from datasets.conversion import convert_photos
from datasets.records import record_check, tfrecord_file, verify
from kits import dataset_kit, helpers


@pytest.fixture
def pets(tmp_path):
  """A data set without manifest, like slim's: 9 + 8 train, 5 test records."""
  dataset_kit.make_shards(tmp_path, 'pets', 'train', [9, 8])
  (tmp_path / 'pets_test.tmp').write_bytes(b'')
  paths = dataset_kit.make_shards(tmp_path, 'birds', 'test', [5])
  examples = [tf.train.Example.FromString(data)
              for data in tf.python_io.tf_record_iterator(str(paths[0]))]
  for example in examples:  # Their names are also names of pets.
    del example.features.feature['image/filename']
  dataset_kit.write_records(
      tmp_path / 'pets_test_00000-of-00001.tfrecord', examples)
  (tmp_path / 'labels.txt').write_text('0:cat\n1:dog\n')
  return tmp_path


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  dataset_kit.make_folder(folder / 'pets', {'cat': 10, 'dog': 10})
  convert_photos.convert(str(folder), 'pets', percent_validation=20,
                         num_shards=2)
  return folder


def copy(folder, target):
  for name, data in dataset_kit.file_contents(folder).items():
    (target / name).write_bytes(data)


def shard(folder, index=1):
  return folder / ('pets_train-%05d-of-00002.tfrecord' % index)


def offsets(path):
  return tfrecord_file.record_offsets(str(path))


def flip(path, position):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(bytes(data))


def problems(folder, name='pets', **kwargs):
  return [record_check.describe(problem).replace(str(folder) + os.sep, '')
          for report in verify.verify(str(folder), name, **kwargs)
          for problem in report.problems]


# Checksums.


def test_masked_crc32c_equals_what_tensorflow_writes(tmp_path):
  path = str(tmp_path / 'records')
  contents = [b'', b'a', b'abc', bytes(1001), os.urandom(70000)]
  with tf.python_io.TFRecordWriter(path) as writer:
    for data in contents:
      writer.write(data)
  with open(path, 'rb') as source:
    for data in contents:
      length = source.read(8)
      assert struct.unpack('<Q', length)[0] == len(data)
      assert struct.unpack('<I', source.read(4))[0] == (
          tfrecord_file.masked_crc32c(length))
      assert source.read(len(data)) == data
      assert struct.unpack('<I', source.read(4))[0] == (
          tfrecord_file.masked_crc32c(data))
  for records in (tfrecord_file.read(path), tfrecord_file.read_on(path, 0, 0)):
    records = list(records)
    assert [record.data for record in records] == contents
    assert [record.offset for record in records] == offsets(path)
    assert {record.problem for record in records} == {None}


# Data sets without problems.


def test_verify_slims_records_without_manifest_has_no_problems(pets):
  test, train = verify.verify(str(pets), 'pets')
  assert (test.split, test.num_files, test.num_records) == ('test', 1, 5)
  assert (train.split, train.num_files, train.num_records) == ('train', 2, 17)
  assert train.num_decoded == 17
  assert train.num_bytes == sum(os.path.getsize(str(shard(pets, index)))
                                for index in (0, 1))
  assert not test.problems and not train.problems


def test_verify_converted_folder_has_no_problems(converted):
  reports = list(verify.verify(str(converted), 'pets', num_decoded=0))
  assert [(report.split, report.num_records, report.num_decoded,
           report.problems) for report in reports] == [
               ('train', 16, 16, []), ('validation', 4, 4, [])]


@pytest.mark.parametrize('num_decoded, expected', [(3, 3), (16, 16), (99, 16)])
def test_verify_decodes_requested_number_of_photos(
    converted, num_decoded, expected):
  train, = verify.verify(str(converted), 'pets', 'train', num_decoded)
  assert train.num_decoded == expected


# Data sets with problems.


def test_verify_flipped_bit_is_found_in_its_record(converted, tmp_path):
  copy(converted, tmp_path)
  path = shard(tmp_path)
  content, starts = path.read_bytes(), offsets(path)
  start, end = starts[3], starts[4]
  for position in (start, start + 9, start + 12, end - 5, end - 1):
    flip(path, position)
    messages = problems(tmp_path, split_name='train')
    assert messages[0].startswith(
        'pets_train-00001-of-00002.tfrecord, record 3 (byte %d)' %
        start), position
    in_length = position < start + 12
    assert ('its length is damaged' if in_length else
            'its data are damaged') in messages[0]
    assert len(messages) == (2 if in_length else 1)
    path.write_bytes(content)


def test_verify_two_damaged_records_are_both_named(pets):
  starts = offsets(shard(pets))
  flip(shard(pets), starts[2] + 50)
  flip(shard(pets), starts[5] + 50)
  flip(shard(pets, 0), 60)
  assert [row.split(':')[0] for row in problems(pets)] == [
      'pets_train-00000-of-00002.tfrecord, record 0 (byte 0)',
      'pets_train-00001-of-00002.tfrecord, record 2 (byte %d)' % starts[2],
      'pets_train-00001-of-00002.tfrecord, record 5 (byte %d)' % starts[5]]


@pytest.mark.parametrize('cut', [1, 300, 'header'])
def test_verify_truncated_file_names_its_last_record(pets, cut):
  path = shard(pets)
  starts = offsets(path)
  size = starts[7] + 5 if cut == 'header' else path.stat().st_size - cut
  path.write_bytes(path.read_bytes()[:size])
  assert problems(pets) == [
      'pets_train-00001-of-00002.tfrecord, record 7 (byte %d): the file ends '
      'inside it' % starts[7]]


def test_verify_tail_of_zeros_is_one_damaged_record(pets):
  end = shard(pets).stat().st_size
  with open(str(shard(pets)), 'ab') as target:
    target.write(bytes(160))
  assert problems(pets) == [
      'pets_train-00001-of-00002.tfrecord, record 8 (byte %d): its length is '
      'damaged: the 160 bytes from there on cannot be read' % end]


def test_verify_compressed_file_is_named_as_such(pets):
  shard(pets).write_bytes(gzip.compress(shard(pets).read_bytes()))
  assert problems(pets) == ['pets_train-00001-of-00002.tfrecord, record 0 '
                            '(byte 0): it is compressed (gzip): unpack it']


def rewrite(path, change, number=4):
  """Applies `change` to the features of one record of a file."""
  examples = [tf.train.Example.FromString(data)
              for data in tf.python_io.tf_record_iterator(str(path))]
  change(examples[number].features.feature)
  dataset_kit.write_records(path, examples)


def set_bytes(key, value):
  def change(feature):
    feature[key].bytes_list.value[:] = [value]
  return change


def set_int(key, value):
  def change(feature):
    feature[key].int64_list.value[:] = [value]
  return change


JPEG = dataset_kit.photo_bytes(5)


@pytest.mark.parametrize('change, message', [
    (set_int('image/class/label', 2),
     "photo '13': label 2, expected 0 to 1"),
    (set_int('image/class/label', -1),
     "photo '13': label -1, expected 0 to 1"),
    (lambda feature: feature.pop('image/class/label'),
     'image/class/label is missing'),
    (lambda feature: feature.pop('image/encoded'), 'image/encoded is missing'),
    (lambda feature: feature['image/class/label'].int64_list.value.append(1),
     'image/class/label is not one value in a int64_list'),
    (set_bytes('image/class/label', b'1'),
     'image/class/label is not one value in a int64_list'),
    (set_bytes('image/encoded', b''), 'image/encoded is empty'),
    (set_bytes('image/encoded', JPEG[:-200]), 'the photo cannot be decoded: '),
    (set_bytes('image/encoded', b'GIF?'), 'the photo cannot be decoded: '),
    (set_int('image/height', 11),
     'the photo is 10 x 12 pixels (height x width), the record says 11 x 12'),
])
def test_verify_record_with_wrong_content_is_named(pets, change, message):
  rewrite(shard(pets), change)
  problem, = problems(pets)
  assert problem.startswith(
      'pets_train-00001-of-00002.tfrecord, record 4 (byte %d)' %
      offsets(shard(pets))[4])
  assert message in problem


def test_verify_record_that_is_not_an_example_is_named(pets):
  with tf.python_io.TFRecordWriter(str(shard(pets))) as writer:
    writer.write(b'junk\xff')
  assert problems(pets) == [
      'pets_train-00001-of-00002.tfrecord, record 0 (byte 0): it is not a '
      'tf.train.Example']


def test_verify_equal_names_are_a_problem_only_with_equal_photos(pets):
  """ImageNet's records have base names, of photos in several folders."""
  rewrite(shard(pets), set_bytes('image/filename', b'2'))
  assert not problems(pets)
  rewrite(shard(pets), set_bytes('image/encoded', dataset_kit.photo_bytes(2)))
  problem, = problems(pets)
  assert problem == (
      "pets_train-00001-of-00002.tfrecord, record 4 (byte %d), photo '2': a "
      'photo of this name is in pets_train-00000-of-00002.tfrecord, record 2, '
      'as well' % offsets(shard(pets))[4])


def test_program_with_invalid_manifest_prints_one_line_error(
    converted, tmp_path):
  copy(converted, tmp_path)
  path = tmp_path / 'pets.json'
  path.write_text(path.read_text().replace('"size": 16', '"size": "abc"'))
  completed = helpers.run_program(
      'tools/verify_tfrecord.py', '--dataset_name=pets',
      '--dataset_dir=%s' % tmp_path)
  assert completed.returncode == 1 and completed.stderr.count('\n') == 1
  assert "'size' of split 'train' is 'abc'" in completed.stderr


def test_verify_photo_in_two_splits_is_found(converted, tmp_path):
  copy(converted, tmp_path)
  path = tmp_path / 'pets_validation-00000-of-00002.tfrecord'
  name = next(file for file, split in manifest.load(
      str(tmp_path), 'pets').files.items() if split == 'train')
  rewrite(path, set_bytes('image/filename', name.encode()), number=0)
  problem, = problems(tmp_path)
  assert 'photo %r: a photo of this name is in pets_train-' % name in problem


def test_verify_num_decoded_limits_decoding(pets):
  rewrite(shard(pets), set_bytes('image/encoded', b'no photo'), number=3)
  assert not problems(pets, num_decoded=1)
  assert problems(pets, num_decoded=0)


def test_verify_missing_shards_are_named(converted, pets, tmp_path_factory):
  folder = tmp_path_factory.mktemp('copy')
  copy(converted, folder)
  shard(folder).unlink()
  assert problems(folder) == [
      'the manifest pets.json names 1 files that are missing, the first is '
      'pets_train-00001-of-00002.tfrecord']
  shard(pets, 0).unlink()
  assert problems(pets) == ['only 1 of the 2 files like '
                            'pets_train-00001-of-00002.tfrecord exist']


def test_verify_lost_records_are_noticed_by_manifest(converted, tmp_path):
  copy(converted, tmp_path)
  path = shard(tmp_path)
  path.write_bytes(path.read_bytes()[:offsets(path)[5]])
  assert problems(tmp_path) == [
      'the files hold 13 records, but the manifest pets.json says 16; '
      'pets_train-00001-of-00002.tfrecord holds 5 of them']


def test_verify_unknown_names_raise_input_error(pets):
  with pytest.raises(InputError, match="'cows' is not converted"):
    list(verify.verify(str(pets), 'cows'))
  with pytest.raises(InputError, match="'dev'; known: test, train"):
    list(verify.verify(str(pets), 'pets', 'dev'))


# The first problem, as training looks for it.


def test_first_problem_ignores_sizes_and_labels(pets):
  rewrite(shard(pets, 0), set_int('image/height', 99))
  rewrite(shard(pets), set_int('image/class/label', 99))
  files = [str(shard(pets, index)) for index in (0, 1)]
  assert record_check.first_problem(files, decode=True) is None
  rewrite(shard(pets), set_bytes('image/encoded', b'no photo'), number=6)
  assert record_check.first_problem(files, decode=False) is None
  assert record_check.first_problem(files, decode=True).index == 6


# The program.


def test_program_prints_problems_and_exits_with_1(pets):
  flip(shard(pets), offsets(shard(pets))[3] + 30)
  completed = helpers.run_program(
      'tools/verify_tfrecord.py', '--dataset_name=pets',
      '--dataset_dir=%s' % pets)
  lines = completed.stdout.splitlines()
  assert completed.returncode == 1 and 'Traceback' not in completed.stderr
  assert lines[0].startswith('test: 5 records in 1 files, ')
  assert lines[0].endswith(', 5 photos decoded: all well')
  assert lines[1].startswith('%s, record 3 (byte ' % shard(pets))
  assert lines[2].startswith('train: 17 records in 2 files, ')
  assert lines[2].endswith('PROBLEMS: 1') and len(lines) == 3


def test_program_without_problems_exits_with_0(converted):
  completed = helpers.run_program(
      'tools/verify_tfrecord.py', '--dataset_name=pets',
      '--dataset_dir=%s' % converted, '--dataset_split_name=train')
  assert (completed.returncode, completed.stderr) == (0, '')
  assert completed.stdout.startswith('train: 16 records in 2 files, ')


def test_format_report_limits_problems_and_prints_one_line_each():
  from tools import verify_tfrecord
  rows = [record_check.Problem('x', index, 0, 'a\nb', 'bad\nphoto')
          for index in range(5)]
  report = verify.SplitReport('train', 1, 5, 1000, 5, rows)
  lines = verify_tfrecord.format_report(report, 2).splitlines()
  assert lines == [
      "x, record 0 (byte 0), photo 'a\\nb': bad photo",
      "x, record 1 (byte 0), photo 'a\\nb': bad photo",
      'and 3 more; --max_problems=0 prints all of them',
      'train: 5 records in 1 files, 0.0 MB, 5 photos decoded: PROBLEMS: 5']
  assert len(verify_tfrecord.format_report(report, 0).splitlines()) == 6


def test_check_file_accepts_png_of_make_example(tmp_path):
  png = dataset_kit.photo_bytes(1, 'PNG')
  example = record_dataset.make_example(png, 10, 12, 1, 'a', b'png')
  dataset_kit.write_records(tmp_path / 'one', [example])
  with record_check.PhotoDecoder() as decoder:
    report = record_check.check_file(str(tmp_path / 'one'), range(2), decoder)
  assert report == (str(tmp_path / 'one'), 1, 1,
                    [(0, 0, 'a', zlib.crc32(png))], [])
