"""Tests of runtime/forward_pass.py: both runtimes give the same values."""

import threading

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from kits.helpers import slow_by_turns
from nets import frozen_backbone, nets_factory
from runtime import forward_pass, openvino_model, tensorflow_session
from runtime.forward_pass import (
  BFLOAT16,
  FLOAT32,
  OPENVINO,
  TENSORFLOW,
  Options,
)

needs_openvino = pytest.mark.skipif(
    not openvino_model.is_installed(), reason='openvino is not installed')


@pytest.fixture
def network():
  """A session with (images, [features, logits]) of cifarnet."""
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    images, features, logits = build('cifarnet', 32, 3)
    session.run(tf.global_variables_initializer())
    yield session, images, [features, logits]


def build(name, size, channels):
  """Returns the images, the end point of features and the logits."""
  images = tf.placeholder(tf.float32, [None, size, size, channels], 'images')
  logits, end_points = nets_factory.get_network_fn(
      name, num_classes=10, is_training=False)(images)
  return images, end_points[nets_factory.get_network(name).features], logits


def random_photos(count, size=32, channels=3):
  return np.random.RandomState(count).uniform(
      -1, 1, [count, size, size, channels]).astype(np.float32)


def fake_hardware(monkeypatch, installed=True, bfloat16=False, card=False):
  monkeypatch.setattr(openvino_model, 'is_installed', lambda: installed)
  for module in (openvino_model, tensorflow_session):
    monkeypatch.setattr(module, 'supports_bfloat16', lambda: bfloat16)
  monkeypatch.setattr(forward_pass, 'has_graphics_card', lambda: card)


@pytest.mark.parametrize('runtime', [
    pytest.param(OPENVINO, marks=needs_openvino), TENSORFLOW])
def test_load_from_session_computes_what_the_session_does(network, runtime):
  session, images, outputs = network
  forward = forward_pass.load_from_session(session, [images], outputs,
                                           Options(runtime, FLOAT32))
  assert forward.choice == (runtime, FLOAT32)
  for count in (3, 1, 5, 3):
    photos = random_photos(count)
    values = forward(photos)
    for value, expected in zip(values, session.run(outputs, {images: photos})):
      np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
  forward.close()


def test_load_from_session_keeps_the_values_that_variables_had(network):
  session, images, outputs = network
  forward = forward_pass.load_from_session(session, [images], outputs)
  before = forward(random_photos(2))
  for variable in tf.trainable_variables():
    variable.load(0 * session.run(variable), session)
  np.testing.assert_array_equal(forward(random_photos(2))[1], before[1])
  assert not session.run(outputs[1], {images: random_photos(2)}).any()


@pytest.mark.parametrize('runtime', [
    pytest.param(OPENVINO, marks=needs_openvino), TENSORFLOW])
def test_load_several_inputs_and_outputs_keep_their_order(runtime):
  with tf.Graph().as_default() as graph:
    left = tf.placeholder(tf.float32, [None, 2], 'left')
    right = tf.placeholder(tf.float32, [None, 2], 'right')
    outputs = [right - left, left + 2 * right, left * right]
  forward = forward_pass.load(graph.as_graph_def(), [right, left], outputs,
                              Options(runtime))
  values = forward(np.array([[1, 2]], np.float32),
                   np.array([[10, 30]], np.float32))
  np.testing.assert_allclose(values, [[[-9, -28]], [[12, 34]], [[10, 60]]])


@pytest.mark.parametrize('overlaps', [False, True])
def test_forward_pass_in_several_threads_gives_each_its_own_values(
    network, overlaps):
  session, images, outputs = network
  forward = forward_pass.load_from_session(
      session, [images], outputs, Options(overlaps=overlaps))
  expected = {count: forward(random_photos(count))[1] for count in range(1, 9)}
  wrong = []

  def check(count):
    for _ in range(20):
      # With streams, sums for a single photo may have another order.
      if not np.allclose(forward(random_photos(count))[1], expected[count],
                         rtol=1e-5 * overlaps, atol=1e-6 * overlaps):
        wrong.append(count)

  threads = [threading.Thread(target=check, args=(count,))
             for count in expected]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert wrong == []


