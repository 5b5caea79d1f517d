"""Shared parts of NASNet and PNASNet: stem, sequence of cells, classifiers.

A network is a list of Step rows, one per cell, made from its settings;
`build_network` builds it. Shapes are those of nasnet_large at 331 x 331.
"""

from typing import Callable, List, NamedTuple, Optional, Sequence

from common.errors import InputError, unknown_name
from compat import slim, tf
from nets.batch_norm import batch_norm
from nets.nasnet import nasnet_utils
from nets.nasnet.hparams import HParams
from nets.network_types import NetworkOutput, Number


class Step(NamedTuple):
  """One cell of the network."""

  # Name of its output, or None.
  end_point: Optional[str]
  scope: str
  # Its class.
  cell: Callable
  stride: int
  # Factor of the channels.
  filter_scaling: float
  # 1 if the previous layer, which the cell reads besides its input, is one
  # further back than usual.
  skip: int = 0


class Stem(NamedTuple):
  """The convolution before all cells."""

  scope: str
  # Of the batch normalization.
  bn_scope: str
  # Channels at stem_multiplier 1; None: as many as the cells have
  # (num_conv_filters).
  width: Optional[int]
  stride: int
  padding: str


CIFAR_STEM = Stem('l1_stem_3x3', 'l1_stem_bn', None, 1, 'SAME')
IMAGENET_STEM = Stem('conv0', 'conv0_bn', 32, 2, 'VALID')  # 165 x 165 x 96


def imagenet_stem_steps(cell: Callable, config: HParams) -> List[Step]:
  """Returns the first two cells, which each halve the size of large photos."""
  rate = config.filter_scaling_rate
  return [
      Step(None, 'cell_stem_0', cell, 2, 1 / rate ** 2),  # 83 x 83 x 168
      Step('Stem', 'cell_stem_1', cell, 2, 1 / rate),     # 42 x 42 x 336
  ]


def build_network(images: tf.Tensor, num_classes: Optional[int],
                  is_training: bool, config: HParams, stem: Stem,
                  steps: Sequence[Step], final_endpoint: Optional[str] = None,
                  current_step: Optional[Number] = None) -> NetworkOutput:
  """Builds a network.

  Args:
    images: `[batch, height, width, 3]` float32.
    num_classes: number of classes; 0 or None: no classifiers are built.
    is_training: whether dropout is active, paths are dropped, batch
      statistics are used and the auxiliary classifier is built.
    config: the network's settings, an HParams.
    stem: a Stem row.
    steps: Step rows.
    final_endpoint: name of the last end point to build; None: all are built.
    current_step: step of the training, for the paths that are dropped; None:
      the global step.

  Returns:
    The end point `final_endpoint`, or if that is None the logits, or without
    classes the pooled features `[batch, channels]`; and a dict of end points.

  Raises:
    ValueError: `final_endpoint` or the data format is unknown, or the auxiliary
      classifier is requested and the photos' size is unknown or too small.
  """
  cells = [step.end_point for step in steps if step.end_point]
  known = ['Stem'] + [cell for cell in cells if cell != 'Stem']
  known += (['global_pool', 'Logits', 'Predictions'] if num_classes
            else ['global_pool'])
  if final_endpoint is not None and final_endpoint not in known:
    raise unknown_name('final_endpoint', final_endpoint, known)
  aux_cell = None
  if config.use_aux_head and num_classes and is_training:
    aux_cell = _aux_cell(config)

  with slim.arg_scope(_network_arg_scope(is_training, config.data_format)):
    if nasnet_utils.get_channel_index() == 1:
      images = tf.transpose(images, [0, 3, 1, 2])
    net = _add_stem(images, stem, config)
    # If no cell belongs to the stem, it is the convolution alone.
    end_points = {} if 'Stem' in cells else {'Stem': net}
    if final_endpoint in end_points:
      return net, end_points
    outputs = _add_cells(net, steps, config, is_training, current_step)
    for step, net in outputs:
      if step.end_point:
        end_points[step.end_point] = net
        if step.end_point == final_endpoint:
          return net, end_points
      if step.scope == aux_cell:
        end_points['AuxLogits'] = _aux_logits(net, num_classes, config,
                                              aux_cell)
    _add_classifier(net, num_classes, config, final_endpoint, end_points)
  return end_points[final_endpoint or ('Logits' if num_classes else
                                       'global_pool')], end_points


