"""PNASNet-5, for photos of 331 x 331 and 224 x 224.

Chenxi Liu, Barret Zoph, Maxim Neumann, Jonathon Shlens, Wei Hua, Li-Jia Li,
Li Fei-Fei, Alan Yuille, Jonathan Huang, Kevin Murphy:
Progressive Neural Architecture Search. arXiv:1712.00559, figure 1.

  with slim.arg_scope(pnasnet_large_arg_scope()):
    logits, end_points = build_pnasnet_large(images, num_classes=1001,
                                             is_training=False)
  probabilities = end_points['Predictions']

There is only one kind of cell: with stride 2 it is the reduction. As in NASNet,
the network has no scope of its own.

Differences from the paper:
- The paper does not say how the previous layer is reduced to the size of a
  cell's input; here two 1x1 convolutions read every other pixel each
  (nasnet_utils.factorized_reduction).
"""

from typing import Optional

from compat import tf
from nets.nasnet import cell_network, nasnet
from nets.nasnet.cell_network import Step
from nets.nasnet.hparams import HParams, network_config
from nets.nasnet.nasnet_utils import (
  Cell,
  Combination,
  TableCell,
  calc_reduction_layers,
)
from nets.network_types import ArgScope, NetworkOutput, Number, image_size

# Figure 1, left.
PNASNET_5 = Cell((
    Combination('separable_5x5_2', 1, 'max_pool_3x3', 1),
    Combination('separable_7x7_2', 0, 'max_pool_3x3', 0),
    Combination('separable_5x5_2', 0, 'separable_3x3_2', 0),
    Combination('separable_3x3_2', 4, 'max_pool_3x3', 0),
    Combination('separable_3x3_2', 1, 'none', 0),
), output=(2, 3, 4, 5, 6))


class PNasNetNormalCell(TableCell):
  """The cell of PNASNet-5."""

  cell = PNASNET_5


def large_imagenet_config() -> HParams:
  """Returns the settings of PNASNet-5 (N = 4, F = 216), as an HParams."""
  return network_config(
      num_cells=12, num_conv_filters=216, stem_multiplier=3.0,
      drop_path_keep_prob=0.6, dense_dropout_keep_prob=0.5,
      skip_reduction_layer_input=1)


def mobile_imagenet_config() -> HParams:
  """Returns the settings of PNASNet-5 (N = 3, F = 54), as an HParams."""
  return network_config(
      num_cells=9, num_conv_filters=54, stem_multiplier=1.0,
      drop_path_keep_prob=1.0, dense_dropout_keep_prob=0.5,
      skip_reduction_layer_input=1)


def pnasnet_large_arg_scope(weight_decay: float = 4e-5,
                            batch_norm_decay: float = 0.9997,
                            batch_norm_epsilon: float = 0.001) -> ArgScope:
  """Returns the arg scope of `build_pnasnet_large`.

  Args:
    weight_decay: factor of the L2 loss of the weights.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance to avoid division by zero.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  return nasnet.nasnet_large_arg_scope(weight_decay, batch_norm_decay,
                                       batch_norm_epsilon)


# The arg scope of `build_pnasnet_mobile`, with the same defaults.
pnasnet_mobile_arg_scope = pnasnet_large_arg_scope


def _steps(config):
  """Returns all cells, those of the stem first."""
  steps = cell_network.imagenet_stem_steps(PNasNetNormalCell, config)
  reductions = calc_reduction_layers(config.num_cells,
                                     config.num_reduction_layers)
  filter_scaling = 1.0
  for number in range(config.num_cells):
    stride, skip = 1, 0
    if number in reductions:
      filter_scaling *= config.filter_scaling_rate
      stride = 2
      skip = 0 if config.skip_reduction_layer_input else 1
    # Four of 42 x 42 x 1080, four of 21 x 21 x 2160, four of 11 x 11 x 4320.
    steps.append(Step('Cell_%d' % number, 'cell_%d' % number,
                      PNasNetNormalCell, stride, filter_scaling, skip))
  return steps


@image_size(331)
def build_pnasnet_large(images: tf.Tensor, num_classes: Optional[int],
                        is_training: bool = True,
                        final_endpoint: Optional[str] = None,
                        config: Optional[HParams] = None,
                        current_step: Optional[Number] = None) -> NetworkOutput:
  """Builds the large PNASNet-5.

  Args:
    images: `[batch, 331, 331, 3]` float32 in [-1, 1]; other heights and widths
      work too.
    num_classes: number of classes; 0 or None: no classifiers are built.
    is_training: whether dropout is active, paths are dropped, batch
      statistics are used and the auxiliary classifier is built.
    final_endpoint: name of the last end point to build; None: all are built.
    config: settings; None: `large_imagenet_config()`.
    current_step: step of the training, for the paths that are dropped; None:
      the global step.

  Returns:
    Logits `[batch, num_classes]`, or without classes the pooled features
    `[batch, 4320]`, or the end point `final_endpoint`; and a dict of end
    points.

  Raises:
    ValueError: `final_endpoint` or the data format is unknown, or the auxiliary
      classifier is requested and the photos' size is unknown or too small.
  """
  config = config or large_imagenet_config()
  return cell_network.build_network(
      images, num_classes, is_training, config, cell_network.IMAGENET_STEM,
      _steps(config), final_endpoint, current_step)


@image_size(224)
def build_pnasnet_mobile(images: tf.Tensor, num_classes: Optional[int],
                         is_training: bool = True,
                         final_endpoint: Optional[str] = None,
                         config: Optional[HParams] = None,
                         current_step: Optional[Number] = None
                         ) -> NetworkOutput:
  """Builds PNASNet-5 for phones, as the large one.

  The input is 224 x 224, the number of features 1080.
  """
  return build_pnasnet_large(images, num_classes, is_training, final_endpoint,
                             config or mobile_imagenet_config(), current_step)
