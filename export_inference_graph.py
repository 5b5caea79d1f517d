r"""Exports a network's inference graph and, with a checkpoint, a frozen graph.

  python export_inference_graph.py \
    --checkpoint_path=/tmp/flowers --input_type=encoded \
    --output_file=my_inception_v4.pb --frozen_file=my_inception_v4_freeze.pb

All other facts are read from the run.json of the train directory. If
report.sh has fitted a temperature for this checkpoint, the graphs get a
second output besides the network's own, CalibratedPredictions. With training
and validation photos they also get outputs for out-of-distribution detection:
Known, KnownScore and Similarity. If the run computes with bfloat16, the answers
for the validation photos are compared with those in float32. Without a
checkpoint only the graph is written, as slim does:

  python export_inference_graph.py --model_name=inception_v4 \
    --output_file=inception_v4_inf_graph.pb

No internet access is needed and, for ImageNet or with a run.json and
--known=off, no data set.
"""

import os
from typing import Dict, List, NamedTuple, Optional

from absl import flags
from google.protobuf import text_format

from common import files, label_files
from common import flags as common_flags
from common.errors import InputError
from common.paths import relative
from compat import tf
from datasets import dataset_factory, manifest
from evaluation import calibration, results_file, run_facts
from nets import layers_head, nets_factory
from ood import detector, reference_bank
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.exports import (
  class_examples,
  comparison,
  export_folder,
  model_card,
)
from serving.model import example_photos, graph_info, inference_graph

FLAGS = flags.FLAGS


class Export(NamedTuple):
  """What is exported; see inference_graph.build."""

  model_name: str
  labels: List[str]
  labels_offset: int
  image_size: int
  preprocessing_name: str
  input_kind: str
  batch_size: Optional[int]
  temperature: Optional[float]
  # For out-of-distribution detection; None: without it.
  bank: Optional[reference_bank.Bank]
  # Of the averages that are frozen; None: the variables.
  moving_average_decay: Optional[float]
  # Of the run's forward passes.
  precision: Optional[str]
  # Of the run; None: the network's own classifier.
  head: Optional[layers_head.Head]
  use_grayscale: bool
  quantize: bool
  # {optional output: why the graph has it or not}.
  reasons: Dict[str, str]
  # {class: bytes of a JPEG}, for the page; None: --noexamples.
  examples: Optional[Dict[str, bytes]]


def define_flags():
  """Defines slim's flags, with slim's defaults, and the new ones."""
  common_flags.define_model_flags(nets_factory.NETWORKS)
  common_flags.define_quantize_flag()
  flags.DEFINE_bool(
      'is_training', False,
      'Build dropout and batch norm as in training; graph only.')
  flags.DEFINE_bool(
      'for_app', False,
      'For mobile runtimes: float images and batch size 1.')
  flags.DEFINE_integer(
      'image_size', None,
      "Height and width of the network's input in pixels. None: as in "
      "run.json, or else the network's own.", lower_bound=1)
  flags.DEFINE_integer(
      'default_image_size', 224,
      'Same as --image_size, which has precedence; used only if given.',
      lower_bound=1)
  flags.DEFINE_integer(
      'batch_size', None, 'Photos in a batch. None: any number.', lower_bound=1)
  flags.DEFINE_string(
      'dataset_name', 'imagenet',
      'Data set with the class names; ImageNet needs no folder.')
  flags.DEFINE_string(
      'dataset_split_name', 'train',
      "Not used; accepted for slim's command lines.")
  flags.DEFINE_string(
      'dataset_dir', '', 'Folder of the converted data set.')
  flags.DEFINE_enum(
      'input_type', 'float', graph_info.INPUT_KINDS,
      'Input of the node `input`: preprocessed float images, or encoded '
      'photos, one or a vector of them.')
  flags.DEFINE_string('output_file', '', 'Path of the graph.')
  flags.DEFINE_bool(
      'write_text_graphdef', False, 'Write --output_file as text.')
  _define_freeze_flags()


