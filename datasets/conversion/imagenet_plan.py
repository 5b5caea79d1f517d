"""Plans of an ImageNet conversion: which photo goes to which record file.

A plan is for one split and depends on the names of its photos and its settings
only. Settings that are not given are those of the last conversion, read from
its manifest.
"""

import functools
import hashlib
import os
import random
from typing import Any, Dict, List, Optional, Tuple

from common.errors import InputError
from compat import tf
from datasets import imagenet_names, record_dataset
from datasets.conversion import imagenet_source, planned_conversion
from datasets.conversion.planned_conversion import Plan
from datasets.manifest import Manifest
from datasets.photo_files import photos

SPLITS = ('train', 'validation')

# Names of flags, for messages.
_FOLDER_FLAG = '--imagenet_%s_dir'
_FILE_FLAGS = {'labels': '--imagenet_validation_labels',
               'boxes': '--imagenet_bounding_boxes'}

# {setting: (types of its value, value in a first conversion)}. In the manifest
# and in arguments `given`:
#   folder      of the photos
#   labels      file of the classes of photos without class folders, or None
#   boxes       file of the bounding boxes, or None
#   num_shards  record files, at most one per photo
#   seed        integer, decides the order
#   max_pixels  photos with more are skipped
_SETTINGS: Dict[str, Tuple[Any, Any]] = {
    'folder': (str, None),
    'labels': ((str, type(None)), None),
    'boxes': ((str, type(None)), None),
    'num_shards': (int, {'train': 1024, 'validation': 128}),
    'seed': (int, 0),
    'max_pixels': (int, photos.MAX_PIXELS),
}

# Settings that are also kept from another split's last conversion.
_SHARED = ('boxes', 'seed', 'max_pixels')


def make_example(
    photo: photos.Photo, row: imagenet_source.SourcePhoto,
    boxes_of: Dict[str, List[imagenet_source.Box]]) -> tf.train.Example:
  """Returns the tf.train.Example of a photo.

  Args:
    photo: the upright JPEG.
    row: its file and class.
    boxes_of: {file name: its bounding boxes}.
  """
  synset = imagenet_names.synsets()[row.label - 1]
  boxes = boxes_of.get(os.path.basename(row.path), [])
  extra = {
      'image/colorspace': record_dataset.bytes_feature([b'RGB']),
      'image/channels': record_dataset.int64_feature([3]),
      'image/class/synset': record_dataset.bytes_feature(
          [synset.wordnet_id.encode('ascii')]),
      'image/class/text': record_dataset.bytes_feature(
          [synset.name.replace('_', ' ').encode('utf-8')]),
      'image/object/bbox/label': record_dataset.int64_feature(
          [row.label] * len(boxes)),
  }
  for side in imagenet_source.Box._fields:
    extra['image/object/bbox/' + side] = record_dataset.float_feature(
        [getattr(box, side) for box in boxes])
  return record_dataset.make_example(
      photo.encoded, photo.height, photo.width, row.label,
      os.path.basename(row.path), image_format=b'JPEG', extra=extra)


def check_former(former: Manifest, path: str) -> None:
  """Raises InputError if a manifest was not written by convert_imagenet.

  It may be that of a folder of photos called imagenet, whose records must not
  be replaced by others.

  Args:
    former: as loaded.
    path: its path, for the message.
  """
  if former.labels != imagenet_names.labels() or former.files:
    raise InputError(
        '%s describes other photos than ILSVRC 2012, of %d classes: move it '
        'and its record files away, or use another folder' %
        (path, len(former.labels)))
  for split, entry in former.splits.items():
    settings = entry.get('settings')
    if not (split in SPLITS and planned_conversion.is_planned(entry) and
            isinstance(settings, dict) and
            all(isinstance(settings.get(key), types)
                for key, (types, _) in _SETTINGS.items())):
      raise InputError(
          '%s does not say how split %r was made: move it and its record files '
          'away and convert again, or use another folder' % (path, split))


