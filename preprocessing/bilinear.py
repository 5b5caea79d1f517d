"""Bilinear resizing that reads only the pixels that it needs.

tf.image.resize_images needs a copy of the part of a photo that is cut out, and
one of float32 where the values are scaled first: many bytes for each pixel of
the photo. What is here takes memory for the pixels of the result alone, and
gives the same values, bit by bit.
"""

from compat import tf


def sample(image, rows, columns, convert=tf.to_float):
  """Interpolates between pixels of an image.

  Args:
    image: `[h, w, channels]` tensor.
    rows: what `neighbours` returns for the rows.
    columns: what it returns for the columns.
    convert: function that makes the pixels that are read float32.

  Returns:
    `[number of rows, number of columns, channels]` float32.
  """
  above, below, down = rows
  before, after, right = columns
  shape = tf.shape(image)
  starts = tf.expand_dims(tf.concat([above, below], 0), 1) * shape[1]
  places = starts + tf.concat([before, after], 0)
  pixels = convert(tf.gather(
      tf.reshape(image, tf.stack([-1, shape[2]])), places))
  lefts, rights = tf.split(pixels, 2, axis=1)
  pixels = lefts + (rights - lefts) * tf.reshape(right, [1, -1, 1])
  tops, bottoms = tf.split(pixels, 2)
  return tops + (bottoms - tops) * tf.reshape(down, [-1, 1, 1])


def neighbours(start, length, resized_length, first, count):
  """Returns where resized pixels lie between those of the image, on one axis.

  By the rule of tf.image.resize_images without aligned corners: pixel i of the
  result is at i * length / resized_length.

  Args:
    start: first pixel of the part of the image that is resized, int32.
    length: of that part, in pixels, scalar int32.
    resized_length: of that part once it is resized, in pixels.
    first: first pixel of the resized part that is asked for, int32.
    count: number of pixels.

  Returns:
    `[count]` int32, the pixel before; `[count]` int32, the pixel after;
    `[count]` float32, the distance from the pixel before, in [0, 1).
  """
  # In float32 as in the kernel, so that both round alike. The quotient is first
  # of float64: TensorFlow replaces a division by a constant by a product with
  # its reciprocal, which rounds otherwise.
  scale = tf.to_float(tf.cast(length, tf.float64) /
                      tf.cast(resized_length, tf.float64))
  place = tf.to_float(first + tf.range(count)) * scale
  before = tf.minimum(tf.to_int32(tf.floor(place)), length - 1)
  return (start + before, start + tf.minimum(before + 1, length - 1),
          place - tf.floor(place))
