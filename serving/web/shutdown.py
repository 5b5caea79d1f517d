"""Runs waitress with limits, and shuts it down after all requests are answered.

waitress' own run() stops its threads on Ctrl-C and drops the requests that wait
for one. Here a signal closes the listening socket; requests that have arrived
by then, and uploads in progress, are answered; then `run` returns.

waitress also limits each upload, but not their total size, nor the time that an
upload takes. Here, if all connections are in use, an idle one is closed. Health
checks never wait for a thread that uploads may occupy. What one connection does
is in http_channel.py.
"""

import contextlib
import math
import signal
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from compat import tf
from serving.model.deadlines import Deadline
from serving.web.http_channel import Channel, UploadsFull

# Seconds for which connections that were answered before are left open at
# shutdown, in case a request is in transit.
_GRACE_SECS = 0.3

# Seconds without accepting if there is no room for a connection, and seconds
# between two log lines about connections that could not be accepted.
_ACCEPT_PAUSE_SECS, _ACCEPT_LOG_SECS = 0.2, 60.0

# Timeout of one poll of the sockets while the server runs, and during shutdown,
# in seconds; slow requests are looked for after each poll of the first kind.
_POLL_SECS, _SHUTDOWN_POLL_SECS = 1.0, 0.05

# Paths whose requests get a thread of their own.
_PROBES = ('/healthz', '/readyz')


class _Server(TcpWSGIServer):
  """A listening socket with its connections.

  Attributes:
    ending: threading.Event, set when no more connections are accepted.
    max_bytes: maximum size of one upload.
    refuses_early: function of a WSGI environment without a body.
    note_refused: function of a WSGI environment, a refusals.Refused, the bytes
      of the answer's body and seconds, called for each request that does not
      reach the application.
  """

  channel_class = Channel

  def __init__(self, app: Callable, listener: socket.socket, max_bytes: int,
               max_total_bytes: int, request_secs: float, **options: Any):
    self.ending = threading.Event()
    self._request_secs = request_secs
    self._probes = ThreadedTaskDispatcher()
    self._probes.set_thread_count(1)
    self.max_bytes = max_bytes
    self.refuses_early = getattr(app, 'refuses_early', lambda environ: False)
    self.note_refused = getattr(app, 'note_refused', lambda *facts: None)
    self._max_total_bytes = max_total_bytes
    self._room = max_total_bytes
    self._accepts_from = 0.0  # time.monotonic()
    self._is_short_of_files = False
    self._next_log = 0.0
    self._failures = 0  # Since the last log line.
    super().__init__(
        app, _sock=listener, bind_socket=False,
        sockinfo=(listener.family, listener.type, listener.proto,
                  listener.getsockname()), **options)

  def add_task(self, channel: Channel) -> None:
    """Has a thread answer the first request of a connection."""
    channel.deadline = Deadline(self._request_secs, channel.is_disconnected)
    path = getattr(channel.requests[0], 'path', '')  # Bad ones may lack it.
    prefix = self.adj.url_prefix
    if prefix and path.startswith(prefix):
      path = path[len(prefix):]
    (self._probes if path in _PROBES else self.task_dispatcher).add_task(
        channel)

  def end_threads(self, timeout: float) -> None:
    """Ends the worker threads; waits up to `timeout` seconds for them."""
    for dispatcher in (self._probes, self.task_dispatcher):
      dispatcher.shutdown(timeout=timeout)

  def channels(self) -> List[Channel]:
    """Returns the open connections."""
    return list(self.active_channels.values())

  def check_bytes_held(self, new_bytes: int) -> None:
    """Refuses the largest upload if all of them together are too large.

    Args:
      new_bytes: number of bytes that a connection has received. All uploads are
        counted again only after so many bytes that they may exceed the limit.
    """
    self._room -= new_bytes
    if self._room >= 0:
      return
    held = {channel: channel.bytes_held() for channel in self.channels()}
    self._room = self._max_total_bytes - sum(held.values())
    uploading = [channel for channel in held if channel.is_uploading()]
    if self._room < 0 and uploading:
      # The largest, so that small uploads still succeed.
      largest = max(uploading, key=lambda channel: held[channel])
      largest.refuse(UploadsFull(''))
      self._room += held[largest]

  def is_pausing(self) -> bool:
    """Whether the server pauses accepting because it is out of room."""
    return time.monotonic() < self._accepts_from

  def readable(self) -> bool:
    """Whether to wait for new connections; called by waitress."""
    return not self.is_pausing() and super().readable()

  def accept(self) -> Any:
    """Accepts a connection, None if that fails; called by waitress."""
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

  def make_room(self) -> None:
    """Closes the most idle connection if no other can be accepted."""
    if (len(self._map) < self.adj.connection_limit and
        not self._is_short_of_files):
      return
    self._is_short_of_files = False
    ranks = {channel: channel.idleness() for channel in self.channels()}
    idle = {channel: rank for channel, rank in ranks.items() if rank}
    if idle:
      max(idle, key=lambda channel: idle[channel]).handle_close()
      self._accepts_from = 0.0
    else:
      self._accepts_from = time.monotonic() + _ACCEPT_PAUSE_SECS


