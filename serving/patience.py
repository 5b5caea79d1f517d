"""How long a request waits: for its answer, and for a place to decode in."""

import bisect
import contextlib
import functools
import math
import threading
import time

# Seconds between two looks whether the client of a waiting request has left.
_LOOK_SECS = 1.0

# Seconds after a look in which there is no other: each asks the system.
_REST_SECS = 0.05


class TimedOut(Exception):
  """The caller's deadline is over.

  Attributes:
    retry_after: whole seconds after which it may try again, at least 1.
  """

  def __init__(self, retry_after=1):
    super().__init__('the deadline of the request is over')
    self.retry_after = retry_after


class Gone(Exception):
  """The client has closed its connection."""


class Patience:
  """How long a caller waits for its answer."""

  def __init__(self, seconds=math.inf, is_gone=lambda: False):
    """Starts the clock.

    Args:
      seconds: until the deadline.
      is_gone: function; whether the client has left. Called by any thread.
    """
    self._deadline = time.monotonic() + seconds
    self._is_gone = is_gone
    self._next_look = -math.inf

  def check(self):
    """Raises TimedOut or Gone where nobody waits any more."""
    now = time.monotonic()
    if now >= self._deadline:
      raise TimedOut
    if now >= self._next_look:
      if self._is_gone():
        raise Gone('the client has left')
      self._next_look = now + _REST_SECS

  def wait(self, try_for):
    """Waits until `try_for(seconds)` is true, a function that waits itself.

    Raises:
      TimedOut, Gone: as `check` does.
    """
    seconds = 0.0
    while not try_for(max(0.0, seconds)):
      self.check()
      seconds = min(_LOOK_SECS, self._deadline - time.monotonic())


class Places:
  """Places for threads that decode; used as `with places.take(...)`.

  The first photo of a request goes before the second one of another.
  """

  def __init__(self, count):
    self._free = count
    self._number = 0  # Of the newest thread.
    self._waiting = []  # Sorted.
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def take(self, index, patience):
    """Waits for a place, and has it inside the `with`.

    Args:
      index: of the photo in its request.
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
