"""Tests of run_cluster.sh with real tasks, on one machine and on two."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from deployment import hosts
from kits import cluster_kit
from kits.helpers import ROOT
from kits.trained_kit import NAME, make_dataset
from runs import checkpoints

PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


def start(data, folder, *arguments, prefix=(), logs='logs'):
  """Starts run_cluster.sh; its output goes to a pipe."""
  env = dict(
      os.environ, PATH=PATH, MODEL_NAME='cifarnet', DATASET_NAME=NAME,
      DATASET_DIR=data, TRAIN_DIR=str(folder / 'train'),
      LOG_DIR=str(folder / logs), CHECKPOINT_PATH='', BATCH_SIZE='4',
      SAVE_INTERVAL_SECS='1')
  return subprocess.Popen(
      [*prefix, os.path.join(ROOT, 'scripts', 'run_cluster.sh'),
       '--clone_on_cpu',
       '--startup_timeout=%d' % cluster_kit.PATIENCE_SECS, *arguments],
      env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True)


def read_until(process, pattern):
  """Returns what a launcher prints up to a line with the pattern."""
  shown = ''
  for line in process.stdout:
    shown += line
    if re.search(pattern, line):
      return shown
  raise AssertionError(shown)


def last_step(folder):
  return checkpoints.read_global_step(checkpoints.newest(
      str(folder / 'train')))


def pid_of(folder, name):
  """Returns the process id of a task that runs."""
  found = subprocess.run(
      ['pgrep', '-f', 'train_dir=%s .*--job_name=%s --task=%s' % (
          folder / 'train', *name.split('-'))], capture_output=True, text=True)
  pid, = found.stdout.split()
  return int(pid)


@pytest.mark.slow
def test_sigterm_leaves_a_last_checkpoint_and_no_process(data, tmp_path):
  launcher = start(data, tmp_path)
  shown = read_until(launcher, r'global step [3-9]\d')
  step = int(re.findall(r'global step (\d+)', shown)[-1])
  launcher.send_signal(signal.SIGTERM)
  shown = launcher.stdout.read()
  assert launcher.wait() == 0, shown
  assert 'SIGTERM: stopping after this step' in shown
  assert last_step(tmp_path) >= step
  for name in ('ps-0', 'worker-0', 'worker-1'):
    log = (tmp_path / 'logs' / (name + '.log')).read_text()
    assert log and 'Traceback' not in log and 'ERROR' not in log
  assert not subprocess.run(['pgrep', '-f', str(tmp_path / 'train')],
                            capture_output=True).stdout


@pytest.mark.slow
def test_worker_killed_is_started_again_and_the_chief_killed_ends_all(
    data, tmp_path):
  launcher = start(data, tmp_path, '--restarts=1')
  read_until(launcher, r'global step [3-9]\d')
  os.kill(pid_of(tmp_path, 'worker-1'), signal.SIGKILL)
  read_until(launcher, r'^run_cluster: worker 1 at \S+ ended with status 137 '
             r'\(.*/logs/worker-1.log\): started again, 0 restarts left$')
  log = tmp_path / 'logs' / 'worker-1.log'
  end = time.monotonic() + cluster_kit.PATIENCE_SECS
  while (log.read_text().count('Starting Queues') < 2 or
         not os.path.exists(str(tmp_path / 'train' / 'checkpoint'))):
    launcher.stdout.readline()
    assert time.monotonic() < end
  os.kill(pid_of(tmp_path, 'worker-0'), signal.SIGKILL)
  shown = launcher.stdout.read()
  assert launcher.wait() == 137
  assert re.search(r'run_cluster: worker 0 at \S+ ended with status 137; the '
                   r'last lines of \S+/worker-0.log are above\n', shown)
  assert not subprocess.run(['pgrep', '-f', str(tmp_path / 'train')],
                            capture_output=True).stdout

  step = last_step(tmp_path)
  launcher = start(data, tmp_path, '--max_number_of_steps=%d' % (step + 20))
  shown = launcher.stdout.read()
  assert launcher.wait() == 0, shown
  assert 'Resuming from ' in shown and last_step(tmp_path) >= step + 20


@pytest.fixture
def machines():
  """Two network namespaces joined by a cable: a prefix and an address each."""
  names = ['cl%d%s' % (os.getpid(), side) for side in 'ab']
  with contextlib.ExitStack() as stack:

    def ip(*arguments):
      return subprocess.run(['ip', *arguments], check=True,
                            env=dict(os.environ, PATH=PATH),
                            capture_output=True, text=True)

    found = []
    try:
      for name in names:
        ip('netns', 'add', name)
        stack.callback(ip, 'netns', 'delete', name)
      ip('-n', names[0], 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name',
         'v0', 'netns', names[1])
      for number, name in enumerate(names, 1):
        address = '10.77.0.%d' % number
        ip('-n', name, 'link', 'set', 'lo', 'up')
        ip('-n', name, 'address', 'add', address + '/24', 'dev', 'v0')
        ip('-n', name, 'link', 'set', 'v0', 'up')
        found.append((['ip', 'netns', 'exec', name], address))
    except (OSError, subprocess.CalledProcessError) as error:
      pytest.skip('no network namespaces here: %s' % (
          getattr(error, 'stderr', None) or error))
    yield found


@pytest.mark.slow
@pytest.mark.parametrize('flags', [[], ['--sync_replicas']],
                         ids=['asynchronous', 'synchronous'])
def test_two_machines_train_by_the_same_command(data, tmp_path, machines,
                                                flags):
  (here, a), (there, b) = machines
  command = ['--ps_hosts=%s:2222' % a, '--max_number_of_steps=50', *flags,
             '--worker_hosts=%s:2223,%s:2223' % (a, b)]
  launchers = [start(data, tmp_path, *command, prefix=prefix, logs=logs)
               for prefix, logs in ((here, 'a'), (there, 'b'))]
  shown = [launcher.communicate()[0] for launcher in launchers]
  assert [launcher.wait() for launcher in launchers] == [0, 0], shown
  assert sorted(os.listdir(str(tmp_path / 'a'))) == ['ps-0.log', 'worker-0.log']
  assert os.listdir(str(tmp_path / 'b')) == ['worker-1.log']
  assert 'the chief is worker 0 at %s:2223' % a in shown[1]
  logs = [(tmp_path / machine / ('worker-%d.log' % index)).read_text()
          for index, machine in enumerate('ab')]
  assert cluster_kit.loss_fell(*logs)
  assert all(len(cluster_kit.steps_and_losses(log)) > 1 for log in logs)
  assert last_step(tmp_path) >= 50


@pytest.mark.slow
def test_two_machines_one_of_which_is_not_started_is_one_line(
    data, tmp_path, machines):
  (here, a), (_, b) = machines
  launcher = start(data, tmp_path, '--ps_hosts=%s:2222' % a,
                   '--worker_hosts=%s:2223,%s:2223' % (a, b),
                   '--startup_timeout=5', prefix=here)
  shown = launcher.communicate()[0]
  assert launcher.wait() == 1
  assert 'Traceback' not in shown
  assert re.search(r'no answer within --startup_timeout=5 s from (.*, )?worker '
                   r'1 at %s:2223 \(Connection refused\)$' % b,
                   shown.splitlines()[-1])


def test_this_machine_is_no_machine_of_the_other_namespaces(machines):
  (here, a), (_, b) = machines
  assert not hosts.is_here(a)
  asked = subprocess.run(
      [*here, sys.executable, '-c',
       'from deployment import hosts; print(hosts.is_here(%r), '
       'hosts.is_here(%r))' % (a, b)],
      cwd=ROOT, env=dict(os.environ, PATH=PATH), capture_output=True, text=True)
  assert asked.stdout == 'True False\n', asked.stderr
