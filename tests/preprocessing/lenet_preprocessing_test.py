"""Tests of lenet_preprocessing.py: crop or pad, and scale."""

import numpy as np
import pytest

from compat import tf
from preprocessing import lenet_preprocessing


def _run(photo, height, width, is_training=False):
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(lenet_preprocessing.preprocess_image(
        tf.constant(photo), height, width, is_training))


@pytest.mark.parametrize('is_training', [False, True])
def test_preprocess_image_scales_to_minus_1_and_1(is_training):
  photo = np.array([0, 64, 128, 255], 'uint8').reshape(2, 2, 1)
  image = _run(photo, 2, 2, is_training)
  assert image.dtype == np.float32
  assert image.ravel().tolist() == [-1.0, -0.5, 0.0, 127 / 128]


def test_preprocess_image_crops_the_middle():
  photo = np.arange(36, dtype='uint8').reshape(6, 6, 1)
  image = _run(photo, 2, 4)
  np.testing.assert_array_equal(image * 128 + 128, photo[2:4, 1:5])


def test_preprocess_image_pads_with_black():
  image = _run(np.full((2, 2, 1), 128, 'uint8'), 4, 4)
  assert (image[1:3, 1:3] == 0).all() and image.sum() == -12
