"""Converts Visual Wake Words: photos of COCO 2014 with a person, and without.

Chowdhery et al.: Visual Wake Words Dataset, 2019, arXiv 1906.05721. A photo has
label 1 if it has an object of one class of COCO, larger than a part of the
photo, else 0.

  convert('data')

downloads COCO to data/coco_dataset/, unpacks it there as slim's script does,
and writes data/train.record-00000-of-00100 and so on, data/val.record-...,
with slim's keys: those of record_dataset, and

  image/source_id          the id in COCO
  image/key/sha256         of the JPEG, hexadecimal
  image/object/bbox/xmin   and xmax, ymin, ymax: the boxes of these objects, 0.0
                           to 1.0
  image/object/area        their areas in pixels

image/filename is the file name alone. Photos become upright RGB JPEGs. How a
conversion that was killed continues: see planned_conversion.
"""

import collections
import hashlib
import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional

from common.errors import InputError, unknown_name
from compat import tf
from datasets import dataset_utils, record_dataset
from datasets import manifest as manifests
from datasets.conversion import planned_conversion
from datasets.photo_files import photos
from datasets.public_sets import WAKEWORDS_LABELS
from downloads import marks

NAME = 'visualwakewords'

# slim's defaults.
CLASS = WAKEWORDS_LABELS[1]
AREA = 0.005
COCO_DIRNAME = 'coco_dataset'
TRAIN_URL = 'http://images.cocodataset.org/zips/train2014.zip'
VALIDATION_URL = 'http://images.cocodataset.org/zips/val2014.zip'
ANNOTATIONS_URL = ('http://images.cocodataset.org/annotations/'
                   'annotations_trainval2014.zip')

# {split: (folder of its photos in COCO, record files)}, as in slim.
_SPLITS = {'train': ('train2014', 100), 'val': ('val2014', 10)}

# A plain name that UTF-8 can encode.
_FILE_NAME = re.compile('[^/\0\ud800-\udfff]+')


class CocoObject(NamedTuple):
  """An object of the class; fractions of the photo's width and height."""

  xmin: float
  ymin: float
  xmax: float
  ymax: float
  # In pixels.
  area: float


class CocoPhoto(NamedTuple):
  """A photo of COCO."""

  # Path of the file.
  path: str
  # 1 if it has objects, else 0.
  label: int
  # In COCO.
  id: int
  # Those of the class that are large enough.
  objects: List[CocoObject]


def convert(dataset_dir: str,
            foreground_class_of_interest: Optional[str] = None,
            small_object_area_threshold: Optional[float] = None,
            coco_dirname: str = COCO_DIRNAME,
            coco_train_url: Optional[str] = None,
            coco_validation_url: Optional[str] = None,
            coco_annotations_url: Optional[str] = None,
            max_pixels: int = photos.MAX_PIXELS,
            max_bad_fraction: float = 0.05) -> manifests.Manifest:
  """Downloads what is missing of COCO, and writes the records.

  Args:
    dataset_dir: folder of the records; it exists and is locked, see
      converted_files.hold.
    foreground_class_of_interest: name of one of COCO's classes; None: as in
      the last conversion, else CLASS.
    small_object_area_threshold: fraction of a photo's area that an object must
      exceed; None: as in the last conversion, else AREA.
    coco_dirname: folder of COCO in dataset_dir, or an absolute path. Archives
      and unpacked folders in it are used as they are.
    coco_train_url, coco_validation_url, coco_annotations_url: addresses of the
      archives; None: those above.
    max_pixels: photos with more pixels are skipped.
    max_bad_fraction: fraction of all photos; if more are unusable, nothing is
      converted.

  Returns:
    The Manifest.

  Raises:
    InputError: an archive can neither be found nor downloaded, or is damaged;
      the annotations are not COCO's, or have no such class; or what
      planned_conversion.convert raises.
  """
  coco_dir = os.path.join(dataset_dir, coco_dirname)
  former = planned_conversion.load_former(dataset_dir, NAME, _check_former)
  settings: Dict[str, Any] = {
      'foreground_class_of_interest': CLASS,
      'small_object_area_threshold': AREA}
  for facts in former.splits.values() if former else ():
    settings.update({key: facts['settings'][key] for key in settings})
  if foreground_class_of_interest is not None:
    settings['foreground_class_of_interest'] = foreground_class_of_interest
  if small_object_area_threshold is not None:
    settings['small_object_area_threshold'] = small_object_area_threshold
  class_name, threshold = settings.values()
  labels = [WAKEWORDS_LABELS[0], class_name]
  settings['max_pixels'] = max_pixels
  archives = [_provide(coco_annotations_url or ANNOTATIONS_URL, coco_dir,
                       *map(_annotations_of, _SPLITS))]
  plans = {}
  for split, (folder, num_shards) in _SPLITS.items():  # Before the large ones.
    rows = read_annotations(
        os.path.join(coco_dir, _annotations_of(split)),
        os.path.join(coco_dir, folder), class_name, threshold)
    plans[split] = _plan(split, rows, num_shards, settings)
  urls = (coco_train_url or TRAIN_URL, coco_validation_url or VALIDATION_URL)
  for url, (folder, _) in zip(urls, _SPLITS.values()):
    archives.append(_provide(url, coco_dir, folder))
  manifest = planned_conversion.convert(dataset_dir, NAME, labels, plans,
                                        former, max_bad_fraction)
  for path in archives:
    marks.remove_downloaded(path)
  return manifest


