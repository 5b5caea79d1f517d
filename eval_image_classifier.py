r"""Evaluates a checkpoint, or each new one of a train directory.

If training keeps its best checkpoint, that one is evaluated, then each better
one; otherwise the newest, then each newer one.

  python eval_image_classifier.py \
    --checkpoint_path=/tmp/flowers --eval_dir=/tmp/flowers/eval \
    --dataset_dir=data --dataset_name=my_flower_5 \
    --dataset_split_name=validation --eval_interval_secs=60

Of several splits, as in --dataset_split_name=validation,test, the first that
the data set has is used.

Network, labels offset, image size and preprocessing are read from the run.json
next to the checkpoints, unless their flags are given.
"""

import os
import sys
from typing import Any, Dict, NamedTuple, Optional

from absl import flags

from common import flags as common_flags
from common import folders
from common.errors import InputError, unknown_name
from common.paths import relative
from compat import tf
from datasets import dataset_factory, split_files
from evaluation import loop, metrics, report, results_file
from nets import nets_factory
from ood import detector
from runs import checkpoints, run_info
from runtime import forward_pass


class _Config(NamedTuple):
  """The flags of this program, whose help explains them."""
  model_name: str
  labels_offset: int
  preprocessing_name: Optional[str]
  use_grayscale: bool
  quantize: bool
  eval_image_size: Optional[int]
  dataset_name: str
  dataset_dir: Optional[str]
  dataset_split_name: str
  num_preprocessing_threads: int
  batch_size: int
  max_num_batches: Optional[int]
  checkpoint_path: str
  which_checkpoint: Optional[str]
  moving_average_decay: Optional[float]
  eval_dir: str
  eval_interval_secs: Optional[int]
  eval_timeout_secs: Optional[int]
  wait_for_run: bool
  known: str
  forward: forward_pass.Options  # Of the session and runtime flags.
  given: Dict[str, Any]  # {flag: value} of the flags that the user gave.

  def choose(self, name, from_run):
    """Returns a flag that was given, else the run's value, else its default."""
    if name in self.given or from_run is None:
      return getattr(self, name)
    return from_run


class _Setup(NamedTuple):
  """What the checkpoints of a folder share."""
  folder: str
  split: str  # Name of the split.
  info: run_info.RunInfo  # With the moving averages that are used.
  graph: tf.Graph
  evaluation: loop.EvaluationGraph  # Of the graph.


def define_flags():
  """Defines slim's flags, with slim's defaults, and the new ones."""
  common_flags.define_dataset_flags(split='test')
  common_flags.define_model_flags(nets_factory.NETWORKS)
  common_flags.define_quantize_flag()
  common_flags.define_session_flags()
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)
  flags.DEFINE_integer('batch_size', 100, 'Photos per batch.', lower_bound=1)
  flags.DEFINE_integer(
      'max_num_batches', None, 'Batches to evaluate. None: all photos.',
      lower_bound=1)
  flags.DEFINE_string(
      'checkpoint_path', '/tmp/tfmodel/',
      'Train directory or checkpoint to evaluate.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  flags.DEFINE_string(
      'eval_dir', '/tmp/tfmodel/', 'Folder for the results of evaluation.')
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Decay of the moving averages to evaluate. None: the plain variables.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_integer(
      'eval_image_size', None,
      "Side of the network's input in pixels. None: as in training, else the "
      "network's own.", lower_bound=1)
  flags.DEFINE_integer(
      'eval_interval_secs', None,
      'Seconds between the starts of two evaluations. None: evaluate once.',
      lower_bound=0)
  flags.DEFINE_enum(
      'known', 'auto', ['auto', 'on', 'off'],
      'Out-of-distribution detection: count the photos that are refused as '
      'none of the classes, by comparison with training photos. auto: if the '
      'features of the training photos are cached. on: compute them if they '
      'are not.')
  flags.DEFINE_integer(
      'eval_timeout_secs', None,
      'Seconds to wait for a new checkpoint before ending. None: forever.',
      lower_bound=0)
  flags.DEFINE_bool(
      'wait_for_run', True,
      'With --eval_interval_secs, wait for the first checkpoint, as slim does. '
      '--nowait_for_run: it is an error if there is none and no process of '
      'this machine trains.')


