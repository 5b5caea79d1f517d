"""Tests of serving/web/app.py: hostile request headers.

The application is called directly, with headers as waitress passes them.
"""

import io
import itertools
import json
import random
import sys

from kits import service_kit as kit
from serving.web.app import create_app

# Headers that the code, Flask or Werkzeug reads; the test fails for others.
HEADERS = (
    'HTTP_ACCEPT', 'HTTP_ACCEPT_LANGUAGE', 'HTTP_AUTHORIZATION',
    'HTTP_CONNECTION', 'HTTP_CONTENT_ENCODING', 'HTTP_COOKIE', 'HTTP_HOST',
    'HTTP_IF_MATCH', 'HTTP_IF_MODIFIED_SINCE', 'HTTP_IF_NONE_MATCH',
    'HTTP_IF_RANGE', 'HTTP_IF_UNMODIFIED_SINCE', 'HTTP_ORIGIN', 'HTTP_RANGE',
    'HTTP_SEC_FETCH_SITE', 'HTTP_TRACEPARENT', 'HTTP_TRANSFER_ENCODING',
    'HTTP_X_FORWARDED_FOR', 'HTTP_X_REQUEST_ID', 'CONTENT_TYPE',
    'CONTENT_LENGTH')

_FORM = 'multipart/form-data; boundary'
VALUES = (
    '', ' ', '"', ':', '%', '*', '-1', 'null', '\xff\x00', '\x85', 'a' * 9000,
    '9' * 400, '9' * 5000, ',' * 5000, '"' * 5000, '(' * 5000, 'a;' * 3000,
    '=;=', 'a=b;c="', 'a;b*0=x;b*1*=y', "a;b*=''%", ';;q=x,*;q=-1',
    'a/b;q=1e999', 'a/b;q=nan', 'text/html;level=', 'en-' + 'x-' * 3000,
    'http://[::1', 'http://[', '[', '[::1', '[::1]:99999', '//[', 'a:b:c',
    'http://[v1.x]', 'http://a:99999999', 'http://a:\xd9\xa3',
    'http://\xe2\x84\x80', 'http://[::1]x', 'Basic \xff', 'Basic ====',
    'Bearer', 'Digest a="', 'W/"', 'bytes=9-1', 'bytes=-', '=?utf-8?b?\xff?=',
    'Sun, 01 Jan 999999999999 00:00:00 GMT', 'Sun, 99 Jan 2000 00:00:00 +9999',
    _FORM + '=\xe4', _FORM + "*=no''%ff", _FORM + "*=utf-16''%ff%fe",
    _FORM + '=' + 'x' * 9000, 'text/html; charset=no-such')

# Together, these routes read all HEADERS.
ROUTES = (('GET', '/'), ('POST', '/'), ('GET', '/static/page.js'),
          ('POST', '/api/classify'))


class _Environ(dict):
  """A WSGI environment that adds the keys that are read to a set."""

  def __init__(self, read_keys, values):
    super().__init__(values)
    self._read_keys = read_keys

  def __getitem__(self, key):
    self._read_keys.add(key)
    return super().__getitem__(key)

  def __contains__(self, key):
    self._read_keys.add(key)
    return super().__contains__(key)

  def get(self, key, default=None):
    self._read_keys.add(key)
    return super().get(key, default)


def _respond(app, environ):
  """Returns the status and the headers of a response."""
  starts = []
  body = app(environ, lambda *start: starts.append(start[:2]))
  b''.join(body)
  body.close()
  return starts[-1]


def test_hostile_headers_never_cause_a_5xx(caplog, capsys):
  draw, read_keys = random.Random(17), set()
  apps = [create_app(kit.FakeService(), config) for config in (
      {}, {'API_TOKEN': 'b', 'RATE_LIMIT': 1, 'ACCESS_LOG': 'json',
           'TRUSTED_PROXY': '10.0.0.1'})]
  pairs = list(itertools.product(HEADERS, VALUES))
  draw.shuffle(pairs)
  # Random groups of three pairs. Each value of Origin is also sent with a Host,
  # because the two are compared.
  requests = [dict(pairs[start:start + 3]) for start in range(0, len(pairs), 3)]
  requests += [{'HTTP_ORIGIN': value, 'HTTP_HOST': draw.choice(VALUES)}
               for value in VALUES]
  for headers, (method, path) in itertools.product(requests, ROUTES):
    environ = _Environ(read_keys, {
        'REQUEST_METHOD': method, 'SCRIPT_NAME': '', 'PATH_INFO': path,
        'QUERY_STRING': '', 'SERVER_NAME': 'a', 'SERVER_PORT': '1',
        'SERVER_PROTOCOL': 'HTTP/1.1', 'HTTP_HOST': 'a',
        'REMOTE_ADDR': '10.0.0.1',
        'wsgi.version': (1, 0), 'wsgi.url_scheme': 'http',
        'wsgi.input': io.BytesIO(), 'wsgi.errors': sys.stderr,
        'wsgi.input_terminated': True})
    environ.update(headers)
    status, response_headers = _respond(draw.choice(apps), environ)
    assert status[0] in '234', (status, path, headers)
    for _, value in response_headers:
      assert not set('\r\n') & set(value)
      value.encode('latin-1')
  assert 'Traceback' not in caplog.text
  lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
  assert len(lines) > len(requests)
  read_headers = {key for key in read_keys
                  if key.startswith(('HTTP_', 'CONTENT_'))}
  assert read_headers <= set(HEADERS), read_headers - set(HEADERS)
