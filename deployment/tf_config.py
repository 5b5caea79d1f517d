"""Reader of TF_CONFIG, in which orchestrators describe a cluster.

Kubeflow's TFJob, Vertex AI, SageMaker and TensorFlow's Estimator set this
environment variable for each process:

  {"cluster": {"chief": ["a:2222"], "worker": ["b:2222"], "ps": ["c:2222"]},
   "task": {"type": "worker", "index": 0}}
"""

import json
from typing import Any, Dict, Optional

from common.errors import InputError

# The chief is called master in TensorFlow before 1.4 and in SageMaker.
_CHIEFS = ('chief', 'master')
_EVALUATOR = 'evaluator'
_TYPES = _CHIEFS + ('worker', 'ps', _EVALUATOR)


def read(text: Optional[str]) -> Dict[str, Any]:
  """Returns the flags that describe the same cluster and task.

  The chief is worker 0; if there is one, worker i is worker i + 1.

  Args:
    text: value of TF_CONFIG, None if it is not set.

  Returns:
    {flag: value} of ps_hosts, worker_hosts, job_name and task; {} for a single
    process: without a cluster, or with one worker and no parameter server.

  Raises:
    InputError: the value is not as above, or the task is an evaluator.
  """
  config = _parse(text or '{}')
  cluster, task = config.get('cluster') or {}, config.get('task') or {}
  if not _is_cluster(cluster):
    raise _wrong('cluster', cluster, 'lists of host:port of these jobs: %s' %
                 ', '.join(_TYPES))
  if not cluster:
    return {}
  job, index = _find_task(cluster, task)
  chiefs = [address for name in _CHIEFS for address in cluster.get(name, [])]
  if len(chiefs) > 1:
    raise _wrong('cluster', cluster, 'one chief')
  workers, servers = chiefs + cluster.get('worker', []), cluster.get('ps', [])
  if len(workers) == 1 and not servers:
    return {}
  if job == 'worker':
    index += len(chiefs)
  return dict(ps_hosts=','.join(servers), worker_hosts=','.join(workers),
              job_name='ps' if job == 'ps' else 'worker', task=index)


def set_flags(values: Any, text: Optional[str]) -> None:
  """Sets the flags that `read` returns.

  Args:
    values: parsed flags, as of absl.
    text: as for `read`.

  Raises:
    InputError: the text is wrong, or contradicts a flag that was given.
  """
  for name, value in read(text).items():
    flag = values[name]
    if flag.present and flag.value != value:
      raise InputError('--%s=%s contradicts TF_CONFIG, by which it is %s: omit '
                       'the flag' % (name, flag.value, value))
    flag.value = value


def _parse(text):
  """Returns the object that the text contains."""
  try:
    config = json.loads(text)
  except ValueError as error:
    raise InputError('TF_CONFIG is not JSON: %s' % error)
  if not isinstance(config, dict):
    raise InputError('TF_CONFIG is not an object with cluster and task: %.200r'
                     % text)
  return config


def _wrong(name, value, accepted):
  """Returns the error for a part of TF_CONFIG."""
  return InputError('TF_CONFIG: %s must have %s, got %.200s' % (
      name, accepted, json.dumps(value)))


def _is_cluster(cluster):
  return isinstance(cluster, dict) and all(
      job in _TYPES and isinstance(addresses, list) and
      all(isinstance(address, str) for address in addresses)
      for job, addresses in cluster.items())


def _find_task(cluster, task):
  """Returns type and index of this process's task."""
  job = task.get('type') if isinstance(task, dict) else None
  if job == _EVALUATOR:
    raise InputError(
        'TF_CONFIG: this task is an evaluator, which training has no use for: '
        'omit it; run_eval.sh evaluates during any training')
  if not isinstance(job, str) or job not in cluster:
    raise _wrong('task', task, 'one of the types %s' %
                 ', '.join(sorted(cluster)))
  index = task.get('index', 0)
  # Some write it as text.
  if not str(index).isdecimal() or int(index) >= len(cluster[job]):
    raise _wrong('task', task, 'an index of the %d of type %s' % (
        len(cluster[job]), job))
  return job, int(index)
