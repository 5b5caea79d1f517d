"""Classifies photo files, for the command line and the server.

  classifier = Classifier.from_frozen_graph('my_inception_v4_freeze.pb')
  scores = classifier.classify([open('cat.jpg', 'rb').read()])
  classifier.labels[scores[0].argmax()]

Each photo is first converted as for a record file, so that it gets the same
scores as in evaluation.
"""

import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import numpy as np

from common import label_files
from common.errors import InputError
from compat import tf
from datasets import imagenet_names
from datasets.photo_files import photos
from ood import reference_bank
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.model import (
  foreign_graphs,
  graph_files,
  graph_info,
  heat_map_pictures,
  heat_maps,
  inference_graph,
  staged_graph,
)
from serving.model.predictions import (
  HeatMap,
  Neighbour,
  PhotoResult,
  Prediction,
)


class Classifier:
  """One network; safe to use from several threads.

  Attributes:
    info: GraphInfo of the graph.
    labels: names by output index.
    choice: forward_pass.Choice, how forward passes are computed.
    heat_maps: heat_maps.HeatMaps of the graph, for `heat_map`.
  """

  def __init__(self, graph_def: tf.GraphDef, info: graph_info.GraphInfo,
               batch_size: int = 16, calibrated: bool = False,
               num_nearest: int = 0,
               options: forward_pass.Options = forward_pass.DEFAULT,
               read_again: Optional[Callable[[], tf.GraphDef]] = None,
               with_features: bool = False) -> None:
    """Loads a frozen graph.

    Args:
      graph_def: frozen GraphDef.
      info: GraphInfo; must have labels.
      batch_size: maximum number of photos per forward pass.
      calibrated: whether to return the scores after temperature scaling.
      num_nearest: number of nearest training photos to return for each photo.
      options: forward_pass.Options: which runtime and precision.
      read_again: function that returns the same GraphDef, for the first heat
        map; None: `graph_def` stays in memory for it.
      with_features: whether to return the features of each photo.

    Raises:
      InputError: the graph cannot be loaded, does not match its labels, or has
        no calibrated scores, no training photos or no features.
    """
    if calibrated:
      graph_info.check_calibrated(info)
    if num_nearest and not info.cosines:
      raise InputError('--nearest: the graph holds no training photos; '
                       './export_freeze.sh --known=on puts them in')
    self.info = info
    self.labels = list(info.labels)
    self._num_nearest = num_nearest
    self.heat_maps = heat_maps.HeatMaps(read_again or (lambda: graph_def), info,
                                        options)
    outputs: Dict[str, Any] = {
        'scores': (info.calibrated_predictions if calibrated
                   else info.predictions)}
    if info.known:
      outputs.update(known=info.known, similarity=info.similarity)
    if info.cosines:
      outputs['cosines'] = info.cosines
    if with_features:
      if not info.features:
        raise InputError('the graph does not name its features; '
                         './export_freeze.sh writes one that does')
      outputs['features'] = info.features
    self._graph = staged_graph.StagedGraph(graph_def, info, outputs, 'scores',
                                           options)
    self.choice = self._graph.choice
    if self._graph.num_scores:
      label_files.check_count(self.labels, self._graph.num_scores,
                              'the list of labels')
    # A graph for mobile runtimes accepts one batch size only.
    self._batch_size = self._graph.batch_size or batch_size
    self._bank: Optional[List[Any]] = None

  @classmethod
  def from_frozen_graph(cls, path: str, label_file: Optional[str] = None,
                        model_name: Optional[str] = None,
                        image_size: Optional[int] = None,
                        preprocessing_name: Optional[str] = None,
                        batch_size: int = 16, calibrated: bool = False,
                        num_nearest: int = 0,
                        allowed_ops: Sequence[str] = (),
                        options: forward_pass.Options = forward_pass.DEFAULT,
                        with_features: bool = False) -> 'Classifier':
    """Loads a frozen graph from a file.

    Args:
      path: binary GraphDef. One with classifier/info needs nothing else.
      label_file: file with names that replace the graph's.
      model_name: key of nets_factory; like the next two, only for graphs made
        elsewhere.
      image_size: height and width in pixels.
      preprocessing_name: key of preprocessing_factory.
      batch_size: maximum number of photos per forward pass.
      calibrated: whether to return the scores after temperature scaling.
      num_nearest: number of nearest training photos to return for each photo.
      allowed_ops: as for graph_files.read_frozen.
      options: forward_pass.Options: which runtime and precision.
      with_features: whether to return the features of each photo.

    Raises:
      InputError: a file is missing or damaged, the files do not match each
        other, the graph may do more than compute, a property of a graph made
        elsewhere is unknown, or calibrated scores or training photos are
        requested and not in the graph.
    """
    read_again = graph_files.frozen_reader(path, allowed_ops)
    graph_def = graph_files.read_frozen(path, 'frozen graph', allowed_ops)
    info = graph_info.read(graph_def)
    if info is None:
      info = foreign_graphs.infer_info(graph_def, (), model_name,
                                       image_size, preprocessing_name)
    else:
      _check_same('--model_name', model_name, info.model_name)
      _check_same('--image_size', image_size, info.image_size)
      _check_same('--preprocessing_name', preprocessing_name,
                  info.preprocessing_name)
    if label_file:
      labels = label_files.read(label_file)
      if labels != info.labels and sorted(labels) == sorted(info.labels or []):
        raise InputError(
            'label file %r has the names of %r in another order: they belong '
            'to different graphs' % (label_file, path))
      info = info._replace(labels=labels)
    if not info.labels:
      info = info._replace(labels=_foreign_labels(graph_def, info, path))
    return cls(graph_def, info, batch_size, calibrated, num_nearest, options,
               read_again, with_features)

  @classmethod
  def from_checkpoint(cls, path: str, model_name: Optional[str] = None,
                      labels: Optional[List[str]] = None,
                      image_size: Optional[int] = None,
                      preprocessing_name: Optional[str] = None,
                      moving_average_decay: Optional[float] = None,
                      batch_size: int = 16,
                      temperature: Optional[float] = None,
                      num_nearest: int = 0,
                      options: forward_pass.Options = forward_pass.DEFAULT
                      ) -> 'Classifier':
    """Builds a network and loads a checkpoint's weights into it.

    Args:
      path: train directory or checkpoint. Arguments that are None are taken
        from the run.json beside it, if there is one.
      model_name: key of nets_factory; required if there is no run.json.
      labels: names by output index; None uses those of run.json, or ImageNet's
        if the checkpoint has 1000 or 1001 classes.
      image_size: height and width in pixels; None uses the network's own.
      preprocessing_name: key of preprocessing_factory; None: the network's.
      moving_average_decay: as for inference_graph.freeze.
      batch_size: maximum number of photos per forward pass.
      temperature: the scores are softmax(logits / temperature); None: the
        network's own.
      num_nearest: number of nearest training photos to return for each photo,
        if there is a known.npz beside the checkpoint.
      options: forward_pass.Options: which runtime and precision.

    Raises:
      InputError: the checkpoint is missing or does not match, or the network or
        the labels are unknown.
    """
    prefix = checkpoints.resolve(path)
    run = run_info.load(os.path.dirname(prefix))
    if run:
      _check_same('--model_name', model_name, run.model_name)
      model_name = run.model_name
      labels = labels or run.labels
      image_size = image_size or run.image_size
      preprocessing_name = preprocessing_name or run.preprocessing_name
    if not model_name:
      raise InputError('%s has no run.json beside it: give --model_name' %
                       prefix)
    labels = labels or _checkpoint_labels(prefix, model_name)
    bank = None
    facts: Dict[str, Any] = {} if run is None else dict(
        precision=run.precision, head=run_info.head_of(run),
        use_grayscale=run.use_grayscale, quantize=run.quantize)
    if run and (image_size, preprocessing_name) == (
        run.image_size, run.preprocessing_name):
      bank = reference_bank.load(
          prefix, moving_average_decay=moving_average_decay)
    with tf.Graph().as_default():
      info = inference_graph.build(model_name, labels, image_size,
                                   preprocessing_name, input_kind='encoded',
                                   temperature=temperature, bank=bank, **facts)
      graph_def = inference_graph.freeze(info, prefix, moving_average_decay)
    return cls(graph_def, info, batch_size, temperature is not None,
               num_nearest, options)

  def classify(self, encoded_photos: Sequence[bytes]) -> np.ndarray:
    """Scores photos.

    Args:
      encoded_photos: list of bytes, each an unmodified photo file.

    Returns:
      `[len(encoded_photos), num_classes]` float32 softmax scores.

    Raises:
      photos.PhotoError: one of them cannot be used.
    """
    results = self.classify_each(encoded_photos)
    for result in results:
      if isinstance(result, photos.PhotoError):
        raise result
    return np.reshape(np.array(results, np.float32), [-1, len(self.labels)])

  def classify_each(self, encoded_photos: Sequence[bytes]
                    ) -> List[Union[np.ndarray, photos.PhotoError]]:
    """Scores photos, some of which may be unusable.

    Args:
      encoded_photos: list of bytes, each an unmodified photo file.

    Returns:
      A list of the same length: for each photo `[num_classes]` float32, or a
      PhotoError with the reason why there is none.
    """
    return [result.scores if isinstance(result, Prediction) else result
            for result in self.predict_each(encoded_photos)]

  def predict_each(self, encoded_photos: Sequence[bytes]
                   ) -> List[PhotoResult]:
    """Returns all outputs for photos, some of which may be unusable.

    Args:
      encoded_photos: list of bytes, each an unmodified photo file.

    Returns:
      A list of the same length: for each photo a Prediction, or a PhotoError
      with the reason why there is none.
    """
    return self.predict_prepared([prepare(data) for data in encoded_photos])

  def decode(self, photo: Union[photos.Photo, photos.PhotoError]
             ) -> Union[np.ndarray, photos.PhotoError]:
    """Decodes and preprocesses a photo.

    Args:
      photo: the result of `prepare`.

    Returns:
      `[image_size, image_size, channels]` float32; or a PhotoError with the
      reason why there is none.
    """
    if isinstance(photo, photos.PhotoError):
      return photo
    try:
      return self._graph.images_of([photo.encoded])[0]
    except tf.errors.InvalidArgumentError as error:
      tf.logging.debug('TensorFlow refuses a photo: %s', error)
      return photos.PhotoError('TensorFlow cannot decode it')

  def predict_prepared(
      self, prepared: Sequence[Union[photos.Photo, np.ndarray,
                                     photos.PhotoError]],
      num_nearest: Optional[int] = None) -> List[PhotoResult]:
    """Returns what predict_each returns, for prepared or decoded photos.

    Args:
      prepared: list of the results of `prepare` or of `decode`.
      num_nearest: number of nearest training photos to return for each photo,
        if the graph holds any; None: that of the constructor.

    Returns:
      A list of the same length: for each photo a Prediction, or a PhotoError
      with the reason why there is none.
    """
    if num_nearest is None:
      num_nearest = self._num_nearest
    results: List[Any] = []
    for start in range(0, len(prepared), self._batch_size):
      results += self._predict_batch([
          self.decode(photo) if isinstance(photo, photos.Photo) else photo
          for photo in prepared[start:start + self._batch_size]], num_nearest)
    return results

  def _predict_batch(self, images, num_nearest):
    """Returns a Prediction for each image; errors stay as they are."""
    results = list(images)
    usable = [index for index, image in enumerate(images)
              if isinstance(image, np.ndarray)]
    if not usable:
      return results
    outputs = self._graph.outputs_of(
        np.stack([images[index] for index in usable]))
    # The shape in the graph may leave the number of classes undefined.
    label_files.check_count(self.labels, outputs['scores'].shape[-1],
                            'the list of labels')
    for row, index in enumerate(usable):
      results[index] = self._prediction(
          {name: values[row] for name, values in outputs.items()}, num_nearest)
    return results

  def heat_map(self, photo: photos.Photo, index: int,
               image: Optional[np.ndarray] = None) -> HeatMap:
    """Returns which regions of a photo raise the score of a class.

    Args:
      photo: the result of `prepare`.
      index: of the class.
      image: the result of `decode` for the photo; None: it is decoded here.

    Raises:
      InputError: the graph has no heat maps.
      photos.PhotoError: TensorFlow cannot decode the photo.
    """
    decoded = self.decode(photo) if image is None else image
    if isinstance(decoded, photos.PhotoError):
      raise decoded
    return heat_map_pictures.place(
        self.info, self.labels[index], self.heat_maps.compute(decoded, index),
        photo.height, photo.width)

  def warm_up(self) -> np.ndarray:
    """Classifies one black photo: the first run takes longer than later ones.

    Returns:
      `[num_classes]` float32, its scores.
    """
    with tf.Graph().as_default(), tf.Session() as session:
      black = tf.zeros([self.info.image_size] * 2 + [3], tf.uint8)
      photo = session.run(tf.io.encode_jpeg(black))
    return self.classify([photo])[0]

  def close(self) -> None:
    """Frees the graph."""
    self._graph.close()
    self.heat_maps.close()

  def _prediction(self, outputs, num_nearest):
    """Returns the Prediction for the outputs of one photo."""
    known = outputs.get('known')
    return Prediction(
        outputs['scores'], None if known is None else bool(known),
        None if known is None else float(outputs['similarity']),
        self._nearest(outputs['cosines'], num_nearest)
        if num_nearest and self.info.cosines else [], self.labels,
        features=_flat(outputs.get('features')))

  def _nearest(self, cosines, count):
    """Returns the Neighbours of a photo, given its cosines to the bank."""
    if self._bank is None:
      assert self.info.bank_filenames and self.info.bank_labels
      self._bank = self._graph.constants(
          [self.info.bank_filenames, self.info.bank_labels])
    files, labels = self._bank
    return [Neighbour(files[row].decode('utf-8', 'surrogateescape'),
                      self.labels[labels[row]], float(cosines[row]), int(row))
            for row in np.argsort(-cosines, kind='stable')[:count]]


