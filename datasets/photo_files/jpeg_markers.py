"""Reads the markers of a JPEG: size, scans, end of data, and metadata."""

import io
import re
from typing import Tuple

from datasets.photo_files.photo_colors import CostlyPhotoError

# A marker and the two bytes after it, in the header or in or after the coded
# data, where a byte 255 is followed by 0. Restart markers do not match: they
# have no length.
_MARKER = re.compile(b'\xff([^\x00\x01\xd0-\xd7\xff])(.?.?)', re.DOTALL)
_END, _SCAN = b'\xd9', b'\xda'
# Frames with Huffman coding in one pass: baseline and extended sequential.
_SEQUENTIAL = (b'\xc0', b'\xc1')
_PROGRESSIVE = (b'\xc2', b'\xc6', b'\xca', b'\xce')
# Segments that begin with their length: tables, further scans, application data
# and comments.
_SEGMENTS = {_SCAN} | {bytes([marker]) for marker in (
    0xc4, 0xcc, 0xdb, 0xdc, 0xdd, *range(0xe0, 0xf0), 0xfe)}

# Frames hold the size (ITU T.81, table B.1).
_FRAMES = {bytes([marker]) for marker in set(range(0xc0, 0xd0)) - {
    0xc4, 0xc8, 0xcc}}

# libjpeg processes the whole photo for every scan, however few bytes it has:
# about 1 ms per million pixels. Encoders write 10 scans (libjpeg) or up to 12
# (MozJPEG). More are accepted if they take no more than 0.1 s together.
_MAX_SCANS, _FREE_PIXELS = 20, 100 * 1000 * 1000
# Limits of segments, more than cameras write (at 64 KiB each they would be
# 64 MiB), and of bytes between them, which Pillow skips one at a time.
_MAX_SEGMENTS, _MAX_STRAY_BYTES = 1000, 1 << 16

# Replaces the end marker after the coded data: libjpeg reads up to 8 bytes
# ahead of the bits that it needs. Twice that decodes to only a few blocks.
_PADDING = bytes(16)

# Segments that decoders need: tables, frames and scans.
_NEEDED = {_SCAN} | {bytes([marker]) for marker in (
    *range(0xc0, 0xc8), *range(0xc9, 0xd0), 0xdb, 0xdc, 0xdd)}
_EXIF = b'\xff\xe1'


class JpegError(ValueError):
  """A JPEG that is damaged; the message is a short reason."""


def size_of(data: bytes) -> Tuple[int, int]:
  """Returns the largest width and height of the frames before the coded data.

  Zeros if there is no frame, or the segments do not lead to coded data.

  Raises:
    CostlyPhotoError: it has far more scans than a photo of its size needs, or
      far more segments than any photo.
  """
  width = height = stray = num_scans = 0
  last = 2
  for number, (marker, start, end) in enumerate(_markers(data, 2)):
    if marker == _END:
      break
    if not num_scans:
      stray += start - last
      last = end
    if number == _MAX_SEGMENTS or stray > _MAX_STRAY_BYTES:
      raise CostlyPhotoError(
          'more than %d segments, or %d bytes between them, in the JPEG: save '
          'the photo again' % (_MAX_SEGMENTS, _MAX_STRAY_BYTES))
    if marker in _FRAMES and not num_scans:
      height = max(height, int.from_bytes(data[start + 5:start + 7], 'big'))
      width = max(width, int.from_bytes(data[start + 7:start + 9], 'big'))
    num_scans += marker == _SCAN
    if num_scans > _max_scans(width, height):
      raise CostlyPhotoError(
          'more than %d scans, the limit for a JPEG of %d x %d pixels: save '
          'the photo again' %
          (_max_scans(width, height), width, height))
  return (width, height) if num_scans else (0, 0)


def coefficient_bytes(data: bytes) -> int:
  """Returns the bytes of the coefficients that libjpeg holds while it decodes.

  It holds all of them, two bytes each, unless the first scan has all components
  of a sequential JPEG (libjpeg's jdinput.c and jdcoefct.c).
  """
  code, frame = b'', b''
  for marker, start, end in _markers(data, 2):
    if marker in _FRAMES:
      code, frame = marker, data[start + 4:end]
    if marker == _SCAN:
      count = frame[5] if len(frame) > 5 else 0
      factors = [(value >> 4, value & 15)
                 for value in frame[7:6 + 3 * count:3]]
      in_scan = data[start + 4] if len(data) > start + 4 else 0
      if not factors or (code not in _PROGRESSIVE and in_scan >= count):
        return 0
      height, width = (int.from_bytes(frame[place:place + 2], 'big')
                       for place in (1, 3))
      largest = max(across * down for across, down in factors) or 1
      return 2 * width * height * sum(
          across * down for across, down in factors) // largest
  return 0


