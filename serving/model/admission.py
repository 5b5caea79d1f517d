"""Limits on the photos that are accepted but not answered.

Nothing here is locked: the caller does that.
"""

import math
from typing import Callable, Optional

from serving.model.fair_queue import Request

# Weight of the newest request in the running mean of seconds per photo, which
# tells a refused client when to retry. Seconds per photo are the seconds of a
# request divided by the number of its photos and those before it.
_NEWEST_SHARE = 0.2

# Largest Retry-After, in seconds.
_LONGEST_RETRY = 120


class Busy(Exception):
  """The queue is full.

  Attributes:
    retry_after: whole seconds after which there will be room, at least 1.
  """

  def __init__(self, retry_after: int):
    super().__init__('busy; try again in %d s' % retry_after)
    self.retry_after = retry_after


class Admission:
  """Counts the accepted photos, and refuses those above the limits.

  Attributes:
    photos: number of photos that are accepted but not answered.
    small_photos: the same without the large ones.
    preparing: number of small photos that are accepted but not prepared.
  """

  def __init__(self, max_photos: int, max_weight: float,
               is_large: Callable[[float], bool],
               seconds_per_photo: Optional[float]):
    """Stores the limits.

    Args:
      max_photos: maximum number of photos.
      max_weight: maximum total weight of the photos.
      is_large: function of a weight.
      seconds_per_photo: initial estimate; None: unknown.
    """
    self._max_photos = max_photos
    self._max_weight = max_weight
    self._is_large = is_large
    self._seconds_per_photo = seconds_per_photo
    self._weight = 0.0
    self.photos = self.small_photos = self.preparing = 0

  def enter(self, request: Request) -> int:
    """Accepts a request; returns the number of accepted photos with its own.

    Raises:
      Busy: there is no room.
    """
    count, weight = len(request.weights), self._weight_of(request)
    if self.photos and (self.photos + count > self._max_photos or
                        2 * weight > self._max_weight - self._weight):
      raise Busy(self.retry_after())
    self.photos += count
    self._weight += weight
    num_small = self._num_small(request)
    self.small_photos += num_small
    self.preparing += num_small
    return self.photos

  def note_prepared(self, weight: float) -> None:
    """Notes that a photo is prepared, or will not be."""
    self.preparing -= not self._is_large(weight)

  def leave(self, request: Request) -> None:
    """Removes a request."""
    self.photos -= len(request.weights)
    self.small_photos -= self._num_small(request)
    self._weight -= self._weight_of(request)

  def retry_after(self) -> int:
    """Returns in how many seconds all accepted photos will be answered."""
    seconds = self.photos * (self._seconds_per_photo or 0)
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)

  def note_seconds(self, newest: float) -> None:
    """Updates the mean seconds per photo, counted from before decoding."""
    mean = self._seconds_per_photo
    self._seconds_per_photo = newest if mean is None else (
        mean + _NEWEST_SHARE * (newest - mean))

  def _num_small(self, request: Request) -> int:
    return sum(not self._is_large(weight) for weight in request.weights)

  def _weight_of(self, request: Request) -> float:
    return min(sum(request.weights), self._max_weight / 2)
