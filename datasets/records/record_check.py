"""Checks records one by one: checksums, content, whether photos decode.

`tools.verify_tfrecord` reports all problems. If training or evaluation stops at
a record, `first_problem` finds out which one it was.
"""

import multiprocessing.pool
import os
import re
import zlib
from typing import (
  Callable,
  Container,
  Dict,
  Iterator,
  List,
  NamedTuple,
  Optional,
  Set,
  Tuple,
)

from google.protobuf.message import DecodeError

from common.errors import InputError
from compat import tf
from datasets import decode_graph
from datasets.photo_files import formats, photo_work
from datasets.photo_files.photo_colors import PhotoError
from datasets.records import tfrecord_file

# One per core; reading, checking and decoding release Python's lock.
_THREADS = max(2, os.cpu_count() or 2)

# Kernels that read a record's content, as TensorFlow's errors name them.
BAD_CONTENT = re.compile(r'DecodeJpeg|ParseSingleExample')

# {key: kind} of the features that are read; slim's records lack the optional
# ones.
_NEEDED = {'image/encoded': 'bytes_list', 'image/class/label': 'int64_list'}
_OPTIONAL = {'image/format': 'bytes_list', 'image/filename': 'bytes_list',
             'image/height': 'int64_list', 'image/width': 'int64_list'}


class Problem(NamedTuple):
  """A problem of a file or one of its records."""

  # Path of the file; None for the whole split.
  path: Optional[str]
  # Number of the record in the file, from 0; None for the whole file.
  index: Optional[int]  # type: ignore[assignment]  # Hides tuple.index.
  # The byte at which the record starts.
  offset: Optional[int]
  # The record's image/filename; '' if it has none.
  photo: str
  # Description of the problem.
  text: str


class FileReport(NamedTuple):
  """Result of the check of a record file."""

  # Path of the file.
  path: str
  # How many records it holds, damaged ones included.
  num_records: int
  # How many photos were decoded.
  num_decoded: int
  # (index, offset, image/filename, checksum) of the records that have a name.
  # The checksum is the photo's; None for a '<class>/<file>', which is unique in
  # a data set: only a base name may be in several folders.
  photos: List[Tuple[int, int, str, Optional[int]]]
  problems: List[Problem]


def describe(problem: Problem) -> str:
  """Returns a Problem as one line."""
  where = problem.path or ''
  if problem.index is not None:
    where += ', record %d (byte %s)' % (problem.index, problem.offset)
  if problem.photo:
    where += ', photo %r' % problem.photo
  return '%s: %s' % (where, problem.text) if where else problem.text


class PhotoDecoder:
  """Decodes photos as training does. May be used by several threads.

  Args:
    compare_sizes: whether a photo must have the size given in its record.
      Training does not need this.
  """

  def __init__(self, compare_sizes: bool = True) -> None:
    self._compare_sizes = compare_sizes
    with tf.Graph().as_default() as graph:
      self._encoded = tf.placeholder(tf.string, [])
      self._shape = tf.shape(decode_graph.decode(self._encoded, channels=3))
    self._session = tf.Session(graph=graph)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._session.close()

  def check(self, example: tf.train.Example) -> Optional[str]:
    """Returns a text about the problem of a record's photo, or None."""
    feature = example.features.feature
    encoded = _value(feature, 'image/encoded')
    try:
      photo_work.check(formats.name_of(encoded), encoded)
      height, width, _ = self._session.run(
          self._shape, {self._encoded: encoded})
    except PhotoError as error:
      return 'the photo cannot be decoded: %s' % error
    except tf.errors.OpError as error:
      return 'the photo cannot be decoded: %s' % first_line(error)
    recorded_size = (_value(feature, 'image/height', height),
                     _value(feature, 'image/width', width))
    if self._compare_sizes and recorded_size != (height, width):
      return ('the photo is %d x %d pixels (height x width), the record says '
              '%d x %d' % (height, width, *recorded_size))
    return None


