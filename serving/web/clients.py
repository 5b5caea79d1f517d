"""Identifies the client of a request, and limits the photos of each client.

A client is identified by its token, or by its address if there is none.
"""

import collections
import hashlib
import hmac
import ipaddress
import math
import os
import threading
import time
from typing import Any, Callable, Mapping, Optional, Tuple, Union

from common.errors import InputError
from serving.web import logs
from serving.web.refusals import Refused

# Maximum number of clients whose last photos are remembered; above it, those
# that have been inactive longest are forgotten.
_MOST_CLIENTS = 10000

# The prefix of an IPv6 address that a provider assigns to one customer.
_IPV6_BITS = 64


def client_address(environ: Mapping[str, Any],
                   trusted_proxy: Optional[str] = None) -> str:
  """Returns the address that a request comes from, as text.

  Args:
    environ: WSGI environment.
    trusted_proxy: address of the reverse proxy, in the form that
      `normalize_address` returns. For requests from it, the last address in
      X-Forwarded-For is used, which the proxy has added. None: the header is
      ignored.
  """
  peer = environ.get('REMOTE_ADDR', '')
  peer = normalize_address(peer) or peer
  if peer != trusted_proxy:
    return peer
  last = environ.get('HTTP_X_FORWARDED_FOR', '').rpartition(',')[2]
  return normalize_address(last.strip()) or peer


def normalize_address(address: str) -> Optional[str]:
  """Returns an IP address in its canonical form, None if it is not valid.

  An IPv4-mapped IPv6 address is returned as an IPv4 address.
  """
  try:
    # Without its zone, which may contain any characters.
    parsed = ipaddress.ip_address(address.partition('%')[0])
  except ValueError:
    return None
  return str(getattr(parsed, 'ipv4_mapped', None) or parsed)


class Tokens:
  """The accepted tokens; a token file is read again when it changes.

  Attributes:
    required: whether a token is required.
  """

  def __init__(self, value: Optional[str]):
    """Reads the tokens.

    Args:
      value: a token; @FILE for a file with one token per line; None: no token
        is required.

    Raises:
      InputError: the file cannot be read, or a token cannot be in a header.
    """
    self.required = value is not None
    self._path = value[1:] if value and value.startswith('@') else None
    self._warner = logs.WarningLimiter()
    self._signature: Optional[Tuple[int, int, int, int]] = None
    self._digests: Tuple[bytes, ...] = ()
    if self._path:
      self._read(self._path)
    elif value is not None:
      self._digests = _digests([value])

  def match(self, authorization: str) -> Optional[bytes]:
    """Returns an identifier of the token in a header; None: it is not valid.

    Args:
      authorization: value of the header Authorization.
    """
    if self._path:
      try:
        self._read(self._path)
      except InputError as error:
        self._warner.warn('%s; the previous tokens stay valid', error)
    kind, _, given = authorization.partition(' ')
    digest = _digest(given.strip())
    # The comparison takes the same time for any token, valid or not.
    same = [hmac.compare_digest(digest, other) for other in self._digests]
    return digest if any(same) and kind.lower() == 'bearer' else None

  def _read(self, path: str) -> None:
    try:
      status = os.stat(path)
      # A change of owner or mode also changes st_ctime_ns.
      signature = (status.st_dev, status.st_ino, status.st_size,
                   status.st_ctime_ns)
      if signature == self._signature:
        return
      with open(path, encoding='utf-8', errors='replace') as file:
        lines = [line.strip() for line in file]
    except OSError as error:
      raise InputError('--api_token: cannot read %r: %s' %
                       (path, error.strerror))
    self._digests = _digests([line for line in lines if line])
    self._signature = signature


def _digests(tokens):
  """Returns digests of tokens, after checking that each can be in a header."""
  for token in tokens or ['']:
    if not token or not all('!' <= letter <= '~' for letter in token):
      raise InputError('--api_token must be one or more printable ASCII '
                       'letters without spaces; in a file, one token per line')
  return tuple(map(_digest, tokens))


def _digest(token):
  return hashlib.sha256(token.encode('utf-8', 'replace')).digest()


class RateLimit:
  """Limits the photos of each client; safe to use from several threads.

  The limit is an average over one minute: a client that has been inactive for a
  minute may send all photos of that minute at once.
  """

  def __init__(self, photos_per_minute: int,
               clock: Callable[[], float] = time.monotonic):
    self._max_photos = photos_per_minute
    self._clock = clock
    self._lock = threading.Lock()
    # Photos that a client may still send, and the time of that count. Oldest
    # first.
    self._clients: collections.OrderedDict = collections.OrderedDict()

  def take(self, client: Union[bytes, str], photos: int) -> None:
    """Counts photos of a client.

    Args:
      client: a token's digest, or an address as text.
      photos: their number; negative: they are given back. A request with more
        photos than one minute allows is accepted after an inactive minute, and
        is counted in full.

    Raises:
      Refused: too_many_requests; these photos are not counted.
    """
    client, now = _network(client), self._clock()
    with self._lock:
      room, since = self._clients.pop(client, (self._max_photos, now))
      room = min(self._max_photos, room + (now - since) * self._max_photos / 60)
      lacking = min(photos, self._max_photos) - room
      is_allowed = lacking < 1e-6
      self._clients[client] = room - photos * is_allowed, now
      if len(self._clients) > _MOST_CLIENTS:
        self._clients.popitem(last=False)
    if not is_allowed:
      seconds = math.ceil(lacking * 60 / self._max_photos)
      raise Refused('too_many_requests', {'Retry-After': str(seconds)},
                    most=self._max_photos, seconds=seconds)


def _network(client: Union[bytes, str]) -> Union[bytes, str]:
  try:
    if ipaddress.ip_address(client).version == 6:
      return str(ipaddress.ip_network((client, _IPV6_BITS), strict=False))
  except ValueError:
    pass  # A token's digest, or the path of a Unix socket.
  return client
