"""Tests of each network in nets_factory.py against slim's (data/nets).

Building takes most of the time, so the tests of a network share one graph. It
contains an evaluation network of unknown batch size at the default image size,
built inside scopes of the caller. For the tests of training it also contains a
second network, at another image size, that reuses the variables.
"""

import glob
import inspect
import itertools
import math
import os
import re
from collections import namedtuple

import numpy as np
import pytest

from benchmarks import graph_costs
from compat import slim, tf
from kits import nets_kit
from nets import nets_factory
from serving.model import graph_files

# Parameters with 11 classes, moving statistics included.
PARAMETERS = {
    'alexnet_v2': 46251979,
    'cifarnet': 1756619,
    'inception_v1': 5618459,
    'inception_v2': 10184387,
    'inception_v3': 24392374,
    'inception_v4': 43791126,
    'inception_resnet_v2': 56961654,
    'lenet': 3275659,
    'mobilenet_edgetpu': 2863403,
    'mobilenet_edgetpu_075': 1751379,
    'mobilenet_v1': 3240139,
    'mobilenet_v1_025': 221371,
    'mobilenet_v1_050': 835179,
    'mobilenet_v1_075': 1841435,
    'mobilenet_v2': 2272075,
    'mobilenet_v2_035': 424299,
    'mobilenet_v2_050': 720315,
    'mobilenet_v2_075': 1396155,
    'mobilenet_v2_130': 3784363,
    'mobilenet_v2_140': 4383435,
    'mobilenet_v3_large': 4240523,
    'mobilenet_v3_large_minimalistic': 2681779,
    'mobilenet_v3_small': 1541243,
    'mobilenet_v3_small_minimalistic': 1043123,
    'nasnet_cifar': 3384555,
    'nasnet_large': 84961181,
    'nasnet_mobile': 4281343,
    'overfeat': 141652491,
    'pnasnet_large': 81961187,
    'pnasnet_mobile': 4029042,
    'resnet_v1_101': 42628043,
    'resnet_v1_152': 58317771,
    'resnet_v1_200': 62823371,
    'resnet_v1_50': 23583691,
    'resnet_v2_101': 42649099,
    'resnet_v2_152': 58354187,
    'resnet_v2_200': 62867979,
    'resnet_v2_50': 23587339,
    'vgg_16': 134305611,
    'vgg_19': 139615307,
    'vgg_a': 128811403,
}

# One network of each family that is built within 3 s. Training networks, logits
# and unknown image sizes of the others would take minutes: they are tested only
# with --full.
QUICK = ('alexnet_v2', 'cifarnet', 'inception_v1', 'lenet', 'mobilenet_v1_025',
         'mobilenet_v2', 'mobilenet_v3_small', 'resnet_v1_50', 'resnet_v2_50')

# Larger networks of families that another network represents. Building all of
# them takes a third of the time of the quick tests.
SIBLINGS = re.compile('p?nasnet|vgg_1|resnet_v\\d_(101|152|200)|'
                      'inception_(resnet_v2|v3)|mobilenet_v1_0[57]|'
                      'mobilenet_(edgetpu|v2_|v3_large|v3_small_)')

# Networks whose variables depend on the image size; cifarnet_and_lenet_test.py
# tests other sizes.
FLAT = ('cifarnet', 'lenet')

# The training network's input is larger by this, except for FLAT. As it is a
# multiple of all strides, each layer grows by exactly this over its own stride.
GROWTH = 32

Evaluation = namedtuple('Evaluation', 'name row facts size graph images logits '
                                      'end_points variables updates')
Training = namedtuple('Training', 'growth logits end_points variables')


def names(quick=None, without=()):
  """Returns one test parameter per network.

  Networks that are not in `quick`, or without `quick` those of SIBLINGS, need
  --full. Each of these runs on one engine, half of them on each.
  """
  engines = dict(zip(sorted(nets_factory.NETWORKS),
                     itertools.cycle(['tf1', 'tf2'])))
  return [name if (name in quick if quick else not SIBLINGS.match(name)) else
          pytest.param(name, marks=[pytest.mark.slow,
                                    pytest.mark.engine(engines[name])])
          for name in engines if name not in without]


def each_network(quick=None):
  """Parametrizes a test with each network; its tests share one graph."""
  return pytest.mark.parametrize('evaluation', names(quick), indirect=True,
                                 scope='module')


