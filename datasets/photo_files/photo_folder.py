"""Lists, checks and reads a folder of photos with one folder per class."""

import collections
import hashlib
import os
import stat
import unicodedata
from typing import Dict, List, NamedTuple, Optional, Tuple

from common import threads
from common.errors import InputError, did_you_mean
from compat import tf
from datasets import public_sets
from datasets.photo_files import folder_layout, photos, side_files


class ListedFile(NamedTuple):
  """A file in a class folder."""

  # Path in the folder of photos: '<class>/<file>', with ready-made splits
  # '<split>/<class>/<file>'.
  file: str
  class_name: str
  # Its ready-made split, or None.
  split: Optional[str]


class Listing(NamedTuple):
  """Content of a folder of photos.

  Each file below the folder is in exactly one of the lists; a folder that is
  not used is one entry. Links to folders below the class folders are not
  followed: each is one entry itself.
  """

  # Sorted class names.
  classes: List[str]
  # Sorted.
  files: List[ListedFile]
  # {'file', 'reason'} of entries of class folders that are not usable files.
  skipped: List[Dict[str, str]]
  # The same for entries outside the class folders.
  outside: List[Dict[str, str]]
  # The same for files that operating systems and photo programs leave behind.
  hidden: List[Dict[str, str]]
  # {split: its folder} of ready-made splits; empty if there are none.
  splits: Dict[str, str]


class CheckedPhoto(NamedTuple):
  """A photo that was decoded."""

  # See ListedFile.
  file: str
  class_name: str
  # sha256 of the file, hexadecimal.
  digest: str
  # Size of the JPEG that its record will hold.
  num_bytes: int
  # Of that JPEG, in pixels.
  height: int
  width: int
  # See photos.Inspected.
  is_plain: bool
  look: str
  # See ListedFile.
  split: Optional[str] = None


def list_photos(folder: str, layout: str = folder_layout.AUTO) -> Listing:
  """Lists the class folders and their files.

  Only the files directly in a class folder are its photos. If folders inside
  class folders counted, train/cat and test/cat would silently become classes
  `train` and `test`.

  The name of a class is that of its folder in Unicode form NFC, without spaces
  around it.

  Args:
    folder: folder with one folder per class, or with ready-made splits.
    layout: one of folder_layout.LAYOUTS.

  Returns:
    A Listing, sorted by code points, so it is the same on every machine.

  Raises:
    InputError: if the folder is missing or holds fewer than two classes; the
      layout is unclear; the name of a class folder cannot be used, or looks the
      same as another one.
  """
  check_is_folder(folder)
  listing = Listing([], [], [], [], [], collections.OrderedDict())
  names = _list_folders(folder, '', listing)
  detected = folder_layout.find(folder, names, layout)
  listing.splits.update(detected.splits)
  for name, reason in detected.unused.items():
    listing.outside.append(_skip(name, reason))
    tf.logging.warning('%s: %s', printable(os.path.join(folder, name)), reason)
  classes = _list_classes(folder, '', detected.classes, None, listing)
  for split, name in detected.splits.items():
    prefix = name + '/'
    names = _list_folders(os.path.join(folder, name), prefix, listing)
    classes |= _list_classes(folder, prefix, names, split, listing)
  listing.classes.extend(sorted(classes))
  if len(listing.classes) < 2:
    raise InputError(
        '%s holds %d class folders%s, at least 2 are needed: one folder per '
        'class, with photos in each' %
        (folder, len(listing.classes),
         ''.join(' (%s)' % printable(name) for name in listing.classes)))
  _warn_of_case(folder, listing.classes)
  return listing


def check_is_folder(folder: str) -> None:
  """Raises InputError if there is no folder of photos at a path."""
  if not os.path.isdir(folder):
    raise InputError(
        '%s at %s: it must hold one folder per class, with photos in each%s' %
        ('a file instead of a folder of photos' if os.path.lexists(folder) else
         'no folder of photos', folder, _similar_name(folder)))


def _similar_name(folder):
  """Returns which existing folder or public data set may be meant, or ''."""
  parent, name = os.path.split(os.path.abspath(folder))
  try:
    others = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
  except OSError:
    others = []
  return did_you_mean(name, others + list(public_sets.PUBLIC_SETS))


