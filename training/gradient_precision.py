"""Precision of training with gradients through the whole network.

It is bfloat16 only if the user gives --precision=bfloat16: a run that does not
must end with the same weights on any processor. TensorFlow 2 then rewrites the
graph of the session; variables, the gradients that the optimizer applies, and
therefore checkpoints stay float32.
"""

from typing import Optional

from common.errors import InputError
from compat import tf
from runtime import forward_pass, tensorflow_session
from training.config import TrainConfig

_NEEDS = ('needs TensorFlow 2 in this process, a processor with AVX-512 BF16 '
          'or AMX instructions, and no graphics card')


def check(config: TrainConfig) -> None:
  """Checks that a run on photos can compute gradients as it is asked to.

  A run on cached features is accepted, because its forward passes may use
  OpenVINO.

  Args:
    config: TrainConfig.

  Raises:
    InputError: --precision=bfloat16 is given, and this run cannot use it.
  """
  if (_is_bfloat16_given(config) and not config.cache_features and
      not _is_supported(config)):
    raise InputError(
        '--precision=bfloat16: training on photos with it %s (this is %s); '
        'accepted: float32, auto' % (_NEEDS, _version()))


def session_config(config: TrainConfig, base: Optional[tf.ConfigProto]
                   ) -> Optional[tf.ConfigProto]:
  """Returns the config of the training session, and logs its precision.

  Args:
    config: TrainConfig.
    base: tf.ConfigProto, None for the default.
  """
  precision, note = forward_pass.FLOAT32, ''
  if _is_bfloat16_given(config):
    if _is_supported(config):
      precision = forward_pass.BFLOAT16
      base = tensorflow_session.with_bfloat16(
          base or tf.ConfigProto(), bool(config.replicas.master))
    else:
      note = '; bfloat16 %s' % _NEEDS
  tf.logging.info('Gradients: %s%s', forward_pass.Choice(
      forward_pass.TENSORFLOW, precision).describe(), note)
  return base


def _is_bfloat16_given(config):
  return config.precision == forward_pass.BFLOAT16


def _is_supported(config):
  # A worker of a cluster has a master too, but that is in its own process.
  return forward_pass.supports_bfloat16(forward_pass.TENSORFLOW,
                                        config.given.get('master', ''))


def _version():
  return 'TensorFlow ' + tf.__version__
