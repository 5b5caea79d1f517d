"""Writes a report about a training run, and fits the temperature of its scores.

  python -m tools.make_report --train_dir=/tmp/flowers

Network, data set and other settings come from the run.json of the train
directory. The checkpoint is evaluated on the validation photos, and on the test
photos if the data set has any. Choices are made on the validation photos and
reported on the test photos; without test photos, the report calls its numbers
optimistic.

The temperature is written to calibration.json beside the checkpoint, where
export_inference_graph.py reads it, and the results to results.json, for the
model card; the reference bank of training photos for
out-of-distribution detection is written to known.npz.
"""

import os
from typing import List, Optional, Sequence, Tuple

from absl import flags

from common import files
from common import flags as common_flags
from common.errors import InputError
from common.paths import relative
from compat import tf
from datasets import dataset_factory
from evaluation import (
  calibration,
  curves,
  data_picture,
  html_report,
  report,
  results_file,
  run_facts,
  run_results,
  wrong_photos,
)
from ood import detector, refused_photos
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.exports import wrong_heat_maps
from training import validation_history

FLAGS = flags.FLAGS


def define_run_flags() -> None:
  """Defines which checkpoint and data set are used; for several tools."""
  flags.DEFINE_string('train_dir', None, 'Train directory of the run.')
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Checkpoint, or train directory, to use. None: --train_dir.')
  common_flags.define_which_checkpoint_flag(checkpoints.CHOICES)
  flags.DEFINE_string(
      'dataset_name', None, 'Name of the data set. None: from run.json.')
  flags.DEFINE_string(
      'dataset_dir', None,
      'Folder of the TFRecord files. None: from run.json.')


def define_compute_flags() -> None:
  """Defines how a checkpoint is computed; for several tools."""
  flags.DEFINE_float(
      'moving_average_decay', None,
      'Decay of the moving averages to use. None: the variables themselves.',
      lower_bound=0.0, upper_bound=1.0)
  flags.DEFINE_integer('batch_size', 32, 'Photos per batch.', lower_bound=1)
  flags.DEFINE_integer(
      'num_preprocessing_threads', 4,
      'Threads that decode and preprocess photos.', lower_bound=1)
  common_flags.define_session_flags()
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def define_flags() -> None:
  """Defines the flags for the run and the contents of the report."""
  define_run_flags()
  flags.DEFINE_string(
      'eval_dir', None,
      'Folder of eval_image_classifier.py, whose accuracies are shown if '
      'training recorded none.')
  flags.DEFINE_string(
      'output_file', None,
      'Path of the page to write. None: report.html in --train_dir.')
  flags.DEFINE_integer(
      'num_wrong', 24, 'Misclassified photos to show.', lower_bound=0)
  flags.DEFINE_bool(
      'explain', True,
      'Show heat maps of the misclassified photos: which regions raise the '
      'score of the predicted class, and which that of the label.')
  flags.DEFINE_bool(
      'calibrate', True,
      'Fit the temperature on the validation photos and save it beside the '
      'checkpoint, for the export.')
  flags.DEFINE_bool(
      'known', True,
      'Count and show the photos that out-of-distribution detection refuses.')
  flags.DEFINE_integer(
      'num_per_cell', 6,
      'Photos to show for each cell of the confusion matrix; 0: none, nor for '
      'the classes.', lower_bound=0)
  flags.DEFINE_integer(
      'num_refused', 12, 'Refused photos to show.', lower_bound=0)
  define_compute_flags()


def checkpoint_from_flags() -> str:
  """Returns the prefix of the checkpoint to report on.

  Raises:
    InputError: there is no checkpoint.
  """
  if FLAGS.checkpoint_path:
    return checkpoints.resolve(FLAGS.checkpoint_path, FLAGS.which_checkpoint)
  common_flags.require(FLAGS, 'train_dir')
  if not os.path.isdir(FLAGS.train_dir):
    raise InputError('--train_dir=%s is not a folder' % FLAGS.train_dir)
  return checkpoints.resolve(FLAGS.train_dir, FLAGS.which_checkpoint)


