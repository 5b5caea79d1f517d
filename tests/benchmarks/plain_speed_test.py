"""Tests of benchmarks/plain_speed.py, on a small network."""

import time

import numpy as np
import pytest

from benchmarks import plain_speed
from benchmarks.input_speed import Turn
from common import flags as common_flags
from common.errors import InputError
from compat import tf
from datasets import dataset_factory, input_pipeline
from kits import trained_kit
from kits.helpers import parsed_flags

pytestmark = pytest.mark.slow

SLEEP = 0.2


@pytest.fixture(scope='module')
def dataset_dir(tmp_path_factory):
  return trained_kit.make_dataset(tmp_path_factory.mktemp('plain_speed'))


@pytest.fixture
def prepare(dataset_dir, tmp_path):
  """Returns a function of flags that calls `plain_speed.prepared`."""

  def prepared(*arguments):
    with parsed_flags(plain_speed.define_flags, '--model_name=cifarnet',
                      '--batch_size=4', *arguments) as values:
      dataset = dataset_factory.get_dataset(trained_kit.NAME, 'train',
                                            dataset_dir)
      return plain_speed.prepared(plain_speed.config_from_flags(
          dataset_dir=dataset_dir, dataset_name=trained_kit.NAME,
          train_dir=str(tmp_path)), dataset,
          common_flags.session_config(values))

  return prepared


@pytest.fixture
def slow_input(monkeypatch):
  """Makes each batch take SLEEP seconds longer; two are still prefetched."""
  training_batches = input_pipeline.training_batches

  def sleep(label):
    time.sleep(SLEEP)
    return label

  def delayed(batch):
    label = tf.py_func(sleep, [batch['label']], tf.int64)
    label.set_shape(batch['label'].shape)
    return dict(batch, label=label)

  monkeypatch.setattr(
      input_pipeline, 'training_batches',
      lambda *args, **kwargs: training_batches(*args, **kwargs).map(
          delayed).prefetch(input_pipeline.PREFETCH_BATCHES))


def read_variables():
  """Returns {name: array} of the trainable variables of the default graph."""
  variables = {v.op.name: v for v in tf.trainable_variables()}
  return tf.get_default_session().run(variables)


def test_step_trains_only_the_classifier(prepare):
  with prepare() as pair, pair.session.as_default():
    before = read_variables()
    pair.step()
    after = read_variables()
  changed = {name for name in before
             if not np.array_equal(before[name], after[name])}
  assert changed == {'CifarNet/logits/weights', 'CifarNet/logits/biases'}
  assert len(before) > len(changed)


def test_forward_computes_the_logits_of_real_photos(prepare, monkeypatch):
  with prepare() as pair:
    assert pair.batch_size == 4
    batches = []
    monkeypatch.setattr(pair.twin, 'logits', batches.append)
    pair.forward()
    monkeypatch.undo()
    logits = pair.forward()
  (photos,), = batches[0]
  assert photos.shape == (4, 32, 32, 3)
  assert len({photo.tobytes() for photo in photos}) == 4
  assert logits.shape == (4, len(trained_kit.CLASSES))
  assert len({row.tobytes() for row in logits}) == 4


def test_measure_slow_input_counts_as_waiting(prepare, slow_input):
  with prepare() as pair:
    plain_speed.measure(pair, 1)
    figures = plain_speed.measure(pair, 2)
  # The two batches prefetched during the forward passes are not measured.
  assert 0.8 < figures.waiting <= 1
  assert figures.training.speed < 1.2 * pair.batch_size / SLEEP
  assert figures.forward.speed > 1.2 * pair.batch_size / SLEEP


def test_step_prefetched_input_needs_no_waiting(prepare):
  waiting_times = []
  with prepare() as pair:
    for _ in range(8):
      plain_speed.wait_until_idle()
      seconds, waiting = pair.step()
      waiting_times.append(waiting)
      assert waiting <= seconds
  assert min(waiting_times) < SLEEP / 10


def test_compare_measures_forward_and_training_in_each_round(prepare, capsys):
  with prepare() as pair:
    rounds = plain_speed.compare(pair, steps=2, rounds=2)
  assert len(rounds) == 2
  for figures in rounds:
    assert all(1 < turn.speed < 1e6 and 0 < turn.milliseconds < 1000
               for turn in (figures.forward, figures.training))
    assert 0 <= figures.waiting <= 1
  assert capsys.readouterr().out.count('photos/s forward') == 2


def test_measure_counts_the_steps_and_passes_asked_for(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(plain_speed, 'wait_until_idle', lambda: None)
  monkeypatch.setattr(plain_speed.time, 'perf_counter', lambda: clock[0])
  # As if two threads were busy all the time.
  monkeypatch.setattr(plain_speed.time, 'process_time', lambda: 2 * clock[0])

  class Pair:
    batch_size = 10
    passes = iter([90.0, 2.0, 3.0])
    steps = iter([(90.0, 80.0)] * input_pipeline.PREFETCH_BATCHES +
                 [(4.0, 1.0), (6.0, 1.5)])

    def forward(self):
      clock[0] += next(self.passes)

    def step(self):
      seconds, waited = next(self.steps)
      clock[0] += seconds
      return seconds, waited

  pair = Pair()
  assert plain_speed.measure(pair, 2) == (Turn(4, 500), Turn(2, 1000), 0.25)
  assert not list(pair.passes) and not list(pair.steps)


ROUNDS = [plain_speed.Round(Turn(10, 6), Turn(9, 8), 0.01),
          plain_speed.Round(Turn(20, 7), Turn(19, 7), 0.02),
          plain_speed.Round(Turn(40, 8), Turn(38.8, 10), 0.001)]


@pytest.mark.parametrize('bar, most_waiting, status', [
    (0.95, 0.02, 0), (0.951, 0.02, 1), (0.95, 0.019, 1)])
def test_report_status_depends_on_median_ratio_and_longest_waiting(
    bar, most_waiting, status, capsys):
  assert plain_speed.report(ROUNDS, bar, most_waiting) == status
  out = capsys.readouterr().out
  assert '0.950 of the speed' in out and 'processor 0.800' in out
  assert '0.0200 of a step' in out


def test_prepared_loss_not_finite_error_names_the_flags(prepare):
  with pytest.raises(InputError, match='--learning_rate, or give --checkpoint'):
    with prepare('--learning_rate=1e38', '--optimizer=sgd') as pair:
      for _ in range(5):
        pair.step()


def test_main_dataset_name_without_dataset_dir_error_names_both_flags():
  with parsed_flags(plain_speed.define_flags, '--dataset_name=x'):
    with pytest.raises(InputError, match="belong together, got None and 'x'"):
      plain_speed.main([])


def test_main_measures_a_converted_data_set(dataset_dir, capsys):
  with parsed_flags(
      plain_speed.define_flags, '--dataset_dir=' + dataset_dir,
      '--dataset_name=' + trained_kit.NAME, '--model_name=cifarnet',
      '--batch_size=4', '--steps=1', '--rounds=1', '--bar=1000'):
    assert plain_speed.main([]) == 1
  assert 'cifarnet, 4 photos per step' in capsys.readouterr().out


def test_flags_are_the_training_flags_that_affect_a_step():
  with parsed_flags(plain_speed.define_flags) as values:
    assert (values.model_name, values.batch_size) == ('inception_v4', 32)
    assert values.train_classifier_only
    assert not set(plain_speed.NOT_OF_A_STEP) & set(values)
    config = plain_speed.config_from_flags(train_dir='here')
  assert config.train_dir == 'here'
  assert (config.replicas.num_clones, config.optimizer.optimizer) == (
      1, 'rmsprop')
