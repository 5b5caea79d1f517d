"""Tests of heat_maps.py and heat_map_pictures.py."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

from common import files
from common.errors import InputError
from compat import tf
from kits import graph_kit
from kits import serving_kit as kit
from nets import layers_head, nets_factory
from serving.model import (
  graph_files,
  graph_info,
  heat_map_pictures,
  heat_maps,
  inference_graph,
)
from serving.model.classifier import Classifier, prepare
from serving.model.predictions import HeatMap

# {network: its last feature maps}, for networks that end in a mean and one
# linear layer.
MAPS = {
    'mobilenet_v1_025': 'MobilenetV1/MobilenetV1/Conv2d_13_pointwise/Relu6:0',
    'inception_v1': 'InceptionV1/InceptionV1/Mixed_5c/concat:0',
    'resnet_v2_50': 'resnet_v2_50/postnorm/Relu:0',
    'mobilenet_v2_035': 'MobilenetV2/Conv_1/Relu6:0',
    'nasnet_cifar': 'final_layer/Relu:0',
}
SLOW = ('inception_v1', 'resnet_v2_50', 'mobilenet_v2_035', 'nasnet_cifar')
RED, GREY = (220, 30, 50), (128, 128, 128)


def freeze(folder, model_name, size, batch_size=None):
  """Returns a frozen GraphDef with random weights, and its GraphInfo."""
  prefix = kit.save_checkpoint(folder, model_name, size=size)
  with tf.Graph().as_default():
    graph_def = inference_graph.freeze(inference_graph.build(
        model_name, kit.LABELS, size, batch_size=batch_size), prefix)
  return graph_def, graph_info.require(graph_def)


def make_images(count, size):
  return np.random.RandomState(0).uniform(-1, 1, (count, size, size, 3)).astype(
      np.float32)


def run_graph(graph_def, fetches, feeds):
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    with tf.Session(graph=graph) as session:
      return session.run(fetches, feeds)


@pytest.mark.parametrize('model_name', [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in MAPS])
def test_compute_mean_and_linear_layer_is_class_activation_map(model_name,
                                                               tmp_path):
  size = 224 if model_name == 'inception_v1' else 64  # The least is 193.
  graph_def, info = freeze(tmp_path, model_name, size)
  image, = make_images(1, size)
  scope = nets_factory.get_network(model_name).classifier_scopes[0]
  names = [node.name + ':0' for node in graph_def.node
           if node.name.startswith(scope + '/') and
           node.name.endswith('/weights')]
  maps, weights = run_graph(graph_def, [MAPS[model_name], *names],
                            {info.input: [image]})
  weights = weights.reshape(-1, len(kit.LABELS))
  reference = np.maximum(0, maps[0] @ weights)
  found = heat_maps.HeatMaps(lambda: graph_def, info)
  for index in range(len(kit.LABELS)):
    heat = found.compute(image, index)
    expected = reference[..., index]
    assert heat.shape == maps.shape[1:3] and heat.shape[0] > 1
    np.testing.assert_allclose(
        heat * expected.max(), expected, atol=1e-3 * reference.max())
  found.close()


@pytest.mark.parametrize('flip_average', [False, True])
def test_compute_head_over_layers_adds_the_layers(tmp_path, flip_average):
  head = layers_head.Head(flip_average=flip_average)
  row = nets_factory.get_network('mobilenet_v1_025')
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(0)
    info = inference_graph.build('mobilenet_v1_025', kit.LABELS, 64, head=head)
    session.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
      if variable.op.name.endswith('moving_variance'):
        variable.load(np.full(variable.shape.as_list(), 0.01), session)
    weights = np.random.RandomState(1).normal(
        size=tf.global_variables('LayersHead/weights')[0].shape.as_list())
    tf.global_variables('LayersHead/weights')[0].load(weights, session)
    tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'))
    graph_def = inference_graph.freeze(info, str(tmp_path))
  info = graph_info.require(graph_def)
  image, = make_images(1, 64)
  image[:, :32] *= 0.1
  found = heat_maps.HeatMaps(lambda: graph_def, info)
  heat = found.compute(image, 1)
  assert heat.shape == (4, 4) and heat.max() == 1 and heat.min() >= 0
  if flip_average:
    np.testing.assert_allclose(found.compute(image[:, ::-1], 1), heat[:, ::-1],
                               atol=1e-3)
  # The features are the means of these maps.
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    features = graph.get_tensor_by_name(info.features)
    layers = [layer for layer in found._layers if not layer.is_mirrored]
    assert [layer.columns.stop for layer in layers][-1] == features.shape[1]
    assert len(layers) == len(row.taps) + 1
    assert len(found._layers) == len(layers) * (1 + flip_average)
    with tf.Session() as session:
      means, maps = session.run(
          [features, [layer.maps for layer in found._layers]],
          {info.input: [image]})
  pooled = np.concatenate([array.mean(axis=(1, 2)) for array in
                           maps[:len(layers)]], 1)
  if not flip_average:
    np.testing.assert_allclose(pooled, means, atol=1e-5)


def test_compute_with_hidden_layers_follows_the_gradient(tmp_path):
  graph_def, info = freeze(tmp_path, 'cifarnet', 32)
  image, = make_images(1, 32)
  maps, = run_graph(graph_def, ['CifarNet/norm2:0'], {info.input: [image]})
  # The mean gradient of each map: by how much the logits change if the whole
  # map does.
  step = 1e-3 * maps.max()
  changes = step * np.eye(maps.shape[3])[:, np.newaxis, np.newaxis]
  more, less = (run_graph(graph_def, info.logits, {
      'CifarNet/norm2:0': maps + sign * changes}) for sign in (1, -1))
  heat = heat_maps.HeatMaps(lambda: graph_def, info)
  for index in range(len(kit.LABELS)):
    weights = (more - less)[:, index]
    expected = np.maximum(0, maps[0] @ weights)
    found = heat.compute(image, index)
    assert found.shape == (16, 16) and found.max() == pytest.approx(1)
    np.testing.assert_allclose(found, expected / expected.max(), atol=0.05)


@pytest.mark.slow
def test_compute_graph_of_a_fixed_batch_size_equals_others(tmp_path):
  image, = make_images(1, 64)
  maps = []
  for batch_size in (None, 2):
    graph_def, info = freeze(tmp_path, 'mobilenet_v1_025', 64, batch_size)
    found = heat_maps.HeatMaps(functools.partial(tf.GraphDef.FromString,
                                                 graph_def.SerializeToString()),
                               info)
    maps.append(found.compute(image, 1))
  np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)


def colored(quadrant, size=(96, 64), **options):
  """Returns a grey photo with one red quadrant, as (row, column)."""
  image = Image.new('RGB', size, GREY)
  width, height = size[0] // 2, size[1] // 2
  image.paste(RED, (quadrant[1] * width, quadrant[0] * height,
                    (quadrant[1] + 1) * width, (quadrant[0] + 1) * height))
  stream = io.BytesIO()
  image.save(stream, 'PNG', **options)
  return stream.getvalue()


@pytest.fixture(scope='module')
def colors(tmp_path_factory):
  classifier = Classifier.from_frozen_graph(
      str(graph_kit.write(tmp_path_factory.mktemp('graph'), has_shape=True)))
  yield classifier
  classifier.close()


@pytest.mark.parametrize('quadrant', [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_heat_map_maximum_is_on_the_object(colors, quadrant):
  photo = prepare(colored(quadrant))
  heat_map = colors.heat_map(photo, graph_kit.LABELS.index('daisy'))
  assert heat_map.label == 'daisy'
  values = heat_map.values
  place = np.unravel_index(values.argmax(), values.shape)
  assert tuple(np.array(place) * 2 // graph_kit.SIZE) == quadrant


def test_draw_rotated_photo_is_upright_with_its_map_on_the_object(colors):
  exif = Image.Exif()
  exif[0x0112] = 6  # To be rotated by 90 degrees clockwise.
  photo = prepare(colored((0, 0), exif=exif))
  picture = Image.open(io.BytesIO(heat_map_pictures.draw(
      photo.encoded, colors.heat_map(photo, 0), 96)))
  assert picture.size == (64, 96)
  red, _, blue = np.moveaxis(np.asarray(picture, np.int32), 2, 0)
  yellow = red - blue
  # The red quadrant is at the top right now.
  assert yellow[20:40, 40:56].min() > 60 > 0 > yellow[60:80, 8:56].max()


def test_draw_shades_what_the_network_does_not_see(colors):
  photo = prepare(colored((1, 1), (160, 160)))
  heat_map = colors.heat_map(photo, 0)
  assert heat_map.window == (0.0625, 0.0625, 0.875, 0.875)
  pixels = np.asarray(Image.open(io.BytesIO(heat_map_pictures.draw(
      photo.encoded, heat_map, 160))), np.int32)
  border, inside = pixels[:, 2:6].reshape(-1, 3), pixels[16:60, 16:60]
  assert np.ptp(border, axis=1).max() < 12 and border.max() < 60
  assert (inside[..., 2] - inside[..., 0]).min() > 20


def test_draw_map_of_a_padded_photo_covers_all_of_it():
  heat_map = HeatMap('a', np.ones([2, 2], np.float32), (-0.5, -0.5, 2.0, 2.0))
  pixels = np.asarray(Image.open(io.BytesIO(heat_map_pictures.draw(
      kit.make_photo(0, height=20, width=20), heat_map, 20))), np.int32)
  assert (pixels[..., 0] - pixels[..., 2]).min() > 0


def test_load_reads_the_graph_once_and_not_before(tmp_path):
  graph_def, info = freeze(tmp_path, 'cifarnet', 32)
  reads = []
  found = heat_maps.HeatMaps(lambda: reads.append(1) or graph_def, info)
  assert not reads
  found.load()
  found.compute(make_images(1, 32)[0], 0)
  assert reads == [1]
  found.close()


def test_load_graph_without_features_is_refused(tmp_path):
  graph_def, info = freeze(tmp_path, 'cifarnet', 32)
  found = heat_maps.HeatMaps(lambda: graph_def, info._replace(features=None))
  with pytest.raises(InputError, match='export_freeze.sh'):
    found.load()


def test_load_graph_without_feature_maps_is_refused():
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [None, 4, 4, 3], name='input')
    logits = tf.layers.flatten(images)
    graph_def = tf.get_default_graph().as_graph_def()
  info = graph_info.GraphInfo(
      1, 'flat', ['a'] * 48, 0, 4, 3, 'inception', images.name, 'float',
      logits.name, logits.name, logits.name, None)
  with pytest.raises(InputError, match='no feature maps'):
    heat_maps.HeatMaps(lambda: graph_def, info).load()


def test_frozen_reader_changed_file_is_refused(tmp_path):
  path = str(graph_kit.write(tmp_path))
  read = graph_files.frozen_reader(path)
  assert read().node
  files.write_bytes(path, b'other')
  with pytest.raises(InputError, match='changed since'):
    read()
