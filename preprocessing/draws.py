"""Random numbers for photos, and the crops, flips and cases they decide.

All numbers of a photo come from one seed through stateless operations. Two runs
agree if the photos have the same seeds, however many threads prepare them.
"""

from typing import Optional, Tuple, Union

from compat import tf

# Numbers drawn at once: one operation is cheaper than one per number. Inception
# preprocessing needs the most, 19: four for each of its four orders of colour
# changes.
_POOL = 24

# TensorFlow ignores objects with an area smaller than this, in pixels.
_LEAST_OBJECT = 1.0


class Draws:
  """The random numbers for one photo or a batch, each used once.

  Args:
    seed: [2] int64 tensor; None: another one in each run of the graph, drawn
      by an operation that depends on tf.set_random_seed.
    numbers: `[batch, numbers]`, the results of `pool` for the photos of a
      batch, without those that are used already. Then `seed` is not used, and
      only `uniform`, `integer` and `flip` may be called.
  """

  def __init__(self, seed: Optional[tf.Tensor] = None,
               numbers: Optional[tf.Tensor] = None):
    if numbers is not None:
      self._pool = tf.split(numbers, numbers.shape.as_list()[1], axis=1)
      return
    if seed is None:
      seed = tf.random_uniform([2], maxval=tf.int64.max, dtype=tf.int64)
    self._seed = seed
    self._pool = tf.unstack(pool(seed))

  def uniform(self, low: float, high: float) -> tf.Tensor:
    """Returns a scalar float32 in [low, high); `[batch, 1]` for a batch."""
    return low + self._pool.pop(0) * (high - low)

  def integer(self, count: Union[int, tf.Tensor]) -> tf.Tensor:
    """Returns a scalar int32 in [0, count); `[batch, 1]` for a batch."""
    return _floor(self.uniform(0.0, 1.0) * tf.to_float(count))

  def flip(self, image: tf.Tensor) -> tf.Tensor:
    """Mirrors an image, or each of a batch, with probability 0.5."""
    # As tf.image.random_flip_left_right, which is stateful.
    is_mirrored = self.uniform(0.0, 1.0) < 0.5
    if image.shape.ndims == 4:
      return tf.where(is_mirrored[:, 0], tf.reverse(image, [2]), image)
    return tf.cond(is_mirrored, lambda: tf.reverse(image, [1]), lambda: image)

  def crop(self, image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Crops a random `[height, width, channels]` part of an image."""
    shape = tf.shape(image)
    top = self.integer(shape[0] - height + 1)
    left = self.integer(shape[1] - width + 1)
    cropped = tf.slice(image, [top, left, 0], [height, width, -1])
    cropped.set_shape([height, width, image.get_shape()[2]])
    return cropped

  def box(self, shape: tf.Tensor, objects: Optional[tf.Tensor] = None,
          min_object_covered: float = 0.1,
          aspect_ratio_range: Tuple[float, float] = (0.75, 1.33),
          area_range: Tuple[float, float] = (0.05, 1.0),
          max_attempts: int = 100) -> tf.Tensor:
    """Draws a random box inside a photo.

    As tf.image.sample_distorted_bounding_box, which is stateful: first the
    aspect ratio, then one of the heights that the areas allow, then the
    position. All attempts are made at once, and the first valid one is used.
    The box does not depend on the other numbers drawn.

    Args:
      shape: int32 tensor whose first two values are height and width in pixels.
      objects: `[1, boxes, 4]` float32 in [0, 1]: ymin, xmin, ymax, xmax; None:
        the whole photo is the object. If it holds no boxes, the result is the
        whole photo.
      min_object_covered: fraction of one of the objects that the box must hold.
      aspect_ratio_range: least and greatest width / height of the box.
      area_range: least and greatest fraction of the photo that the box covers.
      max_attempts: how many boxes are tried before the whole photo is used.

    Returns:
      `[4]` int32: top, left, height and width in pixels.
    """
    size = tf.to_float(shape[:2])
    total_area = size[0] * size[1]
    least, greatest = area_range[0] * total_area, area_range[1] * total_area
    numbers = tf.unstack(_numbers([4, max_attempts], self._seed, 1))
    low, high = aspect_ratio_range
    aspect = low + numbers[0] * (high - low)
    height, width = _sides(numbers[1], aspect, size, least, greatest)
    area = height * width
    good = ((area >= least) & (area <= greatest) & (width >= 1) &
            (height >= 1) & (width <= size[1]) & (height <= size[0]))
    # As in the kernel, a box that is not as high as the photo never reaches the
    # last row, and one that is not as wide never the last column.
    top = tf.floor(numbers[2] * (size[0] - height))
    left = tf.floor(numbers[3] * (size[1] - width))
    boxes = tf.stack([top, left, height, width], 1)
    if objects is None:
      good &= area >= min_object_covered * total_area
    else:
      good &= _covers(boxes, objects[0] * tf.tile(size, [2]),
                      min_object_covered)
    first = tf.argmax(tf.to_int32(good))  # 0 if none is good.
    whole = tf.concat([[0.0, 0.0], size], 0)
    return tf.to_int32(tf.where(good[first], boxes[first], whole))


def pool(seed: tf.Tensor) -> tf.Tensor:
  """Returns the numbers of a photo, `[numbers]` float32 in [0, 1).

  Args:
    seed: [2] int64 tensor.
  """
  return _numbers([_POOL], seed, 0)


def _numbers(shape, seed, stream):
  """Returns float32 in [0, 1); each stream has its own numbers."""
  return tf.random.stateless_uniform(
      shape, seed + tf.constant([0, stream], tf.int64))


def _floor(value):
  return tf.to_int32(tf.floor(value))


def _sides(numbers, aspect, size, least, greatest):
  """Returns heights and widths of the attempts, in whole pixels.

  Args:
    numbers: `[attempts]` float32 in [0, 1).
    aspect: `[attempts]` float32, width / height.
    size: `[2]` float32: height and width of the photo.
    least: smallest allowed area of a box, in pixels.
    greatest: largest allowed area, in pixels.
  """
  lowest = tf.rint(tf.sqrt(least / aspect))
  highest = tf.rint(tf.sqrt(greatest / aspect))
  # The greatest height whose width, rounded, still fits.
  highest = tf.minimum(highest, tf.floor((size[1] + 0.5) / aspect))
  highest = tf.where(tf.rint(highest * aspect) > size[1], highest - 1, highest)
  highest = tf.minimum(highest, size[0])
  lowest = tf.minimum(lowest, highest)
  height = lowest + tf.floor(numbers * (highest - lowest + 1))
  # Rounding may have left the range of allowed areas by one row.
  height = tf.where(height * tf.rint(height * aspect) < least,
                    height + 1, height)
  height = tf.where(height * tf.rint(height * aspect) > greatest,
                    height - 1, height)
  return height, tf.rint(height * aspect)


def _covers(boxes, objects, fraction):
  """Returns which of the boxes hold a fraction of at least one object.

  Args:
    boxes: `[attempts, 4]` float32: top, left, height, width in pixels.
    objects: `[objects, 4]` float32: ymin, xmin, ymax, xmax in pixels.
    fraction: number in [0, 1].

  Returns:
    `[attempts]` bool.
  """
  objects = tf.floor(objects)
  begin, end = objects[:, :2], objects[:, 2:]
  area = tf.reduce_prod(end - begin, 1)
  begins = tf.expand_dims(boxes[:, :2], 1)
  ends = begins + tf.expand_dims(boxes[:, 2:], 1)
  common = tf.minimum(ends, end) - tf.maximum(begins, begin)
  covered = tf.reduce_prod(tf.maximum(common, 0.0), 2)
  return tf.reduce_any((covered >= fraction * area) & (area >= _LEAST_OBJECT),
                       1)
