"""Tests of server.py: its flags, and the process from startup to shutdown."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from PIL import Image

import server as program
from common.errors import InputError
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from serving.model import classifier_service
from serving.model.classifier import Classifier
from serving.web.shutdown import DrainingServer


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Folder with the frozen graph a.pb and its labels, a.label."""
  folder = tmp_path_factory.mktemp('server')
  load_kit.export(folder, 'a')
  return folder


def test_process_classifies_an_upload_and_exits_on_sigterm(folder, tmp_path):
  uploads = tmp_path / 'new' / 'uploads'
  with load_kit.ServerProcess('--model_dir=%s' % folder, '--model_name=a.pb',
                              '--label_file=a.label', '--keep_uploads',
                              '--upload_folder=%s' % uploads) as server:
    server.wait_until_listening()
    photo = kit.make_photo(0)
    status, headers, page = load_kit.upload(server.port, photo)
    scores = Classifier.from_frozen_graph(str(folder / 'a.pb')).classify(
        [photo])[0]
    assert status == 200
    assert kit.LABELS[scores.argmax()] in page
    for score in scores:
      assert '%.1f' % (100 * score) in page
    assert 'Server' not in headers
    assert any((uploads / name).read_bytes() == photo
               for name in os.listdir(str(uploads)))
    second_run = subprocess.run(
        [sys.executable, os.path.join(load_kit.ROOT, 'server.py'),
         '--port=%d' % server.port], capture_output=True,
        text=True, timeout=60)
    assert second_run.returncode == 1
    assert second_run.stderr.splitlines() == [
        'server.py: error: cannot listen on 127.0.0.1, port %d: Address '
        'already in use; choose another with --port or --host' % server.port]
    server.process.send_signal(signal.SIGTERM)
    status, lines = server.wait()
    assert status == 0
    assert re.match('INFO:tensorflow:Forward passes: OpenVINO .*, float32$',
                    lines[0])
    assert lines[1:] == ['INFO:tensorflow:ended']
    assert server.process.stdout.read() == ''


def read_metrics(port):
  with urllib.request.urlopen('http://127.0.0.1:%d/metrics' % port) as response:
    return response.read().decode()


def is_listening(port):
  with socket.socket() as client:
    return client.connect_ex(('127.0.0.1', port)) == 0


@pytest.mark.parametrize('signal_number', [signal.SIGTERM, signal.SIGINT])
def test_process_on_signal_answers_uploads_in_progress(folder, signal_number,
                                                       tmp_path):
  body, headers = load_kit.multipart(kit.make_photo(99))
  head = ('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n'
          'Content-Type: %s\r\n\r\n' % (len(body), headers['Content-Type']))
  with load_kit.ServerProcess('--model_dir=%s' % folder, '--model_name=a.pb',
                              '--upload_folder=%s' % tmp_path) as server:
    server.wait_until_listening()
    clients = [socket.create_connection(('127.0.0.1', server.port))
               for _ in range(12)]
    for client in clients:
      client.sendall(head.encode() + body[:50])
    server.process.send_signal(signal_number)
    load_kit.wait_until(lambda: not is_listening(server.port))
    for client in clients:  # Their uploads were in progress.
      client.sendall(body[50:])
    for client in clients:
      response = http.client.HTTPResponse(client)
      response.begin()
      assert response.status == 200
      assert response.getheader('Connection') == 'close'
      client.close()
    status, lines = server.wait()
    assert (status, lines[1:]) == (0, ['INFO:tensorflow:ended'])


@pytest.mark.slow
def test_process_unfinished_upload_is_dropped_after_drain_secs(folder,
                                                               tmp_path):
  with load_kit.ServerProcess('--model_dir=%s' % folder, '--model_name=a.pb',
                              '--upload_folder=%s' % tmp_path,
                              '--drain_secs=1') as server:
    server.wait_until_listening()
    client = socket.create_connection(('127.0.0.1', server.port))
    client.sendall(b'POST / HTTP/1.1\r\nHost: localhost\r\n'
                   b'Content-Length: 9\r\n\r\n')
    time.sleep(1)
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    status, lines = server.wait()
    assert status == 0
    assert 1 <= time.monotonic() - start < 10
    assert re.match('WARNING.*1 requests are left without an answer after 1',
                    lines[1])
    client.close()


