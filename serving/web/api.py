"""The JSON API: /api/classify, /api/corrections, /api/model, /api/openapi.json.

  curl --data-binary @rose.jpg http://127.0.0.1:5001/api/classify?top=5
  curl -F file=@rose.jpg -F file=@tulip.png http://127.0.0.1:5001/api/classify
  curl --data-binary @rose.jpg 'http://127.0.0.1:5001/api/classify?explain=rose'

The API is described in static/openapi.json, which is served as
/api/openapi.json; api_test.py compares it with real responses.

With the config API_TOKEN, all but the last require the header
`Authorization: Bearer <token>`. The page needs no token: its form and its
script send to /, and only from the page itself (page.py). To open nothing
but the API, also set PAGE to False.
"""

import math
import os
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

import flask

from common.errors import name_some
from serving.model.predictions import Details
from serving.web import (
  app_state,
  corrections,
  negotiation,
  pictures,
  request_photos,
  same_site,
  score_table,
  texts,
)
from serving.web.refusals import Refused

Json = Dict[str, Any]

blueprint = flask.Blueprint('api', __name__, url_prefix='/api')


@blueprint.route('/classify', methods=['POST'])
def classify() -> flask.Response:
  """Classifies the photos of the request."""
  state = app_state.current()
  _check_token(state)
  if not state.tokens.required:
    same_site.check()
  photos, fields = request_photos.read(state.config)
  top = _count('top', fields)
  results, milliseconds = request_photos.classify(
      state, photos, details_of(state, fields))
  return flask.jsonify(
      to_response(results, state.service.labels, milliseconds, top))


@blueprint.route('/corrections', methods=['POST'])
def correct() -> Tuple[flask.Response, int]:
  """Puts a photo and its right class into the inbox."""
  state = app_state.current()
  _check_token(state)
  if not state.tokens.required:
    same_site.check()
  corrections.receive(state, needs_token=False)
  return flask.jsonify({'received': 1}), 201


@blueprint.route('/model')
def model() -> flask.Response:
  """Describes the current graph."""
  state = app_state.current()
  _check_token(state)
  return flask.jsonify(to_json_values(state.service.model_info()))


@blueprint.route('/openapi.json')
def openapi() -> flask.Response:
  """Describes the API."""
  return flask.current_app.send_static_file('openapi.json')

# Most training photos per photo: the response has a picture of each.
_MOST_NEAREST = 20


def to_response(results: Sequence[request_photos.Result], labels: List[str],
                milliseconds: float, top: Optional[int] = None
                ) -> Dict[str, Any]:
  """Returns the response of /api/classify, as plain values.

  Args:
    results: list of request_photos.Results.
    labels: names by output index, for Predictions without labels.
    milliseconds: as request_photos.classify returned it.
    top: number of classes per photo; None: all.
  """
  return {'photos': [_photo(result, labels, top, index)
                     for index, result in enumerate(results)],
          'milliseconds': round(milliseconds, 3)}


def to_json_values(value: Any, key: Optional[str] = None) -> Any:
  """Returns a value in a form that fits JSON, without paths of this machine.

  Args:
    value: a dict, or what it contains.
    key: the key of this value in its dict.
  """
  if isinstance(value, dict):
    return {name: to_json_values(item, name) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_json_values(item) for item in value]
  if isinstance(value, str) and key in ('file', 'checkpoint'):
    return os.path.basename(value)
  if hasattr(value, 'item'):  # A NumPy scalar.
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None  # JSON has no such number.
  return value


def details_of(state: app_state.AppState,
               fields: request_photos.Fields) -> Details:
  """Returns what the parameters explain and nearest request.

  Args:
    state: of the application.
    fields: of the form, where they may be given instead of in the query.

  Raises:
    Refused: bad_parameter; or not_available, if the graph or the settings of
      the server do not allow it.
  """
  explain = request_photos.value_of('explain', fields)
  nearest = _count('nearest', fields)
  if nearest and nearest > _MOST_NEAREST:
    raise Refused('bad_parameter', name='nearest',
                  accepted='1 to %d' % _MOST_NEAREST)
  if explain is not None and not explains(state):
    raise Refused('not_available', name='explain')
  labels = state.service.labels
  if explain and explain not in labels:
    raise Refused('bad_parameter', name='explain', accepted=name_some(labels))
  if nearest and not shows_nearest(state):
    raise Refused('not_available', name='nearest')
  return Details(explain, nearest or 0)


def explains(state: app_state.AppState) -> bool:
  """Returns whether heat maps may be requested."""
  return state.config['EXPLAIN'] and state.service.can_explain


def shows_nearest(state: app_state.AppState) -> bool:
  """Returns whether the nearest training photos may be requested."""
  return state.config['EXAMPLES'] and state.service.has_nearest


def details_json(result: request_photos.Result, index: int) -> Json:
  """Returns the heat map and the nearest training photos as plain values.

  Args:
    result: request_photos.Result of a classified photo.
    index: of the photo in the request.
  """
  found: Json = {}
  assert result.prediction
  heat_map = result.prediction.heat_map
  if heat_map:
    found['heat_map'] = {
        'class': heat_map.label,
        'values': [[round(float(value), 3) for value in row]
                   for row in heat_map.values],
        'window': [round(float(side), 4) for side in heat_map.window],
        'picture': pictures.heat_map(result.data, index, heat_map)}
  if result.prediction.nearest:
    found['nearest'] = [
        {'file': os.path.basename(photo.file), 'class': photo.label,
         'similarity': round(photo.similarity, 4),
         'picture': photo.picture and pictures.uri(photo.picture)}
        for photo in result.prediction.nearest]
  return found


def _photo(result, labels, top, index):
  if result.refused:
    return texts.error_json(negotiation.language(), result.refused)
  prediction = result.prediction
  # The graph may have been replaced since.
  classes, probabilities = score_table.top_classes(
      prediction.scores, prediction.labels or labels, top)
  photo = {'classes': classes, 'probabilities': probabilities}
  if prediction.sha256:
    photo['model_sha256'] = prediction.sha256
  if prediction.known is not None:
    photo.update(known=prediction.known, similarity=prediction.similarity)
  return {**photo, **details_json(result, index)}


def _count(name, fields):
  """Returns a parameter that is a number; None if it is not given."""
  given = request_photos.value_of(name, fields)
  if given is None:
    return None
  match = re.fullmatch('0*([1-9][0-9]{0,5})', given)
  if not match:
    raise Refused('bad_parameter', name=name, accepted='1, 2, 3 …')
  return int(match.group(1))


def _check_token(state):
  if not state.has_token(flask.request.headers.get('Authorization', '')):
    raise Refused('unauthorized', {'WWW-Authenticate': 'Bearer'})
