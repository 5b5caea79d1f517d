"""Training of the last blocks of a network, after its classifier.

  blocks = last_blocks.find(run, 2)    # Also checks that the disk has room.
  head_run.train(run)
  last_blocks.train(run, blocks)

A block is what follows a tap of the network (nets/networks.py), up to the next
one. The activations below the last blocks are functions of the photo: they are
cached, so no step computes them again. The classifier is trained first, then
together with the blocks: the gradients of one that is not fitted would distort
the features (A. Kumar et al.: Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution, arXiv 2202.10054). Batch norm stays in
inference mode.
"""

import re
from typing import List, NamedTuple

from common.errors import InputError
from compat import tf
from nets import frozen_backbone, layers_head, nets_factory
from runs import run_info
from training import finetune_all, head_loop, head_run, start
from training.config import TrainConfig


class Blocks(NamedTuple):
  """The last blocks of a network."""
  number: int  # How many.
  scopes: List[str]  # Regular expressions, one per variable that is trained.
  ends: List[str]  # Operations whose outputs are cached.


def check(config: TrainConfig) -> None:
  """Checks --train_last_blocks, and that other flags agree with it.

  Args:
    config: TrainConfig.

  Raises:
    InputError: it has too many blocks, or another flag contradicts it.
  """
  number = config.train_last_blocks
  former = finetune_all.read(config.train_dir)
  if former and former.last_blocks != number and (
      number or config.finetune_all_steps):
    raise InputError(
        '%s holds a run with --train_last_blocks=%d, now it is %d; give '
        'another --train_dir, or the flags of that run' %
        (config.train_dir, former.last_blocks, number))
  if not number:
    return
  taps = nets_factory.get_network(config.model_name).taps
  if number > len(taps):
    raise InputError(
        '--train_last_blocks=%d: accepted for %s are 1 to %d, which train what '
        'follows %s' % (number, config.model_name, len(taps),
                        ', '.join(reversed(taps))))
  reasons = start.reasons_against_layers(config)
  if config.finetune_all_steps:
    reasons.append('--finetune_all_steps=%d' % config.finetune_all_steps)
  _refuse(number, reasons)


def _refuse(number, reasons):
  if reasons:
    raise InputError(
        '--train_last_blocks=%d trains layers and a head without kernel from '
        'cached activations; it cannot be used with %s' %
        (number, ', '.join(reasons)))


def find(run: start.Run, number: int) -> Blocks:
  """Finds the last blocks, and checks that their input can be cached.

  Args:
    run: start.Run.
    number: how many.

  Returns:
    Blocks.

  Raises:
    InputError: the disk lacks space for the cache, or the head has a kernel.
  """
  if run.info.head == layers_head.KERNEL:
    _refuse(number, ['--head=' + run.info.head])
  taps = run.network.taps
  tap = taps[-number]
  with tf.Graph().as_default():
    size = run.info.image_size
    images = tf.placeholder(
        tf.float32, [None, size, size, run.network.channels])
    logits, end_points = run_info.network_fn(run.info)(images)
    # A head over layers pools the taps and the last layer, with --flip_average
    # those of the mirrored photo too.
    pooled = tf.get_collection(layers_head.POOLED)
    ends = {tensor.op.name for tensor in [
        end_points[tap], *pooled[len(taps) - number::len(taps) + 1]]}
    below = set(frozen_backbone.ancestors([end_points[tap]]))
    needed = set(frozen_backbone.ancestors([logits]))
    trained = [v for v in tf.trainable_variables()
               if v.op in needed and v.op not in below]
    cut = frozen_backbone.find_cut(images, [logits], trained, ends=ends)
    if not finetune_all.has_begun(run.config.train_dir):
      _check_room(run, tap, cut)
    return Blocks(number, [re.escape(v.op.name) + '$' for v in trained],
                  sorted(ends))


def _check_room(run, tap, cut):
  """Logs the size of the caches, and checks that the disk has room."""
  config = run.config
  row_bytes = 2 * sum(tensor.shape[1:].num_elements()
                      for tensor in cut.features)
  photos = sum(dataset.num_samples for dataset in run.datasets.values())
  photos += _rows(run) - run.datasets[head_loop.TRAIN].num_samples
  tf.logging.info(
      'The layers above %s will be trained on its cached output: %d bytes per '
      'photo, %.1f MB in all', tap, row_bytes, row_bytes * photos / 1e6)
  head_loop.check_room_for_first(
      cut, run.datasets, head_run.cache_dir(config),
      head_run.cache_facts(run, True), config.cache_views)


def _rows(run):
  """Returns the number of training photos and their augmented views."""
  return (run.datasets[head_loop.TRAIN].num_samples *
          (1 + run.config.cache_views))


def train(run: start.Run, blocks: Blocks) -> bool:
  """Trains the last blocks and the classifier, in the run's train directory.

  Args:
    run: start.Run, whose classifier is already trained.
    blocks: Blocks.

  Returns:
    True if training finished, False if it was asked to stop.
  """
  config = run.config
  steps = 0
  if not finetune_all.has_begun(config.train_dir):
    steps = config.last_blocks_epochs * -(-_rows(run) // config.batch_size)
  found = finetune_all.plan(
      config.train_dir, steps,
      '%d steps of --train_last_blocks=' + str(blocks.number), blocks.number)
  if found is None:
    return True
  beginning = found  # Not None in the function below, for mypy.
  run = run._replace(trainable_scopes=blocks.scopes, config=config._replace(
      optimizer=finetune_all.decaying(
          config.optimizer, config.last_blocks_learning_rate, beginning.steps),
      max_number_of_steps=beginning.from_step + beginning.steps,
      early_stop_evals=0))
  return head_run.train(
      run, lambda run: finetune_all.init_fn(
          run, beginning, 'the last %d blocks' % blocks.number),
      ends=blocks.ends, first_step=beginning.from_step, freeze_batch_norm=True)
