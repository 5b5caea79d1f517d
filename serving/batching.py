"""Groups the photos of several requests into batches for one session.

  batcher = Batcher(classifier.examine_prepared, batch_size=8)
  answers = batcher.submit([data], prepare)   # from any thread

One photo of a network on few cores takes as long alone as in company, so this
does not make the session much faster: it keeps one run at a time on the cores,
in the order in which the photos came, and bounds how many may wait.
"""

import collections
import contextvars
import math
import threading
import time
from concurrent import futures

from compat import tf

# Of a request's seconds, divided by the photos before it and its own, how much
# goes into the mean that tells a refused client when to come again.
_NEWEST_SHARE = 0.2

# Seconds after which a client may ask again, at most.
_LONGEST_RETRY = 120


class Busy(Exception):
  """As many photos wait as may.

  Attributes:
    retry_after: whole seconds after which there will be room, at least 1.
  """

  def __init__(self, retry_after):
    super().__init__('busy; try again in %d s' % retry_after)
    self.retry_after = retry_after


class Closing(Exception):
  """The server ends, and takes nothing any more."""


class Failed(Exception):
  """The session failed on this photo; the cause is in the log."""


class _Request:
  """Photos of one caller, and what became of them."""

  def __init__(self, count):
    self.results = [None] * count
    self.missing = count
    self.error = None
    self.answered = threading.Event()
    self.context = contextvars.copy_context()  # The log's id of the request.


# One prepared photo on its way; since: when it was ready, time.monotonic().
_Item = collections.namedtuple('_Item', 'request index prepared since')


