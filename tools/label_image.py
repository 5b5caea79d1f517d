r"""Labels one photo with a frozen graph, with the flags of TensorFlow's sample.

  python -m tools.label_image --image=flower.jpg \
    --graph=my_inception_v4_freeze.pb
  python -m tools.label_image --image=flower.jpg \
    --graph=frozen_inception_v3.pb \
    --labels=imagenet_slim_labels.txt --input_layer=input \
    --output_layer=InceptionV3/Predictions/Reshape_1 \
    --input_mean=127.5 --input_std=127.5

A graph exported here needs the first two flags only: it contains a description
of its input, and the photo is prepared as in evaluation. If --input_mean,
--input_std, --input_width or --input_height is given, the photo is prepared as
in the sample: the whole photo resized to the input, then (pixel - mean) / std.
This is always so for graphs made elsewhere, with the sample's defaults: 299
pixels, mean 0, std 255. (slim's Inception networks were trained with 127.5 for
both.)
"""

import contextlib
from typing import Any, Dict, List, Optional

import numpy as np
from absl import flags

from common import files, label_files
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from datasets import imagenet_names
from datasets.photo_files import photos
from runtime import forward_pass
from serving.model import (
  graph_files,
  graph_info,
  inference_graph,
  staged_graph,
)

FLAGS = flags.FLAGS

# Defaults of the sample, for a graph without metadata.
_INPUT_LAYER = 'input'
_OUTPUT_LAYER = 'InceptionV3/Predictions/Reshape_1'
_MEAN, _STD, _SIDE = 0.0, 255.0, 299
_PREPARING = ('input_mean', 'input_std', 'input_width', 'input_height')


def define_flags() -> None:
  """Defines the flags of TensorFlow's sample of that name."""
  flags.DEFINE_string('image', None, 'Photo to label.')
  flags.DEFINE_string(
      'graph', None, 'Frozen graph: export_inference_graph.py writes one.')
  common_flags.define_allowed_ops_flag()
  flags.DEFINE_string(
      'labels', None,
      'Label file, one line per class, plain or as 0:daisy. None: the labels '
      'in the graph, or those of ImageNet if it has 1000 or 1001 classes.')
  flags.DEFINE_string(
      'input_layer', None,
      'Input node for the photo. None: from the graph, or %s.' %
      _INPUT_LAYER)
  flags.DEFINE_string(
      'output_layer', None,
      'Node with the class scores. None: from the graph, or %s.' %
      _OUTPUT_LAYER)
  flags.DEFINE_float(
      'input_mean', None,
      'Subtracted from each pixel, 0 to 255. None: from the graph, or 0.')
  flags.DEFINE_float(
      'input_std', None,
      'Divides each pixel after that. None: from the graph, or 255.')
  for side in ('width', 'height'):
    flags.DEFINE_integer(
        'input_' + side, None,
        'The photo is resized to this %s in pixels. None: from the graph, or '
        '%d.' % (side, _SIDE), lower_bound=1)
  flags.DEFINE_integer(
      'num_top_predictions', 5, 'Classes to print, highest score first.',
      lower_bound=1)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def prepare(encoded: bytes, info: Optional[graph_info.GraphInfo],
            given: Dict[str, Any],
            shape: Optional[List[Optional[int]]]) -> np.ndarray:
  """Returns the image for the graph's input.

  Args:
    encoded: bytes of an upright RGB JPEG.
    info: GraphInfo of the graph, or None.
    given: {name of a flag in _PREPARING: its value}, only those given.
    shape: `[batch, height, width, channels]` of the graph's input, None where
      undefined; or None if the graph has no shape for it.

  Returns:
    `[1, height, width, channels]` float32.

  Raises:
    InputError: the flags do not match the graph's input.
  """
  _, height, width, channels = shape or [None] * 4
  with tf.Graph().as_default(), tf.Session() as session:
    if info and not given:
      images = inference_graph.photos_to_images(
          tf.constant([encoded]), info.preprocessing_name, info.image_size,
          info.channels)
    else:
      size = [given.get('input_height', height or _SIDE),
              given.get('input_width', width or _SIDE)]
      for name, asked, taken in (('input_height', size[0], height),
                                 ('input_width', size[1], width)):
        if taken is not None and taken != asked:
          raise InputError('--%s=%d: the graph takes %d pixels' %
                           (name, asked, taken))
      pixels = tf.cast(tf.io.decode_jpeg(encoded, channels or 3), tf.float32)
      images = tf.image.resize_bilinear(pixels[None], size)
      images = ((images - given.get('input_mean', _MEAN)) /
                given.get('input_std', _STD))
    return session.run(images)


