"""Tests of evaluation/calibration.py."""

import json
import os

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from evaluation import calibration
from kits import serving_kit as kit
from runs import checkpoints


def loss(logits, labels, temperature):
  """Mean negative log likelihood, by the definition."""
  scores = calibration.softmax(logits, temperature)
  return -np.mean(np.log(scores[np.arange(len(labels)), labels]))


def sampled(temperature, photos=4000, classes=6, seed=1):
  """Logits that promise `temperature` times too much: labels follow softmax of
  logits / temperature."""
  rng = np.random.RandomState(seed)
  true_logits = rng.normal(scale=2, size=(photos, classes))
  shares = calibration.softmax(true_logits)
  labels = np.array([rng.choice(classes, p=row) for row in shares])
  return true_logits * temperature, labels


def test_temperature_of_two_classes_has_its_closed_form():
  # Three photos right of four, each with a lead of 6: softmax(6 / T) is 3/4.
  logits = np.array([[6., 0.], [0., 6.], [6., 0.], [6., 0.]])
  found = calibration.fit_temperature(logits, [0, 1, 0, 1])
  assert found == pytest.approx(6 / np.log(3), rel=1e-9)


@pytest.mark.parametrize('scale', [1e-6, 0.02, 1.0, 37.0, 1e6])
def test_temperature_goes_with_the_scale_and_ignores_what_is_added(scale):
  logits, labels = sampled(1.0, photos=300)
  expected = calibration.fit_temperature(logits, labels)
  moved = logits * scale + 1000 * scale * np.random.RandomState(2).rand(300, 1)
  assert calibration.fit_temperature(moved, labels) == pytest.approx(
      expected * scale, rel=1e-6)


@pytest.mark.parametrize('true', [0.3, 1.0, 2.5])
def test_temperature_is_recovered_from_labels_drawn_with_it(true):
  logits, labels = sampled(true)
  found = calibration.fit_temperature(logits, labels)
  assert found == pytest.approx(true, rel=0.05)
  # And it is the minimum, compared with a grid around it.
  best = loss(logits, labels, found)
  for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2):
    assert best < loss(logits, labels, found * factor)


def test_temperature_in_several_pieces_is_the_same(monkeypatch):
  logits, labels = sampled(2.0, photos=500)
  whole = calibration.fit_temperature(logits.astype(np.float32), labels)
  monkeypatch.setattr(calibration, '_ROWS', 33)
  pieces = calibration.fit_temperature(logits.astype(np.float32), labels)
  assert pieces == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize('logits,labels,message', [
    (np.zeros([0, 2]), [], 'no photo'),
    ([[3., 0.], [0., 1.]], [0, 1], 'all 2 photos are right'),
    ([[3., 0.], [0., 1.]], [1, 0], 'no better than chance'),
    ([[1., 0.], [1., 0.]], [0, 1], 'no better than chance'),
])
def test_temperature_that_photos_do_not_tell_is_refused(logits, labels,
                                                        message):
  with pytest.raises(calibration.NoTemperature, match=message):
    calibration.fit_temperature(np.array(logits), labels)


def test_temperature_of_logits_that_are_not_finite_is_refused():
  with pytest.raises(InputError, match='not finite'):
    calibration.fit_temperature(np.array([[np.nan, 1.], [0., 1.]]), [0, 1])


def test_reliability_counts_scores_and_hits_by_hand():
  scores = np.array([[0.5, 0.5], [0.6, 0.4], [0.95, 0.05], [0.1, 0.9]])
  bins = calibration.reliability(scores, [0, 1, 0, 1], num_bins=10)
  assert [b.photos for b in bins] == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
  assert (bins[4].low, bins[4].high) == (0.4, 0.5)  # 0.5 is in the lower bin.
  assert (bins[5].score, bins[5].accuracy) == (0.6, 0.0)
  assert bins[0].score is bins[0].accuracy is None
  # |0.5 - 1|, |0.6 - 0|, |0.9 - 1| and |0.95 - 1|, a quarter each.
  assert calibration.expected_calibration_error(bins) == pytest.approx(
      (0.5 + 0.6 + 0.1 + 0.05) / 4)


