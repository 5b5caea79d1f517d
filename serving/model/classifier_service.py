"""The graph that the server uses, and its replacement by a newer one.

  service = Service(GraphSource(load, path), batch_size=8)
  predictions = service.predict_each([data])

The files of the graph are watched. Once they have changed and are stable, the
new graph is loaded while the current one is still in use, tested, and swapped
in between two batches. A graph that cannot be used is rejected, and the current
one stays in use.
"""

import bisect
import collections
import contextlib
import gc
import os
import threading
import time
from typing import (
  Any,
  Callable,
  Dict,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np

from common import files
from common.errors import InputError
from compat import tf
from datasets.photo_files import photos
from serving.model import (
  evaluations,
  example_photos,
  heap_memory,
  heat_maps,
)
from serving.model.batching import Batcher, ShuttingDown
from serving.model.classifier import Classifier, prepare
from serving.model.deadlines import Deadline, DecodeSlots
from serving.model.predictions import (
  NOTHING_MORE,
  Details,
  PhotoResult,
  Prediction,
)

# Seconds for which the files must not have changed before they are loaded: the
# program that writes them may not be done.
_STABLE_SECS = 1.0

# Weights (photos.weight_of) up to which a photo is small, and above which it is
# large. Phones take photos of 12 million pixels, some of 50 million.
_SMALL_PIXELS, _LARGE_PIXELS = 4 * 10 ** 6, 16 * 10 ** 6

# Limit on the pixels that are accepted but not answered, in units of
# max_pixels.
_LARGEST_PHOTOS = 16

# Number of parallel batches in the session. With three, the cores process one
# while the clients of the others read their answers; with more, batches would
# be small.
_RUNS = 3

# Tolerance for the sum of a photo's scores, which should be 1: it is a sum of
# thousands of float32.
_SUM_TOLERANCE = 1e-3

Signature = Tuple[Tuple[int, int, int, int], ...]


class _Photo(NamedTuple):
  """One photo of a request."""

  # Bytes of the file.
  data: bytes
  # From photos.weight_of.
  weight: int
  # In the request.
  position: int
  details: Details


class _DecodedPhoto(NamedTuple):
  """A photo that is ready for the forward pass."""

  photo: photos.Photo
  # What `classifier` decoded.
  image: np.ndarray
  classifier: Classifier
  details: Details


class LoadedGraph(NamedTuple):
  """A graph in use."""

  # Ready to use.
  classifier: Classifier
  # What Service.model_info returns.
  info: Dict[str, Any]
  # Of the files that it was loaded from.
  signature: Optional[Signature]
  # Training photos to show; their bank is that of the graph.
  photos: example_photos.Photos


class GraphSource:
  """The files that graphs are loaded from."""

  def __init__(self, load: Callable[[], Classifier], graph_file: str,
               label_file: Optional[str] = None):
    """Stores the paths.

    Args:
      load: function without arguments; returns a Classifier from the files.
      graph_file: path of the frozen graph.
      label_file: path of its labels; None: the labels are in the graph.
    """
    self._load = load
    self.graph_file = graph_file
    self._files = [graph_file] + ([label_file] if label_file else [])

  def signature(self) -> Optional[Signature]:
    """Returns a fingerprint of the current files; None: a file is missing.

    It holds the inode, size and time of change of each file: if two graphs
    replace each other within one clock tick, at least one of these differs. The
    file of example photos may be missing.
    """
    try:
      stats = [os.stat(path) for path in self._files]
    except OSError:
      return None
    try:
      stats.append(os.stat(example_photos.path_of(self.graph_file)))
    except OSError:
      pass
    return tuple((status.st_dev, status.st_ino, status.st_size,
                  status.st_mtime_ns) for status in stats)

  def load(self) -> LoadedGraph:
    """Returns the LoadedGraph of the current files, warmed up and tested.

    Raises:
      InputError: the files are missing, damaged, do not match each other,
        changed meanwhile, or give scores that are not probabilities.
    """
    before = self.signature()
    classifier = self._load()
    try:
      _check(classifier, self.graph_file)
      info = _model_info(classifier, self.graph_file)
      examples = example_photos.read(self.graph_file, info['checkpoint'],
                                     classifier.labels)
      if self.signature() != before:
        raise InputError('%r changed while it was being read' %
                         self.graph_file)
    except Exception:
      classifier.close()
      raise
    tf.logging.info('Forward passes: %s', classifier.choice.describe())
    return LoadedGraph(classifier, info, before, examples)


class Service:
  """Classifies photos with the newest usable graph; safe in several threads.

  serving/web uses `labels`, `examples`, `has_nearest`, `can_explain`,
  `predict_each`, `is_ready`, `model_info` and `counts`.
  """

  def __init__(self, source: GraphSource, reload_secs: float = 2.0,
               max_pixels: int = photos.MAX_PIXELS,
               observe: Optional[Callable[[str, float], None]] = None,
               **limits: Any):
    """Loads the graph, and starts the threads that run and watch it.

    Args:
      source: GraphSource.
      reload_secs: seconds between two checks of the files; 0: never checks.
      max_pixels: largest width times height that is decoded.
      observe: function of a metric's name and a value; None: not called.
      **limits: arguments of the Batcher: batch_size, window_secs, max_queue.

    Raises:
      InputError: the graph cannot be used.
    """
    self._source = source
    self._current = source.load()
    _release_memory()
    self._max_pixels = max_pixels
    self._observe = observe or (lambda name, value: None)
    # One photo per core is decoded at a time: more would not be faster, and
    # each needs up to 9 bytes of memory per pixel. Small, medium and large ones
    # have separate limits.
    cores = os.cpu_count() or 1
    self._decoders = [DecodeSlots(count)
                      for count in (cores, cores, max(1, cores // 4))]
    # The graph decodes one of the largest photos at a time, whose memory then
    # bounds that of all.
    self._large_decode = threading.Lock()
    # Number of threads that decode with each classifier, guarded by the
    # condition's lock; notified when one of them ends.
    self._decoding: Dict[Classifier, int] = collections.Counter()
    self._decoded = threading.Condition()
    self._is_shutting_down = False
    self._swaps = self._failed_swaps = 0
    self._closed = threading.Event()
    # All batches together take as many pixels as the largest photo.
    self._batcher = Batcher(
        self._predict, weigh=lambda photo: photo.weight,
        large=min(_LARGE_PIXELS, max_pixels // 2),
        max_weight=_LARGEST_PHOTOS * max_pixels, observe=observe, runs=_RUNS,
        **limits)
    if reload_secs:
      threading.Thread(target=self._watch, args=(reload_secs,), name='watcher',
                       daemon=True).start()

  @property
  def labels(self) -> List[str]:
    """The class names of the current graph."""
    return self._current.classifier.labels

  @property
  def examples(self) -> Dict[str, example_photos.Example]:
    """The example photos of the current graph by class, perhaps not of all."""
    return self._current.photos.classes

  @property
  def has_nearest(self) -> bool:
    """Whether the nearest training photos can be shown."""
    return bool(self._current.photos.bank)

  @property
  def can_explain(self) -> bool:
    """Whether the current graph has heat maps."""
    return heat_maps.is_possible(self._current.classifier.info)

  def predict_each(self, encoded_photos: Sequence[bytes],
                   deadline: Optional[Deadline] = None,
                   details: Details = NOTHING_MORE) -> List[PhotoResult]:
    """Classifies photos, some of which may be unusable.

    Decodes in the calling thread; the rest is queued.

    Args:
      encoded_photos: list of bytes, each a photo file as it came.
      deadline: deadlines.Deadline of the caller; None: no time limit.
      details: what to compute besides the scores. Heat maps have the same
        limits as scores: they are computed with the batch of their photo.

    Returns:
      A list of the same length: for each photo a Prediction, whose `labels` and
      `sha256` are those of the graph that produced it, or a PhotoError with the
      reason why there is none. Its heat map is None if the graph has none, or
      was replaced meanwhile.

    Raises:
      batching.Busy: too many photos are waiting.
      batching.ShuttingDown: the server is shutting down.
      batching.SessionFailed: the session failed.
      deadlines.TimedOut: the deadline has passed.
      deadlines.ClientDisconnected: the client has disconnected.
    """
    deadline = deadline or Deadline()
    return self._batcher.submit(
        [_Photo(data, photos.weight_of(data), position, details)
         for position, data in enumerate(encoded_photos)],
        lambda photo: self._prepare(photo, deadline), deadline)

  def is_ready(self) -> bool:
    """Whether a warm graph is loaded and the server is not shutting down."""
    return not self._is_shutting_down

  def model_info(self) -> Dict[str, Any]:
    """Returns a description of the current graph, as a dict.

    Keys: name, classes, image_size, file, bytes, sha256, checkpoint, known
    (whether it has out-of-distribution detection), runtime and precision (of
    its forward passes), evaluation (a dict, or None) and loaded_at (UTC).
    """
    return dict(self._current.info)

  def counts(self) -> Dict[str, int]:
    """Returns the counters as a dict.

    Keys: those of Batcher.counts, swaps and failed_swaps.
    """
    return dict(self._batcher.counts(), swaps=self._swaps,
                failed_swaps=self._failed_swaps)

  def begin_shutdown(self) -> None:
    """Makes is_ready false; requests are still answered until close()."""
    self._is_shutting_down = True

  def close(self, timeout: Optional[float] = None) -> bool:
    """Answers accepted photos, refuses new ones, and frees the session.

    Args:
      timeout: maximum seconds to wait; None: no limit.

    Returns:
      Whether all accepted photos are answered.
    """
    self._is_shutting_down = True
    self._closed.set()
    done = self._batcher.close(timeout)
    if done:
      self._current.classifier.close()
    return done

  def _prepare(self, photo, deadline):
    # By size: a thread that waits for the lock in photos.py for the largest
    # photos must not occupy a slot that small photos need.
    slots = self._decoders[bisect.bisect_left(
        (_SMALL_PIXELS, _LARGE_PIXELS), photo.weight)]
    with slots.take(photo.position, deadline):
      deadline.check()
      start = time.monotonic()
      prepared = prepare(photo.data, self._max_pixels)
      with contextlib.ExitStack() as stack:
        if photo.weight > _LARGE_PIXELS:
          stack.enter_context(self._large_decode)
        classifier = stack.enter_context(self._use_classifier())
        image = classifier.decode(prepared)
        if photo.details.explain is not None:
          # Here, not between the batches of others: it may take seconds.
          _try_heat_maps(classifier.heat_maps.load)
      seconds = time.monotonic() - start
    self._observe('classifier_decode_duration_seconds', seconds)
    if isinstance(prepared, photos.Photo):
      self._observe('classifier_photo_pixels', prepared.height * prepared.width)
    return (_DecodedPhoto(prepared, image, classifier, photo.details)
            if isinstance(image, np.ndarray) else image)

  @contextlib.contextmanager
  def _use_classifier(self):
    """Yields the current classifier, which stays open in the body."""
    with self._decoded:
      classifier = self._current.classifier
      self._decoding[classifier] += 1
    try:
      yield classifier
    finally:
      with self._decoded:
        self._decoding[classifier] -= 1
        self._decoded.notify_all()

  def _close(self, classifier):
    """Closes a classifier that is no longer the current one."""
    with self._decoded:
      self._decoded.wait_for(lambda: not self._decoding[classifier])
      del self._decoding[classifier]
    classifier.close()

  def _predict(self, decoded):
    current = self._current
    # A graph that was loaded meanwhile may take other images.
    ready = [photo.image if photo.classifier is current.classifier else
             photo.photo for photo in decoded]
    results = current.classifier.predict_prepared(
        ready, max(photo.details.nearest for photo in decoded))
    return [self._with_details(current, photo, result)
            if isinstance(result, Prediction) else result
            for photo, result in zip(decoded, results)]

  def _with_details(self, current, photo, result):
    """Returns a Prediction with what was requested for its photo."""
    explain, heat_map = photo.details.explain, None
    # A graph that was loaded meanwhile may have other classes.
    if explain is not None and explain in ('', *result.labels):
      image = photo.image if photo.classifier is current.classifier else None
      heat_map = _try_heat_maps(
          current.classifier.heat_map, photo.photo,
          result.labels.index(explain) if explain else result.scores.argmax(),
          image)
    pictures = current.photos.bank
    nearest = [other._replace(picture=pictures[other.row] or None)
               for other in result.nearest[:photo.details.nearest]
               if other.row < len(pictures)]
    return result._replace(sha256=current.info['sha256'], heat_map=heat_map,
                           nearest=nearest)

  def _watch(self, reload_secs):
    """Checks the files periodically; loads them when they have changed."""
    rejected = None
    while not self._closed.wait(reload_secs):
      signature = self._source.signature()
      if signature in (None, rejected, self._current.signature):
        continue
      if (self._closed.wait(_STABLE_SECS) or
          self._source.signature() != signature):
        continue  # Still being written; or the server is shutting down.
      if not self._reload():
        rejected = signature

  def _reload(self):
    """Replaces the current graph with the new one, if that can be used.

    Returns:
      Whether the graph was replaced.
    """
    start = time.monotonic()
    try:
      loaded = self._source.load()
    # A damaged graph makes TensorFlow raise nearly any exception. None of them
    # may stop the watching thread or the server.
    except Exception as error:
      self._failed_swaps += 1
      reason = ' '.join(str(error).split()) or type(error).__name__
      tf.logging.error('rejected the changed graph; the current one stays in '
                       'use: %.500s', reason)
      loaded = None
    if loaded is None:
      _release_memory()
      return False
    try:
      previous = self._batcher.run_between_batches(lambda: self._swap(loaded))
    except ShuttingDown:
      loaded.classifier.close()
      return True
    self._close(previous)
    del previous
    _release_memory()
    self._swaps += 1
    tf.logging.info('switched to the new graph %r, sha256 %s, after %.1f s',
                    self._source.graph_file, loaded.info['sha256'],
                    time.monotonic() - start)
    return True

  def _swap(self, loaded):
    with self._decoded:
      previous, self._current = self._current, loaded
    return previous.classifier


def _try_heat_maps(function, *arguments):
  """Returns the result of a function of heat maps; None if there are none.

  The file of the graph may have been replaced.
  """
  try:
    return function(*arguments)
  except InputError as error:
    tf.logging.warning('no heat map: %s', error)
    return None


def _release_memory():
  """Frees the remains of a graph, and returns the memory to the system."""
  gc.collect()  # A graph has many reference cycles.
  # glibc keeps memory that a thread has freed, here the size of a few graphs.
  heap_memory.trim_heap()


def _check(classifier, graph_file):
  """Raises InputError unless a first photo gets scores that sum to 1."""
  if not classifier.labels:
    raise InputError('%r has no labels' % graph_file)
  try:
    scores = classifier.warm_up()
  except (tf.errors.OpError, ValueError) as error:
    raise InputError('%r cannot classify: %s' %
                     (graph_file, str(error).split('\n')[0]))
  if scores.shape != (len(classifier.labels),):
    raise InputError('%r gives %d scores per photo, but has %d labels' %
                     (graph_file, scores.size, len(classifier.labels)))
  if not (np.all(np.isfinite(scores)) and scores.min() >= 0 and
          abs(float(scores.sum()) - 1) <= _SUM_TOLERANCE):
    raise InputError('%r gives scores that are not probabilities: '
                     'sum %s, smallest %s' %
                     (graph_file, scores.sum(), scores.min()))


def _model_info(classifier, graph_file):
  info = classifier.info
  try:
    size, digest = os.path.getsize(graph_file), files.sha256_of(graph_file)
  except OSError as error:
    raise InputError('cannot read %r: %s' % (graph_file, error.strerror))
  checkpoint = info.checkpoint and os.path.basename(info.checkpoint)
  return dict(
      name=info.model_name, classes=list(classifier.labels),
      image_size=info.image_size, file=os.path.basename(graph_file), bytes=size,
      sha256=digest, checkpoint=checkpoint, known=bool(info.known),
      runtime=classifier.choice.name(), precision=classifier.choice.precision,
      evaluation=evaluations.read_evaluation(graph_file, checkpoint),
      loaded_at=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))