class DrainingServer:
  """A waitress server on one socket."""

  def __init__(self, app: Callable, listener: socket.socket, max_bytes: int,
               max_total_bytes: int, request_secs: float = math.inf,
               **adjustments: Any):
    """Starts to listen; `run` accepts.

    Args:
      app: WSGI application; refuses a body whose length is over max_bytes; the
        body itself is not passed to it. If `app.refuses_early(environ)` exists
        and is true for a request's headers, the body is not passed either.
      listener: bound socket.
      max_bytes: maximum size of one upload.
      max_total_bytes: maximum total size of the uploads in memory; above
        it, the largest upload in progress is refused with status 503.
      request_secs: deadline of a request, counted from its complete arrival;
        used by the Deadline in environ['serving.deadline'].
      **adjustments: of waitress.

    Raises:
      OSError: another program has taken the port meanwhile.
    """
    self._map: Dict[int, Any] = {}
    self._stop_at_once = threading.Event()
    self._server = _Server(
        app, listener, max_bytes, max_total_bytes, request_secs,
        map=self._map,
        adj=Adjustments(asyncore_use_poll=True,
                        max_request_body_size=sys.maxsize,  # Limited here.
                        **adjustments))
    self._ending = self._server.ending

  def bytes_held(self) -> int:
    """Returns the total bytes of the uploads in memory."""
    return sum(channel.bytes_held() for channel in self._server.channels())

  def stop(self) -> None:
    """Has `run` end: gracefully; if called a second time, at once."""
    if self._ending.is_set():
      self._stop_at_once.set()
    self._ending.set()
    with contextlib.suppress(OSError):  # `run` has just returned.
      self._server.pull_trigger()

  def stop_on_signals(self) -> None:
    """Has SIGTERM and Ctrl-C call `stop`; main thread only."""
    def stop(number, frame):
      del number, frame  # Unused; required by the signature.
      self.stop()
    signal.signal(signal.SIGTERM, stop)
    # A shell starts background jobs with Ctrl-C ignored.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
      signal.signal(signal.SIGINT, stop)

  def run(self, drain_secs: float,
          on_end: Optional[Callable[[], None]] = None) -> int:
    """Answers requests until `stop` is called, then those already received.

    Args:
      drain_secs: maximum seconds for the latter.
      on_end: function called before the drain.

    Returns:
      The number of connections that were cut off because the time was over.
    """
    next_check = time.monotonic()
    while not self._ending.is_set():
      self._poll(_ACCEPT_PAUSE_SECS if self._server.is_pausing() else
                 _POLL_SECS)
      self._server.make_room()
      if time.monotonic() >= next_check:
        next_check = time.monotonic() + _POLL_SECS
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
      self._poll(_SHUTDOWN_POLL_SECS)
      busy = sum(channel.is_busy() for channel in self._server.channels())
      fresh = any(channel.is_fresh() for channel in self._server.channels())
      seconds = time.monotonic() - start
      if not busy and not fresh and seconds >= _GRACE_SECS:
        return 0
      if seconds >= drain_secs or self._stop_at_once.is_set():
        if busy:
          tf.logging.warning('%d requests are left without an answer after '
                             '%.1f s', busy, seconds)
        return busy
