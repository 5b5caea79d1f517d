"""Tests of cifarnet_preprocessing.py: distortions are those of slim."""

import numpy as np
import pytest

from compat import tf
from preprocessing import cifarnet_preprocessing as preprocessing
from preprocessing.draws import Draws


def _draw(build, count=1):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(5)
    output = build()
    return [session.run(output) for _ in range(count)]


def _noise(height, width, channels=3):
  return np.random.RandomState(1).randint(
      1, 256, (height, width, channels)).astype('uint8')


def _standardised(image):
  image = image.astype('float64')
  return (image - image.mean()) / image.std()


def test_train_is_standardised_and_has_the_size():
  for image in _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(_noise(32, 32)), 32, 32), 10):
    assert image.shape == (32, 32, 3)
    assert abs(image.mean()) < 1e-4 and abs(image.std() - 1) < 1e-3


def _offset(image):
  """Returns row and column of the only bright pixel."""
  return np.unravel_index(image.mean(-1).argmax(), image.shape[:2])


def test_train_shifts_by_up_to_the_padding_and_flips():
  photo = np.zeros((32, 32, 3), 'uint8')
  photo[16, 10] = 255
  offsets = [_offset(image) for image in _draw(
      lambda: preprocessing.preprocess_for_train(tf.constant(photo), 32, 32),
      400)]
  rows = {row for row, _ in offsets}
  columns = {column for _, column in offsets}
  assert rows == set(range(12, 21))  # 16, shifted by up to 4 either way.
  assert columns == set(range(6, 15)) | set(range(31 - 14, 31 - 5))
  flipped = sum(column > 15 for _, column in offsets)
  assert 150 < flipped < 250


def test_train_without_padding_only_flips_and_recolours():
  photo = np.zeros((32, 32, 3), 'uint8')
  photo[16, 10] = 255
  offsets = {_offset(image) for image in _draw(
      lambda: preprocessing.preprocess_for_train(tf.constant(photo), 32, 32,
                                                 padding=0), 30)}
  assert offsets == {(16, 10), (16, 21)}


def test_train_pads_with_black():
  photo = np.full((32, 32, 3), 200, 'uint8')
  images = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(photo), 32, 32), 20)
  shifted = [image for image in images if np.ptp(image) > 1]
  assert len(shifted) > 10
  for image in shifted:
    border = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert min(side.min() for side in border) == image.min()


@pytest.mark.parametrize('height, width', [(10, 12), (10, 80), (80, 12)])
def test_train_smaller_image_is_padded(height, width):
  image, = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(_noise(height, width)), 32, 32))
  assert image.shape == (32, 32, 3)
  assert np.isfinite(image).all()


def _preprocess_like_slim(photo, numbers):
  """Returns a photo distorted like slim, by five random numbers in [0, 1)."""
  padded = np.pad(photo.astype('float32'), ((4, 4), (4, 4), (0, 0)), 'constant')
  top, left = int(numbers[0] * 9), int(numbers[1] * 9)
  image = padded[top:top + 32, left:left + 32]
  if numbers[2] < 0.5:
    image = image[:, ::-1]
  image = image + (-63 + numbers[3] * 126)
  mean = image.mean((0, 1))
  return _standardised((image - mean) * (0.2 + numbers[4] * 1.6) + mean)


@pytest.mark.parametrize('number', range(6))
def test_train_equals_slims_operations(number):
  photo = _noise(32, 32)
  photo[:, :, 1] //= 2  # Contrast is adjusted per channel.
  with tf.Graph().as_default(), tf.Session() as session:
    seed = tf.constant([number, 1], tf.int64)
    draws = Draws(seed)
    numbers, got = session.run([
        [draws.uniform(0.0, 1.0) for _ in range(5)],
        preprocessing.preprocess_image(tf.constant(photo), 32, 32,
                                       is_training=True, seed=seed)])
  np.testing.assert_allclose(got, _preprocess_like_slim(photo, numbers),
                             atol=1e-4)


def test_eval_crops_the_middle():
  photo = _noise(40, 50)
  image, = _draw(lambda: preprocessing.preprocess_for_eval(
      tf.constant(photo), 32, 32))
  np.testing.assert_allclose(image, _standardised(photo[4:36, 9:41]),
                             atol=1e-4)


def test_eval_pads_a_smaller_image():
  photo = _noise(20, 24)
  image, = _draw(lambda: preprocessing.preprocess_for_eval(
      tf.constant(photo), 32, 32))
  padded = np.pad(photo, ((6, 6), (4, 4), (0, 0)), 'constant')
  np.testing.assert_allclose(image, _standardised(padded), atol=1e-4)


@pytest.mark.parametrize('is_training', [False, True])
def test_preprocess_image_summaries_are_optional(is_training):
  for enabled, count in ((False, 0), (True, 2)):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(1)
      preprocessing.preprocess_image(tf.constant(_noise(32, 32)), 32, 32,
                                     is_training, add_image_summaries=enabled)
      summaries = tf.get_collection(tf.GraphKeys.SUMMARIES)
      assert len(summaries) == count
      assert all(session.run(summaries)) or not enabled


@pytest.mark.parametrize('is_training', [False, True])
def test_preprocess_image_accepts_grey_images(is_training):
  image, = _draw(lambda: preprocessing.preprocess_image(
      tf.constant(_noise(32, 32, 1)), 24, 24, is_training))
  assert image.shape == (24, 24, 1)
