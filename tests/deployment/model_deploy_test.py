"""Tests of model_deploy.py: devices, clones, gradients and training steps."""

import numpy as np
import pytest

from compat import slim, tf
from deployment import model_deploy


def _same_device(*devices):
  return len({tf.DeviceSpec.from_string(text).to_string()
              for text in devices}) == 1


CPU = '/device:CPU:0'


@pytest.mark.parametrize('options, clone_devices, scopes, job', [
    ({}, ['/device:GPU:0'], [''], ''),
    ({'clone_on_cpu': True}, [CPU], [''], ''),
    ({'num_clones': 2}, ['/device:GPU:0', '/device:GPU:1'],
     ['clone_0', 'clone_1'], ''),
    ({'num_clones': 2, 'clone_on_cpu': True}, [CPU, CPU],
     ['clone_0', 'clone_1'], ''),
    ({'num_ps_tasks': 1}, ['/job:worker/device:GPU:0'], [''], '/job:worker'),
    ({'num_clones': 2, 'num_ps_tasks': 1, 'worker_job_name': 'w'},
     ['/job:w/device:GPU:0', '/job:w/device:GPU:1'], ['clone_0', 'clone_1'],
     '/job:w'),
    ({'num_replicas': 2, 'num_ps_tasks': 2, 'replica_id': 1},
     ['/job:worker/device:GPU:0'], [''], '/job:worker'),
])
def test_config_devices_and_scopes_follow_the_options(options, clone_devices,
                                                      scopes, job):
  config = model_deploy.DeploymentConfig(**options)
  indices = range(config.num_clones)
  assert [config.clone_device(index) for index in indices] == clone_devices
  assert [config.clone_scope(index) for index in indices] == scopes
  assert config.optimizer_device() == config.inputs_device() == job + CPU
  if not config.num_ps_tasks:
    assert config.variables_device() == CPU
    assert config.caching_device() is None


@pytest.mark.parametrize('tasks', [1, 2, 3])
def test_config_assigns_variables_round_robin_to_parameter_servers(tasks):
  config = model_deploy.DeploymentConfig(num_ps_tasks=tasks, ps_job_name='p')
  with tf.Graph().as_default():
    with tf.device(config.variables_device()):
      variables = [tf.Variable(0.0) for _ in range(3)]
      variables.append(tf.Variable(0.0, use_resource=True))
      no_op = tf.no_op()
      with tf.device('/device:CPU:7'):
        elsewhere = tf.Variable(0.0)
    cached = slim.variable('cached', [],
                           device=config.variables_device(),
                           caching_device=config.caching_device())
    assert no_op.device == ''
    assert 'task' not in elsewhere.device
    for index, variable in enumerate(variables):
      assert _same_device(variable.device, '/job:p/task:%d%s' % (index % tasks,
                                                                 CPU))
    assert _same_device(cached.device, '/job:p/task:0' + CPU)
    assert cached.value().device == ''


@pytest.mark.parametrize('options, message', [
    ({'num_clones': 0}, 'num_clones must be at least 1, got 0'),
    ({'num_replicas': 2}, '2 replicas need parameter servers'),
    ({'num_ps_tasks': 1, 'worker_job_name': ''}, 'worker_job_name must not'),
    ({'num_ps_tasks': 1, 'ps_job_name': None}, 'ps_job_name must not'),
    ({'replica_id': 1}, 'replica_id must be 0 to 0, got 1'),
    ({'replica_id': 2, 'num_replicas': 2, 'num_ps_tasks': 1},
     'replica_id must be 0 to 1, got 2'),
])
def test_config_contradicting_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    model_deploy.DeploymentConfig(**options)


@pytest.mark.parametrize('index', [-1, 2])
def test_config_unknown_clone_is_refused(index):
  config = model_deploy.DeploymentConfig(num_clones=2)
  for method in (config.clone_device, config.clone_scope):
    with pytest.raises(ValueError, match='clone_index must be 0 to 1'):
      method(index)


# 16 examples: a label of 0 or 1, and four inputs that determine it.
LABELS = (np.random.RandomState(0).rand(16, 1) > 0.5).astype('float32')
INPUTS = np.concatenate([LABELS, 1 - LABELS, np.full((16, 2), 0.5)],
                        1).astype('float32')


def _logistic(inputs, labels, scope=None):
  with tf.variable_scope(scope, 'Logistic'):
    predictions = slim.fully_connected(inputs, 1, activation_fn=tf.sigmoid,
                                       scope='fc')
    tf.losses.log_loss(labels, predictions)
    return predictions


