"""Facts about a run for its report: flags, skipped photos, versions."""

import collections
import csv
import json
import os
import platform
import sys
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import PIL

from common import checkpoint_files
from compat import tf
from datasets import manifest
from datasets.conversion import converted_files
from runs import fit, run_info


class Skipped(NamedTuple):
  """Photos that the conversion skipped."""

  # (reason, how many), most frequent first.
  reasons: List[Tuple[str, int]]
  # (file, reason).
  files: List[Tuple[str, str]]
  # Path of the list they are from, None without one.
  origin: Optional[str]


def read_flags(train_dir: str) -> Tuple[List[Tuple[str, str]], Optional[str]]:
  """Reads the flags of a run.

  Args:
    train_dir: folder of the run.

  Returns:
    Sorted list of (flag, value as text), and None or an error message.
  """
  path = os.path.join(train_dir, run_info.FLAGS_FILE_NAME)
  try:
    with open(path, encoding='utf-8') as stream:
      values = json.load(stream)
  except FileNotFoundError:
    return [], 'The run did not save its flags (%s does not exist).' % path
  except (OSError, ValueError) as error:
    return [], '%s cannot be read: %s' % (path, error)
  if not isinstance(values, dict):
    return [], '%s holds no table of flags.' % path
  return sorted((name, value if isinstance(value, str) else json.dumps(
      value, ensure_ascii=False)) for name, value in values.items()), None


def read_skipped(dataset_dir: str, name: str) -> Skipped:
  """Reads which photos the conversion skipped, and why.

  Args:
    dataset_dir: folder of the records.
    name: name of the data set.

  Returns:
    A Skipped, from the list next to the records, else from the manifest.
  """
  path = converted_files.skipped_path(dataset_dir, name)
  try:
    with open(path, encoding='utf-8', errors='replace', newline='') as stream:
      files = [(row.get('file') or '', row.get('reason') or '')
               for row in csv.DictReader(stream)]
  except (OSError, csv.Error):
    path = manifest.path(dataset_dir, name)
    found = manifest.load(dataset_dir, name)
    if found is None:
      return Skipped([], [], None)
    files = [(entry['file'], entry['reason']) for entry in found.skipped]
  reasons = collections.Counter(reason for _, reason in files)
  return Skipped(sorted(reasons.items(), key=lambda row: (-row[1], row[0])),
                 files, path)


def training_photos(dataset_dir: str, name: str) -> Dict[str, int]:
  """Returns {class name: training photos}; empty without a manifest."""
  found = manifest.load(dataset_dir, name)
  return found.splits.get('train', {}).get('class_counts', {}) if found else {}


def count_weights(checkpoint: str) -> int:
  """Returns the number of weights of a checkpoint's network.

  Args:
    checkpoint: prefix; what only training needs is not counted.
  """
  shapes = checkpoint_files.open_reader(checkpoint).get_variable_to_shape_map()
  kinds = fit.kinds_of_unused(list(shapes))
  return sum(int(np.prod(shapes[name])) for name in kinds.get('others', ()))


def versions() -> List[Tuple[str, str]]:
  """Returns a list of (component, version) of this process."""
  return [('Python', sys.version.split()[0]), ('TensorFlow', tf.__version__),
          ('NumPy', np.__version__), ('Pillow', PIL.__version__),
          ('system', platform.platform())]
