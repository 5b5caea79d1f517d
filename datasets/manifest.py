"""Reads and writes the manifest that describes a converted data set.

`<name>.json` next to the records lists the classes, how many photos each split
holds in which files, and which photo is in which split. If it exists,
`labels.txt` is not read and records are not counted to learn their number.
"""

import json
import os
import re
import reprlib
from typing import Any, Dict, List, NamedTuple, Optional

from common import files
from common.errors import InputError
from datasets.photo_files import folder_layout


class Manifest(NamedTuple):
  """Description of a converted data set.

  Older manifests lack the last ten fields.
  """

  # Name of the data set.
  name: str
  # Class names; the index is the label.
  labels: List[str]
  # {split name: {'size': photos, 'shards': [file name, ...], 'class_counts':
  # {class name: photos}}}; splits without photos are omitted. If known,
  # 'shard_sizes' and 'shard_bytes': photos and bytes of each shard.
  splits: Dict[str, Dict[str, Any]]
  # Decided splits and order.
  seed: int
  # Percent of each class's photos in 'validation'; 0 if that split is
  # ready-made.
  percent_validation: float
  # {'<class>/<file>': split name}; '<split>/<class>/<file>' in a folder of
  # ready-made splits, here and below.
  files: Dict[str, str]
  # [{'file': '<class>/<file>', 'reason': text}].
  skipped: List[Dict[str, str]]
  # The same as percent_validation for 'test'.
  percent_test: float = 0
  # {'<class>/<file>': sha256 of the file, hexadecimal}, of `files`.
  digests: Dict[str, str] = {}
  # [['<class>/<file>', ...], ...], sets of photos with equal pixels. A set in
  # several classes was skipped, see `contradictions`; of a set in several
  # ready-made splits the photos of one split are kept.
  duplicates: List[List[str]] = []
  # {'<class>/<file>': digest of its pixels}, of those of `files` whose record
  # does not hold the file itself: see former_photos.
  pixels: Dict[str, str] = {}
  # Record files per split that were asked for; 0: by size; None: not known.
  num_shards: Optional[int] = None
  # Absolute path of the folder of photos; '' for the one next to the manifest,
  # see `photos_folder`.
  photos_dir: str = ''
  # One of folder_layout.LAYOUTS, as requested.
  photos_layout: str = 'auto'
  # {split: folder in the folder of photos} of the ready-made splits.
  ready_made: Dict[str, str] = {}
  # Whether near duplicates were kept in one split.
  group_duplicates: bool = False
  # [['<class>/<file>', ...], ...], the sets of these; see near_groups.
  near_duplicates: List[List[str]] = []


# Characters that JSON can escape but UTF-8 cannot encode.
_LONE_SURROGATE = re.compile('[\ud800-\udfff]')


def path(dataset_dir: str, name: str) -> str:
  """Returns the path of a data set's manifest."""
  return os.path.join(dataset_dir, name + '.json')


def contradictions(manifest: Manifest) -> List[List[str]]:
  """Returns the duplicates in several classes, which are in no split."""
  return [files for files in manifest.duplicates
          if not any(file in manifest.files for file in files)]


def copies_over_splits(manifest: Manifest) -> List[List[str]]:
  """Returns the duplicates in several ready-made splits."""
  return [files for files in manifest.duplicates
          if 0 < sum(file in manifest.files for file in files) < len(files)]


def photos_folder(dataset_dir: str, name: str,
                  manifest: Optional[Manifest] = None) -> str:
  """Returns the path of a data set's folder of photos.

  Args:
    dataset_dir, name: as for `load`.
    manifest: None if there is none.
  """
  return (manifest and manifest.photos_dir) or os.path.join(dataset_dir, name)


def load(dataset_dir: str, name: str) -> Optional[Manifest]:
  """Returns the Manifest of a data set, or None if there is none.

  Raises:
    InputError: if the file cannot be read as a manifest.
  """
  return load_file(path(dataset_dir, name))


def load_file(manifest_path: str) -> Optional[Manifest]:
  """Loads as `load` does, from the path of a manifest."""
  try:
    with open(manifest_path, encoding='utf-8') as source:
      fields = json.load(source)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except RecursionError:
    raise InputError('cannot read the manifest %s: it is nested too deeply' %
                     manifest_path)
  except (OSError, ValueError) as error:
    raise InputError('cannot read the manifest %s: %s' % (manifest_path, error))
  return _check(fields, manifest_path)


def save(dataset_dir: str, manifest: Manifest) -> None:
  """Writes a Manifest; the file is always either the old or the new one."""
  save_file(path(dataset_dir, manifest.name), manifest)


