"""Carries out what a person has decided about photos: moves their files.

The choices are a CSV file with the columns of COLUMNS:

- file: path of the photo in the folder of photos, '<class>/<file>'
- label: its class; if it is not empty it is checked
- action: 'move' to the class new_label; 'drop', moved to the hidden folder
  DROPPED, which conversions ignore; 'keep', the label is right; or empty
- new_label: the class to move to
- new_file: path to move to, as undo files have it; the column may be missing,
  and if it is empty, the name is kept, with a number if it is taken

All rows are checked before the first file is moved. The undo file, which is
also a file of choices, is written first: from it a run that was killed knows
what is done, and it undoes the rest.
"""

import contextlib
import csv
import hashlib
import io
import os
from typing import Any, Dict, List, NamedTuple, Set, Tuple

from common import files
from common.errors import InputError, unknown_name
from datasets import manifest as manifests
from datasets.conversion import converted_files
from datasets.photo_files import photo_folder

COLUMNS = ('file', 'label', 'action', 'new_label', 'new_file')
MOVE, DROP, KEEP = 'move', 'drop', 'keep'
ACTIONS = (MOVE, DROP, KEEP, '')

# In the folder of photos. Its name begins with a dot: side_files.
DROPPED = '.dropped'

# Rows of a file of choices: far more than a person decides.
_MOST_BYTES = 64 * 1024 * 1024


class Move(NamedTuple):
  """A photo to move; paths are relative to the folder of photos."""

  source: str
  target: str
  # Classes; '' for a dropped photo.
  label: str
  new_label: str


class Applied(NamedTuple):
  """What was done."""

  # Photos that were moved to another class, or dropped, now.
  moved: int
  dropped: int
  # Photos that an earlier run of the same choices had moved.
  done_before: int
  kept: int
  # Path of the undo file; '' if no photo was to be moved.
  undo: str


class _Folder:
  """The folder of photos: its classes and their folders."""

  def __init__(self, path: str, listing: photo_folder.Listing):
    self.path = path
    self.classes = listing.classes
    self.class_of = {entry.file: entry.class_name for entry in listing.files}
    # {(folder of the ready-made split or '', class): folder}.
    self.folder_of: Dict[Tuple[str, str], str] = {}
    for entry in listing.files:
      parent = os.path.dirname(entry.file)
      self.folder_of[os.path.dirname(parent), entry.class_name] = parent

  def full(self, file: str) -> str:
    return os.path.join(self.path, file)

  def exists(self, file: str) -> bool:
    return os.path.lexists(self.full(file))


def apply(choices: str, dataset_dir: str, name: str) -> Applied:
  """Moves the photos of a data set as a file of choices says.

  Args:
    choices: path of the CSV file.
    dataset_dir: folder of the manifest.
    name: of the data set.

  Raises:
    InputError: the file, or one of its rows, cannot be carried out. No photo
      has been moved then, unless the message says so.
  """
  data = files.read(choices, 'file of choices')
  rows = read_rows(choices, data)
  manifest = manifests.load(dataset_dir, name)
  path = manifests.photos_folder(dataset_dir, name, manifest)
  if manifest is None or not manifest.files:
    raise InputError('%s: no photos of %r were converted there' % (
        dataset_dir, name))
  photo_folder.check_is_folder(path)
  with converted_files.hold_data_set(dataset_dir, name):
    folder = _Folder(path, photo_folder.list_photos(path,
                                                    manifest.photos_layout))
    undo = '%s_undo_%s.csv' % (os.path.splitext(choices)[0],
                               hashlib.sha256(data).hexdigest()[:8])
    planned = _read_undo(undo)
    moves, kept = _plan(choices, rows, folder, planned)
    to_do = [move for move in moves if folder.exists(move.source)]
    _check_splits_stay(choices, folder, manifest, to_do)
    if kept:
      _save_kept(dataset_dir, name, kept)
    if moves and not planned:
      _write_undo(undo, moves)
    _move(folder, to_do, undo)
  dropped = sum(not move.new_label for move in to_do)
  return Applied(len(to_do) - dropped, dropped, len(moves) - len(to_do),
                 len(kept), undo if moves else '')


def read_kept(dataset_dir: str, name: str) -> Set[Tuple[str, str]]:
  """Returns the (file, label) of photos whose labels a person found right."""
  data = files.read_if_exists(_kept_path(dataset_dir, name))
  if data is None:
    return set()
  return {(row['file'], row['label'])
          for _, row in read_rows(_kept_path(dataset_dir, name), data)}


