"""Compares the networks of published checkpoints on the photos of a data set.

For each checkpoint of a folder:

- accuracy: all photos of all splits are split again, five times, each class 80
  to 20. A linear classifier is trained on the features of the 80 %, as
  ./run_train.sh does, and ends when it is best on the 20 %: mean and standard
  deviation of that accuracy;
- ms per photo: the forward pass up to the classifier, on this machine;
- weights, MB: of the frozen network, in units of 10^6 bytes; file, MB: of the
  checkpoint.

A network is efficient (*) if no other one is both as fast and as accurate.

The features are cached where ./run_train.sh caches them. Results are kept in
NAME_networks.json, so that a further call computes only what is new; the
picture is NAME_networks.svg.
"""

import glob
import json
import os
import statistics
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np
from absl import flags

from benchmarks import network_features, unknown_scores
from common import checkpoint_files, files, folders
from common import flags as common_flags
from common.errors import InputError
from compat import slim, tf
from datasets import dataset_factory, split_files
from evaluation import charts
from runs import checkpoints, feature_cache
from runtime import forward_pass, rates
from tools import inspect_checkpoint
from training import head_loop

FLAGS = flags.FLAGS

_SPLITS, _PERCENT_VALIDATION = 5, 20

# A mean difference of five splits is noise up to this many standard deviations
# of the differences: the 97.5 % quantile of Student's t with 4 degrees of
# freedom, and the standard error of splits that share photos (Nadeau and
# Bengio, Inference for the Generalization Error, 2003, section 4).
_NOISE = 2.776 * (1 / _SPLITS + _PERCENT_VALIDATION / (
    100 - _PERCENT_VALIDATION)) ** 0.5


class Row(NamedTuple):
  """The results of one checkpoint."""

  # Name of its file.
  checkpoint: str
  network: str
  # Of each split.
  accuracies: List[float]
  # Per photo.
  milliseconds: float
  # In units of 10^6 bytes.
  weights_mb: float
  file_mb: float
  # What the results depend on.
  key: Dict[str, Any]

  @property
  def accuracy(self) -> float:
    return statistics.mean(self.accuracies)

  @property
  def deviation(self) -> float:
    return statistics.stdev(self.accuracies)


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string('dataset_name', None, 'Name of the converted data set.')
  flags.DEFINE_string('dataset_dir', None, 'Folder of the TFRecord files.')
  flags.DEFINE_string(
      'checkpoints_dir', None, 'Folder of the checkpoints to compare.')
  flags.DEFINE_string(
      'feature_cache_dir', None,
      'Folder of the cached features. None: DATASET_NAME_features in '
      '--dataset_dir.')
  flags.DEFINE_string(
      'output_dir', None,
      'Folder for DATASET_NAME_networks.json and DATASET_NAME_networks.svg. '
      'None: --dataset_dir.')
  flags.DEFINE_integer(
      'batch_size', 8, 'Photos per batch, of which the time is measured.',
      lower_bound=1)
  flags.DEFINE_float(
      'seconds', 6, 'Seconds for which forward passes are measured, per '
      'network.', lower_bound=0)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def find_checkpoints(folder: str) -> List[str]:
  """Returns the prefixes of the checkpoints of a folder, in order of names.

  If one links to another of the folder, as those of download_checkpoint.sh do,
  only the other one is returned.

  Raises:
    InputError: there is no such folder, or none in it.
  """
  if not os.path.isdir(folder):
    raise InputError('there is no folder %s; scripts/download_checkpoint.sh '
                     'downloads checkpoints to checkpoints/' % folder)
  prefixes = {}
  for path in glob.glob(os.path.join(glob.escape(folder), '*')):
    prefix, suffix = os.path.splitext(path)
    if suffix == '.ckpt' and os.path.isfile(path):
      prefixes[path] = path
    elif suffix == '.index' or suffix.startswith('.data-'):
      prefixes[prefix] = prefix + '.index'
  if not prefixes:
    raise InputError('there is no checkpoint in %s; '
                     'scripts/download_checkpoint.sh NAME downloads one, '
                     'tools.list_models lists the names' % folder)
  originals = {os.path.realpath(file): prefix for prefix, file in sorted(
      prefixes.items(), key=lambda item: not os.path.islink(item[1]))}
  return sorted(originals.values())


