"""The out-of-distribution detector of a checkpoint: its bank and threshold.

  bank, description = detector.find_or_build_bank(
      run, checkpoint, 'my_flower_5', 'data')
  detection = detector.detect(bank, counted)

The bank consists of training photos; its threshold is set with validation
photos. It is built once and stored next to the checkpoint, for evaluation,
report and export.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

from common.errors import InputError
from compat import tf
from datasets import dataset_factory, split_files
from evaluation import loop, metrics
from ood import photo_features, reference_bank
from runs import feature_cache, run_info
from runtime import forward_pass

TRAIN, VALIDATION = 'train', 'validation'


class RefusedShare(NamedTuple):
  """How many photos are refused as none of the classes."""

  # Photos that are not known.
  refused: int
  # All photos.
  photos: int
  # 95 % confidence interval of the share of refused photos.
  interval: Tuple[float, float]


class Detection(NamedTuple):
  """Results of the detector for some photos."""

  # [photos] float32, to the bank.
  similarities: np.ndarray
  # [photos] float32, OOD scores.
  scores: np.ndarray
  # [photos] bool, whether the score reaches the threshold.
  known: np.ndarray
  refused: RefusedShare


def find_or_build_bank(
    run: run_info.RunInfo, checkpoint: str, dataset_name: Optional[str] = None,
    dataset_dir: Optional[str] = None,
    moving_average_decay: Optional[float] = None, compute: bool = True,
    batch_size: int = 32, num_threads: int = 4,
    options: forward_pass.Options = forward_pass.DEFAULT
) -> Tuple[Optional[reference_bank.Bank], str]:
  """Returns the bank of a checkpoint; builds it if it does not exist.

  Args:
    run: RunInfo of the run, as training saved it.
    checkpoint: prefix of the checkpoint.
    dataset_name: name of the current data set; see dataset_of.
    dataset_dir: folder of its records.
    moving_average_decay: decay of the averages to use; None: the variables.
    compute: whether photos may be run through the network, which takes a while;
      False: use only the feature cache of the run.
    batch_size: photos per batch.
    num_threads: threads that decode photos.
    options: forward_pass.Options.

  Returns:
    A reference_bank.Bank and its description; or None and the reason.
  """
  try:
    datasets = _datasets(run, *dataset_of(run, dataset_name, dataset_dir))
    records = feature_cache.fingerprint_records(
        sum((list(datasets[split].data_sources)
             for split in (TRAIN, VALIDATION)), []))
    precision = forward_pass.choose(options, run.precision).precision
    bank = reference_bank.load(checkpoint, records, moving_average_decay,
                               precision)
    if bank is None:
      features = photo_features.from_cache(
          run, checkpoint, datasets, moving_average_decay, options,
          {TRAIN: reference_bank.choose})
      if features is None and not compute:
        return None, ('the features of %s are not cached; ./export_freeze.sh '
                      'or ./report.sh computes them' % checkpoint)
      bank = _build(features or _compute(
          run, checkpoint, datasets, batch_size, num_threads,
          moving_average_decay, options),
                    checkpoint, records, moving_average_decay, precision)
      _save(bank, checkpoint)
    return bank, describe_bank(bank)
  # A run in progress may have deleted its checkpoint by now.
  except (InputError, OSError) as error:
    return None, str(error)


def dataset_of(
    run: run_info.RunInfo, dataset_name: Optional[str] = None,
    dataset_dir: Optional[str] = None) -> Tuple[str, str]:
  """Returns the name and the folder of the data set of a run.

  Args:
    run: RunInfo of the run.
    dataset_name: name of the current data set; None: the run's. If it is not
      the run's, dataset_dir is ignored.
    dataset_dir: folder of that data set now; None: the one of the run.
  """
  if dataset_name not in (None, run.dataset_name):
    dataset_dir = None
  return run.dataset_name, dataset_dir or run.dataset_dir


def _datasets(run: run_info.RunInfo, name: str,
              folder: Optional[str]) -> Dict[str, Any]:
  """Returns {split: slim Dataset} of the two splits that a bank needs.

  Raises:
    InputError: a split has no photos, or its classes are not the run's.
  """
  splits = split_files.find(name, folder) if folder else {}
  missing = [split for split in (TRAIN, VALIDATION)
             if split not in splits or splits[split].size == 0]
  if missing or not folder:
    raise InputError('data set %r in %s has no %s photos' % (
        name, folder, ' and no '.join(missing)))
  datasets = {split: dataset_factory.get_dataset(name, split, folder)
              for split in (TRAIN, VALIDATION)}
  run_info.check_classes(
      run, run_info.labels_of(datasets[TRAIN], run.labels_offset),
      lambda trained, others: 'data set %r in %s has the classes %s, the run '
      '%s' % (name, folder, others, trained))
  return datasets


def _compute(run, checkpoint, datasets, batch_size, num_threads,
             moving_average_decay, options):
  """Runs photos through the network; returns {split: Features}."""
  chosen = reference_bank.choose(
      read_labels(datasets[TRAIN]) - run.labels_offset)
  tf.logging.info('Computing the features of %d training and %d validation '
                  'photos', len(chosen), datasets[VALIDATION].num_samples)
  keep = {TRAIN: chosen, VALIDATION: None}
  return {split: photo_features.from_photos(
      run, checkpoint, dataset, batch_size, num_threads, moving_average_decay,
      options, keep[split])
          for split, dataset in datasets.items()}


def _save(bank, checkpoint):
  """Saves a Bank, if its folder is writable."""
  try:
    reference_bank.save(checkpoint, bank)
  except OSError as error:
    tf.logging.warning('%s is not saved: %s', reference_bank.path(checkpoint),
                       error.strerror)


def read_labels(dataset: Any) -> np.ndarray:
  """Returns the labels of a slim Dataset's records: [photos] int64."""
  labels = []
  for path in dataset.data_sources:
    for record in tf.python_io.tf_record_iterator(path):
      feature = tf.train.Example.FromString(record).features.feature
      labels.append(feature['image/class/label'].int64_list.value[0])
  return np.array(labels, np.int64)


