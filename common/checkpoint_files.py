"""The files of one checkpoint: whether they are complete, and reading them.

Both formats load: the current one (PREFIX.index and PREFIX.data-…) and the
single file of 2016 (TensorFlow's V1 format).
"""

import contextlib
import glob
import os
import re
from typing import Any, Iterator, List

import numpy as np

from common.compat import CHECKPOINT_ERRORS, tf
from common.errors import InputError

# TensorFlow reads the path of a checkpoint as a pattern of file names. With
# these characters in the path it may not find the checkpoint, and may delete
# checkpoints of another folder that the pattern matches.
_PATTERN_CHARACTERS = '*?[\\'


class UnreadableCheckpoint(InputError):
  """The files of a checkpoint exist but cannot be read, at least for now."""


def check_path(path: str) -> None:
  """Raises InputError if TensorFlow would read a path as a pattern.

  Args:
    path: a train directory or a checkpoint.

  Raises:
    InputError: the path contains a pattern character.
  """
  if any(character in path for character in _PATTERN_CHARACTERS):
    raise InputError(
        '%s: a path to checkpoints must not contain any of %s, because '
        'TensorFlow reads them as a pattern of file names; rename the folder '
        'or give another one' % (path, ' '.join(_PATTERN_CHARACTERS)))


def is_complete(prefix: str) -> bool:
  """Whether all files of a checkpoint exist, with the length its index says.

  This fails while a checkpoint is copied: TensorFlow writes the index last, but
  copying tools do not.

  Args:
    prefix: path of a checkpoint without .index and .data-….
  """
  if os.path.isfile(prefix + '.index'):
    shards = _shards(prefix)
    if {int(path.rpartition('-')[2]) for path in shards} != {len(shards)}:
      return False
  elif not os.path.isfile(prefix):
    return False
  try:
    open_reader(prefix)
  except UnreadableCheckpoint:
    return False
  return True


def _shards(prefix: str) -> List[str]:
  """Returns the paths of a checkpoint's .data-… files."""
  return [path for path in glob.glob(glob.escape(prefix) + '.data-*')
          if re.search(r'\.data-\d+-of-\d+$', path)]


def open_reader(prefix: str) -> Any:
  """Returns TensorFlow's reader of a checkpoint of either format.

  Raises:
    UnreadableCheckpoint: the files are damaged, too short or not a checkpoint.
  """
  with reading(prefix):
    reader = tf.train.NewCheckpointReader(prefix)
    if os.path.isfile(prefix + '.index'):
      _check_length(reader, prefix)
  return reader


@contextlib.contextmanager
def reading(prefix: str) -> Iterator[None]:
  """Raises UnreadableCheckpoint for TensorFlow's errors about a checkpoint."""
  try:
    yield
  except CHECKPOINT_ERRORS as error:
    raise UnreadableCheckpoint('%s cannot be read: %s' %
                               (prefix, str(error).split('\n')[0]))


def _check_length(reader: Any, prefix: str) -> None:
  """Raises ValueError if the .data-… files are too short for the index.

  TensorFlow would notice only when it reads the last variables. The single-file
  format has its index at the end of the file, so it needs no check.
  """
  shapes = reader.get_variable_to_shape_map()
  wanted = 0
  for name, dtype in reader.get_variable_to_dtype_map().items():
    if dtype == tf.string:  # Only the data has their lengths.
      texts = np.ravel(reader.get_tensor(name))
      wanted += sum(1 + len(text) for text in texts)  # 1: length byte.
    else:
      wanted += dtype.size * int(np.prod(shapes[name], dtype=np.int64))
  try:
    have = sum(map(os.path.getsize, _shards(prefix)))
  except FileNotFoundError:  # Training has just removed it.
    have = 0
  if have < wanted:
    raise ValueError('its data has %d bytes, its index says %d' %
                     (have, wanted))
