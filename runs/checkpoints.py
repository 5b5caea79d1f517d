"""Finding a run's checkpoints, and saying beforehand whether they fit.

Both formats load: the present one (PREFIX.index and PREFIX.data-…) and the
single file of 2016 (TensorFlow's V1 format).
"""

import collections
import glob
import os
import re
import time

import numpy as np

from compat import CHECKPOINT_ERRORS, tf
from downloads import marks
from errors import InputError


class UnreadableCheckpoint(InputError):
  """The files of a checkpoint are there and cannot be read, at least now."""


# A checkpoint that lacks something is being copied as long as it grows: seconds
# for which it may stand still, and between two looks.
COPY_PATIENCE_SECS = 10.0
_LOOK_SECS = 0.5

# TensorFlow reads the path of a checkpoint as a pattern of file names. With
# these characters in the path it may not find the checkpoint, and may delete
# checkpoints of another folder that the pattern matches.
_PATTERN_CHARACTERS = '*?[\\'

# Folder in a train directory with the checkpoint that was most accurate on the
# validation photos, where training keeps one.
BEST_DIR = 'best'

# Which checkpoint of a train directory is taken; see chosen_folder.
BEST, NEWEST = 'best', 'newest'

# How many variables an error names before it only counts them.
_NAMED = 4


def check_path(path):
  """Refuses a path that TensorFlow would read as a pattern of file names.

  Args:
    path: a train directory or a checkpoint.

  Raises:
    InputError: the path has one of the characters of a pattern.
  """
  if any(character in path for character in _PATTERN_CHARACTERS):
    raise InputError(
        '%s: a path to checkpoints must not contain any of %s, because '
        'TensorFlow reads them as a pattern of file names; rename the folder '
        'or give another one' % (path, ' '.join(_PATTERN_CHARACTERS)))


def is_complete(prefix):
  """Whether a checkpoint's files are there, as long as its index says.

  A checkpoint that is being copied lacks some: TensorFlow writes the index
  last, copying tools do not.

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


def _shards(prefix):
  """Returns the paths of a checkpoint's .data-… files."""
  return [path for path in glob.glob(glob.escape(prefix) + '.data-*')
          if re.search(r'\.data-\d+-of-\d+$', path)]


def newest(train_dir):
  """Returns the newest complete checkpoint of a train directory, or None.

  TensorFlow's own list decides which is the newest. Where that list is missing
  or names files that are gone, the global step in the file names does.

  Args:
    train_dir: folder, which need not exist.

  Raises:
    InputError: the path has characters that TensorFlow reads as a pattern.
  """
  check_path(train_dir)
  found = [p[:-len('.index')] for p in
           glob.glob(os.path.join(glob.escape(train_dir), '*.index'))]
  found.sort(key=global_step_of, reverse=True)
  for prefix in listed(train_dir) + found:
    if is_complete(prefix):
      return prefix
  return None


def chosen_folder(train_dir, which=None):
  """Returns the folder with the checkpoint to take from a train directory.

  Evaluation, report, exports and fine-tuning all use this rule, and take the
  newest checkpoint of that folder.

  Args:
    train_dir: folder, which need not exist.
    which: BEST or NEWEST; None: the best one where training keeps one, else the
      newest.
  """
  best = os.path.join(train_dir, BEST_DIR)
  if which == BEST:
    return best
  # While one is copied, its index or TensorFlow's list may come first.
  kept = listed(best) or glob.glob(os.path.join(glob.escape(best), '*.index'))
  return best if which is None and kept else train_dir


def find(train_dir, which=None):
  """Returns the complete checkpoint to take from a train directory, or None.

  Args:
    train_dir: folder, which need not exist.
    which: as for chosen_folder.
  """
  return newest(chosen_folder(train_dir, which))


def _newest_begun(train_dir):
  """Returns the checkpoint that is, or will be, the newest; None for none.

  Of one that is being copied some files are missing, or all but its name in
  TensorFlow's list.
  """
  return (listed(train_dir) or [None])[0]


def _files(prefix):
  """Returns the paths of what is there of a checkpoint."""
  return glob.glob(glob.escape(prefix) + '.*') + glob.glob(glob.escape(prefix))


