"""Tests of shutdown.py: which connections are answered, which are closed."""

import contextlib
import errno
import http.client
import os
import resource
import socket
import subprocess
import sys
import threading
import time

import pytest

from common.errors import InputError
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from serving.model.deadlines import ClientDisconnected, TimedOut
from serving.web import app_state, http_channel, listening
from serving.web.app import create_app
from serving.web.request_parser import Request

# A request that _Echo answers with its body.
REQUEST = b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na'


class _Echo:
  """A WSGI application that returns the body of the request.

  Attributes:
    received: threading.Semaphore, released when a request has been read.
    go: threading.Event that all responses wait for.
  """

  def __init__(self, go):
    self.received = threading.Semaphore(0)
    self.go = threading.Event()
    if go:
      self.go.set()

  def __call__(self, environ, start_response):
    body = environ['wsgi.input'].read()
    self.received.release()
    assert self.go.wait(20)
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]


def _post(address, number, responses):
  connection = http.client.HTTPConnection(*address, timeout=30)
  connection.request('POST', '/', str(number))
  responses[number] = connection.getresponse().read().decode()


def _post_from_clients(address, count):
  """Starts threads that post; returns them and the dict of their responses."""
  responses = {}
  clients = [threading.Thread(target=_post, args=(address, number, responses))
             for number in range(count)]
  for thread in clients:
    thread.start()
  return clients, responses


def test_stop_answers_requests_that_wait_for_a_thread():
  application = _Echo(go=False)
  server = load_kit.ServerThread(application, 20)
  clients, responses = _post_from_clients(server.address, 10)
  for _ in range(2):  # There are two threads; eight requests wait for them.
    assert application.received.acquire(timeout=20)
  time.sleep(0.3)
  server.stop()
  time.sleep(0.3)
  application.go.set()
  for thread in clients:
    thread.join(30)
  assert server.join() == [0]
  assert responses == {number: str(number) for number in range(10)}


@pytest.mark.parametrize('prefix', ['', '/below'])
def test_probe_is_answered_while_all_threads_are_busy(prefix):
  application = _Echo(go=False)

  def with_probe(environ, start_response):
    if environ['PATH_INFO'] != '/healthz':
      return application(environ, start_response)
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']

  server = load_kit.ServerThread(with_probe, 20, prefix)
  clients, responses = _post_from_clients(server.address, 3)
  for _ in range(2):  # There are two threads.
    assert application.received.acquire(timeout=20)
  probe = http.client.HTTPConnection(*server.address, timeout=10)
  probe.request('GET', prefix + '/healthz')
  assert probe.getresponse().read() == b'ok'
  probe.close()
  application.go.set()
  for thread in clients:
    thread.join(30)
  assert len(responses) == 3
  server.stop()
  assert server.join() == [0]


@pytest.mark.parametrize('kind', [b'Content-Length: 9000000',
                                  b'Transfer-Encoding: chunked'])
def test_interrupted_upload_is_freed_immediately(kind, monkeypatch):
  buffers = []
  close = Request.close
  monkeypatch.setattr(Request, 'close', lambda request: (
      buffers.append(request.body_rcv.getbuf()), close(request)))
  server = load_kit.ServerThread(_Echo(go=True))
  client = socket.create_connection(server.address)
  client.sendall(b'POST / HTTP/1.1\r\nHost: a\r\n' + kind + b'\r\n\r\n' +
                 b'100000\r\n' + b'x' * 10 ** 6)
  load_kit.wait_until(lambda: server.server.bytes_held() > 9 * 10 ** 5)
  client.close()
  load_kit.wait_until(lambda: buffers and buffers[0].buf.file.closed)
  server.stop()
  assert server.join() == [0]


@pytest.mark.parametrize('disconnects, secs, error', [
    (True, 60, ClientDisconnected), (False, 0.2, TimedOut)])
def test_deadline_raises_if_the_client_disconnects_or_time_is_up(
    monkeypatch, disconnects, secs, error):
  monkeypatch.setattr('serving.model.deadlines._CHECK_SECS', 0.02)
  started, ended, errors = threading.Event(), threading.Event(), []

  def application(environ, start_response):
    try:
      environ['serving.deadline'].wait(
          lambda seconds: started.set() or ended.wait(seconds))
    except (ClientDisconnected, TimedOut) as raised:
      errors.append(type(raised))
    ended.set()
    start_response('200 OK', [('Content-Length', '1')])
    return [b'a']

  server = load_kit.ServerThread(application, request_secs=secs)
  client = socket.create_connection(server.address)
  client.sendall(REQUEST)
  assert started.wait(20)
  if disconnects:
    assert not ended.wait(0.1)
    client.close()
  assert ended.wait(20)
  client.close()
  server.stop()
  assert server.join() == [0]
  assert errors == [error]


