"""Photos that a classifier refuses, with their nearest training photos.

The nearest training photos show what a photo was compared with.
"""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from evaluation import run_results, wrong_photos
from ood import detector, reference_bank

# Training photos shown next to each refused photo.
NUM_NEAREST = 3


class NearbyPhoto(NamedTuple):
  """A training photo near a refused photo."""

  # Name of the photo.
  file: str
  # Index of its class.
  label: int
  # Cosine of its features to those of the refused photo.
  cosine: float
  # Number of its record in the training split.
  position: int


class RefusedPhoto(NamedTuple):
  """A photo below the threshold; the first fields as in a ClassifiedPhoto."""

  split: str
  file: str
  # Class indices.
  label: int
  predicted: int
  # Of the predicted class.
  score: float
  # Number of its record in the split's files, from 0.
  position: int
  # To the bank.
  similarity: float
  # The OOD score.
  known_score: float
  # Nearest first.
  nearest: List[NearbyPhoto]


class OodResults(NamedTuple):
  """Out-of-distribution detection in a report; without a bank only a note."""

  # One per split.
  detections: Sequence[detector.Detection] = ()
  # Lowest scores first.
  photos: Sequence[RefusedPhoto] = ()
  # data: URIs of the photos, None for those that cannot be shown.
  pictures: Sequence[Optional[str]] = ()
  # Likewise of the nearest training photos of each.
  neighbour_pictures: Sequence[Sequence[Optional[str]]] = ()
  bank: Optional[reference_bank.Bank] = None
  # Which of the splits the threshold was set with, if any.
  set_with: Optional[str] = None
  # Why there is no bank.
  note: Optional[str] = None


def find(results: Sequence[run_results.SplitResult],
         detections: Sequence[detector.Detection], bank: reference_bank.Bank,
         count: int) -> List[RefusedPhoto]:
  """Returns the refused photos with the lowest scores, lowest first.

  Args:
    results: list of SplitResults, with features.
    detections: list of Detections of the same splits.
    bank: reference_bank.Bank.
    count: largest number of photos.

  Returns:
    A list of RefusedPhotos.
  """
  ranked = [(detection.scores[position], number, position)
            for number, detection in enumerate(detections)
            for position in np.flatnonzero(~detection.known)]
  refused = []
  for known_score, number, position in sorted(ranked)[:count]:
    result, detection = results[number], detections[number]
    counted = result.counted
    assert counted.features is not None
    rows, cosines = reference_bank.nearest(
        bank, counted.features[position:position + 1], NUM_NEAREST)
    refused.append(RefusedPhoto(
        result.name, counted.filenames[position],
        int(counted.labels[position]),
        int(counted.probabilities[position].argmax()),
        float(counted.probabilities[position].max()), int(position),
        float(detection.similarities[position]), float(known_score),
        [NearbyPhoto(bank.filenames[row], int(bank.labels[row]), float(cosine),
                   int(bank.positions[row]))
         for row, cosine in zip(rows[0], cosines[0])]))
  return refused


def neighbour_pictures(
    photos: Sequence[RefusedPhoto], sources: Sequence[str]
) -> List[List[Optional[str]]]:
  """Returns, for each photo, the data: URIs of its nearest training photos.

  Args:
    photos: list of RefusedPhotos.
    sources: record files of the training split.
  """
  wanted = {near.position for photo in photos for near in photo.nearest}
  uris = {position: wrong_photos.data_uri(data)
          for position, data in wrong_photos.read_photos(sources, wanted)}
  return [[uris.get(near.position) for near in photo.nearest]
          for photo in photos]