def _build(features, checkpoint, records, moving_average_decay, precision):
  """Builds the Bank from {split: Features}."""
  train, validation = features[TRAIN], features[VALIDATION]
  bank = reference_bank.build(train.values, train.labels, train.filenames,
                              train.positions, checkpoint, records,
                              moving_average_decay)
  return reference_bank.set_threshold(
      bank._replace(precision=precision),
      reference_bank.similarities(bank, validation.values), validation.logits,
      VALIDATION)


def describe_bank(bank: reference_bank.Bank) -> str:
  """Returns a description of a Bank with a threshold."""
  assert bank.threshold is not None
  low, high = metrics.wilson_interval(bank.photos - bank.refused, bank.photos)
  return ('%d training photos to compare with; known from a score of %.4f on, '
          'set with %d %s photos, of which %d are refused (95 %% interval '
          'of the accepted share: %.3f to %.3f)' % (
              len(bank.labels), bank.threshold, bank.photos, bank.split,
              bank.refused, low, high))


def detect(bank: reference_bank.Bank, counted: loop.Counted) -> Detection:
  """Decides which photos are known.

  Args:
    bank: reference_bank.Bank with a threshold.
    counted: loop.Counted with logits and features, of at least one photo.

  Returns:
    A Detection.
  """
  assert counted.features is not None and counted.logits is not None
  similarities = reference_bank.similarities(bank, counted.features)
  scores = reference_bank.scores(bank, similarities, counted.logits)
  known = scores >= bank.threshold
  count = int(np.sum(~known))
  return Detection(similarities, scores, known, RefusedShare(
      count, len(scores), metrics.wilson_interval(count, len(scores))))