def _normalised(inputs, labels):
  inputs = slim.batch_norm(inputs, decay=0.1, fused=False)
  return _logistic(inputs, labels)


def _data():
  return tf.constant(INPUTS), tf.constant(LABELS)


def _session():
  return tf.Session(config=tf.ConfigProto(allow_soft_placement=True))


@pytest.mark.parametrize('balance_ps, tasks', [
    (False, [0, 1, 0, 1, 0]), (True, [0, 1, 1, 1, 1])])
def test_config_balance_ps_assigns_variables_by_bytes(balance_ps, tasks):
  config = model_deploy.DeploymentConfig(num_ps_tasks=2, balance_ps=balance_ps)
  with tf.Graph().as_default(), tf.device(config.variables_device()):
    variables = [tf.Variable(tf.zeros(shape), dtype=kind, use_resource=resource)
                 for shape, kind, resource in (
                     ([100], tf.float32, False), ([3], tf.float32, True),
                     ([10, 4], tf.float32, False), ([], tf.float32, False),
                     ([50], tf.float32, True))]
  assert [tf.DeviceSpec.from_string(variable.device).task
          for variable in variables] == tasks


def test_create_clones_single_clone_has_no_scope():
  with tf.Graph().as_default():
    clones = model_deploy.create_clones(model_deploy.DeploymentConfig(),
                                        _logistic, _data())
    clone, = clones
    assert clone.scope == '' and clone.device == '/device:GPU:0'
    assert clone.outputs.op.name == 'Logistic/fc/Sigmoid'
    assert _same_device(clone.outputs.device, '/device:GPU:0')
    assert [v.op.name for v in slim.get_variables()] == [
        'Logistic/fc/weights', 'Logistic/fc/biases']
    assert all(_same_device(v.device, CPU) for v in slim.get_variables())
    assert len(tf.losses.get_losses()) == 1


def test_create_clones_share_variables_but_not_updates():
  with tf.Graph().as_default():
    config = model_deploy.DeploymentConfig(num_clones=3)
    clones = model_deploy.create_clones(config, _normalised, _data())
    assert len(slim.get_variables()) == 5
    assert all(_same_device(v.device, CPU) for v in slim.get_variables())
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 6
    for index, clone in enumerate(clones):
      assert clone.scope == 'clone_%d/' % index
      assert clone.outputs.op.name == 'clone_%d/Logistic/fc/Sigmoid' % index
      assert _same_device(clone.device, '/device:GPU:%d' % index)
      assert _same_device(clone.outputs.device, clone.device)
      assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS, clone.scope)) == 2
      assert len(tf.get_collection(tf.GraphKeys.LOSSES, clone.scope)) == 1


def test_create_clones_assigns_variables_round_robin_to_parameter_servers():
  with tf.Graph().as_default():
    config = model_deploy.DeploymentConfig(num_clones=2, num_ps_tasks=2)
    model_deploy.create_clones(config, _normalised, _data())
    for index, variable in enumerate(slim.get_variables()):
      assert _same_device(variable.device,
                          '/job:ps/task:%d%s' % (index % 2, CPU))


def test_create_clones_passes_keyword_arguments():
  with tf.Graph().as_default():
    clone, = model_deploy.create_clones(
        model_deploy.DeploymentConfig(clone_on_cpu=True), _logistic,
        [tf.constant(INPUTS)], {'labels': LABELS, 'scope': 'Mine'})
    assert clone.outputs.op.name == 'Mine/fc/Sigmoid'


def test_create_clones_does_not_leave_reuse_on():
  with tf.Graph().as_default():
    model_deploy.create_clones(model_deploy.DeploymentConfig(num_clones=2),
                               _logistic, _data())
    assert not tf.get_variable_scope().reuse


def _optimizer():
  return tf.train.GradientDescentOptimizer(1.0)


@pytest.mark.parametrize('options, gradient_device', [
    ({}, '/device:GPU:0'), ({'clone_on_cpu': True}, CPU),
    ({'num_clones': 2}, ''), ({'num_clones': 2, 'clone_on_cpu': True}, ''),
    ({'num_ps_tasks': 1}, '/job:worker/device:GPU:0')])
def test_optimize_clones_gradients_are_on_the_device_of_a_single_clone(
    options, gradient_device):
  with tf.Graph().as_default():
    config = model_deploy.DeploymentConfig(**options)
    clones = model_deploy.create_clones(config, _logistic, _data())
    total_loss, gradients = model_deploy.optimize_clones(clones, _optimizer())
    assert total_loss.op.name == 'total_loss'
    assert len(gradients) == len(tf.trainable_variables()) == 2
    for gradient, variable in gradients:
      assert _same_device(gradient.device, gradient_device)
      assert 'CPU' in variable.device


