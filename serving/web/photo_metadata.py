"""Removes metadata, such as people and places, from photos.

Cameras record where a photo was taken, by whom and with which device, and
phones append videos. None of it is kept: only the pixels, their colour space
and the orientation.
"""

import os
import threading
import zlib
from typing import Iterator, Tuple

from PIL import Image

from datasets.photo_files import formats, jpeg_markers, photos
from datasets.photo_files.photos import PhotoError

# Chunks of a PNG that affect its appearance (PNG, third edition, 5.6), with
# those of an animation; and chunks from which Pillow reads an EXIF block.
_PNG_START = 8
_PNG_KEPT = frozenset((
    b'IHDR', b'PLTE', b'IDAT', b'IEND', b'tRNS', b'cHRM', b'gAMA', b'iCCP',
    b'sBIT', b'sRGB', b'cICP', b'mDCV', b'cLLI', b'bKGD', b'pHYs', b'acTL',
    b'fcTL', b'fdAT'))
_PNG_EXIF = frozenset((b'eXIf', b'tEXt', b'zTXt', b'iTXt'))

_ORIENTATION = 0x0112

# Number of photos that are decoded at a time; a JPEG is not decoded.
_DECODERS = threading.BoundedSemaphore(os.cpu_count() or 1)


def strip(data: bytes, max_pixels: int) -> bytes:
  """Returns the photo without metadata and without data after its end.

  JPEG and PNG keep their coded pixels byte for byte. Other formats (WebP, HEIC)
  become a JPEG, as in the converter.

  Args:
    data: bytes of a photo.
    max_pixels: largest width times height that is decoded.

  Raises:
    PhotoError: it is too damaged to separate pixels from metadata.
  """
  name = formats.name_of(data)
  if name == 'JPEG':
    try:
      return jpeg_markers.without_metadata(data, _exif(data, max_pixels))
    except jpeg_markers.JpegError as error:
      raise PhotoError(str(error))
  if name == 'PNG':
    return _strip_png(data, max_pixels)
  with _DECODERS:
    return photos.normalize_photo(data, max_pixels).encoded


def _exif(data, max_pixels):
  """Returns an EXIF block with only the orientation; empty if that is 1."""
  orientation = photos.orientation_of(data, max_pixels)
  if orientation == 1:
    return b''
  exif = Image.Exif()
  exif[_ORIENTATION] = orientation
  return exif.tobytes()


def _strip_png(data, max_pixels):
  chunks = list(_png_chunks(data))
  kept = [data[:_PNG_START]]
  kept += [chunk for kind, chunk in chunks if kind in _PNG_KEPT]
  if any(kind in _PNG_EXIF for kind, _ in chunks):
    with _DECODERS:
      exif = _exif(data, max_pixels)[len(b'Exif\0\0'):]
    if exif:
      kept.insert(2, _png_chunk(b'eXIf', exif))  # After IHDR.
  return b''.join(kept)


def _png_chunks(data: bytes) -> Iterator[Tuple[bytes, bytes]]:
  """Yields the kind and the bytes of each chunk, including the end chunk."""
  start, kind = _PNG_START, b''
  while kind != b'IEND' and start + 8 <= len(data):
    kind = data[start + 4:start + 8]
    end = start + 12 + int.from_bytes(data[start:start + 4], 'big')
    yield kind, data[start:end]
    start = end


def _png_chunk(kind, content):
  return (len(content).to_bytes(4, 'big') + kind + content +
          zlib.crc32(kind + content).to_bytes(4, 'big'))