def test_reliability_has_15_bins_and_takes_scores_0_and_1():
  bins = calibration.reliability(np.array([[1., 0.], [0., 0.]]), [0, 0])
  assert len(bins) == 15
  assert (bins[0].photos, bins[14].photos) == (1, 1)


def test_calibration_error_falls_with_the_temperature():
  logits, labels = sampled(3.0)
  found = calibration.fit_temperature(logits, labels)
  before, after = (calibration.expected_calibration_error(
      calibration.reliability(calibration.softmax(logits, t), labels))
                   for t in (1.0, found))
  assert before > 0.15
  assert after < 0.03


def test_threshold_is_the_lowest_that_reaches_the_target():
  scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
  right = [True, True, False, True, False, False]
  for target, expected in ((1.0, (0.8, 2, 2)), (0.75, (0.6, 4, 3)),
                           (0.5, (0.4, 6, 3)), (0.0, (0.4, 6, 3))):
    found = calibration.choose_threshold(scores, right, target)
    assert tuple(found)[1:] == expected


def test_threshold_takes_equal_scores_together_or_not_at_all():
  found = calibration.choose_threshold([0.9, 0.8, 0.8], [1, 1, 0], 0.9)
  assert (found.threshold, found.photos) == (0.9, 1)
  found = calibration.choose_threshold([0.8, 0.8], [True, False], 0.9)
  assert tuple(found) == (0.9, None, 0, 0)


def test_threshold_of_other_photos_is_applied_as_it_is():
  found = calibration.apply_threshold([0.9, 0.7, 0.1], [False, True, True],
                                      0.95, 0.7)
  assert tuple(found) == (0.95, 0.7, 2, 1)
  assert calibration.apply_threshold([0.9], [True], 0.5, None).photos == 0


@pytest.fixture
def checkpoint(tmp_path):
  return kit.save_checkpoint(tmp_path, 'cifarnet')


def test_calibrate_what_is_saved_is_found_for_these_weights_only(
    checkpoint, tmp_path):
  logits, labels = sampled(2.0, photos=500)
  found = calibration.calibrate(logits, labels, 'validation', checkpoint)
  assert (found.split, found.photos, found.step) == ('validation', 500, 7)
  assert found.ece_after < found.ece_before
  calibration.save(checkpoint, found)
  assert calibration.load(checkpoint) == found
  assert 'calibration.json' in os.listdir(str(tmp_path))
  temperature, said = calibration.temperature_of(checkpoint)
  assert temperature == found.temperature
  assert '500 photos of split validation' in said
  temperature, said = calibration.temperature_of(checkpoint, 0.99)
  assert temperature is None
  assert 'is for --moving_average_decay=None, not 0.99' in said
  # Other weights of the same name.
  with open(checkpoint + '.index', 'ab') as stream:
    stream.write(b'x')
  temperature, said = calibration.temperature_of(checkpoint)
  assert temperature is None
  assert 'is of other weights (step 7)' in said


def test_digest_tells_weights_from_others_of_the_same_shape(tmp_path):
  found = []
  for number, value in enumerate((1.0, 2.0, 1.0)):
    with tf.Graph().as_default(), tf.Session() as session:
      variable = tf.get_variable('w', initializer=[value] * 3)
      session.run(variable.initializer)
      found.append(checkpoints.digest(tf.train.Saver().save(
          session, str(tmp_path / ('%d.ckpt' % number)))))
  assert found[0] == found[2] != found[1]


def test_temperature_of_a_run_without_calibration_says_how_to_get_one(
    checkpoint):
  temperature, said = calibration.temperature_of(checkpoint)
  assert temperature is None
  assert 'calibration.json does not exist; ./report.sh fits one' in said


@pytest.mark.parametrize('text', [
    '', '[]', '{}', '{"temperature": 1}',
    json.dumps(dict.fromkeys(calibration.Calibration._fields, 0)),
    json.dumps(dict.fromkeys(calibration.Calibration._fields, 'x'))])
def test_load_of_a_damaged_calibration_is_one_line(checkpoint, tmp_path, text):
  (tmp_path / 'calibration.json').write_text(text)
  with pytest.raises(
      InputError, match='is damaged .*writes it again') as caught:
    calibration.load(checkpoint)
  assert '\n' not in str(caught.value)
  temperature, said = calibration.temperature_of(checkpoint)
  assert (temperature, said) == (None, 'no temperature: %s' % caught.value)
