"""Tests of serving/exports/tflite_metadata.py: other programs can read it.

The Task library of tflite-support 0.4.4, whose requirements contradict those of
TensorFlow, read such models in November 2026, too: see docs/export.md.
"""

import io
import zipfile

import numpy as np
import pytest

from compat import tf
from serving.exports import tflite
from serving.model import graph_info

try:  # With TensorFlow 1.15 only for the export to ONNX.
  import flatbuffers
except ImportError:
  flatbuffers = None

needs_flatbuffers = pytest.mark.skipif(
    flatbuffers is None, reason='flatbuffers is not installed')

LABELS = ['Blüte', 'leaf']
SIZE = 8


def graph_of(preprocessing='inception', channels=3):
  """Returns a frozen graph of one layer, and the function that it computes."""
  weights = np.linspace(-1, 1, channels * 2).reshape([channels, 2])
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, [1, SIZE, SIZE, channels], 'input')
    logits = tf.matmul(tf.reduce_mean(images, [1, 2]),
                       tf.constant(weights, tf.float32))
    predictions = tf.nn.softmax(logits, name='predictions')
    graph_def = graph.as_graph_def()
  graph_info.attach(graph_def, graph_info.GraphInfo(
      graph_info.FORMAT, 'lenet', LABELS, 0, SIZE, channels, preprocessing,
      'input:0', 'float', logits.name, predictions.name, logits.name,
      'model.ckpt-7'))

  def scores(image):
    values = np.exp(image.mean(axis=(1, 2)) @ weights)
    return values / values.sum()
  return graph_def, scores


class Table:
  """A table of a FlatBuffer, whose fields have numbers."""

  def __init__(self, data, position=None):
    self._table = flatbuffers.table.Table(data, position or int.from_bytes(
        data[:4], 'little'))

  def _place(self, number):
    return self._table.Offset(4 + 2 * number)

  def has(self, number):
    return self._place(number) != 0

  def number(self, number, kind):
    return self._table.Get(getattr(flatbuffers.number_types, kind + 'Flags'),
                           self._table.Pos + self._place(number))

  def text(self, number):
    return self._table.String(self._table.Pos + self._place(number)).decode()

  def vector(self, number, kind):
    return self._table.GetVectorAsNumpy(
        getattr(flatbuffers.number_types, kind + 'Flags'), self._place(number))

  def table(self, number):
    return Table(self._table.Bytes, self._table.Indirect(
        self._table.Pos + self._place(number)))

  def tables(self, number):
    place = self._place(number)
    start = self._table.Vector(place)
    return [Table(self._table.Bytes, self._table.Indirect(start + 4 * index))
            for index in range(self._table.VectorLen(place))]


def read_metadata(content):
  """Returns the fields that an app reads: {name: value}."""
  model = Table(content)
  entries = {entry.text(0): entry.number(1, 'Uint32')
             for entry in model.tables(6)}
  assert 'min_runtime_version' in entries, 'of the converter; must be kept'
  data = model.tables(4)[entries['TFLITE_METADATA']].vector(
      0, 'Uint8').tobytes()
  assert data[4:8] == b'M001'
  root = Table(data)
  subgraph, = root.tables(3)
  (image,), (scores,) = subgraph.tables(2), subgraph.tables(3)
  labels, = scores.tables(6)
  found = {
      'model': root.text(0), 'parser': root.text(7), 'input': image.text(1),
      'content': image.table(3).number(0, 'Uint8'),
      'color': image.table(3).table(1).number(0, 'Int8'),
      'file': labels.text(0), 'file type': labels.number(2, 'Int8')}
  if image.has(4):
    unit, = image.tables(4)
    assert unit.number(0, 'Uint8') == 1  # NormalizationOptions.
    for name, table, number in (
        ('mean', unit.table(1), 0), ('deviation', unit.table(1), 1),
        ('largest', image.table(5), 0), ('least', image.table(5), 1)):
      found[name] = table.vector(number, 'Float32').tolist()
  return found


@pytest.mark.parametrize('quantization', [tflite.NONE, tflite.FLOAT16])
def test_model_with_metadata_computes_the_same(quantization):
  graph_def, scores = graph_of()
  content = tflite.convert(graph_def, quantization)
  image = np.random.RandomState(0).uniform(-1, 1, [1, SIZE, SIZE, 3]).astype(
      np.float32)
  model = tflite.Model(content, graph_info.require(graph_def))
  np.testing.assert_allclose(model.scores(image)[0], scores(image)[0],
                             atol=1e-3)
  assert model.milliseconds() > 0


def test_labels_are_a_file_in_a_zip_archive():
  content = tflite.convert(graph_of()[0])
  assert content[4:8] == b'TFL3'
  # (The converter of 1.15 is not deterministic with float16.)
  assert content == tflite.convert(graph_of()[0])
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    assert archive.namelist() == ['labels.txt']
    assert archive.read('labels.txt').decode('utf-8') == 'Blüte\nleaf\n'


@needs_flatbuffers
def test_metadata_has_what_an_app_needs():
  graph_def, _ = graph_of()
  found = read_metadata(tflite.convert(graph_def))
  info = graph_info.require(graph_def)
  assert found == {
      'model': 'lenet', 'parser': '1.0.0', 'input': tflite.describe_input(info),
      'content': 2, 'color': 1, 'file': 'labels.txt', 'file type': 2,
      'mean': [127.5] * 3, 'deviation': [127.5] * 3,
      'largest': [1] * 3, 'least': [-1] * 3}


@needs_flatbuffers
def test_metadata_has_the_means_of_vgg():
  found = read_metadata(tflite.convert(graph_of('vgg')[0]))
  np.testing.assert_allclose(found['mean'], [123.68, 116.78, 103.94], 1e-6)
  assert found['deviation'] == [1] * 3
  np.testing.assert_allclose(found['least'], [-123.68, -116.78, -103.94], 1e-6)


@needs_flatbuffers
def test_metadata_of_grey_images_has_one_channel():
  found = read_metadata(tflite.convert(graph_of('lenet', 1)[0]))
  assert (found['color'], found['mean']) == (2, [128])
  assert found['deviation'] == [128]


@needs_flatbuffers
def test_metadata_has_no_scaling_that_depends_on_the_photo():
  found = read_metadata(tflite.convert(graph_of('cifarnet')[0]))
  assert 'mean' not in found and 'standard deviation' in found['input']