def test_process_sigterm_before_listening_ends_it(folder):
  with load_kit.ServerProcess('--model_dir=%s' % folder,
                              '--model_name=a.pb') as server:
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    status, lines = server.wait()
    assert status in (0, -signal.SIGTERM)  # The latter: before main().
    assert not any('Traceback' in line for line in lines)


@pytest.mark.slow
def test_process_full_queue_returns_503_with_retry_after(folder, tmp_path):
  stream = io.BytesIO()
  Image.new('1', (8000, 8000)).save(stream, 'PNG')  # Slow to decode.
  with load_kit.ServerProcess('--model_dir=%s' % folder, '--model_name=a.pb',
                              '--upload_folder=%s' % tmp_path,
                              '--max_photo_mb=700', '--max_queue=2') as server:
    server.wait_until_listening()
    waiting_clients = [threading.Thread(target=load_kit.upload,
                                        args=(server.port, stream.getvalue()))
                       for _ in range(2)]
    for thread in waiting_clients:
      thread.start()
    load_kit.wait_until(lambda: 'queue_length 2\n' in read_metrics(server.port))
    connection = http.client.HTTPConnection('127.0.0.1', server.port,
                                            timeout=20)
    start = time.monotonic()
    connection.request('POST', '/', *load_kit.multipart(kit.make_photo(3)))
    response = connection.getresponse()
    assert response.status == 503
    assert time.monotonic() - start < 3  # It was not queued.
    assert int(response.getheader('Retry-After')) >= 1
    response.read()
    for thread in waiting_clients:
      thread.join(40)
    connection.request('POST', '/', *load_kit.multipart(kit.make_photo(3)))
    assert connection.getresponse().status == 200
    connection.close()


