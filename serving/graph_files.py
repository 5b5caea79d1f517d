"""Reads graphs from files, binary and text."""

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from compat import tf
from errors import InputError
from serving import files

# Operations that hold a variable.
VARIABLES = ('Variable', 'VariableV2', 'VarHandleOp')


def read_graph_def(path, what):
  """Reads a GraphDef.

  Args:
    path: file with a binary GraphDef, or one as text.
    what: what the file is to the user, as in 'graph --in_graph'.

  Raises:
    InputError: it is missing, or holds no graph.
  """
  data = files.read(path, what)
  graph_def = tf.GraphDef()
  try:
    graph_def.ParseFromString(data)
  except DecodeError:
    graph_def = _parse_text(data)
  if graph_def is None:
    raise InputError('%r is no GraphDef, neither binary nor as text' % path)
  if not graph_def.node:
    raise InputError('%r holds no graph' % path)
  return graph_def


def read_frozen(path, what):
  """Reads a frozen graph; as `read_graph_def`, and refuses variables."""
  graph_def = read_graph_def(path, what)
  variables = [node.name for node in graph_def.node if node.op in VARIABLES]
  if variables:
    raise InputError('%r is not frozen: it holds variables, as %s; '
                     'export_inference_graph.py --frozen_file makes one that '
                     'is' % (path, variables[0]))
  return graph_def


def import_into_default(graph_def, input_map=None):
  """Puts a graph into the default graph, its names as they are.

  Args:
    graph_def: GraphDef.
    input_map: {name of a tensor in it: tensor that takes its place}.

  Raises:
    InputError: this TensorFlow does not know one of its operations.
  """
  try:
    tf.import_graph_def(graph_def, input_map, name='')
  except ValueError as error:
    raise InputError('TensorFlow %s cannot load the graph: %s' %
                     (tf.__version__, str(error).split('\n')[0]))


def _parse_text(data):
  """Returns the GraphDef that is written in `data`, None where it is none."""
  graph_def = tf.GraphDef()
  try:
    text_format.Parse(data.decode('utf-8'), graph_def)
  except (UnicodeDecodeError, text_format.ParseError):
    return None
  return graph_def
