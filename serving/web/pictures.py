"""Small pictures of the photos of a request, as data: URIs."""

import base64
import os
from typing import Callable, Optional

import flask

from datasets.photo_files import photos
from datasets.photo_files.photos import PhotoError
from serving.model import heat_map_pictures
from serving.model.deadlines import (
  ClientDisconnected,
  Deadline,
  DecodeSlots,
  TimedOut,
)
from serving.model.predictions import HeatMap
from serving.web import uploads

# Number of previews that are made at a time: each decodes its photo at full
# size. Photos of a larger weight (photos.weight_of) get no preview.
_MAX_WEIGHT = 16 * 10 ** 6
_SLOTS = DecodeSlots(os.cpu_count() or 1)


def uri(jpeg: bytes) -> str:
  """Returns a JPEG as a data: URI."""
  return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode('ascii')


def preview(data: bytes, index: int) -> Optional[str]:
  """Returns a small image of a photo as a data: URI.

  Args:
    data: bytes of the file.
    index: of the photo in the request.

  Returns:
    Text without metadata of the photo; None if the photo is too large.
  """
  return _draw(data, index, lambda small: small)


def heat_map(data: bytes, index: int, values: HeatMap) -> Optional[str]:
  """Returns a heat map over its photo; arguments and result as `preview`."""
  return _draw(data, index, lambda small: heat_map_pictures.draw(
      small, values, uploads.PREVIEW_SIDE))


def _draw(data: bytes, index: int,
          change: Callable[[bytes], bytes]) -> Optional[str]:
  if photos.weight_of(data) > _MAX_WEIGHT:
    return None
  deadline = flask.request.environ.get('serving.deadline') or Deadline()
  try:
    with _SLOTS.take(index, deadline):
      return uri(change(uploads.preview(
          data, flask.current_app.config['MAX_PIXELS'])))
  # The classifier accepted the photo; if not, the scores are shown without it.
  except (PhotoError, TimedOut, ClientDisconnected):
    return None
