"""Limits, counters and logs that the request handlers of one application share.

  state = app_state.current()
  state.limit_rate(len(photos))
"""

import os
from typing import Any, Dict, Mapping, Optional

import flask

from common.errors import InputError
from serving.model.classifier_service import Service
from serving.web import clients, uploads
from serving.web.inbox import Inbox
from serving.web.logs import AccessLog
from serving.web.metrics import Metrics
from serving.web.refusals import Refused

# Key in flask.Flask.extensions.
_KEY = 'image_classifier'

Environ = Mapping[str, Any]


class AppState:
  """What the request handlers of one application share.

  Attributes:
    service: Service, or an object with the same methods.
    config: the configuration of the application, see app.DEFAULTS.
    metrics: Metrics.
    tokens: clients.Tokens.
    inbox: Inbox; None: corrections are not accepted.
  """

  def __init__(self, service: Service, config: Mapping[str, Any],
               metrics: Metrics):
    """Reads the tokens, and opens the folders for uploads and corrections.

    Raises:
      InputError: a folder or the file of tokens cannot be used.
    """
    self.service = service
    self.config = config
    self.metrics = metrics
    self.tokens = clients.Tokens(config['API_TOKEN'])
    self._rate_limit: Optional[clients.RateLimit] = None
    if config['RATE_LIMIT']:
      self._rate_limit = clients.RateLimit(config['RATE_LIMIT'])
    self._access_log: Optional[AccessLog] = None
    if config['ACCESS_LOG']:
      self._access_log = AccessLog(config['ACCESS_LOG'])
    self._store: Optional[uploads.UploadStore] = None
    if config['KEEP_UPLOADS']:
      self._store = uploads.UploadStore(
          config['UPLOAD_FOLDER'], config['KEEP_DAYS'], config['KEEP_MB'],
          config['MAX_PIXELS'])
    self.inbox: Optional[Inbox] = None
    if config['INBOX']:
      if self._store and (os.path.realpath(config['INBOX']) ==
                          os.path.realpath(config['UPLOAD_FOLDER'])):
        raise InputError('--inbox=%s is also --upload_folder: give two '
                         'different folders' % config['INBOX'])
      self.inbox = Inbox(config['INBOX'], config['INBOX_PHOTOS'],
                         config['INBOX_MB'], config['MAX_PIXELS'])

  def limit_rate(self, photos: int) -> None:
    """Counts photos of the client of the current request.

    Args:
      photos: their number; negative: they are given back.

    Raises:
      Refused: too_many_requests.
    """
    if self._rate_limit:
      headers, environ = flask.request.headers, flask.request.environ
      self._rate_limit.take(
          self.tokens.match(headers.get('Authorization', '')) or
          self._address_of(environ), photos)

  def keep_photo(self, data: bytes) -> None:
    """Stores a photo if the server is configured to."""
    if self._store:
      self._store.keep(data)

  def remove_old_photos(self) -> None:
    """Removes stored photos that are too old or exceed the limit."""
    if self._store:
      self._store.remove_old()

  def counts(self) -> Dict[str, int]:
    """Returns the counters of the service and of the stored photos."""
    counts = dict(self.service.counts())
    if self._store:
      counts['unkept'] = self._store.failures
    return counts

  def has_token(self, authorization: str) -> bool:
    """Whether an Authorization header has a valid token, if one is required."""
    return not self.tokens.required or bool(self.tokens.match(authorization))

  def refuses_early(self, environ: Environ) -> bool:
    """Whether a request is refused for its token before its body is read."""
    return (environ['PATH_INFO'] in ('/api/classify', '/api/corrections') and
            not self.has_token(environ.get('HTTP_AUTHORIZATION', '')))

  def note_request(self, environ: Environ, route: str, status: int, size: int,
                   seconds: float) -> None:
    """Counts a request, and writes it to the access log.

    Args:
      environ: WSGI environment, or the known part of it.
      route: URL rule of the application, or 'other'.
      status: HTTP status of the response.
      size: bytes of the response body.
      seconds: duration of the request.
    """
    self.metrics.observe_request(environ.get('REQUEST_METHOD'), route, status,
                                 seconds)
    if self._access_log:
      self._access_log.write(self._address_of(environ), environ, status, size,
                             seconds)

  def note_refused(self, environ: Environ, refused: Refused, size: int,
                   seconds: float) -> None:
    """Counts and logs a request that the WSGI server has answered itself."""
    self.metrics.observe_refusal(refused)
    self.note_request(environ, 'other', refused.status, size, seconds)

  def _address_of(self, environ: Environ) -> str:
    return clients.client_address(environ, self.config['TRUSTED_PROXY'])


def attach(app: flask.Flask, state: AppState) -> None:
  """Makes `state` that of an application."""
  app.extensions[_KEY] = state


def of_app(app: flask.Flask) -> AppState:
  """Returns the AppState of an application."""
  return app.extensions[_KEY]


def current() -> AppState:
  """Returns the AppState of the application that handles the request."""
  return of_app(flask.current_app)
