"""Finds a safe reader for WebP files, and reads their size and first frame.

Layout of the container: RFC 9649, section 2.
"""

from typing import Optional, Tuple

from PIL import WebPImagePlugin, features

# Earlier versions of libwebp overflow a buffer on a crafted file
# (CVE-2023-4863). The Pillow of Python 3.7 will not get a newer one.
_SAFE_VERSION = (1, 3, 2)

# Chunks that are searched for the first frame; two or three precede it. Without
# a limit, an upload of a million empty chunks would take seconds.
_MAX_CHUNKS = 100


def find_reader() -> Optional[type]:
  """Returns Pillow's class for WebP, None if its libwebp is not safe."""
  version = features.version('webp')
  if version and tuple(map(int, version.split('.'))) >= _SAFE_VERSION:
    return WebPImagePlugin.WebPImageFile
  return None


def size_of(data: bytes) -> Tuple[int, int]:
  """Returns width and height from the header, zeros if it is damaged.

  For use before Pillow opens the file, which allocates the whole picture.

  Args:
    data: a WebP file, at least its first 30 bytes.
  """
  kind = data[12:16]
  if kind == b'VP8X' and len(data) >= 30:
    return _number(data[24:27]) + 1, _number(data[27:30]) + 1
  if kind == b'VP8 ' and data[23:26] == b'\x9d\x01\x2a' and len(data) >= 30:
    return _number(data[26:28]) & 0x3fff, _number(data[28:30]) & 0x3fff
  if kind == b'VP8L' and data[20:21] == b'\x2f' and len(data) >= 25:
    bits = _number(data[21:25])
    return (bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1
  return 0, 0


def first_frame(data: bytes) -> Optional[Tuple[int, int, int, int]]:
  """Returns left, top, right, bottom of an animation's first frame, or None.

  Pillow leaves the rest of the picture black.

  Args:
    data: a WebP file.
  """
  offset = 12
  for _ in range(_MAX_CHUNKS):
    if offset + 24 > len(data) or data[12:16] != b'VP8X':
      break
    if data[offset:offset + 4] == b'ANMF':
      left, top, width, height = (_number(data[start:start + 3]) for start in
                                  range(offset + 8, offset + 20, 3))
      return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
    length = _number(data[offset + 4:offset + 8])
    offset += 8 + length + length % 2
  return None


def _number(data):
  return int.from_bytes(data, 'little')
