"""Infers the metadata of foreign graphs: frozen graphs exported elsewhere.

slim's own export and the 2017 scripts store no metadata in the graph. Its input
and its class scores are recognized by their operations, and its network by its
scope.
"""

from typing import Optional, Sequence

from common.errors import InputError
from compat import tf
from nets import nets_factory
from serving.model import graph_info

# Operations that pass class scores through without changing their values.
_PASSING = ('Identity', 'Reshape', 'Squeeze')


def infer_info(graph_def: tf.GraphDef, labels: Sequence[str] = (),
               model_name: Optional[str] = None,
               image_size: Optional[int] = None,
               preprocessing_name: Optional[str] = None
               ) -> graph_info.GraphInfo:
  """Infers the metadata of a frozen graph that has none.

  Args:
    graph_def: frozen GraphDef.
    labels: names by output index; empty: unknown.
    model_name: key of nets_factory; None detects it by the graph's scopes.
    image_size: height and width in pixels; None uses that of the graph, or
      else the default size of the network.
    preprocessing_name: key of preprocessing_factory; None: the network's own.

  Returns:
    GraphInfo, with None for all unknown properties.

  Raises:
    InputError: no input or class scores are found, or several, or the
      preprocessing cannot be determined.
  """
  placeholder = _find_input(graph_def)
  height, width, channels = _image_shape(placeholder)
  if height != width:
    raise InputError('the input %s takes images of %s x %s, accepted: square '
                     'images' % (placeholder.name, height, width))
  row = _find_network(graph_def, model_name)
  size = height or image_size or (row and row.image_size)
  if image_size and image_size != size:
    raise InputError('--image_size=%d: the graph takes images of %d x %d' %
                     (image_size, size, size))
  preprocessing_name = preprocessing_name or (row and row.preprocessing)
  if not size or not preprocessing_name:
    raise InputError('the preprocessing of the graph is unknown: give '
                     '--preprocessing_name and --image_size')
  return graph_info.GraphInfo(
      format=graph_info.FORMAT, model_name=model_name, labels=list(labels),
      labels_offset=0, image_size=size, channels=channels,
      preprocessing_name=preprocessing_name, input=placeholder.name + ':0',
      input_kind='float', logits=None,
      predictions=_find_predictions(graph_def) + ':0', features=None,
      checkpoint=None)


def _find_input(graph_def):
  """Returns the placeholder `input`, or else the only placeholder."""
  placeholders = [node for node in graph_def.node if node.op == 'Placeholder']
  named = [node for node in placeholders if node.name == 'input']
  if not named and len(placeholders) != 1:
    raise InputError('the graph has no placeholder `input`; its placeholders: '
                     '%s' % (_names(placeholders) or 'none'))
  node = (named or placeholders)[0]
  dtype = tf.as_dtype(node.attr['dtype'].type)
  if dtype != tf.float32:
    raise InputError('the input %s takes %s; accepted without classifier/info '
                     'in the graph: float32 images' % (node.name, dtype.name))
  return node


def _image_shape(placeholder):
  """Returns height, width (None if undefined) and channels of an input."""
  shape = placeholder.attr['shape'].shape
  sizes = [dim.size if dim.size > 0 else None for dim in shape.dim]
  if shape.unknown_rank or len(sizes) not in (0, 4):
    sizes = [None] * 4 if shape.unknown_rank else sizes
  if not sizes:
    sizes = [None] * 4
  if len(sizes) != 4:
    raise InputError('the input %s has shape %s, accepted: [batch, height, '
                     'width, channels]' % (placeholder.name, sizes))
  return sizes[1], sizes[2], sizes[3] or 3


def _find_network(graph_def, model_name):
  """Returns the network's row, or None.

  Without a name, the network is detected by its scope. Each of slim's networks
  has its own, except that all widths of MobileNet share one; they also share
  all fields of the row that are used here. Returns None if the result is not
  unique.
  """
  if model_name:
    return nets_factory.get_network(model_name)
  scopes = {node.name.split('/')[0] for node in graph_def.node}
  rows = [row for row in nets_factory.NETWORKS.values()
          if row.classifier_scopes[0].split('/')[0] in scopes]
  kinds = {(row.preprocessing, row.image_size) for row in rows}
  return rows[0] if len(kinds) == 1 else None


def _find_predictions(graph_def):
  """Returns the name of the class scores: a softmax or an op after it."""
  consumers = {}
  for node in graph_def.node:
    for name in node.input:
      consumers.setdefault(name.lstrip('^').split(':')[0], []).append(node)
  ends = [node for node in graph_def.node
          if not consumers.get(node.name) and _is_softmax(node, graph_def)]
  if len(ends) != 1:
    raise InputError('the graph must end in one softmax, found: %s' %
                     (_names(ends) or 'none'))
  return ends[0].name


def _is_softmax(node, graph_def):
  nodes = {other.name: other for other in graph_def.node}
  while node.op in _PASSING:
    node = nodes[node.input[0].split(':')[0]]
  return node.op == 'Softmax'


def _names(nodes):
  return ', '.join(sorted(node.name for node in nodes))
