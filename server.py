"""Serves a frozen graph: a page that classifies photos, and an API.

  python server.py --model_name=my_inception_v4_freeze.pb \
    --label_file=my_inception_v4_freeze.label

Then open http://127.0.0.1:5001. Ctrl-C or SIGTERM ends the server after it has
answered accepted requests. When the files of the graph change, the server
switches to the new graph.
"""

import ipaddress
import json
import logging
import os
import re
import signal
from typing import Any, Callable, List, Optional

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from compat import setup_logging, tf
from datasets.photo_files import photo_memory, photos
from runtime import forward_pass
from serving.model import heap_memory
from serving.model.classifier import Classifier
from serving.model.classifier_service import GraphSource, Service
from serving.web import clients, hosts, logs
from serving.web.app import ClassifierApp, create_app
from serving.web.listening import bind, listen
from serving.web.metrics import Metrics

FLAGS = flags.FLAGS

# Threads in addition to those whose photos wait: for pages, health checks and
# refusals.
_MORE_THREADS = 16


def define_flags() -> None:
  """Defines the 2017 server's flags with its defaults, and new flags."""
  flags.DEFINE_string(
      'model_dir', '', 'Folder of --model_name and --label_file.')
  flags.DEFINE_string(
      'model_name', 'my_inception_v4_freeze.pb', 'File of the frozen graph.')
  flags.DEFINE_string(
      'label_file', 'my_inception_v4_freeze.label',
      'File of its labels. Needed only if the graph contains none.')
  flags.DEFINE_integer(
      'num_top_predictions', 5, 'Number of classes that the page shows.',
      lower_bound=1)
  flags.DEFINE_bool(
      'calibrated', False,
      'Show the scores after temperature scaling, with the temperature that '
      "./report.sh fitted, instead of the network's own.")
  flags.DEFINE_string(
      'preprocessing_name', None,
      'Preprocessing for a graph that was exported elsewhere. None: that of '
      'the graph.')
  flags.DEFINE_integer(
      'image_size', None,
      'Height and width in pixels for a graph that was exported elsewhere. '
      'None: those of the graph.', lower_bound=1)
  common_flags.define_allowed_ops_flag()
  flags.DEFINE_float(
      'reload_secs', 2.0,
      'Seconds between two checks whether the files of the graph have '
      'changed; 0: no checks.', lower_bound=0)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)
  _define_network_flags()
  _define_upload_flags()
  _define_load_flags()


def _define_network_flags():
  flags.DEFINE_integer(
      'port', 5001, 'Port to listen on; 0 takes a free one.', lower_bound=0,
      upper_bound=65535)
  flags.DEFINE_string(
      'host', '127.0.0.1',
      'Address to listen on; 0.0.0.0 is every IPv4 address of this machine.')
  flags.DEFINE_list(
      'allowed_hosts', None,
      'Host names (header Host) under which the server answers, in addition to '
      'localhost and IP addresses; .example.org includes its subdomains, * '
      'allows any name. None: no others if --host is a loopback address such '
      'as 127.0.0.1, otherwise any.')
  flags.DEFINE_string(
      'url_prefix', '',
      'Path under which a reverse proxy publishes the server, such as '
      '/flowers, if the proxy passes it on with each request. Not needed if '
      'the proxy removes it.')
  flags.DEFINE_string(
      'api_token', None,
      'Token that requests to the API must send as `Authorization: Bearer '
      'TOKEN`. None: no token is required. @FILE reads tokens from FILE, one '
      'per line, each of which is accepted; it is read again when it changes. '
      'Other users can see the command line of a process, but not the file.')
  flags.DEFINE_integer(
      'rate_limit', 0,
      'Photos per minute that one client may send; above it, requests get '
      'status 429 with Retry-After. A client is a token of --api_token, or '
      'else an IPv4 address or the first 64 bits of an IPv6 address. 0: no '
      'limit.', lower_bound=0)
  flags.DEFINE_string(
      'trusted_proxy', None,
      'IP address of the reverse proxy whose X-Forwarded-For gives the address '
      'of a client for --rate_limit and --access_log. None: the header is '
      'ignored.')
  flags.DEFINE_bool(
      'page', True, 'Serve the page in addition to the API.')
  flags.DEFINE_bool(
      'examples', True,
      'Show the training photos that the export wrote beside the graph: on the '
      'page one of each class, and on the page and in the API those nearest to '
      'a photo, with their file names in the API.')
  flags.DEFINE_bool(
      'explain', True,
      'Compute heat maps (which regions of a photo raise the score of a class) '
      'where they are requested. The first one loads the graph a second time.')
  flags.DEFINE_bool(
      'debug', False, 'Log every request. This does not start a debugger.')
  flags.DEFINE_enum(
      'access_log', None, ['common', 'json'],
      'Write a line for each request to stdout: common (the common log format) '
      'or json (a JSON object). None: no access log.')
  flags.DEFINE_enum(
      'log_format', 'text', ['text', 'json'],
      'Format of the log on stderr: text, or json (one JSON object per line).')


