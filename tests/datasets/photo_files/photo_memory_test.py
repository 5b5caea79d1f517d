"""Tests of photo_memory.py, and of the scale at which photos decodes a JPEG.

tests/serving/web/server_fuzz_test.py compares the estimates with measurements.
"""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.photo_files import jpeg_markers, photo_memory, photos
from kits import photo_kit

PIXELS = 64 * 10 ** 6


def jpeg(image=None, **options):
  return photo_kit.encode(image or photo_kit.smooth_image(), 'JPEG', **options)


@pytest.mark.parametrize('data, bytes_per_pixel', [
    (jpeg(), 0),
    (jpeg(progressive=True, subsampling=0), 6),
    (jpeg(progressive=True, subsampling=1), 4),
    (jpeg(progressive=True, subsampling=2), 3),
    (jpeg(photo_kit.smooth_image().convert('L'), progressive=True), 2),
    (jpeg(photo_kit.smooth_image().convert('CMYK'), progressive=True), 8),
    (b'\xff\xd8\xff\xda\0\4\1\0', 0), (b'', 0)])
def test_coefficient_bytes_depend_on_the_sampling(data, bytes_per_pixel):
  assert jpeg_markers.coefficient_bytes(data) == bytes_per_pixel * 80 * 60


def test_coefficient_bytes_of_a_frame_with_too_many_components():
  data = jpeg(progressive=True, subsampling=0)
  frame = data.index(b'\xff\xc2') + 2
  more = data[:frame] + b'\3\x95' + data[frame + 2:frame + 17] + (
      b'\1\x11\0' * 300) + data[frame + 17:]
  assert jpeg_markers.coefficient_bytes(more) == 6 * 80 * 60


def test_coefficient_bytes_count_sequential_scans_of_one_component():
  data = jpeg(subsampling=0)
  scan = data.index(b'\xff\xda')
  one = data[:scan + 2] + b'\0\x08\1\1\0\0\x3f\0' + data[scan + 14:]
  assert jpeg_markers.coefficient_bytes(one) == 6 * 80 * 60


@pytest.mark.parametrize('coefficients, is_plain, scale, megabytes', [
    (0, True, 1, 202), (0, False, 2, 168), (3, True, 4, 248),
    (3, False, 4, 248), (6, True, 4, 440), (6, False, 4, 440)])
def test_of_jpeg_largest_photo_has_the_first_scale_that_is_enough(
    coefficients, is_plain, scale, megabytes):
  assert photo_memory.of_jpeg(PIXELS, coefficients * PIXELS, 0, is_plain) == (
      scale, megabytes * 10 ** 6)


def test_of_jpeg_scale_grows_with_the_photo_and_its_file():
  scales = [photo_memory.of_jpeg(millions * 10 ** 6, 0, 0, False)[0]
            for millions in (26, 27, 100, 120, 160)]
  assert scales == [1, 2, 2, 4, 4]
  assert [photo_memory.of_jpeg(20 * 10 ** 6, 0, millions * 10 ** 6, False)[0]
          for millions in (12, 13, 42, 43)] == [1, 2, 2, 4]


def test_of_jpeg_plain_one_keeps_its_scale():
  assert photo_memory.of_jpeg(3 * PIXELS, 0, 10 ** 8, True) == (
      1, 986 * 10 ** 6)


@pytest.mark.parametrize('options, is_turned', [
    (dict(exif=photo_kit.exif(6)), True), (dict(progressive=True), False)])
def test_normalize_photo_that_takes_too_much_is_decoded_at_a_smaller_scale(
    monkeypatch, options, is_turned):
  image = photo_kit.smooth_image(width=801, height=602)
  data = jpeg(image, quality=95, **options)
  full, need = photos.normalize_photo(data), photos.memory_of(data)
  assert (full.encoded == data) != is_turned
  monkeypatch.setattr(photo_memory, 'MAX_BYTES', need - 1)
  assert photos.memory_of(data) < need
  inspected = photos.inspect_photo(data)
  half = inspected.photo
  size = (301, 401) if is_turned else (401, 301)
  assert (half.width, half.height) == size and not inspected.is_plain
  assert inspected.look == photos.pixels_digest(data)
  pixels, wanted = (np.asarray(Image.open(io.BytesIO(photo.encoded)).resize(
      size, Image.BOX)).astype(int) for photo in (half, full))
  assert np.abs(pixels - wanted).max() <= 8


def test_memory_of_photo_that_cannot_be_read_is_0():
  assert photos.memory_of(jpeg()[:100]) == 0
  assert photos.memory_of(photo_kit.encode(photo_kit.smooth_image(),
                                           'PNG')[:20]) == 0
