"""Program that replaces train_image_classifier.py as a task of a cluster.

The file `<task>` in the folder --train_dir may have exit statuses, one per
start; -1 kills the task. Without this file the chief ends when it gets SIGTERM
or the file `done` appears, and writes the file `ended`, at which the other
tasks end.
"""

import argparse
import concurrent.futures
import os
import signal
import sys
import time

import grpc

# A task that nothing ends exits after this time.
TIMEOUT_SECS = 60


class _Status(grpc.GenericRpcHandler):
  """Replies to requests for the devices, as TensorFlow's server does."""

  def __init__(self, job, task):
    self._devices = b'/job:%s/replica:0/task:%d/device:CPU:0' % (
        job.encode(), task)

  def service(self, handler_call_details):
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: self._devices)


def _next_status(path):
  """Returns the exit status of this start, None if it has none."""
  if not os.path.exists(path):
    return None
  with open(path) as file:
    status, _, later = file.read().partition(' ')
  if later:
    with open(path, 'w') as file:
      file.write(later)
  else:
    os.remove(path)
  return int(status)


def main():
  parser = argparse.ArgumentParser()
  for name in ('train_dir', 'ps_hosts', 'worker_hosts', 'job_name',
               'startup_timeout'):
    parser.add_argument('--' + name)
  parser.add_argument('--task', type=int)
  values = parser.parse_args()
  signals = []
  signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
  name = '%s-%d' % (values.job_name, values.task)
  hosts = {'ps': values.ps_hosts, 'worker': values.worker_hosts}
  server = grpc.server(concurrent.futures.ThreadPoolExecutor(2),
                       (_Status(values.job_name, values.task),))
  server.add_insecure_port(hosts[values.job_name].split(',')[values.task])
  server.start()
  print('%s began' % name)
  status = _next_status(os.path.join(values.train_dir, name))
  if status is not None:
    time.sleep(2)  # All tasks reply to the launcher before this one ends.
    print('%s has a reason to fail' % name)
    if status < 0:
      os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(status)
  ended = os.path.join(values.train_dir, 'ended')
  done = os.path.join(values.train_dir, 'done')
  deadline = time.monotonic() + TIMEOUT_SECS
  while not (signals or os.path.exists(
      done if name == 'worker-0' else ended)):
    time.sleep(0.05)
    if time.monotonic() > deadline:
      sys.exit('%s timed out' % name)
  if name == 'worker-0':
    print('worker-0 saves')
    with open(ended, 'w'):
      pass
  print('%s ends' % name)


if __name__ == '__main__':
  main()
