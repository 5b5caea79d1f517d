"""Finds near duplicates among the photos of a conversion."""

from typing import Callable, List, Optional

import numpy as np

from common import threads
from datasets.photo_files import near_photos
from datasets.photo_files.photo_folder import CheckedPhoto


def find(groups: List[List[CheckedPhoto]],
         sketch: Callable[[CheckedPhoto], Optional[np.ndarray]]
         ) -> List[List[CheckedPhoto]]:
  """Returns the sets of near duplicates, with progress on stderr.

  Resized, mirrored and newly encoded copies are found; most crops and bursts
  are not, for which the features of a network are needed (check_labels.sh).

  Args:
    groups: photos; those of a group have equal pixels.
    sketch: function of a photo that returns near_photos.sketch of it.

  Raises:
    InputError: a file has changed since it was checked.
  """
  found = list(threads.map_in_threads(
      sketch, [members[0] for members in groups], 'compared'))
  numbers = [number for number, one in enumerate(found) if one is not None]
  if not numbers:
    return []
  pairs = near_photos.find_pairs(np.stack(
      [one for one in found if one is not None]))
  return [[photo for place in places for photo in groups[numbers[place]]]
          for places in near_photos.group(pairs)]
