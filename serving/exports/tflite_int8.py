"""Quantizes a TensorFlow Lite model to int8, from training photos.

  images = tflite_int8.training_images(dataset, info)
  content = tflite_int8.convert(converter, images, info)

Weights are quantized per channel, activations per tensor, by the ranges that
they have for these photos. Two parts stay float32, because int8 loses accuracy
there and they are small: the first two convolutions (the channels of the first
depthwise layer of a MobileNet have very different ranges; M. Nagel et al.,
arXiv 1906.04721), and the classifier with all means that it reads.
"""

import contextlib
from typing import Any, Iterator, List, Set

import numpy as np

import compat
from common import progress
from compat import tf
from datasets import input_pipeline
from nets import layers_head, nets_factory
from ood import detector, reference_bank
from preprocessing import preprocessing_factory
from serving.model import graph_info

_CONVOLUTIONS = ('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED')
_FLOAT_CONVOLUTIONS = 2

# Operations for which XNNPACK, which computes on most phones, has no int8: with
# int8, MobileNet V3 takes 4.8 ms in place of 1.5 ms (float32: 3.2 ms).
_FLOAT_KINDS = ('HARD_SWISH',)

MAX_PHOTOS = 200


def training_images(dataset: Any, info: graph_info.GraphInfo,
                    max_photos: int = MAX_PHOTOS, num_threads: int = 4
                    ) -> Iterator[np.ndarray]:
  """Yields preprocessed photos, about equally many of each class.

  Args:
    dataset: slim Dataset of the training photos.
    info: GraphInfo: how the photos are preprocessed.
    max_photos: largest number of photos. The choice is always the same.
    num_threads: number of threads that decode photos.

  Yields:
    `[1, image_size, image_size, channels]` float32.

  Raises:
    InputError: a record is damaged.
  """
  with tf.Graph().as_default() as graph, input_pipeline.errors_as_advice():
    chosen = reference_bank.choose(
        detector.read_labels(dataset) - info.labels_offset, max_photos, least=1)
    # They are more than max_photos if the classes are.
    chosen = chosen[::-(-len(chosen) // max_photos)]
    iterator = tf.data.make_initializable_iterator(
        input_pipeline.evaluation_batches(
            dataset, preprocessing_factory.get_preprocessing(
                info.preprocessing_name, is_training=False),
            info.image_size, 1, info.channels, num_threads,
            info.labels_offset, keep=chosen))
    image = iterator.get_next()['image']
  # The graph is not the default one while the caller has control.
  with contextlib.closing(tf.Session(graph=graph)) as session, (
      progress.Progress('calibrated', len(chosen))) as bar:
    session.run(iterator.initializer)
    for _ in chosen:
      with graph.as_default(), input_pipeline.errors_as_advice():
        values = session.run(image)
      yield values
      bar.add()


def convert(lite: Any, converter: Any, images: Iterator[np.ndarray],
            info: graph_info.GraphInfo, dtype: tf.DType) -> bytes:
  """Returns the int8 model.

  Args:
    lite: of compat.tflite_tools.
    converter: its TFLiteConverter of the graph.
    images: inputs of the graph.
    info: GraphInfo of the graph.
    dtype: of the model's input and output: float32 or uint8.
  """
  converter.optimizations = [lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: ([image] for image in images)
  return compat.quantize_tflite(
      converter, lambda calibrated: _float_operations(
          lite.Interpreter(model_content=calibrated), info), dtype)


def _float_operations(interpreter: Any,
                      info: graph_info.GraphInfo) -> List[str]:
  """Returns the names of the outputs of the operations that stay float32."""
  names = {tensor['index']: tensor['name']
           for tensor in interpreter.get_tensor_details()}
  network = nets_factory.get_network(info.model_name or '')
  scopes = (layers_head.SCOPE, network.classifier_scopes[0])
  inputs_of_convolutions: Set[int] = set()
  kept, backbone = [], []
  for operation in reversed(interpreter._get_ops_details()):
    name = names[operation['outputs'][0]]
    in_head = any(part.startswith(scope + '/') for part in name.split(';')
                  for scope in scopes)
    kind = operation['op_name']
    if (kind in _CONVOLUTIONS and not in_head or
        inputs_of_convolutions & set(operation['outputs'])):
      inputs_of_convolutions.update(operation['inputs'])
      backbone.append((name, kind))
    else:
      kept.append(name)
  count = 0
  for name, kind in reversed(backbone):
    if count < _FLOAT_CONVOLUTIONS or kind in _FLOAT_KINDS:
      kept.append(name)
    count += kind in _CONVOLUTIONS
  return kept
