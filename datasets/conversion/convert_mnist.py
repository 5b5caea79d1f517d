"""Converts MNIST: 60,000 training and 10,000 test images of handwritten digits.

LeCun, Cortes, Burges: The MNIST database of handwritten digits. Four gzip files
in the format IDX: a magic number, the sizes of the dimensions (each 4 bytes,
the largest first), the values.

  convert('data')

downloads what is missing and writes data/mnist_train-*, data/mnist_test-*,
data/labels.txt and data/mnist.json.
"""

import os
import struct
from typing import Optional

import numpy as np

from common.errors import InputError
from datasets.conversion import labelled_images
from datasets.manifest import Manifest
from datasets.public_sets import MNIST_LABELS
from downloads import archives, marks
from downloads.fetch import fetch

# Copies: the home of MNIST, yann.lecun.com, no longer serves them.
ADDRESSES = ('https://storage.googleapis.com/cvdf-datasets/mnist/',
             'https://ossci-datasets.s3.amazonaws.com/mnist/')

# {split: (file of images, file of labels)}, each as (name, bytes, SHA-256).
FILES = {
    'train': (
        ('train-images-idx3-ubyte.gz', 9912422,
         '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609'),
        ('train-labels-idx1-ubyte.gz', 28881,
         '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c')),
    'test': (
        ('t10k-images-idx3-ubyte.gz', 1648877,
         '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6'),
        ('t10k-labels-idx1-ubyte.gz', 4542,
         'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6')),
}

# Third byte of the magic number: unsigned bytes. The fourth is the number of
# dimensions.
_UNSIGNED_BYTES = 8


def convert(dataset_dir: str, num_shards: Optional[int] = None) -> Manifest:
  """Downloads MNIST if it is missing, and writes its records.

  Args:
    dataset_dir: folder of the four files, which are used as they are if
      present, and of the records.
    num_shards: record files per split; None: one.

  Returns:
    The Manifest. If the records are present and undamaged, and the four files
    are absent, nothing is done.

  Raises:
    InputError: a file can neither be found nor downloaded, or is damaged, the
      folder holds records of something else called mnist, or the records cannot
      be written.
  """
  paths = {os.path.join(dataset_dir, name): (size, sha256)
           for split in FILES.values() for name, size, sha256 in split}
  if not any(map(marks.is_users_own, paths)):
    manifest = labelled_images.already_converted(
        dataset_dir, 'mnist', MNIST_LABELS, FILES, num_shards)
    if manifest:
      _clean_up(paths)
      return manifest
  for path, (size, sha256) in paths.items():
    urls = [address + os.path.basename(path) for address in ADDRESSES]
    fetch(urls, path, size, archives.check_gzip, sha256)
  splits = {split: read_split(*(os.path.join(dataset_dir, name)
                                for name, *_ in pair))
            for split, pair in FILES.items()}
  manifest = labelled_images.convert(dataset_dir, 'mnist', MNIST_LABELS, splits,
                                     num_shards)
  _clean_up(paths)
  return manifest


def _clean_up(paths):
  for path in paths:
    marks.remove_downloaded(path)


def read_split(images_path: str, labels_path: str) -> labelled_images.Images:
  """Reads a file of images and the file of their labels.

  Returns:
    labelled_images.Images, pixels [number, height, width].

  Raises:
    InputError: a file is damaged, or they do not belong together.
  """
  images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
  if len(images) != len(labels):
    raise InputError('%s holds %d images and %s %d labels' %
                     (images_path, len(images), labels_path, len(labels)))
  return labelled_images.Images(images, labels.astype(np.int64))


def read_idx(path: str, dimensions: int) -> np.ndarray:
  """Reads a gzip file in the format IDX.

  Args:
    path: the file.
    dimensions: the number of dimensions that it must have.

  Returns:
    uint8 array.

  Raises:
    InputError: it is not such a file, or its length is not as its header says.
  """
  data = archives.read_gzip(path)
  start = 4 + 4 * dimensions
  magic = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
  if len(data) < start or data[:4] != magic:
    raise InputError('%s is not an IDX file of bytes in %d dimensions: it '
                     'begins with %r, not %r' %
                     (path, dimensions, data[:4], magic))
  shape = struct.unpack('>%dI' % dimensions, data[4:start])
  size = 1
  for side in shape:
    size *= side
  if len(data) - start != size:
    raise InputError('%s holds %d bytes of values, its header (%s) says %d' %
                     (path, len(data) - start,
                      ' x '.join(map(str, shape)), size))
  return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
