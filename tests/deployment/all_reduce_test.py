"""Tests of deployment/all_reduce.py: gradients, processes, flags."""

import concurrent.futures
import os
import re

import numpy as np
import pytest

from common.errors import InputError
from compat import slim, tf
from deployment import all_reduce, cluster, hosts
from deployment.launcher import machine
from kits import cluster_kit
from kits.trained_kit import make_dataset, train, train_config
from nets import nets_factory
from runs import checkpoints, run_info
from training import graph as training_graph

WORKERS, PHOTOS, SIZE = 3, 24, 32
MODEL = 'cifarnet'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def targets():
  """Returns the addresses of the servers of all workers."""
  members = hosts.parse(*machine.local_lists(0, WORKERS), all_reduce=True)
  servers = [cluster._start_server(
      hosts.Member(members, task),
      all_reduce.session_config(tf.ConfigProto(), task.index))
             for task in members.workers]
  return [server.target for server in servers]


def train_step(config, photos, target='', scope=''):
  """Takes a step with weights that depend on the worker until they are shared.

  Returns:
    The loss, {variable: (value before, after the step)}, and STOPS if there are
    several workers.
  """
  row = nets_factory.get_network(MODEL)
  info = run_info.RunInfo(MODEL, ['a', 'b', 'c'], 0, SIZE, row.preprocessing,
                          'colours', '/nowhere', None)
  dataset = slim.dataset.Dataset([], None, None, num_samples=PHOTOS,
                                 items_to_descriptions={})
  replicas = config.replicas
  with tf.Graph().as_default() as graph, tf.device(scope):
    tf.set_random_seed(3 + replicas.task)
    built = training_graph.build(
        config, dataset, info, row, ['CifarNet/fc4', 'CifarNet/logits'],
        lambda: {key: tf.constant(value) for key, value in photos.items()})
    variables = {v.op.name: v for v in tf.global_variables()}
    with tf.Session(target, config=all_reduce.session_config(
        tf.ConfigProto(allow_soft_placement=True), replicas.task)
                    if target else None) as session:
      session.run(tf.global_variables_initializer())
      session.run(tf.tables_initializer())
      feed, stops = {}, None
      if target:
        session.run(graph.get_operation_by_name(all_reduce.BEGIN))
        session.run(graph.get_collection(training_graph.FROZEN_LOSSES))
        feed = {all_reduce.STOP: float(replicas.task == 1)}
      before = session.run(variables)
      loss = session.run(built.train_op, feed)
      after = session.run(variables)
      if target:
        stops = session.run(all_reduce.STOPS)
  return loss, {name: (before[name], after[name]) for name in before}, stops


def config_of(*flags):
  return train_config(
      '--model_name=' + MODEL, '--optimizer=momentum', '--learning_rate=1',
      '--learning_rate_decay_type=fixed', '--weight_decay=0.01',
      '--dropout_keep_prob=1', '--clone_on_cpu', '--clip_gradient_norm=0.5',
      '--moving_average_decay=0.9', *flags)


def test_step_of_workers_equals_one_step_on_all_their_photos(targets):
  rng = np.random.RandomState(5)
  images = rng.uniform(-1, 1, [PHOTOS, SIZE, SIZE, 3]).astype(np.float32)
  photos = {'image': images, 'label': rng.randint(0, 3, PHOTOS)}
  share = PHOTOS // WORKERS

  configs = [
      config_of('--all_reduce', '--task=%d' % worker, '--batch_size=%d' % share,
                '--worker_replicas=%d' % WORKERS) for worker in range(WORKERS)]

  def step_of(worker):
    return train_step(
        configs[worker],
        {key: value[worker * share:(worker + 1) * share]
         for key, value in photos.items()},
        targets[worker], '/job:worker/task:%d' % worker)

  loss, expected, _ = train_step(config_of('--batch_size=%d' % PHOTOS), photos)
  # Worker 0 has the seed, and so the weights, of the single process.
  with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
    results = list(pool.map(step_of, range(WORKERS)))
  for loss_of_worker, variables, stops in results:
    assert loss_of_worker == pytest.approx(loss, abs=1e-6)
    assert stops == pytest.approx(1 / WORKERS)
    assert set(variables) == set(expected)
    for name, (before, after) in expected.items():
      assert np.array_equal(variables[name][0], before), name
      assert np.max(np.abs(variables[name][1] - after)) <= 1e-6, name
  changed = [name for name, (before, after) in expected.items()
             if np.any(before != after)]
  # The step, four variables and their momentum.
  assert 'global_step' in changed and len(changed) == 9


def start(tasks):
  return tasks.start('worker', 0), tasks.start('worker', 1)


