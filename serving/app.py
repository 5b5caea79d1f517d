"""The upload page as a Flask application.

  app = create_app(classifier, {'UPLOAD_FOLDER': '/tmp/upload'})

The classifier is any object with `labels` and `examine_each(photos)`. Errors
are pages too: a status of 4xx and one sentence that says what to do.
"""

import collections

import flask
import numpy as np
from werkzeug.exceptions import HTTPException

from compat import tf
from datasets.photos import PhotoError
from serving import uploads

# What create_app understands, and what holds where the caller says nothing.
DEFAULTS = {
    'UPLOAD_FOLDER': '/tmp/upload',
    'NUM_TOP_PREDICTIONS': 5,
    'MAX_UPLOAD_MB': 16,
}

# What a multipart body holds beside the photo: boundaries and headers.
_MULTIPART_BYTES = 64 * 1024

_HEADERS = {
    'Content-Security-Policy':
        "default-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; object-src 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}

_SENTENCES = {
    404: 'There is nothing at this address.',
    405: 'This address does not take such a request.',
}

# Classes that are named where a photo is none of them.
_NAMED = 12

Row = collections.namedtuple('Row', 'label score percent')


class Refused(Exception):
  """An upload that is not classified, and why.

  Attributes:
    status: HTTP status, 4xx.
    sentence: what the visitor reads.
  """

  def __init__(self, status, sentence):
    super().__init__(sentence)
    self.status = status
    self.sentence = sentence


def create_app(classifier, config=None):
  """Makes the application.

  Args:
    classifier: has `labels` and `examine_each([bytes]) -> [Answer or
      PhotoError]`.
    config: dict over DEFAULTS. MAX_UPLOAD_MB is in units of 2^20 bytes.

  Raises:
    InputError: the folder for uploads cannot be used.
  """
  app = flask.Flask(__name__)
  app.config.update(DEFAULTS)
  app.config.update(config or {})
  app.config['UPLOAD_FOLDER'] = uploads.make_folder(app.config['UPLOAD_FOLDER'])
  app.config['MAX_CONTENT_LENGTH'] = _max_bytes(app) + _MULTIPART_BYTES
  _add_pages(app, classifier)
  _add_errors(app)
  app.after_request(_finish)
  return app


def top_rows(scores, labels, count):
  """Returns the `count` largest scores as Rows, largest first.

  Args:
    scores: `[num_classes]` float32 in [0, 1].
    labels: names by output index.
    count: how many; more than there are classes gives all.
  """
  order = np.argsort(-scores, kind='stable')[:count]
  return [Row(labels[i], float(scores[i]), '%.1f %%' % (100 * scores[i]))
          for i in order]


def none_of(labels):
  """Returns what is said of a photo that is none of the classes.

  Args:
    labels: names of the classes.
  """
  names = ', '.join(labels[:_NAMED])
  if len(labels) > _NAMED:
    names += ' and %d others' % (len(labels) - _NAMED)
  return 'none of: ' + names


def _add_pages(app, classifier):

  @app.route('/', methods=['GET'])
  def form():
    return flask.render_template('form.html', labels=classifier.labels,
                                 max_mb=app.config['MAX_UPLOAD_MB'])

  @app.route('/', methods=['POST'])
  def result():
    data = _uploaded_photo(app)
    answer = classifier.examine_each([data])[0]
    if isinstance(answer, PhotoError):
      raise Refused(422, 'This photo cannot be read: %s.' % answer)
    name = uploads.keep(app.config['UPLOAD_FOLDER'], data)
    rows = top_rows(answer.scores, classifier.labels,
                    app.config['NUM_TOP_PREDICTIONS'])
    unknown = none_of(classifier.labels) if answer.known is False else None
    return flask.render_template('result.html', photo=name, rows=rows,
                                 unknown=unknown)

  @app.route('/uploads/<name>')
  def upload(name):
    if not uploads.is_kept_name(name):
      flask.abort(404)
    return flask.send_from_directory(app.config['UPLOAD_FOLDER'], name)

  @app.route('/healthz')
  def healthz():
    return flask.Response('ok', mimetype='text/plain')


def _uploaded_photo(app):
  """Returns the bytes of the form's field `file`, or raises Refused."""
  file = flask.request.files.get('file')
  # A browser sends the field without a name when nothing was chosen.
  if file is None or not file.filename:
    raise Refused(400, 'Please choose a photo first.')
  data = file.read()
  if not data:
    raise Refused(400, 'The file is empty.')
  if len(data) > _max_bytes(app):
    flask.abort(413)
  if uploads.extension_of(data) is None:
    raise Refused(415, 'The file is neither a JPEG nor a PNG photo.')
  return data


def _max_bytes(app):
  return app.config['MAX_UPLOAD_MB'] * 2 ** 20


def _add_errors(app):

  def page(status, sentence):
    return flask.render_template('error.html', sentence=sentence), status

  @app.errorhandler(Refused)
  def refused(error):
    return page(error.status, error.sentence)

  # Flask hands our own mistakes over as InternalServerError, after it has
  # logged their traceback; the visitor sees nothing of it.
  @app.errorhandler(HTTPException)
  def http_error(error):
    if error.code is None or error.code < 400:
      return error
    if error.code == 413:
      return page(413, 'The photo is larger than %d MB, which is the most '
                  'that is accepted.' % app.config['MAX_UPLOAD_MB'])
    sentence = _SENTENCES.get(error.code, 'This request cannot be understood.')
    if error.code >= 500:
      sentence = 'Something went wrong here. Please try again.'
    return page(error.code, sentence)


def _finish(response):
  for name, value in _HEADERS.items():
    response.headers[name] = value
  if response.mimetype == 'text/html':
    response.headers['Cache-Control'] = 'no-store'
  tf.logging.debug('%s %s %s', flask.request.method, flask.request.path,
                   response.status)
  return response
