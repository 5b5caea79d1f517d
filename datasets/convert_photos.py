"""From a folder of photos to records, labels and a manifest.

Two passes. The first reads and decodes every photo, so that the splits are made
of usable photos only. The second writes the records: see converted_files.

What a former conversion decided is kept: its seed and percentages where no
others are given, and with these, old photos stay in their splits and only new
ones are drawn (see splits.assign). With others all photos are drawn anew.
"""

import collections
import contextlib
import os
import random
import re

from compat import tf
from datasets import (
  converted_files,
  former_photos,
  photo_folder,
  photos,
  same_photos,
  splits,
)
from datasets import manifest as manifests
from errors import InputError

# Aimed-at size of a record file: a few for a small data set, so that several
# readers have something to do; none so large that copying it is a burden.
SHARD_BYTES = 64 * 1024 * 1024

# Unusable files that an error names; the list beside the manifest has all.
_NAMED = 3

# Of a first conversion.
_DEFAULTS = {'seed': 0, 'percent_validation': 10, 'percent_test': 0}


def convert(dataset_dir, name, percent_validation=None, seed=None,
            num_shards=None, max_pixels=photos.MAX_PIXELS, percent_test=None,
            max_bad_fraction=0.05):
  """Converts the photos in `<dataset_dir>/<name>/<class>/`.

  Writes into dataset_dir: record files `<name>_train-00000-of-0000N.tfrecord`
  and so on, labels.txt (`<name>_labels.txt` where another data set there needs
  labels.txt), `<name>_skipped.csv` with a row for each file that was not
  converted, and the manifest `<name>.json`. The same photos and arguments give
  the same bytes whatever the order of listing. Record files of a former
  conversion of this data set are removed.

  Photos with equal pixels go to the same split. Where they lie in several
  classes, at most one of these is right, so none of them is converted.

  Args:
    dataset_dir: folder of the folder of photos; gets the records.
    name: name of the data set and of its folder.
    percent_validation: number 0 to 99, percent of each class for validation.
      None: that of the former conversion, without one 10.
    seed: integer, decides the splits and the order. None: the former one, or 0.
    num_shards: record files a split; None: by size.
    max_pixels: photos with more pixels are skipped.
    percent_test: number 0 to 99, percent of each class for the test split.
      None: that of the former conversion, without one 0.
    max_bad_fraction: 0 to 1, share of the files in class folders that may be
      unusable; hidden files and photos in several classes do not count.

  Returns:
    The Manifest.

  Raises:
    InputError: a name is not UTF-8; the folder is missing, holds fewer than
      two classes, a class with too few photos for the splits, or too many
      unusable files; the former manifest cannot be read; dataset_dir cannot be
      written to. The former data set is then as it was; but where it was the
      photos, `<name>_skipped.csv` lists those that this conversion could not
      use.
  """
  given = {'seed': seed, 'percent_validation': percent_validation,
           'percent_test': percent_test}
  photo_folder.check_is_utf8('dataset_dir', dataset_dir)
  _check_arguments(name, given, num_shards, max_bad_fraction)
  folder = os.path.join(dataset_dir, name)
  listing = photo_folder.list_photos(folder)
  try:
    with converted_files.hold(folder):
      converted_files.check_way_is_free(dataset_dir, name)
      former, kept_path, used = _load_former(dataset_dir, name, given)
      with _list_of_skipped_on_error(dataset_dir, name,
                                     listing.hidden) as skipped:
        groups = _find_photos(folder, listing, max_pixels, max_bad_fraction,
                              skipped)
        by_class = _by_class(groups, listing.classes)
        pixels = None
        if kept_path:
          former, pixels = former_photos.find(folder, former, groups,
                                              max_pixels)
        split_of = _assign(folder, by_class, used, former, kept_path, pixels)
      described, orders = _plan(name, by_class, split_of, num_shards,
                                used['seed'])
      manifest = manifests.Manifest(
          name=name, labels=listing.classes, splits=described, **used,
          skipped=skipped, duplicates=_duplicates(groups),
          **_by_file(by_class, split_of))
      converted_files.write(dataset_dir, manifest, former, orders,
                            listing.hidden, max_pixels)
  except (OSError, tf.errors.OpError) as error:  # The record writer's is long.
    raise InputError('cannot write to %s: %s' %
                     (dataset_dir, getattr(error, 'message', error)))
  return manifest


