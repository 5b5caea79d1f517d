"""Processes many items in threads, in order."""

import collections
import concurrent.futures
import os
from typing import Callable, Deque, Iterable, Iterator, Sequence, TypeVar

from common.progress import Progress

# Threads, not processes: reading, hashing, decoding and writing all release
# Python's lock, and forking with TensorFlow's threads is avoided.
_THREADS = max(2, os.cpu_count() or 2)

# Photos per task; how many tasks per thread may be ahead of the next result in
# order, so that one slow photo does not stop the threads.
_CHUNK, _AHEAD = 8, 16

Item = TypeVar('Item')
Result = TypeVar('Result')


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item],
                   doing: str) -> Iterator[Result]:
  """Yields function(item) for each photo, in order, and shows progress.

  Args:
    function: called in several threads at once; an exception ends the work.
    items: a list, one item per photo.
    doing: what is done to the photos, such as 'checked'.
  """
  def work(start):
    return [function(item) for item in items[start:start + _CHUNK]]

  with Progress(doing, len(items)) as progress:
    for results in iterate_in_threads(work, range(0, len(items), _CHUNK)):
      for result in results:
        yield result
        progress.add()


def run_in_threads(function: Callable[[Item], object],
                   items: Iterable[Item]) -> None:
  """Calls function(item) for each item; an exception ends the work."""
  for _ in iterate_in_threads(function, items):
    pass


def iterate_in_threads(function: Callable[[Item], Result],
                       items: Iterable[Item],
                       ahead: int = _AHEAD * _THREADS) -> Iterator[Result]:
  """Yields function(item) for each item, in order; ends all threads after.

  Args:
    function: called in several threads at once; an exception ends the work.
    items: iterable.
    ahead: how many results may be ahead of the next one in order.
  """
  waiting: Deque[concurrent.futures.Future] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as executor:
    try:
      for item in items:
        waiting.append(executor.submit(function, item))
        if len(waiting) > ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()
