"""Training of a head on cached features of a frozen backbone.

The features are computed once; each step then trains only the head. Those of
the validation photos are cached too, so an evaluation is quick: the run is
evaluated during training, keeps its best checkpoint, and ends when it no longer
improves.
"""

import collections
import os
import time
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

import numpy as np

from common.errors import InputError
from common.progress import Progress
from compat import slim, tf
from nets import frozen_backbone
from runs import feature_cache, known_rows
from runtime import forward_pass
from training import head_graph, loop, losses, validation
from training.config import TrainConfig
from training.validation_history import ValidationHistory

# {split: its FeatureCache}.
Caches = Dict[str, feature_cache.FeatureCache]

# Opens the caches of a session, and loads the forward pass that computes what
# they lack; None if they lack nothing.
OpenCaches = Callable[[tf.Session],
                      Tuple[Caches, Optional[forward_pass.ForwardPass]]]

# Bounds of the steps from one evaluation to the next, by default an epoch.
_EVALUATION_STEPS = (20, 500)

# Length of training without validation photos to stop by: epochs that are
# enough for a classifier on features, and bounds of the number of steps.
_UNVALIDATED_EPOCHS = 60
_UNVALIDATED_STEPS = (500, 20000)

# Validation photos per batch.
_VALIDATION_BATCH = 256

TRAIN, VALIDATION = 'train', 'validation'