def _define_upload_flags():
  flags.DEFINE_bool(
      'keep_uploads', False,
      'Keep uploaded photos in --upload_folder. Without it, they are never '
      'written to disk.')
  flags.DEFINE_string(
      'upload_folder', '/tmp/', 'Folder in which uploaded photos are kept.')
  flags.DEFINE_float(
      'keep_days', 30.0, 'Days after which a kept photo is removed.',
      lower_bound=0)
  flags.DEFINE_integer(
      'keep_mb', 1024, 'Maximum total size of the kept photos, in units of '
      '2^20 bytes; above it, the oldest are removed.', lower_bound=1)
  flags.DEFINE_string(
      'inbox', None,
      'Folder for corrections: photos that visitors say were classified '
      'wrongly, with the right class, for ./review_inbox.sh. None: they are '
      'not accepted.')
  flags.DEFINE_integer(
      'inbox_photos', 1000, 'Maximum number of photos in --inbox; above it, '
      'more are refused.', lower_bound=1)
  flags.DEFINE_integer(
      'inbox_mb', 1024, 'Maximum total size of the photos in --inbox, in units '
      'of 2^20 bytes; above it, more are refused.', lower_bound=1)
  flags.DEFINE_integer(
      'max_upload_mb', 16, 'Largest photo that is accepted, in units of 2^20 '
      'bytes.', lower_bound=1, upper_bound=1024)
  flags.DEFINE_integer(
      'max_photos', 16, 'Maximum number of photos per request, but no more '
      'than --max_queue.', lower_bound=1, upper_bound=1024)
  flags.DEFINE_integer(
      'max_pixels', 64 * 1000 * 1000, 'Largest width times height of a photo '
      'that is accepted.', lower_bound=1, upper_bound=photos.MAX_PIXELS)
  flags.DEFINE_integer(
      'max_photo_mb', photo_memory.MAX_BYTES // 10 ** 6,
      'Maximum memory that decoding one photo may take, estimated from its '
      'header, in units of 10^6 bytes; a photo that takes more is refused.',
      lower_bound=50)


def _define_load_flags():
  flags.DEFINE_integer(
      'max_queue', 64,
      'Maximum number of photos that are accepted but not answered; more are '
      'refused with status 503 and Retry-After.', lower_bound=1,
      upper_bound=4096)
  flags.DEFINE_integer(
      'batch_size', 8, 'Maximum number of photos per batch.', lower_bound=1,
      upper_bound=1024)
  flags.DEFINE_float(
      'batch_window_ms', 5.0,
      'Milliseconds for which a photo waits for others while no batch runs.',
      lower_bound=0, upper_bound=10000)
  flags.DEFINE_integer(
      'threads', None,
      'Number of threads that answer requests; must be more than --max_queue. '
      'None: %d more.' % _MORE_THREADS, lower_bound=2, upper_bound=8192)
  flags.DEFINE_float(
      'request_timeout', 30.0,
      'Seconds after which a request whose photos are not answered gets status '
      '503 with Retry-After, counted from its complete arrival.',
      lower_bound=0.1)
  flags.DEFINE_float(
      'drain_secs', 30.0,
      'Maximum seconds at shutdown for answering accepted requests.',
      lower_bound=0)


def service_from_flags(observe: Optional[Callable[[str, float], None]] = None
                       ) -> Service:
  """Returns the Service, with its graph loaded and warmed up.

  Args:
    observe: as Service takes it.

  Raises:
    InputError: graph or labels are missing or damaged, or do not match.
  """
  graph_file = os.path.join(FLAGS.model_dir, FLAGS.model_name)
  label_file = os.path.join(FLAGS.model_dir, FLAGS.label_file)
  # If the default label file is missing, the graph's own labels are used.
  if not FLAGS['label_file'].present and not os.path.exists(label_file):
    label_file = None
  # The flags are read here: another thread loads the later graphs.
  options = dict(
      image_size=FLAGS.image_size, preprocessing_name=FLAGS.preprocessing_name,
      calibrated=FLAGS.calibrated, batch_size=FLAGS.batch_size,
      allowed_ops=FLAGS.allowed_ops,
      options=forward_pass.options_from_flags(FLAGS)._replace(overlaps=True))

  def load():
    return Classifier.from_frozen_graph(graph_file, label_file, **options)

  return Service(
      GraphSource(load, graph_file, label_file), FLAGS.reload_secs,
      FLAGS.max_pixels, observe, batch_size=FLAGS.batch_size,
      max_queue=FLAGS.max_queue, window_secs=FLAGS.batch_window_ms / 1000)


def threads_from_flags() -> int:
  """Returns the number of threads that answer requests.

  Raises:
    InputError: so few that requests would wait for a thread, without being
      counted, instead of being refused.
  """
  if FLAGS.threads is None:
    return FLAGS.max_queue + _MORE_THREADS
  if FLAGS.threads <= FLAGS.max_queue:
    raise InputError('--threads=%d must be more than --max_queue=%d' %
                     (FLAGS.threads, FLAGS.max_queue))
  return FLAGS.threads


