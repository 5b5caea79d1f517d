"""Writes the files of a converted data set and moves them into place.

They are built in a work folder, together with a copy of the former manifest.
When all are complete, the former manifest is removed and the files are moved
out of the work folder, the new manifest last: by then, nothing more needs disk
space. A conversion that is killed leaves one of two states: the former data set
unchanged; or no manifest but a work folder, which dataset_factory ignores and
from which the next conversion reads the former manifest.
"""

import contextlib
import csv
import glob
import io
import os
import re
import shutil
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from common import files, label_files, locks, threads
from common.errors import InputError
from common.progress import Progress
from compat import tf
from datasets import manifest as manifests
from datasets import record_dataset
from datasets.dataset_factory import work_dir
from datasets.photo_files import photo_folder, photos

# <name>_<split>, shard, ending: this project's, slim's, those of ImageNet and
# visualwakewords.
_RECORD_FILE = re.compile(
    r'(?:(.+)_)?[a-z]+(?:\.tfrecord|(?:\.record)?[-_]\d{5}-of-\d{5}'
    r'(?:\.tfrecord)?)')

# In the work folder: the former manifest, and the new one.
_FORMER, _NEW = 'former.json', 'manifest.json'

# In dataset_dir while files are moved: whose labels are in labels.txt depends
# on the other data sets there, which may be converted at the same time.
_LOCK = '.converted_files.lock'


@contextlib.contextmanager
def hold(folder: str) -> Iterator[None]:
  """Keeps other processes from converting a folder of photos; for a `with`.

  Without it, two conversions would move each other's files.

  Args:
    folder: the folder of photos.

  Raises:
    InputError: another process is converting it.
  """
  with contextlib.ExitStack() as held:
    try:
      held.enter_context(locks.locked_folder(folder))
    except BlockingIOError:
      raise InputError('another process is converting %s: wait until it has '
                       'ended' % folder)
    yield


@contextlib.contextmanager
def hold_data_set(dataset_dir: str, name: str) -> Iterator[None]:
  """Keeps other processes from converting a data set; for a `with`.

  Args:
    dataset_dir: folder of the record files, which can be written to.
    name: name of the data set.

  Raises:
    InputError: another process is converting it.
  """
  folder = os.path.join(dataset_dir, name)
  with hold(folder) if os.path.isdir(folder) else locks.hold(
      os.path.join(dataset_dir, '.%s.lock' % name),
      'another process is converting %s: wait until it has ended' % folder):
    yield


def make_folder(path: str) -> None:
  """Creates a folder if it is missing, or raises InputError."""
  try:
    os.makedirs(path, exist_ok=True)
  except OSError as error:
    raise InputError('cannot make the folder %s: %s' % (path, error.strerror))


def skipped_path(dataset_dir: str, name: str) -> str:
  """Returns the path of the list of files that were not converted."""
  return os.path.join(dataset_dir, name + '_skipped.csv')


def own_labels_path(dataset_dir: str, name: str) -> str:
  """Returns the path of the labels if labels.txt is another data set's."""
  return os.path.join(dataset_dir, name + '_labels.txt')


def labels_path(dataset_dir: str, manifest: manifests.Manifest) -> str:
  """Returns the path of the label file of a converted data set."""
  path = os.path.join(dataset_dir, record_dataset.LABELS_FILE)
  if files.read_if_exists(path) == label_files.content(manifest.labels):
    return path
  return own_labels_path(dataset_dir, manifest.name)


def former_path(dataset_dir: str, name: str) -> Optional[str]:
  """Returns the path of the former conversion's manifest, or None.

  It is in the work folder if a conversion was killed while it moved files.
  """
  for path in (manifests.path(dataset_dir, name),
               os.path.join(work_dir(dataset_dir, name), _FORMER)):
    if os.path.isfile(path):
      return path
  return None


