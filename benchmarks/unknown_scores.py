"""Measures out-of-distribution (OOD) detection: photos that are of no class.

The features are computed once per photo, with a published checkpoint. For each
split of the photos a head is trained on the features of the training photos, as
./run_train.sh does; then each method scores the validation photos and

- far: a folder of photos of other things;
- near: the photos of two classes that were left out. Each pair of neighbours in
  the list of classes is left out in turn, with a classifier of its own.

AUROC is the probability that a photo of the classes has a higher score than
another photo. Accepted is the share of the other photos above the threshold
that 95 % of the validation photos pass.
"""

import collections
import os
import statistics
import tempfile
import time
from typing import Callable, NamedTuple, Optional

import numpy as np
from absl import flags

from benchmarks import network_features
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from datasets.conversion import convert_photos
from evaluation import calibration
from nets import layers_head, nets_factory
from ood import graph_nodes, photo_features, reference_bank
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.model import inference_graph
from training import exact_fit

FLAGS = flags.FLAGS

# The classifier's training settings, as in run_train.sh.
_BATCH, _RATE, _PATIENCE, _MOST_EPOCHS = 32, 0.003, 20, 200
_WEIGHT_DECAY, _KEEP = 0.00004, 0.5


class Scores(NamedTuple):
  """Scores of the photos, [photos] floats."""

  # Of validation photos.
  known: np.ndarray
  # Of photos of no class.
  others: np.ndarray


class Part(NamedTuple):
  """Photos of one kind."""

  # [photos, n] floats, of the last layer.
  features: np.ndarray
  # [photos, classes] floats.
  logits: np.ndarray
  # [photos] integers; None for photos of no class.
  labels: Optional[np.ndarray]


class Task(NamedTuple):
  """The photos of one split, with one head."""

  train: Part
  validation: Part
  # Of no class.
  others: Part


def define_flags():
  """Defines the flags for the photos and the network."""
  flags.DEFINE_string('photos', None, 'Folder with one sub-folder per class.')
  flags.DEFINE_string('strangers', None, 'Folder of photos of other things.')
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)
  flags.DEFINE_string('model_name', 'mobilenet_v1', 'Name of the network.')
  flags.DEFINE_string(
      'checkpoint_path', None, 'Published checkpoint of the network.')
  flags.DEFINE_enum(
      'head', layers_head.LAYERS, layers_head.KINDS,
      'Which head is trained, as in ./run_train.sh.')
  flags.DEFINE_integer('seeds', 5, 'Splits, from seed 0 on.', lower_bound=1)
  flags.DEFINE_integer(
      'percent_validation', 20, 'Share of the photos that are not trained on.',
      lower_bound=1, upper_bound=90)
  flags.DEFINE_integer(
      'rounds', 60, 'How often a photo is classified with and without asking '
      'whether it is known.', lower_bound=1)
  flags.DEFINE_float(
      'least_far_auroc', 0.0, 'Exit with status 1 below it.')
  flags.DEFINE_float(
      'most_far_accepted', 1.0, 'Exit with status 1 above it.')
  flags.DEFINE_float(
      'most_added', 0.02, 'Exit with status 1 where asking adds a larger share '
      'to the time of a classification.')


def convert(folder, work_dir, name):
  """Converts a folder.

  Args:
    folder: with one sub-folder per class, or of photos.
    work_dir: folder for the records.
    name: name of the data set.

  Returns:
    slim Dataset of all photos.
  """
  if not os.path.isdir(folder):
    raise InputError('%s is not a folder' % folder)
  target = os.path.join(work_dir, name)
  if any(entry.is_dir() for entry in os.scandir(folder)):
    os.symlink(os.path.abspath(folder), target)
  else:
    # The converter requires at least two classes.
    for number, entry in enumerate(sorted(os.scandir(folder), key=str)):
      half = os.path.join(target, 'half_%d' % (number % 2))
      os.makedirs(half, exist_ok=True)
      os.symlink(os.path.abspath(entry.path), os.path.join(half, entry.name))
  convert_photos.convert(work_dir, name, percent_validation=0)
  return dataset_factory.get_dataset(name, 'train', work_dir)


def read_layers(folder, work_dir, name, head):
  """Converts a folder and computes the features that a head reads.

  Args:
    folder, work_dir, name: as for convert.
    head: layers_head.Head; None: the network's own classifier.

  Returns:
    network_features.Features.
  """
  dataset = convert(folder, work_dir, name)
  options = forward_pass.options_from_flags(FLAGS)
  return network_features.compute(
      checkpoints.resolve(FLAGS.checkpoint_path), FLAGS.model_name,
      {'train': dataset}, name, work_dir, os.path.join(work_dir, 'features'),
      options._replace(precision=forward_pass.choose(options).precision),
      _BATCH, 0.0, head)


