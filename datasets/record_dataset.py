"""Record format of every data set of this project, and its slim Dataset.

A record is a tf.train.Example with slim's keys, so that records of the 2017
scripts and those of this project can be read in the same way:

  image/encoded      bytes of a JPEG (or PNG) file
  image/format       b'jpg', b'JPEG' or b'png'
  image/class/label  the label, an integer
  image/height       pixels
  image/width        pixels
  image/filename     '<class>/<file>' in UTF-8; not in slim's records
"""

import os
import re
from typing import Dict, Iterable, List, Optional, Sequence

from compat import slim, tf
from datasets.records import tfrecord_file

LABELS_FILE = 'labels.txt'

ITEMS_TO_DESCRIPTIONS = {
    'image': 'A color photo, [height, width, 3] uint8 of varying size.',
    'label': 'The class, a single integer from 0 to num_classes - 1.',
    'filename': 'Where the photo came from, <class>/<file>; may be empty.',
}

# {item of slim's imagenet and visualwakewords: its description}.
FURTHER_ITEMS = {
    'label_text': 'The class in words.',
    'object/bbox': 'Boxes of objects, [number, 4] float32 from 0 to 1: ymin, '
                   'xmin, ymax, xmax.',
    'object/label': 'The class of each box, [number] int64.',
}


def bytes_feature(values: Iterable[bytes]) -> tf.train.Feature:
  """Returns the tf.train.Feature of a list of bytes."""
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def int64_feature(values: Iterable[int]) -> tf.train.Feature:
  """Returns the tf.train.Feature of a list of integers."""
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def float_feature(values: Iterable[float]) -> tf.train.Feature:
  """Returns the tf.train.Feature of a list of floats."""
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def make_example(
    encoded: bytes, height: int, width: int, label: int, filename: str,
    image_format: bytes = b'jpg',
    extra: Optional[Dict[str, tf.train.Feature]] = None) -> tf.train.Example:
  """Returns the tf.train.Example of one photo.

  Args:
    encoded: a JPEG or PNG file.
    height: height in pixels.
    width: width in pixels.
    label: index of the class.
    filename: '<class>/<file>'.
    image_format: b'jpg', b'JPEG' or b'png'.
    extra: more features by key.
  """
  feature = {
      'image/encoded': bytes_feature([encoded]),
      'image/format': bytes_feature([image_format]),
      'image/class/label': int64_feature([label]),
      'image/height': int64_feature([height]),
      'image/width': int64_feature([width]),
      'image/filename': bytes_feature([filename.encode('utf-8')]),
  }
  feature.update(extra or {})
  return tf.train.Example(features=tf.train.Features(feature=feature))


def features() -> Dict[str, tf.FixedLenFeature]:
  """Returns the parsing specification of the features that are read.

  A label is required: without one a photo would silently become class 0.
  """
  return {
      'image/encoded': tf.FixedLenFeature((), tf.string),
      'image/format': tf.FixedLenFeature((), tf.string, default_value='jpg'),
      'image/class/label': tf.FixedLenFeature((), tf.int64),
      'image/filename': tf.FixedLenFeature((), tf.string, default_value=''),
  }


def make_dataset(data_sources: List[str], num_samples: int, labels: List[str],
                 reader: Optional[type] = None, channels: int = 3,
                 image: Optional[str] = None,
                 items: Sequence[str] = ()) -> slim.dataset.Dataset:
  """Returns the slim Dataset over some record files.

  Args:
    data_sources: paths of the files.
    num_samples: how many records they hold together.
    labels: class names.
    reader: class of a tf.ReaderBase; None: tf.TFRecordReader.
    channels: channels of the item 'image': 3, or 1 for grey.
    image: description of that item; None: a color photo.
    items: names of FURTHER_ITEMS that the decoder also gives.
  """
  specification = features()
  handlers = {
      'image': slim.tfexample_decoder.Image(channels=channels),
      'label': slim.tfexample_decoder.Tensor('image/class/label'),
      'filename': slim.tfexample_decoder.Tensor('image/filename'),
  }
  descriptions = dict(ITEMS_TO_DESCRIPTIONS)
  descriptions['image'] = image or descriptions['image']
  for item in items:
    of_item, handlers[item] = _further_item(item)
    specification.update(of_item)
    descriptions[item] = FURTHER_ITEMS[item]
  return slim.dataset.Dataset(
      data_sources=data_sources,
      reader=reader or tf.TFRecordReader,
      decoder=slim.tfexample_decoder.TFExampleDecoder(specification, handlers),
      num_samples=num_samples,
      items_to_descriptions=descriptions,
      num_classes=len(labels),
      labels_to_names=dict(enumerate(labels)))


def _further_item(item):
  """Returns the features to parse and slim's handler of one FURTHER_ITEMS."""
  prefix = 'image/object/bbox/'
  if item == 'object/bbox':
    sides = ['ymin', 'xmin', 'ymax', 'xmax']
    return ({prefix + side: tf.VarLenFeature(tf.float32) for side in sides},
            slim.tfexample_decoder.BoundingBox(sides, prefix))
  key, feature = {
      'label_text': ('image/class/text',
                     tf.FixedLenFeature((), tf.string, default_value='')),
      'object/label': (prefix + 'label', tf.VarLenFeature(tf.int64)),
  }[item]
  return {key: feature}, slim.tfexample_decoder.Tensor(key)


def find_shards(dataset_dir: str, name: str) -> Dict[str, List[str]]:
  """Finds the record files of a data set by their names.

  It finds both `<name>_train-00000-of-00005.tfrecord`, as this project writes,
  and `<name>_train_00000-of-00005.tfrecord`, as slim's flowers script wrote. If
  a split has both, the former are used.

  Args:
    dataset_dir: folder that holds the files.
    name: name of the data set.

  Returns:
    {split name: sorted list of file names}; empty if the folder is missing.
  """
  pattern = re.compile(r'%s_([a-z]+)([-_])(\d{5})-of-(\d{5})(?:\.tfrecord)?' %
                       re.escape(name))
  by_split: Dict[str, Dict[str, List[str]]] = {}
  for file_name in sorted(_listdir(dataset_dir)):
    match = pattern.fullmatch(file_name)
    if match:
      split, mark, _, _ = match.groups()
      by_split.setdefault(split, {}).setdefault(mark, []).append(file_name)
  return {split: by_mark.get('-') or by_mark['_']
          for split, by_mark in by_split.items()}


def _listdir(folder):
  return os.listdir(folder) if os.path.isdir(folder) else []


def count_records(record_path: str) -> int:
  """Counts the records of a file by their lengths, without reading the data.

  Args:
    record_path: path of a TFRecord file that is not compressed.

  Raises:
    InputError: if the file cannot be read, is not a TFRecord file, holds a
      damaged length, or ends inside a record.
  """
  return len(tfrecord_file.record_offsets(record_path))
