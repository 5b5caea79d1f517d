"""Tests of cluster.py, hosts.py, launch.py: lists of hosts, flags, graphs."""

import contextlib
import socket
import sys
import threading
import time

import pytest

import train_image_classifier
from common.errors import InputError
from compat import slim, tf
from deployment import cluster, hosts, launch, sync_optimizer
from deployment.board import FAILED
from kits.helpers import parsed_flags
from kits.trained_kit import make_dataset, train
from training import finetune_all

LISTS = ['--ps_hosts=a:1', '--worker_hosts=a:2,b:3']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


# The lists of hosts.


def test_parse_numbers_the_tasks_and_the_first_worker_is_chief():
  found = hosts.parse('a:1, b:2', 'a:3,c.d:4')
  assert found.ps == [('ps', 0, 'a', 1), ('ps', 1, 'b', 2)]
  assert found.workers == [('worker', 0, 'a', 3), ('worker', 1, 'c.d', 4)]
  assert found.tasks == found.ps + found.workers
  assert str(found.chief) == 'worker 0 at a:3'


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
def test_parse_wrong_list_is_one_line(ps, workers, message):
  with pytest.raises(InputError) as caught:
    hosts.parse(ps, workers)
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('line', ['ps', 'chief a:1', 'ps a:1 b:2'])
def test_read_file_line_that_is_no_task_is_named(tmp_path, line):
  path = tmp_path / 'hosts'
  path.write_text('ps a:1\n%s\n' % line)
  with pytest.raises(InputError,
                     match='hosts, line 2: %r is not a task' % line):
    hosts.read_file(str(path))


def test_is_here_tells_this_machine_from_others():
  assert hosts.is_here('localhost') and hosts.is_here('127.0.0.1')
  assert not hosts.is_here('192.0.2.77')
  with pytest.raises(InputError, match="^host 'no.such.invalid' cannot be "):
    hosts.is_here('no.such.invalid')


# Who answers.


@contextlib.contextmanager
def listener(answer=b''):
  """Yields the port of a server that is no TensorFlow."""
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
  """A tf.train.Server as worker 1, and the list of its cluster."""
  lists = launch.local_lists(1, 2)
  made = hosts.parse(*lists)
  spec = tf.train.ClusterSpec({
      'ps': [task.address for task in made.ps],
      'worker': [task.address for task in made.workers]})
  return tf.train.Server(spec, job_name='worker', task_index=1), made


def test_why_silent_knows_the_task_from_all_others(server):
  _, made = server
  task = made.workers[1]
  assert hosts.why_silent(task) is None
  assert hosts.why_silent(task._replace(index=0)) == 'another task answers'
  assert hosts.why_silent(task._replace(job='ps')) == 'another task answers'
  assert hosts.why_silent(made.chief) == 'Connection refused'
  with listener(b'HTTP/1.1 400 Bad Request\r\n\r\n') as port:
    assert hosts.why_silent(task._replace(port=port)).startswith(
        'no TensorFlow answers: ')


def test_wait_for_names_all_that_are_missing_in_time(server):
  _, made = server
  hosts.wait_for([made.workers[1]], 60)
  begun = time.monotonic()
  with pytest.raises(InputError) as caught:
    hosts.wait_for(made.tasks, 1)
  assert str(caught.value) == (
      'no answer within --startup_timeout=1 s from %s (Connection refused), %s '
      '(Connection refused)' % (made.ps[0], made.chief))
  assert time.monotonic() - begun < 30


def test_watch_counts_only_those_that_once_answered():
  with listener() as port:
    task = hosts.Task('worker', 0, '127.0.0.1', port)
    watch = hosts.Watch([task])
    watch.look()
    assert watch.missing() == [task] and watch.gone_for(task) == 0


def test_watch_counts_those_that_are_known_to_have_answered():
  lists = launch.local_lists(1, 2)
  server, chief, other = hosts.parse(*lists).tasks
  watch = hosts.Watch([server, chief, other], answered=[server, chief])
  watch.look()
  assert watch.missing() == [other] and watch.gone_for(other) == 0
  assert 0 < watch.gone_for(server) < 30 and 0 < watch.gone_for(chief) < 30


@pytest.mark.parametrize('error', [
    tf.errors.UnavailableError(None, None, 'Socket closed\n:UNKNOWN:Error'),
    cluster.ServerLost('a parameter server was lost: Socket closed; start all '
                       'tasks again, training resumes from the newest '
                       'checkpoint')], ids=['noticed here', 'in a step'])
def test_lost_server_ends_the_process_with_one_line(error, monkeypatch, capsys):
  monkeypatch.setattr(cluster.os, '_exit', sys.exit)
  monkeypatch.setattr(sys, 'argv', ['folder/program.py'])
  made = hosts.parse(*launch.local_lists(1, 1))
  spec = tf.train.ClusterSpec({'ps': [made.ps[0].address],
                               'worker': [made.chief.address]})
  server = tf.train.Server(spec, job_name='ps', task_index=0)
  worker = cluster.Worker(cluster.Member(made, made.chief), tf.ConfigProto(),
                          60)
  with pytest.raises(SystemExit) as caught, worker.ending_all():
    raise error
  assert caught.value.code == 1 and worker.end_status() == FAILED
  assert capsys.readouterr().err == (
      'program.py: error: a parameter server was lost: Socket closed; start '
      'all tasks again, training resumes from the newest checkpoint\n')
  del server


