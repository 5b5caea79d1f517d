"""Deployment of copies of a model (clones) on devices, trained as one.

Each clone computes on its own GPU, or on the CPU; all clones share their
variables. A replica is a process with its own clones; replicas share their
variables through parameter servers.

  config = model_deploy.DeploymentConfig(num_clones=2)
  with tf.device(config.inputs_device()):
    images, labels = ...
  with tf.device(config.optimizer_device()):
    optimizer = tf.train.MomentumOptimizer(0.01, 0.9)
  model = model_deploy.deploy(config, model_fn, [images, labels],
                              optimizer=optimizer)
  slim.learning.train(model.train_op, log_dir, summary_op=model.summary_op)

`model_fn` builds the model and adds its losses to their collection. It must
create its variables with `slim.model_variable` (as slim's layers do) or with
`tf.get_variable`, so that the clones share them.
"""

from typing import (
  Any,
  Callable,
  List,
  Mapping,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
  Union,
)

from common.errors import InputError
from compat import slim, tf

# Function from an operation to its device.
DeviceFn = Callable[[tf.Operation], str]

# A gradient; tf.IndexedSlices if only some rows are not 0.
Gradient = Union[tf.Tensor, tf.IndexedSlices]


class Clone(NamedTuple):
  """A copy of the model on one device."""

  # What model_fn returned.
  outputs: Any
  # Name scope of the clone's ops, '' or ending in a slash.
  scope: str
  # Of these ops.
  device: str


class DeployedModel(NamedTuple):
  """The model on all devices."""

  # A training step, returns the total loss; None without an optimizer.
  train_op: Optional[tf.Tensor]
  # All summaries, or None.
  summary_op: Optional[tf.Tensor]
  # Scalar of all clones, or None.
  total_loss: Optional[tf.Tensor]
  clones: List[Clone]


class DeploymentConfig:
  """Devices of clones, variables and inputs."""

  def __init__(self, num_clones: int = 1, clone_on_cpu: bool = False,
               replica_id: int = 0, num_replicas: int = 1,
               num_ps_tasks: int = 0, worker_job_name: str = 'worker',
               ps_job_name: str = 'ps', balance_ps: bool = False):
    """Checks and stores the arguments.

    Args:
      num_clones: clones in this process.
      clone_on_cpu: whether the clones compute on the CPU; otherwise each has
        its own GPU.
      replica_id: index of the replica of this process, from 0.
      num_replicas: replicas that train together.
      num_ps_tasks: parameter servers; 0: variables are in this process.
      worker_job_name: name of the replicas' job.
      ps_job_name: name of the parameter servers' job.
      balance_ps: whether each variable goes to the parameter server with the
        fewest bytes; else they go round-robin, as in slim. A layer with batch
        norm has four variables, so one of four servers would get all weights.

    Raises:
      ValueError: the arguments contradict each other.
    """
    if num_clones < 1:
      raise InputError('num_clones must be at least 1, got %d' % num_clones)
    if num_replicas > 1 and num_ps_tasks < 1:
      raise InputError('%d replicas need parameter servers: num_ps_tasks must '
                       'be at least 1, got %d' % (num_replicas, num_ps_tasks))
    if num_replicas > 1 or num_ps_tasks > 0:
      if not worker_job_name:
        raise InputError('with replicas or parameter servers, worker_job_name '
                         'must not be empty')
      if not ps_job_name:
        raise InputError('with replicas or parameter servers, ps_job_name '
                         'must not be empty')
    if not 0 <= replica_id < num_replicas:
      raise InputError('replica_id must be 0 to %d, got %d' %
                       (num_replicas - 1, replica_id))
    self.num_clones = num_clones
    self.clone_on_cpu = clone_on_cpu
    self.replica_id = replica_id
    self.num_replicas = num_replicas
    self.num_ps_tasks = num_ps_tasks
    self._balance_ps = balance_ps
    self.ps_device = '/job:' + ps_job_name if num_ps_tasks else ''
    self.worker_device = '/job:' + worker_job_name if num_ps_tasks else ''

  def caching_device(self) -> Optional[DeviceFn]:
    """Returns the device function for caching variables, or None.

    With parameter servers each op keeps a copy on its own device, so that a
    variable crosses the network once per step.
    """
    return (lambda op: op.device) if self.num_ps_tasks else None

  def clone_device(self, clone_index: int) -> str:
    """Returns the device of a clone.

    Args:
      clone_index: index of the clone, from 0.

    Raises:
      ValueError: there is no such clone.
    """
    self._check_clone(clone_index)
    if self.clone_on_cpu:
      return self.worker_device + '/device:CPU:0'
    return self.worker_device + '/device:GPU:%d' % clone_index

  def clone_scope(self, clone_index: int) -> str:
    """Returns the name scope of a clone, '' if it is the only one.

    Args:
      clone_index: index of the clone, from 0.

    Raises:
      ValueError: there is no such clone.
    """
    self._check_clone(clone_index)
    return 'clone_%d' % clone_index if self.num_clones > 1 else ''

  def optimizer_device(self) -> str:
    """Returns the device of the optimizer."""
    return self.worker_device + '/device:CPU:0'

  def inputs_device(self) -> str:
    """Returns the device of the input pipeline."""
    return self.worker_device + '/device:CPU:0'

  def variables_device(self) -> Union[str, DeviceFn]:
    """Returns the device of the variables: a string or a device function."""
    device = self.ps_device + '/device:CPU:0'
    if not self.num_ps_tasks:
      return device
    placement = _VariablesByBytes if self._balance_ps else _VariablesInTurn
    return placement(device, self.num_ps_tasks)

  def _check_clone(self, clone_index):
    if not 0 <= clone_index < self.num_clones:
      raise InputError('clone_index must be 0 to %d, got %d' %
                       (self.num_clones - 1, clone_index))


