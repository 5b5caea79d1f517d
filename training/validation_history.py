"""Validation history and best checkpoint of a run.

`validation.jsonl` in the train directory has one line per evaluation; `best/`
has the best checkpoint, by accuracy, then by loss. Both outlive the process: a
resumed run knows how many evaluations ago it last improved.
"""

import glob
import json
import os
import shutil
from typing import Any, Dict, List, Optional

from common import files
from compat import tf
from runs import checkpoints, run_info

FILE_NAME = 'validation.jsonl'

# Of one line: step, accuracy, loss, and train_loss if known.
Evaluation = Dict[str, Any]


class ValidationHistory:
  """The validation history of a run.

  Args:
    train_dir: folder of the run.
    info: its RunInfo.
    saver: tf.train.Saver of its variables, with max_to_keep=1.
    global_step: variable.
    step: global step that the run resumes from; evaluations of later steps,
      which a killed process has lost, are dropped.
    data: identifies the photos; None: unknown. Evaluations of a run on other
      photos stay in the file, but do not count.
  """

  def __init__(self, train_dir: str, info: run_info.RunInfo,
               saver: tf.train.Saver, global_step: tf.Variable,
               step: int = 0, data: Optional[str] = None) -> None:
    self._path = os.path.join(train_dir, FILE_NAME)
    self._folder = os.path.join(train_dir, checkpoints.BEST_DIR)
    self._info = info
    self._saver = saver
    self._global_step = global_step
    self._data = data
    self._best = read_best(self._folder)
    # Without the best checkpoint there is nothing to compare with.
    self._former: List[Evaluation] = []
    self._lines: List[Evaluation] = []
    if self._best:
      for line in _read_lines(self._path):
        if line['step'] <= step:
          (self._lines if self._is_same(line) else self._former).append(line)
      if not self._is_same(self._best):
        self._best = None
        # Their checkpoint was replaced by that of other photos.
        self._former = sorted(self._former + self._lines,
                              key=lambda line: line['step'])
        self._lines = []

  def _is_same(self, line):
    """Whether an evaluation is one of a run on the same photos."""
    return self._data is None or line.get('data', self._data) == self._data

  @property
  def best(self) -> Optional[Evaluation]:
    """Step, accuracy and loss of the best evaluation; None before the first."""
    return self._best

  def forget_best(self) -> None:
    """Removes the best checkpoint, which is of other photos."""
    shutil.rmtree(self._folder, ignore_errors=True)
    self._best = None

  def is_over(self, patience: int) -> bool:
    """Whether accuracy has not improved for `patience` evaluations.

    The loss does not count: it keeps falling when all photos are right.

    Args:
      patience: number of evaluations; 0: never over.
    """
    return bool(patience) and self._evaluations_since_gain() >= patience

  def end_step(self, patience: int, every: int) -> Optional[int]:
    """Returns the step at which training ends if accuracy does not improve.

    Args:
      patience: as for is_over.
      every: steps from one evaluation to the next.
    """
    if not patience:
      return None
    last = self._lines[-1]['step'] if self._lines else 0
    return last + every * (patience - self._evaluations_since_gain())

  def _evaluations_since_gain(self):
    """Returns the number of evaluations since accuracy last improved."""
    if not self._lines:
      return 0
    best = max(line['accuracy'] for line in self._lines)
    since = min(line['step'] for line in self._lines
                if line['accuracy'] == best)
    return sum(line['step'] > since for line in self._lines)

  def add(self, session: tf.Session, step: int, accuracy: float, loss: float,
          train_loss: Optional[float] = None,
          is_best: Optional[bool] = None) -> None:
    """Records an evaluation, and saves the checkpoint if it is the best.

    Args:
      session: of the run, with its variables at `step`.
      step: global step.
      accuracy: share of the validation photos.
      loss: mean cross entropy of the validation photos.
      train_loss: mean loss of the steps since the last evaluation, if known.
      is_best: whether this is the best checkpoint; the first one always is.
        None: by its results.
    """
    line: Evaluation = {
        'step': int(step), 'accuracy': accuracy, 'loss': loss}
    if train_loss is not None:
      line['train_loss'] = train_loss
    if self._data is not None:
      line['data'] = self._data
    self._lines.append(line)
    files.write_text(self._path, ''.join(json.dumps(line) + '\n'
                                         for line in self._former +
                                         self._lines))
    best = self._best
    if best is None or (
        _rank(line) > _rank(best) if is_best is None else is_best):
      self._save(session, line)
      best = line
    tf.logging.info(
        'Validation accuracy at step %d: %.4f (best %.4f at step %d)', step,
        accuracy, best['accuracy'], best['step'])

  def _save(self, session, line):
    os.makedirs(self._folder, exist_ok=True)
    # Written first, so that the checkpoint is never there without its facts.
    run_info.save(self._folder, self._info)
    prefix = self._saver.save(
        session, os.path.join(self._folder, 'model.ckpt'),
        global_step=self._global_step, write_meta_graph=False)
    self._best = line
    files.write_text(os.path.join(self._folder, run_info.BEST_FILE_NAME),
                     json.dumps(line) + '\n')
    # Removes those of killed processes too.
    for path in glob.glob(os.path.join(glob.escape(self._folder),
                                       'model.ckpt-*')):
      if not path.startswith(prefix + '.'):
        os.remove(path)

  def describe(self) -> str:
    """Returns a description of the best evaluation, for log messages."""
    assert self._best is not None  # Without one the history is empty.
    return ('the best validation accuracy, %.4f, has not improved for %d '
            'evaluations; the checkpoint of step %d is in %s' % (
                self._best['accuracy'], self._evaluations_since_gain(),
                self._best['step'], self._folder))


def _rank(line):
  return line['accuracy'], -line['loss']


def _read_lines(path):
  try:
    with open(path) as file:
      return [json.loads(text) for text in file]
  except (OSError, ValueError):  # Missing or damaged: start a new history.
    return []


def read_best(folder: str) -> Optional[Evaluation]:
  """Returns the evaluation of the checkpoint in a folder `best`, or None."""
  try:
    with open(os.path.join(folder, run_info.BEST_FILE_NAME)) as file:
      return json.load(file)
  except (OSError, ValueError):
    return None
