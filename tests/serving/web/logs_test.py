"""Tests of serving/web/logs.py: injection, formats, ids, the access log."""

import io
import json
import logging
import re
import socket
import subprocess

import pytest

from compat import tf
from kits import server_load_kit as load_kit
from kits import service_kit as kit
from serving.model.batching import Batcher, SessionFailed
from serving.web import logs
from serving.web.app import create_app

FORGED = 'ERROR:tensorflow:all is well'


class LinesHandler(logging.StreamHandler):
  """Handler that keeps the formatted lines."""

  def __init__(self):
    super().__init__()
    self.lines = []

  def emit(self, record):
    self.lines += self.format(record).splitlines()


@pytest.fixture
def lines():
  """List of the lines that TensorFlow and the application log."""
  handler = LinesHandler()
  loggers = [logging.getLogger(name)
             for name in ('tensorflow', 'serving.web.app')]
  verbosity = tf.logging.get_verbosity()
  tf.logging.set_verbosity('DEBUG')
  for logger in loggers:
    logger.addHandler(handler)
  yield handler.lines
  for logger in loggers:
    logger.removeHandler(handler)
  tf.logging.set_verbosity(verbosity)


@pytest.mark.parametrize('characters', [
    '%0a', '%0d%0a', '%e2%80%a8', '%c2%85', '%1b%5b2K%0b', '%00'])
def test_debug_line_of_a_path_with_control_characters_is_one_line(
    lines, characters):
  client = kit.make_client(kit.FakeService())
  with logs.one_line_each():
    client.get('/a%s%s' % (characters, FORGED))
  assert len(lines) == 1
  assert re.search(FORGED + ' 404 NOT FOUND request_id=[0-9a-f]{32}$', lines[0])
  assert lines[0].isprintable()


def test_traceback_with_control_characters_is_escaped_and_indented(lines):
  service = kit.FakeService()
  service.error = RuntimeError('bad: a\n\x1b[2K' + FORGED)
  client = kit.make_client(service)
  assert client.post('/api/classify?a=%0a' + FORGED,
                     data=kit.photo()).status_code == 500
  assert lines.pop() == 'POST /api/classify 500 INTERNAL SERVER ERROR'
  assert lines.pop(0) == 'Exception on /api/classify [POST]'
  assert lines[-1] == '  \\x1b[2K' + FORGED
  assert all(line.startswith('  ') for line in lines)


def test_other_lines_keep_their_text(lines):
  with logs.one_line_each():
    tf.logging.warning('cannot keep %r: %d %%, %s', 'a b', 5, '花é')
  tf.logging.warning('two\nlines')  # Outside the server, as in training.
  assert lines == ["cannot keep 'a b': 5 %, 花é", 'two', 'lines']


TRACE = '0123456789abcdef0123456789abcdef'


@pytest.mark.parametrize('headers, expected', [
    ({'X-Request-Id': 'a-B_9.:/+=@~'}, 'a-B_9.:/+=@~'),
    ({'X-Request-Id': 'a', 'traceparent': '00-%s-0123456789abcdef-01' % TRACE},
     'a'),
    ({'traceparent': '00-%s-0123456789abcdef-01' % TRACE}, TRACE),
    ({'X-Request-Id': 'a b', 'traceparent': '01-%s-0123456789abcdef-00-x' %
      TRACE}, TRACE),
    ({}, None), ({'X-Request-Id': ''}, None), ({'X-Request-Id': 'é'}, None),
    ({'X-Request-Id': 'a"'}, None), ({'X-Request-Id': 'a' * 101}, None),
    ({'traceparent': '00-%s-0123456789abcdef-01' % ('0' * 32)}, None),
    ({'traceparent': 'ff-%s-0123456789abcdef-01' % TRACE}, None),
    ({'traceparent': TRACE}, None),
])
@pytest.mark.parametrize('path', ['/healthz', '/nowhere', '/api/classify'])
def test_request_id_is_returned_or_generated(path, headers, expected):
  response = kit.make_client(kit.FakeService()).get(path, headers=headers)
  request_id, = response.headers.getlist('X-Request-Id')
  if expected is None:
    assert re.fullmatch('[0-9a-f]{32}', request_id)
  else:
    assert request_id == expected


def test_lines_of_a_request_and_no_others_have_its_id(lines):
  service = kit.FakeService()
  service.error = RuntimeError('bad')
  client = kit.make_client(service)
  with logs.one_line_each('json'):
    client.post('/api/classify', data=kit.photo(),
                headers={'X-Request-Id': 'a-1'})
    tf.logging.warning('later: %s', 'a\n"b"')
  error, debug, later = map(json.loads, lines)
  assert (error['level'], error['logger']) == ('ERROR', 'serving.web.app')
  assert error['message'] == 'Exception on /api/classify [POST]'
  assert error['exception'].endswith('  RuntimeError: bad')
  assert debug['request_id'] == error['request_id'] == 'a-1'
  assert re.fullmatch(r'20\d\d(-\d\d){2}T\d\d(:\d\d){2}\.\d{6}Z', debug['time'])
  assert 'request_id' not in later
  assert (later['level'], later['message']) == ('WARNING', 'later: a\\n"b"')


