"""Comparison of a checkpoint with a network: which variables match."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common import checkpoint_files
from compat import slim, tf
from nets import nets_factory


class Fit(NamedTuple):
  """A checkpoint compared with a network."""

  # Number of classes of the checkpoint's classifier; None if it has none, or
  # not this network's.
  classes: Optional[int]
  # Names of variables that both have, with the same shape.
  matched: List[str]
  # Names of the network's variables that the checkpoint lacks.
  missing: List[str]
  # Names of the checkpoint's variables that the network does not have.
  unused: List[str]
  # (name, shape in the checkpoint, shape in the network).
  differing: List[Tuple[str, List[int], List[int]]]


# Number of classes with which the network is built. No layer of any network has
# this many channels, so a side of this size depends on the number of classes.
_PROBE = 1009

# Name suffixes of variables that training adds to the model's.
_AVERAGE = '/ExponentialMovingAverage'
_OPTIMIZER_SLOTS = ('/Momentum', '/RMSProp', '/RMSProp_1', '/Adam', '/Adam_1',
                    '/Adagrad', '/Adadelta', '/Adadelta_1', '/Ftrl', '/Ftrl_1')


def compare(prefix: str, model_name: str,
            num_classes: Optional[int] = None) -> Fit:
  """Compares a checkpoint with a network in training mode.

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
  theirs = checkpoint_files.open_reader(prefix).get_variable_to_shape_map()
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


def starts_training(found: Fit, classifier_scopes: Tuple[str, ...]) -> bool:
  """Whether training on other classes can start from a checkpoint.

  Args:
    found: the Fit.
    classifier_scopes: scopes that are not restored from the checkpoint.

  Returns:
    False if a layer outside the classifier has another shape, or if more than
    half of the variables there are missing: it is another network's checkpoint.
  """
  def outside(names):
    return [name for name in names if not name.startswith(classifier_scopes)]

  return not outside(name for name, _, _ in found.differing) and (
      len(outside(found.matched)) > len(outside(found.missing)))


def fitting_networks(prefix: str) -> List[str]:
  """Returns the names of networks that a checkpoint fits, best first.

  Args:
    prefix: path of a checkpoint, as checkpoints.resolve returns it.
  """
  prefixes = {name.split('/')[0] for name in
          checkpoint_files.open_reader(prefix).get_variable_to_shape_map()}
  missing = {}
  for name, row in nets_factory.NETWORKS.items():
    # Building all networks would take minutes.
    if row.classifier_scopes[0].split('/')[0] in prefixes:
      found = compare(prefix, name)
      if starts_training(found, row.classifier_scopes):
        missing[name] = len(found.missing)
  return sorted(missing, key=lambda name: (missing[name], name))


def kinds_of_unused(names: Sequence[str]) -> Dict[str, List[str]]:
  """Groups variables by the reason why a network does not have them.

  Args:
    names: Fit.unused.

  Returns:
    {kind: names}, without empty groups.
  """
  kinds: Dict[str, List[str]] = {}
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


def _variable_shapes(model_name: str) -> Dict[str, List[int]]:
  """Returns {name: shape} of a training network with _PROBE classes."""
  row = nets_factory.get_network(model_name)
  with tf.Graph().as_default():
    network_fn = nets_factory.get_network_fn(model_name, _PROBE,
                                             is_training=True)
    network_fn(tf.zeros([1, row.image_size, row.image_size, row.channels]))
    return {variable.op.name: variable.shape.as_list()
            for variable in slim.get_model_variables()}


def _classes(ours, theirs):
  """Returns the number of classes of a checkpoint: its size of _PROBE sides.

  If variables disagree, the most frequent number.
  """
  sizes = [theirs[name][shape.index(_PROBE)] for name, shape in ours.items()
           if _PROBE in shape and len(theirs.get(name, ())) == len(shape)]
  return int(np.bincount(sizes).argmax()) if sizes else None
