"""Training graph: batches, clones, losses, gradients, summaries."""

from typing import Callable, Dict, NamedTuple, Optional, Sequence

from common.errors import InputError
from compat import slim, tf
from datasets import input_pipeline
from deployment import all_reduce, model_deploy, sync_optimizer
from nets import frozen_backbone, nets_factory, quantization
from nets.batch_norm import batch_norm
from preprocessing import preprocessing_factory
from runs import run_info
from runtime import forward_pass
from training import conv_gradients, gradient_precision, losses, warm_start
from training import optimizer as optimizers
from training.config import TrainConfig

# The published 0.9997 averages over some 3,000 steps. That suits fine-tuning a
# published checkpoint, but a network trained from scratch would be evaluated
# with its initial statistics for thousands of steps.
SCRATCH_BATCH_NORM_DECAY = 0.99

# Photos shown in TensorBoard at a time.
_SUMMARY_PHOTOS = 3

# Start of the error message for a loss or gradient that is not finite.
NOT_FINITE = 'The loss or its gradient is not finite'

# Graph collection of the summaries that are merged in summary_op.
SUMMARIES_OF_RUN = 'summaries_of_run'

# Graph collection of the operation that computes the losses of frozen weights.
FROZEN_LOSSES = 'frozen_losses'


class TrainingGraph(NamedTuple):
  """Tensors of the training graph."""
  # The total loss; it applies the gradients when run.
  train_op: tf.Tensor
  # Merged summaries of values that each step computes anyway: losses, learning
  # rate, accuracy of the batch.
  scalar_op: tf.Tensor
  # Merged summaries of photos, activations and weights, which take time.
  summary_op: tf.Tensor
  global_step: tf.Variable
  # None without --sync_replicas.
  sync_optimizer: Optional[sync_optimizer.SyncOptimizer]
  # Scalar, regularization loss of the frozen weights, computed once per
  # session; None if all weights are trained.
  frozen_loss: Optional[tf.Tensor]
  # Of all clones, and of all workers that wait for each other.
  photos_per_step: int


def build(config: TrainConfig, dataset: slim.dataset.Dataset,
          info: run_info.RunInfo, network: nets_factory.Network,
          trainable_scopes: Sequence[str],
          next_batch: Optional[Callable[[], Dict[str, tf.Tensor]]] = None,
          first_step: int = 0,
          freeze_batch_norm: bool = False) -> TrainingGraph:
  """Builds the training graph in the default graph.

  Args:
    config: TrainConfig of the run.
    dataset: slim Dataset of the training photos.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    trainable_scopes: scopes to train, [] for all.
    next_batch: function that returns a clone's dict of tensors image and
      label; None: augmented photos of the data set. With --mixup_alpha, which
      then mixes no photos, the dict also has targets: `[batch, classes]`
      float32, the mixed labels (see losses.mix_features).
    first_step: global step at which the learning rate's decay begins.
    freeze_batch_norm: whether all batch norm layers run in inference mode.

  Returns:
    A TrainingGraph.

  Raises:
    InputError: a trainable scope matches nothing, --class_weights does not fit
      the data set, or --mixup_alpha has nothing to mix.
  """
  losses.check_mixing(config.mixup_alpha, config.batch_size)
  devices = _devices(config.replicas)
  with tf.device(devices.variables_device()):
    global_step = tf.train.get_or_create_global_step()
  finish = None
  if next_batch is None:
    preprocessing_fn = preprocessing_factory.get_preprocessing(
        info.preprocessing_name, is_training=True,
        fast_mode=config.fast_mode, min_crop_area=config.min_crop_area,
        on_device=config.preprocess_on_device)
    with tf.device(devices.inputs_device()):
      next_batch = _photos(config, dataset, info, network,
                           preprocessing_fn).get_next
    finish = _finishing(preprocessing_fn, config.mixup_alpha, len(info.labels))
  network_fn = run_info.network_fn(info, config.optimizer.weight_decay,
                                   is_training=True)
  clone_fn = _clone_fn(network_fn, next_batch, finish, devices, config, info)
  policy = _batch_norm_policy(config, info, trainable_scopes, freeze_batch_norm)
  with slim.arg_scope([batch_norm], **policy), (
      conv_gradients.fast_full_windows(tf.get_default_graph())):
    clones = model_deploy.create_clones(devices, clone_fn)
  if info.quantize:
    quantization.rewrite_for_training(config.quantize_delay)
  summaries = set(tf.get_collection(tf.GraphKeys.SUMMARIES))
  variables = warm_start.variables_to_train(trainable_scopes)
  with tf.device(devices.optimizer_device()):
    regularization, frozen_loss = _regularization_losses(variables)
    train_op, synchronous, scalars = _make_train_op(
        config, clones, dataset.num_samples, global_step, first_step,
        variables, regularization)
  if config.replicas.all_reduce:
    _group(config.replicas).add_begin(tf.global_variables())
  scalars |= _clone_scalars(clones[0])
  for summary in _by_name(summaries | _clone_summaries(clones[0])):
    tf.add_to_collection(SUMMARIES_OF_RUN, summary)
  return TrainingGraph(
      train_op, tf.summary.merge(_by_name(scalars)),
      tf.summary.merge(tf.get_collection(SUMMARIES_OF_RUN)),
      global_step, synchronous, frozen_loss, _photos_per_step(config))


