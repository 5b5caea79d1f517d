"""Chooses the runtime of a forward pass, and loads a graph into it."""

import functools
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from common.errors import InputError
from compat import tf
from runtime import openvino_model, subgraph, tensorflow_session

AUTO, TENSORFLOW, OPENVINO = 'auto', 'tensorflow', 'openvino'
RUNTIMES = (AUTO, TENSORFLOW, OPENVINO)

FLOAT32, BFLOAT16, FLOAT16 = 'float32', 'bfloat16', 'float16'
PRECISIONS = (AUTO, FLOAT32, BFLOAT16, FLOAT16)


class Options(NamedTuple):
  """What the user asks for."""

  # One of RUNTIMES.
  runtime: str = AUTO
  # One of PRECISIONS.
  precision: str = AUTO
  # tf.ConfigProto; its number of threads holds for OpenVINO too.
  session_config: Any = None
  # Address of the TensorFlow master, '' for this process.
  master: str = ''
  # Whether several threads run it at once.
  overlaps: bool = False


DEFAULT = Options()


def options_from_flags(values: Any,
                       session_config: Any = None) -> Options:
  """Returns the Options of the flags.

  Args:
    values: flags of common.flags.define_runtime_flags, or a TrainConfig.
    session_config: tf.ConfigProto, None for the default.
  """
  return Options(values.runtime, values.precision, session_config)


class Choice(NamedTuple):
  """The runtime and precision of a forward pass."""

  # TENSORFLOW or OPENVINO.
  runtime: str
  # FLOAT32, BFLOAT16 or FLOAT16.
  precision: str

  def name(self) -> str:
    """Returns the name and version of the runtime: 'OpenVINO 2023.1.0'."""
    return ('OpenVINO ' + openvino_model.version()
            if self.runtime == OPENVINO else 'TensorFlow ' + tf.__version__)

  def describe(self) -> str:
    """Returns for example 'OpenVINO 2023.1.0, float32'."""
    return '%s, %s' % (self.name(), self.precision)

  def facts(self) -> Dict[str, str]:
    """Returns what computed values depend on, for the key of a cache.

    TensorFlow with float32 has none: caches of older versions have no such
    facts.
    """
    facts = {}
    if self.runtime == OPENVINO:
      facts['runtime'] = self.name()
    if self.precision != FLOAT32:
      facts['precision'] = self.precision
    return facts


class ForwardPass:
  """A graph, ready to compute; safe to call from several threads.

  Attributes:
    choice: Choice, how it computes.
  """

  def __init__(self, engine: Any, choice: Choice) -> None:
    """Wraps a TensorFlowSession or an OpenVinoModel."""
    self._engine = engine
    self.choice = choice

  def __call__(self, *arrays: np.ndarray) -> List[np.ndarray]:
    """Returns the values of the outputs.

    Args:
      *arrays: the values of the inputs, of their shapes and dtypes.
    """
    return self._engine.run(arrays)

  def close(self) -> None:
    """Frees the graph."""
    self._engine.close()


def choose(options: Options, recorded: Optional[str] = None) -> Choice:
  """Returns how forward passes are computed on this machine.

  Args:
    options: Options.
    recorded: precision that a run or a graph records, which --precision=auto
      follows where this machine can; None: float32.

  Raises:
    InputError: the runtime is not installed, or this machine or TensorFlow
      cannot compute with the precision.
  """
  runtime = options.runtime
  if runtime == OPENVINO and not openvino_model.is_installed():
    raise InputError('--runtime=openvino: the package openvino is not '
                     'installed in this environment; ./setup.sh installs it')
  if runtime == AUTO:
    runtime = (OPENVINO if openvino_model.is_installed() and
               not has_graphics_card() and not options.master else TENSORFLOW)
  precision = options.precision
  if precision == AUTO:
    precision = recorded or FLOAT32
  if precision not in PRECISIONS[1:]:
    raise InputError('unknown precision %r of the run or the graph; accepted: '
                     '%s' % (precision, ', '.join(PRECISIONS[1:])))
  if precision != FLOAT32 and not supports(runtime, precision, options.master):
    name = Choice(runtime, FLOAT32).name()
    if options.precision == precision:
      raise InputError('--precision=%s: %s cannot compute with it on this '
                       'machine; accepted: float32, auto' % (precision, name))
    _warn_once('The precision of this model is %s, with which %s cannot '
               'compute on this machine: computing with float32' % (
                   precision, name))
    precision = FLOAT32
  return Choice(runtime, precision)


