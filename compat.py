"""The one place that knows which TensorFlow runs.

Everything else takes `tf` and `slim` from here:

  from compat import slim, tf

The first import also quietens what only a TensorFlow developer wants to read:
the CUDA loader's notes, deprecation notes of library code that users cannot
change, and NumPy's notes about TensorFlow's own dtypes.
"""

import logging
import os
import warnings

# 2: errors only, because 1.15 warns of each CUDA library that it does not find.
# 3: not even those, because without a graphics card's driver it reports that as
# an error. Must be set before TensorFlow is loaded.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL',
                      '2' if os.path.exists('/dev/nvidiactl') else '3')

with warnings.catch_warnings():
  # numpy >= 1.17 warns of the (1,)type synonym in TensorFlow 1.15's dtypes.py.
  warnings.filterwarnings('ignore', category=FutureWarning)
  import tensorflow.compat.v1 as tf
  import tf_slim as slim
  from tensorflow.python.util import deprecation

# The notes name lines of tf_slim and TensorFlow, which are pinned. No public
# switch exists in 1.15 or in 2.x.
deprecation._PRINT_DEPRECATION_WARNINGS = False

__all__ = ['setup_logging', 'slim', 'tf']


def setup_logging(verbosity='INFO'):
  """Sends each TensorFlow log line to stderr exactly once.

  TensorFlow 1.15 has a handler of its own on the logger `tensorflow`, and absl
  adds one to the root logger, to which the first passes everything on.

  Args:
    verbosity: 'DEBUG', 'INFO', 'WARN', 'ERROR' or 'FATAL'.
  """
  tf.logging.set_verbosity(verbosity)
  logger = logging.getLogger('tensorflow')
  logger.propagate = False
  # tf_slim says this of each layer that is built to be used, not trained.
  logger.addFilter(
      lambda record: 'Scale of 0 disables regularizer' not in record.msg)
