"""Tests of datasets/input_pipeline.py: partial decoding, and seeds."""

import io

import numpy as np
import pytest
from PIL import Image

from compat import tf
from datasets import decode_graph, input_pipeline
from kits import input_kit as kit
from preprocessing import preprocessing_factory


def smooth_photo(mode='RGB', size=(75, 53), **options):
  """Returns a JPEG (or PNG) whose colours change from pixel to pixel."""
  random = np.random.RandomState(1)
  pixels = random.randint(0, 256, (14, 19, 3)).astype(np.uint8)
  image = Image.fromarray(pixels).resize(size, Image.BICUBIC).convert(mode)
  buffer = io.BytesIO()
  image.save(buffer, options.pop('kind', 'JPEG'), **options)
  return buffer.getvalue()


PHOTOS = {
    '4:4:4': dict(subsampling=0), '4:2:2': dict(subsampling=1),
    '4:2:0': dict(subsampling=2, quality=90),
    'progressive': dict(subsampling=2, progressive=True),
    'grey': dict(mode='L'), 'CMYK': dict(mode='CMYK'), 'PNG': dict(kind='PNG'),
    'grey PNG': dict(mode='L', kind='PNG')}


@pytest.mark.parametrize('kind', sorted(PHOTOS))
def test_photo_to_input_decoded_part_equals_that_of_the_whole_photo(kind):
  encoded = smooth_photo(**PHOTOS[kind])
  preprocess_fn = preprocessing_factory.get_preprocessing('inception', True)
  with tf.Graph().as_default() as graph, tf.Session() as session:
    seed = tf.placeholder(tf.int64, [2])
    part = input_pipeline.photo_to_input(
        tf.constant(encoded), preprocess_fn, 24, 24, seed=seed)
    assert [op for op in graph.get_operations()
            if op.type == 'DecodeAndCropJpeg']
    whole = preprocess_fn(decode_graph.decode(encoded, 3), 24, 24, seed=seed)
    for number in range(40):
      np.testing.assert_array_equal(
          *session.run([part, whole], {seed: [number, 0]}))


@pytest.mark.parametrize('width, height', [(61, 47), (48, 200), (2, 3), (1, 1)])
@pytest.mark.parametrize('kind', sorted(PHOTOS))
def test_photo_to_input_decoded_middle_equals_that_of_the_whole_photo(
    kind, width, height):
  encoded = smooth_photo(**PHOTOS[kind], size=(width, height))
  preprocess_fn = preprocessing_factory.get_preprocessing('inception', False)
  with tf.Graph().as_default() as graph, tf.Session() as session:
    part = input_pipeline.photo_to_input(tf.constant(encoded), preprocess_fn,
                                         24, 24)
    assert [op for op in graph.get_operations()
            if op.type == 'DecodeAndCropJpeg']
    whole = preprocess_fn(decode_graph.decode(encoded, 3), 24, 24)
    np.testing.assert_array_equal(*session.run([part, whole]))


@pytest.mark.slow
@pytest.mark.parametrize('family, options', [
    ('inception', {}), ('inception', {'fast_mode': False}), ('vgg', {}),
    ('cifarnet', {}), ('lenet', {}), ('inception', {'on_device': True})],
                         ids=str)
def test_training_batches_with_seed_and_many_threads_are_reproducible(
    tmp_path, family, options):
  channels = 1 if family == 'lenet' else 3
  dataset = kit.make_dataset(tmp_path, [7, 6])
  runs = [kit.train_batches(
      dataset, 8, num_threads=4, seed=seed, channels=channels,
      preprocessing_fn=preprocessing_factory.get_preprocessing(
          family, True, **options)) for seed in (7, 7, 8)]
  for first, second in zip(runs[0], runs[1]):
    for key in first:
      assert np.array_equal(first[key], second[key])
  assert kit.photo_numbers(runs[0]) != kit.photo_numbers(runs[2])
  # A photo differs from epoch to epoch, unless nothing is random.
  seen = {(name, image.tobytes()) for batch in runs[0]
          for name, image in zip(batch['filename'], batch['image'])}
  assert len(seen) == (13 if family == 'lenet' else 32)


def test_training_batches_with_seed_are_equal_for_two_iterators(tmp_path):
  with tf.Graph().as_default(), tf.Session() as session:
    fn = preprocessing_factory.get_preprocessing('inception', True)
    batches = input_pipeline.training_batches(
        kit.make_dataset(tmp_path, [12]), fn, 8, 4, seed=3)
    first, second = [tf.data.make_one_shot_iterator(batches).get_next()
                     for _ in range(2)]
    for _ in range(6):
      first_batch, second_batch = session.run([first, second])
      for key in first_batch:
        assert np.array_equal(first_batch[key], second_batch[key])


def test_training_batches_without_seed_are_augmented_differently(tmp_path):
  dataset = kit.make_dataset(tmp_path, [1])
  fn = preprocessing_factory.get_preprocessing('inception', True)
  images = [image.tobytes() for _ in range(2)
            for batch in kit.train_batches(dataset, 2, preprocessing_fn=fn)
            for image in batch['image']]
  assert len(set(images)) == 16
