"""Tests of preprocessing/colors.py against TensorFlow's kernels."""

import numpy as np
import pytest

from compat import tf
from preprocessing import colors

KERNELS = {'brightness': tf.image.adjust_brightness,
           'contrast': tf.image.adjust_contrast,
           'hue': tf.image.adjust_hue,
           'saturation': tf.image.adjust_saturation}


def make_photo():
  """Returns colours in and outside of [0, 1], some with equal channels."""
  random = np.random.RandomState(3)
  photo = random.uniform(-0.3, 1.3, (12, 20, 3))
  photo[:5] = random.randint(-1, 5, (5, 20, 3)) / 4
  photo[5], photo[6], photo[7] = 0.3, 0.0, -0.1
  return photo.astype('float32')


def run(name, photo, amount):
  """Returns a photo as changed by the kernel and as changed by colors."""
  with tf.Graph().as_default(), tf.Session() as session:
    photo = tf.constant(photo)
    planes = getattr(colors, name)(colors.to_planes(photo), tf.constant(amount))
    height, width, _ = photo.shape.as_list()
    return session.run([KERNELS[name](photo, amount),
                        colors.to_image(planes, height, width)])


@pytest.mark.parametrize('name, amount', [
    (name, amount) for name, amounts in (
        ('brightness', (-0.12, 0.0, 0.12)),
        ('contrast', (0.5, 1.0, 1.5)),
        ('hue', (-0.2, -0.05, 0.0, 0.13, 0.2)),
        ('saturation', (0.0, 0.5, 0.9, 1.0, 1.2, 1.5))) for amount in amounts])
def test_color_change_equals_tensorflows_kernel(name, amount):
  expected, got = run(name, make_photo(), amount)
  np.testing.assert_allclose(got, expected, atol=5e-6)
  assert (np.abs(expected - make_photo()).max() > 0.04) == (
      amount != (1.0 if name in ('contrast', 'saturation') else 0.0) or
      # The kernel makes pixels without a positive value grey.
      name == 'saturation')


def test_saturation_stops_where_a_channel_would_be_negative():
  photo = np.array([[[0.4, 0.1, 0.2]]], 'float32')
  _, got = run('saturation', photo, 1.5)
  np.testing.assert_allclose(got[0, 0], [0.4, 0.0, 0.4 / 3], atol=1e-6)


def test_contrast_is_relative_to_the_mean_of_each_plane():
  photo = np.array([[[0.2, 0.5, 0.0], [0.4, 0.5, 0.2]]], 'float32')
  _, got = run('contrast', photo, 0.5)
  np.testing.assert_allclose(got[0], [[0.25, 0.5, 0.05], [0.35, 0.5, 0.15]],
                             atol=1e-6)


def test_to_image_is_the_inverse_of_to_planes():
  with tf.Graph().as_default(), tf.Session() as session:
    planes = colors.to_planes(tf.constant(make_photo()))
    planes, image = session.run([planes, colors.to_image(planes, 12, 20)])
  np.testing.assert_array_equal(planes[1], make_photo()[..., 1].ravel())
  np.testing.assert_array_equal(image, make_photo())
