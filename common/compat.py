"""Hides the differences between TensorFlow 1.15 and TensorFlow 2.

All other modules import `tf` and `slim` from here:

  from compat import slim, tf

Both engines are used through the API of TensorFlow 1: 1.15 itself, and
TensorFlow 2 in graph mode. The first import also silences messages that concern
TensorFlow's developers only: the CUDA loader's notes, deprecation notes about
library code that users cannot change, and NumPy's notes about TensorFlow's own
dtypes.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import types
import warnings
from typing import Any, Callable, Iterator, List, Optional

# 2: errors only, because 1.15 warns about each CUDA library that it does not
# find. 3: not even errors, because without a graphics card's driver it reports
# that as an error. Must be set before TensorFlow is loaded.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL',
                      '2' if os.path.exists('/dev/nvidiactl') else '3')

# tf_slim uses the layers of tf_keras. Without this, TensorFlow 2 also loads
# Keras 3, which makes a program start a quarter slower.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')

# TensorFlow 2 sets it for child processes; 1.15 would obey it.
os.environ.pop('TF2_BEHAVIOR', None)


@contextlib.contextmanager
def _native_notes_dropped():
  """Drops stderr of native code, unless TF_CPP_MIN_LOG_LEVEL asks for notes.

  While it is being loaded, TensorFlow 2 reports that it found no CUDA drivers,
  whatever the level. Yields a stream that is still shown.
  """
  if sys.stderr is None or os.environ['TF_CPP_MIN_LOG_LEVEL'] < '2':
    yield sys.stderr
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  with open(os.devnull, 'wb') as nowhere:
    os.dup2(nowhere.fileno(), 2)
  # If native code crashes, on a processor without AVX, the stack is shown.
  watch_crashes = not faulthandler.is_enabled()
  if watch_crashes:
    faulthandler.enable(stderr)
  try:
    # Not closed here: interrupted progress is written to it later.
    yield open(os.dup(stderr), 'w', buffering=1)
  finally:
    if watch_crashes:
      faulthandler.disable()
    sys.stderr.flush()
    os.dup2(stderr, 2)
    os.close(stderr)


@contextlib.contextmanager
def _as_not_installed(package):
  """Prevents the import of a package that is not imported yet."""
  blocked = sys.modules.setdefault(package, None) is None
  try:
    yield
  finally:
    if blocked:
      del sys.modules[package]


with warnings.catch_warnings(), _native_notes_dropped():
  # numpy >= 1.17 warns of the (1,)type synonym in TensorFlow 1.15's dtypes.py.
  warnings.filterwarnings('ignore', category=FutureWarning)
  import tensorflow.compat.v1 as tf
  from tensorflow.python.framework import graph_io, ops
  from tensorflow.python.ops import array_ops, control_flow_ops, variable_scope
  from tensorflow.python.util import deprecation

# The notes refer to lines of tf_slim and TensorFlow, which are pinned. Neither
# 1.15 nor 2.x has a public switch for them.
deprecation._PRINT_DEPRECATION_WARNINGS = False

# graph.pbtxt is written when training starts: protobuf's native printer gives
# the same message as its Python printer, ten times as fast.
graph_io.text_format = types.SimpleNamespace(
    MessageToString=lambda message, **options: str(message))

if not tf.__version__.startswith('1.'):
  # Graphs and sessions as in 1.15, and variables whose checkpoints 1.15 reads.
  tf.disable_v2_behavior()

  # TensorFlow 2 looks for its batch normalization in a module that tf_keras no
  # longer has.
  from tf_keras.src import legacy_tf_layers
  sys.modules.setdefault('tf_keras.legacy_tf_layers', legacy_tf_layers)

  # Another note that users cannot act on, about the layers that tf_slim uses.
  warnings.filterwarnings('ignore', '`[a-z_.0-9]+` is deprecated and will be',
                          UserWarning)

  # tf_slim 1.1.0 imports these from modules that no longer have them. The
  # public names are the same functions.
  for _module, _names in ((ops, ('IndexedSlices', 'Tensor')),
                          (array_ops, ('stack', 'unstack')),
                          (control_flow_ops, ('Assert', 'case', 'cond',
                                              'while_loop'))):
    for _name in _names:
      setattr(_module, _name, getattr(tf, _name))
  variable_scope.variable = tf.Variable

# If scikit-learn is installed, tf_slim imports it for losses that are not used
# here, which takes a sixth of a program's start time.
with _as_not_installed('sklearn'):
  import tf_slim as slim  # (It needs the names above.)

_NOTES_DROPPED = (
    # tf_slim says this about each layer that is built for inference.
    'Scale of 0 disables regularizer',
    # With the stack of the operation. The error itself is raised right after.
    'Error reported to Coordinator',
    # tf.contrib.quantize says this about each layer with batch norm.
    'Skipping quant after',
    # For each SavedModel. The path is that before the final rename.
    'No assets to ',
    'SavedModel written to',
)

__all__ = ['CHECKPOINT_ERRORS', 'QUANTIZES_TFLITE', 'TFLiteError',
           'contrib_quantize', 'quantize_tflite', 'setup_logging', 'slim', 'tf',
           'tflite_tools']

# Exceptions for a damaged checkpoint. For a file that is too short, TensorFlow
# 2 raises one of Python's own.
CHECKPOINT_ERRORS = (tf.errors.OpError, ValueError, IndexError)

# Whether `quantize_tflite` can be called: 1.15 has no choice of operations.
QUANTIZES_TFLITE = not tf.__version__.startswith('1.')


class TFLiteError(Exception):
  """TensorFlow Lite's converter refuses a graph; the message has many lines."""


