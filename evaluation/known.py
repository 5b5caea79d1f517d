"""Builds the bank of training photos by which a checkpoint knows its own.

  bank, said = known.bank_of(run, checkpoint, 'my_flower_5', 'data')

The bank's photos are training photos, its threshold is set with validation
photos. It is kept beside the checkpoint: built once, it serves evaluation,
report and export.
"""

import collections

import numpy as np

from compat import tf
from datasets import dataset_factory, split_files
from errors import InputError
from evaluation import metrics, photo_features
from runs import checkpoints, feature_bank, feature_cache

TRAIN, VALIDATION = 'train', 'validation'

# refused, photos: how many of how many are not known. interval: of 95 %, of the
# share of refused ones in general.
Refused = collections.namedtuple('Refused', 'refused photos interval')

# similarities, scores: [photos] float32. known: [photos] bool. refused: a
# Refused.
Judged = collections.namedtuple('Judged', 'similarities scores known refused')


def bank_of(run, checkpoint, dataset_name=None, dataset_dir=None,
            moving_average_decay=None, compute=True, batch_size=32,
            num_threads=4, session_config=None):
  """Returns the bank of a checkpoint, built where it is not there yet.

  Args:
    run: RunInfo of the run, as training noted it.
    checkpoint: prefix of the checkpoint.
    dataset_name: name of the data set that is in use; see data_set_of.
    dataset_dir: folder of its records.
    moving_average_decay: of the averages to take; None: the variables.
    compute: whether photos may go through the network, which takes a while;
      False: only what the run has kept is used.
    batch_size: photos a batch.
    num_threads: threads that decode photos.
    session_config: tf.ConfigProto.

  Returns:
    A feature_bank.Bank and a sentence about it; or None, and why there is none.
  """
  try:
    datasets = _datasets(run, *data_set_of(run, dataset_name, dataset_dir))
    records = feature_cache.fingerprint_records(
        sum((list(datasets[split].data_sources)
             for split in (TRAIN, VALIDATION)), []))
    bank = feature_bank.load(checkpoint, records, moving_average_decay)
    if bank is None:
      found = photo_features.from_cache(
          run, checkpoint, datasets, moving_average_decay, session_config,
          {TRAIN: feature_bank.choose})
      if found is None and not compute:
        return None, ('the features of %s are not kept; ./export_freeze.sh or '
                      './report.sh computes them' % checkpoint)
      bank = _build(found or _compute(
          run, checkpoint, datasets, batch_size, num_threads,
          moving_average_decay, session_config),
                    checkpoint, records, moving_average_decay)
      _keep(bank, checkpoint)
    return bank, describe(bank)
  # The checkpoint of a run that goes on may be gone by now.
  except (InputError, OSError) as error:
    return None, str(error)


def data_set_of(run, dataset_name=None, dataset_dir=None):
  """Returns the name and the folder of what a run was trained on.

  Args:
    run: RunInfo of the run.
    dataset_name: name of the data set that is in use; None: the run's. Another
      one than the run's does not matter here.
    dataset_dir: where that lies now; None: where it lay.
  """
  if dataset_name not in (None, run.dataset_name):
    dataset_dir = None
  return run.dataset_name, dataset_dir or run.dataset_dir


def _datasets(run, name, folder):
  """Returns {split: slim Dataset} of the two splits that a bank is of.

  Raises:
    InputError: one has no photos, or is of other classes than the run.
  """
  there = split_files.find(name, folder) if folder else {}
  missing = [split for split in (TRAIN, VALIDATION)
             if split not in there or there[split].size == 0]
  if missing:
    raise InputError('data set %r in %s has no %s photos' % (
        name, folder, ' and no '.join(missing)))
  datasets = {split: dataset_factory.get_dataset(name, split, folder)
              for split in (TRAIN, VALIDATION)}
  names = datasets[TRAIN].labels_to_names
  labels = [names[index]
            for index in range(run.labels_offset, datasets[TRAIN].num_classes)]
  if labels != run.labels:
    raise InputError('data set %r in %s has the classes %s, the run %s' % (
        name, folder, checkpoints.name_some(labels),
        checkpoints.name_some(run.labels)))
  return datasets


def _compute(run, checkpoint, datasets, batch_size, num_threads,
             moving_average_decay, session_config):
  """Runs photos through the network: {split: Features}."""
  chosen = feature_bank.choose(
      _read_labels(datasets[TRAIN]) - run.labels_offset)
  tf.logging.info('Computing the features of %d training and %d validation '
                  'photos', len(chosen), datasets[VALIDATION].num_samples)
  keep = {TRAIN: chosen, VALIDATION: None}
  return {split: photo_features.from_photos(
      run, checkpoint, dataset, batch_size, num_threads, moving_average_decay,
      session_config, keep[split])
          for split, dataset in datasets.items()}


def _keep(bank, checkpoint):
  """Keeps a Bank for the next time, where that folder can be written."""
  try:
    feature_bank.save(checkpoint, bank)
  except OSError as error:
    tf.logging.warning('%s is not kept: %s', feature_bank.path(checkpoint),
                       error.strerror)


def _read_labels(dataset):
  """Returns the labels of a data set's records: [photos] int64."""
  found = []
  for path in dataset.data_sources:
    for record in tf.python_io.tf_record_iterator(path):
      feature = tf.train.Example.FromString(record).features.feature
      found.append(feature['image/class/label'].int64_list.value[0])
  return np.array(found, np.int64)


def _build(found, checkpoint, records, moving_average_decay):
  """Returns the Bank of {split: Features}."""
  train, validation = found[TRAIN], found[VALIDATION]
  bank = feature_bank.build(train.values, train.labels, train.filenames,
                            train.positions, checkpoint, records,
                            moving_average_decay)
  return feature_bank.set_threshold(
      bank, feature_bank.similarities(bank, validation.values),
      validation.logits, VALIDATION)


def describe(bank):
  """Returns a sentence about a Bank with a threshold."""
  low, high = metrics.wilson_interval(bank.photos - bank.refused, bank.photos)
  return ('%d training photos to compare with; known from a score of %.4f on, '
          'set with %d %s photos, of which %d are refused (95 %% interval '
          'of the accepted share: %.3f to %.3f)' % (
              len(bank.labels), bank.threshold, bank.photos, bank.split,
              bank.refused, low, high))


def judge(bank, counted):
  """Says of photos whether they are known.

  Args:
    bank: feature_bank.Bank with a threshold.
    counted: loop.Counted with logits and features, of one photo at least.

  Returns:
    Judged.
  """
  similarities = feature_bank.similarities(bank, counted.features)
  scores = feature_bank.scores(bank, similarities, counted.logits)
  taken = scores >= bank.threshold
  count = int(np.sum(~taken))
  return Judged(similarities, scores, taken, Refused(
      count, len(scores), metrics.wilson_interval(count, len(scores))))
