"""A local HTTP server with selectable faults, and archives to serve."""

import contextlib
import gzip
import hashlib
import http.server
import io
import re
import tarfile
import threading


class FileServer:
  """Serves files from memory.

  files: {path: bytes}. requests: list of (path, {header: value}), in order.
  behaviours: list of what the next answers do, one dict each, {} for none; the
  rest are served as they should be. In a dict:
    status: answer with this status and no file.
    headers: further headers.
    cut: close the connection after so many bytes of the body.
    ignore_range: send all of it.
    length: the Content-Length to announce; None: none.
    validators: {header: value} in place of the ETag.
    content_range: in place of the right one.
    body: bytes in place of the file.
    pause: seconds to wait after each 1,000 bytes.
  """

  def __init__(self):
    self.files, self.requests, self.behaviours = {}, [], []
    self.url = None
    self.stopped = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
  """One answer."""

  def log_message(self, *_):  # Not onto the output of the tests.
    pass

  def do_GET(self):
    kit = self.server.kit
    kit.requests.append((self.path, dict(self.headers)))
    how = kit.behaviours.pop(0) if kit.behaviours else {}
    name = re.sub('^http://[^/]*', '', self.path)  # As a proxy is asked.
    body = how.get('body', kit.files.get(name))
    status = how.get('status', 200 if body is not None else 404)
    start = self._start(how, body)
    if status == 200 and start:
      status = 206 if start < len(body) else 416
    self.send_response(status)
    for header, value in how.get('headers', {}).items():
      self.send_header(header, value)
    if status not in (200, 206):
      self.end_headers()
      return
    validators = how.get('validators', {'ETag': '"%d"' % hash(body)})
    for header, value in validators.items():
      self.send_header(header, value)
    if status == 206:
      self.send_header('Content-Range', how.get(
          'content_range', 'bytes %d-%d/%d' % (start, len(body) - 1,
                                               len(body))))
    length = how.get('length', len(body) - start)
    if length is not None:
      self.send_header('Content-Length', str(length))
    self.end_headers()
    self._send(body[start:][:how.get('cut', len(body))], how.get('pause'))

  def _start(self, how, body):
    """Returns the first byte to send, as Range and If-Range ask."""
    match = re.match(r'bytes=(\d+)-$', self.headers.get('Range', ''))
    if not match or body is None or how.get('ignore_range'):
      return 0
    wanted = self.headers.get('If-Range')
    etag = how.get('validators', {'ETag': '"%d"' % hash(body)})
    if wanted and wanted not in etag.values():
      return 0
    return int(match.group(1))

  def _send(self, data, pause):
    with contextlib.suppress(ConnectionError):
      for begin in range(0, len(data), 1000) if pause else ():
        self.wfile.write(data[begin:begin + 1000])
        self.server.kit.stopped.wait(pause)
      if not pause:
        self.wfile.write(data)


@contextlib.contextmanager
def running():
  """Gives a FileServer that answers on a free port of this machine."""
  kit = FileServer()
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler) as server:
    server.kit = kit
    kit.url = 'http://127.0.0.1:%d' % server.server_address[1]
    thread = threading.Thread(target=server.serve_forever,
                              kwargs={'poll_interval': 0.02})
    thread.start()
    try:
      yield kit
    finally:
      kit.stopped.set()
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


def sha256(data):
  """Returns the SHA-256 of bytes, 64 hexadecimal digits."""
  return hashlib.sha256(data).hexdigest()


def idx_gz(array):
  """Returns a uint8 array as a gzip file in MNIST's format, always the same."""
  sides = b''.join(side.to_bytes(4, 'big') for side in array.shape)
  buffer = io.BytesIO()
  with gzip.GzipFile(fileobj=buffer, mode='wb', mtime=0) as target:
    target.write(bytes([0, 0, 8, array.ndim]) + sides + array.tobytes())
  return buffer.getvalue()
