"""Converts a folder of photos to records, labels and a manifest.

There are two passes. The first reads and decodes every photo, so that the
splits are made of usable photos only. The second writes the records: see
converted_files.

The settings of a former conversion are kept unless others are given (see
convert_settings). If seed and percentages are unchanged, old photos stay in
their splits and only new ones are assigned (see splits.assign). Otherwise all
photos are assigned again.

Ready-made splits (see folder_layout) are used as they are. A split without a
folder of its own is drawn from the training photos as usual.
"""

import collections
import contextlib
import os
import random
from typing import Any, Optional

from common import shares
from common.errors import InputError
from compat import tf
from datasets import manifest as manifests
from datasets.conversion import (
  convert_settings,
  converted_files,
  former_photos,
  near_groups,
  same_photos,
  share_files,
  splits,
)
from datasets.photo_files import photo_folder, photos

# Target size of a record file. A small data set still has a few, so that
# several readers can work in parallel; none is so large that copying it is a
# burden.
SHARD_BYTES = 64 * 1024 * 1024

# Unusable files that an error names; the list next to the manifest has all.
_NAMED = 3


def convert(dataset_dir: str, name: str,
            percent_validation: Optional[float] = None,
            seed: Optional[int] = None, num_shards: Optional[int] = None,
            max_pixels: int = photos.MAX_PIXELS,
            percent_test: Optional[float] = None,
            max_bad_fraction: float = 0.05, photos_dir: Optional[str] = None,
            photos_layout: Optional[str] = None,
            group_duplicates: Optional[bool] = None,
            merge_shards: Optional[int] = None) -> manifests.Manifest:
  """Converts the photos in `<dataset_dir>/<name>/<class>/`.

  Writes into dataset_dir: record files `<name>_train-00000-of-0000N.tfrecord`
  and so on, labels.txt (`<name>_labels.txt` where another data set there needs
  labels.txt), `<name>_skipped.csv` with a row for each file that was not
  converted, and the manifest `<name>.json`. The same photos and arguments give
  the same bytes whatever the order in which the files are listed. Record files
  of a former conversion of this data set are removed.

  Photos with equal pixels go to the same split. If they are in several classes,
  at most one of these is right, so none of them is converted. If they are in
  several ready-made splits, only those in the last of training, validation and
  test are converted: the evaluation splits stay complete, and no photo in them
  is trained on.

  An argument that is None keeps its value of the former conversion of this data
  set.

  Args:
    dataset_dir: folder of the folder of photos; gets the records.
    name: name of the data set and of its folder.
    percent_validation: 0 to 99, percent of each class for validation;
      10 at the first conversion.
    seed: decides the splits and the order; 0 at the first conversion.
    num_shards: record files per split; 0, also at the first conversion: by
      size.
    max_pixels: photos with more pixels are skipped.
    percent_test: 0 to 99, percent of each class for the test split; 0 at
      the first conversion.
    max_bad_fraction: 0 to 1, fraction of the files in class folders that may be
      unusable; hidden files and photos in several classes do not count.
    photos_dir: the folder of photos, which may be read-only;
      `<dataset_dir>/<name>` at the first conversion.
    photos_layout: one of folder_layout.LAYOUTS; 'auto' at the first conversion.
    group_duplicates: whether near duplicates go to the same split, as well as
      equal photos; False at the first conversion.
    merge_shards: number of shares that `convert_share` has written, which are
      used and removed; None: all photos are read here. The result is the same.

  Returns:
    The Manifest.

  Raises:
    InputError: a name is not UTF-8; the folder is missing, holds dataset_dir,
      fewer than two classes, a class with too few photos for the splits, or too
      many unusable files; the former manifest cannot be read; dataset_dir
      cannot be written to; a share is missing. The former data set is then
      unchanged, except that `<name>_skipped.csv` lists the photos that this
      conversion could not use if these were the reason.
  """
  given = {'seed': seed, 'percent_validation': percent_validation,
           'percent_test': percent_test, 'num_shards': num_shards,
           'photos_dir': os.path.abspath(photos_dir) if photos_dir else None,
           'photos_layout': photos_layout,
           'group_duplicates': group_duplicates}
  convert_settings.check(dataset_dir, name, given, max_bad_fraction)
  try:
    with converted_files.hold_data_set(dataset_dir, name):
      folder, used, former, former_path = convert_settings.settle_folder(
          dataset_dir, name, given)
      reader = share_files.PhotoReader(folder, max_pixels)
      if merge_shards:
        reader.load(dataset_dir, name, merge_shards)
      listing = photo_folder.list_photos(folder, used['photos_layout'])
      kept_path = _settle_splits(folder, used, given, former, former_path,
                                 listing)
      with _list_of_skipped_on_error(dataset_dir, name,
                                     listing.hidden) as skipped:
        groups, kept = _find_photos(
            folder, listing, reader, max_pixels, max_bad_fraction,
            converted_files.skipped_path(dataset_dir, name), skipped)
        pixels = None
        if kept_path and former:
          former, pixels = former_photos.find(dataset_dir, folder, former,
                                              groups, max_pixels)
        by_class = _by_class(kept, listing.classes)
        near = (near_groups.find(kept, reader.sketch)
                if used['group_duplicates'] else [])
        split_of = _assign(folder, by_class, used, former, kept_path, pixels,
                           listing.splits, near)
      described, orders = _plan(name, by_class, split_of, used['num_shards'],
                                used['seed'])
      manifest = manifests.Manifest(
          name=name, labels=listing.classes, splits=described, **used,
          skipped=skipped, duplicates=_sets_of_files(groups),
          ready_made=dict(listing.splits),
          near_duplicates=_sets_of_files(near),
          **_by_file(by_class, split_of))
      converted_files.write(dataset_dir, manifest, former, orders,
                            listing.hidden, reader.read)
      if merge_shards:
        share_files.remove(dataset_dir, name)
  except (OSError, tf.errors.OpError) as error:  # str() of an OpError is long.
    raise InputError('cannot write to %s: %s' %
                     (dataset_dir, getattr(error, 'message', error)))
  return manifest