def _define_freeze_flags():
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Train directory or checkpoint. None: no frozen graph is written.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)
  flags.DEFINE_string(
      'frozen_file', None,
      'Path of the frozen graph. None: next to --output_file, with _freeze in '
      'its name.')
  flags.DEFINE_string(
      'label_file', None,
      'Path of the label file, with lines such as 0:daisy. None: next to the '
      'frozen graph, ending in .label.')
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Freeze the moving averages that training kept with this decay. None: '
      'the plain variables.', lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_enum(
      'known', 'auto', ['auto', 'on', 'off'],
      'Whether to add out-of-distribution detection to the graphs, by '
      'comparison with training photos. auto: if the run has a data set with '
      'training and validation photos. on: it is an error if it does not.')
  flags.DEFINE_bool(
      'compare_precision', True,
      'If the frozen graph is computed with bfloat16, classify the validation '
      'photos with it and with float32, and print how many answers differ and '
      'by how much. That takes as long as an evaluation with each.')
  flags.DEFINE_bool(
      'examples', True,
      'Write training photos beside the frozen graph, reduced and without '
      'metadata, which the server shows to its visitors: one of each class, '
      'and those of --known, as the ones that are nearest to a photo. '
      '--noexamples removes those of an earlier export.')
  flags.DEFINE_integer(
      'num_preprocessing_threads', 4,
      'Threads that decode and preprocess the photos of --known and '
      '--compare_precision.', lower_bound=1)


def checkpoint_from_flags():
  """Returns the checkpoint of --checkpoint_path, None without the flag.

  Call it only once: training may write a newer one in between.

  Raises:
    InputError: there is no checkpoint.
  """
  if not FLAGS.checkpoint_path:
    return None
  return checkpoints.resolve(FLAGS.checkpoint_path, FLAGS.which_checkpoint)


def export_from_flags(prefix):
  """Returns the Export for the flags and the run's run.json.

  Args:
    prefix: checkpoint_from_flags().

  Raises:
    InputError: they contradict each other, or the labels are unknown.
  """
  run = temperature = decay = None
  reasons = {}
  if prefix:
    run = run_info.load(os.path.dirname(prefix))
    decay = run_info.choose_decay(FLAGS.moving_average_decay, run, prefix)
    temperature, reasons['CalibratedPredictions'] = calibration.temperature_of(
        prefix, decay)
    tf.logging.info('CalibratedPredictions: %s',
                    reasons['CalibratedPredictions'])
  if run:
    _check_same_as_run('model_name', run.model_name)
    _check_same_as_run('labels_offset', run.labels_offset)
    _check_same_as_run('use_grayscale', run.use_grayscale)
  quantize = run_info.choose_quantize(
      FLAGS.quantize if FLAGS['quantize'].present else None, run, prefix)
  labels, labels_offset = _labels_from_flags(run)
  size = FLAGS.image_size
  if size is None and FLAGS['default_image_size'].present:
    size = FLAGS.default_image_size
  size = size or (run and run.image_size)
  preprocessing_name = (FLAGS.preprocessing_name or
                        (run and run.preprocessing_name))
  batch_size = FLAGS.batch_size
  if FLAGS.for_app:
    if FLAGS.input_type != 'float' or batch_size not in (None, 1):
      raise InputError('--for_app takes float images in batches of one, got '
                       '--input_type=%s --batch_size=%s' %
                       (FLAGS.input_type, batch_size))
    batch_size = 1
  bank, reasons['Known'] = _bank_from_flags(
      prefix, run, (size, preprocessing_name, quantize), decay)
  return Export(
      model_name=run.model_name if run else FLAGS.model_name,
      labels=labels, labels_offset=labels_offset,
      image_size=size, preprocessing_name=preprocessing_name,
      input_kind=FLAGS.input_type, batch_size=batch_size,
      temperature=temperature, bank=bank,
      moving_average_decay=decay, precision=_precision_from_flags(run),
      head=run_info.head_of(run) if run else None,
      use_grayscale=run.use_grayscale if run else FLAGS.use_grayscale,
      quantize=quantize,
      reasons=reasons, examples=_examples_from_flags(run, labels, bank))


def _examples_from_flags(run, labels, bank):
  """Returns the example photos by class and those of the bank, or None."""
  if not FLAGS.examples or not FLAGS.checkpoint_path:
    return None
  dataset = (FLAGS.dataset_name if FLAGS['dataset_name'].present else None,
             FLAGS.dataset_dir)
  examples, reason = class_examples.collect(run, labels, bank, *dataset)
  if not examples:
    tf.logging.info('No example photos: %s', reason)
  of_bank = class_examples.collect_bank(run, bank, *dataset)
  return (examples, of_bank) if examples or of_bank else None


def _precision_from_flags(run):
  """Returns the precision that the graph records; None: float32.

  Raises:
    InputError: this machine cannot compute with the one that is demanded.
  """
  if FLAGS.precision == forward_pass.AUTO:
    return run.precision if run else None
  return forward_pass.choose(
      forward_pass.options_from_flags(FLAGS)).precision


