"""Converts the unpacked folders of ILSVRC 2012 to records with slim's names.

Writes train-00000-of-01024 and so on, validation-00000-of-00128 and so on, with
the keys of slim's build_imagenet_data: those of record_dataset, and

  image/colorspace         b'RGB'
  image/channels           3
  image/class/synset       the WordNet id, b'n01440764'
  image/class/text         the class in words
  image/object/bbox/xmin   and xmax, ymin, ymax: the boxes, 0.0 to 1.0
  image/object/bbox/label  the label, once per box

Labels are 1 to 1000; 0 is background. image/filename is the file name alone, as
in slim's records. Photos become upright RGB JPEGs, which fixes the known ones
that are CMYK, or PNG with the extension JPEG. Boxes stay as they are annotated,
even where EXIF rotation is applied.

A conversion that was killed continues after the files that it finished, and
gives the same bytes: the plan, which photo goes to which file, depends on names
and arguments only. If photos change in between, only those that could not be
used are read again.

Only the splits whose folders are given are converted; the others stay as they
are. Existing record files of the same plan are checked, and written again if
damaged.
"""

import glob
import os
import re
import shutil
from typing import Optional

from common import files, label_files, threads
from common.errors import InputError
from common.progress import Progress
from compat import tf
from datasets import imagenet_names, record_dataset
from datasets import manifest as manifests
from datasets.conversion import converted_files, imagenet_plan, imagenet_shards
from datasets.records import shard_check
from datasets.split_files import work_dir

NAME = 'imagenet'

_SHARD_NAME = re.compile(r'(?:train|validation)-\d{5}-of-\d{5}')

# In the work folder: the digest of the plan that a split's files belong to; the
# former manifest while files are moved, where converted_files looks for it.
_PLAN, _FORMER = '%s.plan', 'former.json'


def convert(dataset_dir: str, train_dir: Optional[str] = None,
            validation_dir: Optional[str] = None,
            validation_labels: Optional[str] = None,
            bounding_box_csv: Optional[str] = None,
            num_train_shards: Optional[int] = None,
            num_validation_shards: Optional[int] = None,
            seed: Optional[int] = None, max_pixels: Optional[int] = None,
            max_bad_fraction: float = 0.05) -> manifests.Manifest:
  """Converts ImageNet, or some of its classes and photos.

  An argument that is None keeps its value of the last conversion of the split,
  from the manifest. The defaults below apply if there is none.

  Args:
    dataset_dir: folder that gets the records; created if missing.
    train_dir: folder with one folder of photos per WordNet id; None: the split
      is left as it is, present or not.
    validation_dir: folder of photos, flat or in such folders; None: likewise.
    validation_labels: file with the WordNet id of each validation photo, one
      per line; required if the photos are not in class folders.
    bounding_box_csv: file of lines name,xmin,ymin,xmax,ymax; None: no boxes.
    num_train_shards: record files of train, at most one per photo; None: 1024.
    num_validation_shards: record files of validation; None: 128.
    seed: decides the order; None: 0.
    max_pixels: photos with more pixels are skipped; None: photos.MAX_PIXELS.
    max_bad_fraction: fraction of all photos; if more are unusable, nothing is
      converted.

  Returns:
    The Manifest of all existing splits. Its class_counts are by name, so that
    the two classes called 'crane' (and 'maillot') are counted together.

  Raises:
    InputError: an input is missing or not as described, train and validation
      are the same folder, or too many photos cannot be used, see
      imagenet_skipped.csv; or dataset_dir cannot be written to, another process
      is writing records there, or it holds records of unknown origin.
  """
  given = {}
  for split, folder, num_shards, labels in (
      ('train', train_dir, num_train_shards, None),
      ('validation', validation_dir, num_validation_shards, validation_labels)):
    if folder:
      given[split] = {'folder': folder, 'labels': labels, 'seed': seed,
                      'boxes': bounding_box_csv, 'num_shards': num_shards,
                      'max_pixels': max_pixels}
  if not given:
    raise InputError('imagenet is converted from unpacked photos: give '
                     '--imagenet_train_dir, --imagenet_validation_dir or both')
  former = _load_former(dataset_dir)
  plans = imagenet_plan.make_plans(given, former)
  try:
    os.makedirs(dataset_dir, exist_ok=True)
    with converted_files.hold(dataset_dir):
      if _load_former(dataset_dir) != former:
        raise InputError('another process has converted imagenet in %s '
                         'meanwhile: run this again' % dataset_dir)
      return _convert(dataset_dir, plans, former, max_bad_fraction)
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (dataset_dir, error))
  except tf.errors.OpError as error:  # Of the record writer.
    raise InputError('cannot write to %s: %s' % (dataset_dir, error.message))


