"""Tests of serving/model/example_photos.py."""

import hashlib

import pytest

from kits import service_kit as kit
from serving.model import example_photos

CHECKPOINT, LABELS = 'model.ckpt-7', ['daisy', 'rose']
PHOTO = kit.photo()
NOTHING = example_photos.Photos({}, [])


@pytest.fixture
def graph(tmp_path):
  """Path of a graph with an example photo of one class, and of another set."""
  graph = str(tmp_path / 'a_freeze.pb')
  example_photos.replace(graph, example_photos.to_bytes(
      '/somewhere/model.ckpt-7', {'daisy': PHOTO, 'gull': PHOTO},
      [PHOTO, b'no JPEG', b'']))
  return graph


def test_read_returns_the_photos_of_the_classes(graph):
  assert example_photos.read(graph, CHECKPOINT, LABELS) == (
      {'daisy': (hashlib.sha256(PHOTO).hexdigest()[:16], PHOTO)},
      [PHOTO, b'', b''])
  with open(example_photos.path_of(graph)) as file:
    assert 'somewhere' not in file.read()


def test_read_without_a_file_returns_nothing(tmp_path, caplog):
  assert example_photos.read(
      str(tmp_path / 'b.pb'), CHECKPOINT, LABELS) == NOTHING
  assert not caplog.records


def test_read_of_another_graph_returns_nothing(graph, caplog):
  assert example_photos.read(graph, 'model.ckpt-8', LABELS) == NOTHING
  assert 'belongs to another graph' in caplog.text


@pytest.mark.parametrize('content', [
    b'', b'{', b'[]', b'7', b'\xff', b'{"format": 1}',
    b'{"format": 1, "checkpoint": "model.ckpt-7", "photos": 3}',
    b'{"format": 1, "checkpoint": "model.ckpt-7", "photos": {"daisy": "*"}}',
    b'{"format": 1, "checkpoint": "model.ckpt-7", "photos": {"daisy": 3}}',
    b'{"format": 1, "checkpoint": "model.ckpt-7", "photos": {"rose": "PGI+"}}',
    b'{"format": 1, "checkpoint": "model.ckpt-7", "photos": {}, "bank": ["*"]}',
    b'{"format": 1, "checkpoint": "model.ckpt-7", "photos": {}, "bank": 3}',
    b' ' * (32 * 2 ** 20 + 1)], ids=kit.short_id)
def test_read_damaged_file_returns_nothing(graph, content):
  example_photos.replace(graph, content)
  assert example_photos.read(graph, CHECKPOINT, LABELS) == NOTHING


def test_replace_by_none_removes_the_file(graph):
  for _ in range(2):
    example_photos.replace(graph, None)
    assert example_photos.read(graph, CHECKPOINT, LABELS) == NOTHING
