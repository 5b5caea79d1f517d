"""Tests of the peak memory of preprocessing, at any aspect ratio.

It is measured in a separate process, in which nothing else has used memory yet,
and whose memory is limited.
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

# Bytes that a photo may take in addition to those per pixel.
FIXED_BYTES = 32 * 2 ** 20

# Bytes per pixel of a JPEG: 3 for the decoded photo, and those of libjpeg and
# the resized photo; in training also 3 for the crop.
EVALUATION_BYTES, TRAINING_BYTES = 4, 7

# Side of the large PNGs, and the bytes per pixel that they may take, by mode of
# Pillow: in the graph, where only transparent photos are encoded again, and in
# the conversion to JPEG, where Pillow needs 4 for the result.
SIDE = 4000
GRAPH_BYTES = {'L': 4, 'RGB': 5, 'RGBA': 11}
NORMALIZED_BYTES = {'1': 6, 'L': 6, 'I;16': 9, 'RGB': 5, 'RGBA': 9, 'LA': 9}

# Memory that the process may take in addition to its libraries, so that a photo
# that takes gigabytes fails here instead of filling the machine.
LIMIT_BYTES = 10 ** 9


def memory(field):
  """Returns a field of /proc/self/status in bytes."""
  with open('/proc/self/status') as status:
    line, = [line for line in status if line.startswith(field + ':')]
  return int(line.split()[1]) * 1024


class Peak:
  """Measures the peak memory of the body of a `with` statement."""

  def __init__(self, trimmer):
    self._trimmer = trimmer

  def __enter__(self):
    self._trimmer._trim_now()
    self._start = memory('VmRSS')
    with open('/proc/self/clear_refs', 'w') as peak:
      peak.write('5')  # Resets VmHWM.
    return self

  def __exit__(self, *_):
    self.bytes = memory('VmHWM') - self._start


def png(mode):
  """Returns the bytes of a large PNG of a Pillow mode."""
  from PIL import Image
  buffer = io.BytesIO()
  color = {4: (90, 160, 30, 128), 2: (90, 128), 3: (90, 160, 30), 1: 1}[
      len(mode.split(';')[0])]
  Image.new(mode, (SIDE, SIDE), color).save(buffer, 'PNG', compress_level=1)
  return buffer.getvalue()


def measure():
  """Prints the peaks in bytes as JSON.

  {'JPEG': [[family, is_training, height, width, bytes]],
   'graph': {mode of a PNG: bytes}, 'normalized': {mode of a PNG: bytes}}
  """
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
  # Each thread takes memory, so their number must not depend on the machine.
  config = tf.ConfigProto(intra_op_parallelism_threads=2,
                          inter_op_parallelism_threads=2)
  with tf.Session(config=config) as session:
    for shape in SHAPES[:1] + SHAPES:  # The first run starts threads.
      buffer = io.BytesIO()
      Image.new('RGB', shape[::-1], (90, 160, 30)).save(buffer, 'JPEG')
      if not rows:
        limit = memory('VmSize') + LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
      for (family, is_training), output in outputs.items():
        with Peak(trimmer) as peak:
          session.run(output.op, {encoded: buffer.getvalue()})
        rows.append([family, is_training, *shape, peak.bytes])
    peaks = {'JPEG': rows, 'graph': {}, 'normalized': {}}
    for mode in NORMALIZED_BYTES:
      data = png(mode)
      with Peak(trimmer) as peak:
        photos.normalize_photo(data)
      peaks['normalized'][mode] = peak.bytes
      if mode in GRAPH_BYTES:
        with Peak(trimmer) as peak:
          session.run(outputs['inception', False].op, {encoded: data})
        peaks['graph'][mode] = peak.bytes
  print(json.dumps(peaks))


@pytest.fixture(scope='module')
def peaks():
  process = subprocess.run(
      [sys.executable, __file__], capture_output=True, text=True, timeout=300,
      env=dict(os.environ, PYTHONPATH=os.path.join(ROOT, 'tests')))
  assert process.returncode == 0, process.stderr[-1000:]
  return json.loads(process.stdout)


@pytest.mark.slow
def test_memory_of_a_photo_is_bounded_by_its_pixels_at_any_aspect(peaks):
  rows = peaks['JPEG']
  assert len(rows) == 2 * len(FAMILIES) * (len(SHAPES) + 1)
  assert not [row for row in rows[2 * len(FAMILIES):] if row[4] > FIXED_BYTES +
              (TRAINING_BYTES if row[1] else EVALUATION_BYTES) * row[2] *
              row[3]]


@pytest.mark.parametrize('stage, limits', [('graph', GRAPH_BYTES),
                                           ('normalized', NORMALIZED_BYTES)])
def test_memory_of_a_png_is_bounded_by_its_pixels(peaks, stage, limits):
  assert peaks[stage].keys() == limits.keys()
  assert not {mode: peak / SIDE ** 2 for mode, peak in peaks[stage].items()
              if peak > limits[mode] * SIDE ** 2 + FIXED_BYTES}


if __name__ == '__main__':
  measure()
