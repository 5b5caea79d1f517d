"""Finds networks by name, builds them and lists what is known about them.

  network_fn = nets_factory.get_network_fn('inception_v4', num_classes=1001)
  logits, end_points = network_fn(images)

All that differs between networks is in their rows, in nets/networks.py.
"""

import functools
import inspect
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from common.errors import unknown_name
from compat import slim, tf
from nets import layers_head, quantization
from nets.network_types import image_size
from nets.networks import (
  NETWORKS,
  OTHER_CHECKPOINTS,
  Checkpoint,
  Cost,
  Network,
)

# slim's two tables.
networks_map = {name: row.function for name, row in NETWORKS.items()}
arg_scopes_map = {name: row.arg_scope for name, row in NETWORKS.items()}


def get_network(name: str, use_grayscale: bool = False) -> Network:
  """Returns the row of a network.

  Args:
    name: name of the network, as in 'inception_v4'.
    use_grayscale: whether its photos are grey.

  Returns:
    Its Network row; with one channel if use_grayscale.

  Raises:
    ValueError: no network has this name.
  """
  if name not in NETWORKS:
    raise unknown_name('network', name, NETWORKS)
  row = NETWORKS[name]
  return row._replace(channels=1) if use_grayscale else row


def get_network_fn(name: str, num_classes: Optional[int],
                   weight_decay: float = 0.0,
                   is_training: bool = False,
                   head: Optional[layers_head.Head] = None,
                   quantize: bool = False) -> Callable:
  """Returns a function that builds a network under its own arg scope.

  Args:
    name: name of the network, as in 'inception_v4'.
    num_classes: number of classes; 0 or None: the network returns features.
    weight_decay: factor of the L2 loss of the weights.
    is_training: whether the network is built for training.
    head: the head whose logits are returned; None: the network's own. With one,
      the end points have layers_head.FEATURES too, and 'Logits' and
      'Predictions' are those of the head.
    quantize: whether the default graph is rewritten afterwards, for evaluation
      with simulated 8-bit arithmetic.

  Returns:
    `network_fn(images, **kwargs)` that returns `(logits, end_points)`; further
    arguments go to the network's function. `network_fn.default_image_size` is
    in pixels. It raises an InputError if TensorFlow 2 should quantize.

  Raises:
    ValueError: no network has this name.
  """
  row = get_network(name)

  @image_size(row.image_size)
  @functools.wraps(row.function)
  def network_fn(images: tf.Tensor, **kwargs: Any) -> Any:
    # Made here and not outside, because it holds the caller's arg scopes too.
    with slim.arg_scope(row.arg_scope(weight_decay=weight_decay)):
      build = functools.partial(row.function, num_classes=num_classes,
                                is_training=is_training, **kwargs)
      logits, end_points = build(images)
      if head is not None:
        logits, end_points = _add_head(head, num_classes, row, build, images,
                                       end_points)
      if quantize:
        quantization.rewrite_for_evaluation()
      return logits, end_points

  return network_fn


def _add_head(head, num_classes, row, build, images, end_points):
  """Returns the logits and end points of a network with a Head.

  Args:
    head: layers_head.Head.
    num_classes: number of classes.
    row: Network.
    build: function of images that returns (logits, end points).
    images: input of the network.
    end_points: those of the network.
  """
  layers = row.taps + (row.features,)
  features = layers_head.pool(end_points, layers)
  if head.flip_average:
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      _, mirrored = build(tf.reverse(images, [2]))
    features = (features + layers_head.pool(mirrored, layers)) / 2
  features = tf.identity(features, layers_head.FEATURES)
  logits = layers_head.classify(features, num_classes, head)
  end_points = dict(end_points)
  end_points.pop('predictions', None)
  end_points.update({
      layers_head.FEATURES: features, 'Logits': logits,
      'Predictions': tf.nn.softmax(
          logits, name=layers_head.SCOPE + '/Predictions')})
  return logits, end_points


