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
from serving.web import app_state, metrics, refusals
from serving.web.app import create_app

SAMPLE = re.compile(r'([a-z_]+)(?:\{(.+)\})? (\+Inf|-?[0-9.e+-]+)')
LABEL = re.compile(r'([a-z0-9]+)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def parse(text):
  """Parses a metrics page as Prometheus does; fails if it is not valid.

  Returns:
    {(name, values of the labels...): value as a float}.
  """
  samples, kinds, name, has_help = {}, {}, None, set()
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
      assert key not in samples
      samples[key] = float(value)
  for (full, *labels), value in samples.items():
    if full.endswith('_bucket') and labels[-1] == '+Inf':
      name = full[:-len('_bucket')]
      counts = [count for key, count in samples.items()
                if key[:-1] == (full, *labels[:-1])]
      assert counts == sorted(counts) and counts[-1] == value
      assert samples[(name + '_count', *labels[:-1])] == value
    if full.endswith('_total'):
      assert value >= 0
  assert set(kinds.values()) == {'counter', 'gauge', 'histogram'}
  return samples


def read_samples(client):
  """Returns the parsed samples of /metrics."""
  response = client.get('/metrics')
  assert response.content_type == 'text/plain; version=0.0.4; charset=utf-8'
  return parse(response.get_data(as_text=True))


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
  samples = read_samples(client)
  name = 'http_request_duration_seconds'
  assert samples[name + '_count', 'POST', '/api/classify', '200'] == 3
  assert samples[name + '_count', 'POST', '/api/classify', '400'] == 1
  assert samples[name + '_count', 'GET', 'other', '404'] == 30
  assert samples[name + '_count', 'GET', '/static/<path:filename>', '200'] == 1
  assert samples[name + '_count', 'other', 'other', '405'] == 1
  assert 0 < samples[name + '_sum', 'POST', '/api/classify', '200'] < 60
  assert samples['classifier_http_requests_total', '/api/classify', '200'] == 3
  assert not [key for key in samples if 'nowhere' in ''.join(key)]


def test_metrics_of_service_and_model_are_on_the_page(client):
  samples = read_samples(client)
  assert samples['classifier_queue_length',] == 3
  assert samples['classifier_photos_total',] == 11
  assert samples['classifier_failed_swaps_total',] == 0
  assert samples['classifier_model_info', '0' * 64, 'model.ckpt-7',
                 'inception_v4'] == 1
  for name in ('queue_duration_seconds', 'decode_duration_seconds',
               'forward_duration_seconds', 'batch_size', 'photo_pixels'):
    assert samples['classifier_%s_count' % name,] == 0


def test_metrics_of_the_process_agree_with_psutil(client):
  samples = read_samples(client)
  process = psutil.Process()
  assert samples['process_resident_memory_bytes',] == pytest.approx(
      process.memory_info().rss, rel=.1)
  # psutil also counts the folder that it reads them from.
  assert samples['process_open_fds',] == process.num_fds() - 1
  assert samples['process_max_fds',] == process.rlimit(psutil.RLIMIT_NOFILE)[0]
  assert samples['process_cpu_seconds_total',] == pytest.approx(
      sum(process.cpu_times()[:2]), abs=1)
  assert samples['process_start_time_seconds',] == pytest.approx(
      process.create_time(), abs=2)


def test_buckets_count_values_up_to_their_bound():
  registry = metrics.Metrics()
  for pixels in (1, 1e4, 10001, 1e9):
    registry.observe('classifier_photo_pixels', pixels)
  samples = parse(registry.render({}, {}))
  bucket = 'classifier_photo_pixels_bucket'
  assert [samples[bucket, bound] for bound in (
      '10000', '100000', '100000000', '+Inf')] == [2, 3, 3, 4]
  assert samples['classifier_photo_pixels_sum',] == 1e9 + 20002


def test_labels_are_escaped():
  text = metrics.Metrics().render({}, {'name': 'a"b\\c\nd', 'sha256': None})
  samples = parse(text)
  assert samples['classifier_model_info', '', '', r'a\"b\\c\nd'] == 1


def test_refusals_are_counted_by_reason(client):
  kit.post_form(client, '/api/classify', b'')
  kit.post_form(client, '/', kit.photo(), b'words', kit.photo()[:30])
  client.get('/nowhere')
  samples = read_samples(client)
  assert {key[1:]: value for key, value in samples.items()
          if key[0] == 'classifier_refusals_total'} == {
              ('empty_file', '400'): 1, ('not_a_photo', '415'): 1,
              ('unreadable_photo', '422'): 1, ('not_found', '404'): 1}


@pytest.mark.parametrize('request_bytes, method, status, reason', [
    (b'GET / HTTP/1.1\r\n\r\n', 'GET', '400', 'bad_request'),
    (b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\n' % (b'9' * 30),
     'other', '413', 'request_too_large'),
    (b'GET / HTTP/1.1\r\nHost: a\r\na: ' + b'b' * 40000 + b'\r\n\r\n', 'other',
     '431', 'bad_request'),
], ids=kit.short_id)
def test_refusals_before_the_application_are_counted(request_bytes, method,
                                                     status, reason):
  app = create_app(kit.FakeService())
  server = load_kit.ServerThread(app)
  with socket.create_connection(server.address, 15) as client:
    client.sendall(request_bytes)
    response = b''.join(iter(lambda: client.recv(65536), b''))
  server.stop()
  assert response.startswith(b'HTTP/1.0 ' + status.encode()) or (
      response.startswith(b'HTTP/1.1 ' + status.encode()))
  samples = parse(app_state.of_app(app).metrics.render({}, {}))
  assert samples['classifier_refusals_total', reason, status] == 1
  assert samples['http_request_duration_seconds_count', method, 'other',
                 status] == 1
  assert server.join() == [0]


def test_refusals_have_known_reasons_only():
  registry = metrics.Metrics()
  for status in (400, 404, 413, 431, 500, 503):
    registry.observe_refusal(refusals.from_status(status, 1))
  reasons = {key[1] for key in parse(registry.render({}, {}))
             if key[0] == 'classifier_refusals_total'}
  assert reasons <= set(refusals.STATUS)


def test_batches_are_observed():
  registry = metrics.Metrics()
  batcher = Batcher(lambda batch: batch, window_secs=.05,
                    observe=registry.observe)
  assert batcher.submit([1, 2, 3], lambda photo: photo) == [1, 2, 3]
  assert batcher.close(20)
  samples = parse(registry.render({}, {}))
  assert samples['classifier_batch_size_sum',] == 3
  assert samples['classifier_batch_size_count',] == 1
  assert samples['classifier_forward_duration_seconds_count',] == 1
  assert samples['classifier_queue_duration_seconds_count',] == 3


def test_docs_name_every_metric(client):
  with open(os.path.join(ROOT, 'docs', 'server.md')) as file:
    docs = file.read()
  names = re.findall('# TYPE (.+) ', client.get('/metrics').get_data(
      as_text=True))
  assert [name for name in names if '`%s`' % name not in docs] == []
