"""Graphs, services and servers for tests of the live graph and the server."""

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import export_inference_graph
import server as program
from kits import serving_kit as kit
from serving.model.classifier import Classifier
from serving.model.classifier_service import GraphSource, Service

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


def export(folder, name, labels=None):
  """Writes a frozen graph of cifarnet.

  Args:
    folder: pathlib.Path.
    name: file name without .pb; the label file is in the same folder.
    labels: names of the classes; None: those of serving_kit.

  Returns:
    The path of the graph, a pathlib.Path.
  """
  train = folder / (name + '_train')
  kit.save_checkpoint(train, 'cifarnet', labels)
  path = folder / (name + '.pb')
  kit.run(export_inference_graph, '--checkpoint_path=%s' % train,
          '--input_type=encoded', '--frozen_file=%s' % path)
  return path


def replace_file(source, target):
  """Replaces a file atomically by a copy of another, as the export does."""
  temporary = target.with_suffix('.aside')
  temporary.write_bytes(source.read_bytes())
  os.replace(str(temporary), str(target))


def make_service(path, load=None, **options):
  """Returns a Service of a graph, which `load` loads, if given."""
  load = load or (lambda: Classifier.from_frozen_graph(str(path)))
  return Service(GraphSource(load, str(path)), **options)


def wait_until(condition, seconds=20):
  """Waits until `condition()` is true; fails after `seconds`."""
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, 'timed out after %d s' % seconds
    time.sleep(0.01)


class ServerProcess:
  """Process of server.py on a free port; a context manager.

  Args:
    *arguments: flags of server.py.
    **environment: further environment variables.

  Attributes:
    port: its port, None before `wait_until_listening`.
    lines: lines that it has written to stderr.
    process: the subprocess.Popen.
  """

  def __init__(self, *arguments, **environment):
    self.port = None
    self.lines = []
    self.process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, 'server.py'), '--port=0',
         *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=dict(os.environ, **environment),
        # A shell that runs the tests in the background may have ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    for line in self.process.stderr:
      self.lines.append(line.rstrip('\n'))

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.process.kill()
    self.process.wait()
    self._reader.join(10)
    self.process.stdout.close()

  def wait_until_listening(self):
    """Waits until it prints its port; returns the ServerProcess."""
    line = self.process.stdout.readline()
    match = re.search('listening on port ([0-9]+)', line)
    assert match, (line, self.lines)
    self.port = int(match.group(1))
    return self

  def wait(self):
    """Waits until it exits; returns its exit status and its lines of stderr."""
    status = self.process.wait(60)
    self._reader.join(10)
    return status, self.lines


class ServerThread:
  """Server on a free port, run by a thread of this process.

  Args:
    application: WSGI application.
    drain_secs: seconds for open requests after `stop`.
    url_prefix, request_secs: as for server.listen.

  Attributes:
    address: host and port.
    server: the waitress server.
    statuses: list with the status that `run` returned; empty while it runs.
  """

  def __init__(self, application, drain_secs=60, url_prefix='',
               request_secs=math.inf):
    listener = program.bind('127.0.0.1', 0)
    self.address = listener.getsockname()
    self.server = program.listen(application, listener, 2, 1, url_prefix,
                                 request_secs)
    self.statuses = []
    self._thread = threading.Thread(
        target=lambda: self.statuses.append(self.server.run(drain_secs)),
        daemon=True)
    self._thread.start()

  def stop(self):
    self.server.stop()

  def join(self):
    """Waits until it ends; returns `statuses`."""
    self._thread.join(30)
    return self.statuses


def multipart(data):
  """Returns the body and the headers of an upload."""
  boundary = 'x' * 40
  body = (('--%s\r\nContent-Disposition: form-data; name="file"; '
           'filename="cat.jpg"\r\n\r\n' % boundary).encode() + data +
          ('\r\n--%s--\r\n' % boundary).encode())
  return body, {'Content-Type': 'multipart/form-data; boundary=' + boundary}


def upload(port, data):
  """Uploads a photo as the page does; returns status, headers and text."""
  body, headers = multipart(data)
  request = urllib.request.Request('http://127.0.0.1:%d/' % port, body, headers)
  with urllib.request.urlopen(request, timeout=30) as response:
    return response.status, response.headers, response.read().decode()
