"""Tests of cluster.py and hosts.py: lists of hosts, flags, graphs."""

import contextlib
import socket
import sys
import threading
import time

import pytest

import train_image_classifier
from common.errors import InputError
from compat import slim, tf
from deployment import cluster, hosts, sync_optimizer
from deployment.board import FAILED
from deployment.launcher import machine
from kits.helpers import parsed_flags
from kits.trained_kit import make_dataset, train
from training import finetune_all

LISTS = ['--ps_hosts=a:1', '--worker_hosts=a:2,b:3']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


# The lists of hosts.


def test_parse_numbers_the_tasks_and_the_first_worker_is_chief():
  parsed = hosts.parse('a:1, b:2', 'a:3,c.d:4')
  assert parsed.ps == [('ps', 0, 'a', 1), ('ps', 1, 'b', 2)]
  assert parsed.workers == [('worker', 0, 'a', 3), ('worker', 1, 'c.d', 4)]
  assert parsed.tasks == parsed.ps + parsed.workers
  assert str(parsed.chief) == 'worker 0 at a:3'


@pytest.mark.parametrize('ps,workers,message', [
    ('', 'a:2', '--ps_hosts is empty: give the host:port of each parameter '
     'server, as in --ps_hosts=a:2222,b:2222'),
    ('a:1', None, '--worker_hosts is empty'),
    ('a', 'a:2', "--ps_hosts: 'a' is not host:port"),
    ('a:1', 'a:2,', "--worker_hosts: '' is not host:port"),
    ('a:1', 'a:b', "--worker_hosts: 'a:b' is not host:port"),
    ('a:1', 'http://a:2', "--worker_hosts: 'http://a:2' is not host:port"),
    ('a:0', 'a:2', "--ps_hosts: 'a:0' has an invalid port, it must be 1 to "
     '65535'),
    ('a:65536', 'a:2', "--ps_hosts: 'a:65536' has an invalid port"),
    ('a:1', 'b:2,a:1', 'a:1 is listed twice, as ps-0 and as worker-1'),
])
def test_parse_invalid_list_is_refused_in_one_line(ps, workers, message):
  with pytest.raises(InputError) as caught:
    hosts.parse(ps, workers)
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


# Which tasks answer.


@contextlib.contextmanager
def listener(answer=b''):
  """Yields the port of a server that is not TensorFlow."""
  with socket.socket() as server:
    server.bind(('127.0.0.1', 0))
    server.listen(8)

    def serve():
      with contextlib.suppress(OSError):
        while True:
          connection, _ = server.accept()
          connection.sendall(answer)
          connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]


@pytest.fixture(scope='module')
def server():
  """Returns a tf.train.Server that is worker 1, and its cluster."""
  lists = machine.local_lists(1, 2)
  parsed = hosts.parse(*lists)
  spec = tf.train.ClusterSpec({
      'ps': [task.address for task in parsed.ps],
      'worker': [task.address for task in parsed.workers]})
  return tf.train.Server(spec, job_name='worker', task_index=1), parsed


def test_why_silent_distinguishes_the_task_from_all_others(server):
  _, parsed = server
  task = parsed.workers[1]
  assert hosts.why_silent(task) is None
  assert hosts.why_silent(task._replace(index=0)) == 'another task answers'
  assert hosts.why_silent(task._replace(job='ps')) == 'another task answers'
  assert hosts.why_silent(parsed.chief) == 'Connection refused'
  with listener(b'HTTP/1.1 400 Bad Request\r\n\r\n') as port:
    assert hosts.why_silent(task._replace(port=port)).startswith(
        'no TensorFlow answers: ')


def test_wait_for_names_all_tasks_that_do_not_answer_in_time(server):
  _, parsed = server
  hosts.wait_for([parsed.workers[1]], 60)
  start = time.monotonic()
  with pytest.raises(InputError) as caught:
    hosts.wait_for(parsed.tasks, 1)
  assert str(caught.value) == (
      'no answer within --startup_timeout=1 s from %s (Connection refused), %s '
      '(Connection refused)' % (parsed.ps[0], parsed.chief))
  assert time.monotonic() - start < 30


def test_watch_task_that_never_answered_is_missing_and_not_gone():
  with listener() as port:
    task = hosts.Task('worker', 0, '127.0.0.1', port)
    watch = hosts.Watch([task])
    watch.look()
    assert watch.missing() == [task] and watch.gone_for(task) == 0


