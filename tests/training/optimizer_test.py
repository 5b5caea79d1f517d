"""Tests of training/optimizer.py."""

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from kits import network_kit
from kits.trained_kit import train_config
from training import finetune_all, optimizer


@pytest.mark.parametrize('arguments,steps,expected', [
    (['--learning_rate_decay_type=fixed'], [0, 500], [0.01, 0.01]),
    # 2 epochs of 1000 photos, 100 per step: the rate drops every 20 steps.
    ([], [0, 19, 20, 40], [0.01, 0.01, 0.0094, 0.008836]),
    (['--learning_rate_decay_type=polynomial'], [0, 10, 20, 90],
     [0.01, 0.00505, 0.0001, 0.0001]),
    (['--learning_rate_decay_type=polynomial', '--end_learning_rate=0',
      '--learning_rate_decay_steps=50'], [0, 25, 50], [0.01, 0.005, 0.0]),
    # Several decays within a step: decays once per step, instead of never.
    (['--num_epochs_per_decay=0.01'], [1], [0.0094]),
])
def test_learning_rate_decay_type_gives_expected_rates(
    arguments, steps, expected):
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    rate = optimizer.make_learning_rate(
        train_config(*arguments).optimizer, 1000, 100, step)
    actual = [session.run(rate, {step: number}) for number in steps]
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def distance_moved(name, *arguments):
  """Returns how far three steps with gradients 1e-3 move a variable from 1."""
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.get_variable('v', [], initializer=tf.ones_initializer())
    arguments = ['--optimizer=' + name, *arguments]
    tf_optimizer = optimizer.make_optimizer(train_config(*arguments).optimizer,
                                            tf.constant(0.1))
    step = tf_optimizer.apply_gradients([(tf.constant(1e-3), variable)])
    session.run(tf.global_variables_initializer())
    for _ in range(3):
      session.run(step)
    return 1 - session.run(variable)


@pytest.mark.parametrize('name', [
    'adadelta', 'adagrad', 'adam', 'ftrl', 'momentum', 'rmsprop', 'sgd'])
def test_optimizer_of_each_name_descends_the_gradient(name):
  assert distance_moved(name) > 0


def test_optimizer_adam_default_epsilon_moves_faster_than_slims():
  assert distance_moved('adam') == pytest.approx(0.3, rel=1e-3)
  assert distance_moved('adam', '--opt_epsilon=1.0') < 1e-3


def test_optimizer_rmsprop_default_epsilon_is_slims():
  assert distance_moved('rmsprop') == pytest.approx(
      distance_moved('rmsprop', '--opt_epsilon=1.0'))
  # The divisor is the root of epsilon plus an accumulator that starts at 1.
  assert (distance_moved('rmsprop', '--opt_epsilon=1e-10') >
          1.4 * distance_moved('rmsprop'))


def test_optimizer_momentum_flags_reach_their_optimizers():
  assert distance_moved('momentum', '--momentum=0.0') == pytest.approx(
      3e-4, rel=1e-3)
  assert distance_moved('momentum', '--momentum=0.9') == pytest.approx(
      5.61e-4, rel=1e-3)
  assert distance_moved('rmsprop', '--rmsprop_momentum=0.0') < distance_moved(
      'rmsprop')


def rates(arguments, steps):
  """Returns the learning rates of steps, of 100 photos out of 1000."""
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    config = train_config(*arguments)
    rate = optimizer.make_learning_rate(config.optimizer, 1000, 100, step,
                                        config.max_number_of_steps)
    return [session.run(rate, {step: number}) for number in steps]


COSINE = '--learning_rate_decay_type=cosine'


@pytest.mark.parametrize('arguments', [
    ['--max_number_of_steps=40'], ['--learning_rate_decay_steps=40'],
    ['--learning_rate_decay_steps=40', '--max_number_of_steps=90']])
def test_learning_rate_cosine_decays_to_end_learning_rate(arguments):
  actual = rates([COSINE, '--end_learning_rate=0.002', *arguments],
                 [0, 10, 20, 30, 40, 41])
  root = 2 ** 0.5 / 2
  np.testing.assert_allclose(
      actual, [0.01, 0.006 + 0.004 * root, 0.006, 0.006 - 0.004 * root, 0.002,
               0.002], rtol=1e-5)


def test_learning_rate_cosine_without_number_of_steps_names_flags():
  with pytest.raises(InputError, match='give --max_number_of_steps or '
                     '--learning_rate_decay_steps$') as caught:
    rates([COSINE], [0])
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('decay', [
    ['--learning_rate_decay_type=fixed'],
    ['--learning_rate_decay_type=exponential'],
    ['--learning_rate_decay_type=polynomial'],
    [COSINE, '--max_number_of_steps=50']])
def test_learning_rate_warmup_multiplies_any_decay_by_a_ramp(decay):
  steps = [0, 1, 15, 24, 25, 26, 45]
  ramp = np.minimum((np.array(steps) + 1) / 25, 1)
  np.testing.assert_allclose(rates([*decay, '--warmup_steps=25'], steps),
                             ramp * rates(decay, steps), rtol=1e-5)


@pytest.mark.parametrize('decay', [
    ['--learning_rate_decay_type=fixed'], [],  # Drops after 20 steps.
    [COSINE, '--max_number_of_steps=50']])
def test_learning_rate_warmup_epochs_is_slims(decay):
  steps = [0, 1, 12, 24, 25, 26, 45]
  # 2.5 epochs of 10 steps, from 0; the scheduled rate where that is smaller.
  np.testing.assert_allclose(
      rates([*decay, '--warmup_epochs=2.5'], steps),
      np.minimum(rates(decay, steps), 0.01 * np.array(steps) / 25), rtol=1e-5)


def test_learning_rate_both_warmups_are_refused():
  with pytest.raises(InputError, match='--warmup_steps=3 and '
                     '--warmup_epochs=0.5: give one of them'):
    rates(['--warmup_steps=3', '--warmup_epochs=0.5'], [0])


@pytest.mark.parametrize('warmup, expected', [
    ([], (30, 0.0)), (['--warmup_steps=7'], (7, 0.0)),
    (['--warmup_epochs=2'], (0, 2.0))])
def test_decaying_has_the_warmup_of_the_flags_or_a_tenth(warmup, expected):
  config = finetune_all.decaying(train_config(*warmup).optimizer, 0.1, 300)
  assert (config.warmup_steps, config.warmup_epochs) == expected


def test_clip_gradients_keeps_direction_and_small_gradients():
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
  """Returns the length of one SGD step at rate 1, and the summary tags."""
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
  changes = [np.ravel(new - old) for new, old in zip(after, before)]
  return np.linalg.norm(np.concatenate(changes)), tags


def test_graph_clips_combined_gradient_of_all_clones(monkeypatch):
  unclipped, tags = step_length(monkeypatch)
  assert unclipped > 0.5 and 'gradient_norm' not in tags
  clipped, tags = step_length(monkeypatch, '--clip_gradient_norm=0.1')
  assert clipped == pytest.approx(0.1, rel=1e-4) and 'gradient_norm' in tags
