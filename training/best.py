"""How a run got on: its evaluations, and its best checkpoint.

`validation.jsonl` in the train directory has a line an evaluation; `best/` has
the checkpoint of the best, by accuracy, then by loss. Both survive the process:
a run that goes on knows how long it has not got better.
"""

import glob
import json
import os

from compat import tf
from runs import checkpoints, run_info

FILE_NAME = 'validation.jsonl'


class Progress:
  """The evaluations of a run.

  Args:
    train_dir: folder of the run.
    info: its RunInfo.
    saver: tf.train.Saver of its variables, with max_to_keep=1.
    global_step: variable.
    step: global step that the run goes on from; later evaluations, of steps
      that a killed process has lost, are left out.
  """

  def __init__(self, train_dir, info, saver, global_step, step=0):
    self._path = os.path.join(train_dir, FILE_NAME)
    self._folder = os.path.join(train_dir, checkpoints.BEST_DIR)
    self._info = info
    self._saver = saver
    self._global_step = global_step
    self._best = read_best(self._folder)
    # Without the best checkpoint nothing says what a better one is.
    self._lines = []
    if self._best:
      self._lines = [line for line in _read_lines(self._path)
                     if line['step'] <= step]

  @property
  def best(self):
    """The line of the best evaluation: step, accuracy, loss; None before."""
    return self._best

  def is_over(self, patience):
    """Whether so many evaluations have not been more accurate than before.

    The loss is not asked: where all photos are right it falls without end.

    Args:
      patience: number of evaluations; 0 never ends.
    """
    return bool(patience) and self._evaluations_since_gain() >= patience

  def _evaluations_since_gain(self):
    """Returns how many there were since the accuracy was last surpassed."""
    if not self._lines:
      return 0
    best = max(line['accuracy'] for line in self._lines)
    since = min(line['step'] for line in self._lines
                if line['accuracy'] == best)
    return sum(line['step'] > since for line in self._lines)

  def add(self, session, step, accuracy, loss, train_loss=None):
    """Notes an evaluation, and saves the checkpoint where it is the best.

    Args:
      session: of the run, with its variables at `step`.
      step: global step.
      accuracy: share of the validation photos.
      loss: mean cross entropy of the validation photos.
      train_loss: mean loss of the steps since the last evaluation, if known.
    """
    line = {'step': int(step), 'accuracy': accuracy, 'loss': loss}
    if train_loss is not None:
      line['train_loss'] = train_loss
    is_best = self._best is None or _rank(line) > _rank(self._best)
    self._lines.append(line)
    write_aside(self._path, [json.dumps(line) for line in self._lines])
    if is_best:
      self._save(session, line)
    tf.logging.info(
        'Validation accuracy at step %d: %.4f (best %.4f at step %d)', step,
        accuracy, self._best['accuracy'], self._best['step'])

  def _save(self, session, line):
    os.makedirs(self._folder, exist_ok=True)
    # First: whoever finds the checkpoint finds its facts.
    run_info.save(self._folder, self._info)
    prefix = self._saver.save(
        session, os.path.join(self._folder, 'model.ckpt'),
        global_step=self._global_step, write_meta_graph=False)
    self._best = line
    write_aside(os.path.join(self._folder, run_info.BEST_FILE_NAME),
                [json.dumps(line)])
    # Those of a process that was killed, too.
    for path in glob.glob(os.path.join(glob.escape(self._folder),
                                       'model.ckpt-*')):
      if not path.startswith(prefix + '.'):
        os.remove(path)

  def describe(self):
    """Returns a sentence on the best evaluation."""
    return ('the best validation accuracy, %.4f, has stood for %d evaluations; '
            'the checkpoint of step %d is in %s' % (
                self._best['accuracy'], self._evaluations_since_gain(),
                self._best['step'], self._folder))


def _rank(line):
  return line['accuracy'], -line['loss']


def write_aside(path, lines):
  """Writes lines to a file: it is there whole, or as it was."""
  aside = '%s.%d.tmp' % (path, os.getpid())
  with open(aside, 'w') as file:
    file.writelines(line + '\n' for line in lines)
    file.flush()
    os.fsync(file.fileno())
  os.replace(aside, path)


def _read_lines(path):
  try:
    with open(path) as file:
      return [json.loads(text) for text in file]
  except (OSError, ValueError):  # Not there, or damaged: a list begins anew.
    return []


def read_best(folder):
  """Returns the line of the checkpoint in a folder `best`; None without."""
  try:
    with open(os.path.join(folder, run_info.BEST_FILE_NAME)) as file:
      return json.load(file)
  except (OSError, ValueError):
    return None
