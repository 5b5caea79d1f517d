"""Tests of run_cluster.sh with real tasks, on one machine and on two."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from deployment.launcher import machine
from kits import cluster_kit
from kits.helpers import ROOT
from kits.trained_kit import NAME, make_dataset
from runs import checkpoints


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


def start(data, folder, *arguments, prefix=(), logs='logs'):
  """Starts run_cluster.sh; its output goes to a pipe."""
  env = dict(
      os.environ, PATH=cluster_kit.PATH, MODEL_NAME='cifarnet',
      DATASET_NAME=NAME, DATASET_DIR=data, TRAIN_DIR=str(folder / 'train'),
      LOG_DIR=str(folder / logs), CHECKPOINT_PATH='', BATCH_SIZE='4',
      SAVE_INTERVAL_SECS='1')
  return subprocess.Popen(
      [*prefix, os.path.join(ROOT, 'scripts', 'run_cluster.sh'),
       '--clone_on_cpu',
       '--startup_timeout=%d' % cluster_kit.TIMEOUT_SECS, *arguments],
      env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True)


def read_until(process, pattern):
  """Returns the output of a launcher up to a line that matches a pattern."""
  output = ''
  for line in process.stdout:
    output += line
    if re.search(pattern, line):
      return output
  raise AssertionError(output)


def last_step(folder):
  return checkpoints.read_global_step(checkpoints.newest(
      str(folder / 'train')))


def pid_of(folder, name):
  """Returns the process id of a running task."""
  completed = subprocess.run(
      ['pgrep', '-f', 'train_dir=%s .*--job_name=%s --task=%s' % (
          folder / 'train', *name.split('-'))], capture_output=True, text=True)
  pid, = completed.stdout.split()
  return int(pid)


@pytest.mark.slow
def test_sigterm_saves_last_checkpoint_and_leaves_no_process(data, tmp_path):
  launcher = start(data, tmp_path)
  output = read_until(launcher, r'global step [3-9]\d')
  step = int(re.findall(r'global step (\d+)', output)[-1])
  launcher.send_signal(signal.SIGTERM)
  output = launcher.stdout.read()
  assert launcher.wait() == 0, output
  assert 'SIGTERM: stopping after this step' in output
  assert last_step(tmp_path) >= step
  for name in ('ps-0', 'worker-0', 'worker-1'):
    log = (tmp_path / 'logs' / (name + '.log')).read_text()
    assert log and 'Traceback' not in log and 'ERROR' not in log
  assert not subprocess.run(['pgrep', '-f', str(tmp_path / 'train')],
                            capture_output=True).stdout


@pytest.mark.slow
def test_killed_worker_is_restarted_and_killed_chief_ends_all_tasks(
    data, tmp_path):
  launcher = start(data, tmp_path, '--restarts=1')
  read_until(launcher, r'global step [3-9]\d')
  os.kill(pid_of(tmp_path, 'worker-1'), signal.SIGKILL)
  read_until(launcher, r'^run_cluster: worker 1 at \S+ ended with status 137 '
             r'\(.*/logs/worker-1.log\): started again, 0 restarts left$')
  log = tmp_path / 'logs' / 'worker-1.log'
  end = time.monotonic() + cluster_kit.TIMEOUT_SECS
  while (log.read_text().count('Starting Queues') < 2 or
         not os.path.exists(str(tmp_path / 'train' / 'checkpoint'))):
    launcher.stdout.readline()
    assert time.monotonic() < end
  os.kill(pid_of(tmp_path, 'worker-0'), signal.SIGKILL)
  output = launcher.stdout.read()
  assert launcher.wait() == 137
  assert re.search(r'run_cluster: worker 0 at \S+ ended with status 137; the '
                   r'last lines of \S+/worker-0.log are on stdout\n', output)
  assert not subprocess.run(['pgrep', '-f', str(tmp_path / 'train')],
                            capture_output=True).stdout

  step = last_step(tmp_path)
  launcher = start(data, tmp_path, '--max_number_of_steps=%d' % (step + 20))
  output = launcher.stdout.read()
  assert launcher.wait() == 0, output
  assert 'Resuming from ' in output and last_step(tmp_path) >= step + 20


@pytest.fixture
def machines():
  with cluster_kit.machines(2) as namespaces:
    yield namespaces


@pytest.mark.slow
@pytest.mark.parametrize('flags', [[], ['--sync_replicas']],
                         ids=['asynchronous', 'synchronous'])
def test_two_machines_train_with_the_same_command(data, tmp_path, machines,
                                                  flags):
  (prefix_a, address_a), (prefix_b, address_b) = machines
  command = ['--ps_hosts=%s:2222' % address_a, '--max_number_of_steps=50',
             *flags,
             '--worker_hosts=%s:2223,%s:2223' % (address_a, address_b)]
  launchers = [start(data, tmp_path, *command, prefix=prefix, logs=logs)
               for prefix, logs in ((prefix_a, 'a'), (prefix_b, 'b'))]
  outputs = [launcher.communicate()[0] for launcher in launchers]
  assert [launcher.wait() for launcher in launchers] == [0, 0], outputs
  assert sorted(os.listdir(str(tmp_path / 'a'))) == ['ps-0.log', 'worker-0.log']
  assert os.listdir(str(tmp_path / 'b')) == ['worker-1.log']
  assert 'the chief is worker 0 at %s:2223' % address_a in outputs[1]
  logs = [(tmp_path / machine / ('worker-%d.log' % index)).read_text()
          for index, machine in enumerate('ab')]
  assert cluster_kit.loss_fell(*logs)
  assert all(len(cluster_kit.steps_and_losses(log)) > 1 for log in logs)
  assert last_step(tmp_path) >= 50


@pytest.mark.slow
def test_two_machines_with_one_not_started_print_one_line_error(
    data, tmp_path, machines):
  (prefix_a, address_a), (_, address_b) = machines
  launcher = start(data, tmp_path, '--ps_hosts=%s:2222' % address_a,
                   '--worker_hosts=%s:2223,%s:2223' % (address_a, address_b),
                   '--startup_timeout=5', prefix=prefix_a)
  output = launcher.communicate()[0]
  assert launcher.wait() == 1
  assert 'Traceback' not in output
  assert re.search(r'no answer within --startup_timeout=5 s from (.*, )?worker '
                   r'1 at %s:2223 \(Connection refused\)$' % address_b,
                   output.splitlines()[-1])


def test_is_here_accepts_only_addresses_of_own_namespace(machines):
  (prefix_a, address_a), (_, address_b) = machines
  assert not machine.is_here(address_a)
  completed = subprocess.run(
      [*prefix_a, sys.executable, '-c',
       'from deployment.launcher import machine; print(machine.is_here(%r), '
       'machine.is_here(%r))' % (address_a, address_b)],
      cwd=ROOT, env=dict(os.environ, PATH=cluster_kit.PATH),
      capture_output=True, text=True)
  assert completed.stdout == 'True False\n', completed.stderr
