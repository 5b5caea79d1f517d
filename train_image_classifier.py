r"""Trains a network on a converted data set, from scratch or a checkpoint.

  python train_image_classifier.py \
    --train_dir=/tmp/flowers --dataset_dir=data --dataset_name=my_flower_5 \
    --model_name=inception_v4 --checkpoint_path=checkpoints/inception_v4.ckpt \
    --train_classifier_only --optimizer=adam --learning_rate=0.001

If the train directory has a checkpoint, training resumes from it. Ctrl-C and
SIGTERM save a last checkpoint.
"""

import contextlib
import functools
import os

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from compat import tf
from datasets import dataset_factory, split_files
from deployment import all_reduce, cluster, hosts, tf_config
from nets import layers_head, nets_factory
from runs import checkpoints, run_info
from runtime import forward_pass
from training import (
  checkpoint_list,
  cluster_step,
  finetune_all,
  head_run,
  last_blocks,
  loop,
  plain_run,
  run_lock,
  start,
)
from training import config as train_config
from training import graph as training_graph
from training import optimizer as optimizers


def define_flags():
  """Defines slim's flags, with slim's defaults, and the new ones."""
  common_flags.define_dataset_flags(split='train')
  common_flags.define_model_flags(nets_factory.NETWORKS)
  common_flags.define_session_flags()
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)
  optimizers.define_flags()
  _define_run_flags()
  _define_photo_and_label_flags()
  _define_replica_flags()
  _define_cluster_flags()
  _define_fine_tuning_flags()
  _define_head_flags()
  _define_cache_flags()


