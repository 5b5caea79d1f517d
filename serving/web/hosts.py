"""Refuses requests for a host name that is not this server's.

A page can make its own name resolve to another address after a browser has
loaded it (DNS rebinding). The browser then treats a server on 127.0.0.1, or in
the visitor's network, as the page's own server, and lets the page read its
responses. These requests still have the page's name as Host, never an address
or localhost.
"""

import ipaddress
import re
from typing import Sequence

import flask

from serving.web import refusals
from serving.web.refusals import Refused

ANY = '*'

_NAME = re.compile(r'\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*', re.ASCII)
_HOST = re.compile(r'(\[[^\]]*\]|[^:]*)(:[0-9]*)?')


def is_name(text: str) -> bool:
  """Whether it is valid in the list of `check`: `a.example` or `.a.example`."""
  return text == ANY or bool(_NAME.fullmatch(text))


def check(names: Sequence[str]) -> None:
  """Refuses the current request if its Host is not allowed.

  IP addresses and localhost are always allowed, and so are requests without a
  Host header, which no browser sends. The port is ignored.

  Args:
    names: list of names in lower case; `.a.example` allows a.example and all
      names below it, and ANY allows all names.

  Raises:
    Refused: wrong_host.
  """
  host = flask.request.headers.get('Host')
  if host and ANY not in names and not _is_allowed(host, names):
    raise Refused('wrong_host', name=refusals.printable(host))


def _is_allowed(host, names):
  match = _HOST.fullmatch(host.strip())
  if not match:
    return False
  name = match.group(1).lower().rstrip('.')
  try:
    ipaddress.ip_address(name.strip('[]'))
    return True
  except ValueError:
    return name == 'localhost' or any(
        name == allowed or allowed.startswith('.') and
        ('.' + name).endswith(allowed) for allowed in names)
