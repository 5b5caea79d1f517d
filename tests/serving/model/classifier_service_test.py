"""Tests of classifier_service.py: predictions, and reloading of the graph."""

import gc
import hashlib
import json
import os
import threading
import time
import weakref

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from datasets.photo_files.photos import PhotoError
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from ood import reference_bank
from runtime import forward_pass
from serving.model import (
  classifier_service,
  deadlines,
  evaluations,
  example_photos,
  inference_graph,
)
from serving.model.batching import ShuttingDown
from serving.model.classifier import Classifier, prepare
from serving.model.predictions import Details

OTHER_LABELS = ['gull', 'heron', 'ibis']


@pytest.fixture(scope='module')
def graphs(tmp_path_factory):
  """Paths of two frozen graphs with different classes."""
  folder = tmp_path_factory.mktemp('graphs')
  return [load_kit.export(folder, 'a'),
          load_kit.export(folder, 'b', OTHER_LABELS)]


@pytest.fixture
def path(graphs, tmp_path):
  """Path of a copy of the first graph, which a test may change."""
  path = tmp_path / 'served.pb'
  load_kit.replace_file(graphs[0], path)
  return path


@pytest.fixture
def serve(path, monkeypatch):
  """Function that makes a Service of `path`, which checks it frequently.

  Closes all services at the end.
  """
  monkeypatch.setattr(classifier_service, '_STABLE_SECS', 0.15)
  services = []

  def serve(**options):
    options.setdefault('reload_secs', 0.05)
    services.append(load_kit.make_service(path, **options))
    return services[-1]

  yield serve
  for service in services:
    assert service.close(20)


def classify_alone(path, photo):
  """Returns the scores of one photo, classified without a Service."""
  classifier = Classifier.from_frozen_graph(str(path))
  scores, = classifier.classify([photo])
  classifier.close()
  return scores


def swap_count(service):
  return service.counts()['swaps']


def failed_swap_count(service):
  return service.counts()['failed_swaps']


def test_predict_each_agrees_with_the_classifier(serve, graphs):
  photos = [kit.make_photo(seed) for seed in range(5)]
  photos.insert(2, b'text')
  predictions = serve(batch_size=4).predict_each(photos)
  assert isinstance(predictions[2], PhotoError)
  for photo, prediction in zip(photos, predictions):
    if photo != b'text':
      np.testing.assert_allclose(
          prediction.scores, classify_alone(graphs[0], photo), atol=1e-5)
      assert prediction.labels == kit.LABELS
      assert prediction.sha256 == hashlib.sha256(
          graphs[0].read_bytes()).hexdigest()


def test_predict_each_returns_what_is_requested_for_the_photos(serve, path):
  service = serve(batch_size=4)
  assert service.can_explain and not service.has_nearest
  photos = [kit.make_photo(seed) for seed in range(2)]
  for explain in ('', kit.LABELS[3]):
    for photo, prediction in zip(photos, service.predict_each(
        photos + [b'text'], details=Details(explain))):
      index = (kit.LABELS.index(explain) if explain else
               prediction.scores.argmax())
      alone = Classifier.from_frozen_graph(str(path))
      expected = alone.heat_map(prepare(photo), index)
      alone.close()
      assert prediction.heat_map.label == expected.label == kit.LABELS[index]
      np.testing.assert_allclose(prediction.heat_map.values, expected.values,
                                 atol=1e-4)
  assert service.predict_each(photos)[0].heat_map is None
  assert service.predict_each(photos, details=Details('gull'))[
      0].heat_map is None


def test_predict_each_heat_map_after_the_file_has_changed_is_none(
    serve, path, graphs):
  service = serve(reload_secs=0)
  load_kit.replace_file(graphs[1], path)
  prediction, = service.predict_each([kit.make_photo(0)], details=Details(''))
  assert prediction.heat_map is None and prediction.labels == kit.LABELS


