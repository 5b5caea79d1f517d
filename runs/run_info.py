"""The facts of a training run that evaluation and export must not guess.

Training writes them once into TRAIN_DIR/run.json; evaluation and export read
them, so that labels_offset, image size or preprocessing are never typed twice.
"""

import collections
import json
import os

from compat import tf
from errors import InputError
from runs import checkpoints

FILE_NAME = 'run.json'

# Lies beside the checkpoint that was best on the validation photos.
BEST_FILE_NAME = 'best.json'

# labels: by index of the network's output, so labels_offset is already applied.
# image_size: side in pixels. dataset_dir: absolute path where training ran.
# moving_average_decay: None where the run keeps no moving averages.
# checkpoint_path: what the run started from, None from scratch.
RunInfo = collections.namedtuple(
    'RunInfo',
    'model_name labels labels_offset image_size preprocessing_name '
    'dataset_name dataset_dir moving_average_decay checkpoint_path',
    defaults=(None,))


def path(train_dir):
  """Returns where the facts of the run in `train_dir` are kept."""
  return os.path.join(train_dir, FILE_NAME)


def load(train_dir):
  """Reads the facts of a run.

  Args:
    train_dir: folder of the run; need not exist.

  Returns:
    A RunInfo, or None where the folder has no run.json (a run of slim's own).

  Raises:
    InputError: the file is no run.json of this project.
  """
  name = path(train_dir)
  if not os.path.isfile(name):
    return None
  try:
    with open(name, encoding='utf-8') as stream:
      facts = json.load(stream)
    # Fields that came later have defaults, so that older runs still load.
    return RunInfo(**{field: facts[field] for field in RunInfo._fields
                      if field in facts})
  except (TypeError, ValueError) as error:
    raise InputError('%s is damaged (%s: %s); remove it to go by the flags '
                     'alone' % (name, type(error).__name__, error))


def is_best(prefix):
  """Whether a checkpoint is the one that validation photos chose of its run.

  Its folder may have been copied to another name. The first one of a run is
  there before its evaluation is noted. A train directory may be called best,
  too.
  """
  folder = os.path.dirname(os.path.abspath(prefix))
  train_dir, name = os.path.split(folder)
  return (os.path.exists(os.path.join(folder, BEST_FILE_NAME)) or
          name == checkpoints.BEST_DIR and os.path.exists(path(train_dir)))


def take_averages(values, info, prefix):
  """Sets --moving_average_decay to what a checkpoint was chosen by.

  Where the flag is not given and the checkpoint is the best of its run: that is
  judged by the averages of the run where it keeps some.

  Args:
    values: the parsed flags.
    info: RunInfo of the checkpoint's run, or None.
    prefix: of the checkpoint.
  """
  if (info is None or not info.moving_average_decay or
      values.moving_average_decay is not None):
    return
  if is_best(prefix):
    values.moving_average_decay = info.moving_average_decay
    tf.logging.info('Taking the moving averages, by which this checkpoint was '
                    'the best; --moving_average_decay=0 takes the variables')
  else:
    tf.logging.info('The run keeps moving averages; --moving_average_decay=%g '
                    'takes them', info.moving_average_decay)


def save(train_dir, info):
  """Writes the facts of a run, whole or not at all.

  Args:
    train_dir: folder of the run; made where there is none.
    info: a RunInfo.
  """
  os.makedirs(train_dir, exist_ok=True)
  aside = '%s.%d.tmp' % (path(train_dir), os.getpid())
  with open(aside, 'w', encoding='utf-8') as stream:
    json.dump(info._asdict(), stream, indent=1, ensure_ascii=False)
    stream.write('\n')
  os.replace(aside, path(train_dir))
