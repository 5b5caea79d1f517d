"""Small Inception networks, and checks of a graph other than of variables."""

from compat import tf
from kits import nets_kit
from nets.inception_utils import Conv, MaxPool

# Layers with the sizes of Inception V1 and V2, which also end with Mixed_5c.
SMALL_V1 = SMALL_V2 = (
    Conv('Conv2d_1a', 16, (7, 7), 2),
    MaxPool('MaxPool_2a', (3, 3), 2),
    MaxPool('MaxPool_3a', (3, 3), 2),
    MaxPool('MaxPool_4a', (3, 3), 2),
    MaxPool('MaxPool_5a', (2, 2), 2),
    Conv('Mixed_5c', 256, (1, 1)),
)

# The same for Inception V3, whose auxiliary classifier reads Mixed_6e.
SMALL_V3 = (
    Conv('Conv2d_1a', 16, (3, 3), 2, 'VALID'),
    MaxPool('Conv2d_2a', (3, 3), 1, 'VALID'),
    MaxPool('MaxPool_3a', (3, 3), 2, 'VALID'),
    MaxPool('Conv2d_4a', (3, 3), 1, 'VALID'),
    MaxPool('MaxPool_5a', (3, 3), 2, 'VALID'),
    MaxPool('Mixed_6a', (3, 3), 2, 'VALID'),
    Conv('Mixed_6e', 64, (1, 1)),
    MaxPool('Mixed_7a', (3, 3), 2, 'VALID'),
    Conv('Mixed_7c', 256, (1, 1)),
)

# End of the name of a constant: the stddev of a variable's initializer.
_STDDEV = '/Initializer/truncated_normal/stddev'


def check_base(base, names, output, shape):
  """Asserts properties of a base that was built without an arg scope.

  Args:
    base: (graph, output, end points).
    names: names of the end points, in order.
    output: name of the operation of the output.
    shape: shape of the output.
  """
  graph, net, end_points = base
  assert list(end_points) == names
  assert net.op.name == output
  assert net.shape.as_list() == shape
  with graph.as_default():
    # Without an arg scope there is no batch norm.
    assert not [name for name in nets_kit.variable_shapes()
                if 'BatchNorm' in name]


def pools():
  """Returns {scope: (kind, kernel, stride, padding)} of the default graph.

  The scope does not contain that of the network. The kind is the type of the
  operation; kernel and stride are [height, width].
  """
  parameters = {}
  for op in tf.get_default_graph().get_operations():
    if op.type in ('MaxPool', 'AvgPool'):
      scope = '/'.join(op.name.split('/')[1:-1])
      parameters[scope] = (op.type, list(op.get_attr('ksize'))[1:3],
                           list(op.get_attr('strides'))[1:3],
                           op.get_attr('padding').decode())
  return parameters


def same_pool(kind, stride=1):
  """Returns the value in `pools` of a 3 x 3 pool with padding."""
  return (kind, [3, 3], [stride] * 2, 'SAME')


def stddevs():
  """Returns {variable: stddev} of truncated normal initializers.

  The names do not contain the network's scope. slim's default initializer is a
  uniform distribution, so these are the initializers that the network sets.
  """
  graph = tf.get_default_graph()
  return {
      '/'.join(op.name[:-len(_STDDEV)].split('/')[1:]):
          round(float(tf.get_static_value(op.outputs[0])), 6)
      for op in graph.get_operations() if op.name.endswith(_STDDEV)}
