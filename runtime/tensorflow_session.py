"""Forward passes by a TensorFlow session."""

from typing import Any, List, Sequence

import numpy as np

from compat import tf

# Names of the processor's instructions for bfloat16 in /proc/cpuinfo.
_BFLOAT16 = {'avx512_bf16', 'amx_bf16'}

# Grappler's rewrites of a graph, on graphics cards and on processors. That to
# float16 on processors (auto_mixed_precision_cpu) is a slow emulation, and ends
# the process if a histogram is computed too: TensorFlow 2.21.
_CARD_REWRITES = {'float16': 'auto_mixed_precision'}
_PROCESSOR_REWRITES = {'bfloat16': 'auto_mixed_precision_onednn_bfloat16'}


def supports_bfloat16() -> bool:
  """Returns whether TensorFlow and the processor can use bfloat16."""
  if not _has_rewrite(_PROCESSOR_REWRITES['bfloat16']):
    return False
  try:
    with open('/proc/cpuinfo') as file:
      return bool(_BFLOAT16 & set(file.read().split()))
  except OSError:
    return False


def supports(precision: str, has_card: bool) -> bool:
  """Returns whether sessions of this process can compute with a precision.

  Args:
    precision: 'bfloat16' or 'float16'.
    has_card: whether there is a graphics card.
  """
  if has_card:
    return _has_rewrite(_CARD_REWRITES.get(precision))
  if precision == 'bfloat16':
    return supports_bfloat16()
  return _has_rewrite(_PROCESSOR_REWRITES.get(precision))


def _has_rewrite(name):
  return bool(name) and hasattr(
      tf.ConfigProto().graph_options.rewrite_options, name)


def with_precision(config: tf.ConfigProto, precision: str, has_card: bool,
                   is_distributed: bool = False) -> tf.ConfigProto:
  """Returns a config whose sessions compute with a precision where it suits.

  TensorFlow rewrites a graph when a session runs it: convolutions, matrix
  products and what is between them take the precision. Variables keep their
  dtype.

  Args:
    config: tf.ConfigProto; it is not changed.
    precision: 'bfloat16' or 'float16', which `supports` accepts.
    has_card: whether there is a graphics card.
    is_distributed: whether the sessions have a master.
  """
  rewriting = tf.ConfigProto()
  rewriting.CopyFrom(config)
  options = rewriting.graph_options.rewrite_options
  rewrites = _CARD_REWRITES if has_card else _PROCESSOR_REWRITES
  setattr(options, rewrites[precision], options.ON)
  if is_distributed:
    # It would fuse convolutions into operations for which only sessions in this
    # process accept bfloat16.
    options.remapping = options.OFF
  return rewriting


class TensorFlowSession:
  """A graph in a session of its own; safe to run from several threads.

  Args:
    graph_def: frozen GraphDef.
    inputs: names of its placeholders.
    outputs: names of the nodes to compute.
    precision: 'float32', or another one that `supports` accepts.
    has_card: whether there is a graphics card.
    config: tf.ConfigProto of the session, None for the default.
    master: address of the TensorFlow master, '' for this process.
  """

  def __init__(self, graph_def: tf.GraphDef, inputs: Sequence[str],
               outputs: Sequence[str], precision: str = 'float32',
               has_card: bool = False, config: Any = None,
               master: str = '') -> None:
    settings = tf.ConfigProto()
    settings.gpu_options.allow_growth = True
    if config is not None:
      settings.CopyFrom(config)
    if precision != 'float32':
      settings = with_precision(settings, precision, has_card)
    graph = tf.Graph()
    with graph.as_default():
      tf.import_graph_def(graph_def, name='')
    self._inputs = [name + ':0' for name in inputs]
    self._outputs = [name + ':0' for name in outputs]
    self._session = tf.Session(master, graph=graph, config=settings)

  def run(self, arrays: Sequence[np.ndarray]) -> List[np.ndarray]:
    """Returns the values of the outputs, given those of the inputs."""
    return self._session.run(self._outputs, dict(zip(self._inputs, arrays)))

  def close(self) -> None:
    """Closes the session."""
    self._session.close()
