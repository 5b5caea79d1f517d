"""The API of the server: JSON endpoints, and endpoints for monitoring.

  curl --data-binary @rose.jpg http://127.0.0.1:5001/api/classify?top=5
  curl -F file=@rose.jpg -F file=@tulip.png http://127.0.0.1:5001/api/classify

The API is described in static/openapi.json, which is served as
/api/openapi.json; api_test.py compares it with real responses.

With the config API_TOKEN, /api/classify and /api/model require the header
`Authorization: Bearer <token>`. The page needs no token: its form and its
script send to /, and only from the page itself (page.py). To open nothing
but the API, also set PAGE to False. /healthz, /readyz and /metrics reveal no
photo and no label and stay open for monitoring.
"""

import math
import os
import re

import flask

from serving.web import intake, metrics, rows, same_site, texts
from serving.web.refusals import Refused


def add_routes(app, service):
  """Adds /api/..., /healthz, /readyz and /metrics.

  Args:
    app: the application.
    service: the service passed to create_app.
  """

  def refuses_early(environ):
    """Whether a request is refused for its token before its body is read."""
    return (environ['PATH_INFO'] == '/api/classify' and
            not _has_token(app, environ.get('HTTP_AUTHORIZATION', '')))

  app.refuses_early = refuses_early

  @app.route('/api/classify', methods=['POST'])
  def api_classify():
    _check_token(app)
    if not app.tokens.wanted:
      same_site.check()
    photos, fields = intake.read(app)
    top = _top(fields)
    results, milliseconds = intake.classify(app, service, photos)
    app.keep_photos(results)
    return flask.jsonify(reply(results, service.labels, milliseconds, top))

  @app.route('/api/model')
  def api_model():
    _check_token(app)
    return flask.jsonify(_presentable(service.facts()))

  @app.route('/api/openapi.json')
  def api_openapi():
    return app.send_static_file('openapi.json')

  @app.route('/healthz')
  def healthz():
    return _plain('ok')

  @app.route('/readyz')
  def readyz():
    if service.is_ready():
      return _plain('ready')
    return _plain('not ready', 503)

  @app.route('/metrics')
  def all_metrics():
    return flask.Response(
        app.numbers.render(dict(service.counts(), **app.kept_counts()),
                           _presentable(service.facts())),
        content_type=metrics.CONTENT_TYPE)


def reply(results, labels, milliseconds, top=None):
  """Returns the response of /api/classify, as plain values.

  Args:
    results: list of intake.Results.
    labels: names by output index, for Answers without labels.
    milliseconds: as intake.classify returned it.
    top: number of classes per photo; None: all.
  """
  return {'photos': [_photo(result, labels, top) for result in results],
          'milliseconds': round(milliseconds, 3)}


def language():
  """Returns the one of texts.LANGUAGES that the visitor prefers."""
  for tag, quality in flask.request.accept_languages:
    primary = tag.split('-')[0].lower()
    if quality > 0 and primary in texts.LANGUAGES:
      return primary
  return texts.LANGUAGES[0]


def _photo(result, labels, top):
  if result.refused:
    return texts.as_json(language(), result.refused)
  answer = result.answer
  # The graph may have been replaced since.
  classes, probabilities = rows.top(answer.scores, answer.labels or labels, top)
  photo = {'classes': classes, 'probabilities': probabilities}
  if answer.sha256:
    photo['model_sha256'] = answer.sha256
  if answer.known is not None:
    photo.update(known=answer.known, similarity=answer.similarity)
  return photo


def _top(fields):
  """Returns the parameter top as a number, None if it is not given.

  Args:
    fields: dict of the form's fields, where it may be given instead of in the
      query.
  """
  given = set(flask.request.args.getlist('top') + fields.get('top', []))
  if not given:
    return None
  match = re.fullmatch('0*([1-9][0-9]{0,5})', given.pop())
  if given or not match:
    raise Refused('bad_parameter', name='top', accepted='1, 2, 3 …')
  return int(match.group(1))


def _check_token(app):
  if not _has_token(app, flask.request.headers.get('Authorization', '')):
    raise Refused('unauthorized', {'WWW-Authenticate': 'Bearer'})


def _has_token(app, authorization):
  """Whether an Authorization header has a valid token, if one is required."""
  return not app.tokens.wanted or bool(app.tokens.find(authorization))


def _presentable(value, key=None):
  """Returns facts in a form that fits JSON, without paths of this machine.

  Args:
    value: a dict, or what it holds.
    key: the key of this value in its dict.
  """
  if isinstance(value, dict):
    return {name: _presentable(item, name) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_presentable(item) for item in value]
  if isinstance(value, str) and key in ('file', 'checkpoint'):
    return os.path.basename(value)
  if hasattr(value, 'item'):  # A NumPy scalar.
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None  # JSON has no such number.
  return value


def _plain(text, status=200):
  return flask.Response(text, status, mimetype='text/plain')
