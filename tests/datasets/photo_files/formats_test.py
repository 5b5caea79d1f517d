"""Tests of photo_files/formats.py: the format by the first bytes of a file."""

import base64

import pytest

from datasets.photo_files import formats
from kits import service_kit as kit

PHOTO = kit.photo()
# Complete files, or their first bytes.
CASES = [
    (PHOTO, 'JPEG'), (kit.photo('PNG'), 'PNG'), (kit.photo('GIF'), 'GIF'),
    (kit.photo('BMP'), 'BMP'), (kit.photo('TIFF'), 'TIFF'),
    (b'MM\0*\0\0\0\x08', 'TIFF'), (b'II+\0\x08\0\0\0', 'BigTIFF'),
    (b'RIFF\x24\0\0\0WEBPVP8 ', 'WebP'), (b'RIFF\n\0\0\0AVI LIST', 'AVI'),
    (b'RIFF\x24\0\0\0WAVEfmt ', None),
    (b'\0\0\0\x18ftypheic', 'HEIC'), (b'\0\0\0\x18ftypmif1', 'HEIC'),
    (b'\0\0\0\x1cftypavif', 'AVIF'), (b'\0\0\0\x18ftypcrx ', 'CR3'),
    (b'\0\0\0\x18ftypmp42', 'MP4'), (b'\0\0\0\x14ftypqt  ', 'QuickTime'),
    (b'\0\0\0\x0cJXL \r\n\x87\n', 'JPEG XL'), (b'\xff\n\xfa\x7f', 'JPEG XL'),
    (b'\0\0\0\x0cjP  \r\n\x87\n', 'JPEG 2000'), (b'8BPS\0\1', 'PSD'),
    (b'\0\0\1\0\1\0', 'ICO'), (b'%PDF-1.4\n', 'PDF'), (b'PK\3\4\n\0', 'ZIP'),
    (b'\x1f\x8b\x08\0', 'gzip'), (b'Rar!\x1a\x07\1', 'RAR'),
    (b'<svg xmlns="x"/>', 'SVG'),
    (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a -->\n<svg/>', 'SVG'),
    (b'<?xml version="1.0"?><a/>', 'XML'),
    (b'\n<!DOCTYPE html><html><svg/>', 'HTML'), (b'<script>x', 'HTML'),
    (b'{"image": "/9j/"}', 'JSON'), (b' [1]', 'JSON'),
    (base64.b64encode(PHOTO), 'Base64'),
    (base64.b64encode(kit.photo('PNG')), 'Base64'),
    (b'data:image/jpeg;base64,' + base64.b64encode(PHOTO), 'Base64'),
    (b'file=@rose.jpg', 'Plain text'),
    ('只有文字'.encode() * 200, 'Plain text'),
    (b'', None), (b'\xff\xd8', None), (b'\x89PNG\n\x1a\n', None),
    (b'\x7fELF', None), (b'\0', None), (b' ', None),
    (b' ' + PHOTO, None),  # Decoders do not accept it either.
    (b'caf\xe9 au lait', None),  # Latin-1 could be anything.
]


@pytest.mark.parametrize('data, name', CASES, ids=kit.short_id)
def test_name_of_returns_the_format_of_the_first_bytes(data, name):
  assert formats.name_of(data) == name
