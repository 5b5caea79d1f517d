"""Names of the ImageNet classes, in the order of the published checkpoints.

Index 0 is 'background', which slim's 1001-class networks have before the 1000
classes of ILSVRC 2012 (in the order of their WordNet ids).
"""

import functools
import os
from typing import List, NamedTuple, Optional, Tuple

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                     'imagenet_synsets.txt')

# The published checkpoints have the 1000 classes of ImageNet, most of them with
# a `background` class before these.
_SIZES = (1000, 1001)


class Synset(NamedTuple):
  """One of the 1000 classes."""

  # Index in the published checkpoints with a background class, 1 to 1000.
  label: int
  # As in 'n01440764'.
  wordnet_id: str
  # Not unique.
  name: str


@functools.lru_cache(maxsize=1)
def synsets() -> Tuple[Synset, ...]:
  """Returns the tuple of 1000 Synsets; their labels are 1 to 1000."""
  with open(_FILE, encoding='utf-8') as source:
    rows = [line.split() for line in source]
  return tuple(Synset(int(label), wordnet_id, name)
               for label, wordnet_id, name in rows)


def labels() -> List[str]:
  """Returns the list of 1001 names.

  They are not unique: 'crane' is listed twice, as a bird and as a machine.
  """
  return ['background'] + [synset.name for synset in synsets()]


def labels_of(num_classes: int) -> Optional[List[str]]:
  """Returns ImageNet's names by output index; None for other class numbers."""
  if num_classes not in _SIZES:
    return None
  return labels()[-num_classes:]
