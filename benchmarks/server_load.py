"""Measures the server under load, compared with the bare session.

server.py is started on a free port. Clients with one connection each upload one
photo after the other to /api/classify; after a refusal a client waits as long
as Retry-After says. Before and after each number of clients, the bare session
classifies the same photos, already decoded and checked, in full batches: the
maximum speed of the machine at that time, without any server. The same clients
also send to a server.py that computes with TensorFlow and float32, if the first
does not, and with --plain to benchmarks/plain_server.py.

Every reply is compared with the classifier's result for the same photo alone,
computed in the same way.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import numpy as np
from absl import flags

from benchmarks import OLD_RUNTIME
from common import flags as common_flags
from common.errors import InputError
from datasets.photo_files.photos import PhotoError
from runtime import forward_pass
from serving.model.classifier import Classifier, prepare

FLAGS = flags.FLAGS

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# What OLD_RUNTIME means.
_OLD = forward_pass.Choice(forward_pass.TENSORFLOW, forward_pass.FLOAT32)

# Maximum difference between a probability and that of the same photo alone.
_TOLERANCE = 1e-5

# Maximum seconds for a response, or for the start of the server.
_PATIENCE_SECS = 300


class Reply(NamedTuple):
  """One reply."""

  # Index of the photo.
  photo: int
  # Of HTTP.
  status: int
  body: bytes
  # Seconds after the start.
  end: float
  # Since the photo was sent.
  seconds: float


class Session(NamedTuple):
  """A bare session, and its results."""

  classifier: Classifier
  # By photo, list of (label, probability).
  expected: list


class Level(NamedTuple):
  """Results for one number of clients."""

  clients: int
  answers: int
  # Answers per second.
  rate: float
  # Seconds.
  p50: float
  p95: float
  p99: float
  refused: int
  # Answers that differ.
  wrong: int
  # Neither answers nor refusals.
  failed: int
  # Of the rate of the bare session before and after.
  share: float


def define_flags():
  """Defines the flags for the server and the clients."""
  flags.DEFINE_string('frozen_file', None, 'Frozen graph with its labels.')
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)
  flags.DEFINE_string('photos', None, 'Folder of JPEG or PNG photos, searched '
                      'with its sub-folders.')
  flags.DEFINE_integer('num_photos', 32, 'How many of them are uploaded.',
                       lower_bound=1)
  flags.DEFINE_list('clients', ['1', '8', '64'],
                    'Numbers of clients, with commas between.')
  flags.DEFINE_float('seconds', 60.0, 'Seconds for each number of clients.',
                     lower_bound=0.1)
  flags.DEFINE_float(
      'bare_seconds', None, 'Seconds of the bare session before and after each '
      'number. None: half of --seconds.', lower_bound=0.1)
  flags.DEFINE_integer('batch_size', 8, 'Of the server and the bare session.',
                       lower_bound=1)
  flags.DEFINE_multi_string(
      'server_flag', [],
      'A further flag of server.py, as --server_flag=--max_queue=32.')
  flags.DEFINE_float(
      'bar', 0.95, 'Exit with status 1 where the server answers a smaller '
      "share of the bare session's photos per second with --bar_clients.")
  flags.DEFINE_integer('bar_clients', 8, 'Number of clients that --bar is for.')
  flags.DEFINE_bool(
      'old', True, 'Also measure server.py with TensorFlow and float32, if it '
      'would compute otherwise.')
  flags.DEFINE_bool('plain', False, 'Also measure a plain Flask server; exit '
                    'with status 1 where server.py is slower. The graph must '
                    'take photo files (--input_type=encoded).')


class Client(threading.Thread):
  """Uploads photos one after the other, on one connection.

  Attributes:
    replies: list of Replies.
  """

  def __init__(self, port, requests, first, start, stop):
    """Prepares a client; start() starts it.

    Args:
      port: of the server.
      requests: list of bytes, complete requests.
      first: index of the first request.
      start: time.perf_counter() that `end` is relative to.
      stop: threading.Event that stops it.
    """
    super().__init__(daemon=True)
    self.replies = []
    self._port, self._requests, self._next = port, requests, first
    self._began, self._stop_event = start, stop

  def run(self):
    connection = None
    while not self._stop_event.is_set():
      photo = self._next % len(self._requests)
      sent = time.perf_counter()
      try:
        connection = connection or connect(self._port)
        status, headers, body = exchange(connection, self._requests[photo])
      except (OSError, ValueError) as error:
        status, headers, body = 0, {}, str(error).encode()
        connection = None
      now = time.perf_counter()
      self.replies.append(Reply(photo, status, body, now - self._began,
                                now - sent))
      if headers.get('connection', '').lower() == 'close':
        connection = None
      if status == 200:
        self._next += 1
      else:
        self._stop_event.wait(float(headers.get('retry-after', 1)))


def connect(port):
  """Returns a socket connected to a port of this machine."""
  connection = socket.create_connection(('127.0.0.1', port), _PATIENCE_SECS)
  connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  return connection


def exchange(connection, request):
  """Sends a request and reads its reply.

  Faster than http.client, because the clients share the cores with the server.

  Args:
    connection: socket.
    request: bytes.

  Returns:
    Status, dict of the headers with lower-case names, and the body.

  Raises:
    OSError: the connection broke.
    ValueError: the reply is not valid.
  """
  connection.sendall(request)
  data = b''
  while b'\r\n\r\n' not in data:
    data += _received(connection)
  head, body = data.split(b'\r\n\r\n', 1)
  lines = head.decode('latin-1').split('\r\n')
  headers = {}
  for line in lines[1:]:
    name, _, value = line.partition(':')
    headers[name.strip().lower()] = value.strip()
  length = int(headers['content-length'])
  while len(body) < length:
    body += _received(connection)
  return int(lines[0].split()[1]), headers, body


def _received(connection):
  data = connection.recv(65536)
  if not data:
    raise OSError('the server closed the connection')
  return data


def to_request(photo):
  """Returns the bytes of a request that uploads a photo."""
  return (b'POST /api/classify HTTP/1.1\r\nHost: 127.0.0.1\r\n'
          b'Content-Type: application/octet-stream\r\n'
          b'Content-Length: %d\r\n\r\n' % len(photo)) + photo


def is_right(body, expected):
  """Whether a reply equals the classifier's result for the photo alone.

  Args:
    body: JSON of /api/classify.
    expected: list of (label, probability).
  """
  try:
    photo, = json.loads(body.decode('utf-8'))['photos']
    found = sorted(zip(photo['classes'], photo['probabilities']))
    return len(found) == len(expected) and all(
        label == wanted and abs(share - probability) <= _TOLERANCE
        for (label, share), (wanted, probability) in zip(
            found, sorted(expected)))
  except (ValueError, KeyError, TypeError):
    return False


def read_photos(folder, count):
  """Returns the bytes of `count` usable photos of a folder.

  Raises:
    InputError: there are fewer.
  """
  found = []
  for parent, folders, names in os.walk(folder):
    folders.sort()
    for name in sorted(names):
      if name.lower().endswith(('.jpg', '.jpeg', '.png')):
        found.append(os.path.join(parent, name))
  photos = []
  # Spread over the folder: its sub-folders may be classes.
  for path in found[::max(1, len(found) // count)]:
    with open(path, 'rb') as file:
      data = file.read()
    if not isinstance(prepare(data), PhotoError):
      photos.append(data)
  if len(photos) < count:
    raise InputError('%d usable photos in %r, --num_photos=%d' %
                     (len(photos), folder, count))
  return photos[:count]


def load_session(photos, options):
  """Returns the Session of --frozen_file for some photos.

  Args:
    photos: list of bytes.
    options: forward_pass.Options.
  """
  classifier = Classifier.from_frozen_graph(
      FLAGS.frozen_file, batch_size=FLAGS.batch_size, options=options)
  scores = [classifier.classify([photo])[0] for photo in photos]
  return Session(classifier, [
      list(zip(classifier.labels, map(float, values))) for values in scores])


def measure_bare(classifier, prepared, batch_size, seconds):
  """Returns the photos per second of the bare session.

  Args:
    classifier: Classifier.
    prepared: list of Photos, as serving.model.classifier.prepare returns them.
    batch_size: photos per run.
    seconds: duration.
  """
  start, done = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    batch = [prepared[(done + place) % len(prepared)]
             for place in range(batch_size)]
    classifier.predict_prepared(batch)
    done += batch_size
  return done / (time.perf_counter() - start)


def ask(port, requests, clients, seconds):
  """Returns the Replies that several clients get within some seconds."""
  stop, start = threading.Event(), time.perf_counter()
  threads = [Client(port, requests, number, start, stop)
             for number in range(clients)]
  for thread in threads:
    thread.start()
  time.sleep(seconds)
  stop.set()
  for thread in threads:
    thread.join(_PATIENCE_SECS)
  return [reply for thread in threads for reply in thread.replies]


def to_level(clients, replies, expected, seconds, bare):
  """Returns the Level for the replies to several clients.

  Args:
    clients: number of clients.
    replies: list of Replies.
    expected: by photo, list of (label, probability).
    seconds: duration of the measurement.
    bare: photos per second of the bare session.
  """
  answers = [reply for reply in replies if reply.status == 200]
  refused = sum(reply.status == 503 for reply in replies)
  wrong = sum(not is_right(reply.body, expected[reply.photo])
              for reply in answers)
  # Until the last answer in time: requests that were in progress then are not
  # counted, nor is the time that they had taken.
  ends = [reply.end for reply in answers if reply.end <= seconds]
  rate = len(ends) / max(ends) if ends else 0.0
  waits = [reply.seconds for reply in answers] or [float('nan')]
  return Level(clients, len(answers), rate, *np.percentile(waits, [50, 95, 99]),
               refused, wrong, len(replies) - len(answers) - refused,
               rate / bare)


def start_server(*more):
  """Starts server.py with further flags; returns the same as start_program."""
  folder, name = os.path.split(os.path.abspath(FLAGS.frozen_file))
  return start_program(
      'server.py', '--port=0', '--model_dir=' + folder, '--model_name=' + name,
      '--batch_size=%d' % FLAGS.batch_size, *FLAGS.server_flag, *more)


def start_program(name, *arguments):
  """Starts a server; returns its process and its port.

  Raises:
    InputError: it did not start; it has printed the reason.
  """
  process = subprocess.Popen(
      [sys.executable, os.path.join(_ROOT, name), *arguments],
      stdout=subprocess.PIPE, text=True)
  line = process.stdout.readline()
  if not line.startswith('listening on port '):
    process.wait()
    raise InputError('%s did not start' % name)
  return process, int(line.split()[-1])


def print_level(name, level, bare):
  """Prints a line of the table."""
  print('%9s %7d %8d %9.2f %8.3f %8.3f %8.3f %8d %6d %7d %8.2f %7.3f' % (
      name, level.clients, level.answers, level.rate, level.p50, level.p95,
      level.p99, level.refused, level.wrong, level.failed, bare, level.share),
        flush=True)


def missed(levels, plain):
  """Returns the unmet requirements, one sentence each.

  Args:
    levels: list of Levels of server.py.
    plain: list of those of the plain server, of the same length or empty.
  """
  found = ['%d clients: %.2f photos per second, the plain server has %.2f' %
           (ours.clients, ours.rate, other.rate)
           for ours, other in zip(levels, plain) if ours.rate < other.rate]
  for level in levels:
    if level.wrong or level.failed:
      found.append('%d clients: %d wrong and %d failed answers' %
                   (level.clients, level.wrong, level.failed))
    if level.clients == FLAGS.bar_clients and not level.share >= FLAGS.bar:
      found.append('%d clients: %.3f of the bare session, the bar is %.3f' %
                   (level.clients, level.share, FLAGS.bar))
  return found


def clients_from_flags():
  """Returns the numbers in --clients.

  Raises:
    InputError: one of them is not a number of clients.
  """
  for text in FLAGS.clients:
    if not (text.isdigit() and 0 < int(text) <= 1000):
      raise InputError('--clients=%s: %r is no number from 1 to 1000' %
                       (','.join(FLAGS.clients), text))
  return [int(text) for text in FLAGS.clients]


def main(_):
  """Prints the table; returns 1 if a requirement is not met."""
  common_flags.require(FLAGS, 'frozen_file', 'photos')
  all_clients = clients_from_flags()
  photos = read_photos(FLAGS.photos, FLAGS.num_photos)
  new = load_session(photos, forward_pass.Options(FLAGS.runtime,
                                                  FLAGS.precision))
  old = new
  if (FLAGS.old or FLAGS.plain) and new.classifier.choice != _OLD:
    old = load_session(photos, forward_pass.Options(*_OLD))
  prepared = [prepare(photo) for photo in photos]
  requests = [to_request(photo) for photo in photos]
  bare_seconds = FLAGS.bare_seconds or FLAGS.seconds / 2
  servers = [('server.py', new, *start_server(
      '--runtime=' + FLAGS.runtime, '--precision=' + FLAGS.precision))]
  levels = {'server.py': [], 'old': [], 'plain': []}
  try:
    if FLAGS.old and old is not new:
      servers.append(('old', old, *start_server(*OLD_RUNTIME)))
    if FLAGS.plain:
      servers.append(('plain', old, *start_program(
          'benchmarks/plain_server.py', '--frozen_file=' + FLAGS.frozen_file)))
    for name, session, *_ in servers:
      print('%s: %s' % (name, session.classifier.choice.describe()))
    print('%s, %d photos, batches of %d\n   server clients  answers  a second'
          '      p50      p95      p99  refused  wrong  failed     bare   share'
          % (os.path.basename(FLAGS.frozen_file), len(photos),
             FLAGS.batch_size))
    measured = before = None
    for clients, (name, session, _, port) in itertools.product(
        all_clients, servers):
      if measured is not session:
        before = measure_bare(session.classifier, prepared, FLAGS.batch_size,
                              bare_seconds)
      replies = ask(port, requests, clients, FLAGS.seconds)
      after = measure_bare(session.classifier, prepared, FLAGS.batch_size,
                           bare_seconds)
      bare = (before + after) / 2
      level = to_level(clients, replies, session.expected, FLAGS.seconds, bare)
      levels[name].append(level)
      print_level(name, level, bare)
      measured, before = session, after
  finally:
    for _, _, process, _ in servers:
      process.terminate()
    status, *_ = [process.wait() for _, _, process, _ in servers]
  for level, former in zip(levels['server.py'], levels['old']):
    print('%d clients: %.1f times as many photos per second as old' %
          (level.clients, level.rate / former.rate if former.rate else 0))
  problems = missed(levels['server.py'], levels['plain'])
  for sentence in problems:
    print('missed: ' + sentence)
  if status:
    print('missed: the server ended with status %d' % status)
  return int(bool(problems or status))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
