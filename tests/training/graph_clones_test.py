"""Tests of training/graph.py: several clones, with real networks."""

import numpy as np
import pytest

from compat import slim, tf
from kits import network_kit
from kits.trained_kit import train_config
from nets import nets_factory
from runs import run_info
from training import graph as training_graph
from training import optimizer

PHOTOS = 32
LABELS = ['blue', 'green', 'red']


def photos(size, channels):
  rng = np.random.RandomState(5)
  return {'image': rng.uniform(-1, 1, [PHOTOS, size, size, channels]).astype(
      np.float32), 'label': rng.randint(0, len(LABELS), PHOTOS)}


def set_values(session, variables):
  """Sets variables to values that do not depend on the rest of the graph."""
  rng = np.random.RandomState(7)
  values = {}
  for name in sorted(variables):
    shape = variables[name].shape.as_list()
    mean = 1.0 if name.endswith(('moving_variance', 'gamma')) else 0.0
    scale = 0.05 if mean else 1 / np.sqrt(max(1, np.prod(shape[:-1])))
    values[variables[name].initializer.inputs[1]] = (
        mean + rng.normal(0, scale, shape))
  session.run([variable.initializer for variable in variables.values()], values)


def change_of_one_step(model_name, size, num_clones, optimizer='sgd'):
  """Trains one step on the same photos, split among the clones.

  Returns:
    The total loss, and {variable name: change by the step}.
  """
  row = nets_factory.get_network(model_name)
  all_photos = photos(size, row.channels)
  batch_size = PHOTOS // num_clones
  clone_indices = iter(range(num_clones))

  def next_batch():
    start = next(clone_indices) * batch_size
    return {key: tf.constant(value[start:start + batch_size])
            for key, value in all_photos.items()}

  info = run_info.RunInfo(model_name, LABELS, 0, size, row.preprocessing,
                          'colours', '/nowhere', None)
  dataset = slim.dataset.Dataset([], None, None, num_samples=PHOTOS,
                                 items_to_descriptions={})
  config = train_config(
      '--model_name=' + model_name, '--optimizer=' + optimizer,
      '--learning_rate=1', '--learning_rate_decay_type=fixed',
      '--weight_decay=0.01', '--batch_size=%d' % batch_size,
      '--num_clones=%d' % num_clones, '--clone_on_cpu', '--dropout_keep_prob=1')
  with tf.Graph().as_default():
    tf.set_random_seed(3)
    graph = training_graph.build(
        config, dataset, info, row, [], next_batch, freeze_batch_norm=True)
    assert next(clone_indices, None) is None
    variables = {v.op.name: v for v in slim.get_model_variables()}
    with tf.Session() as session:
      session.run([tf.global_variables_initializer(),
                   tf.local_variables_initializer()])
      session.run(tf.tables_initializer())
      set_values(session, variables)
      before = session.run(variables)
      loss = session.run(graph.train_op)
      after = session.run(variables)
  return loss, {name: after[name] - before[name] for name in before}


@pytest.mark.slow
@pytest.mark.parametrize('model_name, size', [
    ('cifarnet', 32), ('mobilenet_v1_025', 32)])
def test_graph_gradient_of_4_clones_equals_that_of_1_clone(model_name, size):
  loss, changes = change_of_one_step(model_name, size, 1)
  clones_loss, clones_changes = change_of_one_step(model_name, size, 4)
  assert clones_loss == pytest.approx(loss, rel=1e-5)
  assert set(changes) == set(clones_changes)
  assert sum(bool(np.any(change)) for change in changes.values()) > 4
  for name, change in changes.items():
    tolerance = float(1e-4 * max(np.abs(change).max(), 1e-6))
    assert clones_changes[name] == pytest.approx(change, rel=1e-3,
                                                 abs=tolerance), name


@pytest.mark.parametrize('arguments, photos_per_step', [
    ([], 4),
    (['--num_clones=2', '--clone_on_cpu'], 8),
    # Asynchronous: each worker's step is a global step.
    (['--worker_replicas=3', '--num_ps_tasks=1'], 4),
    (['--worker_replicas=3', '--num_ps_tasks=1', '--sync_replicas',
      '--replicas_to_aggregate=3', '--num_clones=2', '--clone_on_cpu'], 24)])
def test_learning_rate_counts_photos_of_all_clones_and_replicas(
    monkeypatch, arguments, photos_per_step):
  calls = []

  def fake_learning_rate(config, num_samples, photos, global_step,
                         number_of_steps):
    calls.append((num_samples, photos))
    return tf.constant(0.1)

  monkeypatch.setattr(optimizer, 'make_learning_rate', fake_learning_rate)
  with network_kit.training(monkeypatch, '--batch_size=4', '--optimizer=sgd',
                             *arguments):
    pass
  assert calls == [(80, photos_per_step)]  # The tiny data set has 80 photos.


def test_learning_rate_decays_after_num_epochs_per_decay():
  config = train_config('--learning_rate=1', '--num_epochs_per_decay=3',
                        '--learning_rate_decay_factor=0.5')
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    rate = optimizer.make_learning_rate(config.optimizer, 80, 24, step)
    # 3 epochs of 80 photos are 10 steps of 24.
    assert [session.run(rate, {step: number})
            for number in (9, 10, 19, 20)] == [1, 0.5, 0.5, 0.25]
