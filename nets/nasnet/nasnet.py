"""NASNet-A, for photos of 331 x 331, 224 x 224 and CIFAR-10's 32 x 32.

Barret Zoph, Vijay Vasudevan, Jonathon Shlens, Quoc V. Le:
Learning Transferable Architectures for Scalable Image Recognition.
arXiv:1707.07012, figures 2 and 4; the cells are in nasnet_utils.py.

  with slim.arg_scope(nasnet_large_arg_scope()):
    logits, end_points = build_nasnet_large(images, num_classes=1001,
                                            is_training=False)
  probabilities = end_points['Predictions']

Variables and end points have no common scope, as in the published checkpoints:
cell_0/1x1/weights. A second network in the same graph needs a scope around it.

Differences from the paper:
- The paper does not say how the previous layer is reduced to the size of a
  cell's input; here two 1x1 convolutions read every other pixel each
  (nasnet_utils.factorized_reduction).
- In the large network the cell after a reduction reads the layer before the
  reduction's input; figure 2 has no such path
  (skip_reduction_layer_input).
"""

from typing import Optional

from compat import slim, tf
from nets.nasnet import cell_network
from nets.nasnet.cell_network import Step
from nets.nasnet.hparams import HParams, network_config
from nets.nasnet.nasnet_utils import (
  NasNetANormalCell,
  NasNetAReductionCell,
  calc_reduction_layers,
)
from nets.network_types import ArgScope, NetworkOutput, Number, image_size


def cifar_config() -> HParams:
  """Returns the settings of NASNet-A (6 @ 768), as an HParams."""
  return network_config(
      num_cells=18, num_conv_filters=32, stem_multiplier=3.0,
      drop_path_keep_prob=0.6, dense_dropout_keep_prob=1.0,
      skip_reduction_layer_input=0,
      # 600 epochs of 50 000 images in batches of 32.
      total_training_steps=937500)


def mobile_imagenet_config() -> HParams:
  """Returns the settings of NASNet-A (4 @ 1056), as an HParams."""
  return network_config(
      num_cells=12, num_conv_filters=44, stem_multiplier=1.0,
      drop_path_keep_prob=1.0, dense_dropout_keep_prob=0.5,
      skip_reduction_layer_input=0)


def large_imagenet_config() -> HParams:
  """Returns the settings of NASNet-A (6 @ 4032), as an HParams."""
  return network_config(
      num_cells=18, num_conv_filters=168, stem_multiplier=3.0,
      drop_path_keep_prob=0.7, dense_dropout_keep_prob=0.5,
      skip_reduction_layer_input=1)


def _arg_scope(weight_decay, batch_norm_decay, batch_norm_epsilon):
  with slim.arg_scope(
      [slim.fully_connected, slim.conv2d, slim.separable_conv2d],
      weights_regularizer=slim.l2_regularizer(weight_decay),
      weights_initializer=slim.variance_scaling_initializer(mode='FAN_OUT'),
      activation_fn=None):
    with slim.arg_scope([slim.fully_connected], scope='FC'), slim.arg_scope(
        [slim.conv2d, slim.separable_conv2d], biases_initializer=None):
      with slim.arg_scope([slim.batch_norm], decay=batch_norm_decay,
                          epsilon=batch_norm_epsilon, scale=True,
                          fused=True) as scope:
        return scope


