"""Assigns photos to the splits train, validation and test."""

import collections
import hashlib
from typing import Callable, Dict, List, Optional, Sequence

from common.errors import InputError
from compat import tf
from datasets.manifest import Manifest
from datasets.photo_files import photo_folder
from datasets.photo_files.photo_folder import CheckedPhoto

SPLITS = ('train', 'validation', 'test')

# How many classes a message names.
_NAMED = 5


def assign_all(by_class: Dict[str, List[List[CheckedPhoto]]],
               percents: Dict[str, float], seed: int,
               former: Optional[Manifest] = None,
               pixels: Optional[Dict[str, str]] = None,
               near: Sequence[List[CheckedPhoto]] = ()) -> Dict[str, str]:
  """Assigns the photos of all classes to splits.

  Args:
    by_class: {class: groups}, see `assign`.
    percents: as in `assign`.
    seed: as in `assign`.
    former: its splits are kept; None: there was no former conversion.
    pixels: {CheckedPhoto.digest: digest of the pixels} of photos that `former`
      may have in other bytes, see former_photos.find; or None.
    near: sets of near duplicates, each kept in one split, also if they are of
      several classes.

  Returns:
    {file: split}.
  """
  def former_split(photo):
    return None

  if former:
    by_digest, by_pixels = (
        {digest: former.files.get(file) for file, digest in digests.items()}
        for digests in (former.digests, former.pixels))

    def former_split(photo):
      return (by_digest.get(photo.digest) or
              by_pixels.get((pixels or {}).get(photo.digest)) or
              former.files.get(photo.file))

  split_of: Dict[str, str] = {}
  near_of = {photo.file: members for members in near for photo in members}

  def split_before(photo):
    before = {split_of.get(other.file) or former_split(other)
              for other in near_of.get(photo.file, [photo])}
    return next((split for split in SPLITS if split in before), None)

  for groups in by_class.values():
    split_of.update(assign(_merge(groups, near_of), percents, seed,
                           split_before))
  moved = [photo.file for members in near for photo in members
           if former_split(photo) not in (None, split_of[photo.file])]
  if moved:
    tf.logging.warning(
        '%d photos are near duplicates of photos in another split, and moved '
        'there: %s', len(moved), _some(sorted(moved)))
  return split_of


def _merge(groups, near_of):
  """Merges the groups of a class that hold near duplicates.

  Args:
    groups: as for `assign`.
    near_of: {file: set of near duplicates}.
  """
  merged: Dict[object, List[CheckedPhoto]] = collections.OrderedDict()
  for members in groups:
    file = members[0].file
    key = id(near_of[file]) if file in near_of else file
    merged.setdefault(key, []).extend(members)
  return list(merged.values())


def assign(
    groups: List[List[CheckedPhoto]], percents: Dict[str, float], seed: int,
    former: Optional[Callable[[CheckedPhoto], Optional[str]]] = None
) -> Dict[str, str]:
  """Assigns the photos of one class to splits.

  A group of photos with equal pixels stays together. Groups are ordered by a
  hash of seed and content, so that neither names nor the order of a listing
  matter.

  With a former manifest its photos keep their splits; they are recognized by
  the bytes of the file, or else its pixels, or else its name. A group with a
  photo that was trained on stays in training, because evaluation on it would be
  too optimistic.

  Args:
    groups: photos of one class; those of a group have equal pixels.
    percents: {'validation': number, 'test': number}, sum at most 99.
    seed: decides the order.
    former: function of a CheckedPhoto that returns its former split, or None;
      None: there was no former conversion.

  Returns:
    {file: split}. Validation and test get their percentage of the photos,
    rounded, but at least one photo, and fewer if only larger groups are left. A
    class without enough groups lacks a split: see `check`.
  """
  split_of: Dict[str, str] = {}
  new_groups = []
  for members in sorted(groups, key=lambda members: _rank(members, seed)):
    former_splits = {former(photo) for photo in members} if former else ()
    for split in SPLITS:
      if split in former_splits:
        split_of.update((photo.file, split) for photo in members)
        break
    else:
      new_groups.append(members)

  wanted = _wanted(sum(map(len, groups)), percents)
  sizes = collections.Counter(split_of.values())
  chosen: Dict[str, List[List[CheckedPhoto]]] = {
      split: [] for split in SPLITS}
  for members in new_groups:
    for split in wanted:
      if sizes[split] + len(members) <= wanted[split]:
        break
    else:
      split = 'train'
    chosen[split].append(members)
    sizes[split] += len(members)
  for split in wanted:  # If only groups larger than wanted are left.
    spare = chosen['train']
    if not sizes[split] and (
        len(spare) > 1 or spare and sizes['train'] > len(spare[0])):
      smallest = min(spare, key=len)
      spare.remove(smallest)
      chosen[split].append(smallest)
      sizes[split] += len(smallest)
      sizes['train'] -= len(smallest)
  for split, groups_chosen in chosen.items():
    for members in groups_chosen:
      split_of.update((photo.file, split) for photo in members)
  return split_of