def test_predict_each_nearest_photos_have_pictures(path, serve):
  """Their pictures are those of their rows in the graph that was used."""
  rng = np.random.RandomState(0)
  bank = reference_bank.set_threshold(
      reference_bank.assemble(rng.uniform(size=(12, 192)), np.arange(12) % 5),
      np.zeros(3), np.zeros([3, 5]), 'validation')
  prefix = kit.save_checkpoint(path.parent / 'train', 'cifarnet')
  with tf.Graph().as_default():
    info = inference_graph.build('cifarnet', kit.LABELS, kit.SIZE,
                                 input_kind='encoded', bank=bank)
    path.write_bytes(inference_graph.freeze(info, prefix).SerializeToString())
  pictures = [kit.make_photo(seed) for seed in range(11)] + [b'']
  example_photos.replace(str(path), example_photos.to_bytes(
      os.path.basename(prefix), {}, pictures))
  service = serve()
  assert service.has_nearest
  prediction, = service.predict_each([kit.make_photo(0)],
                                     details=Details(nearest=12))
  near = prediction.nearest
  assert sorted(photo.row for photo in near) == list(range(12))
  assert [photo.similarity for photo in near] == sorted(
      (photo.similarity for photo in near), reverse=True)
  for photo in near:
    assert photo.label == kit.LABELS[photo.row % 5]
    assert photo.picture == (pictures[photo.row] or None)
  assert service.predict_each([kit.make_photo(0)])[0].nearest == []


def test_service_observes_metrics_of_photos_and_batches(serve):
  observed = []
  service = serve(batch_size=2,
                  observe=lambda name, value: observed.append((name, value)))
  service.predict_each([kit.make_photo(0), b'text', kit.make_photo(1)])
  values_by_name = {name: [value for other, value in observed if other == name]
                    for name, _ in observed}
  assert values_by_name['classifier_photo_pixels'] == [40 * 52] * 2
  assert len(values_by_name['classifier_decode_duration_seconds']) == 3
  assert sum(values_by_name['classifier_batch_size']) == 2
  assert len(values_by_name['classifier_queue_duration_seconds']) == 2
  assert values_by_name.pop('classifier_forward_duration_seconds')[0] > 0
  assert len(values_by_name) == 4


def test_model_info_describes_the_served_graph(serve, path):
  info = serve().model_info()
  data = path.read_bytes()
  assert info.pop('loaded_at').startswith('20')
  assert info == dict(
      name='cifarnet', classes=kit.LABELS, image_size=32, file='served.pb',
      bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
      checkpoint='model.ckpt-7', known=False, evaluation=None,
      runtime=forward_pass.choose(forward_pass.DEFAULT).name(),
      precision='float32')


def test_predict_each_photo_with_too_many_pixels_is_refused(serve):
  error, = serve(max_pixels=40 * 51).predict_each([kit.make_photo(0)])
  assert 'more than the limit of 2040' in str(error)


def test_service_large_photos_do_not_share_a_batch(serve, monkeypatch):
  sizes = []
  predict = Classifier.predict_prepared

  def recording_predict(self, prepared, *options):
    sizes.append(len(prepared))
    return predict(self, prepared, *options)

  monkeypatch.setattr(Classifier, 'predict_prepared', recording_predict)
  small, large = kit.make_photo(0), kit.make_photo(0, height=80, width=100)
  service = serve(max_pixels=80 * 100)
  sizes.clear()
  assert len(service.predict_each([small, small, large, small])) == 4
  assert sum(sizes) == 4
  assert 1 in sizes


