r"""Trains a network on a converted data set, from scratch or a checkpoint.

  python train_image_classifier.py \
    --train_dir=/tmp/flowers --dataset_dir=data --dataset_name=my_flower_5 \
    --model_name=inception_v4 --checkpoint_path=checkpoints/inception_v4.ckpt \
    --train_classifier_only --optimizer=adam --learning_rate=0.001

A train directory that holds a checkpoint goes on from it. Ctrl-C and SIGTERM
save a last checkpoint.
"""

import contextlib
import os

from absl import flags

import common_flags
from compat import tf
from datasets import dataset_factory
from errors import InputError
from nets import nets_factory
from preprocessing import preprocessing_factory
from runs import checkpoints, run_info
from training import graph as training_graph
from training import best, head_graph, head_loop, loop, run_lock, warm_start
from training import optimizer as optimizers


def define_flags():
  """Defines slim's flags with slim's defaults, and what is new."""
  common_flags.define_dataset_flags(split='train')
  common_flags.define_model_flags(nets_factory.NETWORKS)
  common_flags.define_session_flags()
  optimizers.define_flags()
  _define_run_flags()
  _define_cluster_flags()
  _define_fine_tuning_flags()
  _define_cache_flags()


def _define_run_flags():
  flags.DEFINE_string(
      'train_dir', '/tmp/tfmodel/', 'Folder of checkpoints and event files.')
  flags.DEFINE_integer(
      'batch_size', 32, 'Photos a step and clone.', lower_bound=1)
  flags.DEFINE_integer(
      'train_image_size', None,
      "Side of the network's input in pixels. None: the network's own.",
      lower_bound=1)
  flags.DEFINE_integer(
      'max_number_of_steps', None,
      'Global step to end at. None: goes on until it is stopped.',
      lower_bound=1)
  flags.DEFINE_integer(
      'log_every_n_steps', 10, 'Steps between two log lines.', lower_bound=1)
  flags.DEFINE_integer(
      'save_summaries_secs', 600, 'Seconds between two summaries.',
      lower_bound=1)
  flags.DEFINE_integer(
      'save_interval_secs', 600, 'Seconds between two checkpoints.',
      lower_bound=1)
  flags.DEFINE_integer(
      'num_readers', 4, 'TFRecord files that are read in turn.', lower_bound=1)
  flags.DEFINE_bool(
      'fast_mode', True,
      "Of Inception's preprocessing: resize bilinearly and change brightness "
      'and saturation only. --nofast_mode: one of four ways to resize, hue and '
      'contrast too, in one of four orders. Other preprocessings have no '
      'such choice.')
  flags.DEFINE_float(
      'label_smoothing', 0.0, 'How far the labels are smoothed.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Decay of moving averages of the variables. None: none are kept.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_float(
      'batch_norm_decay', None,
      'Decay of the moving statistics of batch norm. None: the published '
      'decay of the network with --checkpoint_path, %g without.' %
      training_graph.SCRATCH_BATCH_NORM_DECAY,
      lower_bound=0.0, upper_bound=1.0)


def _define_cluster_flags():
  flags.DEFINE_integer(
      'num_clones', 1, 'Copies of the network, one a graphics card.',
      lower_bound=1)
  flags.DEFINE_bool('clone_on_cpu', False, 'Put the copies on the CPU.')
  flags.DEFINE_integer(
      'worker_replicas', 1, 'Workers that train together.', lower_bound=1)
  flags.DEFINE_integer(
      'num_ps_tasks', 0,
      'Parameter servers. 0: the variables are kept by the worker.',
      lower_bound=0)
  flags.DEFINE_integer(
      'task', 0, 'Number of this worker; 0 writes the checkpoints.',
      lower_bound=0)
  flags.DEFINE_bool(
      'sync_replicas', False, 'Apply the gradients of the workers together.')
  flags.DEFINE_integer(
      'replicas_to_aggregate', 1,
      'Gradients that are applied together with --sync_replicas.',
      lower_bound=1)


