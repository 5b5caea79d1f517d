"""Tests of jpeg_markers.py: truncated JPEGs, and complete ones."""

import io

import numpy as np
import pytest
from PIL import Image

from compat import tf
from datasets.photo_files.photos import PhotoError, normalize_photo


def noise(seed, height, width):
  pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3))
  return Image.fromarray(pixels.astype(np.uint8))


def encode(image, **options):
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', **options)
  return buffer.getvalue()


def test_normalize_photo_jpeg_with_missing_data_is_refused():
  data = encode(noise(0, 200, 300))
  for cut in (3000, 6000, len(data) // 2):
    start = len(data) // 3
    damaged = data[:start] + data[start + cut:]
    with tf.Graph().as_default(), tf.Session() as session:
      # TensorFlow accepts the file.
      image = session.run(tf.image.decode_jpeg(damaged))
    assert image.shape == (200, 300, 3)
    with pytest.raises(PhotoError, match='truncated'):
      normalize_photo(damaged)


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
def test_normalize_photo_jpeg_to_be_reencoded_is_checked_too(mode):
  data = encode(noise(0, 200, 300).convert(mode))
  middle = len(data) // 2
  assert normalize_photo(data).width == 300
  with pytest.raises(PhotoError, match='truncated'):
    normalize_photo(data[:middle] + data[middle + 3000:])


@pytest.mark.parametrize('options', [
    {}, {'quality': 1}, {'quality': 100}, {'subsampling': 0},
    {'optimize': True}, {'progressive': True}, {'restart_marker_blocks': 1},
    {'restart_marker_rows': 1}], ids=str)
def test_normalize_photo_complete_jpeg_of_any_size_is_accepted(options):
  """libjpeg reads past the last block, by a number of bits that varies."""
  for seed in range(60):
    for image in (noise(seed, seed % 35 + 1, seed % 19 + 1),
                  Image.new('RGB', (seed + 1, 60 - seed), (seed, 99, 3))):
      data = encode(image, **options)
      for tail in (b'', b'film'):
        assert normalize_photo(data + tail).encoded == data + tail


def test_normalize_photo_fill_bytes_before_the_end_marker_are_accepted():
  data = encode(noise(3, 40, 50))
  data = data[:-2] + b'\xff\xff\xff' + data[-2:]
  assert normalize_photo(data).encoded == data
