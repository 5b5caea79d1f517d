"""Measures the heads that ./run_train.sh can train, with few photos and many.

The features are computed once per photo, with a published checkpoint. For each
split of the photos and each number of training photos per class, each head is
trained on the same photos, and classifies the validation photos, which are the
same for all numbers. Of the head `logits` the best epoch is taken, as in a run:
the one that is best on half of the validation photos classifies the other half,
and the other way round. The other heads need no validation photos.

Printed are the means over the splits of accuracy and log loss, and the median
of the seconds that training takes.
"""

import collections
import statistics
import tempfile
import time
from typing import Dict, List, Tuple

import numpy as np
from absl import flags

from benchmarks import unknown_scores
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from nets import layers_head
from runtime import forward_pass
from training import exact_fit

FLAGS = flags.FLAGS

# (name, kind, whether the mirrored photo is averaged).
_HEADS = ((layers_head.LOGITS, layers_head.LOGITS, False),
          (layers_head.LAYERS, layers_head.LAYERS, False),
          (layers_head.KERNEL, layers_head.KERNEL, False),
          (layers_head.LAYERS + ', mirrored', layers_head.LAYERS, True),
          (layers_head.KERNEL + ', mirrored', layers_head.KERNEL, True))


def define_flags() -> None:
  """Defines the flags for the photos and the network."""
  flags.DEFINE_string('photos', None, 'Folder with one sub-folder per class.')
  flags.DEFINE_string('model_name', 'mobilenet_v1', 'Name of the network.')
  flags.DEFINE_string(
      'checkpoint_path', None, 'Published checkpoint of the network.')
  flags.DEFINE_integer('seeds', 5, 'Splits, from seed 0 on.', lower_bound=1)
  flags.DEFINE_integer(
      'percent_validation', 20, 'Share of the photos that are not trained on.',
      lower_bound=1, upper_bound=90)
  flags.DEFINE_list(
      'per_class', ['5', '10', '20', '50', 'all'],
      'Numbers of training photos per class; all: all of them.')
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def _parse_numbers() -> Dict[str, int]:
  """Returns {text: photos per class} of --per_class."""
  numbers = {}
  for text in FLAGS.per_class:
    if text != 'all' and not (text.isdigit() and int(text) >= 2):
      raise InputError('--per_class has %r, accepted are numbers from 2 on and '
                       'all' % text)
    numbers[text] = 10 ** 9 if text == 'all' else int(text)
  return numbers


def measure(features: Dict[bool, np.ndarray], last_size: int,
            labels: np.ndarray, numbers: Dict[str, int], seed: int
            ) -> Dict[Tuple[str, str], Tuple[float, float, float]]:
  """Trains each head on each number of photos of one split.

  Args:
    features: {whether mirrored photos are averaged: [photos, n]}.
    last_size: columns of the last layer.
    labels: [photos].
    numbers: {text: photos per class}.
    seed: of the split.

  Returns:
    {(text, name of the head): (accuracy, log loss, seconds)}.
  """
  by_class, validation = unknown_scores.split_by_class(
      labels, FLAGS.percent_validation, seed)
  test = np.concatenate(validation)
  halves = test[::2], test[1::2]
  found = {}
  for text, number in numbers.items():
    rows = np.concatenate([some[:number] for some in by_class])
    for name, kind, mirrored in _HEADS:
      values = features[mirrored]
      if kind == layers_head.LOGITS:
        values = values[:, -last_size:]
      ways = ([(test, test)] if kind != layers_head.LOGITS else
              [halves, halves[::-1]])
      results = []
      for chosen_on, tested in ways:
        start = time.perf_counter()
        logits_of = unknown_scores.train_head(
            (values[rows], labels[rows]),
            (values[chosen_on], labels[chosen_on]), labels.max() + 1, seed,
            kind, last_size)
        seconds = time.perf_counter() - start
        logits = logits_of(values[tested])
        results.append((
            float(np.mean(logits.argmax(axis=1) == labels[tested])),
            exact_fit.log_loss(logits, labels[tested]), seconds))
      accuracy, loss, seconds = map(float, np.mean(results, axis=0))
      found[text, name] = accuracy, loss, seconds
  return found


def main(_: List[str]) -> None:
  """Prints the table."""
  common_flags.require(FLAGS, 'photos', 'checkpoint_path')
  numbers = _parse_numbers()
  features = {}
  for mirrored in (False, True):
    with tempfile.TemporaryDirectory() as work_dir:
      photos = unknown_scores.read_layers(
          FLAGS.photos, work_dir, 'photos',
          layers_head.make(layers_head.LAYERS, mirrored))
    features[mirrored] = photos.values
  found = collections.defaultdict(list)
  for seed in range(FLAGS.seeds):
    for key, values in measure(features, photos.last_size, photos.labels,
                               numbers, seed).items():
      found[key].append(values)
    tf.logging.info('Split %d of %d', seed + 1, FLAGS.seeds)
  print('%-10s %-24s %-19s %-19s %s' % (
      'per class', 'head', 'accuracy', 'log loss', 'seconds'))
  for (text, name), values in found.items():
    accuracies, losses, seconds = zip(*values)
    print('%-10s %-24s %.4f +- %.4f    %.4f +- %.4f    %.1f' % (
        text, name, np.mean(accuracies), np.std(accuracies), np.mean(losses),
        np.std(losses), statistics.median(seconds)))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
