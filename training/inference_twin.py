"""The network of a run in evaluation mode, with its own graph and session.

  twin = InferenceTwin(info, network)
  twin.load(session)                   # The run's current variables.
  logits = twin.logits([[photos], [more_photos]])

It is fed photos or intermediate tensors: with features of a frozen backbone,
only the rest of the network has to run.
"""

from typing import Any, Iterable, Optional, Sequence

import numpy as np

from compat import tf
from nets import frozen_backbone, layers_head, nets_factory
from runs import checkpoints, run_info


class InferenceTwin:
  """The network as evaluation and export build it.

  Args:
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    moving_average_decay: None if the run keeps no moving averages.
    session_config: tf.ConfigProto.

  Attributes:
    op_names: names of its operations, from the images to the logits.
  """

  def __init__(self, info: run_info.RunInfo, network: nets_factory.Network,
               moving_average_decay: Optional[float] = None,
               session_config: Optional[tf.ConfigProto] = None) -> None:
    self._config = session_config
    self._session: Any = None  # Made with the first weights.
    self._graph = tf.Graph()
    with self._graph.as_default():
      self._images = tf.placeholder(tf.float32, [
          None, info.image_size, info.image_size, network.channels], 'images')
      self._logits, end_points = run_info.network_fn(info)(self._images)
      self._features = end_points.get(layers_head.FEATURES)
      # Of the last layer, in features.
      self.last_size = end_points[network.features].shape.as_list()[-1]
      self._restores = checkpoints.variables_to_restore(moving_average_decay)
    self.op_names = {op.name for op in self._graph.get_operations()}
    self._start = [self._images.name]

  def start_from(self, names: Iterable[str]) -> None:
    """Sets the tensors that `logits` feeds.

    Args:
      names: names of tensors. Those that the logits do not need are ignored: in
        evaluation some networks have no auxiliary classifier.
    """
    self._start = list(names)

  def load(self, session: tf.Session) -> None:
    """Copies the current variables of a run.

    Args:
      session: of the run.
    """
    if not self._session:
      self._make_session()
    names = {}
    for name in self._values:
      # Variables that are not trained have no average.
      plain = self._restores[name].op.name
      names[name] = (name if _has_operation(session.graph, name) else
                     plain) + ':0'
    values = session.run(names)
    self._session.run(self._assign, {
        self._values[name]: value for name, value in values.items()})

  def _make_session(self):
    needed = frozen_backbone.ancestors([self._logits])
    tensors = [self._graph.get_tensor_by_name(name) for name in self._start]
    self._inputs = [t if t.op in needed else None for t in tensors]
    ops = set(frozen_backbone.ancestors(
        [self._logits], {t.op for t in self._inputs if t is not None}))
    variables = {name: v for name, v in self._restores.items() if v.op in ops}
    with self._graph.as_default():
      self._values = {name: tf.placeholder(v.dtype.base_dtype, v.shape)
                      for name, v in variables.items()}
      self._assign = tf.group(*[tf.assign(v, self._values[name])
                                for name, v in variables.items()])
    self._session = tf.Session(graph=self._graph, config=self._config)

  def logits(self, batches: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Returns `[n, num_classes]` float32.

    Args:
      batches: iterable of lists of arrays, one per name of `start_from`.
    """
    return self._run(self._logits, batches)

  def features(self, batches: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Returns the pooled layers of a layers_head: `[n, features]` float32.

    Args:
      batches: as for `logits`.
    """
    return self._run(self._features, batches)

  def _run(self, output, batches):
    return np.concatenate([
        self._session.run(output, {
            tensor: value for tensor, value in zip(self._inputs, batch)
            if tensor is not None})
        for batch in batches])

  def close(self) -> None:
    """Closes the session."""
    if self._session is not None:
      self._session.close()


def _has_operation(graph, name):
  try:
    graph.get_operation_by_name(name)
  except KeyError:
    return False
  return True
