"""Photos that a classifier refuses, with their nearest training photos.

The nearest training photos show what a photo was compared with.
"""

import collections

import numpy as np

from evaluation import wrong_photos
from ood import reference_bank

# Training photos shown next to each refused photo.
NUM_NEAREST = 3

# split, file, label, predicted, score, position: as in a WrongPhoto.
# similarity, known_score: of the photo. nearest: list of Nearests.
RefusedPhoto = collections.namedtuple(
    'RefusedPhoto', 'split file label predicted score position similarity '
    'known_score nearest')

# file, label, cosine, position: of a training photo.
Nearest = collections.namedtuple('Nearest', 'file label cosine position')

# judged: list of known.Judged, one per split. photos: list of RefusedPhotos,
# lowest scores first. pictures: their data: URIs; nearest_pictures: lists of
# those of their nearest training photos. bank: the Bank. set_with: which of
# these splits its threshold was set with, or None. note: why there is no bank
# (then all other fields are empty or None), else None.
Refusals = collections.namedtuple(
    'Refusals', 'judged photos pictures nearest_pictures bank set_with note')


def find(results, judged, bank, count):
  """Returns the refused photos with the lowest scores, lowest first.

  Args:
    results: list of SplitResults, with features.
    judged: list of known.Judged of the same splits.
    bank: reference_bank.Bank.
    count: largest number of photos.

  Returns:
    A list of RefusedPhotos.
  """
  ranked = [(judgement.scores[position], number, position)
            for number, judgement in enumerate(judged)
            for position in np.flatnonzero(~judgement.known)]
  refused = []
  for known_score, number, position in sorted(ranked)[:count]:
    result, judgement = results[number], judged[number]
    counted = result.counted
    rows, cosines = reference_bank.nearest(
        bank, counted.features[position:position + 1], NUM_NEAREST)
    refused.append(RefusedPhoto(
        result.name, counted.filenames[position],
        int(counted.labels[position]),
        int(counted.probabilities[position].argmax()),
        float(counted.probabilities[position].max()), int(position),
        float(judgement.similarities[position]), float(known_score),
        [Nearest(bank.filenames[row], int(bank.labels[row]), float(cosine),
                 int(bank.positions[row]))
         for row, cosine in zip(rows[0], cosines[0])]))
  return refused


def nearest_pictures(photos, sources):
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
