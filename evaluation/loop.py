"""Evaluation of one checkpoint, or of each new one in a train directory.

The log lines are those of slim's evaluation loop. The loop itself is our own,
because slim's rebuilds its operations for each checkpoint, and ends at the
first checkpoint that is half written.
"""

import contextlib
import math
import time
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional

import numpy as np

from common import checkpoint_files
from common.errors import InputError
from common.progress import Progress
from compat import tf
from datasets import input_pipeline
from nets import nets_factory
from preprocessing import preprocessing_factory
from runs import checkpoints, run_info
from runtime import forward_pass

# Seconds before an unreadable checkpoint is tried again.
_RETRY_SECS = 2

# Forward passes to time, and the seconds after which there are no more.
_TIMED_PASSES = 20
_TIMED_SECS = 2

_TIME = '%Y-%m-%d-%H:%M:%S'


class EvaluationGraph(NamedTuple):
  """The nodes that evaluate a checkpoint on the photos of a data set."""

  # The tensors `image`, `label`, `filename` of the next batch.
  photos: Dict[str, tf.Tensor]
  # The images as the network reads them, and the features that it computes.
  images: tf.Tensor
  features: tf.Tensor
  # The tensors `probabilities`, and `logits` and `features` if requested, which
  # are functions of the features.
  outputs: Dict[str, tf.Tensor]
  # Operation that starts with the first photo.
  initializer: tf.Operation
  # {names in the checkpoint: tf.train.Saver of their variables}, created when
  # needed and reused, since each adds operations.
  savers: Dict[FrozenSet[str], Any]
  # {name in the checkpoint: variable}.
  restores: Dict[str, tf.Variable]
  num_photos: int
  num_batches: int
  # That the run records; None: float32.
  precision: Optional[str]


class Counted(NamedTuple):
  """Outputs of a checkpoint for some photos."""

  # Prefix of the checkpoint.
  checkpoint: str
  global_step: int
  # [photos].
  filenames: List[str]
  # [photos] int64.
  labels: np.ndarray
  # [photos, classes] float32.
  probabilities: np.ndarray
  # [photos, classes] float32; None unless requested.
  logits: Optional[np.ndarray] = None
  # [photos, n] float32, the input of the classifier; None unless requested.
  features: Optional[np.ndarray] = None
  # How they were computed, as in 'OpenVINO 2023.1.0, float32'.
  computed_by: Optional[str] = None
  # Median time from the input of one photo to its probabilities; None unless
  # requested.
  ms_per_photo: Optional[float] = None


def build_graph(dataset: Any, info: run_info.RunInfo, batch_size: int,
                num_threads: int = 4, max_num_batches: Optional[int] = None,
                moving_average_decay: Optional[float] = None,
                with_logits: bool = False, with_features: bool = False,
                keep: Optional[np.ndarray] = None) -> EvaluationGraph:
  """Builds the evaluation graph of a data set in the default graph.

  Args:
    dataset: slim Dataset of the photos to evaluate.
    info: RunInfo of the run to evaluate.
    batch_size: photos per batch; the last batch may be smaller.
    num_threads: threads that decode photos.
    max_num_batches: batches to evaluate, None for all photos.
    moving_average_decay: decay of the moving averages to evaluate, None for
      the plain variables.
    with_logits: whether to return the logits too.
    with_features: whether to return the features before the classifier too.
    keep: numbers of the records to evaluate, None for all.

  Returns:
    An EvaluationGraph.
  """
  network = nets_factory.get_network(info.model_name, info.use_grayscale)
  batches = input_pipeline.evaluation_batches(
      dataset,
      preprocessing_factory.get_preprocessing(
          info.preprocessing_name, is_training=False),
      info.image_size, batch_size,
      channels=network.channels, num_threads=num_threads,
      labels_offset=info.labels_offset, keep=keep)
  iterator = tf.data.make_initializable_iterator(batches)
  batch = iterator.get_next()
  images = tf.identity(batch['image'], 'images')
  logits, end_points = run_info.network_fn(info)(images)
  probabilities = nets_factory.get_predictions(logits, end_points)
  restores = checkpoints.variables_to_restore(moving_average_decay)
  num_photos = dataset.num_samples if keep is None else len(keep)
  num_batches = math.ceil(num_photos / batch_size)
  if max_num_batches is not None and max_num_batches < num_batches:
    num_batches, num_photos = max_num_batches, max_num_batches * batch_size
  outputs = {'probabilities': probabilities}
  if with_logits:
    outputs['logits'] = logits
  if with_features:
    outputs['features'] = nets_factory.get_features(
        info.model_name, end_points)
  return EvaluationGraph(
      photos=batch,
      images=images,
      features=nets_factory.get_head_input(info.model_name, end_points),
      outputs=outputs,
      initializer=iterator.initializer,
      savers={},
      restores=restores,
      num_photos=num_photos,
      num_batches=num_batches,
      precision=info.precision)