def run_from_flags(checkpoint: str) -> run_info.RunInfo:
  """Returns the RunInfo of a checkpoint, with the data set of the flags.

  Raises:
    InputError: there is no run.json, or the data set is unknown.
  """
  run = _trained(checkpoint)
  if run is None:
    raise InputError('%s is missing: the report needs what training recorded' %
                     run_info.path(os.path.dirname(checkpoint)))
  return run._replace(dataset_name=FLAGS.dataset_name or run.dataset_name,
                      dataset_dir=FLAGS.dataset_dir or run.dataset_dir)


def _trained(checkpoint):
  """Returns the RunInfo that training has stored for a checkpoint, or None."""
  folder = os.path.dirname(checkpoint)
  return run_info.load(folder) or run_info.load(FLAGS.train_dir or folder)


def options_from_flags() -> forward_pass.Options:
  """Returns the forward_pass.Options of the flags."""
  return forward_pass.options_from_flags(
      FLAGS, common_flags.session_config(FLAGS))


def how_chosen(checkpoint: str, train_dir: str,
               split: str = 'these') -> Optional[str]:
  """Returns how validation photos chose a checkpoint; None: they did not.

  Args:
    checkpoint: its prefix.
    train_dir: folder of the run.
    split: the name for the photos in the text.
  """
  if run_info.is_chosen_by_validation(checkpoint):
    return 'the checkpoint is the one that was best on %s photos' % split
  if run_info.is_best(checkpoint):
    return None
  if os.path.exists(os.path.join(train_dir, validation_history.FILE_NAME)):
    return 'training ended by its accuracy on %s photos' % split
  return None


def fit_temperature(
    results: Sequence[run_results.SplitResult], checkpoint: str,
    decay: Optional[float]
) -> Tuple[Optional[calibration.Calibration], Optional[str]]:
  """Fits and stores the temperature, unless the flags say otherwise.

  Args:
    results: list of SplitResults.
    checkpoint: prefix of the checkpoint.
    decay: decay of the moving averages that were used, None without.

  Returns:
    A Calibration or None, and None or the reason why there is none.
  """
  base = run_results.decided(results)
  if not FLAGS.calibrate:
    return None, '--nocalibrate was given'
  if base is None:
    return None, 'it is fitted on validation photos, and the data set has none'
  assert base.counted.logits is not None  # Of all splits of a report.
  try:
    found = calibration.calibrate(
        base.counted.logits, base.counted.labels, base.name, checkpoint,
        decay)
  except calibration.NoTemperature as error:
    tf.logging.warning('No temperature: %s', error)
    return None, str(error)
  calibration.save(checkpoint, found)
  tf.logging.info('Temperature %.4g: calibration error %.4f before, %.4f after '
                  '(%s)', found.temperature, found.ece_before, found.ece_after,
                  calibration.path(checkpoint))
  return found, None


def detect_ood(run: run_info.RunInfo,
               results: Sequence[run_results.SplitResult], checkpoint: str,
               decay: Optional[float]) -> refused_photos.OodResults:
  """Returns the OodResults of a report.

  Args:
    run: RunInfo, with the data set of the flags.
    results: list of SplitResults.
    checkpoint: prefix of the checkpoint.
    decay: decay of the moving averages that were used, None without.
  """
  bank, note = None, '--noknown was given'
  trained = _trained(checkpoint)
  if FLAGS.known:
    bank, note = detector.find_or_build_bank(
        trained, checkpoint, run.dataset_name, run.dataset_dir,
        decay, batch_size=FLAGS.batch_size,
        num_threads=FLAGS.num_preprocessing_threads,
        options=options_from_flags())
    tf.logging.info('Known: %s%s', '' if bank else 'not counted, ', note)
  if bank is None:
    return refused_photos.OodResults(note=note)
  detections = [detector.detect(bank, result.counted) for result in results]
  photos = refused_photos.find(results, detections, bank, FLAGS.num_refused)
  name, folder = detector.dataset_of(trained, run.dataset_name,
                                     run.dataset_dir)
  training = dataset_factory.get_dataset(name, detector.TRAIN, folder)
  return refused_photos.OodResults(
      detections, photos, wrong_photos.pictures(photos, results),
      refused_photos.neighbour_pictures(photos, training.data_sources), bank,
      bank.split if name == run.dataset_name else None)