def trusted_proxy_from_flags() -> Optional[str]:
  """Returns --trusted_proxy in the form for clients.client_address.

  Raises:
    InputError: it is not an address.
  """
  if FLAGS.trusted_proxy is None:
    return None
  address = clients.normalize_address(FLAGS.trusted_proxy)
  if not address:
    raise InputError('--trusted_proxy=%r is not an IP address such as '
                     '127.0.0.1' % FLAGS.trusted_proxy)
  return address


def url_prefix_from_flags() -> str:
  """Returns --url_prefix with a leading and no trailing slash, or ''.

  Raises:
    InputError: it is not a path.
  """
  prefix = '/' + FLAGS.url_prefix.strip('/')
  if not re.fullmatch(r'(/[\w.~-]+)+|/', prefix, re.ASCII):
    raise InputError('--url_prefix=%r is not a path; accepted: letters, digits '
                     'and . _ ~ - between slashes, such as /flowers' %
                     FLAGS.url_prefix)
  return prefix.rstrip('/')


def allowed_hosts_from_flags(address: str) -> List[str]:
  """Returns --allowed_hosts in the form for hosts.check.

  Args:
    address: socket address on which the server listens.

  Raises:
    InputError: one of them is not a name.
  """
  if FLAGS.allowed_hosts is None:
    is_local = ipaddress.ip_address(address.partition('%')[0]).is_loopback
    return [] if is_local else [hosts.ANY]
  names = [name.strip().lower() for name in FLAGS.allowed_hosts]
  for name in names:
    if not hosts.is_name(name):
      raise InputError('--allowed_hosts: %r is not a host name; accepted: '
                       'names without port, such as photos.example.org, '
                       '.example.org to include subdomains, or *' % name)
  return names


def app_from_flags(service: Service, allowed_hosts: List[str],
                   metrics: Metrics) -> ClassifierApp:
  """Returns the WSGI application for a Service.

  Args:
    service: Service.
    allowed_hosts: as `allowed_hosts_from_flags` returned it.
    metrics: Metrics that /metrics shows.

  Raises:
    InputError: the folder for uploads or the file of tokens cannot be used.
  """
  return create_app(service, {
      'UPLOAD_FOLDER': FLAGS.upload_folder,
      'KEEP_UPLOADS': FLAGS.keep_uploads,
      'KEEP_DAYS': FLAGS.keep_days,
      'KEEP_MB': FLAGS.keep_mb,
      'INBOX': FLAGS.inbox,
      'INBOX_PHOTOS': FLAGS.inbox_photos,
      'INBOX_MB': FLAGS.inbox_mb,
      'NUM_TOP_PREDICTIONS': FLAGS.num_top_predictions,
      'MAX_UPLOAD_MB': FLAGS.max_upload_mb,
      # A larger request would be accepted only while the queue is empty.
      'MAX_PHOTOS': min(FLAGS.max_photos, FLAGS.max_queue),
      'MAX_PIXELS': FLAGS.max_pixels,
      'MAX_PHOTO_MB': FLAGS.max_photo_mb,
      'API_TOKEN': FLAGS.api_token,
      'RATE_LIMIT': FLAGS.rate_limit,
      'TRUSTED_PROXY': trusted_proxy_from_flags(),
      'ACCESS_LOG': FLAGS.access_log,
      'PAGE': FLAGS.page,
      'EXAMPLES': FLAGS.examples,
      'EXPLAIN': FLAGS.explain,
      'ALLOWED_HOSTS': allowed_hosts,
  }, metrics)


def _exit_on_signal(signal_number, frame):
  """Handles SIGTERM before the server runs."""
  del signal_number, frame  # Unused; required by the signature.
  raise SystemExit(0)


def main(_: Any) -> None:
  """Loads the frozen graph, then serves the page until a signal ends it."""
  heap_memory.use_one_arena()  # Before there is a thread with its own arena.
  with logs.native_lines_marked(FLAGS.log_format), logs.one_line_each(
      FLAGS.log_format):
    _serve()


def _serve():
  signal.signal(signal.SIGTERM, _exit_on_signal)
  if FLAGS.debug:
    setup_logging('DEBUG')
  # Its warnings about a full queue do not help the operator.
  logging.getLogger('waitress').setLevel(logging.ERROR)
  threads = threads_from_flags()
  clients.Tokens(FLAGS.api_token)  # Checked before the graph is loaded.
  trusted_proxy_from_flags()
  url_prefix = url_prefix_from_flags()
  listener = bind(FLAGS.host, FLAGS.port)
  allowed_hosts = allowed_hosts_from_flags(listener.getsockname()[0])
  metrics = Metrics()
  service = service_from_flags(metrics.observe)
  server = listen(app_from_flags(service, allowed_hosts, metrics), listener,
                  threads, FLAGS.max_upload_mb, url_prefix,
                  FLAGS.request_timeout)
  server.stop_on_signals()
  line = 'listening on port %d' % listener.getsockname()[1]
  print(json.dumps({'message': line}) if FLAGS.access_log == 'json' else line,
        flush=True)
  cut_off = server.run(FLAGS.drain_secs, on_end=service.begin_shutdown)
  # The only remaining requests are those whose clients no longer wait.
  service.close(timeout=0 if cut_off else FLAGS.drain_secs)
  tf.logging.info('ended')


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
