"""Tests of serving/web/photo_metadata.py: kept photos have no metadata."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from compat import tf
from datasets.photo_files import photos
from datasets.photo_files.photos import PhotoError
from serving.web import photo_metadata

SECRET = b'Jane Doe, 48.8584 N 2.2945 E'
ICC = b'profile ' * 20000  # Too long for one segment of a JPEG.


def make_image(mode='RGB'):
  pixels = np.random.RandomState(5).randint(0, 256, (24, 40, 4), np.uint8)
  return Image.fromarray(pixels[..., :3]).convert(mode)


def exif(orientation=1):
  """Returns an EXIF block with a name, a place, and an orientation."""
  block = Image.Exif()
  block[0x0112], block[0x013b] = orientation, SECRET.decode()
  block[0x8825] = {1: 'N', 2: (48.0, 51.0, 30.2)}
  return block.tobytes()


def encode(kind, mode='RGB', **options):
  stream = io.BytesIO()
  make_image(mode).save(stream, kind, **options)
  return stream.getvalue()


def segment(marker, content):
  return struct.pack('>BBH', 255, marker, len(content) + 2) + content


def chunk(kind, content):
  return (struct.pack('>I', len(content)) + kind + content +
          struct.pack('>I', zlib.crc32(kind + content)))


def strip(data):
  return photo_metadata.strip(data, 10 ** 6)


def assert_same_pixels(stripped, data):
  """Asserts that Pillow, TensorFlow and the converter read the same pixels."""
  before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(stripped))
  assert (after.mode, after.size) == (before.mode, before.size)
  np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
  assert after.info.get('icc_profile') == before.info.get('icc_profile')
  assert photos.pixels_digest(stripped) == photos.pixels_digest(data)
  with tf.Graph().as_default(), tf.Session() as session:
    pixels = session.run([tf.io.decode_image(encoded)
                          for encoded in (stripped, data)])
  np.testing.assert_array_equal(*pixels)


JPEGS = [dict(), dict(mode='L'), dict(mode='CMYK'), dict(progressive=True),
         dict(restart_marker_blocks=2), dict(icc_profile=ICC)]


@pytest.mark.parametrize('options', JPEGS, ids=list)
@pytest.mark.parametrize('orientation', [1, 6])
def test_strip_jpeg_keeps_pixels_colours_and_orientation_only(options,
                                                              orientation):
  data = encode('JPEG', exif=exif(orientation), comment=SECRET, **options)
  metadata = (segment(0xe1, b'http://ns.adobe.com/xap/1.0/\0' + SECRET) +
              segment(0xed, b'Photoshop 3.0\0' + SECRET) +
              segment(0xe0, b'JFXX\0\x13' + SECRET))
  # At the start, between the scans, and after the end.
  scan = data.rindex(b'\xff\xda')
  data = (data[:2] + metadata + data[2:scan] + segment(0xfe, SECRET) +
          data[scan:] + SECRET)
  stripped = strip(data)
  assert data.count(SECRET) == 7 and SECRET not in stripped
  assert_same_pixels(stripped, data)
  assert dict(Image.open(io.BytesIO(stripped)).getexif()) == (
      {} if orientation == 1 else {0x0112: orientation})
  assert strip(stripped) == stripped


@pytest.mark.parametrize('transform', [0, 1])
def test_strip_jpeg_keeps_the_colour_transform_of_adobe(transform):
  data = encode('JPEG')
  data = data[:2] + segment(0xee, b'Adobe\0d\0\0\0\0' + bytes([transform]) +
                            SECRET) + data[20:]  # Replaces JFIF.
  stripped = strip(data)
  assert SECRET not in stripped
  assert_same_pixels(stripped, data)


def test_strip_jpeg_removes_the_jfif_thumbnail():
  data = encode('JPEG')
  thumbnail = segment(0xe0, data[6:18] + b'\2\1' + SECRET[:6])
  data = data[:2] + thumbnail + data[20:]
  stripped = strip(data)
  assert SECRET[:6] in data and SECRET[:6] not in stripped
  assert_same_pixels(stripped, data)


def test_strip_jpeg_without_end_marker_is_refused():
  with pytest.raises(PhotoError, match='no end marker'):
    strip(encode('JPEG')[:-2])


@pytest.mark.parametrize('options', [
    dict(), dict(mode='P', transparency=3), dict(mode='LA'),
    dict(icc_profile=ICC), dict(dpi=(72, 72)), dict(mode='1')], ids=list)
@pytest.mark.parametrize('orientation', [1, 6])
def test_strip_png_keeps_pixels_colours_and_orientation_only(options,
                                                             orientation):
  texts = PngImagePlugin.PngInfo()
  texts.add_text('Author', SECRET.decode())
  texts.add_itxt('XML:com.adobe.xmp', SECRET.decode())
  data = encode('PNG', exif=exif(orientation), pnginfo=texts, **options)
  end = data.rindex(b'\0\0\0\0IEND')
  data = (data[:33] + chunk(b'gAMA', struct.pack('>I', 45455)) +
          chunk(b'prIv', SECRET) + data[33:end] + chunk(b'tEXt', SECRET) +
          data[end:] + SECRET)
  stripped = strip(data)
  assert data.count(SECRET) == 6 and SECRET not in stripped
  assert stripped.count(b'gAMA') == 1
  assert_same_pixels(stripped, data)
  image = Image.open(io.BytesIO(stripped))
  image.load()
  assert dict(image.getexif()) == (
      {} if orientation == 1 else {0x0112: orientation})
  assert strip(stripped) == stripped


@pytest.mark.skipif(not photos.can_read('WebP'), reason='not accepted')
def test_strip_webp_returns_the_jpeg_of_the_converter():
  data = encode('WEBP', exif=exif(6), xmp=SECRET) + SECRET
  stripped = strip(data)
  assert stripped == photos.normalize_photo(data).encoded
  assert SECRET in data and SECRET not in stripped