def test_stop_answers_a_request_on_a_new_connection(monkeypatch):
  monkeypatch.setattr(http_channel, '_FRESH_GRACE_SECS', 15.0)
  server = load_kit.ServerThread(_Echo(go=True))
  client = socket.create_connection(server.address)
  server.stop()
  time.sleep(0.8)
  client.sendall(REQUEST)
  response = http.client.HTTPResponse(client)
  response.begin()
  assert (response.read(), response.getheader('Connection')) == (b'a', 'close')
  assert server.join() == [0]
  client.close()


def test_slow_upload_is_closed_but_not_an_old_connection(monkeypatch):
  monkeypatch.setattr(http_channel, '_SLOWEST_SECS', 1.0)
  server = load_kit.ServerThread(_Echo(go=True))
  slow = socket.create_connection(server.address)
  slow.sendall(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n')
  start = time.monotonic()
  with pytest.raises(OSError):
    while time.monotonic() < start + 10:
      slow.sendall(b'a')
      time.sleep(0.1)
  assert time.monotonic() - start > 0.9
  slow.close()
  # Many short requests on one old connection are not a slow upload.
  connection = http.client.HTTPConnection(*server.address)
  while time.monotonic() < start + 4:
    connection.request('POST', '/', 'a')
    assert connection.getresponse().read() == b'a'
    time.sleep(0.1)
  connection.close()
  server.stop()
  assert server.join() == [0]


def test_total_size_of_uploads_is_limited(tmp_path, monkeypatch):
  monkeypatch.setattr(listening, '_UPLOADS_BYTES', 2 ** 20)
  monkeypatch.setattr(listening, 'body_bytes', lambda megabytes: 2 * 2 ** 20)
  load_kit.export(tmp_path, 'a')
  service = load_kit.make_service(tmp_path / 'a.pb')
  app = create_app(service, {'MAX_UPLOAD_MB': 1})
  server = load_kit.ServerThread(app, 5)
  bytes_held = server.server.bytes_held
  head = (b'POST /api/classify HTTP/1.1\r\nHost: a\r\n'
          b'Content-Length: 2000000\r\n\r\n')
  clients = [socket.create_connection(server.address) for _ in range(3)]
  # The limit is twice the largest request. The third upload exceeds it, and the
  # largest of those in progress is discarded, here the second.
  for client, size in zip(clients, (1800000, 1900000)):
    client.sendall(head + bytes(size))
  load_kit.wait_until(lambda: bytes_held() == 3700000)
  clients[2].sendall(head + bytes(2 ** 20))
  load_kit.wait_until(lambda: bytes_held() < 3700000)
  assert bytes_held() <= 1800000 + 2 ** 20
  # It is answered when it has sent everything.
  clients[1].sendall(bytes(100000))
  clients[1].settimeout(20)
  response = b''.join(iter(lambda: clients[1].recv(10000), b''))
  assert response.startswith(b'HTTP/1.1 503 ')
  assert b'\r\nRetry-After: ' in response
  assert b'"code": "busy"' in response and b'nosniff' in response
  assert ('classifier_refusals_total{reason="busy",status="503"} 1\n' in
          app_state.of_app(app).metrics.render({}, {}))
  # The others are not affected, and a closed connection makes room.
  clients[2].close()
  clients[0].sendall(bytes(200000))
  clients[0].settimeout(20)
  assert clients[0].recv(100).startswith(b'HTTP/1.1 413 ')
  assert load_kit.upload(server.address[1], kit.make_photo(0))[0] == 200
  server.stop()
  assert len(server.join()) == 1
  for client in clients:
    client.close()
  assert service.close(20)


def test_total_size_of_small_uploads_is_limited(monkeypatch):
  monkeypatch.setattr(listening, '_UPLOADS_BYTES', 2 ** 20)
  monkeypatch.setattr(listening, 'body_bytes', lambda megabytes: 2 ** 20)
  server = load_kit.ServerThread(_Echo(go=True))
  clients = [socket.create_connection(server.address) for _ in range(5)]
  for client in clients:
    client.sendall(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 690000'
                   b'\r\n\r\n' + bytes(600000))
  bytes_held = server.server.bytes_held
  # Three fit; the others are refused, and their bytes are discarded.
  load_kit.wait_until(lambda: bytes_held() == 1800000)
  responses = []
  for client in clients:
    client.sendall(bytes(90000))
    client.settimeout(20)
    responses.append(client.recv(12))
    client.close()
  assert sorted(responses) == 3 * [b'HTTP/1.1 200'] + 2 * [b'HTTP/1.1 503']
  server.stop()
  assert server.join() == [0]


def _assert_answered(address):
  connection = http.client.HTTPConnection(*address, timeout=20)
  connection.request('POST', '/', 'a')
  assert connection.getresponse().read() == b'a'
  connection.close()


@pytest.mark.parametrize('data', [
    b'', b'P', REQUEST[:-5] + b'999\r\n\r\na'], ids=['idle', 'headers', 'body'])
def test_idle_connections_are_closed_if_others_wait(monkeypatch, data):
  monkeypatch.setattr(listening, '_MORE_CONNECTIONS', 10)
  monkeypatch.setattr(http_channel, '_NEW_SECS', 0.1)
  monkeypatch.setattr(http_channel, '_SLOW_SECS', 0.0)
  monkeypatch.setattr(http_channel, '_SLOW_RATE', float('inf'))
  application = _Echo(go=True)
  server = load_kit.ServerThread(application)
  application.go.clear()
  busy = socket.create_connection(server.address)
  busy.sendall(REQUEST)
  assert application.received.acquire(timeout=20)
  application.go.set()
  idle = []
  for _ in range(40):
    idle.append(socket.create_connection(server.address))
    with contextlib.suppress(OSError):  # Closed already.
      idle[-1].sendall(data)
  _assert_answered(server.address)
  busy.settimeout(20)
  assert busy.recv(12) == b'HTTP/1.1 200'
  for client in idle + [busy]:
    client.close()
  server.stop()
  assert server.join() == [0]


# Opens as many connections as its third argument, until its input ends.
_CLIENTS = '''
import resource, socket, sys
host, port, count = sys.argv[1:]
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
clients = [socket.create_connection((host, int(port)), 20)
           for _ in range(int(count))]
print(len(clients), flush=True)
sys.stdin.read()
'''


def test_low_limit_on_open_files_limits_the_connections(caplog, request):
  limits_before = resource.getrlimit(resource.RLIMIT_NOFILE)
  request.addfinalizer(
      lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits_before))
  limit = max(map(int, os.listdir('/dev/fd'))) + 64
  resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits_before[1]))
  server = load_kit.ServerThread(_Echo(go=True))
  assert 'the limit on open files (ulimit -n) is %d' % limit in caplog.text
  with subprocess.Popen(
      [sys.executable, '-c', _CLIENTS, *map(str, server.address[:2]), '200'],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
    assert clients.stdout.readline() == b'200\n'
    _assert_answered(server.address)
    cpu_start = time.process_time()
    time.sleep(1)
    assert time.process_time() - cpu_start < 0.5
    _assert_answered(server.address)
    clients.stdin.close()
  server.stop()
  assert server.join() == [0]
  assert 'cannot accept' not in caplog.text


def test_limit_on_open_files_too_low_is_an_input_error(monkeypatch):
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (16, 16))
  with pytest.raises(InputError, match=r'\(ulimit -n\) is 16; at least'):
    load_kit.ServerThread(_Echo(go=True))