def test_taken_port_of_a_task_is_one_line(tmp_path):
  with listener() as port, pytest.raises(
      InputError, match='port %d of ps 0 at 127.0.0.1:%d is not free: ' % (
          port, port)):
    cluster.serve(cluster.Member(
        hosts.parse('127.0.0.1:%d' % port, 'a:1'),
        hosts.Task('ps', 0, '127.0.0.1', port)), 1)


# The flags of a task.


@contextlib.contextmanager
def flags_of(*flags):
  with parsed_flags(train_image_classifier.define_flags, *flags) as values:
    yield values


def test_member_takes_slims_counts_from_the_lists():
  with flags_of(*LISTS, '--job_name=worker', '--task=1',
                '--sync_replicas') as values:
    found = cluster.member_from_flags(values)
    assert found.task == ('worker', 1, 'b', 3)
    assert (values.worker_replicas, values.num_ps_tasks,
            values.replicas_to_aggregate) == (2, 1, 2)
  with flags_of(*LISTS, '--job_name=ps', '--sync_replicas',
                '--replicas_to_aggregate=1') as values:
    assert cluster.member_from_flags(values).task == ('ps', 0, 'a', 1)
    assert values.replicas_to_aggregate == 1
  with flags_of(*LISTS, '--job_name=ps', '--worker_replicas=2') as values:
    assert cluster.member_from_flags(values).task.job == 'ps'
    assert values.replicas_to_aggregate == 1


def test_member_without_lists_is_none_and_slims_defaults_stay():
  with flags_of('--sync_replicas') as values:
    assert cluster.member_from_flags(values) is None
    assert (values.worker_replicas, values.num_ps_tasks,
            values.replicas_to_aggregate) == (1, 0, 1)


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
def test_task_with_contradicting_flags_is_one_line(data, flags, message):
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
def test_several_processes_refuse_what_is_for_one(data, tmp_path, flags, flag,
                                                  message):
  with pytest.raises(InputError, match=message):
    train(data, tmp_path, flag, '--max_number_of_steps=1', *flags)


def test_several_processes_refuse_to_go_on_with_a_run_of_all_layers(
    data, tmp_path, monkeypatch):
  monkeypatch.setattr(finetune_all, 'has_begun', lambda folder: True)
  with pytest.raises(InputError, match='holds a run with --finetune_all_steps'):
    train(data, tmp_path, '--worker_replicas=2', '--num_ps_tasks=1')


def test_session_config_knows_no_other_worker():
  found = cluster.session_config(tf.ConfigProto(
      intra_op_parallelism_threads=3), 2)
  assert list(found.device_filters) == ['/job:ps', '/job:worker/task:2']
  assert found.intra_op_parallelism_threads == 3


# The graph of a task.


def graph_of_task(monkeypatch, data, folder, *flags):
  """Returns the graph that a worker would train, and what slim is given."""
  got = {}

  def record(train_op, **kwargs):
    got.update(kwargs, train_op=train_op.op)

  monkeypatch.setattr(slim.learning, 'train', record)
  train(data, folder, '--num_ps_tasks=2', '--worker_replicas=3', '--task=1',
        '--weight_decay=0.1', *flags)
  return got['train_op'].graph, got


def on_job(op, job):
  return tf.DeviceSpec.from_string(op.device).job == job


@pytest.mark.parametrize('flags', [
    [], ['--sync_replicas'], ['--moving_average_decay=0.9']], ids=str)
def test_graph_keeps_variables_on_servers_and_the_rest_on_the_worker(
    data, tmp_path, monkeypatch, flags):
  graph, got = graph_of_task(
      monkeypatch, data, tmp_path, '--optimizer=adam',
      '--trainable_scopes=CifarNet/logits', *flags)
  assert not got['is_chief']
  with graph.as_default():
    servers = [tf.DeviceSpec.from_string(v.device)
               for v in tf.global_variables()]
  assert {(spec.job, spec.task) for spec in servers} == {('ps', 0), ('ps', 1)}
  kinds = set()
  for op in graph.get_operations():
    if op.type in ('SaveV2', 'RestoreV2', 'IteratorV2', 'MakeIterator', 'Conv2D'
                   ) or op.name.startswith('frozen_loss'):
      spec = tf.DeviceSpec.from_string(op.device)
      assert (spec.job, spec.task) == ('worker', 1), op.name
      kinds.add(op.type)
  assert {'SaveV2', 'RestoreV2', 'IteratorV2', 'VariableV2'} <= kinds
  assert list(got['session_config'].device_filters) == [
      '/job:ps', '/job:worker/task:1']


def types_before(op):
  """Returns the types of all that runs before an operation, and its own."""
  seen, stack = set(), [op]
  while stack:
    op = stack.pop()
    if op not in seen:
      seen.add(op)
      stack += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
  return {op.type for op in seen}


def test_graph_of_synchronous_steps_begins_without_a_batch(
    data, tmp_path, monkeypatch):
  _, got = graph_of_task(monkeypatch, data, tmp_path, '--sync_replicas')
  optimizer = got['sync_optimizer']
  assert isinstance(optimizer, sync_optimizer.SyncOptimizer)
  assert 'IteratorGetNext' in types_before(got['train_op'])
  for begin in (optimizer.ready_for_local_init_op.op,
                optimizer.local_step_init_op.op, optimizer.chief_init_op):
    assert 'IteratorGetNext' not in types_before(begin)


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
