"""Keeps the files in an export folder consistent: one training step per name.

  my_x_freeze.pb, .label, .examples            the frozen graph
  my_x.tflite, my_x_labels.txt, my_x_info.json the TensorFlow Lite model
  my_x.onnx                                    the ONNX model
  saved_model/my_x/N                           versions of the SavedModel

Files with the same name are used together, so they must be of the same step.
The frozen graph takes precedence: when one of another step is written, the
TensorFlow Lite and ONNX models are renamed, and a TensorFlow Lite model of
another step than the frozen graph is refused. Versions of a SavedModel are
kept; each contains its step.
"""

import filecmp
import os
from typing import List, Mapping, Optional, Sequence, Tuple

from google.protobuf.message import DecodeError

from common import files
from common.errors import InputError, name_some
from compat import tf
from runs import checkpoints
from serving.exports import saved_model
from serving.model import graph_info
from serving.model.graph_info import GraphInfo

_FROZEN = '_freeze.pb'


def step_of(info: GraphInfo) -> Optional[int]:
  """Returns the global step of the weights of a GraphInfo, None if unknown."""
  if info.global_step is not None:
    return info.global_step
  step = checkpoints.global_step_of(info.checkpoint or '')
  return None if step < 0 else step


def lost_outputs(previous: Optional[GraphInfo], info: GraphInfo) -> List[str]:
  """Returns the outputs and classes that a new graph lacks.

  Args:
    previous: GraphInfo of the previous graph; None: there was none.
    info: GraphInfo of the new graph.

  Returns:
    List of names, such as `Known`.
  """
  if previous is None:
    return []
  lost = []
  if previous.known and not info.known:
    lost.append('Known')
  if previous.calibrated_predictions and not info.calibrated_predictions:
    lost.append('CalibratedPredictions')
  classes = [name for name in previous.labels if name not in info.labels]
  if classes:
    lost.append('the classes %s' % name_some(classes))
  return lost


def keep_previous(paths: Sequence[str], previous: Optional[GraphInfo],
                  info: GraphInfo, reasons: Optional[Mapping[str, str]] = None
                  ) -> Optional[str]:
  """Copies files that are about to be replaced by a graph that lacks outputs.

  Args:
    paths: of the graph and of the files that belong to it.
    previous: GraphInfo of the existing graph; None: there is none.
    info: GraphInfo of the new graph.
    reasons: {name as in `lost_outputs`: why the new graph lacks it}.

  Returns:
    The warning for the user; None if nothing is lost.

  Raises:
    InputError: a copy cannot be written.
  """
  lost, reasons = lost_outputs(previous, info), reasons or {}
  if previous is None or not lost:
    return None
  kept = [_copy(path, step_of(previous)) for path in paths
          if os.path.isfile(path)]
  return '%s had %s, which the new one lacks; the former one is kept: %s' % (
      paths[0], ' and '.join(
          '%s (%s)' % (name, reasons[name]) if name in reasons else name
          for name in lost), ', '.join(kept))


def rename_outdated(frozen_file: str, info: GraphInfo) -> List[str]:
  """Renames models of another step than the frozen graph.

  Models of early versions of this project do not store a step, and are renamed
  too.

  Args:
    frozen_file: path of the frozen graph.
    info: its GraphInfo.

  Returns:
    List of warnings for the user.
  """
  if not frozen_file.endswith(_FROZEN):
    return []
  stem, step = frozen_file[:-len(_FROZEN)], step_of(info)
  warnings = []
  tflite, onnx = stem + '.tflite', stem + '.onnx'
  for previous, paths, script in (
      (read_tflite(tflite), tflite_files(tflite), 'export_tflite.sh'),
      (graph_info.read_file(onnx), (onnx,), 'export_onnx.sh')):
    previous_step = step_of(previous) if previous else None
    if os.path.isfile(paths[0]) and (not previous or previous_step != step):
      names = [_rename(path, previous_step) for path in paths
               if os.path.isfile(path)]
      warnings.append(
          '%s was of step %s, and %s is of step %s: it is called %s now; '
          'scripts/%s writes one of the same step' % (
              paths[0], 'unknown' if previous_step is None else previous_step,
              frozen_file, step, names[0], script))
  folder = os.path.join(os.path.dirname(stem), 'saved_model',
                        os.path.basename(stem))
  served = saved_model.read_info(folder)
  if served and step_of(served) != step:
    warnings.append(
        'The last version in %s is of step %s, and %s is of step %s; '
        'scripts/export_saved_model.sh writes the next version' % (
            folder, step_of(served), frozen_file, step))
  return warnings