class _VariablesInTurn:
  """Device function that places variables on the servers round-robin."""

  def __init__(self, device, tasks):
    self._device = device
    self._tasks = tasks
    self._next = 0

  def __call__(self, op):
    # VarHandleOp: a resource variable.
    if op.device or not op.type.startswith(('Variable', 'VarHandleOp')):
      return op.device
    return '%s/task:%d' % (self._device, self.choose(op))

  def choose(self, op):
    """Returns the index of the parameter server for a variable."""
    del op  # Round-robin ignores it.
    task = self._next
    self._next = (task + 1) % self._tasks
    return task


class _VariablesByBytes(_VariablesInTurn):
  """Places each variable on the parameter server with the fewest bytes."""

  def __init__(self, device, tasks):
    super().__init__(device, tasks)
    self._bytes = [0] * tasks

  def choose(self, op):
    task = self._bytes.index(min(self._bytes))
    shape = tf.TensorShape(op.get_attr('shape'))
    # 1 if the shape is not known yet.
    elements = shape.num_elements() or 1
    self._bytes[task] += elements * tf.as_dtype(op.get_attr('dtype')).size
    return task


def create_clones(config: DeploymentConfig, model_fn: Callable,
                  args: Optional[Sequence[Any]] = None,
                  kwargs: Optional[Mapping[str, Any]] = None) -> List[Clone]:
  """Builds the clones.

  Args:
    config: DeploymentConfig.
    model_fn: function that builds the model and returns its outputs.
    args: arguments of `model_fn`.
    kwargs: named arguments of `model_fn`.

  Returns:
    A list of Clones. The first creates the variables, the others reuse them.
  """
  clones = []
  with slim.arg_scope([slim.model_variable, slim.variable],
                      device=config.variables_device()):
    for index in range(config.num_clones):
      device = config.clone_device(index)
      with tf.name_scope(config.clone_scope(index)) as scope, tf.device(device):
        with tf.variable_scope(tf.get_variable_scope(),
                               reuse=True if index else None):
          outputs = model_fn(*(args or ()), **(kwargs or {}))
      clones.append(Clone(outputs, scope, device))
  return clones


def optimize_clones(clones: Sequence[Clone], optimizer: tf.train.Optimizer,
                    regularization_losses: Optional[List[tf.Tensor]] = None,
                    **kwargs: Any
                    ) -> Tuple[tf.Tensor, List[Tuple[Gradient, tf.Variable]]]:
  """Computes the clones' losses and their summed gradients.

  Each clone's loss is divided by the number of clones: the sum is the mean over
  all their examples. Regularization losses count once, with the first clone.

  Args:
    clones: Clones of `create_clones`.
    optimizer: an Optimizer.
    regularization_losses: scalars; None: those of the collection.
    **kwargs: for `optimizer.compute_gradients`.

  Returns:
    The total loss, and a list of (gradient, variable) of those variables that
    have a gradient.

  Raises:
    ValueError: no clone has a loss.
  """
  losses, gradients = [], []
  for clone, loss in _clone_losses(clones, regularization_losses):
    with tf.name_scope(clone.scope), tf.device(clone.device):
      gradients.append(optimizer.compute_gradients(loss, **kwargs))
    losses.append(loss)
  if not losses:
    raise InputError('none of the %d clones has added a loss to the collection '
                     '%r' % (len(clones), tf.GraphKeys.LOSSES))
  return tf.add_n(losses, name='total_loss'), _sum_gradients(gradients)


