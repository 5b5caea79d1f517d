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


def read_metadata(content):
  """Returns the fields that an app reads: {name: value}."""
  flatbuffers = pytest.importorskip('flatbuffers')
  from tensorflow.lite.python import schema_py_generated as schema
  model = schema.Model.GetRootAs(content, 0)
  entries = {model.Metadata(number).Name(): model.Metadata(number).Buffer()
             for number in range(model.MetadataLength())}
  buffer = model.Buffers(entries[b'TFLITE_METADATA'])
  data = buffer.DataAsNumpy().tobytes()
  assert data[4:8] == b'M001'
  assert b'min_runtime_version' in entries, 'the entries before must be kept'

  def field(table, number, flags=None):
    place = table.Offset(4 + 2 * number)
    if not place:
      return None
    if flags is not None:
      return table.Get(flags, table.Pos + place)
    return table.Indirect(table.Pos + place)

  def table(position):
    return flatbuffers.table.Table(data, position)

  def first(parent, number):
    place = parent.Offset(4 + 2 * number)
    assert parent.VectorLen(place) == 1
    return table(parent.Indirect(parent.Vector(place)))

  def floats(parent, number):
    place = parent.Offset(4 + 2 * number)
    return parent.GetVectorAsNumpy(
        flatbuffers.number_types.Float32Flags, place).tolist()

  def text(parent, number):
    return parent.String(parent.Pos + parent.Offset(4 + 2 * number)).decode()

  int8, uint8 = (flatbuffers.number_types.Int8Flags,
                 flatbuffers.number_types.Uint8Flags)
  root = table(flatbuffers.encode.Get(
      flatbuffers.packer.uoffset, data, 0))
  subgraph = first(root, 3)
  image, scores = first(subgraph, 2), first(subgraph, 3)
  content_table = table(field(image, 3))
  labels = first(scores, 6)
  found = {
      'model': text(root, 0), 'parser': text(root, 7),
      'input': text(image, 1), 'content': field(content_table, 0, uint8),
      'color': field(table(field(content_table, 1)), 0, int8),
      'file': text(labels, 0), 'file type': field(labels, 2, int8)}
  if image.Offset(4 + 2 * 4):
    unit = first(image, 4)
    assert field(unit, 0, uint8) == 1  # NormalizationOptions.
    options, stats = table(field(unit, 1)), table(field(image, 5))
    found.update(mean=floats(options, 0), deviation=floats(options, 1),
                 largest=floats(stats, 0), least=floats(stats, 1))
  return found


@pytest.mark.parametrize('quantization', [tflite.NONE, tflite.FLOAT16])
def test_model_with_metadata_computes_the_same(quantization):
  graph_def, scores = graph_of()
  content = tflite.convert(graph_def, quantization)
  assert content == tflite.convert(graph_def, quantization)
  image = np.random.RandomState(0).uniform(-1, 1, [1, SIZE, SIZE, 3]).astype(
      np.float32)
  model = tflite.Model(content, graph_info.require(graph_def))
  np.testing.assert_allclose(model.scores(image)[0], scores(image)[0],
                             atol=1e-3)
  assert model.milliseconds() > 0


def test_labels_are_a_file_in_a_zip_archive():
  content = tflite.convert(graph_of()[0])
  assert content[4:8] == b'TFL3'
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    assert archive.namelist() == ['labels.txt']
    assert archive.read('labels.txt').decode('utf-8') == 'Blüte\nleaf\n'


def test_metadata_has_what_an_app_needs():
  graph_def, _ = graph_of()
  found = read_metadata(tflite.convert(graph_def))
  info = graph_info.require(graph_def)
  assert found == {
      'model': 'lenet', 'parser': '1.0.0', 'input': tflite.describe_input(info),
      'content': 2, 'color': 1, 'file': 'labels.txt', 'file type': 2,
      'mean': [127.5] * 3, 'deviation': [127.5] * 3,
      'largest': [1] * 3, 'least': [-1] * 3}


def test_metadata_has_the_means_of_vgg():
  found = read_metadata(tflite.convert(graph_of('vgg')[0]))
  np.testing.assert_allclose(found['mean'], [123.68, 116.78, 103.94], 1e-6)
  assert found['deviation'] == [1] * 3
  np.testing.assert_allclose(found['least'], [-123.68, -116.78, -103.94], 1e-6)


def test_metadata_of_grey_images_has_one_channel():
  found = read_metadata(tflite.convert(graph_of('lenet', 1)[0]))
  assert (found['color'], found['mean']) == (2, [128])
  assert found['deviation'] == [128]


def test_metadata_has_no_scaling_that_depends_on_the_photo():
  found = read_metadata(tflite.convert(graph_of('cifarnet')[0]))
  assert 'mean' not in found and 'standard deviation' in found['input']
