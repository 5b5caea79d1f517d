"""Finds near duplicates among the photos of a conversion."""

from typing import List

import numpy as np

from common import threads
from datasets.photo_files import near_photos, photo_folder
from datasets.photo_files.photo_folder import CheckedPhoto


def find(folder: str, groups: List[List[CheckedPhoto]],
         max_pixels: int) -> List[List[CheckedPhoto]]:
  """Returns the sets of near duplicates, with progress on stderr.

  Resized, mirrored and newly encoded copies are found; most crops and bursts
  are not, for which the features of a network are needed (check_labels.sh).

  Args:
    folder: the folder of photos.
    groups: photos; those of a group have equal pixels.
    max_pixels: as in photos.normalize_photo.

  Raises:
    InputError: a file has changed since it was checked.
  """
  def sketch(photo):
    return near_photos.sketch(
        photo_folder.read_again(folder, photo, max_pixels).encoded)

  found = list(threads.map_in_threads(
      sketch, [members[0] for members in groups], 'compared'))
  numbers = [number for number, one in enumerate(found) if one is not None]
  if not numbers:
    return []
  pairs = near_photos.find_pairs(np.stack([found[n] for n in numbers]))
  return [[photo for place in places for photo in groups[numbers[place]]]
          for places in near_photos.group(pairs)]
