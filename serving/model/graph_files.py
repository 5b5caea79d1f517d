"""Reads graphs from binary and text files, and refuses unsafe operations.

A graph is code: TensorFlow has operations that read and write files, start
Python functions or open connections, and running a graph runs them. Therefore
only the operations listed here are loaded from a file.
"""

import os
import re
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Sequence

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from common import files
from common.errors import InputError
from compat import tf

# Operations that create a variable.
VARIABLES = ('Variable', 'VariableV2', 'VarHandleOp')

# Operations that only compute on their input tensors: those of all networks and
# exports here, of slim's and TensorFlow's published graphs, and those that
# image classifiers usually have. They are listed by name because TensorFlow's
# own is_stateful flag does not tell them apart: ReadFile, MatchingFiles and
# ImmutableConst (it maps a file) are stateless, Assert and TensorArrayV3 are
# stateful; and a new release may add others.
OPERATIONS = frozenset('''
    Const Placeholder PlaceholderV2 PlaceholderWithDefault NoOp Identity
    IdentityN Snapshot StopGradient PreventGradient EnsureShape Assert
    CheckNumerics CheckNumericsV2

    Switch Merge Enter Exit NextIteration LoopCond ControlTrigger If StatelessIf
    Case StatelessCase While StatelessWhile PartitionedCall
    StatefulPartitionedCall

    TensorArrayV3 TensorArrayReadV3 TensorArrayWriteV3 TensorArrayGatherV3
    TensorArrayScatterV3 TensorArrayConcatV3 TensorArraySplitV3
    TensorArraySizeV3 TensorArrayCloseV3 EmptyTensorList TensorListReserve
    TensorListGetItem TensorListSetItem TensorListStack TensorListFromTensor
    TensorListGather TensorListScatterV2 TensorListConcatV2 TensorListLength
    TensorListResize TensorListPushBack TensorListPopBack
    TensorListElementShape

    Shape ShapeN Size Rank Reshape Squeeze ExpandDims Fill ZerosLike OnesLike
    Range LinSpace Pack Unpack Concat ConcatV2 ConcatOffset Split SplitV Slice
    StridedSlice Gather GatherV2 GatherNd ScatterNd TensorScatterAdd
    TensorScatterSub TensorScatterUpdate Tile Transpose ConjugateTranspose
    InvertPermutation Pad PadV2 MirrorPad Reverse ReverseV2 ReverseSequence Roll
    BroadcastTo BroadcastArgs Where Select SelectV2 OneHot Unique UniqueV2
    UniqueWithCounts DynamicPartition DynamicStitch ParallelDynamicStitch
    MatrixBandPart MatrixDiag MatrixDiagPart BatchToSpace BatchToSpaceND
    SpaceToBatch SpaceToBatchND SpaceToDepth DepthToSpace TopK TopKV2 ArgMax
    ArgMin Bitcast Cast SegmentSum SegmentMean SegmentMax UnsortedSegmentSum
    UnsortedSegmentMax Bucketize

    Abs Neg Sign Add AddV2 AddN AccumulateNV2 Sub Mul MulNoNan Div DivNoNan
    RealDiv FloorDiv TruncateDiv FloorMod Mod TruncateMod Inv Reciprocal Square
    SquaredDifference Sqrt Rsqrt Pow Exp Expm1 Log Log1p Xlogy Xdivy Sin Cos Tan
    Asin Acos Atan Atan2 Sinh Cosh Tanh Asinh Acosh Atanh Sigmoid Erf Erfc
    Lgamma Digamma Floor Ceil Round Rint Maximum Minimum ClipByValue Equal
    NotEqual ApproximateEqual Less LessEqual Greater GreaterEqual LogicalAnd
    LogicalOr LogicalNot BitwiseAnd BitwiseOr BitwiseXor LeftShift RightShift
    Invert IsNan IsInf IsFinite Sum Mean Max Min Prod All Any EuclideanNorm
    L2Loss Cumsum Cumprod CumulativeLogsumexp Bincount HistogramFixedWidth
    MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 SparseMatMul Einsum Cross

    BiasAdd BiasAddV1 Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2
    DepthwiseConv2dNative DepthwiseConv2dNativeBackpropInput Dilation2D
    FusedPadConv2D FusedResizeAndPadConv2D AvgPool AvgPool3D MaxPool MaxPoolV2
    MaxPool3D MaxPoolWithArgmax FractionalAvgPool FractionalMaxPool
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
    BatchNormWithGlobalNormalization LRN Relu Relu6 LeakyRelu Elu Selu Softplus
    Softsign Softmax LogSoftmax

    DecodeJpeg DecodeAndCropJpeg DecodePng DecodeGif DecodeBmp DecodeImage
    DecodeWebP ExtractJpegShape EncodeJpeg EncodePng ResizeBilinear
    ResizeBicubic ResizeArea ResizeNearestNeighbor ScaleAndTranslate
    CropAndResize ExtractGlimpse ExtractGlimpseV2 ExtractImagePatches
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 AdjustContrast
    AdjustContrastv2 AdjustHue AdjustSaturation RGBToHSV HSVToRGB
    NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3
    NonMaxSuppressionV4 NonMaxSuppressionV5 CombinedNonMaxSuppression

    AsString DecodeRaw DecodeBase64 EncodeBase64 StringJoin StringLength
    StringSplit StringSplitV2 StringToNumber Substr

    RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal
    RandomShuffle StatelessRandomUniform StatelessRandomNormal

    FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantize
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
    QuantizeV2 Dequantize QuantizeDownAndShrinkRange Requantize
    RequantizationRange QuantizedAdd QuantizedMul QuantizedMatMul
    QuantizedConv2D QuantizedDepthwiseConv2D QuantizedBiasAdd QuantizedRelu
    QuantizedRelu6 QuantizedReluX QuantizedAvgPool QuantizedMaxPool
    QuantizedConcat QuantizedReshape QuantizedResizeBilinear
    QuantizedBatchNormWithGlobalNormalization QuantizedInstanceNorm
'''.split())

