"""Wrongly classified photos with the highest scores, as pictures."""

import base64
import io
from typing import (
  Any,
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


class WrongPhoto(NamedTuple):
  """A wrongly classified photo."""

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
         count: int) -> List[WrongPhoto]:
  """Returns the wrong photos with the highest scores, highest first.

  Args:
    results: list of SplitResults.
    count: largest number of photos.

  Returns:
    A list of WrongPhotos.
  """
  wrong = []
  for result in results:
    counted = result.counted
    predicted = counted.probabilities.argmax(axis=1)
    for position in np.flatnonzero(predicted != counted.labels):
      scores, label = counted.probabilities[position], counted.labels[position]
      wrong.append(WrongPhoto(
          result.name, counted.filenames[position], int(label),
          int(predicted[position]), float(scores.max()), float(scores[label]),
          int(position)))
  return sorted(wrong, key=lambda photo: -photo.score)[:count]


def pictures(photos: Sequence[Any],
             results: Sequence[run_results.SplitResult]
             ) -> List[Optional[str]]:
  """Returns a data: URI of each photo, None for those that cannot be shown.

  Args:
    photos: list of WrongPhotos, or of rows with the same `split` and
      `position`.
    results: the SplitResults that they were found in.
  """
  encoded = {}
  for result in results:
    wanted = {p.position for p in photos if p.split == result.name}
    for position, data in read_photos(result.sources, wanted):
      encoded[result.name, position] = data
  return [data_uri(encoded.get((p.split, p.position))) for p in photos]


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


def data_uri(encoded: Optional[bytes]) -> Optional[str]:
  """Returns a small JPEG of a photo as a data: URI.

  Args:
    encoded: bytes of a JPEG or PNG file, or None.

  Returns:
    Text; None if there is no picture to show.
  """
  if encoded is None:
    return None
  try:
    image: Image.Image = Image.open(io.BytesIO(encoded))
    image.draft('RGB', (2 * _SIDE, 2 * _SIDE))  # Decodes a JPEG smaller.
    image = image.convert('RGB')
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, 'JPEG', quality=_QUALITY)
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return None
  return uri('image/jpeg', stream.getvalue())


def uri(kind: str, data: bytes) -> str:
  """Returns bytes as a data: URI of a media type."""
  return 'data:%s;base64,%s' % (kind, base64.b64encode(data).decode('ascii'))
