"""Runs waitress with limits, and shuts it down after all requests are answered.

waitress' own run() stops its threads on Ctrl-C and drops the requests that wait
for one. Here a signal closes the listening socket; requests that have arrived
by then, and uploads in progress, are answered; then `run` returns.

waitress also limits each upload, but not their total size, nor the time that an
upload takes. When it refuses a request it closes the connection with bytes
unread, so that the client often sees a reset and no response. Here a request is
refused as early as possible, the rest of it is read and discarded, and every
refusal is JSON. If all connections are in use, an idle one is closed. Health
checks never wait for a thread that uploads may occupy.
"""

import contextlib
import http
import json
import math
import select
import signal
import socket
import sys
import threading
import time

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import Error

from compat import tf
from serving.model.patience import Patience
from serving.web import logs, refusals, texts
from serving.web.request_parser import Request

# Seconds that connections without a request are left open at shutdown, in case
# a request is in transit: on connections that were answered before, and on
# those that have just been opened.
_GRACE_SECS, _FRESH_GRACE_SECS = 0.3, 2.0

# Seconds in which a request must arrive: a request that arrives byte by byte
# occupies one of the few connections. 16 MB take half of it at 1 Mbit/s.
_SLOWEST_SECS = 300.0

# An upload that is older than these seconds and receives fewer bytes per second
# may be closed if all connections are in use. The rate is that of Apache's
# mod_reqtimeout.
_SLOW_SECS, _SLOW_RATE = 1.0, 500

# Minimum age of a connection without a request before it is closed, in seconds.
_NEW_SECS = 0.5

# Seconds without accepting if there is no room for a connection, and seconds
# between two log lines about connections that could not be accepted.
_ACCEPT_PAUSE_SECS, _ACCEPT_LOG_SECS = 0.2, 60.0

# Retry-After of an upload for which there was no room, in seconds.
_FULL_RETRY_SECS = 5

# After a refusal, up to so many times the largest upload is read and discarded.
_READ_TIMES = 16

# Timeout of one poll of the sockets while the server runs, and during shutdown,
# in seconds; slow requests are looked for after each poll of the first kind.
_POLL_SECS, _ENDING_POLL_SECS = 1.0, 0.05

# Paths whose requests get a thread of their own.
_PROBES = ('/healthz', '/readyz')


class _Full(Error):
  """The error for an upload for which there is no room."""

  code = http.HTTPStatus.SERVICE_UNAVAILABLE.value
  reason = http.HTTPStatus.SERVICE_UNAVAILABLE.phrase


