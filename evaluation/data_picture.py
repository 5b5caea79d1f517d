"""Picture of a data set: photos of each class, and one photo distorted.

It is a JPEG beside the records, made from the first records of the training
photos, so that it takes no longer for more photos or classes.
"""

import io
import logging
import os
from typing import Dict, Iterator, List, Optional, Tuple
from urllib import parse

from PIL import Image, ImageDraw, ImageFont

from compat import tf
from datasets import input_pipeline, manifest
from datasets.records import tfrecord_file
from evaluation import confusion_plot
from preprocessing import preprocessing_factory

# Classes shown, photos of each, and records that are read to find them.
MAX_CLASSES = 20
PER_CLASS = 8
MAX_RECORDS = 1000
NUM_DISTORTED = 8
# The preprocessing that is shown: that of most networks.
FAMILY = 'inception'
# Smaller photos, such as digits, are not distorted that way.
_LEAST_SIDE = 64

# In pixels: side of a photo, space between two, width of the names.
_SIDE, _GAP, _NAMES = 104, 6, 150
_QUALITY = 82
_GROUND, _INK = '#f5f6f3', '#1d2320'


def path_of(dataset_dir: str, name: str) -> str:
  """Returns the path of the picture of a data set."""
  return os.path.join(dataset_dir, name + '_photos.jpg')


def draw(dataset_dir: str, converted: manifest.Manifest) -> bytes:
  """Returns a JPEG of photos of a data set.

  Args:
    dataset_dir: folder of the records.
    converted: their Manifest.
  """
  photos = _collect(dataset_dir, converted)
  rows: List[Tuple[str, List[Image.Image]]] = [
      (confusion_plot.printable(converted.labels[label], label),
       [_tile(encoded) for encoded in photos[label]])
      for label in sorted(photos)]
  distorted = [encoded for label in sorted(photos) for encoded in photos[label]
               if min(_open(encoded).size) >= _LEAST_SIDE][:1]
  if distorted:
    rows.append(('one photo as training distorts it (%s)' % FAMILY,
                 _distort(distorted[0])))
  return _sheet(rows)


def _collect(dataset_dir, converted) -> Dict[int, List[bytes]]:
  """Returns {label: encoded photos} of the first records of a split."""
  labels = set(range(len(converted.labels))[:MAX_CLASSES])
  photos: Dict[int, List[bytes]] = {}
  for label, encoded in _first_records(dataset_dir, converted):
    if label in labels and len(photos.setdefault(label, [])) < PER_CLASS:
      photos[label].append(encoded)
    if len(photos) == len(labels) and all(
        len(row) == PER_CLASS for row in photos.values()):
      break
  return photos


def _first_records(dataset_dir, converted) -> Iterator[Tuple[int, bytes]]:
  """Yields (label, encoded photo) of at most MAX_RECORDS training photos."""
  names = sorted(converted.splits, key=lambda name: (name != 'train', name))
  count = 0
  for shard in converted.splits[names[0]]['shards'] if names else []:
    for record in tfrecord_file.read_on(os.path.join(dataset_dir, shard), 0, 0):
      if record.data is not None:
        feature = tf.train.Example.FromString(record.data).features.feature
        yield (feature['image/class/label'].int64_list.value[0],
               feature['image/encoded'].bytes_list.value[0])
      count += 1
      if count == MAX_RECORDS:
        return


def _open(encoded) -> Image.Image:
  return Image.open(io.BytesIO(encoded))


def _tile(encoded: bytes) -> Image.Image:
  """Returns the middle of a photo as a small square."""
  image = _open(encoded)
  image.draft('RGB', (2 * _SIDE, 2 * _SIDE))  # Decodes a JPEG smaller.
  image = image.convert('RGB')
  side = min(image.size)
  left, top = ((length - side) // 2 for length in image.size)
  return image.crop((left, top, left + side, top + side)).resize(
      (_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _distort(encoded: bytes) -> List[Image.Image]:
  """Returns a photo as training sees it, with seeds 0, 1 and so on."""
  preprocess = preprocessing_factory.get_preprocessing(FAMILY, is_training=True)
  with tf.Graph().as_default():
    seed = tf.placeholder(tf.int64, [2])
    image = tf.cast(tf.clip_by_value(127.5 * (1 + input_pipeline.photo_to_input(
        tf.constant(encoded), preprocess, _SIDE, _SIDE, seed=seed)), 0, 255),
                    tf.uint8)
    with tf.Session() as session:
      return [Image.fromarray(session.run(image, {seed: [0, number]}))
              for number in range(NUM_DISTORTED)]


def _sheet(rows: List[Tuple[str, List[Image.Image]]]) -> bytes:
  """Returns a JPEG with one row of images per name."""
  step = _SIDE + _GAP
  sheet = Image.new('RGB', (_NAMES + PER_CLASS * step + _GAP,
                            len(rows) * step + _GAP), _GROUND)
  pen, font = ImageDraw.Draw(sheet), _font()
  for row, (name, images) in enumerate(rows):
    top = _GAP + row * step
    for number, line in enumerate(_wrap(name)):
      pen.text((_GAP * 2, top + 8 + 18 * number), line, _INK, font=font)
    for column, image in enumerate(images):
      sheet.paste(image, (_NAMES + column * step, top))
  stream = io.BytesIO()
  sheet.save(stream, 'JPEG', quality=_QUALITY)
  return stream.getvalue()


def _font(size: int = 14) -> ImageFont.FreeTypeFont:
  """Returns the font of the confusion matrix."""
  logging.getLogger('matplotlib').setLevel(logging.ERROR)
  from matplotlib import font_manager
  return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)


def _wrap(name: str, width: int = 16, most: int = 5) -> List[str]:
  """Returns the lines of a name, broken at spaces, or else anywhere."""
  lines: List[str] = ['']
  for word in name.split():
    if lines[-1] and len(lines[-1]) + 1 + len(word) <= width:
      lines[-1] += ' ' + word
    else:
      lines += [word[start:start + width]
                for start in range(0, len(word), width)]
  return lines[1:most + 1]


def address(page: str, dataset_dir: str, name: str) -> Optional[str]:
  """Returns the address of a picture relative to a page, None without one.

  Args:
    page: path of the page.
    dataset_dir, name: as for `path_of`.
  """
  path = path_of(dataset_dir, name)
  if not os.path.exists(path):
    return None
  folder = os.path.dirname(os.path.abspath(page))
  return parse.quote(os.fsencode(os.path.relpath(path, folder)))
