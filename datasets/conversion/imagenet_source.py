"""Reads photos, classes and boxes of the unpacked folders of ILSVRC 2012.

  train/n01440764/n01440764_18.JPEG            one folder per class
  validation/ILSVRC2012_val_00000001.JPEG      flat, with a file of WordNet ids,
                                               one line per photo
  validation/n01440764/ILSVRC2012_val_...      or sorted into folders
"""

import collections
import csv
import os
import re
from typing import Dict, List, NamedTuple, Optional

from common.errors import InputError
from datasets import imagenet_names
from datasets.photo_files import side_files

# The number in a validation photo's name is its line in the file of classes.
_VALIDATION_NAME = re.compile(r'.*_val_(\d{8})\.[A-Za-z]+')

_WORDNET_ID = re.compile(r'n\d{8}')


class SourcePhoto(NamedTuple):
  """A photo file and its class."""

  # Path of the file.
  path: str
  # 1 to 1000.
  label: int


class Box(NamedTuple):
  """A bounding box; fractions of width and height, 0.0 to 1.0."""

  xmin: float
  ymin: float
  xmax: float
  ymax: float


def list_classes(folder: str) -> List[SourcePhoto]:
  """Lists the photos in a folder with one folder per class.

  Args:
    folder: its folders are named by WordNet ids. Not all 1000 are needed.

  Returns:
    List of SourcePhoto, sorted by path.

  Raises:
    InputError: if the folder is missing, has no class folder or a folder with
      another name, or a class folder is empty.
  """
  labels = _labels()
  class_photos = []
  for wordnet_id in _list(folder)[0]:
    if wordnet_id not in labels:
      raise InputError('%s is not one of the 1000 classes of ILSVRC 2012; '
                       'expected folders such as %s' %
                       (os.path.join(folder, wordnet_id), min(labels)))
    class_folder = os.path.join(folder, wordnet_id)
    names = _list(class_folder)[1]
    if not names:
      raise InputError('%s holds no photo' % class_folder)
    class_photos += [
        SourcePhoto(os.path.join(class_folder, name), labels[wordnet_id])
        for name in names]
  if not class_photos:
    raise InputError('%s holds no class folder: expected folders such as %s' %
                     (folder, min(labels)))
  return class_photos


def list_validation(folder: str,
                    labels_path: Optional[str] = None) -> List[SourcePhoto]:
  """Lists the validation photos, which are in one folder or in class folders.

  Args:
    folder: folder of the photos.
    labels_path: file of their WordNet ids, one line per photo in the order of
      their names; only needed if there are no class folders.

  Returns:
    List of SourcePhoto, sorted by path.

  Raises:
    InputError: as list_classes; or if photos without class folders have no file
      of classes, or one that does not match.
  """
  folders, names = _list(folder)
  if folders and names:
    raise InputError('%s holds both class folders and photos, the first is %s; '
                     'only one of them is allowed' % (folder, names[0]))
  if folders:
    return list_classes(folder)
  if not names:
    raise InputError('%s holds no photo' % folder)
  if not labels_path:
    raise InputError(
        'the photos in %s are not in class folders: a file with the WordNet id '
        'of each, one line per photo, is needed (--imagenet_validation_labels)'
        % folder)
  wordnet_ids = _read_wordnet_ids(labels_path)
  labels = _labels()
  return [SourcePhoto(os.path.join(folder, name), labels[wordnet_ids[line]])
          for name, line in zip(names, _lines_of(names, wordnet_ids,
                                                 folder, labels_path))]


def read_boxes(csv_path: str) -> Dict[str, List[Box]]:
  """Reads the bounding boxes.

  Args:
    csv_path: file of lines `n00007846_64193.JPEG,xmin,ymin,xmax,ymax`, as
      fractions of width and height.

  Returns:
    {file name: list of Box}.

  Raises:
    InputError: if the file cannot be read, or a line has another form.
  """
  boxes = collections.defaultdict(list)
  try:
    with open(csv_path, encoding='utf-8-sig', newline='') as source:
      for number, row in enumerate(csv.reader(source), 1):
        if row:
          boxes[row[0]].append(_parse_box(row, csv_path, number))
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError('cannot read the boxes %s: %s' % (csv_path, error))
  return dict(boxes)


def _parse_box(row, csv_path, number):
  try:
    box = Box(*map(float, row[1:]))
  except (TypeError, ValueError):
    box = None
  if box is None or not (0 <= box.xmin <= box.xmax <= 1 and
                         0 <= box.ymin <= box.ymax <= 1):
    raise InputError(
        '%s, line %d: got %r, expected file,xmin,ymin,xmax,ymax with '
        'numbers from 0 to 1' % (csv_path, number, ','.join(row)))
  return box


def _labels():
  return {synset.wordnet_id: synset.label
          for synset in imagenet_names.synsets()}


def _list(folder):
  """Returns (folders, files) in a folder, sorted, without hidden ones.

  The .tar archives of the folders, which may still be there, are ignored.
  """
  folders, files = [], []
  try:
    with os.scandir(folder) as entries:
      for entry in entries:
        if entry.name.endswith('.tar') or side_files.reason(entry.name,
                                                             entry.is_dir()):
          continue
        try:
          entry.name.encode('utf-8')
        except UnicodeEncodeError:
          raise InputError('the name of %r in %s is not UTF-8' %
                           (entry.name, folder))
        (folders if entry.is_dir() else files).append(entry.name)
  except OSError as error:
    raise InputError('cannot list %s: %s' % (folder, error.strerror))
  return sorted(folders), sorted(files)


def _read_wordnet_ids(labels_path):
  try:
    with open(labels_path, encoding='utf-8-sig') as source:
      lines = [line.strip() for line in source.read().rstrip().split('\n')]
  except (OSError, UnicodeDecodeError) as error:
    raise InputError('cannot read the classes %s: %s' % (labels_path, error))
  labels = _labels()
  for number, line in enumerate(lines, 1):
    if line not in labels:
      hint = ''
      if not _WORDNET_ID.fullmatch(line):
        hint = ' (the numbers of the development kit have another order)'
      raise InputError('%s, line %d: got %r, expected the WordNet id of one of '
                       'the 1000 classes%s' % (labels_path, number, line, hint))
  return lines


def _lines_of(names, wordnet_ids, folder, labels_path):
  """Returns the index of each photo's line in the file of classes."""
  matches = [_VALIDATION_NAME.fullmatch(name) for name in names]
  if all(matches):  # Photos may be missing then.
    lines = [int(match.group(1)) - 1 for match in matches]
  else:
    lines = list(range(len(names)))
    if len(names) != len(wordnet_ids):
      raise InputError('%s holds %d photos, and %s has %d lines' %
                       (folder, len(names), labels_path, len(wordnet_ids)))
  for name, line in zip(names, lines):
    if not 0 <= line < len(wordnet_ids):
      raise InputError('%s has %d lines, none for %s' %
                       (labels_path, len(wordnet_ids), name))
  return lines