class _Answer(ErrorTask):
  """Answers a request that does not reach the application."""

  def execute(self):
    """Writes the response; called by waitress."""
    code = self.request.error.code
    if code == _Full.code:
      refused = refusals.busy(_FULL_RETRY_SECS)
    else:
      # 501 is for transfer codings, which no client needs here.
      refused = refusals.of_status(400 if code == 501 else code,
                                   self.channel.server.most_bytes // 2 ** 20)
    body = json.dumps(texts.as_json(texts.LANGUAGES[0], refused)).encode()
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

  def get_environment(self):
    """Returns the WSGI environment; serving.patience is a Patience."""
    environ = super().get_environment()
    environ['serving.patience'] = self.channel.patience
    return environ


class _Channel(HTTPChannel):
  """A connection; its responses announce that it closes at shutdown."""

  error_task_class, task_class = _Answer, _Task
  patience = None  # Of the request that waits for a thread or runs in one.

  began = 0.0  # When the current request began to arrive, time.monotonic().
  # Whether a request was refused before its end: the rest of it is discarded.
  _is_discarding = False
  _discarded_bytes = 0

  def __init__(self, *arguments, **options):
    self._waiting_since = time.monotonic()
    # waitress lists a connection, for other threads too, before it sets this.
    self.requests = []
    super().__init__(*arguments, **options)

  def parser_class(self, adj):
    """Returns the parser of the next request; called by waitress."""
    return Request(adj, self.server.most_bytes, self._is_refused, self._discard)

  def handle_close(self):
    """Closes the connection, and frees the received part of an upload."""
    super().handle_close()
    if self.request is not None:
      self.request.close()  # Garbage collection of its cycles comes much later.

  def _is_refused(self, request):
    environ = self.task_class(self, request).get_environment()
    return self.server.refuses_early(environ)

  def _discard(self):
    self._is_discarding = True

  def received(self, data):
    if self._is_discarding:
      self._discarded_bytes += len(data)
      if self._discarded_bytes > _READ_TIMES * self.server.most_bytes:
        self.will_close = True
      return False
    if self.request is None:
      self.began = time.monotonic()
    more = super().received(data)
    self.server.check_bytes_held(len(data))
    return more

  def handle_write(self):
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

  def bytes_held(self):
    """Returns the bytes of the uploads on this connection."""
    with self.requests_lock:
      requests = self.requests + ([self.request] if self.request else [])
      return sum(len(request.body_rcv) for request in requests
                 if request.body_rcv is not None)

  def is_uploading(self):
    """Whether the body of a request is being received."""
    return bool(self.request and self.request.body_rcv is not None)

  def refuse(self, error):
    """Answers the request being received, and frees its received part.

    Args:
      error: waitress.utilities.Error.
    """
    with self.requests_lock:
      request, self.request = self.request, None
      request.refuse(error)
      self._discard()
      self.requests.append(request)
      if len(self.requests) == 1:  # Otherwise it is answered after the others.
        self.server.add_task(self)

  def is_gone(self):
    """Whether the client has closed its end of the connection."""
    # waitress does not check while a request of the connection is processed.
    poll = select.poll()
    try:
      poll.register(self.socket, select.POLLRDHUP)
      return bool(poll.poll(0))
    except (OSError, ValueError):  # Also closed on this side.
      return True

  def service(self):
    if self.server.ending.is_set():
      self.close_after_requests()
    super().service()
    self._waiting_since = time.monotonic()

  def close_after_requests(self):
    """Has the connection closed after the responses to received requests."""
    for request in list(self.requests):
      request.headers['CONNECTION'] = 'close'

  def is_busy(self):
    """Whether a request is being received, waits, runs or is being answered."""
    return self.connected and bool(
        self.requests or self.request or self.total_outbufs_len or
        self.close_when_flushed)

  def close_if_slow(self):
    """Closes the connection if a request takes too long to arrive."""
    if (self.request or self._is_discarding) and (
        time.monotonic() > self.began + _SLOWEST_SECS):
      self.will_close = True

  def idleness(self):
    """Returns a rank for closing idle connections, None if it is in use.

    Returns:
      A tuple; the connection with the largest one is closed first. Connections
      without the complete headers of a request rank highest, then slow uploads,
      then connections that have only just been opened or answered.
    """
    if self.requests or self.total_outbufs_len or self.close_when_flushed:
      return None
    now = time.monotonic()
    if not self.is_uploading():
      seconds = now - self._waiting_since
      rank = 2 if seconds > _FRESH_GRACE_SECS else 0
      return (rank, seconds) if seconds > _NEW_SECS else None
    seconds = now - self.began
    rate = self.request.body_bytes_received / max(seconds, 1e-9)
    return (1, -rate) if seconds > _SLOW_SECS and rate < _SLOW_RATE else None

  def is_fresh(self):
    """Whether the connection is new and has received nothing yet."""
    return self.connected and self.last_activity == self.creation_time and (
        time.time() < self.creation_time + _FRESH_GRACE_SECS)


class _Server(TcpWSGIServer):
  """A listening socket with its connections.

  Attributes:
    ending: threading.Event, set when no more connections are accepted.
    most_bytes: maximum size of one upload.
    refuses_early: function of a WSGI environment without a body.
    note_refused: function of a WSGI environment, a refusals.Refused, the bytes
      of the answer's body and seconds, called for each request that does not
      reach the application.
  """

  channel_class = _Channel

  def __init__(self, app, listener, most_bytes, most_bytes_together,
               request_secs, **options):
    self.ending = threading.Event()
    self._request_secs = request_secs
    self._probes = ThreadedTaskDispatcher()
    self._probes.set_thread_count(1)
    self.most_bytes = most_bytes
    self.refuses_early = getattr(app, 'refuses_early', lambda environ: False)
    self.note_refused = getattr(app, 'note_refused', lambda *facts: None)
    self._most_bytes_together = most_bytes_together
    self._room = most_bytes_together
    self._accepts_from = 0.0  # time.monotonic()
    self._is_short_of_files = False
    self._next_log = 0.0
    self._failures = 0  # Since the last log line.
    super().__init__(
        app, _sock=listener, bind_socket=False,
        sockinfo=(listener.family, listener.type, listener.proto,
                  listener.getsockname()), **options)

  def add_task(self, channel):
    """Has a thread answer the first request of a connection."""
    channel.patience = Patience(self._request_secs, channel.is_gone)
    path = getattr(channel.requests[0], 'path', '')  # Bad ones may lack it.
    prefix = self.adj.url_prefix
    if prefix and path.startswith(prefix):
      path = path[len(prefix):]
    (self._probes if path in _PROBES else self.task_dispatcher).add_task(
        channel)

  def end_threads(self, timeout):
    """Ends the worker threads; waits up to `timeout` seconds for them."""
    for dispatcher in (self._probes, self.task_dispatcher):
      dispatcher.shutdown(timeout=timeout)

  def channels(self):
    """Returns the open connections."""
    return list(self.active_channels.values())

  def check_bytes_held(self, new_bytes):
    """Refuses the largest upload if all of them together are too large.

    Args:
      new_bytes: number of bytes that a connection has received. All uploads are
        counted again only after so many bytes that they may exceed the limit.
    """
    self._room -= new_bytes
    if self._room >= 0:
      return
    held = {channel: channel.bytes_held() for channel in self.channels()}
    self._room = self._most_bytes_together - sum(held.values())
    coming = [channel for channel in held if channel.is_uploading()]
    if self._room < 0 and coming:
      # The largest, so that small uploads still succeed.
      largest = max(coming, key=held.get)
      largest.refuse(_Full(''))
      self._room += held[largest]

  def is_pausing(self):
    """Whether the server pauses accepting because it is out of room."""
    return time.monotonic() < self._accepts_from

  def readable(self):
    return not self.is_pausing() and super().readable()

  def accept(self):
    try:
      return super().accept()
    except OSError as error:  # Usually: too many open files.
      now = time.monotonic()
      # The socket stays readable: polling it would keep a core busy.
      self._accepts_from = now + _ACCEPT_PAUSE_SECS
      self._is_short_of_files = True
      self._failures += 1
      if now >= self._next_log:
        self._next_log = now + _ACCEPT_LOG_SECS
        tf.logging.warning(
            'cannot accept a connection (%d times since the last such line): '
            '%s; %d are open', self._failures, error.strerror,
            len(self.active_channels))
        self._failures = 0
      return None

  def make_room(self):
    """Closes the most idle connection if no other can be accepted."""
    if (len(self._map) < self.adj.connection_limit and
        not self._is_short_of_files):
      return
    self._is_short_of_files = False
    idle = [(channel.idleness(), channel) for channel in self.channels()]
    idle = [pair for pair in idle if pair[0]]
    if idle:
      max(idle, key=lambda pair: pair[0])[1].handle_close()
      self._accepts_from = 0.0
    else:
      self._accepts_from = time.monotonic() + _ACCEPT_PAUSE_SECS


class DrainingServer:
  """A waitress server on one socket."""

  def __init__(self, app, listener, most_bytes, most_bytes_together,
               request_secs=math.inf, **adjustments):
    """Starts to listen; `run` accepts.

    Args:
      app: WSGI application; refuses a body whose length is over most_bytes; the
        body itself is not passed to it. If `app.refuses_early(environ)` exists
        and is true for a request's headers, the body is not passed either.
      listener: bound socket.
      most_bytes: maximum size of one upload.
      most_bytes_together: maximum total size of the uploads in memory; above
        it, the largest upload in progress is refused with status 503.
      request_secs: deadline of a request, counted from its complete arrival;
        used by the Patience in environ['serving.patience'].
      **adjustments: of waitress.

    Raises:
      OSError: another program has taken the port meanwhile.
    """
    self._map = {}
    self._hurried = threading.Event()
    self._server = _Server(
        app, listener, most_bytes, most_bytes_together, request_secs,
        map=self._map,
        adj=Adjustments(asyncore_use_poll=True,
                        max_request_body_size=sys.maxsize,  # Limited here.
                        **adjustments))
    self._ending = self._server.ending

  def bytes_held(self):
    """Returns the total bytes of the uploads in memory."""
    return sum(channel.bytes_held() for channel in self._server.channels())

  def stop(self):
    """Has `run` end: gracefully; if called a second time, at once."""
    if self._ending.is_set():
      self._hurried.set()
    self._ending.set()
    with contextlib.suppress(OSError):  # `run` has just returned.
      self._server.pull_trigger()

  def stop_on_signals(self):
    """Has SIGTERM and Ctrl-C call `stop`; main thread only."""
    def stop(number, frame):
      del number, frame  # Unused; required by the signature.
      self.stop()
    signal.signal(signal.SIGTERM, stop)
    # A shell starts background jobs with Ctrl-C ignored.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
      signal.signal(signal.SIGINT, stop)

  def run(self, drain_secs, on_end=None):
    """Answers requests until `stop` is called, then those already received.

    Args:
      drain_secs: maximum seconds for the latter.
      on_end: function called before the drain.

    Returns:
      The number of connections that were cut off because the time was over.
    """
    next_look = time.monotonic()
    while not self._ending.is_set():
      self._poll(_ACCEPT_PAUSE_SECS if self._server.is_pausing() else
                 _POLL_SECS)
      self._server.make_room()
      if time.monotonic() >= next_look:
        next_look = time.monotonic() + _POLL_SECS
        for channel in self._server.channels():
          channel.close_if_slow()
    if on_end:
      on_end()
    self._accept_rest()
    # Remove only the socket of the server: its trigger wakes the loop below.
    self._server.del_channel(self._map)
    self._server.socket.close()
    cut_off = self._drain(drain_secs)
    self._server.end_threads(0 if cut_off else 5)
    self._server.asyncore.close_all(self._map, ignore_all=True)
    return cut_off

  def _poll(self, seconds):
    self._server.asyncore.loop(timeout=seconds, use_poll=True, map=self._map,
                               count=1)

  def _accept_rest(self):
    """Accepts the connections that clients already see as established."""
    before = -1
    while len(self._server.channels()) > before:
      before = len(self._server.channels())
      self._server.handle_accept()

  def _drain(self, drain_secs):
    """Returns the number of busy connections after `drain_secs`."""
    start = time.monotonic()
    while True:
      # Requests that were running already have not seen `ending` in service().
      for channel in self._server.channels():
        channel.close_after_requests()
      self._poll(_ENDING_POLL_SECS)
      busy = sum(channel.is_busy() for channel in self._server.channels())
      fresh = any(channel.is_fresh() for channel in self._server.channels())
      seconds = time.monotonic() - start
      if not busy and not fresh and seconds >= _GRACE_SECS:
        return 0
      if seconds >= drain_secs or self._hurried.is_set():
        if busy:
          tf.logging.warning('%d requests are left without an answer after '
                             '%.1f s', busy, seconds)
        return busy
