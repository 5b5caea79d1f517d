"""Tests of preprocessing/draws.py: seeded, with slim's distributions."""

import numpy as np
import pytest

from compat import tf
from preprocessing.draws import Draws

pytestmark = pytest.mark.slow

COUNT = 3000


def draw(build, count=COUNT, first=0):
  """Returns the values of `build(Draws(seed))` for `count` seeds."""
  with tf.Graph().as_default(), tf.Session() as session:
    seed = tf.placeholder(tf.int64, [2])
    run = session.make_callable(build(Draws(seed)), [seed])
    return np.array([run([first, number]) for number in range(count)])


def distance(first, second):
  """Returns the Kolmogorov-Smirnov distance of two samples."""
  values = np.sort(np.concatenate([first, second]))
  return np.abs(np.searchsorted(np.sort(first), values, 'right') / len(first) -
                np.searchsorted(np.sort(second), values, 'right') / len(second)
                ).max()


def kernel_boxes(shape, objects, count=COUNT, **options):
  """Returns boxes of TensorFlow's kernel: top, left, height, width."""
  with tf.Graph().as_default(), tf.Session() as session:
    # The kernel does not follow tf.set_random_seed.
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.constant(shape + (3,)), tf.constant(objects, tf.float32),
        seed=3, seed2=3, **options)
    run = session.make_callable(tf.concat([begin[:2], size[:2]], 0))
    return np.array([run() for _ in range(count)])


SLIMS = dict(min_object_covered=0.1, aspect_ratio_range=(0.75, 1.33),
             area_range=(0.05, 1.0), max_attempts=100)


def measures(boxes):
  """Returns {name: values} of the boxes, with their areas and aspects."""
  top, left, height, width = boxes.T.astype(float)
  return {'top': top, 'left': left, 'height': height, 'width': width,
          'area': height * width, 'aspect': width / height}


def assert_same_distribution(got, expected):
  """Asserts that two samples of boxes have the same distribution.

  With 3,000 boxes each, 0.05 is exceeded by chance once in a thousand.
  """
  expected = measures(expected)
  for name, values in measures(got).items():
    assert distance(values, expected[name]) < 0.05, name
  # Few boxes are close to the largest area.
  largest = [measures(got)['area'].max(), expected['area'].max()]
  assert min(largest) > 0.96 * max(largest)


@pytest.mark.parametrize('shape', [(400, 533), (533, 400), (100, 1000),
                                   (12, 10)], ids=str)
def test_box_has_the_distribution_of_the_kernel(shape):
  whole = [[[0.0, 0.0, 1.0, 1.0]]]
  assert_same_distribution(draw(lambda draws: draws.box(shape)),
                           kernel_boxes(shape, whole, **SLIMS))


@pytest.mark.parametrize('objects', [
    [[[0.5, 0.5, 0.75, 0.8]]], [[[0.1, 0.1, 0.2, 0.2], [0.6, 0.1, 1.0, 0.5]]]],
    ids=['one', 'two'])
def test_box_around_objects_has_the_distribution_of_the_kernel(objects):
  options = dict(SLIMS, min_object_covered=0.4, area_range=(0.1, 0.6))
  got = draw(lambda draws: draws.box((300, 400), tf.constant(objects),
                                     **options))
  assert_same_distribution(got, kernel_boxes((300, 400), objects, **options))


@pytest.mark.parametrize('name, value', [
    ('min_object_covered', 0.15), ('aspect_ratio_range', (0.8, 1.33)),
    ('aspect_ratio_range', (0.75, 1.25)), ('area_range', (0.15, 1.0)),
    ('area_range', (0.05, 0.9))])
def test_box_with_another_option_has_another_distribution(name, value):
  expected = kernel_boxes((400, 533), [[[0.0, 0.0, 1.0, 1.0]]], **SLIMS)
  options = dict(SLIMS, **{name: value})
  got = draw(lambda draws: draws.box((400, 533), **options))
  with pytest.raises(AssertionError):
    assert_same_distribution(got, expected)


def test_box_without_a_valid_attempt_is_the_whole_photo():
  boxes = draw(lambda draws: draws.box((20, 400), aspect_ratio_range=(0.1, 0.1),
                                       area_range=(0.9, 1.0)), 20)
  assert (boxes == [0, 0, 20, 400]).all()


def test_box_without_objects_is_the_whole_photo():
  boxes = draw(lambda draws: draws.box((20, 40), tf.zeros([1, 0, 4])), 5)
  assert (boxes == [0, 0, 20, 40]).all()


def test_box_stays_inside_small_photos():
  for shape in ((1, 1), (1, 7), (3, 2)):
    for top, left, height, width in draw(lambda draws, shape=shape: draws.box(
        shape), 50):
      assert height >= 1 and width >= 1 and top >= 0 and left >= 0
      assert top + height <= shape[0] and left + width <= shape[1]


def test_box_does_not_depend_on_earlier_draws():
  def box_after_draw(draws):
    draws.uniform(0.0, 1.0)
    return draws.box((400, 533))
  np.testing.assert_array_equal(
      draw(box_after_draw, 20), draw(lambda draws: draws.box((400, 533)), 20))


def test_uniform_is_evenly_distributed_between_its_bounds():
  numbers = draw(lambda draws: draws.uniform(0.5, 1.5))
  assert distance(numbers, np.linspace(0.5, 1.5, 10000)) < 0.04


def test_numbers_of_a_photo_are_independent():
  pairs = draw(lambda draws: tf.stack(
      [draws.uniform(0.0, 1.0) for _ in range(24)]))
  correlation = np.corrcoef(pairs.T) - np.eye(24)
  assert np.abs(correlation).max() < 0.08
  assert len(np.unique(pairs)) > 0.99 * pairs.size


def test_numbers_depend_on_both_halves_of_the_seed():
  first, second = (draw(lambda draws: draws.uniform(0.0, 1.0), 20, first)
                   for first in (0, 1))
  assert len(set(first) | set(second)) == 40


def test_integer_draws_each_number_equally_often():
  counts = np.bincount(draw(lambda draws: draws.integer(4)))
  assert len(counts) == 4 and counts.min() > 660 and counts.max() < 840


def test_flip_mirrors_half_of_the_photos():
  photo = np.arange(12).reshape(2, 2, 3)
  flipped = 0
  for image in draw(lambda draws: draws.flip(tf.constant(photo)), 400):
    is_flipped = image[0, 0, 0] != 0
    np.testing.assert_array_equal(image, photo[:, ::-1] if is_flipped
                                  else photo)
    flipped += is_flipped
  assert 160 < flipped < 240


def test_crop_reaches_every_position():
  photo = np.arange(20).reshape(4, 5, 1)
  corners = set()
  for image in draw(lambda draws: draws.crop(tf.constant(photo), 3, 3), 200):
    row, column = divmod(image[0, 0, 0], 5)
    np.testing.assert_array_equal(image, photo[row:row + 3, column:column + 3])
    corners.add((row, column))
  assert corners == {(row, column) for row in range(2) for column in range(3)}


def test_draws_without_a_seed_use_the_seed_of_the_graph():
  results = []
  for seed in (1, 1, 2, None, None):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(seed)
      number = Draws().uniform(0.0, 1.0)
      results.append([session.run(number) for _ in range(3)])
  assert results[0] == results[1]
  assert len({number for result in results[1:] for number in result}) == 12