def load_datasets(name: str,
                  folder: str) -> Dict[str, slim.dataset.Dataset]:
  """Returns {split: slim Dataset} of all splits of a data set.

  Raises:
    InputError: it is not converted, or its files are damaged.
  """
  return {split: dataset_factory.get_dataset(name, split, folder)
          for split in sorted(split_files.find(name, folder)) or ['train']}


def accuracies_of(features: np.ndarray, labels: np.ndarray) -> List[float]:
  """Returns the accuracy of a linear classifier on each split.

  Args:
    features: [photos, n] float32.
    labels: [photos] integers.

  Raises:
    InputError: no class has enough photos.
  """
  found = []
  for seed in range(_SPLITS):
    train, validation = map(np.concatenate, unknown_scores.split_by_class(
        labels, _PERCENT_VALIDATION, seed))
    if not len(validation):
      raise InputError('%d photos are too few: of a class with fewer than 3 '
                       'none is left to measure accuracy' % len(labels))
    weights, biases = unknown_scores.train_classifier(
        (features[train], labels[train]),
        (features[validation], labels[validation]), labels.max() + 1, seed)
    found.append(float(np.mean((features[validation] @ weights + biases).argmax(
        axis=1) == labels[validation])))
    tf.logging.info('Split %d of %d: accuracy %.4f', seed + 1, _SPLITS,
                    found[-1])
  return found


def efficient(rows: Sequence[Row]) -> List[Row]:
  """Returns the rows for which no other is both as fast and as accurate."""
  return [row for row in rows if not any(
      other.milliseconds <= row.milliseconds and
      other.accuracy >= row.accuracy and
      (other.milliseconds, other.accuracy) != (row.milliseconds, row.accuracy)
      for other in rows)]


def fastest_within_noise(rows: Sequence[Row]) -> Row:
  """Returns the fastest row that is as accurate as the best within noise.

  The splits are the same for all, so their accuracies are compared in pairs.
  """
  best = max(rows, key=lambda row: row.accuracy)

  def is_close(row):
    differences = [ours - theirs for ours, theirs in zip(best.accuracies,
                                                         row.accuracies)]
    return (statistics.mean(differences) <=
            _NOISE * statistics.stdev(differences))

  return min(filter(is_close, rows), key=lambda row: row.milliseconds)


def table(rows: Sequence[Row]) -> Iterator[str]:
  """Yields the lines of the table, the most accurate network first."""
  marked = efficient(rows)
  form = '%%1s %%-%ds %%-19s %%-15s %%9s %%11s %%8s' % max(
      len(row.checkpoint) for row in rows)
  yield form % ('', 'checkpoint', 'network', 'accuracy', 'ms/photo',
                'weights, MB', 'file, MB')
  for row in rows:
    yield form % (
        '*' if row in marked else '', row.checkpoint, row.network,
        '%.4f ± %.4f' % (row.accuracy, row.deviation),
        '%.1f' % row.milliseconds, '%.1f' % row.weights_mb,
        '%.1f' % row.file_mb)


def recommendation(rows: Sequence[Row]) -> str:
  """Returns the sentences about which network to take.

  Args:
    rows: the most accurate network first.
  """
  best, advised = rows[0], fastest_within_noise(rows)
  text = 'Most accurate: %s (%.4f).' % (best.checkpoint, best.accuracy)
  if advised is not best:
    text += (' Faster, and as accurate within the noise of %d splits: %s '
             '(%.4f, %.1f ms in place of %.1f ms).' % (
                 _SPLITS, advised.checkpoint, advised.accuracy,
                 advised.milliseconds, best.milliseconds))
  elif len(rows) > 1:
    text += (' No faster network is as accurate within the noise of %d '
             'splits.' % _SPLITS)
  else:
    text += (' It is the only one: scripts/download_checkpoint.sh downloads '
             'others to compare.')
  return text


def picture(rows: Sequence[Row], title: str) -> str:
  """Returns an SVG file: accuracy over time, the efficient networks marked."""
  marked = efficient(rows)
  chart = charts.scatter_chart(
      [charts.Point(row.network, row.milliseconds, row.accuracy, row.deviation,
                    int(row not in marked)) for row in rows],
      ('efficient', 'others'), title,
      'milliseconds per photo', 'accuracy')
  return charts.standalone(chart)


