"""A server without checks or batches, for comparison with server.py.

  benchmarks/plain_server.py --frozen_file=my_inception_v4_freeze.pb

As in tutorials: Flask's own server with one thread per connection; each photo
is passed to the session alone and unmodified.
"""

import logging

import flask
from absl import flags
from werkzeug.serving import WSGIRequestHandler, make_server

from common import flags as common_flags
from common.errors import InputError
from compat import tf
from serving.model import graph_files, graph_info

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string('frozen_file', None, 'Frozen graph with its labels.')


def create_app(path):
  """Returns a Flask application with a frozen graph behind /api/classify.

  Raises:
    InputError: it is not a graph of this project that takes photo files.
  """
  graph_def = graph_files.read_frozen(path, 'frozen graph')
  info = graph_info.read(graph_def)
  if info is None or info.input_kind != 'encoded':
    raise InputError('--frozen_file=%s: expected a graph of '
                     'export_inference_graph.py with --input_type=encoded' %
                     path)
  with tf.Graph().as_default() as graph:
    graph_files.import_into_default(graph_def)
    session = tf.Session(graph=graph)
  app = flask.Flask(__name__)

  @app.route('/api/classify', methods=['POST'])
  def classify():
    scores = session.run(info.predictions,
                         {info.input: [flask.request.get_data()]})[0]
    return flask.jsonify(photos=[{
        'classes': info.labels, 'probabilities': list(map(float, scores))}])

  return app


def main(_):
  """Serves until it is ended."""
  common_flags.require(FLAGS, 'frozen_file')
  logging.getLogger('werkzeug').setLevel(logging.WARNING)
  # Connections stay open between requests, as in server.py.
  WSGIRequestHandler.protocol_version = 'HTTP/1.1'
  server = make_server('127.0.0.1', 0, create_app(FLAGS.frozen_file),
                       threaded=True)
  print('listening on port %d' % server.port, flush=True)
  server.serve_forever()


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
