"""Measures the effect of the worst accepted photos on another client.

Two attackers each send one kind of photo without a pause, also after refusals,
while one client uploads usual photos one after the other. server.py is started
on a free port, as in benchmarks/server_load.py, and with the same flags.
"""

import contextlib
import io
import os
import socket
import threading
import time
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import server_load
from common import flags as common_flags

FLAGS = flags.FLAGS

# Pixels per side of the largest photo that the server accepts, and of one that
# is just not treated as large (serving/model/classifier_service.py).
_SIDE, _SMALLER_SIDE = 8000, 4000

_ATTACKERS = 2

# Maximum number of scans of a JPEG of that size, see
# datasets/photo_files/jpeg_markers.py.
_SCANS = 20

# Maximum photos per request of an attacker; the server's --max_photos.
_MANY = 16


class Kind(NamedTuple):
  """One kind of request."""

  name: str
  # Size of a photo.
  kilobytes: float
  # Number per request.
  photos: int
  # The whole HTTP request.
  request: bytes


class Effect(NamedTuple):
  """The effect of one kind of request."""

  # Growth of the server process.
  megabytes: float
  # That the attackers got.
  answers: int
  # Seconds of the other client.
  p50: float
  p95: float
  # Number of its responses with another status than 200.
  refused: int


def _encode(image, kind, **options):
  stream = io.BytesIO()
  image.save(stream, kind, **options)
  return stream.getvalue()


