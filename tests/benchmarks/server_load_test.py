"""Tests of benchmarks/server_load.py: correct and wrong replies."""

import json
import re
import socket

import pytest

from benchmarks import server_load
from benchmarks.server_load import Reply
from common.errors import InputError
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from kits.helpers import parsed_flags
from runtime import openvino_model

EXPECTED = [('roses', 0.25), ('tulips', 0.75)]


def to_body(pairs):
  """Returns the body of a reply with (label, probability) pairs."""
  labels, probabilities = zip(*pairs)
  return json.dumps({
      'photos': [{'classes': labels, 'probabilities': probabilities}],
      'milliseconds': 1.0}).encode()


RIGHT_BODY = to_body(reversed(EXPECTED))


@pytest.mark.parametrize('body, right', [
    (RIGHT_BODY, True),
    (to_body([('tulips', 0.750009), ('roses', 0.249991)]), True),
    (to_body([('tulips', 0.75002), ('roses', 0.24998)]), False),
    (to_body([('tulips', 0.25), ('roses', 0.75)]), False),
    (to_body([('tulips', 0.75)]), False),
    (to_body([('tulips', 0.75), ('roses', float('nan'))]), False),
    (b'{"photos": []}', False),
    (b'{"photos": [{"error": {"code": "unreadable_photo"}}]}', False),
    (b'<html>', False),
])
def test_is_right_expected_labels_and_probabilities_are_right(body, right):
  assert server_load.is_right(body, EXPECTED) == right


def test_level_counts_the_replies_by_kind():
  replies = [Reply(0, 200, RIGHT_BODY, 0.1 * number, 0.01 * number)
             for number in range(1, 21)]
  replies += [Reply(0, 503, b'', 0.5, 0.001), Reply(0, 0, b'', 0.5, 0.001),
              Reply(0, 500, b'', 0.5, 0.001),
              # Too late for the rate, but its content is checked.
              Reply(0, 200, b'wrong', 3.0, 1.0)]
  level = server_load.to_level(8, replies, [EXPECTED], 2.05, bare=20.0)
  assert (level.answers, level.refused, level.failed, level.wrong) == (
      21, 1, 2, 1)
  assert level.rate == pytest.approx(20 / 2.0)
  assert level.share == pytest.approx(0.5)
  assert level.p50 == pytest.approx(0.11)
  assert level.p50 < level.p95 < level.p99 <= 1.0


def test_level_without_an_answer_has_rate_zero():
  level = server_load.to_level(8, [Reply(0, 0, b'', 1.0, 1.0)], [EXPECTED],
                               2.0, bare=20.0)
  assert (level.rate, level.share, level.failed) == (0, 0, 1)


@pytest.mark.parametrize('changes, sentence', [
    ({}, None),
    ({'share': 0.94}, '0.940 of the bare session, the bar is 0.950'),
    ({'share': float('nan')}, 'of the bare session'),
    ({'share': 0.2, 'clients': 1}, None),
    ({'wrong': 1, 'clients': 1}, '1 clients: 1 wrong and 0 failed'),
    ({'failed': 2}, '0 wrong and 2 failed'),
    ({'refused': 9}, None),
])
def test_missed_names_the_bar(changes, sentence):
  level = server_load.Level(8, 9, 10.0, 1, 2, 3, 0, 0, 0, 0.96)
  with parsed_flags(server_load.define_flags):
    sentences = server_load.missed([level._replace(**changes)], [])
  assert len(sentences) == bool(sentence)
  assert not sentence or sentence in sentences[0]


def test_missed_names_a_faster_plain_server():
  ours = server_load.Level(8, 9, 10.0, 1, 2, 3, 0, 0, 0, 0.96)
  with parsed_flags(server_load.define_flags):
    assert not server_load.missed([ours], [ours._replace(rate=10.0)])
    sentence, = server_load.missed([ours], [ours._replace(rate=10.1)])
  assert sentence == ('8 clients: 10.00 photos per second, the plain server '
                      'has 10.10')


def test_exchange_reads_a_reply_in_several_pieces():
  client, server = socket.socketpair()
  with client, server:
    server.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: '
                   b'close\r\n\r\nab')
    server.sendall(b'cd')
    status, headers, body = server_load.exchange(client, b'request')
    assert (status, headers['connection'], body) == (200, 'close', b'abcd')
    assert server.recv(100) == b'request'


def test_exchange_closed_connection_is_an_error():
  client, server = socket.socketpair()
  with client:
    server.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab')
    server.close()
    with pytest.raises(OSError):
      server_load.exchange(client, b'')


@pytest.mark.parametrize('value', ['0', '8,x', '1001', ''])
def test_clients_from_flags_invalid_numbers_are_refused(value):
  with parsed_flags(server_load.define_flags, '--clients=' + value):
    server_load.FLAGS.clients = value.split(',')
    with pytest.raises(InputError, match='no number from 1 to 1000'):
      server_load.clients_from_flags()


def test_read_photos_too_few_are_refused(tmp_path):
  (tmp_path / 'a.jpg').write_bytes(b'no photo')
  with pytest.raises(InputError, match='0 usable photos in'):
    server_load.read_photos(str(tmp_path), 1)


@pytest.mark.slow
@pytest.mark.skipif(not openvino_model.is_installed(), reason='no OpenVINO')
def test_main_measures_tensorflow_too(tmp_path, capsys):
  graph = load_kit.export(tmp_path, 'a')
  photos = tmp_path / 'photos'
  photos.mkdir()
  kit.write_photos(photos, 2)
  capsys.readouterr()
  status = kit.run(server_load, '--frozen_file=%s' % graph,
                   '--photos=%s' % photos, '--num_photos=2', '--clients=1',
                   '--seconds=2', '--bare_seconds=0.2', '--bar_clients=9')
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('server.py: OpenVINO ')
  assert re.match('old: TensorFlow .*, float32$', lines[1])
  rows = [line.split() for line in lines
          if re.match(r' *(server\.py|old) +1 ', line)]
  assert [row[0] for row in rows] == ['server.py', 'old']
  for row in rows:
    assert int(row[2]) > 0 and row[7:10] == ['0'] * 3, row
  assert re.match(r'1 clients: [\d.]+ times as many photos per second as old$',
                  lines[-1]), lines
  assert status == 0
