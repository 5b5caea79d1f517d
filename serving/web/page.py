"""The page: a form, and the class scores of the photos that it sends.

It works without JavaScript: the form posts to /, and the response is a page.
With JavaScript, static/page.js posts each photo to / separately, requests JSON,
and shows the result beside the photo. The page also has the network and its
measured accuracy, and the classes with an example photo of each, if the export
wrote some. A form on another site is refused (same_site.py), so that no page of
another site can make a visitor's browser send photos to a server inside the
visitor's network.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import flask

from datasets.photo_files import class_names
from serving.web import (
  api,
  app_state,
  corrections,
  model_facts,
  negotiation,
  pictures,
  request_photos,
  same_site,
  texts,
  uploads,
)
from serving.web.app_state import AppState
from serving.web.refusals import Refused
from serving.web.score_table import ScoreRow, top_rows

# Total bytes of the previews on one response page, before base64: a page with
# 16 previews has about 1.5 MB.
_PREVIEW_BYTES = 8 * 2 ** 20

# Number of nearest training photos on the page.
_NEAREST = 3

# Seconds for which browsers keep an example photo.
_EXAMPLE_SECONDS = 3600

blueprint = flask.Blueprint('page', __name__)


class Card(NamedTuple):
  """One photo on the response page."""

  # Data URI; None: there are too many photos, or it is too large.
  photo: Optional[str]
  # The classes with the largest scores.
  rows: List[ScoreRow]
  # Text for an out-of-distribution photo; None: it is in-distribution.
  unknown: Optional[str]
  # Sentence; None: the photo was classified.
  error: Optional[str]
  # Data URI of the heat map; None: it was not requested, or as for `photo`.
  heat_map: Optional[str] = None
  # What the heat map shows.
  explanation: str = ''
  # The nearest training photos.
  nearest: Sequence[api.Json] = ()


@blueprint.route('/', methods=['GET'])
def form() -> flask.Response:
  """Shows the form."""
  state = app_state.current()
  response = flask.make_response(flask.render_template(
      'form.html', facts=model_facts.describe(
          negotiation.language(), state.service.model_info()),
      **template_values(state)))
  same_site.set_cookie(response)
  return response


@blueprint.route('/examples/<name>.jpg', methods=['GET'])
def example(name: str) -> flask.Response:
  """Returns the example photo of a class, named by its content."""
  for photo in _examples(app_state.current()).values():
    if photo.name == name:
      response = flask.Response(photo.data, mimetype='image/jpeg')
      response.cache_control.private = True
      response.cache_control.max_age = _EXAMPLE_SECONDS
      return response
  raise Refused('not_found')


@blueprint.route('/', methods=['POST'])
def result() -> flask.Response:
  """Classifies the photos of the form."""
  state = app_state.current()
  same_site.check()
  photos, fields = request_photos.read(state.config)
  details = api.details_of(state, fields)
  if details.explain is not None and api.shows_nearest(state):
    details = details._replace(nearest=_NEAREST)
  # static/page.js requests a heat map with a photo that it has sent before.
  results, milliseconds = request_photos.classify(
      state, photos, details,
      keep=details.explain is None or not negotiation.wants_json())
  if negotiation.wants_json():
    return flask.jsonify(api.to_response(
        results, state.service.labels, milliseconds,
        state.config['NUM_TOP_PREDICTIONS']))
  return flask.make_response(flask.render_template(
      'result.html', cards=_cards(state, results), **template_values(state)))


@blueprint.route('/corrections', methods=['POST'])
def correct() -> Tuple[flask.Response, int]:
  """Puts a photo and its right class into the inbox."""
  state = app_state.current()
  same_site.check()
  corrections.receive(state)
  if negotiation.wants_json():
    return flask.jsonify({'received': 1}), 201
  return flask.make_response(flask.render_template(
      'thanks.html', **template_values(state))), 201


def template_values(state: AppState) -> Dict[str, Any]:
  """Returns the values that every page needs: its texts, and the path to /.

  URLs on a page are relative: a server does not know the prefix that its proxy
  removes.
  """
  language, config = negotiation.language(), state.config
  text = texts.for_language(language)
  return {
      'text': text,
      'base': '../' * (flask.request.path.count('/') - 1) or './',
      'limits': text['limits'] % {
          'accepted': texts.alternatives(language, uploads.ACCEPTED),
          'max_mb': config['MAX_UPLOAD_MB'],
          'max_photos': config['MAX_PHOTOS']},
      'kept': texts.retention_notice(
          language, config['KEEP_UPLOADS'] and config['KEEP_DAYS']),
      'media_types': ','.join('image/' + name.lower()
                              for name in uploads.ACCEPTED),
      'max_photos': config['MAX_PHOTOS'],
      'classes': state.service.labels,
      'examples': _examples(state),
      'none_of': _none_of(text, state.service.labels),
      # static/page.js inserts the names and numbers in braces.
      'of_file': text['of_file'] % ('{file}', '{text}'),
      'photos_done': text['photos_done'] % {'done': '{done}',
                                            'count': '{count}'},
      'try_example': text['try_example'] % '{label}',
      'explains': api.explains(state),
      'inbox': state.inbox is not None,
      'needs_token': state.tokens.required,
      'class_letters': class_names.MAX_LETTERS,
      'why_map': text['why_map'] % '{label}',
      'why_nothing': text['why_nothing'] % '{label}',
      'too_large': texts.message(language, Refused(
          'too_large', max_mb=config['MAX_UPLOAD_MB']
      ).with_file_name('{file}')),
      'too_many': texts.message(language, Refused(
          'too_many_photos', most=config['MAX_PHOTOS'])),
      'max_bytes': config['MAX_UPLOAD_MB'] * 2 ** 20,
  }


def _examples(state):
  """Returns {class: its example_photos.Example}, {} if none are shown."""
  return state.service.examples if state.config['EXAMPLES'] else {}


def _none_of(text, labels):
  return text['none_of'] % {'count': len(labels)}


def _cards(state, results):
  """Returns the Cards of a response page."""
  language = negotiation.language()
  bytes_left, cards = _PREVIEW_BYTES, []
  for index, result in enumerate(results):
    if result.refused:
      cards.append(Card(None, [], None,
                        texts.message(language, result.refused)))
      continue
    photo = None
    if bytes_left > 0:
      photo = pictures.preview(result.data, index)
    bytes_left -= len(photo or '')
    unknown = None
    # The graph may have been replaced since.
    labels = result.prediction.labels or state.service.labels
    if result.prediction.known is False:
      unknown = _none_of(texts.for_language(language), labels)
    rows = top_rows(result.prediction.scores, labels,
                    state.config['NUM_TOP_PREDICTIONS'])
    card = Card(photo, rows, unknown, None)
    if result.prediction.heat_map:
      card = _explained(card, result, index, language)
    cards.append(card)
  return cards


def _explained(card, result, index, language):
  """Returns a Card with its heat map and the nearest training photos."""
  found = api.details_json(result, index)
  text, heat_map = texts.for_language(language), result.prediction.heat_map
  return card._replace(
      heat_map=found['heat_map']['picture'],
      explanation=text['why_map' if heat_map.values.any() else 'why_nothing'] %
      heat_map.label,
      nearest=found.get('nearest', ()))
