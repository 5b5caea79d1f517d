"""LeNet preprocessing: the middle of a grey image, values in [-1, 1)."""

from typing import Optional

from compat import tf


def preprocess_image(image: tf.Tensor, output_height: int, output_width: int,
                     is_training: bool = False,
                     seed: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Crops an image to its middle or pads it, and scales its values.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: height of the result, in pixels.
    output_width: width of the result, in pixels.
    is_training: accepted for the common signature, but has no effect:
      handwritten digits are not distorted.
    seed: likewise.

  Returns:
    `[output_height, output_width, channels]` float32 in [-1, 1).
  """
  del is_training, seed
  image = tf.image.resize_image_with_crop_or_pad(image, output_height,
                                                 output_width)
  return (tf.to_float(image) - 128.0) / 128.0