@contextlib.contextmanager
def _list_of_skipped_on_error(dataset_dir, name, hidden):
  """Gives a list to fill; an InputError in the body lets it be written.

  So a user sees all that is to be mended, not only what the error names.
  """
  skipped = []
  try:
    yield skipped
  except InputError:
    entries = skipped + hidden
    if entries or os.path.exists(
        converted_files.skipped_path(dataset_dir, name)):
      converted_files.write_skipped(dataset_dir, name, entries)
    raise


def _find_photos(folder, listing, max_pixels, max_bad_fraction, skipped):
  """Reads, checks and compares all photos.

  Args:
    folder: the folder of photos.
    listing: its photo_folder.Listing.
    max_pixels, max_bad_fraction: as for `convert`.
    skipped: empty list that gets {'file', 'reason'}, sorted by file.

  Returns:
    List of lists of CheckedPhoto with equal pixels, also over classes.
  """
  usable, unusable = photo_folder.check_photos(folder, listing, max_pixels)
  skipped += listing.skipped + unusable
  _check_classes(folder, listing.classes, usable, skipped)
  _check_bad_fraction(folder, len(usable), skipped, max_bad_fraction)
  groups = same_photos.group(folder, usable, max_pixels)
  for members in groups:
    for photo in members:
      others = [other.file for other in members
                if other.class_name != photo.class_name]
      if others:
        skipped.append({
            'file': photo.file,
            'reason': 'the same photo is in another class: %s' %
                      photo_folder.printable(others[0])})
  skipped.sort(key=lambda entry: entry['file'])
  kept = [members[0] for members in groups if _is_of_one_class(members)]
  _check_classes(folder, listing.classes, kept, skipped)
  return groups


def _assign(folder, by_class, used, former, kept_path, pixels):
  """Returns {file: split}.

  Args:
    folder: the folder of photos.
    by_class: {class: list of groups}.
    used, former, kept_path: of _load_former.
    pixels: of former_photos.find.

  Raises:
    InputError: a class has too few photos.
  """
  percents = {split: used['percent_' + split] for split in splits.SPLITS[1:]}
  split_of = splits.assign_all(by_class, percents, used['seed'],
                               former if kept_path else None, pixels)
  splits.check(by_class, split_of, percents, kept_path, folder)
  return split_of


def _is_of_one_class(members):
  return len({photo.class_name for photo in members}) == 1


def _by_class(groups, classes):
  """Returns {class: list of groups}, without the groups over several classes.

  In the order of the labels.
  """
  by_class = collections.OrderedDict((name, []) for name in classes)
  for members in groups:
    if _is_of_one_class(members):
      by_class[members[0].class_name].append(members)
  return by_class


def _by_file(by_class, split_of):
  """Returns the manifest's `files`, `digests` and `pixels`, sorted by file."""
  kept = sorted((photo for groups in by_class.values() for members in groups
                 for photo in members), key=lambda photo: photo.file)
  return {'files': {photo.file: split_of[photo.file] for photo in kept},
          'digests': {photo.file: photo.digest for photo in kept},
          'pixels': {photo.file: photo.look for photo in kept
                     if not photo.is_plain}}


def _duplicates(groups):
  """Returns the manifest's `duplicates`."""
  return sorted(sorted(photo.file for photo in members)
                for members in groups if len(members) > 1)


def _check_arguments(name, given, num_shards, max_bad_fraction):
  photo_folder.check_is_utf8('dataset_name', name)
  if not name or name.startswith('.') or re.search(r'[/\\*?\[\]\x00-\x1f]',
                                                   name):
    raise InputError('dataset_name is %r, accepted is a plain folder name '
                     'without / \\ * ? [ ] and no leading dot' % name)
  _check_percents(given['percent_validation'] or 0, given['percent_test'] or 0)
  if num_shards is not None and not 1 <= num_shards <= 99999:
    raise InputError('num_shards is %r, accepted are 1 to 99999' % num_shards)
  if not 0 <= max_bad_fraction <= 1:
    raise InputError('max_bad_fraction is %r, accepted are 0 to 1' %
                     max_bad_fraction)


