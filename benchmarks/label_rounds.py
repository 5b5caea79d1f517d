"""Measures how much the choice of photos to label gains over random choice.

For each seed a share of the photos of each class is kept for testing, and some
of the others are labelled at random. In each round a linear classifier is
trained on the features of the labelled photos, its accuracy on the test photos
is measured, and further photos are chosen and labelled. The features before the
classifier are computed once per photo, with a published checkpoint.

With --bursts two crops of each photo can be chosen as well, as if each photo
were one of a burst.
"""

import os
import tempfile
from typing import Callable, Dict, List, Optional

import numpy as np
from absl import flags

from benchmarks import label_noise, unknown_scores
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from evaluation import calibration, label_scores, label_selection
from runtime import forward_pass

FLAGS = flags.FLAGS

# Near duplicates with --bursts, of label_noise.copies_of.
_CROPS = ('cropped to 90 %', 'cropped to 80 %')

# Weight decay and steps of the classifier: near the best of logistic regression
# on 50 to 400 photos.
_WEIGHT_DECAY, _STEPS = 1e-5, 200


def define_flags() -> None:
  """Defines the flags for the photos and the network."""
  flags.DEFINE_string('photos', None, 'Folder with one sub-folder per class.')
  flags.DEFINE_string('model_name', 'mobilenet_v1', 'Name of the network.')
  flags.DEFINE_string(
      'checkpoint_path', None, 'Published checkpoint of the network.')
  flags.DEFINE_integer('seeds', 10, 'Splits, from seed 0 on.', lower_bound=1)
  flags.DEFINE_integer(
      'percent_test', 30, 'Share of each class that is kept for testing.',
      lower_bound=1, upper_bound=90)
  flags.DEFINE_integer('count', 50, 'Photos per round.', lower_bound=1)
  flags.DEFINE_integer('rounds', 8, 'Rounds, the first at random.',
                       lower_bound=1)
  flags.DEFINE_bool(
      'bursts', False, 'Whether crops of each photo can be chosen as well.')
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def choose_random(scores: np.ndarray, features: np.ndarray, count: int,
                  seed: int) -> np.ndarray:
  """Returns the positions of `count` photos, chosen at random."""
  del features
  return np.random.RandomState(seed).permutation(len(scores))[:count]


def choose_least_certain(scores: np.ndarray, features: np.ndarray, count: int,
                         seed: int) -> np.ndarray:
  """Returns the positions of the `count` photos with the smallest margins."""
  del features, seed
  return np.argsort(label_selection.margins(scores), kind='stable')[:count]


def choose_as_shipped(scores: np.ndarray, features: np.ndarray, count: int,
                      seed: int) -> np.ndarray:
  """Returns the positions of the photos that label_next.sh chooses."""
  del seed
  return label_selection.choose(scores, features, count)


METHODS: Dict[str, Callable[..., np.ndarray]] = {
    'random': choose_random, 'least certain': choose_least_certain,
    'label_next.sh': choose_as_shipped}


def accuracies(features: np.ndarray, labels: np.ndarray, method: Callable,
               seed: int, scenes: Optional[np.ndarray] = None) -> List[float]:
  """Returns the accuracy on the test photos after each round.

  Args:
    features: [photos, n] float32.
    labels: [photos] integers.
    method: one of METHODS.
    seed: of the split and of random choices.
    scenes: [photos] for a crop, the number of its photo, else its own; None:
      there are no crops.

  Raises:
    InputError: there are not enough photos.
  """
  numbers = np.arange(len(labels))
  scenes = numbers if scenes is None else scenes
  photos = np.flatnonzero(scenes == numbers)
  _, test = map(np.concatenate, unknown_scores.split_by_class(
      labels[photos], FLAGS.percent_test, seed))
  test = photos[test]
  pool = np.flatnonzero(~np.isin(scenes, test))
  if len(pool) < FLAGS.rounds * FLAGS.count or not len(test):
    raise InputError(
        '--rounds=%d and --count=%d need %d photos, and some for testing; '
        'there are %d' % (FLAGS.rounds, FLAGS.count,
                          FLAGS.rounds * FLAGS.count, len(photos)))
  pool = np.random.RandomState(seed).permutation(pool)
  centred = features - features.mean(axis=0)
  centred /= np.sqrt(np.square(centred).sum(axis=1).mean())
  found: List[float] = []
  for number in range(1, FLAGS.rounds + 1):
    # The first ones are labelled.
    size = number * FLAGS.count
    weights, biases = label_scores.fit_head(
        centred[pool[:size]], labels[pool[:size]], labels.max() + 1,
        _WEIGHT_DECAY, _STEPS)
    logits = centred @ weights + biases
    found.append(float(np.mean(logits[test].argmax(axis=1) == labels[test])))
    rest = pool[size:]
    if number < FLAGS.rounds:
      chosen = method(calibration.softmax(logits[rest]), features[rest],
                      FLAGS.count, seed + number)
      pool = np.concatenate([pool[:size], rest[chosen],
                             np.delete(rest, chosen)])
  return found


def find_scenes(files: List[str]) -> np.ndarray:
  """Returns for a crop the number of its photo, else its own: [photos]."""
  numbers = {file: number for number, file in enumerate(files)}
  for file, number in list(numbers.items()):
    for kind in _CROPS:
      numbers['%s.%s.jpg' % (file, kind)] = number
  return np.array([numbers[file] for file in files])


def print_table(found: Dict[str, np.ndarray]) -> None:
  """Prints mean accuracies.

  Args:
    found: {name of a method: [seeds, rounds]}.
  """
  print('%-15s' % 'labelled' + ''.join(
      '%8d' % (number * FLAGS.count) for number in range(1, FLAGS.rounds + 1)))
  for name, values in found.items():
    print('%-15s' % name + ''.join(
        '%8.3f' % value for value in values.mean(axis=0)))
  for name, values in found.items():
    gains = (values - found['random'])[:, 1:].mean(axis=1)
    if name != 'random' and len(gains) > 1:
      print('%s: %.3f more than random (standard error %.3f), mean of rounds 2 '
            'to %d' % (name, gains.mean(), gains.std(ddof=1) / len(gains) ** .5,
                       FLAGS.rounds))


def main(_: List[str]) -> None:
  """Prints the table."""
  common_flags.require(FLAGS, 'photos', 'checkpoint_path')
  if not os.path.isdir(FLAGS.photos):
    raise InputError('%s is not a folder' % FLAGS.photos)
  with tempfile.TemporaryDirectory() as work_dir:
    folder = os.path.abspath(FLAGS.photos)
    if FLAGS.bursts:
      folder = os.path.join(work_dir, 'all')
      label_noise.add_copies(FLAGS.photos, folder, only=_CROPS)
    found = unknown_scores.read_photos(folder, work_dir, 'photos')
  scenes = find_scenes(found.filenames)
  rows: Dict[str, List[List[float]]] = {name: [] for name in METHODS}
  for seed in range(FLAGS.seeds):
    for name, method in METHODS.items():
      rows[name].append(accuracies(found.values, found.labels, method, seed,
                                   scenes))
    tf.logging.info('Seed %d of %d', seed + 1, FLAGS.seeds)
  print_table({name: np.array(values) for name, values in rows.items()})


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
