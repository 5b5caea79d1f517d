r"""Exports a network as a TensorFlow Lite model, and compares the accuracies.

  python -m tools.export_tflite --checkpoint_path=/tmp/flowers \
    --tflite_file=my_mobilenet_v1.tflite

The model is for phones and small boards: one image in, the class probabilities
out. Its labels and the scaling of the image are in its metadata, which the Task
library reads; the labels are also written beside it, and its checkpoint and
step into _info.json. For a train directory with a run.json, everything else is
known. For a published checkpoint, --model_name is required, and the classes are
ImageNet's unless --dataset_name and --dataset_dir name others.

If there are validation photos, graph and model both classify them, and their
accuracies are printed side by side; a model that loses more than
--max_accuracy_loss is not written. --quantize=float16 halves its size, int8
makes it a quarter, and faster. The graph computes with float32, unless
--precision is given.
"""

import os
from typing import List

from absl import flags

from common import files, label_files
from common import flags as common_flags
from common.errors import InputError
from common.paths import relative
from compat import tf
from datasets import dataset_factory
from nets import nets_factory
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.exports import comparison, export_folder, tflite, tflite_int8
from serving.model import graph_info, inference_graph

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags for the input, the output and the comparison."""
  common_flags.define_dataset_flags(split='validation,test')
  common_flags.define_model_flags(nets_factory.NETWORKS)
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Train directory, or a checkpoint.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  flags.DEFINE_string('tflite_file', None, 'Path of the model to write.')
  flags.DEFINE_string(
      'label_file', None,
      'Path of the labels to write, one per line. None: beside the model, with '
      '_labels.txt instead of its extension.')
  flags.DEFINE_integer(
      'image_size', None,
      "Height and width of the network's input in pixels. None: from "
      "run.json, or the network's default.", lower_bound=1)
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Use the moving averages that training kept with this decay. None: the '
      'variables themselves.', lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_enum(
      'quantize', tflite.NONE, tflite.QUANTIZATIONS,
      'Number format of the weights. none: float32. float16: half the size; '
      'a phone computes with float32 or float16. int8: a quarter of the size, '
      'and also computes with int8, except for the first layers and the '
      'classifier; needs TensorFlow 2 and training photos. Not that of a run '
      'with --quantize_delay, whose float weights are exported.')
  flags.DEFINE_enum(
      'inference_type', tflite.FLOAT32, tflite.INFERENCE_TYPES,
      'Number format of input and output. uint8, with --quantize=int8: pixel '
      'values from 0 to 255, and probabilities times 256.')
  flags.DEFINE_integer(
      'calibration_photos', tflite_int8.MAX_PHOTOS,
      'Training photos, equally many of each class if there are enough, with '
      'which int8 finds the range of each activation.', lower_bound=1)
  flags.DEFINE_float(
      'max_accuracy_loss', 0.01,
      'No model is written if its accuracy on the photos of the comparison is '
      "lower than the graph's by more than this; 1 accepts any.",
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_integer(
      'max_photos', None,
      'Photos to compare on. None: all of the split.', lower_bound=1)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def run_from_flags(prefix: str) -> run_info.RunInfo:
  """Returns the RunInfo of a checkpoint, completed by the flags.

  Args:
    prefix: path prefix of the checkpoint.

  Raises:
    InputError: flags contradict the run, or a required flag is missing.
  """
  run = run_info.load(os.path.dirname(prefix))
  if run is None:
    run = _published_from_flags(prefix)
  for name in ('model_name', 'labels_offset', 'use_grayscale'):
    trained = getattr(run, name)
    if FLAGS[name].present and FLAGS[name].value != trained:
      raise InputError('--%s=%s, but the run in %s was trained with %s' %
                       (name, FLAGS[name].value, FLAGS.checkpoint_path,
                        trained))
  given = {'image_size': FLAGS.image_size,
           'preprocessing_name': FLAGS.preprocessing_name,
           'dataset_name': (FLAGS.dataset_name if FLAGS['dataset_name'].present
                            else None),
           'dataset_dir': FLAGS.dataset_dir}
  return run._replace(**{name: value for name, value in given.items() if value})


def _published_from_flags(prefix: str) -> run_info.RunInfo:
  """Returns the RunInfo for a checkpoint without a run.json."""
  if not FLAGS['model_name'].present:
    raise InputError('there is no run.json beside %s: give --model_name' %
                     prefix)
  network = nets_factory.get_network(FLAGS.model_name)
  names = dataset_factory.get_labels(FLAGS.dataset_name,
                                     FLAGS.dataset_dir or '')
  offset = FLAGS.labels_offset
  if offset >= len(names):
    raise InputError('--labels_offset=%d leaves none of the %d classes' %
                     (offset, len(names)))
  return run_info.RunInfo(
      FLAGS.model_name, names[offset:], offset, network.image_size,
      network.preprocessing, FLAGS.dataset_name, FLAGS.dataset_dir, None,
      use_grayscale=FLAGS.use_grayscale)


def main(_: List[str]) -> None:
  """Compares model and graph, then writes model and labels."""
  common_flags.require(FLAGS, 'checkpoint_path', 'tflite_file')
  path = FLAGS.tflite_file
  label_path = FLAGS.label_file or export_folder.tflite_files(path)[1]
  if os.path.abspath(label_path) == os.path.abspath(path):
    raise InputError('--tflite_file and --label_file are both %s' % path)
  prefix = checkpoints.resolve(FLAGS.checkpoint_path, FLAGS.which_checkpoint)
  export_folder.check_tflite(path, checkpoints.read_global_step(prefix))
  run = run_from_flags(prefix)
  tflite.check(FLAGS.quantize, FLAGS.inference_type, run.preprocessing_name)
  split, photos = comparison.find_photos(
      run, [name.strip() for name in FLAGS.dataset_split_name.split(',')])
  graph_def = _freeze(run, prefix)
  info = graph_info.require(graph_def)
  content = tflite.convert(graph_def, FLAGS.quantize, FLAGS.inference_type,
                           _training_images(run, info))
  found = None
  if split is not None:
    found = tflite.compare(graph_def, content, photos, FLAGS.max_photos,
                           FLAGS.num_preprocessing_threads,
                           forward_pass.options_from_flags(FLAGS))
    _check_loss(found)
  info_path = export_folder.tflite_files(path)[2]
  warning = export_folder.keep_previous(
      (path, label_path, info_path), export_folder.read_tflite(path), info)
  _write(path, content, label_path, info)
  files.write_output(info_path, graph_info.to_json(info) + b'\n')
  if warning:
    tf.logging.warning(warning)
  if found is None or split is None:
    print('Accuracy not measured: %s' % photos)
  else:
    print(comparison.describe_accuracies(found, 'TensorFlow Lite', split,
                                         photos.num_samples))


def _freeze(run, prefix):
  """Returns the frozen GraphDef of a checkpoint, for one float image."""
  with tf.Graph().as_default():
    built = inference_graph.build(
        run.model_name, run.labels, run.image_size, run.preprocessing_name,
        batch_size=1, labels_offset=run.labels_offset,
        head=run_info.head_of(run), use_grayscale=run.use_grayscale)
    return inference_graph.freeze(built, prefix, run_info.choose_decay(
        FLAGS.moving_average_decay, run, prefix))


def _training_images(run, info):
  """Returns the images that int8 needs, None for other numbers."""
  if FLAGS.quantize != tflite.INT8:
    return None
  split, photos = comparison.find_photos(run, ['train'])
  if split is None:
    raise InputError('--quantize=int8 needs training photos, but ' + photos)
  return tflite_int8.training_images(
      photos, info, FLAGS.calibration_photos, FLAGS.num_preprocessing_threads)


def _check_loss(found):
  """Raises InputError if the model is less accurate than is accepted."""
  loss = (found.first_correct - found.second_correct) / found.photos
  if loss > FLAGS.max_accuracy_loss:
    raise InputError(
        '--quantize=%s loses %.4f of accuracy on %d photos (TensorFlow Lite '
        '%.4f, graph %.4f), accepted is --max_accuracy_loss=%g: nothing is '
        'written%s' % (
            FLAGS.quantize, loss, found.photos,
            found.second_correct / found.photos,
            found.first_correct / found.photos, FLAGS.max_accuracy_loss,
            '; --quantize=float16 loses less than int8' * (
                FLAGS.quantize == tflite.INT8)))


def _write(path, content, label_path, info):
  files.write_output(path, content)
  print('Wrote %s: TensorFlow Lite model of %s, %.1f MB' %
        (relative(path), info.checkpoint, len(content) / 1e6))
  label_files.write(label_path, info.labels, indexed=False)
  print('Wrote %s: %d labels, one per line' % (relative(label_path),
                                               len(info.labels)))
  print('Network %s' % info.model_name)
  is_uint8 = FLAGS.inference_type == tflite.UINT8
  print('  in   %s [1, %d, %d, %d]: %s' % (
      FLAGS.inference_type, info.image_size, info.image_size, info.channels,
      tflite.describe_input(info, is_uint8)))
  print('  out  %s [1, %d]: probabilities%s in the order of the labels' % (
      FLAGS.inference_type, len(info.labels), ' times 256' * is_uint8))
  print("%.1f ms per photo (fastest of 20; TensorFlow %s's interpreter, one "
        'thread)' % (tflite.Model(content, info).milliseconds(),
                     tf.__version__))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
