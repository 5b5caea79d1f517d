"""Inception preprocessing: random crops and colours, values in [-1, 1].

For the Inception, MobileNet, NASNet and ResNet V2 networks. Christian Szegedy
et al.: Going Deeper with Convolutions, arXiv:1409.4842, section 6, with
colours after Andrew G. Howard, arXiv:1312.5402.

Everything here may run in a `tf.data` map function, without
`add_image_summaries`: summaries are lost there.
"""

from functools import reduce
from typing import Callable, Optional, Tuple

from common.errors import InputError
from compat import tf
from preprocessing import bilinear, colors
from preprocessing.draws import Draws

BRIGHTNESS = 32.0 / 255.0       # Largest change, of values in [0, 1].
SATURATION = (0.5, 1.5)         # Factors.
CONTRAST = (0.5, 1.5)           # Factors.
HUE = 0.2                       # Largest rotation, as a fraction of a turn.
CENTRAL_FRACTION = 0.875        # Of each side, for evaluation.
CROP_AREA = 0.05                # Smallest crop, as a fraction of the photo.

# From this number of pixels of the photo's middle per pixel of the result on,
# it is faster to read only those that are needed.
_SAMPLED_FROM = 8

# {name: (function of colors, smallest amount, largest amount)}.
_DISTORTIONS = {
    'brightness': (colors.brightness, -BRIGHTNESS, BRIGHTNESS),
    'saturation': (colors.saturation,) + SATURATION,
    'contrast': (colors.contrast,) + CONTRAST,
    'hue': (colors.hue, -HUE, HUE),
}

# Orders of the colour changes; `color_ordering` is an index.
_ORDERS = (
    ('brightness', 'saturation', 'hue', 'contrast'),
    ('saturation', 'brightness', 'contrast', 'hue'),
    ('contrast', 'hue', 'brightness', 'saturation'),
    ('hue', 'saturation', 'contrast', 'brightness'),
)
# The shortest list that has each of these orders as a part. With it all photos
# of a batch are changed at once, each in its own order.
_MERGED_ORDERS = (
    'brightness', 'saturation', 'brightness', 'contrast', 'hue', 'brightness',
    'saturation', 'contrast', 'brightness')
_FAST_ORDERS = (
    ('brightness', 'saturation'),
    ('saturation', 'brightness'),
    ('saturation', 'brightness'),
    ('saturation', 'brightness'),
)

_RESIZE_METHODS = (
    tf.image.ResizeMethod.BILINEAR,
    tf.image.ResizeMethod.NEAREST_NEIGHBOR,
    tf.image.ResizeMethod.BICUBIC,
    tf.image.ResizeMethod.AREA,
)


def apply_with_random_selector(x: tf.Tensor,
                               func: Callable[[tf.Tensor, int], tf.Tensor],
                               num_cases: int,
                               draws: Optional[Draws] = None) -> tf.Tensor:
  """Returns `func(x, case)` with a random `case`; only that one is computed.

  Args:
    x: a tensor.
    func: function of a tensor and the number of a case, a Python integer.
      All cases must return the same shape and type.
    num_cases: number of cases; `case` is in [0, num_cases).
    draws: the Draws to use; None: a new one.

  Returns:
    The output of `func`.
  """
  if num_cases == 1:
    return func(x, 0)
  selected = (draws or Draws()).integer(num_cases)

  def choose(first):
    """Selects among the cases from `first` on."""
    if first == num_cases - 1:
      return func(x, first)
    return tf.cond(tf.equal(selected, first), lambda: func(x, first),
                   lambda: choose(first + 1))

  return choose(0)


def distort_color(image: tf.Tensor, color_ordering: int = 0,
                  fast_mode: bool = True, scope: Optional[str] = None,
                  draws: Optional[Draws] = None) -> tf.Tensor:
  """Changes the colours of a photo, or of each of a batch, at random.

  Args:
    image: `[height, width, channels]` float32 in [0, 1], or a batch of them.
    color_ordering: which of the four orders of the changes to use, 0 to 3.
    fast_mode: whether to change only brightness and saturation, which leaves
      two orders: 0, and the others. Otherwise hue and contrast change too.
    scope: name of the ops' scope.
    draws: the Draws to use, of a batch if `image` is one; None: a new one.

  Returns:
    float32 in [0, 1], of the shape of `image`.

  Raises:
    ValueError: `color_ordering` is not in 0 to 3.
  """
  if color_ordering not in range(len(_ORDERS)):
    raise InputError('color_ordering must be in [0, 3], got %r' %
                     (color_ordering,))
  with tf.name_scope(scope, 'distort_color', [image]):
    draws = draws or Draws()
    planes = colors.to_planes(image)
    orders = _FAST_ORDERS if fast_mode else _ORDERS
    for name in orders[color_ordering]:
      change, low, high = _DISTORTIONS[name]
      planes = change(planes, draws.uniform(low, high))
    image = colors.to_image(planes, *tf.unstack(tf.shape(image)[-3:-1]))
    return tf.clip_by_value(image, 0.0, 1.0)


