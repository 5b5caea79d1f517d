"""Changes of colour by a given amount, on the three planes of a photo.

The functions of TensorFlow's adjust_* kernels, without their way over HSV and
back and in whole-plane operations, which vectorise: saturation takes a third of
the kernel's time. Planes are `[3, pixels]` float32: red, green and blue.
"""

from compat import tf

# Keeps grey pixels, which have no hue, from a division by zero.
_TINY = 1e-30


def to_planes(image):
  """Returns the planes of a `[height, width, 3]` image."""
  return tf.transpose(tf.reshape(image, [-1, 3]))


def to_image(planes, height, width):
  """Returns planes as a `[height, width, 3]` image."""
  return tf.reshape(tf.transpose(planes), [height, width, 3])


def brightness(planes, delta):
  """Adds delta to all values."""
  return planes + delta


def contrast(planes, factor):
  """Takes each value's distance from the mean of its plane times factor."""
  mean = tf.reduce_mean(planes, 1, keepdims=True)
  return (planes - mean) * factor + mean


def saturation(planes, factor):
  """Takes each value's distance from the pixel's largest one times factor.

  No further than to where the smallest would become negative: a saturation of
  1. In HSV that is the saturation times factor, at most 1.
  """
  high, spread = _high_and_spread(planes)
  factor = tf.minimum(factor, high / tf.maximum(spread, _TINY))
  # Without a positive value the kernel makes the pixel grey.
  factor = tf.maximum(factor, 0.0)
  return (planes - high) * factor + high


def hue(planes, delta):
  """Turns the hue by delta, where 1 is a whole turn."""
  high, spread = _high_and_spread(planes)
  red, green, blue = tf.unstack(planes)
  # In sixths of a turn, from red at 0 over green at 2 to blue at 4.
  angle = tf.where(
      tf.equal(high, red), green - blue,
      tf.where(tf.equal(high, green), blue - red, red - green))
  angle /= tf.maximum(spread, _TINY)
  angle += tf.where(
      tf.equal(high, red), tf.zeros_like(high),
      tf.where(tf.equal(high, green), tf.fill(tf.shape(high), 2.0),
               tf.fill(tf.shape(high), 4.0)))
  # Each plane's own colour is at 3 of its turn.
  turn = angle + 6.0 * delta + tf.constant([[3.0], [1.0], [5.0]])
  turn -= 6.0 * tf.floor(turn / 6.0)
  # On the two sixths around its own colour a plane has the largest value, on
  # the two opposite the smallest.
  share = tf.clip_by_value(tf.abs(turn - 3.0) - 1.0, 0.0, 1.0)
  return high - spread * share


def _high_and_spread(planes):
  """Returns the largest value of each pixel, and how far the smallest is."""
  high = tf.reduce_max(planes, 0)
  return high, high - tf.reduce_min(planes, 0)
