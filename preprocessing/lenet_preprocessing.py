"""LeNet preprocessing: the middle of a grey image, values in [-1, 1)."""

from compat import tf


def preprocess_image(image, output_height, output_width, is_training=False,
                     seed=None):
  """Makes an image the input of a network.

  Args:
    image: `[h, w, channels]` tensor in [0, 255].
    output_height: of the result, in pixels; cropped in the middle or padded.
    output_width: of the result, in pixels.
    is_training: taken as every family's, and without effect: handwritten
      digits are not distorted.
    seed: taken likewise.

  Returns:
    `[output_height, output_width, channels]` float32 in [-1, 1).
  """
  del is_training, seed
  image = tf.image.resize_image_with_crop_or_pad(image, output_height,
                                                 output_width)
  return (tf.to_float(image) - 128.0) / 128.0
