"""Converts any photo file to an upright RGB JPEG.

All photos enter the project here: the converter, classify_image and the server
all call `normalize_photo`. It may be called from several threads at once.
"""

import contextlib
import ctypes
import hashlib
import io
import logging
import struct
import threading
import warnings
import zlib
from typing import NamedTuple, Optional, Tuple

from PIL import (
  BmpImagePlugin,
  GifImagePlugin,
  Image,
  JpegImagePlugin,
  PngImagePlugin,
  TiffImagePlugin,
)

from datasets.photo_files import (
  formats,
  jpeg_markers,
  photo_colors,
  photo_memory,
  photo_work,
  webp,
)
from datasets.photo_files.photo_colors import PhotoError

try:  # An optional package; docs/data.md says what for.
  from pillow_heif import HeifImageFile
except ImportError:
  HeifImageFile = None

# Characters of all texts in a PNG, which Pillow unpacks when it opens a file:
# 8 MB at most. With its own limit small files may take 256 MB.
PngImagePlugin.MAX_TEXT_MEMORY = 2 * 2 ** 20

# Width times height. The largest medium-format cameras have 102 to 151 million;
# decoded, such a photo needs 3 bytes per pixel.
MAX_PIXELS = 160 * 1000 * 1000

# Photos of more pixels than this are decoded one at a time, so that a folder of
# small files that each claim to have MAX_PIXELS does not fill the memory.
_LARGE_PIXELS = 50 * 1000 * 1000
# Memory of a pixel with transparency relative to one without.
_ALPHA_WEIGHT = 2
_large_photo_lock = threading.Lock()

# No accepted format needs more per pixel (16 bits in four channels), or for
# other data: EXIF blocks, the video of a phone.
_BYTES_PER_PIXEL, _OTHER_BYTES = 8, 64 * 1024 * 1024

# How many bytes of a file `check_head` needs.
HEAD_BYTES = 16

# Pixels hashed at a time.
_DIGEST_PIXELS = 2 * 1000 * 1000

# Quality of the JPEGs written here; high enough to survive a second encoding.
JPEG_QUALITY = 95

# Pixels; libjpeg's JPEG_MAX_DIMENSION.
MAX_SIDE = 65500


class _JpegFile(JpegImagePlugin.JpegImageFile):
  """Pillow's reader without EXIF, which it would parse for the resolution.

  See photo_work.orientation_in.
  """

  def getexif(self):
    return Image.Exif()


# {format: reader}. The readers are called directly: Image.open has a pixel
# limit of its own that is process-wide, and fills its table of plug-ins on
# first use, which is not thread-safe.
_READERS = {
    'JPEG': _JpegFile,
    'PNG': PngImagePlugin.PngImageFile,
    'GIF': GifImagePlugin.GifImageFile,
    'BMP': BmpImagePlugin.BmpImageFile,
    'TIFF': TiffImagePlugin.TiffImageFile,
    'WebP': webp.find_reader(),
    'HEIC': HeifImageFile,
}
_READERS = {name: reader for name, reader in _READERS.items() if reader}

# 'JPEG, PNG, GIF, BMP, TIFF or WebP', or what this installation can read.
ACCEPTED = ' or '.join(', '.join(_READERS).rsplit(', ', 1))

# Errors that Pillow raises on damaged files when opening (SyntaxError if the
# format is another), decoding and converting between modes.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError,
                  IndexError, AttributeError, OverflowError, EOFError,
                  ZeroDivisionError, RuntimeError, AssertionError,
                  MemoryError, struct.error, zlib.error,
                  Image.DecompressionBombError)

# Key under which Pillow keeps an EXIF block that ImageMagick wrote as text.
_EXIF_TEXT = 'Raw profile type exif'

# {EXIF orientation: transposition that makes the photo upright}.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about damaged EXIF blocks and the like, which do not affect the
# pixels. The filter is permanent, because warnings.catch_warnings is not
# thread-safe. Errors that Pillow logs it also raises.
warnings.filterwarnings('ignore', module=r'PIL\.')
logging.getLogger('PIL').setLevel(logging.CRITICAL)

