"""The graph that a server answers with, and the change to a newer one.

  service = Service(Source(load, path), batch_size=8)
  answers = service.examine_each([data])

The files of the graph are watched. When they have changed and rest, the new
graph is loaded beside the present one, tried, and put in its place between two
batches. One that cannot be used is refused, and the present one goes on.
"""

import bisect
import collections
import ctypes
import gc
import os
import threading
import time

import numpy as np

from compat import tf
from datasets import photos
from downloads import marks
from errors import InputError
from serving import evaluations
from serving.batching import Batcher, Closing
from serving.classifier import Answer, prepare
from serving.patience import Patience, Places

# Seconds for which files must not have changed before they are loaded: whoever
# writes them may not be done.
_REST_SECS = 1.0

# Weights (photos.weight_of) up to which a photo is small, and above which it is
# large. Telephones take 12 million pixels, some 50.
_SMALL_PIXELS, _LARGE_PIXELS = 4 * 10 ** 6, 16 * 10 ** 6

# Pixels that may be accepted and not yet answered, in photos of max_pixels.
_LARGEST_PHOTOS = 16

# Batches that the session has at a time. With three, the cores have one while
# clients of the others read their answers; more would be small.
_RUNS = 3

# How far the scores of a photo may be from a sum of 1: of thousands of float32.
_SUM_TOLERANCE = 1e-3

# data: bytes of the file; weight: of photos.weight_of; index: in its request.
_Photo = collections.namedtuple('_Photo', 'data weight index')

# classifier: ready to be used; facts: what Service.facts returns; signature: of
# the files it came from.
_Loaded = collections.namedtuple('_Loaded', 'classifier facts signature')


