"""Settings of a conversion of photos: given, kept, or default.

A setting that is not given keeps its value of the former conversion.
"""

import os
import re
from typing import Any, Dict, Optional, Tuple

from common.errors import InputError, unknown_name
from datasets import manifest as manifests
from datasets.conversion import converted_files
from datasets.photo_files import folder_layout, photo_folder

DEFAULTS = {'seed': 0, 'percent_validation': 10, 'percent_test': 0,
            'num_shards': 0, 'photos_dir': '', 'photos_layout': 'auto',
            'group_duplicates': False}

# If one of these changes, all photos are split again.
_DECIDE_SPLITS = ('seed', 'percent_validation', 'percent_test')


def load_former(
    dataset_dir: str, name: str
) -> Tuple[Optional[manifests.Manifest], Optional[str]]:
  """Returns the Manifest of the former conversion and its path, or Nones.

  The path is also None if the manifest lists no photos: it is then that of a
  public data set of this name.
  """
  path = converted_files.former_path(dataset_dir, name)
  former = manifests.load_file(path) if path else None
  return former, path if former and former.files else None


def settle_folder(
    dataset_dir: str, name: str, given: Dict[str, Any]
) -> Tuple[str, Dict[str, Any], Optional[manifests.Manifest], Optional[str]]:
  """Finds the folder of photos and the settings to use.

  Args:
    dataset_dir: folder of the record files.
    name: name of the data set.
    given: as for `settle`.

  Returns:
    folder: the folder of photos.
    used: the settings, see `settle`.
    former, former_path: of `load_former`.
  """
  former, path = load_former(dataset_dir, name)
  used = settle(given, former if path else None)
  default_folder = os.path.join(dataset_dir, name)
  # Also if the former folder of photos is gone and the default one exists.
  if used['photos_dir'] == os.path.abspath(default_folder) or (
      not given['photos_dir'] and os.path.isdir(default_folder) and
      not os.path.isdir(used['photos_dir'])):
    used['photos_dir'] = ''
  return used['photos_dir'] or default_folder, used, former, path


def check(dataset_dir: str, name: str, given: Dict[str, Any],
          max_bad_fraction: float) -> None:
  """Raises InputError for wrong arguments and folders; makes dataset_dir.

  Args:
    dataset_dir, name, max_bad_fraction: as for convert_photos.convert.
    given: as for `settle`.
  """
  photo_folder.check_is_utf8('dataset_dir', dataset_dir)
  photo_folder.check_is_utf8('photos_dir', given['photos_dir'] or '')
  _check_arguments(name, given, max_bad_fraction)
  folder = settle_folder(dataset_dir, name, given)[0]
  photo_folder.check_is_folder(folder)  # Before a file is written.
  photo_folder.check_is_outside(dataset_dir, folder)
  if given['photos_dir']:
    converted_files.make_folder(dataset_dir)
  converted_files.check_way_is_free(dataset_dir, name)


def _check_arguments(name, given, max_bad_fraction):
  photo_folder.check_is_utf8('dataset_name', name)
  if not name or name.startswith('.') or re.search(r'[/\\*?\[\]\x00-\x1f]',
                                                   name):
    raise InputError('dataset_name is %r, expected a plain folder name '
                     'without / \\ * ? [ ] and without a leading dot' % name)
  check_percents(given['percent_validation'] or 0, given['percent_test'] or 0)
  num_shards, layout = given['num_shards'], given['photos_layout']
  if num_shards is not None and not 0 <= num_shards <= 99999:
    raise InputError('num_shards is %r, expected 0 to 99999' % num_shards)
  if layout not in (None, *folder_layout.LAYOUTS):
    raise unknown_name('photos_layout', layout, folder_layout.LAYOUTS)
  if not 0 <= max_bad_fraction <= 1:
    raise InputError('max_bad_fraction is %r, expected 0 to 1' %
                     max_bad_fraction)


def settle(given: Dict[str, Any],
           former: Optional[manifests.Manifest]) -> Dict[str, Any]:
  """Returns the settings to use.

  Args:
    given: {key of DEFAULTS: value, None where nothing is given}.
    former: its settings are kept; None: there was no former conversion.
  """
  used = dict(DEFAULTS)
  for key, value in given.items():
    if value is None and former:
      value = getattr(former, key)
    if value is not None:
      used[key] = value
  return used


def settle_splits(used: Dict[str, Any], given: Dict[str, Any],
                  former: Optional[manifests.Manifest],
                  splits: Dict[str, str]) -> str:
  """Adjusts the percentages to ready-made splits, and finds what has changed.

  Args:
    used: from `settle`; the percentages of ready-made splits are set to 0.
    given, former: as for `settle`.
    splits: {split: its folder} of ready-made splits; empty if there are none.

  Returns:
    Text that says what has changed since the former conversion, so that all
    photos are split again; '' if photos keep their splits.

  Raises:
    InputError: a percentage is out of range, or given for a ready-made split.
  """
  before = former.ready_made if former else {}
  for split in ('validation', 'test'):
    key = 'percent_' + split
    if split in splits:
      if given[key] is not None:
        raise InputError(
            '%s is %g, but the folder %s/ is the %s split already: omit %s, or '
            'remove the folder to have the split drawn from %s/' %
            (key, given[key], splits[split], split, key, splits['train']))
      used[key] = 0
    elif split in before and given[key] is None:
      used[key] = DEFAULTS[key]
  check_percents(used['percent_validation'], used['percent_test'])
  if not former:
    return ''
  changed = ['%s was %s and is %s' % (key, getattr(former, key), used[key])
             for key in _DECIDE_SPLITS if used[key] != getattr(former, key)]
  if set(before) != set(splits):
    changed.append('the ready-made splits were %s and are %s' % tuple(
        ', '.join(names) or 'none' for names in (before, splits)))
  return ', '.join(changed)


def check_percents(validation: float, test: float) -> None:
  """Raises InputError if a percentage is out of range, or no photo is left."""
  for key, percent in (('percent_validation', validation),
                       ('percent_test', test)):
    if not 0 <= percent <= 99:
      raise InputError('%s is %r, expected 0 to 99' % (key, percent))
  if validation + test > 99:
    raise InputError(
        'percent_validation is %g and percent_test is %g: together they must '
        'be at most 99, or nothing is left for training' % (validation, test))


def describe_splits(ready_made: Dict[str, str], percent_validation: float,
                    percent_test: float) -> str:
  """Returns a line that says which splits are ready-made.

  Args:
    ready_made, percent_validation, percent_test: of the Manifest.
  """
  drawn = ' and '.join(
      '%g %% for %s' % (percent, split)
      for split, percent in (('validation', percent_validation),
                             ('test', percent_test)) if percent)
  return 'ready-made splits: %s; drawn from %s/: %s' % (
      ', '.join('%s/ is %s' % (folder, split)
                for split, folder in ready_made.items()),
      ready_made['train'], drawn or 'nothing')
