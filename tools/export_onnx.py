r"""Exports a frozen graph as an ONNX model, and compares the two.

  python -m tools.export_onnx --frozen_file=my_inception_v4_freeze.pb \
    --onnx_file=my_inception_v4.onnx

The model runs without TensorFlow, for example in ONNX Runtime: preprocessed
images in, class probabilities out. Its metadata contain the labels and how a
photo is preprocessed. ONNX Runtime and the graph both classify the validation
photos, or drawings if there are none; a model whose probabilities differ by
more than 1e-4 is not written.

The packages for it are optional: ./setup.sh --onnx.
"""

import os
from typing import List

from absl import flags

from common import files
from common import flags as common_flags
from common.paths import relative
from compat import tf
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.exports import comparison, export_folder, onnx_export, tflite
from serving.model import graph_files, graph_info

FLAGS = flags.FLAGS

_MEANINGS = {
    'probabilities': "in the order of `labels` in the model's metadata",
    'calibrated_probabilities': 'after temperature scaling',
    'known': 'whether the photo is one of the classes',
    'known_score': 'what `known` compares with `threshold` in the metadata',
    'similarity': 'similarity to the training photos',
}


def define_flags() -> None:
  """Defines the flags for the input, the output and the comparison."""
  common_flags.define_frozen_graph_flags(checkpoints.CHOICES)
  common_flags.define_dataset_flags(split='validation,test')
  flags.DEFINE_string('onnx_file', None, 'Path of the model to write.')
  flags.DEFINE_string(
      'run_name', None,
      "Name of the run, for the model's metadata. None: unknown.")
  flags.DEFINE_integer(
      'max_photos', None,
      'Photos to compare on. None: all of the split.', lower_bound=1)
  common_flags.define_runtime_flag(forward_pass.RUNTIMES)


def _photos_from_flags(info, prefix):
  """Returns the photos to compare on, as comparison.find_photos does.

  Args:
    info: GraphInfo of the graph.
    prefix: checkpoint that the graph was made from; None: unknown.

  Raises:
    InputError: as for comparison.find_photos.
  """
  run = prefix and run_info.load(os.path.dirname(prefix))
  name, folder = FLAGS.dataset_name, FLAGS.dataset_dir
  if run and not FLAGS['dataset_name'].present:
    name, folder = run.dataset_name, folder or run.dataset_dir
  return comparison.find_photos(
      run_info.RunInfo(info.model_name or '', info.labels, info.labels_offset,
                       info.image_size, info.preprocessing_name, name, folder,
                       None),
      [split.strip() for split in FLAGS.dataset_split_name.split(',')])


def main(_: List[str]) -> None:
  """Converts the graph, compares, and writes the model."""
  common_flags.require(FLAGS, 'frozen_file', 'onnx_file')
  # TensorFlow on a new graphics card would multiply with 10-bit numbers.
  os.environ['NVIDIA_TF32_OVERRIDE'] = '0'
  path = FLAGS.onnx_file
  graph_def = graph_files.read_frozen(FLAGS.frozen_file, 'frozen graph',
                                      FLAGS.allowed_ops)
  info = graph_info.require(graph_def)
  prefix = export_folder.check_frozen(
      FLAGS.frozen_file, info, FLAGS.checkpoint_path, FLAGS.which_checkpoint)
  split, photos = _photos_from_flags(info, prefix)
  content = onnx_export.convert(graph_def, FLAGS.run_name)
  tf.logging.info('Converted; comparing with the frozen graph')
  checked = onnx_export.check(
      graph_def, content, photos if split else None, FLAGS.max_photos,
      FLAGS.num_preprocessing_threads, FLAGS.runtime)
  warning = export_folder.keep_previous((path,), graph_info.read_file(path),
                                        info)
  files.write_output(path, content)
  print('Wrote %s: ONNX model of %s, %.1f MB' %
        (relative(path), info.checkpoint, len(content) / 1e6))
  _print_names(info)
  _print_checked(checked, split, photos)
  if warning:
    tf.logging.warning(warning)


def _print_names(info):
  print('Network %s' % info.model_name)
  print('  in   %s  float32 [batch, %d, %d, %d]: %s' % (
      onnx_export.INPUT, info.image_size, info.image_size, info.channels,
      tflite.describe_input(info)))
  for name in onnx_export.tensor_names(info):
    print('  out  %s: %s' % (name, _MEANINGS[name]))


def _print_checked(checked, split, photos):
  found = checked.comparison
  if split is None:
    print('Accuracy not measured: %s; on drawings the probabilities differ by '
          'at most %.1e' % (photos, found.largest_difference))
  else:
    print(comparison.describe_accuracies(found, 'ONNX Runtime', split,
                                         photos.num_samples))
  if checked.known_disagreed is not None:
    print('Photos that only one of the two accepts as known: %d' %
          checked.known_disagreed)
  print('Milliseconds per photo, in batches of %d: ONNX Runtime %.1f, graph '
        '%.1f (%s)' % (onnx_export.BATCH, checked.milliseconds[1],
                       checked.milliseconds[0], checked.choice.describe()))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