def convert_share(dataset_dir: str, name: str, share: shares.Share,
                  max_pixels: int = photos.MAX_PIXELS,
                  max_bad_fraction: float = 0.05,
                  photos_dir: Optional[str] = None, **settings: Any) -> None:
  """Checks and encodes one share of the photos, for `convert(merge_shards=…)`.

  Other processes may convert other shares at the same time, on this machine or
  on others. A share that was killed is converted again from its start.

  Args:
    dataset_dir, name, max_pixels, max_bad_fraction, photos_dir: as for
      `convert`.
    share: the share.
    **settings: other settings of `convert`.

  Raises:
    InputError: another process is converting this share, or as `convert`.
    OSError: dataset_dir cannot be written to.
  """
  given = dict.fromkeys(convert_settings.DEFAULTS)
  given.update(settings, photos_dir=photos_dir and os.path.abspath(photos_dir))
  convert_settings.check(dataset_dir, name, given, max_bad_fraction)
  folder, used, _, _ = convert_settings.settle_folder(dataset_dir, name, given)
  listing = photo_folder.list_photos(folder, used['photos_layout'])
  share_files.write(dataset_dir, name, folder, listing, share, max_pixels,
                    used['group_duplicates'])


def _settle_splits(folder, used, given, former, former_path, listing):
  """Settles how photos are split, and logs ready-made splits and changes.

  Args:
    folder, used, former, former_path: of convert_settings.settle_folder.
    given: as for convert_settings.settle_folder.
    listing: the photo_folder.Listing.

  Returns:
    The path of the former manifest if photos keep their splits, else None.
  """
  changed = convert_settings.settle_splits(
      used, given, former if former_path else None, listing.splits)
  if listing.splits:
    tf.logging.info('%s: %s', folder, convert_settings.describe_splits(
        listing.splits, used['percent_validation'], used['percent_test']))
  if changed:
    tf.logging.warning('%s: all photos are split again, none keeps the split '
                       'of the former conversion', changed)
  return None if changed else former_path


