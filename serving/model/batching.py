"""Groups the photos of several requests into batches for one session.

  batcher = Batcher(classifier.examine_prepared, batch_size=8)
  answers = batcher.submit([data], prepare)   # from any thread

A batch takes less time than its photos one by one. This module also limits how
many photos and how many pixels may wait, and shares the session between
requests by pixels (self-clocked fair queueing): a request with large photos, or
with many, does not delay a small request of another client. A large photo runs
in parallel with the batches, in a thread of its own, so that no other photo
waits for it.
"""

import bisect
import collections
import contextvars
import math
import threading
import time
from concurrent import futures

from compat import tf
from serving.model.patience import Gone, Patience, TimedOut

# Weight of the newest request in the running mean of seconds per photo, which
# tells a refused client when to retry. Seconds per photo are the seconds of a
# request divided by the number of its photos and those before it.
_NEWEST_SHARE = 0.2

# Largest Retry-After, in seconds.
_LONGEST_RETRY = 120

# Session time per photo that does not depend on its pixels (that of the network
# itself), expressed in pixels.
_PHOTO_WEIGHT = 10 ** 6


class Busy(Exception):
  """The queue is full.

  Attributes:
    retry_after: whole seconds after which there will be room, at least 1.
  """

  def __init__(self, retry_after):
    super().__init__('busy; try again in %d s' % retry_after)
    self.retry_after = retry_after


class Closing(Exception):
  """The server is shutting down and accepts no more photos."""


class Failed(Exception):
  """The session failed on this photo; the cause is in the log."""


class _Request:
  """Photos of one caller, and their results."""

  def __init__(self, weights, patience):
    self.weights = weights
    self.patience = patience
    self.results = [None] * len(weights)
    self.missing = len(weights)
    self.tags = [0, 0]  # Of its newest queued photo; of its newest large one.
    self.error = None
    self.answered = threading.Event()
    self.context = contextvars.copy_context()  # Holds the request id for logs.


# One prepared photo in the queue. since: when it was ready, time.monotonic().
# Photos are taken in the order of their tags; number breaks ties.
_Item = collections.namedtuple(
    '_Item', 'tag number request index prepared weight since')


