"""Converts a folder of photos, or a public data set, to TFRecord files.

  python download_and_convert_data.py --dataset_name=my_flower_5 \
      --dataset_dir=/path/to/data

reads /path/to/data/my_flower_5/<class>/* and writes to /path/to/data the record
files, labels.txt, the list my_flower_5_skipped.csv of unusable files, and the
manifest my_flower_5.json. my_flower_5_photos.jpg shows some of the photos.

Ready-made splits, my_flower_5/train/<class>/* with validation/ or test/ next to
train/, are kept. --photos_dir reads the photos from another folder.

Run it again after adding photos: old photos stay in their splits. Only a --seed
or --percent_ flag that differs from the last conversion splits all photos
again.

To use several machines, run N processes with --shard_of=1/N to N/N; then
--merge_shards=N writes the same records as one process.

A data set named flowers, cifar10, mnist or visualwakewords is downloaded if it
is missing; one named imagenet is converted from the unpacked folders of the
--imagenet_ flags.
"""

import os

from absl import flags

from common import files, shares
from common import flags as common_flags
from common.errors import InputError
from common.paths import relative
from compat import tf
from datasets import manifest
from datasets.conversion import (
  convert_imagenet,
  convert_photos,
  convert_settings,
  convert_visualwakewords,
  converted_files,
  public,
)
from datasets.photo_files import folder_layout, photos
from datasets.photo_files.photo_folder import check_is_utf8, printable
from evaluation import data_picture

FLAGS = flags.FLAGS

