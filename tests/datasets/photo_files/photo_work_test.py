"""Tests of photo_work.py: files that take too much work for their size."""

import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image, PngImagePlugin

from compat import tf
from datasets.photo_files import jpeg_markers, photo_work, photos
from datasets.photo_files.photo_colors import CostlyPhotoError, PhotoError
from datasets.records import record_check

SCAN, END = b'\xff\xda', b'\xff\xd9'


def encode(kind, size=(40, 30), mode='RGB', **options):
  buffer = io.BytesIO()
  Image.new(mode, size, 77).save(buffer, kind, **options)
  return buffer.getvalue()


def jpeg_of_scans(num_scans, size=None):
  """Returns a JPEG with its last scan repeated; only the header has `size`."""
  data = encode('JPEG', progressive=True)
  repeats = num_scans - data.count(SCAN)
  data = data[:-2] + data[data.rindex(SCAN):-2] * repeats + END
  if size:
    frame = data.index(b'\xff\xc2')
    data = data[:frame + 5] + struct.pack('>HH', *size[::-1]) + data[frame + 9:]
  return data


def insert(data, extra, at=2):
  return data[:at] + extra + data[at:]


def chunk(kind, data):
  return (struct.pack('>I', len(data)) + kind + data +
          struct.pack('>I', zlib.crc32(kind + data)))


def in_png(*chunks):
  return insert(encode('PNG'), b''.join(chunks), at=33)


def in_gif(extra):
  data = encode('GIF', mode='P')
  return insert(data, extra, at=data.index(b',', 13))


def run_length_bmp(width, height):
  data = bytearray(encode('BMP', mode='P'))
  data[18:26], data[30] = struct.pack('<ii', width, height), 1
  return bytes(data)


def tiff_block(*entries):
  """Returns a directory of (tag, type, count, value) entries, and 64 KiB."""
  return (b'II*\0\x08\0\0\0' + struct.pack('<H', len(entries)) + b''.join(
      struct.pack('<HHII', *entry) for entry in entries) + bytes(1 << 16))


ONE_MB = zlib.compress(bytes(10 ** 6))
EMPTY_COMMENT = b'\xff\xfe\0\x02'  # A segment of a JPEG.


@pytest.mark.parametrize('data, reason', [
    (jpeg_of_scans(1000, (8000, 8000)), '20 scans.* 8000 x 8000'),
    (jpeg_of_scans(21, (2500, 2000)), '20 scans.* 2500 x 2000'),
    # Each 8 pixels take a block of 8 x 8.
    (jpeg_of_scans(200, (1, 65500)), '190 scans'),
    (insert(encode('JPEG'), EMPTY_COMMENT * 1001), '1000 segments'),
    (insert(encode('JPEG'), b'\xff' * 70000), '65536 bytes between'),
    (insert(encode('JPEG'), bytes(70000), at=20), '65536 bytes between'),
    (encode('JPEG')[:-2] + EMPTY_COMMENT * 1001 + END, '1000 segments'),
    (in_png(chunk(b'IDAT', b'') * 1500), 'more than 10.. chunks'),
    (in_png(*[chunk(b'tEXt', b'%d\0' % key) for key in range(2000)]),
     'chunks in the PNG'),
    (in_png(chunk(b'iCCP', b'k\0\0' + ONE_MB) * 101), '100 compressed'),
    (in_png(chunk(b'zTXt', b'\0\0' + ONE_MB) * 101), '100 compressed'),
    (in_gif(b'!\xfe' + (b'\xff' + bytes(255)) * 4001 + b'\0'), '4000 blocks'),
    (in_gif(b'!\xfe\x01c\0' * 2001), '4000 blocks'),
    (in_gif(b'x' * 4001), '4000 blocks'),
    (run_length_bmp(4000, -4000), 'run lengths'),
    (tiff_block(*[(256 + tag, 7, 60000, 8) for tag in range(9)]),
     'tags of more bytes'),
    (tiff_block((324, 4, 10 ** 6, 8)), '66000 strips'),
], ids=lambda value: value if isinstance(value, str) else 'file')
def test_normalize_photo_that_takes_too_much_work_is_refused(data, reason):
  with pytest.raises(CostlyPhotoError, match=reason + '.*save the photo again'):
    photos.normalize_photo(data)


def xmp_gif():
  """Returns a GIF with XMP as Adobe writes it: its bytes are block lengths."""
  return in_gif(b'!\xff\x0bXMP DataXMP' + b'a' * 65536 + bytes(
      range(255, -1, -1)) + b'\0')