def save_file(manifest_path: str, manifest: Manifest) -> None:
  """Saves as `save` does, to the path of a manifest."""
  text = json.dumps(manifest._asdict(), indent=2, ensure_ascii=False)
  files.write_text(manifest_path, text + '\n')


def _check(fields, manifest_path):
  """Returns the fields as a Manifest, or raises InputError."""
  def refuse(where, value, expected):
    raise InputError(
        '%s is not a manifest of this project: %s is %s, expected %s; move the '
        'file away and convert the photos again' %
        (manifest_path, where, value, expected))

  def check_table(table, kinds, of_split=''):
    for field, (is_right, expected) in kinds.items():
      if field not in table and field not in _OPTIONAL:
        refuse(repr(field) + of_split, 'missing', expected)
      if field in table and not is_right(table[field]):
        refuse(repr(field) + of_split, reprlib.repr(table[field]), expected)

  if not isinstance(fields, dict):
    refuse('the file', reprlib.repr(fields), 'a table')
  fields = dict(Manifest._field_defaults, **fields)
  check_table(fields, _FIELDS)
  for split, entry in fields['splits'].items():
    of_split = ' of split %r' % split
    check_table(entry, _SPLIT_FIELDS, of_split)
    for field in _OPTIONAL:
      if field in entry and len(entry[field]) != len(entry['shards']):
        refuse(repr(field) + of_split, '%d numbers' % len(entry[field]),
               '%d, one per shard' % len(entry['shards']))
    for label in fields['labels']:
      if label not in entry['class_counts']:
        refuse("'class_counts'%s of label %r" % (of_split, label), 'missing',
               'a whole number')
  return Manifest(**{field: fields[field] for field in _FIELDS})


def _is_text(value):
  """Returns whether a value is text that can be written as UTF-8."""
  return isinstance(value, str) and not _LONE_SURROGATE.search(value)


def _is_count(value):
  return _is_whole(value) and 0 <= value < 2 ** 63


def _is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)


def _is_percent(value):
  return (_is_whole(value) or isinstance(value, float)) and 0 <= value <= 99


def _is_file_name(value):
  return (_is_text(value) and value not in ('', '.', '..') and
          not re.search('[/\0]', value))


def _list_of(is_right, least=0):
  """Returns a function: is a value a list of at least `least` right items?"""
  return lambda value: (isinstance(value, list) and len(value) >= least and
                        all(map(is_right, value)))


def _table_of(is_right):
  """Returns a function: is a value a table of right values?"""
  return lambda value: (isinstance(value, dict) and all(map(_is_text, value))
                        and all(map(is_right, value.values())))


def _is_skipped_entry(value):
  return (isinstance(value, dict) and _is_text(value.get('file')) and
          _is_text(value.get('reason')))


# {field: (function: is its value right?, what is expected)}.
_FIELDS = {
    'name': (_is_text, 'text'),
    'labels': (_list_of(_is_text, 1), 'a list of class names'),
    'splits': (_table_of(lambda value: isinstance(value, dict)),
               'a table of tables'),
    'seed': (_is_whole, 'a whole number'),
    'percent_validation': (_is_percent, 'a number from 0 to 99'),
    'files': (_table_of(_is_text), 'a table of text'),
    'skipped': (_list_of(_is_skipped_entry), 'a list of file and reason'),
    'percent_test': (_is_percent, 'a number from 0 to 99'),
    'digests': (_table_of(_is_text), 'a table of text'),
    'duplicates': (_list_of(_list_of(_is_text, 1)),
                   'a list of lists of files'),
    'pixels': (_table_of(_is_text), 'a table of text'),
    'num_shards': (lambda value: value is None or _is_count(value),
                   'a whole number of at least 0 or null'),
    'photos_dir': (_is_text, 'text'),
    'photos_layout': (lambda value: value in folder_layout.LAYOUTS,
                      'one of ' + ', '.join(folder_layout.LAYOUTS)),
    'ready_made': (_table_of(_is_text), 'a table of text'),
    'group_duplicates': (lambda value: isinstance(value, bool),
                         'true or false'),
    'near_duplicates': (_list_of(_list_of(_is_text, 1)),
                        'a list of lists of files'),
}
_SPLIT_FIELDS = {
    'size': (_is_count, 'a whole number of at least 0'),
    'shards': (_list_of(_is_file_name, 1), 'a list of file names'),
    'class_counts': (_table_of(_is_count), 'a table of whole numbers'),
    'shard_sizes': (_list_of(_is_count), 'a list of whole numbers'),
    'shard_bytes': (_list_of(_is_count), 'a list of whole numbers'),
}
_OPTIONAL = ('shard_sizes', 'shard_bytes')
