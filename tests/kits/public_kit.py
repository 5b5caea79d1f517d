"""Small archives in the formats of the public data sets, and their server."""

import numpy as np
import pytest

from datasets import public_sets
from datasets.conversion import (
  convert_cifar10,
  convert_flowers,
  convert_mnist,
)
from downloads import fetch
from kits import coco_kit, dataset_kit, download_kit

RNG = np.random.RandomState(0)
DIGITS = {'train': (RNG.randint(0, 256, (23, 28, 28)).astype(np.uint8),
                    (np.arange(23) % 10).astype(np.uint8)),
          'test': (RNG.randint(0, 256, (10, 28, 28)).astype(np.uint8),
                   np.arange(10).astype(np.uint8))}


def mnist_files(digits=None):
  """Returns {file name: bytes} of MNIST's four files."""
  return {file: download_kit.idx_gz(array)
          for split, arrays in (digits or DIGITS).items()
          for (file, *_), array in zip(convert_mnist.FILES[split], arrays)}


def cifar_batch(number, count=4):
  """Returns (pixels [n, 32, 32, 3], labels) of a small batch."""
  rng = np.random.RandomState(number)
  return (rng.randint(0, 256, (count, 32, 32, 3)).astype(np.uint8),
          (np.arange(count) + number).astype(np.uint8) % 10)


def cifar_bytes(pixels, labels):
  """Returns a batch in the binary format of the archive."""
  return b''.join(
      bytes([label]) + b''.join(photo[:, :, channel].tobytes()
                                for channel in range(3))
      for photo, label in zip(pixels, labels))


def cifar_archive(**changes):
  """Returns a small archive of CIFAR-10.

  Args:
    **changes: {file name: bytes} that replace files; None omits a file.
  """
  files = {'data_batch_%d.bin' % number: cifar_bytes(*cifar_batch(number))
           for number in range(1, 6)}
  files['test_batch.bin'] = cifar_bytes(*cifar_batch(6))
  files['readme.html'] = b'<html>'
  files.update(changes)
  return download_kit.tar_gz({'cifar-10-batches-bin/' + name: data
                             for name, data in files.items() if data})


def flowers_archive(per_class=4):
  """Returns a small archive of flowers."""
  files = {'flower_photos/LICENSE.txt': b'text'}
  number = 0
  for kind in public_sets.FLOWERS_LABELS:
    for index in range(per_class):
      number += 1
      files['flower_photos/%s/%d.jpg' % (kind, index)] = (
          dataset_kit.photo_bytes(number))
  return download_kit.tar_gz(files)


@pytest.fixture
def server(monkeypatch):
  """Serves small archives of all data sets; yields the FileServer.

  The expected sizes and checksums are replaced by those of the archives.
  """
  monkeypatch.setattr(fetch, 'WAITS', (0,) * 3)
  monkeypatch.setenv('no_proxy', '*')
  with download_kit.running() as file_server:
    archives = dict(mnist_files(), **{
        convert_cifar10.ARCHIVE: cifar_archive(),
        convert_flowers.ARCHIVE: flowers_archive()})
    file_server.files.update({
        '/' + name: data for name, data in archives.items()})
    monkeypatch.setattr(convert_mnist, 'ADDRESSES',
                        (file_server.url + '/gone/', file_server.url + '/'))
    monkeypatch.setattr(convert_mnist, 'FILES', {
        split: tuple(
            (name, len(archives[name]), download_kit.sha256(archives[name]))
            for name, *_ in files)
        for split, files in convert_mnist.FILES.items()})
    for module in (convert_cifar10, convert_flowers):
      monkeypatch.setattr(module, 'URLS',
                          (file_server.url + '/' + module.ARCHIVE,))
      monkeypatch.setattr(module, 'SIZE', len(archives[module.ARCHIVE]))
      monkeypatch.setattr(module, 'SHA256',
                          download_kit.sha256(archives[module.ARCHIVE]))
    coco_kit.serve(file_server, monkeypatch)
    yield file_server