def test_watch_task_that_has_answered_another_check_is_gone():
  lists = machine.local_lists(1, 2)
  server, chief, other = hosts.parse(*lists).tasks
  watch = hosts.Watch([server, chief, other], answered=[server, chief])
  watch.look()
  assert watch.missing() == [other] and watch.gone_for(other) == 0
  assert 0 < watch.gone_for(server) < 30 and 0 < watch.gone_for(chief) < 30


@pytest.mark.parametrize('error', [
    tf.errors.UnavailableError(None, None, 'Socket closed\n:UNKNOWN:Error'),
    cluster.TaskLost('a parameter server was lost: Socket closed; start all '
                     'tasks again, training resumes from the newest '
                     'checkpoint')], ids=['outside a step', 'in a step'])
def test_lost_server_ends_the_process_with_one_error_line(error, monkeypatch,
                                                          capsys):
  monkeypatch.setattr(cluster.os, '_exit', sys.exit)
  monkeypatch.setattr(sys, 'argv', ['folder/program.py'])
  parsed = hosts.parse(*machine.local_lists(1, 1))
  spec = tf.train.ClusterSpec({'ps': [parsed.ps[0].address],
                               'worker': [parsed.chief.address]})
  server = tf.train.Server(spec, job_name='ps', task_index=0)
  worker = cluster.Worker(cluster.Member(parsed, parsed.chief),
                          tf.ConfigProto(), 60)
  with pytest.raises(SystemExit) as caught, worker.ending_all():
    raise error
  assert caught.value.code == 1 and worker.end_status() == FAILED
  assert capsys.readouterr().err == (
      'program.py: error: a parameter server was lost: Socket closed; start '
      'all tasks again, training resumes from the newest checkpoint\n')
  del server


def test_serve_port_in_use_is_refused_in_one_line(tmp_path):
  with listener() as port, pytest.raises(
      InputError, match='port %d of ps 0 at 127.0.0.1:%d is not free: ' % (
          port, port)):
    cluster.serve(cluster.Member(
        hosts.parse('127.0.0.1:%d' % port, 'a:1'),
        hosts.Task('ps', 0, '127.0.0.1', port)), 1)


# The flags of a task.


def flags_of(*flags):
  return parsed_flags(train_image_classifier.define_flags, *flags)


@pytest.mark.parametrize('job, index, expected', [
    ('worker', 1, ('worker', 1, 'b', 3)), ('ps', 0, ('ps', 0, 'a', 1))])
def test_find_member_returns_the_task_of_the_lists(job, index, expected):
  member = cluster.find_member('a:1', 'a:2,b:3', job, index, '')
  assert member.task == expected
  assert member.cluster == hosts.parse('a:1', 'a:2,b:3')


def test_find_member_without_lists_returns_none():
  assert cluster.find_member(None, None, None, 0, 'grpc://a:2') is None


@pytest.mark.parametrize('flags,message', [
    (['--job_name=ps'], '--job_name=ps needs --ps_hosts and'),
    (LISTS, '--worker_hosts is given without the task of this'),
    ([*LISTS, '--job_name=worker', '--task=2'],
     '--task=2: --worker_hosts has tasks 0 to 1'),
    ([*LISTS, '--job_name=ps', '--task=1'],
     '--task=1: --ps_hosts has tasks 0 to 0'),
    ([*LISTS, '--job_name=worker', '--worker_replicas=3'],
     '--worker_replicas=3 contradicts --worker_hosts, which has 2'),
    ([*LISTS, '--job_name=worker', '--num_ps_tasks=0'],
     '--num_ps_tasks=0 contradicts --ps_hosts, which has 1'),
    ([*LISTS, '--job_name=worker', '--master=grpc://a:2'],
     '--master=grpc://a:2: with --worker_hosts each worker has its own server'),
])
def test_task_with_contradicting_flags_is_refused_in_one_line(data, flags,
                                                              message):
  with flags_of('--dataset_dir=' + data, *flags):
    with pytest.raises(InputError) as caught:
      train_image_classifier.main([])
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('flags', [
    [*LISTS, '--job_name=worker'],
    ['--worker_replicas=2', '--num_ps_tasks=1'], ['--num_ps_tasks=1']])