def test_accept_failures_are_logged_once_and_do_not_spin(monkeypatch, caplog):
  accept, calls = socket.socket.accept, []

  def fail(listener):
    calls.append(time.monotonic())
    if len(calls) > 3:
      return accept(listener)
    raise OSError(errno.EMFILE, 'Too many open files')

  server = load_kit.ServerThread(_Echo(go=True))
  monkeypatch.setattr(socket.socket, 'accept', fail)
  _assert_answered(server.address)
  server.stop()
  assert server.join() == [0]
  assert calls[3] - calls[0] > 3 * 0.2
  assert caplog.text.count('cannot accept a connection (1 times since') == 1
  assert caplog.text.count('Too many open files') == 1


def test_stop_twice_ends_immediately():
  application = _Echo(go=False)
  server = load_kit.ServerThread(application)
  client = socket.create_connection(server.address)
  client.sendall(REQUEST)
  assert application.received.acquire(timeout=20)
  server.stop()
  time.sleep(0.5)
  assert server.statuses == []
  server.stop()
  assert server.join() == [1]
  application.go.set()
  client.close()


def test_idle_connection_does_not_delay_the_end():
  server = load_kit.ServerThread(_Echo(go=True))
  connection = http.client.HTTPConnection(*server.address)
  connection.request('POST', '/', 'a')
  assert connection.getresponse().read() == b'a'
  time.sleep(0.2)
  start = time.monotonic()
  server.stop()
  assert server.join() == [0]
  assert time.monotonic() - start < 5
  connection.close()