@pytest.fixture(scope='module')
def evaluation(request):
  name = request.param
  row = nets_factory.get_network(name)
  facts = nets_kit.load(name)
  size = facts['image_size']
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, [None, size, size, row.channels])
    with tf.device('/device:CPU:0'), slim.arg_scope(
        [slim.conv2d, slim.separable_conv2d],
        variables_collections=['of_caller']):
      logits, end_points = nets_factory.get_network_fn(
          name, nets_kit.NUM_CLASSES, weight_decay=0.1)(images)
    yield Evaluation(name, row, facts, size, graph, images, logits, end_points,
                     tf.global_variables(),
                     tf.get_collection(tf.GraphKeys.UPDATE_OPS))


@pytest.fixture(scope='module')
def training(evaluation):
  """Returns the training network, in the graph of `evaluation`."""
  growth = 0 if evaluation.name in FLAT else GROWTH
  size = evaluation.size + growth
  options = accepted(evaluation.row.function, global_pool=True)
  with evaluation.graph.as_default():
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
      logits, end_points = nets_factory.get_network_fn(
          evaluation.name, nets_kit.NUM_CLASSES, is_training=True)(
              tf.zeros([2, size, size, evaluation.row.channels]), **options)
    return Training(growth, logits, end_points, tf.global_variables())


def accepted(function, **options):
  """Returns the options that the function of a network accepts."""
  parameters = inspect.signature(function).parameters
  return {name: value for name, value in options.items() if name in parameters}


def in_scopes(name, scopes):
  return name.startswith(tuple(scope + '/' for scope in scopes))


def predictions_of(end_points):
  """Returns the probabilities: ResNet's key is lower-case, VGG has none."""
  return end_points.get('Predictions', end_points.get('predictions'))


@each_network()
def test_network_evaluation_has_the_published_variables(evaluation):
  shapes = nets_kit.shapes({v.op.name: v for v in evaluation.variables})
  assert shapes == evaluation.facts['variables']
  assert sum(v.shape.num_elements() for v in evaluation.variables) == (
      PARAMETERS[evaluation.name])


def test_parameter_table_covers_every_network_and_every_facts_file():
  files = glob.glob(os.path.join(nets_kit.FOLDER, '*.json'))
  facts = {os.path.splitext(os.path.basename(file))[0] for file in files}
  assert set(PARAMETERS) == set(nets_factory.NETWORKS) == facts
  for name, count in PARAMETERS.items():
    assert nets_kit.load(name)['n_params'] == count
  assert not [file for file in files if os.path.getsize(file) > 100000]


@each_network()
def test_network_unknown_batch_has_the_end_points(evaluation):
  shapes = nets_kit.shapes(evaluation.end_points)
  expected = {name: [None] + shape[1:]
              for name, shape in evaluation.facts['end_points'].items()}
  assert shapes == expected
  assert evaluation.logits.shape.as_list() == [None, nets_kit.NUM_CLASSES]
  assert evaluation.logits in evaluation.end_points.values()


@each_network()
def test_network_evaluation_has_slims_output_nodes(evaluation):
  nodes = evaluation.facts['output_nodes']
  assert evaluation.logits.op.name == nodes['logits']
  predictions = predictions_of(evaluation.end_points)
  assert nodes['predictions'] == (
      None if predictions is None else predictions.op.name)


@each_network()
def test_network_evaluation_has_only_operations_that_may_be_loaded(evaluation):
  types = {operation.type for operation in evaluation.graph.get_operations()}
  assert types - graph_files.OPERATIONS <= {'VariableV2', 'Assign'}


@each_network(QUICK)
def test_network_seeded_weights_give_the_reference_logits(evaluation):
  predictions = predictions_of(evaluation.end_points)
  fetched = {'logits': evaluation.logits}
  if predictions is not None:
    fetched['predictions'] = predictions
  with tf.Session(graph=evaluation.graph) as session:
    nets_kit.load_seeded_weights(session, evaluation.variables)
    image = nets_kit.seeded_image(evaluation.size, evaluation.row.channels)
    outputs = session.run(fetched, {evaluation.images: image})
  logits, expected = outputs['logits'], np.array(evaluation.facts['logits'])
  np.testing.assert_allclose(logits, expected, rtol=0,
                             atol=1e-3 * abs(expected).max())
  if predictions is not None:
    exponents = np.exp(logits - logits.max())
    np.testing.assert_allclose(outputs['predictions'],
                               exponents / exponents.sum(), rtol=1e-4,
                               atol=1e-7)