class HeadStep(loop.TrainStep):
  """Training steps of the head, for `loop.run`.

  Args:
    stop: a loop.StopRequest.
    graph: a HeadGraph.
    open_caches: an OpenCaches function.
    history: a ValidationHistory of the run.
    config: TrainConfig of the run.
  """

  def __init__(self, stop: loop.StopRequest, graph: head_graph.HeadGraph,
               open_caches: OpenCaches,
               history: ValidationHistory, config: TrainConfig) -> None:
    super().__init__(stop)
    self._graph = graph
    self._open_caches = open_caches
    self._forward: Optional[forward_pass.ForwardPass] = None
    self._history = history
    self._config = config
    self._random = np.random.RandomState(config.seed)
    self._caches: Caches = {}
    self._validation: Optional[validation.Validation] = None
    self._batches: Optional[Iterator[feature_cache.Batch]] = None
    self._last_step = config.max_number_of_steps
    self._ends_by_steps = True

  def check(self, session: tf.Session) -> None:
    """Opens the caches, and checks that missing features can be written."""
    if not self._is_over():
      self._caches, self._forward = self._open_caches(session)

  def begin(self, session: tf.Session) -> None:
    """Computes the missing features."""
    if self._is_over():
      tf.logging.info('Nothing to do: %s', self._describe_end())
      return
    caches = self._caches
    for split, cache in caches.items():
      if not fill(session, split, cache, self._graph.backbone.passes,
                  self._forward, lambda: self.stop_requested):
        return
    if self._forward is not None:
      self._forward.close()
    self._show_photos(session)
    self._batches = caches[TRAIN].training_batches(
        self._config.batch_size, self._random)
    epoch = -(-caches[TRAIN].num_rows // self._config.batch_size)
    self._evaluation_steps = (self._config.evaluate_every_n_steps or
                              int(np.clip(epoch, *_EVALUATION_STEPS)))
    if VALIDATION in caches:
      cache = caches[VALIDATION]
      self._validation = validation.Validation(
          self._graph.twin, self._history,
          lambda: cache.batches(_VALIDATION_BATCH))
    elif (self._ends_by_steps and self._last_step is None and
          self._config.early_stop_evals):
      self._last_step = int(np.clip(_UNVALIDATED_EPOCHS * epoch,
                                    *_UNVALIDATED_STEPS))
      tf.logging.info(
          'No validation photos to decide when to stop: ending at step %d; '
          '--max_number_of_steps sets another end',
          self._last_step)

  def take(self, session: tf.Session, train_op: tf.Tensor,
           global_step: tf.Variable,
           train_step_kwargs: Dict[str, tf.Tensor]) -> loop.StepResult:
    """Trains on one batch; returns the loss and whether it was the last."""
    if self._batches is None or self._is_past_the_end():
      return None, True  # Nothing to do, or stopped while computing.
    start = time.time()
    feed = self._feed(next(self._batches))
    loss, _ = self.run(session, train_op, global_step, feed)
    step = self.step + 1
    if step % self._config.log_every_n_steps == 0:
      tf.logging.info('global step %d: loss = %.4f (%.3f sec/step)', step, loss,
                      time.time() - start)
    last = step == self._last_step
    if self._validation:
      self._validation.note(loss)
      if last or step % self._evaluation_steps == 0:
        assert self.summaries is not None  # This process is the chief.
        self._validation.evaluate(session, step, self.summaries.writer)
        if self._is_over():
          tf.logging.info('Stopping: %s', self._history.describe())
          last = True
    return loss, last

  def end_step(self) -> Optional[int]:
    """Returns the step to end at if accuracy does not improve."""
    end = None
    if self._validation:
      end = self._history.end_step(self._config.early_stop_evals,
                                   self._evaluation_steps)
    return min(filter(None, (self._last_step, end)), default=None)

  def _feed(self, batch):
    """Returns the feed of a step on a batch of features."""
    if not self._config.mixup_alpha:
      return {**self._graph.backbone.cut.feed(batch.features),
              self._graph.labels: batch.labels}
    num_classes = self._graph.targets.shape.as_list()[1]
    features, targets = losses.mix_features(
        batch.features, np.eye(num_classes, dtype=np.float32)[batch.labels],
        self._config.mixup_alpha, self._random)
    return {**self._graph.backbone.cut.feed(features),
            self._graph.targets: targets}

  def _describe_end(self):
    return self._history.describe() + '; --early_stop_evals=0 continues'

  def _is_over(self):
    return self._history.is_over(self._config.early_stop_evals)

  def _is_past_the_end(self):
    return self._last_step is not None and self.step >= self._last_step

  def _show_photos(self, session):
    """Writes a summary of some training photos, augmented if views are."""
    passes = self._graph.backbone.passes
    view = max(view for split, view in passes.starts if split == TRAIN)
    session.run(passes.starts[TRAIN, view], {
        passes.wanted: np.ones([self._caches[TRAIN].num_photos], bool)})
    self.summaries.writer.add_summary(
        session.run(self._graph.photo_summary), self.step)


def fill(session: tf.Session, split: str, cache: feature_cache.FeatureCache,
         passes: head_graph.PhotoPasses,
         forward: Optional[forward_pass.ForwardPass],
         stop_requested: Callable[[], bool] = lambda: False) -> bool:
  """Computes the features that a cache lacks; logs progress.

  Args:
    session: of the photos.
    split: the split of the cache.
    cache: FeatureCache.
    passes: PhotoPasses with this split.
    forward: computes features from images; None if nothing is missing.
    stop_requested: returns whether to stop.

  Returns:
    Whether the cache is complete.

  Raises:
    InputError: the records hold another number of photos than their manifest
      says, or the cache cannot be written.
  """
  if cache.is_complete():
    tf.logging.info('Features of %d %s photos: %s', cache.num_photos, split,
                    cache.folder)
    return True
  tf.logging.info(
      'Computing the features of %d %s photos, once, into %s (%.1f MB)',
      cache.num_photos, split, cache.folder, cache.num_bytes / 1e6)
  assert forward is not None
  with cache.fill(stop_requested) as writer:
    if writer is None:
      return False
    found = known_rows.read_photos(passes.records[split])
    if found:
      _check_count(len(found.digests), split, cache)
      cache.save_digests(found.digests)
    known = known_rows.KnownRows(cache, found)
    if known.known.any():
      tf.logging.info('The features of %d of them are in other caches',
                      known.known.sum())
    done = writer.rows + int(known.known[writer.rows:].sum())
    with Progress('%s features' % split, cache.num_rows, done=done,
                  last_line=True) as progress:
      while writer.rows < cache.num_rows:
        view, done = divmod(writer.rows, cache.num_photos)
        wanted = np.arange(cache.num_photos) >= done
        if view == 0:
          wanted &= ~known.known
        numbers = np.flatnonzero(wanted)
        session.run(passes.starts[split, view], {passes.wanted: wanted})
        for photos in _batches(session, passes, stop_requested):
          count = len(photos['label'])
          _append(writer, photos, forward(photos['image']), numbers[:count],
                  known)
          numbers = numbers[count:]
          progress.add(count)
        if stop_requested():
          return False
        if view == 0 and not len(numbers):
          known.copy(writer, cache.num_photos)
        _check_count(writer.rows - view * cache.num_photos, split, cache)
  return True


def _append(writer, photos, features, numbers, known):
  """Appends computed rows, and the known ones before and between them.

  Args:
    writer: feature_cache.Writer.
    photos: batch of PhotoPasses.
    features: list of [photos, ...] arrays.
    numbers: [photos] numbers of their records, rising.
    known: KnownRows.
  """
  names = [name.decode('utf-8', 'replace') for name in photos['filename']]
  ends = [*np.flatnonzero(np.diff(numbers) > 1) + 1, len(numbers)]
  for start, end in zip([0, *ends], ends):
    known.copy(writer, numbers[start])
    writer.append([feature[start:end] for feature in features],
                  photos['label'][start:end], names[start:end])


def _check_count(count, split, cache):
  if count != cache.num_photos:
    raise InputError(
        'the record files hold %d %s photos but their manifest says %d; '
        'convert the data set again' % (count, split, cache.num_photos))


def _batches(session, passes, stop_requested):
  """Yields the batches of the current pass until it ends or a stop request."""
  while not stop_requested():
    try:
      yield session.run(passes.photos)
    except tf.errors.OutOfRangeError:
      return



def caches_of(
    backbone: head_graph.Backbone, datasets: Mapping[str, slim.dataset.Dataset],
    parent: str, key: Mapping[str, Any], num_views: int,
    view_key: Mapping[str, Any]
) -> Callable[[tf.Session], Callable[[forward_pass.Choice], Caches]]:
  """Returns a function that opens the caches of a run.

  Args:
    backbone: Backbone of the graph.
    datasets: {split: slim Dataset}.
    parent: folder of caches.
    key: dict of what the features depend on: network, preprocessing, image
      size and the like; may have their dtype.
    num_views: augmented views of each training photo.
    view_key: dict of what only the augmented views depend on.

  Returns:
    A function of the session, which must have the backbone's weights. It
    returns a function of the Choice of the forward pass, which returns {split:
    FeatureCache}.
  """
  def make(session):
    # All in one call: TensorFlow 1.15 needs time for each new set of fetches.
    names = [v.op.name for v in backbone.variables]
    weights = feature_cache.fingerprint_values(
        zip(names, session.run(backbone.variables)))
    records = {split: feature_cache.fingerprint_records(dataset.data_sources)
               for split, dataset in datasets.items()}

    def of_choice(choice):
      def facts_of(split):
        facts = dict(key, weights=weights, engine=tf.__version__, split=split,
                     records=records[split], **choice.facts())
        if _views(split, num_views) > 1:
          facts.update(view_key)
        return facts

      return _caches(backbone.cut, datasets, parent, num_views, facts_of)

    return of_choice

  return make


def check_room_for_first(
    cut: frozen_backbone.Cut, datasets: Mapping[str, slim.dataset.Dataset],
    parent: str, key: Mapping[str, Any], num_views: int) -> None:
  """Checks that caches can be written, if there are none yet.

  Needs no session. Existing caches may be all that a run needs: that is checked
  once the session has the backbone's weights.

  Args:
    cut: Cut at which the backbone ends.
    datasets, parent, key, num_views: as for caches_of.

  Raises:
    InputError: the caches cannot be written.
  """
  if not os.path.isdir(parent) or not os.listdir(parent):
    caches = _caches(cut, datasets, parent, num_views, lambda split: key)
    feature_cache.check_room(list(caches.values()))


def _caches(cut, datasets, parent, num_views, facts_of):
  """Returns {split: FeatureCache}.

  Args:
    cut, datasets, parent, num_views: as for check_room_for_first.
    facts_of: function of a split that returns what its features depend on.
  """
  return collections.OrderedDict(
      (split, feature_cache.FeatureCache(
          parent, facts_of(split),
          [tensor.shape.as_list()[1:] for tensor in cut.features],
          datasets[split].num_samples, _views(split, num_views)))
      for split in sorted(datasets))


def _views(split, num_views):
  return 1 + (num_views if split == TRAIN else 0)


def default_cache_dir(dataset_dir: str, dataset_name: str) -> str:
  """Returns the default cache folder: next to the records of the data set."""
  return os.path.join(dataset_dir, dataset_name + '_features')
