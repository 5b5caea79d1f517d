"""Classifies photos with a frozen graph, or with a checkpoint and a network.

  python -m tools.classify_image --frozen_graph=my_inception_v4_freeze.pb \
    cat.jpg
  python -m tools.classify_image --checkpoint_path=inception_v4.ckpt \
    --model_name=inception_v4 --format=csv photos/ > scores.csv

Folders are searched recursively, in sorted order; hidden files and files that
photo programs leave beside photos are skipped. For a photo that cannot be read,
one line is written to stderr; the other photos are still classified, and the
exit status is then 1.

Formats: `table` for reading; `csv` with the columns file, rank, label, score,
known and similarity; `json`, one list with one object per photo, each on its
own line. known says whether the photo is one of the classes at all, similarity
how similar it is to the training photos; both are empty for a graph without
these outputs (./export_freeze.sh --known=on adds them).

  python -m tools.classify_image --frozen_graph=… photos/ --sort_into=DIR

copies each photo into DIR/<class>/, or into DIR/unknown/ if it is of no class,
and prints how many are there. Existing files are never overwritten: a photo
gets a number if its name is taken. If it is interrupted, the same command
continues; photos that are there are not classified again.
"""

import contextlib
import csv
import itertools
import json
import os
import re
import sys
import time
from typing import (
  Callable,
  Dict,
  Iterable,
  Iterator,
  List,
  Optional,
  Sequence,
  Tuple,
  Union,
)

import numpy as np
import tqdm
from absl import flags

from common import files, label_files, shares, threads
from common import flags as common_flags
from common.errors import InputError, name_some
from common.progress import Progress
from compat import tf
from datasets import dataset_factory
from datasets.photo_files import side_files, sorted_folder
from datasets.photo_files.photos import Photo, PhotoError
from evaluation import calibration
from runs import checkpoints
from runtime import forward_pass
from serving.model import heat_map_pictures
from serving.model.classifier import Classifier, prepare
from serving.model.predictions import PhotoResult
from serving.web.score_table import none_of_text, top_rows

FLAGS = flags.FLAGS

# Longer side of the pictures of --explain, in pixels.
_EXPLAINED_SIDE = 720


def define_flags() -> None:
  """Defines the flags for the network and the output."""
  flags.DEFINE_string(
      'frozen_graph', None, 'Frozen graph of export_inference_graph.py.')
  common_flags.define_allowed_ops_flag()
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Checkpoint or train directory, in place of --frozen_graph.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  flags.DEFINE_string(
      'model_name', None,
      'Name of the network. None: from run.json or the graph.')
  flags.DEFINE_string(
      'label_file', None,
      'Labels as 0:daisy or plain lines. None: those of the graph, of the run '
      'or of ImageNet.')
  flags.DEFINE_string(
      'dataset_name', None,
      'Converted data set to take the labels from, with --dataset_dir.')
  flags.DEFINE_string(
      'dataset_dir', None, 'Folder of --dataset_name.')
  flags.DEFINE_integer(
      'image_size', None,
      "Height and width of the network's input in pixels. None: from run.json "
      "or the graph, or the network's default.", lower_bound=1)
  flags.DEFINE_string(
      'preprocessing_name', None,
      "Name of the preprocessing. None: from run.json or the graph, or the "
      "network's default.")
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Use the moving averages in --checkpoint_path, which training kept with '
      'this decay.', lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_bool(
      'calibrated', False,
      'Calibrate the scores with the temperature that ./report.sh fitted.')
  flags.DEFINE_integer(
      'num_top_predictions', 5,
      'Classes listed per photo, highest score first.',
      lower_bound=1)
  flags.DEFINE_enum(
      'format', 'table', sorted(WRITERS), 'Output format.')
  flags.DEFINE_integer(
      'nearest', 0,
      'Also list this many of the training photos nearest to each photo, with '
      'their class and the cosine similarity of the features.',
      lower_bound=0)
  flags.DEFINE_string(
      'explain', None,
      'Folder for heat maps, created if it does not exist: for each photo a '
      'JPEG that shows which of its regions raise the score of the class with '
      'the largest score, named after both. None: no heat maps.')
  flags.DEFINE_string(
      'explain_class', None,
      'Class that the pictures of --explain are about. None: of each photo the '
      'one with the largest score.')
  flags.DEFINE_integer(
      'batch_size', 16, 'Photos per batch.', lower_bound=1)
  flags.DEFINE_string(
      'file_list', None,
      'Text file with the path of a photo or folder on each line, in addition '
      'to those on the command line. None: there are no more.')
  common_flags.define_shard_flag(
      'The outputs of all shares together are that of all photos: the header '
      'of --format=csv is in that of share 1 only.')
  define_sort_flags()
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def define_sort_flags() -> None:
  """Defines where photos are sorted, and how; for several tools."""
  flags.DEFINE_string(
      'sort_into', None,
      'Folder to sort the photos into, one sub-folder per class; created if '
      'missing. None: print them only.')
  flags.DEFINE_enum(
      'sort_by', sorted_folder.COPY, sorted_folder.WAYS,
      'How photos are placed in --sort_into: as copies, as symbolic links, or '
      'moved away from where they are.')


