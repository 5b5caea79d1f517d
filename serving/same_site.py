"""Refuses photos that a page of another site has a visitor's browser send.

Otherwise any page on the web could use a browser to reach a server inside its
visitor's network. Programs are not concerned: they send no Origin.

In this order, what a browser tells of a request decides:

1. Sec-Fetch-Site, which a page cannot set. Browsers send it over https and to
   localhost only.
2. Origin: it must have the name and port of the Host header. A proxy may have
   removed the port from Host (nginx: `$host`).
3. A cookie that the page has set. SameSite=Strict keeps it out of all requests
   of other sites. It is for proxies that send a Host of their own (nginx's
   default), or a Referrer-Policy with which browsers send `Origin: null`. Over
   https nobody gets it, because there the first rule decides.
"""

import urllib.parse

import flask

from compat import tf
from serving.refusals import Refused

_COOKIE = 'own_page'
_DEFAULT_PORTS = {'http': 80, 'https': 443}


def check():
  """Refuses the present request where a page of another site has caused it.

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


def mark(page):
  """Sets the cookie with a page that has the form, where `check` may need it.

  Args:
    page: flask.Response.
  """
  if 'Sec-Fetch-Site' not in flask.request.headers:
    # Without a path of its own it belongs to the folder that the browser sees,
    # whatever a proxy removes from the path.
    page.set_cookie(_COOKIE, '1', path=None, httponly=True, samesite='Strict')


def _matches(origin, host):
  """Whether a page of `origin` addresses its own server with this Host."""
  try:
    page, server = (urllib.parse.urlsplit(address)
                    for address in (origin, '//' + host))
    page_port = page.port or _DEFAULT_PORTS.get(page.scheme)
    return (page.hostname is not None and page.hostname == server.hostname and
            server.port in (None, page_port))
  except ValueError:  # No address at all.
    return False
