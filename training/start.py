"""Start of a run: from scratch, from a checkpoint, or resumed."""

import hashlib
import json
import os
from typing import Dict, List, NamedTuple, Optional

from common import files
from common.errors import InputError
from compat import slim, tf
from nets import layers_head, nets_factory, quantization
from preprocessing import preprocessing_factory
from runs import checkpoints, feature_cache, run_info
from runtime import forward_pass
from training import former_run, gradient_precision, warm_start
from training.config import TrainConfig
from training.validation_history import ValidationHistory

# Chooses the head by what else is trained, or by the run that is resumed.
AUTO = 'auto'
HEADS = layers_head.KINDS + (AUTO,)
# With more rows of features it takes the network's own classifier: a head that
# is fitted exactly has all of them in memory, several times.
_MOST_ROWS = 30000


class Run(NamedTuple):
  """A training run: its configuration, and what follows from it."""
  config: TrainConfig
  # {split: slim Dataset}; 'train' has the training photos.
  datasets: Dict[str, slim.dataset.Dataset]
  info: run_info.RunInfo
  # The row of info.model_name.
  network: nets_factory.Network
  # Scopes that are not read from a published checkpoint.
  exclude_scopes: List[str]
  # Scopes that are trained, [] for all.
  trainable_scopes: List[str]
  # Whether this worker writes checkpoints.
  is_chief: bool
  session_config: Optional[tf.ConfigProto]


def make_run(config: TrainConfig, datasets: Dict[str, slim.dataset.Dataset],
             is_chief: bool = True,
             session_config: Optional[tf.ConfigProto] = None) -> Run:
  """Returns the Run of a configuration.

  Args:
    config: TrainConfig.
    datasets: {split: slim Dataset}; 'train' has the training photos.
    is_chief: whether this worker writes checkpoints.
    session_config: tf.ConfigProto.

  Raises:
    InputError: a flag is wrong, or the train directory holds another run.
  """
  network = nets_factory.get_network(config.model_name, config.use_grayscale)
  info = _run_info(config, datasets['train'], network, session_config)
  exclude, train = _scopes(config.checkpoint, network, info.head)
  if info.quantize:
    _check_quantize(config, train)
  return Run(config, datasets, info, network, exclude, train, is_chief,
             session_config)


def _check_quantize(config, trainable_scopes):
  """Checks that a run can be trained with simulated 8-bit arithmetic."""
  replicas = config.replicas
  reasons = [name for name, is_given in (
      ('--cache_features', config.cache_features),
      ('frozen layers', trainable_scopes),
      ('--finetune_all_steps', config.finetune_all_steps),
      ('--train_last_blocks', config.train_last_blocks),
      ('several clones, workers or parameter servers',
       replicas.num_clones > 1 or replicas.worker_replicas > 1 or
       replicas.num_ps_tasks)) if is_given]
  if reasons:
    raise InputError(
        '--quantize_delay=%d trains all layers on photos, in one process; it '
        'cannot be used with %s' % (config.quantize_delay, ', '.join(reasons)))
  quantization.library()


def _scopes(config, network, head=None):
  """Returns the scopes not to read from a checkpoint and those to train."""
  exclude = warm_start.split_scopes(config.checkpoint_exclude_scopes)
  train = warm_start.split_scopes(config.trainable_scopes)
  if config.train_classifier_only:
    if config.checkpoint_exclude_scopes is None:
      exclude = list(network.classifier_scopes)
    if config.trainable_scopes is None:
      # The first is the classifier's, the others are auxiliary.
      train = list(network.classifier_scopes if config.has_aux_loss() else
                   network.classifier_scopes[:1])
  if head:
    exclude.append(layers_head.SCOPE)
    train = [layers_head.SCOPE]
  return exclude, train


