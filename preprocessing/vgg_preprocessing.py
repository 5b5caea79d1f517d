"""VGG preprocessing: random scales and crops, the mean colour subtracted.

For the VGG and ResNet V1 networks. Karen Simonyan, Andrew Zisserman: Very Deep
Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556,
section 3.1 (multi-scale training).
"""

from typing import Optional, Tuple

from common.errors import InputError
from compat import tf
from preprocessing import bilinear
from preprocessing.draws import Draws

# Mean of ImageNet's training photos: red, green, blue in [0, 255].
MEANS = (123.68, 116.78, 103.94)
# The names that slim has.
_R_MEAN, _G_MEAN, _B_MEAN = MEANS
# Of grey photos: that colour, by the weights of tf.image.rgb_to_grayscale.
GREY_MEAN = (0.2989 * _R_MEAN + 0.587 * _G_MEAN + 0.114 * _B_MEAN,)

# Length of the shorter side before the crop, in pixels.
RESIZE_SIDE_MIN = 256
RESIZE_SIDE_MAX = 512

# Longer side / shorter side up to which the whole photo is resized before the
# crop. For a thinner photo, only the pixels inside the crop are computed:
# resizing all of a photo of 60,000 x 1 pixels would take 180 GB.
MAX_ASPECT = 4


def preprocess_for_train(image: tf.Tensor, output_height: int,
                         output_width: int,
                         resize_side_min: int = RESIZE_SIDE_MIN,
                         resize_side_max: int = RESIZE_SIDE_MAX,
                         seed: Optional[tf.Tensor] = None,
                         resize_only: bool = False) -> tf.Tensor:
  """Resizes, crops and flips a photo at random.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    resize_side_min: least length of the shorter side, in pixels. If the result
      is larger than that, its larger side is the least length.
    resize_side_max: greatest length of the shorter side, in pixels.
    seed: `[2]` int64 tensor that decides all random values; None: another one
      each time.
    resize_only: whether to return the photo after it is resized and cropped;
      `distort_batch` does the rest.

  Returns:
    `[output_height, output_width, channels]` float32: [0, 255] minus MEANS;
    uint8 if `resize_only`.

  Raises:
    ValueError: `resize_side_min` is above `resize_side_max`.
  """
  if resize_side_min > resize_side_max:
    raise InputError('resize_side_min %d is above resize_side_max %d' %
                     (resize_side_min, resize_side_max))
  least = max(resize_side_min, output_height, output_width)
  greatest = max(resize_side_max, least)
  draws = Draws(seed)
  size = _scaled_size(image, least + draws.integer(greatest + 1 - least))
  top = draws.integer(size[0] - output_height + 1)
  left = draws.integer(size[1] - output_width + 1)
  image = _resize_and_crop(image, size, top, left, output_height, output_width)
  if resize_only:
    return bilinear.to_bytes(image)
  return draws.flip(image) - _means(image)


def distort_batch(images: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
  """Flips photos at random that `preprocess_for_train` has resized and cropped.

  The result is that of `preprocess_for_train` without `resize_only`, apart from
  the rounding to uint8.

  Args:
    images: `[batch, height, width, channels]` uint8.
    numbers: `[batch, numbers]` float32, draws.pool of the seed of each photo.

  Returns:
    `[batch, height, width, channels]` float32: [0, 255] minus MEANS.
  """
  # The first three numbers chose the size and the crop.
  images = Draws(numbers=numbers[:, 3:]).flip(tf.to_float(images))
  return images - _means(images)


def preprocess_for_eval(image: tf.Tensor, output_height: int, output_width: int,
                        resize_side: int = RESIZE_SIDE_MIN) -> tf.Tensor:
  """Resizes a photo and crops its middle.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    resize_side: length of the shorter side before the crop, in pixels. If the
      result is larger than that, its larger side is the length.

  Returns:
    `[output_height, output_width, channels]` float32: [0, 255] minus MEANS.
  """
  size = _scaled_size(image, max(resize_side, output_height, output_width))
  top, left = tf.unstack((size - [output_height, output_width]) // 2)
  return _resize_and_crop(image, size, top, left, output_height,
                          output_width) - _means(image)


def preprocess_image(image: tf.Tensor, output_height: int, output_width: int,
                     is_training: bool = False,
                     resize_side_min: int = RESIZE_SIDE_MIN,
                     resize_side_max: int = RESIZE_SIDE_MAX,
                     seed: Optional[tf.Tensor] = None,
                     resize_only: bool = False) -> tf.Tensor:
  """Converts a photo to the input of a network.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    is_training: whether to distort it for training.
    resize_side_min: least length of the shorter side before the crop, in
      pixels; for evaluation, its length.
    resize_side_max: greatest length of the shorter side; only for training.
    seed: as for `preprocess_for_train`; only for training.
    resize_only: as for `preprocess_for_train`; only for training.

  Returns:
    `[output_height, output_width, channels]` float32: [0, 255] minus MEANS;
    uint8 if `resize_only`.

  Raises:
    ValueError: for training, `resize_side_min` is above `resize_side_max`.
  """
  if is_training:
    return preprocess_for_train(image, output_height, output_width,
                                resize_side_min, resize_side_max, seed,
                                resize_only)
  return preprocess_for_eval(image, output_height, output_width,
                             resize_side_min)


def seen_window(height: int, width: int,
                size: int) -> Tuple[float, float, float, float]:
  """Returns what preprocessing_factory.seen_window does for this family."""
  scale = max(RESIZE_SIDE_MIN, size) / min(height, width)
  top, left = ((round(side * scale) - size) // 2 / scale
               for side in (height, width))
  return top, left, size / scale, size / scale


def _means(image):
  return GREY_MEAN if image.shape.as_list()[-1] == 1 else MEANS


def _scaled_size(image, side):
  """Returns the size of an image whose shorter side is scaled to `side`.

  Args:
    image: `[h, w, channels]` tensor.
    side: length in pixels, a number or a scalar int32 tensor.

  Returns:
    `[2]` int32: height and width in pixels.
  """
  shape = tf.to_float(tf.shape(image)[:2])
  return tf.to_int32(tf.rint(shape * (tf.to_float(side) /
                                      tf.reduce_min(shape))))


def _resize_and_crop(image, size, top, left, height, width):
  """Resizes an image bilinearly and crops the result.

  Args:
    image: `[h, w, channels]` tensor.
    size: `[2]` int32: height and width of the resized image, in pixels.
    top: first row of the part, scalar int32.
    left: first column of the part, scalar int32.
    height: height of the part, in pixels.
    width: width of the part, in pixels.

  Returns:
    `[height, width, channels]` float32, in the range of `image`.
  """
  def crop_after():
    # Without a cast beforehand: the kernel casts the pixels that it reads.
    resized = tf.image.resize_images(image, size)
    return tf.slice(resized, tf.stack([top, left, 0]), [height, width, -1])

  def crop_before():
    shape = tf.shape(image)
    return bilinear.sample(
        image, bilinear.neighbours(0, shape[0], size[0], top, height),
        bilinear.neighbours(0, shape[1], size[1], left, width))

  is_thin = tf.reduce_max(size) > MAX_ASPECT * tf.reduce_min(size)
  result = tf.cond(is_thin, crop_before, crop_after)
  result.set_shape([height, width, image.shape.as_list()[2] or 3])
  return result