def check_tflite(path: str, step: int) -> None:
  """Refuses a TensorFlow Lite model of another step than the frozen graph.

  Args:
    path: where the model will be written.
    step: global step of its checkpoint, -1 if unknown.

  Raises:
    InputError: the frozen graph with that name is of another step.
  """
  frozen_file = os.path.splitext(path)[0] + _FROZEN
  info = read_frozen(frozen_file)
  frozen_step = step_of(info) if info else None
  if frozen_step is not None and frozen_step != step:
    raise InputError(
        '%s is of step %d, and %s would be of step %d: run ./export_freeze.sh '
        'first, choose the same checkpoint (CHECKPOINT=best or newest), or '
        'export to another folder (EXPORT_DIR)' % (
            frozen_file, frozen_step, path, step))


def check_frozen(path: str, info: GraphInfo, checkpoint_path: Optional[str],
                 which: Optional[str]) -> Optional[str]:
  """Refuses a frozen graph that is not of the given checkpoint.

  Args:
    path: of the frozen graph.
    info: its GraphInfo.
    checkpoint_path: train directory, or checkpoint; None, or a train directory
      without a checkpoint: it is not checked.
    which: checkpoint of a train directory, as for checkpoints.resolve.

  Returns:
    The checkpoint, None without one.

  Raises:
    InputError: they are of different steps, or there is no such checkpoint.
  """
  prefix = checkpoint_path and (
      checkpoints.find(checkpoint_path, which) if os.path.isdir(checkpoint_path)
      else checkpoints.resolve(checkpoint_path))
  if not prefix:
    return None
  frozen_step, step = step_of(info), checkpoints.read_global_step(prefix)
  if frozen_step is not None and frozen_step != step:
    raise InputError(
        '%s is of step %d, and %s, the checkpoint of the run, is of step %d: '
        'run ./export_freeze.sh first, or choose the same checkpoint '
        '(CHECKPOINT=best or newest)' % (path, frozen_step, prefix, step))
  return prefix


def tflite_files(path: str) -> Tuple[str, str, str]:
  """Returns the paths of a TensorFlow Lite model, its labels and its info."""
  stem = os.path.splitext(path)[0]
  return path, stem + '_labels.txt', stem + '_info.json'


def read_tflite(path: str) -> Optional[GraphInfo]:
  """Returns the GraphInfo of a TensorFlow Lite model; None: as read_frozen."""
  if not os.path.isfile(path):
    return None
  return graph_info.read_file(tflite_files(path)[2])


def read_frozen(path: str) -> Optional[GraphInfo]:
  """Returns the GraphInfo of a frozen graph; None: missing, or no metadata."""
  if not os.path.isfile(path):
    return None
  try:
    return graph_info.read(tf.GraphDef.FromString(
        files.read(path, 'frozen graph')))
  except (DecodeError, InputError):
    return None


def _copy(path, step):
  """Copies a file within its folder; returns the path of the copy."""
  name = _free_name(path, step)
  if not os.path.exists(name):
    files.write_output(name, files.read(path, 'file'))
  return name


def _rename(path, step):
  """Renames a file; returns the new path."""
  name = _free_name(path, step)
  os.replace(path, name)
  return name


def _free_name(path, step):
  """Returns a name with the step, unused or that of a file of equal content."""
  stem, ending = os.path.splitext(path)
  stem += '_former' if step is None else '_step%d' % step
  name, number = stem + ending, 1
  while os.path.exists(name) and not filecmp.cmp(path, name, shallow=False):
    number += 1
    name = '%s_%d%s' % (stem, number, ending)
  return name