# Maximum number of operations that an error lists with their nodes, and in the
# flag that would accept them, if their names look like TensorFlow's.
_MOST_NAMED, _MOST_IN_FLAG = 8, 50
_OP_NAME = re.compile('[A-Za-z][A-Za-z0-9_]*')


def read_graph_def(path: str, what: str) -> tf.GraphDef:
  """Reads a GraphDef.

  Args:
    path: file with a binary GraphDef, or one as text.
    what: description of the file for the user, as in 'graph --in_graph'.

  Raises:
    InputError: the file is missing or does not contain a graph.
  """
  data = files.read(path, what)
  graph_def = tf.GraphDef()
  try:
    graph_def.ParseFromString(data)
  except DecodeError:
    graph_def = _parse_text(data)
  if graph_def is None:
    raise InputError('%r is not a GraphDef, neither binary nor text' % path)
  if not graph_def.node:
    raise InputError('%r contains no graph' % path)
  return graph_def


def read_frozen(path: str, what: str, allowed_ops: Sequence[str] = ()
                ) -> tf.GraphDef:
  """Reads a frozen graph that is safe to run.

  Args:
    path: file with a binary GraphDef, or one as text.
    what: description of the file for the user.
    allowed_ops: names of operations that are accepted in addition to
      OPERATIONS.

  Raises:
    InputError: the file is missing, contains no graph, or contains variables or
      operations that may do more than compute.
  """
  graph_def = read_graph_def(path, what)
  variables = [node.name for node in graph_def.node if node.op in VARIABLES]
  if variables:
    raise InputError('%r is not frozen: it contains variables, such as %s; '
                     'export_inference_graph.py --frozen_file writes a frozen '
                     'graph' % (path, variables[0]))
  _check_operations(graph_def, path, OPERATIONS.union(allowed_ops))
  return graph_def


def frozen_reader(path: str, allowed_ops: Sequence[str] = ()
                  ) -> Callable[[], tf.GraphDef]:
  """Returns a function that reads the same frozen graph again later.

  Args:
    path: as for `read_frozen`.
    allowed_ops: as for `read_frozen`.

  Returns:
    Function without arguments; raises an InputError if the file has changed.
  """
  before = _signature(path)

  def read():
    if _signature(path) != before:
      raise InputError('%r has changed since it was loaded' % path)
    return read_frozen(path, 'frozen graph', allowed_ops)
  return read


def _signature(path):
  """Returns what changes when a file is replaced; None: it cannot be read."""
  try:
    status = os.stat(path)
  except OSError:
    return None
  return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_operations(graph_def: tf.GraphDef, path: str,
                      accepted: FrozenSet[str]) -> None:
  """Raises InputError if a graph or its functions have other operations."""
  bodies = [('', graph_def.node)] + [
      (' of function %r' % function.signature.name, function.node_def)
      for function in graph_def.library.function]
  refused: Dict[str, str] = {}
  for place, nodes in bodies:
    for node in nodes:
      if node.op not in accepted:
        refused.setdefault(node.op, 'node %r%s' % (node.name, place))
  if not refused:
    return
  # The author of the graph may have chosen names with control characters.
  names = {op: op.encode('unicode_escape').decode('ascii') for op in refused}
  listed = ['%s (%s)' % (names[op], refused[op])
            for op in sorted(refused)[:_MOST_NAMED]]
  if len(refused) > _MOST_NAMED:
    listed.append('%d others' % (len(refused) - _MOST_NAMED))
  reason = (
      '%r is not loaded: it has operations that may do more than compute, such '
      'as read and write files: %s' % (path, ', '.join(listed)))
  # Only names that are safe in a shell are suggested: they are untrusted.
  if len(refused) <= _MOST_IN_FLAG and all(map(_OP_NAME.fullmatch, refused)):
    reason += '; if you trust its origin, give --allowed_ops=%s' % ','.join(
        sorted(refused))
  raise InputError(reason)


def import_into_default(graph_def: tf.GraphDef,
                        input_map: Optional[Mapping[str, Any]] = None) -> None:
  """Imports a graph into the default graph, with its names unchanged.

  Args:
    graph_def: GraphDef.
    input_map: {name of a tensor in it: tensor that replaces it}.

  Raises:
    InputError: this TensorFlow does not have one of its operations.
  """
  try:
    tf.import_graph_def(graph_def, input_map, name='')
  except (ValueError, tf.errors.NotFoundError) as error:
    raise InputError('TensorFlow %s cannot load the graph: %s' %
                     (tf.__version__, str(error).split('\n')[0]))


def _parse_text(data):
  """Returns the GraphDef in `data`, None if it does not contain one."""
  graph_def = tf.GraphDef()
  try:
    text_format.Parse(data.decode('utf-8'), graph_def)
  except (UnicodeDecodeError, text_format.ParseError):
    return None
  return graph_def
