"""Converts decoded photos to 8-bit RGB, as image viewers show them."""

from typing import NamedTuple, Optional, Tuple

import numpy as np
from PIL import GifImagePlugin, Image, TiffImagePlugin

from common.errors import InputError
from datasets.photo_files import webp

_WHITE = (255, 255, 255)

# Pixels converted at a time.
_BAND_PIXELS = 250 * 1000

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# The largest value of 12 bits, and its high byte in 16 bits.
_MAX_12_BITS, _HIGH_BYTE = 4095, 15


class Layout(NamedTuple):
  """Properties that Pillow no longer gives after decoding."""

  # Bits per channel in the file.
  bits: int
  # (left, top, right, bottom) of the first frame of an animation; None if the
  # file is not an animation.
  frame: Optional[Tuple[int, int, int, int]]


class PhotoError(InputError):
  """A file that is not a usable photo; the message is a short reason."""


class CostlyPhotoError(PhotoError):
  """A photo that would take far more work than its pixels explain."""


def layout_of(image: Image.Image, data: bytes) -> Layout:
  """Returns the Layout of an image that is not decoded yet.

  Args:
    image: as opened by Pillow.
    data: its file.
  """
  if image.format == 'PNG':
    return Layout(data[24], None)
  if isinstance(image, TiffImagePlugin.TiffImageFile):
    return Layout(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))), None)
  if isinstance(image, GifImagePlugin.GifImageFile):
    return Layout(8, image.tile[0][1] if image.tile else None)
  return Layout(8, webp.first_frame(data) if image.format == 'WEBP' else None)


def has_alpha(image: Image.Image) -> bool:
  """Returns whether a Pillow image may have transparent pixels."""
  return (image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or
          'transparency' in image.info)


def to_rgb(image: Image.Image, layout: Layout) -> Image.Image:
  """Returns a decoded image in mode RGB, with white where it is transparent.

  Args:
    image: decoded by Pillow.
    layout: from `layout_of`, before it was decoded.

  Raises:
    PhotoError: its values have no agreed black and white.
  """
  if image.mode.startswith('I') or image.mode == 'F':
    return _from_deep_grey(image, layout.bits)
  if image.format == 'TIFF' and layout.bits > 8:
    # Three channels only: the fourth may be alpha, which is high if opaque.
    highest = max(np.ravel(image.getextrema())[:2 * 3])
    _check_uses_16_bits(highest > _HIGH_BYTE)
  if image.format == 'BMP' and image.mode == 'RGBA' and (
      image.getextrema()[-1] == (0, 0)):
    # Some programs leave the fourth byte unused.
    image = image.convert('RGB')
  if has_alpha(image):
    _scale_transparent_color(image, layout.bits)
    image = _by_bands(image, _on_white)
  elif image.mode != 'RGB':
    image = image.convert('RGB')
  return _only_frame(image, layout.frame)


def _by_bands(image, to_rgb_band):
  """Returns an RGB image, converted one band of rows at a time.

  A photo may be as large as the memory allows; two or three intermediate copies
  of it would be too many.

  Args:
    image: Pillow image.
    to_rgb_band: function of a band, a Pillow image; returns it in mode RGB.
  """
  result = Image.new('RGB', image.size)
  for box in _boxes(image):
    result.paste(to_rgb_band(image.crop(box)), box)
  return result


def _boxes(image):
  """Returns (left, top, right, bottom) of each band of an image."""
  width, height = image.size
  rows = max(1, _BAND_PIXELS // width)
  return [(0, top, width, min(top + rows, height))
          for top in range(0, height, rows)]


def _on_white(image):
  image = image.convert('RGBA')
  white = Image.new('RGBA', image.size, _WHITE + (255,))
  return Image.alpha_composite(white, image).convert('RGB')


def _only_frame(image, frame):
  """Makes an RGB image white outside its first frame; returns it."""
  if frame:
    (width, height), (left, top, right, bottom) = image.size, frame
    for box in ((0, 0, width, top), (0, min(bottom, height), width, height),
                (0, 0, left, height), (min(right, width), 0, width, height)):
      image.paste(_WHITE, box)
  return image


def _scale_transparent_color(image, bits):
  """Scales the one transparent colour of a PNG to 8 bits, like its pixels."""
  color = image.info.get('transparency')
  if image.mode in ('1', 'L') and isinstance(color, int) and bits < 8:
    image.info['transparency'] = color * 255 // (2 ** bits - 1)
  elif image.mode == 'RGB' and isinstance(color, tuple) and bits == 16:
    image.info['transparency'] = tuple(value >> 8 for value in color)


def _from_deep_grey(image, bits):
  """Returns a grey image of more than 8 bits per pixel in mode RGB.

  Sixteen bits keep their scale. Larger values (32 bits, floats) have no agreed
  white, so the darkest pixel becomes black and the brightest white.
  """
  low, high = _least_and_greatest(image)
  if image.mode != 'F' and low >= 0 and high <= 65535:
    if image.format == 'TIFF' and bits != 12:
      _check_uses_16_bits(high > _MAX_12_BITS)
    low, high = 0, _MAX_12_BITS if bits == 12 else 65535
  white_is_zero = image.format == 'TIFF' and (
      image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)

  def to_rgb_band(band):
    values = _values_of(band)
    grey = np.rint((values - low) * (255 / ((high - low) or 1))).astype(
        np.uint8)
    if white_is_zero:
      grey = 255 - grey
    if 'transparency' in image.info:
      grey[values == image.info['transparency']] = 255
    return Image.fromarray(grey).convert('RGB')

  return _by_bands(image, to_rgb_band)


def _values_of(image):
  return np.asarray(image).astype(np.float64)


def _least_and_greatest(image):
  """Returns the least and the greatest value of a deep grey image.

  Raises:
    PhotoError: some are not numbers.
  """
  extremes = []
  for box in _boxes(image):
    values = _values_of(image.crop(box))
    if not np.all(np.isfinite(values)):
      raise PhotoError('holds pixels that are not numbers')
    extremes += [values.min(), values.max()]
  return min(extremes), max(extremes)


def _check_uses_16_bits(uses_them):
  if not uses_them:
    raise PhotoError('all values are below 4096 of 65535, as if 12 bits were '
                     'stored in 16: save the photo with 8 bits per channel')
