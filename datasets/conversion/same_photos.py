"""Finds the photos of a folder that have the same pixels.

Two files may hold the same picture in different bytes: saved as PNG, with other
EXIF data, packed better. Comparing all pixels would double the time of a
conversion, so only photos that may equal another are decoded in full.
"""

import collections
from typing import Dict, List

from common import threads
from common.errors import InputError
from datasets.photo_files import photo_folder, photos
from datasets.photo_files.photo_folder import CheckedPhoto


def group(folder: str, usable: List[CheckedPhoto], max_pixels: int,
          pixels: Dict[str, str]) -> List[List[CheckedPhoto]]:
  """Groups photos by the pixels of the upright picture.

  Args:
    folder: the folder of photos.
    usable: the photos.
    max_pixels: as in photos.normalize_photo.
    pixels: of digest_pixels, of photos that are not decoded again.

  Returns:
    List of lists of CheckedPhoto, in the order of their first photos. Most hold
    one photo.

  Raises:
    InputError: a file has changed since it was checked.
  """
  by_bytes: Dict[str, List[CheckedPhoto]] = collections.OrderedDict()
  for photo in usable:
    by_bytes.setdefault(photo.digest, []).append(photo)
  firsts = [members[0] for members in by_bytes.values()]
  digests = dict(pixels, **digest_pixels(
      folder, [photo for photo in doubtful(firsts)
               if photo.digest not in pixels], max_pixels))
  groups: Dict[str, List[CheckedPhoto]] = collections.OrderedDict()
  for photo in firsts:
    if photo.is_plain:  # One that is not doubtful has no equal in other bytes.
      key = digests.get(photo.digest, photo.digest)
    else:
      key = photo.look
    groups.setdefault(key, []).extend(by_bytes[photo.digest])
  return list(groups.values())


def doubtful(firsts: List[CheckedPhoto]) -> List[CheckedPhoto]:
  """Returns the plain photos that may have the pixels of another photo.

  These are the ones that look like another plain photo at an eighth of the
  size, and those of the size of a photo that is not plain.

  Args:
    firsts: photos, no two of them with equal bytes.
  """
  sizes = {(photo.height, photo.width) for photo in firsts
           if not photo.is_plain}
  looks = collections.Counter(photo.look for photo in firsts if photo.is_plain)
  return [photo for photo in firsts if photo.is_plain and
          (looks[photo.look] > 1 or (photo.height, photo.width) in sizes)]


def digest_pixels(folder: str, checked: List[CheckedPhoto],
                  max_pixels: int) -> Dict[str, str]:
  """Decodes photos and digests their pixels, with progress on stderr.

  Args:
    folder: the folder of photos.
    checked: the photos.
    max_pixels: as in photos.normalize_photo.

  Returns:
    {CheckedPhoto.digest: digest of the pixels}.

  Raises:
    InputError: a file has changed since it was checked.
  """
  def digest(photo):
    data = photo_folder.read_bytes_again(folder, photo, max_pixels)
    try:
      return photos.pixels_digest(data, max_pixels)
    except photos.PhotoError as error:
      raise InputError('%s: %s' % (photo_folder.printable(photo.file), error))

  return dict(zip([photo.digest for photo in checked],
                  threads.map_in_threads(digest, checked, 'compared')))
