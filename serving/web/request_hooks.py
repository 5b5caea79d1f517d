"""Checks before each request; headers, logs and metrics after it."""

import time
from typing import Optional

import flask

from compat import tf
from serving.model.heap_memory import HeapTrimmer
from serving.web import app_state, hosts, logs
from serving.web.refusals import HEADERS


def register(app: flask.Flask) -> None:
  """Adds the hooks to an application with an AppState."""
  state, trimmer = app_state.of_app(app), HeapTrimmer()

  @app.before_request
  def start() -> Optional[flask.typing.ResponseReturnValue]:
    flask.g.start = time.monotonic()
    flask.g.request_id = logs.begin_request(flask.request.headers.get)
    hosts.check(app.config['ALLOWED_HOSTS'])
    request = flask.request
    if request.script_root and not request.environ['PATH_INFO']:
      # The prefix without a slash: URLs on the page are relative to a folder.
      return flask.redirect(request.script_root.split('/')[-1] + '/', 308)
    # With every request, including those of monitoring: old photos are removed
    # even if there are no more uploads.
    state.remove_old_photos()
    return None

  @app.teardown_request
  def end(error: Optional[BaseException]) -> None:
    del error  # Unused; required by the signature.
    logs.end_request()

  @app.after_request
  def finish(response: flask.Response) -> flask.Response:
    request = flask.request
    response.headers.update(HEADERS)
    if response.mimetype in ('text/html', 'application/json'):
      response.headers['Cache-Control'] = 'no-store'
      response.vary.update(['Accept', 'Accept-Language'])
    response.headers['X-Request-Id'] = flask.g.request_id
    size = response.content_length
    if size is None:
      size = response.calculate_content_length()
    state.note_request(
        request.environ, request.url_rule.rule if request.url_rule else 'other',
        response.status_code, 0 if request.method == 'HEAD' else size or 0,
        time.monotonic() - flask.g.start)
    if request.method == 'POST':
      trimmer.trim()
    tf.logging.debug('%s %s %s', request.method, request.path, response.status)
    return response