def _gradients(num_clones, data=None, **kwargs):
  """Returns total loss and gradients; `data` has the examples of each clone."""
  with tf.Graph().as_default(), _session() as session:
    parts = iter(data or [(INPUTS, LABELS)] * num_clones)

    def model():
      inputs, labels = next(parts)
      with slim.arg_scope([slim.fully_connected],
                          weights_initializer=tf.constant_initializer(0.3),
                          weights_regularizer=slim.l2_regularizer(0.5)):
        _logistic(tf.constant(inputs), labels)

    clones = model_deploy.create_clones(
        model_deploy.DeploymentConfig(num_clones=num_clones), model)
    total_loss, gradients = model_deploy.optimize_clones(clones, _optimizer(),
                                                         **kwargs)
    session.run(tf.global_variables_initializer())
    return session.run([total_loss, [gradient for gradient, _ in gradients]])


def test_optimize_clones_gradients_sum_to_that_of_all_examples():
  whole_loss, whole = _gradients(1)
  halves = [(INPUTS[:8], LABELS[:8]), (INPUTS[8:], LABELS[8:])]
  loss, gradients = _gradients(2, halves)
  np.testing.assert_allclose(loss, whole_loss, rtol=1e-5)
  for gradient, expected in zip(gradients, whole):
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
  first_half, _ = _gradients(1, halves[:1])
  assert abs(first_half - whole_loss) > 1e-4  # The halves differ.


def test_optimize_clones_regularization_is_counted_once():
  # 0.5 * (4 * 0.3 ** 2) / 2, for any number of clones.
  expected = 0.09
  for num_clones in (1, 2, 3):
    regularized, _ = _gradients(num_clones)
    unregularized, _ = _gradients(num_clones, regularization_losses=[])
    np.testing.assert_allclose(regularized - unregularized, expected, rtol=1e-4)


def test_optimize_clones_passes_on_var_list():
  with tf.Graph().as_default():
    clones = model_deploy.create_clones(model_deploy.DeploymentConfig(),
                                        _logistic, _data())
    biases = slim.get_variables_by_name('biases')
    _, gradients = model_deploy.optimize_clones(clones, _optimizer(),
                                                var_list=biases)
    assert [variable for _, variable in gradients] == biases


def test_optimize_clones_without_a_loss_is_refused():
  with tf.Graph().as_default():
    clones = model_deploy.create_clones(
        model_deploy.DeploymentConfig(num_clones=2), tf.no_op)
    with pytest.raises(ValueError, match="none of the 2 clones .* 'losses'"):
      model_deploy.optimize_clones(clones, _optimizer())


@pytest.mark.parametrize('num_clones', [1, 2])
def test_optimize_clones_warns_of_variables_without_gradient(num_clones,
                                                             monkeypatch):
  lines = []
  monkeypatch.setattr(tf.logging, 'warning',
                      lambda text, *args: lines.append(text % args))

  def model(inputs, labels):
    slim.model_variable('Unused', [3])
    _logistic(inputs, labels)

  with tf.Graph().as_default():
    clones = model_deploy.create_clones(
        model_deploy.DeploymentConfig(num_clones=num_clones), model, _data())
    _, gradients = model_deploy.optimize_clones(clones, _optimizer())
    assert {variable.op.name for _, variable in gradients} == {
        'Logistic/fc/weights', 'Logistic/fc/biases'}
  assert len(lines) == 1 and lines[0].endswith(': Unused')


@pytest.mark.parametrize('num_clones', [1, 2])
def test_deploy_with_optimizer_reduces_the_loss(num_clones):
  with tf.Graph().as_default(), _session() as session:
    tf.set_random_seed(0)
    model = model_deploy.deploy(
        model_deploy.DeploymentConfig(num_clones=num_clones), _normalised,
        _data(), optimizer=_optimizer())
    assert len(model.clones) == num_clones
    assert model.train_op.op.name == 'train_op'
    assert model.total_loss.op.name == 'total_loss'
    assert model.summary_op.op.name == 'summary_op/summary_op'
    moving_mean, = slim.get_variables_by_name('moving_mean')
    session.run(tf.global_variables_initializer())
    before = session.run(model.total_loss)
    for _ in range(10):
      loss = session.run(model.train_op)
    assert loss < 0.5 * before
    assert session.run(tf.train.get_global_step()) == 10
    np.testing.assert_allclose(session.run(moving_mean), INPUTS.mean(0),
                               rtol=1e-5)


