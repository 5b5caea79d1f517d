"""Who sends a request, and how many photos each client may send.

A client is a token, or an address where there is none.
"""

import collections
import hashlib
import hmac
import ipaddress
import math
import os
import threading
import time

from errors import InputError
from serving import logs
from serving.refusals import Refused

# Clients whose last photos are remembered; of more, those that have been silent
# for longest are forgotten.
_MOST_CLIENTS = 10000

# Of an IPv6 address the part that a provider gives to one customer.
_IPV6_BITS = 64


def address_of(environ, trusted_proxy=None):
  """Returns the address from which a request comes, as text.

  Args:
    environ: WSGI environment.
    trusted_proxy: address of the proxy in front, in the form that `normal`
      returns. Of a request from there, the last address of X-Forwarded-For
      counts, which the proxy has added. None: the header is ignored.
  """
  peer = environ.get('REMOTE_ADDR', '')
  peer = normal(peer) or peer
  if peer != trusted_proxy:
    return peer
  last = environ.get('HTTP_X_FORWARDED_FOR', '').rpartition(',')[2]
  return normal(last.strip()) or peer


def normal(address):
  """Returns an IP address in its usual form, None where it is none.

  An IPv4 address that is written as an IPv6 one becomes an IPv4 one.
  """
  try:
    # Without its zone, in which any letters may be.
    found = ipaddress.ip_address(address.partition('%')[0])
  except ValueError:
    return None
  return str(getattr(found, 'ipv4_mapped', None) or found)


class Tokens:
  """The accepted tokens; those of a file are read again when it changes."""

  def __init__(self, value):
    """Reads the tokens.

    Args:
      value: a token; @FILE for a file with one token per line; None: nothing is
        asked for.

    Raises:
      InputError: the file cannot be read, or a token cannot be in a header.
    """
    self.wanted = value is not None
    self._path = value[1:] if self.wanted and value.startswith('@') else None
    self._warner = logs.Warner()
    self._signature = None
    self._digests = () if self._path or not self.wanted else _digests([value])
    if self._path:
      self._read()

  def find(self, authorization):
    """Returns what tells the token in a header from others; None: it is wrong.

    Args:
      authorization: value of the header Authorization.
    """
    if self._path:
      try:
        self._read()
      except InputError as error:
        self._warner.warn('%s; the former tokens stay', error)
    kind, _, given = authorization.partition(' ')
    digest = _digest(given.strip())
    # Compared in the same time, whichever it is and whatever is wrong with it.
    same = [hmac.compare_digest(digest, other) for other in self._digests]
    return digest if any(same) and kind.lower() == 'bearer' else None

  def _read(self):
    try:
      found = os.stat(self._path)
      # Also another owner or mode changes st_ctime_ns.
      signature = found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns
      if signature == self._signature:
        return
      with open(self._path, encoding='utf-8', errors='replace') as file:
        lines = [line.strip() for line in file]
    except OSError as error:
      raise InputError('--api_token: cannot read %r: %s' %
                       (self._path, error.strerror))
    self._digests = _digests([line for line in lines if line])
    self._signature = signature


def _digests(tokens):
  """Returns digests of tokens, after a check that each can be in a header."""
  for token in tokens or ['']:
    if not token or not all('!' <= letter <= '~' for letter in token):
      raise InputError('--api_token must be one or more printable ASCII '
                       'letters without spaces; in a file, one token per line')
  return tuple(map(_digest, tokens))


def _digest(token):
  return hashlib.sha256(token.encode('utf-8', 'replace')).digest()


class RateLimit:
  """How many photos each client may send; safe to use from several threads.

  On average of a minute: a client that has been silent for one may send that
  minute's photos at once.
  """

  def __init__(self, photos_per_minute, clock=time.monotonic):
    self._most = photos_per_minute
    self._clock = clock
    self._lock = threading.Lock()
    # Photos that a client may send, and when that was so. Oldest first.
    self._clients = collections.OrderedDict()

  def take(self, client, photos):
    """Counts photos of a client.

    Args:
      client: a token's digest, or an address as text.
      photos: how many; negative: they are given back. A request of more than
        a minute's photos is accepted after a silent minute, and counts in full.

    Raises:
      Refused: too_many_requests, and these photos do not count.
    """
    client, now = _network(client), self._clock()
    with self._lock:
      room, since = self._clients.pop(client, (self._most, now))
      room = min(self._most, room + (now - since) * self._most / 60)
      lacking = min(photos, self._most) - room
      is_allowed = lacking < 1e-6
      self._clients[client] = room - photos * is_allowed, now
      if len(self._clients) > _MOST_CLIENTS:
        self._clients.popitem(last=False)
    if not is_allowed:
      seconds = math.ceil(lacking * 60 / self._most)
      raise Refused('too_many_requests', {'Retry-After': str(seconds)},
                    most=self._most, seconds=seconds)


def _network(client):
  try:
    if ipaddress.ip_address(client).version == 6:
      return str(ipaddress.ip_network((client, _IPV6_BITS), strict=False))
  except ValueError:
    pass  # A token's digest, or a socket's path.
  return client
