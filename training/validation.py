"""Evaluation of a run on its validation photos during training."""

from typing import Callable, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from compat import slim, tf
from datasets import input_pipeline
from nets import nets_factory
from preprocessing import preprocessing_factory
from runs import run_info
from training import inference_twin
from training.validation_history import ValidationHistory

# Inputs of the network, one per tensor that is fed, and `[batch]` labels.
Batch = Tuple[List[np.ndarray], np.ndarray]


class Validation:
  """Evaluates a run and records the results.

  Args:
    twin: InferenceTwin of the run.
    history: ValidationHistory of the run.
    make_batches: function that returns an iterable of (inputs of the twin,
      labels), with each validation photo once.
  """

  def __init__(self, twin: inference_twin.InferenceTwin,
               history: ValidationHistory,
               make_batches: Callable[[], Iterable[Batch]]) -> None:
    self._twin = twin
    self._history = history
    self._make_batches = make_batches
    self._train_losses: List[float] = []

  def note(self, loss: float) -> None:
    """Records the loss of a training step, for the next evaluation."""
    self._train_losses.append(float(loss))

  def evaluate(self, session: tf.Session, step: int,
               writer: tf.summary.FileWriter,
               is_best: Optional[bool] = None) -> None:
    """Evaluates the validation photos; keeps the checkpoint if it is the best.

    Args:
      session: of the run.
      step: its global step.
      writer: tf.summary.FileWriter of the run.
      is_best: whether this is the best checkpoint; None: by its results.
    """
    self._twin.load(session)
    labels = []

    def inputs():
      for batch, labels_of_batch in self._make_batches():
        labels.append(labels_of_batch)
        yield batch

    logits = self._twin.logits(inputs())
    accuracy, loss = measure(logits, np.concatenate(labels))
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag='validation/Accuracy', simple_value=accuracy),
        tf.Summary.Value(tag='validation/loss', simple_value=loss)]), step)
    writer.flush()
    train_loss = None
    if self._train_losses:
      train_loss = float(np.mean(self._train_losses))
      self._train_losses = []
    self._history.add(session, step, accuracy, loss, train_loss, is_best)


def measure(logits: np.ndarray, labels: np.ndarray) -> Tuple[float, float]:
  """Returns the accuracy and the mean cross entropy.

  Args:
    logits: `[n, num_classes]` float32.
    labels: `[n]` integers.
  """
  shifted = logits.astype(np.float64)
  shifted -= shifted.max(axis=1, keepdims=True)
  label_logits = shifted[np.arange(len(labels)), labels]
  loss = np.mean(np.log(np.exp(shifted).sum(axis=1)) - label_logits)
  return float(np.mean(logits.argmax(axis=1) == labels)), float(loss)


def photo_batches(dataset: slim.dataset.Dataset, info: run_info.RunInfo,
                  network: nets_factory.Network, batch_size: int,
                  num_threads: int,
                  session_config: Optional[tf.ConfigProto] = None
                  ) -> Callable[[], Iterator[Batch]]:
  """Returns a function that reads each photo of a split once.

  Args:
    dataset: slim Dataset of the split.
    info: RunInfo of the run.
    network: the Network row of info.model_name.
    batch_size: photos per batch.
    num_threads: threads that decode.
    session_config: tf.ConfigProto.

  Returns:
    A function that returns an iterator over ([images], labels): the
    make_batches of `Validation`.
  """
  graph = tf.Graph()
  with graph.as_default(), tf.device('/device:CPU:0'):
    iterator = tf.data.make_initializable_iterator(
        input_pipeline.evaluation_batches(
            dataset,
            preprocessing_factory.get_preprocessing(
                info.preprocessing_name, is_training=False),
            info.image_size, batch_size, channels=network.channels,
            num_threads=num_threads, labels_offset=info.labels_offset))
    batch = iterator.get_next()

  def read():
    with graph.as_default(), input_pipeline.errors_as_advice(), tf.Session(
        config=session_config) as session:
      session.run(iterator.initializer)
      while True:
        try:
          images, labels = session.run((batch['image'], batch['label']))
        except tf.errors.OutOfRangeError:
          return
        yield [images], labels

  return read
