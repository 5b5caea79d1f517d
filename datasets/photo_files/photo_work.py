"""Refuses files that would take far more work than their pixels explain.

Pillow processes chunks, blocks and tags one at a time in Python. The cost of a
file is estimated from its structure before Pillow opens it, and reading stops
as soon as the cost is too high.
"""

import struct
from typing import Optional

from datasets.photo_files import jpeg_markers
from datasets.photo_files.photo_colors import CostlyPhotoError, PhotoError

# Chunks of a PNG: a fixed number, and one more per 256 bytes. Encoders write
# 8 KiB each.
_MAX_CHUNKS, _BYTES_PER_CHUNK = 1000, 256
# Compressed chunks other than the pixels: each may become 1 MiB.
_COMPRESSED, _MAX_COMPRESSED = (b'iCCP', b'zTXt', b'iTXt'), 100

# Blocks before the first frame of a GIF, of up to 255 bytes each.
_MAX_BLOCKS = 4000

# Pixels and bytes of a BMP with run lengths, which Pillow expands in Python.
_MAX_RUN_LENGTH_CODED = 4 * 1000 * 1000

# Strips or tiles of a TIFF; many programs write one strip per row.
_MAX_TILES = 66 * 1000
_TILES = (273, 324)  # Tags with their offsets.
# Bytes of a value by its type (TIFF 6.0, section 2).
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
_SHORT, _ORIENTATION = 3, 0x0112


def check(name: Optional[str], data: bytes) -> None:
  """Refuses a file that would take too long to read, or too much memory.

  Args:
    name: name of its format in datasets.photo_files.formats.
    data: the file.

  Raises:
    CostlyPhotoError: it is refused; the message names the excess.
    PhotoError: it is a JPEG that has no size.
  """
  if name == 'JPEG' and not all(jpeg_markers.size_of(data)):
    raise PhotoError('damaged header: no size of the picture')
  excess = _EXCESSES.get(name or '', lambda data: None)(data)
  if excess:
    raise CostlyPhotoError('%s in the %s: save the photo again' %
                           (excess, name))


def orientation_in(exif: bytes) -> int:
  """Returns the orientation in an EXIF block, 1 if it has none.

  Pillow would copy the data that all entries of the block point to, which may
  be the same bytes thousands of times.

  Args:
    exif: the block, with or without `Exif` before it.
  """
  if exif[:6] == b'Exif\0\0':
    exif = exif[6:]
  order, entries = _tiff_entries(exif)
  for tag, kind, count, value in entries:
    if (tag, kind, count) == (_ORIENTATION, _SHORT, 1):
      return struct.unpack(order + 'H', value[:2])[0]
  return 1


def _excess_in_png(data):
  most = _MAX_CHUNKS + len(data) // _BYTES_PER_CHUNK
  offset, num_compressed, kind = 8, 0, None
  for _ in range(most):
    kind = data[offset + 4:offset + 8]
    if len(kind) < 4 or kind == b'IEND':
      return None
    num_compressed += kind in _COMPRESSED
    if num_compressed > _MAX_COMPRESSED:
      return 'more than %d compressed texts' % _MAX_COMPRESSED
    offset += 12 + int.from_bytes(data[offset:offset + 4], 'big')
  return 'more than %d chunks' % most


def _excess_in_gif(data):
  offset = 13  # After the header and the palette.
  if len(data) > 10 and data[10] & 0x80:
    offset += 6 << (data[10] & 7)
  inside = False
  for _ in range(_MAX_BLOCKS):
    if offset >= len(data) or not inside and data[offset] in b',;':
      return None
    if inside:
      inside = data[offset] > 0
      offset += 1 + data[offset]
    else:  # Pillow skips bytes that do not begin an extension.
      inside = data[offset] == ord('!')
      offset += 2 if inside else 1
  return 'more than %d blocks before the first frame' % _MAX_BLOCKS


def _excess_in_bmp(data):
  if len(data) < 34:
    return None
  width, height = struct.unpack('<ii', data[18:26])
  compression, = struct.unpack('<I', data[30:34])
  if compression in (1, 2) and max(
      len(data), abs(width * height)) > _MAX_RUN_LENGTH_CODED:
    return 'run lengths for more than %d pixels or bytes' % (
        _MAX_RUN_LENGTH_CODED)
  return None


def _excess_in_tiff(data):
  total = 0
  for tag, kind, count, _ in _tiff_entries(data)[1]:
    total += count * _TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0
    if tag in _TILES and count > _MAX_TILES:
      return 'more than %d strips or tiles' % _MAX_TILES
  return 'tags of more bytes than the file has' if total > len(data) else None


def _tiff_entries(data):
  """Returns the byte order and the first directory's entries.

  Entries are tuples of tag, type, count and the 4 bytes of value or offset.
  """
  order = {b'II': '<', b'MM': '>'}.get(data[:2])
  if order is None or len(data) < 8:
    return '<', []
  start = struct.unpack(order + 'I', data[4:8])[0]
  count, = struct.unpack(order + 'H', data[start:start + 2].rjust(2, b'\0'))
  table = data[start + 2:start + 2 + 12 * count]
  return order, struct.iter_unpack(
      order + 'HHI4s', table[:len(table) // 12 * 12])


_EXCESSES = {'PNG': _excess_in_png, 'GIF': _excess_in_gif,
             'BMP': _excess_in_bmp, 'TIFF': _excess_in_tiff}
