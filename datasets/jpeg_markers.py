"""Markers of a JPEG: how its data are coded, and where they end."""

import re

# A marker in the header or amid or after the coded data, where a byte 255 is
# followed by 0, and the two bytes after it; not those for restarts, which have
# no length.
_MARKER = re.compile(b'\xff([^\x00\x01\xd0-\xd7\xff])(.?.?)', re.DOTALL)
_END, _SCAN = b'\xd9', b'\xda'
# Frames that are Huffman coded in one pass: baseline and extended sequential.
_SEQUENTIAL = (b'\xc0', b'\xc1')
# Those that begin with their length: tables, further scans, application data
# and comments.
_SEGMENTS = {_SCAN} | {bytes([marker]) for marker in (
    0xc4, 0xcc, 0xdb, 0xdc, 0xdd, *range(0xe0, 0xf0), 0xfe)}

# What follows the coded data instead of the end marker: libjpeg looks up to 8
# bytes ahead of the bits that it needs. Twice that makes but a few blocks.
_PADDING = bytes(16)


class JpegError(ValueError):
  """A JPEG that is damaged; the message is a short reason."""


def drop_end(data, source):
  """Takes the end marker from a JPEG, so that Pillow notices lost data.

  At the marker libjpeg fills what is missing with grey and only warns, which
  Pillow and TensorFlow both ignore. Without it libjpeg asks for more data, and
  Pillow says that the file is truncated; a whole one is decoded before that.

  Not noticed: data that were lost where the rest happens to make enough blocks,
  and any loss in a file of several scans (progressive), each of which has an
  end of its own. Such files keep their marker.

  Args:
    data: bytes of the file.
    source: the io.BytesIO of them from which Pillow has read the header, that
      is up to the coded data.

  Raises:
    JpegError: the end marker is not reached.
  """
  end, has_more_scans = _find_end(data, source.tell())
  if not has_more_scans and _is_sequential(data):
    source.seek(end)
    source.truncate()
    source.write(_PADDING)


def _is_sequential(data):
  start = 2
  while True:
    found = _MARKER.search(data, start)
    if not found or found.group(1) not in _SEGMENTS:
      return bool(found) and found.group(1) in _SEQUENTIAL
    start = found.end(1) + int.from_bytes(found.group(2), 'big')


def _find_end(data, start):
  """Returns where the end marker is, and whether more scans are before it.

  When only the marker and a few bits are missing, or a changed byte made a
  segment that leads beyond the end, Pillow is content and TensorFlow is not.
  What follows the marker is no matter: telephones append films.

  Args:
    data: bytes of the file.
    start: where the header ended.

  Raises:
    JpegError: the end marker is not reached.
  """
  has_more_scans = False
  while True:
    found = _MARKER.search(data, start)
    if not found:
      raise JpegError('truncated: the JPEG has no end marker')
    marker, length = found.group(1), found.group(2)
    if marker == _END:
      return found.start(), has_more_scans
    if marker not in _SEGMENTS:
      raise JpegError('damaged: marker %s amid the coded data' % marker.hex())
    has_more_scans |= marker == _SCAN
    start = found.end(1) + int.from_bytes(length, 'big')
