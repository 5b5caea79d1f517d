"""Tests of training/graph.py: several clones, with real networks."""

import numpy as np
import pytest

import train_image_classifier
from compat import slim, tf
from kits import network_kit
from kits.helpers import parsed_flags
from nets import nets_factory
from runs import run_info
from training import graph as training_graph
from training import optimizer

PHOTOS = 32
LABELS = ['blue', 'green', 'red']


def photos(size, channels):
  draw = np.random.RandomState(5)
  return {'image': draw.uniform(-1, 1, [PHOTOS, size, size, channels]).astype(
      np.float32), 'label': draw.randint(0, len(LABELS), PHOTOS)}


def set_values(session, variables):
  """Gives variables values that do not depend on the rest of the graph."""
  draw = np.random.RandomState(7)
  values = {}
  for name in sorted(variables):
    shape = variables[name].shape.as_list()
    around = 1.0 if name.endswith(('moving_variance', 'gamma')) else 0.0
    scale = 0.05 if around else 1 / np.sqrt(max(1, np.prod(shape[:-1])))
    values[variables[name].initializer.inputs[1]] = (
        around + draw.normal(0, scale, shape))
  session.run([variable.initializer for variable in variables.values()], values)


def change_of_one_step(model_name, size, num_clones, optimizer='sgd'):
  """Trains one step on the same photos, however many clones share them.

  Returns:
    The total loss, and {variable name: what the step added}.
  """
  row = nets_factory.get_network(model_name)
  everything = photos(size, row.channels)
  share = PHOTOS // num_clones
  parts = iter(range(num_clones))

  def next_batch():
    start = next(parts) * share
    return {key: tf.constant(value[start:start + share])
            for key, value in everything.items()}

  info = run_info.RunInfo(model_name, LABELS, 0, size, row.preprocessing,
                          'colours', '/nowhere', None)
  dataset = slim.dataset.Dataset([], None, None, num_samples=PHOTOS,
                                 items_to_descriptions={})
  with tf.Graph().as_default(), parsed_flags(
      train_image_classifier.define_flags, '--model_name=' + model_name,
      '--optimizer=' + optimizer, '--learning_rate=1',
      '--learning_rate_decay_type=fixed', '--weight_decay=0.01',
      '--batch_size=%d' % share, '--num_clones=%d' % num_clones,
      '--clone_on_cpu', '--dropout_keep_prob=1') as values:
    tf.set_random_seed(3)
    graph = training_graph.build_from_flags(
        values, dataset, info, row, [], next_batch, freeze_batch_norm=True)
    assert next(parts, None) is None
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
def test_gradient_of_4_clones_of_8_is_that_of_one_of_32(model_name, size):
  loss, changes = change_of_one_step(model_name, size, 1)
  clones_loss, clones_changes = change_of_one_step(model_name, size, 4)
  assert clones_loss == pytest.approx(loss, rel=1e-5)
  assert set(changes) == set(clones_changes)
  assert sum(bool(np.any(change)) for change in changes.values()) > 4
  for name, change in changes.items():
    nothing = float(1e-4 * max(np.abs(change).max(), 1e-6))
    assert clones_changes[name] == pytest.approx(change, rel=1e-3,
                                                 abs=nothing), name


@pytest.mark.parametrize('arguments, photos_a_step', [
    ([], 4),
    (['--num_clones=2', '--clone_on_cpu'], 8),
    # Asynchronous: each worker's step is a global step.
    (['--worker_replicas=3', '--num_ps_tasks=1'], 4),
    (['--worker_replicas=3', '--num_ps_tasks=1', '--sync_replicas',
      '--replicas_to_aggregate=3', '--num_clones=2', '--clone_on_cpu'], 24)])
def test_learning_rate_decays_by_the_photos_of_all_clones_and_replicas(
    monkeypatch, arguments, photos_a_step):
  seen = []

  def rate(values, num_samples, photos, global_step):
    seen.append((num_samples, photos))
    return tf.constant(0.1)

  monkeypatch.setattr(optimizer, 'learning_rate_from_flags', rate)
  with network_kit.training(monkeypatch, '--batch_size=4', '--optimizer=sgd',
                             *arguments):
    pass
  assert seen == [(80, photos_a_step)]  # The tiny data set has 80 photos.


def test_learning_rate_decays_after_so_many_epochs_of_photos():
  with tf.Graph().as_default(), tf.Session() as session, parsed_flags(
      optimizer.define_flags, '--learning_rate=1', '--num_epochs_per_decay=3',
      '--learning_rate_decay_factor=0.5') as values:
    step = tf.placeholder(tf.int64, [])
    rate = optimizer.learning_rate_from_flags(values, 80, 24, step)
    # 3 epochs of 80 photos are 10 steps of 24.
    assert [session.run(rate, {step: number})
            for number in (9, 10, 19, 20)] == [1, 0.5, 0.5, 0.25]
