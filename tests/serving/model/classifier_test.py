"""Tests of classifier.py: frozen graphs, checkpoints and foreign graphs."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from common import files, label_files
from common.errors import InputError
from compat import slim, tf
from datasets import imagenet_names
from datasets.photo_files.photos import Photo, PhotoError
from kits import graph_kit
from kits import serving_kit as kit
from runtime import forward_pass, openvino_model
from serving.model import inference_graph
from serving.model.classifier import Classifier, prepare

PHOTOS = [kit.make_photo(seed) for seed in range(5)]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  return kit.save_checkpoint(tmp_path_factory.mktemp('train'), 'cifarnet')


@pytest.fixture(scope='module')
def frozen(tmp_path_factory, trained):
  """Paths of frozen graphs by kind; 'foreign': as slim's scripts write it."""
  folder = tmp_path_factory.mktemp('frozen')
  paths = {}
  for kind, input_kind, batch_size in (
      ('encoded', 'encoded', None), ('float', 'float', None),
      ('fixed', 'float', 2), ('fixed_encoded', 'encoded', 2)):
    with tf.Graph().as_default():
      info = inference_graph.build('cifarnet', kit.LABELS, kit.SIZE,
                                   input_kind=input_kind,
                                   batch_size=batch_size)
      graph_def = inference_graph.freeze(info, trained)
    paths[kind] = str(folder / (kind + '.pb'))
    files.write_bytes(paths[kind], graph_def.SerializeToString())
  with tf.Graph().as_default():
    info = inference_graph.build('cifarnet', kit.LABELS, kit.SIZE)
    graph_def = inference_graph.freeze(info, trained)
  foreign = tf.graph_util.extract_sub_graph(
      graph_def, [info.predictions.split(':')[0]])
  paths['foreign'] = str(folder / 'foreign.pb')
  files.write_bytes(paths['foreign'], foreign.SerializeToString())
  return paths


@pytest.fixture(scope='module')
def label_file(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('labels') / 'a.label')
  label_files.write(path, kit.LABELS)
  return path


@pytest.fixture(scope='module')
def scores(trained):
  return Classifier.from_checkpoint(trained).classify(PHOTOS)


@pytest.mark.parametrize('kind', ['encoded', 'float', 'fixed', 'foreign'])
def test_classify_frozen_graph_agrees_with_checkpoint(frozen, label_file,
                                                      scores, kind):
  classifier = Classifier.from_frozen_graph(
      frozen[kind], label_file if kind == 'foreign' else None)
  assert classifier.labels == kit.LABELS
  actual = classifier.classify(PHOTOS)
  assert (actual.shape, actual.dtype) == ((5, 5), np.float32)
  np.testing.assert_allclose(actual, scores, atol=1e-5)
  np.testing.assert_allclose(actual.sum(axis=1), 1, atol=1e-5)
  assert len(set(scores.argmax(axis=1))) > 1, 'photos must differ'


@pytest.mark.parametrize('kind', ['encoded', 'float', 'fixed',
                                  'fixed_encoded', 'foreign'])
@pytest.mark.parametrize('runtime', ['openvino', 'tensorflow'])
def test_classify_in_each_runtime_returns_the_same_scores(
    frozen, label_file, scores, kind, runtime):
  classifier = Classifier.from_frozen_graph(
      frozen[kind], label_file if kind == 'foreign' else None,
      options=forward_pass.Options(runtime))
  assert classifier.choice == (runtime, 'float32')
  np.testing.assert_allclose(classifier.classify(PHOTOS), scores, atol=1e-5)


def test_classify_without_openvino_returns_the_same_scores(frozen, scores,
                                                           monkeypatch):
  monkeypatch.setattr(openvino_model, 'is_installed', lambda: False)
  classifier = Classifier.from_frozen_graph(frozen['encoded'])
  assert classifier.choice.runtime == 'tensorflow'
  np.testing.assert_allclose(classifier.classify(PHOTOS), scores, atol=1e-5)


