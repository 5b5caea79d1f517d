"""Facts of a training run, in run.json.

Training writes them once to TRAIN_DIR/run.json; evaluation and export read
them, so that labels_offset, image size or preprocessing are not given again.
"""

import collections
import json
import os

from common import files
from common.errors import InputError
from compat import tf
from runs import checkpoints

FILE_NAME = 'run.json'

# Next to the checkpoint that was best on the validation photos.
BEST_FILE_NAME = 'best.json'

# labels: by index of the network's output, so labels_offset is already applied.
# image_size: side in pixels. dataset_dir: absolute path where training ran.
# moving_average_decay: None if the run keeps no moving averages.
# checkpoint_path: checkpoint that the run started from, None from scratch.
RunInfo = collections.namedtuple(
    'RunInfo',
    'model_name labels labels_offset image_size preprocessing_name '
    'dataset_name dataset_dir moving_average_decay checkpoint_path',
    defaults=(None,))


def path(train_dir):
  """Returns the path of the run.json of a train directory."""
  return os.path.join(train_dir, FILE_NAME)


def load(train_dir):
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


def is_best(prefix):
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


def take_averages(values, info, prefix):
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


def save(train_dir, info):
  """Writes the facts of a run, whole or not at all.

  Args:
    train_dir: folder of the run; created if missing.
    info: a RunInfo.
  """
  os.makedirs(train_dir, exist_ok=True)
  text = json.dumps(info._asdict(), indent=1, ensure_ascii=False)
  files.write_text(path(train_dir), text + '\n')
