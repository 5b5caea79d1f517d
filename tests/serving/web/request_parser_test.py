"""Tests of request_parser.py: ambiguous or large requests, early refusals."""

import socket

import pytest

from kits import server_load_kit as load_kit
from kits import service_kit as kit
from serving.web.app import create_app

HEAD = b'POST /api/classify HTTP/1.1\r\nHost: a\r\n'
CHUNKED = HEAD + b'Transfer-Encoding: chunked\r\n\r\n'
MANY = 2 ** 17


@pytest.fixture(scope='module')
def address():
  server = load_kit.ServerThread(create_app(kit.FakeService()))
  yield server.address
  server.stop()
  assert server.join() == [0]


@pytest.fixture(scope='module')
def guarded():
  """Address of a server that requires a token."""
  server = load_kit.ServerThread(
      create_app(kit.FakeService(), {'API_TOKEN': 'b'}))
  yield server.address
  server.stop()
  assert server.join() == [0]


def exchange(address, data):
  """Sends bytes; returns what is received until the server closes."""
  with socket.create_connection(address, 15) as client:
    client.sendall(data)
    return b''.join(iter(lambda: client.recv(65536), b''))


def status(response):
  assert response.startswith(b'HTTP/1.'), response[:100]
  return int(response.split(b' ', 2)[1])


@pytest.mark.parametrize('framing', [
    b'1;a="' + b'x' * MANY,
    b'1;' + b'a;' * MANY,
    (b'1;a=' + b'b' * 500 + b'\r\nx\r\n') * 200,
    b'0\r\na: ' + b'x' * MANY,
    b'0\r\n' + b'a: b\r\n' * 20000,
    b'1\r\na\r\n' * 20000,
    b'\r\n' * MANY,
    b'0' * MANY,
], ids=['extension', 'parameters', 'extensions', 'trailer', 'trailers', 'tiny',
        'blank', 'zeros'])
def test_body_mostly_chunk_framing_is_refused_and_closed(address, framing):
  assert status(exchange(address, CHUNKED + framing)) == 400


def test_body_with_some_extensions_and_trailers_is_accepted(address):
  photo = kit.photo()
  chunk = b'%x;a=%s\r\n%s\r\n' % (len(photo), b'b' * 3000, photo)
  end = b'0\r\nc: ' + b'd' * 3000 + b'\r\nConnection: close\r\n\r\n'
  response = exchange(address, HEAD + b'Connection: close\r\n' + CHUNKED[
      len(HEAD):] + chunk + end)
  assert status(response) == 200


@pytest.mark.parametrize('headers, version', [
    (b'Host: a\r\nTransfer-Encoding: chunked, chunked', b'1.1'),
    (b'Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked',
     b'1.1'),
    (b'Host: a\r\nTransfer-Encoding:\r\nContent-Length: 3', b'1.1'),
    (b'Transfer-Encoding: chunked\r\nContent-Length: 3', b'1.0'),
    (b'Host: a\r\nTransfer-Encoding: chunked', b'1.9'),
    (b'Host: a\r\nContent-Length: 3\r\nContent-Length: 4', b'1.1'),
    (b'Host: a\r\nHost: a\r\nContent-Length: 3', b'1.1'),
    (b'Host: a\r\nhost: b\r\nContent-Length: 3', b'1.0'),
    (b'Content-Length: 3', b'1.1'),
], ids=kit.short_id)
def test_request_with_ambiguous_length_or_host_is_refused(address, headers,
                                                          version):
  response = exchange(address, b'POST / HTTP/%s\r\nConnection: keep-alive\r\n'
                      b'%s\r\n\r\nabc' % (version, headers))
  assert status(response) == 400
  assert b'"code": "bad_request"' in response


def test_content_length_and_chunked_coding_together_close_the_connection(
    address):
  request = HEAD + (b'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n'
                    b'4\r\nabcd\r\n0\r\n\r\n')
  response = exchange(address, request + b'GET /healthz HTTP/1.1\r\n'
                      b'Host: a\r\n\r\n')
  assert status(response) == 415
  assert response.count(b'HTTP/1.1 ') == 1
  assert b'\r\nConnection: close\r\n' in response


@pytest.mark.parametrize('digits', [8, 10, 15, 19, 30, 5000])
def test_content_length_too_large_is_answered_without_the_body(address, digits):
  response = exchange(address, HEAD + b'Content-Length: %s\r\n\r\n' %
                      (b'9' * digits))
  assert status(response) == 413


def test_content_length_too_large_accepting_html_returns_html(address):
  response = exchange(address, b'POST / HTTP/1.1\r\nHost: a\r\n'
                      b'Accept: text/html\r\nContent-Length: 99999999\r\n\r\n')
  assert status(response) == 413
  assert b'<html' in response


def test_headers_too_long_are_refused(address):
  response = exchange(address, HEAD + b'a: ' + b'b' * 40000 + b'\r\n\r\n')
  assert status(response) == 431


@pytest.mark.parametrize('expect', [b'', b'Expect: 100-continue\r\n'])
@pytest.mark.parametrize('headers, expected', [
    (b'Content-Length: 999999', 401),
    (b'Authorization: Bearer a\r\nContent-Length: 999999', 401),
    (b'Authorization: Bearer a\r\nTransfer-Encoding: chunked', 401),
    (b'Authorization: Bearer b\r\nContent-Length: 99999999', 413),
])
def test_request_refused_by_its_headers_is_answered_without_the_body(
    guarded, expect, headers, expected):
  response = exchange(guarded, HEAD + expect + headers + b'\r\n\r\n')
  assert status(response) == expected
  assert b'\r\nConnection: close\r\n' in response


def test_early_refusal_reaches_a_client_that_sends_its_body_first(guarded):
  size = 8 * 2 ** 20
  response = exchange(guarded, HEAD + b'Content-Length: %d\r\n\r\n' % size +
                      bytes(size))
  assert status(response) == 401


def test_expect_continue_with_a_valid_token_gets_100(guarded):
  photo = kit.photo()
  with socket.create_connection(guarded, 15) as client:
    client.sendall(HEAD + b'Authorization: Bearer b\r\nConnection: close\r\n'
                   b'Expect: 100-continue\r\nContent-Length: %d\r\n\r\n' %
                   len(photo))
    assert status(client.recv(25)) == 100
    client.sendall(photo)
    assert status(b''.join(iter(lambda: client.recv(65536), b''))) == 200
