"""Runs waitress within bounds, and ends it without leaving anybody unanswered.

waitress' own run() stops its threads on Ctrl-C and drops what waits for one of
them. Here a signal closes the listening socket; what has come by then, also
uploads that are still on their way, is answered; then `run` returns.

waitress also bounds each upload, but not all together, nor how long one takes;
and it closes a connection on which it refuses something with bytes unread, so
that the client often sees a reset and no answer. Here what is refused is read
to its end and thrown away, and every refusal is JSON.
"""

import contextlib
import http
import json
import signal
import sys
import threading
import time

import waitress
from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

from compat import tf
from serving import refusals, texts

# Seconds that connections without a request are left open at the end, for one
# that may be on its way: those that were answered before, and those that have
# just been made for one.
_GRACE_SECS, _FRESH_GRACE_SECS = 0.3, 2.0

# Seconds in which a request must have come: one that comes byte by byte holds a
# connection, of which there are not many. 16 MB take half of it at 1 Mbit/s.
_SLOWEST_SECS = 300.0

# Bytes of an upload after which all are counted again.
_BLOCK = 2 ** 20

# Seconds after which whoever found no room for an upload may ask again.
_FULL_RETRY_SECS = 5

# What is too large is read to its end, up to so many times what is accepted.
_READ_TIMES = 16

# Seconds of one wait for the sockets while the server runs, and while it ends.
_POLL_SECS, _ENDING_POLL_SECS = 1.0, 0.05


class _Full(Error):
  """What an upload is answered that there is no room for."""

  code = http.HTTPStatus.SERVICE_UNAVAILABLE.value
  reason = http.HTTPStatus.SERVICE_UNAVAILABLE.phrase


class _Nothing(OverflowableBuffer):
  """The body of a request that is refused: takes all and keeps nothing."""

  def append(self, data):
    del data  # That is what it is for.


