"""How a run got on: its evaluations, and its best checkpoint.

`validation.jsonl` in the train directory has a line an evaluation; `best/` has
the checkpoint of the best, by accuracy, then by loss. Both survive the process:
a run that goes on knows how long it has not got better.
"""

import json
import os

from compat import tf
from runs import run_info

FILE_NAME = 'validation.jsonl'
BEST_DIR = 'best'
_BEST_FILE = 'best.json'


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
    self._folder = os.path.join(train_dir, BEST_DIR)
    self._info = info
    self._saver = saver
    self._global_step = global_step
    self._lines = [line for line in _read_lines(self._path)
                   if line['step'] <= step]
    self._best = _read_best(self._folder)

  @property
  def evaluations_since_best(self):
    if self._best is None:
      return 0
    return sum(line['step'] > self._best['step'] for line in self._lines)

  def add(self, session, step, accuracy, loss):
    """Notes an evaluation, and saves the checkpoint where it is the best.

    Args:
      session: of the run, with its variables at `step`.
      step: global step.
      accuracy: share of the validation photos.
      loss: mean cross entropy of the validation photos.
    """
    line = {'step': int(step), 'accuracy': accuracy, 'loss': loss}
    is_best = self._best is None or _rank(line) > _rank(self._best)
    self._lines.append(line)
    with open(self._path, 'w') as file:
      file.writelines(json.dumps(line) + '\n' for line in self._lines)
    if is_best:
      os.makedirs(self._folder, exist_ok=True)
      self._saver.save(session, os.path.join(self._folder, 'model.ckpt'),
                       global_step=self._global_step, write_meta_graph=False)
      run_info.save(self._folder, self._info)
      self._best = line
      with open(os.path.join(self._folder, _BEST_FILE), 'w') as file:
        json.dump(line, file)
    tf.logging.info(
        'Validation accuracy at step %d: %.4f (best %.4f at step %d)', step,
        accuracy, self._best['accuracy'], self._best['step'])

  def describe(self):
    """Returns a sentence on the best evaluation."""
    return ('the best validation accuracy, %.4f at step %d, has stood for %d '
            'evaluations; its checkpoint is in %s' % (
                self._best['accuracy'], self._best['step'],
                self.evaluations_since_best, self._folder))


def _rank(line):
  return line['accuracy'], -line['loss']


def _read_lines(path):
  """Returns the lines of a file that another process may have half written."""
  lines = []
  try:
    with open(path) as file:
      for text in file:
        lines.append(json.loads(text))
  except (OSError, ValueError):
    pass
  return lines


def _read_best(folder):
  try:
    with open(os.path.join(folder, _BEST_FILE)) as file:
      return json.load(file)
  except (OSError, ValueError):
    return None
