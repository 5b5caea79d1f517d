"""Tests of datasets/input_pipeline.py: records, shapes, labels and errors."""

import collections
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from compat import tf
from datasets import input_pipeline, record_dataset
from datasets.records import tfrecord_file
from kits import dataset_kit, helpers
from kits.input_kit import (
  decode,
  eval_batches,
  make_dataset,
  photo_numbers,
  preprocess,
  preprocess_randomly,
  train_batches,
)

# photo_to_input.


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_photo_to_input_content_decides_the_format(kind):
  encoded = dataset_kit.photo_bytes(3, kind)
  wanted = np.asarray(Image.open(io.BytesIO(encoded))).astype(int)
  # TensorFlow's and Pillow's JPEG decoders may round differently.
  assert np.abs(decode(encoded) - wanted).max() <= (0 if kind == 'PNG' else 4)


def test_photo_to_input_one_channel_is_grey():
  encoded = dataset_kit.photo_bytes(3, 'PNG')
  wanted = np.asarray(Image.open(io.BytesIO(encoded)).convert('L')).astype(int)
  assert np.abs(decode(encoded, channels=1)[..., 0] - wanted).max() <= 1


def test_photo_to_input_grey_photo_gets_three_channels():
  buffer = io.BytesIO()
  Image.new('L', (12, 10), 77).save(buffer, 'PNG')
  assert np.array_equal(decode(buffer.getvalue()), np.full((10, 12, 3), 77))


def test_photo_to_input_calls_preprocessing_with_image_height_width():
  calls = []

  def record_call(image, height, width):
    calls.append((image.dtype, image.shape.as_list(), height, width))
    return preprocess(image, height, width)

  with tf.Graph().as_default():
    result = input_pipeline.photo_to_input(tf.placeholder(tf.string),
                                           record_call, 5, 7)
  assert calls == [(tf.uint8, [None, None, 3], 5, 7)]
  assert result.shape.as_list() == [5, 7, 3] and result.dtype == tf.float32


# evaluation_batches.


def test_evaluation_batches_367_photos_at_32_are_12_batches(tmp_path):
  dataset = make_dataset(tmp_path, [100, 100, 100, 67])
  batches = eval_batches(dataset, batch_size=32)
  assert [len(batch['label']) for batch in batches] == [32] * 11 + [15]
  assert photo_numbers(batches) == list(range(367))


def test_evaluation_batches_are_the_photos_in_order(tmp_path):
  dataset = make_dataset(tmp_path, [3, 2], num_classes=3)
  batches = eval_batches(dataset)
  assert batches[0]['image'].shape == (4, 8, 8, 3)
  assert batches[0]['image'].dtype == np.float32
  assert batches[0]['label'].dtype == np.int64
  assert batches[0]['label'].tolist() == [0, 1, 2, 0]
  assert batches[1]['filename'].tolist() == [b'4']
  again = eval_batches(dataset, num_threads=1)
  for first, second in zip(batches, again):
    for key in first:
      assert np.array_equal(first[key], second[key])


def test_evaluation_batches_of_one_channel_have_its_shape(tmp_path):
  batches = eval_batches(make_dataset(tmp_path, [2]), channels=1)
  assert batches[0]['image'].shape == (2, 8, 8, 1)


# training_batches.


@pytest.mark.parametrize('sizes', [[12], [1, 5, 6], [2] * 6], ids=str)
def test_training_batches_have_each_record_once_per_epoch(tmp_path, sizes):
  dataset = make_dataset(tmp_path, sizes)
  batches = train_batches(dataset, 9)  # 3 epochs of 12 records.
  for epoch in range(3):
    seen = photo_numbers(batches[3 * epoch:3 * epoch + 3])
    assert sorted(seen) == list(range(12)), 'epoch %d' % epoch
  assert photo_numbers(batches[:3]) != photo_numbers(batches[3:6])


def test_training_batches_have_full_static_shapes(tmp_path):
  with tf.Graph().as_default():
    batches = input_pipeline.training_batches(
        make_dataset(tmp_path, [2]), preprocess, 8, 5)
    element = tf.data.make_one_shot_iterator(batches).get_next()
  assert element['image'].shape.as_list() == [5, 8, 8, 3]
  assert element['label'].shape.as_list() == [5]
  assert element['label'].dtype == tf.int64


