"""From the unpacked folders of ILSVRC 2012 to records with slim's names.

Writes train-00000-of-01024 and so on, validation-00000-of-00128 and so on, with
the keys of slim's build_imagenet_data: those of every record here, and

  image/colorspace         b'RGB'
  image/channels           3
  image/class/synset       the WordNet id, b'n01440764'
  image/class/text         the class in words
  image/object/bbox/xmin   and xmax, ymin, ymax: the boxes, 0.0 to 1.0
  image/object/bbox/label  the label, once a box

Labels are 1 to 1000; 0 is background. image/filename is the file name alone, as
in slim's records. Photos become upright RGB JPEGs, which mends the known ones
that are CMYK, or PNG under the name of JPEG. Boxes stay as they are annotated,
also where EXIF rotation is applied.

Each record file is written aside and renamed, then its facts are written beside
it. A run that was killed goes on after the files that have their facts, and
ends with the same bytes: the plan, who goes where, depends on names and
arguments only. Of photos that change between two such runs, only those that
could not be used are looked at again.
"""

import collections
import glob
import hashlib
import itertools
import json
import os
import random
import re
import shutil

from compat import tf
from datasets import (
  converted_files,
  imagenet_names,
  imagenet_source,
  photos,
  progress,
  record_dataset,
)
from datasets import manifest as manifests
from datasets.split_files import work_dir
from errors import InputError

NAME = 'imagenet'

# In the work folder: what the record files there were made from.
_PLAN = 'plan.txt'

_SHARD_NAME = re.compile(r'(?:train|validation)-\d{5}-of-\d{5}')

ShardFacts = collections.namedtuple(
    'ShardFacts', 'records bytes class_counts skipped')
ShardFacts.__doc__ = """What a finished record file holds.

records: how many there are.
bytes: size of the file.
class_counts: [[label, records], ...].
skipped: list of {'file', 'reason', 'stamp'}, see _stamp.
"""


def convert(dataset_dir, train_dir=None, validation_dir=None,
            validation_labels=None, bounding_box_csv=None,
            num_train_shards=1024, num_validation_shards=128, seed=0,
            max_pixels=photos.MAX_PIXELS, max_bad_fraction=0.05):
  """Converts ImageNet, or some of its classes and photos.

  Args:
    dataset_dir: folder that gets the records; made where missing.
    train_dir: folder with a folder of photos a WordNet id; None: no such split.
    validation_dir: folder of photos, flat or likewise; None: no such split.
    validation_labels: file with the WordNet id of each validation photo, a line
      a photo; needed when they lie flat.
    bounding_box_csv: file of lines name,xmin,ymin,xmax,ymax; None: no boxes.
    num_train_shards: record files of train, at most one a photo.
    num_validation_shards: record files of validation.
    seed: integer, decides the order.
    max_pixels: photos with more pixels are skipped.
    max_bad_fraction: of all photos; with more unusable ones nothing is made.

  Returns:
    The Manifest. Its class_counts are by name, so that the two classes called
    'crane' (and 'maillot') count together.

  Raises:
    InputError: what is to be read is missing or anything else than described,
      or too many photos cannot be used, see imagenet_skipped.csv; or
      dataset_dir cannot be written to, or others write or wrote records there.
  """
  rows = {}
  if train_dir:
    rows['train'] = imagenet_source.list_classes(train_dir)
  if validation_dir:
    rows['validation'] = imagenet_source.list_validation(validation_dir,
                                                         validation_labels)
  if not rows:
    raise InputError('imagenet is made of unpacked photos: give '
                     '--imagenet_train_dir, --imagenet_validation_dir or both')
  boxes = (imagenet_source.read_boxes(bounding_box_csv)
           if bounding_box_csv else {})
  shards = _plan(rows, {'train': num_train_shards,
                        'validation': num_validation_shards}, seed)
  digest = _digest(shards, boxes, max_pixels)
  try:
    os.makedirs(dataset_dir, exist_ok=True)
    with converted_files.hold(dataset_dir):
      done = _already_converted(dataset_dir, digest, shards)
      if done:
        tf.logging.info('%s holds these records already', dataset_dir)
        return done
      aside = _prepare(dataset_dir, digest)
      facts = _write_shards(dataset_dir, aside, shards, boxes, max_pixels)
      _check_skipped(dataset_dir, facts, max_bad_fraction)
      return _publish(dataset_dir, aside, shards, facts, digest, seed)
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (dataset_dir, error))
  except tf.errors.OpError as error:  # Of the record writer.
    raise InputError('cannot write to %s: %s' % (dataset_dir, error.message))


