"""Tests of tools/run_cluster.py: processes, output and exit status."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from common.errors import InputError
from deployment import hosts
from deployment.launcher import launch, machine
from kits.helpers import ROOT, parsed_flags, run_program
from tools import run_cluster

FAKE = os.path.join(ROOT, 'tests', 'kits', 'fake_trainer.py')


def plan(folder, ps=1, workers=2, **changes):
  """Returns the Plan of fake tasks on this machine."""
  (folder / 'train').mkdir(exist_ok=True)
  lists = machine.local_lists(ps, workers)
  return launch.Plan(
      lists[0], lists[1], 60.0, 0, ['--train_dir=%s' % (folder / 'train')],
      FAKE, str(folder / 'logs'), False)._replace(**changes)


def running_processes(folder):
  """Returns the ids of the processes of a plan that still run."""
  completed = subprocess.run(['pgrep', '-f', str(folder / 'train')],
                             capture_output=True, text=True)
  return completed.stdout.split()


def log(folder, name):
  return (folder / 'logs' / (name + '.log')).read_text()


def wait_for(condition, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)


def finish_when(folder, condition):
  """Starts a thread that ends the fake chief when a condition holds."""

  def watch():
    wait_for(condition)
    (folder / 'train' / 'done').write_text('')

  thread = threading.Thread(target=watch)
  thread.start()
  return thread


def test_launcher_ends_with_chief_and_prints_its_log(tmp_path, capfd):
  cluster_plan = plan(tmp_path)
  cluster = hosts.parse(cluster_plan.ps_hosts, cluster_plan.worker_hosts)
  finish_when(tmp_path, lambda: all(
      hosts.why_silent(task) is None for task in cluster.tasks))
  assert launch.Launcher(cluster_plan).run() == 0
  output = capfd.readouterr().out
  assert '[worker-0] worker-0 ends\n' in output
  assert '[worker-1]' not in output
  for name in ('ps-0', 'worker-0', 'worker-1'):
    assert log(tmp_path, name) == '%s began\n%s%s ends\n' % (
        name, 'worker-0 saves\n' * (name == 'worker-0'), name)
  assert not running_processes(tmp_path)


def test_launcher_chief_with_nothing_to_do_is_not_a_missing_task(tmp_path):
  cluster_plan = plan(tmp_path)
  (tmp_path / 'train' / 'done').write_text('')
  assert launch.Launcher(cluster_plan).run() == 0
  assert not running_processes(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name,status,code,synchronous', [
    ('worker-0', '3', 3, False), ('ps-0', '4', 4, False),
    ('worker-0', '-1', 137, False), ('worker-1', '5', 5, True)])
def test_launcher_failure_of_needed_task_ends_all_with_its_status(
    tmp_path, capfd, name, status, code, synchronous):
  cluster_plan = plan(tmp_path, is_synchronous=synchronous)
  (tmp_path / 'train' / name).write_text(status)
  assert launch.Launcher(cluster_plan).run() == code
  out, err = capfd.readouterr()
  assert name + ' has a reason to fail\n' in out + err
  assert re.search(r'%s at \S+ ended with status %d; the last lines of %s' % (
      name.replace('-', ' '), code,
      tmp_path / 'logs' / (name + '.log')), err)
  if name != 'worker-0':
    assert 'worker-0 saves' in log(tmp_path, 'worker-0')
  assert not running_processes(tmp_path)


def test_launcher_failing_worker_does_not_end_others(tmp_path, capfd):
  cluster_plan = plan(tmp_path, workers=3)
  (tmp_path / 'train' / 'worker-2').write_text('5')
  messages = []
  original_say = launch._say
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(launch, '_say', lambda text: (messages.append(text),
                                                original_say(text)))
    finish_when(tmp_path,
                lambda: any('others continue' in text for text in messages))
    assert launch.Launcher(cluster_plan).run() == 0
  assert re.search(r'worker 2 at \S+ ended with status 5 \(%s\): the others '
                   'continue\n' % (tmp_path / 'logs' / 'worker-2.log'),
                   capfd.readouterr().out)
  assert not running_processes(tmp_path)


def test_launcher_restarts_worker_given_number_of_times(tmp_path, capfd):
  cluster_plan = plan(tmp_path, restarts=2)
  (tmp_path / 'train' / 'worker-1').write_text('5 -1')
  finish_when(tmp_path, lambda: (
      (tmp_path / 'logs' / 'worker-1.log').exists() and
      log(tmp_path, 'worker-1').count('began') == 3))
  assert launch.Launcher(cluster_plan).run() == 0
  output = capfd.readouterr().out
  assert 'status 5' in output and 'started again, 1 restarts left' in output
  assert 'status 137' in output and 'started again, 0 restarts left' in output
  assert log(tmp_path, 'worker-1').endswith('began\nworker-1 ends\n')


def start_until_tasks_answer(cluster_plan):
  """Starts a launcher as a process; returns it once all tasks answer."""
  process = subprocess.Popen(
      [sys.executable, '-c', 'import sys; sys.path.insert(0, %r)\n'
       'from deployment.launcher import launch\n'
       'sys.exit(launch.Launcher(launch.Plan(*%r)).run())' % (
           ROOT, tuple(cluster_plan))],
      stdout=subprocess.PIPE, text=True)
  for line in process.stdout:
    if 'tasks answer' in line:
      break
  return process


def test_launcher_second_signal_kills_all_tasks(tmp_path):
  process = start_until_tasks_answer(plan(tmp_path))
  tasks = [int(pid) for pid in running_processes(tmp_path)
           if int(pid) != process.pid]
  assert len(tasks) == 3
  for pid in tasks:
    os.kill(pid, signal.SIGSTOP)  # They cannot end by themselves.
  process.send_signal(signal.SIGINT)
  assert any('SIGINT: asking the workers to end' in line
             for line in process.stdout)
  process.send_signal(signal.SIGTERM)
  assert process.wait(60) == 128 + signal.SIGINT
  wait_for(lambda: not running_processes(tmp_path))


@pytest.mark.parametrize('signal_number', [signal.SIGTERM, signal.SIGINT])
def test_launcher_forwards_signal_to_chief_first(tmp_path, signal_number):
  process = start_until_tasks_answer(plan(tmp_path))
  process.send_signal(signal_number)
  output = process.stdout.read()
  assert process.wait() == 0
  assert '[worker-0] worker-0 saves\n' in output
  # The others got no signal: they ended after the chief.
  assert log(tmp_path, 'worker-1') == 'worker-1 began\nworker-1 ends\n'
  assert not running_processes(tmp_path)


def test_launcher_silent_task_is_named_and_all_tasks_end(tmp_path):
  cluster_plan = plan(tmp_path)
  silent_port = int(machine.local_lists(0, 1)[1].rpartition(':')[2])
  cluster_plan = cluster_plan._replace(
      worker_hosts='%s,127.0.0.1:%d' % (
          cluster_plan.worker_hosts.split(',')[0], silent_port),
      startup_timeout=5.0)
  launcher = launch.Launcher(cluster_plan)
  # Worker 1 is not started, as if it were on another machine.
  launcher._tasks = launcher._tasks[:2]
  start = time.monotonic()
  with pytest.raises(InputError) as caught:
    launcher.run()
  assert str(caught.value) == (
      'no answer within --startup_timeout=5 s from worker 1 at 127.0.0.1:%d '
      '(Connection refused)' % silent_port)
  assert time.monotonic() - start < 60
  assert not running_processes(tmp_path)


def test_launcher_port_in_use_is_named_before_anything_starts(tmp_path):
  cluster_plan = plan(tmp_path)
  port = int(cluster_plan.worker_hosts.rpartition(':')[2])
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', port))
    listener.listen(1)
    with pytest.raises(InputError, match='^port %d of worker 1 at 127.0.0.1:%d '
                       'is not free: Address already in use$' % (port, port)):
      launch.Launcher(cluster_plan)
  assert not (tmp_path / 'logs').exists()


def test_launcher_without_host_on_this_machine_raises_input_error(tmp_path):
  # 192.0.2.0/24 is reserved for documentation: no machine has it.
  with pytest.raises(InputError, match='^none of the hosts is this machine '
                     r'\(.*\): 192.0.2.77$'):
    launch.Launcher(plan(tmp_path)._replace(
        ps_hosts='192.0.2.77:2222', worker_hosts='192.0.2.77:2223'))


def test_launcher_tasks_on_the_same_port_raise_input_error(tmp_path):
  with pytest.raises(InputError, match='^ps 0 at 127.0.0.1:2222 and worker 0 '
                     'at localhost:2222 have the same port on this machine$'):
    launch.Launcher(plan(tmp_path)._replace(
        ps_hosts='127.0.0.1:2222', worker_hosts='localhost:2222'))


DATA = ['--dataset_dir=/d', '--train_dir=/t/train']
LISTS = ['--ps_hosts=a:1', '--worker_hosts=a:2,b:3']


def plan_of(monkeypatch, *flags):
  """Returns the Plan that run_cluster.py makes from its flags."""
  plans = []

  class Recorder:

    def __init__(self, cluster_plan):
      plans.append(cluster_plan)

    def run(self):
      return 7

  monkeypatch.setattr(launch, 'Launcher', Recorder)
  with parsed_flags(run_cluster.define_flags, *DATA, *flags):
    assert run_cluster.main([]) == 7
  return plans[0]


def test_run_cluster_passes_on_only_given_flags(monkeypatch):
  cluster_plan = plan_of(monkeypatch, *LISTS, '--sync_replicas', '--restarts=2',
                         '--learning_rate=0.5', '--nofast_mode',
                         '--trainable_scopes=')
  assert cluster_plan.flags == [
      '--dataset_dir=/d', '--nofast_mode', '--learning_rate=0.5',
      '--sync_replicas', '--train_dir=/t/train', '--trainable_scopes=']
  assert cluster_plan.ps_hosts == 'a:1'
  assert cluster_plan.worker_hosts == 'a:2,b:3'
  assert cluster_plan.is_synchronous and cluster_plan.restarts == 2
  assert cluster_plan.log_dir == '/t/logs'
  assert cluster_plan.startup_timeout == 120


def test_run_cluster_reads_lists_from_file(monkeypatch, tmp_path):
  (tmp_path / 'hosts').write_text('ps a:1\n\n# all\nworker a:2  # the chief\n'
                                  'worker b:3\n')
  cluster_plan = plan_of(monkeypatch, '--hosts=%s' % (tmp_path / 'hosts'),
                         '--task_logs=/l')
  assert cluster_plan.ps_hosts == 'a:1'
  assert cluster_plan.worker_hosts == 'a:2,b:3'
  assert cluster_plan.log_dir == '/l'


def test_run_cluster_without_hosts_uses_free_local_ports(monkeypatch):
  cluster_plan = plan_of(monkeypatch, '--num_ps=2', '--num_workers=3')
  cluster = hosts.parse(cluster_plan.ps_hosts, cluster_plan.worker_hosts)
  assert (len(cluster.ps), len(cluster.workers)) == (2, 3)
  assert machine.of_this_machine(cluster) == cluster.tasks
  hosts.check_free(cluster.tasks)


@pytest.mark.parametrize('flags,message', [
    ([*LISTS, '--num_workers=3'], '--num_workers=3 is for local tasks'),
    ([*LISTS, '--hosts=x'], '--hosts=x is given, and --ps_hosts'),
    (['--hosts=/no/where'], '--hosts=/no/where: No such file'),
    (['--ps_hosts=a:1'], '--worker_hosts is empty'),
    ([*LISTS, '--task=1'], '--task is set for each task'),
    ([*LISTS, '--job_name=ps'], '--job_name is set for each task'),
    ([*LISTS, '--worker_replicas=3'], '--worker_replicas=3 contradicts'),
    ([*LISTS, '--cache_features'], '--cache_features needs a single worker, '
     'got --worker_replicas=2, --num_ps_tasks=1: give --nocache_features'),
    ([*LISTS, '--finetune_all_steps=3'], '--finetune_all_steps=3 needs a'),
])
def test_run_cluster_with_wrong_flags_raises_input_error(monkeypatch, flags,
                                                         message):
  with pytest.raises(InputError) as caught:
    plan_of(monkeypatch, *flags)
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


def test_run_cluster_unknown_flag_is_fatal_before_anything_starts(tmp_path):
  completed = run_program('tools/run_cluster.py',
                          '--train_dir=%s' % (tmp_path / 'train'),
                          '--lerning_rate=1')
  assert completed.returncode == 1
  assert "Unknown command line flag 'lerning_rate'" in completed.stderr
  assert not os.listdir(str(tmp_path))


def test_run_cluster_script_passes_its_variables_and_rejects_train_dir(
    tmp_path):
  script = os.path.join(ROOT, 'scripts', 'run_cluster.sh')
  env = dict(os.environ, TRAIN_DIR=str(tmp_path / 'run'), CHECKPOINT_PATH='',
             MODEL_NAME='lenet', NUM_PS='1', NUM_WORKERS='0')
  completed = subprocess.run([script], env=env, capture_output=True, text=True)
  assert completed.returncode == 1
  assert '--num_workers' in completed.stderr
  completed = subprocess.run([script, '--train_dir=/x'], env=env,
                             capture_output=True, text=True)
  assert completed.returncode == 1
  assert completed.stderr == (
      'run_cluster.sh: error: give TRAIN_DIR=/x in front of the command: '
      './stop_train.sh and ./run_eval.sh read it, too\n')
