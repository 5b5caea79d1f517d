"""Facts of a training run, in run.json.

Training writes them once to TRAIN_DIR/run.json; evaluation and export read
them, so that labels_offset, image size or preprocessing are not given again.
"""

import json
import os
from typing import Callable, List, NamedTuple, Optional

from common import files
from common.errors import InputError, name_some
from compat import slim, tf
from nets import layers_head, nets_factory
from runs import checkpoints, run_list

FILE_NAME = run_list.INFO_FILE

# Next to the checkpoint that was best on the validation photos.
BEST_FILE_NAME = run_list.BEST_FILE
# The flags that the user gave.
FLAGS_FILE_NAME = 'flags.json'
# How training of all layers, or of the last blocks, began after that of the
# classifier.
ALL_LAYERS_FILE = 'finetune_all.json'


class RunInfo(NamedTuple):
  """Facts of a run."""

  # Name of the network.
  model_name: str
  # By index of the network's output, so labels_offset is already applied.
  labels: List[str]
  # Number subtracted from the data set's labels.
  labels_offset: int
  # Side in pixels.
  image_size: int
  # Name of a network or a family.
  preprocessing_name: str
  dataset_name: str
  # Absolute path where training ran.
  dataset_dir: str
  # None if the run keeps no moving averages.
  moving_average_decay: Optional[float]
  # Checkpoint that the run started from, None from scratch.
  checkpoint_path: Optional[str] = None
  # With which its features are computed, as in forward_pass; None: with
  # float32.
  precision: Optional[str] = None
  # One of layers_head.KINDS; None: the network's own classifier.
  head: Optional[str] = None
  # Other fields of its layers_head.Head.
  flip_average: bool = False
  support_points: int = 0
  # Whether photos are converted to grey.
  use_grayscale: bool = False
  # Whether it simulates 8-bit arithmetic.
  quantize: bool = False


def network_fn(info: RunInfo, weight_decay: float = 0.0,
               is_training: bool = False) -> Callable:
  """Returns the function that builds the network of a run, with its head.

  Args:
    info: RunInfo.
    weight_decay, is_training: as for nets_factory.get_network_fn, which
      describes the result.
  """
  return nets_factory.get_network_fn(
      info.model_name, num_classes=len(info.labels), weight_decay=weight_decay,
      is_training=is_training, head=head_of(info),
      quantize=info.quantize and not is_training)


def choose_quantize(quantize: Optional[bool], info: Optional[RunInfo],
                    prefix: Optional[str]) -> bool:
  """Returns whether the network of a checkpoint simulates 8-bit arithmetic.

  Args:
    quantize: value of --quantize; None: it is not given.
    info: RunInfo of the checkpoint's run, or None.
    prefix: path of the checkpoint, or None.

  Raises:
    InputError: --quantize is given, but the run was trained without it.
  """
  trained = None if info is None else info.quantize
  if quantize and trained is False:
    raise InputError(
        '--quantize: the run of %s was trained without --quantize_delay and '
        'has no ranges of activations; omit the flag' % prefix)
  return bool(trained if quantize is None else quantize)


def head_of(info: RunInfo) -> Optional[layers_head.Head]:
  """Returns the Head of a run; None: the network's own classifier."""
  return layers_head.make(info.head, info.flip_average, info.support_points)


def path(train_dir: str) -> str:
  """Returns the path of the run.json of a train directory."""
  return os.path.join(train_dir, FILE_NAME)


def load(train_dir: str) -> Optional[RunInfo]:
  """Reads the facts of a run.

  Args:
    train_dir: folder of the run; need not exist.

  Returns:
    A RunInfo, or None if the folder has no run.json (a run of slim itself).

  Raises:
    InputError: the file is not a run.json of this project.
  """
  name = path(train_dir)
  if not os.path.isfile(name):
    return None
  try:
    with open(name, encoding='utf-8') as stream:
      facts = json.load(stream)
    # Fields that were added later have defaults, so older runs still load.
    return RunInfo(**{field: facts[field] for field in RunInfo._fields
                      if field in facts})
  except (TypeError, ValueError) as error:
    raise InputError('%s is damaged (%s: %s); remove it to use only the '
                     'flags' % (name, type(error).__name__, error))


def is_best(prefix: str) -> bool:
  """Whether a checkpoint is the best of its run on the validation photos.

  Its folder may have been copied under another name, so best.json decides. The
  first best checkpoint of a run is written before best.json, so the folder name
  decides too, if run.json is in the parent: a train directory may also be named
  best.
  """
  folder = os.path.dirname(os.path.abspath(prefix))
  train_dir, name = os.path.split(folder)
  return (os.path.exists(os.path.join(folder, BEST_FILE_NAME)) or
          name == checkpoints.BEST_DIR and os.path.exists(path(train_dir)))


def is_chosen_by_validation(prefix: str) -> bool:
  """Whether the validation photos chose a checkpoint among others.

  They do not choose a head that is fitted exactly, unless layers below it were
  trained after it.
  """
  folder = os.path.dirname(os.path.abspath(prefix))
  info = load(folder)
  return is_best(prefix) and (
      info is None or head_of(info) is None or
      os.path.exists(os.path.join(os.path.dirname(folder), ALL_LAYERS_FILE)))


def labels_of(dataset: slim.dataset.Dataset, labels_offset: int) -> List[str]:
  """Returns the labels of a data set by index of the network's output."""
  return [dataset.labels_to_names[index]
          for index in range(labels_offset, dataset.num_classes)]


def check_classes(run: RunInfo, labels: List[str],
                  describe: Callable[[str, str], str]) -> None:
  """Checks that a run was trained on the classes of a data set.

  Args:
    run: RunInfo of the run, or of the run that wrote a checkpoint.
    labels: those of the data set, from run.labels_offset on.
    describe: function of the run's labels and of the data set's, both as one
      text, that returns the error message.

  Raises:
    InputError: the classes, or their order, differ.
  """
  if run.labels != labels:
    raise InputError(describe(name_some(run.labels),
                              name_some(labels)))


def choose_decay(decay: Optional[float], info: Optional[RunInfo],
                 prefix: str) -> Optional[float]:
  """Returns the decay of the moving averages to use with a checkpoint.

  The best checkpoint of a run is chosen by its moving averages if the run keeps
  them, so they are used then.

  Args:
    decay: value of --moving_average_decay; it is kept if it is not None.
    info: RunInfo of the checkpoint's run, or None.
    prefix: path of the checkpoint.

  Returns:
    The decay; None or 0: the plain variables are used.
  """
  if info is None or not info.moving_average_decay or decay is not None:
    return decay
  if is_best(prefix):
    tf.logging.info('Using the moving averages, by which this checkpoint was '
                    'the best; --moving_average_decay=0 uses the variables')
    return info.moving_average_decay
  tf.logging.info('The run keeps moving averages; --moving_average_decay=%g '
                  'uses them', info.moving_average_decay)
  return None


def save(train_dir: str, info: RunInfo) -> None:
  """Writes the facts of a run, whole or not at all.

  Args:
    train_dir: folder of the run; created if missing.
    info: a RunInfo.
  """
  os.makedirs(train_dir, exist_ok=True)
  text = json.dumps(info._asdict(), indent=1, ensure_ascii=False)
  files.write_text(path(train_dir), text + '\n')