def _define_fine_tuning_flags():
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Checkpoint, or folder with one, from which a new run starts. Not used '
      'when --train_dir has a checkpoint already.')
  flags.DEFINE_string(
      'checkpoint_exclude_scopes', None,
      'Comma-separated scopes that are not read from the checkpoint.')
  flags.DEFINE_string(
      'trainable_scopes', None,
      'Comma-separated scopes that are trained. None: all. Batch norm outside '
      'them runs in inference mode.')
  flags.DEFINE_bool(
      'train_frozen_batch_norm', False,
      'Leave batch norm outside --trainable_scopes in training mode, as slim '
      'does: its statistics then drift away from those of evaluation.')
  flags.DEFINE_bool(
      'train_classifier_only', False,
      "Take both scope flags, where not given, from the network's row in "
      'nets_factory: train the layers that depend on the classes. A scope flag '
      'that is given, be it empty, stays.')
  flags.DEFINE_bool(
      'ignore_missing_vars', False,
      'Variables that the checkpoint lacks keep their initial values.')


def _define_cache_flags():
  flags.DEFINE_bool(
      'cache_features', False,
      'Compute what the layers below --trainable_scopes make of each photo '
      'once, keep it on disk, and train from there; evaluate on the '
      'validation photos meanwhile.')
  flags.DEFINE_integer(
      'cache_views', 0,
      'Augmented views of each photo in the cache, beside the photo as '
      'evaluation sees it.', lower_bound=0)
  flags.DEFINE_string(
      'feature_cache_dir', None,
      'Folder of the cached features. None: DATASET_NAME_features in '
      '--dataset_dir.')
  flags.DEFINE_integer(
      'early_stop_evals', 20,
      'With --cache_features: evaluations without a better validation accuracy '
      'after which training ends. 0: it goes on.', lower_bound=0)


def _scopes(values, network):
  """Returns the scopes not to read from a checkpoint and those to train."""
  exclude = warm_start.split_scopes(values.checkpoint_exclude_scopes)
  train = warm_start.split_scopes(values.trainable_scopes)
  if values.train_classifier_only:
    if values.checkpoint_exclude_scopes is None:
      exclude = list(network.classifier_scopes)
    if values.trainable_scopes is None:
      train = list(network.classifier_scopes)
  return exclude, train


def _run_info(values, dataset, network):
  """Returns the facts of this run, and checks them against an earlier one."""
  labels = [dataset.labels_to_names[index]
            for index in range(values.labels_offset, dataset.num_classes)]
  if not labels:
    raise InputError('--labels_offset=%d leaves none of the %d classes' %
                     (values.labels_offset, dataset.num_classes))
  info = run_info.RunInfo(
      model_name=values.model_name,
      labels=labels,
      labels_offset=values.labels_offset,
      image_size=values.train_image_size or network.image_size,
      preprocessing_name=values.preprocessing_name or network.preprocessing,
      dataset_name=values.dataset_name,
      dataset_dir=os.path.abspath(values.dataset_dir),
      moving_average_decay=values.moving_average_decay,
      checkpoint_path=values.checkpoint_path or None)
  preprocessing_factory.get_preprocessing(info.preprocessing_name, True)
  old = run_info.load(values.train_dir)
  if old is None or checkpoints.newest(values.train_dir) is None:
    return info
  _check_same_run(values.train_dir, old, info)
  return info._replace(checkpoint_path=old.checkpoint_path)


def _check_same_run(train_dir, old, info):
  """Refuses to go on with a checkpoint of another network or other classes."""
  for field, flag in (('model_name', 'model_name'),
                      ('labels_offset', 'labels_offset'),
                      ('image_size', 'train_image_size'),
                      ('preprocessing_name', 'preprocessing_name')):
    before, now = getattr(old, field), getattr(info, field)
    if before != now:
      raise InputError(
          '%s holds a run with --%s=%s, now it is %s; give another '
          '--train_dir, or the flags of that run' %
          (train_dir, flag, before, now))
  if old.labels != info.labels:
    raise InputError(
        '%s holds a run on the classes %s and --dataset_name=%s has %s; give '
        'another --train_dir' %
        (train_dir, checkpoints.name_some(old.labels), info.dataset_name,
         checkpoints.name_some(info.labels)))