def read_photos(folder, work_dir, name):
  """Converts a folder and computes the features of all of its photos.

  Args:
    folder, work_dir, name: as for convert.

  Returns:
    photo_features.Features; logits are those of the published classifier.
  """
  dataset = convert(folder, work_dir, name)
  network = nets_factory.get_network(FLAGS.model_name)
  prefix = checkpoints.resolve(FLAGS.checkpoint_path)
  num_classes = _num_classes(prefix)
  run = run_info.RunInfo(
      model_name=FLAGS.model_name, labels=['?'] * num_classes, labels_offset=0,
      image_size=network.image_size, preprocessing_name=network.preprocessing,
      dataset_name=name, dataset_dir=work_dir, moving_average_decay=None)
  return photo_features.from_photos(
      run, prefix, dataset, _BATCH,
      options=forward_pass.options_from_flags(FLAGS))


def _num_classes(prefix):
  found = inference_graph.num_classes(prefix, FLAGS.model_name)
  if found is None:
    raise InputError('%s has no classifier of %r' % (prefix, FLAGS.model_name))
  return found


def train_classifier(train, validation, num_classes, seed):
  """Trains a linear classifier with Adam until validation stops improving.

  Args:
    train: (features, labels).
    validation: the same of the validation photos.
    num_classes: number of classes.
    seed: of weights and order.

  Returns:
    Weights [n, classes] and biases [classes].
  """
  rng = np.random.RandomState(seed)
  features, labels = train
  targets = np.eye(num_classes, dtype=np.float32)[labels]
  weights = [rng.normal(scale=0.09, size=(features.shape[1], num_classes)),
             np.zeros(num_classes)]
  weights = [value.astype(np.float32) for value in weights]
  first, second = ([np.zeros_like(value) for value in weights]
                   for _ in range(2))
  best, best_weights, since, step = -1.0, weights, 0, 0
  for _ in range(_MOST_EPOCHS):
    order = rng.permutation(len(labels))
    for start in range(0, len(order) - _BATCH + 1, _BATCH):
      rows = order[start:start + _BATCH]
      kept = rng.uniform(size=(_BATCH, features.shape[1])) < _KEEP
      batch = features[rows] * (kept / _KEEP).astype(np.float32)
      error = calibration.softmax(
          batch @ weights[0] + weights[1]) - targets[rows]
      gradients = [batch.T @ error / _BATCH +
                   _WEIGHT_DECAY * weights[0], error.mean(axis=0)]
      step += 1
      for number, gradient in enumerate(gradients):
        first[number] = 0.9 * first[number] + 0.1 * gradient
        second[number] = 0.999 * second[number] + 0.001 * gradient ** 2
        rate = _RATE * np.sqrt(1 - 0.999 ** step) / (1 - 0.9 ** step)
        weights[number] = weights[number] - rate * first[number] / (
            np.sqrt(second[number]) + 1e-8)
    logits = validation[0] @ weights[0] + weights[1]
    accuracy = np.mean(logits.argmax(axis=1) == validation[1])
    since = 0 if accuracy > best else since + 1
    if accuracy > best:
      best, best_weights = accuracy, list(weights)
    if since == _PATIENCE:
      break
  return best_weights


def train_head(train, validation, num_classes, seed, kind, last_size):
  """Trains a head as ./run_train.sh does.

  Args:
    train: (features, labels).
    validation: the same of the validation photos, which only layers_head.LOGITS
      uses.
    num_classes: number of classes.
    seed: of weights and order.
    kind: one of layers_head.KINDS.
    last_size: columns of the last layer.

  Returns:
    Function of [photos, n] features that returns [photos, classes] logits.
  """
  if kind == layers_head.LOGITS:
    weights, biases = train_classifier(train, validation, num_classes, seed)
    return lambda features: features @ weights + biases
  choice = exact_fit.choose(
      exact_fit.make_table(train[0], last_size, train[1], num_classes))
  linear = exact_fit.fit_linear(choice.table, choice.l2)
  head, kernel = layers_head.make(kind, support_points=min(
      layers_head.MAX_SUPPORT_POINTS, len(train[1]))), None
  if kind == layers_head.KERNEL:
    kernel = exact_fit.fit_kernel(choice.table, choice.logits,
                                  head.support_points)
  return _head_function(
      exact_fit.head_values(choice.table, linear, kernel), num_classes, head)