def test_process_warms_up_before_listening(folder, tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(Classifier, 'warm_up', _recording(
      calls, 'warm', Classifier.warm_up))
  monkeypatch.setattr(program, 'listen', _recording(
      calls, 'listen', program.listen))
  monkeypatch.setattr(DrainingServer, 'run', _recording(
      calls, 'run', lambda *args, **kwargs: 0))
  monkeypatch.setattr(signal, 'signal', lambda *args: None)
  kit.run(program, '--model_dir=%s' % folder, '--model_name=a.pb', '--port=0',
          '--upload_folder=%s' % tmp_path)
  assert calls == ['warm', 'listen', 'run']


def _recording(calls, name, function):
  """Returns `function`, changed to add `name` to `calls` first."""

  def recording(*args, **kwargs):
    calls.append(name)
    return function(*args, **kwargs)
  return recording


def test_bind_port_in_use_error_names_port_and_flag():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    listener.listen(1)
    port = listener.getsockname()[1]
    with pytest.raises(InputError, match='port %d: Address already.*--port' %
                       port):
      program.bind('127.0.0.1', port)


def test_bind_address_of_another_machine_is_refused():
  with pytest.raises(InputError, match='cannot listen on 192.0.2.1.*--host'):
    program.bind('192.0.2.1', 0)


def test_bind_does_not_listen_yet():
  listener = program.bind('127.0.0.1', 0)
  try:
    with socket.socket() as client:
      assert client.connect_ex(listener.getsockname()) != 0
  finally:
    listener.close()


@pytest.mark.parametrize('arguments, message', [
    (('--model_name=none.pb',), 'frozen graph .*none.pb'),
    (('--model_name=a.pb', '--label_file=none.label'),
     'label file .*none.label'),
    (('--model_name=a.pb', '--image_size=64'), '--image_size=64 contradicts'),
    (('--model_name=a.pb', '--calibrated'), 'has no calibrated scores'),
])
def test_service_from_flags_invalid_value_raises_input_error(folder, arguments,
                                                             message):
  with kit.parsed_flags(program, '--model_dir=%s' % folder, *arguments):
    with pytest.raises(InputError, match=message):
      program.service_from_flags()


def test_service_from_flags_without_label_file_uses_labels_of_the_graph(folder):
  with kit.parsed_flags(program, '--model_dir=%s' % folder,
                        '--model_name=a.pb'):
    service = program.service_from_flags()
  assert service.labels == kit.LABELS
  assert service.close(20)


def test_service_from_flags_passes_limits_to_the_batcher(folder, monkeypatch):
  passed_limits = {}

  def fake_batcher(predict, weigh, observe, **limits):
    passed_limits.update(limits)

  monkeypatch.setattr(classifier_service, 'Batcher', fake_batcher)
  with kit.parsed_flags(program, '--model_dir=%s' % folder, '--model_name=a.pb',
                        '--max_queue=7', '--batch_size=3',
                        '--batch_window_ms=20', '--reload_secs=0',
                        '--max_pixels=5000'):
    program.service_from_flags()
  assert passed_limits == dict(batch_size=3, window_secs=0.02, max_queue=7,
                               large=2500, max_weight=80000, runs=3)


def test_threads_from_flags_must_exceed_max_queue():
  with kit.parsed_flags(program, '--max_queue=10'):
    assert program.threads_from_flags() > 10
  with kit.parsed_flags(program, '--max_queue=10', '--threads=11'):
    assert program.threads_from_flags() == 11
  with kit.parsed_flags(program, '--max_queue=10', '--threads=10'):
    with pytest.raises(InputError, match='--threads=10 must be more than '
                       '--max_queue=10'):
      program.threads_from_flags()


def test_trusted_proxy_not_an_ip_address_is_refused():
  for value, address in (('::ffff:127.0.0.1', '127.0.0.1'), ('::1', '::1')):
    with kit.parsed_flags(program, '--trusted_proxy=' + value):
      assert program.trusted_proxy_from_flags() == address
  with kit.parsed_flags(program, '--trusted_proxy=proxy.example'):
    with pytest.raises(InputError, match='--trusted_proxy=.*not an IP addr'):
      program.trusted_proxy_from_flags()


@pytest.mark.parametrize('value, prefix', [
    ('', ''), ('/', ''), ('flowers', '/flowers'), ('/flowers/', '/flowers'),
    ('/a-b/c.d', '/a-b/c.d')])
def test_url_prefix_slashes_are_normalized(value, prefix):
  with kit.parsed_flags(program, '--url_prefix=' + value):
    assert program.url_prefix_from_flags() == prefix


@pytest.mark.parametrize('value', [
    'http://photos.example/flowers', '/a b', '/a//b', '/a?b', '/a%2fb', '/花'])
def test_url_prefix_not_a_path_is_refused(value):
  with kit.parsed_flags(program, '--url_prefix=' + value):
    with pytest.raises(InputError, match='--url_prefix=.* is not a path'):
      program.url_prefix_from_flags()


@pytest.mark.parametrize('address, flags, names', [
    ('127.0.0.1', [], []), ('::1', [], []), ('0.0.0.0', [], ['*']),
    ('192.168.7.8', [], ['*']), ('fe80::1%eth0', [], ['*']),
    ('127.0.0.1', ['--allowed_hosts=*'], ['*']),
    ('0.0.0.0', ['--allowed_hosts=Photos.example.org, .b.c'],
     ['photos.example.org', '.b.c'])])
def test_allowed_hosts_default_depends_on_the_listening_address(
    address, flags, names):
  with kit.parsed_flags(program, *flags):
    assert program.allowed_hosts_from_flags(address) == names


@pytest.mark.parametrize('value', [
    'a:80', 'http://a', 'a/b', 'a..b', '花', ','])
def test_allowed_hosts_not_a_host_name_is_refused(value):
  with kit.parsed_flags(program, '--allowed_hosts=' + value):
    with pytest.raises(InputError,
                       match='--allowed_hosts: .* is not a host name'):
      program.allowed_hosts_from_flags('127.0.0.1')


@pytest.mark.slow
def test_process_with_url_prefix_answers_with_and_without_it(folder):
  with load_kit.ServerProcess('--model_dir=%s' % folder, '--model_name=a.pb',
                              '--url_prefix=/flowers', '--access_log=json',
                              '--log_format=json', '--rate_limit=1') as server:
    server.wait_until_listening()
    connection = http.client.HTTPConnection('127.0.0.1', server.port, 20)
    statuses = {}
    for path in ('/flowers/', '/flowers', '/flowers/healthz', '/healthz',
                 '/flowersx', '/x/flowers/'):
      connection.request('GET', path)
      response = connection.getresponse()
      statuses[path] = response.status
      text = response.read().decode()
      if path == '/flowers/':
        assert 'id="upload"' in text
    connection.request('POST', '/flowers/api/classify', kit.make_photo(0))
    with connection.getresponse() as response:
      photo, = json.loads(response.read().decode())['photos']
    assert re.fullmatch('[0-9a-f]{64}', photo['model_sha256'])
    connection.request('POST', '/flowers/api/classify', kit.make_photo(0))
    response = connection.getresponse()
    assert response.status == 429
    assert json.loads(response.read().decode())['error']['code'] == (
        'too_many_requests')
    metrics_text = read_metrics(server.port)
    for name in ('classifier_batch_size_count', 'classifier_photo_pixels_count',
                 'classifier_refusals_total{reason="too_many_requests",'
                 'status="429"}'):
      assert '\n%s 1\n' % name in metrics_text
    connection.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    access_log = list(map(json.loads, server.process.stdout))
    server.wait()
    log_lines = list(map(json.loads, server.lines))
  assert [(line['path'], line['status']) for line in access_log[:2]] == [
      ('/flowers/', 200), ('/flowers', 308)]
  assert [line['status'] for line in access_log[-3:]] == [200, 429, 200]
  assert (log_lines[-1]['level'], log_lines[-1]['message']) == ('INFO', 'ended')
  assert statuses == {
      '/flowers/': 200, '/flowers': 308, '/flowers/healthz': 200,
      '/healthz': 200, '/flowersx': 404, '/x/flowers/': 404}


@pytest.mark.parametrize('argument', [
    '--max_queue=0', '--batch_size=0', '--batch_window_ms=-1', '--threads=0',
    '--reload_secs=-1', '--drain_secs=-1', '--max_pixels=0', '--port=70000',
    '--request_timeout=0', '--max_photo_mb=49',
    '--max_upload_mb=0', '--max_queue=many', '--keep_uploads=perhaps'])
def test_flags_value_out_of_range_is_refused(argument):
  with pytest.raises(program.flags.IllegalFlagValueError):
    with kit.parsed_flags(program, argument):
      pass


def test_help_lists_every_flag():
  help_text = subprocess.run(
      [sys.executable, os.path.join(load_kit.ROOT, 'server.py'), '--help'],
      stdout=subprocess.PIPE, text=True).stdout
  for name in ('host', 'port', 'max_queue', 'batch_size', 'batch_window_ms',
               'threads', 'reload_secs', '[no]keep_uploads', 'api_token',
               'max_pixels', 'max_photo_mb', 'drain_secs', 'upload_folder',
               'max_upload_mb', 'url_prefix', 'allowed_hosts', 'rate_limit',
               'access_log', 'log_format', 'trusted_proxy', 'request_timeout'):
    assert '--%s:' % name in help_text


def test_flags_defaults_match_the_server_of_2017():
  with kit.parsed_flags(program):
    values = program.FLAGS
    assert (values.model_dir, values.model_name, values.label_file,
            values.upload_folder, values.num_top_predictions, values.port,
            values.debug, values.host, values.keep_uploads,
            values.api_token) == (
                '', 'my_inception_v4_freeze.pb', 'my_inception_v4_freeze.label',
                '/tmp/', 5, 5001, False, '127.0.0.1', False, None)
