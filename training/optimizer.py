"""Learning rate schedules and optimizers, with slim's flags.

`define_flags` defines the flags; the other functions take their values as an
OptimizerConfig.
"""

from typing import List, Optional, Tuple

from absl import flags

from common.errors import InputError
from compat import tf
from training.config import OptimizerConfig

# slim's --opt_epsilon is 1.0 for all. That is right for its rmsprop recipe
# (Szegedy et al. 2015, arXiv 1512.00567, section 8) but makes Adam very slow:
# measured here, 600 steps reach 24 % accuracy, with 1e-8 76 %.
DEFAULT_EPSILON = {'adam': 1e-8, 'rmsprop': 1.0, 'adadelta': 1.0}

_OPTIMIZERS = {
    'adadelta': lambda config, rate, epsilon: tf.train.AdadeltaOptimizer(
        rate, rho=config.adadelta_rho, epsilon=epsilon),
    'adagrad': lambda config, rate, epsilon: tf.train.AdagradOptimizer(
        rate,
        initial_accumulator_value=config.adagrad_initial_accumulator_value),
    'adam': lambda config, rate, epsilon: tf.train.AdamOptimizer(
        rate, beta1=config.adam_beta1, beta2=config.adam_beta2,
        epsilon=epsilon),
    'ftrl': lambda config, rate, epsilon: tf.train.FtrlOptimizer(
        rate,
        learning_rate_power=config.ftrl_learning_rate_power,
        initial_accumulator_value=config.ftrl_initial_accumulator_value,
        l1_regularization_strength=config.ftrl_l1,
        l2_regularization_strength=config.ftrl_l2),
    'momentum': lambda config, rate, epsilon: tf.train.MomentumOptimizer(
        rate, momentum=config.momentum, name='Momentum'),
    'rmsprop': lambda config, rate, epsilon: tf.train.RMSPropOptimizer(
        rate, decay=config.rmsprop_decay, momentum=config.rmsprop_momentum,
        epsilon=epsilon),
    'sgd': lambda config, rate, epsilon: tf.train.GradientDescentOptimizer(
        rate),
}


def define_flags() -> None:
  """Defines the optimizer and learning rate flags, with slim's defaults."""
  _define_optimizer_flags()
  _define_learning_rate_flags()


def _define_optimizer_flags():
  flags.DEFINE_float(
      'weight_decay', 0.00004, 'Factor of the L2 loss of the weights.',
      lower_bound=0.0)
  flags.DEFINE_enum(
      'optimizer', 'rmsprop', sorted(_OPTIMIZERS), 'Optimizer.')
  flags.DEFINE_float(
      'adadelta_rho', 0.95, 'Decay rate of adadelta.')
  flags.DEFINE_float(
      'adagrad_initial_accumulator_value', 0.1,
      "Initial value of adagrad's accumulators.")
  flags.DEFINE_float(
      'adam_beta1', 0.9, "Decay rate of adam's first moment.")
  flags.DEFINE_float(
      'adam_beta2', 0.999, "Decay rate of adam's second moment.")
  flags.DEFINE_float(
      'opt_epsilon', None,
      'Epsilon of adam, rmsprop and adadelta. None: 1e-8 for adam, 1.0 for the '
      'others. slim has 1.0 for all.', lower_bound=0.0)
  flags.DEFINE_float(
      'ftrl_learning_rate_power', -0.5, 'Learning rate power of ftrl.')
  flags.DEFINE_float(
      'ftrl_initial_accumulator_value', 0.1,
      "Initial value of ftrl's accumulators.")
  flags.DEFINE_float('ftrl_l1', 0.0, 'L1 regularization strength of ftrl.')
  flags.DEFINE_float('ftrl_l2', 0.0, 'L2 regularization strength of ftrl.')
  flags.DEFINE_float('momentum', 0.9, 'Momentum of the momentum optimizer.')
  flags.DEFINE_float('rmsprop_momentum', 0.9, 'Momentum of rmsprop.')
  flags.DEFINE_float(
      'rmsprop_decay', 0.9, "Decay rate of rmsprop's squared gradients.")
  flags.DEFINE_float(
      'clip_gradient_norm', 0.0,
      'Largest global norm of the gradients; larger gradients are scaled down. '
      '0: no clipping.', lower_bound=0.0)


def _define_learning_rate_flags():
  flags.DEFINE_enum(
      'learning_rate_decay_type', 'exponential',
      ['fixed', 'exponential', 'polynomial', 'cosine'],
      'Learning rate schedule. cosine: one half wave over '
      '--learning_rate_decay_steps, or else over --max_number_of_steps.')
  flags.DEFINE_float(
      'learning_rate', 0.01, 'Learning rate of the first step.',
      lower_bound=0.0)
  flags.DEFINE_float(
      'end_learning_rate', 0.0001,
      'Learning rate at which polynomial and cosine decay end.',
      lower_bound=0.0)
  flags.DEFINE_float(
      'learning_rate_decay_factor', 0.94,
      'Factor of each exponential decay.', lower_bound=0.0)
  flags.DEFINE_float(
      'num_epochs_per_decay', 2.0,
      'Epochs after which the learning rate decays. An epoch counts the photos '
      'of all clones and, with --sync_replicas or --all_reduce, of all '
      'workers.',
      lower_bound=0.0)
  flags.DEFINE_integer(
      'learning_rate_decay_steps', None,
      'Steps after which the learning rate decays. None: '
      '--num_epochs_per_decay decides.', lower_bound=1)
  flags.DEFINE_integer(
      'warmup_steps', 0,
      'Steps of linear warm-up of the learning rate at the start of a run. 0: '
      'no warm-up.', lower_bound=0)
  flags.DEFINE_float(
      'warmup_epochs', 0.0,
      'Epochs of linear warm-up from 0, as in slim, until the learning rate is '
      'the scheduled one. Epochs are counted as by --num_epochs_per_decay. A '
      'head that is fitted exactly (--head) has no learning rate. Excludes '
      '--warmup_steps. 0: no warm-up.',
      lower_bound=0.0)


