"""Finds suspect labels, near duplicates and outliers; moves photos on request.

  python -m tools.check_labels --train_dir=/tmp/flowers

Each photo of the data set is compared with the others by the features of a
checkpoint: those that training has cached, or else they are computed. Written
are a page, labels.html, on which a person chooses what to do with each photo,
and the suspects as labels.csv. Nothing else is changed.

  python -m tools.check_labels --train_dir=/tmp/flowers --apply=choices.csv

moves the photos as the choices of the page say. Network, data set and other
settings come from the run.json of the train directory.
"""

import os
import shlex
import time
from typing import Any, Dict, List

import numpy as np
from absl import flags

from common import files, threads
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from datasets import dataset_factory, split_files
from datasets.conversion import label_choices
from datasets.photo_files import near_photos
from evaluation import label_check, labels_page, wrong_photos
from ood import photo_features
from runs import feature_cache, run_info
from tools import make_report

FLAGS = flags.FLAGS

_SPLITS = ('train', 'validation', 'test', 'val')

# Suspects that are printed.
_PRINTED = 10


def define_flags() -> None:
  """Defines the flags for the run, the page and the choices."""
  make_report.define_run_flags()
  flags.DEFINE_string(
      'output_file', None,
      'Path of the page to write; the suspects are written beside it, as .csv. '
      'None: labels.html in --train_dir.')
  flags.DEFINE_integer(
      'num_suspects', 100, 'Suspect labels to list.', lower_bound=1)
  flags.DEFINE_string(
      'apply', None,
      'File of choices, as the page saves it: the photos are moved within the '
      'folder of photos, and a file that undoes this is written beside it.')
  flags.DEFINE_integer(
      'seed', 0, 'Seed of the folds, and of the labels that are replaced to '
      'measure how well wrong ones are found.')
  make_report.define_compute_flags()


def read_features(run: run_info.RunInfo,
                  checkpoint: str) -> Dict[str, photo_features.Features]:
  """Returns {split: Features} of all photos of the data set of a run.

  Raises:
    InputError: the data set is missing, or has other classes than the run.
  """
  found = split_files.find(run.dataset_name, run.dataset_dir)
  parts = {split: dataset_factory.get_dataset(run.dataset_name, split,
                                              run.dataset_dir)
           for split in _SPLITS if split in found or split == 'train'}
  run_info.check_classes(
      run, run_info.labels_of(parts['train'], run.labels_offset),
      lambda trained, others: 'the run was trained on the classes %s and %s in '
      '%s has %s' % (trained, run.dataset_name, run.dataset_dir, others))
  decay = run_info.choose_decay(FLAGS.moving_average_decay, run, checkpoint)
  options = make_report.options_from_flags()
  folder = os.path.dirname(checkpoint)
  use = (feature_cache.load_use(folder) or
         feature_cache.load_use(os.path.dirname(folder)))
  cached = {split: part for split, part in parts.items()
            if use and split in use.folders}
  features = (photo_features.from_cache(run, checkpoint, cached, decay, options)
              if cached else None) or {}
  for split, part in parts.items():
    if split not in features:
      tf.logging.info('Computing the features of %d %s photos: they are not '
                      'cached', part.num_samples, split)
      features[split] = photo_features.from_photos(
          run, checkpoint, part, FLAGS.batch_size,
          FLAGS.num_preprocessing_threads, decay, options)
  return {split: features[split] for split in parts}


def merge(features: Dict[str, photo_features.Features]) -> label_check.Photos:
  """Returns the photos of all splits in one table."""
  parts = list(features.values())
  labels = np.concatenate([part.labels for part in parts])
  logits = np.concatenate([part.logits for part in parts])
  return label_check.Photos(
      [split for split, part in features.items() for _ in part.labels],
      [name for part in parts for name in part.filenames], labels,
      np.concatenate([part.positions for part in parts]),
      np.concatenate([part.values for part in parts]),
      logits.argmax(axis=1) == labels)


def read_sketches(sources: List[labels_page.Source],
                  photos: label_check.Photos) -> np.ndarray:
  """Returns the near_photos.sketch of each photo, from its record.

  A photo that cannot be decoded gets a black one, which resembles none.
  """
  encoded = (data for source in sources for _, data in wrong_photos.read_photos(
      source.sources, range(photos.splits.count(source.name))))
  sketches = list(threads.iterate_in_threads(near_photos.sketch, encoded))
  if len(sketches) != len(photos.files):
    raise InputError('%d of %d records can be read: convert the photos again' %
                     (len(sketches), len(photos.files)))
  black = np.zeros([near_photos.SIDE] * 2, np.uint8)
  return np.stack([black if one is None else one for one in sketches])


