"""Time limits of requests, and a limit on the threads that decode."""

import bisect
import contextlib
import functools
import math
import threading
import time

# Seconds between two checks whether the client of a waiting request is gone.
_LOOK_SECS = 1.0

# Minimum seconds between two such checks: each is a system call.
_REST_SECS = 0.05


class TimedOut(Exception):
  """The caller's deadline has passed.

  Attributes:
    retry_after: seconds after which it may retry, a whole number, at least 1.
  """

  def __init__(self, retry_after=1):
    super().__init__('the deadline of the request is over')
    self.retry_after = retry_after


class Gone(Exception):
  """The client has closed its connection."""


class Patience:
  """The time limit of a caller, and whether its client is still connected."""

  def __init__(self, seconds=math.inf, is_gone=lambda: False):
    """Starts the clock.

    Args:
      seconds: until the deadline.
      is_gone: function; whether the client has disconnected. Called by any
        thread.
    """
    self._deadline = time.monotonic() + seconds
    self._is_gone = is_gone
    self._next_look = -math.inf

  def check(self):
    """Raises TimedOut or Gone if the response is no longer needed."""
    now = time.monotonic()
    if now >= self._deadline:
      raise TimedOut
    if now >= self._next_look:
      if self._is_gone():
        raise Gone('the client has left')
      self._next_look = now + _REST_SECS

  def wait(self, try_for):
    """Calls `try_for(seconds)`, which itself waits, until it returns true.

    Raises:
      TimedOut, Gone: as `check` does.
    """
    seconds = 0.0
    while not try_for(max(0.0, seconds)):
      self.check()
      seconds = min(_LOOK_SECS, self._deadline - time.monotonic())


class Places:
  """A limit on the threads that decode; used as `with places.take(...)`.

  First photos of requests go before second photos of other requests.
  """

  def __init__(self, count):
    self._free = count
    self._number = 0  # Of the newest thread.
    self._waiting = []  # Sorted.
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def take(self, index, patience):
    """Waits for a place, and holds it during the `with` block.

    Args:
      index: position of the photo in its request.
      patience: Patience of the request.

    Raises:
      TimedOut, Gone: as `patience.wait` does.
    """
    with self._changed:
      self._number += 1
      ticket = index, self._number
      bisect.insort(self._waiting, ticket)
      try:
        patience.wait(functools.partial(
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
