"""A run whose data set has got new classes begins again in the same folder.

Its files are moved into a sub-folder of the train directory, such as
`3_classes`. run.json is moved last, so that a killed process continues.
"""

import os
import re
from typing import List

from common import paths
from common.errors import InputError
from compat import tf
from runs import run_info, run_list

_FOLDER = re.compile(r'\d+_classes(_\d+)?')


def set_aside(train_dir: str, former: run_info.RunInfo,
              labels: List[str]) -> None:
  """Moves the files of a run into a sub-folder.

  Args:
    train_dir: of the run, locked by this process.
    former: RunInfo of the run.
    labels: the classes of the data set.

  Raises:
    InputError: a file cannot be moved.
  """
  folder = _free_folder(train_dir, len(former.labels))
  names = [name for name in sorted(os.listdir(train_dir))
           if name not in (run_list.LOCK_FILE, run_info.FILE_NAME) and
           not _FOLDER.fullmatch(name)]
  try:
    os.makedirs(folder, exist_ok=True)
    for name in names + [run_info.FILE_NAME]:
      os.rename(os.path.join(train_dir, name), os.path.join(folder, name))
  except OSError as error:
    raise InputError('cannot move the files of the former run to %s: %s' %
                     (folder, error.strerror))
  tf.logging.info(
      'New classes: %s. Training begins again; the files of the run on %d '
      'classes are in %s', ', '.join(sorted(set(labels) - set(former.labels))),
      len(former.labels), paths.relative(folder))


def _free_folder(train_dir, count):
  number, name = 1, '%d_classes' % count
  while os.path.exists(os.path.join(train_dir, name, run_info.FILE_NAME)):
    number += 1
    name = '%d_classes_%d' % (count, number)
  return os.path.join(train_dir, name)
