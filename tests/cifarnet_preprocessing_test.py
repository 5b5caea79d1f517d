"""CifarNet's preprocessing against its figures."""

import numpy as np
import pytest

from compat import tf
from preprocessing import cifarnet_preprocessing as preprocessing


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
  """Row and column of the one bright pixel."""
  return np.unravel_index(image.mean(-1).argmax(), image.shape[:2])


def test_train_shifts_by_up_to_the_padding_and_flips():
  photo = np.zeros((32, 32, 3), 'uint8')
  photo[16, 10] = 255
  offsets = [_offset(image) for image in _draw(
      lambda: preprocessing.preprocess_for_train(tf.constant(photo), 32, 32),
      400)]
  rows = {row for row, _ in offsets}
  columns = {column for _, column in offsets}
  assert rows == set(range(12, 21))  # 16 by 4 either way.
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
def test_train_smaller_image_is_padded_up(height, width):
  image, = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(_noise(height, width)), 32, 32))
  assert image.shape == (32, 32, 3)
  assert np.isfinite(image).all()


def test_train_changes_brightness_before_contrast_by_slims_figures():
  with tf.Graph().as_default() as graph:
    preprocessing.preprocess_for_train(tf.zeros([32, 32, 3]), 32, 32)
    bounds = {op.name: op.get_attr('value').float_val[:]
              for op in graph.get_operations() if op.type == 'Const' and
              op.name.split('/')[-1] in ('min', 'max') and
              op.get_attr('dtype') == tf.float32}
    types = [op.type for op in graph.get_operations()]
    assert 'AdjustContrastv2' in types
  values = [round(value[0], 4) for value in bounds.values()]
  assert values[-4:] == [-63, 63, 0.2, 1.8]


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
  for wanted, count in ((False, 0), (True, 2)):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(1)
      preprocessing.preprocess_image(tf.constant(_noise(32, 32)), 32, 32,
                                     is_training, add_image_summaries=wanted)
      summaries = tf.get_collection(tf.GraphKeys.SUMMARIES)
      assert len(summaries) == count
      assert all(session.run(summaries)) or not wanted


@pytest.mark.parametrize('is_training', [False, True])
def test_preprocess_image_takes_grey_images(is_training):
  image, = _draw(lambda: preprocessing.preprocess_image(
      tf.constant(_noise(32, 32, 1)), 24, 24, is_training))
  assert image.shape == (24, 24, 1)
