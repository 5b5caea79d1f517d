"""Builds the graph that classifies, and freezes it with a checkpoint's weights.

  with tf.Graph().as_default():
    info = inference_graph.build('inception_v4', labels, input_kind='encoded')
    graph_def = inference_graph.freeze(info, '/tmp/train_dir')

The node `input` takes either slim's `[batch, size, size, channels]` float32
(the output of preprocessing) or encoded photos: one as a scalar string, or a
vector of them. In both cases a GraphInfo in the graph describes how to use it.
"""

import os
from typing import Any, Dict, Optional, Sequence

from common import checkpoint_files
from common.errors import InputError
from compat import tf
from datasets import input_pipeline
from nets import layers_head, nets_factory
from ood import graph_nodes
from preprocessing import preprocessing_factory
from runs import checkpoints
from serving.model import graph_info

# Number of photos of a vector that are decoded in parallel. Decoding is a small
# part of the work; a larger number would keep more decoded photos in memory.
_PARALLEL_DECODING = 4

# The node with the scores after temperature scaling.
CALIBRATED = 'CalibratedPredictions'


def build(model_name: str, labels: Sequence[str],
          image_size: Optional[int] = None,
          preprocessing_name: Optional[str] = None, input_kind: str = 'float',
          batch_size: Optional[int] = None, is_training: bool = False,
          labels_offset: int = 0, temperature: Optional[float] = None,
          bank: Any = None, precision: Optional[str] = None,
          head: Optional[layers_head.Head] = None, use_grayscale: bool = False,
          quantize: bool = False) -> graph_info.GraphInfo:
  """Builds a network from its node `input` to its class scores.

  Args:
    model_name: key of nets_factory.
    labels: names by output index; their number is the number of classes.
    image_size: height and width in pixels; None uses the network's own.
    preprocessing_name: key of preprocessing_factory; None: the network's.
    input_kind: 'float' or 'encoded', see above.
    batch_size: photos per batch; None leaves it undefined.
    is_training: whether dropout and batch norm are in training mode.
    labels_offset: number subtracted from the data set's labels; only stored.
    temperature: float > 0; adds the node CalibratedPredictions, softmax(logits
      / temperature), in addition to the network's own. None: without it.
    bank: reference_bank.Bank; adds the nodes of ood.graph_nodes. None: without
      them.
    precision: of the run's forward passes; only stored.
    head: the Head of the run; None: the network's own classifier.
    use_grayscale: whether photos are converted to grey.
    quantize: whether the graph simulates 8-bit arithmetic.

  Returns:
    GraphInfo with `checkpoint` None. Nodes are in the default graph and keep
    slim's names.

  Raises:
    InputError: input_kind or labels are invalid.
    ValueError: unknown network or preprocessing.
  """
  if input_kind not in graph_info.INPUT_KINDS:
    raise InputError('unknown kind of input %r; known: %s' %
                     (input_kind, ', '.join(graph_info.INPUT_KINDS)))
  if not labels:
    raise InputError('a network needs at least one label, got none')
  row = nets_factory.get_network(model_name, use_grayscale)
  size = image_size or row.image_size
  preprocessing_name = preprocessing_name or row.preprocessing
  if input_kind == 'float':
    inputs = images = tf.placeholder(
        tf.float32, [batch_size, size, size, row.channels], name='input')
  else:
    inputs = tf.placeholder(tf.string, name='input')
    images = photos_to_images(inputs, preprocessing_name, size, row.channels,
                              batch_size)
  network_fn = nets_factory.get_network_fn(
      model_name, num_classes=len(labels), is_training=is_training,
      head=head, quantize=quantize)
  logits, end_points = network_fn(images)
  predictions = nets_factory.get_predictions(logits, end_points)
  calibrated = None
  if temperature is not None:
    calibrated = tf.nn.softmax(logits / temperature, name=CALIBRATED).name
  ood_fields: Dict[str, Any] = {}
  if bank is not None:
    ood_fields = graph_nodes.add_nodes(
        nets_factory.get_features(model_name, end_points), logits, bank)
  return graph_info.GraphInfo(
      format=graph_info.FORMAT, model_name=model_name, labels=list(labels),
      labels_offset=labels_offset, image_size=size, channels=row.channels,
      preprocessing_name=preprocessing_name, input=inputs.name,
      input_kind=input_kind, logits=logits.name, predictions=predictions.name,
      features=nets_factory.get_head_input(model_name, end_points).name,
      checkpoint=None,
      calibrated_predictions=calibrated, temperature=temperature,
      precision=precision, **ood_fields)


