"""A folder of photos, one folder a class: listing, checking, reading."""

import collections
import hashlib
import multiprocessing.pool
import os
import sys
import time

import tqdm

from datasets import photos
from errors import InputError

# Threads, not processes: reading, hashing and decoding all release Python's
# lock, and nothing is forked beside TensorFlow's threads.
_THREADS = max(2, os.cpu_count() or 2)

# Lists of thumbnails that Windows leaves in folders; names with a leading dot
# (.DS_Store, ._photo.jpg) are left out in any case.
_NOT_PHOTOS = ('thumbs.db', 'desktop.ini')

# Without a terminal, a line of progress now and then.
_LINE_SECONDS = 10

Listing = collections.namedtuple('Listing', 'classes files skipped')
Listing.__doc__ = """What a folder of photos holds.

classes: sorted list of class names.
files: sorted list of (class name, file name).
skipped: list of {'file', 'reason'} for what is no file.
"""

CheckedPhoto = collections.namedtuple('CheckedPhoto',
                                      'file class_name digest num_bytes')
CheckedPhoto.__doc__ = """A photo that was decoded.

file: '<class>/<file>'.
class_name: its class.
digest: sha256 of the file, hexadecimal.
num_bytes: size of the JPEG that goes into a record.
"""


def list_photos(folder):
  """Lists the class folders and their files.

  Args:
    folder: folder with one folder a class. Hidden files are left out.

  Returns:
    A Listing, sorted by code points, so the same on every machine.

  Raises:
    InputError: if the folder is missing or holds fewer than two classes, or a
      class name cannot be written into a line of labels.txt.
  """
  if not os.path.isdir(folder):
    raise InputError('no folder of photos at %s: it must hold one folder a '
                     'class, with photos in each' % folder)
  names = _visible(folder)
  classes = [name for name in names
             if os.path.isdir(os.path.join(folder, name))]
  if len(classes) < 2:
    raise InputError(
        '%s holds %d class folders%s, at least 2 are needed: one folder a '
        'class, with photos in each' %
        (folder, len(classes), ' (%s)' % classes[0] if classes else ''))
  files = []
  skipped = [_skip(name, 'not in a class folder') for name in names
             if name not in classes]
  for class_name in classes:
    if not _is_text(class_name) or len(class_name.splitlines()) != 1:
      raise InputError('class name %r in %s: names of classes must be UTF-8 '
                       'and one line' % (class_name, folder))
    class_folder = os.path.join(folder, class_name)
    for name in _visible(class_folder):
      file = '%s/%s' % (class_name, name)
      if not _is_text(name):
        skipped.append(_skip(file, 'the file name is not UTF-8'))
      elif os.path.isfile(os.path.join(class_folder, name)):
        files.append((class_name, name))
      elif os.path.isdir(os.path.join(class_folder, name)):
        skipped.append(_skip(file, 'a folder inside a class folder'))
      else:
        skipped.append(_skip(file, 'not a file'))
  return Listing(classes, files, skipped)


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
      data = _read(os.path.join(folder, class_name, name))
      photo = photos.normalize_photo(data, max_pixels)
    except photos.PhotoError as error:
      return _skip(file, str(error))
    return CheckedPhoto(file, class_name, hashlib.sha256(data).hexdigest(),
                        len(photo.encoded))

  usable, skipped = [], []
  with multiprocessing.pool.ThreadPool(_THREADS) as pool:
    results = pool.imap(check, listing.files, chunksize=8)
    for result in _show_progress(results, len(listing.files)):
      (usable if isinstance(result, CheckedPhoto) else skipped).append(result)
  return usable, skipped


def read_again(folder, checked, max_pixels):
  """Returns the photos.Photo of a photo that was checked before.

  Raises:
    InputError: if the file is no longer what it was.
  """
  changed = InputError('%s changed while it was being converted: run again' %
                       os.path.join(folder, checked.file))
  try:
    data = _read(os.path.join(folder, checked.file))
  except photos.PhotoError:
    raise changed
  if hashlib.sha256(data).hexdigest() != checked.digest:
    raise changed
  return photos.normalize_photo(data, max_pixels)


def _visible(folder):
  try:
    names = os.listdir(folder)
  except OSError as error:
    raise InputError('cannot list %s: %s' % (folder, error.strerror))
  return sorted(name for name in names
                if not name.startswith('.') and name.lower() not in _NOT_PHOTOS)


def _is_text(name):
  """Whether a file name is UTF-8; other bytes arrive as lone surrogates."""
  try:
    name.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True


def _skip(file, reason):
  text = file.encode('utf-8', 'backslashreplace').decode('utf-8')
  return {'file': text, 'reason': reason}


def _read(path):
  try:
    with open(path, 'rb') as source:
      return source.read()
  except OSError as error:
    raise photos.PhotoError('cannot be read: %s' % error.strerror)


def _show_progress(results, total):
  """Yields the results; shows on stderr how far it is, with photos a second."""
  if sys.stderr.isatty():
    yield from tqdm.tqdm(results, desc='photos', total=total, unit=' photos',
                         file=sys.stderr)
    return
  start = last = time.time()
  for count, result in enumerate(results, 1):
    yield result
    now = time.time()
    if now - last >= _LINE_SECONDS:
      last = now
      print('%d of %d photos, %.0f photos/s' %
            (count, total, count / (now - start)), file=sys.stderr, flush=True)