class _Answer(ErrorTask):
  """What a request gets that does not reach the application."""

  def execute(self):
    """Writes the answer, as waitress asks for it."""
    code = self.request.error.code
    if code == _Full.code:
      refused = refusals.busy(_FULL_RETRY_SECS)
    else:
      # 501 is for codings of a body that nobody needs here.
      refused = refusals.of_status(400 if code == 501 else code,
                                   self.channel.most_bytes // 2 ** 20)
    body = json.dumps(texts.as_json(texts.LANGUAGES[0], refused)).encode()
    self.status = '%d %s' % (refused.status,
                             http.HTTPStatus(refused.status).phrase)
    # waitress 2 and 3 say differently that the connection closes.
    headers = dict(refusals.HEADERS, **refused.headers, Connection='close')
    headers['Content-Type'] = 'application/json'
    self.response_headers.extend(headers.items())
    self.close_on_finish = True
    self.content_length = len(body)
    self.write(body)


class _Channel(HTTPChannel):
  """A connection whose answers say that it closes, once the server ends."""

  error_task_class = _Answer

  # Set by DrainingServer: threading.Event; bytes of one upload and of all.
  ending = None
  most_bytes = None
  most_bytes_together = None
  began = 0.0  # When what is being received began, time.monotonic().

  def received(self, data):
    if self.request is None:
      self.began = time.monotonic()
    blocks = self._blocks_received()
    try:
      more = super().received(data)
    except ValueError as error:  # An address that waitress cannot take apart.
      self._refuse_now(BadRequest(str(error)))
      return True
    if self._blocks_received() > blocks:
      self._check_bounds()
    return more

  def _blocks_received(self):
    """Returns how many blocks have come of the request that is on its way."""
    return -1 if self._body() is None else (
        self.request.body_bytes_received // _BLOCK)

  def _body(self):
    """Returns what receives the body of the request on its way, or None."""
    return self.request and self.request.body_rcv

  def bytes_held(self):
    """Returns the bytes of the uploads on this connection."""
    with self.requests_lock:
      requests = self.requests + ([self.request] if self.request else [])
    return sum(len(request.body_rcv) for request in requests
               if request.body_rcv is not None)

  def _check_bounds(self):
    """Throws away what is too large, alone or with all others."""
    request = self.request
    size = max(request.content_length, request.body_bytes_received)
    if size > _READ_TIMES * self.most_bytes:
      self.will_close = True
    elif size > self.most_bytes:
      # Of a body without a length the application would not see it.
      self.throw_away(RequestEntityTooLarge('') if request.chunked else None)
    channels = list(self.server.active_channels.values())
    held = {channel: channel.bytes_held() for channel in channels}
    if sum(held.values()) > self.most_bytes_together:
      # The largest, so that small ones still come through.
      coming = [channel for channel in channels if channel._body() is not None]
      if coming:
        max(coming, key=held.get).throw_away(_Full(''))

  def throw_away(self, error):
    """Keeps nothing more of the request on its way, and reads it to its end.

    Args:
      error: what it is answered; None: what the application says.
    """
    with self.requests_lock:
      request = self.request
      if request is None or request.body_rcv is None:
        return  # It has just ended.
      request.error = request.error or error
      request.body_rcv.buf.close()
      request.body_rcv.buf = _Nothing(0)

  def _refuse_now(self, error):
    with self.requests_lock:
      request, self.request = self.request, None
      request.error = error
      request.completed = True
      self.requests.append(request)
      if len(self.requests) == 1:  # Else its turn comes after the others.
        self.server.add_task(self)

  def service(self):
    if self.ending.is_set():
      self.close_after_requests()
    super().service()

  def close_after_requests(self):
    """Has the connection closed after the answers to what has come."""
    for request in list(self.requests):
      request.headers['CONNECTION'] = 'close'

  def is_busy(self):
    """Whether a request is being received, waits, runs or is being answered."""
    return self.connected and bool(
        self.requests or self.request or self.total_outbufs_len or
        self.close_when_flushed)

  def close_if_slow(self):
    """Closes the connection where a request takes too long to come."""
    if self.request and time.monotonic() > self.began + _SLOWEST_SECS:
      self.will_close = True

  def is_fresh(self):
    """Whether nothing has come on it yet, and it is still young."""
    return self.connected and self.last_activity == self.creation_time and (
        time.time() < self.creation_time + _FRESH_GRACE_SECS)


class DrainingServer:
  """A waitress server on one socket."""

  def __init__(self, app, listener, most_bytes, most_bytes_together,
               **adjustments):
    """Starts to listen; `run` accepts.

    Args:
      app: WSGI application; refuses a body whose length is over most_bytes, of
        which it gets nothing.
      listener: bound socket.
      most_bytes: of one upload.
      most_bytes_together: of all uploads that are held in memory; the largest
        that is on its way is refused with status 503 then.
      **adjustments: of waitress.

    Raises:
      OSError: the port was taken meanwhile.
    """
    self._map = {}
    self._ending = threading.Event()
    self._hurried = threading.Event()
    self._server = waitress.create_server(
        app, map=self._map, sockets=[listener], asyncore_use_poll=True,
        max_request_body_size=sys.maxsize,  # Bounded here.
        **adjustments)
    self._server.channel_class = type('Channel', (_Channel,),
                                      dict(
        ending=self._ending, most_bytes=most_bytes,
        most_bytes_together=most_bytes_together))

  def bytes_held(self):
    """Returns the bytes of all uploads that are held in memory."""
    return sum(channel.bytes_held() for channel in self._channels())

  def stop(self):
    """Has `run` end: in order; called a second time: at once."""
    if self._ending.is_set():
      self._hurried.set()
    self._ending.set()
    with contextlib.suppress(OSError):  # `run` has just returned.
      self._server.pull_trigger()

  def stop_on_signals(self):
    """Has SIGTERM and Ctrl-C call `stop`; main thread only."""
    def stop(number, frame):
      del number, frame  # Part of the signature only.
      self.stop()
    signal.signal(signal.SIGTERM, stop)
    # A shell starts what runs in its background with Ctrl-C ignored.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
      signal.signal(signal.SIGINT, stop)

  def run(self, drain_secs, on_end=None):
    """Answers requests until `stop` is called, and then those that have come.

    Args:
      drain_secs: seconds for these at most.
      on_end: function called before the drain.

    Returns:
      How many connections were cut off because the time was over.
    """
    while not self._ending.is_set():
      self._poll(_POLL_SECS)
      for channel in self._channels():
        channel.close_if_slow()
    if on_end:
      on_end()
    self._accept_rest()
    # Of the server the socket only: its trigger wakes the loop below.
    self._server.del_channel(self._map)
    self._server.socket.close()
    cut_off = self._drain(drain_secs)
    self._server.task_dispatcher.shutdown(timeout=0 if cut_off else 5)
    self._server.asyncore.close_all(self._map, ignore_all=True)
    return cut_off

  def _poll(self, seconds):
    self._server.asyncore.loop(timeout=seconds, use_poll=True, map=self._map,
                               count=1)

  def _channels(self):
    return list(self._server.active_channels.values())

  def _accept_rest(self):
    """Accepts those who have connected, as far as they see, already."""
    before = -1
    while len(self._channels()) > before:
      before = len(self._channels())
      self._server.handle_accept()

  def _drain(self, drain_secs):
    """Returns how many connections are busy after `drain_secs`."""
    start = time.monotonic()
    while True:
      # Those whose request runs already have not seen `ending` in service().
      for channel in self._channels():
        channel.close_after_requests()
      self._poll(_ENDING_POLL_SECS)
      busy = sum(channel.is_busy() for channel in self._channels())
      fresh = any(channel.is_fresh() for channel in self._channels())
      seconds = time.monotonic() - start
      if not busy and not fresh and seconds >= _GRACE_SECS:
        return 0
      if seconds >= drain_secs or self._hurried.is_set():
        if busy:
          tf.logging.warning('%d requests are left without an answer after '
                             '%.1f s', busy, seconds)
        return busy
