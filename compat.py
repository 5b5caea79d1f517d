"""The one place that knows which TensorFlow runs.

Everything else takes `tf` and `slim` from here:

  from compat import slim, tf

Both engines are spoken to as TensorFlow 1: 1.15 itself, and TensorFlow 2 in
graph mode. The first import also quietens what only a TensorFlow developer
wants to read: the CUDA loader's notes, deprecation notes of library code that
users cannot change, and NumPy's notes about TensorFlow's own dtypes.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import types
import warnings

# 2: errors only, because 1.15 warns of each CUDA library that it does not find.
# 3: not even those, because without a graphics card's driver it reports that as
# an error. Must be set before TensorFlow is loaded.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL',
                      '2' if os.path.exists('/dev/nvidiactl') else '3')

# tf_slim's layers are those of tf_keras. Without this, TensorFlow 2 loads
# Keras 3 too, which makes a program start a quarter slower.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')

# TensorFlow 2 sets it for the processes that it starts; 1.15 would obey.
os.environ.pop('TF2_BEHAVIOR', None)


@contextlib.contextmanager
def _native_notes_dropped():
  """Keeps native code off stderr, unless TF_CPP_MIN_LOG_LEVEL asks for notes.

  While it is loaded, TensorFlow 2 writes that it found no CUDA drivers,
  whatever the level.
  """
  if sys.stderr is None or os.environ['TF_CPP_MIN_LOG_LEVEL'] < '2':
    yield
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  with open(os.devnull, 'wb') as nowhere:
    os.dup2(nowhere.fileno(), 2)
  # Should native code crash, on a processor without AVX, its place is shown.
  watch_crashes = not faulthandler.is_enabled()
  if watch_crashes:
    faulthandler.enable(stderr)
  try:
    yield
  finally:
    if watch_crashes:
      faulthandler.disable()
    sys.stderr.flush()
    os.dup2(stderr, 2)
    os.close(stderr)


@contextlib.contextmanager
def _as_not_installed(package):
  """Keeps a package from being imported that is not imported yet."""
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

# The notes name lines of tf_slim and TensorFlow, which are pinned. No public
# switch exists in 1.15 or in 2.x.
deprecation._PRINT_DEPRECATION_WARNINGS = False

# graph.pbtxt is written when a training begins: protobuf's native printer gives
# the same message as the one in Python, ten times as fast.
graph_io.text_format = types.SimpleNamespace(
    MessageToString=lambda message, **options: str(message))

if not tf.__version__.startswith('1.'):
  # Graphs and sessions as in 1.15, and variables whose checkpoints it reads.
  tf.disable_v2_behavior()

  # TensorFlow 2 looks for its batch normalization where tf_keras no longer has
  # it.
  from tf_keras.src import legacy_tf_layers
  sys.modules.setdefault('tf_keras.legacy_tf_layers', legacy_tf_layers)

  # Another note that users cannot act on, of the layers that tf_slim builds on.
  warnings.filterwarnings('ignore', '`[a-z_.0-9]+` is deprecated and will be',
                          UserWarning)

  # tf_slim 1.1.0 takes these from modules that they have left. The public names
  # are the same functions.
  for _module, _names in ((ops, ('IndexedSlices', 'Tensor')),
                          (array_ops, ('stack', 'unstack')),
                          (control_flow_ops, ('Assert', 'case', 'cond',
                                              'while_loop'))):
    for _name in _names:
      setattr(_module, _name, getattr(tf, _name))
  variable_scope.variable = tf.Variable

# Where scikit-learn is installed, tf_slim imports it, for losses that
# nothing here uses: a sixth of the time that a program takes to start.
with _as_not_installed('sklearn'):
  import tf_slim as slim  # (It needs the names above.)

_NOTES_DROPPED = (
    # tf_slim says this of each layer that is built to be used, not trained.
    'Scale of 0 disables regularizer',
    # With the stack of the operation. The error itself is raised right after.
    'Error reported to Coordinator',
    # Of each SavedModel. The place is that before it gets its name.
    'No assets to ',
    'SavedModel written to',
)

__all__ = ['CHECKPOINT_ERRORS', 'TFLiteError', 'setup_logging', 'slim', 'tf',
           'tflite_tools']

# What reading a damaged checkpoint raises. TensorFlow 2 has Python's own error
# for a file that is too short.
CHECKPOINT_ERRORS = (tf.errors.OpError, ValueError, IndexError)


class TFLiteError(Exception):
  """TensorFlow Lite's converter refuses a graph; the message has many lines."""


@contextlib.contextmanager
def tflite_tools():
  """Gives tf.lite, converter and interpreter, for a `with`.

  Their notes for TensorFlow's developers are dropped.

  Raises:
    TFLiteError: for what the converter raises in the body.
  """
  # Half a second to load, which only the export to phones should wait.
  from tensorflow.lite.python.convert import ConverterError
  path = os.environ.get('PATH', '')
  # 1.15 starts its converter as a program, by its name alone. It lies beside
  # Python.
  os.environ['PATH'] = os.path.dirname(sys.executable) + os.pathsep + path
  try:
    with warnings.catch_warnings(), _native_notes_dropped():
      # TensorFlow 2 says that its interpreter will move to another package.
      warnings.filterwarnings('ignore', category=UserWarning)
      yield tf.lite
  except ConverterError as error:
    raise TFLiteError(str(error))
  finally:
    os.environ['PATH'] = path


def setup_logging(verbosity='INFO'):
  """Sends each TensorFlow log line to stderr exactly once.

  TensorFlow has a handler of its own on the logger `tensorflow`, and absl adds
  one to the root logger, to which the first passes everything on.

  Args:
    verbosity: 'DEBUG', 'INFO', 'WARN', 'ERROR' or 'FATAL'.
  """
  tf.logging.set_verbosity(verbosity)
  logger = logging.getLogger('tensorflow')
  logger.propagate = False
  logger.addFilter(lambda record: not any(note in str(record.msg)
                                          for note in _NOTES_DROPPED))