@contextlib.contextmanager
def _list_of_skipped_on_error(dataset_dir, name, hidden):
  """Yields a list to fill; writes it if the body raises InputError.

  So a user sees all files to be fixed, not only those that the error names.
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


def _find_photos(folder, listing, reader, max_pixels, max_bad_fraction,
                 skipped_path, skipped):
  """Reads, checks and compares all photos.

  Args:
    folder: the folder of photos.
    listing: its photo_folder.Listing.
    reader: share_files.PhotoReader.
    max_pixels, max_bad_fraction: as for `convert`.
    skipped_path: path of the list of skipped files.
    skipped: empty list that gets {'file', 'reason'}, sorted by file.

  Returns:
    groups: list of lists of CheckedPhoto with equal pixels, over all classes
      and ready-made splits.
    kept: those that are converted: each of one class and one ready-made split.
  """
  usable, unusable = reader.check(listing)
  bad = sorted(listing.skipped + unusable, key=lambda entry: entry['file'])
  skipped += bad + listing.outside
  _check_classes(folder, listing.classes, usable, skipped)
  _check_bad_fraction(folder, len(usable), bad, max_bad_fraction, skipped_path)
  groups = same_photos.group(folder, usable, max_pixels, reader.pixels)
  kept = []
  for members in groups:
    kept.append(splits.keep_one_split(members, skipped))
    for photo in members:
      others = [other.file for other in members
                if other.class_name != photo.class_name]
      if others:
        skipped.append({
            'file': photo.file,
            'reason': 'the same photo is in another class: %s' %
                      photo_folder.printable(others[0])})
  skipped.sort(key=lambda entry: entry['file'])
  kept = [members for members in kept if members]
  _check_classes(folder, listing.classes,
                 [members[0] for members in kept], skipped)
  splits.check_ready_made(folder, listing, kept)
  return groups, kept


def _assign(folder, by_class, used, former, kept_path, pixels, ready_made,
            near):
  """Returns {file: split}.

  Args:
    folder: the folder of photos.
    by_class: {class: list of groups}.
    used, kept_path: of settle_folder and _settle_splits.
    former, pixels: of former_photos.find.
    ready_made: {split: folder}; photos in these splits stay there, and the
      others are drawn from those in 'train'.
    near: list of lists of CheckedPhoto, to be kept in one split.

  Raises:
    InputError: a class has too few photos.
  """
  fixed = set(ready_made) - {'train'}
  percents = {split: used['percent_' + split] for split in splits.SPLITS[1:]}
  if kept_path:
    former = former._replace(files={
        file: split for file, split in former.files.items()
        if split not in fixed})
  drawn_from = collections.OrderedDict(
      (class_name, [members for members in groups
                    if members[0].split not in fixed])
      for class_name, groups in by_class.items())
  split_of = splits.assign_all(drawn_from, percents, used['seed'],
                               former if kept_path else None, pixels,
                               [[photo for photo in members
                                 if photo.split not in fixed]
                                for members in near])
  splits.check(drawn_from, split_of, percents, kept_path, folder)
  split_of.update((photo.file, photo.split) for groups in by_class.values()
                  for members in groups for photo in members
                  if photo.split in fixed)
  return split_of


def _by_class(kept, classes):
  """Returns {class: list of groups}, in the order of the labels."""
  by_class = collections.OrderedDict((name, []) for name in classes)
  for members in kept:
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


def _sets_of_files(groups):
  """Returns groups of several photos as the manifest's `duplicates`."""
  return sorted(sorted(photo.file for photo in members)
                for members in groups if len(members) > 1)


def _check_bad_fraction(folder, num_usable, bad, max_bad_fraction,
                        skipped_path):
  """Raises InputError if too many files in class folders cannot be used.

  Files outside the class folders do not count: they are rarely meant to be
  photos (README, LICENSE).
  """
  total = len(bad) + num_usable
  if len(bad) <= max_bad_fraction * total:
    return
  first = '; '.join(_describe(entry) for entry in bad[:_NAMED])
  raise InputError(
      '%d of the %d files in %s cannot be used, more than the fraction of %g '
      'that --max_bad_fraction allows. Nothing was converted; %s lists them, '
      'the first: %s' %
      (len(bad), total, folder, max_bad_fraction, skipped_path, first))


def _describe(entry):
  return '%s: %s' % (photo_folder.printable(entry['file']), entry['reason'])


def _check_classes(folder, classes, usable, skipped):
  """Raises InputError for a class without a usable photo."""
  with_photos = {photo.class_name for photo in usable}
  for class_name in classes:
    if class_name not in with_photos:
      first = [' (%s)' % _describe(entry) for entry in skipped
               if '/%s/' % class_name in '/' + entry['file']][:1]
      raise InputError(
          'class %r in %s has no usable photo%s: add photos (%s), or remove '
          'the folder' % (class_name, folder, ''.join(first), photos.ACCEPTED))


def _plan(name, by_class, split_of, num_shards, seed):
  """Decides the order of the photos and which record file each goes to.

  Returns:
    described: the splits as the Manifest holds them.
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