@each_network()
def test_network_evaluation_updates_no_moving_averages(evaluation):
  assert evaluation.updates == []


@each_network(QUICK)
def test_network_training_updates_each_moving_average(evaluation, training):
  with evaluation.graph.as_default():
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  moving = [v for v in training.variables if '/moving_' in v.op.name]
  assert len(updates) == len(moving)


@each_network(QUICK)
def test_network_training_reuses_the_variables(evaluation, training):
  count = len(evaluation.variables)
  assert training.variables[:count] == evaluation.variables
  # NASNet has its auxiliary head and a global step only in training.
  new = [v.op.name for v in training.variables[count:]
         if v.op.name != 'global_step']
  assert [name for name in new if not in_scopes(
      name, evaluation.row.classifier_scopes[1:])] == []
  assert bool(new) == ('AuxLogits' in training.end_points and
                       'AuxLogits' not in evaluation.end_points)


def shape_at(growth, name, shape, size):
  """Returns the shape of an end point if the image is larger by `growth`."""
  if len(shape) == 2 or shape[1] == 1 and not name.endswith(('/fc6', '/fc7')):
    return [2] + shape[1:]
  # VGG's fc6 is 1 x 1 over a map of stride 32.
  stride = min(2 ** round(math.log2(size / shape[1])), 32)
  _, height, width, channels = shape
  return [2, height + growth // stride, width + growth // stride, channels]


@each_network(QUICK)
def test_network_training_at_another_size_has_the_end_points(evaluation,
                                                             training):
  shapes = nets_kit.shapes(training.end_points)
  expected = {
      name: shape_at(training.growth, name, shape, evaluation.size)
      for name, shape in evaluation.facts['end_points'].items()}
  # With global_pool=True the end point global_pool replaces the average pool.
  unmatched = set(shapes) ^ set(expected)
  assert {name for name in unmatched if 'AvgPool' not in name} <= {
      'global_pool', 'AuxLogits'}
  assert {name: shapes[name] for name in shapes if name in expected} == {
      name: expected[name] for name in expected if name in shapes}
  assert training.logits.shape.as_list() == [2, nets_kit.NUM_CLASSES]


@each_network(QUICK)
def test_network_training_gives_each_trainable_variable_a_gradient(evaluation,
                                                                   training):
  outputs = [training.logits]
  if 'AuxLogits' in training.end_points:
    outputs.append(training.end_points['AuxLogits'])
  with evaluation.graph.as_default():
    trainable = tf.trainable_variables()
    gradients = tf.gradients(outputs, trainable)
  assert [variable.op.name for variable, gradient in zip(trainable, gradients)
          if gradient is None] == []


@each_network()
def test_network_variables_are_trainable_except_moving_averages(evaluation):
  with evaluation.graph.as_default():
    trainable = {v.op.name for v in tf.trainable_variables()}
  assert {name for name in evaluation.facts['variables']
          if '/moving_' not in name} <= trainable
  assert not [name for name in trainable if '/moving_' in name]


@each_network()
def test_network_keeps_the_device_of_the_caller(evaluation):
  assert {v.device for v in evaluation.variables} == {'/device:CPU:0'}
  assert evaluation.logits.device == '/device:CPU:0'


@each_network()
def test_network_keeps_the_arg_scope_of_the_caller(evaluation):
  with evaluation.graph.as_default():
    labelled = {v.op.name for v in tf.get_collection('of_caller')}
  convolutions = {v.op.name for v in evaluation.variables
                  if v.op.name.endswith('weights') and len(v.shape) == 4}
  assert convolutions
  assert convolutions == {name for name in labelled
                          if name.endswith('weights')}


@each_network()
def test_network_weight_decay_adds_losses_of_weights_only(evaluation):
  with evaluation.graph.as_default():
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  suffixes = ('/weights',)
  if 'nasnet' in evaluation.name:
    suffixes += ('/depthwise_weights', '/pointwise_weights')
  if evaluation.name == 'inception_resnet_v2':  # As in slim; no other does.
    suffixes += ('/biases',)
  weights = [name for name in evaluation.facts['variables']
             if name.endswith(suffixes)]
  if evaluation.name == 'cifarnet':  # Only its hidden fully connected layers.
    weights = ['CifarNet/fc3/weights', 'CifarNet/fc4/weights']
  assert len(losses) == len(weights)


@each_network()
def test_network_row_names_the_scopes_that_depend_on_the_classes(evaluation):
  # nasnet_mobile has 11 filters too, in its stem.
  class_variables = {name
                     for name, shape in evaluation.facts['variables'].items()
                     if shape[-1] == nets_kit.NUM_CLASSES and
                     not name.startswith('cell_stem_')}
  variables_in_scopes = {name for name in evaluation.facts['variables']
                         if in_scopes(name, evaluation.row.classifier_scopes)}
  assert class_variables <= variables_in_scopes
  # The auxiliary head of Inception V4 has layers before its classifier.
  assert all('Logits/' in name or name in class_variables
             for name in variables_in_scopes)


@each_network()
def test_network_row_names_the_end_point_that_feeds_the_classifier(evaluation):
  row = evaluation.row
  features = evaluation.end_points[row.features]
  weights = [v for v in evaluation.variables
             if v.op.name.startswith(row.classifier_scopes[0] + '/') and
             v.shape.as_list()[-1] == nets_kit.NUM_CLASSES and
             len(v.shape) > 1]
  assert len(weights) == 1
  assert features.shape.as_list()[-1] == weights[0].shape.as_list()[-2]
  with evaluation.graph.as_default():
    assert tf.gradients(evaluation.logits, features) != [None]


@each_network()
def test_network_row_has_the_reference_image_size(evaluation):
  row = evaluation.row
  assert row.function.default_image_size == evaluation.facts['image_size']
  if row.image_size != row.function.default_image_size:
    # The published checkpoints expect another size than slim's default.
    assert evaluation.name.startswith('resnet_v2_') and row.image_size == 299
  assert row.channels == evaluation.images.shape.as_list()[3]


@each_network()
def test_network_costs_are_those_of_the_graph(evaluation):
  cost = evaluation.row.cost
  with evaluation.graph.as_default():
    parameters, multiply_adds = graph_costs.count(evaluation.logits)
  # The table counts more classes; the last layer is applied once per photo.
  for variable in evaluation.variables:
    *inputs, outputs = variable.shape.as_list()
    if (outputs == nets_kit.NUM_CLASSES and
        in_scopes(variable.op.name, evaluation.row.classifier_scopes[:1])):
      extra = int(np.prod(inputs)) * (cost.classes - outputs)
      parameters += extra
      multiply_adds += extra if inputs else 0
  if evaluation.row.image_size != evaluation.size:
    multiply_adds = cost.multiply_adds  # list_models_test.py counts these.
  assert (parameters, multiply_adds) == cost[1:]


# NASNet's cells compare the sizes of what they read.
NEED_THE_SIZE = FLAT + ('nasnet_cifar', 'nasnet_large', 'nasnet_mobile',
                        'pnasnet_large', 'pnasnet_mobile')


@pytest.mark.slow
@pytest.mark.parametrize('name', names(QUICK, without=NEED_THE_SIZE))
def test_network_unknown_image_size_has_the_end_points(name):
  row = nets_factory.get_network(name)
  facts = nets_kit.load(name)
  with tf.Graph().as_default():
    logits, end_points = nets_factory.get_network_fn(
        name, nets_kit.NUM_CLASSES)(
            tf.placeholder(tf.float32, [None, None, None, row.channels]),
            **accepted(row.function, create_aux_logits=False,
                       global_pool=True))
    shapes = nets_kit.shapes(end_points)
    assert logits.shape.as_list() == [None, nets_kit.NUM_CLASSES]
    assert {v.op.name for v in tf.global_variables()} == {
        variable for variable in facts['variables']
        if 'AuxLogits' not in variable}
  missing = set(facts['end_points']) - set(shapes)
  assert not [key for key in missing
              if 'AvgPool' not in key and 'AuxLogits' not in key]
  for key in set(shapes) & set(facts['end_points']):
    assert shapes[key][-1] == facts['end_points'][key][-1]
    assert len(shapes[key]) == len(facts['end_points'][key])
