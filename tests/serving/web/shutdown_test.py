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

import server as program
from common.errors import InputError
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from serving.model.patience import Gone, TimedOut
from serving.web import shutdown
from serving.web.app import create_app

# A request whose answer is its body.
REQUEST = b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na'


class _Answers:
  """A WSGI application whose answers wait until the test lets them go."""

  def __init__(self, go):
    self.waiting = threading.Semaphore(0)
    self.go = threading.Event()
    if go:
      self.go.set()

  def __call__(self, environ, start_response):
    body = environ['wsgi.input'].read()
    self.waiting.release()
    assert self.go.wait(20)
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]


def _post(address, number, answers):
  connection = http.client.HTTPConnection(*address, timeout=30)
  connection.request('POST', '/', str(number))
  answers[number] = connection.getresponse().read().decode()


def _post_from_clients(address, count):
  """Starts threads that post; returns them and the dict of their answers."""
  answers = {}
  clients = [threading.Thread(target=_post, args=(address, number, answers))
             for number in range(count)]
  for thread in clients:
    thread.start()
  return clients, answers


def test_what_waits_for_a_thread_is_answered():
  application = _Answers(go=False)
  running = load_kit.Running(application, 20)
  clients, answers = _post_from_clients(running.address, 10)
  for _ in range(2):  # There are two threads; eight requests wait for them.
    assert application.waiting.acquire(timeout=20)
  time.sleep(0.3)
  running.stop()
  time.sleep(0.3)
  application.go.set()
  for thread in clients:
    thread.join(30)
  assert running.join() == [0]
  assert answers == {number: str(number) for number in range(10)}


@pytest.mark.parametrize('prefix', ['', '/below'])
def test_probe_is_answered_where_all_threads_wait(prefix):
  application = _Answers(go=False)

  def with_probe(environ, start_response):
    if environ['PATH_INFO'] != '/healthz':
      return application(environ, start_response)
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']

  running = load_kit.Running(with_probe, 20, prefix)
  clients, answers = _post_from_clients(running.address, 3)
  for _ in range(2):  # There are two threads.
    assert application.waiting.acquire(timeout=20)
  probe = http.client.HTTPConnection(*running.address, timeout=10)
  probe.request('GET', prefix + '/healthz')
  assert probe.getresponse().read() == b'ok'
  probe.close()
  application.go.set()
  for thread in clients:
    thread.join(30)
  assert len(answers) == 3
  running.stop()
  assert running.join() == [0]


@pytest.mark.parametrize('kind', [b'Content-Length: 9000000',
                                  b'Transfer-Encoding: chunked'])
def test_upload_that_is_cut_off_is_freed_at_once(kind, monkeypatch):
  buffers = []
  close = shutdown.Request.close
  monkeypatch.setattr(shutdown.Request, 'close', lambda request: (
      buffers.append(request.body_rcv.getbuf()), close(request)))
  running = load_kit.Running(_Answers(go=True))
  client = socket.create_connection(running.address)
  client.sendall(b'POST / HTTP/1.1\r\nHost: a\r\n' + kind + b'\r\n\r\n' +
                 b'100000\r\n' + b'x' * 10 ** 6)
  load_kit.wait_until(lambda: running.server.bytes_held() > 9 * 10 ** 5)
  client.close()
  load_kit.wait_until(lambda: buffers and buffers[0].buf.file.closed)
  running.stop()
  assert running.join() == [0]


@pytest.mark.parametrize('leaves, secs, error', [
    (True, 60, Gone), (False, 0.2, TimedOut)])
def test_application_knows_how_long_the_client_waits(monkeypatch, leaves, secs,
                                                     error):
  monkeypatch.setattr('serving.model.patience._LOOK_SECS', 0.02)
  began, ended, errors = threading.Event(), threading.Event(), []

  def application(environ, start_response):
    try:
      environ['serving.patience'].wait(
          lambda seconds: began.set() or ended.wait(seconds))
    except (Gone, TimedOut) as raised:
      errors.append(type(raised))
    ended.set()
    start_response('200 OK', [('Content-Length', '1')])
    return [b'a']

  running = load_kit.Running(application, request_secs=secs)
  client = socket.create_connection(running.address)
  client.sendall(REQUEST)
  assert began.wait(20)
  if leaves:
    assert not ended.wait(0.1)
    client.close()
  assert ended.wait(20)
  client.close()
  running.stop()
  assert running.join() == [0]
  assert errors == [error]