def test_training_batches_one_record_fills_every_batch(tmp_path):
  batches = train_batches(make_dataset(tmp_path, [1]), 3)
  assert photo_numbers(batches) == [0] * 12


def test_training_batches_labels_stay_with_their_photos(tmp_path):
  dataset = make_dataset(tmp_path, [5, 6], num_classes=3)
  evaluated = {int(name): image for batch in eval_batches(dataset)
               for name, image in zip(batch['filename'], batch['image'])}
  for batch in train_batches(dataset, 5):
    for name, label, image in zip(batch['filename'], batch['label'],
                                  batch['image']):
      assert label == int(name) % 3
      assert np.array_equal(image, evaluated[int(name)])


def test_training_batches_with_seed_and_one_thread_are_reproducible(tmp_path):
  dataset = make_dataset(tmp_path, [6, 6])
  runs = [train_batches(dataset, 6, num_threads=1, seed=seed,
                        preprocessing_fn=preprocess_randomly)
          for seed in (7, 7, 8)]
  for first, second in zip(runs[0], runs[1]):
    for key in first:
      assert np.array_equal(first[key], second[key])
  assert photo_numbers(runs[0]) != photo_numbers(runs[2])
  # Random operations differ from photo to photo.
  assert len({image.min() for batch in runs[0]
              for image in batch['image']}) > 12


def test_training_batches_without_seed_differ(tmp_path):
  dataset = make_dataset(tmp_path, [20, 20])
  assert photo_numbers(train_batches(dataset, 10)) != photo_numbers(
      train_batches(dataset, 10))


@pytest.mark.slow
@pytest.mark.parametrize('sizes, workers', [
    ([4, 4, 4, 4], 2), ([5, 11], 2), ([16], 2), ([16], 3), ([5, 6, 5], 2),
    ([1, 1], 2), ([1] * 43, 2)], ids=lambda value: str(value)[:20])
def test_training_batches_workers_share_the_records(tmp_path, sizes, workers):
  dataset = make_dataset(tmp_path, sizes)
  shares = []
  for index in range(workers):
    seen = photo_numbers(train_batches(
        dataset, 32, batch_size=1, num_shards=workers, shard_index=index))
    share = set(seen)
    epoch = len(share)  # The first epoch holds each record of the share once.
    assert sorted(seen[:epoch]) == sorted(share)
    shares.append(share)
  counts = collections.Counter(name for share in shares for name in share)
  assert counts == {name: 1 for name in range(sum(sizes))}


@pytest.mark.parametrize('files, workers, opened', [
    (4, 2, 2), (5, 2, 5), (39, 2, 39), (41, 2, 21)])
def test_training_batches_worker_opens_only_its_files_if_there_are_enough(
    tmp_path, files, workers, opened):
  dataset = make_dataset(tmp_path, [2] * files)
  with tf.Graph().as_default():
    input_pipeline.training_batches(
        dataset, preprocess, 8, 1, num_shards=workers, shard_index=0)
    consts = [tf.make_ndarray(op.get_attr('value')).ravel().tolist()
              for op in tf.get_default_graph().get_operations()
              if op.type == 'Const' and op.get_attr('dtype') == tf.string]
  assert max(map(len, consts)) == opened


def test_training_batches_fewer_records_than_workers_is_an_error(tmp_path):
  with pytest.raises(InputError, match='1 records .* 2 workers'):
    train_batches(make_dataset(tmp_path, [1]), 1, num_shards=2)


# Closes sessions while the pipeline prefetches; the argument is a file pattern.
CLOSE_SESSIONS = """
import sys
from kits import input_kit
from datasets import record_dataset
dataset = record_dataset.make_dataset(sys.argv[1], 12, ['a', 'b'])
for _ in range(40):
  input_kit.train_batches(dataset, 1)
"""


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_training_batches_may_be_closed_at_any_moment(tmp_path):
  make_dataset(tmp_path, [1] * 12)
  pythonpath = os.pathsep.join([
      helpers.ROOT, os.path.join(helpers.ROOT, 'tests')])
  # In a separate process: TensorFlow's parallel interleave crashed here.
  done = subprocess.run(
      [sys.executable, '-c', CLOSE_SESSIONS, str(tmp_path / 'pets_train-*')],
      env=dict(os.environ, PYTHONPATH=pythonpath))
  assert done.returncode == 0


