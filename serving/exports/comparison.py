"""Compares two ways to compute a network's scores, on the same photos.

  choice, found = comparison.compare_precisions(graph_def, dataset, options)
  print(comparison.describe_precisions(choice, found, 'validation'))
"""

import contextlib
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common import progress
from compat import tf
from datasets import dataset_factory, input_pipeline, split_files
from preprocessing import preprocessing_factory
from runs import run_info
from runtime import forward_pass
from serving.model import graph_info, staged_graph

# Photos per batch, if the graph accepts any number.
_BATCH = 32

# Function of `[n, image_size, image_size, channels]` float32 that returns the
# `[n, num_classes]` scores.
ScoreFn = Callable[[np.ndarray], np.ndarray]


class Comparison(NamedTuple):
  """Results of two functions for the same photos."""

  # Number of photos compared.
  photos: int
  # Number of photos that the first one classifies correctly.
  first_correct: int
  # Number of photos that the second one classifies correctly.
  second_correct: int
  # Number of photos for which their labels differ.
  disagreed: int
  # Largest absolute difference between two probabilities.
  largest_difference: float
  # Mean absolute difference between two probabilities.
  mean_difference: float


def find_photos(run: run_info.RunInfo, splits: Sequence[str]
                ) -> Tuple[Optional[str], Any]:
  """Returns the photos of a run's data set for a comparison.

  Args:
    run: RunInfo.
    splits: names of splits; the first of them that has photos is used.

  Returns:
    The name of the split and its Dataset; or None, and the reason for that.

  Raises:
    InputError: they have other classes than the run, or cannot be used.
  """
  name, folder = run.dataset_name, run.dataset_dir
  existing = split_files.find(name, folder) if folder else {}
  usable = [split for split in splits if split in existing and
            existing[split].size != 0]
  if not usable:
    return None, 'data set %r in %s has no %s photos' % (
        name, folder or 'no folder', ' or '.join(splits))
  dataset = dataset_factory.get_dataset(name, usable[0], folder)
  run_info.check_classes(
      run, run_info.labels_of(dataset, run.labels_offset),
      lambda trained, others: 'the network has the classes %s and %s has %s' %
      (trained, name, others))
  return usable[0], dataset


def compare(first: ScoreFn, second: ScoreFn, dataset: Any,
            info: graph_info.GraphInfo, max_photos: Optional[int] = None,
            batch_size: int = 1, num_threads: int = 4) -> Comparison:
  """Runs two functions on the same photos, each once.

  Args:
    first, second: ScoreFn.
    dataset: slim Dataset.
    info: GraphInfo: how the photos are preprocessed.
    max_photos: number of photos to use, from the first on; None: all.
    batch_size: photos per call.
    num_threads: number of threads that decode photos.

  Returns:
    Comparison.

  Raises:
    InputError: a record is damaged.
  """
  count = min(max_photos or dataset.num_samples, dataset.num_samples)
  correct, disagreed, largest, total = [0, 0], 0, 0.0, 0.0
  with tf.Graph().as_default():
    iterator = tf.data.make_initializable_iterator(
        input_pipeline.evaluation_batches(
            dataset, preprocessing_factory.get_preprocessing(
                info.preprocessing_name, is_training=False),
            info.image_size, batch_size, channels=info.channels,
            num_threads=num_threads, labels_offset=info.labels_offset))
    batch = iterator.get_next()
    with tf.Session() as session, input_pipeline.errors_as_advice(), (
        progress.Progress('compared', count)) as bar:
      session.run(iterator.initializer)
      for start in range(0, count, batch_size):
        labels, images = (
            values[:count - start]
            for values in session.run([batch['label'], batch['image']]))
        scores = [function(images)[:len(images)]
                  for function in (first, second)]
        answers = [values.argmax(axis=1) for values in scores]
        for index, answer in enumerate(answers):
          correct[index] += int(np.sum(answer == labels))
        disagreed += int(np.sum(answers[0] != answers[1]))
        differences = np.abs(scores[0] - scores[1])
        largest = float(np.maximum(largest, differences.max()))  # Keeps NaN.
        total += float(differences.mean(axis=1).sum())
        bar.add(len(images))
  return Comparison(count, correct[0], correct[1], disagreed, largest,
                    total / count)


def load_scores(graph_def: tf.GraphDef, options: forward_pass.Options
                ) -> staged_graph.StagedGraph:
  """Returns a StagedGraph of a graph's scores; see `score_fn`.

  Args:
    graph_def: frozen GraphDef with classifier/info.
    options: forward_pass.Options.
  """
  info = graph_info.require(graph_def)
  return staged_graph.StagedGraph(graph_def, info, {'scores': info.predictions},
                                  'scores', options)


def score_fn(graph: staged_graph.StagedGraph) -> ScoreFn:
  """Returns the ScoreFn of what load_scores returns."""
  return lambda images: graph.outputs_of(images)['scores']


def compare_precisions(graph_def: tf.GraphDef, dataset: Any,
                       options: forward_pass.Options, num_threads: int = 4
                       ) -> Optional[Tuple[forward_pass.Choice, Comparison]]:
  """Compares a graph's scores in a precision with those in float32.

  Args:
    graph_def: frozen GraphDef with classifier/info.
    dataset: slim Dataset of the photos.
    options: forward_pass.Options; `auto` is the graph's own precision.
    num_threads: number of threads that decode photos.

  Returns:
    How the scores in that precision are computed, and the Comparison; None if
    this machine computes them with float32 too.

  Raises:
    InputError: a record is damaged; or as for forward_pass.load.
  """
  with contextlib.ExitStack() as stack:
    first = stack.enter_context(contextlib.closing(
        load_scores(graph_def, options)))
    if first.choice.precision == forward_pass.FLOAT32:
      return None
    second = stack.enter_context(contextlib.closing(load_scores(
        graph_def, options._replace(precision=forward_pass.FLOAT32))))
    found = compare(score_fn(first), score_fn(second), dataset,
                    graph_info.require(graph_def),
                    batch_size=first.batch_size or _BATCH,
                    num_threads=num_threads)
  return first.choice, found


def describe_precisions(choice: forward_pass.Choice, found: Comparison,
                        split: str) -> str:
  """Returns the result of compare_precisions on one line.

  Args:
    choice, found: what compare_precisions returned.
    split: name of the split of the photos.
  """
  return ('%s and float32 on %d %s photos (%s): photos with different answers: '
          '%d; probabilities differ by at most %.4f, on average by %.4f' %
          (choice.precision, found.photos, split, choice.name(),
           found.disagreed, found.largest_difference, found.mean_difference))


def describe_accuracies(found: Comparison, name: str, split: str,
                        num_photos: int) -> str:
  """Returns a comparison of a graph with its export on one line.

  Args:
    found: Comparison of the graph with what was exported.
    name: of what computes the exported one.
    split: name of the split of the photos.
    num_photos: number of photos of the split.
  """
  photos = '%d %s photos' % (found.photos, split)
  if found.photos < num_photos:
    photos = 'the first %d of %d %s photos' % (found.photos, num_photos, split)
  return ('Accuracy on %s: %s %.4f, graph %.4f; photos with different answers: '
          '%d; probabilities differ by at most %.1e' %
          (photos, name, found.second_correct / found.photos,
           found.first_correct / found.photos, found.disagreed,
           found.largest_difference))
