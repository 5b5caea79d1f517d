"""Finding, checking and restoring the checkpoints of a run.

common/checkpoint_files.py has what concerns the files of a single checkpoint.
"""

import glob
import os
import re
import time
from typing import Any, Dict, List, Optional

from common import checkpoint_files, files
from common.errors import InputError, did_you_mean, name_some
from compat import tf
from runs import run_list

# An incomplete checkpoint counts as being copied while it grows: seconds for
# which it may stop growing, and seconds between two checks.
COPY_PATIENCE_SECS = 10.0
_LOOK_SECS = 0.5

# Folder in a train directory with the checkpoint that was most accurate on the
# validation photos, where training keeps one.
BEST_DIR = run_list.BEST_DIR

# Which checkpoint of a train directory is used; see chosen_folder.
CHOICES = BEST, NEWEST = 'best', 'newest'


def newest(train_dir: str) -> Optional[str]:
  """Returns the newest complete checkpoint of a train directory, or None.

  TensorFlow's own list decides which is the newest. If that list is missing or
  its files are gone, the global step in the file names decides.

  Args:
    train_dir: folder, which need not exist.

  Raises:
    InputError: the path has characters that TensorFlow reads as a pattern.
  """
  checkpoint_files.check_path(train_dir)
  prefixes = [p[:-len('.index')] for p in
              glob.glob(os.path.join(glob.escape(train_dir), '*.index'))]
  prefixes.sort(key=global_step_of, reverse=True)
  for prefix in listed(train_dir) + prefixes:
    if checkpoint_files.is_complete(prefix):
      return prefix
  return None


def chosen_folder(train_dir: str, which: Optional[str] = None) -> str:
  """Returns the folder with the checkpoint to use of a train directory.

  Evaluation, report, exports and fine-tuning all use this rule, and then the
  newest checkpoint of that folder.

  Args:
    train_dir: folder, which need not exist.
    which: BEST or NEWEST; None: the best one if training keeps one, else the
      newest.
  """
  best = os.path.join(train_dir, BEST_DIR)
  if which == BEST:
    return best
  # While one is being copied, its index or TensorFlow's list may come first.
  kept = listed(best) or glob.glob(os.path.join(glob.escape(best), '*.index'))
  return best if which is None and kept else train_dir


def find(train_dir: str, which: Optional[str] = None) -> Optional[str]:
  """Returns the complete checkpoint to use of a train directory, or None.

  Args:
    train_dir: folder, which need not exist.
    which: as for chosen_folder.
  """
  return newest(chosen_folder(train_dir, which))


def _newest_begun(train_dir):
  """Returns the checkpoint that is, or will be, the newest, or None.

  While it is being copied some of its files are missing, or all files, and only
  TensorFlow's list names it.
  """
  return (listed(train_dir) or [None])[0]


def _files(prefix):
  """Returns the paths of the existing files of a checkpoint."""
  return glob.glob(glob.escape(prefix) + '.*') + glob.glob(glob.escape(prefix))


def _size(prefix):
  """Returns the total size of the existing files of a checkpoint, in bytes."""
  total = 0
  for path in _files(prefix):
    try:
      total += os.path.getsize(path)
    except FileNotFoundError:  # The copying tool has renamed it.
      pass
  return total


def _wait_for_copy(prefix):
  """Waits while an incomplete checkpoint grows.

  Returns:
    Whether it is complete now.
  """
  if checkpoint_files.is_complete(prefix):
    return True
  tf.logging.info('%s is not complete; waiting in case it is being copied',
                  prefix)
  size, since = _size(prefix), time.monotonic()
  while time.monotonic() < since + COPY_PATIENCE_SECS:
    time.sleep(_LOOK_SECS)
    if checkpoint_files.is_complete(prefix):
      return True
    if _size(prefix) != size:
      size, since = _size(prefix), time.monotonic()
  return False


def is_checkpoint(prefix: str) -> bool:
  """Whether a path names a checkpoint of either format."""
  return os.path.isfile(prefix + '.index') or os.path.isfile(prefix)


def listed(train_dir: str) -> List[str]:
  """Returns the checkpoints of TensorFlow's own list, newest first.

  All returned paths are in this folder, but the files may be missing. The paths
  in a list may be absolute; in a copied or renamed folder, those point to the
  original, or to another run that now has its name.

  Args:
    train_dir: folder, which need not exist.
  """
  try:
    state = tf.train.get_checkpoint_state(train_dir)
  except ValueError:  # The list exists but is still empty.
    return []
  if state is None:
    return []
  paths: List[str] = [state.model_checkpoint_path]
  paths += reversed(state.all_model_checkpoint_paths)
  names = dict.fromkeys(os.path.basename(path) for path in paths)
  return [os.path.join(train_dir, name) for name in names]