def test_training_batches_source_may_be_a_pattern(tmp_path):
  dataset = make_dataset(tmp_path, [2, 2])
  dataset.data_sources = str(tmp_path / 'pets_train-*')
  assert sorted(photo_numbers(train_batches(dataset, 1))) == [0, 1, 2, 3]
  dataset.data_sources = str(tmp_path / 'cats_train-*')
  with pytest.raises(InputError, match="no files: '.*cats_train"):
    train_batches(dataset, 1)


def test_buffer_size_shrinks_for_large_photos(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  path.write_bytes(b'x' * 1000)
  size = input_pipeline._buffer_size([str(path)], 10)
  assert size == input_pipeline.SHUFFLE_RECORDS
  monkeypatch.setattr(input_pipeline, 'SHUFFLE_BYTES', 500)
  assert input_pipeline._buffer_size([str(path)], 10) == 5
  monkeypatch.setattr(input_pipeline, 'SHUFFLE_BYTES', 1)
  assert input_pipeline._buffer_size([str(path)], 10) == 1


# Labels.


def test_labels_offset_is_subtracted(tmp_path):
  paths = [tmp_path / 'imagenet_train-00000-of-00001']
  dataset_kit.write_records(paths[0], [
      record_dataset.make_example(dataset_kit.photo_bytes(label), 10, 12,
                                  label, str(label)) for label in (1, 2)])
  dataset = record_dataset.make_dataset([str(paths[0])], 2,
                                        ['background', 'a', 'b'])
  assert eval_batches(dataset, labels_offset=1)[0]['label'].tolist() == [0, 1]
  assert set(train_batches(dataset, 1, labels_offset=1)[0]['label']) == {0, 1}


@pytest.mark.parametrize('kwargs, labels', [
    ({'labels_offset': 1}, ['a', 'b', 'c']), ({}, ['a', 'b'])], ids=str)
def test_label_out_of_range_names_the_photo(tmp_path, kwargs, labels):
  dataset = make_dataset(tmp_path, [3], num_classes=3, labels=labels)
  for batches in (eval_batches,
                  lambda dataset, **more: train_batches(dataset, 1, **more)):
    with pytest.raises(tf.errors.InvalidArgumentError,
                       match=r'label outside 0 to 1(.|\n)*of photo'):
      batches(dataset, **kwargs)


@pytest.mark.parametrize('offset', [-1, 2])
def test_labels_offset_that_leaves_no_class_is_an_error(tmp_path, offset):
  dataset = make_dataset(tmp_path, [3])
  for batches in (eval_batches,
                  lambda dataset, **more: train_batches(dataset, 1, **more)):
    with pytest.raises(InputError, match='expected 0 to 1 for 2 classes'):
      batches(dataset, labels_offset=offset)


def test_old_record_without_file_name_has_an_empty_file_name(tmp_path):
  example = record_dataset.make_example(dataset_kit.photo_bytes(1), 10, 12, 0,
                                        'x')
  del example.features.feature['image/filename']
  path = os.path.join(str(tmp_path), 'old')
  dataset_kit.write_records(path, [example])
  dataset = record_dataset.make_dataset([path], 1, ['a', 'b'])
  assert eval_batches(dataset)[0]['filename'].tolist() == [b'']


# errors_as_advice.


def read_damaged(dataset, batches=eval_batches):
  """Reads all records as training and evaluation do."""
  with tf.Graph().as_default(), tf.Session() as session:
    make = (input_pipeline.evaluation_batches if batches is eval_batches
            else input_pipeline.training_batches)
    element = tf.data.make_one_shot_iterator(
        make(dataset, preprocess, 8, 4)).get_next()
    with input_pipeline.errors_as_advice():
      for _ in range(10):
        session.run(element)


@pytest.fixture
def damaged(tmp_path):
  """Returns (Dataset, path of its second file, offsets of the records)."""
  dataset = make_dataset(tmp_path, [4, 5, 3])
  path = dataset.data_sources[1]
  return dataset, path, tfrecord_file.record_offsets(path)


def rewrite(path, change, number=2):
  """Applies a function to the features of one record of a file."""
  examples = [tf.train.Example.FromString(data)
              for data in tf.python_io.tf_record_iterator(path)]
  change(examples[number].features.feature)
  dataset_kit.write_records(path, examples)


@pytest.mark.parametrize('batches', [eval_batches, train_batches])
@pytest.mark.parametrize('position', [1, 40])
def test_damaged_record_is_named_in_the_error(damaged, batches, position):
  dataset, path, offsets = damaged
  with open(path, 'r+b') as target:
    target.seek(offsets[2] + position)
    byte = target.read(1)
    target.seek(offsets[2] + position)
    target.write(bytes([byte[0] ^ 1]))
  with pytest.raises(InputError) as caught:
    read_damaged(dataset, batches)
  message = str(caught.value)
  assert message.startswith('%s, record 2 (byte %d): its ' % (path, offsets[2]))
  assert 'verify_tfrecord.py' in message and '\n' not in message


@pytest.mark.parametrize('batches', [eval_batches, train_batches])
def test_photo_that_cannot_be_decoded_is_named_in_the_error(damaged, batches):
  dataset, path, _ = damaged

  def cut_off(feature):
    value = feature['image/encoded'].bytes_list.value
    value[0] = value[0][:-200]

  rewrite(path, cut_off)
  with pytest.raises(InputError, match=r"record 2 \(byte \d+\), photo '6': the "
                     r'photo cannot be decoded: .*verify_tfrecord') as caught:
    read_damaged(dataset, batches)
  assert str(caught.value).startswith(path) and '\n' not in str(caught.value)


def test_record_without_label_is_named_in_the_error(damaged):
  dataset, path, offsets = damaged
  rewrite(path, lambda feature: feature.pop('image/class/label'))
  with pytest.raises(InputError, match=r'record 2 \(byte %d\): '
                     'image/class/label is missing' % offsets[2]) as caught:
    read_damaged(dataset)
  assert str(caught.value).startswith(path)


def test_record_file_that_is_gone_is_named_in_the_error(damaged):
  dataset, path, _ = damaged
  os.remove(path)
  with pytest.raises(InputError, match='the record file .*00001.* is gone'):
    read_damaged(dataset)


def test_label_out_of_range_gives_one_line_error(damaged):
  dataset, _, _ = damaged
  dataset.num_classes = 1
  with pytest.raises(InputError, match='^label outside 0 to 0 .*of photo'):
    read_damaged(dataset)


def test_label_out_of_range_without_photo_name_gives_file_and_record(damaged):
  dataset, path, offsets = damaged
  dataset.num_classes = 3

  def change(feature):
    feature['image/class/label'].int64_list.value[0] = 7
    feature.pop('image/filename')

  rewrite(path, change)
  with pytest.raises(InputError) as caught:
    read_damaged(dataset)
  assert str(caught.value) == (
      'label outside 0 to 2 with --labels_offset=0: %s, record 2 (byte %d): '
      'label 7, expected 0 to 2' % (path, offsets[2]))


def test_errors_as_advice_does_not_change_errors_of_other_nodes():
  with tf.Graph().as_default(), tf.Session() as session:
    photo = tf.image.decode_jpeg(tf.placeholder_with_default(b'x', []))
    wrong = tf.reshape([1, 2], tf.placeholder_with_default([3], [1]))
    for fetch in (photo, wrong):
      with pytest.raises(tf.errors.InvalidArgumentError):
        with input_pipeline.errors_as_advice():
          session.run(fetch)


def test_damage_not_found_again_advises_to_check_the_disk(damaged):
  dataset, _, _ = damaged
  with tf.Graph().as_default():
    input_pipeline.evaluation_batches(dataset, preprocess, 8, 4)
    with pytest.raises(InputError, match=(
        r'\(corrupted at 3\).*can be read: check the disk')):
      with input_pipeline.errors_as_advice():
        raise tf.errors.DataLossError(None, None, 'corrupted at 3')


def test_errors_as_advice_shortens_out_of_memory_but_not_full_disk():
  with tf.Graph().as_default():
    with pytest.raises(InputError) as caught:
      with input_pipeline.errors_as_advice():
        raise tf.errors.ResourceExhaustedError(
            None, None, 'OOM when allocating tensor with shape[9]\n\t [[a]]')
    assert str(caught.value).startswith(
        'out of memory (OOM when allocating tensor with shape[9]): lower '
        '--batch_size')
    assert '\n' not in str(caught.value)
    with pytest.raises(tf.errors.ResourceExhaustedError):
      with input_pipeline.errors_as_advice():
        raise tf.errors.ResourceExhaustedError(
            None, None, '/allocations/a; No space left on device\n\t [[{{node '
            'a}}]]\nHint: If you want to see a list of allocated tensors when '
            'OOM happens, add')
