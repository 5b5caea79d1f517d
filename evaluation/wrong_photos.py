"""Classified photos as pictures: the wrong ones, and some of each cell."""

import base64
import collections
import io
from typing import (
  Any,
  Dict,
  Iterable,
  Iterator,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np
from PIL import Image

from compat import tf
from datasets.records import tfrecord_file
from evaluation import run_results

# Longer side in pixels, and JPEG quality, of the pictures: some 5 kB each.
_SIDE = 160
_QUALITY = 80

# Photos of all cells of a confusion matrix together, and their longer side:
# some 0.6 MB.
MAX_IN_CELLS = 240
CELL_SIDE = 96


class ClassifiedPhoto(NamedTuple):
  """A photo and its prediction."""

  # Name of its split.
  split: str
  # Name of the photo.
  file: str
  # Class indices.
  label: int
  predicted: int
  # Of the predicted class.
  score: float
  # Of the label.
  label_score: float
  # Number of its record in the split's files, from 0.
  position: int


def find(results: Sequence[run_results.SplitResult],
         count: int) -> List[ClassifiedPhoto]:
  """Returns the wrong photos with the highest scores, highest first.

  Args:
    results: list of SplitResults.
    count: largest number of photos.

  Returns:
    A list of ClassifiedPhotos.
  """
  wrong = []
  for result in results:
    predicted = result.counted.probabilities.argmax(axis=1)
    wrong += [_classified(result, position) for position in
              np.flatnonzero(predicted != result.counted.labels)]
  return sorted(wrong, key=lambda photo: -photo.score)[:count]


def find_by_cell(result: run_results.SplitResult,
                 per_cell: int) -> List[ClassifiedPhoto]:
  """Returns photos of each cell of the confusion matrix, surest first.

  Args:
    result: a SplitResult.
    per_cell: largest number of photos per cell.

  Returns:
    A list of ClassifiedPhotos, cells with errors first, at most MAX_IN_CELLS.
  """
  counted = result.counted
  scores = counted.probabilities.max(axis=1)
  predicted = counted.probabilities.argmax(axis=1)
  taken: Dict[Tuple[int, int], int] = collections.Counter()
  chosen: List[ClassifiedPhoto] = []
  for position in np.lexsort((-scores, predicted == counted.labels)):
    cell = int(counted.labels[position]), int(predicted[position])
    if taken[cell] < per_cell and len(chosen) < MAX_IN_CELLS:
      taken[cell] += 1
      chosen.append(_classified(result, position))
  return chosen


def _classified(result, position):
  """Returns the ClassifiedPhoto of a photo of a SplitResult."""
  counted = result.counted
  scores, label = counted.probabilities[position], counted.labels[position]
  return ClassifiedPhoto(
      result.name, counted.filenames[position], int(label),
      int(scores.argmax()), float(scores.max()), float(scores[label]),
      int(position))


def pictures(photos: Sequence[Any],
             results: Sequence[Any],
             side: int = _SIDE) -> List[Optional[str]]:
  """Returns a data: URI of each photo, None for those that cannot be shown.

  Args:
    photos: list of ClassifiedPhotos, or of rows with the same `split` and
      `position`.
    results: the SplitResults that they were found in, or rows with the same
      `name` and `sources`.
    side: longer side in pixels.
  """
  encoded = {}
  for result in results:
    wanted = {p.position for p in photos if p.split == result.name}
    for position, data in read_photos(result.sources, wanted):
      encoded[result.name, position] = data
  return [data_uri(encoded.get((p.split, p.position)), side) for p in photos]


def read_photos(sources: Sequence[str],
                positions: Iterable[int]) -> Iterator[Tuple[int, bytes]]:
  """Yields the encoded photos of some records.

  Args:
    sources: record files in the order of evaluation.
    positions: numbers of records, from 0, counted over all files.

  Yields:
    (position, bytes); nothing for a record that cannot be read.
  """
  first, wanted = 0, set(positions)
  for path in sources:
    if not wanted:
      return
    offsets = tfrecord_file.record_offsets(path)
    inside = {p for p in wanted if p < first + len(offsets)}
    for position in sorted(inside):
      index = position - first
      record = next(tfrecord_file.read_on(path, index, offsets[index]))
      if record.data is not None:
        feature = tf.train.Example.FromString(record.data).features.feature
        yield position, feature['image/encoded'].bytes_list.value[0]
    wanted -= inside
    first += len(offsets)


def data_uri(encoded: Optional[bytes], side: int = _SIDE) -> Optional[str]:
  """Returns a small JPEG of a photo as a data: URI.

  Args:
    encoded: bytes of a JPEG or PNG file, or None.
    side: longer side in pixels.

  Returns:
    Text; None if there is no picture to show.
  """
  if encoded is None:
    return None
  try:
    image: Image.Image = Image.open(io.BytesIO(encoded))
    image.draft('RGB', (2 * side, 2 * side))  # Decodes a JPEG smaller.
    image = image.convert('RGB')
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, 'JPEG', quality=_QUALITY)
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return None
  return uri('image/jpeg', stream.getvalue())


def uri(kind: str, data: bytes) -> str:
  """Returns bytes as a data: URI of a media type."""
  return 'data:%s;base64,%s' % (kind, base64.b64encode(data).decode('ascii'))
