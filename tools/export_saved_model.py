r"""Writes a frozen graph as a SavedModel for TensorFlow Serving.

  python -m tools.export_saved_model --frozen_file=my_inception_v4_freeze.pb \
    --saved_model_dir=saved_model/my_inception_v4

The frozen graph comes from export_inference_graph.py. Each call writes the next
version into the folder, completely or not at all: TensorFlow Serving, which
watches the folder, loads the new version by itself.
serving/exports/saved_model.py describes inputs and outputs.
"""

import os
from typing import List

from absl import flags

from common import flags as common_flags
from common.paths import relative
from compat import tf
from runs import checkpoints
from serving.exports import export_folder, saved_model
from serving.model import graph_files, graph_info

FLAGS = flags.FLAGS

# TensorFlow Serving reads a version as a 64-bit number.
_LAST_VERSION = 2 ** 63 - 1

_MEANINGS = {
    'image_bytes': 'photos, JPEG or PNG files',
    'classes': 'the labels, in the same order in each row',
    'probabilities': 'of these classes',
    'known': 'whether the photo is one of them',
    'similarity': 'similarity to the training photos',
}


def define_flags() -> None:
  """Defines the flags for input and output."""
  common_flags.define_frozen_graph_flags(checkpoints.CHOICES)
  flags.DEFINE_string(
      'saved_model_dir', None,
      'Folder of the versions, which TensorFlow Serving watches.')
  flags.DEFINE_integer(
      'version', None,
      'Number of the version. None: one more than the highest.',
      lower_bound=1, upper_bound=_LAST_VERSION)
  flags.DEFINE_bool(
      'calibrated', False,
      'Calibrate the probabilities with the temperature that ./report.sh '
      'fitted.')


def main(_: List[str]) -> None:
  """Writes a version and prints its signature."""
  common_flags.require(FLAGS, 'frozen_file', 'saved_model_dir')
  graph_def = graph_files.read_frozen(FLAGS.frozen_file, 'frozen graph',
                                      FLAGS.allowed_ops)
  info = graph_info.require(graph_def)
  export_folder.check_frozen(FLAGS.frozen_file, info, FLAGS.checkpoint_path,
                             FLAGS.which_checkpoint)
  former = saved_model.read_info(FLAGS.saved_model_dir)
  path, inputs, outputs = saved_model.write(
      graph_def, FLAGS.saved_model_dir, FLAGS.version, FLAGS.calibrated)
  size = os.path.getsize(os.path.join(path, 'saved_model.pb'))
  print('Wrote %s: SavedModel of %s, %.1f MB' %
        (relative(path), info.checkpoint, size / 1e6))
  print('Network %s, %d classes, signature serving_default' %
        (info.model_name, len(info.labels)))
  for what, tensors in (('in', inputs), ('out', outputs)):
    for name, tensor in tensors.items():
      shape = ', '.join('batch' if length is None else '%d' % length
                        for length in tensor.shape.as_list())
      print('  %-3s  %-13s  %-7s  %-10s  %s' % (
          what, name, tensor.dtype.name, '[%s]' % shape, _MEANINGS[name]))
  lost = export_folder.lost_outputs(
      former, saved_model.version_info(graph_def, FLAGS.calibrated))
  if lost:
    tf.logging.warning('%s lacks what the previous version has: %s; that '
                       'version is kept', path, ' and '.join(lost))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