def test_predict_prepared_takes_photos_that_are_decoded_or_not(frozen, scores):
  classifier = Classifier.from_frozen_graph(frozen['encoded'], batch_size=2)
  photos = [prepare(data) for data in PHOTOS]
  photos[1:3] = [classifier.decode(photo) for photo in photos[1:3]]
  assert photos[1].shape == (kit.SIZE, kit.SIZE, 3)
  np.testing.assert_allclose(
      [prediction.scores for prediction in classifier.predict_prepared(photos)],
      scores, atol=1e-5)


@pytest.mark.parametrize('batch_size', [1, 2, 16])
def test_classify_any_batch_size_returns_the_same_scores(frozen, scores,
                                                         batch_size):
  classifier = Classifier.from_frozen_graph(frozen['encoded'],
                                            batch_size=batch_size)
  np.testing.assert_allclose(classifier.classify(PHOTOS), scores, atol=1e-5)
  assert classifier.classify([]).shape == (0, 5)


def test_classify_each_bad_photo_fails_that_photo_only(frozen, scores):
  classifier = Classifier.from_frozen_graph(frozen['encoded'])
  results = classifier.classify_each([PHOTOS[0], b'', PHOTOS[1],
                                      PHOTOS[2][:200], b'text', PHOTOS[2]])
  assert [isinstance(result, PhotoError) for result in results] == [
      False, True, False, True, True, False]
  np.testing.assert_allclose(np.stack(results[0::2][:2] + results[5:]),
                             scores[:3], atol=1e-5)
  with pytest.raises(PhotoError, match='empty'):
    classifier.classify([PHOTOS[0], b''])


def test_classify_each_photo_refused_only_by_tensorflow_is_an_error(
    frozen, scores, monkeypatch):
  classifier = Classifier.from_frozen_graph(frozen['encoded'])
  monkeypatch.setattr('datasets.photo_files.photos.normalize_photo',
                      lambda data, _: Photo(data, 40, 52))
  truncated = PHOTOS[3][:PHOTOS[3].rfind(b'\xff\xda') + 12]
  results = classifier.classify_each([PHOTOS[0], truncated, PHOTOS[1]])
  assert isinstance(results[1], PhotoError)
  np.testing.assert_allclose([results[0], results[2]], scores[:2], atol=1e-5)


def test_classify_rotated_photo_follows_its_exif_orientation(frozen):
  classifier = Classifier.from_frozen_graph(frozen['encoded'])
  upright = Image.open(io.BytesIO(PHOTOS[0]))
  rotated = upright.transpose(Image.ROTATE_90)
  exif = Image.Exif()
  exif[0x0112] = 6  # Rotate by 90 degrees clockwise to display.
  streams = [io.BytesIO(), io.BytesIO()]
  rotated.save(streams[0], 'JPEG', quality=100, exif=exif)
  rotated.save(streams[1], 'JPEG', quality=100)
  actual = classifier.classify(
      [PHOTOS[0]] + [stream.getvalue() for stream in streams])
  np.testing.assert_allclose(actual[1], actual[0], atol=0.1)
  assert np.abs(actual[2] - actual[0]).max() > 0.2


def test_classify_from_many_threads_returns_their_own_scores(frozen, scores):
  classifier = Classifier.from_frozen_graph(frozen['float'])
  wrong_indices = []

  def work(index):
    for _ in range(5):
      actual = classifier.classify([PHOTOS[index]])[0]
      if np.abs(actual - scores[index]).max() > 1e-5:
        wrong_indices.append(index)

  threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong_indices


def test_close_after_warm_up_refuses_to_classify(frozen):
  classifier = Classifier.from_frozen_graph(frozen['fixed'])
  classifier.warm_up()
  classifier.close()
  with pytest.raises(RuntimeError, match='closed'):
    classifier.classify(PHOTOS)