def _silence_libtiff():
  """Keeps libtiff from writing about damaged files to stderr.

  Pillow still raises for them. It has no option for this, but the library is
  accessible through its extension module, which is linked with it.
  """
  pillow = ctypes.CDLL(Image.core.__file__)
  for name in ('TIFFSetErrorHandler', 'TIFFSetWarningHandler'):
    set_handler = getattr(pillow, name, None)
    if set_handler is not None:
      set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], (
          ctypes.c_void_p)
      set_handler(None)


_silence_libtiff()


class Photo(NamedTuple):
  """An upright RGB JPEG."""

  # The JPEG file.
  encoded: bytes
  # In pixels.
  height: int
  width: int


class Inspected(NamedTuple):
  """A photo with a digest to compare it with others."""

  photo: Photo
  # Whether the file itself is that JPEG.
  is_plain: bool
  # Hexadecimal digest. For photos that are not plain it is equal if and only if
  # their pixels are equal; for plain ones it is equal if their pixels are, but
  # may rarely be equal otherwise too: `pixels_digest` decides.
  look: str


def normalize_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> Photo:
  """Turns the bytes of a photo file into an upright RGB JPEG.

  The content decides the format, never the file name. The whole file is
  decoded, so that a truncated one is found here and not in training; so is, in
  most cases, a JPEG that lost data in the middle, unless it is progressive. A
  three-channel JPEG that is upright is returned byte for byte; all others are
  encoded again with quality 95: EXIF rotation applied, first frame of an
  animation, transparency on white, 16 bits per channel reduced to 8, grey and
  CMYK as RGB. A JPEG that would take more than photo_memory.MAX_BYTES is
  decoded at half or a quarter of its width and height, and encoded again.

  Args:
    data: the file.
    max_pixels: largest width times height that is decoded.

  Returns:
    A Photo.

  Raises:
    PhotoError: if this is not a photo of an accepted format, is empty, damaged
      or truncated, has more than `max_pixels` pixels, or would take far more
      work than these explain (a CostlyPhotoError).
  """
  return inspect_photo(data, max_pixels).photo


def inspect_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> Inspected:
  """Normalizes a photo as normalize_photo does; returns an Inspected."""
  with _opened(data, max_pixels) as (image, layout, orientation, is_plain):
    if is_plain:
      height, width = image.height, image.width
      look = _digest(_decode_for_check(image))
      return Inspected(Photo(data, height, width), True, look)
    upright = _upright(image, layout, orientation)
    return Inspected(_encode(upright), False, _digest(upright))


