"""Builds tf.data pipelines from records to the batches of a network.

Photos stay encoded until they leave the shuffle buffer. `photo_to_input` alone
turns an encoded photo into a network's input: training, evaluation and the
exported graph call it.
"""

import contextlib
import os
import re
from typing import Callable, Iterator, Optional, Sequence, Union

import numpy as np

from common.errors import InputError
from compat import slim, tf
from datasets import decode_graph, record_dataset
from datasets.records import record_check

# Limits of the shuffle buffer, in records and in bytes: photos straight from a
# camera have megabytes each. The converter has shuffled all photos already, and
# the order of the files is shuffled in each epoch; the buffer only has to
# change which photos share a batch.
SHUFFLE_RECORDS = 4096
SHUFFLE_BYTES = 256 * 1024 * 1024

# Columns decoded on each side of the part of a JPEG that is needed: one pixel
# of chroma.
WINDOW_MARGIN = 2

# Batches made in advance, while the network computes.
PREFETCH_BATCHES = 2

# Minimum number of files per worker for distributing files that cannot be
# divided evenly: one file more or less is then 5 %.
FILES_A_WORKER = 20

# The graph's collection of the record files that its batches are read from.
_RECORD_FILES = 'record_files'

_VERIFY_HINT = 'tools/verify_tfrecord.py reports all problems of a data set'

# Keeps tf.data from applying AutoGraph, which takes a quarter of the time that
# training needs to start. No other graph here uses it either.
_in_graph = tf.autograph.experimental.do_not_convert

_NO_MEMORY = re.compile('OOM when|[Oo]ut of memory|[Ff]ailed to allocate')

# The message about a label that is not one of the network's outputs.
_LABEL_OUTSIDE = 'label outside 0 to %d with --labels_offset=%d:'
_LABEL_OUTSIDE_FOUND = re.compile(
    _LABEL_OUTSIDE.replace('%d', r'(\d+)') + '.*')


