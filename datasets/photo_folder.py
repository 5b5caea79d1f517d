"""A folder of photos, one folder a class: listing, checking, reading."""

import collections
import hashlib
import os
import stat

from datasets import photos, progress
from errors import InputError

# Lists of thumbnails that Windows leaves in folders. They and names with a
# leading dot (.DS_Store, ._photo.jpg, .ipynb_checkpoints) are hidden files.
_HIDDEN = ('thumbs.db', 'desktop.ini')

Listing = collections.namedtuple('Listing', 'classes files skipped hidden')
Listing.__doc__ = """What a folder of photos holds.

Each file below the folder is in exactly one of the lists. Links to folders
below the class folders are not followed, they stand for themselves.

classes: sorted list of class names.
files: sorted list of (class name, file name).
skipped: list of {'file', 'reason'} for what is no file in a class folder.
hidden: the same for hidden files.
"""

CheckedPhoto = collections.namedtuple(
    'CheckedPhoto', 'file class_name digest num_bytes height width is_plain '
    'look')
CheckedPhoto.__doc__ = """A photo that was decoded.

file: '<class>/<file>'.
class_name: its class.
digest: sha256 of the file, hexadecimal.
num_bytes: size of the JPEG that goes into a record.
height, width: of that JPEG, in pixels.
is_plain, look: see photos.Inspected.
"""


def list_photos(folder):
  """Lists the class folders and their files.

  Only what lies right in a class folder is a photo of it. If folders inside
  class folders counted, photos that are sorted once more (train/cat, test/cat)
  would silently make classes `train` and `test`.

  Args:
    folder: folder with one folder a class.

  Returns:
    A Listing, sorted by code points, so the same on every machine.

  Raises:
    InputError: if the folder is missing or holds fewer than two classes, or a
      class name cannot be written into a line of labels.txt.
  """
  if not os.path.isdir(folder):
    raise InputError(
        '%s at %s: it must hold one folder a class, with photos in each' %
        ('a file instead of a folder of photos' if os.path.lexists(folder) else
         'no folder of photos', folder))
  listing = Listing([], [], [], [])
  for name in _listdir(folder):
    path = os.path.join(folder, name)
    if is_hidden(name):
      _list_all(path, name, 'hidden', listing.hidden)
    elif not os.path.isdir(path):
      listing.skipped.append(_skip(name, 'not in a class folder'))
    elif _leads_up(path, folder):
      listing.skipped.append(_skip(name, 'a link to a folder around it'))
    else:
      listing.classes.append(name)
  if len(listing.classes) < 2:
    raise InputError(
        '%s holds %d class folders%s, at least 2 are needed: one folder a '
        'class, with photos in each' %
        (folder, len(listing.classes),
         ''.join(' (%s)' % printable(name) for name in listing.classes)))
  for class_name in listing.classes:
    if not _is_text(class_name) or len(class_name.splitlines()) != 1:
      raise InputError('class name %r in %s: names of classes must be UTF-8 '
                       'and one line' % (class_name, folder))
    _list_class(folder, class_name, listing)
  return listing


def _list_class(folder, class_name, listing):
  """Adds what a class folder holds to a Listing."""
  for name in _listdir(os.path.join(folder, class_name)):
    path = os.path.join(folder, class_name, name)
    file = '%s/%s' % (class_name, name)
    if is_hidden(name):
      _list_all(path, file, 'hidden', listing.hidden)
    elif os.path.isfile(path):
      if _is_text(name):
        listing.files.append((class_name, name))
      else:
        listing.skipped.append(_skip(file, 'the file name is not UTF-8'))
    elif os.path.islink(path) and os.path.isdir(path):
      listing.skipped.append(_skip(file, 'a link to a folder'))
    elif os.path.isdir(path):
      _list_all(path, file, 'in a folder inside a class folder',
                listing.skipped)
    elif os.path.exists(path):
      listing.skipped.append(_skip(file, 'not a file'))
    else:
      listing.skipped.append(_skip(file, 'a link that leads nowhere'))