class Batcher:
  """A bounded queue of photos, and the thread that has them examined."""

  def __init__(self, examine, batch_size=8, window_secs=0.005, max_queue=64,
               seconds_a_photo=None, weigh=None, most_weight=None,
               observe=None):
    """Starts the thread.

    Args:
      examine: function of a list of prepared photos; returns as many results.
        Called by one thread only.
      batch_size: most photos of one call.
      window_secs: how long the first photo of a batch waits for others, where
        the session is free.
      max_queue: most photos that are accepted and not yet answered.
      seconds_a_photo: what is known of it beforehand; None: nothing.
      weigh: function of a prepared photo; None: all weigh nothing.
      most_weight: of all photos of a batch; one that weighs more is alone.
      observe: function of a metric's name and a value; None: not called.
    """
    self._examine = examine
    self._batch_size = batch_size
    self._window_secs = window_secs
    self._max_queue = max_queue
    self._weigh = weigh or (lambda prepared: 0)
    self._most_weight = most_weight
    self._observe = observe or (lambda name, value: None)
    self._seconds_a_photo = seconds_a_photo
    self._items = collections.deque()
    self._chores = collections.deque()
    self._accepted = 0
    self._closing = False
    self._counts = dict(batches=0, photos=0, refused=0)
    # Guards all of the above; told when an item or a chore comes, or the end.
    self._changed = threading.Condition()
    self._thread = threading.Thread(target=self._work, name='batches',
                                    daemon=True)
    self._thread.start()

  def submit(self, photos, prepare):
    """Has photos examined, together with those of other threads.

    There must be room before the first is prepared: a server that has too much
    to do does not decode what it refuses. A request of more photos than the
    queue holds is accepted when nothing else waits.

    Args:
      photos: list, one entry a photo.
      prepare: function of an entry, called in this thread; what it returns is
        queued, unless it is an exception: that is the photo's result then.

    Returns:
      List of the results in the order of `photos`.

    Raises:
      Busy: there is no room.
      Closing: close() was called.
      Failed: the session failed.
    """
    request = _Request(len(photos))
    if not photos:
      return []
    start, ahead = time.monotonic(), self._enter(len(photos))
    try:
      for index, photo in enumerate(photos):
        prepared = prepare(photo)
        if isinstance(prepared, Exception):
          self._settle(request, index, prepared)
        else:
          self._queue(_Item(request, index, prepared, time.monotonic()))
      request.answered.wait()
      self._note_seconds((time.monotonic() - start) / ahead)
    finally:
      self._leave(len(photos))
    if request.error:
      raise Failed('%s: %s' % (type(request.error).__name__, request.error))
    return request.results

  def call_between(self, function):
    """Has the thread call `function` before its next batch, and waits for it.

    Returns:
      What it returned.

    Raises:
      Closing: close() was called.
    """
    found = futures.Future()
    with self._changed:
      if self._closing:
        raise Closing('the server is ending')
      self._chores.append((function, found))
      self._changed.notify_all()
    return found.result()

  def counts(self):
    """Returns queue_length, queue_limit, batches, photos and refused."""
    with self._changed:
      return dict(self._counts, queue_length=self._accepted,
                  queue_limit=self._max_queue)

  def close(self, timeout=None):
    """Refuses new photos, and waits until all accepted ones are answered.

    Args:
      timeout: seconds to wait at most; None: until it is done.

    Returns:
      Whether all are answered.
    """
    with self._changed:
      self._closing = True
      self._changed.notify_all()
    self._thread.join(timeout)
    return not self._thread.is_alive()

  def _enter(self, count):
    """Accepts photos; returns how many are accepted with them."""
    with self._changed:
      if self._closing:
        raise Closing('the server is ending')
      if self._accepted and self._accepted + count > self._max_queue:
        self._counts['refused'] += count
        raise Busy(self._retry_after())
      self._accepted += count
      return self._accepted

  def _leave(self, count):
    with self._changed:
      self._accepted -= count
      self._changed.notify_all()

  def _retry_after(self):
    """Returns after how many seconds what is accepted now will be answered."""
    seconds = self._accepted * (self._seconds_a_photo or 0)
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)

  def _queue(self, item):
    with self._changed:
      self._items.append(item)
      self._changed.notify_all()

  def _settle(self, request, index, result, error=None):
    """Notes what became of a photo; wakes the caller after the last one."""
    with self._changed:
      request.results[index] = result
      request.error = request.error or error
      request.missing -= 1
      if not request.missing:
        request.answered.set()

  def _work(self):
    while True:
      batch = self._next_batch()
      if batch is None:
        return
      self._run(batch)

  def _next_batch(self):
    """Waits for a batch; calls chores meanwhile; returns None at the end."""
    while True:
      with self._changed:
        while not self._chores and not self._ready():
          if self._closing and not self._accepted:
            return None
          self._changed.wait(self._rest_of_window())
        if not self._chores:
          return self._take_batch()
      self._call_chore()

  def _take_batch(self):
    batch, weight = [], 0
    while self._items and len(batch) < self._batch_size:
      weight += self._weigh(self._items[0].prepared)
      if batch and weight > (self._most_weight or 0):
        break
      batch.append(self._items.popleft())
    return batch

  def _call_chore(self):
    # In a frame of its own: what the chore returns must not outlive it here.
    with self._changed:
      function, found = self._chores.popleft()
    try:
      found.set_result(function())
    except Exception as error:  # The caller's, in whose thread it is raised.
      found.set_exception(error)

  def _ready(self):
    """Whether the next batch may start."""
    if len(self._items) >= self._batch_size:
      return True
    # All that are accepted are here: there is nobody to wait for at the end.
    if self._items and self._closing and len(self._items) == self._accepted:
      return True
    return bool(self._items) and self._rest_of_window() <= 0

  def _rest_of_window(self):
    """Returns the seconds until a batch starts; None: nothing waits."""
    if not self._items:
      return None
    return self._items[0].since + self._window_secs - time.monotonic()

  def _run(self, batch):
    """Has a batch examined; where that fails, each photo of it alone."""
    try:
      results = self._results(batch)
    # Whatever it is: the callers wait, and the next batch shall have its turn.
    except Exception as error:
      if len(batch) > 1:
        for item in batch:
          self._run([item])
        return
      batch[0].request.context.run(
          tf.logging.error, 'the session failed on a photo: %s: %s',
          type(error).__name__, ' '.join(str(error).split()))
      self._settle(batch[0].request, batch[0].index, None, error)
      return
    with self._changed:
      self._counts['batches'] += 1
      self._counts['photos'] += len(batch)
    for item, result in zip(batch, results):
      self._settle(item.request, item.index, result)

  def _results(self, batch):
    start = time.monotonic()
    for item in batch:
      self._observe('classifier_queue_duration_seconds', start - item.since)
    results = self._examine([item.prepared for item in batch])
    self._observe('classifier_forward_duration_seconds',
                  time.monotonic() - start)
    self._observe('classifier_batch_size', len(batch))
    if len(results) != len(batch):
      raise ValueError('%d results of %d photos' % (len(results), len(batch)))
    return results

  def _note_seconds(self, newest):
    """Takes into the mean how long a photo took, from before it was decoded."""
    with self._changed:
      mean = self._seconds_a_photo
      self._seconds_a_photo = newest if mean is None else (
          mean + _NEWEST_SHARE * (newest - mean))
