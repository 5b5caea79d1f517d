"""Values and weights of small graphs, for tests of MobileNets."""

from compat import tf
from kits import nets_kit


def run(outputs, seeded=True):
  """Returns the values of tensors, with seeded or with initial weights."""
  with tf.Session() as session:
    if seeded:
      nets_kit.load_seeded_weights(session, tf.global_variables())
    else:
      session.run(tf.global_variables_initializer())
    return session.run(outputs)


def weights():
  """Returns {name: shape} of the default graph's weights."""
  return {name: shape for name, shape in nets_kit.variable_shapes().items()
          if 'weights' in name}