def check_way_is_free(dataset_dir: str, name: str,
                      shards: Iterable[str] = ()) -> None:
  """Raises InputError if the files cannot be written.

  A folder may have the name of one of them: a data set may be called
  labels.txt, or another one `<name>.json`.
  """
  if not os.access(dataset_dir, os.W_OK | os.X_OK):
    raise InputError(
        'cannot write to the folder %s: no permission, or read-only; give '
        'another --dataset_dir (DATASET_DIR) for the records, and --photos_dir '
        '(PHOTOS_DIR) for photos that cannot be moved there' % dataset_dir)
  wanted = [manifests.path(dataset_dir, name), skipped_path(dataset_dir, name),
            own_labels_path(dataset_dir, name),
            os.path.join(dataset_dir, record_dataset.LABELS_FILE),
            *(os.path.join(dataset_dir, shard) for shard in shards)]
  for path in wanted:
    if os.path.isdir(path):
      raise InputError('%s is a folder, and a file of that name would be '
                       'written: rename the folder' % path)


def write_skipped(dataset_dir: str, name: str,
                  skipped: Iterable[Dict[str, str]]) -> None:
  """Writes the list of files that were not converted, one per row, sorted.

  Args:
    dataset_dir: folder of the record files.
    name: name of the data set.
    skipped: {'file', 'reason'} of each.

  Raises:
    OSError: if it cannot be written.
  """
  text = io.StringIO()
  text.write('file,reason\n')
  # Names may hold any character; without quotes a lone \r ends a row.
  csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator='\n').writerows(
      (entry['file'], entry['reason'])
      for entry in sorted(skipped, key=lambda entry: entry['file']))
  files.write_text(skipped_path(dataset_dir, name), text.getvalue())


def write(dataset_dir: str, manifest: manifests.Manifest,
          former: Optional[manifests.Manifest],
          orders: Dict[str, List[Tuple[photo_folder.CheckedPhoto, int]]],
          hidden: List[Dict[str, str]],
          read: Callable[[photo_folder.CheckedPhoto], photos.Photo]) -> None:
  """Writes all files of a data set of photos; see the module's docstring.

  Args:
    dataset_dir: folder that gets the files.
    manifest: describes the data set.
    former: of the former conversion, if there was one.
    orders: {shard: [(photo, label), ...]}.
    hidden: {'file', 'reason'} to write only to the list of skipped files.
    read: function of a photo that returns the photos.Photo of its record.

  Raises:
    InputError: if a photo changed meanwhile, or a folder is in the way.
    OSError, tf.errors.OpError: if dataset_dir cannot be written to. The former
      data set is then unchanged, unless files were written and could not be
      moved; then the next conversion reads the former manifest from the work
      folder.
  """
  publish(dataset_dir, manifest, former, hidden, lambda work_path:
          _write_shards(work_path, orders, read))


def publish(dataset_dir: str, manifest: manifests.Manifest,
            former: Optional[manifests.Manifest], hidden: List[Dict[str, str]],
            write_shards: Callable[[str], None]) -> None:
  """Writes all files of a data set, of photos or of images in memory.

  Args:
    dataset_dir, manifest, former, hidden: as for `write`.
    write_shards: function of the work folder that writes all record files named
      by the manifest into it.

  Raises:
    InputError, OSError, tf.errors.OpError: as `write`, or from write_shards.
  """
  name = manifest.name
  shards = [shard for split in manifest.splits.values()
            for shard in split['shards']]
  check_way_is_free(dataset_dir, name, shards)
  work_path = work_dir(dataset_dir, name)
  manifest_path = manifests.path(dataset_dir, name)
  _clear(work_path, manifest_path)
  os.makedirs(work_path, exist_ok=True)
  with contextlib.ExitStack() as held:
    try:
      write_shards(work_path)
      write_skipped(work_path, name, manifest.skipped + hidden)
      label_files.write(os.path.join(work_path, record_dataset.LABELS_FILE),
                        manifest.labels)
      manifests.save_file(os.path.join(work_path, _NEW), manifest)
      if former and os.path.exists(manifest_path):
        manifests.save_file(os.path.join(work_path, _FORMER), former)
      held.enter_context(
          locks.locked_file(os.path.join(dataset_dir, _LOCK)))
    except (InputError, OSError, tf.errors.OpError):
      _clear(work_path, manifest_path)  # A full disk should not stay full.
      raise
    _move(dataset_dir, manifest, former, shards)