def _devices(replicas):
  """Returns the DeploymentConfig of a ReplicaConfig."""
  shared = {} if replicas.all_reduce else dict(
      replica_id=replicas.task, num_replicas=replicas.worker_replicas)
  return model_deploy.DeploymentConfig(
      num_clones=replicas.num_clones,
      clone_on_cpu=replicas.clone_on_cpu,
      num_ps_tasks=replicas.num_ps_tasks, balance_ps=replicas.balance_ps,
      **shared)


def _group(replicas):
  """Returns the all_reduce.Group of a ReplicaConfig."""
  return all_reduce.Group(replicas.worker_replicas, replicas.task)


def _by_name(tensors):
  return sorted(tensors, key=lambda tensor: tensor.name)


def _regularization_losses(trained):
  """Returns the regularization losses, and the sum of those of frozen weights.

  Args:
    trained: variables that training changes.

  Returns:
    List of scalars, and one of them or None: the sum of the losses of frozen
    weights. It only shifts the loss that is shown, so it is computed once, when
    the session has its weights, and then read from a variable that is in no
    collection and no checkpoint.
  """
  trained_ops = {v.op for v in trained}
  changing, frozen = [], []
  for loss in tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES):
    changes = trained_ops & set(frozen_backbone.ancestors([loss]))
    (changing if changes else frozen).append(loss)
  if not frozen:
    return changing, None
  kept = tf.Variable(0.0, trainable=False, collections=[], name='frozen_losses')
  # slim.learning.train runs this collection after restoring weights.
  compute = tf.assign(kept, tf.add_n(frozen), name='compute_frozen_losses').op
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, compute)
  tf.add_to_collection(FROZEN_LOSSES, compute)
  total = tf.identity(kept, name='frozen_loss')
  return changing + [total], total


def _batch_norm_policy(config, info, trainable_scopes, freeze):
  """Returns the batch norm arguments: inference-mode layers and decay."""
  scopes = None if config.train_frozen_batch_norm else trainable_scopes or None
  if freeze:
    scopes = []
  decay = config.batch_norm_decay
  if decay is None and info.checkpoint_path is None:
    decay = SCRATCH_BATCH_NORM_DECAY
  return dict(trainable_scopes=scopes, decay_override=decay)


def _photos(config, dataset, info, network, preprocessing_fn):
  """Returns an iterator over batches of this worker's photos."""
  batches = input_pipeline.training_batches(
      dataset, preprocessing_fn, info.image_size, config.batch_size,
      channels=network.channels,
      num_readers=config.num_readers,
      num_threads=config.num_preprocessing_threads,
      labels_offset=info.labels_offset,
      seed=config.seed,
      num_shards=config.replicas.worker_replicas,
      shard_index=config.replicas.task)
  iterator = tf.data.make_initializable_iterator(batches)
  # slim.learning.train runs this collection before the first step.
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
  return iterator


def _finishing(preprocessing_fn, alpha, num_classes):
  """Returns a function that distorts and mixes the photos of a batch."""

  def finish(batch):
    images = batch['image']
    if preprocessing_fn.distort_batch:
      images = preprocessing_fn.distort_batch(images, batch['numbers'])
    if not alpha:
      return dict(batch, image=images)
    images, targets = losses.mix_photos(
        images, slim.one_hot_encoding(batch['label'], num_classes), alpha)
    return dict(batch, image=images, targets=targets)

  return finish


def _clone_fn(network_fn, next_batch, finish, devices, config, info):
  """Returns a function that builds one clone's network and losses."""
  class_weights = losses.make_class_weights(config.class_weights, info,
                                            config.dataset_split_name)
  arguments = {}
  if (config.dropout_keep_prob is not None and
      nets_factory.takes_dropout(config.model_name)):
    arguments['dropout_keep_prob'] = config.dropout_keep_prob

  def clone():
    with tf.device(devices.inputs_device()):
      batch = next_batch()
      if finish and not config.preprocess_on_device:
        batch = finish(batch)
    if finish and config.preprocess_on_device:
      batch = finish(batch)
    if config.mixup_alpha and 'targets' not in batch:
      raise InputError(
          '--mixup_alpha=%g: the training input has no mixed labels; '
          'give --mixup_alpha=0, or --nocache_features' % config.mixup_alpha)
    logits, end_points = network_fn(batch['image'], **arguments)
    if 'targets' in batch:
      targets, labels = batch['targets'], tf.argmax(batch['targets'], 1)
    else:
      labels = batch['label']
      targets = slim.one_hot_encoding(labels, len(info.labels))
    aux_logits = (end_points.get('AuxLogits')
                  if config.checkpoint.has_aux_loss() else None)
    losses.add_losses(logits, aux_logits, targets, class_weights,
                      config.label_smoothing)
    # A mixed photo counts as the class with the larger share.
    hits = tf.equal(tf.argmax(logits, 1), labels)
    end_points['batch_accuracy'] = tf.reduce_mean(
        tf.cast(hits, tf.float32))
    end_points['photos'] = batch['image']
    return end_points

  return clone