def _load_former(dataset_dir):
  """Returns the Manifest of the last conversion, or None.

  It is in the work folder if a conversion was killed while it moved files.
  """
  path = converted_files.former_path(dataset_dir, NAME)
  former = manifests.load_file(path) if path else None
  if former:
    imagenet_plan.check_former(former, path)
  return former


def _convert(dataset_dir, plans, former, max_bad_fraction):
  """Converts as `convert` does, from plans; the caller holds the lock."""
  work_path = work_dir(dataset_dir, NAME)
  _check_records(dataset_dir, work_path)
  _check_moving(dataset_dir, work_path, plans, former)
  for split, plan in plans.items():
    if _begun_plan(work_path, split) != plan.digest:
      _drop_work(dataset_dir, work_path, split, former)
  done = {}
  for split, plan in plans.items():
    done.update(_find_done(dataset_dir, work_path, split, plan, former))
  facts = _write_missing(work_path, plans, done)
  _check_skipped(dataset_dir, facts, max_bad_fraction)
  manifest = _make_manifest(plans, facts, former)
  to_move = [shard for of_split in facts.values() for shard in of_split
             if os.path.exists(os.path.join(work_path, shard))]
  if not to_move and manifest == manifests.load(dataset_dir, NAME):
    tf.logging.info('%s holds the records of %s already, without damage',
                    dataset_dir, ' and '.join(plans))
  else:
    _move(dataset_dir, work_path, manifest, former, to_move)
  _clean(work_path, manifest)
  return manifest


def _check_records(dataset_dir, work_path):
  """Raises InputError if there are records of unknown origin."""
  path = converted_files.former_path(dataset_dir, NAME)
  manifest = manifests.load_file(path) if path else None
  ours = {shard for split in (manifest.splits.values() if manifest else ())
          for shard in split['shards']} | _built(work_path)
  others = {name for name in os.listdir(dataset_dir)
            if _SHARD_NAME.fullmatch(name)} - ours
  if others:
    raise InputError('%s holds %d record files of unknown origin, the first is '
                     '%s: move them away, or use another folder' %
                     (dataset_dir, len(others), min(others)))


def _check_moving(dataset_dir, work_path, plans, former):
  """Raises InputError if only some files of another split were moved."""
  if not former or os.path.exists(manifests.path(dataset_dir, NAME)):
    return
  for split, entry in former.splits.items():
    if split not in plans and (_built(work_path, split) or not all(
        os.path.exists(os.path.join(dataset_dir, shard))
        for shard in entry['shards'])):
      raise InputError(
          'the last conversion of %s in %s was stopped while its files were '
          'moved: give --imagenet_%s_dir as well' % (split, dataset_dir, split))


def _built(work_path, split=''):
  """Returns the names of the finished record files: those with a facts file."""
  pattern = os.path.join(glob.escape(work_path), split + '*-of-*.json')
  return {os.path.basename(path)[:-len('.json')] for path in glob.glob(pattern)}


def _split_of(file_name):
  """Returns the split of a file in the work folder."""
  return re.split('[-.]', file_name)[0]


def _drop_work(dataset_dir, work_path, split, former):
  """Removes the files of a split that a killed run of another plan left."""
  if not os.path.isdir(work_path):
    return
  published = set()
  if former and split in former.splits and os.path.exists(
      manifests.path(dataset_dir, NAME)):
    published.update(former.splits[split]['shards'])
  for shard in _built(work_path, split) - published:
    moved_to = os.path.join(dataset_dir, shard)
    if not os.path.exists(os.path.join(work_path, shard)) and os.path.exists(
        moved_to):
      os.remove(moved_to)
  # Last, because the facts files name the record files removed above.
  for file_name in os.listdir(work_path):
    if _split_of(file_name) == split:
      os.remove(os.path.join(work_path, file_name))


def _find_done(dataset_dir, work_path, split, plan, former):
  """Returns {shard: ShardFacts} of the record files that exist already.

  Those in the work folder were just written; those in dataset_dir are checked.
  Files for which an unusable photo has changed since are excluded.
  """
  finished = {}
  if former and former.splits.get(split, {}).get('plan') == plan.digest:
    finished = imagenet_shards.facts_of_split(former.splits[split], plan.shards)
  done, in_place = {}, []
  for shard, rows in plan.shards.items():
    facts = (imagenet_shards.read_facts(os.path.join(work_path, shard)) or
             finished.get(shard))
    if facts and not imagenet_shards.some_changed(rows, facts.skipped):
      path = os.path.join(work_path, shard)
      if not os.path.isfile(path):
        path = os.path.join(dataset_dir, shard)
        in_place.append(shard_check.KnownShard(path, facts.records,
                                               facts.bytes))
      if os.path.isfile(path) and os.path.getsize(path) == facts.bytes:
        done[shard] = facts
      else:
        tf.logging.warning('%s is missing or damaged: writing it again', path)
  for path in shard_check.find_damaged(in_place):
    if done.pop(os.path.basename(path), None):
      tf.logging.warning('%s is damaged: writing it again', path)
  return done


