"""Reads the photos of a request and classifies them."""

import collections
import time

import flask

from compat import tf
from datasets.photo_files.photo_colors import CostlyPhotoError, PhotoError
from serving.model.batching import Busy, Closing
from serving.model.patience import Gone, TimedOut
from serving.web import multipart, refusals, uploads
from serving.web.refusals import Refused

# The field of a form that holds the photos.
_FIELD = 'file'

# Maximum number of form parts that are not photos, and bytes read of each.
_OTHER_PARTS, _FIELD_BYTES = 16, 100

# name: of the file, None if it has none. data: bytes of the file.
Upload = collections.namedtuple('Upload', 'name data')

# name, data: as in Upload. answer: Answer, or None. refused: the reason for
# None.
Result = collections.namedtuple('Result', 'name data answer refused')


def classify(app, service, photos):
  """Classifies photos.

  Args:
    app: the application, for its limits.
    service: what create_app got.
    photos: list of Uploads.

  Returns:
    List of Results in the order of the photos, and the milliseconds that
    classification took, including waiting.

  Raises:
    Refused: the server is busy or shutting down, the client sends too many
      photos, the request has timed out, its client has disconnected, or the
      only photo is unusable.
  """
  app.limit_rate(len(photos))
  results = [_checked(app, photo) for photo in photos]
  usable = [result.data for result in results if not result.refused]
  start = time.monotonic()
  try:
    patience = flask.request.environ.get('serving.patience')
    answers = iter(service.examine_each(usable, patience) if usable else ())
  except Busy as busy:
    app.limit_rate(-len(photos))
    raise refusals.busy(max(1, int(busy.retry_after)))
  except TimedOut as error:
    raise refusals.busy(error.retry_after, 'timed_out')
  except Gone:
    raise Refused('client_left')
  except Closing:
    app.limit_rate(-len(photos))
    raise Refused('closing')
  milliseconds = 1000 * (time.monotonic() - start)
  results = [result if result.refused else _answered(result, next(answers))
             for result in results]
  if len(results) == 1 and results[0].refused:
    # A new exception: a raised one holds this frame, and the frame holds
    # `results`, so the photo would stay in memory until the garbage collector
    # finds the cycle.
    raise results[0].refused.again()
  for result in results:
    if result.refused:
      app.numbers.observe_refusal(result.refused)
  return results, milliseconds


def read(app):
  """Reads the current request.

  A body that is not a multipart form is read as one photo, whatever its
  Content-Type: curl sends `--data-binary` as application/x-www-form-urlencoded.

  Args:
    app: the application, for its limits.

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
                  encoding=refusals.shown(coding))
  most = app.config['MAX_CONTENT_LENGTH']
  if (request.content_length or 0) > most:
    raise Refused('request_too_large', max_mb=most // 2 ** 20)
  # Not request.files: werkzeug's parser writes temporary files.
  body = request.get_data(cache=False, parse_form_data=False)
  if len(body) > most:
    raise Refused('request_too_large', max_mb=most // 2 ** 20)
  try:
    kind, boundary = request.mimetype, request.mimetype_params.get('boundary')
  except (LookupError, UnicodeError):  # `boundary*=no-such-charset''x`
    raise Refused('bad_form')
  if kind == 'multipart/form-data':
    return read_form(body, boundary, app.config['MAX_PHOTOS'])
  if not body:
    raise Refused('no_photo')
  return [Upload(None, body)], {}


def read_form(body, boundary, max_photos):
  """Does what `read` does, for the bytes of a form.

  Args:
    body: bytes of the form.
    boundary: string, the parameter of its Content-Type.
    max_photos: maximum number of photos.

  Raises:
    Refused: as multipart.parts does; too_many_photos, no_photo, wrong_field or
      not_a_file.
  """
  photos, fields = [], {}
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


def _wrong_field(name):
  return Refused('wrong_field', name=refusals.shown(name), accepted=_FIELD)


def _checked(app, photo):
  try:
    uploads.check(photo.data, app.config['MAX_UPLOAD_MB'] * 2 ** 20,
                  app.config['MAX_PIXELS'])
  except Refused as refused:
    return Result(*photo, None, refused.again().of_file(photo.name))
  return Result(*photo, None, None)


def _answered(result, answer):
  if isinstance(answer, PhotoError):
    # Pillow's own message goes to the log only: it may hold internal details.
    tf.logging.debug('unreadable photo: %s', answer)
    code = ('too_costly' if isinstance(answer, CostlyPhotoError) else
            'unreadable_photo')
    return result._replace(refused=Refused(code).of_file(result.name))
  return result._replace(answer=answer)
