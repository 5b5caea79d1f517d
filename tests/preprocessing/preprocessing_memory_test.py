"""Tests of the memory that preprocessing takes, at any aspect ratio.

They are measured in a process of its own, where nothing else has used memory
yet, and whose memory is limited.
"""

import io
import json
import os
import resource
import subprocess
import sys

import pytest

from kits.helpers import ROOT

pytestmark = pytest.mark.slow

FAMILIES = ('cifarnet', 'inception', 'lenet', 'vgg')

# Height and width: about 60,000 pixels of each aspect, and one large photo.
SHAPES = [(245, 245), (490, 122), (77, 775), (2450, 24), (7, 7746),
          (20000, 3), (1, 60000), (60000, 1), (3000, 3000)]

# Bytes a photo may take, beside those for each pixel.
FIXED_BYTES = 32 * 2 ** 20

# Of a decoded JPEG, 3 and what libjpeg and the resized photo take; in training,
# as much for the part that is cut out.
EVALUATION_BYTES, TRAINING_BYTES = 4, 7

# A side of large photos of other kinds, and the bytes that each of their pixels
# may take: in the graph, where only what is transparent is encoded again, and
# until it is a JPEG, of which Pillow needs 4 for the result.
SIDE = 4000
GRAPH_BYTES = {'L': 4, 'RGB': 5, 'RGBA': 11}
NORMALIZED_BYTES = {'1': 6, 'L': 6, 'I;16': 9, 'RGB': 5, 'RGBA': 9, 'LA': 9}

# What the process may take beside its libraries, so that a photo that takes
# gigabytes fails here instead of filling the machine.
LIMIT_BYTES = 10 ** 9


def memory(field):
  """Returns a field of /proc/self/status in bytes."""
  with open('/proc/self/status') as status:
    line, = [line for line in status if line.startswith(field + ':')]
  return int(line.split()[1]) * 1024


class Peak:
  """Measures how much memory the body of a `with` took at most."""

  def __init__(self, trimmer):
    self._trimmer = trimmer

  def __enter__(self):
    self._trimmer._trim_now()
    self._start = memory('VmRSS')
    with open('/proc/self/clear_refs', 'w') as peak:
      peak.write('5')  # VmHWM begins again.
    return self

  def __exit__(self, *_):
    self.bytes = memory('VmHWM') - self._start


def png(mode):
  """Returns a large PNG of a mode of Pillow's."""
  from PIL import Image
  buffer = io.BytesIO()
  color = {4: (90, 160, 30, 128), 2: (90, 128), 3: (90, 160, 30), 1: 1}[
      len(mode.split(';')[0])]
  Image.new(mode, (SIDE, SIDE), color).save(buffer, 'PNG', compress_level=1)
  return buffer.getvalue()


def measure():
  """Prints as JSON {'JPEG': [[family, training?, height, width, bytes]],
  'graph': {mode of a PNG: bytes}, 'normalized': the same}."""
  sys.path.insert(0, ROOT)
  from PIL import Image

  from compat import tf
  from datasets import input_pipeline
  from datasets.photo_files import photos
  from preprocessing import preprocessing_factory
  from serving.model import heap_memory, inference_graph
  heap_memory.use_one_arena()
  trimmer = heap_memory.HeapTrimmer(seconds=0)
  encoded = tf.placeholder(tf.string, [])
  seed = tf.constant([1, 2], tf.int64)
  outputs = {}
  for family in FAMILIES:
    channels = 1 if family == 'lenet' else 3
    size = {'inception': 299, 'vgg': 224}.get(family, 32)
    outputs[family, False] = inference_graph.photos_to_images(
        encoded, family, size, channels)
    outputs[family, True] = input_pipeline.photo_to_input(
        encoded, preprocessing_factory.get_preprocessing(family, True), size,
        size, channels, seed)
  rows = []
  # Each thread takes memory of its own, which should not depend on the machine.
  config = tf.ConfigProto(intra_op_parallelism_threads=2,
                          inter_op_parallelism_threads=2)
  with tf.Session(config=config) as session:
    for shape in SHAPES[:1] + SHAPES:  # The first time, threads start.
      buffer = io.BytesIO()
      Image.new('RGB', shape[::-1], (90, 160, 30)).save(buffer, 'JPEG')
      if not rows:
        limit = memory('VmSize') + LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
      for (family, is_training), output in outputs.items():
        with Peak(trimmer) as peak:
          session.run(output.op, {encoded: buffer.getvalue()})
        rows.append([family, is_training, *shape, peak.bytes])
    found = {'JPEG': rows, 'graph': {}, 'normalized': {}}
    for mode in NORMALIZED_BYTES:
      data = png(mode)
      with Peak(trimmer) as peak:
        photos.normalize_photo(data)
      found['normalized'][mode] = peak.bytes
      if mode in GRAPH_BYTES:
        with Peak(trimmer) as peak:
          session.run(outputs['inception', False].op, {encoded: data})
        found['graph'][mode] = peak.bytes
  print(json.dumps(found))


@pytest.fixture(scope='module')
def found():
  done = subprocess.run(
      [sys.executable, __file__], capture_output=True, text=True, timeout=300,
      env=dict(os.environ, PYTHONPATH=os.path.join(ROOT, 'tests')))
  assert done.returncode == 0, done.stderr[-1000:]
  return json.loads(done.stdout)


@pytest.mark.slow
def test_memory_of_a_photo_is_bounded_by_its_pixels_at_any_aspect(found):
  rows = found['JPEG']
  assert len(rows) == 2 * len(FAMILIES) * (len(SHAPES) + 1)
  assert not [row for row in rows[2 * len(FAMILIES):] if row[4] > FIXED_BYTES +
              (TRAINING_BYTES if row[1] else EVALUATION_BYTES) * row[2] *
              row[3]]


@pytest.mark.parametrize('where, limits', [('graph', GRAPH_BYTES),
                                           ('normalized', NORMALIZED_BYTES)])
def test_memory_of_a_png_is_bounded_by_its_pixels(found, where, limits):
  assert found[where].keys() == limits.keys()
  assert not {mode: most / SIDE ** 2 for mode, most in found[where].items()
              if most > limits[mode] * SIDE ** 2 + FIXED_BYTES}


if __name__ == '__main__':
  measure()