def _init_fn(values, network, exclude_scopes):
  """Returns what reads the published checkpoint, None where none is read."""
  newest = checkpoints.newest(values.train_dir)
  if newest is None:
    if not values.checkpoint_path:
      tf.logging.info('Training from scratch')
      return None
    return warm_start.init_fn(
        values.checkpoint_path, exclude_scopes, values.ignore_missing_vars,
        exclude_hint=','.join(network.classifier_scopes))
  tf.logging.info('Resuming from %s', newest)
  checkpoints.check_fits(
      newest, {v.op.name: v for v in tf.global_variables()},
      'give the --optimizer, --trainable_scopes and --moving_average_decay '
      'that %s was trained with, or another --train_dir' % values.train_dir)
  if values.checkpoint_path:
    tf.logging.info(
        'Ignoring --checkpoint_path because a checkpoint already exists in %s',
        values.train_dir)
  return None


def _train(values, is_chief):
  """Builds the graph and trains."""
  dataset = dataset_factory.get_dataset(
      values.dataset_name, values.dataset_split_name, values.dataset_dir)
  network = nets_factory.get_network(values.model_name)
  exclude_scopes, trainable_scopes = _scopes(values, network)
  info = _run_info(values, dataset, network)
  if values.cache_features:
    _train_head(values, dataset, info, network, exclude_scopes,
                trainable_scopes)
    return
  with tf.Graph().as_default():
    graph = training_graph.build_from_flags(
        values, dataset, info, network, trainable_scopes)
    init_fn = _init_fn(values, network, exclude_scopes) if is_chief else None
    if is_chief:
      run_info.save(values.train_dir, info)
    loop.run(
        graph, values.train_dir, master=values.master, is_chief=is_chief,
        init_fn=init_fn,
        number_of_steps=values.max_number_of_steps,
        log_every_n_steps=values.log_every_n_steps,
        save_summaries_secs=values.save_summaries_secs,
        save_interval_secs=values.save_interval_secs,
        session_config=common_flags.session_config(values))


def _train_head(values, dataset, info, network, exclude_scopes,
                trainable_scopes):
  """Trains the layers after the frozen ones on features of the photos."""
  datasets = {head_loop.TRAIN: dataset}
  datasets[head_loop.VALIDATION] = dataset_factory.get_dataset(
      values.dataset_name, 'validation', values.dataset_dir)
  with tf.Graph().as_default():
    graph = head_graph.build_from_flags(
        values, datasets, info, network, trainable_scopes)
    init_fn = _init_fn(values, network, exclude_scopes)
    run_info.save(values.train_dir, info)
    newest = checkpoints.newest(values.train_dir)
    progress = best.Progress(
        values.train_dir, info, tf.train.Saver(max_to_keep=1),
        graph.training.global_step,
        checkpoints.read_global_step(newest) if newest else 0)
    make_caches = head_loop.caches_of(
        graph, datasets,
        values.feature_cache_dir or head_loop.default_cache_dir(
            values.dataset_dir, values.dataset_name),
        dict(network=info.model_name, preprocessing=info.preprocessing_name,
             image_size=info.image_size, labels_offset=info.labels_offset),
        values.cache_views)
    options = head_loop.Options(
        values.batch_size, values.log_every_n_steps,
        values.save_summaries_secs, values.max_number_of_steps,
        values.early_stop_evals, None)
    writer = tf.summary.FileWriter(values.train_dir, tf.get_default_graph())
    loop.run(
        graph.training._replace(summary_op=None), values.train_dir,
        init_fn=init_fn,
        number_of_steps=values.max_number_of_steps,
        log_every_n_steps=values.log_every_n_steps,
        save_summaries_secs=values.save_summaries_secs,
        save_interval_secs=values.save_interval_secs,
        session_config=common_flags.session_config(values),
        make_step=lambda stop: head_loop.HeadStep(
            stop, graph, make_caches, progress, options, writer))
    writer.close()


def main(_):
  """Trains as the flags say, from a checkpoint, a former run or scratch."""
  values = flags.FLAGS
  common_flags.require(values, 'dataset_dir', 'train_dir')
  is_chief = values.task == 0
  newest = checkpoints.newest(values.train_dir)
  limit = values.max_number_of_steps
  if newest and limit and checkpoints.read_global_step(newest) >= limit:
    tf.logging.info('%s has reached --max_number_of_steps=%d: nothing to do',
                    newest, limit)
    return
  lock = (run_lock.hold(values.train_dir) if is_chief
          else contextlib.nullcontext())
  with lock:
    _train(values, is_chief)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
