"""From records to the batches that a network sees, with tf.data.

Photos stay encoded until they have left the shuffle buffer. `photo_to_input` is
the one way from an encoded photo to a network's input: training, evaluation and
the exported graph call it.
"""

import contextlib
import os
import re

import numpy as np

from compat import tf
from datasets import decode_graph, record_check, record_dataset
from errors import InputError

# Records in the shuffle buffer: at most so many, and at most so many bytes, for
# photos straight from a camera have megabytes each. The converter has shuffled
# all photos already, and the order of the files is shuffled in each epoch; the
# buffer only has to change who is in a batch with whom.
SHUFFLE_RECORDS = 4096
SHUFFLE_BYTES = 256 * 1024 * 1024

# Columns decoded beside the part of a JPEG that is needed: a pixel of chroma.
WINDOW_MARGIN = 2

# Batches made ahead, while the network works on one.
PREFETCH_BATCHES = 2

# Files that each of several workers must have at least, to get some of its own
# where their number does not divide evenly: one more or less is 5 % then.
FILES_A_WORKER = 20

# The graph's collection of the record files that its batches are read from.
_RECORD_FILES = 'record_files'

_TELL_ALL = 'verify_tfrecord.py tells all that is wrong with a data set'

# As in graphs elsewhere, Python's statements stay Python's: AutoGraph, which
# tf.data uses otherwise, takes a quarter of the time that a training needs to
# start.
_in_graph = tf.autograph.experimental.do_not_convert

_NO_MEMORY = re.compile('OOM when|[Oo]ut of memory|[Ff]ailed to allocate')

# The message about a label that is not one of the network's outputs.
_LABEL_OUTSIDE = 'label outside 0 to %d with --labels_offset=%d:'
_LABEL_OUTSIDE_FOUND = re.compile(
    _LABEL_OUTSIDE.replace('%d', r'(\d+)') + '.*')


def photo_to_input(encoded, preprocessing_fn, height, width, channels=3,
                   seed=None):
  """Decodes a photo and preprocesses it.

  With a seed, of a JPEG only the part is decoded that training takes; the
  result is that of the whole photo, bit by bit.

  Args:
    encoded: scalar string tensor, a JPEG or PNG file, as decode_graph.decode
      takes it.
    preprocessing_fn: function of (image, height, width), where image is
      [h, w, channels] uint8.
    height: pixels of the result.
    width: pixels of the result.
    channels: 3, or 1 for grey.
    seed: [2] int64 tensor that decides all that is random, only for what
      preprocessing_factory gives; None: nothing decides it.

  Returns:
    [height, width, channels] float32 tensor, in preprocessing_fn's range.
  """
  options = {} if seed is None else {'seed': seed}
  if seed is not None and preprocessing_fn.random_window is not None:
    image = _decode_window(encoded, preprocessing_fn.random_window, seed,
                           channels)
    options['crop_image'] = False
  else:
    image = decode_graph.decode(encoded, channels)
  image = preprocessing_fn(image, height, width, **options)
  image.set_shape([height, width, channels])
  return image


def _decode_window(encoded, random_window, seed, channels):
  """Returns a random part of a photo, decoding no more than a JPEG needs."""
  # The names have DecodeJpeg in them, by which errors_as_advice knows a photo
  # that cannot be decoded.

  def of_jpeg():
    shape = tf.io.extract_jpeg_shape(encoded, name='DecodeJpegShape')
    top, left, height, width = tf.unstack(random_window(shape, seed))
    # At its left and right end, libjpeg lacks the neighbours from which it
    # interpolates halved chroma: they are decoded too, and cut off.
    begin = tf.maximum(left - WINDOW_MARGIN, 0)
    end = tf.minimum(left + width + WINDOW_MARGIN, shape[1])
    image = tf.io.decode_and_crop_jpeg(
        encoded, tf.stack([top, begin, height, end - begin]),
        channels=channels, name='DecodeJpeg')
    # Rows of bytes are cut three times as fast as rows of pixels.
    rows = tf.slice(tf.reshape(image, tf.stack([height, -1])),
                    tf.stack([0, (left - begin) * channels]),
                    tf.stack([-1, width * channels]))
    return tf.reshape(rows, tf.stack([height, width, channels]))

  def of_another():
    image = decode_graph.decode_other(encoded, channels)
    window = random_window(tf.shape(image), seed)
    return tf.slice(image, tf.concat([window[:2], [0]], 0),
                    tf.concat([window[2:], [-1]], 0))

  image = tf.cond(decode_graph.is_plain_jpeg(encoded), of_jpeg, of_another)
  image.set_shape([None, None, channels])
  return image