@needs_openvino
@pytest.mark.parametrize('largest', [0, 2 ** 20])
def test_only_overlapping_runs_of_a_small_graph_use_streams(
    monkeypatch, largest):
  monkeypatch.setattr(openvino_model, '_LARGEST_FOR_STREAMS', largest)
  with tf.Graph().as_default() as graph:
    tf.square(tf.placeholder(tf.float32, [None, 2], 'numbers'), name='squares')
  model = openvino_model.OpenVinoModel(graph.as_graph_def(), ['numbers'],
                                       ['squares'], FLOAT32, overlaps=True)
  used, run = [], model._run

  def overlapping_run(compiled, arrays):
    used.append(compiled)
    if len(used) == 1:
      model.run(arrays)
    return run(compiled, arrays)

  monkeypatch.setattr(model, '_run', overlapping_run)
  for _ in range(2):
    values, = model.run([np.array([[1, 3]], np.float32)])
    np.testing.assert_array_equal(values, [[1, 9]])
  streams = model._streams
  assert used == [model._compiled, streams, model._compiled]
  assert (streams is model._compiled) == (largest == 0)


def make_graph_without_openvino():
  """Returns a GraphDef with an operation that OpenVINO lacks, and tensors."""
  with tf.Graph().as_default() as graph:
    numbers = tf.placeholder(tf.float32, [None], 'numbers')
    lengths = tf.strings.length(tf.as_string(numbers, precision=1))
  return graph.as_graph_def(), [numbers], [lengths]


@needs_openvino
def test_load_graph_that_openvino_cannot_run_is_run_by_tensorflow(log):
  forward = forward_pass.load(*make_graph_without_openvino())
  assert forward.choice == (TENSORFLOW, FLOAT32)
  assert forward(np.array([1, 22], np.float32))[0].tolist() == [3, 4]
  message, = [record.getMessage() for record in log.records
              if 'OpenVINO cannot run' in record.getMessage()]
  assert 'AsString' in message and '\n' not in message


@needs_openvino
def test_load_demanded_openvino_that_cannot_run_the_graph_is_an_error():
  with pytest.raises(InputError, match='--runtime=openvino .*AsString'):
    forward_pass.load(*make_graph_without_openvino(), Options(OPENVINO))


@pytest.mark.parametrize('hardware, runtime, expected', [
    ({}, 'auto', OPENVINO),
    ({'installed': False}, 'auto', TENSORFLOW),
    ({'card': True}, 'auto', TENSORFLOW),
    ({'card': True}, OPENVINO, OPENVINO),
    ({}, TENSORFLOW, TENSORFLOW)])
def test_choose_runtime_follows_options_and_hardware(
    monkeypatch, hardware, runtime, expected):
  fake_hardware(monkeypatch, **hardware)
  assert forward_pass.choose(Options(runtime)).runtime == expected


def test_choose_remote_master_is_left_to_tensorflow(monkeypatch):
  fake_hardware(monkeypatch)
  assert forward_pass.choose(
      Options(master='grpc://other:2222')).runtime == TENSORFLOW


def test_choose_openvino_that_is_not_installed_is_an_error(monkeypatch):
  fake_hardware(monkeypatch, installed=False)
  with pytest.raises(InputError, match='--runtime=openvino: .*not installed'):
    forward_pass.choose(Options(OPENVINO))


@pytest.mark.parametrize('bfloat16, asked, recorded, expected', [
    (True, 'auto', None, FLOAT32),
    (True, 'auto', BFLOAT16, BFLOAT16),
    (True, FLOAT32, BFLOAT16, FLOAT32),
    (True, BFLOAT16, None, BFLOAT16),
    (False, 'auto', None, FLOAT32),
    (False, 'auto', BFLOAT16, FLOAT32),
    (False, FLOAT32, BFLOAT16, FLOAT32)])
def test_choose_precision_follows_options_then_the_run(
    monkeypatch, bfloat16, asked, recorded, expected):
  fake_hardware(monkeypatch, bfloat16=bfloat16)
  assert forward_pass.choose(Options(precision=asked),
                             recorded).precision == expected


def test_choose_recorded_bfloat16_without_instructions_is_logged_once(
    monkeypatch, log):
  fake_hardware(monkeypatch)
  forward_pass._warn_once.cache_clear()
  for _ in range(2):
    forward_pass.choose(Options(), BFLOAT16)
  assert log.text.count('computing with float32') == 1


def test_choose_demanded_bfloat16_without_instructions_is_an_error(monkeypatch):
  fake_hardware(monkeypatch)
  with pytest.raises(InputError, match='--precision=bfloat16: .*accepted'):
    forward_pass.choose(Options(precision=BFLOAT16))


@pytest.mark.parametrize('bfloat16, expected', [
    (True, BFLOAT16), (False, FLOAT32)])
def test_fastest_precision_depends_on_the_processor(monkeypatch, bfloat16,
                                                    expected):
  fake_hardware(monkeypatch, bfloat16=bfloat16)
  assert forward_pass.fastest_precision(Options()) == expected


def test_fastest_precision_of_a_graphics_card_is_float32(monkeypatch):
  fake_hardware(monkeypatch, bfloat16=True, card=True)
  assert forward_pass.fastest_precision(Options()) == FLOAT32


