"""Finds a preprocessing by the name of its family or of a network.

  preprocess = preprocessing_factory.get_preprocessing('inception_v4',
                                                       is_training=False)
  image = preprocess(image, 299, 299)
"""

import functools
from typing import Callable, NamedTuple, Optional, Tuple

from common.errors import InputError, unknown_name
from compat import tf
from nets import nets_factory
from preprocessing import (
  cifarnet_preprocessing,
  draws,
  inception_preprocessing,
  lenet_preprocessing,
  vgg_preprocessing,
)


class Scaling(NamedTuple):
  """What an app that uses a network without its preprocessing must do.

  It takes `part` of a photo, subtracts `mean` from each channel value from 0 to
  255, and divides by `deviation`. None: mean and deviation of the image itself.
  """

  # In words; %(side)d stands for the shorter side of the resized photo.
  part: str
  # One value per channel.
  mean: Optional[Tuple[float, ...]]
  deviation: Optional[float]
  # Least shorter side of the resized photo, in pixels.
  least_side: int = 0
  # Mean of grey photos; None: as of each channel.
  grey_mean: Optional[Tuple[float]] = None


# Top, left, height and width, in pixels of a photo.
Window = Tuple[float, float, float, float]


def _middle_square(height: int, width: int, size: int) -> Window:
  """Returns the middle of a photo, without scaling; it may exceed the photo."""
  return ((height - size) // 2, (width - size) // 2, size, size)


class Family(NamedTuple):
  """One row of FAMILIES."""

  preprocess_image: Callable
  scaling: Scaling
  # Arguments of get_preprocessing that preprocess_image has.
  options: Tuple[str, ...] = ()
  # Function `(shape, seed, ...)` that returns the crop with which training
  # begins. It accepts those of the options that it has; None: there is no crop.
  random_window: Optional[Callable] = None
  window_options: Tuple[str, ...] = ()
  # Function `(shape)` that returns the only part of a photo that evaluation
  # uses, which preprocess_image accepts as `window`; None: it uses all.
  middle_window: Optional[Callable] = None
  # Function `(height, width, size)` of photo and result that returns the part
  # of the photo that becomes the result, as `seen_window` does.
  seen: Callable[[int, int, int], Window] = _middle_square
  # Function `(images, numbers, ...)` that does in batches what preprocess_image
  # omits with `resize_only`. It accepts those of the options that it has; None:
  # preprocess_image has no `resize_only`.
  distort_batch: Optional[Callable] = None
  batch_options: Tuple[str, ...] = ()


# A test compares each scaling with the preprocessing of its family.
FAMILIES = {
    'cifarnet': Family(
        cifarnet_preprocessing.preprocess_image,
        Scaling('the middle', None, None)),
    'inception': Family(
        inception_preprocessing.preprocess_image,
        Scaling('the middle 87.5 %% of height and width, resized',
                (127.5,) * 3, 127.5),
        ('fast_mode', 'min_crop_area'),
        inception_preprocessing.random_window, ('min_crop_area',),
        inception_preprocessing.middle_window,
        inception_preprocessing.seen_window,
        inception_preprocessing.distort_batch, ('fast_mode',)),
    'lenet': Family(
        lenet_preprocessing.preprocess_image,
        Scaling('the middle', (128.0,), 128.0)),
    'vgg': Family(
        vgg_preprocessing.preprocess_image,
        Scaling('the middle, the shorter side made %(side)d pixels before',
                vgg_preprocessing.MEANS, 1.0,
                vgg_preprocessing.RESIZE_SIDE_MIN,
                vgg_preprocessing.GREY_MEAN),
        seen=vgg_preprocessing.seen_window,
        distort_batch=vgg_preprocessing.distort_batch),
}


def family_of(name: str) -> str:
  """Returns the family of a name.

  Args:
    name: name of a family; or of a network, whose row has it.

  Raises:
    ValueError: nothing has this name.
  """
  if name in FAMILIES:
    return name
  if name in nets_factory.NETWORKS:
    return nets_factory.NETWORKS[name].preprocessing
  raise unknown_name('preprocessing', name,
                     {*FAMILIES, *nets_factory.NETWORKS})


def seen_window(name: str, height: int, width: int, size: int) -> Window:
  """Returns the part of a photo that evaluation shows to the network.

  Args:
    name: as for `get_preprocessing`.
    height: height of the photo, in pixels.
    width: width of the photo, in pixels.
    size: height and width of the network's input, in pixels.

  Returns:
    Top, left, height and width, in pixels of the photo. A family that pads
    small photos returns a window that exceeds them.

  Raises:
    ValueError: nothing has this name.
  """
  return FAMILIES[family_of(name)].seen(height, width, size)


def get_preprocessing(name: str, is_training: bool = False,
                      height: Optional[int] = None, width: Optional[int] = None,
                      fast_mode: Optional[bool] = None,
                      min_crop_area: Optional[float] = None,
                      use_grayscale: bool = False,
                      on_device: bool = False) -> Callable:
  """Returns the preprocessing of a family or a network.

  Args:
    name: 'cifarnet', 'inception', 'lenet', 'vgg' or the name of a network.
    is_training: whether images are distorted for training.
    height, width: of the result, in pixels; None: given with each call.
    fast_mode: for the Inception family only, whether to omit the more expensive
      distortions of training; None: the family's default.
    min_crop_area: for the Inception family only, smallest fraction of the photo
      that the random crop of training covers; None: the family's default.
    use_grayscale: whether colour images become grey first: `[h, w, 1]`.
    on_device: for training only, whether the result is cropped and resized
      only, and uint8; `preprocessing_fn.distort_batch` does the rest.

  Returns:
    `preprocessing_fn(image, output_height=None, output_width=None, **kwargs)`
    from `[h, w, channels]` uint8 to `[height, width, channels]` float32 (uint8
    if `on_device`). Further arguments go to the family's `preprocess_image`;
    all families accept `seed`, which decides all random values. It raises a
    ValueError if the size is given neither here nor in the call.

    `preprocessing_fn.random_window` is None unless training begins with a
    random crop. Then it is a function `(shape, seed)` that returns the crop:
    `[4]` int32 of top, left, height, width. That part of the photo, with
    `crop_image=False` and the same seed, gives the same result as the whole
    photo.

    `preprocessing_fn.middle_window` is None unless evaluation uses a part of
    the photo only. Then it is a function `(shape)` that returns that part, as
    above; `window=` gives its place in an image that has not all of the photo.

    `preprocessing_fn.distort_batch` is None unless `on_device`. Then it is a
    function `(images, numbers)` from `[batch, height, width, channels]` uint8
    to float32, for static height and width; `numbers` has for each image the
    result of `preprocessing_fn.draw(seed)`, `[numbers]` float32, of its seed.

  Raises:
    ValueError: nothing has this name, or `on_device` is given and the family
      has no `distort_batch`.
  """
  family = FAMILIES[family_of(name)]
  given = {'fast_mode': fast_mode, 'min_crop_area': min_crop_area}
  options = {key: given[key] for key in family.options
             if given[key] is not None}
  if on_device and not family.distort_batch:
    raise InputError(
        '--preprocess_on_device works with the preprocessings %s, not with %r' %
        (' and '.join(key for key, row in FAMILIES.items()
                      if row.distort_batch), name))

  # Keeps Dataset.map from applying AutoGraph: there is no `if` on a tensor.
  @tf.autograph.experimental.do_not_convert
  def preprocessing_fn(image, output_height=None, output_width=None, **kwargs):
    size = (output_height or height, output_width or width)
    if None in size:
      raise InputError('preprocessing %r needs a height and a width in pixels, '
                       'got %r and %r' % ((name,) + size))
    return family.preprocess_image(
        _to_grey(image) if use_grayscale else image, *size,
        is_training=is_training, **dict(options, **kwargs),
        **({'resize_only': True} if on_device else {}))

  def with_options(function, names):
    return functools.partial(function, **{key: options[key] for key in names
                                          if key in options})

  preprocessing_fn.random_window = preprocessing_fn.distort_batch = None
  preprocessing_fn.middle_window = None if is_training else family.middle_window
  if is_training and family.random_window:
    preprocessing_fn.random_window = with_options(family.random_window,
                                                  family.window_options)
  if on_device:
    preprocessing_fn.distort_batch = with_options(family.distort_batch,
                                                  family.batch_options)
    preprocessing_fn.draw = draws.pool
  return preprocessing_fn


def _to_grey(image):
  """Returns an image as `[h, w, 1]` of the same type and range."""
  if image.shape.as_list()[2] == 1:
    return image
  grey = tf.image.rgb_to_grayscale(tf.to_float(image))
  return grey if image.dtype.is_floating else tf.cast(tf.rint(grey),
                                                      image.dtype)
