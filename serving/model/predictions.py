"""What a classifier returns for a photo."""

from typing import List, NamedTuple, Optional, Tuple, Union

import numpy as np

from datasets.photo_files import photos


class Neighbour(NamedTuple):
  """A training photo that is similar to a photo."""

  # File name.
  file: str
  # Name of its class.
  label: str
  # Cosine similarity of its features to those of the photo.
  similarity: float
  # Its row in the reference bank.
  row: int
  # Bytes of a small JPEG; None: it cannot be shown.
  picture: Optional[bytes] = None


class HeatMap(NamedTuple):
  """The regions of a photo that raise the score of a class."""

  # Name of the class.
  label: str
  # [height, width] float32 in [0, 1], relative to the maximum.
  values: np.ndarray
  # The part of the upright photo that they cover: top, left, height and width
  # as fractions of its height and width. The network sees nothing else.
  window: Tuple[float, float, float, float]


class Details(NamedTuple):
  """What is requested for a photo besides its scores."""

  # Name of the class whose heat map is requested, '' for the one with the
  # largest score; None: no heat map.
  explain: Optional[str] = None
  # Number of nearest training photos.
  nearest: int = 0


NOTHING_MORE = Details()


class Prediction(NamedTuple):
  """What the graph returns for one photo."""

  # [num_classes] float32.
  scores: np.ndarray
  # Whether the photo is in-distribution; None: the graph has no
  # out-of-distribution detection.
  known: Optional[bool]
  # How similar it is to the training photos; None: as for `known`.
  similarity: Optional[float]
  # Nearest first.
  nearest: List[Neighbour]
  # Names of the scores, from the graph that produced them; None: unknown.
  labels: Optional[List[str]] = None
  # Of the file of that graph; None: unknown.
  sha256: Optional[str] = None
  # None: not requested.
  heat_map: Optional[HeatMap] = None
  # [n] float32, the input of the classifier layer; None: not requested.
  features: Optional[np.ndarray] = None


PhotoResult = Union[Prediction, photos.PhotoError]
