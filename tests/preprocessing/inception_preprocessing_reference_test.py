"""Tests of inception_preprocessing.py against slim's operations.

The reference is slim's sequence of operations: the whole photo as float32,
cropped, resized and recoloured by TensorFlow's own functions, with slim's
constants repeated here. It draws the same random numbers.
"""

import numpy as np
import pytest

from compat import tf
from preprocessing import inception_preprocessing as preprocessing
from preprocessing.draws import Draws

# Minimum and maximum of each amount.
RANGES = {'brightness': (-32 / 255, 32 / 255), 'saturation': (0.5, 1.5),
          'hue': (-0.2, 0.2), 'contrast': (0.5, 1.5)}
KERNELS = {'brightness': tf.image.adjust_brightness,
           'saturation': tf.image.adjust_saturation,
           'hue': tf.image.adjust_hue, 'contrast': tf.image.adjust_contrast}
ORDERS = ['brightness saturation hue contrast',
          'saturation brightness contrast hue',
          'contrast hue brightness saturation',
          'hue saturation contrast brightness']
METHODS = ['BILINEAR', 'NEAREST_NEIGHBOR', 'BICUBIC', 'AREA']
HEIGHT, WIDTH = 24, 32


def photo():
  random = np.random.RandomState(1)
  coarse = random.randint(0, 256, (6, 8, 3)).repeat(8, 0).repeat(9, 1)
  noise = random.randint(-20, 21, coarse.shape)
  return np.clip(coarse + noise, 0, 255).astype('uint8')