def fastest_precision(options: Options) -> str:
  """Returns the precision that --precision=auto means for a new run."""
  runtime = choose(options._replace(precision=FLOAT32)).runtime
  return (BFLOAT16 if supports(runtime, BFLOAT16, options.master) else
          FLOAT32)


def supports(runtime: str, precision: str, master: str = '') -> bool:
  """Returns whether a runtime can compute with a precision on this machine.

  Args:
    runtime: TENSORFLOW or OPENVINO.
    precision: BFLOAT16 or FLOAT16.
    master: address of the TensorFlow master, '' for this process.
  """
  if runtime == OPENVINO:
    return precision == BFLOAT16 and openvino_model.supports_bfloat16()
  # TensorFlow rewrites what the devices of this machine compute.
  return not master and tensorflow_session.supports(precision,
                                                    has_graphics_card())


def load(graph_def: tf.GraphDef, inputs: Sequence[tf.Tensor],
         outputs: Sequence[tf.Tensor], options: Options = DEFAULT,
         recorded: Optional[str] = None) -> ForwardPass:
  """Loads the part of a frozen graph between some tensors.

  Args:
    graph_def: frozen GraphDef.
    inputs: tensors of that graph (only their names, dtypes and shapes matter)
      that are given when it runs.
    outputs: tensors of that graph to compute.
    options: Options.
    recorded: as for `choose`.

  Returns:
    A ForwardPass. If OpenVINO cannot run the graph and is not demanded,
    TensorFlow runs it, which is logged.

  Raises:
    InputError: as for `choose`; or --runtime=openvino cannot run the graph.
  """
  return _load(subgraph.extract(graph_def, inputs, outputs), inputs, outputs,
               options, choose(options, recorded))


def load_from_session(session: tf.Session, inputs: Sequence[tf.Tensor],
                      outputs: Sequence[tf.Tensor],
                      options: Options = DEFAULT,
                      recorded: Optional[str] = None) -> ForwardPass:
  """Loads the part of a session's graph between some tensors.

  Args:
    session: its variables are read now; later changes have no effect.
    inputs, outputs, options, recorded: as for `load`.

  Returns:
    A ForwardPass, as `load` does.
  """
  return _load(subgraph.freeze(session, inputs, outputs), inputs, outputs,
               options, choose(options, recorded))


def _load(part, inputs, outputs, options, choice):
  names = [tensor.op.name for tensor in inputs]
  output_names = subgraph.output_names(outputs)
  if choice.runtime == OPENVINO:
    threads = (options.session_config.intra_op_parallelism_threads
               if options.session_config else 0)
    try:
      return ForwardPass(openvino_model.OpenVinoModel(
          part, names, output_names, choice.precision, threads,
          options.overlaps), choice)
    except openvino_model.UnsupportedGraph as error:
      if options.runtime == OPENVINO:
        raise InputError('--runtime=openvino cannot run this graph: %s' % error)
      choice = choose(options._replace(runtime=TENSORFLOW), choice.precision)
      tf.logging.warning('OpenVINO cannot run this graph (%s): %s runs it',
                         error, choice.describe())
  return ForwardPass(tensorflow_session.TensorFlowSession(
      part, names, output_names, choice.precision, has_graphics_card(),
      options.session_config, options.master), choice)


@functools.lru_cache(None)
def has_graphics_card() -> bool:
  """Returns whether TensorFlow finds a graphics card."""
  return bool(tf.config.experimental.list_physical_devices('GPU'))


@functools.lru_cache(None)
def _warn_once(message):
  tf.logging.warning(message)