@contextlib.contextmanager
def tflite_tools() -> Iterator[types.ModuleType]:
  """Yields tf.lite, converter and interpreter, for a `with` block.

  Drops their notes for TensorFlow's developers, but not progress.

  Raises:
    TFLiteError: replaces any error of the converter in the `with` block.
  """
  # Takes half a second to load, so only the export to TensorFlow Lite loads it.
  from tensorflow.lite.python.convert import ConverterError
  path = os.environ.get('PATH', '')
  # 1.15 starts its converter as a program, by name only. It is in the same
  # folder as Python.
  os.environ['PATH'] = os.path.dirname(sys.executable) + os.pathsep + path
  try:
    with warnings.catch_warnings(), _native_notes_dropped() as stderr, (
        contextlib.redirect_stderr(stderr)):
      # TensorFlow 2 says that its interpreter will move to another package.
      warnings.filterwarnings('ignore', category=UserWarning)
      yield tf.lite
  except ConverterError as error:
    raise TFLiteError(str(error))
  finally:
    os.environ['PATH'] = path


def contrib_quantize() -> Optional[types.ModuleType]:
  """Returns tf.contrib.quantize; None: TensorFlow 2 does not have it."""
  try:  # Takes seconds to load.
    from tensorflow.contrib import quantize
  except ImportError:
    return None
  return quantize


def quantize_tflite(converter: Any, float_operations: Callable[[bytes],
                                                               List[str]],
                    dtype: tf.DType) -> bytes:
  """Returns an int8 model of TensorFlow Lite; in a block of tflite_tools.

  The public converter has no choice of operations, and the public
  QuantizationDebugger, which has one, no choice of input and output.

  Args:
    converter: tf.lite.TFLiteConverter with a representative data set.
    float_operations: function of a model that returns the names of the outputs
      of the operations that stay float32.
    dtype: of the model's input and output: tf.float32 or tf.uint8.
  """
  from tensorflow.lite.python.convert import mlir_quantize
  converter._experimental_calibrate_only = True
  calibrated = converter.convert()
  return mlir_quantize(
      calibrated, input_data_type=dtype, output_data_type=dtype,
      denylisted_nodes=float_operations(calibrated))


def setup_logging(verbosity: str = 'INFO') -> None:
  """Sends each TensorFlow log line to stderr exactly once.

  TensorFlow has its own handler on the logger `tensorflow`, and absl adds one
  to the root logger, to which the former propagates every record.

  Args:
    verbosity: 'DEBUG', 'INFO', 'WARN', 'ERROR' or 'FATAL'.
  """
  tf.logging.set_verbosity(verbosity)
  logger = logging.getLogger('tensorflow')
  logger.propagate = False
  logger.addFilter(lambda record: not any(note in str(record.msg)
                                          for note in _NOTES_DROPPED))
