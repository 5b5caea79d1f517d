"""Metadata for using an inference graph, stored in the graph itself.

A string constant `classifier/info` contains one JSON object. It is not
connected to any other node: programs that do not know it can run the graph as
before.
"""

import collections
import json

from common.errors import InputError
from compat import tf

NODE = 'classifier/info'
FORMAT = 1
INPUT_KINDS = ('float', 'encoded')

_FIELDS = collections.OrderedDict([
    ('format', int),               # FORMAT
    ('model_name', str),           # key of nets_factory
    ('labels', list),              # names by output index
    ('labels_offset', int),        # data set's label - offset = output index
    ('image_size', int),           # height and width, in pixels
    ('channels', int),             # 3, or 1 for networks on grey images
    ('preprocessing_name', str),   # key of preprocessing_factory
    ('input', str),                # tensor names from here
    ('input_kind', str),           # one of INPUT_KINDS
    ('logits', str),
    ('predictions', str),
    ('features', str),             # input of the classifier layer
    ('checkpoint', str),           # source of the weights; None: no weights
    # softmax(logits / temperature); both None in a graph without it, and in all
    # graphs from before it was added.
    ('calibrated_predictions', str),
    ('temperature', float),
    # For a graph with out-of-distribution detection (ood/graph_nodes.py), else
    # None: the tensors; the lowest score of a known photo, and the number of
    # validation photos that it was set with.
    ('similarity', str),
    ('known_score', str),
    ('known', str),
    ('cosines', str),
    ('bank_filenames', str),
    ('bank_labels', str),
    ('threshold', float),
    ('threshold_photos', int),
    # Of the checkpoint; None in a graph without weights, and in older graphs.
    ('global_step', int),
])
# The information about a graph made elsewhere, which has no such constant, may
# also lack: model_name, logits and features (serving/model/foreign.py).
_OF_KNOWN = ('similarity', 'known_score', 'known', 'cosines', 'bank_filenames',
             'bank_labels', 'threshold', 'threshold_photos')
_WITH_DEFAULT = (('calibrated_predictions', 'temperature') + _OF_KNOWN +
                 ('global_step',))
_OPTIONAL = ('checkpoint',) + _WITH_DEFAULT

GraphInfo = collections.namedtuple(
    'GraphInfo', list(_FIELDS), defaults=(None,) * len(_WITH_DEFAULT))


def attach(graph_def, info):
  """Stores `info` in `graph_def`, replacing an existing one.

  Args:
    graph_def: GraphDef, changed in place.
    info: GraphInfo.
  """
  kept = [node for node in graph_def.node if node.name != NODE]
  if len(kept) != len(graph_def.node):
    del graph_def.node[:]
    graph_def.node.extend(kept)
  node = graph_def.node.add(name=NODE, op='Const')
  node.attr['dtype'].type = tf.string.as_datatype_enum
  node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(to_json(info)))


def read(graph_def):
  """Returns the GraphInfo in `graph_def`; None if it has none.

  Raises:
    InputError: it has one that this version cannot read.
  """
  for node in graph_def.node:
    if node.name == NODE and node.op == 'Const':
      values = node.attr['value'].tensor.string_val
      return _parse(values[0] if values else b'')
  return None


def to_json(info):
  """Returns a GraphInfo as JSON bytes."""
  return json.dumps(info._asdict(), ensure_ascii=False).encode('utf-8')


def read_file(path):
  """Returns the GraphInfo in a file of `to_json`; None: missing or damaged."""
  try:
    with open(path, 'rb') as file:
      return _parse(file.read())
  except (OSError, InputError):
    return None


def _parse(text):
  try:
    fields = json.loads(text.decode('utf-8'))
    version = fields['format']
  except (KeyError, TypeError, ValueError):
    raise InputError('%s in the graph is damaged' % NODE)
  if version != FORMAT:
    raise InputError('%s in the graph has format %r, this version reads %d: '
                     'export the graph again' % (NODE, version, FORMAT))
  for name, kind in _FIELDS.items():
    value = fields.get(name)
    if not isinstance(value, kind) and not (value is None and
                                            name in _OPTIONAL):
      raise InputError('%s in the graph: %s is %r, accepted: %s' %
                       (NODE, name, value, kind.__name__))
  if fields['input_kind'] not in INPUT_KINDS:
    raise InputError('%s in the graph: input_kind is %r, accepted: %s' %
                     (NODE, fields['input_kind'], ', '.join(INPUT_KINDS)))
  return GraphInfo(**{name: fields.get(name) for name in _FIELDS})
