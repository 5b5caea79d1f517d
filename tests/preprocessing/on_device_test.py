"""Tests of the part of training's preprocessing that is done in batches."""

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from preprocessing import colors, preprocessing_factory
from preprocessing import inception_preprocessing as inception

COUNT = 24
SIZE = 24
CHANGES = {'brightness': (tf.image.adjust_brightness, -0.1, 0.1),
           'contrast': (tf.image.adjust_contrast, 0.5, 1.5),
           'hue': (tf.image.adjust_hue, -0.2, 0.2),
           'saturation': (tf.image.adjust_saturation, 0.5, 1.5)}


def photos(height, width, channels, low=0, high=256):
  """Returns a batch of random photos of few colours, uint8."""
  small = np.random.RandomState(0).randint(
      low, high, [COUNT, height // 6, width // 6, channels])
  return small.repeat(6, 1).repeat(6, 2).astype(np.uint8)


def both_ways(family, images, **options):
  """Preprocesses photos with the same seeds at once, and in two parts.

  Returns:
    The results, and the uint8 images between the parts.
  """
  arguments = {}
  if family == 'inception' and images.shape[1:3] == (SIZE, SIZE):
    arguments['crop_image'] = False
  with tf.Graph().as_default(), tf.Session() as session:
    image = tf.placeholder(tf.uint8, [None, None, images.shape[3]])
    seed = tf.placeholder(tf.int64, [2])
    at_once, first = (preprocessing_factory.get_preprocessing(
        family, True, SIZE, SIZE, on_device=on_device, **options)
                      for on_device in (False, True))
    assert at_once.distort_batch is None
    tensors = [fn(image, seed=seed, **arguments) for fn in (at_once, first)]
    assert tensors[1].dtype == tf.uint8
    expected, resized, numbers = map(np.stack, zip(*(
        session.run([*tensors, first.draw(seed)],
                    {image: one, seed: [7, number]})
        for number, one in enumerate(images))))
    batch = first.distort_batch(tf.constant(resized), tf.constant(numbers))
    assert batch.shape.as_list() == [COUNT, SIZE, SIZE, images.shape[3]]
    return expected, session.run(batch), resized


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('fast_mode', [True, False])
def test_inception_of_photos_that_need_no_resizing_is_the_same(fast_mode,
                                                               channels):
  images = photos(SIZE, SIZE, channels)
  expected, got, resized = both_ways('inception', images, fast_mode=fast_mode)
  np.testing.assert_array_equal(resized, images)
  np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('family, fast_mode, unit', [
    ('inception', True, 2 / 255), ('inception', False, 2 / 255),
    ('vgg', True, 1.0)])
def test_resized_photos_differ_by_the_rounding_only(family, fast_mode, unit,
                                                    channels):
  # Bicubic resizing leaves [0, 255] at edges from black to white, which uint8
  # cannot hold.
  images = photos(60, 78, channels, 60, 200)
  expected, got, _ = both_ways(family, images, fast_mode=fast_mode)
  differences = (got - expected) / unit
  # Contrast and saturation multiply it by up to 1.5.
  assert np.quantile(np.abs(differences), 0.99) < (0.501 if family == 'vgg'
                                                   else 1.2)
  assert np.abs(differences.mean()) < 0.05
  for statistic in (np.mean, np.std, *(
      lambda image, share=share: np.quantile(image, share)
      for share in (0.1, 0.5, 0.9))):
    np.testing.assert_allclose(*(
        [statistic(image) / unit for image in result]
        for result in (got, expected)), atol=1.2)


@pytest.mark.parametrize('name', sorted(CHANGES))
def test_color_change_of_a_batch_equals_tensorflows_kernels(name):
  kernel, low, high = CHANGES[name]
  images = photos(12, 18, 3)[:8] / np.float32(255)
  amounts = np.linspace(low, high, len(images)).astype(np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    planes = getattr(colors, name)(
        colors.to_planes(tf.constant(images)), tf.constant(amounts[:, None]))
    got, expected = session.run([
        colors.to_image(planes, 12, 18),
        [kernel(tf.constant(image), amount)
         for image, amount in zip(images, amounts)]])
  np.testing.assert_allclose(got, expected, atol=1e-4)


def test_distort_batch_photos_have_their_own_amounts_and_orders():
  grey = np.full([COUNT, SIZE, SIZE, 3], 128, np.uint8)
  grey[:, :SIZE // 2] = [200, 60, 20]
  numbers = np.random.RandomState(1).uniform(size=[COUNT, 24])
  with tf.Graph().as_default(), tf.Session() as session:
    results = [session.run(inception.distort_batch(
        tf.constant(grey), tf.constant(numbers.astype(np.float32)), fast_mode))
               for fast_mode in (True, False)]
  for result in results:
    assert len({image.tobytes() for image in result}) == COUNT


@pytest.mark.parametrize('family', ['cifarnet', 'lenet'])
def test_on_device_without_batches_is_refused_in_one_line(family):
  with pytest.raises(InputError, match=(
      '--preprocess_on_device works with the preprocessings inception and vgg, '
      "not with '%s'" % family)):
    preprocessing_factory.get_preprocessing(family, True, on_device=True)
