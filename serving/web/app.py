"""The server's pages and its API as a Flask application.

  app = create_app(service, {'KEEP_UPLOADS': True})

The service is any object with `labels`, `examine_each(photos, patience)`,
`is_ready()`, `facts()` and `counts()`; the real one is in model/live.py. Errors
are pages too, and JSON under /api: a 4xx or 503 status and one sentence that
says what to do. No response contains internal details: no path, no traceback,
no metadata.
"""

import time

import flask
import orjson
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from compat import tf
from serving.model import heap
from serving.web import api, clients, hosts, logs, metrics, page, texts, uploads
from serving.web.refusals import HEADERS, Refused, of_http_error
from serving.web.rows import none_of, top_rows

__all__ = ['create_app', 'none_of', 'top_rows']

# Settings of create_app, and their defaults.
DEFAULTS = {
    # Whether photos are kept, in which folder, for how long, and how many
    # megabytes. If they are not kept, nothing is written anywhere.
    'KEEP_UPLOADS': False,
    'UPLOAD_FOLDER': '/tmp/upload',
    'KEEP_DAYS': 30,
    'KEEP_MB': 1024,
    # Number of classes that the page shows.
    'NUM_TOP_PREDICTIONS': 5,
    # Largest photo, maximum number of photos per request, and largest width
    # times height. Phones take photos of 50 million pixels. Decoding needs 3 to
    # 9 bytes per pixel.
    'MAX_UPLOAD_MB': 16,
    'MAX_PHOTOS': 16,
    'MAX_PIXELS': 64 * 10 ** 6,
    # Token that /api/classify and /api/model require, as clients.Tokens takes
    # it.
    'API_TOKEN': None,
    # Photos per minute and client; 0: no limit.
    'RATE_LIMIT': 0,
    # The proxy whose X-Forwarded-For is trusted, as clients.address_of takes
    # it.
    'TRUSTED_PROXY': None,
    # Format of the access log, as logs.AccessLog takes it; None: no access log.
    'ACCESS_LOG': None,
    # Host names under which requests are answered, as hosts.check takes them.
    'ALLOWED_HOSTS': (hosts.ANY,),
    # Whether to serve the page as well as the API.
    'PAGE': True,
}

# Bytes that a request may hold in addition to one photo of the largest size:
# further photos.
_FURTHER_BYTES = 16 * 2 ** 20


class _Addresses(Map):
  """Flask's URL map without redirects."""

  def __init__(self, **options):
    super().__init__(merge_slashes=False, **options)


class _Json(DefaultJSONProvider):
  """Writes JSON with orjson.

  The standard library needs more than a millisecond for a thousand scores, and
  holds the global interpreter lock meanwhile.
  """

  def dumps(self, obj, **kwargs):
    try:
      return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS).decode('utf-8')
    except TypeError:  # An unpaired surrogate in a file name.
      return super().dumps(obj, **kwargs)


class _App(flask.Flask):
  url_map_class = _Addresses
  json_provider_class = _Json


def create_app(service, config=None, numbers=None):
  """Creates the application.

  Args:
    service: object with `labels`, `examine_each([bytes], patience) -> [Answer
      or PhotoError]` that raises batching.Busy, Closing, TimedOut or Gone,
      `is_ready() -> bool`, `facts() -> dict` and `counts() -> dict`.
    config: dict that overrides DEFAULTS; sizes are in units of 2^20 bytes.
    numbers: metrics.Metrics that /metrics shows; None: new ones.

  Raises:
    InputError: the folder for uploads or the file of tokens cannot be used.
  """
  app = _App(__name__)
  app.wsgi_app = _without_ranges(app.wsgi_app)
  app.config.update(DEFAULTS)
  app.config.update(config or {})
  # With FLASK_DEBUG in the environment, errors would be raised to the WSGI
  # server.
  app.debug = app.testing = False
  app.logger.addFilter(logs.make_safe)  # Flask logs URLs with our errors.
  app.config['MAX_CONTENT_LENGTH'] = body_bytes(app.config['MAX_UPLOAD_MB'])
  app.numbers = numbers or metrics.Metrics()
  heap.use_one_arena()  # Programs should call it earlier, if they can.
  _add_hooks(app)
  _add_clients(app)
  _add_keeping(app)
  api.add_routes(app, service)
  if app.config['PAGE']:
    page.add_routes(app, service)
  _add_errors(app, service)
  return app


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