def make_learning_rate(config: OptimizerConfig, num_samples: int,
                       photos_per_step: int, global_step: tf.Tensor,
                       number_of_steps: Optional[int] = None) -> tf.Tensor:
  """Builds the learning rate.

  Args:
    config: OptimizerConfig.
    num_samples: photos in an epoch.
    photos_per_step: photos that one global step consumes, over all clones.
    global_step: scalar integer tensor.
    number_of_steps: length of cosine decay if learning_rate_decay_steps is
      None.

  Returns:
    Scalar float32 tensor.

  Raises:
    InputError: cosine decay without a number of steps, or two warm-ups.
  """
  if config.learning_rate_decay_type == 'cosine':
    rate = _cosine_learning_rate(config, global_step, number_of_steps)
  else:
    rate = _decayed_learning_rate(config, num_samples, photos_per_step,
                                  global_step)
  if config.warmup_steps and config.warmup_epochs:
    raise InputError('--warmup_steps=%d and --warmup_epochs=%g: give one of '
                     'them' % (config.warmup_steps, config.warmup_epochs))
  if config.warmup_epochs:
    steps = config.warmup_epochs * num_samples / photos_per_step
    rate = tf.minimum(
        rate, config.learning_rate * tf.cast(global_step, tf.float32) / steps,
        name='warm_learning_rate')
  if config.warmup_steps:
    # + 1: the first step has a learning rate too.
    done = (tf.cast(global_step, tf.float32) + 1.0) / config.warmup_steps
    rate = tf.multiply(rate, tf.minimum(done, 1.0), name='warm_learning_rate')
  return rate


def _decayed_learning_rate(config, num_samples, photos_per_step, global_step):
  """Returns the learning rate of another decay than cosine."""
  kind = config.learning_rate_decay_type
  if kind == 'fixed':
    return tf.constant(config.learning_rate, name='fixed_learning_rate')
  decay_steps = config.learning_rate_decay_steps or max(1, int(
      num_samples * config.num_epochs_per_decay / photos_per_step))
  if kind == 'exponential':
    return tf.train.exponential_decay(
        config.learning_rate, global_step, decay_steps,
        config.learning_rate_decay_factor, staircase=True,
        name='exponential_decay_learning_rate')
  return tf.train.polynomial_decay(
      config.learning_rate, global_step, decay_steps,
      config.end_learning_rate, power=1.0, cycle=False,
      name='polynomial_decay_learning_rate')


def _cosine_learning_rate(config, global_step, number_of_steps):
  """Returns half a cosine wave (Loshchilov and Hutter 2016, arXiv 1608.03983).

  There are no warm restarts as in that paper.
  """
  steps = config.learning_rate_decay_steps or number_of_steps
  if not steps:
    raise InputError(
        '--learning_rate_decay_type=cosine needs the length of the decay: give '
        '--max_number_of_steps or --learning_rate_decay_steps')
  end = config.end_learning_rate
  return tf.add(
      end, tf.train.cosine_decay(config.learning_rate - end, global_step,
                                 steps),
      name='cosine_decay_learning_rate')


def make_optimizer(config: OptimizerConfig,
                   learning_rate: tf.Tensor) -> tf.train.Optimizer:
  """Builds the optimizer that --optimizer names.

  Args:
    config: OptimizerConfig.
    learning_rate: scalar float32 tensor.

  Returns:
    A `tf.train.Optimizer`.
  """
  epsilon = config.opt_epsilon
  if epsilon is None:
    epsilon = DEFAULT_EPSILON.get(config.optimizer)
  return _OPTIMIZERS[config.optimizer](config, learning_rate, epsilon)


def clip_gradients(
    gradients: List[Tuple[tf.Tensor, tf.Variable]], limit: float,
    norm: tf.Tensor) -> List[Tuple[tf.Tensor, tf.Variable]]:
  """Scales gradients down to a largest global norm.

  Their direction is kept (Pascanu et al. 2012, arXiv 1211.5063, algorithm 1).

  Args:
    gradients: list of (gradient, variable).
    limit: largest norm that is not scaled down; more than 0.
    norm: scalar float32 tensor, tf.global_norm of the gradients.

  Returns:
    The list with scaled gradients.
  """
  clipped, _ = tf.clip_by_global_norm(
      [gradient for gradient, _ in gradients], limit, use_norm=norm)
  return [(gradient, variable)
          for gradient, (_, variable) in zip(clipped, gradients)]
