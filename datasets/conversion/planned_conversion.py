"""Converts photo files by a plan: which photo goes to which record file.

A conversion that was killed continues after the files that it finished, and
gives the same bytes: a plan depends on names and arguments only. If photos
change in between, only those that could not be used are read again.

Only the splits with a plan are converted; the others stay as they are. Existing
record files of the same plan are checked, and written again if damaged.
"""

import contextlib
import glob
import os
import re
import shutil
from typing import (
  Any,
  Callable,
  Dict,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Set,
)

from common import files, label_files, shares, threads
from common.errors import InputError
from common.progress import Progress
from compat import tf
from datasets import manifest as manifests
from datasets import public_sets, record_dataset, split_files
from datasets.conversion import converted_files, photo_shards, share_files
from datasets.records import shard_check
from datasets.split_files import work_dir

# In the work folder: the digest of the plan that a split's files belong to; the
# former manifest while files are moved, where converted_files looks for it.
_PLAN, _FORMER = '%s.plan', 'former.json'

# Keys of each entry of a split's 'skipped', see photo_shards.ShardFacts.
_SKIPPED_KEYS = {'file', 'reason', 'stamp'}


class Plan(NamedTuple):
  """How the record files of a split are made."""

  # {shard: its photos, as for photo_shards.write}.
  shards: Dict[str, Sequence[Any]]
  # Makes the record of a photo.
  make_example: photo_shards.MakeExample
  # {setting: value}, for the manifest; 'max_pixels' is used.
  settings: Dict[str, Any]
  # Identifies the plan: a hash of all that the records depend on.
  digest: str


def load_former(
    dataset_dir: str, name: str,
    check: Callable[[manifests.Manifest, str], None]
) -> Optional[manifests.Manifest]:
  """Returns the Manifest of the last conversion, or None.

  It is in the work folder if a conversion was killed while it moved files.

  Args:
    dataset_dir: folder of the records.
    name: name of the data set.
    check: function of a manifest and its path that raises InputError if it is
      that of other photos.
  """
  path = converted_files.former_path(dataset_dir, name)
  former = manifests.load_file(path) if path else None
  if former and path:
    check(former, path)
  return former


def is_planned(entry: Dict[str, Any]) -> bool:
  """Returns whether a split of a manifest was written by `convert`."""
  return (isinstance(entry.get('plan'), str) and
          isinstance(entry.get('skipped'), list) and
          all(isinstance(row, dict) and _SKIPPED_KEYS <= set(row)
              for row in entry['skipped']) and
          'shard_sizes' in entry and 'shard_bytes' in entry)


def convert(dataset_dir: str, name: str, labels: List[str],
            plans: Dict[str, Plan], former: Optional[manifests.Manifest],
            max_bad_fraction: float,
            merge_shards: Optional[int] = None) -> manifests.Manifest:
  """Writes the record files of a public data set, its labels and its manifest.

  Args:
    dataset_dir: folder that gets the files; it exists and is locked, see
      converted_files.hold.
    name: its name in public_sets.PUBLIC_SETS.
    labels: class names; the index is the label.
    plans: {split: Plan}.
    former: of the last conversion, if there was one.
    max_bad_fraction: fraction of all photos; if more are unusable, nothing is
      converted.
    merge_shards: number of shares that `write_share` has written; None: record
      files that are missing are written here.

  Returns:
    The Manifest of all existing splits.

  Raises:
    InputError: too many photos cannot be used, see `<name>_skipped.csv`; a
      share is missing; or dataset_dir cannot be written to, or holds records of
      unknown origin.
  """
  with _os_errors_as_input_errors(dataset_dir):
    return _convert(dataset_dir, name, labels, plans, former, max_bad_fraction,
                    merge_shards)


@contextlib.contextmanager
def _os_errors_as_input_errors(dataset_dir):
  try:
    yield
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (dataset_dir, error))
  except tf.errors.OpError as error:  # Of the record writer.
    raise InputError('cannot write to %s: %s' % (dataset_dir, error.message))


