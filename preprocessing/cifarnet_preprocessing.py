"""CifarNet preprocessing: random crops and colours, standardised per image.

As in TensorFlow's CIFAR-10 tutorial, after Alex Krizhevsky's cuda-convnet.
"""

from typing import Optional

from compat import tf
from preprocessing.draws import Draws

PADDING = 4            # Pixels on each side, before the random crop.
BRIGHTNESS = 63        # Largest change, of values in [0, 255].
CONTRAST = (0.2, 1.8)  # Factors.


def preprocess_for_train(image: tf.Tensor, output_height: int,
                         output_width: int, padding: int = PADDING,
                         add_image_summaries: bool = False,
                         seed: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Pads an image, then crops, flips and recolours it at random.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    padding: black pixels to add on each side before the crop. More are added if
      the image would still be smaller than the result.
    add_image_summaries: whether to add summaries of the first and last step.
      Must be False in a `tf.data` map function.
    seed: `[2]` int64 tensor that decides all random values; None: another one
      each time.

  Returns:
    `[output_height, output_width, channels]` float32 with mean 0, deviation 1.
  """
  if add_image_summaries:
    tf.summary.image('image', tf.expand_dims(image, 0))
  draws = Draws(seed)
  image = _pad(image, padding, output_height, output_width)
  image = draws.flip(draws.crop(image, output_height, output_width))
  image = tf.to_float(image)
  if add_image_summaries:
    tf.summary.image('distorted_image', tf.expand_dims(image, 0))
  image += draws.uniform(-BRIGHTNESS, BRIGHTNESS)
  image = tf.image.adjust_contrast(image, draws.uniform(*CONTRAST))
  return tf.image.per_image_standardization(image)


def preprocess_for_eval(image: tf.Tensor, output_height: int, output_width: int,
                        add_image_summaries: bool = False) -> tf.Tensor:
  """Crops an image to its middle or pads it, and standardises it.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    add_image_summaries: whether to add summaries of the first and last step.
      Must be False in a `tf.data` map function.

  Returns:
    `[output_height, output_width, channels]` float32 with mean 0, deviation 1.
  """
  if add_image_summaries:
    tf.summary.image('image', tf.expand_dims(image, 0))
  image = tf.to_float(tf.image.resize_image_with_crop_or_pad(
      image, output_height, output_width))
  if add_image_summaries:
    tf.summary.image('resized_image', tf.expand_dims(image, 0))
  return tf.image.per_image_standardization(image)


def preprocess_image(image: tf.Tensor, output_height: int, output_width: int,
                     is_training: bool = False,
                     add_image_summaries: bool = False,
                     seed: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Converts an image to the input of a network.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    is_training: whether to distort it for training.
    add_image_summaries: whether to add summaries.
    seed: as for `preprocess_for_train`; only for training.

  Returns:
    `[output_height, output_width, channels]` float32 with mean 0, deviation 1.
  """
  if is_training:
    return preprocess_for_train(image, output_height, output_width,
                                add_image_summaries=add_image_summaries,
                                seed=seed)
  return preprocess_for_eval(image, output_height, output_width,
                             add_image_summaries=add_image_summaries)


def _pad(image, padding, height, width):
  """Pads each side by `padding`, and to at least `height` and `width`."""
  missing = tf.maximum(
      [height, width] - tf.shape(image)[:2] - 2 * padding, 0)
  sides = tf.stack([missing // 2, missing - missing // 2], axis=1) + padding
  padded = tf.pad(image, tf.concat([sides, [[0, 0]]], 0))
  padded.set_shape([None, None, image.get_shape()[2]])
  return padded
