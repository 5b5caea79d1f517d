"""Detects the layout of a folder of photos: class folders or ready-made splits.

The layout is either `<class>/<photo>`, from which the converter draws the
splits, or `<split>/<class>/<photo>` with folders such as train/, valid/ and
test/, as in many published data sets.
"""

import collections
import os
from typing import Dict, List, NamedTuple

from common.errors import InputError
from datasets.photo_files import side_files

# Values of --photos_layout: 'auto' decides by the folder.
AUTO, CLASSES, SPLITS = LAYOUTS = ('auto', 'classes', 'splits')

# {name of a folder in lower case: split}.
_SPLIT_OF = {'train': 'train', 'training': 'train',
             'val': 'validation', 'valid': 'validation',
             'validation': 'validation', 'test': 'test', 'testing': 'test'}


def is_split_name(name: str) -> bool:
  """Returns whether a folder of this name may be a ready-made split."""
  return name.strip().lower() in _SPLIT_OF


class Layout(NamedTuple):
  """What the folders in a folder of photos are."""

  # {split: folder that holds its class folders}, in the order of training,
  # validation, test; empty if the folders are classes.
  splits: Dict[str, str]
  # The class folders; empty if the folders are splits.
  classes: List[str]
  # {folder: why it is neither}.
  unused: Dict[str, str]


def find(folder: str, names: List[str], asked: str = AUTO) -> Layout:
  """Finds out whether the folders in a folder of photos are classes or splits.

  They are ready-made splits if train/ holds class folders, and either another
  folder named like a split does too or all folders are named like splits.
  Otherwise they are classes, except folders named like validation or test:
  those hold photos to try a classifier with.

  Args:
    folder: the folder of photos.
    names: sorted names of the folders in it, without hidden ones.
    asked: one of LAYOUTS.

  Returns:
    A Layout.

  Raises:
    InputError: there are several folders for one split; `asked` is SPLITS and
      train/ is missing; or `asked` is AUTO and the layout is unclear.
  """
  named = {name: _SPLIT_OF[name.strip().lower()] for name in names
           if is_split_name(name)}
  if asked == CLASSES or asked == AUTO and not named:
    return Layout({}, names, {})
  nested = [name for name in named
            if _holds_folders(os.path.join(folder, name), asked == SPLITS)]
  has_train = any(named[name] == 'train' for name in nested)
  if asked == SPLITS and not has_train:
    raise InputError('%s holds no train/ with class folders, which '
                     '--photos_layout=splits needs' % folder)
  if asked == SPLITS or has_train and (
      len(nested) > 1 or len(named) == len(names)):
    return _ready_made(folder, names, named, nested)
  if nested:
    raise InputError(_unclear(folder, nested, 'with folders in them'))
  loose = [name for name in named if named[name] != 'train']
  if loose and len(names) - len(loose) < 2:
    raise InputError(_unclear(folder, list(named), 'without class folders'))
  return Layout({}, [name for name in names if name not in loose],
                {name: 'not a class but photos to try a classifier with '
                 '(--photos_layout=classes or, for scripts, '
                 'PHOTOS_LAYOUT=classes makes it a class)'
                 for name in loose})


def _ready_made(folder, names, named, nested):
  """Returns the Layout of ready-made splits."""
  splits = collections.OrderedDict()
  for split in ('train', 'validation', 'test'):
    folders = [name for name in nested if named[name] == split]
    if len(folders) > 1:
      raise InputError('%s holds several folders for the %s split: %s; keep '
                       'one' % (folder, split, ', '.join(folders)))
    if folders:
      splits[split] = folders[0]
  return Layout(splits, [], {
      name: 'not used: it holds no class folders' if name in named else
      'not used: it is not one of the ready-made splits'
      for name in names if name not in nested})


def _unclear(folder, names, what):
  return (
      '%s holds %s %s: ready-made splits are train/<class>/, '
      'validation/<class>/ and test/<class>/ with no other folders; otherwise '
      'there is one folder per class. If these are classes, give '
      '--photos_layout=classes (for scripts PHOTOS_LAYOUT=classes); if train/ '
      'and the others are splits, --photos_layout=splits' %
      (folder, ' and '.join('%s/' % name for name in names), what))


def _holds_folders(path, any_number=False):
  """Returns whether a folder holds class folders: more folders than files.

  Args:
    path: the folder. It may hold a list of labels or a README as well.
    any_number: whether one folder is enough, among any number of files.
  """
  num_folders = num_files = 0
  try:
    with os.scandir(path) as entries:
      for entry in entries:
        is_folder = entry.is_dir()
        if side_files.reason(entry.name, is_folder) is None:
          num_folders += is_folder
          num_files += not is_folder
  except OSError as error:
    raise InputError('cannot list %s: %s' % (path, error.strerror))
  return num_folders > (0 if any_number else num_files)
