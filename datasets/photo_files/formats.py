"""Recognizes the format of a file by its first bytes.

  formats.name_of(data)  # 'JPEG', 'WebP', 'JSON', ...; None if unknown

Whether the format is accepted is decided elsewhere: by photo_files.photos for
files on disk and by serving.web.uploads for the server.
"""

import codecs
import re
from typing import Optional

# Bytes in which text formats are recognized; an SVG may begin with comments.
_TEXT_BYTES = 1024

# First bytes of each binary format; `.` stands for any byte.
_PHOTO_SIGNATURES = (
    (rb'\xff\xd8\xff', 'JPEG'),
    (rb'\x89PNG\r\n\x1a\n', 'PNG'),
    (rb'GIF8[79]a', 'GIF'),
    (rb'BM', 'BMP'),
    (rb'II\*\0|MM\0\*', 'TIFF'),
    (rb'II\+\0|MM\0\+', 'BigTIFF'),
    (rb'RIFF....WEBP', 'WebP'),
    (rb'....ftyp(hei[cxms]|hev[cmxs]|mif1|msf1)', 'HEIC'),
    (rb'....ftypavi[fs]', 'AVIF'),
    (rb'....ftypcrx ', 'CR3'),
    (rb'\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n', 'JPEG XL'),
    (rb'\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n', 'JPEG 2000'),
    (rb'8BPS', 'PSD'),
)
_OTHER_SIGNATURES = (
    (rb'....ftypqt  ', 'QuickTime'),
    (rb'....ftyp', 'MP4'),
    (rb'\0\0\x01\0', 'ICO'),
    (rb'RIFF....AVI ', 'AVI'),
    (rb'%PDF-', 'PDF'),
    (rb'PK(\x03\x04|\x05\x06)', 'ZIP'),
    (rb'\x1f\x8b', 'gzip'),
    (rb'7z\xbc\xaf\x27\x1c', '7z'),
    (rb'Rar!\x1a\x07', 'RAR'),
)
_SIGNATURES = [(re.compile(pattern, re.DOTALL), name)
               for pattern, name in _PHOTO_SIGNATURES + _OTHER_SIGNATURES]

# First characters of text formats, after a byte order mark and white space.
# Base64 is recognized by the encoded first bytes of JPEG, PNG, GIF, WebP and
# TIFF.
_TEXTS = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
          for pattern, name in (
    (r'(<\?xml|<!--|<!doctype svg).*<svg|<svg', 'SVG'),
    (r'<!doctype html|<html|<(head|body|script)\b', 'HTML'),
    (r'<\?xml', 'XML'),
    (r'[{\[]', 'JSON'),
    (r'data:[\w/+.;=-]+,|/9j/|iVBORw0KGgo|R0lGODl|R0lGODdh|UklGR|SUkqA|TU0AK',
     'Base64'),
    ('', 'Plain text'),
)]

# Formats that hold a photo.
PHOTOS = frozenset(name for _, name in _PHOTO_SIGNATURES)


def name_of(data: bytes) -> Optional[str]:
  """Returns the name of a file's format, None if it is not known.

  Args:
    data: the file, or its first bytes: 16 are enough for binary
      formats, some text formats need more.
  """
  for pattern, name in _SIGNATURES:
    if pattern.match(data):
      return name
  return _name_of_text(data[:_TEXT_BYTES])


def _name_of_text(head):
  """Returns the name of a text format, None if the file is not text."""
  try:  # Incremental, because the limit may cut a character in two.
    text = codecs.getincrementaldecoder('utf-8')().decode(head)
  except UnicodeDecodeError:
    return None
  text = text.lstrip('\ufeff \t\r\n')
  if not text or re.search('[\0-\x08\x0e-\x1f\x7f]', text):
    return None
  return next(name for pattern, name in _TEXTS if pattern.match(text))