# Rows shown of each list in the summary.
_SHOWN = 20


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'dataset_name', None,
      'Name of the data set, its folder of photos in dataset_dir, and the '
      'files that are written.')
  flags.DEFINE_string(
      'dataset_dir', None,
      'Folder that contains the folder of photos; the record files are written '
      'here.')
  flags.DEFINE_integer(
      'percent_validation', None,
      'Percent of the photos of each class that go to the validation split. '
      'None: as in the last conversion; the first time 10, for flowers its '
      'own split. Not for a ready-made split.',
      lower_bound=0, upper_bound=99)
  flags.DEFINE_integer(
      'percent_test', None,
      'Percent of the photos of each class that go to a test split. None: as '
      'in the last conversion; the first time 0. Not for a ready-made split.',
      lower_bound=0, upper_bound=99)
  flags.DEFINE_integer(
      'seed', None,
      'Seed of the splits and the order of the photos. None: as in the last '
      'conversion of photos; the first time 0.')
  flags.DEFINE_integer(
      'num_shards', None,
      'Record files per split; 0: by size, about %d MB each (mnist, cifar10: '
      'one). None: as in the last conversion; the first time 0.' %
      (convert_photos.SHARD_BYTES // 2 ** 20), lower_bound=0, upper_bound=99999)
  flags.DEFINE_string(
      'photos_dir', None,
      'Folder of photos, with a folder per class; it may be read-only. None: '
      'as in the last conversion; the first time dataset_dir/dataset_name.')
  flags.DEFINE_enum(
      'photos_layout', None, folder_layout.LAYOUTS,
      'Whether its folders are classes, or splits that contain classes; auto: '
      'splits if train/ and, if there are other folders, validation/ or test/ '
      'contain folders. None: as in the last conversion; the first time auto.')
  flags.DEFINE_bool(
      'group_duplicates', None,
      'Keep near duplicates (resized, mirrored and newly encoded copies of a '
      'photo) in one split. Photos that were in the training split stay there, '
      'and their copies join them. None: as in the last conversion; the first '
      'time off.')
  flags.DEFINE_integer(
      'max_pixels', photos.MAX_PIXELS,
      'Photos with more pixels, width times height, are skipped.',
      lower_bound=1)
  flags.DEFINE_float(
      'max_bad_fraction', 0.05,
      'Fraction of the files, 0 to 1, that may be unusable; if more are, '
      'nothing is converted.', lower_bound=0, upper_bound=1)
  flags.DEFINE_bool(
      'picture', True,
      'Draw some photos of the classes, and one photo as training distorts it, '
      'to dataset_dir/<dataset_name>_photos.jpg.')
  common_flags.define_shard_flag(
      'The content of a photo decides which share it is in; of imagenet, each '
      'share writes every N-th record file. The data set is complete after '
      '--merge_shards.')
  flags.DEFINE_integer(
      'merge_shards', None,
      'Number N of shares that were all run with --shard_of=K/N: convert the '
      'data set from what they have prepared in dataset_dir. None: prepare '
      'and convert all photos here.', lower_bound=1, upper_bound=99999)
  _define_imagenet_flags()
  _define_wakewords_flags()


def _define_imagenet_flags():
  flags.DEFINE_string(
      'imagenet_train_dir', None,
      'Unpacked training photos of ILSVRC2012, <WordNet id>/*.JPEG.')
  flags.DEFINE_string(
      'imagenet_validation_dir', None,
      'Unpacked validation photos of ILSVRC2012: all in this folder, or in '
      'folders as for training.')
  flags.DEFINE_string(
      'imagenet_validation_labels', None,
      'File with the WordNet id of each validation photo, one per line, in the '
      "order of the photos' names. Needed unless they are in folders. None: "
      'that of the last conversion, if any.')
  flags.DEFINE_string(
      'imagenet_bounding_boxes', None,
      'CSV file of the boxes, with lines such as '
      'n0_1.JPEG,xmin,ymin,xmax,ymax, from 0 to 1. None: that of the last '
      'conversion, if any.')
  flags.DEFINE_integer(
      'imagenet_train_shards', None,
      'Record files of the train split. None: as in the last conversion; the '
      'first time 1024.', lower_bound=1, upper_bound=99999)
  flags.DEFINE_integer(
      'imagenet_validation_shards', None,
      'Record files of the validation split. None: as in the last conversion; '
      'the first time 128.', lower_bound=1, upper_bound=99999)


def _define_wakewords_flags():
  flags.DEFINE_string(
      'foreground_class_of_interest', convert_visualwakewords.CLASS,
      'For visualwakewords: the class of COCO that photos with label 1 show, '
      'such as person, dog or "cell phone". Not given: as in the last '
      'conversion.')
  flags.DEFINE_float(
      'small_object_area_threshold', convert_visualwakewords.AREA,
      'For visualwakewords: fraction of the area of a photo, 0 to 1, that an '
      'object of the class must exceed for label 1. Not given: as in the last '
      'conversion.',
      lower_bound=0, upper_bound=1)
  flags.DEFINE_string(
      'coco_dirname', convert_visualwakewords.COCO_DIRNAME,
      'For visualwakewords: folder in dataset_dir, or an absolute path, of '
      'COCO 2014. Archives in it, or unpacked folders train2014/, val2014/ and '
      'annotations/, are used without the network; what is missing is '
      'downloaded, 20 GB in all, and unpacked.')
  flags.DEFINE_string(
      'coco_train_url', convert_visualwakewords.TRAIN_URL,
      'For visualwakewords: address of the archive of the training photos.')
  flags.DEFINE_string(
      'coco_validation_url', convert_visualwakewords.VALIDATION_URL,
      'For visualwakewords: address of the archive of the validation photos.')
  flags.DEFINE_string(
      'coco_annotations_url', convert_visualwakewords.ANNOTATIONS_URL,
      'For visualwakewords: address of the archive of the annotations.')


# Flags with the same name as the converters' arguments.
_PHOTO_OPTIONS = ('percent_validation', 'percent_test', 'seed', 'num_shards',
                  'max_pixels', 'max_bad_fraction', 'photos_dir',
                  'photos_layout', 'group_duplicates')
_IMAGENET_OPTIONS = {
    'imagenet_train_dir': 'train_dir',
    'imagenet_validation_dir': 'validation_dir',
    'imagenet_validation_labels': 'validation_labels',
    'imagenet_bounding_boxes': 'bounding_box_csv',
    'imagenet_train_shards': 'num_train_shards',
    'imagenet_validation_shards': 'num_validation_shards',
    'seed': 'seed', 'max_pixels': 'max_pixels',
    'max_bad_fraction': 'max_bad_fraction'}
_WAKEWORDS_OPTIONS = (
    'foreground_class_of_interest', 'small_object_area_threshold',
    'coco_dirname', 'coco_train_url', 'coco_validation_url',
    'coco_annotations_url', 'max_pixels', 'max_bad_fraction')


# For messages: data sets that a flag applies to, by prefix of its name.
_APPLIES_TO = (
    ('imagenet_', '--dataset_name=imagenet if dataset_dir has no folder '
     'imagenet/'),
    ('percent_', 'folders of photos and flowers'),
    ('photos_', 'folders of photos'),
    ('group_duplicates', 'folders of photos and flowers'),
    ('num_shards', 'folders of photos, flowers, cifar10 and mnist'),
    ('seed', 'folders of photos, flowers and imagenet'),
    ('max_', 'folders of photos, flowers, imagenet and visualwakewords'),
    ('', 'visualwakewords'))


def main(_):
  """Converts the data set and prints a summary."""
  common_flags.require(FLAGS, 'dataset_name', 'dataset_dir')
  dataset_dir, name = FLAGS.dataset_dir, FLAGS.dataset_name
  check_is_utf8('--dataset_dir', dataset_dir)
  check_is_utf8('--dataset_name', name)
  photos_dir = _photos_dir(name, dataset_dir)
  arguments = _arguments(name, dataset_dir, photos_dir)
  _refuse_others(arguments, name)
  converted = _convert(name, dataset_dir, photos_dir, arguments)
  if converted is None:
    print('share %s is done; when all are, merge them with --merge_shards=%s' %
          (FLAGS.shard_of, FLAGS.shard_of.split('/')[1]))
    return
  print((short_summary if arguments is _IMAGENET_OPTIONS else summary)(
      converted, dataset_dir))
  _draw(converted, dataset_dir)


def _convert(name, dataset_dir, photos_dir, arguments):
  """Converts the data set, or the share of --shard_of.

  Args:
    name, dataset_dir: of the data set.
    photos_dir: of _photos_dir.
    arguments: of _arguments.

  Returns:
    The manifest.Manifest; None for a share.
  """
  options = _given(arguments)
  share = None
  if FLAGS.shard_of is not None:
    share = shares.parse(FLAGS.shard_of)
    if FLAGS.merge_shards:
      raise InputError('--shard_of prepares a share, --merge_shards converts '
                       'what all have prepared: give one of them')
  if arguments is _IMAGENET_OPTIONS:
    return convert_imagenet.convert(dataset_dir, shard_of=share,
                                    merge_shards=FLAGS.merge_shards, **options)
  if name in public.CONVERTERS and not photos_dir:
    if share or FLAGS.merge_shards:
      raise InputError('--shard_of and --merge_shards are for folders of '
                       'photos and imagenet; give --photos_dir if %s is a '
                       'folder of photos' % name)
    return public.convert(name, dataset_dir, **options)
  if share:
    return convert_photos.convert_share(dataset_dir, name, share, **options)
  return convert_photos.convert(dataset_dir, name,
                                merge_shards=FLAGS.merge_shards, **options)


def _draw(converted, dataset_dir):
  """Writes the picture of the data set; its records are complete without it."""
  path = data_picture.path_of(dataset_dir, converted.name)
  if not FLAGS.picture:
    return
  try:
    files.write_output(path, data_picture.draw(dataset_dir, converted))
  except (InputError, OSError, ValueError, tf.errors.OpError) as error:
    tf.logging.warning('No picture of the photos: %s', error)
    return
  print('  %s: a picture of the photos' % os.path.basename(path))


def _arguments(name, dataset_dir, photos_dir):
  """Returns {flag: name of the converter's argument} for a data set."""
  if not photos_dir:
    if name == 'imagenet' and not os.path.isdir(os.path.join(dataset_dir,
                                                             name)):
      return _IMAGENET_OPTIONS
    if not public.is_of_photos(name, dataset_dir):
      options = (_WAKEWORDS_OPTIONS if name == convert_visualwakewords.NAME else
                 ('num_shards',))
      return dict(zip(options, options))
  return dict(zip(_PHOTO_OPTIONS, _PHOTO_OPTIONS))


def _photos_dir(name, dataset_dir):
  """Returns the photos folder of the flag or last conversion; '': default."""
  last, _ = convert_settings.load_former(dataset_dir, name)
  return FLAGS.photos_dir or last and last.photos_dir or ''


def _given(arguments):
  """Returns {argument: value} of the flags that are given and not empty.

  The converter decides the others: a public data set has its own split.

  Args:
    arguments: {flag: name of the argument}.
  """
  return {argument: FLAGS[flag].value for flag, argument in arguments.items()
          if FLAGS[flag].present and FLAGS[flag].value not in (None, '')}


def _refuse_others(arguments, name):
  """Raises InputError for a given flag that would have no effect."""
  all_flags = [*_PHOTO_OPTIONS, *_IMAGENET_OPTIONS, *_WAKEWORDS_OPTIONS]
  others = {flag: flag for flag in all_flags if flag not in arguments}
  for flag in _given(others):
    data_sets = next(text for start, text in _APPLIES_TO
                     if flag.startswith(start))
    raise InputError('--%s is for %s; the data set %r accepts %s' % (
        flag, data_sets, name, ', '.join('--' + other for other in arguments)))


def short_summary(converted, dataset_dir):
  """Returns the summary of a data set with too many classes for a table."""
  lines = ['%s: %d photos in %d files, the first is %s' %
           (split, entry['size'], len(entry['shards']),
            relative(os.path.join(dataset_dir, entry['shards'][0])))
           for split, entry in converted.splits.items()]
  lines += _shortened(
      'skipped files: %d',
      ['%s: %s' % (printable(entry['file']), entry['reason'])
       for entry in converted.skipped],
      'listed in %s' % os.path.basename(
          manifest.path(dataset_dir, converted.name)))
  return '\n'.join(lines)


def summary(converted, dataset_dir):
  """Returns the summary of a conversion.

  Args:
    converted: manifest.Manifest.
    dataset_dir: folder of the files.
  """
  splits = list(converted.splits)
  row = '%s' + '  %10s' * len(splits)
  width = max(len(printable(label)) for label in converted.labels + ['photos'])
  lines = [row % ('photos'.ljust(width), *splits)]
  for label in converted.labels:
    counts = [converted.splits[split]['class_counts'][label]
              for split in splits]
    lines.append(row % (printable(label).ljust(width), *counts))
  sizes = [converted.splits[split]['size'] for split in splits]
  lines.append(row % ('all'.ljust(width), *sizes))
  if converted.ready_made:
    lines.append(convert_settings.describe_splits(
        converted.ready_made, converted.percent_validation,
        converted.percent_test))

  skipped_path = converted_files.skipped_path(dataset_dir, converted.name)
  lines += _shortened(
      'skipped files: %d',
      ['%s: %s' % (printable(entry['file']), entry['reason'])
       for entry in converted.skipped],
      'listed in %s' % os.path.basename(skipped_path))
  manifest_path = manifest.path(dataset_dir, converted.name)
  contradictions = manifest.contradictions(converted)
  copies = manifest.copies_over_splits(converted)
  for title, sets in (
      ('same photo in several classes, skipped: %d', contradictions),
      ('same photo in several splits, kept in the last of training, validation '
       'and test: %d', copies),
      ('same photo several times in a class, in one split: %d',
       [same for same in converted.duplicates
        if same not in contradictions and same not in copies]),
      ('near duplicates kept in one split: %d', converted.near_duplicates)):
    lines += _shortened(title, [printable(', '.join(same)) for same in sets],
                        'listed in %s' % os.path.basename(manifest_path))

  if converted.photos_dir:  # May be from an earlier conversion.
    lines.append('photos read from %s' %
                 printable(relative(converted.photos_dir)))
  lines.append('written to %s:' % printable(relative(dataset_dir)))
  for split in converted.splits.values():
    shards = split['shards']
    lines.append('  ' + (shards[0] if len(shards) == 1 else
                         '%s to %s' % (shards[0], shards[-1])))
  labels_path = converted_files.labels_path(dataset_dir, converted)
  lines += ['  ' + os.path.basename(path)
            for path in (labels_path, skipped_path, manifest_path)
            if os.path.exists(path)]
  return '\n'.join(lines)


def _shortened(title, rows, where):
  """Returns the lines of a list, [] without rows.

  Args:
    title: with %d for the number of rows.
    rows: list of str.
    where: clause that says where the rest is listed.
  """
  if not rows:
    return []
  lines = [title % len(rows)] + ['  ' + row for row in rows[:_SHOWN]]
  if len(rows) > _SHOWN:
    lines.append('  and %d more, %s' % (len(rows) - _SHOWN, where))
  return lines


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