def _config_from_flags():
  """Returns the _Config of the flags."""
  values = flags.FLAGS
  return _Config(
      forward=forward_pass.options_from_flags(
          values, common_flags.session_config(values))._replace(
              master=values.master),
      given=common_flags.given(values),
      **{name: values[name].value for name in _Config._fields
         if name not in ('forward', 'given')})


def _choose_split(wanted, name, dataset_dir):
  """Returns the first of comma-separated splits that the data set has."""
  names = [split.strip() for split in wanted.split(',')]
  existing = split_files.find(name, dataset_dir)
  usable = [split for split in names if split in existing]
  if existing and not usable:
    raise unknown_name('split of data set %r' % name, wanted, existing)
  return (usable or names)[0]  # If there is none, get_dataset raises.


def _facts(config, checkpoint):
  """Returns the data set, its split and the RunInfo to evaluate."""
  run = run_info.load(os.path.dirname(checkpoint))
  empty = run_info.RunInfo(*[None] * len(run_info.RunInfo._fields))
  run = run or empty
  model_name = config.choose('model_name', run.model_name)
  network = nets_factory.get_network(model_name)
  name = config.choose('dataset_name', run.dataset_name)
  dataset_dir = config.choose('dataset_dir', run.dataset_dir)
  if not dataset_dir:
    raise InputError('--dataset_dir is needed: folder of the TFRecord files')
  split = _choose_split(config.dataset_split_name, name, dataset_dir)
  dataset = dataset_factory.get_dataset(name, split, dataset_dir)
  for flag in ('labels_offset', 'use_grayscale'):
    trained = getattr(run, flag)
    if trained not in (None, config.choose(flag, trained)):
      raise InputError(
          '--%s=%s, but the run in %s was trained with %s; omit the flag' %
          (flag, getattr(config, flag), os.path.dirname(checkpoint), trained))
  labels_offset = config.choose('labels_offset', run.labels_offset)
  labels = run_info.labels_of(dataset, labels_offset)
  if run.labels is not None:
    run_info.check_classes(
        run, labels, lambda trained, others:
        'the run in %s was trained on the classes %s and %s has %s' %
        (os.path.dirname(checkpoint), trained, name, others))
  decay = run_info.choose_decay(config.moving_average_decay, run, checkpoint)
  tf.logging.info('Evaluating split %s of %s: %d photos', split, name,
                  dataset.num_samples)
  return dataset, split, run_info.RunInfo(
      model_name=model_name, labels=labels, labels_offset=labels_offset,
      image_size=(config.choose('eval_image_size', run.image_size)
                  or network.image_size),
      preprocessing_name=(
          config.choose('preprocessing_name', run.preprocessing_name)
          or network.preprocessing),
      dataset_name=name, dataset_dir=dataset_dir, moving_average_decay=decay,
      precision=run.precision, head=run.head,
      flip_average=bool(run.flip_average),
      support_points=run.support_points or 0,
      use_grayscale=config.choose('use_grayscale', run.use_grayscale),
      quantize=run_info.choose_quantize(config.given.get('quantize'), run,
                                        checkpoint))


def _first_checkpoint(config):
  """Returns the checkpoint to start with, None after a timeout."""
  if config.eval_interval_secs is None:
    return checkpoints.resolve(config.checkpoint_path, config.which_checkpoint)
  if checkpoints.is_checkpoint(config.checkpoint_path):
    raise InputError(
        '--eval_interval_secs watches a train directory, but '
        '--checkpoint_path=%s is a checkpoint; give its folder, or omit the '
        'interval' % config.checkpoint_path)
  if not config.wait_for_run:
    checkpoints.check_exists_or_comes(config.checkpoint_path,
                                      config.which_checkpoint)
  return loop.wait_for_checkpoint(
      config.checkpoint_path, timeout_secs=config.eval_timeout_secs,
      which=config.which_checkpoint)


