"""Tests of nets/layers_head.py: the head over several layers."""

import numpy as np
import pytest

from compat import slim, tf
from kits.helpers import slow_by_turns
from nets import layers_head, nets_factory

CLASSES = 5
FAST = ('mobilenet_v1_025', 'lenet', 'cifarnet')
HEADS = [layers_head.Head(), layers_head.Head(flip_average=True),
         layers_head.Head(layers_head.KERNEL, True, 7)]


def build(name, head, size=None):
  """Builds a network in the default graph: images, logits, end points."""
  row = nets_factory.get_network(name)
  size = size or row.image_size
  images = tf.placeholder(tf.float32, [None, size, size, row.channels])
  return (images,) + nets_factory.get_network_fn(name, CLASSES,
                                                 head=head)(images)


@pytest.mark.parametrize('name', [
    *FAST, *slow_by_turns(sorted(set(nets_factory.NETWORKS) - set(FAST)))])
def test_head_of_each_network_reads_its_taps_and_its_last_layer(name):
  row = nets_factory.get_network(name)
  assert row.taps and row.features not in row.taps
  tf.reset_default_graph()
  _, logits, points = build(name, layers_head.Head(
      layers_head.KERNEL, support_points=7))
  # In the order of the network, and none is the first third of it.
  operations = tf.get_default_graph().get_operations()
  places = [operations.index(points[tap].op)
            for tap in row.taps + (row.features,)]
  assert places == sorted(places) and places[0] > places[-1] / 4
  sizes = [points[tap].shape.as_list()[-1] for tap in row.taps]
  last = points[row.features].shape.as_list()[-1]
  assert points[layers_head.FEATURES].shape.as_list() == [
      None, sum(sizes) + last]
  assert nets_factory.get_features(name, points).shape.as_list() == [None, last]
  assert (nets_factory.get_predictions(logits, points).op.name ==
          'LayersHead/Predictions')
  assert logits.shape.as_list() == [None, CLASSES]
  head = {v.op.name: v.shape.as_list()
          for v in slim.get_model_variables('LayersHead/')}
  assert head['LayersHead/weights'] == [sum(sizes) + last, CLASSES]
  assert head['LayersHead/Kernel/support'] == [7, min(512, sum(sizes) + last)]
  trained = {v.op.name for v in tf.trainable_variables()} & set(head)
  assert trained == {'LayersHead/weights', 'LayersHead/biases'}


@pytest.mark.parametrize('name', FAST)
def test_mirrored_photos_share_the_variables_of_the_network(name):
  with tf.Graph().as_default():
    build(name, None)
    own = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
  with tf.Graph().as_default():
    build(name, HEADS[2])
    variables = {v.op.name: v.shape.as_list()
                 for v in slim.get_model_variables()}
  assert own == {name: shape for name, shape in variables.items()
                 if not name.startswith('LayersHead/')}


def run_with_random_head(head, photos):
  """Returns {name: value} of cifarnet with random weights."""
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    images, logits, points = build('cifarnet', head)
    session.run(tf.global_variables_initializer())
    rng = np.random.RandomState(0)
    for variable in slim.get_model_variables('LayersHead'):
      variable.load(np.abs(rng.normal(0, 0.1, variable.shape.as_list())),
                    session)
    outputs = {'logits': logits, 'features': points[layers_head.FEATURES],
               'predictions': points['Predictions'],
               'last': nets_factory.get_features('cifarnet', points)}
    row = nets_factory.get_network('cifarnet')
    outputs.update((tap, points[tap]) for tap in row.taps + (row.features,))
    return session.run(outputs, {images: photos})


def means(found, layers):
  return np.concatenate([
      value if value.ndim == 2 else value.mean(axis=(1, 2))
      for value in (found[layer] for layer in layers)], 1)


@pytest.fixture(scope='module')
def photos():
  return np.random.RandomState(1).uniform(-9, 9, [3, 32, 32, 3]).astype('f')


@pytest.mark.parametrize('head', HEADS, ids=str)
def test_features_are_the_means_of_the_layers(photos, head):
  row = nets_factory.get_network('cifarnet')
  layers = row.taps + (row.features,)
  found = run_with_random_head(head, photos)
  expected = means(found, layers)
  if head.flip_average:
    mirrored = run_with_random_head(head, photos[:, :, ::-1])
    expected = (expected + means(mirrored, layers)) / 2
  np.testing.assert_allclose(found['features'], expected, atol=1e-5)
  np.testing.assert_array_equal(
      found['last'], found['features'][:, -found['last'].shape[1]:])
  np.testing.assert_allclose(found['predictions'].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize('head', HEADS, ids=str)
def test_mirrored_photo_has_the_same_logits_only_with_flip_average(
    photos, head):
  both = [run_with_random_head(head, views)['logits']
          for views in (photos, photos[:, :, ::-1])]
  difference = np.abs(both[0] - both[1]).max()
  assert (difference < 1e-4) == head.flip_average


def test_square_roots_are_those_of_the_graph():
  features = np.array([[-4.0, -0.01, 0.0, 0.01, 4.0]], np.float32)
  roots = layers_head.square_roots(features)
  np.testing.assert_allclose(roots, [[-1.99, -0.0905, 0, 0.0905, 1.99]],
                             atol=1e-3)
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float32, [None, 5])
    logits = layers_head.classify(inputs, 5, layers_head.Head())
    session.run(tf.global_variables_initializer())
    weights, = slim.get_model_variables('LayersHead/weights')
    weights.load(np.eye(5), session)
    np.testing.assert_allclose(session.run(logits, {inputs: features}), roots,
                               atol=1e-6)
    # Training all layers needs a finite gradient, also where a mean is 0.
    gradient, = tf.gradients(logits, inputs)
    assert np.isfinite(session.run(gradient, {inputs: features})).all()


@pytest.mark.parametrize('kind', [None, 'logits'])
def test_make_without_layers_returns_none(kind):
  assert layers_head.make(kind, False, 5) is None
  assert layers_head.make('layers', True, 5).support_points == 0