def body_bytes(max_upload_mb):
  """Returns the largest body of a request, in bytes.

  The WSGI server (waitress) may refuse larger bodies, and should keep in memory
  any body up to this size.

  Args:
    max_upload_mb: largest photo, in units of 2^20 bytes.
  """
  return max_upload_mb * 2 ** 20 + _FURTHER_BYTES


def _add_clients(app):
  """Adds `tokens` and `limit_rate(photos)` to the app; negative: given back."""
  app.tokens = clients.Tokens(app.config['API_TOKEN'])
  limit = app.config['RATE_LIMIT'] and clients.RateLimit(
      app.config['RATE_LIMIT'])

  def limit_rate(photos):
    if limit:
      token = app.tokens.find(flask.request.headers.get('Authorization', ''))
      limit.take(token or clients.address_of(
          flask.request.environ, app.config['TRUSTED_PROXY']), photos)

  app.limit_rate = limit_rate


def _add_keeping(app):
  """Adds `keep_photos(results)` and `kept_counts()` to the app."""
  if not app.config['KEEP_UPLOADS']:
    app.keep_photos = lambda results: None
    app.kept_counts = lambda: {}
    return
  kept = uploads.Kept(app.config['UPLOAD_FOLDER'], app.config['KEEP_DAYS'],
                      app.config['KEEP_MB'], app.config['MAX_PIXELS'])

  def keep_photos(results):
    for result in results:
      if not result.refused:
        kept.keep(result.data)

  app.keep_photos = keep_photos
  app.kept_counts = lambda: {'unkept': kept.failures}

  # With every request, including those of monitoring: old photos are removed
  # even if there are no more uploads.
  @app.before_request
  def tidy():
    kept.tidy()


def _add_errors(app, service):

  def note_refused(environ, refused, size, seconds):
    """Counts and logs a request that the WSGI server has answered itself."""
    app.numbers.observe_refusal(refused)
    app.note_request(environ, None, refused.status, size, seconds)

  app.note_refused = note_refused

  @app.errorhandler(Refused)
  def refused(error):
    app.numbers.observe_refusal(error)
    # The page lists the classes, which a page of another site must not read.
    if (page.wants_json() or not app.config['PAGE'] or
        error.code == 'wrong_host'):
      response = flask.jsonify(texts.as_json(api.language(), error))
    else:
      response = flask.make_response(flask.render_template(
          'error.html', sentence=texts.sentence(api.language(), error),
          **page.words(app, service.labels)))
    response.status_code = error.status
    response.headers.update(error.headers)
    return response

  # Flask wraps our own bugs in InternalServerError after it has logged their
  # traceback; the visitor sees nothing of it.
  @app.errorhandler(HTTPException)
  def http_error(error):
    if error.code is None or error.code < 400:
      return error
    return refused(of_http_error(
        error, app.config['MAX_CONTENT_LENGTH'] // 2 ** 20))


def _add_hooks(app):
  trimmer = heap.Trimmer()
  access_log = app.config['ACCESS_LOG'] and logs.AccessLog(
      app.config['ACCESS_LOG'])

  def note_request(environ, rule, status, size, seconds):
    app.numbers.observe_request(environ.get('REQUEST_METHOD'),
                                rule.rule if rule else 'other', status, seconds)
    if access_log:
      access_log.write(
          clients.address_of(environ, app.config['TRUSTED_PROXY']), environ,
          status, size, seconds)

  app.note_request = note_request

  @app.before_request
  def start():
    flask.g.start = time.monotonic()
    flask.g.request_id = logs.begin_request(flask.request.headers.get)
    hosts.check(app.config['ALLOWED_HOSTS'])
    request = flask.request
    if request.script_root and not request.environ['PATH_INFO']:
      # The prefix without a slash: URLs on the page are relative to a folder.
      return flask.redirect(request.script_root.split('/')[-1] + '/', 308)
    return None

  @app.teardown_request
  def end(error):
    del error  # Unused; required by the signature.
    logs.end_request()

  @app.after_request
  def finish(response):
    response.headers.update(HEADERS)
    if response.mimetype in ('text/html', 'application/json'):
      response.headers['Cache-Control'] = 'no-store'
      response.vary.update(['Accept', 'Accept-Language'])
    response.headers['X-Request-Id'] = flask.g.request_id
    size = response.content_length
    if size is None:
      size = response.calculate_content_length()
    note_request(flask.request.environ, flask.request.url_rule,
                 response.status_code,
                 0 if flask.request.method == 'HEAD' else size,
                 time.monotonic() - flask.g.start)
    if flask.request.method == 'POST':
      trimmer.trim()
    tf.logging.debug('%s %s %s', flask.request.method, flask.request.path,
                     response.status)
    return response
