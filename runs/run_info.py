"""Facts of a training run, in run.json.

Training writes them once to TRAIN_DIR/run.json; evaluation and export read
them, so that labels_offset, image size or preprocessing are not given again.
"""

import json
import os
from typing import Any, List, NamedTuple, Optional

from common.errors import InputError
from compat import tf
from runs import checkpoints

FILE_NAME = 'run.json'

# Next to the checkpoint that was best on the validation photos.
BEST_FILE_NAME = 'best.json'


class RunInfo(NamedTuple):
  """Facts of a run."""

  # Name of the network.
  model_name: str
  # By index of the network's output, so labels_offset is already applied.
  labels: List[str]
  # Number subtracted from the data set's labels.
  labels_offset: int
  # Side in pixels.
  image_size: int
  # Name of a network or a family.
  preprocessing_name: str
  dataset_name: str
  # Absolute path where training ran.
  dataset_dir: str
  # None if the run keeps no moving averages.
  moving_average_decay: Optional[float]
  # Checkpoint that the run started from, None from scratch.
  checkpoint_path: Optional[str] = None


def path(train_dir: str) -> str:
  """Returns the path of the run.json of a train directory."""
  return os.path.join(train_dir, FILE_NAME)


def load(train_dir: str) -> Optional[RunInfo]:
  """Reads the facts of a run.

  Args:
    train_dir: folder of the run; need not exist.

  Returns:
    A RunInfo, or None if the folder has no run.json (a run of slim itself).

  Raises:
    InputError: the file is not a run.json of this project.
  """
  name = path(train_dir)
  if not os.path.isfile(name):
    return None
  try:
    with open(name, encoding='utf-8') as stream:
      facts = json.load(stream)
    # Fields that were added later have defaults, so older runs still load.
    return RunInfo(**{field: facts[field] for field in RunInfo._fields
                      if field in facts})
  except (TypeError, ValueError) as error:
    raise InputError('%s is damaged (%s: %s); remove it to use only the '
                     'flags' % (name, type(error).__name__, error))


def is_best(prefix: str) -> bool:
  """Whether a checkpoint is the best of its run on the validation photos.

  Its folder may have been copied under another name, so best.json decides. The
  first best checkpoint of a run is written before best.json, so the folder name
  decides too, if run.json is in the parent: a train directory may also be named
  best.
  """
  folder = os.path.dirname(os.path.abspath(prefix))
  train_dir, name = os.path.split(folder)
  return (os.path.exists(os.path.join(folder, BEST_FILE_NAME)) or
          name == checkpoints.BEST_DIR and os.path.exists(path(train_dir)))


def take_averages(values: Any, info: Optional[RunInfo], prefix: str) -> None:
  """Sets --moving_average_decay to the value that chose a checkpoint.

  This is done if the flag is not given and the checkpoint is the best of its
  run, which is chosen by the moving averages if the run keeps them.

  Args:
    values: the parsed flags.
    info: RunInfo of the checkpoint's run, or None.
    prefix: path of the checkpoint.
  """
  if (info is None or not info.moving_average_decay or
      values.moving_average_decay is not None):
    return
  if is_best(prefix):
    values.moving_average_decay = info.moving_average_decay
    tf.logging.info('Using the moving averages, by which this checkpoint was '
                    'the best; --moving_average_decay=0 uses the variables')
  else:
    tf.logging.info('The run keeps moving averages; --moving_average_decay=%g '
                    'uses them', info.moving_average_decay)


def save(train_dir: str, info: RunInfo) -> None:
  """Writes the facts of a run, whole or not at all.

  Args:
    train_dir: folder of the run; created if missing.
    info: a RunInfo.
  """
  os.makedirs(train_dir, exist_ok=True)
  temporary_path = '%s.%d.tmp' % (path(train_dir), os.getpid())
  with open(temporary_path, 'w', encoding='utf-8') as stream:
    json.dump(info._asdict(), stream, indent=1, ensure_ascii=False)
    stream.write('\n')
  os.replace(temporary_path, path(train_dir))