@pytest.mark.parametrize('limit', ['_SMALL_PIXELS', '_LARGE_PIXELS'])
def test_service_waiting_large_photos_leave_a_decode_slot_for_small_ones(
    serve, monkeypatch, limit):
  monkeypatch.setattr(classifier_service, limit, 80 * 100 - 1)
  monkeypatch.setattr(os, 'cpu_count', lambda: 1)
  small, large = kit.make_photo(0), kit.make_photo(0, height=80, width=100)
  service = serve()
  decoding, go = threading.Event(), threading.Event()
  prepare = classifier_service.prepare

  def prepare_slowly(data, max_pixels):
    if data == large:
      decoding.set()
      assert go.wait(20)
    return prepare(data, max_pixels)

  monkeypatch.setattr(classifier_service, 'prepare', prepare_slowly)
  predictions = []
  clients = [threading.Thread(
      target=lambda: predictions.extend(service.predict_each([large])))
      for _ in range(2)]
  for client in clients:
    client.start()
  assert decoding.wait(20)
  load_kit.wait_until(lambda: service.counts()['queue_length'] == 2)
  finished = threading.Event()
  small_client = threading.Thread(target=lambda: (service.predict_each([small]),
                                                  finished.set()))
  small_client.start()
  in_time = finished.wait(5)
  go.set()
  for thread in [*clients, small_client]:
    thread.join(20)
  assert in_time
  assert len(predictions) == 2


def test_decode_slots_go_to_first_photos_of_requests_first():
  slots, order, go = deadlines.DecodeSlots(1), [], threading.Event()
  no_deadline = deadlines.Deadline()

  def decode(name, index):
    with slots.take(index, no_deadline):
      order.append(name)
      assert go.wait(20)

  def start(name, index):
    thread = threading.Thread(target=decode, args=(name, index))
    thread.start()
    return thread

  threads = [start('holds the slot', 0)]
  load_kit.wait_until(lambda: order)
  for number, (name, index) in enumerate([('third', 2), ('second', 1),
                                          ('first', 0), ('later', 0)], 1):
    threads.append(start(name, index))
    load_kit.wait_until(lambda n=number: len(slots._waiting) == n)
  with pytest.raises(deadlines.TimedOut):
    with slots.take(0, deadlines.Deadline(0.01)):
      pass
  go.set()
  for thread in threads:
    thread.join(20)
  assert order == ['holds the slot', 'first', 'later', 'second', 'third']


def test_service_photo_of_a_disconnected_client_is_not_decoded(serve,
                                                               monkeypatch):
  monkeypatch.setattr('serving.model.deadlines._CHECK_SECS', 0.01)
  monkeypatch.setattr(os, 'cpu_count', lambda: 1)
  service, decoded = serve(), []
  decoding, go = threading.Event(), threading.Event()
  disconnected = threading.Event()

  def prepare_slowly(data, max_pixels):
    decoded.append(data)
    decoding.set()
    assert go.wait(20)
    return PhotoError('of no concern')

  monkeypatch.setattr(classifier_service, 'prepare', prepare_slowly)
  first = threading.Thread(target=service.predict_each, args=([b'first'],))
  first.start()
  assert decoding.wait(20)
  errors = []

  def predict_and_leave():
    with pytest.raises(deadlines.ClientDisconnected) as caught:
      service.predict_each([b'second'], deadlines.Deadline(
          is_disconnected=disconnected.is_set))
    errors.append(caught.value)

  second = threading.Thread(target=predict_and_leave)
  second.start()
  load_kit.wait_until(lambda: service.counts()['queue_length'] == 2)
  disconnected.set()
  second.join(20)
  go.set()
  first.join(20)
  assert len(errors) == 1
  assert decoded == [b'first']
  assert service.counts()['left'] == 1


def test_service_graph_with_nan_scores_is_refused_at_startup(path, monkeypatch):
  def nan_scores(self):
    return np.full([5], np.nan, np.float32)

  monkeypatch.setattr(Classifier, 'warm_up', nan_scores)
  with pytest.raises(InputError, match='are not probabilities'):
    load_kit.make_service(path)


@pytest.mark.parametrize('scores, message', [
    ([0.5, 0.5, 0.5, 0, 0], 'not probabilities: sum 1.5'),
    ([1.5, -0.5, 0, 0, 0], 'not probabilities: .*smallest -0.5'),
    ([0.5, 0.5], 'gives 2 scores per photo, but has 5 labels'),
])
def test_service_graph_with_scores_not_probabilities_is_refused(
    path, monkeypatch, scores, message):
  monkeypatch.setattr(Classifier, 'warm_up',
                      lambda self: np.array(scores, np.float32))
  with pytest.raises(InputError, match=message):
    load_kit.make_service(path)


