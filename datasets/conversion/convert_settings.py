"""Settings of a conversion of photos: given, kept, or default.

A setting that is not given keeps its value of the former conversion.
"""

from typing import Any, Dict, Optional, Tuple

from common.errors import InputError
from datasets import manifest as manifests
from datasets.conversion import converted_files

_DEFAULTS = {'seed': 0, 'percent_validation': 10, 'percent_test': 0,
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


def settle(given: Dict[str, Any],
           former: Optional[manifests.Manifest]) -> Dict[str, Any]:
  """Returns the settings to use.

  Args:
    given: {key of _DEFAULTS: value, None where nothing is given}.
    former: its settings are kept; None: there was no former conversion.
  """
  used = dict(_DEFAULTS)
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
      used[key] = _DEFAULTS[key]
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