def training_batches(dataset, preprocessing_fn, image_size, batch_size,
                     channels=3, num_readers=4, num_threads=4, labels_offset=0,
                     seed=None, num_shards=1, shard_index=0):
  """Returns endless shuffled batches for training.

  Reading is cheap, 0.1 of 2.5 ms a photo, and one thread does it. What costs
  is done by num_threads, each with a photo of its own.

  Args:
    dataset: Dataset of dataset_factory.get_dataset.
    preprocessing_fn: as for photo_to_input.
    image_size: height and width of the network's input, in pixels.
    batch_size: photos a batch.
    channels: 3, or 1 for grey.
    num_readers: how many files are read in turn.
    num_threads: how many photos are decoded and preprocessed at once.
    labels_offset: subtracted from each label.
    seed: integer, or None for another order each time. With a seed the batches
      are the same each time: each photo has a seed of its own before the
      threads take it. (A preprocessing_fn that is none of
      preprocessing_factory's and draws random numbers: with num_threads=1.)
    num_shards: how many workers share the data set.
    shard_index: which of them this is, from 0. In an epoch each record goes to
      exactly one: files are dealt out where that is fair, else records, for
      which each worker reads all files.

  Returns:
    tf.data.Dataset of dicts: image [batch_size, image_size, image_size,
    channels] float32, label [batch_size] int64, filename [batch_size] string.

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
    # model of the pipeline that the iterator reports to.
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


def evaluation_batches(dataset, preprocessing_fn, image_size, batch_size,
                       channels=3, num_threads=4, labels_offset=0, skip=0,
                       seed=None, keep=None):
  """Returns each record once, in the order of the files.

  Args:
    dataset: Dataset of dataset_factory.get_dataset.
    preprocessing_fn: as for photo_to_input.
    image_size: height and width of the network's input, in pixels.
    batch_size: photos a batch.
    channels: 3, or 1 for grey.
    num_threads: how many photos are decoded and preprocessed at once.
    labels_offset: subtracted from each label.
    skip: how many records are left out at the start; a scalar int64 tensor
      or a number.
    seed: integer that decides, with a record's number, all that is random in
      preprocessing_fn, which must be of preprocessing_factory; None: nothing
      is random in it.
    keep: numbers of the records that are taken; None: all.

  Returns:
    tf.data.Dataset of dicts as training_batches gives them; the last batch
    holds what is left.

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
    wanted = np.zeros([dataset.num_samples], bool)
    wanted[keep] = True
    records = tf.data.Dataset.zip((records, tf.data.Dataset.from_tensor_slices(
        wanted)))
    records = records.filter(_in_graph(lambda record, taken: taken)).map(
        _in_graph(lambda record, taken: record))
  return (records.skip(skip).map(load, num_parallel_calls=num_threads)
          .batch(batch_size).prefetch(PREFETCH_BATCHES))


@contextlib.contextmanager
def errors_as_advice():
  """Turns TensorFlow's errors about the records into one line for the user.

  To be put around what runs a session that reads batches, in the graph that
  holds them. TensorFlow does not say which file it was reading, so the files
  are searched for what is wrong.

  Raises:
    InputError: a record file is damaged or gone, a record holds no photo that
      TensorFlow can decode, a label is none of the network's outputs, or the
      memory is not enough.
  """
  try:
    yield
  except tf.errors.DataLossError as error:
    raise (_find_culprit(decode=False) or InputError(
        'a record is damaged (%s), and now its file reads well: is the disk, '
        'or the network to it, in order? %s' %
        (record_check.first_line(error), _TELL_ALL)))
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
    found = _LABEL_OUTSIDE_FOUND.search(error.message)
    if found:
      raise _label_error(found)
    culprit = None
    if record_check.BAD_CONTENT.search(error.message):
      culprit = _find_culprit(decode='DecodeJpeg' in error.message)
    if culprit is None:
      raise
    raise culprit


def _label_error(found):
  """Returns the InputError about a label outside the network's outputs.

  Args:
    found: match of _LABEL_OUTSIDE_FOUND.
  """
  text = re.sub(r'[\[\]]', '', found.group(0)).strip()
  if text.endswith('of photo'):  # The record does not have its name.
    last, offset = map(int, found.groups())
    problem = _search_records(False, range(offset, offset + last + 1))
    if problem:
      text = _LABEL_OUTSIDE % (last, offset) + ' ' + record_check.describe(
          problem)
  return InputError(text)


def _one_thread_a_photo():
  """Returns the tf.data.Options by which a photo stays with its thread.

  The photos keep all threads busy. To hand parts of one to others costs more
  than it gains: without this, inception's distortions took a third more time
  of the processor, and switched threads 35 times a photo instead of twice.
  """
  options = tf.data.Options()
  # TensorFlow 1.15 has the second name only.
  threading = getattr(options, 'threading', None)
  if threading is None:
    threading = options.experimental_threading
  threading.max_intra_op_parallelism = 1
  return options


def _find_culprit(decode):
  """Returns the InputError that names the first bad record, None without one.

  Args:
    decode: whether it may be a photo, which takes longer to find.
  """
  problem = _search_records(decode)
  return problem and InputError('%s; convert the data set again (%s)' % (
      record_check.describe(problem), _TELL_ALL))


def _search_records(decode, labels=None):
  """Returns record_check.first_problem of the graph's record files."""
  files = tf.get_collection(_RECORD_FILES)
  tf.logging.info('A record cannot be used. Looking for it in %d files',
                  len(files))
  return record_check.first_problem(files, decode, labels)


def _files(dataset):
  """Returns the data set's files, and notes them in the graph.

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
  """Returns the function from a serialized record to the dict of tensors.

  It takes a photo's seed as well, [2] int64, for photo_to_input.
  """
  num_outputs = dataset.num_classes - labels_offset
  if labels_offset < 0 or num_outputs < 1:
    raise InputError('labels_offset is %d, accepted are 0 to %d for %d classes'
                     % (labels_offset, dataset.num_classes - 1,
                        dataset.num_classes))

  @_in_graph
  def load(serialized, photo_seed=None):
    if seed is not None:  # Of this function's own graph: its random operations.
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
    return {'image': image, 'label': label, 'filename': filename}

  return load
