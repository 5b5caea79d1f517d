"""The memory that a photo takes on its way to a network, at any aspect.

In a process of its own, where nothing else has used memory yet, and which may
not take much more than it should.
"""

import io
import json
import resource
import subprocess
import sys

from helpers import ROOT

FAMILIES = ('cifarnet', 'inception', 'lenet', 'vgg')

# Height and width: about 60,000 pixels of each aspect, and one large photo.
SHAPES = [(245, 245), (490, 122), (77, 775), (2450, 24), (7, 7746),
          (20000, 3), (1, 60000), (60000, 1), (3000, 3000)]

# Bytes a photo may take: inception's float32 copy and the decoded photo before
# and after the crop are 16 bytes a pixel.
FIXED_BYTES = 48 * 2 ** 20
BYTES_PER_PIXEL = 18

# What the process may take beside its libraries, so that a photo that takes
# gigabytes fails here instead of filling the machine.
LIMIT_BYTES = 10 ** 9


def memory(field):
  """Returns a field of /proc/self/status in bytes."""
  with open('/proc/self/status') as status:
    line, = [line for line in status if line.startswith(field + ':')]
  return int(line.split()[1]) * 1024


def measure():
  """Prints as JSON [[family, training?, height, width, bytes]]."""
  sys.path.insert(0, ROOT)
  from PIL import Image

  from compat import tf
  from datasets import input_pipeline
  from preprocessing import preprocessing_factory
  from serving import inference_graph
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
        start = None
      for (family, is_training), output in outputs.items():
        with open('/proc/self/clear_refs', 'w') as peak:
          peak.write('5')  # VmHWM begins again.
        session.run(output.op, {encoded: buffer.getvalue()})
        rows.append([family, is_training, *shape, memory('VmHWM')])
      start = start or memory('VmRSS')
  print(json.dumps([row[:4] + [row[4] - start] for row in rows]))


def test_memory_of_a_photo_is_bounded_by_its_pixels_at_any_aspect():
  done = subprocess.run([sys.executable, __file__], capture_output=True,
                        text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-1000:]
  rows = json.loads(done.stdout)
  assert len(rows) == 2 * len(FAMILIES) * (len(SHAPES) + 1)
  assert not [row for row in rows if row[4] > (
      FIXED_BYTES + BYTES_PER_PIXEL * row[2] * row[3])]


if __name__ == '__main__':
  measure()
