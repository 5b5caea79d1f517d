"""Converts a folder of photos to TFRecord files.

  python download_and_convert_data.py --dataset_name=my_flower_5 \
      --dataset_dir=/path/to/data

reads /path/to/data/my_flower_5/<class>/* and writes into /path/to/data the
record files, labels.txt and the manifest my_flower_5.json.
"""

import os

from absl import flags

import common_flags
from datasets import convert_photos, manifest, photos, record_dataset

FLAGS = flags.FLAGS

# Skipped files that the summary names; the manifest has all of them.
_SHOWN_SKIPPED = 20


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'dataset_name', None,
      'Name of the data set: of its folder of photos in dataset_dir, and of '
      'the files that are written.')
  flags.DEFINE_string(
      'dataset_dir', None,
      'Folder that holds the folder of photos and gets the record files.')
  flags.DEFINE_integer(
      'percent_validation', 10,
      'Percent of the photos of each class that go to the validation split.',
      lower_bound=0, upper_bound=99)
  flags.DEFINE_integer(
      'seed', 0, 'Decides which photos are for validation, and the order.')
  flags.DEFINE_integer(
      'num_shards', None,
      'Record files a split. None: by size, about %d MB each.' %
      (convert_photos.SHARD_BYTES // 2 ** 20), lower_bound=1, upper_bound=99999)
  flags.DEFINE_integer(
      'max_pixels', photos.MAX_PIXELS,
      'Photos whose width times height in pixels is larger are skipped.',
      lower_bound=1)


def main(_):
  """Converts the data set that the flags name and prints what it gave."""
  common_flags.require(FLAGS, 'dataset_name', 'dataset_dir')
  dataset_dir = os.path.expanduser(FLAGS.dataset_dir)
  converted = convert_photos.convert(
      dataset_dir, FLAGS.dataset_name,
      percent_validation=FLAGS.percent_validation, seed=FLAGS.seed,
      num_shards=FLAGS.num_shards, max_pixels=FLAGS.max_pixels)
  print(summary(converted, dataset_dir))


def summary(converted, dataset_dir):
  """Returns the lines that tell a user what a conversion gave.

  Args:
    converted: manifest.Manifest.
    dataset_dir: folder that holds the files.
  """
  splits = list(converted.splits)
  row = '%s' + '  %10s' * len(splits)
  width = max(len(label) for label in converted.labels + ['photos'])
  lines = [row % ('photos'.ljust(width), *splits)]
  for label in converted.labels:
    counts = [converted.splits[split]['class_counts'][label]
              for split in splits]
    lines.append(row % (label.ljust(width), *counts))
  sizes = [converted.splits[split]['size'] for split in splits]
  lines.append(row % ('all'.ljust(width), *sizes))

  skipped = converted.skipped
  if skipped:
    lines.append('skipped files: %d' % len(skipped))
    lines += ['  %s: %s' % (_printable(entry['file']), entry['reason'])
              for entry in skipped[:_SHOWN_SKIPPED]]
    if len(skipped) > _SHOWN_SKIPPED:
      lines.append('  and %d more, listed in the manifest' %
                   (len(skipped) - _SHOWN_SKIPPED))
  lines.append('written to %s:' % dataset_dir)
  for split in converted.splits.values():
    shards = split['shards']
    lines.append('  ' + (shards[0] if len(shards) == 1 else
                         '%s to %s' % (shards[0], shards[-1])))
  lines.append('  ' + record_dataset.LABELS_FILE)
  lines.append('  ' + os.path.basename(manifest.path(dataset_dir,
                                                     converted.name)))
  return '\n'.join(lines)


def _printable(file):
  """Returns a file name without line breaks and other control characters."""
  return ''.join(letter if letter.isprintable() else
                 letter.encode('unicode_escape').decode('ascii')
                 for letter in file)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