def make_example(photo, row, boxes):
  """Returns the tf.train.Example of a photo.

  Args:
    photo: photos.Photo.
    row: its imagenet_source.SourcePhoto.
    boxes: list of imagenet_source.Box.
  """
  synset = imagenet_names.synsets()[row.label - 1]
  extra = {
      'image/colorspace': record_dataset.bytes_feature([b'RGB']),
      'image/channels': record_dataset.int64_feature([3]),
      'image/class/synset': record_dataset.bytes_feature(
          [synset.wordnet_id.encode('ascii')]),
      'image/class/text': record_dataset.bytes_feature(
          [synset.name.replace('_', ' ').encode('utf-8')]),
      'image/object/bbox/label': record_dataset.int64_feature(
          [row.label] * len(boxes)),
  }
  for side in imagenet_source.Box._fields:
    extra['image/object/bbox/' + side] = record_dataset.float_feature(
        [getattr(box, side) for box in boxes])
  return record_dataset.make_example(
      photo.encoded, photo.height, photo.width, row.label,
      os.path.basename(row.path), image_format=b'JPEG', extra=extra)


def _plan(rows, num_shards, seed):
  """Returns {split: {shard: list of SourcePhoto}}, shuffled over all files."""
  shards = {}
  for split, photos_of_split in rows.items():
    count = min(num_shards[split], len(photos_of_split))
    if not 1 <= count <= 99999:
      raise InputError('%d record files of %s, accepted are 1 to 99999' %
                       (num_shards[split], split))
    shuffled = list(photos_of_split)
    random.Random(seed).shuffle(shuffled)
    shards[split] = {
        '%s-%05d-of-%05d' % (split, index, count):
        shuffled[index * len(shuffled) // count:
                 (index + 1) * len(shuffled) // count]
        for index in range(count)}
  return shards


def _digest(shards, boxes, max_pixels):
  """Returns what tells one plan from another: a hash of all that decides."""
  digest = hashlib.sha256(('%d\n' % max_pixels).encode('ascii'))
  for shards_of_split in shards.values():
    for shard, rows in shards_of_split.items():
      digest.update(('%s\n' % shard).encode('ascii'))
      for row in rows:
        name = os.path.basename(row.path)
        digest.update(repr((name, row.label, list(map(
            tuple, boxes.get(name, []))))).encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()


def _already_converted(dataset_dir, digest, shards):
  """Returns the Manifest of a finished conversion by the same plan, or None.

  None also where a photo that could not be used then has changed.
  """
  found = manifests.load(dataset_dir, NAME)
  if found is None:
    return None
  for split in found.splits.values():
    if split.get('plan') != digest:
      return None
    for shard, size in zip(split['shards'], split['shard_bytes']):
      if _size(os.path.join(dataset_dir, shard)) != size:
        return None
  for split, shards_of_split in shards.items():
    if _some_changed(itertools.chain(*shards_of_split.values()),
                     found.splits[split].get('skipped_stamps', {})):
      return None
  return found


def _prepare(dataset_dir, digest):
  """Makes the work folder, or takes what a killed run of this plan left."""
  aside = work_dir(dataset_dir, NAME)
  plan_path = os.path.join(aside, _PLAN)
  found = manifests.load(dataset_dir, NAME)
  published = {shard for split in (found.splits.values() if found else ())
               for shard in split['shards']}
  built = {os.path.basename(path)[:-len('.json')] for path in
           glob.glob(os.path.join(glob.escape(aside), '*.json'))}
  there = {name for name in os.listdir(dataset_dir)
           if _SHARD_NAME.fullmatch(name)}
  others = there - published - built
  if others:
    raise InputError('%s holds %d record files that are not from here, the '
                     'first is %s: move them away, or take another folder' %
                     (dataset_dir, len(others), min(others)))
  if _read(plan_path) != digest:
    # Moved out by a killed run of another plan, as its facts tell, until last.
    for shard in there & built - published:
      os.remove(os.path.join(dataset_dir, shard))
    if os.path.isdir(aside):
      shutil.rmtree(aside)
    os.mkdir(aside)
    manifests.write_text(plan_path, digest)
  return aside


def _write_shards(dataset_dir, aside, shards, boxes, max_pixels):
  """Writes the record files that are missing; returns {shard: ShardFacts}."""
  everything = {shard: rows for shards_of_split in shards.values()
                for shard, rows in shards_of_split.items()}
  facts = {shard: _read_facts(dataset_dir, aside, shard, rows)
           for shard, rows in everything.items()}
  missing = [shard for shard in everything if facts[shard] is None]
  if len(missing) < len(everything):
    tf.logging.info('Going on: %d of %d record files are there',
                    len(everything) - len(missing), len(everything))
  total = sum(len(everything[shard]) for shard in missing)
  with progress.Progress('converted', total) as shown:

    def write(shard):
      facts[shard] = _write_shard(aside, shard, everything[shard], boxes,
                                  max_pixels, shown)

    progress.run_in_threads(write, missing)
  return facts


def _write_shard(aside, shard, rows, boxes, max_pixels, shown):
  """Writes one record file and its facts; returns the ShardFacts."""
  path = os.path.join(aside, shard)
  counts, skipped = collections.Counter(), []
  with tf.python_io.TFRecordWriter(path + '.part') as writer:
    for row in rows:
      try:
        photo = photos.normalize_photo(_read_photo(row.path), max_pixels)
      except photos.PhotoError as error:
        skipped.append({'file': _short(row.path), 'reason': str(error),
                        'stamp': _stamp(row.path)})
      else:
        example = make_example(photo, row,
                               boxes.get(os.path.basename(row.path), []))
        writer.write(example.SerializeToString(deterministic=True))
        counts[row.label] += 1
      shown.add()
  with open(path + '.part', 'rb') as written:
    os.fsync(written.fileno())
  os.replace(path + '.part', path)
  facts = ShardFacts(sum(counts.values()), os.path.getsize(path),
                     sorted(counts.items()), skipped)
  manifests.write_text(path + '.json', json.dumps(facts._asdict()))
  return facts


def _read_photo(path):
  try:
    with open(path, 'rb') as source:
      return source.read()
  except OSError as error:
    raise photos.PhotoError('cannot be read: %s' % error.strerror)


def _short(path):
  """Returns what a photo is called in lists: its folder and its name."""
  return '/'.join(path.split(os.sep)[-2:])


def _stamp(path):
  """Returns [bytes, time of the last change in ns]; [] if it is unreadable."""
  try:
    _read_photo(path)
    found = os.stat(path)
  except (OSError, photos.PhotoError):
    return []
  return [found.st_size, found.st_mtime_ns]


def _read_facts(dataset_dir, aside, shard, rows):
  """Returns the ShardFacts of a finished record file, None without one.

  It may have been moved to its place already, when a run was killed in moving.
  None also where a photo that could not be used has changed.
  """
  text = _read(os.path.join(aside, shard + '.json'))
  facts = ShardFacts(**json.loads(text)) if text else None
  places = [os.path.join(folder, shard) for folder in (aside, dataset_dir)]
  if not facts or facts.bytes not in map(_size, places):
    return None
  stamps = {entry['file']: entry.get('stamp') for entry in facts.skipped}
  return None if _some_changed(rows, stamps) else facts


def _some_changed(rows, stamps):
  """Whether one of the photos that could not be used, {file: stamp}, has."""
  return any(stamps[_short(row.path)] != _stamp(row.path) for row in rows
             if _short(row.path) in stamps)


def _all_skipped(facts):
  """Returns the sorted list of {'file', 'reason'} over all record files."""
  return sorted(({'file': entry['file'], 'reason': entry['reason']}
                 for of_shard in facts for entry in of_shard.skipped),
                key=lambda entry: entry['file'])


def _check_skipped(dataset_dir, facts, max_bad_fraction):
  """Raises InputError, and writes the list, if too many cannot be used."""
  skipped = _all_skipped(facts.values())
  total = sum(of_shard.records for of_shard in facts.values()) + len(skipped)
  if len(skipped) > total * max_bad_fraction:
    converted_files.write_skipped(dataset_dir, NAME, skipped)
    raise InputError(
        '%d of %d photos cannot be used, accepted are %g %% '
        '(--max_bad_fraction); %s lists them, the first is %s: %s' %
        (len(skipped), total, 100 * max_bad_fraction,
         converted_files.skipped_path(dataset_dir, NAME), skipped[0]['file'],
         skipped[0]['reason']))


def _publish(dataset_dir, aside, shards, facts, digest, seed):
  """Moves the files to their place, the manifest last; returns it."""
  labels = imagenet_names.labels()
  manifest = manifests.Manifest(
      name=NAME, labels=labels, seed=seed, percent_validation=0, files={},
      splits={split: _describe([facts[shard] for shard in shards_of_split],
                               list(shards_of_split), labels, digest)
              for split, shards_of_split in shards.items()},
      skipped=_all_skipped(facts.values()))
  former = manifests.load(dataset_dir, NAME)
  if former:  # Its manifest goes last: it tells the next run whose these are.
    for split in former.splits.values():
      for shard in split['shards']:
        if os.path.exists(os.path.join(dataset_dir, shard)):
          os.remove(os.path.join(dataset_dir, shard))
    os.remove(manifests.path(dataset_dir, NAME))
  for shard in facts:
    if os.path.exists(os.path.join(aside, shard)):
      os.replace(os.path.join(aside, shard), os.path.join(dataset_dir, shard))
  labels_path = os.path.join(dataset_dir, record_dataset.LABELS_FILE)
  if not os.path.exists(labels_path):  # It may be another data set's.
    manifests.write_text(labels_path, record_dataset.format_labels(labels))
  converted_files.write_skipped(dataset_dir, NAME, manifest.skipped)
  manifests.save(dataset_dir, manifest)
  shutil.rmtree(aside)
  return manifest


def _describe(facts, shards, labels, digest):
  """Returns a split as the manifest holds it."""
  counts = collections.Counter()
  for of_shard in facts:
    for label, count in of_shard.class_counts:
      counts[labels[label]] += count
  return {'size': sum(of_shard.records for of_shard in facts),
          'shards': shards,
          'class_counts': {label: counts[label] for label in labels},
          'shard_sizes': [of_shard.records for of_shard in facts],
          'shard_bytes': [of_shard.bytes for of_shard in facts],
          'skipped_stamps': {entry['file']: entry['stamp']
                             for of_shard in facts
                             for entry in of_shard.skipped},
          'plan': digest}


def _size(path):
  return os.path.getsize(path) if os.path.isfile(path) else None


def _read(path):
  """Returns the text of a file, None without one."""
  try:
    with open(path, encoding='utf-8') as source:
      return source.read()
  except FileNotFoundError:
    return None
