"""Training steps that fit the head over layers exactly.

Each step is one point of the regularization path: the linear layer is fitted
to all training photos, from strong regularization to the factor that
cross-validation on them has chosen. The last step also fits the kernel. The
validation photos are evaluated at each point, but do not choose it.
"""

import json
import os
import time
from typing import Any, Dict, List, Optional

import numpy as np

from common import files
from compat import tf
from nets import layers_head
from training import exact_fit, head_graph, head_loop, loop, losses, start
from training.validation_history import ValidationHistory

# In the train directory: the path, and what it was computed from.
FILE_NAME = 'head.json'

_AVERAGE = '/ExponentialMovingAverage'

# Photos per pass through the layers between the cached features and the head.
_BATCH = 256


class ExactHeadStep(head_loop.HeadStep):
  """Steps along the regularization path, for `loop.run`.

  Args:
    stop: a loop.StopRequest.
    graph: a HeadGraph of the default graph.
    open_caches: a head_loop.OpenCaches function.
    history: a ValidationHistory of the run.
    run: start.Run, with a layers_head.Head.
  """

  def __init__(self, stop: loop.StopRequest, graph: head_graph.HeadGraph,
               open_caches: head_loop.OpenCaches, history: ValidationHistory,
               run: start.Run) -> None:
    super().__init__(stop, graph, open_caches, history, run.config)
    self._run = run
    self._class_weights = losses.make_class_weights(
        run.config.class_weights, run.info, run.config.dataset_split_name)
    self._assign = _Assignment()
    self._choice: Optional[exact_fit.Choice] = None
    self._linear: Optional[exact_fit.Linear] = None
    self._first_step = 0
    self._is_fitted = False
    self._ends_by_steps = False

  def check(self, session: tf.Session) -> None:
    """Opens the caches; finds out whether their features are fitted already."""
    self._caches, self._forward = self._open_caches(session)
    state = _read(self._config.train_dir)
    self._first_step = int(self.step)
    if state.get('of') == self._facts():
      self._is_fitted = self.step >= state['last_step']
      self._first_step = min(state['first_step'], int(self.step))

  def take(self, session: tf.Session, train_op: tf.Tensor,
           global_step: tf.Variable,
           train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Fits the next point; returns the loss and whether it was the last."""
    if self._batches is None or not (self._choice or self._prepare(session)):
      return None, True  # Nothing to do, or stopped while computing.
    assert self._choice is not None
    begin = time.time()
    path = self._choice.path
    index = self.step - self._first_step
    last = index == len(path) - 1
    self._linear = exact_fit.fit_linear(
        self._choice.table, path[index],
        self._choice.starts.get(path[index], self._linear), is_rough=not last)
    with self.lock:
      self._assign(session, self._values(last))
    step = self.step + 1
    tf.logging.info('global step %d: loss = %.4f (%.3f sec/step)', step,
                    self._linear.loss, time.time() - begin)
    self._summarize(step, path[index])
    if self._validation:
      assert self.summaries is not None
      self._validation.note(self._linear.loss)
      self._validation.evaluate(session, step, self.summaries.writer, True)
    elif last:
      self._history.forget_best()
    if last:
      tf.logging.info(
          'Stopping: the head is fitted as cross-validation has chosen, with '
          'the lower layers times %g and the L2 regularization %g',
          self._choice.lower_scale, path[index])
    return self._linear.loss, last

  def end_step(self) -> Optional[int]:
    """Returns the last step of the path, None before it is known."""
    return self._choice and self._first_step + len(self._choice.path)

  def _is_over(self):
    return self._is_fitted

  def _describe_end(self):
    return 'the head is fitted to these photos'

  def _facts(self):
    """Returns what the path depends on."""
    config = self._config
    views: Dict[str, Any] = {}
    if config.cache_views:
      views = dict(cache_views=config.cache_views, seed=config.seed)
    return dict(
        views, records={split: cache.records
                 for split, cache in self._caches.items()},
        label_smoothing=config.label_smoothing,
        class_weights=config.class_weights, head=self._run.info.head)

  def _prepare(self, session):
    """Chooses the path; returns False after a stop request."""
    graph, cache = self._graph, self._caches[head_loop.TRAIN]
    graph.twin.load(session)
    self._choice = exact_fit.choose(
        exact_fit.make_table(
            graph.twin.features(_all_rows(cache)), graph.twin.last_size,
            cache.labels(), len(self._run.info.labels),
            self._config.label_smoothing, self._class_weights),
        tf.logging.info, lambda: self.stop_requested)
    if self._choice is None:
      return False
    last_step = self._first_step + len(self._choice.path)
    if self.step >= last_step:  # The path of an interrupted run was longer.
      self._first_step, last_step = int(self.step), (
          int(self.step) + len(self._choice.path))
    files.write_text(
        os.path.join(self._config.train_dir, FILE_NAME), json.dumps(dict(
            of=self._facts(), first_step=self._first_step, last_step=last_step,
            lower_scale=self._choice.lower_scale, l2=self._choice.l2,
            folds=exact_fit.NUM_FOLDS,
            tried=self._choice.tried), indent=1) + '\n')
    return True

  def _values(self, last):
    """Returns {name in the scope: value} of the head's variables."""
    head, kernel = self._run.info.head, None
    if last and head == layers_head.KERNEL:
      kernel = exact_fit.fit_kernel(self._choice.table, self._choice.logits,
                                    self._run.info.support_points,
                                    tf.logging.info)
    values: Dict[str, Any] = exact_fit.head_values(
        self._choice.table, self._linear, kernel)
    if head == layers_head.KERNEL and not last:
      values['Kernel/share'] = 0.0  # That of an earlier fit.
    return values

  def _summarize(self, step, l2):
    values = {'total_loss': self._linear.loss,
              'batch_accuracy': self._linear.accuracy, 'head/l2': l2}
    for factor, loss, accuracy in self._choice.tried:
      if factor == l2:
        values.update({'head/fold_loss': loss, 'head/fold_accuracy': accuracy})
    self.summaries.writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=value)
        for tag, value in values.items()]), step)


