"""The manifest of a converted data set: the one truth about it.

`<name>.json` beside the records says what the classes are, how many photos each
split holds in which files, and which photo went where. Where it exists,
`labels.txt` and counting are not looked at.
"""

import collections
import json
import os

from errors import InputError

Manifest = collections.namedtuple(
    'Manifest', 'name labels splits seed percent_validation files skipped '
    'percent_test digests duplicates', defaults=(0, {}, []))
Manifest.__doc__ = """What a converted data set holds.

name: name of the data set.
labels: list of class names; the index is the label.
splits: {split name: {'size': photos, 'shards': [file name, ...],
  'class_counts': {class name: photos}}}; splits without photos are left out.
seed: integer that decided split and order.
percent_validation: number, percent of each class's photos in 'validation'.
files: {'<class>/<file>': split name}.
skipped: [{'file': '<class>/<file>', 'reason': text}].
percent_test: number, percent of each class's photos in 'test'.
digests: {'<class>/<file>': sha256 of the file, hexadecimal}, of `files`.
duplicates: [['<class>/<file>', ...], ...], sets of photos with equal pixels. A
  set over several classes was skipped, see `contradictions`.

Manifests written before the last three existed lack them.
"""

_KINDS = {'name': str, 'labels': list, 'splits': dict, 'seed': int,
          'percent_validation': (int, float), 'files': dict, 'skipped': list,
          'percent_test': (int, float), 'digests': dict, 'duplicates': list}


_KIND_NAMES = {str: 'text', list: 'list', dict: 'table', int: 'whole number'}


def path(dataset_dir, name):
  """Returns the path of a data set's manifest."""
  return os.path.join(dataset_dir, name + '.json')


def contradictions(manifest):
  """Returns the duplicates over several classes, which are in no split."""
  return [files for files in manifest.duplicates
          if files[0] not in manifest.files]


def load(dataset_dir, name):
  """Returns the Manifest of a data set, or None where there is none.

  Raises:
    InputError: if the file cannot be read as a manifest.
  """
  return load_file(path(dataset_dir, name))


def load_file(manifest_path):
  """Does what `load` does, for the path of a manifest."""
  try:
    with open(manifest_path, encoding='utf-8') as source:
      fields = json.load(source)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError) as error:
    raise InputError('cannot read the manifest %s: %s' % (manifest_path, error))
  return _check(fields, manifest_path)


def save(dataset_dir, manifest):
  """Writes a Manifest; the file is either the old one or the new one."""
  manifest_path = path(dataset_dir, manifest.name)
  text = json.dumps(manifest._asdict(), indent=2, ensure_ascii=False)
  write_text(manifest_path, text + '\n')


def write_text(file_path, text):
  """Writes a UTF-8 file aside and renames it, so that it is never half there.

  Args:
    file_path: where it goes; the folder must exist.
    text: its content.
  """
  aside = file_path + '.part'
  with open(aside, 'w', encoding='utf-8', newline='\n') as target:
    target.write(text)
    target.flush()
    os.fsync(target.fileno())
  os.replace(aside, file_path)


def _check(fields, manifest_path):
  """Returns the fields as a Manifest, or raises InputError."""
  if isinstance(fields, dict):
    fields = dict(Manifest._field_defaults, **fields)
  for field, kind in _KINDS.items():
    if not isinstance(fields, dict) or not isinstance(fields.get(field), kind):
      raise InputError(
          '%s is not a manifest of this project: no %r that is a %s; move the '
          'file away and convert the photos again' %
          (manifest_path, field, _KIND_NAMES.get(kind, 'number')))
  for split, entry in fields['splits'].items():
    if not isinstance(entry, dict) or not (
        {'size', 'shards', 'class_counts'} <= set(entry)):
      raise InputError('%s: split %r lacks size, shards or class_counts' %
                       (manifest_path, split))
  for field in ('files', 'digests'):
    for file, value in fields[field].items():
      if not isinstance(value, str):
        raise InputError('%s: %r in %r is %r, accepted is text' %
                         (manifest_path, file, field, value))
  return Manifest(**{field: fields[field] for field in _KINDS})
