"""Tests of datasets/conversion/same_photos.py: files with equal pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from datasets.conversion import same_photos
from datasets.photo_files import photo_folder, photos


def noise(seed, size=(24, 16)):
  return Image.fromarray(np.random.RandomState(seed).randint(
      0, 256, (*size[::-1], 3)).astype(np.uint8))


def encode(image, kind='JPEG', **kwargs):
  buffer = io.BytesIO()
  image.save(buffer, kind, **kwargs)
  return buffer.getvalue()


def decoded(data):
  return Image.open(io.BytesIO(data)).convert('RGB')


def exif(orientation):
  block = Image.Exif()
  block[0x0112] = orientation
  return block


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'cat').mkdir()
  (tmp_path / 'dog').mkdir()
  return tmp_path


def group_names(folder, **files):
  """Returns the names of each group; `dog*` is in class dog, others in cat."""
  for name, data in files.items():
    (folder / ('dog' if name.startswith('dog') else 'cat') / name).write_bytes(
        data)
  listing = photo_folder.list_photos(str(folder))
  usable, skipped = photo_folder.check_photos(str(folder), listing, 10 ** 6)
  assert not skipped and len(usable) == len(files)
  groups = same_photos.group(str(folder), usable, 10 ** 6, {})
  return sorted(sorted(photo.file.split('/')[1] for photo in members)
                for members in groups)


def test_group_different_photos_are_separate(folder):
  assert group_names(folder, a=encode(noise(1)), b=encode(noise(2)),
                     c=encode(noise(3), 'PNG'), d=encode(noise(4), 'BMP'),
                     dog=encode(noise(5))) == [
                         ['a'], ['b'], ['c'], ['d'], ['dog']]


def test_group_equal_bytes_are_grouped_across_classes(folder):
  data = encode(noise(1))
  assert group_names(folder, a=data, b=data, dog=data, c=encode(noise(2))) == [
      ['a', 'b', 'dog'], ['c']]


def test_group_other_bytes_with_equal_pixels_are_grouped(folder):
  data = encode(noise(1))
  image = decoded(data)
  commented = data[:2] + b'\xff\xfe\x00\x04hi' + data[2:]
  assert group_names(
      folder, a=data, b=commented, c=data + b'film', dog=encode(image, 'PNG'),
      d=encode(image, 'TIFF', compression='tiff_lzw'), e=encode(noise(2))
  ) == [['a', 'b', 'c', 'd', 'dog'], ['e']]


def test_group_losslessly_recompressed_jpegs_are_grouped(folder):
  image = noise(1)
  files = {'plain': encode(image, optimize=False),
           'optimized': encode(image, optimize=True),
           'progressive': encode(image, progressive=True)}
  assert len(set(files.values())) == 3
  assert group_names(folder, **files) == [['optimized', 'plain', 'progressive']]


def test_group_photo_rotated_by_exif_joins_its_upright_copy(folder):
  stored = encode(noise(1), exif=exif(6))
  upright = decoded(stored).transpose(Image.Transpose.ROTATE_270)
  assert group_names(folder, a=stored, b=encode(upright, 'PNG'),
                     c=encode(decoded(stored), 'PNG')) == [['a', 'b'], ['c']]


def test_group_equal_looks_of_different_photos_are_separate(folder):
  """Averages over 8 x 8 pixels are equal; only the full pixels differ."""
  lines = np.zeros((16, 16, 3), np.uint8)
  lines[::2] = 200
  turned = lines.transpose(1, 0, 2)
  files = {'a': encode(Image.fromarray(lines), quality=100, subsampling=0),
           'b': encode(Image.fromarray(turned), quality=100, subsampling=0)}
  assert (photos.inspect_photo(files['a']).look ==
          photos.inspect_photo(files['b']).look)
  assert group_names(folder, **files) == [['a'], ['b']]


def test_group_decodes_only_photos_with_equal_looks(folder, monkeypatch):
  """Decoding everything in full would halve the speed."""
  decoded_files = []
  pixels_digest = photos.pixels_digest

  def spy(data, max_pixels):
    decoded_files.append(data)
    return pixels_digest(data, max_pixels)

  monkeypatch.setattr(photos, 'pixels_digest', spy)
  files = {'n%d' % seed: encode(noise(seed)) for seed in range(9)}
  twin = files['n3'] + b'film'
  group_names(folder, png=encode(noise(20, (30, 16)), 'PNG'), twin=twin,
              **files)
  assert sorted(decoded_files) == sorted([files['n3'], twin])


def test_group_file_that_changed_is_an_error(folder):
  data = encode(noise(1))
  for name in ('a', 'b'):
    (folder / 'cat' / name).write_bytes(data + name.encode('ascii'))
  listing = photo_folder.list_photos(str(folder))
  usable, _ = photo_folder.check_photos(str(folder), listing, 10 ** 6)
  (folder / 'cat' / 'b').write_bytes(b'')
  with pytest.raises(InputError, match='cat/b changed'):
    same_photos.group(str(folder), usable, 10 ** 6, {})
