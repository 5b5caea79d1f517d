"""Reduced training photos of a run, to be shown by the server.

One example of each class, and the photos of the reference bank, of which the
server shows those that are nearest to a photo.
"""

import contextlib
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from common import progress
from common.errors import InputError
from datasets import dataset_factory
from datasets.photo_files import photos
from evaluation import wrong_photos
from ood import detector, reference_bank
from runs import run_info
from serving.web import uploads

# Longer side in pixels: about 6 KB each, and sharp where the page shows them.
SIDE = 192

# Most classes: the page would be long, and the file large.
MAX_CLASSES = 200

# The same for the photos of the reference bank, of which a page shows a few:
# about 2.5 KB each; and the most of them.
BANK_SIDE = 96
MAX_BANK = 5000

# Training photos of each class that are tried, in case one cannot be decoded.
_TRIES = 3


def collect(run: Optional[run_info.RunInfo], labels: Sequence[str],
            bank: Optional[reference_bank.Bank],
            dataset_name: Optional[str] = None,
            dataset_dir: Optional[str] = None
            ) -> Tuple[Dict[str, bytes], str]:
  """Returns one small training photo of each class.

  It is the photo nearest to the mean of its class, by the features of the bank.
  Nothing but its pixels is kept.

  Args:
    run: RunInfo of the run; None: unknown.
    labels: names by output index.
    bank: reference bank of the graph; None: it has none.
    dataset_name: name of the current data set; see detector.dataset_of.
    dataset_dir: folder of its records.

  Returns:
    {class: bytes of a JPEG} and the reason if it is empty.
  """
  if run is None or bank is None:
    return {}, 'the graph has no reference bank of training photos'
  if len(labels) > MAX_CLASSES:
    return {}, '%d classes are more than %d' % (len(labels), MAX_CLASSES)
  typical = _typical_positions(bank)
  try:
    name, folder = detector.dataset_of(run, dataset_name, dataset_dir)
    dataset = dataset_factory.get_dataset(name, detector.TRAIN, folder)
    encoded = dict(wrong_photos.read_photos(
        dataset.data_sources, sum(typical.values(), [])))
  except (InputError, OSError) as error:
    return {}, str(error)
  examples = {}
  for index, positions in typical.items():
    for position in positions:
      try:
        examples[labels[index]] = uploads.preview(
            encoded[position], photos.MAX_PIXELS, SIDE)
        break
      except (KeyError, photos.PhotoError):
        continue
  return examples, 'no training photo can be read'


def collect_bank(run: Optional[run_info.RunInfo],
                 bank: Optional[reference_bank.Bank],
                 dataset_name: Optional[str] = None,
                 dataset_dir: Optional[str] = None) -> List[bytes]:
  """Returns the photos of the reference bank, reduced.

  Args:
    run: RunInfo of the run; None: unknown.
    bank: reference bank of the graph; None: it has none.
    dataset_name: name of the current data set; see detector.dataset_of.
    dataset_dir: folder of its records.

  Returns:
    Bytes of a JPEG by row of the bank, b'' if a photo cannot be read; empty if
    there are none, or more than MAX_BANK.
  """
  if run is None or bank is None or len(bank.positions) > MAX_BANK:
    return []
  rows = {int(position): row for row, position in enumerate(bank.positions)}
  found = [b''] * len(rows)
  try:
    name, folder = detector.dataset_of(run, dataset_name, dataset_dir)
    dataset = dataset_factory.get_dataset(name, detector.TRAIN, folder)
    with progress.Progress('reduced', len(rows)) as shown:
      for position, data in wrong_photos.read_photos(dataset.data_sources,
                                                     rows):
        with contextlib.suppress(photos.PhotoError):
          found[rows[position]] = uploads.preview(data, photos.MAX_PIXELS,
                                                  BANK_SIDE)
        shown.add()
  except (InputError, OSError):  # `collect` has given the reason.
    return []
  return found


def _typical_positions(bank) -> Dict[int, List[int]]:
  """Returns {class: record numbers of its most typical photos}, best first."""
  typical = {}
  for index in np.unique(bank.labels).tolist():
    rows = np.flatnonzero(bank.labels == index)
    features = bank.features[rows]
    nearest = np.argsort(-features @ features.mean(axis=0), kind='stable')
    typical[index] = bank.positions[rows[nearest[:_TRIES]]].tolist()
  return typical
