"""Prints the inputs, outputs and size of a graph.

  python -m tools.summarize_graph --in_graph=my_inception_v4_freeze.pb

prints the same lines as TensorFlow's tool of that name: the placeholders, the
variables, the nodes without consumers, the number of parameters, the
operations. For a graph exported here it also prints the network and the
classes.
"""

import collections
from typing import List, NamedTuple, Sequence, Tuple

from absl import flags

from common import flags as common_flags
from compat import tf
from serving.model import graph_files, graph_info

FLAGS = flags.FLAGS

_INPUTS = ('Placeholder', 'PlaceholderV2', 'PlaceholderWithDefault')
# Nodes of these kinds without consumers are not results.
_NO_OUTPUTS = _INPUTS + ('Const', 'Assign', 'NoOp')
_SCALES = 'kMBT'


class Summary(NamedTuple):
  """What a graph consists of."""

  inputs: List[tf.NodeDef]
  variables: List[tf.NodeDef]
  outputs: List[tf.NodeDef]
  # Number of values in constants.
  const_parameters: int
  # Number of values in variables.
  variable_parameters: int
  # Number of inputs that only order the operations.
  control_edges: int
  # [(operation, how often)], most frequent first; those of functions are
  # counted.
  operations: List[Tuple[str, int]]


def define_flags() -> None:
  """Defines the flags of TensorFlow's tool."""
  flags.DEFINE_string(
      'in_graph', None, 'File with a GraphDef, frozen or not: binary or text.')
  flags.DEFINE_bool(
      'print_structure', False, 'Also print each node with its inputs.')


def summarize(graph_def: tf.GraphDef) -> Summary:
  """Returns the Summary of a GraphDef."""
  nodes = graph_def.node
  inside = [node for function in graph_def.library.function
            for node in function.node_def]
  edges = [name for node in nodes for name in node.input]
  consumed = {name.lstrip('^').split(':')[0] for name in edges}
  operations = collections.Counter(node.op for node in [*nodes, *inside])
  variables = [node for node in nodes if node.op in graph_files.VARIABLES]
  return Summary(
      inputs=[node for node in nodes if node.op in _INPUTS],
      variables=variables,
      outputs=[node for node in nodes
               if node.name not in consumed and node.op not in _NO_OUTPUTS],
      const_parameters=sum(
          _size(node.attr['value'].tensor.tensor_shape)
          for node in [*nodes, *inside] if node.op == 'Const'),
      variable_parameters=sum(
          _size(node.attr['shape'].shape) for node in variables),
      control_edges=sum(name.startswith('^') for name in edges),
      operations=sorted(operations.items(),
                        key=lambda pair: (-pair[1], pair[0])))


def _size(shape):
  """Returns the number of values of a TensorShapeProto; unknown sizes are 0."""
  size = 1
  for dim in shape.dim:
    size *= max(dim.size, 0)
  return 0 if shape.unknown_rank else size


def human(number: float) -> str:
  """Returns a number as '23.85M'; unchanged below 1000."""
  if number < 1000:
    return '%d' % number
  for scale in _SCALES[:-1]:
    number /= 1000.0
    if number < 999.995:
      return '%.2f%s' % (number, scale)
  return '%.2f%s' % (number / 1000.0, _SCALES[-1])


def describe_nodes(nodes: Sequence[tf.NodeDef], what: str) -> str:
  """Returns the line that lists inputs or variables."""
  if not nodes:
    return 'No %s spotted.' % what
  return 'Found %d %s: %s' % (len(nodes), what, ' '.join(
      '(name=%s, type=%s, shape=%s)' % (node.name, _type(node), _shape(node))
      for node in nodes))


def _type(node):
  dtype = tf.as_dtype(node.attr['dtype'].type)
  # The names of the types in C++.
  name = {'float32': 'float', 'float64': 'double'}.get(dtype.name, dtype.name)
  return '%s(%d)' % (name, dtype.as_datatype_enum)


def _shape(node):
  if 'shape' not in node.attr:
    return 'None'
  if node.attr['shape'].shape.unknown_rank:
    return '<unknown>'
  sizes = [dim.size for dim in node.attr['shape'].shape.dim]
  return '[%s]' % ','.join('?' if size < 0 else '%d' % size for size in sizes)


def describe_outputs(nodes: Sequence[tf.NodeDef]) -> str:
  """Returns the line that lists outputs."""
  if not nodes:
    return 'No possible outputs spotted.'
  return 'Found %d possible outputs: %s' % (len(nodes), ' '.join(
      '(name=%s, op=%s)' % (node.name, node.op) for node in nodes))


def main(_: List[str]) -> None:
  """Prints the summary of the graph in --in_graph."""
  common_flags.require(FLAGS, 'in_graph')
  graph_def = graph_files.read_graph_def(FLAGS.in_graph, 'graph --in_graph')
  info = graph_info.read(graph_def)
  summary = summarize(graph_def)
  print(describe_nodes(summary.inputs, 'possible inputs'))
  print(describe_nodes(summary.variables, 'variables'))
  print(describe_outputs(summary.outputs))
  print('Found %s (%d) const parameters, %s (%d) variable parameters, and %d '
        'control_edges' % (
            human(summary.const_parameters), summary.const_parameters,
            human(summary.variable_parameters), summary.variable_parameters,
            summary.control_edges))
  print('Op types used: %s' % ', '.join(
      '%d %s' % (count, name) for name, count in summary.operations))
  if info:
    print('Network %s, %d x %d pixels, preprocessing %s, %d classes; '
          'input=%s (%s) predictions=%s' % (
              info.model_name, info.image_size, info.image_size,
              info.preprocessing_name, len(info.labels), info.input,
              info.input_kind, info.predictions))
  if FLAGS.print_structure:
    for node in graph_def.node:
      print('%s (%s): [%s]' % (node.name, node.op, ', '.join(node.input)))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