def test_from_frozen_graph_label_file_overrides_labels_of_the_graph(
    frozen, tmp_path):
  path = tmp_path / 'a.label'
  path.write_text('a\nb\nc\nd\ne\n')
  classifier = Classifier.from_frozen_graph(frozen['encoded'], str(path))
  assert classifier.labels == list('abcde')
  path.write_text('a\nb\nc\nd\n')
  for kind in ('encoded', 'foreign'):
    with pytest.raises(InputError, match='4 classes, the network has 5'):
      Classifier.from_frozen_graph(frozen[kind], str(path))


def test_classify_graph_with_unknown_number_of_outputs(tmp_path):
  path = str(graph_kit.write(tmp_path))
  stream = io.BytesIO()
  Image.new('RGB', (40, 30), (20, 200, 30)).save(stream, 'JPEG')
  classifier = Classifier.from_frozen_graph(path)
  prediction, = classifier.predict_each([stream.getvalue()])
  assert classifier.labels[prediction.scores.argmax()] == 'tulip'
  assert prediction.known
  label_files.write(str(tmp_path / 'two.label'), ['a', 'b'])
  classifier = Classifier.from_frozen_graph(path, str(tmp_path / 'two.label'))
  with pytest.raises(InputError, match='has 2 classes, .* 3 outputs'):
    classifier.classify([stream.getvalue()])


def test_from_frozen_graph_labels_in_another_order_are_refused(tmp_path):
  path = str(graph_kit.write(tmp_path))
  labels = str(tmp_path / 'other.label')
  label_files.write(labels, ['rose', 'daisy', 'tulip'])
  with pytest.raises(InputError, match='other.label. has the names of .* in '
                     'another order'):
    Classifier.from_frozen_graph(path, labels)
  label_files.write(labels, ['Gänseblümchen', 'Tulpe', 'Rose'])
  assert Classifier.from_frozen_graph(path, labels).labels[1] == 'Tulpe'


def test_from_frozen_graph_invalid_file_is_refused(tmp_path):
  path = tmp_path / 'a.pb'
  with pytest.raises(InputError, match='frozen graph .*a.pb.*No such file'):
    Classifier.from_frozen_graph(str(path))
  path.write_bytes(b'\xff' * 100)
  with pytest.raises(InputError, match='is not a GraphDef'):
    Classifier.from_frozen_graph(str(path))
  path.write_bytes(b'')
  with pytest.raises(InputError, match='contains no graph'):
    Classifier.from_frozen_graph(str(path))


def test_from_frozen_graph_unfrozen_is_refused(tmp_path):
  path = str(tmp_path / 'a.pb')
  with tf.Graph().as_default() as graph:
    info = inference_graph.build('cifarnet', kit.LABELS)
    plain = graph.as_graph_def()
    with_info = inference_graph.to_graph_def(info)
  for graph_def in (plain, with_info):
    files.write_bytes(path, graph_def.SerializeToString())
    with pytest.raises(InputError, match='not frozen.*--frozen_file'):
      Classifier.from_frozen_graph(path)


@pytest.mark.parametrize('flag, value', [
    ('model_name', 'lenet'), ('image_size', 64), ('preprocessing_name', 'vgg'),
])
def test_from_frozen_graph_contradicting_flag_is_refused(frozen, flag, value):
  with pytest.raises(InputError, match='--%s=%s contradicts' % (flag, value)):
    Classifier.from_frozen_graph(frozen['encoded'], **{flag: value})


def test_from_frozen_graph_foreign_needs_labels(frozen):
  with pytest.raises(InputError, match='no labels in it: give --label_file'):
    Classifier.from_frozen_graph(frozen['foreign'])