def _key(prefix, datasets, choice):
  """Returns what the results of a checkpoint depend on."""
  return dict(
      weights=checkpoints.digest(prefix),
      records={split: feature_cache.fingerprint_records(dataset.data_sources)
               for split, dataset in datasets.items()},
      runtime=choice.describe(), batch_size=FLAGS.batch_size,
      processor=rates.processor())


def _load_rows(path):
  """Returns {checkpoint: Row} of an earlier call, {} if there is none."""
  try:
    with open(path, encoding='utf-8') as file:
      return {row['checkpoint']: Row(**row) for row in json.load(file)}
  except (OSError, ValueError, TypeError, KeyError):
    return {}


def _measure(prefix, key, datasets, options, progress):
  """Returns the Row of a checkpoint.

  Raises:
    network_features.UnusableCheckpoint: it is damaged or fits no network.
  """
  try:
    network = inspect_checkpoint.find_network(prefix)
  except InputError as error:
    raise network_features.UnusableCheckpoint(error)
  tf.logging.info('Checkpoint %s: %s (%s)', progress, prefix, network)
  cache_dir = FLAGS.feature_cache_dir or head_loop.default_cache_dir(
      FLAGS.dataset_dir, FLAGS.dataset_name)
  found = network_features.compute(
      prefix, network, datasets, FLAGS.dataset_name, FLAGS.dataset_dir,
      cache_dir, options, FLAGS.batch_size, FLAGS.seconds)
  return Row(
      os.path.basename(prefix), network,
      accuracies_of(found.values, found.labels), 1e3 / found.photos_per_second,
      found.weight_bytes / 1e6, sum(map(os.path.getsize, _files(prefix))) / 1e6,
      key)


def _files(prefix):
  """Returns the files of a checkpoint without its graph."""
  return [path for path in [prefix, prefix + '.index', *glob.glob(
      glob.escape(prefix) + '.data-*')] if os.path.isfile(path)]


def compare(prefixes: Sequence[str], path: str,
            datasets: Dict[str, slim.dataset.Dataset]) -> List[Row]:
  """Returns the rows of all usable checkpoints; the most accurate first.

  Args:
    prefixes: of the checkpoints.
    path: of the file of results, which is written after each checkpoint.
    datasets: {split: slim Dataset}.
  """
  options = forward_pass.options_from_flags(FLAGS)
  if options.precision == forward_pass.AUTO:  # As in a new training run.
    options = options._replace(
        precision=forward_pass.fastest_precision(options))
  choice = forward_pass.choose(options)
  rows, kept = [], _load_rows(path)
  for number, prefix in enumerate(prefixes, start=1):
    name = os.path.basename(prefix)
    try:
      checkpoint_files.open_reader(prefix)  # Fails if a file is missing.
      key = _key(prefix, datasets, choice)
      if name not in kept or kept[name].key != key:
        kept[name] = _measure(prefix, key, datasets, options,
                              '%d of %d' % (number, len(prefixes)))
        files.write_output(path, json.dumps(
            [row._asdict() for row in kept.values()], indent=1).encode())
      rows.append(kept[name])
    except (checkpoint_files.UnreadableCheckpoint,
            network_features.UnusableCheckpoint) as error:
      print('Skipped: %s' % error, file=sys.stderr, flush=True)
  if not rows:
    raise InputError('none of the %d checkpoints in %s can be used' %
                     (len(prefixes), FLAGS.checkpoints_dir))
  return sorted(rows, key=lambda row: (-row.accuracy, row.milliseconds))


def main(_: List[str]) -> None:
  """Prints the table and what to take; writes the picture."""
  common_flags.require(FLAGS, 'dataset_name', 'dataset_dir', 'checkpoints_dir')
  prefixes = find_checkpoints(FLAGS.checkpoints_dir)
  datasets = load_datasets(FLAGS.dataset_name, FLAGS.dataset_dir)
  folder = FLAGS.output_dir or FLAGS.dataset_dir
  folders.check_writable(folder, 'output_dir')
  stem = os.path.join(folder, FLAGS.dataset_name + '_networks')
  rows = compare(prefixes, stem + '.json', datasets)
  title = '%d photos of %s; %s; batches of %d' % (
      sum(dataset.num_samples for dataset in datasets.values()),
      FLAGS.dataset_name, rows[0].key['runtime'], FLAGS.batch_size)
  files.write_output(stem + '.svg', picture(rows, title).encode())
  print(title)
  print('\n'.join(table(rows)))
  print(recommendation(rows))
  print('Picture: %s.svg' % stem)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
