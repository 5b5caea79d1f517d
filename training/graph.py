"""The training graph: batches, clones, losses, gradients, summaries."""

import collections

from compat import slim, tf
from datasets import input_pipeline
from deployment import model_deploy
from nets import nets_factory
from nets.batch_norm import batch_norm
from preprocessing import preprocessing_factory
from training import frozen_trunk, warm_start
from training import optimizer as optimizers

# Weight of InceptionV4's auxiliary loss, as slim has it. (Szegedy et al. 2014,
# arXiv 1409.4842, has 0.3 for GoogLeNet's two.)
_AUX_LOSS_WEIGHT = 0.4

# The published 0.9997 averages over some 3,000 steps: right to go on from a
# published checkpoint, while a network trained from scratch is evaluated on its
# initial statistics for thousands of steps.
SCRATCH_BATCH_NORM_DECAY = 0.99

# Photos shown in TensorBoard at each summary.
_SUMMARY_PHOTOS = 3

# Starts the message of a step whose loss or gradient is no number.
NOT_FINITE = 'The loss or its gradient is not finite'

# The graph's collection of the run's summaries.
SUMMARIES_OF_RUN = 'summaries_of_run'

# train_op: tensor of the total loss that applies the gradients when run.
# sync_optimizer: None without --sync_replicas. frozen_loss: scalar, the losses
# of the weights that are not trained; None where all are.
TrainingGraph = collections.namedtuple(
    'TrainingGraph', 'train_op summary_op global_step sync_optimizer '
    'frozen_loss')


def build_from_flags(values, dataset, info, network, trainable_scopes,
                     next_batch=None):
  """Builds the training graph in the default graph.

  Args:
    values: the parsed flags.
    dataset: slim Dataset of the training photos.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    trainable_scopes: scopes to train, [] for all.
    next_batch: function that gives a clone its dict of tensors image and
      label; None: augmented photos of the data set.

  Returns:
    A TrainingGraph.

  Raises:
    InputError: a trainable scope matches nothing.
  """
  config = model_deploy.DeploymentConfig(
      num_clones=values.num_clones,
      clone_on_cpu=values.clone_on_cpu,
      replica_id=values.task,
      num_replicas=values.worker_replicas,
      num_ps_tasks=values.num_ps_tasks)
  with tf.device(config.variables_device()):
    global_step = tf.train.get_or_create_global_step()
  if next_batch is None:
    with tf.device(config.inputs_device()):
      next_batch = _photos_from_flags(values, dataset, info, network).get_next
  network_fn = nets_factory.get_network_fn(
      info.model_name, num_classes=len(info.labels),
      weight_decay=values.weight_decay, is_training=True)
  clone_fn = _clone_fn(network_fn, next_batch, config, values, len(info.labels))
  with slim.arg_scope([batch_norm], **_batch_norm_policy(
      values, info, trainable_scopes)):
    clones = model_deploy.create_clones(config, clone_fn)
  summaries = set(tf.get_collection(tf.GraphKeys.SUMMARIES))
  variables = warm_start.variables_to_train(trainable_scopes)
  with tf.device(config.optimizer_device()):
    regularization, frozen_loss = _regularization_losses(variables)
    train_op, sync_optimizer, added = _train_op_from_flags(
        values, clones, config, dataset.num_samples, global_step, variables,
        regularization)
  summaries |= added | _clone_summaries(clones[0])
  for summary in sorted(summaries, key=lambda s: s.name):
    tf.add_to_collection(SUMMARIES_OF_RUN, summary)
  return TrainingGraph(
      train_op, tf.summary.merge(tf.get_collection(SUMMARIES_OF_RUN)),
      global_step, sync_optimizer, frozen_loss)


def _regularization_losses(trained):
  """Returns the losses of the weights, and the sum of those that never change.

  Args:
    trained: variables that training changes.

  Returns:
    List of scalars, and one of them or None: the losses of frozen weights
    added up. They only shift the loss that is shown; one who runs many steps
    may compute the sum once and feed it.
  """
  trained_ops = {v.op for v in trained}
  changing, frozen = [], []
  for loss in tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES):
    changes = trained_ops & set(frozen_trunk.ancestors([loss]))
    (changing if changes else frozen).append(loss)
  if not frozen:
    return changing, None
  total = tf.placeholder_with_default(tf.add_n(frozen), [], 'frozen_loss')
  return changing + [total], total