def draw_heat_maps(
    run: run_info.RunInfo, results: Sequence[run_results.SplitResult],
    wrong: Sequence[wrong_photos.ClassifiedPhoto], checkpoint: str,
    decay: Optional[float]) -> Sequence[Optional[wrong_heat_maps.Pair]]:
  """Returns the heat maps of the wrong photos; [] if there are none.

  Args:
    run: RunInfo of the run.
    results: list of SplitResults.
    wrong: list of ClassifiedPhotos.
    checkpoint: prefix of the checkpoint.
    decay: decay of the moving averages that were used, None without.
  """
  if not FLAGS.explain:
    return []
  try:
    return wrong_heat_maps.draw(wrong, results, run, checkpoint, decay,
                                options_from_flags())
  except InputError as error:
    tf.logging.warning('No heat maps: %s', error)
    return []


def _save_results(run, results, ood, checkpoint, decay):
  """Stores the results for the model card, unless of another data set."""
  if run.dataset_name != _trained(checkpoint).dataset_name:
    return
  detections = ood.detections or [None] * len(results)
  results_file.save(checkpoint, decay, {result.name: dict(
      report.facts_of(result.counted, result.metrics, result.name, detection),
      ms_per_photo=result.counted.ms_per_photo,
      computed_by=result.counted.computed_by)
                                        for result, detection in zip(
                                            results, detections)})


def main(_: List[str]) -> None:
  """Evaluates the checkpoint, fits the temperature and writes the report."""
  checkpoint = checkpoint_from_flags()
  run = run_from_flags(checkpoint)
  decay = run_info.choose_decay(FLAGS.moving_average_decay, run, checkpoint)
  train_dir = FLAGS.train_dir or os.path.dirname(checkpoint)
  output = FLAGS.output_file or os.path.join(train_dir, 'report.html')
  if not os.path.isdir(os.path.dirname(os.path.abspath(output))):
    raise InputError('--output_file=%s: its folder does not exist' % output)
  results = run_results.measure(
      run, checkpoint, run.dataset_name, run.dataset_dir, FLAGS.batch_size,
      FLAGS.num_preprocessing_threads, decay,
      options_from_flags())
  fitted, note = fit_temperature(results, checkpoint, decay)
  wrong = wrong_photos.find(results, FLAGS.num_wrong)
  reported = run_results.reported(results)
  ood = detect_ood(run, results, checkpoint, decay)
  _save_results(run, results, ood, checkpoint, decay)
  cells = wrong_photos.find_by_cell(reported, FLAGS.num_per_cell)
  given, flags_note = run_facts.read_flags(train_dir)
  page = html_report.render(html_report.Report(
      run=run, checkpoint=checkpoint,
      chosen=how_chosen(checkpoint, train_dir), results=results,
      calibration=fitted, calibration_note=note,
      curves=curves.read(train_dir, FLAGS.eval_dir), wrong=wrong,
      pictures=wrong_photos.pictures(wrong, results),
      heat_maps=draw_heat_maps(run, results, wrong, checkpoint, decay),
      ood=ood,
      flags=given, flags_note=flags_note,
      skipped=run_facts.read_skipped(run.dataset_dir, run.dataset_name),
      training_photos=run_facts.training_photos(run.dataset_dir,
                                                run.dataset_name),
      versions=run_facts.versions(),
      data_picture=data_picture.address(output, run.dataset_dir,
                                        run.dataset_name),
      weights=run_facts.count_weights(checkpoint), cells=cells,
      cell_pictures=wrong_photos.pictures(cells, results,
                                          wrong_photos.CELL_SIDE)))
  files.write_text(output, page)
  print('Wrote %s: accuracy %.4f on %d %s photos' %
        (relative(output), reported.metrics.accuracy, reported.metrics.photos,
         reported.name))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