def _define_run_flags():
  flags.DEFINE_string(
      'train_dir', '/tmp/tfmodel/', 'Folder of checkpoints and event files.')
  flags.DEFINE_integer(
      'batch_size', 32, 'Photos per step and clone.', lower_bound=1)
  flags.DEFINE_integer(
      'train_image_size', None,
      "Side of the network's input in pixels. None: the network's own.",
      lower_bound=1)
  flags.DEFINE_integer(
      'max_number_of_steps', None,
      'Global step to end at. None: until it is stopped, or ended by '
      '--early_stop_evals.',
      lower_bound=1)
  flags.DEFINE_integer(
      'seed', None,
      'Seed of all random numbers. None: each run differs.', lower_bound=0)
  flags.DEFINE_integer(
      'log_every_n_steps', 10, 'Steps between two log lines.', lower_bound=1)
  flags.DEFINE_integer(
      'save_summaries_secs', 600,
      'Seconds between two summaries of photos, activations and weights; those '
      'of losses, learning rate and accuracy are as frequent as log lines.',
      lower_bound=1)
  flags.DEFINE_integer(
      'save_interval_secs', 600, 'Seconds between two checkpoints.',
      lower_bound=1)
  flags.DEFINE_integer(
      'num_readers', 4, 'TFRecord files that are read in turn.', lower_bound=1)
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Decay of moving averages of the trained variables. None: no averages.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_float(
      'batch_norm_decay', None,
      'Decay of the moving statistics of batch norm. None: the published '
      'decay of the network with --checkpoint_path, %g without.' %
      training_graph.SCRATCH_BATCH_NORM_DECAY,
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_integer(
      'quantize_delay', -1,
      'Global step from which training simulates 8-bit arithmetic, in all '
      'layers; evaluation and exports then do too. Negative: never. TensorFlow '
      '1.15 only.')


def _define_photo_and_label_flags():
  flags.DEFINE_bool(
      'fast_mode', True,
      "In Inception's preprocessing, resize bilinearly and change only "
      'brightness and saturation. --nofast_mode: one of four resize methods; '
      'hue and contrast too, in one of four orders. Other preprocessings '
      'ignore it.')
  flags.DEFINE_bool(
      'preprocess_on_device', False,
      'In training on photos, only crop and resize them on the processor, '
      'rounded to 8 bits; flip and recolour them in batches on the device of '
      'the network. For graphics cards that wait for input. Preprocessings '
      'inception and vgg only.')
  flags.DEFINE_float(
      'min_crop_area', None,
      "Least share of the photo's area in the random crop of Inception's "
      'preprocessing. None: 0.05 as in slim, and 0.7 with --cache_views and '
      '--finetune_all_steps. Other preprocessings ignore it.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_float(
      'label_smoothing', 0.0,
      'Share of each label that is spread over all classes; 0.1 is usual.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_float(
      'dropout_keep_prob', None,
      'Share of the features before the classifier that dropout keeps in each '
      "step. None: the network's own, 0.999 for MobileNet V1, 0.8 for "
      'Inception. MobileNet V2 and NASNet always use their own; ResNet has no '
      'dropout.',
      lower_bound=0.01, upper_bound=1.0)
  flags.DEFINE_string(
      'class_weights', None,
      'Loss weights of the classes: comma-separated numbers in the order of '
      'the labels; or balanced, so that all classes count equally and photos '
      'of rare classes more. None: all weights are 1.')
  flags.DEFINE_float(
      'mixup_alpha', 0.0,
      'Mix the photos of a batch and their labels in pairs, with shares drawn '
      'from Beta(alpha, alpha); 0.2 is usual. 0: no mixing.',
      lower_bound=0.0)


def _define_replica_flags():
  flags.DEFINE_integer(
      'num_clones', 1, 'Copies of the network, one per GPU.',
      lower_bound=1)
  flags.DEFINE_bool('clone_on_cpu', False, 'Put the copies on the CPU.')
  flags.DEFINE_integer(
      'worker_replicas', 1,
      'Workers that train together; set by --worker_hosts.', lower_bound=1)
  flags.DEFINE_integer(
      'num_ps_tasks', 0,
      'Parameter servers; set by --ps_hosts. 0: the worker keeps the '
      'variables.',
      lower_bound=0)
  flags.DEFINE_bool(
      'balance_ps', True,
      'Distribute the variables over the parameter servers by size in bytes. '
      '--nobalance_ps: round-robin, as slim does.')
  flags.DEFINE_integer(
      'task', 0,
      'Index of this task in its job; worker 0 writes the checkpoints.',
      lower_bound=0)
  flags.DEFINE_bool(
      'sync_replicas', False, 'Apply the gradients of the workers together.')
  flags.DEFINE_integer(
      'replicas_to_aggregate', 1,
      'Number of gradients applied together with --sync_replicas. With '
      '--worker_hosts the default is the number of workers.',
      lower_bound=1)
  flags.DEFINE_bool(
      'all_reduce', False,
      'Without parameter servers: each worker has the variables, and the '
      'workers exchange their gradients, which are applied together. Several '
      'workers on a host take one card each (--num_clones cards).')


def _define_cluster_flags():
  flags.DEFINE_string(
      'ps_hosts', None,
      'Comma-separated host:port of each parameter server. None: from the '
      'environment variable TF_CONFIG, with the next three, if it is set.')
  flags.DEFINE_string(
      'worker_hosts', None,
      'Comma-separated host:port of each worker; the first is the chief.')
  flags.DEFINE_enum(
      'job_name', None, hosts.JOBS,
      'Job of this process with --ps_hosts and --worker_hosts; --task is its '
      'index.')
  flags.DEFINE_float(
      'startup_timeout', 120.0,
      'Seconds within which the other tasks of the cluster must answer.',
      lower_bound=0.1)


def _define_fine_tuning_flags():
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Checkpoint or train directory that a new run starts from. Ignored if '
      '--train_dir already has a checkpoint: training resumes from its newest.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  flags.DEFINE_string(
      'checkpoint_exclude_scopes', None,
      'Comma-separated scopes that are not restored from the checkpoint.')
  flags.DEFINE_string(
      'trainable_scopes', None,
      'Comma-separated scopes that are trained. None: all. Batch norm outside '
      'them runs in inference mode.')
  flags.DEFINE_bool(
      'train_frozen_batch_norm', False,
      'Run batch norm outside --trainable_scopes in training mode, as slim '
      'does: its statistics then drift away from those of evaluation.')
  flags.DEFINE_bool(
      'train_classifier_only', False,
      'Train only the layers that depend on the classes: each scope flag that '
      "is not given is taken from the network's row in nets_factory. A given "
      'flag, even an empty one, is kept.')
  flags.DEFINE_bool(
      'train_aux_classifier', None,
      'Train the auxiliary classifier, which only training uses, as well. '
      'Default: no if the scopes are those of --train_classifier_only, because '
      'it cannot change frozen layers; else yes.')
  flags.DEFINE_bool(
      'ignore_missing_vars', False,
      'Variables that the checkpoint lacks keep their initial values.')


