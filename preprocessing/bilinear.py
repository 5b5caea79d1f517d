"""Bilinear resizing that reads only the pixels that it needs, and rounding.

tf.image.resize_images needs a copy of the cropped part of a photo, and a
float32 copy if the values are scaled first: many bytes for each pixel of the
photo. The functions here take memory only for the pixels of the result, and
give the same values, bit for bit.
"""

from typing import Tuple, Union

from compat import tf

# Of each resized pixel, on one axis: the pixel before, the pixel after, and the
# distance from the pixel before.
Neighbours = Tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def sample(image: tf.Tensor, rows: Neighbours,
           columns: Neighbours) -> tf.Tensor:
  """Interpolates between pixels of an image.

  Args:
    image: `[h, w, channels]` tensor.
    rows: result of `neighbours` for the rows.
    columns: result of `neighbours` for the columns.

  Returns:
    `[number of rows, number of columns, channels]` float32.
  """
  above, below, down = rows
  before, after, right = columns
  shape = tf.shape(image)
  starts = tf.expand_dims(tf.concat([above, below], 0), 1) * shape[1]
  places = starts + tf.concat([before, after], 0)
  pixels = tf.to_float(tf.gather(
      tf.reshape(image, tf.stack([-1, shape[2]])), places))
  lefts, rights = tf.split(pixels, 2, axis=1)
  pixels = lefts + (rights - lefts) * tf.reshape(right, [1, -1, 1])
  tops, bottoms = tf.split(pixels, 2)
  return tops + (bottoms - tops) * tf.reshape(down, [-1, 1, 1])


def to_bytes(image: tf.Tensor) -> tf.Tensor:
  """Rounds the pixels of an image, in [0, 255], to uint8."""
  return tf.cast(tf.to_float(image) + 0.5, tf.uint8)


def neighbours(start: Union[int, tf.Tensor], length: Union[int, tf.Tensor],
               resized_length: Union[int, tf.Tensor],
               first: Union[int, tf.Tensor], count: int) -> Neighbours:
  """Returns the source pixels around each resized pixel, on one axis.

  As in tf.image.resize_images without aligned corners, pixel i of the result is
  at i * length / resized_length.

  Args:
    start: first pixel of the part of the image that is resized, int32.
    length: length of that part, in pixels, scalar int32.
    resized_length: length of that part after resizing, in pixels.
    first: first pixel of the resized part to compute, int32.
    count: number of pixels to compute.

  Returns:
    `[count]` int32, the pixel before; `[count]` int32, the pixel after;
    `[count]` float32, the distance from the pixel before, in [0, 1).
  """
  # In float32 as in the kernel, for the same rounding. The quotient is first
  # computed in float64: TensorFlow replaces a division by a constant with a
  # product with its reciprocal, which rounds differently.
  scale = tf.to_float(tf.cast(length, tf.float64) /
                      tf.cast(resized_length, tf.float64))
  place = tf.to_float(first + tf.range(count)) * scale
  before = tf.minimum(tf.to_int32(tf.floor(place)), length - 1)
  return (start + before, start + tf.minimum(before + 1, length - 1),
          place - tf.floor(place))
