"""The page: a form, and the class scores of the photos that it sends.

It works without JavaScript: the form posts to /, and the response is a page.
With JavaScript, static/page.js posts each photo to / separately, requests JSON,
and shows the result beside the photo. A form on another site is refused
(same_site.py), so that no foreign page can make a visitor's browser send
photos to a server inside the visitor's network.
"""

import base64
import collections
import os

import flask

from datasets.photo_files import photos
from datasets.photo_files.photos import PhotoError
from serving.model.patience import Gone, Patience, Places, TimedOut
from serving.web import api, intake, same_site, texts, uploads
from serving.web.refusals import Refused
from serving.web.rows import none_of, top_rows

# Total bytes of the previews on one response page, before base64: a page with
# 16 previews has about 1.5 MB.
_PREVIEW_BYTES = 8 * 2 ** 20

# Number of previews that are made at a time: each decodes its photo at full
# size. Photos of a larger weight (photos.weight_of) get no preview.
_MOST_WEIGHT = 16 * 10 ** 6
_PREVIEWS = Places(os.cpu_count() or 1)

# photo: data URI; None: too many, or too large. rows: Rows. unknown: text for a
# photo that is none of the classes, else None. error: sentence, or None.
Card = collections.namedtuple('Card', 'photo rows unknown error')


def add_routes(app, service):
  """Adds the form and its response.

  Args:
    app: the application.
    service: the service passed to create_app.
  """

  @app.route('/', methods=['GET'])
  def form():
    page = flask.make_response(flask.render_template(
        'form.html', labels=service.labels, **words(app, service.labels)))
    same_site.mark(page)
    return page

  @app.route('/', methods=['POST'])
  def result():
    same_site.check()
    photos, _ = intake.read(app)
    results, milliseconds = intake.classify(app, service, photos)
    app.keep_photos(results)
    labels = service.labels
    if wants_json():
      return flask.jsonify(api.reply(results, labels, milliseconds,
                                     app.config['NUM_TOP_PREDICTIONS']))
    return flask.render_template('result.html',
                                 cards=_cards(app, results, labels),
                                 **words(app, labels))


def wants_json():
  """Whether the client asks for JSON instead of a page."""
  path = flask.request.path
  best = flask.request.accept_mimetypes.best_match(
      ['text/html', 'application/json'])
  return (path == '/api' or path.startswith('/api/') or
          best == 'application/json')


def words(app, labels):
  """Returns the values that every page needs: its texts, and the path to /.

  URLs on a page are relative: a server does not know the prefix that its proxy
  removes.

  Args:
    app: the application, for its limits.
    labels: names by output index.
  """
  language = api.language()
  text = texts.of(language)
  return {
      'text': text,
      'base': '../' * (flask.request.path.count('/') - 1) or './',
      'limits': text['limits'] % {
          'accepted': texts.one_of(language, uploads.ACCEPTED),
          'max_mb': app.config['MAX_UPLOAD_MB'],
          'max_photos': app.config['MAX_PHOTOS']},
      'kept': texts.kept(language, app.config['KEEP_UPLOADS'] and
                         app.config['KEEP_DAYS']),
      'media_types': ','.join('image/' + name.lower()
                              for name in uploads.ACCEPTED),
      'max_photos': app.config['MAX_PHOTOS'],
      'none_of': none_of(labels, texts.none_of_words(language)),
      # static/page.js inserts the name.
      'too_large': texts.sentence(language, Refused(
          'too_large', max_mb=app.config['MAX_UPLOAD_MB']).of_file('{file}')),
      'too_many': texts.sentence(language, Refused(
          'too_many_photos', most=app.config['MAX_PHOTOS'])),
      'max_bytes': app.config['MAX_UPLOAD_MB'] * 2 ** 20,
  }


def _cards(app, results, labels):
  """Returns the Cards of a response page."""
  language = api.language()
  room, cards = _PREVIEW_BYTES, []
  for index, result in enumerate(results):
    if result.refused:
      cards.append(Card(None, [], None,
                        texts.sentence(language, result.refused)))
      continue
    photo = _preview(app, result.data, index) if room > 0 else None
    room -= len(photo or '')
    unknown = None
    # The graph may have been replaced since.
    names = result.answer.labels or labels
    if result.answer.known is False:
      unknown = none_of(names, texts.none_of_words(language))
    rows = top_rows(result.answer.scores, names,
                    app.config['NUM_TOP_PREDICTIONS'])
    cards.append(Card(photo, rows, unknown, None))
  return cards


def _preview(app, data, index):
  """Returns a data URI of a small image without metadata, or None."""
  if photos.weight_of(data) > _MOST_WEIGHT:
    return None
  patience = flask.request.environ.get('serving.patience') or Patience()
  try:
    with _PREVIEWS.take(index, patience):
      small = uploads.preview(data, app.config['MAX_PIXELS'])
  # The classifier accepted the photo; if not, the scores are shown without it.
  except (PhotoError, TimedOut, Gone):
    return None
  return 'data:image/jpeg;base64,' + base64.b64encode(small).decode('ascii')
