"""Table of all networks by name, one row each, and functions to build them.

  network_fn = nets_factory.get_network_fn('inception_v4', num_classes=1001)
  logits, end_points = network_fn(images)

To add a network, write its module and its row: then all programs accept its
name. Published checkpoints are rows of runs/published.py. The tests need its
facts in tests/nets/registry_test.py.
"""

import functools
import inspect
from typing import Callable, NamedTuple, Optional, Tuple

from common.errors import unknown_name
from compat import slim, tf
from nets import (
  alexnet,
  cifarnet,
  inception,
  lenet,
  mobilenet_v1,
  overfeat,
  resnet_v1,
  resnet_v2,
  vgg,
)
from nets.mobilenet import mobilenet_v2
from nets.nasnet import nasnet, pnasnet


class Cost(NamedTuple):
  """Size of a network and cost per photo, counted from the graph."""

  # Outputs of the published checkpoint, or of the network's own data set if
  # there is none.
  classes: int
  # Trainable parameters that the logits need, without moving statistics and
  # auxiliary heads, as the papers count.
  parameters: int
  # Of convolutions and matrix products, at the network's image size.
  multiply_adds: int


class Network(NamedTuple):
  """One row of NETWORKS."""

  # Builds the network.
  function: Callable
  # Function from weight_decay to the arg scope.
  arg_scope: Callable
  # Name of the family in preprocessing_factory.
  preprocessing: str
  # Default height and width in pixels.
  image_size: int
  # Of the image.
  channels: int
  # Variables to exclude when a checkpoint with other classes is restored, and
  # to train alone when only the classifier is fine-tuned.
  classifier_scopes: Tuple[str, ...]
  # The end point that feeds the classifier.
  features: str
  # None: not counted.
  cost: Optional[Cost] = None


def _network(function, arg_scope, preprocessing, classifier_scopes, features,
             cost, channels=3, image_size=None):
  return Network(function, arg_scope, preprocessing,
                 image_size or function.default_image_size, channels,
                 classifier_scopes, features, cost)


def _plain(function, arg_scope, cost):
  name = function.__name__
  return _network(function, arg_scope, 'vgg', (name + '/fc8',), name + '/fc7',
                  cost)


def _resnet_v1(function, cost):
  return _network(function, resnet_v1.resnet_arg_scope, 'vgg',
                  (function.__name__ + '/logits',), 'global_pool', cost)


def _resnet_v2(function, cost):
  # By slim's README, the published checkpoints need Inception preprocessing and
  # 299 x 299; slim's own default size is 224.
  return _network(function, resnet_v2.resnet_arg_scope, 'inception',
                  (function.__name__ + '/logits',), 'global_pool', cost,
                  image_size=299)


def _mobilenet_v1(function, cost):
  return _network(function, mobilenet_v1.mobilenet_v1_arg_scope, 'inception',
                  ('MobilenetV1/Logits',), 'AvgPool_1a', cost)


def _mobilenet_v2(function, cost):
  return _network(function, mobilenet_v2.training_scope, 'inception',
                  ('MobilenetV2/Logits',), 'global_pool', cost)


def _nasnet(function, arg_scope, preprocessing, aux_scope, cost):
  # The scopes of NASNets do not begin with the name of the network.
  return _network(function, arg_scope, preprocessing,
                  ('final_layer', aux_scope), 'global_pool', cost)


