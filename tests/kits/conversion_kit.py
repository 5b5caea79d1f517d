"""Conversion of small folders of photos, and changes between conversions."""

import io

from PIL import Image

from datasets import manifest as manifests
from datasets.conversion import convert_photos
from kits import dataset_kit


def make_photos(tmp_path, counts=None, name='pets'):
  dataset_kit.make_folder(tmp_path / name, counts or {'cat': 20, 'dog': 20})
  return tmp_path / name


def convert(folder, name='pets', **options):
  options = dict({'percent_validation': 20, 'percent_test': 10, 'seed': 0},
                 **options)
  return convert_photos.convert(str(folder), name, **options)


def add_photos(folder, class_name, numbers):
  for number in numbers:
    (folder / class_name / ('new %d.jpg' % number)).write_bytes(
        dataset_kit.photo_bytes(1000 + number))


def move_cats(folder, manifest):
  """Saves a manifest with each cat in another split.

  A conversion keeps these splits only if it reads the manifest.
  """
  next_split = {'train': 'validation', 'validation': 'test', 'test': 'train'}
  cats = [file for file in manifest.files if file.startswith('cat')]
  manifest.files.update((file, next_split[manifest.files[file]])
                        for file in cats)
  manifests.save(str(folder), manifest)


def resave_cats(folder, save, prefix):
  """Saves every second cat again, without loss and with another name.

  Args:
    folder: pathlib.Path of the folder of photos.
    save: function of the bytes and a path without extension that writes a file
      and returns its extension.
    prefix: prefix of the new names.

  Returns:
    {former file: new file}.
  """
  renamed = {}
  for index, path in enumerate(sorted((folder / 'cat').iterdir())[::2]):
    data = path.read_bytes()
    path.unlink()
    name = '%s %d' % (prefix, index)
    renamed['cat/' + path.name] = 'cat/%s.%s' % (
        name, save(data, str(folder / 'cat' / name)))
  return renamed


def as_png(data, path):
  """Writes a photo as PNG; returns the extension. For `resave_cats`."""
  Image.open(io.BytesIO(data)).save(path + '.png', compress_level=1)
  return 'png'