@pytest.mark.parametrize('flag,message', [
    ('--cache_features', '--cache_features needs a single .*--nocache_'),
    ('--evaluate_every_n_steps=2', 'run_eval.sh can evaluate during any')])
def test_several_processes_with_a_flag_for_one_process_are_refused(
    data, tmp_path, flags, flag, message):
  with pytest.raises(InputError, match=message):
    train(data, tmp_path, flag, '--max_number_of_steps=1', *flags)


def test_several_processes_with_a_run_of_finetune_all_steps_are_refused(
    data, tmp_path, monkeypatch):
  monkeypatch.setattr(finetune_all, 'has_begun', lambda folder: True)
  with pytest.raises(InputError, match='holds a run with --finetune_all_steps'):
    train(data, tmp_path, '--worker_replicas=2', '--num_ps_tasks=1')


def test_session_config_filters_out_other_workers():
  config = cluster.session_config(tf.ConfigProto(
      intra_op_parallelism_threads=3), 2)
  assert list(config.device_filters) == ['/job:ps', '/job:worker/task:2']
  assert config.intra_op_parallelism_threads == 3


# The graph of a task.


def graph_of_task(monkeypatch, data, folder, *flags):
  """Returns the graph of a worker and the arguments of slim.learning.train."""
  arguments = {}

  def record(train_op, **kwargs):
    arguments.update(kwargs, train_op=train_op.op)

  monkeypatch.setattr(slim.learning, 'train', record)
  train(data, folder, '--num_ps_tasks=2', '--worker_replicas=3', '--task=1',
        '--weight_decay=0.1', *flags)
  return arguments['train_op'].graph, arguments


@pytest.mark.parametrize('flags', [
    [], ['--sync_replicas'], ['--moving_average_decay=0.9']], ids=str)
def test_graph_has_variables_on_servers_and_all_else_on_the_worker(
    data, tmp_path, monkeypatch, flags):
  graph, arguments = graph_of_task(
      monkeypatch, data, tmp_path, '--optimizer=adam',
      '--trainable_scopes=CifarNet/logits', *flags)
  assert not arguments['is_chief']
  with graph.as_default():
    specs = [tf.DeviceSpec.from_string(v.device)
             for v in tf.global_variables()]
  assert {(spec.job, spec.task) for spec in specs} == {('ps', 0), ('ps', 1)}
  types = set()
  for op in graph.get_operations():
    if op.type in ('SaveV2', 'RestoreV2', 'IteratorV2', 'MakeIterator', 'Conv2D'
                   ) or op.name.startswith('frozen_loss'):
      spec = tf.DeviceSpec.from_string(op.device)
      assert (spec.job, spec.task) == ('worker', 1), op.name
      types.add(op.type)
  assert {'SaveV2', 'RestoreV2', 'IteratorV2', 'VariableV2'} <= types
  assert list(arguments['session_config'].device_filters) == [
      '/job:ps', '/job:worker/task:1']


def dependency_types(op):
  """Returns the types of an operation and of all that it depends on."""
  dependencies, stack = set(), [op]
  while stack:
    op = stack.pop()
    if op not in dependencies:
      dependencies.add(op)
      stack += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
  return {op.type for op in dependencies}


def test_graph_of_synchronous_steps_initializes_without_a_batch(data, tmp_path,
                                                                monkeypatch):
  _, arguments = graph_of_task(monkeypatch, data, tmp_path, '--sync_replicas')
  optimizer = arguments['sync_optimizer']
  assert isinstance(optimizer, sync_optimizer.SyncOptimizer)
  assert 'IteratorGetNext' in dependency_types(arguments['train_op'])
  for initializer in (optimizer.ready_for_local_init_op.op,
                      optimizer.local_step_init_op.op, optimizer.chief_init_op):
    assert 'IteratorGetNext' not in dependency_types(initializer)


def test_updates_of_the_chief_end_with_its_session():
  class Session:
    count = 0

    def run(self, ops):
      assert ops == ['update']
      self.count += 1
      if self.count == 3:
        raise RuntimeError('Attempted to use a closed Session.')

  session, coordinator = Session(), tf.train.Coordinator()
  runner = sync_optimizer._Updates(['update'])
  assert runner.create_threads(session, coordinator, True, True) == []
  assert coordinator.wait_for_stop(60)
  assert session.count == 3
  with pytest.raises(RuntimeError, match='closed Session'):
    coordinator.join()