def test_from_frozen_graph_foreign_with_1000_outputs_gets_imagenet_names(
    tmp_path):
  path = str(tmp_path / 'a.pb')
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, [None, None, None, 3], 'anything')
    scores = tf.nn.softmax(tf.tile(tf.reduce_mean(images, [1, 2]), [1, 333]))
    tf.identity(tf.concat([scores, scores[:, :1]], 1)[:, :1000])
    scores = tf.nn.softmax(tf.concat([scores, scores[:, :1]], 1))
    graph_def = tf.graph_util.extract_sub_graph(graph.as_graph_def(),
                                                [scores.op.name])
  files.write_bytes(path, graph_def.SerializeToString())
  with pytest.raises(InputError, match='--preprocessing_name and --image_size'):
    Classifier.from_frozen_graph(path)
  classifier = Classifier.from_frozen_graph(path, preprocessing_name='vgg',
                                            image_size=24)
  assert classifier.labels == imagenet_names.labels()[1:]
  assert classifier.classify(PHOTOS[:2]).shape == (2, 1000)


@pytest.mark.parametrize('change, message', [
    ('string', 'takes string; accepted'),
    ('flat', r'shape \[None, 12\], accepted'),
    ('oblong', '8 x 9, accepted: square'),
    ('no_softmax', 'must end in one softmax, found: none'),
    ('two', 'must end in one softmax, found: a, b'),
    ('no_input', 'no placeholder `input`.*: none'),
])
def test_from_frozen_graph_foreign_unsupported_input_or_output_is_refused(
    tmp_path, change, message):
  with tf.Graph().as_default() as graph:
    shape = {'flat': [None, 12], 'oblong': [None, 8, 9, 3]}.get(
        change, [None, 8, 8, 3])
    images = tf.placeholder(
        tf.string if change == 'string' else tf.float32, shape, 'input')
    if change == 'string':
      images = tf.decode_raw(images, tf.float32)
    if change == 'no_input':
      images = tf.zeros([1, 3])
    for name in {'two': 'ab', 'no_softmax': ''}.get(change, 'a'):
      tf.nn.softmax(slim.flatten(images), name=name)
    graph_def = graph.as_graph_def()
  if change == 'no_input':
    graph_def = tf.graph_util.extract_sub_graph(graph_def, ['a'])
  path = str(tmp_path / 'a.pb')
  files.write_bytes(path, graph_def.SerializeToString())
  with pytest.raises(InputError, match=message):
    Classifier.from_frozen_graph(path, None, 'cifarnet')


def test_from_checkpoint_without_run_json_needs_network_and_labels(
    tmp_path, scores):
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet', with_run=False)
  with pytest.raises(InputError, match='no run.json.*--model_name'):
    Classifier.from_checkpoint(prefix)
  with pytest.raises(InputError, match='5 classes, whose names.*--label_file'):
    Classifier.from_checkpoint(prefix, 'cifarnet')
  with pytest.raises(InputError, match="no classifier of the network 'lenet'"):
    Classifier.from_checkpoint(prefix, 'lenet')
  with pytest.raises(InputError, match='for 5 classes, the labels name 2'):
    Classifier.from_checkpoint(prefix, 'cifarnet', ['a', 'b'])
  classifier = Classifier.from_checkpoint(prefix, 'cifarnet', list('abcde'))
  assert classifier.labels == list('abcde')
  np.testing.assert_allclose(classifier.classify(PHOTOS), scores, atol=1e-5)


def test_from_checkpoint_network_other_than_in_run_json_is_refused(trained):
  with pytest.raises(InputError, match='--model_name=lenet contradicts'):
    Classifier.from_checkpoint(trained, 'lenet')


@pytest.mark.parametrize('size', [1000, 1001])
def test_from_checkpoint_published_checkpoint_gets_imagenet_names(
    tmp_path, size):
  prefix = kit.save_checkpoint(tmp_path, 'lenet', ['x'] * size, 28,
                               with_run=False)
  classifier = Classifier.from_checkpoint(prefix, 'lenet')
  assert classifier.labels == imagenet_names.labels()[-size:]
  assert classifier.classify(PHOTOS[:1]).shape == (1, size)


def test_prepare_error_holds_no_reference_to_the_photo():
  data = kit.make_photo(0)
  error = prepare(data[:len(data) // 2], 10 ** 6)
  assert isinstance(error, PhotoError) and str(error)
  assert error.__traceback__ is error.__context__ is error.__cause__ is None
