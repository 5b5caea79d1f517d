"""Tests of server.py: invalid requests over a socket."""

import json
import re
import socket

import pytest

from kits import graph_kit
from kits import server_load_kit as load_kit
from kits import service_kit as kit

FORM = (b'POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n'
        b'Content-Type: multipart/form-data; %s\r\nContent-Length: 4\r\n\r\n'
        b'abcd')
SECURITY_HEADERS = (
    b'Content-Security-Policy: default-src', b'X-Frame-Options: DENY',
    b'X-Content-Type-Options: nosniff')


@pytest.fixture(scope='module')
def process(tmp_path_factory):
  graph = graph_kit.write(tmp_path_factory.mktemp('graph'))
  with load_kit.ServerProcess('--model_name=%s' % graph,
                              '--allowed_hosts=a') as server:
    server.wait_until_listening()
    yield server
    assert not [line for line in server.lines if 'Traceback' in line]


@pytest.fixture(scope='module')
def port(process):
  return process.port


def exchange(port, data):
  """Sends bytes; returns the status, the head and the body of the response."""
  with socket.create_connection(('127.0.0.1', port), 30) as client:
    client.sendall(data)
    response = b''.join(iter(lambda: client.recv(65536), b''))
  head, _, body = response.partition(b'\r\n\r\n')
  return int(head.split(b' ', 2)[1]), head, body


def get_request(path, *headers):
  """Returns the bytes of a GET request."""
  lines = [b'GET %s HTTP/1.1' % path, b'Connection: close', *headers]
  if not any(line.startswith(b'Host:') for line in headers):
    lines.append(b'Host: a')
  return b'\r\n'.join(lines) + b'\r\n\r\n'


@pytest.mark.parametrize('header', [
    b'X-Forwarded-For: 1.2.3.4', b'X-Forwarded-Host: evil.example',
    b'X-Forwarded-Proto: https', b'X-Forwarded-Prefix: /evil',
    b'X-Script-Name: /evil', b'X-Forwarded-Port: 9', b'X-Original-URL: /a',
    b'X-Rewrite-URL: /a', b'X-HTTP-Method-Override: DELETE',
    b'Forwarded: for=1.2.3.4;host=evil.example;proto=https'], ids=kit.short_id)
def test_proxy_header_of_an_untrusted_client_is_ignored(port, header):
  status, _, page = exchange(port, get_request(b'/'))
  assert exchange(port, get_request(b'/', header))[::2] == (status, page)
  # It does not disguise another host or another site either.
  header_for_a = header.replace(b'evil.example', b'a')
  request = get_request(b'/', b'Host: evil.example', header_for_a)
  assert exchange(port, request)[0] == 421
  origin = b'Origin: http://evil.example\r\n' + header + b'\r\nConnection: '
  form = FORM % (b'/', b'boundary=a')
  assert exchange(port, form.replace(b'Connection: ', origin))[0] == 403


@pytest.mark.parametrize('path', [b'/', b'/static/page.js', b'/api/model',
                                  b'/api/openapi.json', b'/nothing'])
@pytest.mark.parametrize('header', [
    b'Host: a..b', b'Host: ' + b'x' * 70, b'Host: [', b'Host: a:b:c',
    b'Host: \xe4', b'Host:', b'Range: bytes=0-1\r\nIf-Range: Sun, 01 Jan '
    b'999999999999 00:00:00 GMT', b'Range: bytes=9-1', b'If-None-Match: "',
    b'If-Modified-Since: Sun, 01 Jan 999999999999 00:00:00 GMT',
    b'Accept-Language: ;;q=x,*;q=-1', b'Accept: \xff', b'Cookie: a=\xff;=;',
    b'Authorization: Basic \xff', b'Origin: http://[', b'Expect: x',
    b'Forwarded: for=\xff', b'X-Forwarded-Host: <b>'], ids=kit.short_id)
def test_get_with_an_invalid_header_is_never_a_5xx(port, path, header):
  status, head, body = exchange(port, get_request(path, header))
  assert status < 500, (status, body)
  assert b'waitress' not in head + body and b'<b>' not in body
  for line in SECURITY_HEADERS:
    assert line in head


@pytest.mark.parametrize('data, status', [
    (FORM % (b'/api/classify', b"boundary*=utf-8''%ff"), 400),
    (FORM % (b'/api/classify', b"boundary*=foo''%ff"), 400),
    (FORM % (b'/api//classify', b'boundary=x'), 404),
    (b'GET http://[x HTTP/1.1\r\n\r\n', 400),
    (b'POST /api/classify HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n',
     400),
    (b'POST /api/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n'
     b'\r\n', 400),
    (b'POST /api/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n'
     b'\r\nzz\r\n', 400),
    (b'POST /api/classify HTTP/1.1\r\nHost: a\r\nOrigin: http://evil.example'
     b'\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd', 403),
    (b'POST /api/classify HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: cross-site'
     b'\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd', 403),
    (b'POST /api/classify HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n'
     b'Connection: close\r\nContent-Length: 4\r\n\r\nabcd', 415),
], ids=kit.short_id)
def test_invalid_request_is_refused_in_json_with_security_headers(
    port, data, status):
  response_status, head, body = exchange(port, data)
  assert response_status == status, body
  error = json.loads(body.decode())['error']
  assert re.fullmatch('[a-z_]+', error['code']) and error['message']
  for line in SECURITY_HEADERS:
    assert line in head


@pytest.mark.parametrize('chunked', [False, True])
def test_upload_far_too_large_gets_a_413(port, chunked):
  size, piece = 50 * 2 ** 20, bytes(2 ** 20)
  with socket.create_connection(('127.0.0.1', port), 60) as client:
    client.sendall(b'POST /api/classify HTTP/1.1\r\nHost: a\r\n'
                   b'Connection: close\r\n')
    client.sendall(b'Transfer-Encoding: chunked\r\n\r\n' if chunked else
                   b'Content-Length: %d\r\n\r\n' % size)
    for _ in range(size // len(piece)):
      client.sendall(b'%x\r\n%s\r\n' % (len(piece), piece) if chunked
                     else piece)
    if chunked:
      client.sendall(b'0\r\n\r\n')
    response = b''.join(iter(lambda: client.recv(65536), b''))
  assert response.startswith(b'HTTP/1.1 413 ')
  assert b'"code": "request_too_large"' in response.replace(b'":"', b'": "')
  assert b'32 MB' in response


def test_warning_of_libjpeg_is_logged_as_native_code(process):
  photo = kit.photo(size=(64, 64))
  before, after = photo.split(b'\xff\xc4', 1)  # A table of Huffman codes.
  photo = before + bytes(range(1, 99)) + b'\xff\xc4' + after
  assert load_kit.upload(process.port, photo)[0] == 200
  load_kit.wait_until(lambda: any('Corrupt' in line for line in process.lines))
  assert all(line.startswith('native code: Corrupt JPEG data: ')
             for line in process.lines if 'Corrupt' in line)


@pytest.mark.parametrize('host, status', [
    (b'rebound.example', 421), (b'[', 421), (b'a', 200), (b'localhost:80', 200),
    (b'127.0.0.1:5001', 200)], ids=kit.short_id)
def test_host_with_another_name_is_refused(port, host, status):
  response_status, _, body = exchange(
      port, get_request(b'/api/model', b'Host: ' + host))
  assert response_status == status, body
  assert (status == 200) == (b'rose' in body)
