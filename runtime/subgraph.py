"""Extracts the part of a graph between some tensors."""

from typing import Any, List, Sequence, Set

from compat import tf

_OUTPUT = 'forward_output_%d'


def extract(graph_def: tf.GraphDef, inputs: Sequence[tf.Tensor],
            outputs: Sequence[tf.Tensor]) -> tf.GraphDef:
  """Returns the nodes that compute some tensors from others.

  Args:
    graph_def: GraphDef that contains all these tensors.
    inputs: tensors that become placeholders: the only output, or the first, of
      their operations.
    outputs: tensors to compute. Each becomes the input of an identity node,
      since OpenVINO returns tensors that no other node reads.

  Returns:
    GraphDef. Inputs keep their names; the outputs are `output_names(outputs)`.
  """
  nodes = {node.name: node for node in graph_def.node}
  placeholders = {tensor.op.name: tensor for tensor in inputs}
  extracted = tf.GraphDef(versions=graph_def.versions,
                          library=graph_def.library)
  pending = [tensor.op.name for tensor in [*inputs, *outputs]]
  seen: Set[str] = set()
  while pending:
    name = pending.pop()
    if name in seen:
      continue
    seen.add(name)
    node = extracted.node.add()
    if name in placeholders:
      _make_placeholder(node, placeholders[name])
    else:
      node.CopyFrom(nodes[name])
      pending += [_node_name(source) for source in node.input]
  for name, tensor in zip(output_names(outputs), outputs):
    node = extracted.node.add(name=name, op='Identity', input=[tensor.name])
    node.attr['T'].type = tensor.dtype.base_dtype.as_datatype_enum
  return extracted


def output_names(outputs: Sequence[Any]) -> List[str]:
  """Returns the names of the nodes that `extract` adds for its outputs."""
  return [_OUTPUT % index for index in range(len(outputs))]


def freeze(session: tf.Session, inputs: Sequence[tf.Tensor],
           outputs: Sequence[tf.Tensor]) -> tf.GraphDef:
  """Returns what `extract` returns, with the session's variables as constants.

  Args:
    session: a session whose variables have their values.
    inputs, outputs: as for `extract`.
  """
  part = extract(session.graph.as_graph_def(), inputs, outputs)
  verbosity = tf.logging.get_verbosity()
  tf.logging.set_verbosity(tf.logging.WARN)  # It logs how many it converted.
  try:
    return tf.graph_util.convert_variables_to_constants(
        session, part, output_names(outputs))
  finally:
    tf.logging.set_verbosity(verbosity)


def _make_placeholder(node, tensor):
  node.name, node.op = tensor.op.name, 'Placeholder'
  node.attr['dtype'].type = tensor.dtype.base_dtype.as_datatype_enum
  node.attr['shape'].shape.CopyFrom(tensor.shape.as_proto())


def _node_name(source):
  """Returns the name of the node in an entry of NodeDef.input."""
  return source.lstrip('^').split(':')[0]