def test_deploy_runs_updates_of_the_first_clone_only():
  counts = []

  def model(inputs, labels):
    with tf.device(CPU):
      index = len(counts)
      counts.append(0)

      def count():
        counts[index] += 1
        return np.int32(0)

      update = tf.py_func(count, [], tf.int32)
    tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
    return _logistic(inputs, labels)

  with tf.Graph().as_default(), _session() as session:
    model = model_deploy.deploy(
        model_deploy.DeploymentConfig(num_clones=2), model, _data(),
        optimizer=_optimizer())
    session.run(tf.global_variables_initializer())
    session.run(model.train_op)
    session.run(model.train_op)
  assert counts == [2, 0]


def test_deploy_without_optimizer_returns_only_the_loss():
  with tf.Graph().as_default(), _session() as session:
    model = model_deploy.deploy(
        model_deploy.DeploymentConfig(num_clones=2), _logistic, _data())
    assert model.train_op is None
    assert model.total_loss.op.name == 'total_loss'
    assert tf.train.get_global_step() is None
    session.run(tf.global_variables_initializer())
    loss, summary = session.run([model.total_loss, model.summary_op])
  values = {value.tag: value.simple_value
            for value in tf.Summary.FromString(summary).value}
  np.testing.assert_allclose(values['total_loss_1'], loss)
  np.testing.assert_allclose(values['clone_0/Losses/clone_loss'], loss / 2,
                             rtol=1e-6)


def test_deploy_without_any_loss_has_no_ops():
  with tf.Graph().as_default():
    model = model_deploy.deploy(model_deploy.DeploymentConfig(), tf.no_op)
    assert model[:3] == (None, None, None)


@pytest.mark.parametrize('optimizer', [True, False])
def test_deploy_puts_no_summaries_on_gpus(optimizer):

  def model():
    slim.fully_connected(tf.ones([10, 20]), 30,
                         weights_regularizer=slim.l2_regularizer(0.001))

  with tf.Graph().as_default():
    deployed = model_deploy.deploy(
        model_deploy.DeploymentConfig(num_clones=2), model,
        optimizer=_optimizer() if optimizer else None)
    assert len(deployed.summary_op.op.inputs) == 2
    for summary in deployed.summary_op.op.inputs:
      assert summary.device == '/device:CPU:0'


def _summary_tags(summarize_gradients):

  def model(inputs, labels):
    predictions = _logistic(inputs, labels)
    with tf.device(CPU):
      tf.summary.scalar('of_model', tf.reduce_mean(predictions))

  with tf.Graph().as_default(), _session() as session:
    with tf.device(CPU):
      tf.summary.scalar('of_caller', 1.0)
    deployed = model_deploy.deploy(
        model_deploy.DeploymentConfig(num_clones=2), model, _data(),
        optimizer=_optimizer(), summarize_gradients=summarize_gradients)
    session.run(tf.global_variables_initializer())
    summary = session.run(deployed.summary_op)
  return sorted(value.tag for value in tf.Summary.FromString(summary).value)


def test_deploy_summarizes_caller_first_clone_and_total():
  assert _summary_tags(False) == [
      'clone_0/Losses/clone_loss', 'clone_0/of_model', 'of_caller',
      'total_loss_1']


def test_deploy_summarizes_gradients_on_request():
  added = set(_summary_tags(True)) - set(_summary_tags(False))
  assert added == {'Logistic/fc/%s/%s' % (variable, name)
                   for variable in ('weights', 'biases')
                   for name in ('gradient', 'gradient_norm')}


def test_deploy_summarizes_sparse_gradients():

  def model():
    table = slim.model_variable('table', [5, 2],
                                initializer=tf.ones_initializer())
    tf.losses.add_loss(tf.reduce_sum(tf.gather(table, [1, 3])))

  with tf.Graph().as_default(), _session() as session:
    deployed = model_deploy.deploy(
        model_deploy.DeploymentConfig(clone_on_cpu=True), model,
        optimizer=_optimizer(), summarize_gradients=True)
    session.run(tf.global_variables_initializer())
    values = {value.tag: value for value in tf.Summary.FromString(
        session.run(deployed.summary_op)).value}
    np.testing.assert_allclose(values['table/gradient_norm'].simple_value, 2.0)
    session.run(deployed.train_op)
    assert session.run(tf.trainable_variables()[0]).sum() == 10 - 4
