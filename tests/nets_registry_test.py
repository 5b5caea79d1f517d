"""Each network of the registry against what slim's is (data/nets).

One graph a network, because building them is what takes the time: an
evaluation network of unknown batch size, built inside scopes of the caller;
then a training network that uses its variables again.
"""

import glob
import os
from collections import namedtuple

import nets_facts
import numpy as np
import pytest

from compat import slim, tf
from nets import nets_factory

# Parameters with 11 classes, moving statistics included.
PARAMETERS = {
    'cifarnet': 1756619,
    'inception_v4': 43791126,
    'lenet': 3275659,
    'mobilenet_v1': 3240139,
    'mobilenet_v1_025': 221371,
    'mobilenet_v1_050': 835179,
    'mobilenet_v1_075': 1841435,
}

Built = namedtuple('Built', 'name row facts graph images logits end_points '
                            'variables updates train_logits train_end_points '
                            'variables_after')


@pytest.fixture(scope='module', params=sorted(nets_factory.NETWORKS))
def built(request):
  name = request.param
  row = nets_factory.get_network(name)
  shape = [row.image_size, row.image_size, row.channels]
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, [None] + shape)
    with tf.device('/device:CPU:0'), slim.arg_scope(
        [slim.conv2d, slim.separable_conv2d], outputs_collections='of_caller'):
      logits, end_points = nets_factory.get_network_fn(
          name, nets_facts.NUM_CLASSES, weight_decay=0.1)(images)
    variables = tf.global_variables()
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      train_logits, train_end_points = nets_factory.get_network_fn(
          name, nets_facts.NUM_CLASSES, is_training=True)(
              tf.zeros([2] + shape))
    yield Built(name, row, nets_facts.load(name), graph, images, logits,
                end_points, variables, updates, train_logits,
                train_end_points, tf.global_variables())


def test_network_evaluation_has_the_published_variables(built):
  shapes = nets_facts.shapes({v.op.name: v for v in built.variables})
  assert shapes == built.facts['variables']
  assert sum(v.shape.num_elements() for v in built.variables) == PARAMETERS[
      built.name]


def test_parameter_table_covers_every_network_and_every_fact():
  files = glob.glob(os.path.join(nets_facts.FOLDER, '*.json'))
  names = {os.path.splitext(os.path.basename(file))[0] for file in files}
  assert set(PARAMETERS) == set(nets_factory.NETWORKS) == names
  for name, count in PARAMETERS.items():
    assert nets_facts.load(name)['n_params'] == count


def test_network_unknown_batch_has_the_end_points(built):
  shapes = nets_facts.shapes(built.end_points)
  expected = {name: [None] + shape[1:]
              for name, shape in built.facts['end_points'].items()}
  assert shapes == expected
  assert built.logits is built.end_points['Logits']


def test_network_evaluation_has_slims_output_nodes(built):
  assert built.logits.op.name == built.facts['output_nodes']['logits']
  assert (built.end_points['Predictions'].op.name ==
          built.facts['output_nodes']['predictions'])


def test_network_seeded_weights_give_the_reference_logits(built):
  with tf.Session(graph=built.graph) as session:
    nets_facts.load_seeded_weights(session, built.variables)
    image = nets_facts.seeded_image(built.row.image_size, built.row.channels)
    logits, predictions = session.run(
        [built.logits, built.end_points['Predictions']], {built.images: image})
  expected = np.array(built.facts['logits'])
  np.testing.assert_allclose(logits, expected, rtol=0,
                             atol=1e-3 * abs(expected).max())
  exponents = np.exp(logits - logits.max())
  np.testing.assert_allclose(predictions, exponents / exponents.sum(),
                             rtol=1e-5)


def test_network_evaluation_updates_no_moving_averages(built):
  assert built.updates == []


def test_network_training_updates_each_moving_average(built):
  with built.graph.as_default():
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  moving = [v for v in built.variables if '/moving_' in v.op.name]
  assert len(updates) == len(moving)


def test_network_second_call_uses_the_variables_again(built):
  assert built.variables_after == built.variables
  assert (nets_facts.shapes(built.train_end_points).keys() ==
          nets_facts.shapes(built.end_points).keys())


def test_network_training_gives_each_trainable_variable_a_gradient(built):
  outputs = [built.train_logits]
  if 'AuxLogits' in built.train_end_points:
    outputs.append(built.train_end_points['AuxLogits'])
  with built.graph.as_default():
    trainable = tf.trainable_variables()
    gradients = tf.gradients(outputs, trainable)
  without = [variable.op.name
             for variable, gradient in zip(trainable, gradients)
             if gradient is None]
  assert without == []
  assert {v.op.name for v in trainable} == {
      name for name in built.facts['variables'] if '/moving_' not in name}


def test_network_keeps_the_device_of_the_caller(built):
  assert {v.device for v in built.variables} == {'/device:CPU:0'}
  assert built.logits.device == '/device:CPU:0'


def test_network_keeps_the_arg_scope_of_the_caller(built):
  convolutions = [v for v in built.variables
                  if v.op.name.endswith('weights') and len(v.shape) == 4]
  with built.graph.as_default():
    assert len(tf.get_collection('of_caller')) == len(convolutions) > 1


def test_network_weight_decay_adds_losses_of_weights_only(built):
  with built.graph.as_default():
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  weights = [name for name in built.facts['variables']
             if name.endswith('/weights')]
  if built.name == 'cifarnet':  # Only its hidden fully connected layers.
    weights = ['CifarNet/fc3/weights', 'CifarNet/fc4/weights']
  assert len(losses) == len(weights)


def test_network_row_names_the_scopes_that_depend_on_the_classes(built):
  by_classes = {name for name, shape in built.facts['variables'].items()
                if shape[-1] == nets_facts.NUM_CLASSES}
  in_scopes = {name for name in built.facts['variables']
               if name.startswith(tuple(scope + '/' for scope in
                                        built.row.classifier_scopes))}
  assert by_classes <= in_scopes
  # And not much more: the auxiliary head of Inception V4 has layers before.
  assert all('Logits/' in name or name in by_classes for name in in_scopes)


def test_network_row_names_the_end_point_that_feeds_the_classifier(built):
  features = built.end_points[built.row.features]
  weights = [v for v in built.variables
             if v.op.name.startswith(built.row.classifier_scopes[0] + '/') and
             v.shape.as_list()[-1] == nets_facts.NUM_CLASSES and
             len(v.shape) > 1]
  assert len(weights) == 1
  assert features.shape.as_list()[-1] == weights[0].shape.as_list()[-2]
  with built.graph.as_default():
    assert tf.gradients(built.logits, features) != [None]


def test_network_row_has_the_reference_image_size(built):
  assert built.row.image_size == built.facts['image_size']
  assert built.row.channels == built.images.shape.as_list()[3]
