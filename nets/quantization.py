"""Simulated 8-bit arithmetic: fake quantization of weights and activations.

Benoit Jacob et al. 2017, arXiv 1712.05877, section 3. Batch norm is folded into
the layers before it. As in slim, tf.contrib.quantize of TensorFlow 1.15
rewrites the graph; TensorFlow 2 does not have it.
"""

import types

from common.errors import InputError
from compat import contrib_quantize, tf


def rewrite_for_training(delay: int) -> None:
  """Rewrites the default graph, which must have no gradients yet.

  Args:
    delay: global step at which quantization begins. From the first step on the
      ranges of the activations are learned.

  Raises:
    InputError: TensorFlow 2, which lacks tf.contrib.quantize.
  """
  library().create_training_graph(tf.get_default_graph(), delay)


def rewrite_for_evaluation() -> None:
  """Rewrites the default graph, of a network in evaluation mode.

  Raises:
    InputError: TensorFlow 2, which lacks tf.contrib.quantize.
  """
  library().create_eval_graph(tf.get_default_graph())


def library() -> types.ModuleType:
  """Returns tf.contrib.quantize.

  Raises:
    InputError: TensorFlow 2, which lacks it.
  """
  quantize = contrib_quantize()
  if quantize is None:
    raise InputError(
        '--quantize_delay and --quantize need tf.contrib.quantize, which '
        'TensorFlow %s does not have: use ENGINE=tf1, or train without them '
        '(--noquantize evaluates and exports a run without) and quantize the '
        'network with scripts/export_tflite.sh --quantize=int8' %
        tf.__version__)
  return quantize
