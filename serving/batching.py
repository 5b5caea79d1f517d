"""Groups the photos of several requests into batches for one session.

  batcher = Batcher(classifier.examine_prepared, batch_size=8)
  answers = batcher.submit([data], prepare)   # from any thread

A batch takes less time than its photos alone. Beside that, this bounds how many
photos and how many pixels may wait, and shares the session between requests by
pixels (self-clocked fair queueing): a request of large photos, or of many, does
not delay a small one of another client. A large photo is run beside the others,
in a thread of its own, so that nobody waits for its end.
"""

import bisect
import collections
import contextvars
import math
import threading
import time
from concurrent import futures

from compat import tf
from serving.patience import Gone, Patience, TimedOut

# Of a request's seconds, divided by the photos before it and its own, how much
# goes into the mean that tells a refused client when to come again.
_NEWEST_SHARE = 0.2

# Seconds after which a client may ask again, at most.
_LONGEST_RETRY = 120

# What a photo takes of the session's time apart from its pixels, in pixels:
# the network itself.
_PHOTO_WEIGHT = 10 ** 6


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

  def __init__(self, weights, patience):
    self.weights = weights
    self.patience = patience
    self.results = [None] * len(weights)
    self.missing = len(weights)
    self.tags = [0, 0]  # Of its newest photo in the queue; newest large one.
    self.error = None
    self.answered = threading.Event()
    self.context = contextvars.copy_context()  # The log's id of the request.


# One prepared photo on its way; since: when it was ready, time.monotonic().
# Photos are taken in the order of their tags; number: of equal tags.
_Item = collections.namedtuple(
    '_Item', 'tag number request index prepared weight since')


class Batcher:
  """A bounded queue of photos, and the threads that have them examined."""

  def __init__(self, examine, batch_size=8, window_secs=0.005, max_queue=64,
               seconds_a_photo=None, weigh=None, large=math.inf,
               max_weight=math.inf, observe=None, runs=1):
    """Starts the threads.

    Args:
      examine: function of a list of prepared photos; returns as many results.
        Called by one thread more than `runs`: it has the large photos.
      batch_size: most photos of one call.
      window_secs: how long the first photo of a batch waits for others that are
        accepted and not prepared yet, where the session is free.
      max_queue: most photos that are accepted and not yet answered.
      seconds_a_photo: what is known of it beforehand; None: nothing.
      weigh: function of a photo, before it is prepared; None: all weigh
        nothing. In pixels.
      large: a photo that weighs more is examined alone, beside the others,
        whose batches together weigh no more than twice this, or hold one photo
        each.
      max_weight: of all photos that are accepted and not yet answered. A
        request gets in where it weighs no more than half of what is left, so
        that there is room for smaller ones; one counts half of max_weight at
        most.
      observe: function of a metric's name and a value; None: not called.
      runs: most batches at a time, those of large photos not counted. Each
        gets a share of the accepted photos: while the clients of one batch
        read their answers and send the next photos, the cores have the others.
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
    self._tags = [0, 0]  # Of the last item taken; of the last large one.
    self._chores = collections.deque()
    self._accepted = self._accepted_weight = 0
    self._accepted_small = 0  # Photos, the large ones not counted.
    self._preparing = 0  # Photos, the large ones not counted.
    self._running = 0  # Batches and chores.
    self._running_small = 0  # Batches without large photos.
    self._closing = False
    self._counts = dict(batches=0, photos=0, refused=0, timed_out=0, left=0)
    # The lock guards all of the above. Conditions of it, by whether a photo is
    # large: told when such an item or a chore comes, a batch ends, or all.
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

    There must be room before the first is prepared: a server that has too much
    to do does not decode what it refuses. A request of more photos than the
    queue holds is accepted when nothing else waits.

    Args:
      photos: list, one entry a photo.
      prepare: function of an entry, called in this thread; what it returns is
        queued, unless it is an exception: that is the photo's result then.
      patience: Patience of the caller; None: it waits for ever. What it no
        longer waits for is neither prepared nor examined.

    Returns:
      List of the results in the order of `photos`.

    Raises:
      Busy: there is no room.
      Closing: close() was called.
      Failed: the session failed.
      TimedOut: the deadline is over.
      Gone: the client has left.
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
    """Has `function` called while no batch runs, and waits for it.

    Returns:
      What it returned.

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
    """Returns what has happened so far, as a dict.

    Keys: queue_length and queue_limit, in photos; batches, photos; refused, in
    photos; and requests that were given up: timed_out, left.
    """
    with self._lock:
      return dict(self._counts, queue_length=self._accepted,
                  queue_limit=self._max_queue)

  def close(self, timeout=None):
    """Refuses new photos, and waits until all accepted ones are answered.

    Args:
      timeout: seconds to wait at most; None: until it is done.

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
    """Accepts a request; returns how many photos are accepted with it."""
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
    """Takes a request out, and what is left of it.

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
      # What the others wait for may have changed: fewer are being prepared, and
      # fewer make a batch.
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
    """Counts a request that is given up; returns a new error to raise."""
    with self._lock:
      if isinstance(error, Gone):
        self._counts['left'] += 1
        return Gone(*error.args)
      self._counts['timed_out'] += 1
      return TimedOut(self._retry_after())

  def _retry_after(self):
    """Returns after how many seconds what is accepted now will be answered."""
    seconds = self._accepted * (self._seconds_a_photo or 0)
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)

  def _queue(self, request, index, prepared):
    """Takes in a prepared photo, or the exception that stands for it."""
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
    """Notes what became of a photo; wakes the caller after the last one."""
    with self._lock:
      request.results[index] = result
      # Without the frames, which hold the photos: Python would find that circle
      # only much later.
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
        del batch  # Else its photos would stay until the next one.
        with self._lock:
          self._running -= 1
          self._running_small -= not is_large
          if self._chores or self._closing:
            self._tell_all()

  def _next_batch(self, is_large):
    """Waits for a batch; calls chores meanwhile; returns None at the end."""
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
    """Returns the most photos of the next batch without large ones."""
    share = math.ceil(self._accepted_small / self._runs)
    return max(1, min(self._batch_size, share))

  def _take_batch(self, items):
    """Takes a batch out of the queue, empty where all callers gave up."""
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
    # In a frame of its own: what the chore returns must not outlive it here.
    function, found = self._chores[0]
    try:
      found.set_result(function())
    except Exception as error:  # The caller's, in whose thread it is raised.
      found.set_exception(error)
    with self._lock:
      # Not before: while there is one, no batch starts.
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
    if self._running_small:  # Whose end wakes this thread.
      return None
    if not self._preparing:
      return 0
    return (min(item.since for item in items) + self._window_secs -
            time.monotonic())

  def _run(self, batch):
    """Has a batch examined; where that fails, each photo of it alone."""
    try:
      results = self._results(batch)
    # Whatever it is: the callers wait, and the next batch shall have its turn.
    except Exception as raised:
      error = raised.with_traceback(None)  # Its frames hold the photos.
    else:
      self._settle_all(batch, results)
      return
    if len(batch) > 1:
      for item in batch:
        self._run([item])
      return
    # A copy: another thread may be in it, with another photo of the request.
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
    """Takes into the mean how long a photo took, from before it was decoded."""
    with self._lock:
      mean = self._seconds_a_photo
      self._seconds_a_photo = newest if mean is None else (
          mean + _NEWEST_SHARE * (newest - mean))