def suspects_csv(page: labels_page.Page) -> str:
  """Returns the suspects as a file of choices without actions."""
  return label_choices.to_csv(
      (page.photos.files[found.number],
       page.names[page.photos.labels[found.number]], '',
       page.names[found.suggested], '') for found in labels_page.suspects(page))


def summary(page: labels_page.Page) -> str:
  """Returns the findings as text."""
  findings, photos = page.findings, page.photos
  lines = ['%d photos: about %.0f labels are wrong or ambiguous, by confident '
           'learning' % (len(photos.files), findings.expected),
           'Of %d labels replaced at random, %d are among the first 10 ranks '
           'and %d among the first 50' % findings.planted]
  shown = labels_page.suspects(page)
  lines.append('Suspect labels: %d' % len(findings.suspects))
  lines += ['  %s: %s, looks like %s (%.0f %%)' % (
      photos.files[found.number], page.names[photos.labels[found.number]],
      page.names[found.suggested], 100 * found.suspicion)
            for found in shown[:_PRINTED]]
  lines.append('Near duplicates: %d groups; outliers: %d' % (
      len(findings.groups), len(findings.outliers)))
  for accuracy in findings.accuracies:
    if accuracy.others < accuracy.photos:
      lines.append('Accuracy on %d %s photos: %.4f; on the %d without a near '
                   'duplicate in the training split: %.4f' % (
                       accuracy.photos, accuracy.split, accuracy.accuracy,
                       accuracy.others, accuracy.accuracy_of_others))
  lines += ['Cannot be told apart: %s and %s' % (
      page.names[pair.first], page.names[pair.second])
            for pair in findings.alike if pair.is_chance]
  return '\n'.join(lines)


def apply_choices() -> None:
  """Carries out the choices of --apply, and prints what was done."""
  name, folder = FLAGS.dataset_name, FLAGS.dataset_dir
  if not (name and folder):
    run = make_report.run_from_flags(make_report.checkpoint_from_flags())
    name, folder = run.dataset_name, run.dataset_dir
  done = label_choices.apply(FLAGS.apply, folder, name)
  print('Moved %d photos to another class, dropped %d, kept %d%s' % (
      done.moved, done.dropped, done.kept, '; %d were moved before' %
      done.done_before if done.done_before else ''))
  if done.undo:
    name = os.environ.get('RUN', '')
    prefix = 'RUN=%s ' % shlex.quote(name) if name else ''
    print('Undo: %s./check_labels.sh --apply=%s\n'
          'Next: %s./convert_tfrecord.sh, then train again' % (
              prefix, shlex.quote(done.undo), prefix))


def main(_: List[str]) -> None:
  """Checks the labels and writes the page, or carries out choices."""
  if FLAGS.apply:
    apply_choices()
    return
  checkpoint = make_report.checkpoint_from_flags()
  run = make_report.run_from_flags(checkpoint)
  train_dir = FLAGS.train_dir or os.path.dirname(checkpoint)
  output = FLAGS.output_file or os.path.join(train_dir, 'labels.html')
  if not os.path.isdir(os.path.dirname(os.path.abspath(output))):
    raise InputError('--output_file=%s: its folder does not exist' % output)
  csv_path = os.path.splitext(output)[0] + '.csv'
  start = time.time()
  photos = merge(read_features(run, checkpoint))
  sources: List[Any] = [
      labels_page.Source(split, dataset_factory.get_dataset(
          run.dataset_name, split, run.dataset_dir).data_sources)
      for split in dict.fromkeys(photos.splits)]
  tf.logging.info('Comparing %d photos', len(photos.files))
  findings = label_check.find(photos, len(run.labels),
                              read_sketches(sources, photos), FLAGS.seed)
  page = labels_page.Page(
      '%s in %s' % (run.dataset_name, run.dataset_dir), checkpoint,
      os.path.basename(csv_path), run.labels, photos, findings, sources,
      label_choices.read_kept(run.dataset_dir, run.dataset_name),
      FLAGS.num_suspects)
  files.write_text(output, labels_page.render(page))
  label_choices.keep_decided(csv_path)
  files.write_text(csv_path, suspects_csv(page))
  print(summary(page))
  print('Wrote %s and %s in %.0f s' % (output, os.path.basename(csv_path),
                                       time.time() - start))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