def _annotations_of(split):
  """Returns the path of a split's annotations below COCO's folder."""
  return os.path.join('annotations', 'instances_%s.json' % _SPLITS[split][0])


def _check_former(former, path):
  """Raises InputError if a manifest was not written by this module."""
  if former.files or not set(former.splits) <= set(_SPLITS) or not all(
      map(planned_conversion.is_planned, former.splits.values())):
    raise InputError('%s does not describe %s: move it and its record files '
                     'away, or use another folder' % (path, NAME))


def _provide(url, coco_dir, *contents):
  """Downloads and unpacks an archive, unless only its contents exist.

  An archive that exists may not have been unpacked completely.

  Args:
    url: its address.
    coco_dir: folder of the archive.
    *contents: paths below coco_dir that it must give.

  Returns:
    The path of the archive, which may be missing.
  """
  archive = os.path.join(coco_dir, url.rpartition('/')[2])
  paths = [os.path.join(coco_dir, name) for name in contents]
  if os.path.lexists(archive) or not all(map(os.path.exists, paths)):
    dataset_utils.download_and_uncompress_zipfile(url, coco_dir)
  for path in paths:
    if not os.path.exists(path):
      raise InputError('%s does not give %s' % (archive, path))
  return archive


def read_annotations(path: str, photos_dir: str, class_name: str,
                     threshold: float) -> List[CocoPhoto]:
  """Reads the photos and the objects of one class of an annotation file.

  Args:
    path: instances_*.json of COCO.
    photos_dir: folder of the photos.
    class_name: the class, as in 'person'.
    threshold: fraction of a photo's area that an object must exceed.

  Returns:
    List of CocoPhoto, in the order of the file.

  Raises:
    InputError: the file cannot be read, is not as COCO's, or has no such class.
  """
  tf.logging.info('Reading %s', path)
  try:
    with open(path, encoding='utf-8') as source:
      # Without the outlines, which are most of the file: a GB of memory less.
      content = json.load(source, object_hook=_without_outline)
    categories = {row['name']: row['id'] for row in content['categories']}
    if class_name not in categories:
      raise unknown_name('class of COCO', class_name, categories)
    return _photos(content, photos_dir, categories[class_name], threshold)
  except InputError:  # It is a ValueError itself.
    raise
  except OSError as error:
    raise InputError('cannot read %s: %s' % (path, error.strerror))
  except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError,
          OverflowError, RecursionError) as error:
    raise InputError('%s is not a file of annotations as of COCO: %s: %s' %
                     (path, type(error).__name__, error))


def _without_outline(fields):
  fields.pop('segmentation', None)
  return fields


def _photos(content, photos_dir, category, threshold):
  """Returns the list of CocoPhoto; as `read_annotations`, from the content."""
  annotations = collections.defaultdict(list)
  for row in content['annotations']:
    if row['category_id'] == category:
      annotations[row['image_id']].append(row)
  result = []
  for image in content['images']:
    name, width, height = image['file_name'], image['width'], image['height']
    if not _FILE_NAME.fullmatch(name):
      raise ValueError('%r is not a file name' % name)
    if not isinstance(image['id'], int):
      raise ValueError('%r is not an id' % image['id'])
    objects = []
    for row in annotations[image['id']]:
      if row['area'] / (width * height) > threshold:
        left, top, box_width, box_height = row['bbox']
        objects.append(CocoObject(
            left / width, top / height, (left + box_width) / width,
            (top + box_height) / height, float(row['area'])))
    result.append(CocoPhoto(os.path.join(photos_dir, name), int(bool(objects)),
                            image['id'], objects))
  if not result:
    raise ValueError('it lists no photo')
  return result


def _plan(split, photos_of_split, num_shards, settings):
  """Returns the Plan of a split: photo i goes to file i % num_shards."""
  count = min(num_shards, len(photos_of_split))
  digest = hashlib.sha256(repr((count, settings['max_pixels'])).encode('ascii'))
  for row in photos_of_split:
    digest.update(repr((os.path.basename(row.path), *row[1:])).encode('utf-8'))
  return planned_conversion.Plan(
      {'%s.record-%05d-of-%05d' % (split, index, count):
       photos_of_split[index::count] for index in range(count)},
      make_example, settings, digest.hexdigest())


def make_example(photo: photos.Photo, row: CocoPhoto) -> tf.train.Example:
  """Returns the tf.train.Example of a photo.

  Args:
    photo: the upright JPEG.
    row: its annotations.
  """
  extra = {
      'image/source_id': record_dataset.bytes_feature(
          [str(row.id).encode('utf-8')]),
      'image/key/sha256': record_dataset.bytes_feature(
          [hashlib.sha256(photo.encoded).hexdigest().encode('ascii')]),
  }
  for field in CocoObject._fields:
    key = 'image/object/' + (field if field == 'area' else 'bbox/' + field)
    extra[key] = record_dataset.float_feature(
        [getattr(item, field) for item in row.objects])
  return record_dataset.make_example(
      photo.encoded, photo.height, photo.width, row.label,
      os.path.basename(row.path), image_format=b'jpeg', extra=extra)
