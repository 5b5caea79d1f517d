"""Chooses which photos of a folder to label next, with a frozen graph.

  python -m tools.label_next --frozen_graph=my_inception_v4_freeze.pb photos/

Chosen are photos that the classifier is uncertain about and that are unlike
each other. Left out are copies of each other and of photos in the data set,
also if they are resized, mirrored or newly encoded, and, without
--with_unknown, photos that are none of the classes.

Prints CSV, the most useful photo first: file; label and score, the class that
the classifier suggests; and reason, the two most probable classes.
What was left out is summarized on stderr, where each photo that cannot be read
has a line; the exit status is then 1.
"""

import contextlib
import csv
import io
import sys
from typing import (
  Any,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np
import tqdm
from absl import flags

from common import files, threads
from common import flags as common_flags
from common.errors import InputError, name_some
from common.progress import Progress
from compat import tf
from datasets import dataset_factory, split_files
from datasets.photo_files import near_photos, sorted_folder
from datasets.photo_files.photos import Photo, PhotoError
from evaluation import label_selection, wrong_photos
from runtime import forward_pass
from serving.model.classifier import Classifier
from serving.model.predictions import Prediction
from serving.web.score_table import top_rows
from tools import classify_image

FLAGS = flags.FLAGS

COLUMNS = ('file', 'label', 'score', 'reason')


def define_flags() -> None:
  """Defines the flags for the graph and the choice."""
  flags.DEFINE_string(
      'frozen_graph', None, 'Frozen graph of export_inference_graph.py.')
  common_flags.define_allowed_ops_flag()
  flags.DEFINE_string(
      'dataset_name', None,
      'Converted data set of the photos that are labelled, of which no copy is '
      'chosen. None: there is none.')
  flags.DEFINE_string('dataset_dir', None, 'Folder of --dataset_name.')
  flags.DEFINE_integer('count', 50, 'Photos to choose.', lower_bound=1)
  flags.DEFINE_bool(
      'with_unknown', False,
      'Also choose photos that are none of the classes, by the out-of-'
      'distribution detection of the graph.')
  flags.DEFINE_string(
      'unknown_file', None,
      'CSV file to write with the photos that are none of the classes. None: '
      'they are only counted.')
  classify_image.define_sort_flags()
  flags.DEFINE_integer('batch_size', 16, 'Photos per batch.', lower_bound=1)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


class Choice(NamedTuple):
  """Numbers of photos."""

  # The most useful one first.
  chosen: List[int]
  # Of no class, the one that is most similar to the classes first.
  unknown: List[int]
  # How many were left out.
  copies: int


class Examined(NamedTuple):
  """The photos that can be used, in the order of `files`."""

  files: List[str]
  predictions: List[Prediction]
  # near_photos.sketch of each.
  sketches: List[np.ndarray]
  unusable: int


def examine(classifier: Classifier, paths: Sequence[str],
            unusable: int) -> Examined:
  """Classifies photos; prints a line for each that cannot be used.

  Args:
    classifier: Classifier with features.
    paths: of the photos.
    unusable: number of those that are known not to be usable.
  """
  sketch_of: Dict[str, np.ndarray] = {}

  def keep_sketch(path, photo):
    sketch_of[path] = _sketch(photo.encoded)

  found = Examined([], [], [], 0)
  with Progress('classified', len(paths)) as progress:
    for path, answer in classify_image.classify_files(
        classifier, paths, FLAGS.batch_size, keep_sketch):
      progress.add()
      if isinstance(answer, PhotoError):
        tqdm.tqdm.write('%s: %s' % (path, answer), file=sys.stderr)
      else:
        found.files.append(path)
        found.predictions.append(answer)
        found.sketches.append(sketch_of[path])
  return found._replace(unusable=unusable + len(paths) - len(found.files))


def _sketch(encoded):
  """Returns a near_photos.sketch; black, which resembles none, if it fails."""
  sketch = near_photos.sketch(encoded)
  return np.zeros([near_photos.SIDE] * 2, np.uint8) if sketch is None else (
      sketch)


def labelled_sketches(name: str, folder: str) -> List[np.ndarray]:
  """Returns the near_photos.sketch of each photo of a data set.

  Raises:
    InputError: its files are missing or damaged.
  """
  if not (name and folder and split_files.find(name, folder)):
    tf.logging.warning('No data set %r in %s: photos that are labelled may be '
                       'chosen', name, folder)
    return []
  sketches: List[np.ndarray] = []
  for split in split_files.find(name, folder):
    dataset = dataset_factory.get_dataset(name, split, folder)
    with Progress('compared with %s' % split, dataset.num_samples) as progress:
      for sketch in threads.iterate_in_threads(_sketch, (
          data for _, data in wrong_photos.read_photos(
              dataset.data_sources, range(dataset.num_samples)))):
        sketches.append(sketch)
        progress.add()
  return sketches


def file_sketches(paths: Sequence[str]) -> List[np.ndarray]:
  """Returns the near_photos.sketch of each file that is a photo."""
  return [_sketch(photo.encoded) for photo in threads.iterate_in_threads(
      classify_image.prepare_file, paths) if isinstance(photo, Photo)]


def choose(found: Examined, labelled: Sequence[np.ndarray]) -> Choice:
  """Chooses among photos.

  Args:
    found: the photos.
    labelled: near_photos.sketch of each photo that is labelled.
  """
  known = [answer.known is not False for answer in found.predictions]
  pool = np.flatnonzero(np.array(known, bool) | FLAGS.with_unknown)
  if not len(pool):
    return Choice([], _unknown(found), 0)
  scores = np.stack([found.predictions[number].scores for number in pool])
  originals = label_selection.without_copies(
      np.stack([found.sketches[number] for number in pool]), labelled,
      -label_selection.margins(scores))
  features: List[Any] = [found.predictions[number].features
                         for number in pool[originals]]
  chosen = label_selection.choose(scores[originals], features, FLAGS.count)
  return Choice(pool[originals][chosen].tolist(), _unknown(found),
                len(pool) - len(originals))


def _unknown(found):
  """Returns the numbers of the photos of no class, most similar first."""
  return sorted((number for number, answer in enumerate(found.predictions)
                 if answer.known is False),
                key=lambda number: -found.predictions[number].similarity)


def csv_of(found: Examined, numbers: Iterable[int],
           labels: Sequence[str]) -> str:
  """Returns photos as CSV."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(COLUMNS)
  for number in numbers:
    answer = found.predictions[number]
    rows = top_rows(answer.scores, labels, 2)
    reason = ' or '.join('%s %s' % (row.label, row.percent) for row in rows)
    if answer.known is False and answer.similarity is not None:
      reason += '; none of the classes, similarity %.4f' % answer.similarity
    writer.writerow([found.files[number], rows[0].label,
                     '%.6f' % rows[0].score, reason])
  return text.getvalue()


def summary(found: Examined, choice: Choice) -> str:
  """Returns the numbers of photos as text."""
  parts = ['%d of %d photos chosen' % (len(choice.chosen), len(found.files))]
  if choice.copies:
    parts.append('%d are copies of others or of labelled photos' %
                 choice.copies)
  if choice.unknown:
    parts.append('%d are none of the classes (%s)%s' % (
        len(choice.unknown),
        name_some([found.files[number] for number in choice.unknown]),
        '' if FLAGS.with_unknown else
        ', which --with_unknown would choose among too'))
  if found.unusable:
    parts.append('%d cannot be used' % found.unusable)
  return '; '.join(parts)


def find_photos(sources: Sequence[str],
                target: Optional[sorted_folder.SortedFolder]
                ) -> Tuple[List[str], int]:
  """Finds the photos to choose from: those that were not chosen before.

  Prints a line for each that cannot be sorted.

  Args:
    sources: files and folders.
    target: where the chosen ones are placed; None: nowhere.

  Returns:
    Their paths, and the number of those that cannot be sorted.
  """
  paths, unusable = [], 0
  for path in dict.fromkeys(classify_image.find_photos(sources)):
    reason = target and classify_image.reason_not_sorted(path, sources)
    if reason:
      print('%s: %s' % (path, reason), file=sys.stderr)
      unusable += 1
    elif not (target and target.has(path)):
      paths.append(path)
  return paths, unusable


def main(argv: List[str]) -> int:
  """Prints the photos to label next; returns the exit status."""
  common_flags.require(FLAGS, 'frozen_graph')
  if FLAGS['sort_by'].present and not FLAGS.sort_into:
    raise InputError('--sort_by works with --sort_into only')
  with contextlib.ExitStack() as stack:
    target = None
    if FLAGS.sort_into:
      target = stack.enter_context(sorted_folder.SortedFolder(
          FLAGS.sort_into, FLAGS.sort_by, argv[1:]))
    paths, unusable = find_photos(argv[1:], target)
    classifier = Classifier.from_frozen_graph(
        FLAGS.frozen_graph, batch_size=FLAGS.batch_size,
        allowed_ops=FLAGS.allowed_ops, with_features=True,
        options=forward_pass.options_from_flags(FLAGS))
    if target:
      target.set_labels(classifier.labels)
    tf.logging.info('Forward passes: %s', classifier.choice.describe())
    labelled = labelled_sketches(FLAGS.dataset_name, FLAGS.dataset_dir)
    if target:
      with contextlib.suppress(InputError):  # There are none.
        labelled += file_sketches(classify_image.find_photos([target.folder]))
    found = examine(classifier, paths, unusable)
    choice = choose(found, labelled)
    if FLAGS.unknown_file:
      files.write_output(FLAGS.unknown_file, csv_of(
          found, choice.unknown, classifier.labels).encode(
              'utf-8', 'surrogateescape'))
    print(csv_of(found, choice.chosen, classifier.labels), end='', flush=True)
    if target:
      for number in choice.chosen:
        answer = found.predictions[number]
        target.add(found.files[number], None if answer.known is False else
                   int(answer.scores.argmax()), answer.scores.max())
  print(summary(found, choice), file=sys.stderr)
  return int(found.unusable > 0)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main, positional=True)