def check_is_outside(dataset_dir: str, folder: str) -> None:
  """Raises InputError if records would go into the folder of photos.

  Args:
    dataset_dir: folder of the record files; need not exist. It may be the
      folder of photos itself, because loose files in it are not a class.
    folder: the folder of photos.
  """
  if (_is_same_or_parent(folder, dataset_dir) and
      os.path.realpath(folder) != os.path.realpath(dataset_dir)):
    raise InputError(
        'the folder of the records, %s, is inside the folder of photos, %s, '
        'and would be taken for a class: give another --dataset_dir '
        '(DATASET_DIR)' % (dataset_dir, folder))


def _list_folders(parent, prefix, listing):
  """Returns the folders that may be classes; adds all else to a Listing.

  Args:
    parent: the folder of photos or one of its ready-made splits.
    prefix: prefix of the names in a listing.
    listing: Listing to add to.
  """
  folders = []
  for name in _listdir(parent):
    path = os.path.join(parent, name)
    is_folder = os.path.isdir(path)
    reason = side_files.reason(name, is_folder)
    if reason:
      _list_all(path, prefix + name, reason, listing.hidden)
    elif not is_folder:
      listing.outside.append(_skip(prefix + name, 'not in a class folder'))
    elif _is_same_or_parent(path, parent):
      listing.outside.append(_skip(prefix + name,
                                   'a link to a parent folder'))
    else:
      folders.append(name)
  return folders


def _list_classes(folder, prefix, names, split, listing):
  """Adds class folders and their content to a Listing.

  Args:
    folder: the folder of photos.
    prefix: prefix of the names: '', or '<split>/'.
    names: the class folders.
    split: their ready-made split, or None.
    listing: Listing to add to.

  Returns:
    The set of their class names.
  """
  folder_of = {}
  for name in names:
    class_name = _class_name(name, os.path.join(folder, prefix))
    other = folder_of.setdefault(class_name, name)
    if other != name:
      raise InputError(
          'the class folders %s and %s in %s look the same (they differ in '
          'leading or trailing spaces or in Unicode form): rename one, or put '
          'all photos into one' % (ascii(other), ascii(name),
                                   os.path.join(folder, prefix)))
    _list_class(folder, prefix + name, class_name, split, listing)
  return set(folder_of)


def _class_name(name, parent):
  """Returns the class name of a class folder, or raises InputError."""
  class_name = unicodedata.normalize('NFC', name).strip()
  if not (_is_text(name) and len(name.splitlines()) == 1 and
          any(unicodedata.category(letter)[0] not in 'CZ'
              for letter in class_name)):
    raise InputError('class name %r in %s: names of classes must be UTF-8, one '
                     'line, and not only spaces' % (name, printable(parent)))
  return class_name


def _warn_of_case(folder, classes):
  """Warns about classes whose names differ only in case."""
  by_folded_name = {}
  for class_name in classes:
    other = by_folded_name.setdefault(class_name.casefold(), class_name)
    if other != class_name:
      tf.logging.warning(
          '%s: the class folders %r and %r differ only in upper and lower '
          'case; they are two classes', printable(folder), other, class_name)


def _list_class(folder, class_folder, class_name, split, listing):
  """Adds the content of a class folder to a Listing."""
  for name in _listdir(os.path.join(folder, class_folder)):
    path = os.path.join(folder, class_folder, name)
    file = '%s/%s' % (class_folder, name)
    is_folder = os.path.isdir(path)
    reason = side_files.reason(name, is_folder)
    if reason:
      _list_all(path, file, reason, listing.hidden)
    elif os.path.isfile(path):
      if _is_text(name):
        listing.files.append(ListedFile(file, class_name, split))
      else:
        listing.skipped.append(_skip(file, 'the file name is not UTF-8'))
    elif os.path.islink(path) and is_folder:
      listing.skipped.append(_skip(file, 'a link to a folder'))
    elif is_folder:
      _list_all(path, file, 'in a folder inside a class folder',
                listing.skipped)
    elif os.path.exists(path):
      listing.skipped.append(_skip(file, 'not a file'))
    else:
      listing.skipped.append(_skip(file, 'a broken link'))


def _list_all(path, file, reason, entries):
  """Adds all files at and below a path to `entries`; does not follow links."""
  waiting = [(path, file)]  # No recursion: folders may be deep.
  while waiting:
    path, file = waiting.pop()
    try:
      if not stat.S_ISDIR(os.lstat(path).st_mode):
        entries.append(_skip(file, reason))
        continue
      names = sorted(os.listdir(path), reverse=True)
    except OSError as error:
      entries.append(_skip(file, 'cannot be listed: %s' % error.strerror))
      continue
    if not names:
      entries.append(_skip(file, 'an empty folder'))
    waiting.extend((os.path.join(path, name), '%s/%s' % (file, name))
                   for name in names)