def test_lines_of_the_session_have_the_id_of_the_request(lines):
  def predict(batch):
    raise RuntimeError('no memory')
  batcher = Batcher(predict, window_secs=0)
  with logs.one_line_each():
    logs.begin_request({'X-Request-Id': 'a-2'}.get)
    with pytest.raises(SessionFailed):
      batcher.submit([1], lambda photo: photo)
    logs.end_request()
  assert batcher.close(20)
  assert lines == ['the session failed on a photo: RuntimeError: no memory '
                   'request_id=a-2']


@pytest.fixture
def make_logging_client(monkeypatch):
  """Function that makes a test client and the stream of its access log."""
  def make(kind):
    stream = io.StringIO()
    monkeypatch.setattr(logs.sys, 'stdout', stream)
    return kit.make_client(kit.FakeService(), ACCESS_LOG=kind), stream
  return make


COMMON = (r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/20\d\d:\d\d:\d\d:\d\d '
          r'\+0000\] "%s HTTP/1\.1" %s\n')


def test_access_log_in_common_format_has_all_requests(make_logging_client):
  client, stream = make_logging_client('common')
  size = len(client.get('/healthz').data)
  client.head('/healthz')
  client.get('/a%0a%22%5c%e2%80%a8b?token=s3cret')
  kit.post_form(client, '/api/classify', kit.photo())
  assert re.fullmatch(
      COMMON % ('GET /healthz', '200 %d' % size) +
      COMMON % ('HEAD /healthz', '200 -') +
      COMMON % ('GET /a%0A%22%5C%E2%80%A8b', r'404 \d+') +
      COMMON % ('POST /api/classify', r'200 \d+'), stream.getvalue())


def test_access_log_in_json_has_no_file_names_and_no_query(make_logging_client):
  client, stream = make_logging_client('json')
  response = kit.post_form(client, '/api/classify?top=1', kit.photo(),
                           headers={'X-Request-Id': 'a-3'})
  entry = json.loads(stream.getvalue())
  assert entry.pop('time').startswith('20')
  assert 0 < entry.pop('duration_seconds') < 60
  assert entry == {
      'remote_addr': '127.0.0.1', 'method': 'POST', 'path': '/api/classify',
      'protocol': 'HTTP/1.1', 'status': 200, 'bytes': len(response.data),
      'request_id': 'a-3'}


def test_access_log_not_writable_does_not_stop_the_server(make_logging_client,
                                                          lines):
  client, stream = make_logging_client('json')
  stream.close()
  assert [client.get('/healthz').status_code for _ in range(3)] == [200] * 3
  assert sum('cannot write the access log' in line for line in lines) == 1


@pytest.mark.parametrize('data, request_line, status', [
    (b'GET /a HTTP/1.1\r\nX-Request-Id: a-4\r\n\r\n', 'GET /a HTTP/1.1', 400),
    (b'GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a-4\r\na: ' + b'b' * 40000 +
     b'\r\n\r\n', '-', 431),
], ids=kit.short_id)
def test_access_log_has_refusals_before_the_application(monkeypatch, data,
                                                        request_line, status):
  stream = io.StringIO()
  monkeypatch.setattr(logs.sys, 'stdout', stream)
  server = load_kit.ServerThread(create_app(kit.FakeService(),
                                            {'ACCESS_LOG': 'common'}))
  with socket.create_connection(server.address, 15) as client:
    client.sendall(data)
    head, _, body = b''.join(iter(lambda: client.recv(65536), b'')).partition(
        b'\r\n\r\n')
  server.stop()
  assert server.join() == [0]
  request_ids = re.findall(rb'\r\nX-Request-Id: (.+)', head)
  assert len(request_ids) == 1
  assert status == 431 or request_ids[0].strip() == b'a-4'
  assert stream.getvalue().startswith('127.0.0.1 - - [')
  assert stream.getvalue().endswith('] "%s" %d %d\n' % (
      request_line, status, len(body)))


def test_native_lines_in_a_json_log_are_json():
  output = subprocess.run(
      ['sed', '-u', logs._NATIVE['json']], env={'LC_ALL': 'C'},
      input=b'Corrupt "JPEG" \\ data: \t\x1b[2K \xff\xe2\n', check=True,
      stdout=subprocess.PIPE).stdout
  assert json.loads(output.decode('ascii')) == {
      'level': 'INFO', 'logger': 'native code',
      'message': 'Corrupt  JPEG    data:   [2K ??'}