def to_csv(rows: Any) -> str:
  """Returns the text of a file of choices.

  Args:
    rows: iterable of the values of COLUMNS.
  """
  text = io.StringIO()
  text.write(','.join(COLUMNS) + '\n')
  csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator='\n').writerows(rows)
  return text.getvalue()


def _kept_path(dataset_dir, name):
  return os.path.join(dataset_dir, name + '_kept_labels.csv')


def _save_kept(dataset_dir, name, kept):
  together = sorted(read_kept(dataset_dir, name) | set(kept))
  files.write_text(_kept_path(dataset_dir, name), to_csv(
      (file, label, KEEP, '', '') for file, label in together))


def keep_decided(path: str) -> None:
  """Renames a CSV file to PATH.old if actions were written into it."""
  data = files.read_if_exists(path)
  with contextlib.suppress(InputError):
    if data and any(row['action'] for _, row in read_rows(path, data)):
      os.replace(path, path + '.old')


def read_rows(path: str, data: bytes) -> List[Tuple[int, Dict[str, str]]]:
  """Returns the rows of a file of choices.

  Args:
    path: of the file, for messages.
    data: its bytes.

  Returns:
    List of (number of the line, {column: text}).

  Raises:
    InputError: it is not a file of choices.
  """
  if len(data) > _MOST_BYTES:
    raise InputError('%s has %d bytes, at most %d are accepted' % (
        path, len(data), _MOST_BYTES))
  try:
    text = data.decode('utf-8-sig')
    reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
    rows = [(reader.line_num, dict(row)) for row in reader]
  except (UnicodeDecodeError, csv.Error) as error:
    raise InputError('%s is not a CSV file in UTF-8: %s' % (path, error))
  missing = set(COLUMNS[:-1]) - set(reader.fieldnames or ())
  if missing:
    raise InputError('%s: the first line lacks %s; expected %s' % (
        path, ', '.join(sorted(missing)), ','.join(COLUMNS)))
  for line, row in rows:
    if None in row or None in [row[name] for name in COLUMNS[:-1]]:
      raise InputError('%s, line %d: expected %d values' % (
          path, line, len(reader.fieldnames or ())))
    row['new_file'] = row.get('new_file') or ''
  return rows


def _read_undo(path):
  """Returns {source: target} of an undo file, {} if there is none."""
  data = files.read_if_exists(path)
  return {} if data is None else {
      row['new_file']: row['file'] for _, row in read_rows(path, data)}


def _write_undo(path, moves):
  """Writes the file of choices that moves all photos back."""
  text = to_csv((move.target, move.new_label, MOVE if move.label else DROP,
                 move.label, move.source) for move in moves)
  try:
    files.write_text(path, text)
  except OSError as error:
    raise InputError('cannot write the undo file %s: %s; nothing was moved' % (
        path, error.strerror))


def _plan(path, rows, folder, planned):
  """Checks all rows.

  Args:
    path: of the file of choices.
    rows: of read_rows.
    folder: _Folder.
    planned: {source: target} of an earlier run.

  Returns:
    List of Move, and [(file, label)] of photos to keep.

  Raises:
    InputError: names the first wrong row.
  """
  moves, kept, seen, wrong = [], [], set(), []
  taken = set(planned.values())
  for line, row in rows:
    try:
      if row['file'] in seen:
        raise InputError('%r is in the file twice' % row['file'])
      seen.add(row['file'])
      if row['action'] not in ACTIONS:
        raise unknown_name('action', row['action'], ACTIONS[:-1])
      if row['action'] in (MOVE, DROP):
        move = _check_move(row, folder, planned, taken)
        taken.add(move.target)
        moves.append(move)
      elif row['action'] == KEEP:
        _check_source(row['file'], folder)
        if row['file'] not in folder.class_of:
          raise InputError('%r is dropped: move it to keep it' % row['file'])
        kept.append((row['file'], folder.class_of[row['file']]))
    except InputError as error:
      wrong.append('line %d: %s' % (line, error))
  if wrong:
    raise InputError('%s, %s%s; nothing was moved' % (
        path, wrong[0], ' (and %d more wrong rows)' % (len(wrong) - 1)
        if wrong[1:] else ''))
  return moves, kept


