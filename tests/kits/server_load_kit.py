"""What the tests of the live graph and of the server share."""

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
    name: of the file, without .pb; its label file lies beside it.
    labels: names of its classes; None: those of serving_kit.

  Returns:
    The path of the graph, a pathlib.Path.
  """
  train = folder / (name + '_train')
  kit.save_checkpoint(train, 'cifarnet', labels)
  path = folder / (name + '.pb')
  kit.run(export_inference_graph, '--checkpoint_path=%s' % train,
          '--input_type=encoded', '--frozen_file=%s' % path)
  return path


def put(source, target):
  """Puts a copy of a file in the place of another at once, as export does."""
  aside = target.with_suffix('.aside')
  aside.write_bytes(source.read_bytes())
  os.replace(str(aside), str(target))


def serve(path, load=None, **options):
  """Returns a Service of a graph; `load` in place of the usual one."""
  load = load or (lambda: Classifier.from_frozen_graph(str(path)))
  return Service(GraphSource(load, str(path)), **options)


def wait_until(condition, seconds=20):
  """Waits until `condition()` is true, else fails."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'it did not come true in %d s' % seconds
    time.sleep(0.01)


class Process:
  """server.py in a process of its own, on a free port; a context manager.

  Arguments are its flags, named ones its environment.

  Attributes:
    port: where it listens, from `wait_until_it_listens` on.
  """

  def __init__(self, *arguments, **environment):
    self.port = None
    self.lines = []
    self.process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, 'server.py'), '--port=0',
         *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=dict(os.environ, **environment),
        # Where the tests run in a shell's background, Ctrl-C is ignored.
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

  def wait_until_it_listens(self):
    line = self.process.stdout.readline()
    match = re.search('listening on port ([0-9]+)', line)
    assert match, (line, self.lines)
    self.port = int(match.group(1))
    return self

  def wait(self):
    """Returns its exit status, and the lines that it wrote to stderr."""
    status = self.process.wait(60)
    self._reader.join(10)
    return status, self.lines


class Running:
  """A server on a free port that runs in a thread of this process.

  Args:
    application: WSGI application.
    drain_secs: seconds that it answers after it was told to end.
    url_prefix, request_secs: as of server.listen.

  Attributes:
    address: host and port.
    server: the waitress server.
    ends: list that gets what `run` returns.
  """

  def __init__(self, application, drain_secs=60, url_prefix='',
               request_secs=math.inf):
    listener = program.bind('127.0.0.1', 0)
    self.address = listener.getsockname()
    self.server = program.listen(application, listener, 2, 1, url_prefix,
                                 request_secs)
    self.ends = []
    self._thread = threading.Thread(
        target=lambda: self.ends.append(self.server.run(drain_secs)),
        daemon=True)
    self._thread.start()

  def stop(self):
    self.server.stop()

  def join(self):
    """Waits for its end; returns its statuses."""
    self._thread.join(30)
    return self.ends


def multipart(data):
  """Returns the body of an upload, and its headers."""
  boundary = 'x' * 40
  body = (('--%s\r\nContent-Disposition: form-data; name="file"; '
           'filename="cat.jpg"\r\n\r\n' % boundary).encode() + data +
          ('\r\n--%s--\r\n' % boundary).encode())
  return body, {'Content-Type': 'multipart/form-data; boundary=' + boundary}


def upload(port, data):
  """Uploads a photo as the page does; returns status, headers and text."""
  body, headers = multipart(data)
  request = urllib.request.Request('http://127.0.0.1:%d/' % port, body, headers)
  with urllib.request.urlopen(request, timeout=30) as reply:
    return reply.status, reply.headers, reply.read().decode()
