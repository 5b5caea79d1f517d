"""How a checkpoint fits a network: what would be read from it, what not."""

from collections import namedtuple

import numpy as np

from compat import slim, tf
from nets import nets_factory
from runs import checkpoints

Fit = namedtuple('Fit', 'classes matched missing unused differing')
Fit.__doc__ = """A checkpoint compared with a network.

classes: how many classes the checkpoint's classifier has; None where it has
  none, or none of this network's.
matched: names of variables that it has, of the same shape.
missing: names of the network's variables that it lacks.
unused: names of its variables that the network does not have.
differing: [(name, shape in the checkpoint, shape in the network)].
"""

# Outputs that the network is built with first. No layer of any network has so
# many channels, so a shape that ends in it shows what depends on the classes.
_PROBE = 1009

# Ends of names of what training keeps beside the variables themselves.
_AVERAGE = '/ExponentialMovingAverage'
_OPTIMIZER_SLOTS = ('/Momentum', '/RMSProp', '/RMSProp_1', '/Adam', '/Adam_1',
                    '/Adagrad', '/Adadelta', '/Adadelta_1', '/Ftrl', '/Ftrl_1')


def compare(prefix, model_name, num_classes=None):
  """Compares a checkpoint with a network as it is trained.

  Args:
    prefix: path of a checkpoint, as checkpoints.resolve returns it.
    model_name: name of the network.
    num_classes: classes of the network; None: as many as the checkpoint has.

  Returns:
    A Fit; all lists are sorted.

  Raises:
    InputError: no network has this name, or the checkpoint cannot be read.
  """
  ours = _variable_shapes(model_name)
  theirs = checkpoints.open_reader(prefix).get_variable_to_shape_map()
  classes = _classes(ours, theirs)
  outputs = num_classes or classes or _PROBE
  ours = {name: [outputs if side == _PROBE else side for side in shape]
          for name, shape in ours.items()}
  both = sorted(set(ours) & set(theirs))
  return Fit(
      classes=classes,
      matched=[name for name in both if ours[name] == theirs[name]],
      missing=sorted(set(ours) - set(theirs)),
      unused=sorted(set(theirs) - set(ours)),
      differing=[(name, theirs[name], ours[name]) for name in both
                 if ours[name] != theirs[name]])


def starts_training(found, classifier_scopes):
  """Whether training with other classes can start from a checkpoint.

  Args:
    found: the Fit.
    classifier_scopes: scopes that are not read from the checkpoint.

  Returns:
    False if a layer beside the classifier has another shape, or more than half
    of their variables are missing: then it is another network's.
  """
  def beside(names):
    return [name for name in names if not name.startswith(classifier_scopes)]

  return not beside(name for name, _, _ in found.differing) and (
      len(beside(found.matched)) > len(beside(found.missing)))


def fitting_networks(prefix):
  """Returns names of networks that a checkpoint fits, the best one first.

  Args:
    prefix: path of a checkpoint, as checkpoints.resolve returns it.
  """
  tops = {name.split('/')[0] for name in
          checkpoints.open_reader(prefix).get_variable_to_shape_map()}
  missing = {}
  for name, row in nets_factory.NETWORKS.items():
    # Building all networks would take minutes.
    if row.classifier_scopes[0].split('/')[0] in tops:
      found = compare(prefix, name)
      if starts_training(found, row.classifier_scopes):
        missing[name] = len(found.missing)
  return sorted(missing, key=lambda name: (missing[name], name))


def kinds_of_unused(names):
  """Counts variables by why a network does not have them.

  Args:
    names: Fit.unused.

  Returns:
    {kind: names}, without empty ones.
  """
  kinds = {}
  for name in names:
    if name == 'global_step':
      kind = 'global step'
    elif name.endswith(_AVERAGE):
      kind = 'moving averages'
    elif name.endswith(_OPTIMIZER_SLOTS):
      kind = "an optimizer's"
    else:
      kind = 'others'
    kinds.setdefault(kind, []).append(name)
  return kinds


def _variable_shapes(model_name):
  """Returns {name: shape} of a network with _PROBE classes, in training."""
  row = nets_factory.get_network(model_name)
  with tf.Graph().as_default():
    network_fn = nets_factory.get_network_fn(model_name, _PROBE,
                                             is_training=True)
    network_fn(tf.zeros([1, row.image_size, row.image_size, row.channels]))
    return {variable.op.name: variable.shape.as_list()
            for variable in slim.get_model_variables()}


def _classes(ours, theirs):
  """Returns how many classes the checkpoint has where the network has _PROBE.

  The one of most variables, where they do not agree.
  """
  found = [theirs[name][shape.index(_PROBE)] for name, shape in ours.items()
           if _PROBE in shape and len(theirs.get(name, ())) == len(shape)]
  return int(np.bincount(found).argmax()) if found else None