def _bank_from_flags(prefix, run, facts, decay):
  """Returns the Bank that the graphs compare with, or None; and the reason.

  Args:
    prefix: checkpoint or None.
    run: RunInfo or None.
    facts: image size in pixels, preprocessing and quantize of the graphs.
    decay: decay of the moving averages that are used, None without.

  Raises:
    InputError: --known=on, but a Bank cannot be built.
  """
  if FLAGS.known == 'off':
    return None, '--known=off'
  bank = None
  if run is None:
    reason = ('no run.json names its training data' if FLAGS.checkpoint_path
              else 'a graph without weights cannot detect anything')
  elif facts != (run.image_size, run.preprocessing_name, run.quantize):
    reason = ('the run was trained with %d pixels and preprocessing %s, and '
              '--quantize=%s' %
              (run.image_size, run.preprocessing_name, run.quantize))
  else:
    # The flags may give the current folder of the data set.
    bank, reason = detector.find_or_build_bank(
        run, prefix,
        FLAGS.dataset_name if FLAGS['dataset_name'].present else None,
        FLAGS.dataset_dir, decay,
        num_threads=FLAGS.num_preprocessing_threads,
        options=forward_pass.options_from_flags(FLAGS))
  if bank is None and FLAGS.known == 'on':
    raise InputError('--known=on: %s' % reason)
  tf.logging.info('Known: %s%s', '' if bank else 'left out, ', reason)
  return bank, reason


def _check_same_as_run(name, trained):
  if FLAGS[name].present and FLAGS[name].value != trained:
    raise InputError('--%s=%s, but the run in %s was trained with %s' %
                     (name, FLAGS[name].value, FLAGS.checkpoint_path, trained))


def _labels_from_flags(run):
  """Returns the labels by output index, and the labels offset."""
  dataset = FLAGS['dataset_name']
  if run and (not dataset.present or dataset.value == run.dataset_name):
    return run.labels, run.labels_offset
  offset = run.labels_offset if run else FLAGS.labels_offset
  if not FLAGS.dataset_dir and dataset.value != 'imagenet':
    raise InputError('--dataset_name=%s: the names of its classes are not '
                     'known without --dataset_dir' % dataset.value)
  names = dataset_factory.get_labels(dataset.value, FLAGS.dataset_dir)
  if offset >= len(names):
    raise InputError('--labels_offset=%d leaves none of the %d classes' %
                     (offset, len(names)))
  if run:
    run_info.check_classes(
        run, names[offset:], lambda trained, others:
        '--dataset_name=%s has the classes %s, but the run in %s was trained '
        'on %s; omit --dataset_name to use these' %
        (dataset.value, others, FLAGS.checkpoint_path, trained))
  return names[offset:], offset


def paths_from_flags():
  """Returns the paths of graph, frozen graph and labels, None if not written.

  Raises:
    InputError: nothing would be written, or a flag would have no effect.
  """
  output, frozen = FLAGS.output_file, FLAGS.frozen_file
  if not FLAGS.checkpoint_path:
    if frozen:
      raise InputError('--frozen_file needs --checkpoint_path')
    if not output:
      raise InputError('--output_file is needed: path of the graph')
    return output, None, FLAGS.label_file
  if FLAGS.is_training:
    raise InputError('--is_training is only for graphs without '
                     '--checkpoint_path')
  if not frozen and not output:
    raise InputError('--frozen_file is needed: path of the frozen graph')
  frozen = frozen or '%s_freeze%s' % os.path.splitext(output)
  if output and os.path.abspath(output) == os.path.abspath(frozen):
    raise InputError('--output_file and --frozen_file are both %s' % output)
  labels = FLAGS.label_file or os.path.splitext(frozen)[0] + '.label'
  return output, frozen, labels


def _compare_precision(graph_def, prefix):
  """Prints how the answers of a frozen graph differ from those in float32.

  Args:
    graph_def: frozen GraphDef.
    prefix: checkpoint of its weights.
  """
  info = graph_info.require(graph_def)
  if not FLAGS.compare_precision or info.precision in (None,
                                                       forward_pass.FLOAT32):
    return
  try:
    split, photos = _validation_photos(prefix)
    found = split and comparison.compare_precisions(
        graph_def, photos, forward_pass.Options(FLAGS.runtime),
        FLAGS.num_preprocessing_threads)
    if found:
      print(comparison.describe_precisions(*found, split))
      return
    reason = photos if split is None else (
        'this machine cannot compute this graph with %s' % info.precision)
  except InputError as error:  # The files are written.
    reason = error
  print('%s not compared with float32: %s' % (info.precision, reason))


def _validation_photos(prefix):
  """Returns what comparison.find_photos does for the run of a checkpoint."""
  run = run_info.load(os.path.dirname(prefix))
  if run is None:
    return None, 'no run.json names its validation photos'
  # The flags may give the current folder of the data set.
  name, folder = detector.dataset_of(
      run, FLAGS.dataset_name if FLAGS['dataset_name'].present else None,
      FLAGS.dataset_dir)
  return comparison.find_photos(
      run._replace(dataset_name=name, dataset_dir=folder),
      [detector.VALIDATION])