def test_request_on_a_fresh_connection_is_answered(monkeypatch):
  monkeypatch.setattr(shutdown, '_FRESH_GRACE_SECS', 15.0)
  running = load_kit.Running(_Answers(go=True))
  visitor = socket.create_connection(running.address)
  running.stop()
  time.sleep(0.8)
  visitor.sendall(REQUEST)
  reply = http.client.HTTPResponse(visitor)
  reply.begin()
  assert (reply.read(), reply.getheader('Connection')) == (b'a', 'close')
  assert running.join() == [0]
  visitor.close()


def test_upload_byte_by_byte_is_closed(monkeypatch):
  monkeypatch.setattr(shutdown, '_SLOWEST_SECS', 1.0)
  running = load_kit.Running(_Answers(go=True))
  slow = socket.create_connection(running.address)
  slow.sendall(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n')
  start = time.monotonic()
  with pytest.raises(OSError):
    while time.monotonic() < start + 10:
      slow.sendall(b'a')
      time.sleep(0.1)
  assert time.monotonic() - start > 0.9
  slow.close()
  # Many short requests on one connection that is older are none.
  connection = http.client.HTTPConnection(*running.address)
  while time.monotonic() < start + 4:
    connection.request('POST', '/', 'a')
    assert connection.getresponse().read() == b'a'
    time.sleep(0.1)
  connection.close()
  running.stop()
  assert running.join() == [0]


def test_uploads_together_are_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(program, '_UPLOADS_BYTES', 2 ** 20)
  monkeypatch.setattr(program, 'body_bytes', lambda megabytes: 2 * 2 ** 20)
  load_kit.export(tmp_path, 'a')
  service = load_kit.serve(tmp_path / 'a.pb')
  app = create_app(service, {'MAX_UPLOAD_MB': 1})
  running = load_kit.Running(app, 5)
  held = running.server.bytes_held
  head = (b'POST /api/classify HTTP/1.1\r\nHost: a\r\n'
          b'Content-Length: 2000000\r\n\r\n')
  clients = [socket.create_connection(running.address) for _ in range(3)]
  # The limit is twice the largest request: the third is too much, and of those
  # on their way the largest is thrown away, here the second.
  for client, size in zip(clients, (1800000, 1900000)):
    client.sendall(head + bytes(size))
  load_kit.wait_until(lambda: held() == 3700000)
  clients[2].sendall(head + bytes(2 ** 20))
  load_kit.wait_until(lambda: held() < 3700000)
  assert held() <= 1800000 + 2 ** 20
  # Its answer comes when it has sent all.
  clients[1].sendall(bytes(100000))
  clients[1].settimeout(20)
  text = b''.join(iter(lambda: clients[1].recv(10000), b''))
  assert text.startswith(b'HTTP/1.1 503 ') and b'\r\nRetry-After: ' in text
  assert b'"code": "busy"' in text and b'nosniff' in text
  assert ('classifier_refusals_total{reason="busy",status="503"} 1\n' in
          app.numbers.render({}, {}))
  # The others are as they were, and one that has left makes room.
  clients[2].close()
  clients[0].sendall(bytes(200000))
  clients[0].settimeout(20)
  assert clients[0].recv(100).startswith(b'HTTP/1.1 413 ')
  assert load_kit.upload(running.address[1], kit.make_photo(0))[0] == 200
  running.stop()
  assert len(running.join()) == 1
  for client in clients:
    client.close()
  assert service.close(20)


def test_small_uploads_together_are_bounded(monkeypatch):
  monkeypatch.setattr(program, '_UPLOADS_BYTES', 2 ** 20)
  monkeypatch.setattr(program, 'body_bytes', lambda megabytes: 2 ** 20)
  running = load_kit.Running(_Answers(go=True))
  clients = [socket.create_connection(running.address) for _ in range(5)]
  for client in clients:
    client.sendall(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 690000'
                   b'\r\n\r\n' + bytes(600000))
  held = running.server.bytes_held
  # Three fit; the others are refused, and nothing of them is kept.
  load_kit.wait_until(lambda: held() == 1800000)
  answers = []
  for client in clients:
    client.sendall(bytes(90000))
    client.settimeout(20)
    answers.append(client.recv(12))
    client.close()
  assert sorted(answers) == 3 * [b'HTTP/1.1 200'] + 2 * [b'HTTP/1.1 503']
  running.stop()
  assert running.join() == [0]


def _answer(address):
  connection = http.client.HTTPConnection(*address, timeout=20)
  connection.request('POST', '/', 'a')
  assert connection.getresponse().read() == b'a'
  connection.close()


@pytest.mark.parametrize('data', [
    b'', b'P', REQUEST[:-5] + b'999\r\n\r\na'], ids=['idle', 'headers', 'body'])
def test_idle_connections_are_closed_where_others_wait(monkeypatch, data):
  monkeypatch.setattr(program, '_MORE_CONNECTIONS', 10)
  monkeypatch.setattr(shutdown, '_NEW_SECS', 0.1)
  monkeypatch.setattr(shutdown, '_SLOW_SECS', 0.0)
  monkeypatch.setattr(shutdown, '_SLOW_RATE', float('inf'))
  application = _Answers(go=True)
  running = load_kit.Running(application)
  application.go.clear()
  busy = socket.create_connection(running.address)
  busy.sendall(REQUEST)
  assert application.waiting.acquire(timeout=20)
  application.go.set()
  idle = []
  for _ in range(40):
    idle.append(socket.create_connection(running.address))
    with contextlib.suppress(OSError):  # Closed already.
      idle[-1].sendall(data)
  _answer(running.address)
  busy.settimeout(20)
  assert busy.recv(12) == b'HTTP/1.1 200'
  for client in idle + [busy]:
    client.close()
  running.stop()
  assert running.join() == [0]


# Opens as many connections as its third argument says, until its input ends.
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


def test_few_open_files_leave_fewer_connections(caplog, request):
  before = resource.getrlimit(resource.RLIMIT_NOFILE)
  request.addfinalizer(
      lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before))
  most = max(map(int, os.listdir('/dev/fd'))) + 64
  resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
  running = load_kit.Running(_Answers(go=True))
  assert 'the limit on open files (ulimit -n) is %d' % most in caplog.text
  with subprocess.Popen(
      [sys.executable, '-c', _CLIENTS, *map(str, running.address[:2]), '200'],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
    assert clients.stdout.readline() == b'200\n'
    _answer(running.address)
    used = time.process_time()
    time.sleep(1)
    assert time.process_time() - used < 0.5
    _answer(running.address)
    clients.stdin.close()
  running.stop()
  assert running.join() == [0]
  assert 'cannot accept' not in caplog.text


def test_too_few_open_files_are_named(monkeypatch):
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (16, 16))
  with pytest.raises(InputError, match=r'\(ulimit -n\) is 16; at least'):
    load_kit.Running(_Answers(go=True))


