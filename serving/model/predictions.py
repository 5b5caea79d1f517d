"""What a classifier returns for a photo."""

from typing import List, NamedTuple, Optional, Union

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


PhotoResult = Union[Prediction, photos.PhotoError]