def test_reload_changed_graph_serves_later_requests(serve, path, graphs):
  service = serve()
  photo = kit.make_photo(1)
  info_before = service.model_info()
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: swap_count(service))
  assert service.labels == OTHER_LABELS
  prediction, = service.predict_each([photo])
  assert prediction.labels == OTHER_LABELS
  assert prediction.sha256 == service.model_info()['sha256']
  np.testing.assert_allclose(
      prediction.scores, classify_alone(graphs[1], photo), atol=1e-5)
  assert service.model_info()['classes'] == OTHER_LABELS
  assert service.model_info()['sha256'] != info_before['sha256']
  assert failed_swap_count(service) == 0


def test_reload_changed_graph_changes_examples_and_evaluation(
    serve, path, graphs, tmp_path):
  def write_examples(label):
    example_photos.replace(str(path), example_photos.to_bytes(
        'model.ckpt-7', {label: kit.make_photo(3)}))

  write_examples(kit.LABELS[0])
  service = serve()
  assert list(service.examples) == kit.LABELS[:1]
  assert service.model_info()['evaluation'] is None
  write_lines(tmp_path / 'metrics.jsonl', json.dumps(
      dict(checkpoint='model.ckpt-7', split='test', accuracy=0.75)))
  write_examples(OTHER_LABELS[1])
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: service.labels == OTHER_LABELS)
  assert list(service.examples) == OTHER_LABELS[1:2]
  assert service.model_info()['evaluation']['accuracy'] == 0.75
  # Examples that are removed are no longer shown.
  example_photos.replace(str(path), None)
  load_kit.wait_until(lambda: not service.examples)
  assert failed_swap_count(service) == 0


@pytest.mark.slow
def test_reload_under_load_fails_no_request(serve, path, graphs):
  service = serve(batch_size=3, window_secs=0.001)
  photos = [kit.make_photo(seed) for seed in range(4)]
  expected = {tuple(labels): [classify_alone(graph, photo) for photo in photos]
              for graph, labels in zip(graphs, (kit.LABELS, OTHER_LABELS))}
  stop, errors, label_counts = threading.Event(), [], []

  def client():
    while not stop.is_set():
      try:
        predictions = service.predict_each(photos)
        for index, prediction in enumerate(predictions):
          expected_scores = expected[tuple(prediction.labels)][index]
          assert np.abs(prediction.scores - expected_scores).max() < 1e-5
          label_counts.append(len(prediction.labels))
      except Exception as error:  # No client may get any kind of error.
        errors.append(error)
        return

  clients = [threading.Thread(target=client) for _ in range(6)]
  for thread in clients:
    thread.start()
  for number in range(1, 4):
    load_kit.replace_file(graphs[number % 2], path)
    load_kit.wait_until(lambda number=number: swap_count(service) == number)
  count = len(label_counts)
  load_kit.wait_until(lambda: len(label_counts) > count + 50)
  stop.set()
  for thread in clients:
    thread.join(20)
  assert errors == []
  assert set(label_counts) == {3, 5}
  assert failed_swap_count(service) == 0


def test_reload_waits_for_the_running_batch(serve, path, graphs, monkeypatch):
  go, running, running_at_close = threading.Event(), threading.Event(), []
  predict, close = Classifier.predict_prepared, Classifier.close

  def slow_predict(self, prepared, *options):
    running.set()
    assert go.wait(20)
    results = predict(self, prepared, *options)
    running.clear()
    return results

  def recording_close(self):
    running_at_close.append(running.is_set())
    close(self)

  service = serve(window_secs=0)
  monkeypatch.setattr(Classifier, 'predict_prepared', slow_predict)
  monkeypatch.setattr(Classifier, 'warm_up',
                      lambda self: np.array([1, 0, 0], np.float32))
  monkeypatch.setattr(Classifier, 'close', recording_close)
  predictions = []
  client = threading.Thread(target=lambda: predictions.extend(
      service.predict_each([kit.make_photo(0)])))
  client.start()
  assert running.wait(20)
  load_kit.replace_file(graphs[1], path)
  time.sleep(2)
  assert (service.labels, running_at_close) == (kit.LABELS, [])
  go.set()
  client.join(20)
  load_kit.wait_until(lambda: swap_count(service))
  assert predictions[0].labels == kit.LABELS
  assert (service.labels, running_at_close) == (OTHER_LABELS, [False])