def _define_head_flags():
  flags.DEFINE_enum(
      'head', layers_head.LOGITS, start.HEADS,
      "Classifier to train. logits: the network's own. layers: one linear "
      'layer over the pooled outputs of several layers, fitted exactly to '
      'cached features; its regularization is chosen by cross-validation, and '
      'optimizer, learning rate and --max_number_of_steps do not matter. '
      'layers+kernel: its mean with kernel ridge regression. auto: that of the '
      'run that is resumed; else layers with --cache_features and '
      '--train_classifier_only, if no other flag contradicts it.')
  flags.DEFINE_bool(
      'flip_average', False,
      'With --head=layers or layers+kernel: average the features of each photo '
      'and of its mirror image, in training and in use. Forward passes take '
      'twice as long.')


def _define_cache_flags():
  flags.DEFINE_bool(
      'cache_features', False,
      'Compute the features of each photo below --trainable_scopes once, cache '
      'them on disk, and train on them; evaluate on the validation photos '
      'during training.')
  flags.DEFINE_integer(
      'cache_views', 0,
      'Also cache this many augmented views of each photo, besides the photo '
      'as preprocessed for evaluation.', lower_bound=0)
  flags.DEFINE_string(
      'feature_cache_dir', None,
      'Folder of the cached features. None: DATASET_NAME_features in '
      '--dataset_dir.')
  flags.DEFINE_integer(
      'early_stop_evals', 20,
      'Evaluations without a better validation accuracy after which training '
      'ends. 0: never.', lower_bound=0)
  flags.DEFINE_integer(
      'evaluate_every_n_steps', None,
      'Steps from one evaluation on the validation photos to the next, in this '
      'process; the best checkpoint goes to best/ in --train_dir. None: with '
      '--cache_features every epoch, else not at all.', lower_bound=1)
  flags.DEFINE_integer(
      'finetune_all_steps', 0,
      'Steps to fine-tune all layers afterwards, from the best checkpoint, at '
      '--finetune_all_learning_rate. 0: none.', lower_bound=0)
  flags.DEFINE_float(
      'finetune_all_learning_rate', 0.00003,
      'Initial learning rate of --finetune_all_steps, with cosine decay to 0.',
      lower_bound=0.0)
  flags.DEFINE_integer(
      'train_last_blocks', 0,
      'Afterwards train the last blocks of the network too, this many, from '
      'cached activations of the layer below, in 16 bits. A block is what '
      "follows a tap in the network's row in nets/networks.py. 0: none.",
      lower_bound=0)
  flags.DEFINE_integer(
      'last_blocks_epochs', 10,
      'Passes over the training photos with --train_last_blocks.',
      lower_bound=1)
  flags.DEFINE_float(
      'last_blocks_learning_rate', 0.00003,
      'Initial learning rate of --train_last_blocks, with cosine decay to 0.',
      lower_bound=0.0)


def config_from_flags():
  """Returns the TrainConfig of the flags."""
  values = flags.FLAGS
  return train_config.make(values.flag_values_dict(),
                           common_flags.given(values))


def main(_):
  """Trains from scratch or a checkpoint, or resumes a run, by the flags."""
  values = flags.FLAGS
  orchestrated = os.environ.get('TF_CONFIG')
  tf_config.set_flags(values, orchestrated)
  status = _main(values)
  # An orchestrator starts a task again unless its status is 0.
  return 0 if status == cluster.STOPPED_STATUS and not orchestrated else status