def _head_function(values, num_classes, head) -> Callable:
  """Returns the function of features that returns a fitted head's logits.

  Args:
    values: {name in the scope: value} of its variables.
    num_classes: number of classes.
    head: layers_head.Head.
  """
  def logits_of(features):
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.placeholder(tf.float32, [None, features.shape[1]])
      logits = layers_head.classify(inputs, num_classes, head)
      for variable in tf.global_variables():
        variable.load(values[variable.op.name[len(layers_head.SCOPE) + 1:]],
                      session)
      return session.run(logits, {inputs: features})

  return logits_of


def split_by_class(labels, percent_validation, seed):
  """Splits photos at random, each class in the same ratio.

  Args:
    labels: [photos].
    percent_validation: share of each class.
    seed: of the split.

  Returns:
    Lists of the rows of each class: for training, for validation.
  """
  rng = np.random.RandomState(seed)
  train, validation = [], []
  for label in range(labels.max() + 1):
    order = rng.permutation(np.flatnonzero(labels == label))
    cut = round(len(order) * percent_validation / 100)
    validation.append(order[:cut])
    train.append(order[cut:])
  return train, validation


def make_task(features, labels, others, left_out, seed,
              kind=layers_head.LOGITS, last_size=None):
  """Returns the Task of a split.

  Args:
    features: [photos, n] of all photos of the classes.
    labels: [photos].
    others: [m, n] features of other photos; None: the photos left out.
    left_out: classes that are excluded from training.
    seed: of the split.
    kind: of the head, one of layers_head.KINDS.
    last_size: columns of the last layer; None: all.

  Raises:
    InputError: no photo is left for validation.
  """
  kept = [c for c in range(labels.max() + 1) if c not in left_out]
  number = np.zeros(labels.max() + 1, int)
  number[kept] = np.arange(len(kept))
  train, validation = (
      np.concatenate([rows[label] for label in kept])
      for rows in split_by_class(labels, FLAGS.percent_validation, seed))
  if not len(validation):
    raise InputError('--percent_validation=%d leaves no photo of %d' % (
        FLAGS.percent_validation, len(labels)))
  if others is None:
    others = features[np.isin(labels, left_out)]
  last_size = last_size or features.shape[1]
  logits_of = train_head(
      (features[train], number[labels[train]]),
      (features[validation], number[labels[validation]]), len(kept), seed, kind,
      last_size)

  def part(values, of_labels=None):
    return Part(values[:, -last_size:], logits_of(values), of_labels)

  return Task(part(features[train], number[labels[train]]),
              part(features[validation], number[labels[validation]]),
              part(others))


def methods(task):
  """Yields (name, Scores) of each method on a Task, the shipped one last."""
  validation, others = task.validation, task.others

  def both(function):
    return Scores(function(validation), function(others))

  rows = reference_bank.choose(task.train.labels)
  bank = reference_bank.assemble(task.train.features[rows],
                                 task.train.labels[rows])
  k = bank.num_neighbours
  yield '%d-th nearest training photo' % k, both(
      lambda part: reference_bank.nearest(bank, part.features, k)[1][:, -1])
  yield 'largest softmax', both(
      lambda part: calibration.softmax(part.logits).max(axis=1))
  try:
    temperature = calibration.fit_temperature(validation.logits,
                                              validation.labels)
  except calibration.NoTemperature:  # If all photos are classified correctly.
    temperature = 1.0
  yield 'largest softmax, temperature', both(
      lambda part: calibration.softmax(part.logits, temperature).max(axis=1))
  yield 'energy', both(lambda part: np.logaddexp.reduce(part.logits, axis=1))
  yield 'largest logit', both(lambda part: part.logits.max(axis=1))
  yield 'similarity', both(
      lambda part: reference_bank.similarities(bank, part.features))
  bank = reference_bank.set_threshold(
      bank, reference_bank.similarities(bank, validation.features),
      validation.logits, 'validation')
  yield 'known score (shipped)', both(lambda part: reference_bank.scores(
      bank, reference_bank.similarities(bank, part.features), part.logits))


def auroc(scores):
  """Returns the probability that a known photo scores higher; ties: half."""
  known = np.sort(scores.known)
  below = np.searchsorted(known, scores.others, 'left')
  equal = np.searchsorted(known, scores.others, 'right') - below
  wins = len(known) - below - equal + equal / 2
  return float(np.mean(wins) / len(known))


def accepted(scores, share=reference_bank.ACCEPTED):
  """Returns the share of others that pass if `share` of known photos pass."""
  ranked = np.sort(scores.known)
  threshold = ranked[int(len(ranked) * (1 - share) + 1e-9)]
  return float(np.mean(scores.others >= threshold))