def _write_missing(work_path, plans, done):
  """Writes the record files that are missing.

  Returns:
    {split: {shard: ShardFacts}}, in the order of the plans.
  """
  missing = [(shard, plan) for plan in plans.values() for shard in plan.shards
             if shard not in done]
  facts = dict(done)
  if missing:
    if done:
      tf.logging.info('Continuing: %d of %d record files exist already',
                      len(done), len(done) + len(missing))
    os.makedirs(work_path, exist_ok=True)
    for split, plan in plans.items():
      files.write_text(os.path.join(work_path, _PLAN % split), plan.digest)
    total = sum(len(plan.shards[shard]) for shard, plan in missing)
    with Progress('converted', total) as shown:

      def write(item):
        shard, plan = item
        facts[shard] = imagenet_shards.write(
            os.path.join(work_path, shard), plan.shards[shard], plan.boxes,
            plan.settings['max_pixels'], shown)

      threads.run_in_threads(write, missing)
  return {split: {shard: facts[shard] for shard in plan.shards}
          for split, plan in plans.items()}


def _check_skipped(dataset_dir, facts, max_bad_fraction):
  """Raises InputError, and writes the list, if too many cannot be used."""
  of_shards = [of_shard for of_split in facts.values()
               for of_shard in of_split.values()]
  skipped = _sorted_skipped(entry for of_shard in of_shards
                            for entry in of_shard.skipped)
  total = sum(of_shard.records for of_shard in of_shards) + len(skipped)
  if len(skipped) > total * max_bad_fraction:
    converted_files.write_skipped(dataset_dir, NAME, skipped)
    raise InputError(
        '%d of %d photos cannot be used, more than the %g %% allowed by '
        '--max_bad_fraction; %s lists them, the first is %s: %s' %
        (len(skipped), total, 100 * max_bad_fraction,
         converted_files.skipped_path(dataset_dir, NAME), skipped[0]['file'],
         skipped[0]['reason']))


def _sorted_skipped(entries):
  """Returns the sorted list of {'file', 'reason'}."""
  return sorted(({'file': entry['file'], 'reason': entry['reason']}
                 for entry in entries), key=lambda entry: entry['file'])


def _make_manifest(plans, facts, former):
  """Returns the Manifest of the new splits and of the unchanged ones."""
  labels = imagenet_names.labels()
  splits = {}
  for split in imagenet_plan.SPLITS:
    if split in plans:
      splits[split] = dict(
          imagenet_shards.describe(facts[split], labels),
          plan=plans[split].digest, settings=plans[split].settings)
    elif former and split in former.splits:
      splits[split] = former.splits[split]
  seed = next(iter(plans.values())).settings['seed']
  return manifests.Manifest(
      name=NAME, labels=labels, seed=seed, percent_validation=0, files={},
      splits=splits, skipped=_sorted_skipped(
          entry for split in splits.values() for entry in split['skipped']))


def _move(dataset_dir, work_path, manifest, former, to_move):
  """Removes former files and moves the new ones in, the manifest last."""
  os.makedirs(work_path, exist_ok=True)
  manifest_path = manifests.path(dataset_dir, NAME)
  if os.path.exists(manifest_path):
    os.replace(manifest_path, os.path.join(work_path, _FORMER))
  staying = {shard for split in manifest.splits.values()
             for shard in split['shards']}
  for split in former.splits.values() if former else ():
    for shard in split['shards']:
      if shard not in staying and os.path.exists(
          os.path.join(dataset_dir, shard)):
        os.remove(os.path.join(dataset_dir, shard))
  for shard in to_move:
    os.replace(os.path.join(work_path, shard), os.path.join(dataset_dir, shard))
  labels_path = os.path.join(dataset_dir, record_dataset.LABELS_FILE)
  if not os.path.exists(labels_path):  # It may be another data set's.
    label_files.write(labels_path, manifest.labels)
  converted_files.write_skipped(dataset_dir, NAME, manifest.skipped)
  manifests.save(dataset_dir, manifest)


def _clean(work_path, manifest):
  """Removes work files that are no longer needed.

  Those of a split that a killed conversion began by another plan are kept.
  """
  if not os.path.isdir(work_path):
    return
  unfinished = {split for split in imagenet_plan.SPLITS
                if _begun_plan(work_path, split) not in
                (None, manifest.splits.get(split, {}).get('plan'))}
  for file_name in os.listdir(work_path):
    if _split_of(file_name) not in unfinished:
      path = os.path.join(work_path, file_name)
      (shutil.rmtree if os.path.isdir(path) else os.remove)(path)
  if not os.listdir(work_path):
    os.rmdir(work_path)


def _begun_plan(work_path, split):
  """Returns the digest of the plan that was begun for a split, or None."""
  digest = files.read_if_exists(os.path.join(work_path, _PLAN % split))
  return digest and digest.decode('utf-8')
