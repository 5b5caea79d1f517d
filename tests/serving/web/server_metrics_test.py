"""Tests of serving/web/metrics.py: names, format and counts."""

import os
import re
import socket

import psutil
import pytest

from kits import server_load_kit as load_kit
from kits import service_kit as kit
from kits.helpers import ROOT
from serving.model.batching import Batcher
from serving.web import metrics, refusals
from serving.web.app import create_app

SAMPLE = re.compile(r'([a-z_]+)(?:\{(.+)\})? (\+Inf|-?[0-9.e+-]+)')
LABEL = re.compile(r'([a-z0-9]+)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def parse(text):
  """Parses the page as Prometheus does; fails where it is not valid.

  Returns:
    Values by name and the values of its labels, all of them strings but the
    values, which are floats.
  """
  found, kinds, name, has_help = {}, {}, None, set()
  assert text.endswith('\n') and '\n\n' not in text
  for line in text.splitlines():
    words = line.split(' ', 3)
    if words[:2] == ['#', 'HELP']:
      assert words[2] not in has_help
      has_help.add(words[2])
    elif words[:2] == ['#', 'TYPE']:
      name = words[2]
      assert name in has_help and name not in kinds
      kinds[name] = words[3]
    else:
      full, labels, value = SAMPLE.fullmatch(line).groups()
      suffix = full[len(name):]
      assert full.startswith(name) and suffix in (
          ('_bucket', '_sum', '_count') if kinds[name] == 'histogram' else
          ('',))
      assert not LABEL.sub('', labels or '')
      key = (full, *(text for _, text in LABEL.findall(labels or '')))
      assert key not in found
      found[key] = float(value)
  for (full, *labels), value in found.items():
    if full.endswith('_bucket') and labels[-1] == '+Inf':
      name = full[:-len('_bucket')]
      counts = [count for key, count in found.items()
                if key[:-1] == (full, *labels[:-1])]
      assert counts == sorted(counts) and counts[-1] == value
      assert found[(name + '_count', *labels[:-1])] == value
    if full.endswith('_total'):
      assert value >= 0
  assert set(kinds.values()) == {'counter', 'gauge', 'histogram'}
  return found


def read(client):
  """Returns what `parse` does of /metrics."""
  answer = client.get('/metrics')
  assert answer.content_type == 'text/plain; version=0.0.4; charset=utf-8'
  return parse(answer.get_data(as_text=True))


@pytest.fixture
def client():
  return kit.make_client(kit.FakeService())


def test_requests_are_counted_by_route_and_status(client):
  for _ in range(3):
    kit.post_form(client, '/api/classify', kit.photo())
  kit.post_form(client, '/api/classify', b'')
  for number in range(30):
    client.get('/nowhere/%d' % number)
  client.get('/static/page.js')
  client.open('/healthz', method='BREW')
  found = read(client)
  name = 'http_request_duration_seconds'
  assert found[name + '_count', 'POST', '/api/classify', '200'] == 3
  assert found[name + '_count', 'POST', '/api/classify', '400'] == 1
  assert found[name + '_count', 'GET', 'other', '404'] == 30
  assert found[name + '_count', 'GET', '/static/<path:filename>', '200'] == 1
  assert found[name + '_count', 'other', 'other', '405'] == 1
  assert 0 < found[name + '_sum', 'POST', '/api/classify', '200'] < 60
  assert found['classifier_http_requests_total', '/api/classify', '200'] == 3
  assert not [key for key in found if 'nowhere' in ''.join(key)]


def test_numbers_of_service_and_model_are_on_the_page(client):
  found = read(client)
  assert found['classifier_queue_length',] == 3
  assert found['classifier_photos_total',] == 11
  assert found['classifier_failed_swaps_total',] == 0
  assert found['classifier_model_info', '0' * 64, 'model.ckpt-7',
               'inception_v4'] == 1
  for name in ('queue_duration_seconds', 'decode_duration_seconds',
               'forward_duration_seconds', 'batch_size', 'photo_pixels'):
    assert found['classifier_%s_count' % name,] == 0


def test_numbers_of_the_process_are_those_of_the_system(client):
  found = read(client)
  process = psutil.Process()
  assert found['process_resident_memory_bytes',] == pytest.approx(
      process.memory_info().rss, rel=.1)
  # psutil counts the folder that it lists.
  assert found['process_open_fds',] == process.num_fds() - 1
  assert found['process_max_fds',] == process.rlimit(psutil.RLIMIT_NOFILE)[0]
  assert found['process_cpu_seconds_total',] == pytest.approx(
      sum(process.cpu_times()[:2]), abs=1)
  assert found['process_start_time_seconds',] == pytest.approx(
      process.create_time(), abs=2)


def test_buckets_count_what_is_not_above_their_bound():
  numbers = metrics.Metrics()
  for pixels in (1, 1e4, 10001, 1e9):
    numbers.observe('classifier_photo_pixels', pixels)
  found = parse(numbers.render({}, {}))
  bucket = 'classifier_photo_pixels_bucket'
  assert [found[bucket, bound] for bound in (
      '10000', '100000', '100000000', '+Inf')] == [2, 3, 3, 4]
  assert found['classifier_photo_pixels_sum',] == 1e9 + 20002


def test_labels_are_escaped():
  text = metrics.Metrics().render({}, {'name': 'a"b\\c\nd', 'sha256': None})
  found = parse(text)
  assert found['classifier_model_info', '', '', r'a\"b\\c\nd'] == 1


def test_refusals_are_counted_by_reason(client):
  kit.post_form(client, '/api/classify', b'')
  kit.post_form(client, '/', kit.photo(), b'words', kit.photo()[:30])
  client.get('/nowhere')
  found = read(client)
  assert {key[1:]: value for key, value in found.items()
          if key[0] == 'classifier_refusals_total'} == {
              ('empty_file', '400'): 1, ('not_a_photo', '415'): 1,
              ('unreadable_photo', '422'): 1, ('not_found', '404'): 1}


@pytest.mark.parametrize('request_bytes, method, status, reason', [
    (b'GET / HTTP/1.1\r\n\r\n', 'GET', '400', 'bad_request'),
    (b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\n' % (b'9' * 30),
     'other', '413', 'request_too_large'),
    (b'GET / HTTP/1.1\r\nHost: a\r\na: ' + b'b' * 40000 + b'\r\n\r\n', 'other',
     '431', 'bad_request'),
], ids=kit.short)
def test_refusals_before_the_application_are_counted(request_bytes, method,
                                                     status, reason):
  app = create_app(kit.FakeService())
  running = load_kit.Running(app)
  with socket.create_connection(running.address, 15) as client:
    client.sendall(request_bytes)
    answer = b''.join(iter(lambda: client.recv(65536), b''))
  running.stop()
  assert answer.startswith(b'HTTP/1.0 ' + status.encode()) or (
      answer.startswith(b'HTTP/1.1 ' + status.encode()))
  found = parse(app.numbers.render({}, {}))
  assert found['classifier_refusals_total', reason, status] == 1
  assert found['http_request_duration_seconds_count', method, 'other',
               status] == 1
  assert running.join() == [0]


def test_refusals_have_known_reasons_only():
  numbers = metrics.Metrics()
  for status in (400, 404, 413, 431, 500, 503):
    numbers.observe_refusal(refusals.of_status(status, 1))
  reasons = {key[1] for key in parse(numbers.render({}, {}))
             if key[0] == 'classifier_refusals_total'}
  assert reasons <= set(refusals.STATUS)


def test_batches_are_measured():
  numbers = metrics.Metrics()
  batcher = Batcher(lambda batch: batch, window_secs=.05,
                    observe=numbers.observe)
  assert batcher.submit([1, 2, 3], lambda photo: photo) == [1, 2, 3]
  assert batcher.close(20)
  found = parse(numbers.render({}, {}))
  assert found['classifier_batch_size_sum',] == 3
  assert found['classifier_batch_size_count',] == 1
  assert found['classifier_forward_duration_seconds_count',] == 1
  assert found['classifier_queue_duration_seconds_count',] == 3


def test_docs_name_every_metric(client):
  with open(os.path.join(ROOT, 'docs', 'server.md')) as file:
    docs = file.read()
  names = re.findall('# TYPE (.+) ', client.get('/metrics').get_data(
      as_text=True))
  assert [name for name in names if '`%s`' % name not in docs] == []
