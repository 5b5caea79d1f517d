r"""Starts those tasks of a distributed training that belong to this machine.

  python -m tools.run_cluster --ps_hosts=a:2222 --worker_hosts=a:2223,b:2223 \
    --train_dir=/shared/flowers --dataset_dir=data --dataset_name=my_flower_5 \
    --model_name=inception_v4 --max_number_of_steps=1000

The same command is run on each machine; it starts the tasks whose hosts in the
lists are this machine. All other flags are those of train_image_classifier.py.
Without hosts, all tasks are local processes. Where an orchestrator starts each
task and sets TF_CONFIG, this program is not needed.
"""

import os
from typing import List

from absl import flags

import train_image_classifier
from common import flags as common_flags
from common.errors import InputError
from deployment import hosts, tf_config
from deployment.launcher import launch, machine
from training import config as train_config

# Flags that are set for each task.
OF_A_TASK = ('job_name', 'task', 'master')

# Flags that the launcher itself passes to each task.
PASSED = ('ps_hosts', 'worker_hosts', 'startup_timeout')


def define_flags() -> None:
  """Defines the launcher's flags, and the trainer's."""
  train_image_classifier.define_flags()
  _define_own_flags()


def _define_own_flags():
  flags.DEFINE_string(
      'hosts', None,
      'File with one line per task, such as "ps a:2222" or "worker b:2223", '
      'instead of --ps_hosts and --worker_hosts.')
  flags.DEFINE_integer(
      'num_ps', 1, 'Local parameter servers if no hosts are given.',
      lower_bound=1)
  flags.DEFINE_integer(
      'num_workers', 2, 'Local workers if no hosts are given.',
      lower_bound=1)
  flags.DEFINE_string(
      'task_logs', None,
      'Folder of the logs, one per task. None: logs/ beside --train_dir.')
  flags.DEFINE_integer(
      'restarts', 0,
      'How often a worker that fails is started again, unless it is the chief '
      'or --sync_replicas or --all_reduce needs it.', lower_bound=0)


OWN = ('hosts', 'num_ps', 'num_workers', 'task_logs', 'restarts')


def main(_: List[str]) -> int:
  """Starts the tasks of this machine; returns the exit status of training."""
  values = flags.FLAGS
  if tf_config.read(os.environ.get('TF_CONFIG')):
    raise InputError('TF_CONFIG is set, so an orchestrator starts each task: '
                     'start train_image_classifier.py, or unset it')
  common_flags.require(values, 'dataset_dir', 'train_dir')
  for name in OF_A_TASK:
    if values[name].present:
      raise InputError('--%s is set for each task: omit it' % name)
  ps_hosts, worker_hosts = _lists_from_flags()
  train_image_classifier.check_ways(train_config.with_task_counts(
      train_image_classifier.config_from_flags(),
      hosts.parse(ps_hosts, worker_hosts, values.all_reduce)))
  plan = launch.Plan(
      ps_hosts, worker_hosts, values.startup_timeout, values.restarts,
      _shared_arguments_from_flags(),
      os.path.abspath(train_image_classifier.__file__),
      values.task_logs or os.path.join(
          os.path.dirname(os.path.abspath(values.train_dir)), 'logs'),
      values.sync_replicas or values.all_reduce)
  return launch.Launcher(plan).run()


def _lists_from_flags():
  """Returns the lists of hosts from the flags that were given."""
  values = flags.FLAGS
  if values.hosts:
    if values.ps_hosts or values.worker_hosts:
      raise InputError('--hosts=%s is given, and --ps_hosts or --worker_hosts '
                       'too: give one of them' % values.hosts)
    return machine.read_file(values.hosts)
  if values.ps_hosts or values.worker_hosts:
    for name in ('num_ps', 'num_workers'):
      if values[name].present:
        raise InputError('--%s=%d is for local tasks, but hosts are given: '
                         'omit it' % (name, values[name].value))
    return values.ps_hosts, values.worker_hosts
  if values.all_reduce and values['num_ps'].present:
    raise InputError('--all_reduce has no parameter servers: omit --num_ps')
  return machine.local_lists(0 if values.all_reduce else values.num_ps,
                             values.num_workers)


def _shared_arguments_from_flags():
  """Returns the part of the command line that all tasks share."""
  values = flags.FLAGS
  mine = set(OWN + PASSED)
  given = {values[name].name: values[name] for name in values
           if values[name].present}
  return [flag.serialize() for name, flag in sorted(given.items())
          if name not in mine]


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