def nasnet_cifar_arg_scope(weight_decay: float = 5e-4,
                           batch_norm_decay: float = 0.9,
                           batch_norm_epsilon: float = 1e-5) -> ArgScope:
  """Returns the arg scope of `build_nasnet_cifar`.

  Args:
    weight_decay: factor of the L2 loss of the weights.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance to avoid division by zero.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  return _arg_scope(weight_decay, batch_norm_decay, batch_norm_epsilon)


def nasnet_mobile_arg_scope(weight_decay: float = 4e-5,
                            batch_norm_decay: float = 0.9997,
                            batch_norm_epsilon: float = 1e-3) -> ArgScope:
  """Returns the arg scope of `build_nasnet_mobile`; see the one of CIFAR."""
  return _arg_scope(weight_decay, batch_norm_decay, batch_norm_epsilon)


def nasnet_large_arg_scope(weight_decay: float = 5e-5,
                           batch_norm_decay: float = 0.9997,
                           batch_norm_epsilon: float = 1e-3) -> ArgScope:
  """Returns the arg scope of `build_nasnet_large`; see the one of CIFAR."""
  return _arg_scope(weight_decay, batch_norm_decay, batch_norm_epsilon)


def _steps(config):
  """Returns the cells after the stem, normal ones and reductions.

  Shapes are those of nasnet_large at 331 x 331.
  """
  reductions = calc_reduction_layers(config.num_cells,
                                     config.num_reduction_layers)
  steps = []
  filter_scaling = 1.0
  for number in range(config.num_cells):
    skip = 0
    if number in reductions:
      filter_scaling *= config.filter_scaling_rate
      index = reductions.index(number)
      steps.append(Step('Reduction_Cell_%d' % index,
                        'reduction_cell_%d' % index, NasNetAReductionCell, 2,
                        filter_scaling))  # 21 x 21 x 1344, 11 x 11 x 2688
      skip = 1 if config.skip_reduction_layer_input else 0
    # Six of 42 x 42 x 1008, six of 21 x 21 x 2016, six of 11 x 11 x 4032.
    steps.append(Step('Cell_%d' % number, 'cell_%d' % number,
                      NasNetANormalCell, 1, filter_scaling, skip))
  return steps


def _build_imagenet(images, num_classes, is_training, final_endpoint, config,
                    current_step):
  stem_steps = cell_network.imagenet_stem_steps(NasNetAReductionCell, config)
  return cell_network.build_network(
      images, num_classes, is_training, config, cell_network.IMAGENET_STEM,
      stem_steps + _steps(config), final_endpoint, current_step)


@image_size(32)
def build_nasnet_cifar(images: tf.Tensor, num_classes: Optional[int],
                       is_training: bool = True,
                       config: Optional[HParams] = None,
                       current_step: Optional[Number] = None,
                       final_endpoint: Optional[str] = None) -> NetworkOutput:
  """Builds NASNet-A for CIFAR-10.

  Args:
    images: `[batch, 32, 32, 3]` float32; other sizes work too.
    num_classes: number of classes; 0 or None: no classifiers are built.
    is_training: whether dropout is active, paths are dropped, batch
      statistics are used and the auxiliary classifier is built.
    config: settings; None: `cifar_config()`.
    current_step: step of the training, for the paths that are dropped; None:
      the global step.
    final_endpoint: name of the last end point to build; None: all are built.

  Returns:
    Logits `[batch, num_classes]`, or without classes the pooled features
    `[batch, 768]`, or the end point `final_endpoint`; and a dict of end points.

  Raises:
    ValueError: `final_endpoint` or the data format is unknown, or the auxiliary
      classifier is requested and the photos' size is unknown or too small.
  """
  config = config or cifar_config()
  return cell_network.build_network(
      images, num_classes, is_training, config, cell_network.CIFAR_STEM,
      _steps(config), final_endpoint, current_step)


@image_size(224)
def build_nasnet_mobile(images: tf.Tensor, num_classes: Optional[int],
                        is_training: bool = True,
                        final_endpoint: Optional[str] = None,
                        config: Optional[HParams] = None,
                        current_step: Optional[Number] = None) -> NetworkOutput:
  """Builds NASNet-A for phones, as `build_nasnet_cifar`.

  The input is 224 x 224, the number of features 1056.
  """
  return _build_imagenet(images, num_classes, is_training, final_endpoint,
                         config or mobile_imagenet_config(), current_step)


@image_size(331)
def build_nasnet_large(images: tf.Tensor, num_classes: Optional[int],
                       is_training: bool = True,
                       final_endpoint: Optional[str] = None,
                       config: Optional[HParams] = None,
                       current_step: Optional[Number] = None) -> NetworkOutput:
  """Builds the large NASNet-A, as `build_nasnet_cifar`.

  The input is 331 x 331, the number of features 4032.
  """
  return _build_imagenet(images, num_classes, is_training, final_endpoint,
                         config or large_imagenet_config(), current_step)