def get_predictions(logits: tf.Tensor,
                    end_points: Dict[str, tf.Tensor]) -> tf.Tensor:
  """Returns the class probabilities of a network_fn's result.

  Args:
    logits: `[batch, num_classes]` float tensor.
    end_points: dict of tensors; the probabilities are in 'Predictions', in
      ResNets in 'predictions', or missing (VGG, AlexNet, OverFeat).

  Returns:
    `[batch, num_classes]` in [0, 1]: the network's own node if it has one, else
    a new node 'Predictions'.
  """
  for key in ('Predictions', 'predictions'):
    if key in end_points:
      return end_points[key]
  return tf.nn.softmax(logits, name='Predictions')


def takes_dropout(name: str) -> bool:
  """Returns whether a network's function has the argument dropout_keep_prob.

  Args:
    name: name of the network.

  Raises:
    ValueError: no network has this name.
  """
  function = get_network(name).function
  return 'dropout_keep_prob' in inspect.signature(function).parameters


def get_features(name: str, end_points: Dict[str, tf.Tensor]) -> tf.Tensor:
  """Returns the features of each photo that the classifier reads.

  Args:
    name: name of the network.
    end_points: dict of tensors that its network_fn returned.

  Returns:
    `[batch, n]` float tensor; if the end point in the network's row still has a
    height and a width, the mean over them.

  Raises:
    ValueError: no network has this name.
  """
  features = end_points[get_network(name).features]
  if layers_head.FEATURES in end_points:
    return layers_head.last_layer(end_points[layers_head.FEATURES],
                                  features.shape.as_list()[-1])
  return features if features.shape.ndims == 2 else tf.reduce_mean(
      features, [1, 2])


def get_head_input(name: str, end_points: Dict[str, tf.Tensor]) -> tf.Tensor:
  """Returns the tensor that the logits and the features are functions of.

  Args:
    name: name of the network.
    end_points: dict of tensors that its network_fn returned.

  Returns:
    The end point of the network's row, or the pooled layers of a head.

  Raises:
    ValueError: no network has this name.
  """
  return end_points.get(layers_head.FEATURES,
                        end_points[get_network(name).features])


def _checkpoints() -> Iterator[Tuple[str, Tuple[Checkpoint, ...]]]:
  """Yields each network that has published checkpoints, and these."""
  for name, row in NETWORKS.items():
    if row.checkpoints:
      yield name, row.checkpoints
  yield from OTHER_CHECKPOINTS.items()


def checkpoint_names() -> List[str]:
  """Returns the names of all published checkpoints and of their networks."""
  return sorted({name for network, checkpoints in _checkpoints()
                 for name in (network, *(c.name for c in checkpoints))})


def find_checkpoint(name: str) -> Tuple[str, Checkpoint]:
  """Returns the network's name and the row of a published checkpoint.

  Args:
    name: of a checkpoint; or of a network, for its first one.

  Raises:
    InputError: there is no such checkpoint.
  """
  for network, checkpoints in _checkpoints():
    for checkpoint in checkpoints:
      if name in (network, checkpoint.name):
        return network, checkpoint
  raise unknown_name('published checkpoint', name, checkpoint_names())


def describe(name: str) -> Dict[str, Any]:
  """Returns the facts about a network, ready for JSON.

  Args:
    name: of the network.

  Returns:
    A dict: the name; the network's row without its functions; the fields of
    its Cost, each None if it is not counted; `checkpoints`, a list of dicts of
    name, file (of the archive), url, top_1, top_5 and is_quantized, starting
    with the one that the network's name stands for.

  Raises:
    InputError: no network has this name.
  """
  row = get_network(name)
  facts = {'name': name, 'image_size': row.image_size,
           'channels': row.channels, 'preprocessing': row.preprocessing,
           'classifier_scopes': list(row.classifier_scopes),
           'features': row.features, 'taps': list(row.taps)}
  facts.update(row.cost._asdict() if row.cost else
               dict.fromkeys(Cost._fields))
  facts['checkpoints'] = [
      {'name': checkpoint.name, 'file': checkpoint.url.rpartition('/')[2],
       'url': checkpoint.url, 'top_1': checkpoint.top_1,
       'top_5': checkpoint.top_5, 'is_quantized': checkpoint.is_quantized}
      for checkpoint in row.checkpoints]
  return facts