def _noise(side):
  """Returns an RGB image of noise, which cannot be compressed well."""
  tile = np.random.RandomState(0).randint(0, 256, (500, 500, 3), np.uint8)
  return Image.fromarray(np.tile(tile, (side // 500, side // 500, 1)))


def _with_scans(data, count):
  """Returns a progressive JPEG with its last scan repeated."""
  start, end = data.rindex(b'\xff\xda'), data.rindex(b'\xff\xd9')
  more = count - data.count(b'\xff\xda')
  return data[:end] + data[start:end] * more + data[end:]


def kinds(names=None):
  """Yields the Kinds of requests.

  Args:
    names: of the wanted kinds; None: all.
  """
  flat = Image.new('RGB', (_SIDE, _SIDE), (90, 120, 30))
  rows = [
      ('PNG, 1 bit', 1, lambda: _encode(Image.new('1', flat.size), 'PNG')),
      ('PNG, 1 bit', _MANY, lambda: _encode(Image.new('1', flat.size), 'PNG')),
      ('PNG, RGB', 1, lambda: _encode(flat, 'PNG')),
      ('PNG, alpha', 1, lambda: _encode(flat.convert('RGBA'), 'PNG')),
      ('JPEG, flat', _MANY, lambda: _encode(flat, 'JPEG')),
      ('JPEG, noise', 1, lambda: _encode(_noise(_SIDE), 'JPEG', quality=5)),
      ('JPEG, progressive', 1, lambda: _encode(
          _noise(_SIDE), 'JPEG', quality=5, progressive=True)),
      ('JPEG, %d scans' % _SCANS, 1, lambda: _with_scans(_encode(
          flat, 'JPEG', progressive=True), _SCANS)),
      ('PNG, 16 megapixels', _MANY, lambda: _encode(
          flat.crop((0, 0, _SMALLER_SIDE, _SMALLER_SIDE)), 'PNG')),
  ]
  for name, count, make in rows:
    if names is None or name in names:
      data = make()
      yield Kind(name, len(data) / 1000, count, _request([data] * count))


def _request(photos):
  """Returns the bytes of an upload; several photos are sent as a form."""
  if len(photos) == 1:
    return server_load.to_request(photos[0])
  boundary = b'-' * 20 + b'photo'
  body = b''.join(
      b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
      b'\r\n%s\r\n' % (boundary, photo) for photo in photos)
  body += b'--%s--\r\n' % boundary
  return (b'POST /api/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: '
          b'multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n' %
          (boundary, len(body))) + body


class _Attacker(threading.Thread):
  """Sends one request repeatedly; answers: number of successful ones."""

  def __init__(self, port, request, stop):
    super().__init__(daemon=True)
    self.answers = 0
    self._port, self._request, self._stop_event = port, request, stop
    self._connection = None

  def run(self):
    while not self._stop_event.is_set():
      try:
        if not self._connection:
          self._connection = server_load.connect(self._port)
        status, headers, _ = server_load.exchange(self._connection,
                                                  self._request)
      except (OSError, ValueError, KeyError):
        self._connection = None
        self._stop_event.wait(0.1)
        continue
      self.answers += status == 200
      if headers.get('connection', '').lower() == 'close':
        self._connection = None

  def leave(self):
    """Closes the connection, and waits for the thread."""
    connection = self._connection
    if connection:
      with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    self.join()


def measure(process_id, port, kind, requests, seconds):
  """Returns the Effect of a Kind.

  Args:
    process_id: of the server.
    port: of the server.
    kind: Kind.
    requests: list of bytes: the requests of the other client.
    seconds: duration.
  """
  before = _megabytes(process_id, 'VmRSS')
  with open('/proc/%d/clear_refs' % process_id, 'w') as file:
    file.write('5')  # Resets VmHWM.
  stop = threading.Event()
  attackers = [_Attacker(port, kind.request, stop) for _ in range(_ATTACKERS)]
  for attacker in attackers:
    attacker.start()
  replies = server_load.ask(port, requests, 1, seconds)
  stop.set()
  for attacker in attackers:
    attacker.leave()
  waits = [reply.seconds for reply in replies if reply.status == 200]
  refused = len(replies) - len(waits)
  return Effect(_megabytes(process_id, 'VmHWM') - before,
                sum(attacker.answers for attacker in attackers),
                *np.percentile(waits or [float('inf')], [50, 95]), refused)


def seconds_alone(port, kind):
  """Returns the seconds of one request, None if it is refused."""
  start = time.perf_counter()
  with server_load.connect(port) as connection:
    status, _, _ = server_load.exchange(connection, kind.request)
  return time.perf_counter() - start if status == 200 else None


def _megabytes(process_id, name):
  with open('/proc/%d/status' % process_id) as file:
    line = next(line for line in file if line.startswith(name + ':'))
  return int(line.split()[1]) * 1024 / 1e6


def main(_):
  """Prints the table."""
  common_flags.require(FLAGS, 'frozen_file', 'photos')
  photos = server_load.read_photos(FLAGS.photos, FLAGS.num_photos)
  requests = [server_load.to_request(photo) for photo in photos]
  # All kinds with as many pixels as --max_pixels accepts.
  process, port = server_load.start_server('--max_photo_mb=700')
  row = '%-20s %6s %8s %8s %5s %8s %9s %9s %7s'
  try:
    print('%s, %d clients send the kind without a pause for %g s' % (
        os.path.basename(FLAGS.frozen_file), _ATTACKERS, FLAGS.seconds))
    print(row % ('kind', 'photos', 'KB each', 's alone', 'MB', 'answers',
                 'other p50', 'p95', 'refused'))
    quiet = [reply.seconds for reply in server_load.ask(
        port, requests, 1, FLAGS.seconds)]
    print(row % ('none', 0, '', '', '', '',
                 *('%.3f' % wait for wait in np.percentile(quiet, [50, 95])),
                 0), flush=True)
    for kind in kinds():
      alone = seconds_alone(port, kind)
      effect = measure(process.pid, port, kind, requests, FLAGS.seconds)
      print(row % (kind.name, kind.photos, '%.1f' % kind.kilobytes,
                   '-' if alone is None else '%.2f' % alone,
                   '%.0f' % effect.megabytes, effect.answers,
                   '%.3f' % effect.p50, '%.3f' % effect.p95, effect.refused),
            flush=True)
  finally:
    process.terminate()
    status = process.wait()
  return status


if __name__ == '__main__':
  server_load.define_flags()
  common_flags.run(main)
