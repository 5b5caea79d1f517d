"""What the Inception networks share: branch tables and their arg scope.

The papers give each Inception block as a figure of parallel branches. Here a
block is a table of such branches, and `add_branches` builds it:

  MIXED_3A = (
      Branch('Branch_0', (MaxPool('MaxPool_0a_3x3', (3, 3), 2, 'VALID'),)),
      Branch('Branch_1', (Conv('Conv2d_0a_3x3', 96, (3, 3), 2, 'VALID'),)),
  )

A scope is written in full in each row, because it is a name in the published
checkpoints and follows neither from the kernel nor from the position.
"""

from collections import namedtuple

from compat import slim, tf
from errors import unknown_name
from nets.batch_norm import batch_norm

# One layer. kernel: (height, width). width: output channels.
Conv = namedtuple('Conv', 'scope width kernel stride padding',
                  defaults=(1, 'SAME'))
MaxPool = namedtuple('MaxPool', 'scope kernel stride padding',
                     defaults=(1, 'SAME'))
AvgPool = namedtuple('AvgPool', 'scope kernel stride padding',
                     defaults=(1, 'SAME'))
# Convolutions that all read the same input; their outputs are concatenated.
Fork = namedtuple('Fork', 'layers')

# Layers in a row, under a scope; the branches of a block are concatenated.
Branch = namedtuple('Branch', 'scope layers')
Block = namedtuple('Block', 'scope branches')

_CHANNELS = 3  # The axis of the channels: [batch, height, width, channels].


def inception_arg_scope(
    weight_decay=0.00004,
    use_batch_norm=True,
    batch_norm_decay=0.9997,
    batch_norm_epsilon=0.001,
    activation_fn=tf.nn.relu,
    batch_norm_updates_collections=tf.GraphKeys.UPDATE_OPS,
    batch_norm_scale=False):
  """Returns the arg scope of the Inception networks.

  Args:
    weight_decay: factor of the L2 loss of the weights.
    use_batch_norm: whether convolutions are batch normalised.
    batch_norm_decay: decay of the moving averages.
    batch_norm_epsilon: added to the variance, against division by zero.
    activation_fn: activation of the convolutions.
    batch_norm_updates_collections: collection of the update ops; None: the
      moving averages are updated in place.
    batch_norm_scale: whether batch normalisation has a gamma. The published
      checkpoints have none.

  Returns:
    An arg scope, for `slim.arg_scope`.
  """
  normalizer = {'normalizer_fn': None, 'normalizer_params': {}}
  if use_batch_norm:
    normalizer = {
        'normalizer_fn': batch_norm,
        'normalizer_params': {
            'decay': batch_norm_decay,
            'epsilon': batch_norm_epsilon,
            'updates_collections': batch_norm_updates_collections,
            'fused': None,  # Fused where TensorFlow has it.
            'scale': batch_norm_scale,
        },
    }
  with slim.arg_scope([slim.conv2d, slim.fully_connected],
                      weights_regularizer=slim.l2_regularizer(weight_decay)):
    with slim.arg_scope([slim.conv2d],
                        weights_initializer=slim.variance_scaling_initializer(),
                        activation_fn=activation_fn, **normalizer) as scope:
      return scope


def add_layer(net, layer):
  """Adds one layer: a Conv, MaxPool, AvgPool or Fork row.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    layer: the row.

  Returns:
    The layer's output.
  """
  if isinstance(layer, Fork):
    return tf.concat([add_layer(net, part) for part in layer.layers], _CHANNELS)
  where = dict(stride=layer.stride, padding=layer.padding, scope=layer.scope)
  if isinstance(layer, Conv):
    return slim.conv2d(net, layer.width, layer.kernel, **where)
  pool = {MaxPool: slim.max_pool2d, AvgPool: slim.avg_pool2d}[type(layer)]
  return pool(net, layer.kernel, **where)


def add_branches(net, branches):
  """Adds the branches of a block and concatenates them.

  Args:
    net: `[batch, height, width, channels]` float tensor, read by each branch.
    branches: Branch rows.

  Returns:
    `[batch, height, width, sum of the branches' channels]`.
  """
  outputs = []
  for branch in branches:
    with tf.variable_scope(branch.scope):
      output = net
      for layer in branch.layers:
        output = add_layer(output, layer)
    outputs.append(output)
  return tf.concat(outputs, _CHANNELS)


def add_block(net, branches, scope, default_scope, reuse=None):
  """Adds a block under a scope of its own, as slim's block functions do.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    branches: Branch rows.
    scope: the block's scope, or None.
    default_scope: its name where `scope` is None.
    reuse: whether the variables of an earlier block are used again.

  Returns:
    The block's output.
  """
  with tf.variable_scope(scope, default_scope, [net], reuse=reuse):
    return add_branches(net, branches)


def add_layers(net, layers, final_endpoint):
  """Adds layers and blocks one after the other, up to `final_endpoint`.

  Args:
    net: `[batch, height, width, channels]` float tensor.
    layers: Conv, MaxPool, AvgPool and Block rows; each is an end point under
      the name of its scope.
    final_endpoint: the scope of the last row to build.

  Returns:
    The last output, and an ordered dict of end points.

  Raises:
    ValueError: no row has the name `final_endpoint`.
  """
  known = [layer.scope for layer in layers]
  if final_endpoint not in known:
    raise unknown_name('final_endpoint', final_endpoint, known)
  end_points = {}
  for layer in layers[:known.index(final_endpoint) + 1]:
    if isinstance(layer, Block):
      net = add_block(net, layer.branches, layer.scope, None)
    else:
      net = add_layer(net, layer)
    end_points[layer.scope] = net
  return net, end_points
