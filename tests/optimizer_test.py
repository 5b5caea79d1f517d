"""Tests of training/optimizer.py."""

import numpy as np
import pytest
from helpers import parsed_flags

from compat import tf
from training import optimizer


@pytest.mark.parametrize('arguments,steps,expected', [
    (['--learning_rate_decay_type=fixed'], [0, 500], [0.01, 0.01]),
    # 1000 photos, 2 epochs, 100 a step: a decay every 20 steps, in steps.
    ([], [0, 19, 20, 40], [0.01, 0.01, 0.0094, 0.008836]),
    (['--learning_rate_decay_type=polynomial'], [0, 10, 20, 90],
     [0.01, 0.00505, 0.0001, 0.0001]),
    (['--learning_rate_decay_type=polynomial', '--end_learning_rate=0',
      '--learning_rate_decay_steps=50'], [0, 25, 50], [0.01, 0.005, 0.0]),
    # More than all photos a step: decays at every step, not never.
    (['--num_epochs_per_decay=0.01'], [1], [0.0094]),
])
def test_learning_rate_falls_as_asked(arguments, steps, expected):
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    with parsed_flags(optimizer.define_flags, *arguments) as values:
      rate = optimizer.learning_rate_from_flags(values, 1000, 100, step)
    found = [session.run(rate, {step: number}) for number in steps]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def first_steps(name, *arguments):
  """Returns how far three steps with gradients 1e-3 move a variable from 1."""
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.get_variable('v', [], initializer=tf.ones_initializer())
    arguments = ['--optimizer=' + name, *arguments]
    with parsed_flags(optimizer.define_flags, *arguments) as values:
      made = optimizer.optimizer_from_flags(values, tf.constant(0.1))
    step = made.apply_gradients([(tf.constant(1e-3), variable)])
    session.run(tf.global_variables_initializer())
    for _ in range(3):
      session.run(step)
    return 1 - session.run(variable)


@pytest.mark.parametrize('name', [
    'adadelta', 'adagrad', 'adam', 'ftrl', 'momentum', 'rmsprop', 'sgd'])
def test_optimizer_every_name_goes_down_the_gradient(name):
  assert first_steps(name) > 0


def test_optimizer_epsilon_lets_adam_move_and_a_flag_brings_slims_back():
  assert first_steps('adam') == pytest.approx(0.3, rel=1e-3)
  assert first_steps('adam', '--opt_epsilon=1.0') < 1e-3


def test_optimizer_epsilon_of_rmsprop_is_slims():
  assert first_steps('rmsprop') == pytest.approx(
      first_steps('rmsprop', '--opt_epsilon=1.0'))
  # Its accumulator starts at 1 and decays: the root of it is what is left.
  assert (first_steps('rmsprop', '--opt_epsilon=1e-10') >
          1.4 * first_steps('rmsprop'))


def test_optimizer_momentum_flags_reach_their_optimizers():
  assert first_steps('momentum', '--momentum=0.0') == pytest.approx(
      3e-4, rel=1e-3)
  assert first_steps('momentum', '--momentum=0.9') == pytest.approx(
      5.61e-4, rel=1e-3)
  assert first_steps('rmsprop', '--rmsprop_momentum=0.0') < first_steps(
      'rmsprop')