def commented_png():
  info = PngImagePlugin.PngInfo()
  for number in range(50):
    info.add_text('Comment %d' % number, 'text' * 999, zip=True)
  return encode('PNG', pnginfo=info, icc_profile=bytes(3000))


@pytest.mark.parametrize('data', [
    jpeg_of_scans(300), encode('JPEG', comment=b'x' * 60000),
    encode('JPEG', icc_profile=bytes(2 * 10 ** 6)), commented_png(),
    in_png(*[chunk(b'teSt', bytes(8192))] * 2000), xmp_gif(),
    encode('TIFF', size=(2, 2000), tiffinfo={278: 1}),
], ids=len)
def test_normalize_photo_with_many_parts_as_programs_write_is_accepted(data):
  photo = photos.normalize_photo(data)
  assert photo.height >= 30


@pytest.mark.parametrize('size, max_scans', [
    ((1000, 1000), 100), ((8000, 8000), 20), ((12000, 12000), 20),
    ((1, 1), 900), ((9, 8), 900)])
def test_size_of_jpeg_limits_scans_by_their_pixels(size, max_scans):
  assert jpeg_markers.size_of(jpeg_of_scans(max_scans, size)) == size
  with pytest.raises(CostlyPhotoError):
    jpeg_markers.size_of(jpeg_of_scans(max_scans + 101, size))


def test_size_of_jpeg_ignores_scans_after_its_end():
  data = jpeg_of_scans(20, (8000, 8000))
  assert jpeg_markers.size_of(data + data * 9) == (8000, 8000)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_normalize_photo_exif_of_overlapping_entries_takes_little_memory(kind):
  """Pillow 9.5 copies what each entry points to: here 300 times 60 KB."""
  entries = [(40000 + tag, 7, 60000, 8) for tag in range(300)]
  exif = tiff_block((photo_work._ORIENTATION, 3, 1, 6), *entries)[:64000]
  data = encode(kind, exif=b'Exif\0\0' + exif)
  tracemalloc.start()
  try:
    photo = photos.normalize_photo(data)
    assert tracemalloc.get_traced_memory()[1] < 4 * 10 ** 6
  finally:
    tracemalloc.stop()
  assert (photo.width, photo.height) == (30, 40)  # Rotated.


def test_normalize_photo_texts_that_unpack_to_too_much_are_refused():
  text = zlib.compress(('a' * (2 ** 20 - 8) + '\U0001F600').encode())
  texts = [chunk(b'iTXt', b'%d\0\1\0\0\0' % number + text)
           for number in range(60)]
  assert photos.normalize_photo(in_png(texts[0])).width == 40
  tracemalloc.start()
  try:
    with pytest.raises(PhotoError, match='Too much memory'):
      photos.normalize_photo(in_png(*texts))
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 20 * 2 ** 20  # 250 MB with Pillow's own limit.


def test_orientation_of_exif_as_text_by_imagemagick_is_read():
  block = Image.Exif()
  block[photo_work._ORIENTATION] = 6
  text = block.tobytes().hex()
  info = PngImagePlugin.PngInfo()
  info.add_text('Raw profile type exif', '\nexif\n%8d\n%s\n%s\n' %
                (len(text) // 2, text[:72], text[72:]))
  assert photos.orientation_of(encode('PNG', pnginfo=info)) == 6


@pytest.mark.parametrize('block, orientation', [
    (b'', 1), (b'Exif\0\0', 1), (b'II*\0', 1), (b'II*\0\xff\xff\0\0', 1),
    (tiff_block((0x0112, 3, 1, 8)), 8), (tiff_block((0x0112, 7, 1, 8)), 1),
    (tiff_block((0x0112, 3, 2, 8)), 1),
    (tiff_block((0x0112, 3, 1, 3))[:22], 3),
    (tiff_block((0x0112, 3, 1, 3))[:21], 1),
    (b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x05\0\0', 5)])
def test_orientation_in_damaged_block_is_1(block, orientation):
  assert photo_work.orientation_in(block) == orientation


@pytest.mark.parametrize('data, reason', [
    (jpeg_of_scans(100, (8000, 8000)), 'more than 20 scans'),
    (jpeg_of_scans(9), None), (b'\xff\xd8\xff', 'no size of the picture')],
                         ids=['bomb', 'photo', 'damaged'])
def test_photo_decoder_photo_that_takes_too_much_work_is_reported(data, reason):
  example = tf.train.Example()
  example.features.feature['image/encoded'].bytes_list.value.append(data)
  with record_check.PhotoDecoder() as decoder:
    problem = decoder.check(example)
  assert problem is None if reason is None else reason in problem
