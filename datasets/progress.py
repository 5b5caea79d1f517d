"""Work on many items in threads, with progress on stderr."""

import collections
import concurrent.futures
import os
import sys
import time

import tqdm

# Threads, not processes: reading, hashing, decoding and writing all release
# Python's lock, and nothing is forked beside TensorFlow's threads.
_THREADS = max(2, os.cpu_count() or 2)

# Photos that a thread takes at a time; how far threads may be ahead of the
# result that is waited for, so that one slow photo does not stop them.
_CHUNK, _AHEAD = 8, 16

# Without a terminal, a line of progress now and then.
_LINE_SECONDS = 10


def map_in_threads(function, items, doing):
  """Yields function(item) for each photo, in order, and shows progress.

  Args:
    function: called in several threads at once; what it raises ends the work.
    items: a list, an item a photo.
    doing: what is done to the photos, such as 'checked'.
  """
  def work(start):
    return [function(item) for item in items[start:start + _CHUNK]]

  with Progress(doing, len(items)) as progress:
    for results in _in_threads(work, range(0, len(items), _CHUNK)):
      for result in results:
        yield result
        progress.add()


def run_in_threads(function, items):
  """Calls function(item) for each item; what it raises ends the work."""
  for _ in _in_threads(function, items):
    pass


def _in_threads(function, items):
  """Yields function(item) for each item, in order; no thread runs on after."""
  waiting = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as executor:
    try:
      for item in items:
        waiting.append(executor.submit(function, item))
        if len(waiting) > _AHEAD * _THREADS:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()


class Progress:
  """Shows how many photos are done, with photos a second; for a `with`.

  A bar where stderr is a terminal, else a line every ten seconds. `add` may be
  called from several threads.
  """

  def __init__(self, doing, total):
    """Begins.

    Args:
      doing: what is done to the photos, such as 'checked'.
      total: how many photos there are.
    """
    self._doing, self._total, self._count = doing, total, 0
    self._start = self._last = time.time()
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(desc=doing, total=total, unit=' photos',
                            file=sys.stderr)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._bar is not None:
      self._bar.close()

  def add(self):
    """Counts one photo."""
    if self._bar is not None:
      self._bar.update()
      return
    self._count += 1
    now = time.time()
    if now - self._last >= _LINE_SECONDS:
      self._last = now
      print('%s %d of %d photos, %.1f photos/s' %
            (self._doing, self._count, self._total,
             self._count / (now - self._start)), file=sys.stderr, flush=True)