def classifier_from_flags() -> Classifier:
  """Returns the Classifier for the flags.

  Raises:
    InputError: the flags do not name exactly one, or it cannot be loaded.
  """
  if bool(FLAGS.frozen_graph) == bool(FLAGS.checkpoint_path):
    raise InputError('one of --frozen_graph and --checkpoint_path is needed')
  options = forward_pass.options_from_flags(FLAGS)
  if FLAGS.frozen_graph:
    for name in ('dataset_name', 'moving_average_decay', 'which_checkpoint'):
      if FLAGS[name].value is not None:
        raise InputError('--%s works with --checkpoint_path only' % name)
    return Classifier.from_frozen_graph(
        FLAGS.frozen_graph, FLAGS.label_file, FLAGS.model_name,
        FLAGS.image_size, FLAGS.preprocessing_name, FLAGS.batch_size,
        FLAGS.calibrated, FLAGS.nearest, FLAGS.allowed_ops, options)
  labels = None
  if FLAGS.label_file:
    labels = label_files.read(FLAGS.label_file)
  elif FLAGS.dataset_name:
    if FLAGS.dataset_name != 'imagenet' and not FLAGS.dataset_dir:
      raise InputError('--dataset_name=%s needs --dataset_dir' %
                       FLAGS.dataset_name)
    labels = dataset_factory.get_labels(FLAGS.dataset_name, FLAGS.dataset_dir)
  # Resolved once: training may write a new checkpoint meanwhile.
  prefix = checkpoints.resolve(FLAGS.checkpoint_path, FLAGS.which_checkpoint)
  return Classifier.from_checkpoint(
      prefix, FLAGS.model_name, labels, FLAGS.image_size,
      FLAGS.preprocessing_name, FLAGS.moving_average_decay, FLAGS.batch_size,
      _temperature_from_flags(prefix), FLAGS.nearest, options)


def _temperature_from_flags(prefix):
  """Returns the temperature beside a checkpoint; None: not requested."""
  if not FLAGS.calibrated:
    return None
  temperature, reason = calibration.temperature_of(
      prefix, FLAGS.moving_average_decay)
  if temperature is None:
    raise InputError('--calibrated: ' + reason)
  return temperature


def find_photos(paths: Iterable[str]) -> List[str]:
  """Returns the files in `paths`, those of folders in sorted order.

  Args:
    paths: files and folders.

  Raises:
    InputError: there are no photos, or a path does not exist.
  """
  found = []
  for path in paths:
    if os.path.isdir(path):
      for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders
                            if not side_files.reason(name, is_folder=True))
        found += [os.path.join(folder, name) for name in sorted(names)
                  if not side_files.reason(name)]
    elif os.path.exists(path):
      found.append(path)
    else:
      raise InputError('no such file or folder: %s' % path)
  if not found:
    raise InputError('no photos: give files or folders, got %s' %
                     (', '.join(paths) or 'none'))
  return found


def _photos_of_share(sources):
  """Returns the files in `sources` that are in the share of --shard_of."""
  share, found = _share_from_flags(), find_photos(sources)
  return share.select(found) if share else found


def _share_from_flags():
  return None if FLAGS.shard_of is None else shares.parse(FLAGS.shard_of)


def _sources_from_flags(arguments):
  """Returns the files and folders on the command line and in --file_list."""
  if FLAGS.file_list is None:
    return arguments
  lines = os.fsdecode(files.read(FLAGS.file_list, 'list --file_list'))
  lines = lines.lstrip('\ufeff').replace('\r\n', '\n')
  return arguments + list(filter(None, lines.split('\n')))


def classify_files(classifier: Classifier, paths: Sequence[str],
                   batch_size: int,
                   look_at: Optional[Callable[[str, Photo], None]] = None
                   ) -> Iterator[Tuple[str, PhotoResult]]:
  """Classifies files in batches; others are decoded meanwhile.

  Args:
    classifier: Classifier.
    paths: files.
    batch_size: number of photos per forward pass.
    look_at: also called with each path and photo, in several threads at once.

  Yields:
    (path, Prediction or the error for the file).
  """
  def decode(path):
    photo = prepare_file(path)
    if look_at and isinstance(photo, Photo):
      look_at(path, photo)
    return classifier.decode(photo)

  decoded = threads.iterate_in_threads(decode, paths, ahead=2 * batch_size)
  for start in range(0, len(paths), batch_size):
    batch = paths[start:start + batch_size]
    yield from zip(batch, classifier.predict_prepared(
        list(itertools.islice(decoded, len(batch)))))


