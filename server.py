"""Serves a frozen graph: a page on which a photo is chosen and classified.

  python server.py --model_name=my_inception_v4_freeze.pb \
    --label_file=my_inception_v4_freeze.label --upload_folder=/tmp/upload

Then open http://127.0.0.1:5001. Ctrl-C or SIGTERM ends it.
"""

import logging
import os
import signal
import socket

import waitress
from absl import flags

import common_flags
from compat import setup_logging
from errors import InputError
from serving.app import create_app
from serving.classifier import Classifier

FLAGS = flags.FLAGS

# Requests answered at once. The session uses all cores for one photo already;
# more threads keep a slow visitor from holding up the others.
_THREADS = 8


def define_flags():
  """Defines the 2017 server's flags with its defaults, and what is new."""
  flags.DEFINE_string(
      'model_dir', '', 'Folder of --model_name and --label_file.')
  flags.DEFINE_string(
      'model_name', 'my_inception_v4_freeze.pb', 'File of the frozen graph.')
  flags.DEFINE_string(
      'label_file', 'my_inception_v4_freeze.label',
      'File of its labels. Needed only where the graph has none in it.')
  flags.DEFINE_string(
      'upload_folder', '/tmp/', 'Folder in which uploaded photos are kept.')
  flags.DEFINE_integer(
      'num_top_predictions', 5, 'How many classes are shown.', lower_bound=1)
  flags.DEFINE_bool(
      'calibrated', False,
      'Show the scores after the temperature that ./report.sh fitted, in place '
      "of the network's own.")
  flags.DEFINE_integer(
      'port', 5001, 'Port to listen on; 0 takes a free one.', lower_bound=0,
      upper_bound=65535)
  flags.DEFINE_string(
      'host', '127.0.0.1',
      'Address to listen on; 0.0.0.0 is every IPv4 address of this machine.')
  flags.DEFINE_integer(
      'max_upload_mb', 16, 'Largest photo that is accepted, in units of 2^20 '
      'bytes.', lower_bound=1)
  flags.DEFINE_bool(
      'debug', False, 'Log every request. Not a debugger.')
  flags.DEFINE_string(
      'preprocessing_name', None,
      'Preprocessing of a graph that was made elsewhere. None: as the graph '
      'says.')
  flags.DEFINE_integer(
      'image_size', None,
      'Pixels of a graph that was made elsewhere. None: as the graph says.',
      lower_bound=1)


def classifier_from_flags():
  """Returns the Classifier, warmed up.

  Raises:
    InputError: graph or labels are missing or damaged, or do not fit.
  """
  label_file = os.path.join(FLAGS.model_dir, FLAGS.label_file)
  # The graph's own labels do where the default file is not there.
  if not FLAGS['label_file'].present and not os.path.exists(label_file):
    label_file = None
  classifier = Classifier.from_frozen_graph(
      os.path.join(FLAGS.model_dir, FLAGS.model_name), label_file,
      image_size=FLAGS.image_size, preprocessing_name=FLAGS.preprocessing_name,
      calibrated=FLAGS.calibrated)
  classifier.warm_up()
  return classifier


def bind(host, port):
  """Takes a port without listening on it yet.

  Taken before the graph is loaded, so that a port in use shows at once.

  Args:
    host: name or address, IPv4 or IPv6.
    port: 0 takes a free one.

  Returns:
    A socket.

  Raises:
    InputError: the address or the port cannot be had.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind, protocol)
    # A port that the last server has just left can be taken again.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
  except OSError as error:
    raise _port_error(host, port, error)
  return listener


def serve(app, listener, max_upload_mb):
  """Answers requests until the process is told to end.

  Args:
    app: WSGI application.
    listener: socket, as `bind` returned it.
    max_upload_mb: largest photo, in units of 2^20 bytes.

  Raises:
    InputError: the port was taken by another program meanwhile.
  """
  host, port = listener.getsockname()[:2]
  try:
    server = waitress.create_server(
        app, sockets=[listener], threads=_THREADS, ident=None,
        # What is somewhat too large still gets the page that says so.
        max_request_body_size=(max_upload_mb + 64) * 2 ** 20)
  except OSError as error:
    raise _port_error(host, port, error)
  print('listening on port %d' % port, flush=True)
  server.run()
  server.close()


def _port_error(host, port, error):
  return InputError('cannot listen on %s, port %d: %s; choose another with '
                    '--port or --host' % (host, port, error.strerror))


def _end(signal_number, frame):
  """SIGTERM ends as Ctrl-C does: waitress catches it and stops its threads."""
  del signal_number, frame  # Part of the signature only.
  raise SystemExit(0)


def main(_):
  """Loads the frozen graph, then serves the page until a signal ends it."""
  signal.signal(signal.SIGTERM, _end)
  if FLAGS.debug:
    setup_logging('DEBUG')
  # Its notes on a full queue are of no use to whoever runs this.
  logging.getLogger('waitress.queue').setLevel(logging.ERROR)
  listener = bind(FLAGS.host, FLAGS.port)
  app = create_app(classifier_from_flags(), {
      'UPLOAD_FOLDER': FLAGS.upload_folder,
      'NUM_TOP_PREDICTIONS': FLAGS.num_top_predictions,
      'MAX_UPLOAD_MB': FLAGS.max_upload_mb,
  })
  serve(app, listener, FLAGS.max_upload_mb)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
