"""A local HTTP server with selectable faults, and archives to serve."""

import contextlib
import gzip
import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile


class FileServer:
  """Files that the server serves from memory, and its log of requests.

  Attributes:
    files: {path: bytes}.
    requests: list of (path, {header: value}), in order.
    behaviours: list of dicts, one for each of the next responses, {} for one
      without faults. Later responses have no faults. Keys:
        status: respond with this status, without a file.
        headers: further headers.
        cut: close the connection after this number of bytes of the body.
        ignore_range: send the whole file.
        length: value of Content-Length; None: omit it.
        validators: {header: value} that replaces the ETag.
        content_range: value that replaces the correct Content-Range.
        body: bytes that replace the file.
        pause: seconds to wait after each 1,000 bytes.
    url: address of the server.
    stopped: threading.Event that ends all pauses.
  """

  def __init__(self):
    self.files, self.requests, self.behaviours = {}, [], []
    self.url = None
    self.stopped = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Handles one request."""

  def log_message(self, *_):  # Keeps the output of the tests clean.
    pass

  def do_GET(self):
    file_server = self.server.file_server
    file_server.requests.append((self.path, dict(self.headers)))
    behaviours = file_server.behaviours
    behaviour = behaviours.pop(0) if behaviours else {}
    # A proxy gets the whole address.
    name = re.sub('^http://[^/]*', '', self.path)
    body = behaviour.get('body', file_server.files.get(name))
    status = behaviour.get('status', 200 if body is not None else 404)
    start = self._first_byte(behaviour, body)
    if status == 200 and start:
      status = 206 if start < len(body) else 416
    self.send_response(status)
    for header, value in behaviour.get('headers', {}).items():
      self.send_header(header, value)
    if status not in (200, 206):
      self.end_headers()
      return
    validators = behaviour.get('validators', {'ETag': '"%d"' % hash(body)})
    for header, value in validators.items():
      self.send_header(header, value)
    if status == 206:
      self.send_header('Content-Range', behaviour.get(
          'content_range', 'bytes %d-%d/%d' % (start, len(body) - 1,
                                               len(body))))
    length = behaviour.get('length', len(body) - start)
    if length is not None:
      self.send_header('Content-Length', str(length))
    self.end_headers()
    self._send(body[start:][:behaviour.get('cut', len(body))],
               behaviour.get('pause'))

  def _first_byte(self, behaviour, body):
    """Returns the offset to send from, by Range and If-Range."""
    match = re.match(r'bytes=(\d+)-$', self.headers.get('Range', ''))
    if not match or body is None or behaviour.get('ignore_range'):
      return 0
    if_range = self.headers.get('If-Range')
    validators = behaviour.get('validators', {'ETag': '"%d"' % hash(body)})
    if if_range and if_range not in validators.values():
      return 0
    return int(match.group(1))

  def _send(self, data, pause):
    with contextlib.suppress(ConnectionError):
      for begin in range(0, len(data), 1000) if pause else ():
        self.wfile.write(data[begin:begin + 1000])
        self.server.file_server.stopped.wait(pause)
      if not pause:
        self.wfile.write(data)


@contextlib.contextmanager
def running():
  """Yields a FileServer that listens on a free port of this machine."""
  file_server = FileServer()
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler) as server:
    server.file_server = file_server
    file_server.url = 'http://127.0.0.1:%d' % server.server_address[1]
    thread = threading.Thread(target=server.serve_forever,
                              kwargs={'poll_interval': 0.02})
    thread.start()
    try:
      yield file_server
    finally:
      file_server.stopped.set()
      server.shutdown()
      thread.join()


def tar_gz(files, extra=()):
  """Returns the bytes of a .tar.gz.

  Args:
    files: {name: bytes}.
    extra: list of tarfile.TarInfo without content.
  """
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
    for member in extra:
      tar.addfile(member)
  return buffer.getvalue()


def zip_bytes(files):
  """Returns a zip archive of {name or zipfile.ZipInfo: bytes}."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  return buffer.getvalue()


def sha256(data):
  """Returns the SHA-256 of bytes, 64 hexadecimal digits."""
  return hashlib.sha256(data).hexdigest()


def idx_gz(array):
  """Returns a uint8 array as a gzip file in MNIST's format, without a time."""
  shape = b''.join(size.to_bytes(4, 'big') for size in array.shape)
  buffer = io.BytesIO()
  with gzip.GzipFile(fileobj=buffer, mode='wb', mtime=0) as target:
    target.write(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())
  return buffer.getvalue()