def resolve(path: str, which: Optional[str] = None) -> str:
  """Returns the checkpoint that a path means.

  If it is being copied, or written by another machine, waits while it grows.

  Args:
    path: a train directory; or a checkpoint's prefix; or one of its files
      (.index, .data-…, .meta); or a V1 file.
    which: which one of a train directory, as for chosen_folder.

  Raises:
    InputError: there is none, or the path has characters that TensorFlow reads
      as a pattern.
  """
  if not path:
    raise InputError('no checkpoint given: --checkpoint_path takes a train '
                     'directory or a checkpoint')
  path = os.path.expanduser(path)
  checkpoint_files.check_path(path)
  if os.path.isdir(path):
    folder = chosen_folder(path, which)
    begun = _newest_begun(folder)
    is_whole = begun is None or _wait_for_copy(begun)
    prefix = newest(folder)
    if prefix is None and which == BEST:
      raise InputError(
          'no best checkpoint in %s: training keeps one when it evaluates on '
          'validation photos, with cached features or with '
          '--evaluate_every_n_steps' % folder)
    if prefix is None:
      raise InputError('no checkpoint in the folder %s%s' %
                       (folder, _similar_run(path)))
    if folder != path:
      tf.logging.info('Using the best checkpoint, %s; CHECKPOINT=newest, or '
                      '--which_checkpoint=newest, uses the newest', prefix)
    if not is_whole:
      tf.logging.warning('%s is not complete and does not grow; using %s',
                         begun, prefix)
    return prefix
  prefix = re.sub(r'\.(index|meta|data-\d+-of-\d+)$', '', path)
  if not is_checkpoint(prefix):
    raise InputError('no checkpoint at %s: neither %s.index nor a file of that '
                     'name exists%s%s' % (path, prefix, _how_to_get(prefix),
                                          _similar_run(path)))
  _wait_for_copy(prefix)  # If it stays incomplete, reading it fails.
  return prefix


def _how_to_get(prefix):
  """Returns how to download a missing published checkpoint, or ''."""
  from nets import nets_factory  # Slow to import, and only for this message.
  folder, file_name = os.path.split(prefix)
  name = re.sub(r'\.ckpt$', '', file_name)
  if name not in nets_factory.checkpoint_names():
    return ''
  if os.path.basename(folder) == 'checkpoints':
    return '; scripts/download_checkpoint.sh %s downloads it' % name
  return ('; scripts/download_checkpoint.sh %s downloads it to checkpoints/' %
          name)


def _similar_run(train_dir):
  """Returns which existing run a missing train directory may mean, or ''."""
  folder, name = os.path.split(os.path.abspath(train_dir))
  if name != 'train' or os.path.exists(train_dir):
    return ''
  runs_dir, run = os.path.split(folder)
  return did_you_mean(run, [other.name for other in
                            run_list.find_all(runs_dir)])


def check_exists_or_comes(train_dir: str, which: Optional[str] = None) -> None:
  """Checks that a train directory has a checkpoint or that it will get one.

  Args:
    train_dir: folder, which need not exist.
    which: as for chosen_folder.

  Raises:
    InputError: it has none, and no process of this machine trains there.
  """
  if find(train_dir, which) is None and not run_list.is_training(train_dir):
    raise InputError(
        'there is no checkpoint in %s, and no process trains there; '
        './run_train.sh trains, --wait_for_run waits for another machine%s' %
        (chosen_folder(train_dir, which), _similar_run(train_dir)))


def global_step_of(prefix: str) -> int:
  """Returns the step in a checkpoint's name (`model.ckpt-600`), -1 if none."""
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else -1


def read_global_step(prefix: str) -> int:
  """Returns the step stored in a checkpoint, else the one in its name or -1.

  Args:
    prefix: path of a checkpoint, as `resolve` returns it.

  Raises:
    UnreadableCheckpoint: its files are damaged or half copied.
  """
  reader = checkpoint_files.open_reader(prefix)
  if not reader.has_tensor('global_step'):
    return global_step_of(prefix)
  with checkpoint_files.reading(prefix):  # The index may exist without data.
    return int(reader.get_tensor('global_step'))


