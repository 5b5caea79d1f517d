"""The server's pages and its API as a Flask application.

  app = create_app(service, {'KEEP_UPLOADS': True})

The blueprints are in page.py, api.py and operations.py; what they share is in
app_state.py. Errors are pages too, and JSON under /api: a 4xx or 503 status and
one sentence that says what to do. No response contains internal details: no
path, no traceback, no metadata.
"""

from typing import Any, Callable, Mapping, Optional

import flask
import orjson
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from datasets.photo_files import photo_memory
from serving.model import heap_memory
from serving.model.classifier_service import Service
from serving.web import (
  api,
  app_state,
  hosts,
  logs,
  negotiation,
  operations,
  page,
  request_hooks,
  texts,
)
from serving.web.app_state import AppState
from serving.web.metrics import Metrics
from serving.web.refusals import Refused, from_http_error

# Settings of create_app, and their defaults.
DEFAULTS = {
    # Whether photos are kept, in which folder, for how long, and how many
    # megabytes. If they are not kept, nothing is written anywhere.
    'KEEP_UPLOADS': False,
    'UPLOAD_FOLDER': '/tmp/upload',
    'KEEP_DAYS': 30,
    'KEEP_MB': 1024,
    # Folder for corrections, None: they are not accepted; and its maximum
    # number of photos and megabytes.
    'INBOX': None,
    'INBOX_PHOTOS': 1000,
    'INBOX_MB': 1024,
    # Number of classes that the page shows.
    'NUM_TOP_PREDICTIONS': 5,
    # Largest photo, maximum number of photos per request, largest width times
    # height (phones take photos of 50 million pixels), and maximum memory for
    # one photo in units of 10^6 bytes.
    'MAX_UPLOAD_MB': 16,
    'MAX_PHOTOS': 16,
    'MAX_PIXELS': 64 * 10 ** 6,
    'MAX_PHOTO_MB': photo_memory.MAX_BYTES // 10 ** 6,
    # Token that /api/classify and /api/model require, as clients.Tokens takes
    # it.
    'API_TOKEN': None,
    # Photos per minute and client; 0: no limit.
    'RATE_LIMIT': 0,
    # The proxy whose X-Forwarded-For is trusted, as clients.client_address
    # takes it.
    'TRUSTED_PROXY': None,
    # Format of the access log, as logs.AccessLog takes it; None: no access log.
    'ACCESS_LOG': None,
    # Host names under which requests are answered, as hosts.check takes them.
    'ALLOWED_HOSTS': (hosts.ANY,),
    # Whether to serve the page as well as the API.
    'PAGE': True,
    # Whether the training photos that were exported are shown: the examples of
    # the classes, and the nearest ones.
    'EXAMPLES': True,
    # Whether heat maps may be requested.
    'EXPLAIN': True,
}

# Bytes that a request may hold in addition to one photo of the largest size:
# further photos.
_FURTHER_BYTES = 16 * 2 ** 20


class _UrlMap(Map):
  """Flask's URL map without redirects."""

  def __init__(self, *arguments: Any, **options: Any):
    super().__init__(*arguments, **dict(options, merge_slashes=False))


class _Json(DefaultJSONProvider):
  """Writes JSON with orjson.

  The standard library needs more than a millisecond for a thousand scores, and
  holds the global interpreter lock meanwhile.
  """

  def dumps(self, obj: Any, **kwargs: Any) -> str:
    try:
      return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS).decode('utf-8')
    except TypeError:  # An unpaired surrogate in a file name.
      return super().dumps(obj, **kwargs)


class ClassifierApp(flask.Flask):
  """A Flask application; shutdown.DrainingServer calls its two functions.

  Attributes:
    refuses_early: AppState.refuses_early.
    note_refused: AppState.note_refused.
  """

  url_map_class = _UrlMap
  json_provider_class = _Json
  refuses_early: Callable[..., bool]
  note_refused: Callable[..., None]


def create_app(service: Service, config: Optional[Mapping[str, Any]] = None,
               metrics: Optional[Metrics] = None) -> ClassifierApp:
  """Creates the application.

  Args:
    service: Service, or an object with its `labels`, `predict_each`,
      `is_ready`, `model_info`, `examples`, `has_nearest`, `can_explain` and
      `counts`.
    config: dict that overrides DEFAULTS; sizes are in units of 2^20 bytes.
    metrics: Metrics that /metrics shows; None: new ones.

  Raises:
    InputError: the folder for uploads or the file of tokens cannot be used.
  """
  app = ClassifierApp(__name__)
  app.config.update(DEFAULTS)
  app.config.update(config or {})
  app.config['MAX_CONTENT_LENGTH'] = body_bytes(app.config['MAX_UPLOAD_MB'])
  # With FLASK_DEBUG in the environment, errors would be raised to the WSGI
  # server.
  app.debug = app.testing = False
  app.logger.addFilter(logs.escape_record)  # Flask logs URLs with our errors.
  heap_memory.use_one_arena()  # Programs should call it earlier, if they can.
  state = AppState(service, app.config, metrics or Metrics())
  app_state.attach(app, state)
  app.refuses_early, app.note_refused = state.refuses_early, state.note_refused
  request_hooks.register(app)
  app.register_blueprint(api.blueprint)
  app.register_blueprint(operations.blueprint)
  if app.config['PAGE']:
    app.register_blueprint(page.blueprint)
  app.register_error_handler(Refused, _refused)
  app.register_error_handler(HTTPException, _http_error)
  app.wsgi_app = _without_ranges(app.wsgi_app)  # type: ignore[assignment]
  return app


def body_bytes(max_upload_mb: int) -> int:
  """Returns the largest body of a request, in bytes.

  The WSGI server (waitress) may refuse larger bodies, and should keep in memory
  any body up to this size.

  Args:
    max_upload_mb: largest photo, in units of 2^20 bytes.
  """
  return max_upload_mb * 2 ** 20 + _FURTHER_BYTES


def _refused(error):
  state, language = app_state.current(), negotiation.language()
  state.metrics.observe_refusal(error)
  # The page lists the classes, which a page of another site must not read.
  if (negotiation.wants_json() or not state.config['PAGE'] or
      error.code == 'wrong_host'):
    response = flask.jsonify(texts.error_json(language, error))
  else:
    response = flask.make_response(flask.render_template(
        'error.html', sentence=texts.message(language, error),
        **page.template_values(state)))
  response.status_code = error.status
  response.headers.update(error.headers)
  return response


def _http_error(error):
  # Flask wraps our own bugs in InternalServerError after it has logged their
  # traceback; the visitor sees nothing of it.
  if error.code is None or error.code < 400:
    return error
  return _refused(from_http_error(
      error, flask.current_app.config['MAX_CONTENT_LENGTH'] // 2 ** 20))


def _without_ranges(application):
  """Returns a WSGI application that ignores range requests.

  The files are small, and werkzeug fails on some dates in If-Range.
  """
  def whole(environ, start_response):
    for name in ('HTTP_RANGE', 'HTTP_IF_RANGE', 'HTTP_IF_MODIFIED_SINCE',
                 'HTTP_IF_UNMODIFIED_SINCE'):
      environ.pop(name, None)
    return application(environ, start_response)
  return whole