@pytest.mark.slow
def test_workers_take_the_same_steps_stop_together_and_resume(data, tmp_path):
  train_dir = str(tmp_path / 'train')
  with cluster_kit.Tasks(data, tmp_path, '--all_reduce', num_ps=0) as tasks:
    chief, other = start(tasks)
    other.wait_for(lambda: len(other.steps) > 5)
    other.terminate()
    assert [task.wait() for task in (chief, other)] == [0, 0], chief.log
    steps = cluster_kit.steps_and_losses(chief.log)
    assert steps == cluster_kit.steps_and_losses(other.log)
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    assert 'SIGTERM: stopping after this step' in other.log
    assert 'Another worker stops: stopping after this step' in chief.log
  newest = checkpoints.newest(train_dir)
  assert checkpoints.read_global_step(newest) == len(steps)

  with cluster_kit.Tasks(data, tmp_path, '--all_reduce', num_ps=0) as tasks:
    last = '--max_number_of_steps=%d' % (len(steps) + 5)
    chief = tasks.start('worker', 0, last)
    # As on another machine, which has no checkpoint.
    other = tasks.start('worker', 1, last, '--train_dir=%s' % (tmp_path / 'b'))
    assert [task.wait() for task in (chief, other)] == [0, 0], chief.log
    assert 'Resuming from ' + newest in chief.log
    assert 'Training from scratch' not in other.log
    more = cluster_kit.steps_and_losses(chief.log)
    assert more == cluster_kit.steps_and_losses(other.log)
    assert [step for step, _ in more] == [len(steps) + 1 + i for i in range(5)]
  newest = checkpoints.newest(train_dir)
  assert checkpoints.read_global_step(newest) == len(steps) + 5

  with cluster_kit.Tasks(data, tmp_path, '--all_reduce', last, num_ps=0
                         ) as tasks:
    chief = tasks.start('worker', 0)
    other = tasks.start('worker', 1, '--train_dir=%s' % (tmp_path / 'b'))
    assert [task.wait() for task in (chief, other)] == [0, 0], other.log
    for task, name in ((chief, newest), (other, 'The chief')):
      assert '%s has reached %s: nothing to do' % (name, last) in task.log

  # The worker's own checkpoints, of an earlier chief, do not count.
  with cluster_kit.Tasks(data, tmp_path, '--all_reduce', last, num_ps=0
                         ) as tasks:
    chief = tasks.start('worker', 0, '--train_dir=%s' % (tmp_path / 'c'))
    other = tasks.start('worker', 1)
    assert [task.wait() for task in (chief, other)] == [0, 0], other.log
    steps = cluster_kit.steps_and_losses(chief.log)
    assert steps and steps == cluster_kit.steps_and_losses(other.log)
  assert checkpoints.newest(train_dir) == newest
  assert not (tmp_path / 'b').exists()


@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_worker_killed_ends_the_others_with_one_error_line(data, tmp_path,
                                                           killed):
  with cluster_kit.Tasks(data, tmp_path, '--all_reduce', num_ps=0) as tasks:
    both = start(tasks)
    both[0].wait_for(lambda: len(both[0].steps) > 5)
    both[killed].kill()
    left = both[1 - killed]
    assert left.wait() == 1
    assert 'Traceback' not in left.log
    assert re.match(
        r'train_image_classifier.py: error: a worker was lost: %s \(.+\); '
        'start all tasks again' % (tasks.cluster.workers[killed],),
        left.log.splitlines()[-1])


# The flags.


@pytest.mark.parametrize('lists, message', [
    (('a:1', 'a:2,b:3'), '--all_reduce has no parameter servers: omit '
     '--ps_hosts=a:1'),
    ((None, 'a:2'), '--all_reduce needs two workers at least, --worker_hosts '
     'has 1'),
    (('', ''), '--worker_hosts is empty')])
def test_parse_wrong_lists_for_all_reduce_are_refused(lists, message):
  with pytest.raises(InputError) as caught:
    hosts.parse(*lists, all_reduce=True)
  assert str(caught.value).startswith(message)


@pytest.mark.parametrize('flags, message', [
    ([], '--all_reduce needs several workers, one per card: NUM_WORKERS=2 '),
    (['--worker_hosts=a:1,b:1', '--job_name=worker', '--sync_replicas'],
     '--all_reduce is synchronous: omit --sync_replicas'),
    (['--worker_hosts=a:1,b:1', '--job_name=worker', '--cache_features'],
     '--cache_features needs a single worker')])
def test_all_reduce_with_contradicting_flags_is_refused(data, tmp_path, flags,
                                                        message):
  with pytest.raises(InputError) as caught:
    train(data, tmp_path, '--all_reduce', *flags)
  assert str(caught.value).startswith(message)


def test_all_reduce_of_a_single_process_of_an_orchestrator_just_trains(
    data, tmp_path, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1"]}, '
                     '"task": {"type": "worker", "index": 0}}')
  assert train(data, tmp_path, '--all_reduce', '--max_number_of_steps=2')


@pytest.mark.parametrize('visible, index, cards', [
    (None, 2, '2,3'), ('4,5,6,7', 2, '6,7'), ('4,5,6,7', 1, '4,5'),
    (None, 0, None)])
def test_workers_of_one_host_take_their_share_of_its_cards(
    monkeypatch, visible, index, cards):
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  if visible:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  members = hosts.parse('', 'a:1,b:1,b:2', all_reduce=True)
  all_reduce.take_cards(hosts.Member(members, members.workers[index]), 2)
  assert os.environ.get('CUDA_VISIBLE_DEVICES') == cards
