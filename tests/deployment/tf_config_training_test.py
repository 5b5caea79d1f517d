"""Tests of training with TF_CONFIG, as under Kubeflow's training operator.

Each pod is a process in a network namespace. Its name is in /etc/hosts.
"""

import json
import os
import shutil
import signal

import pytest

from deployment import cluster
from kits import cluster_kit
from kits.trained_kit import make_dataset, train_arguments
from runs import checkpoints

PODS = ('chief', 'worker', 'ps')
SPEC = {pod: ['flowers-%s-0.default.svc:2222' % pod] for pod in PODS}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def prefixes():
  """Returns {pod: command prefix}."""
  with cluster_kit.machines(len(PODS)) as machines:
    lines = ['127.0.0.1 localhost'] + [
        '%s flowers-%s-0.default.svc' % (address, pod)
        for (_, address), pod in zip(machines, PODS)]
    # `ip netns exec` mounts the files of this folder in /etc.
    folders = ['/etc/netns/' + prefix[-1] for prefix, _ in machines]
    try:
      for folder in folders:
        os.makedirs(folder)
        with open(os.path.join(folder, 'hosts'), 'w') as file:
          file.write('\n'.join(lines) + '\n')
        # No server of names: a question would wait for its answer.
        with open(os.path.join(folder, 'resolv.conf'), 'w'):
          pass
      yield {pod: prefix for (prefix, _), pod in zip(machines, PODS)}
    finally:
      for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class Job:
  """A TFJob with the restart policy OnFailure."""

  def __init__(self, data, folder, prefixes, *flags):
    self.train_dir = str(folder / 'train')
    self._folder, self._prefixes = folder, prefixes
    self._arguments = train_arguments(
        data, self.train_dir, '--clone_on_cpu', '--save_interval_secs=1',
        '--startup_timeout=%d' % cluster_kit.TIMEOUT_SECS, *flags)
    self.pods = {pod: self._start(pod) for pod in PODS}

  def _start(self, pod):
    return cluster_kit.Task(
        self._arguments, self._folder / (pod + '.log'), self._prefixes[pod],
        {'TF_CONFIG': json.dumps({
            'cluster': SPEC, 'task': {'type': pod, 'index': 0},
            'environment': 'cloud'})})

  def restart(self, *pods):
    """Waits until pods fail, and starts them again; returns the statuses."""
    statuses = [self.pods[pod].wait() for pod in pods]
    for pod, status in zip(pods, statuses):
      if status:
        self.pods[pod] = self._start(pod)
    return statuses

  def wait(self):
    return [self.pods[pod].wait() for pod in PODS]

  def wait_for_checkpoint(self):
    """Waits until both workers train and a checkpoint is written."""
    chief, worker = self.pods['chief'], self.pods['worker']
    chief.wait_for(lambda: len(chief.steps) > 20 and worker.steps and
                   checkpoints.newest(self.train_dir))

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    for task in self.pods.values():
      task.kill()


@pytest.mark.slow
def test_job_resumes_after_a_stop_and_after_the_loss_of_its_server(
    data, tmp_path, prefixes):
  with Job(data, tmp_path, prefixes, '--max_number_of_steps=1000') as job:
    job.wait_for_checkpoint()
    # As when their nodes are drained: the server waits for the checkpoint.
    for pod in ('ps', 'chief'):
      job.pods[pod].terminate()
    step = job.pods['chief'].steps[-1]
    assert job.restart(*PODS) == [cluster.STOPPED_STATUS] * 3
    assert checkpoints.read_global_step(
        checkpoints.newest(job.train_dir)) >= step

    job.wait_for_checkpoint()
    assert 'Resuming from ' in job.pods['chief'].log
    job.pods['ps'].kill()
    assert job.restart(*PODS) == [1, 1, -signal.SIGKILL]
    assert job.wait() == [0, 0, 0], job.pods['chief'].log
  assert checkpoints.read_global_step(
      checkpoints.newest(job.train_dir)) >= 1000
