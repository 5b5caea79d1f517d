"""Small archives in the form of the public data sets, and their server."""

import numpy as np
import pytest

from datasets import public_sets
from datasets.conversion import (
  convert_cifar10,
  convert_flowers,
  convert_mnist,
)
from downloads import fetch
from kits import dataset_kit, download_kit

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
  """Returns a batch as the archive has it, byte by byte."""
  return b''.join(
      bytes([label]) + b''.join(photo[:, :, channel].tobytes()
                                for channel in range(3))
      for photo, label in zip(pixels, labels))


def cifar_archive(**changes):
  files = {'data_batch_%d.bin' % number: cifar_bytes(*cifar_batch(number))
           for number in range(1, 6)}
  files['test_batch.bin'] = cifar_bytes(*cifar_batch(6))
  files['readme.html'] = b'<html>'
  files.update(changes)
  return download_kit.tar_gz({'cifar-10-batches-bin/' + name: data
                             for name, data in files.items() if data})


def flowers_archive(a_kind=4):
  files = {'flower_photos/LICENSE.txt': b'text'}
  number = 0
  for kind in public_sets.FLOWERS_LABELS:
    for index in range(a_kind):
      number += 1
      files['flower_photos/%s/%d.jpg' % (kind, index)] = (
          dataset_kit.photo_bytes(number))
  return download_kit.tar_gz(files)


@pytest.fixture
def server(monkeypatch):
  """Serves all three data sets, small; their known sizes and checksums
  are adapted."""
  monkeypatch.setattr(fetch, 'WAITS', (0,) * 3)
  monkeypatch.setenv('no_proxy', '*')
  with download_kit.running() as kit:
    served = dict(mnist_files(), **{
        convert_cifar10.ARCHIVE: cifar_archive(),
        convert_flowers.ARCHIVE: flowers_archive()})
    kit.files.update({'/' + name: data for name, data in served.items()})
    monkeypatch.setattr(convert_mnist, 'ADDRESSES',
                        (kit.url + '/gone/', kit.url + '/'))
    monkeypatch.setattr(convert_mnist, 'FILES', {
        split: tuple(
            (name, len(served[name]), download_kit.sha256(served[name]))
            for name, *_ in pair)
        for split, pair in convert_mnist.FILES.items()})
    for module in (convert_cifar10, convert_flowers):
      monkeypatch.setattr(module, 'URLS', (kit.url + '/' + module.ARCHIVE,))
      monkeypatch.setattr(module, 'SIZE', len(served[module.ARCHIVE]))
      monkeypatch.setattr(module, 'SHA256',
                          download_kit.sha256(served[module.ARCHIVE]))
    yield kit