def distort(seeds, **options):
  """Returns (numbers, window, result) of each seed.

  numbers: the random numbers of the seed in [0, 1), in the order of their use.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    seed = tf.placeholder(tf.int64, [2])
    image = tf.constant(photo())
    draws = Draws(seed)
    outputs = [
        tf.stack([draws.uniform(0.0, 1.0) for _ in range(24)]),
        preprocessing.random_window(tf.shape(image), seed),
        preprocessing.preprocess_for_train(image, HEIGHT, WIDTH, seed=seed,
                                           **options)]
    return [session.run(outputs, {seed: value}) for value in seeds]


def choices(numbers, fast_mode):
  """Returns method, flipped, order and (name, amount) of each change."""
  numbers = list(numbers)
  method = 0 if fast_mode else int(numbers.pop(0) * 4)
  flipped = numbers.pop(0) < 0.5
  order = 0 if fast_mode else int(numbers.pop(0) * 4)
  names = ORDERS[order].split()
  if fast_mode:
    names = names[:2]
  changes = []
  for name, number in zip(names, numbers[4 * order:]):
    low, high = RANGES[name]
    changes.append((name, low + number * (high - low)))
  return method, flipped, order, changes


def reference(photo, window, method, flipped, changes):
  """Returns the result of slim's operations, by TensorFlow's functions."""
  top, left, height, width = window
  image = tf.image.convert_image_dtype(tf.constant(photo), tf.float32)
  image = image[top:top + height, left:left + width]
  image = tf.image.resize_images(
      image, [HEIGHT, WIDTH], getattr(tf.image.ResizeMethod, METHODS[method]))
  if flipped:
    image = tf.image.flip_left_right(image)
  for name, amount in changes:
    image = KERNELS[name](image, amount)
  return (tf.clip_by_value(image, 0.0, 1.0) - 0.5) * 2.0


@pytest.mark.parametrize('fast_mode, count', [(True, 12), (False, 24)])
def test_preprocess_for_train_equals_slims_operations(fast_mode, count):
  seen = set()
  seeds = [[number, 7] for number in range(count)]
  for numbers, window, got in distort(seeds, fast_mode=fast_mode):
    method, flipped, order, changes = choices(numbers, fast_mode)
    seen.update([('method', method), ('flipped', flipped), ('order', order)])
    with tf.Graph().as_default(), tf.Session() as session:
      expected = session.run(
          reference(photo(), window, method, flipped, changes))
    np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=str(
        (METHODS[method], flipped, changes)))
  assert len(seen) == (4 if fast_mode else 10), 'not every choice was seen'


@pytest.mark.parametrize('fast_mode', [True, False])
@pytest.mark.parametrize('order', range(4))
def test_distort_color_has_slims_orders(order, fast_mode):
  names = ORDERS[order].split()
  if fast_mode:
    names = (['brightness', 'saturation'] if order == 0 else
             ['saturation', 'brightness'])
  image = (photo() / 255).astype('float32')
  with tf.Graph().as_default(), tf.Session() as session:
    seed = tf.constant([5, order], tf.int64)
    got = preprocessing.distort_color(tf.constant(image), order, fast_mode,
                                      draws=Draws(seed))
    draws, expected = Draws(seed), tf.constant(image)
    for name in names:
      expected = KERNELS[name](expected, draws.uniform(*RANGES[name]))
    got, expected = session.run([got, tf.clip_by_value(expected, 0.0, 1.0)])
  np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize('name', sorted(RANGES))
def test_amounts_are_spread_evenly_over_slims_ranges(name):
  change, low, high = preprocessing._DISTORTIONS[name]
  assert (low, high) == pytest.approx(RANGES[name], abs=1e-9)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)  # So that the counts are the same in each run.
    planes = [tf.constant([value]) for value in (0.8, 0.5, 0.5)]
    run = session.make_callable(
        tf.concat(change(planes, Draws().uniform(low, high)), 0))
    draws = np.array([run() for _ in range(500)])
  # The amount follows from what a change makes of 0.8, 0.5, 0.5. A plane of one
  # pixel has no contrast; a hue shift either way leaves 0.5 in one channel.
  amounts = {'brightness': draws[:, 0] - 0.8,
             'saturation': (0.8 - draws[:, 1]) / 0.3,
             'hue': (draws[:, 1] - draws[:, 2]) / 0.3 / 6,
             'contrast': np.linspace(low, high, 500)}[name]
  if name == 'hue':  # Beyond 1/6 another channel becomes as large.
    low, high = -1 / 6, 1 / 6
    amounts = amounts[np.abs(amounts) < 0.166]
    assert 0.75 < len(amounts) / 500 < 0.92
  counts = np.histogram(amounts, 5, (low, high))[0]
  assert counts.sum() == len(amounts)
  assert (counts.min() > 0.13 * len(amounts) and
          counts.max() < 0.27 * len(amounts))


def test_choices_are_made_equally_often():
  counts = {'method': np.zeros(4), 'order': np.zeros(4), 'flipped': np.zeros(2)}
  with tf.Graph().as_default(), tf.Session() as session:
    draws = Draws()
    run = session.make_callable([draws.uniform(0.0, 1.0) for _ in range(24)])
    for _ in range(800):
      method, flipped, order, _ = choices(run(), False)
      counts['method'][method] += 1
      counts['order'][order] += 1
      counts['flipped'][int(flipped)] += 1
  for name, count in counts.items():
    assert count.min() > 0.75 * count.mean(), name


def test_window_that_is_cropped_beforehand_gives_the_same_image():
  (_, (top, left, height, width), expected), = distort([[3, 4]])
  cropped = photo()[top:top + height, left:left + width]
  with tf.Graph().as_default(), tf.Session() as session:
    got = session.run(preprocessing.preprocess_image(
        tf.constant(cropped), HEIGHT, WIDTH, is_training=True, crop_image=False,
        seed=tf.constant([3, 4], tf.int64)))
  np.testing.assert_array_equal(got, expected)


def test_float_photos_are_not_scaled_again():
  results = []
  for image in (photo(), (photo() / 255).astype('float32')):
    with tf.Graph().as_default(), tf.Session() as session:
      results.append(session.run(preprocessing.preprocess_for_train(
          tf.constant(image), HEIGHT, WIDTH,
          seed=tf.constant([1, 2], tf.int64))))
  np.testing.assert_allclose(*results, atol=1e-5)
