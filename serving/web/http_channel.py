"""One HTTP connection of the server, and how its requests are answered.

When waitress refuses a request it closes the connection with bytes unread, so
that the client often sees a reset and no response. Here a request is refused as
early as possible, the rest of it is read and discarded, and every refusal is
JSON.
"""

import http
import json
import select
import socket
import time
from typing import Any, Dict, List, Optional, Tuple

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error

from serving.model.deadlines import Deadline
from serving.web import logs, refusals, texts
from serving.web.request_parser import Request

# Seconds for which a new connection without a request is left open at shutdown,
# in case a request is in transit.
_FRESH_GRACE_SECS = 2.0

# Seconds in which a request must arrive: a request that arrives byte by byte
# occupies one of the few connections. 16 MB take half of it at 1 Mbit/s.
_SLOWEST_SECS = 300.0

# An upload that is older than these seconds and receives fewer bytes per second
# may be closed if all connections are in use. The rate is that of Apache's
# mod_reqtimeout.
_SLOW_SECS, _SLOW_RATE = 1.0, 500

# Minimum age of a connection without a request before it is closed, in seconds.
_NEW_SECS = 0.5

# Retry-After of an upload for which there was no room, in seconds.
_FULL_RETRY_SECS = 5

# After a refusal, up to so many times the largest upload is read and discarded.
_READ_TIMES = 16


class UploadsFull(Error):
  """The error for an upload for which there is no room."""

  code = http.HTTPStatus.SERVICE_UNAVAILABLE.value
  reason = http.HTTPStatus.SERVICE_UNAVAILABLE.phrase