def _run_info(config, dataset, network, session_config):
  """Returns the facts of this run, and checks them against an earlier one."""
  labels = run_info.labels_of(dataset, config.labels_offset)
  if not labels:
    raise InputError('--labels_offset=%d leaves none of the %d classes' %
                     (config.labels_offset, dataset.num_classes))
  info = run_info.RunInfo(
      model_name=config.model_name,
      labels=labels,
      labels_offset=config.labels_offset,
      image_size=config.train_image_size or network.image_size,
      preprocessing_name=config.preprocessing_name or network.preprocessing,
      dataset_name=config.dataset_name,
      dataset_dir=os.path.abspath(config.dataset_dir),
      moving_average_decay=config.moving_average_decay,
      checkpoint_path=config.checkpoint.checkpoint_path or None,
      precision=_precision(config, forward_options(config, session_config)),
      use_grayscale=config.use_grayscale,
      quantize=config.quantize_delay >= 0,
      **_head_fields(config, dataset))
  preprocessing_factory.get_preprocessing(
      info.preprocessing_name, True, on_device=config.preprocess_on_device)
  old = run_info.load(config.train_dir)
  begins_again = old is not None and _begins_again(config, old, labels)
  if old is None or not begins_again and (
      checkpoints.newest(config.train_dir) is None):
    return info
  _check_same_run(config.train_dir,
                  old._replace(labels=labels) if begins_again else old, info)
  if config.precision == forward_pass.AUTO:
    info = info._replace(precision=old.precision)
  if info.head and not begins_again:
    info = info._replace(support_points=old.support_points)
  before, now = (fact.precision or forward_pass.FLOAT32 for fact in (old, info))
  # Only cached features depend on it; weights are float32 in any case.
  if before != now and (config.cache_features or
                        feature_cache.load_use(config.train_dir)):
    raise InputError(
        '%s holds a run with --precision=%s, now it is %s; give another '
        '--train_dir, or omit the flag' % (config.train_dir, before, now))
  if begins_again:
    former_run.set_aside(config.train_dir, old, labels)
    return info
  return info._replace(checkpoint_path=old.checkpoint_path)


def _head_fields(config, dataset):
  """Returns the fields of RunInfo about the head."""
  reasons = reasons_against_layers(config)
  kind, flip_average = config.head, config.flip_average
  if kind == AUTO:
    rows = dataset.num_samples * (1 + config.cache_views)
    kind = (layers_head.LOGITS if reasons or rows > _MOST_ROWS else
            layers_head.LAYERS)
    if checkpoints.newest(config.train_dir):
      old = run_info.load(config.train_dir)
      kind = old.head or layers_head.LOGITS if old else layers_head.LOGITS
      if old and 'flip_average' not in config.given:
        flip_average = old.flip_average
  if kind == layers_head.LOGITS:
    if flip_average:
      raise InputError('--flip_average needs --head=layers or '
                       '--head=layers+kernel, got --head=%s' % config.head)
    return {}
  if kind == layers_head.KERNEL and config.cache_views:
    reasons.append('--cache_views=%d' % config.cache_views)
  if reasons:
    raise InputError(
        '--head=%s is fitted to cached features of a network that stays as it '
        'is; it cannot be used with %s' % (kind, ', '.join(reasons)))
  head = layers_head.make(kind, flip_average, min(
      dataset.num_samples, layers_head.MAX_SUPPORT_POINTS))
  return dict(head=kind, flip_average=flip_average,
              support_points=head.support_points)


def reasons_against_layers(config: TrainConfig) -> List[str]:
  """Returns the flags with which a head over layers cannot be fitted."""
  checkpoint = config.checkpoint
  reasons = []
  if not config.cache_features:
    reasons.append('--nocache_features')
  if not checkpoint.train_classifier_only:
    reasons.append('--notrain_classifier_only')
  if checkpoint.trainable_scopes is not None:
    reasons.append('--trainable_scopes=%s' % checkpoint.trainable_scopes)
  if checkpoint.train_aux_classifier:
    reasons.append('--train_aux_classifier')
  if config.mixup_alpha:
    reasons.append('--mixup_alpha=%g' % config.mixup_alpha)
  return reasons


def _begins_again(config, old, labels):
  """Whether the data set has only got new classes, for a head on features.

  Its former features are still cached, so training takes seconds.
  """
  return bool(config.cache_features and config.checkpoint.checkpoint_path and
              set(old.labels) < set(labels))


def _precision(config, options):
  """Returns the precision of the forward passes of a new run."""
  gradient_precision.check(config)
  if config.precision != forward_pass.AUTO:
    return forward_pass.choose(options).precision
  return (forward_pass.fastest_precision(options) if config.cache_features else
          forward_pass.FLOAT32)