def photos_to_images(encoded: tf.Tensor, preprocessing_name: str, size: int,
                     channels: int, batch_size: Optional[int] = None
                     ) -> tf.Tensor:
  """Decodes and preprocesses photos as evaluation does.

  Args:
    encoded: string tensor, scalar or vector: JPEG or PNG files.
    preprocessing_name: key of preprocessing_factory.
    size: height and width of the result, in pixels.
    channels: 3, or 1 for grey images.
    batch_size: number of photos; None leaves it undefined.

  Returns:
    `[batch, size, size, channels]` float32.
  """
  preprocessing_fn = preprocessing_factory.get_preprocessing(
      preprocessing_name, is_training=False)

  def to_image(photo):
    return input_pipeline.photo_to_input(photo, preprocessing_fn, size, size,
                                         channels)

  with tf.name_scope('photos_to_images'):
    images = tf.map_fn(
        to_image, tf.reshape(encoded, [batch_size or -1]), dtype=tf.float32,
        parallel_iterations=_PARALLEL_DECODING, back_prop=False)
  images.set_shape([batch_size, size, size, channels])
  return images


def to_graph_def(info: graph_info.GraphInfo) -> tf.GraphDef:
  """Returns the default graph, without weights, as a GraphDef with `info`."""
  graph_def = _without_default_attributes(
      tf.get_default_graph().as_graph_def())
  graph_info.attach(graph_def, info)
  return graph_def


def _without_default_attributes(graph_def):
  """Removes attributes that have their default value.

  New releases add attributes to operations. A release refuses a node with an
  attribute that it does not know, even if it has its default value.
  """
  exported = tf.train.export_meta_graph(
      graph_def=graph_def, graph=tf.Graph(), strip_default_attrs=True)
  return exported.graph_def


def freeze(info: graph_info.GraphInfo, checkpoint_path: str,
           moving_average_decay: Optional[float] = None) -> tf.GraphDef:
  """Puts a checkpoint's weights into the default graph, as constants.

  Args:
    info: GraphInfo, as `build` returned it in the default graph.
    checkpoint_path: train directory or checkpoint.
    moving_average_decay: float; uses the moving averages kept by training.
      None uses the variables themselves.

  Returns:
    GraphDef with the logits, predictions, features and other outputs named in
    `info`, and all nodes that they need, and with `info`, which then names the
    checkpoint.

  Raises:
    InputError: there is no checkpoint, it cannot be read, or its variables do
      not match.
  """
  prefix = checkpoints.resolve(checkpoint_path)
  mapping = checkpoints.with_plain_names(
      prefix, checkpoints.variables_to_restore(moving_average_decay))
  check_fits(prefix, mapping, info, moving_average_decay)
  outputs = [name.split(':')[0]
             for name in (info.logits, info.predictions, info.features,
                          info.calibrated_predictions, info.similarity,
                          info.known_score, info.known, info.cosines,
                          info.bank_filenames, info.bank_labels) if name]
  graph = tf.get_default_graph()
  with tf.Session(graph=graph) as session:
    checkpoints.restore(tf.train.Saver(mapping), session, prefix)
    graph_def = _without_default_attributes(
        tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), sorted(set(outputs))))
  step = checkpoints.read_global_step(prefix)
  graph_info.attach(graph_def, info._replace(
      checkpoint=os.path.basename(prefix),
      global_step=None if step < 0 else step))
  return graph_def


def check_fits(prefix: str, mapping: Dict[str, Any],
               info: graph_info.GraphInfo,
               moving_average_decay: Optional[float] = None) -> None:
  """Raises InputError if a checkpoint does not match the graph.

  Args:
    prefix: checkpoint, as runs.checkpoints.resolve returns it.
    mapping: {name in the checkpoint: variable}.
    info: GraphInfo of the graph.
    moving_average_decay: as for `freeze`.
  """
  classes = num_classes(prefix, info.model_name or '')
  if classes is not None and classes != len(info.labels):
    raise InputError(
        '%s was trained for %d classes, the labels name %d: --dataset_name, '
        '--labels_offset or --label_file must name the classes it was trained '
        'for' % (prefix, classes, len(info.labels)))
  advice = ('it must come from the network %r: change --model_name or '
            '--checkpoint_path' % info.model_name)
  if moving_average_decay:
    advice += ', or omit --moving_average_decay if training had none'
  checkpoints.check_fits(prefix, mapping, advice)


def num_classes(prefix: str, model_name: str) -> Optional[int]:
  """Reads the number of outputs of a network from a checkpoint.

  Args:
    prefix: checkpoint, as runs.checkpoints.resolve returns it.
    model_name: key of nets_factory.

  Returns:
    The last dimension of the classifier layer; None if the checkpoint has no
    such layer, or if its variables disagree.
  """
  scope = nets_factory.get_network(model_name).classifier_scopes[0]
  shapes = checkpoint_files.open_reader(prefix).get_variable_to_shape_map()
  sizes = {shape[-1] for name, shape in shapes.items()
           if name.startswith(scope + '/') and shape
           and name.split('/')[-1] in ('weights', 'biases', 'kernel', 'bias')}
  return sizes.pop() if len(sizes) == 1 else None
