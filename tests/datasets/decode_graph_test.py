"""Tests of datasets/decode_graph.py: the same pixels as outside a graph."""

import numpy as np
import pytest
from PIL import Image

from compat import tf
from datasets import decode_graph
from datasets.photo_files import photos
from kits import photo_kit as kit

CMYK = kit.cmyk_jpegs()
TRANSPARENT = kit.transparent_pngs()
OPAQUE = {
    'JPEG': kit.encode(kit.smooth_image(), 'JPEG'),
    'progressive JPEG': kit.encode(kit.smooth_image(), 'JPEG',
                                   progressive=True),
    'grey JPEG': kit.encode(kit.smooth_image().convert('L'), 'JPEG'),
    'PNG': kit.encode(kit.smooth_image(), 'PNG'),
    'grey PNG': kit.encode(kit.smooth_image().convert('L'), 'PNG'),
    'palette PNG': kit.encode(kit.smooth_image().convert('P'), 'PNG'),
    'PNG of 16 bits': kit.png(80, 60, 16, 2, (
        np.asarray(kit.smooth_image()).astype('>u2') * 257).tobytes()),
}


@pytest.fixture(scope='module')
def decode():
  """Yields a function (data, channels, decoder) -> uint8 pixels."""
  with tf.Graph().as_default() as graph, tf.Session() as session:
    encoded = tf.placeholder(tf.string, [])
    images = {channels: {
        'project': decode_graph.decode(encoded, channels),
        'TensorFlow': tf.image.decode_jpeg(encoded, channels=channels)}
              for channels in (1, 3)}
    assert images[3]['project'].shape.as_list() == [None, None, 3]
    graph.finalize()
    yield lambda data, channels, decoder='project': session.run(
        images[channels][decoder], {encoded: data})


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', sorted({**CMYK, **TRANSPARENT}))
def test_decode_rare_photo_gives_the_pixels_of_normalize_photo(decode, name,
                                                               channels):
  data = {**CMYK, **TRANSPARENT}[name]
  stored = photos.normalize_photo(data).encoded
  pixels, wanted = (decode(encoded, channels) for encoded in (data, stored))
  np.testing.assert_array_equal(pixels, wanted)


def test_decode_transparent_noise_gives_the_pixels_of_normalize_photo(decode):
  rgba = np.random.RandomState(0).randint(0, 256, (40, 40, 4)).astype(np.uint8)
  data = kit.encode(Image.fromarray(rgba), 'PNG')
  stored = photos.normalize_photo(data).encoded
  np.testing.assert_array_equal(decode(data, 3), decode(stored, 3))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', sorted(OPAQUE))
def test_decode_opaque_photo_is_bit_equal_to_tensorflow(decode, name, channels):
  data = OPAQUE[name]
  np.testing.assert_array_equal(decode(data, channels),
                                decode(data, channels, 'TensorFlow'))


@pytest.mark.parametrize('kind', ['GIF', 'BMP', 'TIFF', 'WEBP', 'nothing',
                                  'not UTF-8'])
def test_decode_other_format_is_refused_with_the_reason(decode, kind):
  data = {'nothing': b'', 'not UTF-8': b'\x96\xff' * 8}.get(kind)
  if data is None:
    data = kit.encode(kit.smooth_image(), kind)
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='neither a JPEG nor a PNG photo') as caught:
    decode(data, 3)
  assert 'DecodeJpeg' in str(caught.value)  # record_check looks for it.


@pytest.mark.parametrize('name', ['JPEG', 'PNG'])
def test_decode_truncated_photo_is_refused(decode, name):
  with pytest.raises(tf.errors.InvalidArgumentError, match='Invalid %s' % name):
    decode(OPAQUE[name][:300], 3)


def test_transparent_pngs_decode_differently_in_tensorflow(decode):
  """Without blending, the pixels of each file differ from those stored."""
  for name, data in TRANSPARENT.items():
    wanted = decode(photos.normalize_photo(data).encoded, 3).astype(int)
    assert np.abs(decode(data, 3, 'TensorFlow') - wanted).mean() > 20, name
