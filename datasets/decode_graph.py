"""Decodes encoded photos in a graph, to the pixels of photo_files.photos.

TensorFlow's own decode_jpeg drops the transparency of a PNG, so that colours
appear that no viewer shows, and inverts a CMYK JPEG if Adobe's marker is
missing.
"""

from compat import tf
from datasets.photo_files import photos

# Adobe's marker with transform 0, CMYK. A later marker in the file replaces it;
# without one, TensorFlow would not invert the values as Pillow and browsers do.
_ADOBE_MARKER = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00'
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Pixels that are blended at a time.
_BAND_PIXELS = 250 * 1000

_REFUSAL = 'neither a JPEG nor a PNG photo, starts with the bytes'


def is_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  """Returns a bool tensor: whether a photo is a JPEG in colour or in grey.

  Args:
    encoded: scalar string tensor, the bytes of a file.
  """
  # All names of these operations contain DecodeJpeg, by which
  # datasets.records.record_check recognizes errors about a photo.
  def has_few_channels():
    shape = tf.io.extract_jpeg_shape(encoded, name='DecodeJpegShape')
    return shape[2] < 4

  def never():
    return tf.constant(False)

  return tf.cond(tf.image.is_jpeg(encoded), has_few_channels, never)


def decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
  """Decodes a JPEG or PNG file; the content decides which it is.

  Transparent pixels are blended with white. The EXIF orientation is ignored.

  Args:
    encoded: scalar string tensor, the bytes of the file.
    channels: 3, or 1 for grey.

  Returns:
    [height, width, channels] uint8 tensor. Running it raises
    InvalidArgumentError for any other file.
  """
  def of_plain_jpeg():
    return tf.image.decode_jpeg(encoded, channels=channels)

  def of_another():
    return decode_other(encoded, channels)

  image = tf.cond(is_plain_jpeg(encoded), of_plain_jpeg, of_another)
  image.set_shape([None, None, channels])
  return image


def decode_other(encoded: tf.Tensor, channels: int) -> tf.Tensor:
  """Decodes as `decode` does, for files that are not plain JPEGs."""
  def of_cmyk():
    return _decode_cmyk(encoded, channels)

  def of_png():
    return _decode_png(encoded, channels)

  return tf.cond(tf.image.is_jpeg(encoded), of_cmyk, of_png)


def _decode_cmyk(encoded, channels):
  """Decodes a JPEG of four channels."""
  marked = tf.strings.join([tf.strings.substr(encoded, 0, 2), _ADOBE_MARKER,
                            tf.strings.substr(encoded, 2, 2 ** 31 - 1)])
  return _as_stored(
      tf.image.decode_jpeg(marked, channels=3, dct_method='INTEGER_ACCURATE'),
      channels)


def _decode_png(encoded, channels):
  """Decodes a PNG file; one with transparent pixels is blended with white."""
  start = tf.strings.substr(encoded, 0, len(_PNG_SIGNATURE))
  # As numbers: TensorFlow 2 fails on a message that is not UTF-8.
  with tf.control_dependencies([tf.Assert(
      tf.equal(start, _PNG_SIGNATURE),
      [_REFUSAL, tf.io.decode_raw(start, tf.uint8)],
      summarize=len(_PNG_SIGNATURE), name='DecodeJpegAssert')]):
    encoded = tf.identity(encoded)

  def with_alpha():
    return tf.io.decode_png(encoded, channels=4, name='DecodeJpegAlpha')

  # Decoded again: keeping RGB and RGBA would take 7 bytes per pixel.
  def of_opaque():
    return tf.image.decode_jpeg(encoded, channels=channels)

  def of_transparent():
    return _as_stored(_blend(with_alpha()), channels)

  least_alpha = tf.reduce_min(with_alpha(), [0, 1])[3]
  return tf.cond(tf.equal(least_alpha, 255), of_opaque, of_transparent)


def _blend(rgba):
  """Returns RGB pixels on white, rounded to the nearest value.

  One band of rows at a time: the arithmetic takes 34 bytes per pixel.
  """
  shape = tf.shape(rgba)
  rows = tf.maximum(_BAND_PIXELS // shape[1], 1)
  count = (shape[0] + rows - 1) // rows

  def add_band(index, bands):
    band = tf.cast(rgba[index * rows:(index + 1) * rows], tf.int32)
    color, alpha = band[..., :3], band[..., 3:]
    blended = (color * alpha + 255 * (255 - alpha) + 127) // 255
    return index + 1, bands.write(index, tf.cast(blended, tf.uint8))

  bands = tf.TensorArray(tf.uint8, count, infer_shape=False,
                         element_shape=[None, None, 3])
  _, bands = tf.while_loop(lambda index, _: index < count, add_band, (0, bands),
                           parallel_iterations=1, back_prop=False)
  return bands.concat()


def _as_stored(image, channels):
  """Returns RGB pixels with the JPEG loss that photo_files.photos causes.

  The loss is small, but it matters: without it the probabilities of a drawn
  flower changed by 0.24.
  """
  stored = tf.io.encode_jpeg(image, format='rgb', quality=photos.JPEG_QUALITY)
  return tf.image.decode_jpeg(stored, channels=channels)