def _photos_per_step(config):
  replicas = config.replicas
  together = 1
  if replicas.all_reduce:
    together = replicas.worker_replicas
  elif replicas.sync_replicas:
    together = replicas.replicas_to_aggregate
  return config.batch_size * replicas.num_clones * together


def _make_train_op(config, clones, num_samples, global_step, first_step,
                   variables, regularization):
  """Returns the train op, the SyncOptimizer or None, and scalar summaries."""
  replicas = config.replicas
  rate = optimizers.make_learning_rate(
      config.optimizer, num_samples, _photos_per_step(config),
      global_step - first_step, config.max_number_of_steps)
  optimizer = optimizers.make_optimizer(config.optimizer, rate)
  scaled = gradient_precision.used(config) == forward_pass.FLOAT16
  if scaled:
    optimizer = gradient_precision.LossScaleOptimizer(optimizer, NOT_FINITE)
  # Only of the first clone: the clones share their moving statistics.
  update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope)
  averages, averaged = None, None
  if config.moving_average_decay:
    averages = tf.train.ExponentialMovingAverage(
        config.moving_average_decay, global_step)
    averaged = _changing_variables(variables, update_ops)
  synchronous = None
  if replicas.sync_replicas:
    optimizer = synchronous = sync_optimizer.SyncOptimizer(
        optimizer, replicas_to_aggregate=replicas.replicas_to_aggregate,
        total_num_replicas=replicas.worker_replicas,
        variable_averages=averages,
        variables_to_average=averaged)
  elif averages:
    update_ops.append(averages.apply(averaged))
  total_loss, gradients = model_deploy.optimize_clones(
      clones, optimizer, regularization_losses=regularization,
      var_list=variables)
  if replicas.all_reduce:
    total_loss, *means = _group(replicas).mean(
        [total_loss] + [tf.convert_to_tensor(gradient)
                        for gradient, _ in gradients], clones[0].device)
    gradients = [(mean, variable)
                 for mean, (_, variable) in zip(means, gradients)]
  added = {tf.summary.scalar('total_loss', total_loss),
           tf.summary.scalar('learning_rate', rate)}
  norm = tf.global_norm([gradient for gradient, _ in gradients])
  # Gradients that are not finite are skipped where the loss is scaled.
  finite = tf.check_numerics(
      tf.stack([total_loss] if scaled else [total_loss, norm]), NOT_FINITE)
  if config.optimizer.clip_gradient_norm:
    gradients = optimizers.clip_gradients(
        gradients, config.optimizer.clip_gradient_norm, norm)
    added.add(tf.summary.scalar('gradient_norm', norm))
  if synchronous:
    # The check applies to the gradients alone: the other ops that the optimizer
    # creates, for its initialization, must not wait for a batch.
    checked = tf.tuple([gradient for gradient, _ in gradients],
                       control_inputs=[finite])
    update_ops.append(optimizer.apply_gradients(
        [(gradient, variable) for gradient, (_, variable) in zip(
            checked, gradients)], global_step=global_step))
  else:
    with tf.control_dependencies([finite]):
      update_ops.append(
          optimizer.apply_gradients(gradients, global_step=global_step))
  with tf.control_dependencies(update_ops):
    train_op = tf.identity(total_loss, name='train_op')
  return train_op, synchronous, added


def _changing_variables(trained, update_ops):
  """Returns the model's variables that training changes.

  Args:
    trained: variables that the optimizer changes.
    update_ops: other updates of each step, such as batch norm statistics.
  """
  changing = {v.op for v in trained}
  for update in update_ops:
    op = update if isinstance(update, tf.Operation) else update.op
    if op.type.startswith('Assign'):
      changing.add(op.inputs[0].op)
  return [v for v in slim.get_model_variables() if v.op in changing]


def _clone_scalars(clone):
  """Returns the summaries of the first clone's accuracy and losses."""
  added = {tf.summary.scalar('batch_accuracy', clone.outputs['batch_accuracy'])}
  for loss in tf.get_collection(tf.GraphKeys.LOSSES, clone.scope):
    added.add(tf.summary.scalar('losses/' + loss.op.name, loss))
  return added


def summarize_photos(photos: tf.Tensor) -> tf.Tensor:
  """Returns the summary of the first photos of a batch."""
  return tf.summary.image('photos', photos, max_outputs=_SUMMARY_PHOTOS,
                          collections=[])


def _clone_summaries(clone):
  """Returns summaries of the first clone's photos, end points and weights."""
  end_points = dict(clone.outputs)
  added = {summarize_photos(end_points.pop('photos'))}
  del end_points['batch_accuracy']
  for key, tensor in end_points.items():
    added.add(tf.summary.histogram('activations/' + key, tensor))
    added.add(tf.summary.scalar('sparsity/' + key, tf.nn.zero_fraction(tensor)))
  for variable in slim.get_model_variables():
    added.add(tf.summary.histogram(variable.op.name, variable))
  return added