def _check_percents(validation, test):
  for key, percent in (('percent_validation', validation),
                       ('percent_test', test)):
    if not 0 <= percent <= 99:
      raise InputError('%s is %r, accepted are 0 to 99' % (key, percent))
  if validation + test > 99:
    raise InputError(
        'percent_validation is %g and percent_test is %g: together accepted '
        'are up to 99, or nothing is left for training' % (validation, test))


def _load_former(dataset_dir, name, given):
  """Finds out what is kept of a former conversion.

  Args:
    dataset_dir, name: as for `convert`.
    given: {'seed', 'percent_validation', 'percent_test': number or None}.

  Returns:
    former: the former Manifest, or None.
    kept_path: its path if photos keep its splits, else None.
    used: `given`, with the former values, or else the defaults, for None.
  """
  path = converted_files.former_path(dataset_dir, name)
  former = manifests.load_file(path) if path else None
  # One without photo files is that of a public data set of this name.
  is_kept = bool(former and former.files)
  before = former._asdict() if is_kept else _DEFAULTS
  used = {key: before[key] if value is None else value
          for key, value in given.items()}
  _check_percents(used['percent_validation'], used['percent_test'])
  changed = ', '.join('%s was %s and is %s' % (key, before[key], used[key])
                      for key in given if used[key] != before[key])
  if is_kept and changed:
    tf.logging.warning('%s: all photos are split anew, none keeps the split of '
                       'the former conversion', changed)
  return former, path if is_kept and not changed else None, used


def _check_bad_fraction(folder, num_usable, skipped, max_bad_fraction):
  """Raises InputError if too much cannot be used.

  What lies beside the class folders does not count: it is rarely meant to be a
  photo (README, LICENSE).
  """
  bad = sorted((entry for entry in skipped if '/' in entry['file']),
               key=lambda entry: entry['file'])
  total = len(bad) + num_usable
  if len(bad) <= max_bad_fraction * total:
    return
  first = '; '.join(_describe(entry) for entry in bad[:_NAMED])
  raise InputError(
      '%d of the %d files in %s cannot be used, more than the fraction of %g '
      'that --max_bad_fraction accepts. Nothing was converted; %s lists them, '
      'the first: %s' %
      (len(bad), total, folder, max_bad_fraction,
       converted_files.skipped_path(*os.path.split(folder)), first))


def _describe(entry):
  return '%s: %s' % (photo_folder.printable(entry['file']), entry['reason'])


def _check_classes(folder, classes, usable, skipped):
  """Raises InputError for a class without a usable photo."""
  found = {photo.class_name for photo in usable}
  for class_name in classes:
    if class_name not in found:
      first = [' (%s)' % _describe(entry) for entry in skipped
               if entry['file'].startswith(class_name + '/')][:1]
      raise InputError(
          'class %r in %s has no usable photo%s: add photos (%s), or remove '
          'the folder' % (class_name, folder, ''.join(first), photos.ACCEPTED))


def _plan(name, by_class, split_of, num_shards, seed):
  """Decides the order of the photos and their files.

  Returns:
    described: splits as in the Manifest.
    orders: {shard: list of (CheckedPhoto, label)}.
  """
  described, orders = {}, {}
  for split in splits.SPLITS:
    rows = [(photo, label)
            for label, groups in enumerate(by_class.values())
            for members in groups for photo in members
            if split_of[photo.file] == split]
    if not rows:
      continue
    rows.sort(key=lambda row: row[0].file)
    random.Random(seed).shuffle(rows)
    total_bytes = sum(photo.num_bytes for photo, _ in rows)
    count = min(num_shards or -(-total_bytes // SHARD_BYTES), len(rows))
    shards = ['%s_%s-%05d-of-%05d.tfrecord' % (name, split, index, count)
              for index in range(count)]
    for index, shard in enumerate(shards):
      orders[shard] = rows[index * len(rows) // count:
                           (index + 1) * len(rows) // count]
    counts = collections.Counter(photo.class_name for photo, _ in rows)
    described[split] = {
        'size': len(rows), 'shards': shards,
        'class_counts': {label: counts[label] for label in by_class}}
  return described, orders