def _network_arg_scope(is_training, data_format):
  """Returns the arg scope of all layers, inside the caller's."""
  with slim.arg_scope([slim.dropout, nasnet_utils.drop_path, slim.batch_norm],
                      is_training=is_training):
    with slim.arg_scope(
        [slim.avg_pool2d, slim.max_pool2d, slim.conv2d, slim.batch_norm,
         slim.separable_conv2d, nasnet_utils.factorized_reduction,
         nasnet_utils.global_avg_pool, nasnet_utils.get_channel_index,
         nasnet_utils.get_channel_dim], data_format=data_format) as scope:
      return scope


def _activation(config):
  return tf.nn.relu6 if config.use_bounded_activation else tf.nn.relu


def _add_stem(images, stem, config):
  width = config.num_conv_filters if stem.width is None else stem.width
  net = slim.conv2d(images, int(width * config.stem_multiplier), 3,
                    stride=stem.stride, padding=stem.padding, scope=stem.scope)
  return batch_norm(net, scope=stem.bn_scope)


def _add_cells(net, steps, config, is_training, current_step):
  """Adds the cells; yields each row and its output."""
  keep_prob = config.drop_path_keep_prob if is_training else 1.0
  # Outputs so far, and the factors by which they are smaller than the first.
  outputs, shrinkage = [None, net], [1, 1]
  for number, step in enumerate(steps):
    before = -2 - step.skip
    cell = step.cell(config.num_conv_filters, keep_prob, len(steps),
                     config.total_training_steps, config.use_bounded_activation)
    net = cell(outputs[-1], scope=step.scope,
               filter_scaling=step.filter_scaling, stride=step.stride,
               prev_layer=outputs[before],
               prev_stride=shrinkage[-1] // shrinkage[before],
               cell_num=number, current_step=current_step)
    outputs.append(net)
    shrinkage.append(shrinkage[-1] * step.stride)
    yield step, net


def _aux_cell(config):
  """Returns the scope of the cell that the auxiliary classifier reads.

  It is the last one before the second reduction, at two thirds of the depth.
  """
  reductions = nasnet_utils.calc_reduction_layers(config.num_cells,
                                                  config.num_reduction_layers)
  return 'cell_%d' % (reductions[1] - 1) if len(reductions) > 1 else None


def _aux_logits(net, num_classes, config, cell_scope):
  """Adds the auxiliary classifier."""
  activation = _activation(config)
  axes = [axis for axis in (1, 2, 3)
          if axis != nasnet_utils.get_channel_index()]
  size = [net.shape.as_list()[axis] for axis in axes]
  if None in size or min(size) < 5:
    raise InputError(
        'the auxiliary classifier needs an input of known size, of 5 x 5 '
        'pixels or more, but its height and width are %s; a config with '
        'use_aux_head 0 builds the network without it' % size)
  with tf.variable_scope(cell_scope.replace('cell', 'aux')), \
      tf.variable_scope('aux_logits'):
    net = slim.avg_pool2d(activation(net), 5, stride=3,
                          padding='VALID')           # 6 x 6 x 2016
    net = slim.conv2d(net, 128, 1, scope='proj')     # 6 x 6 x 128
    net = activation(batch_norm(net, scope='aux_bn0'))
    size = [net.shape.as_list()[axis] for axis in axes]
    net = slim.conv2d(net, 768, size, padding='VALID',
                      scope='Conv')                  # 1 x 1 x 768
    net = activation(batch_norm(net, scope='aux_bn1'))
    return slim.fully_connected(slim.flatten(net), num_classes)


def _add_classifier(net, num_classes, config, final_endpoint, end_points):
  """Adds the classifier up to `final_endpoint`, and its end points."""
  with tf.variable_scope('final_layer'):
    net = nasnet_utils.global_avg_pool(_activation(config)(net))  # 4032
    end_points['global_pool'] = net
    if final_endpoint == 'global_pool' or not num_classes:
      return
    net = slim.dropout(net, config.dense_dropout_keep_prob, scope='dropout')
    end_points['Logits'] = slim.fully_connected(net, num_classes)
    if final_endpoint != 'Logits':
      end_points['Predictions'] = tf.nn.softmax(end_points['Logits'],
                                                name='predictions')
