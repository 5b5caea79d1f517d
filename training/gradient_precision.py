"""Precision of training with gradients through the whole network.

It is bfloat16 or float16 only if the user gives --precision: a run that does
not must end with the same weights on any processor. TensorFlow then rewrites
the graph of the session; variables, the gradients that the optimizer applies,
and therefore checkpoints stay float32.

Small gradients are 0 in float16. The loss is therefore multiplied by a factor,
and the gradients are divided by it; a step whose gradients are not finite
changes no weight and halves the factor. P. Micikevicius et al.: Mixed precision
training, 2018, arXiv 1710.03740, section 3.2.
"""

from typing import Any, List, Optional, Sequence, Tuple

from common.errors import InputError
from compat import tf
from runtime import forward_pass, tensorflow_session
from training.config import TrainConfig

_NEEDS = {
    forward_pass.BFLOAT16: 'needs TensorFlow 2 in this process, a processor '
                           'with AVX-512 BF16 or AMX instructions, and no '
                           'graphics card',
    forward_pass.FLOAT16: 'needs a graphics card, and neither parameter '
                          'servers nor --master'}

# The factor of the loss at the start, and steps with finite gradients after
# which it is doubled.
_FIRST_FACTOR = 2.0 ** 15
_STEPS_PER_INCREASE = 2000


def check(config: TrainConfig) -> None:
  """Checks that a run on photos can compute gradients as it is asked to.

  A run on cached features is accepted, because its forward passes may use
  OpenVINO.

  Args:
    config: TrainConfig.

  Raises:
    InputError: --precision is given, and this run cannot use it.
  """
  given = _given(config)
  if given and not config.cache_features and not _is_supported(config, given):
    raise InputError(
        '--precision=%s: training on photos with it %s (this is TensorFlow '
        '%s); accepted: float32, auto' % (given, _NEEDS[given], tf.__version__))


def session_config(config: TrainConfig, base: Optional[tf.ConfigProto]
                   ) -> Optional[tf.ConfigProto]:
  """Returns the config of the training session, and logs its precision.

  Args:
    config: TrainConfig.
    base: tf.ConfigProto, None for the default.
  """
  precision, note = used(config), ''
  if precision != forward_pass.FLOAT32:
    base = tensorflow_session.with_precision(
        base or tf.ConfigProto(), precision, forward_pass.has_graphics_card(),
        bool(config.replicas.master))
  elif _given(config):
    note = '; %s %s' % (config.precision, _NEEDS[config.precision])
  if config.xla:
    note += '; compiled with XLA'
  tf.logging.info('Gradients: %s%s', forward_pass.Choice(
      forward_pass.TENSORFLOW, precision).describe(), note)
  return base


def used(config: TrainConfig) -> str:
  """Returns the precision of the gradients, of forward_pass.PRECISIONS."""
  given = _given(config)
  return given if given and _is_supported(config, given) else (
      forward_pass.FLOAT32)


class LossScaleOptimizer:
  """An optimizer that scales the loss, for float16.

  The factor is not in checkpoints: those of a run with float32 can be resumed
  with float16, and the other way round.

  Args:
    optimizer: tf.train.Optimizer that applies the gradients.
    not_finite: error message of a step whose gradients are not finite although
      the factor is already 1.
  """

  def __init__(self, optimizer: tf.train.Optimizer, not_finite: str) -> None:
    self._optimizer = optimizer
    self._not_finite = not_finite
    self._factor = _local_variable('loss_scale', _FIRST_FACTOR)
    self._finite_steps = _local_variable('finite_steps', 0.0)

  def compute_gradients(self, loss: tf.Tensor, **kwargs: Any
                        ) -> List[Tuple[Optional[tf.Tensor], tf.Variable]]:
    """Returns the gradients of a loss, as tf.train.Optimizer does."""
    gradients = self._optimizer.compute_gradients(loss * self._factor, **kwargs)
    return [(None if gradient is None else gradient / self._factor, variable)
            for gradient, variable in gradients]

  def apply_gradients(self, gradients: Sequence[Tuple[tf.Tensor, tf.Variable]],
                      global_step: tf.Variable) -> tf.Operation:
    """Returns the operation of a step: it always counts, but changes weights
    only if all gradients are finite."""
    optimizer = self._optimizer
    finite = tf.reduce_all([tf.reduce_all(tf.is_finite(gradient))
                            for gradient, _ in gradients])
    # Here, so that the names of their variables are those without a condition.
    optimizer._create_slots([variable for _, variable in gradients])
    applied = tf.cond(finite, lambda: optimizer.apply_gradients(gradients),
                      tf.no_op)
    finite_steps = tf.where(finite, self._finite_steps + 1, 0.0)
    is_due = finite_steps >= _STEPS_PER_INCREASE
    factor = self._factor * tf.where(finite, tf.where(is_due, 2.0, 1.0), 0.5)
    can_continue = tf.logical_or(finite, self._factor > 1)
    checked = tf.check_numerics(
        tf.where(can_continue, 0.0, float('nan')), self._not_finite)
    with tf.control_dependencies([applied, factor, finite_steps, checked]):
      return tf.group(
          tf.assign(self._factor, tf.maximum(factor, 1.0)),
          tf.assign(self._finite_steps, tf.where(is_due, 0.0, finite_steps)),
          tf.assign_add(global_step, 1))


def _local_variable(name, value):
  return tf.get_variable(
      name, initializer=value, trainable=False, use_resource=True,
      collections=[tf.GraphKeys.LOCAL_VARIABLES])


def _given(config):
  """Returns the precision if it is given and is not float32, else None."""
  return config.precision if config.precision in _NEEDS else None


def _is_supported(config, precision):
  # A worker of a cluster has a master too, but that is in its own process.
  master = config.given.get('master', '')
  if precision == forward_pass.FLOAT16 and config.replicas.num_ps_tasks:
    return False  # The factor of the loss would be on a parameter server.
  return forward_pass.supports(forward_pass.TENSORFLOW, precision, master)