def drop_end(data: bytes, source: io.BytesIO) -> None:
  """Removes the end marker of a JPEG, so that Pillow notices lost data.

  At the marker libjpeg fills missing parts with grey and only warns, which
  Pillow and TensorFlow both ignore. Without it libjpeg asks for more data, and
  Pillow raises that the file is truncated; a complete file is decoded before
  that.

  Not noticed are lost data if the rest happens to make enough blocks, and any
  loss in a file of several scans (progressive), each of which has an end of its
  own. Such files keep their marker.

  Args:
    data: the file.
    source: file object of these bytes, from which Pillow has read the header,
      up to the coded data.

  Raises:
    JpegError: the end marker is not reached.
  """
  end, has_more_scans = _find_end(data, source.tell())
  if not has_more_scans and _is_sequential(data):
    source.seek(end)
    source.truncate()
    source.write(_PADDING)


def without_metadata(data: bytes, exif: bytes = b'') -> bytes:
  """Returns the same JPEG without data that do not change how it looks.

  The coded data stay byte for byte, and so do the ICC profile and the colour
  model in the JFIF and Adobe markers. Thumbnails, comments, all other
  application data and bytes after the end marker are dropped.

  Args:
    data: the file.
    exif: EXIF block to insert, beginning with `Exif`; empty: none.

  Raises:
    JpegError: the end marker is not reached.
  """
  kept = [data[:2], _segment(_EXIF, exif) if exif else b'']
  coded = None  # Start of the coded data of the current scan.
  for marker, start, end in _markers(data, 2):
    if coded is not None:
      kept.append(data[coded:start])
    coded = end if marker == _SCAN else None
    if marker == _END:
      return b''.join(kept) + data[start:end]
    if marker in _NEEDED:
      kept.append(data[start:end])
    else:
      kept.append(_appearance(data[start:start + 2], data[start + 4:end]))
  raise JpegError('truncated: the JPEG has no end marker')


def _appearance(marker, content):
  """Returns the segment of an application that affects colours, or b''."""
  if marker == b'\xff\xe0' and content[:5] == b'JFIF\0':
    return _segment(marker, content[:12] + bytes(2))  # No thumbnail.
  if marker == b'\xff\xe2' and content[:12] == b'ICC_PROFILE\0':
    return _segment(marker, content)
  if marker == b'\xff\xee' and content[:5] == b'Adobe':
    return _segment(marker, content[:12])
  return b''


def _segment(marker, content):
  return marker + (len(content) + 2).to_bytes(2, 'big') + content


def _markers(data, start):
  """Yields each marker's code, its start and the end of its segment.

  Args:
    data: bytes of the file.
    start: where to begin.
  """
  match = _MARKER.search(data, start)
  while match:
    code, length = match.groups()
    end = match.end(1)
    if code != _END:
      end += int.from_bytes(length, 'big')
    yield code, match.start(), end
    match = _MARKER.search(data, end)


def _is_sequential(data):
  for marker, _, _ in _markers(data, 2):
    if marker not in _SEGMENTS:
      return marker in _SEQUENTIAL
  return False


def _max_scans(width, height):
  """Returns how many scans a JPEG of this size may have."""
  blocks = -(-width // 8) * -(-height // 8)
  return max(_MAX_SCANS, _FREE_PIXELS // (64 * blocks or 1))


def _find_end(data, start):
  """Returns where the end marker is, and whether more scans are before it.

  If only the marker and a few bits are missing, or a changed byte looks like a
  segment that extends beyond the end, Pillow accepts the file and TensorFlow
  does not. Bytes after the marker do not matter: phones append videos.

  Args:
    data: bytes of the file.
    start: end of the header.

  Raises:
    JpegError: the end marker is not reached.
  """
  has_more_scans = False
  for marker, place, _ in _markers(data, start):
    if marker == _END:
      return place, has_more_scans
    if marker not in _SEGMENTS:
      raise JpegError('damaged: marker %s in the coded data' % marker.hex())
    has_more_scans |= marker == _SCAN
  raise JpegError('truncated: the JPEG has no end marker')
