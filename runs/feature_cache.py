"""On-disk cache of frozen-backbone features.

A cache is a folder named after a hash of all that its content depends on. Rows
are appended and counted; the count is written after its rows are on disk, so if
the process is killed, filling resumes where it was. A complete cache is read in
blocks through the system's page cache: it need not fit in memory.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from typing import (
  Any,
  BinaryIO,
  Callable,
  Dict,
  Iterable,
  Iterator,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np

from common import files, folders, locks
from common.errors import InputError
from compat import tf
from datasets.records import tfrecord_file
from nets import nets_factory
from runs import run_info

_KEY_FILE = 'key.json'
_ROWS_FILE = 'rows.json'
_LABELS_FILE = 'labels.i64'
_FILENAMES_FILE = 'filenames.jsonl'
_DIGESTS_FILE = 'photos.sha256'

# Bytes of a hash of a photo.
DIGEST_BYTES = 16

# Version of the file formats below, part of each key.
_FORM = 1

# Rows are synced to disk and counted after this many bytes or seconds; a killed
# process loses at most those.
_SYNC_BYTES = 32 * 1024 * 1024
_SYNC_SECS = 5

# Seconds between two checks whether another process is done.
_WAIT_SECS = 0.5

# Bytes in memory of the rows that are shuffled together.
_SHUFFLE_BYTES = 256 * 1024 * 1024

_MOST_FLOAT16 = float(np.finfo(np.float16).max)

# In a train directory: the caches that its run has used.
_USE_FILE = 'features.json'


class Batch(NamedTuple):
  """Rows of a cache."""

  # [rows, ...] float32 each.
  features: List[np.ndarray]
  # [rows] int64.
  labels: np.ndarray


class Use(NamedTuple):
  """The caches that a run uses."""

  # Names of the cached tensors.
  tensors: List[str]
  # Names of the variables that they depend on.
  variables: List[str]
  # {split: folder of the cache}.
  folders: Dict[str, str]


def fingerprint_records(paths: Iterable[str]) -> str:
  """Returns a hash of the records in some files.

  Only the length and checksum of each record are read, not its data.

  Args:
    paths: TFRecord files, in the order in which they are read.

  Raises:
    InputError: a file cannot be read or is damaged.
  """
  digest = hashlib.sha256()
  for path in paths:
    offsets = tfrecord_file.record_offsets(path)
    digest.update(b'%d;' % len(offsets))
    with open(path, 'rb') as source:
      for after in offsets[1:] + [os.path.getsize(path)]:
        source.seek(after - 4)  # The checksum of the preceding record.
        digest.update(source.read(4))
  return digest.hexdigest()


def fingerprint_values(named_values: Iterable[Tuple[str, np.ndarray]]) -> str:
  """Returns a hash of named arrays.

  Args:
    named_values: iterable of (name, array).
  """
  digest = hashlib.sha256()
  for name, value in named_values:
    digest.update(('%s %s %s;' % (name, value.shape, value.dtype)).encode())
    digest.update(np.ascontiguousarray(value).tobytes())
  return digest.hexdigest()


def save_use(train_dir: str, use: Use) -> None:
  """Saves which caches a run uses in its train directory."""
  os.makedirs(train_dir, exist_ok=True)
  files.write_text(os.path.join(train_dir, _USE_FILE),
                   json.dumps(use._asdict()))


def load_use(train_dir: str) -> Optional[Use]:
  """Returns the Use of a run, or None if it has used no cache."""
  try:
    with open(os.path.join(train_dir, _USE_FILE)) as file:
      return Use(**json.load(file))
  except (OSError, ValueError, TypeError):
    return None


def open_cache(folder: str, **facts: Any) -> Optional['FeatureCache']:
  """Opens a complete cache whose key has given values.

  Args:
    folder: of the cache.
    **facts: values that its key must have; None: it has none of this name.

  Returns:
    A FeatureCache; None if there is no complete cache, or its key differs.
  """
  cache = _load(folder, facts)
  return cache if cache and cache.is_complete() else None


def _load(folder, facts):
  """Returns the FeatureCache of a folder if its key has these values."""
  try:
    with open(os.path.join(folder, _KEY_FILE)) as file:
      key = json.load(file)
    if any(key.get(name) != value for name, value in facts.items()):
      return None
    own = {name: value for name, value in key.items()
           if name not in ('form', 'shapes', 'photos', 'views')}
    cache = FeatureCache(os.path.dirname(folder), own, key['shapes'],
                         key['photos'], key['views'])
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return cache if cache.folder == folder else None


def facts_of_run(info: run_info.RunInfo) -> Dict[str, Any]:
  """Returns what features depend on apart from records, weights and engine.

  Args:
    info: RunInfo.
  """
  facts: Dict[str, Any] = dict(
      network=info.model_name, preprocessing=info.preprocessing_name,
      image_size=info.image_size, labels_offset=info.labels_offset)
  if run_info.head_of(info):
    facts.update(taps=list(nets_factory.get_network(info.model_name).taps),
                 flip_average=info.flip_average)
  return facts


class FeatureCache:
  """The features of one split of a data set.

  Args:
    parent: folder of caches.
    key: JSON-serializable dict of all that the features depend on; 'dtype' is
      the type in which they are stored, float32 unless given.
    shapes: the shape of one row of each feature.
    num_photos: photos of the split.
    num_views: rows per photo.
  """

  def __init__(self, parent: str, key: Dict[str, Any],
               shapes: Iterable[Sequence[int]], num_photos: int,
               num_views: int = 1):
    self.num_photos = num_photos
    self.num_views = num_views
    self.shapes = [tuple(shape) for shape in shapes]
    self.dtype = np.dtype(key.get('dtype', 'float32')).newbyteorder('<')
    self._key = dict(key, form=_FORM, shapes=[list(s) for s in self.shapes],
                     photos=num_photos, views=num_views)
    text = json.dumps(self._key, sort_keys=True)
    self.folder = os.path.join(
        parent, hashlib.sha256(text.encode()).hexdigest()[:16])

  @property
  def records(self) -> Optional[str]:
    """Fingerprint of the records of the photos."""
    return self._key.get('records')

  @property
  def num_rows(self) -> int:
    return self.num_photos * self.num_views

  @property
  def row_bytes(self) -> int:
    return self.dtype.itemsize * sum(int(np.prod(shape))
                                      for shape in self.shapes)

  @property
  def num_bytes(self) -> int:
    """Size of the complete cache on disk, in bytes."""
    return self.num_rows * (self.row_bytes + 8)

  def rows(self) -> int:
    """Returns the number of stored rows, 0 for a cache that cannot be used."""
    try:
      with open(self._path(_KEY_FILE)) as file:
        if json.load(file) != self._key:
          return 0
      with open(self._path(_ROWS_FILE)) as file:
        counted = int(json.load(file)['rows'])
      whole = min(os.path.getsize(path) // size
                  for path, size in self._row_files())
    except (OSError, ValueError, KeyError, TypeError):
      return 0
    # If the files have fewer rows than counted, they were truncated.
    return counted if counted <= min(whole, self.num_rows) else 0

  def is_complete(self) -> bool:
    return self.rows() == self.num_rows

  @contextlib.contextmanager
  def fill(self, stop_requested: Callable[[], bool] = lambda: False
           ) -> Iterator[Optional['Writer']]:
    """Opens the cache for appending missing rows; one process at a time.

    Args:
      stop_requested: function that returns whether to stop waiting for another
        process that fills the cache.

    Yields:
      A Writer, whose `rows` is the row to continue from; None after a stop
      request.

    Raises:
      InputError: the disk lacks space, or the folder cannot be created.
    """
    try:
      os.makedirs(self.folder, exist_ok=True)
      with contextlib.ExitStack() as held:
        if not _lock(self.folder, held, stop_requested):
          yield None
          return
        yield held.enter_context(contextlib.closing(Writer(self)))
    except OSError as error:
      raise self._unwritable(error)

  @property
  def num_missing_bytes(self) -> int:
    """Number of bytes that are still to be written."""
    return (self.num_rows - self.rows()) * (self.row_bytes + 8)

  def _unwritable(self, error):
    return _unwritable(self.folder, error.strerror)

  def labels(self) -> np.ndarray:
    """Returns the labels of the photos: [photos] int64."""
    return np.fromfile(self._path(_LABELS_FILE), '<i8')[:self.num_photos]

  def filenames(self) -> List[str]:
    """Returns the file names of the photos: list of str."""
    with open(self._path(_FILENAMES_FILE), encoding='ascii') as file:
      return [json.loads(line) for line in file][:self.num_photos]

  def features(self) -> List[np.ndarray]:
    """Returns memory-mapped features, as stored: list of [rows, ...]."""
    return [np.memmap(self._feature_path(index), self.dtype, 'r',
                      shape=(self.rows(),) + shape)
            for index, shape in enumerate(self.shapes)]

  def save_digests(self, digests: Sequence[bytes]) -> None:
    """Saves a hash of each photo, so that other caches can use its features.

    Args:
      digests: DIGEST_BYTES each.
    """
    files.write_bytes(self._path(_DIGESTS_FILE), b''.join(digests))

  def digests(self) -> List[bytes]:
    """Returns what `save_digests` saved; empty if it is missing."""
    data = files.read_if_exists(self._path(_DIGESTS_FILE)) or b''
    if len(data) != DIGEST_BYTES * self.num_photos:
      return []
    return [data[start:start + DIGEST_BYTES]
            for start in range(0, len(data), DIGEST_BYTES)]

  def like_this(self, except_for: Sequence[str]) -> List['FeatureCache']:
    """Returns the other caches in the same folder that have the same key.

    Args:
      except_for: names of values of the key that may differ.
    """
    parent = os.path.dirname(self.folder)
    facts = {name: value for name, value in self._key.items()
             if name not in except_for}
    found = [_load(os.path.join(parent, name), facts)
             for name in sorted(os.listdir(parent))]
    # TensorFlow with float32 has neither of these values.
    return [cache for cache in found
            if cache and cache.folder != self.folder and all(
                cache._key.get(name) == self._key.get(name)
                for name in ('runtime', 'precision')) and cache.rows()]

  def batches(self, batch_size: int) -> Iterator[Batch]:
    """Yields the first view of each photo, in order: Batch."""
    features, labels = self.features(), self.labels()
    for start in range(0, self.num_photos, batch_size):
      end = min(start + batch_size, self.num_photos)
      yield Batch([np.asarray(feature[start:end], np.float32)
                   for feature in features], labels[start:end])

  def training_batches(self, batch_size: int,
                       random_state: np.random.RandomState) -> Iterator[Batch]:
    """Yields shuffled batches without end: Batch of `batch_size` rows.

    Each row is used once per epoch. If the rows exceed _SHUFFLE_BYTES, blocks
    of adjacent rows are read in random order and shuffled together.

    Args:
      batch_size: rows per batch.
      random_state: np.random.RandomState.
    """
    features, labels = self.features(), self.labels()
    pending = np.zeros([0], np.int64)
    epochs = self._epochs(random_state)
    while True:
      while len(pending) < batch_size:
        pending = np.concatenate([pending, next(epochs)])
      rows, pending = pending[:batch_size], pending[batch_size:]
      yield Batch([np.asarray(feature[rows], np.float32)
                   for feature in features], labels[rows % self.num_photos])

  def _epochs(self, random_state):
    """Yields arrays of row numbers; each row is in one of them per epoch."""
    at_once = max(1, _SHUFFLE_BYTES // self.row_bytes)
    block_rows = max(1, at_once // 16)
    starts = np.arange(0, self.num_rows, block_rows)
    while True:
      random_state.shuffle(starts)
      for group in np.array_split(starts, -(-self.num_rows // at_once)):
        rows = np.concatenate(
            [np.arange(start, min(start + block_rows, self.num_rows))
             for start in group])
        random_state.shuffle(rows)
        yield rows

  def _path(self, name):
    return os.path.join(self.folder, name)

  def _feature_path(self, index):
    return self._path('features-%d.f%d' % (index, 8 * self.dtype.itemsize))

  def _row_files(self):
    """Returns (path, bytes per row) of each file that has rows."""
    files = [(self._feature_path(index),
              self.dtype.itemsize * int(np.prod(shape)))
             for index, shape in enumerate(self.shapes)]
    return files + [(self._path(_LABELS_FILE), 8)]


class Writer:
  """Appends rows to a cache."""

  def __init__(self, cache: FeatureCache):
    self._cache = cache
    self.rows = cache.rows()
    if not self.rows:
      self._save_rows()
      files.write_text(cache._path(_KEY_FILE), json.dumps(cache._key))
    self._files: List[BinaryIO] = []
    for path, size in cache._row_files():
      stream = open(path, 'r+b' if self.rows else 'wb')
      stream.truncate(self.rows * size)
      stream.seek(0, os.SEEK_END)
      self._files.append(stream)
    self._names = self._open_names()
    self._unsaved = 0
    self._saved_at = time.monotonic()

  def _open_names(self):
    """Opens the list of names, truncated to the counted rows."""
    stream = open(self._cache._path(_FILENAMES_FILE),
                  'r+b' if self.rows else 'wb')
    for _ in range(min(self.rows, self._cache.num_photos)):
      stream.readline()
    stream.truncate(stream.tell())
    return stream

  def append(self, features: Sequence[np.ndarray], labels: Sequence[int],
             filenames: Sequence[str]) -> None:
    """Appends rows.

    Args:
      features: list of [n, ...] float32.
      labels: [n] integers.
      filenames: list of str.
    """
    arrays = list(features) + [labels]
    dtypes = [self._cache.dtype] * len(features) + [np.dtype('<i8')]
    for stream, array, dtype in zip(self._files, arrays, dtypes):
      if dtype == np.float16:  # Its range is smaller than that of float32.
        array = np.clip(array, -_MOST_FLOAT16, _MOST_FLOAT16)
      stream.write(np.asarray(array, dtype).tobytes())
    if self.rows < self._cache.num_photos:
      self._names.writelines(json.dumps(name).encode() + b'\n'
                             for name in filenames)
    self.rows += len(labels)
    self._unsaved += len(labels) * self._cache.row_bytes
    if (self._unsaved >= _SYNC_BYTES or
        time.monotonic() > self._saved_at + _SYNC_SECS):
      self.save()

  def save(self) -> None:
    """Syncs the rows to disk and counts them."""
    for stream in self._files + [self._names]:
      stream.flush()
      os.fsync(stream.fileno())
    self._save_rows()
    self._unsaved = 0
    self._saved_at = time.monotonic()

  def _save_rows(self):
    files.write_text(self._cache._path(_ROWS_FILE),
                     json.dumps({'rows': self.rows}))

  def close(self) -> None:
    self.save()
    for stream in self._files + [self._names]:
      stream.close()


def check_room(caches: Sequence[FeatureCache]) -> None:
  """Checks that the missing rows of some caches can be written.

  Args:
    caches: list of FeatureCache in one folder of caches.

  Raises:
    InputError: the folder cannot be written to, or the disk is too full.
  """
  missing = [cache for cache in caches if cache.num_missing_bytes]
  if not missing:
    return
  reason = folders.reason_not_writable(missing[0].folder)
  if reason:
    raise _unwritable(missing[0].folder, reason)
  folder = os.path.abspath(missing[0].folder)
  while not os.path.isdir(folder):
    folder = os.path.dirname(folder)
  free = shutil.disk_usage(folder).free
  wanted = sum(cache.num_missing_bytes for cache in missing)
  if wanted > free:
    raise InputError(
        'the features of %d photos need %.1f MB more in %s, but %.1f MB are '
        'free; give another --feature_cache_dir, or %s' % (
            sum(cache.num_photos for cache in missing), wanted / 1e6, folder,
            free / 1e6, '--nocache_features' if missing[0].dtype == np.float32
            else 'fewer --train_last_blocks'))


def _unwritable(folder, reason):
  return InputError(
      'cannot write to the feature cache %s: %s; --feature_cache_dir sets '
      'another folder' % (folder, reason))


def _lock(folder, held, stop_requested):
  """Locks a folder until an ExitStack ends; False after a stop request."""
  logged = False
  while not stop_requested():
    try:
      held.enter_context(locks.locked_folder(folder))
      return True
    except BlockingIOError:
      if not logged:
        tf.logging.info('Another process is filling %s: waiting for it', folder)
        logged = True
      time.sleep(_WAIT_SECS)
  return False
