"""Converts CIFAR-10: 50,000 training and 10,000 test photos of 32 x 32 pixels.

Alex Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.

  convert('data')

downloads what is missing and writes data/cifar10_train-*, data/cifar10_test-*,
data/labels.txt and data/cifar10.json. It uses the binary one of the published
archives: the Python one that slim's script uses holds pickles, which may run
code when they are read; the photos are the same.
"""

import os
import posixpath
from typing import Dict, Optional

import numpy as np

from common.errors import InputError
from datasets.conversion import labelled_images
from datasets.manifest import Manifest
from datasets.public_sets import CIFAR10_LABELS
from downloads import archives, marks
from downloads.fetch import fetch

ARCHIVE = 'cifar-10-binary.tar.gz'
URLS = ('https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',)
SIZE = 170052171  # Bytes.
SHA256 = 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'

# {split: files in the archive}
FILES = {
    'train': ['data_batch_%d.bin' % number for number in range(1, 6)],
    'test': ['test_batch.bin'],
}
_FOLDER = 'cifar-10-batches-bin'

_SIDE = 32  # Pixels.
# A photo: its label, then the red, green and blue planes, row by row.
_PHOTO_BYTES = 1 + 3 * _SIDE * _SIDE


def convert(dataset_dir: str, num_shards: Optional[int] = None) -> Manifest:
  """Downloads CIFAR-10 if it is missing, and writes its records.

  Args:
    dataset_dir: folder of the archive, which is used as it is if present, and
      of the records.
    num_shards: record files per split; None: one.

  Returns:
    The Manifest. If the records are present and undamaged, and the archive is
    absent, nothing is done.

  Raises:
    InputError: the archive can neither be found nor downloaded, or is damaged,
      the folder holds records of something else called cifar10, or the records
      cannot be written.
  """
  path = os.path.join(dataset_dir, ARCHIVE)
  if not marks.is_users_own(path):
    manifest = labelled_images.already_converted(
        dataset_dir, 'cifar10', CIFAR10_LABELS, FILES, num_shards)
    if manifest:
      marks.remove_downloaded(path)
      return manifest
  fetch(URLS, path, SIZE, archives.check_tar, SHA256)
  manifest = labelled_images.convert(dataset_dir, 'cifar10', CIFAR10_LABELS,
                                     read_archive(path), num_shards)
  marks.remove_downloaded(path)
  return manifest


def read_archive(path: str) -> Dict[str, labelled_images.Images]:
  """Reads the photos of the binary archive.

  Returns:
    {split: labelled_images.Images}, pixels [number, 32, 32, 3].

  Raises:
    InputError: the archive is damaged, lacks a file, or one of them is not made
      of whole photos.
  """
  wanted = {posixpath.join(_FOLDER, file)
            for files in FILES.values() for file in files}
  batches = {posixpath.basename(name): _read_batch(data, name, path)
             for name, data in archives.read_members(path, wanted.__contains__)}
  missing = sorted(name for name in wanted
                   if posixpath.basename(name) not in batches)
  if missing:
    raise InputError('%s lacks %s: it is not the binary version of CIFAR-10' %
                     (path, ', '.join(missing)))
  return {split: labelled_images.Images(*(
      np.concatenate([batches[file][part] for file in files])
      for part in (0, 1))) for split, files in FILES.items()}


def _read_batch(data, name, path):
  """Returns (pixels, labels) of the bytes of one file."""
  if not data or len(data) % _PHOTO_BYTES:
    raise InputError('%s: %s has %d bytes, expected photos of %d bytes each' %
                     (path, name, len(data), _PHOTO_BYTES))
  rows = np.frombuffer(data, np.uint8).reshape(-1, _PHOTO_BYTES)
  planes = rows[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
  pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
  return pixels, rows[:, 0].astype(np.int64)