def _batch_norm_policy(values, info, trainable_scopes):
  """Which batch norm layers run in inference mode, and which decay they use."""
  scopes = None if values.train_frozen_batch_norm else trainable_scopes or None
  decay = values.batch_norm_decay
  if decay is None and info.checkpoint_path is None:
    decay = SCRATCH_BATCH_NORM_DECAY
  return dict(trainable_scopes=scopes, decay_override=decay)


def _photos_from_flags(values, dataset, info, network):
  """Returns an iterator over batches of this worker's photos."""
  batches = input_pipeline.training_batches(
      dataset,
      preprocessing_factory.get_preprocessing(
          info.preprocessing_name, is_training=True,
          fast_mode=values.fast_mode),
      info.image_size, values.batch_size,
      channels=network.channels,
      num_readers=values.num_readers,
      num_threads=values.num_preprocessing_threads,
      labels_offset=info.labels_offset,
      num_shards=values.worker_replicas,
      shard_index=values.task)
  iterator = tf.data.make_initializable_iterator(batches)
  # slim.learning.train runs this collection before the first step.
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
  return iterator


def _clone_fn(network_fn, next_batch, config, values, num_classes):
  """Returns the function that builds one clone's network and losses."""

  def clone():
    with tf.device(config.inputs_device()):
      batch = next_batch()
    logits, end_points = network_fn(batch['image'])
    one_hot = slim.one_hot_encoding(batch['label'], num_classes)
    if 'AuxLogits' in end_points:
      tf.losses.softmax_cross_entropy(
          one_hot, end_points['AuxLogits'], weights=_AUX_LOSS_WEIGHT,
          label_smoothing=values.label_smoothing, scope='aux_loss')
    tf.losses.softmax_cross_entropy(
        one_hot, logits, weights=1.0, label_smoothing=values.label_smoothing)
    hits = tf.equal(tf.argmax(logits, 1), batch['label'])
    end_points['batch_accuracy'] = tf.reduce_mean(
        tf.cast(hits, tf.float32))
    end_points['photos'] = batch['image']
    return end_points

  return clone


def _train_op_from_flags(values, clones, config, num_samples, global_step,
                         variables, regularization):
  """Returns the train op, the synchronous optimizer or None, and summaries."""
  photos_a_step = values.batch_size * config.num_clones
  if values.sync_replicas:
    photos_a_step *= values.replicas_to_aggregate
  rate = optimizers.learning_rate_from_flags(
      values, num_samples, photos_a_step, global_step)
  optimizer = optimizers.optimizer_from_flags(values, rate)
  averages, averaged = None, slim.get_model_variables()
  if values.moving_average_decay:
    averages = tf.train.ExponentialMovingAverage(
        values.moving_average_decay, global_step)
  # Of the first clone alone: the clones share their moving statistics.
  update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope)
  sync_optimizer = None
  if values.sync_replicas:
    optimizer = sync_optimizer = tf.train.SyncReplicasOptimizer(
        optimizer, replicas_to_aggregate=values.replicas_to_aggregate,
        total_num_replicas=values.worker_replicas,
        variable_averages=averages,
        variables_to_average=averaged if averages else None)
  elif averages:
    update_ops.append(averages.apply(averaged))
  total_loss, gradients = model_deploy.optimize_clones(
      clones, optimizer, regularization_losses=regularization,
      var_list=variables)
  added = {tf.summary.scalar('total_loss', total_loss),
           tf.summary.scalar('learning_rate', rate)}
  norm = tf.global_norm([gradient for gradient, _ in gradients])
  finite = tf.check_numerics(tf.stack([total_loss, norm]), NOT_FINITE)
  with tf.control_dependencies([finite]):
    update_ops.append(
        optimizer.apply_gradients(gradients, global_step=global_step))
  with tf.control_dependencies(update_ops):
    train_op = tf.identity(total_loss, name='train_op')
  return train_op, sync_optimizer, added


def _clone_summaries(clone):
  """Returns the summaries of the first clone's end points, losses, weights."""
  end_points = dict(clone.outputs)
  photos = end_points.pop('photos')
  added = {
      tf.summary.image('photos', photos, max_outputs=_SUMMARY_PHOTOS),
      tf.summary.scalar('batch_accuracy', end_points.pop('batch_accuracy')),
  }
  for key, tensor in end_points.items():
    added.add(tf.summary.histogram('activations/' + key, tensor))
    added.add(tf.summary.scalar('sparsity/' + key, tf.nn.zero_fraction(tensor)))
  for loss in tf.get_collection(tf.GraphKeys.LOSSES, clone.scope):
    added.add(tf.summary.scalar('losses/' + loss.op.name, loss))
  for variable in slim.get_model_variables():
    added.add(tf.summary.histogram(variable.op.name, variable))
  return added