def main(_):
  """Writes the graph, the frozen graph and the labels."""
  output, frozen, label_path = paths_from_flags()
  prefix = checkpoint_from_flags()
  export = export_from_flags(prefix)
  options = export._asdict()
  reasons, decay = options.pop('reasons'), options.pop('moving_average_decay')
  examples = options.pop('examples')
  with tf.Graph().as_default():
    info = inference_graph.build(is_training=FLAGS.is_training, **options)
    graph_def = inference_graph.to_graph_def(info)
    if frozen:
      frozen_def = inference_graph.freeze(info, prefix, decay)
  warnings = []
  if output:
    _write_graph(output, graph_def, FLAGS.write_text_graphdef, 'graph')
  if frozen:
    info = graph_info.read(frozen_def)
    kept = export_folder.keep_previous(
        (frozen, label_path, example_photos.path_of(frozen),
         model_card.path_of(frozen)),
        export_folder.read_frozen(frozen), info, reasons)
    # First: a server loads them with the graph, when both are written.
    _write_examples(frozen, info, examples)
    _write_graph(frozen, frozen_def, False,
                 'frozen graph of %s' % info.checkpoint)
    warnings = [kept] if kept else []
    warnings += export_folder.rename_outdated(frozen, info)
  if label_path:
    label_files.write(label_path, info.labels)
    print('Wrote %s: %d labels' % (relative(label_path), len(info.labels)))
  if frozen:  # After all that a server loads.
    card = model_card.write(frozen, _card_facts(frozen, info, prefix, decay,
                                                reasons['Known']))
    print('Wrote %s: model card' % relative(card))
  _print_nodes(info)
  if frozen:
    _compare_precision(frozen_def, prefix)
  for warning in warnings:  # Last, so that they are not overlooked.
    tf.logging.warning(warning)


def _card_facts(frozen, info, prefix, decay, refusal):
  """Returns the model_card.Facts of a frozen graph that was just written."""
  folder = os.path.dirname(prefix)
  run, flags_given, data = run_info.load(folder), {}, None
  if run:
    train_dir = folder
    if not os.path.exists(os.path.join(folder, run_info.FLAGS_FILE_NAME)):
      train_dir = os.path.dirname(os.path.abspath(folder))
    flags_given = dict(run_facts.read_flags(train_dir)[0])
    name, dataset_dir = detector.dataset_of(
        run, FLAGS.dataset_name if FLAGS['dataset_name'].present else None,
        FLAGS.dataset_dir)
    try:
      data = manifest.load(dataset_dir, name)
    except InputError as error:  # The graph does not need it.
      tf.logging.warning('The model card lacks the data set: %s', error)
  found = results_file.load(prefix, decay)
  return model_card.Facts(
      info, os.path.basename(frozen), os.path.getsize(frozen), run,
      run_info.is_chosen_by_validation(prefix), flags_given, data,
      {split: found[split] for split in ('validation', 'test')
       if split in found}, refusal)


def _write_graph(path, graph_def, as_text, what):
  data = (text_format.MessageToString(graph_def).encode('utf-8') if as_text
          else graph_def.SerializeToString())
  files.write_output(path, data)
  print('Wrote %s: %s, %.1f MB' % (relative(path), what, len(data) / 1e6))


def _write_examples(frozen, info, examples):
  content = examples and example_photos.to_bytes(info.checkpoint, *examples)
  example_photos.replace(frozen, content)
  if content:
    print('Wrote %s: %d training photos as examples for the page, and %d of '
          'which it shows the nearest ones, %.1f MB; --noexamples omits them' %
          (relative(example_photos.path_of(frozen)), *map(len, examples),
           len(content) / 1e6))


def _print_nodes(info):
  what = ('encoded photos' if info.input_kind == 'encoded' else
          'float images for preprocessing %s' % info.preprocessing_name)
  print('Network %s, %d x %d pixels' %
        (info.model_name, info.image_size, info.image_size))
  notes = {'input': ' (%s)' % what}
  roles = ['input', 'logits', 'predictions', 'features']
  if info.calibrated_predictions:
    roles.insert(3, 'calibrated_predictions')
    notes['calibrated_predictions'] = ' (temperature %.4g)' % info.temperature
  if info.known:
    roles += ['similarity', 'known_score', 'known']
    notes['known'] = ' (score of at least %.4f)' % info.threshold
  for role in roles:
    name = getattr(info, role).split(':')[0]
    print('  %-*s %s%s' % (max(map(len, roles)), role, name,
                           notes.get(role, '')))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
