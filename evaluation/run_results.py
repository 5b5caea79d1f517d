"""Results of a checkpoint on its validation and test photos.

Decisions are made on the validation photos and reported on the test photos:
`decided` and `reported` return the result of the right split.
"""

from typing import List, NamedTuple, Optional, Sequence

from common.errors import InputError
from compat import tf
from datasets import dataset_factory, record_dataset, split_files
from evaluation import loop, metrics
from evaluation.metrics import Metrics
from runs import run_info
from runtime import forward_pass

VALIDATION, TEST = 'validation', 'test'


class SplitResult(NamedTuple):
  """Results on the photos of one split."""

  # Of the split.
  name: str
  # With logits and features.
  counted: loop.Counted
  metrics: Metrics
  # The record files of its photos, in order.
  sources: List[str]


def measure(run: run_info.RunInfo, checkpoint: str, dataset_name: str,
            dataset_dir: str, batch_size: int, num_threads: int = 4,
            moving_average_decay: Optional[float] = None,
            options: forward_pass.Options = forward_pass.DEFAULT
            ) -> List[SplitResult]:
  """Evaluates a checkpoint on each validation and test photo once.

  Args:
    run: RunInfo of the run.
    checkpoint: prefix of the checkpoint.
    dataset_name: name of the data set.
    dataset_dir: folder of its records.
    batch_size: photos per batch.
    num_threads: threads that decode photos.
    moving_average_decay: decay of the moving averages to use, None for the
      plain variables.
    options: forward_pass.Options.

  Returns:
    A list of one or two SplitResults, validation first.

  Raises:
    InputError: the data set is missing, has neither of the splits, or has
      other classes than the run; or the checkpoint cannot be used.
  """
  existing = split_files.find(dataset_name, dataset_dir)
  splits = [name for name in (VALIDATION, TEST) if name in existing]
  if existing and not splits:
    raise InputError(
        'data set %r in %s has neither a validation nor a test split: convert '
        'it with --percent_validation=20' % (dataset_name, dataset_dir))
  # If the data set is missing, get_dataset raises the error.
  parts = [dataset_factory.get_dataset(dataset_name, name, dataset_dir)
           for name in splits or [VALIDATION]]
  names = dataset_factory.labels_of_records(dataset_name, dataset_dir)
  run_info.check_classes(
      run, names[run.labels_offset:], lambda trained, others:
      'the run was trained on the classes %s and %s in %s has %s' %
      (trained, dataset_name, dataset_dir, others))
  whole = record_dataset.make_dataset(
      sum((list(part.data_sources) for part in parts), []),
      sum(part.num_samples for part in parts), names)
  tf.logging.info('Measuring %s on %s', checkpoint, ' and '.join(
      '%d %s photos' % (part.num_samples, name)
      for part, name in zip(parts, splits)))
  with tf.Graph().as_default():
    graph = loop.build_graph(whole, run, batch_size, num_threads,
                             moving_average_decay=moving_average_decay,
                             with_logits=True, with_features=True)
    counted = loop.count(graph, checkpoint, options, timed=True)
  results, start = [], 0
  for name, part in zip(splits, parts):
    piece = _piece(counted, start, start + part.num_samples)
    results.append(SplitResult(
        name, piece,
        metrics.compute(piece.labels, piece.probabilities, run.labels),
        list(part.data_sources)))
    start += part.num_samples
  return results


def _piece(counted, start, end):
  """Returns the photos `start` to `end` of a Counted."""
  return counted._replace(
      filenames=counted.filenames[start:end],
      labels=counted.labels[start:end],
      probabilities=counted.probabilities[start:end],
      logits=counted.logits[start:end],
      features=counted.features[start:end])


def decided(results: Sequence[SplitResult]) -> Optional[SplitResult]:
  """Returns the SplitResult to make decisions on, None without one."""
  return results[0] if results[0].name == VALIDATION else None


def reported(results: Sequence[SplitResult]) -> SplitResult:
  """Returns the SplitResult to report: test if there is one."""
  return results[-1]
