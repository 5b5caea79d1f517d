"""Endpoints for monitoring: /healthz, /readyz and /metrics.

They reveal no photo and no label, and need no token.
"""

import flask

from serving.web import api, app_state, metrics

blueprint = flask.Blueprint('operations', __name__)


@blueprint.route('/healthz')
def healthz() -> flask.Response:
  """Answers as long as the process runs."""
  return _plain_text('ok')


@blueprint.route('/readyz')
def readyz() -> flask.Response:
  """Answers with status 200 while photos are classified, else with 503."""
  if app_state.current().service.is_ready():
    return _plain_text('ready')
  return _plain_text('not ready', 503)


@blueprint.route('/metrics', endpoint='metrics')
def show_metrics() -> flask.Response:
  """Answers with all metrics."""
  state = app_state.current()
  return flask.Response(
      state.metrics.render(state.counts(),
                           api.to_json_values(state.service.model_info())),
      content_type=metrics.CONTENT_TYPE)


def _plain_text(text, status=200):
  return flask.Response(text, status, mimetype='text/plain')
