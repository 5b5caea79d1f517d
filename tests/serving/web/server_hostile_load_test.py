"""Tests of server.py: other clients while two send the most costly photos."""

import json
import urllib.request

import pytest

from benchmarks import hostile_load, server_load
from kits import graph_kit
from kits import server_load_kit as load_kit
from kits import serving_kit as kit

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def process(tmp_path_factory):
  graph = graph_kit.write(tmp_path_factory.mktemp('graph'))
  with load_kit.ServerProcess('--model_name=%s' % graph,
                              '--max_photo_mb=700') as server:
    yield server.wait_until_listening()


@pytest.mark.parametrize('name, count', [
    ('PNG, 1 bit', 1), ('PNG, 1 bit', 16), ('PNG, alpha', 1)])
def test_other_client_during_an_attack_is_answered(process, name, count):
  kind, = (kind for kind in hostile_load.kinds([name]) if kind.photos == count)
  requests = [server_load.to_request(kit.make_photo(0))]
  effect = hostile_load.measure(process.process.pid, process.port, kind,
                                requests, seconds=6)
  assert effect.refused == 0
  assert effect.p95 < 3


def read_counters(port):
  """Returns the metrics without labels: {name: value}."""
  address = 'http://127.0.0.1:%d/metrics' % port
  with urllib.request.urlopen(address, timeout=30) as response:
    lines = response.read().decode().splitlines()
  return {line.split()[0]: float(line.split()[1]) for line in lines
          if not line.startswith('#') and '{' not in line}


def test_photos_of_disconnected_clients_are_not_classified(process):
  kind = next(hostile_load.kinds(['PNG, 1 bit']))
  before = read_counters(process.port)['classifier_photos_total']
  for _ in range(20):
    with server_load.connect(process.port) as client:
      client.sendall(kind.request)
  load_kit.wait_until(
      lambda: not read_counters(process.port)['classifier_queue_length'], 60)
  # Some may be decoded before their client disconnects.
  assert read_counters(process.port)['classifier_photos_total'] - before < 5


def test_request_timeout_flag_sets_the_deadline(tmp_path):
  graph = graph_kit.write(tmp_path)
  kind = next(hostile_load.kinds(['PNG, RGB']))
  with load_kit.ServerProcess('--model_name=%s' % graph,
                              '--request_timeout=0.1',
                              '--max_photo_mb=700') as server:
    server.wait_until_listening()
    with server_load.connect(server.port) as client:
      status, headers, body = server_load.exchange(client, kind.request)
  assert (status, json.loads(body.decode())['error']['code']) == (
      503, 'timed_out')
  assert int(headers['retry-after']) >= 1