def test_choose_unknown_recorded_precision_is_an_error(monkeypatch):
  fake_hardware(monkeypatch)
  with pytest.raises(InputError, match="'float8'.*float32, bfloat16"):
    forward_pass.choose(Options(), 'float8')


@needs_openvino
def test_forward_pass_takes_arrays_that_are_not_contiguous_or_read_only(
    network):
  session, images, outputs = network
  forward = forward_pass.load_from_session(session, [images], outputs,
                                           Options(OPENVINO))
  photos = random_photos(4)
  expected = forward(photos)[1]
  strided = np.repeat(photos, 2, axis=0)[::2]
  read_only = photos.copy()
  read_only.flags.writeable = False
  for other in (strided, read_only, photos.astype(np.float64),
                np.asfortranarray(photos)):
    for _ in range(5):
      np.testing.assert_array_equal(forward(other)[1], expected)


@needs_openvino
def test_openvino_computes_a_large_batch_in_parts_of_at_most_8(network):
  session, images, outputs = network
  forward = forward_pass.load_from_session(session, [images], outputs,
                                           Options(OPENVINO))
  model, counts = forward._engine, []
  infer = model._infer

  def count_rows(request, arrays):
    counts.append(len(arrays[0]))
    return infer(request, arrays)

  model._infer = count_rows
  photos = random_photos(19)
  values = forward(photos)
  assert counts == [8, 8, 3]
  for value, expected in zip(values, session.run(outputs, {images: photos})):
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@needs_openvino
def test_openvino_does_not_split_rows_that_outputs_do_not_have():
  with tf.Graph().as_default() as graph:
    rows = tf.placeholder(tf.float32, [None, 2], 'rows')
    total = tf.reduce_sum(rows, 0)
  forward = forward_pass.load(graph.as_graph_def(), [rows], [total],
                              Options(OPENVINO))
  np.testing.assert_allclose(forward(np.ones([20, 2], np.float32))[0],
                             [20, 20])


@pytest.mark.parametrize('error', [
    ImportError('no module named openvino._core'), OSError('libtbb.so.12'),
    AttributeError('module has no attribute Core'),
    RuntimeError('Exception from a.cpp:1:\nno plugin')])
def test_broken_openvino_is_logged_and_tensorflow_is_used(monkeypatch, log,
                                                          error):
  def fail():
    raise error

  monkeypatch.setattr(openvino_model, '_capabilities', fail)
  monkeypatch.setattr(openvino_model, '_module', lambda: pytest)
  openvino_model.is_installed.cache_clear()
  try:
    assert forward_pass.choose(Options()) == (TENSORFLOW, FLOAT32)
    assert 'OpenVINO cannot be used (' in log.text
    with pytest.raises(InputError, match='--runtime=openvino'):
      forward_pass.choose(Options(OPENVINO))
  finally:
    openvino_model.is_installed.cache_clear()


@needs_openvino
def test_facts_of_tensorflow_with_float32_are_those_of_older_caches():
  assert forward_pass.Choice(TENSORFLOW, FLOAT32).facts() == {}
  assert forward_pass.Choice(TENSORFLOW, BFLOAT16).facts() == {
      'precision': BFLOAT16}
  assert forward_pass.Choice(OPENVINO, BFLOAT16).facts() == {
      'precision': BFLOAT16, 'runtime': 'OpenVINO ' + openvino_model.version()}


@pytest.mark.skipif(not (openvino_model.is_installed() and
                         openvino_model.supports_bfloat16()),
                    reason='the processor has no instructions for bfloat16')
def test_load_bfloat16_is_near_float32_and_is_not_it(network):
  session, images, outputs = network
  near, exact = [
      forward_pass.load_from_session(session, [images], outputs, Options(
          OPENVINO, precision))(random_photos(8))[0]
      for precision in (BFLOAT16, FLOAT32)]
  assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@needs_openvino
@pytest.mark.parametrize('name', slow_by_turns(sorted(nets_factory.NETWORKS)))
def test_network_features_suffice_for_logits_and_are_equal_in_both(name):
  row = nets_factory.get_network(name)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    images, features, logits = build(name, row.image_size, row.channels)
    assert images.op not in frozen_backbone.ancestors([logits], {features.op})
    session.run(tf.global_variables_initializer())
    photos = random_photos(2, row.image_size, row.channels)
    expected = session.run(features, {images: photos})
    forward = forward_pass.load_from_session(session, [images], [features],
                                             Options(OPENVINO, FLOAT32))
    values, = forward(photos)
  assert values.shape == expected.shape
  assert np.abs(expected).max() > 0
  np.testing.assert_allclose(values, expected, rtol=1e-4,
                             atol=1e-4 * np.abs(expected).max())