def _flat(features):
  """Returns the features of a photo as [n], the mean over its places."""
  if features is None:
    return None
  return features.mean(axis=tuple(range(features.ndim - 1)))


def prepare(data: bytes, max_pixels: int = photos.MAX_PIXELS
            ) -> Union[photos.Photo, photos.PhotoError]:
  """Converts a photo as for a record file.

  This is the part of predict_each that needs no graph.

  Args:
    data: bytes of an unmodified photo file.
    max_pixels: largest width times height that is decoded.

  Returns:
    A photos.Photo, or a PhotoError with the reason why there is none.
  """
  try:
    return photos.normalize_photo(data, max_pixels)
  except photos.PhotoError as error:
    # A new error: the old one holds the decoder's frames, and so the pixels.
    return type(error)(*error.args)


def _check_same(flag, given, stored):
  if given is not None and given != stored:
    raise InputError('%s=%s contradicts what was exported or trained: %s' %
                     (flag, given, stored))


def _foreign_labels(graph_def, info, path):
  """Returns ImageNet's labels if a graph made elsewhere has as many classes."""
  with tf.Graph().as_default() as graph:
    graph_files.import_into_default(graph_def)
    size = staged_graph.last_dimension(
        staged_graph.find_tensor(graph, info.predictions))
  labels = imagenet_names.labels_of(size)
  if labels is None:
    raise InputError('%r has no labels in it: give --label_file' % path)
  return labels


def _checkpoint_labels(prefix, model_name):
  """Returns ImageNet's labels for a published checkpoint."""
  size = inference_graph.num_classes(prefix, model_name)
  if size is None:
    raise InputError('%s has no classifier of the network %r: check '
                     '--model_name' % (prefix, model_name))
  labels = imagenet_names.labels_of(size)
  if labels is None:
    raise InputError('%s has %d classes, whose names it does not hold: give '
                     '--label_file' % (prefix, size))
  return labels
