"""A queue of prepared photos, shared fairly between requests.

By self-clocked fair queueing: each photo gets a tag when it is queued, that of
the photo before it in its request plus its own weight, and photos are taken in
the order of their tags. Large photos have tags of their own. Nothing here is
locked: the caller does that.
"""

import bisect
import contextvars
import threading
import time
from typing import Any, List, NamedTuple, Optional

from serving.model.deadlines import Deadline

# Session time per photo that does not depend on its pixels (that of the network
# itself), expressed in pixels.
_PHOTO_WEIGHT = 10 ** 6


class Request:
  """Photos of one caller, and their results.

  Attributes:
    weights: of its photos, in pixels.
    deadline: Deadline.
    results: in the order of the photos.
    missing: number of photos without a result.
    tags: of its newest small photo in the queue, and of its newest large one.
    error: exception with which a photo failed; None: none did.
    answered: threading.Event, set when no result is missing.
    context: contextvars.Context of the caller; holds the request id for logs.
  """

  def __init__(self, weights: List[float], deadline: Deadline):
    self.weights = weights
    self.deadline = deadline
    self.results: List[Any] = [None] * len(weights)
    self.missing = len(weights)
    self.tags = [0.0, 0.0]
    self.error: Optional[Exception] = None
    self.answered = threading.Event()
    self.context = contextvars.copy_context()

  def set_result(self, index: int, result: Any,
                 error: Optional[Exception] = None) -> None:
    """Stores the result of a photo; wakes the caller after its last photo."""
    self.results[index] = result
    # Drop the traceback: its frames hold the photos, and the garbage collector
    # would find this reference cycle only much later.
    self.error = self.error or (error and error.with_traceback(None))
    self.missing -= 1
    if not self.missing:
      self.answered.set()


class QueuedPhoto(NamedTuple):
  """One prepared photo in the queue."""

  # Photos are taken in the order of their tags.
  tag: float
  # Of the photo; breaks ties between tags.
  number: int
  # The request that it belongs to.
  request: Request
  # In the request.
  position: int
  # What the session takes.
  prepared: Any
  # In pixels.
  weight: float
  # When it was queued, time.monotonic().
  since: float


class FairQueue:
  """The prepared photos of all requests."""

  def __init__(self, large: float):
    """Starts empty.

    Args:
      large: a photo with a larger weight is large.
    """
    self._large = large
    self._photos: List[QueuedPhoto] = []  # Sorted.
    self._number = 0  # Of the newest photo.
    # Of the last small photo taken, and of the last large one.
    self._tags = [0.0, 0.0]

  def is_large(self, weight: float) -> bool:
    """Whether a photo of this weight is large."""
    return weight > self._large

  def add(self, request: Request, index: int, prepared: Any) -> None:
    """Adds a prepared photo of a request."""
    weight = request.weights[index]
    kind = self.is_large(weight)
    self._number += 1
    request.tags[kind] = (max(request.tags[kind], self._tags[kind]) + weight +
                          _PHOTO_WEIGHT)
    bisect.insort(self._photos, QueuedPhoto(
        request.tags[kind], self._number, request, index, prepared, weight,
        time.monotonic()))

  def photos(self, is_large: bool) -> List[QueuedPhoto]:
    """Returns the large photos, or the others, in their order."""
    return [photo for photo in self._photos
            if self.is_large(photo.weight) == is_large]

  def remove(self, photo: QueuedPhoto) -> None:
    """Removes a photo."""
    self._photos.remove(photo)

  def remove_request(self, request: Request) -> None:
    """Removes the photos of a request."""
    self._photos = [photo for photo in self._photos
                    if photo.request is not request]

  def note_taken(self, photo: QueuedPhoto) -> None:
    """Sets the tag from which photos of new requests start."""
    self._tags[self.is_large(photo.weight)] = photo.tag
