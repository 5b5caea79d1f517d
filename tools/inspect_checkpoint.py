"""Reports how a checkpoint fits a network, and which flags to use with it.

  python -m tools.inspect_checkpoint --model_name=inception_v4 \
      --checkpoint_path=checkpoints/inception_v4.ckpt --num_classes=5

Exits with status 1, and names the network that fits, if this one does not.

  python -m tools.inspect_checkpoint --find_network --checkpoint_path=FILE

prints only the name of the network that the checkpoint fits best.
"""

import shlex
from typing import List, Optional

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from nets import nets_factory
from runs import checkpoints, fit

FLAGS = flags.FLAGS

# Maximum number of names listed of each kind without --all.
_SHOWN = 8

# {classes: (offset, reason)} for ImageNet networks, whose labels count from 1.
_LABELS_OFFSETS = {1000: (1, 'without the background class 0'),
                   1001: (0, 'with the background class 0')}


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'model_name', None,
      'Name of the network: %s.' % ', '.join(sorted(nets_factory.NETWORKS)))
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Checkpoint of either format, or a train directory.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  flags.DEFINE_integer(
      'num_classes', None,
      'Number of classes of the network. None: that of the checkpoint.',
      lower_bound=1)
  flags.DEFINE_bool(
      'all', False, 'List all variables, including those that match.')
  flags.DEFINE_bool(
      'find_network', False,
      'Print the name of the network that the checkpoint fits best.')


def main(_: List[str]) -> int:
  """Prints how a checkpoint fits; returns 0 if it does, else 1."""
  if FLAGS.find_network:
    common_flags.require(FLAGS, 'checkpoint_path')
    print(find_network(checkpoints.resolve(FLAGS.checkpoint_path,
                                           FLAGS.which_checkpoint)))
    return 0
  common_flags.require(FLAGS, 'model_name', 'checkpoint_path')
  row = nets_factory.get_network(FLAGS.model_name)
  prefix = checkpoints.resolve(FLAGS.checkpoint_path, FLAGS.which_checkpoint)
  found = fit.compare(prefix, FLAGS.model_name, FLAGS.num_classes)
  print('\n'.join(report(found, prefix, FLAGS.num_classes, FLAGS.all)))
  if not fit.starts_training(found, row.classifier_scopes):
    print('\n'.join(no_advice(prefix, FLAGS.model_name)))
    return 1
  print('\n'.join(advice(found, prefix, FLAGS.model_name, row,
                         FLAGS.num_classes)))
  return 0


def find_network(prefix: str) -> str:
  """Returns the name of the network that a checkpoint fits best.

  Raises:
    InputError: it fits none.
  """
  names = fit.fitting_networks(prefix)
  if not names:
    raise InputError('%s fits no network of nets/networks.py' % prefix)
  return names[0]


def report(found: fit.Fit, prefix: str, num_classes: Optional[int],
           show_all: bool) -> List[str]:
  """Returns the lines about the variables.

  Args:
    found: fit.Fit.
    prefix: path of the checkpoint.
    num_classes: of the network; None: as many as the checkpoint has.
    show_all: whether to list all variables.
  """
  limit = None if show_all else _SHOWN
  lines = ['%s: classes: %s, of the network: %s' %
           (prefix, found.classes or 'not found',
            num_classes or found.classes or 'not given'),
           'matched: %d' % len(found.matched)]
  if show_all:
    lines += _some(found.matched, None)
  lines.append('missing, in the network only: %d' % len(found.missing))
  lines += _some(found.missing, limit)
  lines.append('differently shaped: %d' % len(found.differing))
  lines += _some(['%s: %s in the checkpoint, %s in the network' % row
                  for row in found.differing], limit)
  kinds = fit.kinds_of_unused(found.unused)
  lines.append('unused, in the checkpoint only: %d%s' % (
      len(found.unused),
      ''.join('; %s: %d' % (kind, len(names))
              for kind, names in sorted(kinds.items()))))
  lines += _some(found.unused if show_all else kinds.get('others', []), limit)
  return lines


def _some(names, limit):
  """Returns lines with the first names, and the number of further names."""
  lines = ['  ' + name for name in names[:limit]]
  more = len(names) - len(lines)
  return lines + (['  and %d more; --all lists them' % more] if more else [])


def no_advice(prefix: str, model_name: str) -> List[str]:
  """Returns the lines for a checkpoint that does not fit the network."""
  like = [name for name in fit.fitting_networks(prefix) if name != model_name]
  if like:
    return ['it does not fit %s; it fits %s: give --model_name=%s' %
            (model_name, ', '.join(like), like[0])]
  return ['it fits neither %s nor another network of nets/networks.py' %
          model_name]


def advice(found: fit.Fit, prefix: str, model_name: str,
           row: nets_factory.Network, num_classes: Optional[int]) -> List[str]:
  """Returns the lines about the flags for a checkpoint that fits.

  Args:
    found: fit.Fit.
    prefix: path of the checkpoint.
    model_name: name of the network.
    row: its nets_factory.Network.
    num_classes: of the network; None: as many as the checkpoint has.
  """
  which = '  --model_name=%s --checkpoint_path=%s' % (model_name,
                                                      shlex.quote(prefix))
  lacking = [name for name in found.missing
             if not name.startswith(row.classifier_scopes)]
  lines = ['to fine-tune on other classes:',
           '%s --checkpoint_exclude_scopes=%s%s' %
           (which, ','.join(row.classifier_scopes),
            ' --ignore_missing_vars' if lacking else ''),
           '  (--train_classifier_only instead sets these scopes, and trains '
           'only them)']
  if lacking:
    lines.append('  (--ignore_missing_vars initializes what is missing outside '
                 'the classifier)')
  if num_classes in (None, found.classes) and found.classes and not (
      found.missing or found.differing):
    lines.append('to continue with its %d classes, or to evaluate it:' %
                 found.classes)
    if found.classes in _LABELS_OFFSETS:
      offset, why = _LABELS_OFFSETS[found.classes]
      lines += ['%s --labels_offset=%d' % (which, offset),
                '  (on ImageNet: %s)' % why]
    else:
      lines.append(which)
  averages = fit.kinds_of_unused(found.unused).get('moving averages')
  if averages:
    lines.append('  with --moving_average_decay=0.9999 (or any other value) '
                 'evaluation uses its moving averages')
  return lines


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