def _move(dataset_dir, manifest, former, shards):
  """Removes the former files and moves those of the work folder in."""
  name = manifest.name
  work_path = work_dir(dataset_dir, name)
  manifest_path = manifests.path(dataset_dir, name)
  if os.path.exists(manifest_path):
    os.remove(manifest_path)
  stale = re.compile(r'%s_(?:train|validation|test)-\d{5}-of-\d{5}\.tfrecord' %
                     re.escape(name))
  for file_name in os.listdir(dataset_dir):
    if stale.fullmatch(file_name):
      os.remove(os.path.join(dataset_dir, file_name))
  for shard in shards:
    os.replace(os.path.join(work_path, shard), os.path.join(dataset_dir, shard))
  os.replace(os.path.join(work_path, record_dataset.LABELS_FILE),
             _choose_labels_path(dataset_dir, name, manifest.labels, former))
  os.replace(skipped_path(work_path, name), skipped_path(dataset_dir, name))
  os.replace(os.path.join(work_path, _NEW), manifest_path)
  shutil.rmtree(work_path)


def _clear(work_path, manifest_path):
  """Empties a work folder, except for the only copy of the former manifest."""
  if not os.path.isdir(work_path):
    return
  for name in os.listdir(work_path):
    if name != _FORMER or os.path.isfile(manifest_path):
      os.remove(os.path.join(work_path, name))
  if not os.listdir(work_path):
    os.rmdir(work_path)


def _write_shards(work_path, orders, read):
  """Writes the record files, several in parallel."""
  with Progress('written', sum(map(len, orders.values()))) as done:
    def write_shard(shard):
      path = os.path.join(work_path, shard)
      with tf.python_io.TFRecordWriter(path) as writer:
        for photo, label in orders[shard]:
          normal = read(photo)
          example = record_dataset.make_example(
              normal.encoded, normal.height, normal.width, label, photo.file)
          writer.write(example.SerializeToString(deterministic=True))
          done.add()

    threads.run_in_threads(write_shard, list(orders))


def _choose_labels_path(dataset_dir, name, labels, former):
  """Returns the path of labels.txt, or of `<name>_labels.txt`.

  The latter if labels.txt belongs to another data set; otherwise the former
  conversion's `<name>_labels.txt` is removed.

  slim's scripts look for labels.txt. This project's own data sets have a
  manifest, but for slim's records labels.txt is the only source of labels.

  Args:
    dataset_dir: folder of the record files.
    name: name of the data set.
    labels: list of class names.
    former: the Manifest of the former conversion, or None.
  """
  path = os.path.join(dataset_dir, record_dataset.LABELS_FILE)
  own_path = own_labels_path(dataset_dir, name)
  content = files.read_if_exists(path)
  if content not in (None, label_files.content(labels)) and _is_in_use(
      dataset_dir, name, content):
    return own_path
  if former and (files.read_if_exists(own_path) ==
                 label_files.content(former.labels)):
    os.remove(own_path)
  return path


def _is_in_use(dataset_dir, name, content):
  """Returns whether a data set other than `name` needs the existing labels.txt.

  Args:
    dataset_dir: folder of the record files.
    name: name of the data set.
    content: bytes of labels.txt.
  """
  with_manifest = {name}
  for path in glob.glob(os.path.join(glob.escape(dataset_dir), '*.json')):
    try:
      other = manifests.load_file(path)
    except InputError:  # Some other JSON file.
      continue
    if other is None:  # A broken link.
      continue
    with_manifest.add(other.name)
    if other.name != name and label_files.content(other.labels) == content:
      return True
  for file_name in os.listdir(dataset_dir):
    match = _RECORD_FILE.fullmatch(file_name)
    if match and match.group(1) not in with_manifest:
      return True
  return False