def _list_all(path, file, reason, found):
  """Adds all files at and below a path to `found`, links not followed."""
  waiting = [(path, file)]  # No recursion: folders may be deep.
  while waiting:
    path, file = waiting.pop()
    try:
      if not stat.S_ISDIR(os.lstat(path).st_mode):
        found.append(_skip(file, reason))
        continue
      names = sorted(os.listdir(path), reverse=True)
    except OSError as error:
      found.append(_skip(file, 'cannot be listed: %s' % error.strerror))
      continue
    if not names:
      found.append(_skip(file, 'an empty folder'))
    waiting.extend((os.path.join(path, name), '%s/%s' % (file, name))
                   for name in names)


def check_photos(folder, listing, max_pixels):
  """Reads and decodes every file of a listing, with progress on stderr.

  Args:
    folder: the folder that was listed.
    listing: its Listing.
    max_pixels: photos with more pixels are not usable.

  Returns:
    usable: list of CheckedPhoto, in the listing's order.
    skipped: list of {'file', 'reason'}.
  """
  def check(entry):
    class_name, name = entry
    file = '%s/%s' % (class_name, name)
    try:
      data = _read(os.path.join(folder, class_name, name), max_pixels)
      photo, is_plain, look = photos.inspect_photo(data, max_pixels)
    except photos.PhotoError as error:
      return _skip(file, str(error))
    return CheckedPhoto(file, class_name, _digest(data), len(photo.encoded),
                        photo.height, photo.width, is_plain, look)

  usable, skipped = [], []
  for result in progress.map_in_threads(check, listing.files, 'checked'):
    (usable if isinstance(result, CheckedPhoto) else skipped).append(result)
  return usable, skipped


def read_again(folder, checked, max_pixels):
  """Returns the photos.Photo of a photo that was checked before.

  Raises:
    InputError: if the file is no longer what it was.
  """
  data = read_bytes_again(folder, checked, max_pixels)
  if checked.is_plain:
    return photos.Photo(data, checked.height, checked.width)
  return photos.normalize_photo(data, max_pixels)


def read_bytes_again(folder, checked, max_pixels):
  """Returns the bytes of a file that was checked before.

  Raises:
    InputError: if the file is no longer what it was.
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


def printable(text):
  """Returns a name without control characters and bytes that are not UTF-8."""
  return ''.join(letter if letter.isprintable() else
                 letter.encode('unicode_escape').decode('ascii')
                 for letter in _as_text(text))


def check_is_utf8(what, name):
  """Raises InputError for a name that is not UTF-8.

  TensorFlow cannot open a file of such a name.

  Args:
    what: what has the name, such as 'dataset_dir'.
    name: text, a file name or a path.
  """
  if not _is_text(name):
    raise InputError('%s is %s, accepted are names in UTF-8' %
                     (what, printable(name)))


def _digest(data):
  return hashlib.sha256(data).hexdigest()


def _listdir(folder):
  try:
    return sorted(os.listdir(folder))
  except OSError as error:
    raise InputError('cannot list %s: %s' % (printable(folder), error.strerror))


def is_hidden(name):
  """Whether a file or folder of this name is hidden, and so no photo."""
  return name.startswith('.') or name.lower() in _HIDDEN


def _leads_up(path, folder):
  """Whether a class folder is a link to the folder of photos or one above."""
  target, folder = os.path.realpath(path), os.path.realpath(folder)
  return os.path.commonpath([target, folder]) == target


def _is_text(name):
  """Whether a file name is UTF-8; other bytes arrive as lone surrogates."""
  try:
    name.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True


def _skip(file, reason):
  return {'file': _as_text(file), 'reason': reason}


def _as_text(name):
  """Returns a file name with bytes that are not UTF-8 as in `\\xff`."""
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