class _Assignment:
  """Assigns values to the variables of the head, and to their averages."""

  def __init__(self) -> None:
    self._values: Dict[str, tf.Tensor] = {}
    self._ops: Dict[str, List[tf.Operation]] = {}
    prefix = layers_head.SCOPE + '/'
    for variable in tf.global_variables():
      name = variable.op.name
      if name.endswith(_AVERAGE):
        name = name[:-len(_AVERAGE)]
      if not name.startswith(prefix):
        continue
      name = name[len(prefix):]
      if name not in self._values:
        self._values[name] = tf.placeholder(
            variable.dtype.base_dtype, variable.shape)
      self._ops.setdefault(name, []).append(
          tf.assign(variable, self._values[name]).op)
    self._count = tf.assign_add(tf.train.get_global_step(), 1).op

  def __call__(self, session: tf.Session, values: Dict[str, Any]) -> None:
    """Assigns {name in the scope: value}, and counts a step."""
    # Optimizer slots of the same scope have other names than those given here.
    session.run([self._ops[name] for name in values],
                {self._values[name]: value for name, value in values.items()})
    session.run(self._count)


def _all_rows(cache):
  """Yields all rows of a cache: lists of arrays."""
  features = cache.features()
  for begin in range(0, cache.num_rows, _BATCH):
    yield [np.asarray(feature[begin:begin + _BATCH]) for feature in features]


def _read(train_dir: str) -> Dict[str, Any]:
  try:
    with open(os.path.join(train_dir, FILE_NAME)) as file:
      state = json.load(file)
    return dict(state, first_step=int(state['first_step']),
                last_step=int(state['last_step']))
  except (OSError, ValueError, KeyError, TypeError):
    return {}