def test_photo_decoded_for_the_previous_graph_is_decoded_again(serve, path,
                                                               graphs):
  service = serve()
  photo = kit.make_photo(0)
  decoded = service._prepare(classifier_service._Photo(photo, 0, 0, Details()),
                             deadlines.Deadline())
  assert decoded.classifier is service._current.classifier
  spoiled = decoded._replace(image=np.zeros_like(decoded.image))
  np.testing.assert_raises(
      AssertionError, np.testing.assert_allclose,
      service._predict([spoiled])[0].scores, classify_alone(path, photo))
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: swap_count(service))
  np.testing.assert_allclose(service._predict([spoiled])[0].scores,
                             classify_alone(path, photo), atol=1e-5)


def test_reload_frees_the_previous_graph(serve, path, graphs):
  service = serve()
  previous = weakref.ref(service._current.classifier)
  graph = weakref.ref(service._current.classifier._graph._session.graph)
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: swap_count(service))
  gc.collect()
  assert previous() is None
  assert graph() is None


@pytest.mark.parametrize('damage, reason', [
    (lambda data: b'\xff\xff no graph', 'neither binary nor text'),
    (lambda data: data[:len(data) // 2], ''),
    (lambda data: b'', 'contains no graph'),
])
def test_reload_broken_file_is_rejected_once(serve, path, graphs, log, damage,
                                             reason):
  service = serve()
  info_before = service.model_info()
  path.write_bytes(damage(graphs[1].read_bytes()))
  load_kit.wait_until(lambda: failed_swap_count(service))
  time.sleep(0.5)
  assert (failed_swap_count(service), swap_count(service)) == (1, 0)
  lines = [line for line in log.text.splitlines() if 'rejected the' in line]
  assert len(lines) == 1
  assert reason in lines[0]
  assert service.model_info() == info_before
  assert service.predict_each([kit.make_photo(0)])[0].labels == kit.LABELS
  assert service.is_ready()
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: swap_count(service))
  assert service.labels == OTHER_LABELS


def test_reload_graph_with_wrong_scores_is_rejected(serve, path, graphs,
                                                    monkeypatch):
  service = serve()
  monkeypatch.setattr(Classifier, 'warm_up',
                      lambda self: np.zeros([3], np.float32))
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: failed_swap_count(service))
  assert service.labels == kit.LABELS


def test_reload_waits_until_the_file_is_complete(serve, path, graphs):
  service = serve()
  data = graphs[1].read_bytes()
  step = len(data) // 12
  with open(str(path), 'wb') as file:
    for start in range(0, len(data), step):
      file.write(data[start:start + step])
      file.flush()
      time.sleep(0.05)
  load_kit.wait_until(lambda: swap_count(service))
  assert failed_swap_count(service) == 0
  assert service.labels == OTHER_LABELS


def test_reload_file_replaced_while_loading_is_rejected(path, graphs, serve):
  loads = []

  def load():
    classifier = Classifier.from_frozen_graph(str(path))
    loads.append(1)
    if len(loads) == 2:
      load_kit.replace_file(graphs[0], path)
    return classifier

  service = serve(load=load)
  load_kit.replace_file(graphs[1], path)
  load_kit.wait_until(lambda: swap_count(service))
  assert (failed_swap_count(service), service.labels) == (1, kit.LABELS)