def restore(saver: Any, session: Any, prefix: str) -> None:
  """Restores variables from a checkpoint that `check_fits` accepted.

  Args:
    saver: tf.train.Saver of the variables.
    session: session of their graph.
    prefix: path of a checkpoint, as `resolve` returns it.

  Raises:
    UnreadableCheckpoint: its files are damaged, gone or half copied.
  """
  with checkpoint_files.reading(prefix):
    saver.restore(session, prefix)


def variables_to_restore(
    moving_average_decay: Optional[float] = None) -> Dict[str, tf.Variable]:
  """Returns the variables that evaluation and export restore.

  Args:
    moving_average_decay: decay of the run's moving averages; None: the plain
      variables.

  Returns:
    {name in the checkpoint: variable} of the default graph, without the global
    step, which published checkpoints may lack (see `read_global_step`). With
    moving averages, pass it to `with_plain_names` before restoring.
  """
  step = tf.train.get_or_create_global_step()
  if moving_average_decay:
    averages = tf.train.ExponentialMovingAverage(moving_average_decay)
    mapping = averages.variables_to_restore(
        tf.get_collection(tf.GraphKeys.MODEL_VARIABLES))
  else:
    mapping = {v.op.name: v for v in tf.global_variables()}
  mapping.pop(step.op.name, None)
  return mapping


def with_plain_names(
    prefix: str, mapping: Dict[str, tf.Variable]) -> Dict[str, tf.Variable]:
  """Maps variables without a moving average in a checkpoint to themselves.

  Training averages only the variables that it changes; slim averaged frozen
  variables too. A checkpoint without any average stays an error of
  `check_fits`.

  Args:
    prefix: path of a checkpoint, as `resolve` returns it.
    mapping: {name in the checkpoint: variable} of `variables_to_restore`.

  Raises:
    UnreadableCheckpoint: its files are damaged or half copied.
  """
  stored = checkpoint_files.open_reader(prefix).get_variable_to_shape_map()
  if not any(name in stored and name != variable.op.name
             for name, variable in mapping.items()):
    return mapping
  return {name if name in stored else variable.op.name: variable
          for name, variable in mapping.items()}


def check_fits(prefix: str, mapping: Dict[str, tf.Variable],
               advice: str) -> None:
  """Checks that a checkpoint has the variables to restore, with their shapes.

  Args:
    prefix: path of a checkpoint, as `resolve` returns it.
    mapping: {name in the checkpoint: variable}.
    advice: what to change if it does not fit; ends the message.

  Raises:
    InputError: variables are missing or have other shapes; it names them.
  """
  shapes = checkpoint_files.open_reader(prefix).get_variable_to_shape_map()
  missing = sorted(set(mapping) - set(shapes))
  if missing:
    raise InputError('%s lacks %s; %s' % (prefix, name_some(missing), advice))
  mismatched = ['%s (checkpoint %s, network %s)' %
                (name, shapes[name], variable.shape.as_list())
                for name, variable in sorted(mapping.items())
                if shapes[name] != variable.shape.as_list()]
  if mismatched:
    raise InputError('%s has different shapes: %s; %s' % (
        prefix, name_some(mismatched),
        colour_advice(shapes, mapping) or advice))


def colour_advice(shapes: Dict[str, List[int]],
                  mapping: Dict[str, tf.Variable]) -> Optional[str]:
  """Returns what to do if only one of checkpoint and network is of grey photos.

  Args:
    shapes: {name: shape} of the variables of the checkpoint.
    mapping: {name in the checkpoint: variable}; the checkpoint has all of them.

  Returns:
    The advice; None if both have as many channels.
  """
  for name, variable in mapping.items():
    # The kernel of the first layer: only photos have one or three channels.
    channels = shapes[name][2:3], variable.shape.as_list()[2:3]
    if channels == ([3], [1]):
      return ('its network takes colour photos: omit --use_grayscale, or train '
              'from scratch')
    if channels == ([1], [3]):
      return ('its network takes grey photos: training, evaluation and export '
              'need --use_grayscale')
  return None


def digest(checkpoint: str) -> str:
  """Returns a digest that identifies a checkpoint's weights.

  The index of a checkpoint has the checksums of all its variables, so only that
  is read; a single file of 2016 is read whole.

  Args:
    checkpoint: prefix of the checkpoint.
  """
  path = checkpoint + '.index'
  return files.sha256_of(path if os.path.isfile(path) else checkpoint)
