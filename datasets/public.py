"""The public data sets that can be downloaded, by name."""

import os

from datasets import (
  convert_cifar10,
  convert_flowers,
  convert_mnist,
  convert_photos,
)
from errors import unknown_name

CONVERTERS = {
    'cifar10': convert_cifar10.convert,
    'flowers': convert_flowers.convert,
    'mnist': convert_mnist.convert,
}


def convert(name, dataset_dir, **options):
  """Downloads a public data set where it is missing, and converts it.

  A folder of photos `<dataset_dir>/<name>/` that lies there is converted
  instead, whatever it holds.

  Args:
    name: 'cifar10', 'flowers' or 'mnist'.
    dataset_dir: folder of the archives and of the records; made where missing.
    **options: of convert_photos.convert, without those that were not given.
      Where there are no photo files (cifar10, mnist) only num_shards counts:
      the splits are the published ones.

  Returns:
    The Manifest.

  Raises:
    InputError: no such data set, or what its converter raises.
  """
  if name not in CONVERTERS:
    raise unknown_name('public data set', name, CONVERTERS)
  if name != 'flowers' and os.path.isdir(os.path.join(dataset_dir, name)):
    return convert_photos.convert(dataset_dir, name, **options)
  if name != 'flowers':
    options = {key: value for key, value in options.items()
               if key == 'num_shards' and value is not None}
  return CONVERTERS[name](dataset_dir, **options)