def write_share(dataset_dir: str, name: str, plans: Dict[str, Plan],
                former: Optional[manifests.Manifest],
                share: shares.Share) -> None:
  """Writes every N-th record file to the work folder, unless it exists.

  Other processes may write other shares at the same time.

  Args:
    dataset_dir, name, plans, former: as for `convert`; not locked.
    share: the share.

  Raises:
    InputError: another process converts this share, or all; or dataset_dir
      cannot be written to, or holds records of unknown origin.
  """
  work_path = work_dir(dataset_dir, name)
  with _os_errors_as_input_errors(dataset_dir), share_files.hold(
      dataset_dir, name, share):
    with share_files.hold_all(dataset_dir, name), converted_files.hold(
        dataset_dir):
      _begin(dataset_dir, name, plans, former, merging=False)
      _write_plans(work_path, plans)
    own = {split: plan._replace(shards=_select(plan, share))
           for split, plan in plans.items()}
    _write_missing(work_path, own,
                   _find_done(dataset_dir, work_path, own, former))


def _select(plan, share):
  """Returns {shard: its photos} of a share."""
  return dict(list(plan.shards.items())[share.number - 1::share.total])


def _begin(dataset_dir, name, plans, former, merging):
  """Checks dataset_dir; removes what killed runs of other plans left there."""
  work_path = work_dir(dataset_dir, name)
  _check_records(dataset_dir, name, former)
  for split, plan in plans.items():
    begun = _begun_plan(work_path, split)
    if begun and begun != plan.digest and merging:
      raise InputError('the shares in %s were converted from other photos, or '
                       'with other flags: give the same ones, or run all '
                       'shares again' % dataset_dir)
    if begun != plan.digest:
      _drop_work(dataset_dir, work_path, split, former)


def _convert(dataset_dir, name, labels, plans, former, max_bad_fraction,
             merge_shards):
  """Converts as `convert` does, without its translation of errors."""
  work_path = work_dir(dataset_dir, name)
  _begin(dataset_dir, name, plans, former, merging=bool(merge_shards))
  done = _find_done(dataset_dir, work_path, plans, former)
  if merge_shards:
    share_files.check_done(dataset_dir, name, merge_shards, [
        share for share in shares.all_of(merge_shards)
        if any(_select(plan, share).keys() - done.keys()
               for plan in plans.values())])
  facts = _write_missing(work_path, plans, done)
  _check_skipped(dataset_dir, name, facts, max_bad_fraction)
  manifest = _make_manifest(name, labels, plans, facts, former)
  to_move = [shard for of_split in facts.values() for shard in of_split
             if os.path.exists(os.path.join(work_path, shard))]
  if not to_move and manifest == manifests.load(dataset_dir, name):
    tf.logging.info('%s holds the records of %s already, without damage',
                    dataset_dir, ' and '.join(plans))
  else:
    _move(dataset_dir, work_path, manifest, former, to_move)
  _clean(work_path, manifest)
  if merge_shards:
    share_files.remove(dataset_dir, name)
  return manifest


def _check_records(dataset_dir, name, former):
  """Raises InputError if there are records of unknown origin."""
  ours = built(work_dir(dataset_dir, name))
  for split in former.splits.values() if former else ():
    ours.update(split['shards'])
  found = split_files.by_pattern(public_sets.PUBLIC_SETS[name], dataset_dir)
  others = {shard for shards in found.values() for shard in shards} - ours
  if others:
    raise InputError('%s holds %d record files of unknown origin, the first is '
                     '%s: move them away, or use another folder' %
                     (dataset_dir, len(others), min(others)))


def built(work_path: str, split: str = '') -> Set[str]:
  """Returns the names of the finished record files: those with a facts file.

  Args:
    work_path: work folder of the data set.
    split: name of a split; '': all.
  """
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
      manifests.path(dataset_dir, former.name)):
    published.update(former.splits[split]['shards'])
  for shard in built(work_path, split) - published:
    moved_to = os.path.join(dataset_dir, shard)
    if not os.path.exists(os.path.join(work_path, shard)) and os.path.exists(
        moved_to):
      os.remove(moved_to)
  # Last, because the facts files name the record files removed above.
  for file_name in os.listdir(work_path):
    if _split_of(file_name) == split:
      os.remove(os.path.join(work_path, file_name))


