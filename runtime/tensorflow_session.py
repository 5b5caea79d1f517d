"""Forward passes by a TensorFlow session."""

from typing import Any, List, Sequence

import numpy as np

from compat import tf

# Names of the processor's instructions for bfloat16 in /proc/cpuinfo.
_BFLOAT16 = {'avx512_bf16', 'amx_bf16'}

# Grappler's rewrite of a graph to bfloat16, in TensorFlow 2.
_REWRITE = 'auto_mixed_precision_onednn_bfloat16'


def supports_bfloat16() -> bool:
  """Returns whether TensorFlow and the processor can use bfloat16."""
  if not hasattr(tf.ConfigProto().graph_options.rewrite_options, _REWRITE):
    return False
  try:
    with open('/proc/cpuinfo') as file:
      return bool(_BFLOAT16 & set(file.read().split()))
  except OSError:
    return False


def with_bfloat16(config: tf.ConfigProto,
                  is_distributed: bool = False) -> tf.ConfigProto:
  """Returns a config whose sessions compute with bfloat16 where it suits.

  TensorFlow rewrites a graph when a session runs it: convolutions, matrix
  products and what is between them take bfloat16. Variables keep their dtype.

  Args:
    config: tf.ConfigProto; it is not changed.
    is_distributed: whether the sessions have a master.
  """
  rewriting = tf.ConfigProto()
  rewriting.CopyFrom(config)
  options = rewriting.graph_options.rewrite_options
  setattr(options, _REWRITE, options.ON)
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
    bfloat16: whether TensorFlow may compute with bfloat16 instead of float32.
    config: tf.ConfigProto of the session, None for the default.
    master: address of the TensorFlow master, '' for this process.
  """

  def __init__(self, graph_def: tf.GraphDef, inputs: Sequence[str],
               outputs: Sequence[str], bfloat16: bool = False,
               config: Any = None, master: str = '') -> None:
    settings = tf.ConfigProto()
    settings.gpu_options.allow_growth = True
    if config is not None:
      settings.CopyFrom(config)
    if bfloat16:
      settings = with_bfloat16(settings)
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