class Source:
  """Where graphs come from."""

  def __init__(self, load, graph_file, label_file=None):
    """Says where.

    Args:
      load: function without arguments; returns a Classifier of the files.
      graph_file: path of the frozen graph.
      label_file: path of its labels; None: they are in the graph.
    """
    self._load = load
    self.graph_file = graph_file
    self._files = [graph_file] + ([label_file] if label_file else [])

  def signature(self):
    """Returns what tells the present files from others; None: one is missing.

    Of each file its inode, size and time of change: of two graphs written in
    one tick of the clock in place of each other one of these differs.
    """
    try:
      stats = [os.stat(path) for path in self._files]
    except OSError:
      return None
    return tuple((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
                 for found in stats)

  def load(self):
    """Returns the _Loaded of the present files, warm and tried.

    Raises:
      InputError: they are missing, damaged, do not fit each other, changed
        meanwhile, or give scores that are no shares.
    """
    before = self.signature()
    classifier = self._load()
    try:
      _check(classifier, self.graph_file)
      facts = _facts(classifier, self.graph_file)
      if self.signature() != before:
        raise InputError('%r changed while it was read' % self.graph_file)
    except Exception:
      classifier.close()
      raise
    return _Loaded(classifier, facts, before)


class Service:
  """Answers photos with the newest usable graph; for all threads of a server.

  What serving/app.py needs of it is `labels`, `examine_each`, `is_ready`,
  `facts` and `counts`.
  """

  def __init__(self, source, reload_secs=2.0, max_pixels=photos.MAX_PIXELS,
               observe=None, **limits):
    """Loads the graph, and starts the threads that examine and watch.

    Args:
      source: Source.
      reload_secs: seconds between two looks at the files; 0: never looks.
      max_pixels: largest width times height that is decoded.
      observe: function of a metric's name and a value; None: not called.
      **limits: of the Batcher: batch_size, window_secs, max_queue.

    Raises:
      InputError: the graph cannot be used.
    """
    self._source = source
    self._present = source.load()
    _give_back_memory()
    self._max_pixels = max_pixels
    self._observe = observe or (lambda name, value: None)
    # One photo a core is decoded at a time: more would not be faster, and each
    # needs memory, up to 9 bytes a pixel. Small ones, others and the large
    # ones do not take each other's places.
    cores = os.cpu_count() or 1
    self._decoders = [Places(count)
                      for count in (cores, cores, max(1, cores // 4))]
    self._ending = False
    self._swaps = self._failed_swaps = 0
    self._closed = threading.Event()
    # The graph decodes them in full: all batches together need no more memory
    # than the largest photo.
    self._batcher = Batcher(
        self._examine, weigh=lambda photo: photo.weight,
        large=min(_LARGE_PIXELS, max_pixels // 2),
        max_weight=_LARGEST_PHOTOS * max_pixels, observe=observe, runs=_RUNS,
        **limits)
    self._watcher = None
    if reload_secs:
      self._watcher = threading.Thread(
          target=self._watch, args=(reload_secs,), name='watcher', daemon=True)
      self._watcher.start()

  @property
  def labels(self):
    """The names of the present graph's classes."""
    return self._present.classifier.labels

  def examine_each(self, encoded_photos, patience=None):
    """Says all that the graph says of photos of which some may be unusable.

    Decodes in the thread that calls; the rest waits for its turn.

    Args:
      encoded_photos: list of bytes, each a photo file as it came.
      patience: patience.Patience of the caller; None: it waits for ever.

    Returns:
      A list as long: for each photo an Answer, whose `labels` and `sha256` are
      those of the graph that gave it, or the PhotoError that says why there is
      none.

    Raises:
      batching.Busy: too many photos wait.
      batching.Closing: the server has ended.
      batching.Failed: the session failed.
      patience.TimedOut: the deadline is over.
      patience.Gone: the client has left.
    """
    patience = patience or Patience()
    return self._batcher.submit(
        [_Photo(data, photos.weight_of(data), index)
         for index, data in enumerate(encoded_photos)],
        lambda photo: self._prepare(photo, patience), patience)

  def is_ready(self):
    """Whether a warm graph is there and the server is not ending."""
    return not self._ending

  def facts(self):
    """Returns what is known of the present graph, as a dict.

    Keys: name, classes, image_size, file, bytes, sha256, checkpoint, known
    (whether it says that a photo is none of its classes), evaluation (a dict,
    or None) and loaded_at (UTC).
    """
    return dict(self._present.facts)

  def counts(self):
    """Returns what has happened so far, as a dict.

    Keys: those of Batcher.counts, swaps and failed_swaps.
    """
    return dict(self._batcher.counts(), swaps=self._swaps,
                failed_swaps=self._failed_swaps)

  def announce_end(self):
    """Says that the server is ending; what comes is answered until close()."""
    self._ending = True

  def close(self, timeout=None):
    """Answers what was accepted, refuses the rest, and frees the session.

    Args:
      timeout: seconds to wait at most; None: until it is done.

    Returns:
      Whether all that was accepted is answered.
    """
    self._ending = True
    self._closed.set()
    done = self._batcher.close(timeout)
    if done:
      self._present.classifier.close()
    return done

  def _prepare(self, photo, patience):
    # By size: a thread that waits for photos.py's own lock for the largest ones
    # must not hold a place that small photos need.
    places = self._decoders[bisect.bisect_left(
        (_SMALL_PIXELS, _LARGE_PIXELS), photo.weight)]
    with places.take(photo.index, patience):
      patience.check()
      start = time.monotonic()
      prepared = prepare(photo.data, self._max_pixels)
      seconds = time.monotonic() - start
    self._observe('classifier_decode_duration_seconds', seconds)
    if isinstance(prepared, photos.Photo):
      self._observe('classifier_photo_pixels', prepared.height * prepared.width)
    return prepared

  def _examine(self, prepared):
    present = self._present
    return [answer._replace(sha256=present.facts['sha256'])
            if isinstance(answer, Answer) else answer
            for answer in present.classifier.examine_prepared(prepared)]

  def _watch(self, reload_secs):
    """Looks at the files now and then; loads them when they have changed."""
    refused = None
    while not self._closed.wait(reload_secs):
      found = self._source.signature()
      if found in (None, refused, self._present.signature):
        continue
      if self._closed.wait(_REST_SECS) or self._source.signature() != found:
        continue  # Still being written; or about to end.
      if not self._change():
        refused = found

  def _change(self):
    """Puts the new graph in the place of the present one, if it can be used.

    Returns:
      Whether it did.
    """
    start = time.monotonic()
    try:
      loaded = self._source.load()
    # A damaged graph makes TensorFlow raise nearly anything, and none of it is
    # a reason to end the watch or the server.
    except Exception as error:
      self._failed_swaps += 1
      reason = ' '.join(str(error).split()) or type(error).__name__
      tf.logging.error('refused the changed graph, the present one goes on: '
                       '%.500s', reason)
      loaded = None
    if loaded is None:
      _give_back_memory()
      return False
    try:
      former = self._batcher.call_between(lambda: self._put(loaded))
    except Closing:
      loaded.classifier.close()
      return True
    former.close()
    del former
    _give_back_memory()
    self._swaps += 1
    tf.logging.info('changed to the new graph %r, sha256 %s, after %.1f s',
                    self._source.graph_file, loaded.facts['sha256'],
                    time.monotonic() - start)
    return True

  def _put(self, loaded):
    former, self._present = self._present, loaded
    return former.classifier


def _give_back_memory():
  """Frees what is left of a graph, and gives it back to the machine."""
  gc.collect()  # A graph is full of circles.
  # glibc keeps what a thread has freed, in this case some graphs' worth.
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim:
    trim(0)


def _check(classifier, graph_file):
  """Raises InputError unless a first photo gets scores that are shares."""
  if not classifier.labels:
    raise InputError('%r has no labels' % graph_file)
  try:
    scores = classifier.warm_up()
  except (tf.errors.OpError, ValueError) as error:
    raise InputError('%r cannot classify: %s' %
                     (graph_file, str(error).split('\n')[0]))
  if scores.shape != (len(classifier.labels),):
    raise InputError('%r gives %d scores of a photo, it has %d labels' %
                     (graph_file, scores.size, len(classifier.labels)))
  if not (np.all(np.isfinite(scores)) and scores.min() >= 0 and
          abs(float(scores.sum()) - 1) <= _SUM_TOLERANCE):
    raise InputError('%r gives scores of a photo that are no shares of 1: '
                     'sum %s, smallest %s' %
                     (graph_file, scores.sum(), scores.min()))


def _facts(classifier, graph_file):
  info = classifier.info
  try:
    size, digest = os.path.getsize(graph_file), marks.sha256_of(graph_file)
  except OSError as error:
    raise InputError('cannot read %r: %s' % (graph_file, error.strerror))
  checkpoint = info.checkpoint and os.path.basename(info.checkpoint)
  return dict(
      name=info.model_name, classes=list(classifier.labels),
      image_size=info.image_size, file=os.path.basename(graph_file), bytes=size,
      sha256=digest, checkpoint=checkpoint, known=bool(info.known),
      evaluation=evaluations.find(graph_file, checkpoint),
      loaded_at=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))