def _size(prefix):
  """Returns how many bytes of a checkpoint are there."""
  total = 0
  for path in _files(prefix):
    try:
      total += os.path.getsize(path)
    except FileNotFoundError:  # The copying tool has renamed it.
      pass
  return total


def _wait_for_copy(prefix):
  """Waits while a checkpoint that is not complete grows.

  Returns:
    Whether it is complete.
  """
  if is_complete(prefix):
    return True
  tf.logging.info('%s is not complete; waiting in case it is being copied',
                  prefix)
  size, since = _size(prefix), time.monotonic()
  while time.monotonic() < since + COPY_PATIENCE_SECS:
    time.sleep(_LOOK_SECS)
    if is_complete(prefix):
      return True
    if _size(prefix) != size:
      size, since = _size(prefix), time.monotonic()
  return False


def is_checkpoint(prefix):
  """Whether a path names a checkpoint of either format."""
  return os.path.isfile(prefix + '.index') or os.path.isfile(prefix)


def listed(train_dir):
  """Returns the checkpoints of TensorFlow's own list, newest first.

  All are in this folder, where they may be missing. The paths in a list may be
  absolute. In a folder that was copied or renamed, they lead to the original or
  to another run that has its name now.

  Args:
    train_dir: folder, which need not exist.
  """
  try:
    state = tf.train.get_checkpoint_state(train_dir)
  except ValueError:  # The list is there and still empty.
    return []
  if state is None:
    return []
  paths = [state.model_checkpoint_path]
  paths += reversed(state.all_model_checkpoint_paths)
  names = collections.OrderedDict.fromkeys(map(os.path.basename, paths))
  return [os.path.join(train_dir, name) for name in names]


def resolve(path, which=None):
  """Returns the checkpoint that a user means.

  One that is being copied, or written by another machine, is waited for while
  it grows.

  Args:
    path: a train directory; or a checkpoint's prefix; or one of its files
      (.index, .data-…, .meta); or a V1 file.
    which: of a train directory, as for chosen_folder.

  Raises:
    InputError: there is none, or the path has characters that TensorFlow reads
      as a pattern.
  """
  if not path:
    raise InputError('no checkpoint given: --checkpoint_path takes a train '
                     'directory or a checkpoint')
  path = os.path.expanduser(path)
  check_path(path)
  if os.path.isdir(path):
    folder = chosen_folder(path, which)
    begun = _newest_begun(folder)
    whole = begun is None or _wait_for_copy(begun)
    prefix = newest(folder)
    if prefix is None and which == BEST:
      raise InputError(
          'no best checkpoint in %s: training keeps one when it is evaluated '
          'meanwhile on validation photos, on features or with '
          '--evaluate_every_n_steps' % folder)
    if prefix is None:
      raise InputError('no checkpoint in the folder %s' % folder)
    if folder != path:
      tf.logging.info('Taking the best checkpoint, %s; CHECKPOINT=newest, or '
                      '--which_checkpoint=newest, takes the newest', prefix)
    if not whole:
      tf.logging.warning('%s is not complete and does not grow; %s is taken',
                         begun, prefix)
    return prefix
  prefix = re.sub(r'\.(index|meta|data-\d+-of-\d+)$', '', path)
  if not is_checkpoint(prefix):
    raise InputError('no checkpoint at %s: neither %s.index nor a file of that '
                     'name is there' % (path, prefix))
  _wait_for_copy(prefix)  # What is wrong after that shows when it is read.
  return prefix


def global_step_of(prefix):
  """Returns the step in a checkpoint's name (`model.ckpt-600`), -1 if none."""
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else -1


def read_global_step(prefix):
  """Returns the step that a checkpoint holds, else that in its name, else -1.

  Args:
    prefix: path of a checkpoint, as `resolve` returns it.

  Raises:
    UnreadableCheckpoint: its files are damaged or half copied.
  """
  reader = open_reader(prefix)
  if not reader.has_tensor('global_step'):
    return global_step_of(prefix)
  try:
    return int(reader.get_tensor('global_step'))
  except CHECKPOINT_ERRORS as error:  # The index is there, its data is not.
    raise _unreadable(prefix, error)


def open_reader(prefix):
  """Returns TensorFlow's reader of a checkpoint of either format.

  Raises:
    UnreadableCheckpoint: the files are damaged, too short or no checkpoint.
  """
  try:
    reader = tf.train.NewCheckpointReader(prefix)
    if os.path.isfile(prefix + '.index'):
      _check_length(reader, prefix)
  except CHECKPOINT_ERRORS as error:
    raise _unreadable(prefix, error)
  return reader