def first_line(error: tf.errors.OpError) -> str:
  """Returns the message of a tf.errors.OpError, without the graph location."""
  return error.message.split('[[')[0].strip().split('\n')[-1].strip()


def check_file(path: str, labels: Optional[range],
               decoder: Optional[PhotoDecoder] = None,
               indexes: Optional[Container[int]] = None,
               on_record: Optional[Callable[[], None]] = None) -> FileReport:
  """Reads a whole file and checks each record.

  Args:
    path: path of the file.
    labels: accepted labels; None: any label.
    decoder: None: no photo is decoded.
    indexes: numbers of the records whose photos are decoded; None: all.
    on_record: called after each record.

  Returns:
    A FileReport.
  """
  count, num_decoded, photos, problems = 0, 0, [], []
  try:
    for record in tfrecord_file.read(path):
      count += 1
      text, photo, example = record.problem, '', None
      if text is None:
        text, photo, example = _check_content(record.data, labels)
      if photo:
        photos.append((record.index, record.offset, photo,
                       None if '/' in photo else _checksum(example)))
      if not text and decoder and (indexes is None or record.index in indexes):
        num_decoded += 1
        text = decoder.check(example)
      if text:
        problems.append(Problem(path, record.index, record.offset, photo, text))
      if on_record:
        on_record()
  except InputError as error:
    problems.append(Problem(None, None, None, '', str(error)))
  return FileReport(path, count, num_decoded, photos, problems)


def check_files(
    paths: List[str], labels: Optional[range],
    decoder: Optional[PhotoDecoder] = None,
    indexes: Optional[Dict[str, Set[int]]] = None,
    on_record: Optional[Callable[[], None]] = None) -> Iterator[FileReport]:
  """Yields the FileReport of each file, in order; reads several in parallel.

  Args:
    paths: the files.
    labels: as for check_file.
    decoder: as for check_file.
    indexes: {path: numbers of the records whose photos are decoded}; None: all.
    on_record: as for check_file.
  """
  def check(path):
    return check_file(path, labels, decoder,
                      None if indexes is None else indexes[path], on_record)

  with multiprocessing.pool.ThreadPool(_THREADS) as pool:
    yield from pool.imap(check, paths)


def first_problem(paths: List[str], decode: bool,
                  labels: Optional[range] = None) -> Optional[Problem]:
  """Returns the first Problem in some files, None if there is none.

  Args:
    paths: the files, searched in this order.
    decode: whether the photos are decoded as well.
    labels: as for check_file.
  """
  with PhotoDecoder(compare_sizes=False) as decoder:
    for report in check_files(paths, labels, decoder if decode else None):
      if report.problems:
        return report.problems[0]
  return None


def _check_content(data, labels):
  """Returns the problem (None if there is none), the photo's name, the Example.

  If a name is returned, image/encoded exists.
  """
  try:
    example = tf.train.Example.FromString(data)
  except DecodeError:
    return 'it is not a tf.train.Example', '', None
  feature = example.features.feature
  text = None
  for key, kind in list(_NEEDED.items()) + list(_OPTIONAL.items()):
    own_kind = feature[key].WhichOneof('kind') if key in feature else None
    if own_kind is None and key in _NEEDED:
      text = text or '%s is missing' % key
    elif own_kind not in (None, kind) or own_kind and (
        len(getattr(feature[key], kind).value) != 1):
      text = text or '%s is not one value in a %s' % (key, kind)
  if text:
    return text, '', None
  name = _value(feature, 'image/filename', b'').decode('utf-8', 'replace')
  label = _value(feature, 'image/class/label')
  if labels is not None and label not in labels:
    text = 'label %d, expected %d to %d' % (label, labels[0], labels[-1])
  elif not _value(feature, 'image/encoded'):
    text = 'image/encoded is empty'
  return text, name, example


def _checksum(example):
  return zlib.crc32(_value(example.features.feature, 'image/encoded'))


def _value(feature, key, default=None):
  """Returns the one value of a feature."""
  kind = feature[key].WhichOneof('kind') if key in feature else None
  return getattr(feature[key], kind).value[0] if kind else default