def _bank(config, info, run, checkpoint):
  """Returns the Bank that photos are compared with, or None.

  Raises:
    InputError: --known=on, but a Bank cannot be built.
  """
  if config.known == 'off':
    return None
  bank = None
  if run is None:
    reason = 'no run.json names its training data'
  elif (run.model_name, run.image_size, run.preprocessing_name,
        run.quantize) != (info.model_name, info.image_size,
                          info.preprocessing_name, info.quantize):
    reason = ('the run used another image size or preprocessing, or another '
              '--quantize')
  else:
    bank, reason = detector.find_or_build_bank(
        run, checkpoint, info.dataset_name, info.dataset_dir,
        info.moving_average_decay, compute=config.known == 'on',
        batch_size=config.batch_size,
        num_threads=config.num_preprocessing_threads,
        options=config.forward)
  if bank is None and config.known == 'on':
    raise InputError('--known=on: %s' % reason)
  tf.logging.info('Known: %s%s', '' if bank else 'not computed, ', reason)
  return bank


def _set_up(config, checkpoint):
  """Builds the _Setup for the checkpoints of a folder."""
  dataset, split, info = _facts(config, checkpoint)
  with tf.Graph().as_default() as graph:
    evaluation = loop.build_graph(
        dataset, info, config.batch_size, config.num_preprocessing_threads,
        config.max_num_batches, info.moving_average_decay,
        with_logits=config.known != 'off', with_features=config.known != 'off')
  return _Setup(os.path.dirname(checkpoint), split, info, graph, evaluation)


def _evaluate(config, setup, checkpoint, writer):
  """Evaluates one checkpoint: prints the metrics and writes the files."""
  with setup.graph.as_default():
    counted = loop.count(setup.evaluation, checkpoint, config.forward)
  results = metrics.compute(
      counted.labels, counted.probabilities, setup.info.labels)
  report.print_metrics(results, sys.stdout)
  run = run_info.load(os.path.dirname(checkpoint))
  bank = _bank(config, setup.info, run, checkpoint)
  detection = None
  if bank is not None:
    detection = detector.detect(bank, counted)
    set_here = (setup.split, setup.info.dataset_name) == (
        bank.split, run.dataset_name)
    report.print_refused(detection.refused, set_here, sys.stdout)
  files = report.write(config.eval_dir, counted, results, setup.info.labels,
                       setup.split, writer, detection)
  if run is not None and config.max_num_batches is None and (
      setup.info._replace(
          dataset_dir=run.dataset_dir, checkpoint_path=run.checkpoint_path,
          moving_average_decay=run.moving_average_decay) == run):
    # For the model card, if the photos were evaluated as the run says.
    results_file.save(checkpoint, setup.info.moving_average_decay, {
        setup.split: report.facts_of(counted, results, setup.split, detection)})
  tf.logging.info('Wrote %s', ', '.join(map(relative, files)))


def main(_):
  """Evaluates one checkpoint, or each new one of a train directory."""
  config = _config_from_flags()
  first = _first_checkpoint(config)
  if first is None:
    return
  setup = _set_up(config, first)
  folders.check_writable(config.eval_dir, 'eval_dir')
  with report.EventFile(config.eval_dir) as writer:

    def evaluate(checkpoint):
      nonlocal setup
      if os.path.dirname(checkpoint) != setup.folder:
        # Training began to keep a best checkpoint after this program started.
        setup = _set_up(config, checkpoint)
      _evaluate(config, setup, checkpoint, writer)

    if config.eval_interval_secs is None:
      evaluate(first)
    else:
      loop.poll(config.checkpoint_path, first, evaluate,
                config.eval_interval_secs, config.eval_timeout_secs,
                config.which_checkpoint)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
