"""Converts Flowers: 3,670 photos of five kinds, TF-Slim's sample data set.

  convert('data')

downloads what is missing, puts the photos into data/flowers/<kind>/, and
converts them like any folder of photos, with slim's numbers: 3,320 for
training, 350 for validation, five record files each.
"""

import os
from typing import Any

from common.errors import InputError
from datasets.conversion import convert_photos, convert_settings
from datasets.manifest import Manifest
from datasets.photo_files import side_files
from datasets.public_sets import FLOWERS_LABELS, PUBLIC_SETS
from downloads import archives, marks
from downloads.fetch import fetch

NAME = 'flowers'
ARCHIVE = 'flower_photos.tgz'
URLS = ('https://storage.googleapis.com/download.tensorflow.org/example_images/'
        'flower_photos.tgz',)
SIZE = 228813984  # Bytes.
SHA256 = '4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c'
NUM_SHARDS = 5

_FOLDER = 'flower_photos/'  # In the archive.


def convert(dataset_dir: str, **options: Any) -> Manifest:
  """Downloads the photos if they are missing, and converts them.

  Args:
    dataset_dir: folder of the archive, which is used as it is if present, and
      of the records. Photos in `<dataset_dir>/flowers/` are converted as they
      are.
    **options: of convert_photos.convert. When the photos of the archive are
      converted for the first time and percent_validation is None, they are
      split as slim does; there are five record files per split if num_shards
      is None and no former conversion was given another number.

  Returns:
    The Manifest.

  Raises:
    InputError: the archive can neither be found nor downloaded, or is damaged;
      or what convert_photos.convert raises.
  """
  folder = os.path.join(dataset_dir, NAME)
  path = os.path.join(dataset_dir, ARCHIVE)
  if not _holds_something(folder):
    fetch(URLS, path, SIZE, archives.check_tar, SHA256)
    _unpack(path, folder)
  if is_whole_set(folder):
    former, _ = convert_settings.load_former(dataset_dir, NAME)
    if not former or former.num_shards is None:
      _set_default(options, 'num_shards', NUM_SHARDS)
    if not former:
      _set_default(options, 'percent_validation', slims_percent())
  manifest = convert_photos.convert(dataset_dir, NAME, **options)
  marks.remove_downloaded(path)
  return manifest


def _set_default(options, key, value):
  if options.get(key) is None:
    options[key] = value


def slims_percent() -> float:
  """Returns the percentage of each kind that gives slim's 350 in total."""
  sizes = PUBLIC_SETS[NAME].split_sizes
  return 100 * sizes['validation'] / sum(sizes.values())


def is_whole_set(folder: str) -> bool:
  """Returns whether a folder has the archive's classes and number of photos.

  Hidden files and folders do not count.

  Args:
    folder: `<dataset_dir>/flowers`.
  """
  if not os.path.isdir(folder):
    return False
  kinds = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()
                 and not side_files.reason(entry.name, True))
  count = sum(not side_files.reason(file) for kind in kinds
              for file in os.listdir(os.path.join(folder, kind)))
  return (tuple(kinds) == FLOWERS_LABELS and
          count == sum(PUBLIC_SETS[NAME].split_sizes.values()))


def _holds_something(folder):
  """Returns whether a path exists and is not an empty folder."""
  if not os.path.isdir(folder):
    return os.path.lexists(folder)
  return bool(os.listdir(folder))


def _unpack(path, folder):
  """Puts the photos of the archive into a folder, all or none."""
  with archives.unpacking_folder(os.path.join(
      os.path.dirname(folder), '.%s.unpacking' % NAME)) as temporary:
    names = archives.unpack(path, temporary, _place)
    if not names:
      raise InputError('%s holds no %s<kind>/<photo>.jpg' % (path, _FOLDER))
    try:
      os.replace(temporary, folder)
    except OSError as error:
      raise InputError('cannot write %s: %s' % (folder, error.strerror))


def _place(name):
  """Returns the path of a file of the archive inside the folder of photos."""
  below = name[len(_FOLDER):]
  return below if name.startswith(_FOLDER) and '/' in below else None