class Batcher:
  """A bounded queue of photos, and the threads that examine them."""

  def __init__(self, examine, batch_size=8, window_secs=0.005, max_queue=64,
               seconds_a_photo=None, weigh=None, large=math.inf,
               max_weight=math.inf, observe=None, runs=1):
    """Starts the threads.

    Args:
      examine: function of a list of prepared photos; returns as many results.
        Called from `runs` threads, and from one more for the large photos.
      batch_size: maximum number of photos per call.
      window_secs: how long the first photo of a batch waits, while the session
        is free, for others that are accepted but not prepared yet.
      max_queue: maximum number of photos that are accepted but not answered.
      seconds_a_photo: initial estimate of the seconds per photo; None: unknown.
      weigh: function of a photo before it is prepared; returns its weight in
        pixels. None: all weights are 0.
      large: a photo with a larger weight is examined alone, in parallel with
        the batches, whose total weight is limited to twice this value, or to
        one photo each.
      max_weight: total weight of all photos that are accepted but not answered.
        A request is accepted if it weighs at most half of what is left, so
        that there is room for smaller ones. The weight of one request is
        counted as at most half of max_weight.
      observe: function of a metric's name and a value; None: not called.
      runs: maximum number of parallel batches, not counting those of large
        photos. Each gets a share of the accepted photos: while the clients of
        one batch read their answers and send the next photos, the cores process
        the other batches.
    """
    self._runs = runs
    self._examine = examine
    self._batch_size = batch_size
    self._window_secs = window_secs
    self._max_queue = max_queue
    self._weigh = weigh or (lambda photo: 0)
    self._large = large
    self._max_weight = max_weight
    self._observe = observe or (lambda name, value: None)
    self._seconds_a_photo = seconds_a_photo
    self._items = []  # Sorted.
    self._number = 0  # Of the newest item.
    self._tags = [0, 0]  # Of the last item taken; of the last large one taken.
    self._chores = collections.deque()
    self._accepted = self._accepted_weight = 0
    self._accepted_small = 0  # Number of photos, without the large ones.
    self._preparing = 0  # Number of photos, without the large ones.
    self._running = 0  # Batches and callbacks of call_between.
    self._running_small = 0  # Batches without large photos.
    self._closing = False
    self._counts = dict(batches=0, photos=0, refused=0, timed_out=0, left=0)
    # The lock guards all of the above. It has two conditions, for small and for
    # large photos. A condition is notified when such an item or a callback
    # arrives and when a batch ends; both are notified when all work is done.
    self._lock = threading.RLock()
    self._changed = {is_large: threading.Condition(self._lock)
                     for is_large in (False, True)}
    self._threads = [
        threading.Thread(target=self._work, args=(is_large,), name='batches',
                         daemon=True)
        for is_large in [False] * runs + [True] * (large < math.inf)]
    for thread in self._threads:
      thread.start()

  def submit(self, photos, prepare, patience=None):
    """Has photos examined, together with those of other threads.

    Checks that there is room before it prepares the first photo: an overloaded
    server does not decode what it refuses. A request with more photos than the
    queue holds is accepted when nothing else waits.

    Args:
      photos: list with one entry per photo.
      prepare: function of an entry, called in this thread. Its return value is
        queued; if that is an exception, it is the result of the photo instead.
      patience: Patience of the caller; None: no time limit. Once the caller has
        given up, its remaining photos are neither prepared nor examined.

    Returns:
      List of the results in the order of `photos`.

    Raises:
      Busy: there is no room.
      Closing: close() was called.
      Failed: the session failed.
      TimedOut: the deadline has passed.
      Gone: the client has disconnected.
    """
    if not photos:
      return []
    request = _Request(list(map(self._weigh, photos)), patience or Patience())
    start, ahead = time.monotonic(), self._enter(request)
    to_prepare = collections.deque(enumerate(photos))
    try:
      while to_prepare:
        request.patience.check()
        index, photo = to_prepare[0]
        prepared = prepare(photo)
        to_prepare.popleft()
        self._queue(request, index, prepared)
      request.patience.wait(request.answered.wait)
      self._note_seconds((time.monotonic() - start) / ahead)
    except (TimedOut, Gone) as error:
      raise self._counted(error)
    finally:
      self._leave(request, [index for index, _ in to_prepare])
    if isinstance(request.error, (TimedOut, Gone)):
      raise self._counted(request.error)
    if request.error:
      raise Failed('%s: %s' % (type(request.error).__name__, request.error))
    return request.results

  def call_between(self, function):
    """Calls `function` while no batch runs, and waits for it.

    Returns:
      The return value of `function`.

    Raises:
      Closing: close() was called.
    """
    found = futures.Future()
    with self._lock:
      if self._closing:
        raise Closing('the server is ending')
      self._chores.append((function, found))
      self._tell_all()
    return found.result()

  def counts(self):
    """Returns the counters as a dict.

    Keys: queue_length and queue_limit, in photos; batches, photos; refused, in
    photos; and the numbers of requests that were given up: timed_out, left.
    """
    with self._lock:
      return dict(self._counts, queue_length=self._accepted,
                  queue_limit=self._max_queue)

  def close(self, timeout=None):
    """Refuses new photos, and waits until all accepted photos are answered.

    Args:
      timeout: maximum seconds to wait; None: no limit.

    Returns:
      Whether all are answered.
    """
    with self._lock:
      self._closing = True
      self._tell_all()
    deadline = None if timeout is None else time.monotonic() + timeout
    for thread in self._threads:
      thread.join(deadline and max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in self._threads)

  def _enter(self, request):
    """Accepts a request; returns the number of accepted photos with its own."""
    with self._lock:
      if self._closing:
        raise Closing('the server is ending')
      count, weight = len(request.weights), self._weight_of(request)
      if self._accepted and (
          self._accepted + count > self._max_queue or
          2 * weight > self._max_weight - self._accepted_weight):
        self._counts['refused'] += count
        raise Busy(self._retry_after())
      self._accepted += count
      self._accepted_weight += weight
      num_small = self._num_small(request)
      self._accepted_small += num_small
      self._preparing += num_small
      return self._accepted

  def _leave(self, request, unprepared):
    """Removes a request, and those of its photos that are still queued.

    Args:
      request: _Request.
      unprepared: indices of the photos that will not be prepared.
    """
    with self._lock:
      self._accepted -= len(request.weights)
      self._accepted_small -= self._num_small(request)
      self._accepted_weight -= self._weight_of(request)
      for index in unprepared:
        self._preparing -= not self._is_large(request.weights[index])
      if request.missing:
        self._items = [item for item in self._items
                       if item.request is not request]
      if self._closing:
        self._tell_all()
      # Wake the threads that wait for a batch: fewer photos are being prepared,
      # and fewer make a full batch.
      self._changed[False].notify()

  def _tell_all(self):
    with self._lock:
      for changed in self._changed.values():
        changed.notify_all()

  def _is_large(self, weight):
    return weight > self._large

  def _num_small(self, request):
    return sum(not self._is_large(weight) for weight in request.weights)

  def _weight_of(self, request):
    return min(sum(request.weights), self._max_weight / 2)

  def _counted(self, error):
    """Counts a request that was given up; returns a new error to raise."""
    with self._lock:
      if isinstance(error, Gone):
        self._counts['left'] += 1
        return Gone(*error.args)
      self._counts['timed_out'] += 1
      return TimedOut(self._retry_after())

  def _retry_after(self):
    """Returns in how many seconds all accepted photos will be answered."""
    seconds = self._accepted * (self._seconds_a_photo or 0)
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)

  def _queue(self, request, index, prepared):
    """Queues a prepared photo, or notes the exception returned instead."""
    weight = request.weights[index]
    lane = self._is_large(weight)
    with self._lock:
      self._preparing -= not lane
      if isinstance(prepared, Exception):
        self._settle(request, index, prepared)
      else:
        self._number += 1
        request.tags[lane] = (max(request.tags[lane], self._tags[lane]) +
                              weight + _PHOTO_WEIGHT)
        bisect.insort(self._items, _Item(
            request.tags[lane], self._number, request, index, prepared, weight,
            time.monotonic()))
      self._changed[lane].notify()

  def _settle(self, request, index, result, error=None):
    """Notes the result of a photo; wakes the caller after its last photo."""
    with self._lock:
      request.results[index] = result
      # Drop the traceback: its frames hold the photos, and the garbage
      # collector would find this reference cycle only much later.
      request.error = request.error or (error and error.with_traceback(None))
      request.missing -= 1
      if not request.missing:
        request.answered.set()

  def _work(self, is_large):
    while True:
      batch = self._next_batch(is_large)
      if batch is None:
        return
      now = time.monotonic()
      for item in batch:
        self._observe('classifier_queue_duration_seconds', now - item.since)
        del item
      try:
        self._run(batch)
      finally:
        del batch  # Otherwise its photos stay in memory until the next batch.
        with self._lock:
          self._running -= 1
          self._running_small -= not is_large
          if self._chores or self._closing:
            self._tell_all()

  def _next_batch(self, is_large):
    """Waits for a batch, running callbacks meanwhile; None at the end."""
    while True:
      with self._lock:
        if self._chores and not self._running:
          self._running += 1
        elif self._closing and not self._accepted:
          return None
        else:
          items = [item for item in self._items
                   if self._is_large(item.weight) == is_large]
          seconds = self._seconds_to_batch(items, is_large)
          if seconds is None or seconds > 0 or self._chores:
            self._changed[is_large].wait(None if self._chores else seconds)
            continue
          batch = self._take_batch(items)
          if batch:
            self._running += 1
            self._running_small += not is_large
            # What is left may be a batch for another thread.
            self._changed[is_large].notify()
            return batch
          continue
      self._call_chore()

  def _most(self):
    """Returns the maximum size of the next batch, its share of small photos."""
    share = math.ceil(self._accepted_small / self._runs)
    return max(1, min(self._batch_size, share))

  def _take_batch(self, items):
    """Takes a batch from the queue; empty if all callers have given up."""
    batch, weight, most = [], 0, self._most()
    for item in items:
      weight += item.weight
      if batch and (len(batch) == most or
                    weight > 2 * self._large / self._runs or
                  self._is_large(item.weight)):
        break
      self._items.remove(item)
      try:
        item.request.patience.check()
      except (TimedOut, Gone) as error:
        weight -= item.weight
        self._settle(item.request, item.index, None, error)
      else:
        self._tags[self._is_large(item.weight)] = item.tag
        batch.append(item)
    return batch

  def _call_chore(self):
    # A separate frame: this thread must not keep the return value alive.
    function, found = self._chores[0]
    try:
      found.set_result(function())
    except Exception as error:  # Raised again in the thread of the caller.
      found.set_exception(error)
    with self._lock:
      # Decremented last: no batch starts while a callback is pending.
      self._chores.popleft()
      self._running -= 1
      self._tell_all()

  def _seconds_to_batch(self, items, is_large):
    """Returns the seconds until a batch may start; None: nothing waits.

    A photo waits only for others that are accepted, and not for large ones.
    """
    if not items:
      return None
    if is_large or len(items) >= self._most():
      return 0
    if self._running_small:  # Its end wakes this thread.
      return None
    if not self._preparing:
      return 0
    return (min(item.since for item in items) + self._window_secs -
            time.monotonic())

  def _run(self, batch):
    """Examines a batch; if that fails, examines each of its photos alone."""
    try:
      results = self._results(batch)
    # Any error: the callers are waiting, and the next batch must still run.
    except Exception as raised:
      error = raised.with_traceback(None)  # Its frames hold the photos.
    else:
      self._settle_all(batch, results)
      return
    if len(batch) > 1:
      for item in batch:
        self._run([item])
      return
    # A copy: another thread may be using this context for another photo of the
    # same request.
    batch[0].request.context.copy().run(
        tf.logging.error, 'the session failed on a photo: %s: %s',
        type(error).__name__, ' '.join(str(error).split()))
    self._settle(batch[0].request, batch[0].index, None, error)

  def _settle_all(self, batch, results):
    with self._lock:
      self._counts['batches'] += 1
      self._counts['photos'] += len(batch)
    for item, result in zip(batch, results):
      self._settle(item.request, item.index, result)

  def _results(self, batch):
    start = time.monotonic()
    results = self._examine([item.prepared for item in batch])
    self._observe('classifier_forward_duration_seconds',
                  time.monotonic() - start)
    self._observe('classifier_batch_size', len(batch))
    if len(results) != len(batch):
      raise ValueError('%d results of %d photos' % (len(results), len(batch)))
    return results

  def _note_seconds(self, newest):
    """Updates the mean seconds per photo, counted from before decoding."""
    with self._lock:
      mean = self._seconds_a_photo
      self._seconds_a_photo = newest if mean is None else (
          mean + _NEWEST_SHARE * (newest - mean))
