"""Changes brightness, contrast, saturation and hue of the planes of photos.

These are the functions of TensorFlow's adjust_* kernels, without the conversion
to HSV and back and in whole-plane operations, which vectorise: saturation takes
a third of the kernel's time. Planes are a list of red, green and blue, each
`[pixels]` float32; or of grey alone, which has no saturation and no hue. Planes
of a batch are `[batch, pixels]`; a change then has one amount, or `[batch, 1]`.
"""

from functools import reduce
from typing import List, Sequence, Union

from compat import tf

# Avoids a division by zero for grey pixels, which have no hue.
_TINY = 1e-30


def to_planes(image: tf.Tensor) -> List[tf.Tensor]:
  """Returns the planes of a `[height, width, channels]` image, or of a batch.

  Height and width of a batch must be static.
  """
  *batch, height, width, channels = image.shape.as_list()
  pixels = [-1, height * width] if batch else [-1]
  # Faster than transposing; in to_image, transposing is faster.
  return tf.unstack(tf.reshape(image, pixels + [channels]), axis=-1)


def to_image(planes: Sequence[tf.Tensor], height: Union[int, tf.Tensor],
             width: Union[int, tf.Tensor]) -> tf.Tensor:
  """Returns planes as a `[height, width, channels]` image, or as a batch."""
  rank = planes[0].shape.ndims
  return tf.reshape(
      tf.transpose(tf.stack(planes), [*range(1, rank + 1), 0]),
      [-1] * (rank - 1) + [height, width, len(planes)])


def brightness(planes: Sequence[tf.Tensor],
               delta: Union[float, tf.Tensor]) -> List[tf.Tensor]:
  """Adds delta to all values."""
  return [plane + delta for plane in planes]


def contrast(planes: Sequence[tf.Tensor],
             factor: Union[float, tf.Tensor]) -> List[tf.Tensor]:
  """Multiplies each value's distance from the mean of its plane by factor."""
  means = [tf.reduce_mean(plane, -1, keepdims=True) for plane in planes]
  return [(plane - mean) * factor + mean for plane, mean in zip(planes, means)]


def saturation(planes: Sequence[tf.Tensor],
               factor: Union[float, tf.Tensor]) -> List[tf.Tensor]:
  """Multiplies each value's distance from the pixel's largest one by factor.

  The factor is limited so that the smallest value does not become negative: a
  saturation of 1. In HSV that is the saturation times factor, at most 1.
  """
  high, spread = _high_and_spread(planes)
  factor = tf.minimum(factor, high / tf.maximum(spread, _TINY))
  # The kernel makes a pixel without a positive value grey.
  factor = tf.maximum(factor, 0.0)
  return [(plane - high) * factor + high for plane in planes]


def hue(planes: Sequence[tf.Tensor],
        delta: Union[float, tf.Tensor]) -> List[tf.Tensor]:
  """Rotates the hue by delta, where 1 is a whole turn."""
  if len(planes) == 1:
    return list(planes)
  high, spread = _high_and_spread(planes)
  red, green, blue = planes
  reddest, greenest = tf.equal(high, red), tf.equal(high, green)
  # In sixths of a turn, from red at 0 over green at 2 to blue at 4.
  angle = tf.where(reddest, green - blue,
                   tf.where(greenest, blue - red, red - green))
  angle /= tf.maximum(spread, _TINY)
  angle += 6.0 * delta + tf.where(
      reddest, tf.zeros_like(high),
      tf.where(greenest, tf.fill(tf.shape(high), 2.0),
               tf.fill(tf.shape(high), 4.0)))
  changed = []
  for own in (0.0, 2.0, 4.0):
    # Relative to the plane's own colour, which is at 3.
    turn = angle + (3.0 - own)
    turn -= 6.0 * tf.floor(turn / 6.0)
    # On the two sixths around its own colour a plane has the largest value, on
    # the two opposite the smallest.
    share = tf.clip_by_value(tf.abs(turn - 3.0) - 1.0, 0.0, 1.0)
    changed.append(high - spread * share)
  return changed


def _high_and_spread(planes):
  """Returns each pixel's largest value, and the largest minus the smallest."""
  high = reduce(tf.maximum, planes)
  return high, high - reduce(tf.minimum, planes)