def forward_options(config: TrainConfig,
                    session_config: Optional[tf.ConfigProto] = None
                    ) -> forward_pass.Options:
  """Returns the forward_pass.Options of a configuration."""
  return forward_pass.options_from_flags(config, session_config)


def _check_same_run(train_dir, old, info):
  """Refuses to resume a run of another network or other classes."""
  for field, flag in (('model_name', 'model_name'),
                      ('labels_offset', 'labels_offset'),
                      ('image_size', 'train_image_size'),
                      ('preprocessing_name', 'preprocessing_name'),
                      ('use_grayscale', 'use_grayscale'),
                      ('head', 'head'), ('flip_average', 'flip_average')):
    before, now = getattr(old, field), getattr(info, field)
    if field == 'head':
      before, now = (kind or layers_head.LOGITS for kind in (before, now))
    if before != now:
      raise InputError(
          '%s holds a run with --%s=%s, now it is %s; give another '
          '--train_dir, or the flags of that run' %
          (train_dir, flag, before, now))
  if old.quantize != info.quantize:
    raise InputError(
        '%s holds a run %s --quantize_delay: train as before, or in another '
        '--train_dir, which can start from --checkpoint_path=%s' %
        (train_dir, 'with' if old.quantize else 'without', train_dir))
  if old.moving_average_decay and not info.moving_average_decay:
    raise InputError(
        '%s holds a run with --moving_average_decay=%g: give it again, or '
        'another --train_dir' % (train_dir, old.moving_average_decay))
  run_info.check_classes(
      old, info.labels, lambda trained, others:
      '%s holds a run on the classes %s and --dataset_name=%s has %s; give '
      'another --train_dir' % (train_dir, trained, info.dataset_name, others))


def init_fn(run: Run) -> Optional[warm_start.InitFn]:
  """Returns the function that restores a published checkpoint, or None.

  Call it once the training graph is built.

  Args:
    run: Run.

  Raises:
    InputError: a checkpoint is missing, or does not fit.
  """
  train_dir, config = run.config.train_dir, run.config.checkpoint
  newest = checkpoints.newest(train_dir)
  if newest is None:
    if not config.checkpoint_path:
      tf.logging.info('Training from scratch')
      return None
    return warm_start.init_fn(
        config.checkpoint_path, run.exclude_scopes, config.ignore_missing_vars,
        exclude_hint=','.join(run.network.classifier_scopes),
        which_checkpoint=config.which_checkpoint)
  tf.logging.info('Resuming from %s', newest)
  checkpoints.check_fits(
      newest, {v.op.name: v for v in tf.global_variables()},
      'give the --optimizer, --trainable_scopes and --moving_average_decay '
      'that %s was trained with, or another --train_dir' % train_dir)
  if config.checkpoint_path:
    tf.logging.info(
        'Ignoring --checkpoint_path because a checkpoint already exists in %s',
        train_dir)
  return None


def save_facts(run: Run) -> None:
  """Writes run.json and flags.json for evaluation, export and the report.

  Args:
    run: Run.
  """
  train_dir = run.config.train_dir
  run_info.save(train_dir, run.info)
  files.write_text(os.path.join(train_dir, run_info.FLAGS_FILE_NAME),
                   json.dumps(run.config.given, indent=1, sort_keys=True) +
                   '\n')


def validation_history(run: Run, global_step: tf.Variable) -> ValidationHistory:
  """Returns the ValidationHistory of a run.

  Args:
    run: Run.
    global_step: variable of the default graph.
  """
  newest = checkpoints.newest(run.config.train_dir)
  data = None
  if run.config.cache_features:  # Features depend on the same fingerprints.
    data = hashlib.sha256(' '.join(
        feature_cache.fingerprint_records(dataset.data_sources)
        for _, dataset in sorted(run.datasets.items())).encode()
    ).hexdigest()[:16]
  return ValidationHistory(
      run.config.train_dir, run.info,
      tf.train.Saver(max_to_keep=1, save_relative_paths=True), global_step,
      checkpoints.read_global_step(newest) if newest else 0, data)