def deploy(config: DeploymentConfig, model_fn: Callable,
           args: Optional[Sequence[Any]] = None,
           kwargs: Optional[Mapping[str, Any]] = None,
           optimizer: Optional[tf.train.Optimizer] = None,
           summarize_gradients: bool = False) -> DeployedModel:
  """Builds the clones and, with an optimizer, their joint training step.

  Batch statistics and other update ops are taken from the first clone.

  Args:
    config: DeploymentConfig.
    model_fn: function that builds the model and returns its outputs.
    args: arguments of `model_fn`.
    kwargs: named arguments of `model_fn`.
    optimizer: an Optimizer; None: the model is not trained.
    summarize_gradients: whether to add summaries of the gradients.

  Returns:
    A DeployedModel.

  Raises:
    ValueError: there is an optimizer, but no clone has a loss.
  """
  summaries = tf.get_collection(tf.GraphKeys.SUMMARIES)
  clones = create_clones(config, model_fn, args, kwargs)
  first_scope = clones[0].scope
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS, first_scope)
  train_op = None
  with tf.device(config.optimizer_device()):
    if optimizer:
      with tf.device(config.variables_device()):
        global_step = tf.train.get_or_create_global_step()
      total_loss, gradients = optimize_clones(clones, optimizer)
      if gradients:
        if summarize_gradients:
          summaries += _summarize_gradients(gradients)
        updates.append(optimizer.apply_gradients(gradients, global_step))
        with tf.control_dependencies([tf.group(*updates)]):
          train_op = tf.identity(total_loss, name='train_op')
    else:
      losses = [loss for _, loss in _clone_losses(clones)]
      total_loss = tf.add_n(losses, name='total_loss') if losses else None
    summaries += tf.get_collection(tf.GraphKeys.SUMMARIES, first_scope)
    if total_loss is not None:
      # Its tag is total_loss_1, as in slim: the op total_loss is the loss.
      summaries.append(tf.summary.scalar('total_loss', total_loss))
    # Unique by name.
    unique = list({summary.name: summary for summary in summaries}.values())
    summary_op = tf.summary.merge(unique, name='summary_op') if unique else None
  return DeployedModel(train_op, summary_op, total_loss, clones)


def _clone_losses(clones, regularization_losses=None):
  """Yields (clone, its part of the total loss) of each clone that has one."""
  if regularization_losses is None:
    regularization_losses = tf.get_collection(
        tf.GraphKeys.REGULARIZATION_LOSSES)
  for clone in clones:
    with tf.name_scope(clone.scope):
      loss = _clone_loss(clone, len(clones), regularization_losses)
    regularization_losses = []
    if loss is not None:
      yield clone, loss


def _clone_loss(clone, num_clones, regularization_losses):
  """Returns a clone's part of the total loss, or None; adds summaries."""
  parts = []
  with tf.device(clone.device):
    losses = tf.get_collection(tf.GraphKeys.LOSSES, clone.scope)
    if losses:
      loss = tf.add_n(losses, name='clone_loss')
      if num_clones > 1:
        loss = tf.truediv(loss, float(num_clones), name='scaled_clone_loss')
      parts.append(('clone_loss', loss))
    if regularization_losses:
      parts.append(('regularization_loss', tf.add_n(
          regularization_losses, name='regularization_loss')))
    total = tf.add_n([loss for _, loss in parts]) if parts else None
  # Not on the clone's device: GPUs have no kernels for summaries.
  for name, loss in parts:
    tf.summary.scalar('Losses/' + name, loss)
  return total


def _sum_gradients(clones_gradients):
  """Sums the clones' gradients and warns about variables without any.

  Args:
    clones_gradients: for each clone a list of (gradient or None, variable), in
      the same order of variables.

  Returns:
    A list of (sum, variable).
  """
  sums, unused = [], []
  for column in zip(*clones_gradients):
    variable = column[0][1]
    gradients = [gradient for gradient, _ in column if gradient is not None]
    if not gradients:
      unused.append(variable.op.name)
    elif len(gradients) == 1:
      sums.append((gradients[0], variable))
    else:
      sums.append((tf.add_n(gradients, name=variable.op.name + '/sum_grads'),
                   variable))
  if unused:
    tf.logging.warning('The loss does not depend on these variables; they are '
                       'not trained: %s', ', '.join(unused))
  return sums


def _summarize_gradients(grads_and_vars):
  summaries = []
  for gradient, variable in grads_and_vars:
    if isinstance(gradient, tf.IndexedSlices):
      gradient = gradient.values
    name = variable.op.name + '/gradient'
    summaries.append(tf.summary.histogram(name, gradient))
    summaries.append(tf.summary.scalar(name + '_norm',
                                       tf.global_norm([gradient])))
  return summaries