class _ErrorTask(ErrorTask):
  """Answers a request that does not reach the application."""

  def execute(self) -> None:
    """Writes the response; called by waitress."""
    code = self.request.error.code
    if code == UploadsFull.code:
      refused = refusals.retry_later(_FULL_RETRY_SECS)
    else:
      # 501 is for transfer codings, which no client needs here.
      refused = refusals.from_status(
          400 if code == 501 else code,
          self.channel.server.max_bytes // 2 ** 20)
    body = json.dumps(texts.error_json(texts.LANGUAGES[0], refused)).encode()
    self.status = '%d %s' % (refused.status,
                             http.HTTPStatus(refused.status).phrase)
    # waitress 2 and 3 announce the closing of the connection in different ways.
    headers = dict(refusals.HEADERS, **refused.headers, Connection='close')
    headers['Content-Type'] = 'application/json'
    headers['X-Request-Id'] = logs.begin_request(self._header)
    self.response_headers.extend(headers.items())
    self.close_on_finish = True
    self.content_length = len(body)
    try:
      self.channel.server.note_refused(self._environ(code), refused, len(body),
                                       time.monotonic() - self.channel.began)
      self.write(body)
    finally:
      logs.end_request()

  def _header(self, name):
    return self.request.headers.get(name.upper().replace('-', '_'))

  def _environ(self, code):
    """Returns what is known about the request, as a WSGI environment."""
    environ = {'REMOTE_ADDR': self.channel.addr[0],
               'HTTP_X_FORWARDED_FOR': self._header('X-Forwarded-For') or ''}
    # If the headers are too large, waitress makes up a request line.
    if (code != http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value and
        hasattr(self.request, 'path')):
      environ.update(REQUEST_METHOD=self.request.command,
                     PATH_INFO=self.request.path,
                     SERVER_PROTOCOL='HTTP/' + self.request.version)
    return environ


class _Task(WSGITask):
  """Answers a request that reaches the application."""

  def get_environment(self) -> Dict[str, Any]:
    """Returns the WSGI environment; serving.deadline is a Deadline."""
    environ = super().get_environment()
    environ['serving.deadline'] = self.channel.deadline
    return environ


class Channel(HTTPChannel):
  """A connection; its responses announce that it closes at shutdown."""

  error_task_class, task_class = _ErrorTask, _Task
  request: Optional[Request] = None  # That is being received.
  close_when_flushed = False
  # Of the request that waits for a thread or runs in one.
  deadline: Optional[Deadline] = None

  began = 0.0  # When the current request began to arrive, time.monotonic().
  # Whether a request was refused before its end: the rest of it is discarded.
  _is_discarding = False
  _discarded_bytes = 0

  def __init__(self, *arguments: Any, **options: Any):
    self._waiting_since = time.monotonic()
    # waitress lists a connection, for other threads too, before it sets this.
    self.requests: List[Request] = []
    super().__init__(*arguments, **options)

  def parser_class(self, adj: Any) -> Request:
    """Returns the parser of the next request; called by waitress."""
    return Request(adj, self.server.max_bytes, self._is_refused, self._discard)

  def handle_close(self) -> None:
    """Closes the connection, and frees the received part of an upload."""
    super().handle_close()
    if self.request is not None:
      self.request.close()  # Garbage collection of its cycles comes much later.

  def _is_refused(self, request):
    environ = self.task_class(self, request).get_environment()
    return self.server.refuses_early(environ)

  def _discard(self):
    self._is_discarding = True

  def received(self, data: bytes) -> bool:
    """Parses received bytes; called by waitress.

    Returns:
      Whether a request is complete.
    """
    if self._is_discarding:
      self._discarded_bytes += len(data)
      if self._discarded_bytes > _READ_TIMES * self.server.max_bytes:
        self.will_close = True
      return False
    if self.request is None:
      self.began = time.monotonic()
    is_complete = super().received(data)
    self.server.check_bytes_held(len(data))
    return is_complete

  def handle_write(self) -> None:
    """Sends what is waiting to be sent; called by waitress."""
    if self._is_discarding and self.close_when_flushed:
      self._flush_exception(self._flush_some)
      if self.connected and not self.will_close and not self.total_outbufs_len:
        # If it were closed with bytes unread, the connection would be reset,
        # and the client might not see the response.
        self.close_when_flushed = False
        try:
          self.socket.shutdown(socket.SHUT_WR)
        except OSError:
          self.will_close = True
    super().handle_write()

  def bytes_held(self) -> int:
    """Returns the bytes of the uploads on this connection."""
    with self.requests_lock:
      requests = self.requests + ([self.request] if self.request else [])
      return sum(len(request.body_rcv) for request in requests
                 if request.body_rcv is not None)

  def is_uploading(self) -> bool:
    """Whether the body of a request is being received."""
    return bool(self.request and self.request.body_rcv is not None)

  def refuse(self, error: Error) -> None:
    """Answers the request being received, and frees its received part.

    Args:
      error: waitress.utilities.Error.
    """
    with self.requests_lock:
      request, self.request = self.request, None
      if request is None:
        return
      request.refuse(error)
      self._discard()
      self.requests.append(request)
      if len(self.requests) == 1:  # Otherwise it is answered after the others.
        self.server.add_task(self)

  def is_disconnected(self) -> bool:
    """Whether the client has closed its end of the connection."""
    # waitress does not check while a request of the connection is processed.
    poll = select.poll()
    try:
      poll.register(self.socket, select.POLLRDHUP)
      return bool(poll.poll(0))
    except (OSError, ValueError):  # Also closed on this side.
      return True

  def service(self) -> None:
    """Answers the received requests; called by waitress in a thread."""
    if self.server.ending.is_set():
      self.close_after_requests()
    super().service()
    self._waiting_since = time.monotonic()

  def close_after_requests(self) -> None:
    """Has the connection closed after the responses to received requests."""
    for request in list(self.requests):
      request.headers['CONNECTION'] = 'close'

  def is_busy(self) -> bool:
    """Whether a request is being received, waits, runs or is being answered."""
    return self.connected and bool(
        self.requests or self.request or self.total_outbufs_len or
        self.close_when_flushed)

  def close_if_slow(self) -> None:
    """Closes the connection if a request takes too long to arrive."""
    if (self.request or self._is_discarding) and (
        time.monotonic() > self.began + _SLOWEST_SECS):
      self.will_close = True

  def idleness(self) -> Optional[Tuple[int, float]]:
    """Returns a rank for closing idle connections, None if it is in use.

    Returns:
      A tuple; the connection with the largest one is closed first. Connections
      without the complete headers of a request rank highest, then slow uploads,
      then connections that have only just been opened or answered.
    """
    if self.requests or self.total_outbufs_len or self.close_when_flushed:
      return None
    now = time.monotonic()
    if not self.request or not self.is_uploading():
      seconds = now - self._waiting_since
      rank = 2 if seconds > _FRESH_GRACE_SECS else 0
      return (rank, seconds) if seconds > _NEW_SECS else None
    seconds = now - self.began
    rate = self.request.body_bytes_received / max(seconds, 1e-9)
    return (1, -rate) if seconds > _SLOW_SECS and rate < _SLOW_RATE else None

  def is_fresh(self) -> bool:
    """Whether the connection is new and has received nothing yet."""
    return self.connected and self.last_activity == self.creation_time and (
        time.time() < self.creation_time + _FRESH_GRACE_SECS)