def test_reload_deleted_file_keeps_the_loaded_graph(serve, path):
  service = serve()
  os.remove(str(path))
  time.sleep(0.5)
  assert (failed_swap_count(service), swap_count(service)) == (0, 0)
  assert service.predict_each([kit.make_photo(0)])[0].labels == kit.LABELS


def test_reload_disabled_keeps_the_loaded_graph(serve, path, graphs):
  service = serve(reload_secs=0)
  load_kit.replace_file(graphs[1], path)
  time.sleep(0.5)
  assert (service.labels, swap_count(service)) == (kit.LABELS, 0)


def test_reload_changed_label_file_changes_the_labels(path, tmp_path,
                                                      monkeypatch):
  monkeypatch.setattr(classifier_service, '_STABLE_SECS', 0.1)
  label_file = tmp_path / 'names.label'
  label_file.write_text('a\nb\nc\nd\ne\n')
  service = classifier_service.Service(classifier_service.GraphSource(
      lambda: Classifier.from_frozen_graph(str(path), str(label_file)),
      str(path), str(label_file)), reload_secs=0.05)
  label_file.write_text('a\nb\nc\n')
  load_kit.wait_until(lambda: failed_swap_count(service))
  label_file.write_text('v\nw\nx\ny\nz\n')
  load_kit.wait_until(lambda: swap_count(service))
  assert service.labels == ['v', 'w', 'x', 'y', 'z']
  assert service.close(20)


def test_close_refuses_later_requests(serve):
  service = serve()
  assert service.is_ready()
  service.begin_shutdown()
  assert not service.is_ready()
  assert len(service.predict_each([kit.make_photo(0)])) == 1
  assert service.close(20)
  with pytest.raises(ShuttingDown):
    service.predict_each([kit.make_photo(0)])


def write_lines(path, *lines):
  os.makedirs(os.path.dirname(str(path)), exist_ok=True)
  path.write_text(''.join(line + '\n' for line in lines))


def test_read_evaluation_returns_the_last_of_the_checkpoint(tmp_path):
  graph = str(tmp_path / 'export' / 'g.pb')
  os.makedirs(os.path.dirname(graph))

  def line(step, accuracy):
    return json.dumps(dict(checkpoint='/here/train/model.ckpt-%d' % step,
                           split='validation', accuracy=accuracy, photos=9,
                           classes=[]))

  write_lines(tmp_path / 'eval' / 'metrics.jsonl', line(7, 0.5), line(7, 0.75),
              'damaged {', '[]', line(17, 0.9))
  assert evaluations.read_evaluation(graph, 'model.ckpt-7') == dict(
      split='validation', accuracy=0.75, photos=9)
  assert evaluations.read_evaluation(graph, 'model.ckpt-8') is None
  assert evaluations.read_evaluation(graph, None) is None


@pytest.mark.parametrize('splits, index', [
    (['test', 'validation', 'train'], 0), (['train', 'validation'], 1),
    (['train'], 0), (['validation', 'test', 'test'], 2)])
def test_read_evaluation_prefers_the_test_split(tmp_path, splits, index):
  lines = [dict(checkpoint='model.ckpt-7', split=split, photos=photos)
           for photos, split in enumerate(splits)]
  write_lines(tmp_path / 'metrics.jsonl', *map(json.dumps, lines))
  evaluation = evaluations.read_evaluation(str(tmp_path / 'g.pb'),
                                           'model.ckpt-7')
  assert evaluation == dict(split=splits[index], photos=index)


def test_read_evaluation_of_the_best_checkpoint_is_found(tmp_path):
  graph = str(tmp_path / 'export' / 'g.pb')
  os.makedirs(os.path.dirname(graph))
  write_lines(tmp_path / 'train' / 'best' / 'best.json',
              '{"step": 30, "accuracy": 0.5, "loss": 0.75}')
  assert evaluations.read_evaluation(graph, 'model.ckpt-30') == dict(
      split='validation', accuracy=0.5, loss=0.75)
  assert evaluations.read_evaluation(graph, 'model.ckpt-0') is None
