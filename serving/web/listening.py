"""The socket that the server listens on, and the limits of its connections."""

import math
import os
import resource
import socket
from typing import Callable

from common.errors import InputError
from compat import tf
from serving.web.app import body_bytes
from serving.web.shutdown import DrainingServer

# Connections in addition to one per thread: slow uploads, idle browsers.
_MORE_CONNECTIONS = 400

# Open files that are reserved for anything but connections, and the minimum
# number of connections without which the server does not start.
_OTHER_FILES, _FEWEST_CONNECTIONS = 20, 8

# Maximum bytes of the headers of a request. nginx has the same default.
_HEADER_BYTES = 32 * 2 ** 10

# Seconds after which an inactive connection is closed.
_SILENT_SECS = 60

# Maximum number of bytes that are received at a time. After each time waitress
# looks at all connections again, so its own 8 KB take more processor time.
_RECEIVED_BYTES = 64 * 2 ** 10

# Total bytes of all uploads in progress: those of a few clients with the
# largest photos, or of a hundred with usual ones. Each is held in memory up to
# three times while it is parsed.
_UPLOADS_BYTES = 256 * 2 ** 20


def bind(host: str, port: int) -> socket.socket:
  """Binds a port without listening on it yet.

  It is bound before the graph is loaded, so that a port in use is reported at
  once.

  Args:
    host: name or address, IPv4 or IPv6.
    port: 0 uses a free one.

  Returns:
    A socket.

  Raises:
    InputError: the address or the port is not available.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind, protocol)
    # A port that was used by the last server just before can be used again.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
  except OSError as error:
    raise _port_error(host, port, error)
  return listener


def listen(app: Callable, listener: socket.socket, threads: int,
           max_upload_mb: int, url_prefix: str = '',
           request_secs: float = math.inf) -> DrainingServer:
  """Starts to listen.

  Args:
    app: WSGI application.
    listener: socket, as `bind` returned it.
    threads: number of requests that are processed at once.
    max_upload_mb: largest photo, in units of 2^20 bytes.
    url_prefix: with a leading and no trailing slash, or ''; removed from the
      path of a request that has it.
    request_secs: deadline of a request, in seconds.

  Returns:
    A DrainingServer, which answers when its `run` is called.

  Raises:
    InputError: another program has taken the port meanwhile, or the limit on
      open files leaves too few connections.
  """
  host, port = listener.getsockname()[:2]
  max_bytes = body_bytes(max_upload_mb)
  connection_limit = _connection_limit(threads + _MORE_CONNECTIONS)
  try:
    return DrainingServer(
        app, listener, max_bytes, max(_UPLOADS_BYTES, 2 * max_bytes),
        request_secs, threads=threads, ident=None, url_prefix=url_prefix,
        connection_limit=connection_limit,
        max_request_header_size=_HEADER_BYTES,
        # Only clients.client_address reads such headers.
        clear_untrusted_proxy_headers=False, channel_timeout=_SILENT_SECS,
        recv_bytes=_RECEIVED_BYTES,
        # An upload or a response that waits is never written to a file.
        inbuf_overflow=2 * max_bytes, outbuf_overflow=2 * max_bytes)
  except OSError as error:
    raise _port_error(host, port, error)


def _connection_limit(wanted):
  """Returns `wanted`, or fewer connections if the limit on open files is lower.

  Raises:
    InputError: too few are left.
  """
  max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  if max_files == resource.RLIM_INFINITY:
    return wanted
  others = len(os.listdir('/dev/fd')) + _OTHER_FILES
  limit = min(wanted, max_files - others)
  if limit < _FEWEST_CONNECTIONS:
    raise InputError('the limit on open files (ulimit -n) is %d; at least %d '
                     'are needed' % (max_files, others + _FEWEST_CONNECTIONS))
  if limit < wanted:
    tf.logging.warning(
        'at most %d connections at once in place of %d: the limit on open '
        'files (ulimit -n) is %d', limit, wanted, max_files)
  return limit


def _port_error(host, port, error):
  return InputError('cannot listen on %s, port %d: %s; choose another with '
                    '--port or --host' % (host, port, error.strerror))