def photo_to_input(encoded: tf.Tensor, preprocessing_fn: Callable, height: int,
                   width: int, channels: int = 3,
                   seed: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Decodes a photo and preprocesses it.

  Only the part of a JPEG that is used is decoded; the result is the same as if
  the whole photo were decoded, bit for bit.

  Args:
    encoded: scalar string tensor, a JPEG or PNG file, as decode_graph.decode
      takes it.
    preprocessing_fn: function of (image, height, width), where image is
      [h, w, channels] uint8.
    height: height of the result in pixels.
    width: width of the result in pixels.
    channels: 3, or 1 for grey.
    seed: [2] int64 tensor that decides all random values; only for a
      preprocessing_fn of preprocessing_factory. None: no seed.

  Returns:
    [height, width, channels] tensor of preprocessing_fn's type and range.
  """
  options = {} if seed is None else {'seed': seed}
  random_window = getattr(preprocessing_fn, 'random_window', None)
  middle_window = getattr(preprocessing_fn, 'middle_window', None)
  if seed is not None and random_window is not None:
    image, window = _decode_window(
        encoded, lambda shape: random_window(shape, seed), channels)
    image = _crop_columns(image, window, channels)
    options['crop_image'] = False
  elif middle_window is not None:
    image, options['window'] = _decode_window(encoded, middle_window, channels)
  else:
    image = decode_graph.decode(encoded, channels)
  image = preprocessing_fn(image, height, width, **options)
  image.set_shape([height, width, channels])
  return image


def _decode_window(encoded, window_of, channels):
  """Decodes a part of a photo; of a JPEG, hardly more than that part.

  Args:
    encoded: as for `photo_to_input`.
    window_of: function of the photo's shape that returns a part of it: `[4]`
      int32, top, left, height and width in pixels.
    channels: 3, or 1 for grey.

  Returns:
    `[h, w, channels]` uint8, which contains the part; and the place of the part
    in it, `[4]` int32.
  """
  # The names contain DecodeJpeg, by which errors_as_advice recognizes a photo
  # that cannot be decoded.

  def of_jpeg():
    shape = tf.io.extract_jpeg_shape(encoded, name='DecodeJpegShape')
    top, left, height, width = tf.unstack(window_of(shape))
    # At the left and right edge, libjpeg lacks the neighbours from which it
    # interpolates subsampled chroma: they are decoded too.
    begin = tf.maximum(left - WINDOW_MARGIN, 0)
    end = tf.minimum(left + width + WINDOW_MARGIN, shape[1])
    image = tf.io.decode_and_crop_jpeg(
        encoded, tf.stack([top, begin, height, end - begin]),
        channels=channels, name='DecodeJpeg')
    return image, tf.stack([0, left - begin, height, width])

  def of_another():
    image = decode_graph.decode_other(encoded, channels)
    return image, window_of(tf.shape(image))

  image, window = tf.cond(decode_graph.is_plain_jpeg(encoded), of_jpeg,
                          of_another)
  image.set_shape([None, None, channels])
  return image, window


def _crop_columns(image, window, channels):
  """Returns the part of an image that a window, `[4]` int32, covers."""
  top, left, height, width = tf.unstack(window)
  # Cropping rows of bytes is three times as fast as cropping rows of pixels.
  rows = tf.slice(
      tf.reshape(image, tf.stack([tf.shape(image)[0], -1])),
      tf.stack([top, left * channels]), tf.stack([height, width * channels]))
  return tf.reshape(rows, tf.stack([height, width, channels]))


def training_batches(dataset: slim.dataset.Dataset, preprocessing_fn: Callable,
                     image_size: int, batch_size: int, channels: int = 3,
                     num_readers: int = 4, num_threads: int = 4,
                     labels_offset: int = 0, seed: Optional[int] = None,
                     num_shards: int = 1,
                     shard_index: int = 0) -> tf.data.Dataset:
  """Returns endless shuffled batches for training.

  Reading is cheap, 0.1 of 2.5 ms per photo, and one thread does it. Decoding
  and preprocessing run in num_threads threads, each on a photo of its own.

  Args:
    dataset: Dataset of dataset_factory.get_dataset.
    preprocessing_fn: as for photo_to_input.
    image_size: height and width of the network's input, in pixels.
    batch_size: photos per batch.
    channels: 3, or 1 for grey.
    num_readers: how many files are read in turn.
    num_threads: how many photos are decoded and preprocessed in parallel.
    labels_offset: subtracted from each label.
    seed: None: another order each time. With a seed the batches
      are the same each time: each photo gets its own seed before it goes to a
      thread. (A preprocessing_fn that draws random numbers and is not from
      preprocessing_factory needs num_threads=1 for that.)
    num_shards: how many workers share the data set.
    shard_index: index of this worker, from 0. In an epoch each record goes to
      exactly one worker: files are distributed if that is nearly even, else
      records, for which each worker reads all files.

  Returns:
    tf.data.Dataset of dicts: image [batch_size, image_size, image_size,
    channels] float32, label [batch_size] int64, filename [batch_size] string.
    With a preprocessing_fn that has a `distort_batch`, image is uint8, and
    numbers [batch_size, numbers] float32 is there too.

  Raises:
    InputError: if there are fewer records than workers, or labels_offset
      leaves no class.
  """
  if dataset.num_samples < num_shards:
    raise InputError('%d records cannot be shared by %d workers' %
                     (dataset.num_samples, num_shards))
  files = _files(dataset)
  if not len(files) % num_shards or len(files) >= FILES_A_WORKER * num_shards:
    files = files[shard_index::num_shards]
    records = tf.data.Dataset.from_tensor_slices(files)
    records = records.shuffle(len(files), seed=seed)
    # Without num_parallel_calls: TensorFlow 1.15's parallel interleave may
    # crash when a session closes. Its threads free a file's iterator after the
    # pipeline's model, to which that iterator reports.
    records = records.interleave(tf.data.TFRecordDataset,
                                 cycle_length=min(num_readers, len(files)))
  else:  # By records: each worker reads all files, in the same order.
    records = tf.data.TFRecordDataset(files).shard(num_shards, shard_index)
  records = records.shuffle(_buffer_size(files, dataset.num_samples), seed=seed)
  load = _make_load(dataset, preprocessing_fn, image_size, channels,
                    labels_offset, seed)
  records = records.repeat()
  if hasattr(preprocessing_fn, 'random_window'):
    seeds = tf.data.experimental.RandomDataset(seed).batch(2)
    records = tf.data.Dataset.zip((records, seeds))
  batches = records.map(load, num_parallel_calls=num_threads).batch(
      batch_size, drop_remainder=True)
  return batches.prefetch(PREFETCH_BATCHES).with_options(_one_thread_a_photo())


def evaluation_batches(dataset: slim.dataset.Dataset,
                       preprocessing_fn: Callable, image_size: int,
                       batch_size: int, channels: int = 3, num_threads: int = 4,
                       labels_offset: int = 0, seed: Optional[int] = None,
                       keep: Union[Sequence[int], np.ndarray, tf.Tensor,
                                   None] = None) -> tf.data.Dataset:
  """Returns batches of each record once, in the order of the files.

  Args:
    dataset: Dataset of dataset_factory.get_dataset.
    preprocessing_fn: as for photo_to_input.
    image_size: height and width of the network's input, in pixels.
    batch_size: photos per batch.
    channels: 3, or 1 for grey.
    num_threads: how many photos are decoded and preprocessed in parallel.
    labels_offset: subtracted from each label.
    seed: decides, with a record's number, all random values in
      preprocessing_fn, which must be from preprocessing_factory; None: nothing
      is random in it.
    keep: numbers of the records to use, or a [records] bool tensor; None: all.

  Returns:
    tf.data.Dataset of dicts as from training_batches; the last batch may be
    smaller.

  Raises:
    InputError: if labels_offset leaves no class.
  """
  load = _make_load(dataset, preprocessing_fn, image_size, channels,
                    labels_offset)
  records = tf.data.TFRecordDataset(_files(dataset))
  if seed is not None:
    numbers = tf.data.Dataset.range(dataset.num_samples)
    records = tf.data.Dataset.zip((records, numbers.map(_in_graph(
        lambda number: tf.stack([tf.constant(seed, tf.int64), number])))))
  if keep is not None:
    is_kept = keep
    if not tf.is_tensor(keep):
      is_kept = np.zeros([dataset.num_samples], bool)
      is_kept[keep] = True
    records = tf.data.Dataset.zip((records, tf.data.Dataset.from_tensor_slices(
        is_kept)))
    records = records.filter(_in_graph(lambda record, kept: kept)).map(
        _in_graph(lambda record, kept: record))
  return (records.map(load, num_parallel_calls=num_threads)
          .batch(batch_size).prefetch(PREFETCH_BATCHES)
          .with_options(_one_thread_a_photo()))


@contextlib.contextmanager
def errors_as_advice() -> Iterator[None]:
  """Turns TensorFlow's errors about the records into one line for the user.

  Use it around session runs that read batches, in the graph that holds them.
  TensorFlow does not say which file it was reading, so the files are searched
  for the problem.

  Raises:
    InputError: a record file is damaged or gone, a record holds no photo that
      TensorFlow can decode, a label is not one of the network's outputs, or
      memory runs out.
  """
  try:
    yield
  except tf.errors.DataLossError as error:
    raise (_find_culprit(decode=False) or InputError(
        'a record was damaged (%s), but now its file can be read: check the '
        'disk or the network mount; %s' %
        (record_check.first_line(error), _VERIFY_HINT)))
  except tf.errors.NotFoundError as error:
    gone = [path for path in tf.get_collection(_RECORD_FILES)
            if path in error.message]
    if not gone:
      raise
    raise InputError('the record file %s is gone' % gone[0])
  except tf.errors.ResourceExhaustedError as error:
    # It is also raised for a full disk, with a hint about allocated tensors in
    # the lines after the first.
    reason = record_check.first_line(error)
    if not _NO_MEMORY.search(reason):
      raise
    raise InputError('out of memory (%s): lower --batch_size, or convert the '
                     'data set again with a lower --max_pixels' % reason)
  except tf.errors.InvalidArgumentError as error:
    match = _LABEL_OUTSIDE_FOUND.search(error.message)
    if match:
      raise _label_error(match)
    culprit = None
    if record_check.BAD_CONTENT.search(error.message):
      culprit = _find_culprit(decode='DecodeJpeg' in error.message)
    if culprit is None:
      raise
    raise culprit


def _label_error(match):
  """Returns the InputError about a label outside the network's outputs.

  Args:
    match: match of _LABEL_OUTSIDE_FOUND.
  """
  text = re.sub(r'[\[\]]', '', match.group(0)).strip()
  if text.endswith('of photo'):  # The record does not have its name.
    last, offset = map(int, match.groups())
    problem = _search_records(False, range(offset, offset + last + 1))
    if problem:
      text = _LABEL_OUTSIDE % (last, offset) + ' ' + record_check.describe(
          problem)
  return InputError(text)


def _one_thread_a_photo():
  """Returns the tf.data.Options that process each photo in one thread.

  The photos keep all threads busy. Splitting the work on one photo costs more
  than it gains: without this, inception's distortions took a third more
  processor time, and switched threads 35 times per photo instead of twice.
  """
  options = tf.data.Options()
  # TensorFlow 1.15 has the second name only.
  threading = getattr(options, 'threading', None)
  if threading is None:
    threading = options.experimental_threading
  threading.max_intra_op_parallelism = 1
  return options


def _find_culprit(decode):
  """Returns the InputError that names the first bad record, None if none is.

  Args:
    decode: whether to decode the photos as well, which takes longer.
  """
  problem = _search_records(decode)
  return problem and InputError('%s; convert the data set again (%s)' % (
      record_check.describe(problem), _VERIFY_HINT))


def _search_records(decode, labels=None):
  """Returns the first problem in the graph's record files, or None."""
  files = tf.get_collection(_RECORD_FILES)
  tf.logging.info('A record cannot be used. Searching %d files for it',
                  len(files))
  return record_check.first_problem(files, decode, labels)


def _files(dataset):
  """Returns the data set's files, and adds them to a collection of the graph.

  slim also allows a pattern as the source.
  """
  sources = dataset.data_sources
  if isinstance(sources, str):
    sources = sorted(tf.gfile.Glob(sources))
  if not sources:
    raise InputError('the data set has no files: %r' % dataset.data_sources)
  for source in sources:
    tf.add_to_collection(_RECORD_FILES, source)
  return list(sources)


def _buffer_size(files, num_records):
  """Returns how many records the shuffle buffer holds."""
  mean_bytes = sum(map(os.path.getsize, files)) / num_records
  return max(1, min(SHUFFLE_RECORDS, int(SHUFFLE_BYTES / mean_bytes)))


def _make_load(dataset, preprocessing_fn, image_size, channels, labels_offset,
               seed=None):
  """Returns a function from a serialized record to the dict of tensors.

  The function also takes a seed, [2] int64, for photo_to_input.
  """
  num_outputs = dataset.num_classes - labels_offset
  if labels_offset < 0 or num_outputs < 1:
    raise InputError('labels_offset is %d, expected 0 to %d for %d classes' %
                     (labels_offset, dataset.num_classes - 1,
                      dataset.num_classes))

  @_in_graph
  def load(serialized, photo_seed=None):
    if seed is not None:  # For random operations in this function's own graph.
      tf.set_random_seed(seed)
    record = tf.parse_single_example(serialized, record_dataset.features())
    filename = record['image/filename']
    label = record['image/class/label'] - labels_offset
    in_range = tf.logical_and(label >= 0, label < num_outputs)
    problem = _LABEL_OUTSIDE % (num_outputs - 1, labels_offset)
    with tf.control_dependencies(
        [tf.Assert(in_range, [problem, label, 'of photo', filename])]):
      label = tf.identity(label)
    image = photo_to_input(record['image/encoded'], preprocessing_fn,
                           image_size, image_size, channels, photo_seed)
    photo = {'image': image, 'label': label, 'filename': filename}
    if getattr(preprocessing_fn, 'distort_batch', None):
      photo['numbers'] = preprocessing_fn.draw(photo_seed)
    return photo

  return load