def score(graph_def: tf.GraphDef, info: Optional[graph_info.GraphInfo],
          photo: photos.Photo, given: Dict[str, Any]) -> np.ndarray:
  """Returns the graph's scores for a photo, `[num_classes]` float32.

  Args:
    graph_def: frozen GraphDef.
    info: its GraphInfo, or None.
    photo: photos.Photo.
    given: {name of a flag in _PREPARING: its value}, only those given.

  Raises:
    InputError: a layer is not in the graph, or has a wrong type or shape.
  """
  graph = tf.Graph()
  with graph.as_default():
    graph_files.import_into_default(graph_def)
  inputs = _tensor(graph, 'input_layer', info and info.input, _INPUT_LAYER)
  outputs = _tensor(graph, 'output_layer', info and info.predictions,
                    _OUTPUT_LAYER)
  value = _value_for(inputs, info, photo, given)
  try:
    if info and inputs.name == info.input:
      scores = _staged_scores(graph_def, info, outputs, value)
    else:
      scores = _plain_scores(graph_def, inputs, outputs, value)
  except InputError:
    raise
  except (tf.errors.InvalidArgumentError, ValueError) as error:
    raise InputError('--graph=%s cannot be run: %s' %
                     (FLAGS.graph, str(error).split('\n')[0]))
  scores = np.squeeze(scores[:1])
  if scores.ndim != 1:
    raise InputError('--output_layer=%s gives values of shape %s; accepted: '
                     'one value per class' %
                     (outputs.op.name, list(scores.shape)))
  return scores


def _staged_scores(graph_def, info, outputs, value):
  """Returns the scores of a graph exported here; see _plain_scores."""
  with contextlib.closing(staged_graph.StagedGraph(
      graph_def, info, {'scores': outputs.name}, 'scores',
      _options())) as graph:
    tf.logging.info('Forward passes: %s', graph.choice.describe())
    images = (graph.images_of(value) if info.input_kind == 'encoded' else value)
    return graph.outputs_of(images)['scores']


def _plain_scores(graph_def, inputs, outputs, value):
  """Returns the values of `outputs` for a batch of one of `inputs`."""
  # Some graphs accept one batch size only.
  count = outputs.shape.as_list()[0] if outputs.shape.ndims else None
  value = np.repeat(value, count or 1, axis=0)
  inputs.set_shape(value.shape)
  with contextlib.closing(forward_pass.load(
      graph_def, [inputs], [outputs], _options())) as forward:
    tf.logging.info('Forward passes: %s', forward.choice.describe())
    return forward(value)[0]


def _options():
  return forward_pass.options_from_flags(FLAGS)


def _value_for(inputs, info, photo, given):
  """Returns the value to feed for a photo: a batch of one."""
  if inputs.dtype == tf.string:
    if given:
      raise InputError('--%s: the graph preprocesses photos itself, its input '
                       '%s takes encoded ones' % (sorted(given)[0],
                                                  inputs.op.name))
    return np.array([photo.encoded], object)
  if inputs.dtype == tf.float32 and inputs.shape.ndims in (None, 4):
    shape = None if inputs.shape.ndims is None else inputs.shape.as_list()
    return prepare(photo.encoded, info, given, shape)
  raise InputError('--input_layer=%s takes %s of shape %s, accepted: float32 '
                   'images' % (inputs.op.name, inputs.dtype.name, inputs.shape))


def _tensor(graph, flag, recorded, default):
  name = FLAGS[flag].value or recorded or default
  try:
    return graph.get_tensor_by_name(name if ':' in name else name + ':0')
  except (KeyError, ValueError):
    raise InputError('--%s: the graph has no node %s; tools.summarize_graph '
                     '--in_graph=%s lists its inputs and outputs' %
                     (flag, name, FLAGS.graph))


def find_labels(info: Optional[graph_info.GraphInfo],
                num_classes: int) -> List[str]:
  """Returns the names by output index.

  Args:
    info: GraphInfo of the graph, or None.
    num_classes: number of scores of the graph.

  Raises:
    InputError: the labels are unknown, or their number is wrong.
  """
  if FLAGS.labels:
    return label_files.read(FLAGS.labels, num_classes)
  if info:
    label_files.check_count(info.labels, num_classes, 'the list of labels')
    return info.labels
  names = imagenet_names.labels_of(num_classes)
  if names is None:
    raise InputError('--labels is needed: the graph has %d classes without '
                     'names' % num_classes)
  return names


def main(_: List[str]) -> None:
  """Prints the best classes as `daisy (0): 0.987`."""
  common_flags.require(FLAGS, 'image', 'graph')
  given = {name: FLAGS[name].value for name in _PREPARING
           if FLAGS[name].value is not None}
  if given.get('input_std') == 0:
    raise InputError('--input_std=0: pixels are divided by it')
  graph_def = graph_files.read_frozen(FLAGS.graph, 'frozen graph --graph',
                                      FLAGS.allowed_ops)
  photo = photos.normalize_photo(files.read(FLAGS.image, 'photo --image'))
  info = graph_info.read(graph_def)
  scores = score(graph_def, info, photo, given)
  names = find_labels(info, len(scores))
  for index in np.argsort(-scores)[:FLAGS.num_top_predictions]:
    print('%s (%d): %g' % (names[index], index, scores[index]))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
