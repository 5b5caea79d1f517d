"""Metadata for using an inference graph, stored in the graph itself.

A string constant `classifier/info` contains one JSON object. It is not
connected to any other node: programs that do not know it can run the graph as
before.
"""

import json
from typing import List, NamedTuple, Optional

from common.errors import InputError
from compat import tf

NODE = 'classifier/info'
FORMAT = 1
INPUT_KINDS = ('float', 'encoded')

# How the result of `to_json` begins.
_START = b'{"format": '


class GraphInfo(NamedTuple):
  """How to use a graph.

  For a foreign graph, which has no such constant, `labels` may be empty, and
  model_name, logits, features and checkpoint may be None (foreign_graphs.py).
  """

  # FORMAT.
  format: int
  # Key of nets_factory.
  model_name: Optional[str]
  # Names by output index.
  labels: List[str]
  # The data set's label minus this is the output index.
  labels_offset: int
  # Height and width in pixels.
  image_size: int
  # 3, or 1 for networks on grey images.
  channels: int
  # Key of preprocessing_factory.
  preprocessing_name: str
  # Name of the tensor that takes the photos.
  input: str
  # One of INPUT_KINDS.
  input_kind: str
  # Name of the tensor of the logits.
  logits: Optional[str]
  # Name of the tensor of the class scores.
  predictions: str
  # Name of the tensor that feeds the classifier layer.
  features: Optional[str]
  # Source of the weights; None: the graph has no weights.
  checkpoint: Optional[str]
  # Name of the tensor softmax(logits / temperature). All fields from here on
  # are None in a graph without them, such as one of an older version.
  calibrated_predictions: Optional[str] = None
  # Of the temperature scaling.
  temperature: Optional[float] = None
  # Names of the tensors of out-of-distribution detection (ood/graph_nodes.py):
  # the similarity to the training photos,
  similarity: Optional[str] = None
  # the score that is compared with `threshold`,
  known_score: Optional[str] = None
  # whether the photo is in-distribution,
  known: Optional[str] = None
  # the cosine similarities to the photos of the reference bank,
  cosines: Optional[str] = None
  # their file names,
  bank_filenames: Optional[str] = None
  # and their labels.
  bank_labels: Optional[str] = None
  # The lowest score of an in-distribution photo.
  threshold: Optional[float] = None
  # Number of validation photos that the threshold was set with.
  threshold_photos: Optional[int] = None
  # Of the checkpoint.
  global_step: Optional[int] = None
  # With which the run computed its features, as in forward_pass; None: with
  # float32. The weights in the graph are float32.
  precision: Optional[str] = None


# Types of the JSON values that may not be null.
_REQUIRED = dict(
    format=int, model_name=str, labels=list, labels_offset=int, image_size=int,
    channels=int, preprocessing_name=str, input=str, input_kind=str, logits=str,
    predictions=str, features=str)
_OPTIONAL = dict(
    {name: str for name in GraphInfo._fields if name not in _REQUIRED},
    temperature=float, threshold=float, threshold_photos=int, global_step=int)


def attach(graph_def: tf.GraphDef, info: GraphInfo) -> None:
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


def read(graph_def: tf.GraphDef) -> Optional[GraphInfo]:
  """Returns the GraphInfo in `graph_def`; None if it has none.

  Raises:
    InputError: it has one that this version cannot read.
  """
  for node in graph_def.node:
    if node.name == NODE and node.op == 'Const':
      values = node.attr['value'].tensor.string_val
      return _parse(values[0] if values else b'')
  return None


def require(graph_def: tf.GraphDef) -> GraphInfo:
  """Returns the GraphInfo in `graph_def`.

  Raises:
    InputError: it has none, or one that this version cannot read.
  """
  info = read(graph_def)
  if info is None:
    raise InputError('the frozen graph has no %s: ./export_freeze.sh writes '
                     'one that has' % NODE)
  return info


def check_calibrated(info: GraphInfo) -> None:
  """Raises InputError if a graph has no calibrated scores."""
  if not info.calibrated_predictions:
    raise InputError('--calibrated: the graph has no calibrated scores; '
                     './report.sh fits a temperature, and ./export_freeze.sh '
                     'then puts it into the graph')


def to_json(info: GraphInfo) -> bytes:
  """Returns a GraphInfo as JSON bytes."""
  return json.dumps(info._asdict(), ensure_ascii=False).encode('utf-8')


def read_file(path: str) -> Optional[GraphInfo]:
  """Returns the GraphInfo at the end of a file; None: missing or damaged.

  Args:
    path: file of `to_json`; or an ONNX model, whose metadata are at its end.
  """
  try:
    with open(path, 'rb') as file:
      content = file.read()
    return _parse(content[max(content.rfind(_START), 0):])
  except (OSError, InputError):
    return None


def _parse(text: bytes) -> GraphInfo:
  try:
    fields = json.loads(text.decode('utf-8'))
    version = fields['format']
  except (KeyError, TypeError, ValueError):
    raise InputError('%s in the graph is damaged' % NODE)
  if version != FORMAT:
    raise InputError('%s in the graph has format %r, this version reads %d: '
                     'export the graph again' % (NODE, version, FORMAT))
  for name in GraphInfo._fields:
    value, kind = fields.get(name), _REQUIRED.get(name) or _OPTIONAL[name]
    if not isinstance(value, kind) and not (value is None and
                                            name in _OPTIONAL):
      raise InputError('%s in the graph: %s is %r, accepted: %s' %
                       (NODE, name, value, kind.__name__))
  if fields['input_kind'] not in INPUT_KINDS:
    raise InputError('%s in the graph: input_kind is %r, accepted: %s' %
                     (NODE, fields['input_kind'], ', '.join(INPUT_KINDS)))
  return GraphInfo(**{name: fields.get(name) for name in GraphInfo._fields})