def prepare_file(path: str) -> Union[Photo, PhotoError]:
  """Returns a file converted as for a record, or the reason why it is not."""
  try:
    with open(path, 'rb') as file:
      return prepare(file.read())
  except OSError as error:
    return PhotoError(error.strerror)


class _Explainer:
  """Writes the pictures of --explain."""

  def __init__(self, classifier, folder, label):
    """Raises InputError if there are no heat maps, or no such class."""
    if label is not None and label not in classifier.labels:
      raise InputError('--explain_class=%s is not a class; classes: %s' % (
          label, name_some(classifier.labels)))
    classifier.heat_maps.load()
    self._classifier, self._folder, self._label = classifier, folder, label
    self._names = set()

  def write(self, path, scores):
    """Writes the picture of a photo that was classified."""
    photo = prepare_file(path)
    if isinstance(photo, PhotoError):  # Replaced since.
      raise photo
    labels = self._classifier.labels
    index = labels.index(self._label) if self._label else scores.argmax()
    heat_map = self._classifier.heat_map(photo, index)
    picture = heat_map_pictures.draw(photo.encoded, heat_map, _EXPLAINED_SIDE)
    target = self._new_path(path, labels[index])
    if os.path.realpath(os.path.dirname(path)) == os.path.realpath(
        self._folder) and os.path.exists(target):
      raise InputError('--explain=%s has the photos themselves, and %s exists '
                       'there: give another folder' % (self._folder, target))
    files.write_output(target, picture)

  def _new_path(self, path, label):
    """Returns the path of a picture; photos in several folders may be alike."""
    stem = '%s_%s' % (os.path.splitext(os.path.basename(path))[0],
                      re.sub(r'[^\w.-]+', '_', label))
    name, number = stem, 1
    while name in self._names:
      number += 1
      name = '%s-%d' % (stem, number)
    self._names.add(name)
    return os.path.join(self._folder, name + '.jpg')


def _explainer_from_flags(classifier):
  """Returns the _Explainer for the flags; None: there are no heat maps."""
  if FLAGS.explain is not None and FLAGS.shard_of is not None:
    raise InputError('--explain works without --shard_of only: pictures of two '
                     'shares may have the same name')
  if FLAGS.explain is None:
    if FLAGS.explain_class is not None:
      raise InputError('--explain_class needs --explain, the folder of the '
                       'pictures')
    return None
  explainer = _Explainer(classifier, FLAGS.explain, FLAGS.explain_class)
  try:
    os.makedirs(FLAGS.explain, exist_ok=True)
  except OSError as error:
    raise InputError('--explain=%s: %s' % (FLAGS.explain, error.strerror))
  return explainer


class _TableWriter:
  """One block per photo: its name, then score and label of each class."""

  def __init__(self, labels):
    self._none_of = none_of_text(labels)

  def write(self, path, rows, answer):
    print(path)
    if answer.known is False:
      print('  %s; similarity %.4f' % (self._none_of, answer.similarity))
    for row in rows:
      print('  %8s  %s' % (row.percent, row.label), flush=True)
    for photo in answer.nearest:
      print('  near it: %s (%s), cosine %.4f' %
            (photo.file, photo.label, photo.similarity), flush=True)

  def end(self):
    pass


class _CsvWriter:
  """One line per photo and class."""

  def __init__(self, labels):
    del labels
    self._writer = csv.writer(sys.stdout, lineterminator='\n')
    header = ['file', 'rank', 'label', 'score', 'known', 'similarity']
    for number in range(1, FLAGS.nearest + 1):
      header += ['near_%d' % number, 'near_%d_label' % number,
                 'near_%d_similarity' % number]
    share = _share_from_flags()
    if not share or share.number == 1:
      self._writer.writerow(header)

  def write(self, path, rows, answer):
    known = similarity = ''
    if answer.known is not None:
      known, similarity = int(answer.known), '%.6f' % answer.similarity
    near = []
    for photo in answer.nearest:
      near += [photo.file, photo.label, '%.6f' % photo.similarity]
    near += [''] * (3 * FLAGS.nearest - len(near))  # The bank may have fewer.
    for rank, row in enumerate(rows, start=1):
      self._writer.writerow([path, rank, row.label, '%.6f' % row.score, known,
                             similarity] + near)
    sys.stdout.flush()

  def end(self):
    pass