def distorted_bounding_box_crop(
    image: tf.Tensor, bbox: Optional[tf.Tensor],
    min_object_covered: float = 0.1,
    aspect_ratio_range: Tuple[float, float] = (0.75, 1.33),
    area_range: Tuple[float, float] = (CROP_AREA, 1.0), max_attempts: int = 100,
    scope: Optional[str] = None, draws: Optional[Draws] = None
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Crops a random box of a photo.

  Args:
    image: `[height, width, channels]` tensor.
    bbox: `[1, boxes, 4]` float32 in [0, 1]: objects as ymin, xmin, ymax, xmax;
      None: the whole photo is the object.
    min_object_covered: fraction of one of the objects that the box must hold.
    aspect_ratio_range: least and greatest width / height of the box.
    area_range: least and greatest fraction of the photo that the box covers.
    max_attempts: how many boxes are tried before the whole photo is used.
    scope: name of the ops' scope.
    draws: the Draws to use; None: a new one.

  Returns:
    The part of the photo, and the box as `[1, 1, 4]` float32, as in `bbox`.
  """
  with tf.name_scope(scope, 'distorted_bounding_box_crop', [image]):
    shape = tf.shape(image)
    window = (draws or Draws()).box(
        shape, bbox, min_object_covered, aspect_ratio_range, area_range,
        max_attempts)
    begin, size = window[:2], window[2:]
    cropped = _crop(image, window)
    box = tf.to_float(tf.concat([begin, begin + size], 0)) / tf.to_float(
        tf.tile(shape[:2], [2]))
    return cropped, tf.reshape(box, [1, 1, 4])


def random_window(shape: tf.Tensor, seed: Optional[tf.Tensor],
                  min_crop_area: float = CROP_AREA) -> tf.Tensor:
  """Returns which part of a photo preprocess_for_train uses.

  Args:
    shape: int32 tensor whose first two values are height and width in pixels.
    seed: as for `preprocess_for_train`.
    min_crop_area: as for `preprocess_for_train`.

  Returns:
    `[4]` int32: top, left, height and width in pixels.
  """
  return Draws(seed).box(shape, area_range=(min_crop_area, 1.0))


def middle_window(shape: tf.Tensor, central_fraction: float = CENTRAL_FRACTION
                  ) -> tf.Tensor:
  """Returns which part of a photo preprocess_for_eval uses.

  Args:
    shape: int32 tensor whose first two values are height and width in pixels.
    central_fraction: fraction of each side that is kept.

  Returns:
    `[4]` int32: top, left, height and width in pixels.

  Raises:
    ValueError: central_fraction is not in (0, 1].
  """
  if not 0 < central_fraction <= 1:
    raise ValueError('central_fraction must be in (0, 1], not %r' %
                     central_fraction)
  sides = tf.cast(shape[:2], tf.float64)
  # As tf.image.central_crop does.
  start = tf.to_int32((sides - sides * central_fraction) / 2)
  return tf.concat([start, shape[:2] - 2 * start], 0)


def seen_window(height: int, width: int,
                size: int) -> Tuple[float, float, float, float]:
  """Returns what preprocessing_factory.seen_window does for this family."""
  del size  # Unused; other families need it.
  top, left = (int((side - side * CENTRAL_FRACTION) / 2)
               for side in (height, width))
  return top, left, height - 2 * top, width - 2 * left


def preprocess_for_train(image: tf.Tensor, height: int, width: int,
                         bbox: Optional[tf.Tensor] = None,
                         fast_mode: bool = True, scope: Optional[str] = None,
                         add_image_summaries: bool = False,
                         random_crop: bool = True,
                         seed: Optional[tf.Tensor] = None,
                         min_crop_area: float = CROP_AREA,
                         resize_only: bool = False) -> tf.Tensor:
  """Distorts a photo for training.

  Args:
    image: `[h, w, channels]`: uint8 or another integer type over its whole
      range, or float32 in [0, 1].
    height: height of the result, in pixels.
    width: width of the result, in pixels.
    bbox: `[1, boxes, 4]` float32 in [0, 1]: objects as ymin, xmin, ymax, xmax;
      None: the whole photo is the object.
    fast_mode: whether to resize bilinearly and change only brightness and
      saturation, in one order; otherwise one of four resize methods is used,
      and all four changes are made in one of four orders.
    scope: name of the ops' scope.
    add_image_summaries: whether to add summaries of the steps.
    random_crop: whether to crop a random box of the photo.
    seed: `[2]` int64 tensor that decides all random values; None: another one
      each time.
    min_crop_area: smallest fraction of the photo that the box covers.
    resize_only: whether to return the photo, which must be uint8, after it is
      cropped and resized; `distort_batch` does the rest.

  Returns:
    `[height, width, channels]` float32 in [-1, 1]; uint8 if `resize_only`.
  """
  with tf.name_scope(scope, 'distort_image', [image]):
    draws = Draws(seed)
    if add_image_summaries:
      _summarize_boxes('image_with_bounding_boxes', image, bbox)
    if random_crop:
      whole = image
      image, box = distorted_bounding_box_crop(
          image, bbox, area_range=(min_crop_area, 1.0), draws=draws)
      if add_image_summaries:
        _summarize_boxes('images_with_distorted_bounding_box', whole, box)

    image = _resize(image, height, width, fast_mode, draws, resize_only)
    if resize_only:
      return image
    image = draws.flip(image)
    image = apply_with_random_selector(
        image, lambda x, case: distort_color(x, case, fast_mode, draws=draws),
        1 if fast_mode else len(_ORDERS), draws)
    if add_image_summaries:
      tf.summary.image('final_distorted_image', tf.expand_dims(image, 0))
    return _center_values(image)


def distort_batch(images: tf.Tensor, numbers: tf.Tensor,
                  fast_mode: bool = True) -> tf.Tensor:
  """Distorts a batch that `preprocess_for_train` has cropped and resized.

  The result is that of `preprocess_for_train` without `resize_only`, apart from
  the rounding to uint8.

  Args:
    images: `[batch, height, width, channels]` uint8, of static height and
      width.
    numbers: `[batch, numbers]` float32, draws.pool of the seed of each photo.
    fast_mode: as for `preprocess_for_train`.

  Returns:
    `[batch, height, width, channels]` float32 in [-1, 1].
  """
  with tf.name_scope('distort_batch'):
    # Without fast_mode, the first number was used to choose how to resize.
    draws = Draws(numbers=numbers[:, 0 if fast_mode else 1:])
    shape = images.shape
    images = draws.flip(tf.to_float(images) * (1.0 / tf.uint8.max))
    if fast_mode:
      images = distort_color(images, draws=draws)
    else:
      images = _distort_each(images, draws)
    images.set_shape(shape)
    return _center_values(images)


def preprocess_for_eval(image: tf.Tensor, height: Optional[int],
                        width: Optional[int],
                        central_fraction: Optional[float] = CENTRAL_FRACTION,
                        scope: Optional[str] = None,
                        central_crop: bool = True,
                        window: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Crops the middle of a photo for evaluation and resizes it.

  Args:
    image: `[h, w, channels]`: uint8 or another integer type over its whole
      range, or float32 in [0, 1].
    height: height of the result, in pixels; None (with `width`): not resized.
    width: width of the result, in pixels.
    central_fraction: fraction of each side that is kept; None: all.
    scope: name of the ops' scope.
    central_crop: whether to crop at all.
    window: the part of `image` to use, as from `middle_window`, in place of its
      middle.

  Returns:
    `[height, width, channels]` float32 in [-1, 1].
  """
  with tf.name_scope(scope, 'eval_image', [image]):
    if window is None:
      window = middle_window(
          tf.shape(image),
          central_fraction if central_crop and central_fraction else 1.0)
    # Integers are scaled last: the photo may have many times as many pixels as
    # the result.
    scale = 1.0 if image.dtype.is_floating else 1.0 / image.dtype.max
    if height and width:
      image = _crop_and_resize(image, window, height, width)
    else:
      image = _crop(image, window)
    return tf.to_float(image) * (2.0 * scale) - 1.0


def preprocess_image(image: tf.Tensor, height: int, width: int,
                     is_training: bool = False,
                     bbox: Optional[tf.Tensor] = None, fast_mode: bool = True,
                     add_image_summaries: bool = False, crop_image: bool = True,
                     seed: Optional[tf.Tensor] = None,
                     min_crop_area: float = CROP_AREA,
                     window: Optional[tf.Tensor] = None,
                     resize_only: bool = False) -> tf.Tensor:
  """Converts a photo to the input of a network.

  Args:
    image: `[h, w, channels]`, as for `preprocess_for_train`.
    height: height of the result, in pixels.
    width: width of the result, in pixels.
    is_training: whether to distort it for training.
    bbox: objects in it, as for `preprocess_for_train`; only for training.
    fast_mode: as for `preprocess_for_train`; only for training.
    add_image_summaries: whether to add summaries; only for training.
    crop_image: whether to crop: a random box, or the middle.
    seed: as for `preprocess_for_train`; only for training.
    min_crop_area: as for `preprocess_for_train`; only for training.
    window: as for `preprocess_for_eval`; only for evaluation.
    resize_only: as for `preprocess_for_train`; only for training.

  Returns:
    `[height, width, channels]` float32 in [-1, 1]; uint8 if `resize_only`.
  """
  if is_training:
    return preprocess_for_train(image, height, width, bbox, fast_mode,
                                add_image_summaries=add_image_summaries,
                                random_crop=crop_image, seed=seed,
                                min_crop_area=min_crop_area,
                                resize_only=resize_only)
  return preprocess_for_eval(image, height, width, central_crop=crop_image,
                             window=window)


def _center_values(image):
  """Scales values from [0, 1] to [-1, 1]."""
  return (image - 0.5) * 2.0


def _distort_each(images, draws):
  """Changes the colours of each photo of a batch in one of the four orders."""
  chosen = draws.integer(len(_ORDERS))
  is_chosen = [tf.equal(chosen, order) for order in range(len(_ORDERS))]
  amounts = [[draws.uniform(*_DISTORTIONS[name][1:]) for name in order]
             for order in _ORDERS]
  rest = [list(order) for order in _ORDERS]
  planes = colors.to_planes(images)
  for name in _MERGED_ORDERS:
    now = [number for number, order in enumerate(rest) if order[:1] == [name]]
    amount = tf.add_n([tf.to_float(is_chosen[number]) * amounts[number].pop(0)
                       for number in now])
    for number in now:
      rest[number].pop(0)
    is_changed = reduce(tf.logical_or, [is_chosen[number] for number in now])
    planes = [tf.where(is_changed[:, 0], new, old) for new, old in zip(
        _DISTORTIONS[name][0](planes, amount), planes)]
  images = colors.to_image(planes, *images.shape.as_list()[1:3])
  return tf.clip_by_value(images, 0.0, 1.0)


def _resize(image, height, width, fast_mode, draws, to_bytes):
  """Resizes bilinearly or by a random method; scales integers to [0, 1].

  With `to_bytes` it rounds them to uint8 instead.
  """
  # Resized before the cast to float32: the photo may have many times as many
  # pixels as the result.
  scale = 1.0 if image.dtype.is_floating else 1.0 / image.dtype.max
  channels = image.shape.as_list()[2] or 3

  def resize(image, case):
    image = tf.image.resize_images(image, [height, width],
                                   _RESIZE_METHODS[case])
    if to_bytes:
      if _RESIZE_METHODS[case] == tf.image.ResizeMethod.BICUBIC:
        image = tf.clip_by_value(image, 0.0, 255.0)
      return bilinear.to_bytes(image)
    return tf.cast(image, tf.float32) * scale

  image = apply_with_random_selector(
      image, resize, 1 if fast_mode else len(_RESIZE_METHODS), draws)
  image.set_shape([height, width, channels])
  return image


def _crop(image, window):
  """Returns the part of an image that a window, `[4]` int32, covers."""
  part = tf.slice(image, tf.concat([window[:2], [0]], 0),
                  tf.concat([window[2:], [-1]], 0))
  # The slice loses the static number of channels.
  part.set_shape([None, None, image.get_shape()[2]])
  return part


def _crop_and_resize(image, window, height, width):
  """Crops a photo and resizes it bilinearly.

  Args:
    image: `[h, w, channels]`.
    window: `[4]` int32: top, left, height and width of the part, in pixels.
    height: height of the result, in pixels.
    width: width of the result, in pixels.

  Returns:
    `[height, width, channels]` float32, in the range of the values of `image`.
  """
  top, left, rows, columns = tf.unstack(window)

  def of_all_pixels():
    # An image that already has this size keeps its type.
    return tf.to_float(
        tf.image.resize_images(_crop(image, window), [height, width]))

  def of_some_pixels():
    return bilinear.sample(
        image, bilinear.neighbours(top, rows, height, 0, height),
        bilinear.neighbours(left, columns, width, 0, width))

  # Both give the same values, bit for bit.
  is_large = (tf.to_float(rows) * tf.to_float(columns) >
              _SAMPLED_FROM * height * width)
  result = tf.cond(is_large, of_some_pixels, of_all_pixels)
  result.set_shape([height, width, image.get_shape()[2]])
  return result


def _summarize_boxes(name, image, boxes):
  image = tf.image.convert_image_dtype(image, tf.float32)
  if boxes is None:
    boxes = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])
  drawn = tf.image.draw_bounding_boxes(tf.expand_dims(image, 0), boxes)
  tf.summary.image(name, drawn)