def check_photos(
    folder: str, listing: Listing,
    max_pixels: int) -> Tuple[List[CheckedPhoto], List[Dict[str, str]]]:
  """Reads and decodes every file of a listing, with progress on stderr.

  Args:
    folder: the folder that was listed.
    listing: what is in it.
    max_pixels: photos with more pixels are not usable.

  Returns:
    usable: list of CheckedPhoto, in the listing's order.
    skipped: list of {'file', 'reason'}.
  """
  def check(listed):
    try:
      data = _read(os.path.join(folder, listed.file), max_pixels)
      photo, is_plain, look = photos.inspect_photo(data, max_pixels)
    except photos.PhotoError as error:
      return _skip(listed.file, str(error))
    return CheckedPhoto(listed.file, listed.class_name, _digest(data),
                        len(photo.encoded), photo.height, photo.width, is_plain,
                        look, listed.split)

  usable: List[CheckedPhoto] = []
  skipped: List[Dict[str, str]] = []
  for result in threads.map_in_threads(check, listing.files, 'checked'):
    if isinstance(result, CheckedPhoto):
      usable.append(result)
    else:
      skipped.append(result)
  return usable, skipped


def read_again(folder: str, checked: CheckedPhoto,
               max_pixels: int) -> photos.Photo:
  """Returns the photos.Photo of a photo that was checked before.

  Raises:
    InputError: if the file has changed since.
  """
  data = read_bytes_again(folder, checked, max_pixels)
  if checked.is_plain:
    return photos.Photo(data, checked.height, checked.width)
  return photos.normalize_photo(data, max_pixels)


def read_bytes_again(folder: str, checked: CheckedPhoto,
                     max_pixels: int) -> bytes:
  """Returns the bytes of a file that was checked before.

  Raises:
    InputError: if the file has changed since.
  """
  changed = InputError('%s changed while it was being converted: run again' %
                       printable(os.path.join(folder, checked.file)))
  try:
    data = _read(os.path.join(folder, checked.file), max_pixels)
  except photos.PhotoError:
    raise changed
  if _digest(data) != checked.digest:
    raise changed
  return data


def printable(text: str) -> str:
  """Returns a name with control characters and non-UTF-8 bytes escaped."""
  return ''.join(letter if letter.isprintable() else
                 letter.encode('unicode_escape').decode('ascii')
                 for letter in _as_text(text))


def check_is_utf8(what: str, name: str) -> None:
  """Raises InputError for a name that is not UTF-8.

  TensorFlow cannot open a file with such a name.

  Args:
    what: the argument with this name, such as 'dataset_dir'.
    name: a file name or a path.
  """
  if not _is_text(name):
    raise InputError('%s is %s, expected a name in UTF-8' %
                     (what, printable(name)))


def _digest(data):
  return hashlib.sha256(data).hexdigest()


def _listdir(folder):
  try:
    return sorted(os.listdir(folder))
  except OSError as error:
    raise InputError('cannot list %s: %s' % (printable(folder), error.strerror))


def _is_same_or_parent(path, folder):
  """Returns whether a path is, or links to, a folder or one of its parents."""
  target, folder = os.path.realpath(path), os.path.realpath(folder)
  return os.path.commonpath([target, folder]) == target


def _is_text(name):
  """Returns whether a file name is UTF-8; other bytes are lone surrogates."""
  try:
    name.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True


def _skip(file, reason):
  return {'file': _as_text(file), 'reason': reason}


def _as_text(name):
  """Returns a file name with bytes that are not UTF-8 written as `\\xff`."""
  return ''.join('\\x%02x' % (ord(letter) - 0xdc00)
                 if '\udc80' <= letter <= '\udcff' else letter
                 for letter in name)


def _read(path, max_pixels):
  """Returns the bytes of a file that may be a photo."""
  try:
    with open(path, 'rb') as source:
      head = source.read(photos.HEAD_BYTES)
      photos.check_head(head, os.fstat(source.fileno()).st_size, max_pixels)
      return head + source.read()
  except OSError as error:
    raise photos.PhotoError('cannot be read: %s' % error.strerror)
