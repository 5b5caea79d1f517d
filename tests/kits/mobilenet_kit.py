"""What the tests of MobileNets share: values and weights of a small graph."""

from compat import tf
from kits import nets_facts


def run(outputs, seeded=True):
  """Returns the values of tensors, with weights by name or the first ones."""
  with tf.Session() as session:
    if seeded:
      nets_facts.load_seeded_weights(session, tf.global_variables())
    else:
      session.run(tf.global_variables_initializer())
    return session.run(outputs)


def weights():
  """Returns {name: shape} of the default graph's weights."""
  return {name: shape for name, shape in nets_facts.variable_shapes().items()
          if 'weights' in name}