def count(graph: EvaluationGraph, checkpoint: str,
          options: forward_pass.Options = forward_pass.DEFAULT,
          timed: bool = False) -> Counted:
  """Evaluates a checkpoint on the photos of a graph.

  Args:
    graph: an EvaluationGraph of the default graph.
    checkpoint: prefix of a checkpoint.
    options: forward_pass.Options.
    timed: whether to measure the time of single photos, which takes about a
      second.

  Returns:
    A Counted, each photo once.

  Raises:
    UnreadableCheckpoint: its files are damaged, gone or half copied.
    InputError: the checkpoint is of another network; the record files hold
      fewer photos than their manifest says.
  """
  global_step = checkpoints.read_global_step(checkpoint)
  restores = checkpoints.with_plain_names(checkpoint, graph.restores)
  checkpoints.check_fits(
      checkpoint, restores,
      'give the --model_name, --dataset_name, --labels_offset and '
      '--moving_average_decay it was trained with')
  variables = frozenset(restores)
  if variables not in graph.savers:
    graph.savers[variables] = tf.train.Saver(restores)
  with contextlib.ExitStack() as stack:
    session = stack.enter_context(
        tf.Session(options.master, config=options.session_config))
    checkpoints.restore(graph.savers[variables], session, checkpoint)
    forward = stack.enter_context(contextlib.closing(
        forward_pass.load_from_session(session, [graph.images],
                                       [graph.features], options,
                                       graph.precision)))
    tf.logging.info('Forward passes: %s', forward.choice.describe())
    session.run(graph.initializer)
    tf.logging.info('Starting evaluation at %s',
                    time.strftime(_TIME, time.gmtime()))
    with input_pipeline.errors_as_advice():
      with Progress('evaluated', graph.num_photos, is_logged=True) as progress:
        batches = list(_run_batches(session, graph, forward, progress))
    tf.logging.info('Finished evaluation at %s',
                    time.strftime(_TIME, time.gmtime()))
    milliseconds = _time(session, graph, forward) if timed and batches else None
  joined: Dict[str, Any] = {'label': []}
  if batches:
    joined = {key: np.concatenate([batch[key] for batch in batches])
              for key in batches[0]}
  if len(joined['label']) != graph.num_photos:
    raise InputError(
        'the record files hold %d photos but their manifest says %d; convert '
        'the data set again' % (len(joined['label']), graph.num_photos))
  names = [name.decode('utf-8', 'replace') for name in joined['filename']]
  return Counted(checkpoint, global_step, names, joined['label'],
                 joined['probabilities'], joined.get('logits'),
                 joined.get('features'), forward.choice.describe(),
                 milliseconds)


def _run_batches(session, graph, forward, progress):
  """Yields the outputs of each batch; logs progress at slim's frequency."""
  every = 1 if graph.num_batches < 20 else graph.num_batches // 10
  for number in range(1, graph.num_batches + 1):
    try:
      photos = session.run(graph.photos)
    except tf.errors.OutOfRangeError:
      return
    features, = forward(photos.pop('image'))
    yield dict(photos, **session.run(graph.outputs, {graph.features: features}))
    progress.add(len(photos['label']))
    if number % every == 0 or number == graph.num_batches:
      tf.logging.info('Evaluation [%d/%d]', number, graph.num_batches)


def _time(session, graph, forward):
  """Returns the median time of a forward pass of one photo, in ms.

  It has the network and its classifier, but not the decoding of the photo.
  """
  session.run(graph.initializer)
  image = session.run(graph.images)[:1]
  times: List[float] = []
  while len(times) < _TIMED_PASSES and sum(times) < _TIMED_SECS:
    start = time.perf_counter()
    features, = forward(image)
    session.run(graph.outputs, {graph.features: features})
    times.append(time.perf_counter() - start)
  # The first pass prepares what the others reuse.
  return 1000 * float(np.median(times[1:] or times))


def wait_for_checkpoint(train_dir: str, last: Optional[str] = None,
                        timeout_secs: Optional[float] = None,
                        which: Optional[str] = None) -> Optional[str]:
  """Waits for the next checkpoint to evaluate in a train directory.

  Args:
    train_dir: folder, which may be missing, empty or being written.
    last: prefix of the checkpoint that was evaluated last.
    timeout_secs: seconds to wait, None: forever.
    which: which of its checkpoints, as for checkpoints.chosen_folder.

  Returns:
    The checkpoint's prefix, None after the timeout.
  """
  tf.logging.info('Waiting for new checkpoint at %s', train_dir)
  end = None if timeout_secs is None else time.time() + timeout_secs
  while True:
    found = checkpoints.find(train_dir, which)
    if found is not None and found != last:
      tf.logging.info('Found new checkpoint at %s', found)
      return found
    if end is not None and time.time() >= end:
      tf.logging.info('Timed-out waiting for a checkpoint.')
      return None
    time.sleep(1)


def poll(train_dir: str, first: str, evaluate: Callable[[str], Any],
         interval_secs: float, timeout_secs: Optional[float] = None,
         which: Optional[str] = None) -> None:
  """Evaluates the first checkpoint, then each new one.

  If the best checkpoint is evaluated, only better ones are new.

  Args:
    train_dir: folder that training writes to.
    first: prefix of the checkpoint to start with.
    evaluate: function of a checkpoint's prefix.
    interval_secs: seconds from the start of one evaluation to the next.
    timeout_secs: seconds to wait for a new checkpoint before this returns,
      None: forever.
    which: which of its checkpoints, as for checkpoints.chosen_folder.
  """
  checkpoint: Optional[str] = first
  done, done_at = None, time.time()
  while checkpoint is not None:
    start = time.time()
    try:
      evaluate(checkpoint)
      done, done_at = checkpoint, time.time()
    except checkpoint_files.UnreadableCheckpoint as error:
      # It may still be being copied: try it again, or a newer one.
      tf.logging.warning('%s; trying again', error)
      if timeout_secs is not None and start > done_at + timeout_secs:
        return
    time.sleep(max(0 if checkpoint == done else _RETRY_SECS,
                   start + interval_secs - time.time()))
    if which is None and checkpoints.chosen_folder(train_dir) != train_dir:
      tf.logging.info(
          'Only a checkpoint that is better on the validation photos is '
          'evaluated next; CHECKPOINT=newest, or --which_checkpoint=newest, '
          'evaluates each new one')
    checkpoint = wait_for_checkpoint(train_dir, done, timeout_secs, which)
