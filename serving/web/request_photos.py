"""Reads the photos of a request and classifies them."""

import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import flask

from compat import tf
from datasets.photo_files.photo_colors import CostlyPhotoError, PhotoError
from serving.model.admission import Busy
from serving.model.batching import ShuttingDown
from serving.model.deadlines import ClientDisconnected, TimedOut
from serving.model.predictions import (
  NOTHING_MORE,
  Details,
  Prediction,
)
from serving.web import multipart, refusals, uploads
from serving.web.app_state import AppState
from serving.web.refusals import Refused

# The field of a form that holds the photos.
_FIELD = 'file'

# Maximum number of form parts that are not photos, and bytes read of each.
_OTHER_PARTS, _FIELD_BYTES = 16, 1000

Fields = Dict[str, List[str]]


class Upload(NamedTuple):
  """A file of a request."""

  # Of the file; None: it has none.
  name: Optional[str]
  # Bytes of the file.
  data: bytes


class Result(NamedTuple):
  """A file of a request, and what it was answered with."""

  # Of the file; None: it has none.
  name: Optional[str]
  # Bytes of the file.
  data: bytes
  # None: the photo was refused.
  prediction: Optional[Prediction]
  # The reason; None: the photo was classified.
  refused: Optional[Refused]


def classify(state: AppState, photos: List[Upload],
             details: Details = NOTHING_MORE, keep: bool = True
             ) -> Tuple[List[Result], float]:
  """Classifies photos, and stores them if the server is configured to.

  Args:
    state: of the application.
    photos: list of Uploads.
    details: what is requested besides the scores.
    keep: whether photos may be stored.

  Returns:
    List of Results in the order of the photos, and the milliseconds that
    classification took, including waiting.

  Raises:
    Refused: the server is busy or shutting down, the client sends too many
      photos, the request has timed out, its client has disconnected, or the
      only photo is unusable.
  """
  state.limit_rate(len(photos))
  results = [_checked(state.config, photo) for photo in photos]
  usable = [result.data for result in results if not result.refused]
  start = time.monotonic()
  try:
    deadline = flask.request.environ.get('serving.deadline')
    predictions = iter(
        state.service.predict_each(usable, deadline, details)
        if usable else ())
  except Busy as busy:
    state.limit_rate(-len(photos))
    raise refusals.retry_later(max(1, int(busy.retry_after)))
  except TimedOut as error:
    raise refusals.retry_later(error.retry_after, 'timed_out')
  except ClientDisconnected:
    raise Refused('client_left')
  except ShuttingDown:
    state.limit_rate(-len(photos))
    raise Refused('closing')
  milliseconds = 1000 * (time.monotonic() - start)
  results = [result if result.refused else
             _with_prediction(result, next(predictions), details)
             for result in results]
  if len(results) == 1 and results[0].refused:
    # A new exception: a raised one holds this frame, and the frame holds
    # `results`, so the photo would stay in memory until the garbage collector
    # finds the cycle.
    raise results[0].refused.copy()
  for result in results:
    if result.refused:
      state.metrics.observe_refusal(result.refused)
    elif keep:
      state.keep_photo(result.data)
  return results, milliseconds


def read(config: Mapping[str, Any]) -> Tuple[List[Upload], Fields]:
  """Reads the current request.

  A body that is not a multipart form is read as one photo, whatever its
  Content-Type: curl sends `--data-binary` as application/x-www-form-urlencoded.

  Args:
    config: of the application, for its limits.

  Returns:
    List of Uploads, and a dict of the form's other fields: {name: list of
    strings}, of which only the first bytes are read.

  Raises:
    Refused: there is no photo, or the request is not a valid form, compressed
      or too large.
  """
  request = flask.request
  coding = request.headers.get('Content-Encoding', 'identity')
  if coding.strip().lower() not in ('', 'identity'):
    raise Refused('bad_encoding', {'Accept-Encoding': 'identity'},
                  encoding=refusals.printable(coding))
  max_bytes = config['MAX_CONTENT_LENGTH']
  if (request.content_length or 0) > max_bytes:
    raise Refused('request_too_large', max_mb=max_bytes // 2 ** 20)
  # Not request.files: werkzeug's parser writes temporary files.
  body = request.get_data(cache=False, parse_form_data=False)
  if len(body) > max_bytes:
    raise Refused('request_too_large', max_mb=max_bytes // 2 ** 20)
  try:
    kind, boundary = request.mimetype, request.mimetype_params.get('boundary')
  except (LookupError, UnicodeError):  # `boundary*=no-such-charset''x`
    raise Refused('bad_form')
  if kind == 'multipart/form-data':
    return read_form(body, boundary, config['MAX_PHOTOS'])
  if not body:
    raise Refused('no_photo')
  return [Upload(None, body)], {}


def read_form(body: bytes, boundary: Optional[str], max_photos: int
              ) -> Tuple[List[Upload], Fields]:
  """Returns what `read` returns, for the bytes of a form.

  Args:
    body: bytes of the form.
    boundary: the parameter of its Content-Type; None: missing.
    max_photos: maximum number of photos.

  Raises:
    Refused: as multipart.parts does; too_many_photos, no_photo, wrong_field or
      not_a_file.
  """
  photos: List[Upload] = []
  fields: Fields = {}
  for part in multipart.parts(body, boundary, max_photos + _OTHER_PARTS):
    if part.filename is None:
      fields.setdefault(part.name, []).append(
          part.content[:_FIELD_BYTES].decode('utf-8', 'replace'))
    elif part.name != _FIELD:
      raise _wrong_field(part.name)
    elif len(photos) >= max_photos:
      raise Refused('too_many_photos', most=max_photos)
    else:
      photos.append(Upload(part.filename, part.content))
  if _FIELD in fields:
    raise Refused('not_a_file', name=_FIELD)
  if not photos and fields:
    raise _wrong_field(next(iter(fields)))
  if not photos:
    raise Refused('no_photo')
  return photos, fields


def value_of(name: str, fields: Fields) -> Optional[str]:
  """Returns the value of a parameter, None if it is not given.

  Args:
    name: of the parameter.
    fields: of the form, where it may be given instead of in the query.

  Raises:
    Refused: bad_parameter: it has several values.
  """
  given = set(flask.request.args.getlist(name) + fields.get(name, []))
  if len(given) > 1:
    raise Refused('bad_parameter', name=name, accepted=name + '=…')
  return given.pop() if given else None


def _wrong_field(name):
  return Refused('wrong_field', name=refusals.printable(name), accepted=_FIELD)


def _checked(config, photo):
  try:
    uploads.check(photo.data, config['MAX_UPLOAD_MB'] * 2 ** 20,
                  config['MAX_PIXELS'], config['MAX_PHOTO_MB'] * 10 ** 6)
  except Refused as refused:
    return Result(*photo, None, refused.copy().with_file_name(photo.name))
  return Result(*photo, None, None)


def _with_prediction(result, prediction, details):
  if isinstance(prediction, PhotoError):
    # Pillow's own message goes to the log only: it may hold internal details.
    tf.logging.debug('unreadable photo: %s', prediction)
    code = ('too_costly' if isinstance(prediction, CostlyPhotoError) else
            'unreadable_photo')
    return result._replace(refused=Refused(code).with_file_name(result.name))
  if details.explain is not None and prediction.heat_map is None:
    # The graph was replaced meanwhile.
    return result._replace(refused=Refused(
        'not_available', name='explain').with_file_name(result.name))
  return result._replace(prediction=prediction)
