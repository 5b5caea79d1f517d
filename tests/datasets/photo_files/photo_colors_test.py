"""Tests of photo_colors.py: the colours that image viewers show."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.photo_files import photos, webp
from datasets.photo_files.photos import PhotoError, normalize_photo
from kits import photo_kit as kit

needs_webp = pytest.mark.skipif(
    not photos.can_read('WebP'), reason='this libwebp is not safe')


def decode(data):
  """Returns the `[height, width, 3]` pixels of a file after normalization."""
  encoded = normalize_photo(data).encoded
  return np.asarray(Image.open(io.BytesIO(encoded))).astype(int)


def with_xmp(kind, orientation=None):
  """Returns a photo 40 wide and 20 high whose XMP says that it is rotated."""
  image = kit.smooth_image(40, 20)
  options = {'exif': kit.exif(orientation)} if orientation else {}
  if kind == 'JPEG':
    data = kit.encode(image, 'JPEG', **options)
    return data[:2] + kit.jpeg_xmp_segment() + data[2:]
  if kind == 'TIFF':
    pixels = np.asarray(image).astype(int) * 257
    return kit.tiff(pixels, photometric=2, xmp=kit.XMP)
  if kind == 'WebP':
    return kit.encode(image, 'WEBP', xmp=kit.XMP, **options)
  exif_chunk = b''
  if orientation:
    exif_chunk = kit.chunk(b'eXIf', kit.exif(orientation)[6:])
  metadata = kit.png_xmp_chunk() + exif_chunk
  return kit.png(40, 20, 8, 2, image.tobytes(),
                 **{'before' if kind == 'PNG' else 'after': metadata})


KINDS = ['JPEG', 'PNG', 'PNG, at its end', 'TIFF',
         pytest.param('WebP', marks=needs_webp)]


@pytest.mark.parametrize('kind', KINDS)
def test_normalize_photo_orientation_in_xmp_alone_is_ignored(kind):
  data = with_xmp(kind)
  assert kit.XMP in data
  photo = normalize_photo(data)
  assert (photo.height, photo.width) == (20, 40)
  assert (photo.encoded == data) == (kind == 'JPEG')


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'TIFF'])
def test_normalize_photo_orientation_in_exif_next_to_xmp_is_applied(kind):
  data = with_xmp(kind, 8)
  photo = normalize_photo(data)
  assert (photo.height, photo.width) == (40, 20)
  expected = np.rot90(np.asarray(kit.smooth_image(40, 20)).astype(int))
  assert np.abs(decode(data) - expected).mean() < 10


def test_normalize_photo_bmp_with_all_zero_alpha_is_opaque():
  pixels = np.asarray(kit.smooth_image().convert('RGBA')).copy()
  expected = pixels[..., :3].astype(int)
  pixels[..., 3] = 0
  assert np.abs(decode(kit.bmp32(pixels)) - expected).mean() < 3
  # An alpha channel that is not all zero is used.
  pixels[:30, :, 3] = 255
  decoded = decode(kit.bmp32(pixels))
  assert decoded[36:].min() >= 250
  assert np.abs(decoded[:28] - expected[:28]).mean() < 3


@pytest.mark.parametrize('left, top', [(0, 0), (12, 5)])
def test_normalize_photo_gif_is_white_outside_its_first_frame(left, top):
  frame = Image.new('P', (20, 10), 1)
  frame.putpalette([0, 0, 0, 250, 10, 20])
  pixels = decode(kit.small_frame_gif((48, 40), left, top, frame))
  assert pixels.shape == (40, 48, 3)
  inside = pixels[top:top + 10, left:left + 20]
  assert np.abs(inside[2:-2, 2:-2] - [250, 10, 20]).max() <= 12
  assert pixels[20:].min() >= 250 and pixels[:, 38:].min() >= 250


@needs_webp
def test_normalize_photo_webp_is_white_outside_its_first_frame():
  still = kit.encode(Image.new('RGB', (20, 10), (250, 10, 20)), 'WEBP')
  pixels = decode(animated_webp((48, 40), 12, 4, (20, 10), still[12:]))
  assert pixels.shape == (40, 48, 3)
  assert np.abs(pixels[7:12, 15:28] - [250, 10, 20]).max() <= 16
  assert pixels[24:].min() >= 250 and pixels[:4, :4].min() >= 250


def test_webp_first_frame_is_not_searched_in_too_many_chunks():
  data = animated_webp((48, 40), 12, 4, (20, 10), b'')
  assert webp.first_frame(data) == (12, 4, 32, 14)
  empty = b'ABCD' + bytes(4)
  start = 12 + 18  # After the header of the container and VP8X.
  assert webp.first_frame(data[:start] + 5 * empty + data[start:]) == (
      12, 4, 32, 14)
  assert webp.first_frame(data[:start] + 10 ** 5 * empty + data[start:]) is None


def animated_webp(canvas, left, top, size, image):
  """Returns a WebP animation of one frame, from the chunk of a still photo."""
  def three_bytes(*values):
    return b''.join(value.to_bytes(3, 'little') for value in values)

  def chunk(name, content):
    return name + len(content).to_bytes(4, 'little') + content

  frame = three_bytes(left // 2, top // 2, size[0] - 1, size[1] - 1, 100)
  frame += b'\0' + image
  chunks = (chunk(b'VP8X', b'\2\0\0\0' + three_bytes(canvas[0] - 1,
                                                     canvas[1] - 1)) +
            chunk(b'ANIM', bytes(6)) + chunk(b'ANMF', frame))
  return chunk(b'RIFF', b'WEBP' + chunks)


@pytest.mark.parametrize('photometric', [1, 2])
def test_normalize_photo_12_bits_stored_in_16_are_refused(photometric):
  values = np.asarray(kit.smooth_image()).astype(int) * 16
  pixels = values if photometric == 2 else values[..., 0]
  assert 3000 < pixels.max() < 4096
  if photometric == 2:
    opaque = np.full(pixels.shape[:2] + (1,), 65535)
    with pytest.raises(PhotoError, match='below 4096'):
      normalize_photo(kit.tiff(np.concatenate([pixels, opaque], -1),
                               photometric=2))
  with pytest.raises(PhotoError, match='below 4096.*with 8 bits per channel'):
    normalize_photo(kit.tiff(pixels, photometric=photometric))
  bright = kit.tiff(pixels * 16, photometric=photometric)
  wanted = pixels // 16 if photometric == 2 else pixels[..., None] // 16
  assert np.abs(decode(bright) - wanted).mean() < 3


def test_normalize_photo_tiff_of_12_bits_keeps_its_scale():
  grey = np.asarray(kit.smooth_image().convert('L')).astype(int)
  pixels = decode(kit.tiff(grey * 16, bits=12))
  assert np.abs(pixels - grey[..., None]).mean() < 2


def test_normalize_photo_tiff_whose_0_is_white_is_not_inverted():
  grey = np.asarray(kit.smooth_image().convert('L')).astype(int)
  pixels = decode(kit.tiff(65535 - grey * 257, photometric=0))
  assert np.abs(pixels - grey[..., None]).mean() < 2


@pytest.mark.parametrize('name', sorted(kit.transparent_pngs()))
def test_normalize_photo_png_is_white_where_it_is_transparent(name):
  pixels = decode(kit.transparent_pngs()[name])
  assert pixels[:, 2:14].min() >= 250
  assert pixels[:, 34:].min() <= 210


@needs_webp
@pytest.mark.parametrize('options', [
    {}, {'lossless': True}, {'exif': kit.exif(6)}], ids=str)
def test_normalize_photo_webp_becomes_a_jpeg(options):
  image = kit.smooth_image()
  pixels = decode(kit.encode(image, 'WEBP', quality=95, **options))
  wanted = np.asarray(image).astype(int)
  if 'exif' in options:
    wanted = np.rot90(wanted, -1)
  assert np.abs(pixels - wanted).mean() < 4


@needs_webp
def test_normalize_photo_animated_webp_gives_its_first_frame_on_white():
  clear = kit.smooth_image().convert('RGBA')
  clear.putalpha(Image.new('L', clear.size, 0))
  data = kit.encode(clear, 'WEBP', save_all=True, lossless=True,
                    append_images=[Image.new('RGBA', clear.size, 'black')])
  assert decode(data).min() >= 253


@needs_webp
def test_normalize_photo_webp_truncated_anywhere_is_refused():
  for options in ({}, {'lossless': True}, {'exif': kit.exif(6)}):
    data = kit.encode(kit.smooth_image(30, 20), 'WEBP', **options)
    for end in range(len(data)):
      with pytest.raises(PhotoError):
        normalize_photo(data[:end])


@needs_webp
def test_normalize_photo_webp_too_large_is_refused_before_it_is_opened(
    monkeypatch):
  data = kit.encode(kit.smooth_image(), 'WEBP')
  assert normalize_photo(data, max_pixels=80 * 60).width == 80

  def fail_to_open(source):
    raise AssertionError('the picture was opened')

  monkeypatch.setitem(photos._READERS, 'WebP', fail_to_open)
  with pytest.raises(PhotoError, match='80 x 60 pixels.*limit of 4799'):
    normalize_photo(data, max_pixels=80 * 60 - 1)


@pytest.mark.parametrize('options', [
    {}, {'lossless': True}, {'exif': kit.exif(6)}], ids=str)
def test_webp_size_of_each_layout_is_that_of_the_picture(options):
  data = kit.encode(kit.smooth_image(33, 21), 'WEBP', **options)
  assert webp.size_of(data) == (33, 21)
  assert webp.size_of(data[:20]) == (0, 0)
  assert webp.first_frame(data) is None


@pytest.mark.parametrize('version, is_safe', [
    ('1.3.2', True), ('1.10.0', True), ('1.3.0', False), (None, False)])
def test_webp_is_read_only_by_versions_without_the_vulnerability(
    monkeypatch, version, is_safe):
  monkeypatch.setattr(webp.features, 'version', lambda name: version)
  assert (webp.find_reader() is not None) == is_safe


def test_normalize_photo_webp_without_reader_is_refused_with_advice(
    monkeypatch):
  monkeypatch.delitem(photos._READERS, 'WebP', raising=False)
  with pytest.raises(PhotoError) as caught:
    normalize_photo(kit.encode(kit.smooth_image(), 'WEBP'))
  assert str(caught.value) == (
      'WebP is not accepted: save the photo as JPEG or PNG')


def test_normalize_photo_heic_is_read_if_pillow_heif_is_installed():
  pillow_heif = pytest.importorskip('pillow_heif')
  stream = io.BytesIO()
  pillow_heif.from_pillow(kit.smooth_image()).save(stream, quality=95)
  data = stream.getvalue()
  assert photos.can_read('HEIC') and 'HEIC' in photos.ACCEPTED
  assert photos.size_of(data) == (80, 60)
  assert np.abs(decode(data) - np.asarray(kit.smooth_image())).mean() < 4
  with pytest.raises(PhotoError, match='limit of 4799'):
    normalize_photo(data, max_pixels=4799)
  with pytest.raises(PhotoError):
    normalize_photo(data[:len(data) // 2])