def make_plans(given: Dict[str, Dict[str, Any]],
               former: Optional[Manifest]) -> Dict[str, Plan]:
  """Makes the plans of the requested splits.

  Args:
    given: {split: {setting: value}}; the value is None if it is not given.
      'folder' must be given.
    former: of the last conversion, if there was one.

  Returns:
    {split: Plan}.

  Raises:
    InputError: an input is missing or not as described.
  """
  settings = {split: _complete(split, of_split, former)
              for split, of_split in given.items()}
  _check_folders(settings, former)
  plans = {}
  boxes: Dict[Optional[str], Dict[str, list]] = {None: {}}
  for split, of_split in settings.items():
    rows = _call_with_hint('labels', given[split], of_split, _list_photos,
                           split, of_split)
    if of_split['boxes'] not in boxes:
      boxes[of_split['boxes']] = _call_with_hint(
          'boxes', given[split], of_split, imagenet_source.read_boxes,
          of_split['boxes'])
    of_photos = boxes[of_split['boxes']]
    shards = _share_out(split, rows, of_split['num_shards'], of_split['seed'])
    plans[split] = Plan(
        shards, functools.partial(make_example, boxes_of=of_photos), of_split,
        _digest(shards, of_photos, of_split['max_pixels']))
  return plans


def _complete(split, given, former):
  """Returns {setting: value}: the given, else the former, else the default."""
  settings = {key: first for key, (_, first) in _SETTINGS.items()}
  settings['num_shards'] = settings['num_shards'][split]
  formers = former.splits if former else {}
  for other, entry in formers.items():
    if other != split:
      settings.update({key: entry['settings'][key] for key in _SHARED})
  if split in formers:
    settings.update(formers[split]['settings'])
  for key, value in given.items():
    if value is not None:
      settings[key] = _real_path(value) if isinstance(value, str) else value
  return settings


def _real_path(path):
  """Returns the real path, or raises InputError if it is not UTF-8."""
  real = os.path.realpath(path)
  try:
    real.encode('utf-8')
  except UnicodeEncodeError:
    raise InputError('the path %r is not UTF-8' % real)
  return real


def _check_folders(settings, former):
  """Raises InputError if two splits would be made of the same photos."""
  folders = {split: entry['settings']['folder']
             for split, entry in (former.splits if former else {}).items()}
  folders.update({split: of_split['folder']
                  for split, of_split in settings.items()})
  if len(set(folders.values())) < len(folders):
    before = ['%s was made from it before; set another with %s' %
              (split, _FOLDER_FLAG % split)
              for split in folders if split not in settings]
    raise InputError(
        '%s is the folder of train and of validation%s; they must be two '
        'different folders' %
        (folders['train'], ''.join(' (%s)' % text for text in before)))


def _list_photos(split, settings):
  if split == 'validation':
    return imagenet_source.list_validation(settings['folder'],
                                           settings['labels'])
  return imagenet_source.list_classes(settings['folder'])


def _call_with_hint(key, given, settings, function, *args):
  """Calls a function; an error about a kept file also names the flag for it."""
  try:
    return function(*args)
  except InputError as error:
    if given.get(key) is None and settings[key] and settings[key] in str(error):
      raise InputError('%s; this file is that of the last conversion, set '
                       'another with %s' % (error, _FILE_FLAGS[key]))
    raise


def _share_out(split, rows, num_shards, seed):
  """Returns {shard: list of SourcePhoto}, shuffled over all files."""
  count = min(num_shards, len(rows))
  if not 1 <= count <= 99999:
    raise InputError('%d record files of %s, expected 1 to 99999' %
                     (num_shards, split))
  shuffled = list(rows)
  random.Random(seed).shuffle(shuffled)
  return {'%s-%05d-of-%05d' % (split, index, count):
          shuffled[index * len(shuffled) // count:
                   (index + 1) * len(shuffled) // count]
          for index in range(count)}


def _digest(shards, boxes, max_pixels):
  digest = hashlib.sha256(('%d\n' % max_pixels).encode('ascii'))
  for shard, rows in shards.items():
    digest.update(('%s\n' % shard).encode('ascii'))
    for row in rows:
      name = os.path.basename(row.path)
      digest.update(repr((name, row.label, list(map(
          tuple, boxes.get(name, []))))).encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()
