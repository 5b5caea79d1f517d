"""slim's helpers to download and convert data sets, under its names.

Programs that were written for slim import them from here. Downloads continue
after cut connections, and archives are unpacked without trusting them.
"""

import contextlib
import os
from typing import (
  Any,
  Callable,
  Dict,
  Iterable,
  List,
  Optional,
  Sequence,
  Union,
)

from common import label_files
from common.errors import InputError
from compat import tf
from datasets import record_dataset
from downloads import archives, zip_archives
from downloads.fetch import fetch

LABELS_FILENAME = record_dataset.LABELS_FILE

bytes_list_feature = record_dataset.bytes_feature
float_list_feature = record_dataset.float_feature


def int64_feature(values: Union[int, Sequence[int]]) -> tf.train.Feature:
  """Returns the tf.train.Feature of an integer, or of a list or tuple."""
  return record_dataset.int64_feature(_as_list(values))


def bytes_feature(values: bytes) -> tf.train.Feature:
  """Returns the tf.train.Feature of one value of bytes."""
  return record_dataset.bytes_feature([values])


def float_feature(values: Union[float, Sequence[float]]) -> tf.train.Feature:
  """Returns the tf.train.Feature of a float, or of a list or tuple."""
  return record_dataset.float_feature(_as_list(values))


def _as_list(values: Any) -> Iterable[Any]:
  return values if isinstance(values, (tuple, list)) else [values]


def image_to_tfexample(image_data: bytes, image_format: bytes, height: int,
                       width: int, class_id: int) -> tf.train.Example:
  """Returns the tf.train.Example of a photo, with slim's keys.

  Args:
    image_data: a JPEG or PNG file.
    image_format: b'jpg', b'JPEG' or b'png'.
    height, width: in pixels.
    class_id: the label.
  """
  example = record_dataset.make_example(image_data, height, width, class_id, '',
                                        image_format)
  del example.features.feature['image/filename']
  return example


def download_url(url: str, dataset_dir: str,
                 check: Optional[Callable[[str], Any]] = None) -> str:
  """Downloads a file unless it exists.

  Args:
    url: its address; the last part is its name.
    dataset_dir: destination; created if missing.
    check: as for downloads.fetch.fetch.

  Returns:
    The path of the file.

  Raises:
    InputError: as downloads.fetch.fetch.
  """
  path = os.path.join(dataset_dir, url.rpartition('/')[2])
  fetch([url], path, check=check)
  return path


def download_and_uncompress_tarball(tarball_url: str, dataset_dir: str) -> None:
  """Downloads a .tar.gz unless it exists, and unpacks it.

  Args:
    tarball_url: its address.
    dataset_dir: folder of the archive and of its files, which are replaced.

  Raises:
    InputError: it cannot be downloaded, is damaged or unsafe (see
      downloads/archives.py), or the files cannot be written.
  """
  path = download_url(tarball_url, dataset_dir, archives.check_tar)
  archives.unpack(path, dataset_dir, str)


def download_and_uncompress_zipfile(zip_url: str, dataset_dir: str) -> None:
  """Downloads a zip archive unless it exists, and unpacks what is missing.

  Args:
    zip_url: its address.
    dataset_dir: folder of the archive and of its files.

  Raises:
    InputError: as download_and_uncompress_tarball.
  """
  path = download_url(zip_url, dataset_dir, zip_archives.check)
  zip_archives.unpack(path, dataset_dir)


def write_label_file(labels_to_class_names: Dict[int, str], dataset_dir: str,
                     filename: str = LABELS_FILENAME) -> None:
  """Writes the label file of a data set.

  Args:
    labels_to_class_names: {label: class name}, of 0, 1, 2 and so on.
    dataset_dir: its folder.
    filename: its name.

  Raises:
    InputError: a label is missing, a name holds a line break, or the file
      cannot be written.
  """
  labels = sorted(labels_to_class_names)
  if labels != list(range(len(labels))):
    raise InputError('the labels are %s, expected 0 to %d' %
                     (', '.join(map(str, labels)), len(labels) - 1))
  label_files.write(os.path.join(dataset_dir, filename),
                    [labels_to_class_names[label] for label in labels])


def has_labels(dataset_dir: str, filename: str = LABELS_FILENAME) -> bool:
  """Returns whether a folder has a label file of this name."""
  return os.path.exists(os.path.join(dataset_dir, filename))


def read_label_file(dataset_dir: str,
                    filename: str = LABELS_FILENAME) -> Dict[int, str]:
  """Returns {label: class name} of a label file.

  Args:
    dataset_dir: its folder.
    filename: its name.

  Raises:
    InputError: as common.label_files.read.
  """
  return dict(enumerate(label_files.read(os.path.join(dataset_dir, filename))))


def open_sharded_output_tfrecords(
    exit_stack: contextlib.ExitStack, base_path: str,
    num_shards: int) -> List[tf.python_io.TFRecordWriter]:
  """Opens record files for writing.

  Args:
    exit_stack: closes them at its end.
    base_path: start of their paths.
    num_shards: how many.

  Returns:
    List of their writers, in the order of the files.
  """
  return [exit_stack.enter_context(tf.python_io.TFRecordWriter(
      '%s-%05d-of-%05d' % (base_path, index, num_shards)))
          for index in range(num_shards)]