NETWORKS = {
    'alexnet_v2': _plain(
        alexnet.alexnet_v2, alexnet.alexnet_v2_arg_scope,
        Cost(1000, 50303912, 736555776)),
    'cifarnet': _network(
        cifarnet.cifarnet, cifarnet.cifarnet_arg_scope, 'cifarnet',
        ('CifarNet/logits',), 'fc4', Cost(10, 1756426, 32778112)),
    'inception_v1': _network(
        inception.inception_v1, inception.inception_v1_arg_scope, 'inception',
        ('InceptionV1/Logits',), 'AvgPool_0a_7x7',
        Cost(1001, 6618649, 1498377216)),
    'inception_v2': _network(
        inception.inception_v2, inception.inception_v2_arg_scope, 'inception',
        ('InceptionV2/Logits',), 'AvgPool_1a',
        Cost(1001, 11179361, 1934858240)),
    'inception_v3': _network(
        inception.inception_v3, inception.inception_v3_arg_scope, 'inception',
        ('InceptionV3/Logits', 'InceptionV3/AuxLogits'), 'PreLogits',
        Cost(1001, 23819401, 5713218144)),
    'inception_v4': _network(
        inception.inception_v4, inception.inception_v4_arg_scope, 'inception',
        ('InceptionV4/Logits', 'InceptionV4/AuxLogits'), 'PreLogitsFlatten',
        Cost(1001, 42649769, 12253976160)),
    'inception_resnet_v2': _network(
        inception.inception_resnet_v2, inception.inception_resnet_v2_arg_scope,
        'inception',
        ('InceptionResnetV2/Logits', 'InceptionResnetV2/AuxLogits'),
        'PreLogitsFlatten', Cost(1001, 55814729, 13155795552)),
    'lenet': _network(
        lenet.lenet, lenet.lenet_arg_scope, 'lenet', ('LeNet/fc4',), 'fc3',
        Cost(10, 3274634, 13883904), channels=1),
    'mobilenet_v1': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1, Cost(1001, 4233001, 568741376)),
    'mobilenet_v1_075': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1_075, Cost(1001, 2586329, 325401216)),
    'mobilenet_v1_050': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1_050, Cost(1001, 1332105, 149497600)),
    'mobilenet_v1_025': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1_025, Cost(1001, 470329, 41030528)),
    'mobilenet_v2': _mobilenet_v2(
        mobilenet_v2.mobilenet, Cost(1001, 3506153, 300775552)),
    'mobilenet_v2_140': _mobilenet_v2(
        mobilenet_v2.mobilenet_v2_140, Cost(1001, 6110569, 582197616)),
    # Trained with padded random crops and flips, as in 'cifarnet'.
    'nasnet_cifar': _nasnet(
        nasnet.build_nasnet_cifar, nasnet.nasnet_cifar_arg_scope, 'cifarnet',
        'aux_11', Cost(10, 3346538, 544333312)),
    'nasnet_mobile': _nasnet(
        nasnet.build_nasnet_mobile, nasnet.nasnet_mobile_arg_scope,
        'inception', 'aux_7', Cost(1001, 5291035, 563639872)),
    'nasnet_large': _nasnet(
        nasnet.build_nasnet_large, nasnet.nasnet_large_arg_scope, 'inception',
        'aux_11', Cost(1001, 88757183, 23783418690)),
    'overfeat': _plain(
        overfeat.overfeat, overfeat.overfeat_arg_scope,
        Cost(1000, 145704424, 2647011328)),
    'pnasnet_large': _nasnet(
        pnasnet.build_pnasnet_large, pnasnet.pnasnet_large_arg_scope,
        'inception', 'aux_7', Cost(1001, 86061989, 24937400112)),
    'resnet_v1_50': _resnet_v1(
        resnet_v1.resnet_v1_50, Cost(1000, 25557032, 3482255360)),
    'resnet_v1_101': _resnet_v1(
        resnet_v1.resnet_v1_101, Cost(1000, 44549160, 7194476544)),
    'resnet_v1_152': _resnet_v1(
        resnet_v1.resnet_v1_152, Cost(1000, 60192808, 10906697728)),
    'resnet_v1_200': _resnet_v1(
        resnet_v1.resnet_v1_200, Cost(1000, 64673832, 14400552960)),
    'resnet_v2_50': _resnet_v2(
        resnet_v2.resnet_v2_50, Cost(1001, 25570409, 6536213248)),
    'resnet_v2_101': _resnet_v2(
        resnet_v2.resnet_v2_101, Cost(1001, 44579945, 13373518592)),
    'resnet_v2_152': _resnet_v2(
        resnet_v2.resnet_v2_152, Cost(1001, 60238953, 20210823936)),
    'resnet_v2_200': _resnet_v2(
        resnet_v2.resnet_v2_200, Cost(1001, 64728169, 26645934848)),
    'vgg_a': _plain(
        vgg.vgg_a, vgg.vgg_arg_scope, Cost(1000, 132863336, 7609090048)),
    'vgg_16': _plain(
        vgg.vgg_16, vgg.vgg_arg_scope, Cost(1000, 138357544, 15470264320)),
    'vgg_19': _plain(
        vgg.vgg_19, vgg.vgg_arg_scope, Cost(1000, 143667240, 19632062464)),
}

# slim's two tables.
networks_map = {name: row.function for name, row in NETWORKS.items()}
arg_scopes_map = {name: row.arg_scope for name, row in NETWORKS.items()}


def get_network(name):
  """Returns the row of a network.

  Args:
    name: name of the network, as in 'inception_v4'.

  Returns:
    Its Network row.

  Raises:
    ValueError: no network has this name.
  """
  if name not in NETWORKS:
    raise unknown_name('network', name, NETWORKS)
  return NETWORKS[name]


def get_network_fn(name, num_classes, weight_decay=0.0, is_training=False):
  """Returns a function that builds a network under its own arg scope.

  Args:
    name: name of the network, as in 'inception_v4'.
    num_classes: number of classes; 0 or None: the network returns features.
    weight_decay: factor of the L2 loss of the weights.
    is_training: whether the network is built for training.

  Returns:
    `network_fn(images, **kwargs)` that returns `(logits, end_points)`; further
    arguments go to the network's function. `network_fn.default_image_size` is
    in pixels.

  Raises:
    ValueError: no network has this name.
  """
  row = get_network(name)

  @functools.wraps(row.function)
  def network_fn(images, **kwargs):
    # Made here and not outside, because it holds the caller's arg scopes too.
    with slim.arg_scope(row.arg_scope(weight_decay=weight_decay)):
      return row.function(images, num_classes, is_training=is_training,
                          **kwargs)

  network_fn.default_image_size = row.image_size
  return network_fn


def get_predictions(logits, end_points):
  """Returns the class probabilities of a network_fn's result.

  Args:
    logits: `[batch, num_classes]` float tensor.
    end_points: dict of tensors; the probabilities are in 'Predictions', in
      ResNets in 'predictions', or missing (VGG, AlexNet, OverFeat).

  Returns:
    `[batch, num_classes]` in [0, 1]: the network's own node if it has one, else
    a new node 'Predictions'.
  """
  for key in ('Predictions', 'predictions'):
    if key in end_points:
      return end_points[key]
  return tf.nn.softmax(logits, name='Predictions')


def takes_dropout(name):
  """Returns whether a network's function has the argument dropout_keep_prob.

  Args:
    name: name of the network.

  Raises:
    ValueError: no network has this name.
  """
  function = get_network(name).function
  return 'dropout_keep_prob' in inspect.signature(function).parameters


def get_features(name, end_points):
  """Returns the features of each photo that the classifier reads.

  Args:
    name: name of the network.
    end_points: dict of tensors that its network_fn returned.

  Returns:
    `[batch, n]` float tensor; if the end point in the network's row still has a
    height and a width, the mean over them.

  Raises:
    ValueError: no network has this name.
  """
  features = end_points[get_network(name).features]
  return features if features.shape.ndims == 2 else tf.reduce_mean(
      features, [1, 2])