def _check_length(reader, prefix):
  """Raises ValueError where the .data-… files are too short for the index.

  TensorFlow would notice when it reads the last variables. The index of the
  single-file format is that file's end.
  """
  shapes = reader.get_variable_to_shape_map()
  wanted = 0
  for name, dtype in reader.get_variable_to_dtype_map().items():
    if dtype == tf.string:  # Its length is nowhere but in the data.
      texts = np.ravel(reader.get_tensor(name))
      wanted += sum(1 + len(text) for text in texts)  # 1: how long it is.
    else:
      wanted += dtype.size * int(np.prod(shapes[name], dtype=np.int64))
  try:
    have = sum(map(os.path.getsize, _shards(prefix)))
  except FileNotFoundError:  # Training has just removed it.
    have = 0
  if have < wanted:
    raise ValueError('its data has %d bytes, its index says %d' %
                     (have, wanted))


def restore(saver, session, prefix):
  """Restores variables from a checkpoint that was seen to fit.

  Args:
    saver: tf.train.Saver of the variables.
    session: session of their graph.
    prefix: path of a checkpoint, as `resolve` returns it.

  Raises:
    UnreadableCheckpoint: its files are damaged, gone or half copied.
  """
  try:
    saver.restore(session, prefix)
  except CHECKPOINT_ERRORS as error:
    raise _unreadable(prefix, error)


def _unreadable(prefix, error):
  return UnreadableCheckpoint('%s cannot be read: %s' %
                              (prefix, str(error).split('\n')[0]))


def variables_to_restore(moving_average_decay=None):
  """Returns what evaluation and export restore in the default graph.

  Args:
    moving_average_decay: decay of the run's moving averages; None takes the
      variables as the last step left them.

  Returns:
    {name in the checkpoint: variable} without the global step, which published
    checkpoints may lack; `read_global_step` has it. With averages, it is to be
    given to `with_plain_names` before anything is read.
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


def with_plain_names(prefix, mapping):
  """Returns a mapping in which what a checkpoint has no average of is itself.

  Training averages what it changes; slim averaged frozen variables too. A
  checkpoint without any average stays an error of `check_fits`.

  Args:
    prefix: path of a checkpoint, as `resolve` returns it.
    mapping: {name in the checkpoint: variable} of `variables_to_restore`.

  Raises:
    UnreadableCheckpoint: its files are damaged or half copied.
  """
  there = open_reader(prefix).get_variable_to_shape_map()
  if not any(name in there and name != variable.op.name
             for name, variable in mapping.items()):
    return mapping
  return {name if name in there else variable.op.name: variable
          for name, variable in mapping.items()}


def check_fits(prefix, mapping, advice):
  """Compares a checkpoint with the variables that will be read from it.

  Args:
    prefix: path of a checkpoint, as `resolve` returns it.
    mapping: {name in the checkpoint: variable}.
    advice: what to change when it does not fit; ends the message.

  Raises:
    InputError: names the missing variables, or those of another shape.
  """
  shapes = open_reader(prefix).get_variable_to_shape_map()
  missing = sorted(set(mapping) - set(shapes))
  if missing:
    raise InputError('%s lacks %s; %s' % (prefix, name_some(missing), advice))
  other = ['%s (there %s, here %s)' %
           (name, shapes[name], variable.shape.as_list())
           for name, variable in sorted(mapping.items())
           if shapes[name] != variable.shape.as_list()]
  if other:
    raise InputError('%s has other shapes: %s; %s' %
                     (prefix, name_some(other), advice))


def name_some(names):
  """Returns the first few names, and how many more there are."""
  text = ', '.join(names[:_NAMED])
  more = len(names) - _NAMED
  return text if more <= 0 else '%s and %d more' % (text, more)


def digest(checkpoint):
  """Returns what tells a checkpoint's weights from others.

  The index of a checkpoint has the checksums of all its variables; the single
  file of 2016 is read as a whole.

  Args:
    checkpoint: prefix of the checkpoint.
  """
  path = checkpoint + '.index'
  return marks.sha256_of(path if os.path.isfile(path) else checkpoint)
