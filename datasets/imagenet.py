"""Data set imagenet, as in slim: `get_split('train', dataset_dir)`."""

import functools
from typing import Dict

from datasets import dataset_factory, imagenet_names

get_split = functools.partial(dataset_factory.get_dataset, 'imagenet')


def create_readable_names_for_imagenet_labels() -> Dict[int, str]:
  """Returns {label: class name} of 0, 'background', to 1000.

  slim downloads the names and returns all synonyms of each.
  """
  return dict(enumerate(imagenet_names.labels()))
