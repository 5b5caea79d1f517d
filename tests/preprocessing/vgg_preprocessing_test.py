"""Tests of vgg_preprocessing.py: sizes, crops and means are those of slim."""

import numpy as np
import pytest

from compat import tf
from preprocessing import vgg_preprocessing as preprocessing
from preprocessing.draws import Draws

MEANS = [123.68, 116.78, 103.94]


def _draw(build, count=1):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(5)
    output = build()
    return [session.run(output) for _ in range(count)]


def _ramp(height, width):
  """Returns a photo with a ramp from 0 to 255 along each axis."""
  rows, columns = np.mgrid[0:height, 0:width]
  return np.stack([rows * 255 / (height - 1), columns * 255 / (width - 1),
                   0 * rows], -1).astype('float32')


@pytest.mark.parametrize('shape', [(300, 400, 3), (400, 300, 3)])
@pytest.mark.parametrize('low, high', [(256, 512), (256, 256), (300, 320)])
def test_train_shorter_side_is_in_the_range(low, high, shape):
  draws = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(_ramp(*shape[:2])), 224, 224, low, high), 60)
  # The part of the shorter side that is inside the crop gives its length.
  axis = int(np.argmin(shape[:2]))
  spans = np.array([np.ptp((image + MEANS)[..., axis]) for image in draws])
  sides = 223 * 255 / spans
  assert low - 3 < sides.min() and sides.max() < high + 3
  assert np.ptp(sides) >= 0.8 * (high - low)
  # The aspect ratio is kept.
  longer = np.array([np.ptp((image + MEANS)[..., 1 - axis]) for image in draws])
  np.testing.assert_allclose(spans / longer, 4 / 3, rtol=0.03)


def test_train_crops_everywhere_and_flips_half():
  draws = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(_ramp(256, 256)), 32, 32, 256, 256), 200)
  tops = np.array([(image + MEANS)[0, 0, 0] for image in draws])
  lefts = np.array([(image + MEANS)[0, :, 1].min() for image in draws])
  for offsets in (tops, lefts):
    assert -0.01 < offsets.min() < 12
    assert 212 < offsets.max() < 224.5
  flipped = sum(image[0, 0, 1] > image[0, -1, 1] for image in draws)
  assert 70 < flipped < 130
  assert all(image[0, 0, 0] < image[-1, 0, 0] for image in draws)


def test_train_subtracts_the_means_and_scales_nothing():
  image, = _draw(lambda: preprocessing.preprocess_for_train(
      tf.fill([300, 300, 3], tf.cast(200, tf.uint8)), 224, 224))
  np.testing.assert_allclose(image, np.tile(200 - np.array(MEANS),
                                            (224, 224, 1)), rtol=1e-4)


def test_train_reversed_range_of_sides_is_refused():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='resize_side_min 300 is above'):
      preprocessing.preprocess_for_train(tf.zeros([300, 300, 3]), 224, 224,
                                         300, 256)


@pytest.mark.parametrize('is_training', [False, True])
def test_output_larger_than_the_side_is_filled(is_training):
  image, = _draw(lambda: preprocessing.preprocess_image(
      tf.fill([100, 150, 3], tf.cast(200, tf.uint8)), 600, 520, is_training))
  assert image.shape == (600, 520, 3)
  np.testing.assert_allclose(image + MEANS, 200, rtol=1e-4)


def test_eval_crops_the_middle():
  image, = _draw(lambda: preprocessing.preprocess_for_eval(
      tf.constant(_ramp(256, 512)), 224, 224, 256))
  image += np.array(MEANS)
  # Rows 16 to 239 of 256 and columns 144 to 367 of 512.
  np.testing.assert_allclose(
      [image[0, 0, 0], image[-1, 0, 0], image[0, 0, 1], image[0, -1, 1]],
      [16, 239, 144 * 255 / 511, 367 * 255 / 511], rtol=1e-4)


def test_eval_resize_side_is_used():
  small, large = (_draw(lambda side=side: preprocessing.preprocess_image(
      tf.constant(_ramp(300, 300)), 224, 224, resize_side_min=side))[0]
                  for side in (224, 448))
  assert np.ptp(small[..., 0]) > 250
  assert 120 < np.ptp(large[..., 0]) < 130


def test_train_options_reach_preprocess_image():
  draws = _draw(lambda: preprocessing.preprocess_image(
      tf.constant(_ramp(300, 300)), 224, 224, True, 224, 224), 3)
  assert all(np.ptp(image[..., 0]) > 250 for image in draws)


def _preprocess_like_slim(image, is_training, seed):
  """Returns a photo preprocessed like slim: all of it resized, then cropped."""
  shape = tf.to_float(tf.shape(image)[:2])
  draws = Draws(seed)
  side = 256 + draws.integer(257) if is_training else 256
  size = tf.to_int32(tf.rint(shape * (tf.to_float(side) /
                                      tf.reduce_min(shape))))
  resized = tf.image.resize_images(tf.to_float(image), size)
  if is_training:
    return draws.flip(draws.crop(resized, 224, 224)) - MEANS
  offsets = tf.concat([(size - 224) // 2, [0]], 0)
  return tf.slice(resized, offsets, [224, 224, 3]) - MEANS


# Ordinary photos; then thin ones, which are not resized as a whole.
@pytest.mark.parametrize('shapes', [
    [(256, 256), (480, 640), (640, 480), (37, 41), (333, 1000), (50, 200)],
    [(50, 201), (201, 50), (17, 300), (231, 11), (1, 9), (40, 3001)]])
def test_photo_of_any_aspect_equals_the_whole_photo_resized_then_cropped(
    shapes):
  random = np.random.RandomState(3)
  with tf.Graph().as_default(), tf.Session() as session:
    image = tf.placeholder(tf.uint8, [None, None, 3])
    seed = tf.placeholder(tf.int64, [2])
    outputs, expected = [], []
    for is_training in (False, True):
      outputs.append(preprocessing.preprocess_image(
          image, 224, 224, is_training, seed=seed))
      expected.append(_preprocess_like_slim(image, is_training, seed))
    for shape in shapes:
      photo = random.randint(0, 256, shape + (3,))
      for number in range(3):
        values, expected_values = session.run((outputs, expected), {
            image: photo, seed: [number, shape[0]]})
        np.testing.assert_array_equal(values, expected_values, str(shape))


def test_means_have_slims_names():
  assert [preprocessing._R_MEAN, preprocessing._G_MEAN,
          preprocessing._B_MEAN] == MEANS
