"""Tests of training/optimizer.py."""

import numpy as np
import pytest
from absl import flags

from common.errors import InputError
from compat import tf
from kits import network_kit
from kits.helpers import parsed_flags
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


def define_flags():
  """The flags of the optimizer, and one of the program that it reads."""
  optimizer.define_flags()
  flags.DEFINE_integer('max_number_of_steps', None, 'Steps.')


def rates(arguments, steps):
  """Returns the learning rate at each step; 1000 photos, 100 a step."""
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    with parsed_flags(define_flags, *arguments) as values:
      rate = optimizer.learning_rate_from_flags(values, 1000, 100, step)
    return [session.run(rate, {step: number}) for number in steps]


COSINE = '--learning_rate_decay_type=cosine'


@pytest.mark.parametrize('arguments', [
    ['--max_number_of_steps=40'], ['--learning_rate_decay_steps=40'],
    ['--learning_rate_decay_steps=40', '--max_number_of_steps=90']])
def test_learning_rate_cosine_falls_along_half_a_wave_to_its_end(arguments):
  found = rates([COSINE, '--end_learning_rate=0.002', *arguments],
                [0, 10, 20, 30, 40, 41])
  root = 2 ** 0.5 / 2
  np.testing.assert_allclose(
      found, [0.01, 0.006 + 0.004 * root, 0.006, 0.006 - 0.004 * root, 0.002,
              0.002], rtol=1e-5)


def test_learning_rate_cosine_without_an_end_names_the_flags():
  with pytest.raises(InputError, match='give --max_number_of_steps or '
                     '--learning_rate_decay_steps$') as caught:
    rates([COSINE], [0])
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('decay', [
    ['--learning_rate_decay_type=fixed'],
    ['--learning_rate_decay_type=exponential'],
    ['--learning_rate_decay_type=polynomial'],
    [COSINE, '--max_number_of_steps=50']])
def test_learning_rate_warmup_is_a_ramp_times_any_decay(decay):
  steps = [0, 1, 15, 24, 25, 26, 45]
  ramp = np.minimum((np.array(steps) + 1) / 25, 1)
  np.testing.assert_allclose(rates([*decay, '--warmup_steps=25'], steps),
                             ramp * rates(decay, steps), rtol=1e-5)


def test_clip_gradients_keeps_direction_and_leaves_small_ones():
  with tf.Graph().as_default(), tf.Session() as session:
    pairs = [(tf.constant([3.0, 0.0]), 'a'), (tf.constant([4.0]), 'b')]
    norm = tf.global_norm([gradient for gradient, _ in pairs])
    for limit, scale in (2.5, 0.5), (5.0, 1), (100.0, 1):
      clipped = optimizer.clip_gradients(pairs, limit, norm)
      assert [name for _, name in clipped] == ['a', 'b']
      first, second = session.run([gradient for gradient, _ in clipped])
      np.testing.assert_allclose(first, [3 * scale, 0], rtol=1e-6)
      np.testing.assert_allclose(second, [4 * scale], rtol=1e-6)


def step_length(monkeypatch, *arguments):
  """Returns how far one step of sgd at rate 1 moves all variables together."""
  with network_kit.training(
      monkeypatch, '--optimizer=sgd', '--learning_rate=1',
      '--learning_rate_decay_type=fixed', '--num_clones=2', '--clone_on_cpu',
      *arguments) as graph:
    with network_kit.session() as session:
      variables = tf.trainable_variables()
      before = session.run(variables)
      tags = [value.tag for value in tf.Summary.FromString(
          session.run(graph.scalar_op)).value]
      session.run(graph.train_op)
      after = session.run(variables)
  moved = [np.ravel(new - old) for new, old in zip(after, before)]
  return np.linalg.norm(np.concatenate(moved)), tags


def test_graph_clips_the_gradients_of_all_clones_together(monkeypatch):
  free, tags = step_length(monkeypatch)
  assert free > 0.5 and 'gradient_norm' not in tags
  clipped, tags = step_length(monkeypatch, '--clip_gradient_norm=0.1')
  assert clipped == pytest.approx(0.1, rel=1e-4) and 'gradient_norm' in tags
