"""VGG preprocessing: random scales and crops, the mean colour subtracted.

For the VGG and ResNet V1 networks. Karen Simonyan, Andrew Zisserman: Very Deep
Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556,
section 3.1 (multi-scale training).
"""

from compat import tf
from errors import InputError
from preprocessing.draws import Draws

# Mean of ImageNet's training photos: red, green, blue in [0, 255].
MEANS = (123.68, 116.78, 103.94)
# The names that programs written for slim read.
_R_MEAN, _G_MEAN, _B_MEAN = MEANS

# Pixels of the shorter side, before the crop.
RESIZE_SIDE_MIN = 256
RESIZE_SIDE_MAX = 512


def preprocess_for_train(image, output_height, output_width,
                         resize_side_min=RESIZE_SIDE_MIN,
                         resize_side_max=RESIZE_SIDE_MAX, seed=None):
  """Resizes, crops and flips a photo at random.

  Args:
    image: `[h, w, 3]` tensor in [0, 255].
    output_height: of the result, in pixels.
    output_width: of the result, in pixels.
    resize_side_min: least length of the shorter side, in pixels. Where the
      result is larger than that, its larger side is the least length.
    resize_side_max: greatest length of the shorter side, in pixels.
    seed: `[2]` int64 tensor that decides all that is random; None: another one
      each time.

  Returns:
    `[output_height, output_width, 3]` float32: [0, 255] minus MEANS.

  Raises:
    ValueError: `resize_side_min` is above `resize_side_max`.
  """
  if resize_side_min > resize_side_max:
    raise InputError('resize_side_min %d is above resize_side_max %d' %
                     (resize_side_min, resize_side_max))
  least = max(resize_side_min, output_height, output_width)
  greatest = max(resize_side_max, least)
  draws = Draws(seed)
  side = least + draws.integer(greatest + 1 - least)
  image = _resize_shorter_side(image, side)
  image = draws.crop(image, output_height, output_width)
  return draws.flip(image) - MEANS


def preprocess_for_eval(image, output_height, output_width,
                        resize_side=RESIZE_SIDE_MIN):
  """Resizes a photo and cuts its middle out.

  Args:
    image: `[h, w, 3]` tensor in [0, 255].
    output_height: of the result, in pixels.
    output_width: of the result, in pixels.
    resize_side: length of the shorter side before the crop, in pixels. Where
      the result is larger than that, its larger side is the length.

  Returns:
    `[output_height, output_width, 3]` float32: [0, 255] minus MEANS.
  """
  side = tf.constant(max(resize_side, output_height, output_width))
  image = _resize_shorter_side(image, side)
  offsets = (tf.shape(image)[:2] - [output_height, output_width]) // 2
  image = tf.slice(image, tf.concat([offsets, [0]], 0),
                   [output_height, output_width, 3])
  return image - MEANS


def preprocess_image(image, output_height, output_width, is_training=False,
                     resize_side_min=RESIZE_SIDE_MIN,
                     resize_side_max=RESIZE_SIDE_MAX, seed=None):
  """Makes a photo the input of a network.

  Args:
    image: `[h, w, 3]` tensor in [0, 255].
    output_height: of the result, in pixels.
    output_width: of the result, in pixels.
    is_training: whether to distort it for training.
    resize_side_min: least length of the shorter side before the crop, in
      pixels; for evaluation its length.
    resize_side_max: greatest length of the shorter side; only for training.
    seed: as for `preprocess_for_train`; only for training.

  Returns:
    `[output_height, output_width, 3]` float32: [0, 255] minus MEANS.

  Raises:
    ValueError: for training, `resize_side_min` is above `resize_side_max`.
  """
  if is_training:
    return preprocess_for_train(image, output_height, output_width,
                                resize_side_min, resize_side_max, seed)
  return preprocess_for_eval(image, output_height, output_width,
                             resize_side_min)


def _resize_shorter_side(image, side):
  """Resizes bilinearly so that the shorter side has `side` pixels."""
  shape = tf.to_float(tf.shape(image)[:2])
  scale = tf.to_float(side) / tf.reduce_min(shape)
  size = tf.to_int32(tf.rint(shape * scale))
  return tf.image.resize_images(tf.to_float(image), size)