def _check_move(row, folder, planned, taken):
  """Returns the Move of a row, or raises InputError."""
  source, new_label = row['file'], row['new_label']
  is_drop = row['action'] == DROP
  if is_drop:
    new_label = ''
  elif new_label not in folder.classes:
    raise unknown_name('class', new_label, folder.classes)
  if source in planned and not folder.exists(source):
    target = planned[source]
    _check_path(source, folder)
    if not folder.exists(target):
      raise InputError('%r is neither there nor at %r' % (source, target))
    return Move(source, target, row['label'], new_label)
  if row['new_file'] and not folder.exists(source):
    # A row of an undo file: the photo had not been moved yet.
    _check_path(source, folder)
    _check_path(row['new_file'], folder)
    if folder.exists(row['new_file']):
      return Move(source, row['new_file'], row['label'], new_label)
  _check_source(source, folder)
  label = folder.class_of.get(source, '')
  if row['label'] not in ('', label):
    raise InputError('%r is of class %r, not %r' % (source, label,
                                                    row['label']))
  if label == new_label:
    raise InputError('%r is of class %r already' % (source, label) if label
                     else '%r is dropped already' % source)
  target = planned.get(source) or row['new_file'] or _choose_target(
      source, new_label, folder, taken)
  _check_path(target, folder)
  right = (target.startswith(DROPPED + '/') if is_drop else
           _class_at(target, folder) == new_label)
  if not right:
    raise InputError('new_file %r is not in %s' % (
        target, DROPPED if is_drop else 'the folder of class %r' % new_label))
  if folder.exists(target) or (row['new_file'] and target in taken and
                               planned.get(source) != target):
    raise InputError('%r exists already, so %r cannot be moved there' % (
        target, source))
  return Move(source, target, label, new_label)


def _check_source(file, folder):
  """Raises InputError unless a file is a photo of the folder, or dropped."""
  _check_path(file, folder)
  if not folder.exists(file):
    raise InputError('there is no file %r in %s' % (file, folder.path))
  is_dropped = file.startswith(DROPPED + '/') and os.path.isfile(
      folder.full(file))
  if file not in folder.class_of and not is_dropped:
    raise InputError('%r is not a photo in a class folder' % file)


def _check_path(file, folder):
  """Raises InputError for a path out of the folder, or through a link."""
  parts = file.split('/')
  if '\0' in file or any(part in ('', '.', '..') for part in parts):
    raise InputError('%r is not a path in the folder of photos' % file)
  for end in range(1, len(parts) + 1):
    if os.path.islink(folder.full('/'.join(parts[:end]))):
      raise InputError('%r is, or is in, a symbolic link, which is not moved' %
                       file)


def _class_at(file, folder):
  """Returns the class of the folder of a file, None if it is not a class's."""
  parent = os.path.dirname(file)
  return next((label for (_, label), path in folder.folder_of.items()
               if path == parent),
              os.path.basename(parent) if os.path.dirname(parent) in {
                  split for split, _ in folder.folder_of} else None)


def _choose_target(source, new_label, folder, taken):
  """Returns the path to move a photo to, whose name is not taken yet."""
  if not new_label:
    return _free('%s/%s' % (DROPPED, source), folder, taken)
  if source.startswith(DROPPED + '/'):
    source = source[len(DROPPED) + 1:]
  split = os.path.dirname(os.path.dirname(source))
  parent = folder.folder_of.get((split, new_label),
                                os.path.join(split, new_label))
  return _free('%s/%s' % (parent, os.path.basename(source)), folder, taken)


def _free(file, folder, taken):
  stem, ending = os.path.splitext(file)
  number = 1
  while file in taken or folder.exists(file):
    number += 1
    file = '%s-%d%s' % (stem, number, ending)
  return file


def _check_splits_stay(path, folder, manifest, moves):
  """Raises InputError if a class would have no photo left in a split.

  Photos keep their splits, so it could not be converted.
  """
  before = {file: (label, manifest.files.get(file))
            for file, label in folder.class_of.items()}
  after = dict(before)
  for move in moves:
    split = after.pop(move.source, (None, None))[1]
    after[move.target] = move.new_label, split
  empty = {label: split for label, split in
           set(before.values()) - set(after.values()) if split}
  for label in sorted(empty):
    raise InputError(
        '%s: class %r would have no photo left in the %s split; keep one, or '
        'add photos and convert them first; nothing was moved' % (
            path, label, empty[label]))


def _move(folder, moves, undo):
  """Moves the files."""
  for number, move in enumerate(moves):
    try:
      os.makedirs(os.path.dirname(folder.full(move.target)), exist_ok=True)
      if folder.exists(move.target):  # os.rename would replace it.
        raise FileExistsError(17, 'File exists')
      os.rename(folder.full(move.source), folder.full(move.target))
    except OSError as error:
      raise InputError(
          'cannot move %s to %s: %s; %d of %d photos were moved: run again to '
          'continue, or undo with --apply=%s' % (
              photo_folder.printable(folder.full(move.source)),
              photo_folder.printable(move.target), error.strerror, number,
              len(moves), undo))
