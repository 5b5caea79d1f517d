"""Groups the photos of several requests into batches for one session.

  batcher = Batcher(classifier.predict_prepared, batch_size=8)
  answers = batcher.submit([data], prepare)   # from any thread

A batch takes less time than its photos one by one. This module also limits how
many photos and how many pixels may wait, and shares the session between
requests by pixels (self-clocked fair queueing): a request with large photos, or
with many, does not delay a small request of another client. A large photo runs
in parallel with the batches, in a thread of its own, so that no other photo
waits for it.
"""

import collections
import math
import threading
import time
from concurrent import futures
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from compat import tf
from serving.model.admission import Admission, Busy
from serving.model.deadlines import ClientDisconnected, Deadline, TimedOut
from serving.model.fair_queue import FairQueue, QueuedPhoto, Request


class ShuttingDown(Exception):
  """The server is shutting down and accepts no more photos."""


class SessionFailed(Exception):
  """The session failed on this photo; the cause is in the log."""


class Batcher:
  """A bounded queue of photos, and the threads that classify them."""

  def __init__(self, predict: Callable[[List[Any]], Sequence[Any]],
               batch_size: int = 8, window_secs: float = 0.005,
               max_queue: int = 64, seconds_per_photo: Optional[float] = None,
               weigh: Optional[Callable[[Any], float]] = None,
               large: float = math.inf, max_weight: float = math.inf,
               observe: Optional[Callable[[str, float], None]] = None,
               runs: int = 1):
    """Starts the threads.

    Args:
      predict: function of a list of prepared photos; returns as many results.
        Called from `runs` threads, and from one more for the large photos.
      batch_size: maximum number of photos per call.
      window_secs: how long the first photo of a batch waits, while the session
        is free, for others that are accepted but not prepared yet.
      max_queue: maximum number of photos that are accepted but not answered.
      seconds_per_photo: initial estimate; None: unknown.
      weigh: function of a photo before it is prepared; returns its weight in
        pixels. None: all weights are 0.
      large: a photo with a larger weight is classified alone, in parallel with
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
    self._predict = predict
    self._batch_size = batch_size
    self._window_secs = window_secs
    self._max_queue = max_queue
    self._weigh = weigh or (lambda photo: 0)
    self._large = large
    self._observe = observe or (lambda name, value: None)
    self._queue = FairQueue(large)
    self._admission = Admission(max_queue, max_weight, self._queue.is_large,
                                seconds_per_photo)
    self._callbacks: Deque[Tuple[Callable, futures.Future]] = (
        collections.deque())
    self._running = 0  # Batches and callbacks.
    self._running_small = 0  # Batches without large photos.
    self._closing = False
    self._counts = dict(batches=0, photos=0, refused=0, timed_out=0, left=0)
    # The lock guards all of the above. It has two conditions, for small and for
    # large photos. A condition is notified when such a photo or a callback
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

  def submit(self, photos: Sequence[Any], prepare: Callable[[Any], Any],
             deadline: Optional[Deadline] = None) -> List[Any]:
    """Has photos classified, together with those of other threads.

    Checks that there is room before it prepares the first photo: an overloaded
    server does not decode what it refuses. A request with more photos than the
    queue holds is accepted when nothing else waits.

    Args:
      photos: list with one entry per photo.
      prepare: function of an entry, called in this thread. Its return value is
        queued; if that is an exception, it is the result of the photo instead.
      deadline: Deadline of the caller; None: no time limit. Once the caller has
        given up, its remaining photos are neither prepared nor classified.

    Returns:
      List of the results in the order of `photos`.

    Raises:
      Busy: there is no room.
      ShuttingDown: close() was called.
      SessionFailed: the session failed.
      TimedOut: the deadline has passed.
      ClientDisconnected: the client has disconnected.
    """
    if not photos:
      return []
    request = Request(list(map(self._weigh, photos)), deadline or Deadline())
    start, accepted = time.monotonic(), self._enter(request)
    to_prepare = collections.deque(enumerate(photos))
    try:
      while to_prepare:
        request.deadline.check()
        index, photo = to_prepare[0]
        prepared = prepare(photo)
        to_prepare.popleft()
        self._add(request, index, prepared)
      request.deadline.wait(request.answered.wait)
      with self._lock:
        self._admission.note_seconds((time.monotonic() - start) / accepted)
    except (TimedOut, ClientDisconnected) as error:
      raise self._counted(error)
    finally:
      self._leave(request, [index for index, _ in to_prepare])
    if isinstance(request.error, (TimedOut, ClientDisconnected)):
      raise self._counted(request.error)
    if request.error:
      raise SessionFailed('%s: %s' % (type(request.error).__name__,
                                      request.error))
    return request.results

  def run_between_batches(self, function: Callable[[], Any]) -> Any:
    """Calls `function` while no batch runs, and waits for it.

    Returns:
      The return value of `function`.

    Raises:
      ShuttingDown: close() was called.
    """
    future: futures.Future = futures.Future()
    with self._lock:
      if self._closing:
        raise ShuttingDown('the server is shutting down')
      self._callbacks.append((function, future))
      self._notify_all()
    return future.result()

  def counts(self) -> Dict[str, int]:
    """Returns the counters as a dict.

    Keys: queue_length and queue_limit, in photos; batches, photos; refused, in
    photos; and the numbers of requests that were given up: timed_out, left.
    """
    with self._lock:
      return dict(self._counts, queue_length=self._admission.photos,
                  queue_limit=self._max_queue)

  def close(self, timeout: Optional[float] = None) -> bool:
    """Refuses new photos, and waits until all accepted photos are answered.

    Args:
      timeout: maximum seconds to wait; None: no limit.

    Returns:
      Whether all are answered.
    """
    with self._lock:
      self._closing = True
      self._notify_all()
    end = None if timeout is None else time.monotonic() + timeout
    for thread in self._threads:
      thread.join(end and max(0.0, end - time.monotonic()))
    return not any(thread.is_alive() for thread in self._threads)

  def _enter(self, request):
    """Accepts a request; returns the number of accepted photos with its own."""
    with self._lock:
      if self._closing:
        raise ShuttingDown('the server is shutting down')
      try:
        return self._admission.enter(request)
      except Busy:
        self._counts['refused'] += len(request.weights)
        raise

  def _leave(self, request, unprepared):
    """Removes a request, and those of its photos that are still queued.

    Args:
      request: Request.
      unprepared: indices of the photos that will not be prepared.
    """
    with self._lock:
      self._admission.leave(request)
      for index in unprepared:
        self._admission.note_prepared(request.weights[index])
      if request.missing:
        self._queue.remove_request(request)
      if self._closing:
        self._notify_all()
      # Wake the threads that wait for a batch: fewer photos are being prepared,
      # and fewer make a full batch.
      self._changed[False].notify()

  def _notify_all(self):
    with self._lock:
      for changed in self._changed.values():
        changed.notify_all()

  def _counted(self, error):
    """Counts a request that was given up; returns a new error to raise."""
    with self._lock:
      if isinstance(error, ClientDisconnected):
        self._counts['left'] += 1
        return ClientDisconnected(*error.args)
      self._counts['timed_out'] += 1
      return TimedOut(self._admission.retry_after())

  def _add(self, request, index, prepared):
    """Queues a prepared photo, or stores the exception returned instead."""
    weight = request.weights[index]
    with self._lock:
      self._admission.note_prepared(weight)
      if isinstance(prepared, Exception):
        request.set_result(index, prepared)
      else:
        self._queue.add(request, index, prepared)
      self._changed[self._queue.is_large(weight)].notify()

  def _work(self, is_large):
    while True:
      batch = self._next_batch(is_large)
      if batch is None:
        return
      now = time.monotonic()
      for photo in batch:
        self._observe('classifier_queue_duration_seconds', now - photo.since)
        del photo
      try:
        self._run(batch)
      finally:
        del batch  # Otherwise its photos stay in memory until the next batch.
        with self._lock:
          self._running -= 1
          self._running_small -= not is_large
          if self._callbacks or self._closing:
            self._notify_all()

  def _next_batch(self, is_large):
    """Waits for a batch, running callbacks meanwhile; None at the end."""
    while True:
      with self._lock:
        if self._callbacks and not self._running:
          self._running += 1
        elif self._closing and not self._admission.photos:
          return None
        else:
          photos = self._queue.photos(is_large)
          seconds = self._seconds_to_batch(photos, is_large)
          if seconds is None or seconds > 0 or self._callbacks:
            self._changed[is_large].wait(None if self._callbacks else seconds)
            continue
          batch = self._take_batch(photos)
          if batch:
            self._running += 1
            self._running_small += not is_large
            # What is left may be a batch for another thread.
            self._changed[is_large].notify()
            return batch
          continue
      self._run_callback()

  def _max_photos(self):
    """Returns the maximum size of the next batch, its share of small photos."""
    share = math.ceil(self._admission.small_photos / self._runs)
    return max(1, min(self._batch_size, share))

  def _take_batch(self, photos: List[QueuedPhoto]) -> List[QueuedPhoto]:
    """Takes a batch from the queue; empty if all callers have given up."""
    batch: List[QueuedPhoto] = []
    weight, max_photos = 0.0, self._max_photos()
    for photo in photos:
      weight += photo.weight
      if batch and (len(batch) == max_photos or
                    weight > 2 * self._large / self._runs or
                    self._queue.is_large(photo.weight)):
        break
      self._queue.remove(photo)
      try:
        photo.request.deadline.check()
      except (TimedOut, ClientDisconnected) as error:
        weight -= photo.weight
        photo.request.set_result(photo.position, None, error)
      else:
        self._queue.note_taken(photo)
        batch.append(photo)
    return batch

  def _run_callback(self):
    # A separate frame: this thread must not keep the return value alive.
    function, future = self._callbacks[0]
    try:
      future.set_result(function())
    except Exception as error:  # Raised again in the thread of the caller.
      future.set_exception(error)
    with self._lock:
      # Decremented last: no batch starts while a callback is pending.
      self._callbacks.popleft()
      self._running -= 1
      self._notify_all()

  def _seconds_to_batch(self, photos, is_large):
    """Returns the seconds until a batch may start; None: nothing waits.

    A photo waits only for others that are accepted, and not for large ones.
    """
    if not photos:
      return None
    if is_large or len(photos) >= self._max_photos():
      return 0
    if self._running_small:  # Its end wakes this thread.
      return None
    if not self._admission.preparing:
      return 0
    return (min(photo.since for photo in photos) + self._window_secs -
            time.monotonic())

  def _run(self, batch):
    """Classifies a batch; if that fails, each of its photos alone."""
    try:
      results = self._results(batch)
    # Any error: the callers are waiting, and the next batch must still run.
    except Exception as raised:
      error = raised.with_traceback(None)  # Its frames hold the photos.
    else:
      self._set_results(batch, results)
      return
    if len(batch) > 1:
      for photo in batch:
        self._run([photo])
      return
    # A copy: another thread may be using this context for another photo of the
    # same request.
    photo = batch[0]
    photo.request.context.copy().run(
        tf.logging.error, 'the session failed on a photo: %s: %s',
        type(error).__name__, ' '.join(str(error).split()))
    self._set_result(photo, None, error)

  def _set_results(self, batch, results):
    with self._lock:
      self._counts['batches'] += 1
      self._counts['photos'] += len(batch)
    for photo, result in zip(batch, results):
      self._set_result(photo, result)

  def _set_result(self, photo, result, error=None):
    with self._lock:
      photo.request.set_result(photo.position, result, error)

  def _results(self, batch):
    start = time.monotonic()
    results = self._predict([photo.prepared for photo in batch])
    self._observe('classifier_forward_duration_seconds',
                  time.monotonic() - start)
    self._observe('classifier_batch_size', len(batch))
    if len(results) != len(batch):
      raise ValueError('%d results of %d photos' % (len(results), len(batch)))
    return results