def pixels_digest(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
  """Returns the hexadecimal digest of a photo's upright RGB pixels.

  Raises:
    PhotoError: as normalize_photo does.
  """
  with _opened(data, max_pixels) as (image, layout, orientation, _):
    return _digest(_upright(image, layout, orientation))


def orientation_of(data: bytes, max_pixels: int = MAX_PIXELS) -> int:
  """Returns a photo's EXIF orientation, 1 to 8; 1: it is already upright.

  A PNG is decoded for this.

  Raises:
    PhotoError: as normalize_photo does.
  """
  with _opened(data, max_pixels) as (_, _, orientation, _):
    return orientation


def can_read(format_name: Optional[str]) -> bool:
  """Returns whether files of a format of formats.name_of can be read."""
  return format_name in _READERS


def size_of(data: bytes) -> Tuple[int, int]:
  """Returns width and height of a photo that can be read, without decoding it.

  Raises:
    PhotoError: it cannot be read, or its header is damaged.
  """
  if _find_reader(data) is _READERS.get('WebP'):
    # Pillow allocates the whole picture when it opens the file.
    width, height = webp.size_of(data)
    if not width:
      raise PhotoError('damaged header: no size of the picture')
    return width, height
  return _open(data, io.BytesIO(data)).size


def weight_of(data: bytes) -> int:
  """Estimates the memory that decoding a photo takes, without decoding it.

  Returns:
    Its number of pixels; doubled if they need more memory, as with
    transparency. 0 if the photo cannot be read.
  """
  try:
    if _find_reader(data) is _READERS.get('WebP'):
      width, height = size_of(data)
      return _ALPHA_WEIGHT * width * height
    return _weight(_open(data, io.BytesIO(data)))
  except PhotoError:
    return 0


def memory_of(data: bytes) -> int:
  """Estimates the bytes of memory that the server needs for a photo.

  Args:
    data: file of a format that the server accepts.

  Returns:
    The estimate of photo_memory; 0 if the photo cannot be read.
  """
  try:
    name = formats.name_of(data) or ''
    if name == 'JPEG':
      image = _open(data, io.BytesIO(data))
      return _jpeg_scale(image, data, _orientation(image))[1]
    width, height = size_of(data)
    return photo_memory.of_other(name, width * height, len(data))
  except PhotoError:
    return 0


def check_head(head: bytes, num_bytes: int,
               max_pixels: int = MAX_PIXELS) -> None:
  """Refuses a file by its first bytes and its size, before it is read.

  Args:
    head: its first HEAD_BYTES bytes.
    num_bytes: its size.
    max_pixels: largest width times height that is accepted.

  Raises:
    PhotoError: if it is not a photo of an accepted format, or larger than one
      of max_pixels can be.
  """
  _find_reader(head)
  limit = max_pixels * _BYTES_PER_PIXEL + _OTHER_BYTES
  if num_bytes > limit:
    raise PhotoError('%d bytes, more than the limit of %d for a photo of %d '
                     'pixels' % (num_bytes, limit, max_pixels))


@contextlib.contextmanager
def _opened(data, max_pixels):
  """Yields a photo's Pillow image, Layout, EXIF orientation and is_plain.

  The image is not decoded yet if its EXIF block is in the header. It is plain
  if the file itself can be used.

  Raises:
    PhotoError: as normalize_photo does, also for errors of Pillow in the body
      of the `with`.
  """
  if _find_reader(data) is _READERS.get('WebP'):
    _check_size(*size_of(data), max_pixels)
  source = io.BytesIO(data)
  image = _open(data, source)
  width, height = image.size
  _check_size(width, height, max_pixels)
  if isinstance(image, JpegImagePlugin.JpegImageFile):
    try:
      jpeg_markers.drop_end(data, source)
    except jpeg_markers.JpegError as error:
      raise PhotoError(str(error))
  # Pillow rotates a TIFF when it decodes it, and would read the orientation
  # from XMP; browsers and TensorFlow only use that of EXIF.
  image.info.pop('xmp', None)
  try:
    layout = photo_colors.layout_of(image, data)
    with (_large_photo_lock if _weight(image) > _LARGE_PIXELS else
          contextlib.nullcontext()):
      orientation, scale = _orientation(image), 1
      if image.format == 'JPEG':
        scale = _jpeg_scale(image, data, orientation)[0]
      is_plain = scale == 1 and _is_plain_jpeg(image, orientation)
      if scale > 1:
        image.draft(image.mode, (width // scale or 1, height // scale or 1))
      yield image, layout, orientation, is_plain
  except PhotoError:  # It is a ValueError itself.
    raise
  except _PILLOW_ERRORS as error:
    raise PhotoError('cannot be decoded: %s' % _one_line(error))


def _open(data, source):
  """Returns the Pillow image of a file; reads only the header.

  Args:
    data: bytes of the file.
    source: io.BytesIO of them.
  """
  reader = _find_reader(data)
  photo_work.check(formats.name_of(data), data)
  try:
    return reader(source)
  except _PILLOW_ERRORS as error:
    raise PhotoError('damaged header: %s' % _one_line(error))


def _weight(image):
  """Returns the pixels of a Pillow image, weighted as in weight_of."""
  needs_more = image.format == 'WEBP' or photo_colors.has_alpha(image)
  return (_ALPHA_WEIGHT if needs_more else 1) * image.width * image.height


def _check_size(width, height, max_pixels):
  if max(width, height) > MAX_SIDE:
    raise PhotoError('%d x %d pixels, but a JPEG has at most %d per side' %
                     (width, height, MAX_SIDE))
  if width * height > max_pixels:
    raise PhotoError('%d x %d pixels, more than the limit of %d' %
                     (width, height, max_pixels))


def _find_reader(data):
  """Returns the Pillow reader for the file's first bytes."""
  if not data:
    raise PhotoError('the file is empty')
  name = formats.name_of(data)
  if name in _READERS:
    return _READERS[name]
  if name in formats.PHOTOS:
    raise PhotoError('%s is not accepted: save the photo as JPEG or PNG' % name)
  raise PhotoError('not a photo that can be read (accepted: %s)' % ACCEPTED)


def _one_line(error):
  return ' '.join(str(error).split()) or type(error).__name__


def _orientation(image):
  """Returns the EXIF orientation, 1 to 8; 1 if there is none."""
  if isinstance(image, TiffImagePlugin.TiffImageFile):
    return 1  # Pillow itself rotates a TIFF when it decodes it.
  try:
    if isinstance(image, PngImagePlugin.PngImageFile):
      image.load()  # Its texts and its EXIF block may follow the pixels.
    exif = image.info.get('exif')
    if exif is None and _EXIF_TEXT in image.info:
      exif = bytes.fromhex(''.join(image.info[_EXIF_TEXT].split('\n')[3:]))
    orientation = photo_work.orientation_in(exif) if exif else 1
  except _PILLOW_ERRORS:  # The pixels may be fine if the EXIF block is damaged.
    return 1
  return orientation if orientation in _UPRIGHT else 1


def _jpeg_scale(image, data, orientation):
  """Returns scale and bytes as photo_memory.of_jpeg does."""
  return photo_memory.of_jpeg(
      image.width * image.height, jpeg_markers.coefficient_bytes(data),
      len(data), _is_plain_jpeg(image, orientation))


def _is_plain_jpeg(image, orientation):
  """Returns whether this is an upright JPEG that every decoder reads alike.

  Adobe's marker with a transform other than YCbCr (1) means that the channels
  are RGB, or CMYK; decoders disagree if there is a JFIF marker as well.
  """
  return (isinstance(image, JpegImagePlugin.JpegImageFile) and
          orientation == 1 and image.mode == 'RGB' and
          image.info.get('adobe_transform', 1) == 1)


def _decode_for_check(image):
  """Decodes a JPEG up to its end, at an eighth of the size; returns it.

  libjpeg still reads every coded coefficient, but saves most of the arithmetic.
  """
  image.draft('RGB', (image.width // 8 or 1, image.height // 8 or 1))
  image.load()
  return image


def _upright(image, layout, orientation):
  """Decodes an image; returns it upright in mode RGB.

  The image that was given is closed, unless it is the result: no more than two
  large images are in memory at a time.
  """
  image.load()
  upright = photo_colors.to_rgb(image, layout)
  if upright is not image:
    image.close()
  if orientation in _UPRIGHT:
    upright = upright.transpose(_UPRIGHT[orientation])
  return upright


def _digest(image):
  """Returns the digest of an RGB image's size and pixels."""
  width, height = image.size
  digest = hashlib.sha256(b'%d x %d' % (width, height))
  rows = max(1, _DIGEST_PIXELS // width)  # In bands: tobytes makes a copy.
  for top in range(0, height, rows):
    band = image.crop((0, top, width, min(top + rows, height)))
    digest.update(band.tobytes())
  return digest.hexdigest()


def _encode(image):
  """Returns the Photo of an RGB Pillow image."""
  image.info = {}  # Pillow would copy a comment into the JPEG.
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=JPEG_QUALITY)
  return Photo(buffer.getvalue(), image.height, image.width)
