"""Tests of photo_files/photos.py: every kind of photo file."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from compat import tf
from datasets.photo_files import photos
from datasets.photo_files.photos import PhotoError, normalize_photo
from kits.helpers import ROOT


def scene(width=48, height=32):
  """Returns a picture whose corners differ: red, green, blue and black."""
  pixels = np.zeros((height, width, 3), np.uint8)
  pixels[:height // 2, :width // 2, 0] = 255
  pixels[:height // 2, width // 2:, 1] = 255
  pixels[height // 2:, :width // 2, 2] = 255
  return Image.fromarray(pixels)


def encode(image, kind, **kwargs):
  buffer = io.BytesIO()
  image.save(buffer, kind, **kwargs)
  return buffer.getvalue()


def decode(photo):
  """Returns the pixels of a Photo, after checks of its format and size."""
  image = Image.open(io.BytesIO(photo.encoded))
  assert image.format == 'JPEG' and image.mode == 'RGB'
  assert image.size == (photo.width, photo.height)
  assert 'exif' not in image.info
  return np.asarray(image).astype(int)


def assert_close(photo, image, tolerance=4):
  """Asserts that the middle of each quarter is close: JPEG blurs the edges."""
  pixels, wanted = decode(photo), np.asarray(image.convert('RGB')).astype(int)
  assert pixels.shape == wanted.shape
  height, width = wanted.shape[:2]
  for y in (height // 4, 3 * height // 4):
    for x in (width // 4, 3 * width // 4):
      assert np.abs(pixels[y, x] - wanted[y, x]).max() <= tolerance, (y, x)


def exif(orientation):
  block = Image.Exif()
  block[0x0112] = orientation
  return block


@pytest.mark.parametrize('kwargs', [
    {}, {'progressive': True}, {'subsampling': 0}, {'exif': exif(1)},
    {'comment': b'hello'}],
    ids=['plain', 'progressive', 'subsampling', 'exif', 'comment'])
def test_normalize_photo_plain_jpeg_is_kept_byte_for_byte(kwargs):
  data = encode(scene(), 'JPEG', **kwargs)
  photo = normalize_photo(data)
  assert photo.encoded == data
  assert (photo.height, photo.width) == (32, 48)


def test_normalize_photo_jpeg_with_bytes_after_its_end_is_kept():
  # A video that a phone appends may contain any marker.
  data = encode(scene(), 'JPEG') + b'\0trailer \xff\xda of \xff\xd8\xff' * 9
  assert normalize_photo(data).encoded == data


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF'])
def test_normalize_photo_lossless_format_becomes_the_same_picture(kind):
  assert_close(normalize_photo(encode(scene(), kind)), scene())


def test_normalize_photo_compressed_tiff_is_read():
  data = encode(scene(), 'TIFF', compression='tiff_lzw')
  assert data.startswith(b'II*\0')
  assert_close(normalize_photo(data), scene())


def test_normalize_photo_big_endian_tiff_is_read():
  """Writes two grey pixels by hand: Pillow writes the other byte order."""
  short, long = 3, 4
  rows = ((256, long, 2), (257, long, 1), (258, short, 8), (259, short, 1),
          (262, short, 1), (273, long, 98), (279, long, 2))
  data = struct.pack('>4sIH', b'MM\0*', 8, len(rows))
  for tag, kind, value in rows:
    data += struct.pack('>HHII', tag, kind, 1,
                        value << 16 if kind == short else value)
  data += b'\0' * 4 + b'\x80\x80'
  photo = normalize_photo(data)
  assert (photo.height, photo.width) == (1, 2)
  assert np.abs(decode(photo) - 128).max() <= 2


def test_normalize_photo_animated_gif_gives_its_first_frame():
  frames = [Image.new('P', (20, 10), color) for color in (1, 2, 3)]
  for frame in frames:
    frame.putpalette([0, 0, 0, 250, 10, 20, 0, 255, 0, 0, 0, 255])
  data = encode(frames[0], 'GIF', save_all=True, append_images=frames[1:])
  assert np.abs(decode(normalize_photo(data)) - [250, 10, 20]).max() <= 6


def test_normalize_photo_grey_jpeg_becomes_three_channels():
  photo = normalize_photo(encode(scene().convert('L'), 'JPEG'))
  assert_close(photo, scene().convert('L'))


def test_normalize_photo_cmyk_jpeg_becomes_rgb():
  photo = normalize_photo(encode(scene().convert('CMYK'), 'JPEG'))
  assert_close(photo, scene(), tolerance=8)


def test_normalize_photo_adobe_rgb_channels_are_reencoded():
  # Adobe's marker, transform 0: the three channels are RGB, not YCbCr.
  plain = encode(Image.new('RGB', (16, 16), (120, 120, 120)), 'JPEG')
  marker = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00'
  end_of_jfif = 4 + struct.unpack('>H', plain[4:6])[0]
  data = plain[:2] + marker + plain[end_of_jfif:]
  photo = normalize_photo(data)
  assert b'Adobe' not in photo.encoded
  # Grey in YCbCr is (120, 128, 128).
  assert np.abs(decode(photo) - [120, 128, 128]).max() <= 3


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA'])
def test_normalize_photo_transparency_is_blended_with_white(mode):
  image = scene().convert('RGBA')
  image.putalpha(Image.new('L', image.size, 0))
  if mode == 'PA':  # A palette with one transparent color.
    image = Image.new('P', image.size, 0)
    image.putpalette([10, 20, 30])
    data = encode(image, 'PNG', transparency=0)
  else:
    data = encode(image.convert(mode), 'PNG')
  assert decode(normalize_photo(data)).min() >= 253


def test_normalize_photo_half_transparent_palette_is_blended():
  image = Image.new('P', (16, 16), 1)
  image.putpalette([0, 0, 0, 0, 0, 0])
  data = encode(image, 'PNG', transparency=bytes([255, 128]))
  assert np.abs(decode(normalize_photo(data)) - 127).max() <= 2


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_normalize_photo_16_bits_keep_their_scale(kind):
  values = np.full((16, 16), 0x8000, np.uint16)
  data = encode(Image.fromarray(values), kind)
  assert np.abs(decode(normalize_photo(data)) - 128).max() <= 2


def test_normalize_photo_float_tiff_spans_black_to_white():
  values = np.repeat(np.linspace(-3, 5, 64, dtype=np.float32)[None], 32, 0)
  pixels = decode(normalize_photo(encode(Image.fromarray(values), 'TIFF')))
  assert pixels.min() <= 4 and pixels.max() >= 251


def test_normalize_photo_float_tiff_of_nans_is_refused():
  values = np.full((8, 8), np.nan, np.float32)
  with pytest.raises(PhotoError, match='not numbers'):
    normalize_photo(encode(Image.fromarray(values), 'TIFF'))


def test_normalize_photo_one_bit_becomes_rgb():
  photo = normalize_photo(encode(Image.new('1', (9, 7), 1), 'PNG'))
  assert decode(photo).min() >= 253


# How a rotated camera stores a photo: the inverse of what turns it upright.
STORED = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
@pytest.mark.parametrize('orientation', sorted(STORED))
def test_normalize_photo_rotated_by_exif_becomes_upright(orientation, kind):
  stored = scene()
  if STORED[orientation] is not None:
    stored = stored.transpose(STORED[orientation])
  photo = normalize_photo(encode(stored, kind, exif=exif(orientation)))
  pixels = np.asarray(Image.open(io.BytesIO(photo.encoded))).astype(int)
  wanted = np.asarray(scene()).astype(int)
  assert pixels.shape == wanted.shape == (photo.height, photo.width, 3)
  assert np.abs(pixels - wanted)[8::16, 12::24].max() <= 8


def test_normalize_photo_unknown_orientation_is_treated_as_upright():
  data = encode(scene(), 'JPEG', exif=exif(9))
  assert normalize_photo(data).encoded == data


def reason_of_damaged(name):
  if photos.can_read(name):
    return 'damaged header|cannot be decoded'
  return name + '.*save the photo as JPEG'


@pytest.mark.parametrize('data, reason', [
    (b'', 'empty'),
    (b'hello', 'accepted: JPEG, PNG, GIF, BMP.* TIFF'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'accepted: JPEG'),
    (b'RIFF\x24\0\0\0WEBPVP8 ' + b'\0' * 40, reason_of_damaged('WebP')),
    (b'\0\0\0\x18ftypheic' + b'\0' * 40, reason_of_damaged('HEIC')),
    (b'\0\0\0\x18ftypmif1' + b'\0' * 40, reason_of_damaged('HEIC')),
    (b'\0\0\0\x18ftypavif' + b'\0' * 40, 'AVIF.*save the photo as JPEG'),
    (b'\xff\xd8\xff', 'damaged header'),
], ids=lambda value: repr(value[:12]))
def test_normalize_photo_unaccepted_file_error_gives_the_reason(data, reason):
  with pytest.raises(PhotoError, match=reason):
    normalize_photo(data)


@pytest.mark.parametrize('progressive', [False, True])
def test_normalize_photo_jpeg_truncated_anywhere_is_refused(progressive):
  noise = np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8)
  data = encode(Image.fromarray(noise), 'JPEG', progressive=progressive)
  ends = list(range(0, len(data) - 40, 97)) + list(range(len(data) - 40,
                                                         len(data)))
  for end in ends:
    with pytest.raises(PhotoError):
      normalize_photo(data[:end])


@pytest.mark.parametrize('tail', [b'', b'\0' * 50])
def test_normalize_photo_jpeg_without_end_marker_is_refused(tail):
  """Pillow decodes this file; TensorFlow does not."""
  noise = np.random.RandomState(0).randint(0, 256, (64, 67, 3), np.uint8)
  data = encode(Image.fromarray(noise), 'JPEG', subsampling=0)
  assert data[-2:] == b'\xff\xd9'
  with pytest.raises(PhotoError, match='no end marker'):
    normalize_photo(data[:-2] + tail)


@pytest.mark.parametrize('marker, reason', [
    (b'\xff\xfe\x00\x08', None), (b'\xff\xd3', None),
    (b'\xff\xfe\xff\xff', 'no end marker'), (b'\xff\xc0\x00\x08', 'marker c0'),
    (b'\xff\x02', 'marker 02')], ids=str)
def test_normalize_photo_jpeg_with_marker_in_its_data_decodes_or_is_refused(
    marker, reason):
  """TensorFlow refuses markers that Pillow reads as a comment up to the end."""
  noise = np.random.RandomState(0).randint(0, 256, (64, 67, 3), np.uint8)
  data = encode(Image.fromarray(noise), 'JPEG')
  data = data[:-60] + marker + data[-60:]
  if reason:
    with pytest.raises(PhotoError, match=reason):
      normalize_photo(data)
    return
  with tf.Graph().as_default(), tf.Session() as session:
    decoded = tf.image.decode_jpeg(normalize_photo(data).encoded, channels=3)
    assert session.run(decoded).shape == (64, 67, 3)


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'BMP', 'TIFF'])
def test_normalize_photo_other_format_cut_in_half_is_refused(kind):
  noise = np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8)
  data = encode(Image.fromarray(noise), kind)
  with pytest.raises(PhotoError):
    normalize_photo(data[:len(data) // 2])


def test_normalize_photo_damaged_bytes_give_a_photo_or_a_reason():
  """Whatever is accepted must also decode in TensorFlow."""
  rng = np.random.RandomState(0)
  noise = Image.fromarray(rng.randint(0, 256, (24, 24, 3), np.uint8))
  originals = [encode(noise, 'JPEG', exif=exif(6)), encode(noise, 'JPEG'),
               encode(noise, 'JPEG', progressive=True), encode(noise, 'PNG'),
               encode(noise, 'GIF'), encode(noise, 'BMP'),
               encode(noise, 'TIFF', compression='tiff_lzw')]
  accepted, refused = [], 0
  for original in originals:
    for _ in range(60):
      data = bytearray(original)
      for _ in range(rng.randint(1, 6)):
        data[rng.randint(len(data))] = rng.randint(256)
      try:
        accepted.append(normalize_photo(bytes(data), max_pixels=10 ** 6))
      except PhotoError as error:
        refused += 1
        assert str(error) and '\n' not in str(error)
  assert len(accepted) > 50 and refused > 50
  with tf.Graph().as_default(), tf.Session() as session:
    encoded = tf.placeholder(tf.string)
    shape = tf.shape(tf.image.decode_jpeg(encoded, channels=3))
    for photo in accepted:
      assert session.run(shape, {encoded: photo.encoded}).tolist() == [
          photo.height, photo.width, 3]


def test_normalize_photo_pixel_limit_is_checked_before_decoding():
  data = encode(scene(), 'PNG')
  assert normalize_photo(data, max_pixels=48 * 32).width == 48
  with pytest.raises(PhotoError, match='48 x 32 pixels.*limit of 1535'):
    normalize_photo(data, max_pixels=48 * 32 - 1)
  # A file whose header declares 60,000 x 60,000 pixels and that has none.
  bomb = data[:16] + struct.pack('>II', 60000, 60000) + data[24:29]
  bomb += struct.pack('>I', zlib.crc32(bomb[12:29])) + data[33:]
  with pytest.raises(PhotoError, match='60000 x 60000'):
    normalize_photo(bomb)


def test_normalize_photo_large_or_odd_exif_prints_nothing():
  """Runs in a separate process: pytest sets its own warning filters."""
  code = '''
import io, sys
from PIL import Image
from datasets.photo_files.photos import normalize_photo
buffer = io.BytesIO()
Image.new('1', (10000, 9000)).save(buffer, 'PNG')
photo = normalize_photo(buffer.getvalue())
assert (photo.width, photo.height) == (10000, 9000)
buffer = io.BytesIO()
exif = b'Exif\\0\\0II*\\0\\x08\\0\\0\\0\\xff\\x00\\x12\\x01\\x03\\0'
Image.new('RGB', (8, 8)).save(buffer, 'JPEG', exif=exif)
normalize_photo(buffer.getvalue())
'''
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  assert (result.returncode, result.stdout) == (0, b'')


def test_normalize_photo_keeps_the_limits_of_pillow():
  assert ImageFile.LOAD_TRUNCATED_IMAGES is False
  assert Image.MAX_IMAGE_PIXELS and photos.MAX_PIXELS > 10 ** 8


def test_pixels_digest_depends_on_pixels_and_size_but_not_on_the_chunk_size(
    monkeypatch):
  data = encode(scene(), 'PNG')
  digest = photos.pixels_digest(data)
  assert photos.inspect_photo(data).look == digest
  monkeypatch.setattr(photos, '_DIGEST_PIXELS', 100)
  assert photos.pixels_digest(data) == digest
  turned = Image.fromarray(np.asarray(scene()).reshape(48, 32, 3))
  assert photos.pixels_digest(encode(turned, 'PNG')) != digest
  changed = scene()
  changed.putpixel((47, 31), (0, 0, 1))
  assert photos.pixels_digest(encode(changed, 'PNG')) != digest


def test_check_head_refuses_files_that_need_not_be_read():
  head = encode(scene(), 'PNG')[:photos.HEAD_BYTES]
  photos.check_head(head, 10 ** 7)
  with pytest.raises(PhotoError, match='more than the limit of 67108872 for'):
    photos.check_head(head, 67108873, max_pixels=1)
  with pytest.raises(PhotoError, match='not a photo'):
    photos.check_head(b'PK\x03\x04', 10)


@pytest.mark.parametrize('data, weight', [
    (encode(scene(), 'PNG'), 48 * 32),
    (encode(scene(), 'JPEG'), 48 * 32),
    (encode(scene().convert('RGBA'), 'PNG'), 2 * 48 * 32),
    (encode(scene().convert('P'), 'PNG', transparency=0), 2 * 48 * 32),
    (encode(scene(), 'PNG')[:20], 0),
    (b'no photo', 0), (b'', 0)],
    ids=['png', 'jpeg', 'alpha', 'transparent', 'cut', 'text', 'empty'])
def test_weight_counts_pixels_with_transparency_twice(data, weight):
  assert photos.weight_of(data) == weight