def test_accept_failures_are_logged_once_and_do_not_spin(monkeypatch, caplog):
  accept, calls = socket.socket.accept, []

  def fail(listener):
    calls.append(time.monotonic())
    if len(calls) > 3:
      return accept(listener)
    raise OSError(errno.EMFILE, 'Too many open files')

  running = load_kit.Running(_Answers(go=True))
  monkeypatch.setattr(socket.socket, 'accept', fail)
  _answer(running.address)
  running.stop()
  assert running.join() == [0]
  assert calls[3] - calls[0] > 3 * 0.2
  assert caplog.text.count('cannot accept a connection (1 times since') == 1
  assert caplog.text.count('Too many open files') == 1


def test_told_twice_it_ends_at_once():
  application = _Answers(go=False)
  running = load_kit.Running(application)
  visitor = socket.create_connection(running.address)
  visitor.sendall(REQUEST)
  assert application.waiting.acquire(timeout=20)
  running.stop()
  time.sleep(0.5)
  assert running.ends == []
  running.stop()
  assert running.join() == [1]
  application.go.set()
  visitor.close()


def test_idle_connection_does_not_hold_the_end():
  running = load_kit.Running(_Answers(go=True))
  connection = http.client.HTTPConnection(*running.address)
  connection.request('POST', '/', 'a')
  assert connection.getresponse().read() == b'a'
  time.sleep(0.2)
  start = time.monotonic()
  running.stop()
  assert running.join() == [0]
  assert time.monotonic() - start < 5
  connection.close()
