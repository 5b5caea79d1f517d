"""From a request to the answers on its photos; for the page and the API."""

import collections
import time

import flask

from compat import tf
from datasets.photos import PhotoError
from serving import multipart, refusals, uploads
from serving.batching import Busy, Closing
from serving.refusals import Refused

# Parts of a form that are no photos; ours has none.
_OTHER_PARTS = 16

# data: bytes of the file. answer: Answer, or None; refused: why there is none.
Result = collections.namedtuple('Result', 'data answer refused')


def classify(app, service):
  """Classifies the photos of the present request.

  Args:
    app: the application, for its limits.
    service: what create_app got.

  Returns:
    List of Results in the order of the photos, and the milliseconds that the
    classifier took, waiting included.

  Raises:
    Refused: there is no photo, the request is no proper form or too large, the
      server is busy or ends, or the only photo is unusable.
  """
  results = [_checked(app, data) for data in _photos(app)]
  usable = [result.data for result in results if not result.refused]
  start = time.monotonic()
  try:
    answers = iter(service.examine_each(usable) if usable else ())
  except Busy as busy:
    raise refusals.busy(max(1, int(busy.retry_after)))
  except Closing:
    raise Refused('closing')
  milliseconds = 1000 * (time.monotonic() - start)
  results = [result if result.refused else _answered(result, next(answers))
             for result in results]
  if len(results) == 1 and results[0].refused:
    # Another one: this frame holds `results`, and a raised exception its frame,
    # so that the photo would stay until Python looks for cycles.
    raise results[0].refused.again()
  return results, milliseconds


def _photos(app):
  """Returns the bytes of the request's files.

  A body that is no form is one photo, whatever its type is said to be: curl
  calls everything a form of the other kind (`--data-binary`).
  """
  request = flask.request
  most = app.config['MAX_CONTENT_LENGTH']
  if (request.content_length or 0) > most:
    raise Refused('request_too_large', max_mb=most // 2 ** 20)
  # Not request.files: werkzeug's parser writes spool files.
  body = request.get_data(cache=False, parse_form_data=False)
  if len(body) > most:
    raise Refused('request_too_large', max_mb=most // 2 ** 20)
  try:
    kind, boundary = request.mimetype, request.mimetype_params.get('boundary')
  except (LookupError, UnicodeError):  # `boundary*=no-such-charset''x`
    raise Refused('bad_form')
  if kind == 'multipart/form-data':
    most = app.config['MAX_PHOTOS']
    found = multipart.files(body, boundary, b'file', most, most + _OTHER_PARTS)
  else:
    found = [body] if body else []
  if not found:
    raise Refused('no_photo')
  return found


def _checked(app, data):
  try:
    uploads.check(data, app.config['MAX_UPLOAD_MB'] * 2 ** 20,
                  app.config['MAX_PIXELS'])
  except Refused as refused:
    return Result(data, None, refused.again())
  return Result(data, None, None)


def _answered(result, answer):
  if isinstance(answer, PhotoError):
    # Pillow's own words are for our log: they may name what is inside us.
    tf.logging.debug('unreadable photo: %s', answer)
    return result._replace(refused=Refused('unreadable_photo'))
  return result._replace(answer=answer)