def _find_done(dataset_dir, work_path, plans, former):
  """Returns {shard: ShardFacts} of the record files that exist already.

  Those in the work folder were just written; those in dataset_dir are checked.
  Files for which an unusable photo has changed since are excluded.
  """
  done, in_place = {}, []
  for split, plan in plans.items():
    finished = {}
    if former and former.splits.get(split, {}).get('plan') == plan.digest:
      finished = photo_shards.facts_of_split(former.splits[split], plan.shards)
    for shard, rows in plan.shards.items():
      facts = (photo_shards.read_facts(os.path.join(work_path, shard)) or
               finished.get(shard))
      if not facts or photo_shards.some_changed(rows, facts.skipped):
        continue
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
    _write_plans(work_path, plans)
    total = sum(len(plan.shards[shard]) for shard, plan in missing)
    with Progress('converted', total) as shown:

      def write(item):
        shard, plan = item
        facts[shard] = photo_shards.write(
            os.path.join(work_path, shard), plan.shards[shard],
            plan.make_example, plan.settings['max_pixels'], shown)

      threads.run_in_threads(write, missing)
  return {split: {shard: facts[shard] for shard in plan.shards}
          for split, plan in plans.items()}


def _write_plans(work_path, plans):
  os.makedirs(work_path, exist_ok=True)
  for split, plan in plans.items():
    files.write_text(os.path.join(work_path, _PLAN % split), plan.digest)


def _check_skipped(dataset_dir, name, facts, max_bad_fraction):
  """Raises InputError, and writes the list, if too many cannot be used."""
  of_shards = [of_shard for of_split in facts.values()
               for of_shard in of_split.values()]
  skipped = _sorted_skipped(entry for of_shard in of_shards
                            for entry in of_shard.skipped)
  total = sum(of_shard.records for of_shard in of_shards) + len(skipped)
  if len(skipped) > total * max_bad_fraction:
    converted_files.write_skipped(dataset_dir, name, skipped)
    raise InputError(
        '%d of %d photos cannot be used, more than the %g %% allowed by '
        '--max_bad_fraction; %s lists them, the first is %s: %s' %
        (len(skipped), total, 100 * max_bad_fraction,
         converted_files.skipped_path(dataset_dir, name), skipped[0]['file'],
         skipped[0]['reason']))


def _sorted_skipped(entries):
  """Returns the sorted list of {'file', 'reason'}."""
  return sorted(({'file': entry['file'], 'reason': entry['reason']}
                 for entry in entries), key=lambda entry: entry['file'])


def _make_manifest(name, labels, plans, facts, former):
  """Returns the Manifest of the new splits and of the unchanged ones."""
  splits = dict(former.splits) if former else {}
  for split, plan in plans.items():
    splits[split] = dict(photo_shards.describe(facts[split], labels),
                         plan=plan.digest, settings=plan.settings)
  splits = {split: splits[split] for split in sorted(splits)}
  seed = next(iter(plans.values())).settings.get('seed', 0)
  return manifests.Manifest(
      name=name, labels=labels, seed=seed, percent_validation=0, files={},
      splits=splits, skipped=_sorted_skipped(
          entry for split in splits.values() for entry in split['skipped']))


def _move(dataset_dir, work_path, manifest, former, to_move):
  """Removes former files and moves the new ones in, the manifest last."""
  os.makedirs(work_path, exist_ok=True)
  manifest_path = manifests.path(dataset_dir, manifest.name)
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
  content = files.read_if_exists(labels_path)  # Maybe another data set's.
  if content is None or former and former.labels != manifest.labels and (
      content == label_files.content(former.labels)):
    label_files.write(labels_path, manifest.labels)
  converted_files.write_skipped(dataset_dir, manifest.name, manifest.skipped)
  manifests.save(dataset_dir, manifest)


def _clean(work_path, manifest):
  """Removes work files that are no longer needed.

  Those of a split that a killed conversion began by another plan are kept.
  """
  if not os.path.isdir(work_path):
    return
  unfinished = {split for split in map(_split_of, os.listdir(work_path))
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
