"""TensorFlow's list of checkpoints, the file `checkpoint` in a train directory.

TensorFlow restores the newest checkpoint in the list and deletes old ones in
it. The lists of older runs, and slim's, have absolute paths: in a copied or
renamed folder these point to the original, or to another run.
"""

import os

from common import checkpoint_files, files, folders
from common.errors import InputError, name_some
from compat import tf
from runs import checkpoints

_FILE_NAME = 'checkpoint'


def repair(train_dir: str) -> None:
  """Rewrites the lists of a train directory to name its own checkpoints.

  Call it before starting a session that restores and deletes by the list.
  Afterwards the newest in the list is the checkpoint that `checkpoints.newest`
  returns, even if the list was missing or damaged.

  Args:
    train_dir: folder of the run, which this process has locked.

  Raises:
    InputError: the list names checkpoints but the folder has no complete one,
      or the best checkpoint could not be kept in best/.
  """
  best_dir = os.path.join(train_dir, checkpoints.BEST_DIR)
  reason = folders.reason_not_writable(best_dir)
  if reason:
    raise InputError('cannot keep the best checkpoint: %s; change its owner or '
                     'permissions, or remove it' % reason)
  listed, newest = _rewrite(train_dir)
  if newest is None and listed:
    raise InputError(
        'the list %s names %s, but no complete checkpoint is in the folder; '
        'copy their files there, or remove the list to start from the '
        'beginning' %
        (os.path.join(train_dir, _FILE_NAME),
         name_some(list(map(os.path.basename, listed)))))
  if listed and newest != listed[0]:
    tf.logging.warning('%s is missing or not complete; resuming from %s',
                       listed[0], newest)
  _rewrite(best_dir)


def _rewrite(folder):
  """Rewrites the list of a folder to name the checkpoints that are there.

  Returns:
    The checkpoints that the list named before, newest first, and the newest
    complete checkpoint of the folder, or None.
  """
  path = os.path.join(folder, _FILE_NAME)
  listed = checkpoints.listed(folder)
  newest = checkpoints.newest(folder)
  if newest is None:
    if not listed and os.path.exists(path):
      os.remove(path)  # Empty or truncated; TensorFlow would fail.
    return listed, newest
  older = [prefix for prefix in reversed(listed)
           if prefix != newest and checkpoint_files.is_complete(prefix)]
  names = [os.path.basename(prefix) for prefix in older + [newest]]
  # With an absolute folder TensorFlow leaves the names unchanged.
  state = tf.train.generate_checkpoint_state_proto(os.sep, names[-1], names)
  lines = str(state).splitlines()
  if lines != _read_lines(path):
    files.write_text(path, ''.join(line + '\n' for line in lines))
    tf.logging.info('Rewrote %s: %s', path, name_some(names))
  return listed, newest


def _read_lines(path):
  try:
    with open(path, encoding='utf-8') as file:
      return file.read().splitlines()
  except (OSError, ValueError):
    return None
