"""Refuses photos that a page of another site makes a visitor's browser send.

Otherwise any page on the web could use a browser to reach a server inside its
visitor's network. Programs are not affected: they send no Origin.

What the browser sends is checked in this order:

1. Sec-Fetch-Site, which a page cannot set. Browsers send it over https and to
   localhost only.
2. Origin: it must have the name and port of the Host header. A proxy may have
   removed the port from Host (nginx: `$host`).
3. A cookie that the page has set. SameSite=Strict keeps it out of all requests
   from other sites. It is for proxies that replace Host (nginx's default), or
   that set a Referrer-Policy with which browsers send `Origin: null`. It is not
   set over https, because there the first rule decides.
"""

import urllib.parse

import flask

from compat import tf
from serving.web.refusals import Refused

_COOKIE = 'own_page'
_DEFAULT_PORTS = {'http': 80, 'https': 443}


def check() -> None:
  """Refuses the current request if a page of another site has caused it.

  Raises:
    Refused: cross_site.
  """
  headers = flask.request.headers
  site, origin = headers.get('Sec-Fetch-Site'), headers.get('Origin')
  if site is not None:
    is_own = site in ('same-origin', 'none')
  else:
    is_own = (origin is None or _matches(origin, headers.get('Host', '')) or
              _COOKIE in flask.request.cookies)
  if not is_own:
    tf.logging.debug('another site: Sec-Fetch-Site %r, Origin %r, Host %r',
                     site, origin, headers.get('Host'))
    raise Refused('cross_site')


def set_cookie(response: flask.Response) -> None:
  """Sets the cookie on a page with the form, if `check` may need it."""
  if 'Sec-Fetch-Site' not in flask.request.headers:
    # Without an explicit path the cookie belongs to the folder that the browser
    # sees, whatever prefix a proxy removes.
    response.set_cookie(_COOKIE, '1', path=None, httponly=True,
                        samesite='Strict')


def _matches(origin, host):
  """Whether a page of `origin` addresses its own server with this Host."""
  try:
    page, server = (urllib.parse.urlsplit(address)
                    for address in (origin, '//' + host))
    page_port = page.port or _DEFAULT_PORTS.get(page.scheme)
    return (page.hostname is not None and page.hostname == server.hostname and
            server.port in (None, page_port))
  except ValueError:  # Not a valid address.
    return False
