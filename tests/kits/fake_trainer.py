"""Program that replaces train_image_classifier.py as a task of a cluster.

It takes a folder as --train_dir. There `<task>` may hold the statuses it ends
with, one a start, -1 for a kill; otherwise the chief ends when SIGTERM or the
file `done` comes and writes `ended`, on which the others end.
"""

import argparse
import concurrent.futures
import os
import signal
import sys
import time

import grpc

# Nobody waits for ever for an end that is forgotten.
PATIENCE_SECS = 60


class _Status(grpc.GenericRpcHandler):
  """Answers as TensorFlow's server does when it is asked for its devices."""

  def __init__(self, job, task):
    self._devices = b'/job:%s/replica:0/task:%d/device:CPU:0' % (
        job.encode(), task)

  def service(self, handler_call_details):
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: self._devices)


def _next_status(path):
  """Returns the status that this start has to end with, or None."""
  if not os.path.exists(path):
    return None
  with open(path) as file:
    first, _, rest = file.read().partition(' ')
  if rest:
    with open(path, 'w') as file:
      file.write(rest)
  else:
    os.remove(path)
  return int(first)


def main():
  parser = argparse.ArgumentParser()
  for name in ('train_dir', 'ps_hosts', 'worker_hosts', 'job_name',
               'startup_timeout'):
    parser.add_argument('--' + name)
  parser.add_argument('--task', type=int)
  values = parser.parse_args()
  asked = []
  signal.signal(signal.SIGTERM, lambda *unused: asked.append(1))
  name = '%s-%d' % (values.job_name, values.task)
  lists = {'ps': values.ps_hosts, 'worker': values.worker_hosts}
  server = grpc.server(concurrent.futures.ThreadPoolExecutor(2),
                       (_Status(values.job_name, values.task),))
  server.add_insecure_port(lists[values.job_name].split(',')[values.task])
  server.start()
  print('%s began' % name)
  status = _next_status(os.path.join(values.train_dir, name))
  if status is not None:
    time.sleep(2)  # The launcher sees all tasks answer before this one ends.
    print('%s has a reason to fail' % name)
    if status < 0:
      os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(status)
  ended = os.path.join(values.train_dir, 'ended')
  done = os.path.join(values.train_dir, 'done')
  end = time.monotonic() + PATIENCE_SECS
  while not (asked or os.path.exists(
      done if name == 'worker-0' else ended)):
    time.sleep(0.05)
    if time.monotonic() > end:
      sys.exit('%s was left alone' % name)
  if name == 'worker-0':
    print('worker-0 saves')
    with open(ended, 'w'):
      pass
  print('%s ends' % name)


if __name__ == '__main__':
  main()