def measure_time(features, labels, prefix):
  """Returns the share that OOD detection adds to the time of one photo.

  Args:
    features: [photos, n] of training photos.
    labels: [photos].
    prefix: of the checkpoint.
  """
  network = nets_factory.get_network(FLAGS.model_name)
  rows = reference_bank.choose(labels)
  bank = reference_bank.assemble(features[rows], labels[rows])
  bank = bank._replace(center=np.zeros(2, np.float32), threshold=0.0,
                       spread=np.ones(2, np.float32))
  size = network.image_size
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, size, size, network.channels])
    logits, end_points = nets_factory.get_network_fn(
        FLAGS.model_name, _num_classes(prefix))(images)
    predictions = nets_factory.get_predictions(logits, end_points)
    nodes = graph_nodes.add_nodes(
        nets_factory.get_features(FLAGS.model_name, end_points), logits, bank)
    checkpoints.restore(tf.train.Saver(checkpoints.with_plain_names(
        prefix, checkpoints.variables_to_restore(None))), session, prefix)
    graph = tf.get_default_graph()
    asked = [predictions] + [graph.get_tensor_by_name(nodes[name])
                             for name in ('known', 'similarity')]
    photo = np.random.RandomState(0).uniform(
        -1, 1, [1, size, size, network.channels]).astype(np.float32)
    ways = [session.make_callable(fetches, [images])
            for fetches in ([predictions], asked)]
    seconds = [[], []]
    for number in range(FLAGS.rounds + 3):
      for way in (0, 1):
        start = time.perf_counter()
        ways[way](photo)
        if number >= 3:  # The first runs warm up.
          seconds[way].append(time.perf_counter() - start)
  plain, asking = map(statistics.median, seconds)
  print('asking takes %.2f ms more than %.2f ms, with %d training photos: '
        '%.2f %%' % (1e3 * (asking - plain), 1e3 * plain, len(rows),
                     100 * (asking / plain - 1)))
  return asking / plain - 1


def run_seed(photos, strangers, pairs, seed):
  """Returns {method: {kind: (AUROC, accepted)}} for a split."""
  found = collections.defaultdict(dict)
  how = seed, FLAGS.head, photos.last_size
  for name, scores in methods(make_task(
      photos.values, photos.labels, strangers.values, (), *how)):
    found[name]['far'] = auroc(scores), accepted(scores)
  near = collections.defaultdict(list)
  for pair in pairs:
    task = make_task(photos.values, photos.labels, None, pair, *how)
    for name, scores in methods(task):
      near[name].append((auroc(scores), accepted(scores)))
  for name, values in near.items():
    found[name]['near'] = tuple(np.mean(values, axis=0))
  return found


def print_table(found):
  """Prints means and spreads over the splits.

  Args:
    found: list of what run_seed returns.
  """
  print('%-30s %-17s %-17s %-17s %-17s' % (
      'mean +- deviation, %d splits' % len(found), 'far AUROC',
      'far accepted', 'near AUROC', 'near accepted'))
  for name in found[0]:
    cells = []
    for kind in ('far', 'near'):
      for index in (0, 1):
        values = [split[name][kind][index] for split in found
                  if kind in split[name]]
        cells.append('%.4f +- %.4f' % (np.mean(values), np.std(values))
                     if values else '-')
    print('%-30s %-17s %-17s %-17s %-17s' % (name, *cells))


def main(_):
  """Prints the table; returns 1 if a requirement is not met."""
  common_flags.require(FLAGS, 'photos', 'strangers', 'checkpoint_path')
  prefix = checkpoints.resolve(FLAGS.checkpoint_path)
  with tempfile.TemporaryDirectory() as work_dir:
    head = layers_head.make(FLAGS.head)
    photos = read_layers(FLAGS.photos, work_dir, 'photos', head)
    strangers = read_layers(FLAGS.strangers, work_dir, 'strangers', head)
  labels = photos.labels
  num_classes = labels.max() + 1
  pairs = [(c, c + 1) for c in range(0, num_classes - 1, 2)
           ] if num_classes > 3 else []
  print('%d photos of %d classes, %d strangers, %d pairs of classes left out' %
        (len(labels), num_classes, len(strangers.labels), len(pairs)))
  found = []
  for seed in range(FLAGS.seeds):
    found.append(run_seed(photos, strangers, pairs, seed))
    tf.logging.info('split %d of %d', seed + 1, FLAGS.seeds)
  print_table(found)
  added = measure_time(photos.values[:, -photos.last_size:], labels, prefix)
  shipped = [split['known score (shipped)']['far'] for split in found]
  far_auroc, far_accepted = np.mean(shipped, axis=0)
  return int(far_auroc < FLAGS.least_far_auroc or
             far_accepted > FLAGS.most_far_accepted or
             added > FLAGS.most_added)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