def _rank(members, seed):
  """Returns the sort key of a group: its smallest hash."""
  return min(hashlib.sha256(b'%d:%s' % (seed, photo.digest.encode('ascii')))
             .hexdigest() for photo in members)


def _wanted(count, percents):
  """Returns {'validation': number, 'test': number} of photos of a class."""
  wanted = {split: round(count * percents[split] / 100) or 1
            for split in SPLITS[1:] if percents[split]}
  left = count - 1  # At least one is for training.
  for index, split in enumerate(wanted):
    reserved = len(wanted) - index - 1
    wanted[split] = max(min(wanted[split], left - reserved), 0)
    left -= wanted[split]
  return wanted


def check(by_class: Dict[str, List[List[CheckedPhoto]]],
          split_of: Dict[str, str], percents: Dict[str, float],
          was_kept: Optional[str], folder: str) -> None:
  """Raises InputError if a class has no photos in a requested split.

  Args:
    by_class: {class: groups}, see `assign`.
    split_of: {file: split} of all photos.
    percents: as in `assign`.
    was_kept: path of the former manifest whose splits were kept, or None.
    folder: the folder of photos.
  """
  wanted = ['train'] + [split for split in SPLITS[1:] if percents[split]]
  lacking = []
  for class_name, groups in by_class.items():
    got = {split_of[photo.file] for members in groups for photo in members}
    if not set(wanted) <= got:
      lacking.append('%r (%d)' % (class_name, len(groups)))
  if not lacking:
    return
  advice = 'add photos, or lower --percent_validation or --percent_test to 0'
  if was_kept:
    advice = ('add photos, or delete %s to split all photos again: photos keep '
              'the splits listed there' % was_kept)
  raise InputError(
      '%s: too few photos for the splits %s in these classes (in brackets: how '
      'many different photos): %s; %s' %
      (folder, ', '.join(wanted), _some(lacking), advice))


def keep_one_split(members: List[CheckedPhoto],
                   skipped: List[Dict[str, str]]) -> List[CheckedPhoto]:
  """Returns those photos of a group of equal ones that are converted.

  If they are in several classes: none. If they are in several ready-made
  splits: those in the last one.

  Args:
    members: photos with equal pixels.
    skipped: list to which those in an earlier ready-made split are added.
  """
  if len({photo.class_name for photo in members}) > 1:
    return []
  # If a split is None, all are None.
  last = max(members, key=lambda photo: SPLITS.index(photo.split or 'train'))
  for photo in members:
    if photo.split != last.split:
      skipped.append({
          'file': photo.file,
          'reason': 'the same photo is in another split: %s' %
                    photo_folder.printable(last.file)})
  return [photo for photo in members if photo.split == last.split]


def check_ready_made(folder: str, listing: photo_folder.Listing,
                     kept: List[List[CheckedPhoto]]) -> None:
  """Checks that each class is in each ready-made split.

  Args:
    folder: the folder of photos.
    listing: what is in it.
    kept: the results of `keep_one_split`, without empty ones.

  Raises:
    InputError: a class is not in the training split.
  """
  for split, name in listing.splits.items():
    present = {members[0].class_name for members in kept
               if members[0].split == split}
    lacking = [repr(class_name) for class_name in listing.classes
               if class_name not in present]
    if not lacking:
      continue
    names = _some(lacking)
    if split == 'train':
      raise InputError(
          '%s holds no training photos of %d classes: %s. Add photos to %s/, '
          'or remove these class folders; a photo that is in an evaluation '
          'split as well does not count' % (folder, len(lacking), names, name))
    tf.logging.warning(
        '%s: %s/ holds no photo of %d of the %d classes: %s. These are not '
        'evaluated by the %s split', folder, name, len(lacking),
        len(listing.classes), names, split)


def _some(names):
  """Returns the first few names, separated by commas."""
  return ', '.join(names[:_NAMED]) + ', ...' * (len(names) > _NAMED)
