"""Reads hosts files, finds the tasks of this machine, chooses free ports."""

import contextlib
import itertools
import socket
from typing import Dict, List, Tuple

from common.errors import InputError
from deployment import hosts


def read_file(path: str) -> Tuple[str, str]:
  """Returns the values of --ps_hosts and --worker_hosts from a file.

  Args:
    path: the file, with a line such as "worker a:2223" for each task; # starts
      a comment.

  Raises:
    InputError: the file cannot be read, or a line is invalid.
  """
  entries: Dict[str, List[str]] = {job: [] for job in hosts.JOBS}
  try:
    with open(path, encoding='utf-8', errors='replace') as file:
      for number, line in enumerate(file, 1):
        words = line.partition('#')[0].split()
        if len(words) == 2 and words[0] in entries:
          entries[words[0]].append(words[1])
        elif words:
          raise InputError(
              '%s, line %d: %r is not a task, such as "ps a:2222" or "worker '
              'b:2223"' % (path, number, line.strip()))
  except OSError as error:
    raise InputError('--hosts=%s: %s' % (path, error.strerror))
  return ','.join(entries['ps']), ','.join(entries['worker'])


def is_here(host: str) -> bool:
  """Returns whether a name or address is this machine's: it can be bound.

  Raises:
    InputError: the name cannot be resolved.
  """
  try:
    addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
  except OSError as error:
    raise InputError('host %r cannot be found: %s' % (host, error.strerror))
  for family, _, _, _, address in addresses:
    with contextlib.suppress(OSError), socket.socket(family) as probe:
      probe.bind((address[0], 0))
      return True
  return False


def of_this_machine(cluster: hosts.Cluster) -> List[hosts.Task]:
  """Returns the tasks whose host is this machine.

  Raises:
    InputError: there are none, a name is unknown, or two tasks share a port.
  """
  here = {host: is_here(host) for host in {task.host for task in cluster.tasks}}
  tasks = [task for task in cluster.tasks if here[task.host]]
  if not tasks:
    raise InputError('none of the hosts is this machine (%s): %s' % (
        socket.gethostname(), ', '.join(sorted(here))))
  for task, other in itertools.combinations(tasks, 2):
    if task.port == other.port:
      raise InputError('%s and %s have the same port on this machine' % (
          task, other))
  return tasks


def local_lists(num_ps: int, num_workers: int) -> Tuple[str, str]:
  """Returns values of --ps_hosts and --worker_hosts with free local ports."""
  addresses = []
  with contextlib.ExitStack() as stack:
    for _ in range(num_ps + num_workers):
      probe = stack.enter_context(socket.socket())
      probe.bind(('', 0))
      addresses.append('127.0.0.1:%d' % probe.getsockname()[1])
  return ','.join(addresses[:num_ps]), ','.join(addresses[num_ps:])
