"""Downloads and converts public data sets by name."""

import os
from typing import Any, Callable, Dict

from common.errors import unknown_name
from datasets.conversion import (
  convert_cifar10,
  convert_flowers,
  convert_mnist,
  convert_photos,
  convert_visualwakewords,
  converted_files,
)
from datasets.manifest import Manifest

CONVERTERS: Dict[str, Callable[..., Manifest]] = {
    'cifar10': convert_cifar10.convert,
    'flowers': convert_flowers.convert,
    'mnist': convert_mnist.convert,
    'visualwakewords': convert_visualwakewords.convert,
}


# Public data sets that convert_photos splits; others are split as published.
_OF_PHOTOS = ('flowers',)


def is_of_photos(name: str, dataset_dir: str) -> bool:
  """Returns whether a data set is split and converted by convert_photos.

  Args:
    name: any name, of a public data set or not.
    dataset_dir: folder that may hold a folder of photos of that name.
  """
  return (name not in CONVERTERS or name in _OF_PHOTOS or
          os.path.isdir(os.path.join(dataset_dir, name)))


def convert(name: str, dataset_dir: str, **options: Any) -> Manifest:
  """Downloads a public data set if it is missing, and converts it.

  If there is a folder of photos `<dataset_dir>/<name>/`, it is converted
  instead, whatever it holds. No other process may download or convert a public
  data set in dataset_dir meanwhile.

  Args:
    name: a key of CONVERTERS.
    dataset_dir: folder of the archives and of the records; created if missing.
    **options: those that were given, of convert_photos.convert if is_of_photos,
      else of the data set's converter.

  Returns:
    The Manifest.

  Raises:
    InputError: no such data set, dataset_dir cannot be created, another process
      is converting in it, or what the converter raises.
  """
  if name not in CONVERTERS:
    raise unknown_name('public data set', name, CONVERTERS)
  converted_files.make_folder(dataset_dir)
  with converted_files.hold(dataset_dir):
    if name not in _OF_PHOTOS and is_of_photos(name, dataset_dir):
      return convert_photos.convert(dataset_dir, name, **options)
    return CONVERTERS[name](dataset_dir, **options)
