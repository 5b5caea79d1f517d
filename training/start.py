"""Start of a run: from scratch, from a checkpoint, or resumed."""

import collections
import json
import os

from common import files
from common.errors import InputError
from compat import tf
from nets import nets_factory
from preprocessing import preprocessing_factory
from runs import checkpoints, run_info
from training import best, warm_start

FLAGS_FILE = 'flags.json'

# values: the parsed flags. datasets: {split: slim Dataset}. info: RunInfo.
# network: the Network row of info.model_name. exclude_scopes: not read from a
# published checkpoint. trainable_scopes: trained, [] for all.
# is_chief: whether this worker writes checkpoints. session_config:
# tf.ConfigProto.
Run = collections.namedtuple(
    'Run', 'values datasets info network exclude_scopes trainable_scopes '
    'is_chief session_config')


def run_from_flags(values, datasets, is_chief=True, session_config=None):
  """Returns the Run that the flags ask for.

  Args:
    values: the parsed flags.
    datasets: {split: slim Dataset}; 'train' has the training photos.
    is_chief: whether this worker writes checkpoints.
    session_config: tf.ConfigProto.

  Raises:
    InputError: a flag is wrong, or the train directory holds another run.
  """
  network = nets_factory.get_network(values.model_name)
  exclude, train = _scopes(values, network)
  info = _run_info(values, datasets['train'], network)
  return Run(values, datasets, info, network, exclude, train, is_chief,
             session_config)


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
  """Refuses to resume a run of another network or other classes."""
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
  if old.moving_average_decay and not info.moving_average_decay:
    raise InputError(
        '%s holds a run with --moving_average_decay=%g: give it again, or '
        'another --train_dir' % (train_dir, old.moving_average_decay))
  if old.labels != info.labels:
    raise InputError(
        '%s holds a run on the classes %s and --dataset_name=%s has %s; give '
        'another --train_dir' %
        (train_dir, checkpoints.name_some(old.labels), info.dataset_name,
         checkpoints.name_some(info.labels)))


def init_fn(run):
  """Returns the function that restores a published checkpoint, or None.

  Call it once the training graph is built.

  Args:
    run: Run.

  Raises:
    InputError: a checkpoint is missing, or does not fit.
  """
  values = run.values
  newest = checkpoints.newest(values.train_dir)
  if newest is None:
    if not values.checkpoint_path:
      tf.logging.info('Training from scratch')
      return None
    return warm_start.init_fn(
        values.checkpoint_path, run.exclude_scopes, values.ignore_missing_vars,
        exclude_hint=','.join(run.network.classifier_scopes),
        which_checkpoint=values.which_checkpoint)
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


def save_facts(run):
  """Writes run.json and flags.json for evaluation, export and the report.

  Args:
    run: Run.
  """
  train_dir = run.values.train_dir
  run_info.save(train_dir, run.info)
  given = {name: run.values[name].value for name in run.values
           if run.values[name].present}
  files.write_text(os.path.join(train_dir, FLAGS_FILE),
                   json.dumps(given, indent=1, sort_keys=True) + '\n')


def progress(run, global_step):
  """Returns the validation history of a run: a training.best.Progress.

  Args:
    run: Run.
    global_step: variable of the default graph.
  """
  newest = checkpoints.newest(run.values.train_dir)
  return best.Progress(
      run.values.train_dir, run.info,
      tf.train.Saver(max_to_keep=1, save_relative_paths=True), global_step,
      checkpoints.read_global_step(newest) if newest else 0)
