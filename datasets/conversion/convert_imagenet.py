"""Converts the unpacked folders of ILSVRC 2012 to records with slim's names.

Writes train-00000-of-01024 and so on, validation-00000-of-00128 and so on, with
the keys of slim's build_imagenet_data: those of record_dataset, and

  image/colorspace         b'RGB'
  image/channels           3
  image/class/synset       the WordNet id, b'n01440764'
  image/class/text         the class in words
  image/object/bbox/xmin   and xmax, ymin, ymax: the boxes, 0.0 to 1.0
  image/object/bbox/label  the label, once per box

Labels are 1 to 1000; 0 is background. image/filename is the file name alone, as
in slim's records. Photos become upright RGB JPEGs, which fixes the known ones
that are CMYK, or PNG with the extension JPEG. Boxes stay as they are annotated,
even where EXIF rotation is applied.

Only the splits whose folders are given are converted; the others stay as they
are. How a conversion that was killed continues: see planned_conversion.
"""

import os
from typing import Optional

from common import shares
from common.errors import InputError
from datasets import imagenet_names
from datasets import manifest as manifests
from datasets.conversion import (
  converted_files,
  imagenet_plan,
  planned_conversion,
)
from datasets.split_files import work_dir

NAME = 'imagenet'


def convert(dataset_dir: str, train_dir: Optional[str] = None,
            validation_dir: Optional[str] = None,
            validation_labels: Optional[str] = None,
            bounding_box_csv: Optional[str] = None,
            num_train_shards: Optional[int] = None,
            num_validation_shards: Optional[int] = None,
            seed: Optional[int] = None, max_pixels: Optional[int] = None,
            max_bad_fraction: float = 0.05,
            shard_of: Optional[shares.Share] = None,
            merge_shards: Optional[int] = None
            ) -> Optional[manifests.Manifest]:
  """Converts ImageNet, or some of its classes and photos.

  An argument that is None keeps its value of the last conversion of the split,
  from the manifest. The defaults below apply if there is none.

  Args:
    dataset_dir: folder that gets the records; created if missing.
    train_dir: folder with one folder of photos per WordNet id; None: the split
      is left as it is, present or not.
    validation_dir: folder of photos, flat or in such folders; None: likewise.
    validation_labels: file with the WordNet id of each validation photo, one
      per line; required if the photos are not in class folders.
    bounding_box_csv: file of lines name,xmin,ymin,xmax,ymax; None: no boxes.
    num_train_shards: record files of train, at most one per photo; None: 1024.
    num_validation_shards: record files of validation; None: 128.
    seed: decides the order; None: 0.
    max_pixels: photos with more pixels are skipped; None: photos.MAX_PIXELS.
    max_bad_fraction: fraction of all photos; if more are unusable, nothing is
      converted.
    shard_of: see planned_conversion.write_share; None: all is converted.
    merge_shards: see planned_conversion.convert.

  Returns:
    The Manifest of all existing splits. Its class_counts are by name, so that
    the two classes called 'crane' (and 'maillot') are counted together. None
    for a share.

  Raises:
    InputError: an input is missing or not as described, train and validation
      are the same folder, or too many photos cannot be used, see
      imagenet_skipped.csv; a share is missing; or dataset_dir cannot be written
      to, another process is writing records there, or it holds records of
      unknown origin.
  """
  given = {}
  for split, folder, num_shards, labels in (
      ('train', train_dir, num_train_shards, None),
      ('validation', validation_dir, num_validation_shards, validation_labels)):
    if folder:
      given[split] = {'folder': folder, 'labels': labels, 'seed': seed,
                      'boxes': bounding_box_csv, 'num_shards': num_shards,
                      'max_pixels': max_pixels}
  if not given:
    raise InputError('imagenet is converted from unpacked photos: give '
                     '--imagenet_train_dir, --imagenet_validation_dir or both')
  former = _load_former(dataset_dir)
  plans = imagenet_plan.make_plans(given, former)
  converted_files.make_folder(dataset_dir)
  if shard_of:
    planned_conversion.write_share(dataset_dir, NAME, plans, former, shard_of)
    return None
  with converted_files.hold(dataset_dir):
    if _load_former(dataset_dir) != former:
      raise InputError('another process has converted imagenet in %s '
                       'meanwhile: run this again' % dataset_dir)
    _check_moving(dataset_dir, plans, former)
    return planned_conversion.convert(
        dataset_dir, NAME, imagenet_names.labels(), plans, former,
        max_bad_fraction, merge_shards)


def _load_former(dataset_dir):
  return planned_conversion.load_former(dataset_dir, NAME,
                                        imagenet_plan.check_former)


def _check_moving(dataset_dir, plans, former):
  """Raises InputError if only some files of another split were moved."""
  if not former or os.path.exists(manifests.path(dataset_dir, NAME)):
    return
  for split, entry in former.splits.items():
    if split not in plans and (planned_conversion.built(
        work_dir(dataset_dir, NAME), split) or not all(
        os.path.exists(os.path.join(dataset_dir, shard))
        for shard in entry['shards'])):
      raise InputError(
          'the last conversion of %s in %s was stopped while its files were '
          'moved: give --imagenet_%s_dir as well' % (split, dataset_dir, split))
