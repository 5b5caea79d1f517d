"""Measures how well wrong labels and near duplicates of photos are found.

The features before the classifier are computed with a published checkpoint. A
share of the labels is replaced: by any other class, or by the class that each
class is mistaken for most often. Precision at 10 is the share of the first 10
ranks that were replaced; labels that were wrong before count as errors.

Near duplicates are made of some photos and added to the folder: a copy of half
the size, two crops, a JPEG of quality 60, a mirrored copy. They are found if
they are in one group with their photo: by hash and features, as check_labels.sh
does, or by the hash alone, as --group_duplicates does.
"""

import io
import os
import shutil
import tempfile
import time
from typing import Dict, List, Optional, Sequence

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import unknown_scores
from common import flags as common_flags
from common.errors import InputError
from datasets.photo_files import near_photos, photos
from evaluation import label_check, label_scores
from runtime import forward_pass

FLAGS = flags.FLAGS

SHARES = (0.02, 0.05, 0.1)


def define_flags():
  """Defines the flags for the photos and the network."""
  flags.DEFINE_string('photos', None, 'Folder with one sub-folder per class.')
  flags.DEFINE_string('model_name', 'mobilenet_v1', 'Name of the network.')
  flags.DEFINE_string(
      'checkpoint_path', None, 'Published checkpoint of the network.')
  flags.DEFINE_integer(
      'seeds', 5, 'How often labels are replaced, from seed 0 on.',
      lower_bound=1)
  flags.DEFINE_integer(
      'copied', 60, 'Photos of which near duplicates are made.', lower_bound=1)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def copies_of(image: Image.Image,
              rng: np.random.RandomState) -> Dict[str, bytes]:
  """Returns {kind: JPEG} of the near duplicates of a photo."""
  def encode(copy, quality=90):
    stream = io.BytesIO()
    copy.save(stream, 'JPEG', quality=quality)
    return stream.getvalue()

  def crop(share):
    width, height = image.size
    part = int(width * share), int(height * share)
    left, top = rng.randint(width - part[0] + 1), rng.randint(
        height - part[1] + 1)
    return image.crop((left, top, left + part[0], top + part[1]))

  half = max(image.width // 2, 1), max(image.height // 2, 1)
  return {'resized to half': encode(image.resize(half, Image.BICUBIC)),
          'cropped to 90 %': encode(crop(0.9)),
          'cropped to 80 %': encode(crop(0.8)),
          'JPEG 60': encode(image, 60),
          'mirrored': encode(image.transpose(Image.FLIP_LEFT_RIGHT))}


def add_copies(folder: str, target: str, count: Optional[int] = None,
               only: Optional[Sequence[str]] = None) -> List[str]:
  """Copies a folder of photos and adds near duplicates of some of them.

  Args:
    folder: with one sub-folder per class.
    target: folder to make; the copies are named '<photo>.<kind>.jpg'.
    count: photos of which near duplicates are made; None: all.
    only: the kinds to make; None: all.

  Returns:
    The kinds of near duplicates.
  """
  shutil.copytree(folder, target)
  files = sorted(os.path.join(entry.path, name)
                 for entry in os.scandir(target) if entry.is_dir()
                 for name in os.listdir(entry.path) if name[0] != '.')
  rng, kinds = np.random.RandomState(0), []
  for index in rng.permutation(len(files))[:count]:
    with open(files[index], 'rb') as stream:
      normal = photos.normalize_photo(stream.read()).encoded
    made = copies_of(Image.open(io.BytesIO(normal)), rng)
    kinds = list(only or made)
    for kind in kinds:
      with open('%s.%s.jpg' % (files[index], kind), 'wb') as stream:
        stream.write(made[kind])
  return kinds


def measure_labels(features, labels):
  """Prints a row per share and kind of wrong labels."""
  num_classes = labels.max() + 1
  neighbours = label_scores.find_neighbours(features)
  start = time.process_time()
  before = label_scores.score(features, labels, num_classes, neighbours)
  seconds = time.process_time() - start
  mistaken = np.zeros([num_classes, num_classes])
  np.add.at(mistaken, labels, before.probabilities)
  np.fill_diagonal(mistaken, 0)
  print('wrong labels of %d photos, %d classes; %.0f are expected before any '
        'is planted; %.1f processor seconds to score all photos' % (
            len(labels), num_classes, before.expected, seconds))
  print('share  kind     planted  at 10  at 50  expected more')
  for share in SHARES:
    for kind, similar in (('any', None), ('similar', mistaken.argmax(axis=1))):
      rows = []
      for seed in range(FLAGS.seeds):
        planted, is_wrong = label_scores.plant(labels, share, num_classes, seed,
                                               similar)
        found = label_scores.score(features, planted, num_classes, neighbours,
                                   seed)
        ranked = is_wrong[np.argsort(-found.suspicion, kind='stable')]
        rows.append((is_wrong.sum(), ranked[:10].mean(), ranked[:50].mean(),
                     found.expected - before.expected))
      print('%4.0f %%  %-7s  %7.0f  %.3f  %.3f  %13.0f' % (
          100 * share, kind, *np.mean(rows, axis=0)), flush=True)


def measure_copies(folder, files, features, kinds):
  """Prints a row per kind of near duplicate.

  Args:
    folder: of `add_copies`.
    files: list of paths in it.
    features: [photos, n] of these.
    kinds: of `add_copies`.
  """
  start = time.process_time()
  sketches = []
  for file in files:
    with open(os.path.join(folder, file), 'rb') as stream:
      sketches.append(near_photos.sketch(
          photos.normalize_photo(stream.read()).encoded))
  seconds = [time.process_time() - start]
  pairs, groups = [], []
  neighbours = label_scores.find_neighbours(features)
  for near in (label_check.near_candidates(neighbours), None):
    start = time.process_time()
    found = near_photos.find_pairs(np.stack(sketches), near)
    pairs.append(found)
    groups.append({file: number for number, members in enumerate(
        near_photos.group(found)) for file in members})
    seconds.append(time.process_time() - start)
  print('near duplicates; processor seconds: %.1f to decode %d photos, %.1f to '
        'compare with features, %.1f with the hash alone' % (
            seconds[0], len(files), *seconds[1:]))
  place = {file: number for number, file in enumerate(files)}
  print('%-16s  planted  hash and features  hash' % 'kind')
  for kind in kinds:
    wanted = [(place[file], place[file[:-len(kind) - 5]])
              for file in files if file.endswith('.%s.jpg' % kind)]
    print('%-16s  %7d  %17.3f  %.3f' % (kind, len(wanted), *(
        np.mean([copy in group and group[copy] == group.get(photo)
                 for copy, photo in wanted]) for group in groups)))

  def origin(number):
    return next((files[number][:-len(kind) - 5] for kind in kinds
                 if files[number].endswith('.%s.jpg' % kind)), files[number])

  print('%-16s  %7s  %17d  %d' % ('other pairs', '', *(
      len({frozenset(map(origin, pair[:2])) for pair in found
           if origin(pair.first) != origin(pair.second)})
      for found in pairs)))


def main(_):
  """Plants wrong labels and near duplicates, and prints what is found."""
  common_flags.require(FLAGS, 'photos', 'checkpoint_path')
  if not os.path.isdir(FLAGS.photos):
    raise InputError('%s is not a folder' % FLAGS.photos)
  with tempfile.TemporaryDirectory() as work_dir:
    folder = os.path.join(work_dir, 'all')
    kinds = add_copies(os.path.abspath(FLAGS.photos), folder, FLAGS.copied)
    found = unknown_scores.read_photos(folder, work_dir, 'photos')
    is_copy = np.array([any(file.endswith('.%s.jpg' % kind) for kind in kinds)
                        for file in found.filenames])
    measure_labels(found.values[~is_copy], found.labels[~is_copy])
    measure_copies(folder, found.filenames, found.values, kinds)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