class _JsonWriter:
  """One list; each photo is an object on its own line."""

  def __init__(self, labels):
    del labels
    self._before = '['

  def write(self, path, rows, answer):
    found = {'file': path,
             'predictions': [{'label': row.label, 'score': round(row.score, 6)}
                             for row in rows]}
    if answer.known is not None:
      found.update(known=answer.known, similarity=round(answer.similarity, 6))
    if FLAGS.nearest:
      found['nearest'] = [{'file': photo.file, 'label': photo.label,
                           'similarity': round(photo.similarity, 6)}
                          for photo in answer.nearest]
    # Characters beyond ASCII are escaped: file names may not be valid UTF-8.
    print(self._before, json.dumps(found), sep='\n', end='', flush=True)
    self._before = ','

  def end(self):
    print('%s\n]' % ('[' if self._before == '[' else ''), flush=True)


WRITERS: Dict[str, Callable] = {
    'table': _TableWriter, 'csv': _CsvWriter, 'json': _JsonWriter}


def sort_photos(sources: Sequence[str]) -> int:
  """Sorts photos into the folder --sort_into; returns the exit status.

  Args:
    sources: files and folders.
  """
  start = time.time()
  for name in ('format', 'nearest', 'num_top_predictions'):
    if FLAGS[name].present:
      raise InputError('--%s works without --sort_into only' % name)
  found = list(dict.fromkeys(_photos_of_share(sources)))
  if FLAGS.sort_by == sorted_folder.MOVE and FLAGS.shard_of is not None:
    raise InputError('--sort_by=move works without --shard_of only: the other '
                     'processes need the photos')
  with sorted_folder.SortedFolder(FLAGS.sort_into, FLAGS.sort_by,
                                  sources) as target:
    paths = [path for path in found if not target.has(path)]
    former = len(found) - len(paths)
    unusable = 0
    with Progress('sorted', len(found), done=former) as progress:
      for path, answer in _classify_to_sort(target, paths, sources):
        progress.add()
        if isinstance(answer, PhotoError):
          tqdm.tqdm.write('%s: %s' % (path, answer), file=sys.stderr)
          unusable += 1
        else:
          target.add(path, None if answer.known is False else
                     int(np.argmax(answer.scores)), answer.scores.max())
    seconds = time.time() - start
    print('%s: %d photos sorted in %.1f s (%.1f photos/s), %d before' % (
        target.folder, len(paths) - unusable, seconds,
        (len(paths) - unusable) / seconds, target.former))
    for name, count in sorted(target.counts.items()):
      print('%8d  %s' % (count, name))
    if unusable:
      print('%8d  cannot be used, for the reasons above' % unusable)
  return int(unusable > 0)


def reason_not_sorted(path: str, sources: Sequence[str]) -> Optional[str]:
  """Returns why --sort_into does not place a photo, or None.

  Args:
    path: of the photo.
    sources: the files and folders in which it was found.
  """
  if not os.path.islink(path):
    return None
  if FLAGS.sort_by == sorted_folder.MOVE:
    return 'a symbolic link, which is not moved'
  inside = os.path.realpath(path)
  roots = [os.path.realpath(source) for source in sources
           if os.path.isdir(source)]
  if path in sources or any(os.path.commonpath([inside, root]) == root
                            for root in roots):
    return None
  return 'a symbolic link that leads out of the folder'


def _classify_to_sort(target, paths, sources):
  """Yields (path, Prediction or the error); links are not followed out."""
  usable = []
  for path in paths:
    reason = reason_not_sorted(path, sources)
    if reason:
      yield path, PhotoError(reason)
    else:
      usable.append(path)
  if usable:
    classifier = classifier_from_flags()
    tf.logging.info('Forward passes: %s', classifier.choice.describe())
    target.set_labels(classifier.labels)
    yield from classify_files(classifier, usable, FLAGS.batch_size)


def main(argv: List[str]) -> int:
  """Prints the scores of the photos on the command line, or sorts them."""
  sources = _sources_from_flags(argv[1:])
  if FLAGS.sort_into:
    return sort_photos(sources)
  if FLAGS['sort_by'].present:
    raise InputError('--sort_by works with --sort_into only')
  paths = _photos_of_share(sources)
  classifier = classifier_from_flags()
  tf.logging.info('Forward passes: %s', classifier.choice.describe())
  explainer = _explainer_from_flags(classifier)
  writer = WRITERS[FLAGS.format](classifier.labels)
  status = 0
  # On a terminal the table itself shows the progress.
  with contextlib.ExitStack() as stack:
    progress = None if sys.stdout.isatty() else stack.enter_context(
        Progress('classified', len(paths)))
    for path, answer in classify_files(classifier, paths, FLAGS.batch_size):
      if isinstance(answer, PhotoError):
        tqdm.tqdm.write('%s: %s' % (path, answer), file=sys.stderr)
        status = 1
      else:
        writer.write(path, top_rows(answer.scores, classifier.labels,
                                    FLAGS.num_top_predictions), answer)
        if explainer:
          explainer.write(path, answer.scores)
      if progress:
        progress.add()
  writer.end()
  return status


if __name__ == '__main__':
  define_flags()
  common_flags.run(main, positional=True)