def _main(values):
  """Trains or serves variables; returns the exit status."""
  config = config_from_flags()
  member = cluster.find_member(values.ps_hosts, values.worker_hosts,
                               values.job_name, values.task, values.master,
                               values.all_reduce)
  if member:
    config = train_config.with_task_counts(config, member.cluster)
    if member.task.job == 'ps':
      return cluster.serve(member, values.startup_timeout)
  common_flags.require(values, 'dataset_dir', 'train_dir')
  session_config = common_flags.session_config(values)
  if member:
    return _run_as_worker(config, member, session_config,
                          values.startup_timeout)
  if values.all_reduce:
    if not os.environ.get('TF_CONFIG'):
      raise InputError(
          '--all_reduce needs several workers, one per card: NUM_WORKERS=2 '
          'scripts/run_cluster.sh --all_reduce, --worker_hosts or TF_CONFIG')
    config = config._replace(replicas=config.replicas._replace(
        all_reduce=False))
  finished = _run(config, session_config, loop.TrainStep)
  return 0 if finished else cluster.STOPPED_STATUS


def _run_as_worker(config, member, session_config, timeout):
  """Trains in this process, as a worker of a cluster.

  Args:
    config: TrainConfig.
    member: the cluster.Member of this process.
    session_config: tf.ConfigProto.
    timeout: seconds within which the other tasks must answer.

  Returns:
    The exit status: 0, or cluster.STOPPED_STATUS.
  """
  check_ways(config)
  replicas = config.replicas
  needed = 0
  if replicas.sync_replicas:
    needed = min(replicas.replicas_to_aggregate, replicas.worker_replicas)
  if replicas.all_reduce:
    all_reduce.take_cards(member, replicas.num_clones)
    session_config = all_reduce.session_config(session_config, replicas.task)
  worker = cluster.Worker(member, session_config, timeout, needed)
  with worker.ending_all():
    config = config._replace(replicas=replicas._replace(master=worker.target))
    make_step = functools.partial(cluster_step.AllReduceStep, worker)
    if not replicas.all_reduce:
      make_step = functools.partial(
          cluster_step.ClusterStep, worker, config.log_every_n_steps,
          replicas.sync_replicas)
    finished = _run(config, session_config, make_step)
    worker.was_stopped |= not finished
  return cluster.STOPPED_STATUS if worker.was_stopped else 0


def _run(config, session_config, make_step):
  """Trains in this process, alone or as a worker.

  Args:
    config: TrainConfig.
    session_config: tf.ConfigProto.
    make_step: function of a StopRequest that returns the TrainStep.

  Returns:
    True if training finished, False if it was asked to stop.
  """
  train_dir, task = config.train_dir, config.replicas.task
  trains_more_layers = (config.finetune_all_steps or
                        config.train_last_blocks or
                        finetune_all.has_begun(train_dir))
  # With all-reduce, other workers may have no checkpoints, or old ones.
  decides = task == 0 or not config.replicas.all_reduce
  has_all_steps = decides and _has_all_steps(config)
  if config.replicas.all_reduce:
    check_ways(config)  # Before it waits for the other workers.
    has_all_steps = all_reduce.Group(
        config.replicas.worker_replicas, task).ask_chief(
            has_all_steps, config.replicas.master, session_config)
  if has_all_steps and not trains_more_layers:
    tf.logging.info('%s has reached --max_number_of_steps=%d: nothing to do',
                    checkpoints.newest(train_dir) if decides else 'The chief',
                    config.max_number_of_steps)
    return True
  check_ways(config)
  if config.replicas.num_ps_tasks:
    session_config = cluster.session_config(session_config, task)
  is_chief = task == 0
  with contextlib.ExitStack() as stack:
    if is_chief:
      stack.enter_context(loop.full_disk_as_advice(train_dir))
      stack.enter_context(run_lock.hold(train_dir))
      checkpoint_list.repair(train_dir)
    return _train(start.make_run(config, _datasets(config, is_chief), is_chief,
                          session_config), make_step, has_all_steps)


