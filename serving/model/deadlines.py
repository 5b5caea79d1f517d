"""Deadlines of requests, and a limit on the threads that decode photos."""

import bisect
import contextlib
import functools
import math
import threading
import time
from typing import Callable, Iterator, List, Tuple

# Seconds between two checks whether the client of a waiting request has
# disconnected.
_CHECK_SECS = 1.0

# Minimum seconds between two such checks: each is a system call.
_MIN_CHECK_SECS = 0.05


class TimedOut(Exception):
  """The deadline of a request has passed.

  Attributes:
    retry_after: seconds after which it may retry, a whole number, at least 1.
  """

  def __init__(self, retry_after: int = 1):
    super().__init__('the deadline of the request has passed')
    self.retry_after = retry_after


class ClientDisconnected(Exception):
  """The client has closed its connection."""


class Deadline:
  """The time limit of a request, and whether its client is still connected."""

  def __init__(self, seconds: float = math.inf,
               is_disconnected: Callable[[], bool] = lambda: False):
    """Starts the clock.

    Args:
      seconds: until the deadline.
      is_disconnected: function; whether the client has disconnected. Called by
        any thread.
    """
    self._end = time.monotonic() + seconds
    self._is_disconnected = is_disconnected
    self._next_check = -math.inf

  def check(self) -> None:
    """Raises TimedOut or ClientDisconnected if no response is needed."""
    now = time.monotonic()
    if now >= self._end:
      raise TimedOut
    if now >= self._next_check:
      if self._is_disconnected():
        raise ClientDisconnected('the client has disconnected')
      self._next_check = now + _MIN_CHECK_SECS

  def wait(self, try_for: Callable[[float], object]) -> None:
    """Calls `try_for(seconds)`, which itself waits, until it returns true.

    Raises:
      TimedOut, ClientDisconnected: as `check` does.
    """
    seconds = 0.0
    while not try_for(max(0.0, seconds)):
      self.check()
      seconds = min(_CHECK_SECS, self._end - time.monotonic())


class DecodeSlots:
  """Limits the threads that decode; used as `with slots.take(...)`.

  First photos of requests go before second photos of other requests.
  """

  def __init__(self, count: int):
    self._free = count
    self._number = 0  # Of the newest thread.
    self._waiting: List[Tuple[int, int]] = []  # Sorted.
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def take(self, index: int, deadline: Deadline) -> Iterator[None]:
    """Waits for a slot, and holds it during the `with` block.

    Args:
      index: position of the photo in its request.
      deadline: Deadline of the request.

    Raises:
      TimedOut, ClientDisconnected: as `deadline.wait` does.
    """
    with self._changed:
      self._number += 1
      ticket = index, self._number
      bisect.insort(self._waiting, ticket)
      try:
        deadline.wait(functools.partial(
            self._changed.wait_for,
            lambda: self._free and self._waiting[0] == ticket))
        self._free -= 1
      finally:
        self._waiting.remove(ticket)
        self._changed.notify_all()
    try:
      yield
    finally:
      with self._changed:
        self._free += 1
        self._changed.notify_all()