def _train(run, make_step, has_all_steps):
  """Trains the layers that the flags name, then more layers if asked to.

  Returns:
    True if training finished, False if it was asked to stop.
  """
  config = run.config
  former = finetune_all.read(config.train_dir)
  number = former.last_blocks if former else config.train_last_blocks
  blocks = last_blocks.find(run, number) if number else None
  if former is None:
    if has_all_steps:
      ended = True
    elif config.cache_features:
      ended = head_run.train(run)
    else:
      ended = plain_run.train(
          run, config.evaluate_every_n_steps, config.max_number_of_steps,
          make_step=make_step)
    if not (ended and (config.finetune_all_steps or blocks)):
      return ended
  if blocks:
    return last_blocks.train(run, blocks)
  return finetune_all.train(run, config.finetune_all_steps)


def check_ways(config):
  """Checks that the flags work together.

  Args:
    config: TrainConfig.

  Raises:
    InputError: they do not; names them.
  """
  if config.replicas.worker_replicas > 1 or config.replicas.num_ps_tasks:
    _check_cluster_ways(config)
  last_blocks.check(config)
  ends = config.head in (layers_head.LAYERS, layers_head.KERNEL) or (
      config.max_number_of_steps) or config.cache_features and (
      config.early_stop_evals) or config.early_stop_evals and (
          config.evaluate_every_n_steps)
  for name in ('finetune_all_steps', 'train_last_blocks'):
    if getattr(config, name) and not (
        ends or finetune_all.has_begun(config.train_dir)):
      raise InputError(
          '--%s=%d begins after training of the classifier, which has no end: '
          'give --max_number_of_steps, or --evaluate_every_n_steps with '
          '--early_stop_evals' % (name, getattr(config, name)))


def _check_cluster_ways(config):
  """Checks that no flag needs single-process training.

  Raises:
    InputError: a flag does; names it, and what to do.
  """
  if config.replicas.all_reduce and config.replicas.sync_replicas:
    raise InputError('--all_reduce is synchronous: omit --sync_replicas')
  count = '--worker_replicas=%d, --num_ps_tasks=%d' % (
      config.replicas.worker_replicas, config.replicas.num_ps_tasks)
  for name in ('evaluate_every_n_steps', 'finetune_all_steps',
               'train_last_blocks'):
    if getattr(config, name):
      raise InputError(
          '--%s=%d needs a single worker, got %s; run_eval.sh can evaluate '
          'during any training' % (name, getattr(config, name), count))
  if config.cache_features:
    raise InputError(
        '--cache_features needs a single worker, got %s: give '
        '--nocache_features to train on the photos, or train without a cluster'
        % count)
  if finetune_all.has_begun(config.train_dir):
    raise InputError(
        '%s holds a run with --finetune_all_steps, which needs a single '
        'worker, got %s: give another --train_dir' % (config.train_dir, count))


def _has_all_steps(config):
  info = run_info.load(config.train_dir)
  if (info and run_info.head_of(info) and
      not finetune_all.has_begun(config.train_dir)):
    return False  # Its path ends by itself.
  newest = checkpoints.newest(config.train_dir)
  limit = config.max_number_of_steps
  return bool(newest and limit and
              checkpoints.read_global_step(newest) >= limit)


def _datasets(config, is_chief):
  """Returns {split: slim Dataset}: 'train', and 'validation' if needed."""
  name, folder = config.dataset_name, config.dataset_dir
  datasets = {'train': dataset_factory.get_dataset(
      name, config.dataset_split_name, folder)}
  has_photos = 'validation' in split_files.find(name, folder)
  is_asked = config.evaluate_every_n_steps is not None
  if is_asked and not has_photos:
    raise InputError(
        '--evaluate_every_n_steps=%d: data set %r in %s has no validation '
        'photos; convert it with --percent_validation, or omit the flag' %
        (config.evaluate_every_n_steps, name, folder))
  if is_chief and has_photos and (is_asked or config.cache_features):
    datasets['validation'] = dataset_factory.get_dataset(
        name, 'validation', folder)
  return datasets


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
