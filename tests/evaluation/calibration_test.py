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
  """Returns the mean negative log likelihood, by its definition."""
  scores = calibration.softmax(logits, temperature)
  return -np.mean(np.log(scores[np.arange(len(labels)), labels]))


def sampled(temperature, photos=4000, classes=6, seed=1):
  """Returns logits that are `temperature` times too large, and labels.

  The labels are drawn from softmax(logits / temperature).
  """
  rng = np.random.RandomState(seed)
  true_logits = rng.normal(scale=2, size=(photos, classes))
  shares = calibration.softmax(true_logits)
  labels = np.array([rng.choice(classes, p=row) for row in shares])
  return true_logits * temperature, labels


def test_fit_temperature_of_two_classes_equals_closed_form():
  # Three of four photos are right, all by 6: softmax of (6, 0) / T is 3/4.
  logits = np.array([[6., 0.], [0., 6.], [6., 0.], [6., 0.]])
  temperature = calibration.fit_temperature(logits, [0, 1, 0, 1])
  assert temperature == pytest.approx(6 / np.log(3), rel=1e-9)


@pytest.mark.parametrize('scale', [1e-6, 0.02, 1.0, 37.0, 1e6])
def test_fit_temperature_is_proportional_to_scale_and_ignores_offsets(scale):
  logits, labels = sampled(1.0, photos=300)
  expected = calibration.fit_temperature(logits, labels)
  offsets = 1000 * np.random.RandomState(2).rand(300, 1)
  transformed = logits * scale + scale * offsets
  assert calibration.fit_temperature(transformed, labels) == pytest.approx(
      expected * scale, rel=1e-6)


@pytest.mark.parametrize('true_temperature', [0.3, 1.0, 2.5])
def test_fit_temperature_recovers_temperature_of_drawn_labels(true_temperature):
  logits, labels = sampled(true_temperature)
  temperature = calibration.fit_temperature(logits, labels)
  assert temperature == pytest.approx(true_temperature, rel=0.05)
  # It has the smallest loss of a grid around it.
  best = loss(logits, labels, temperature)
  for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2):
    assert best < loss(logits, labels, temperature * factor)


def test_fit_temperature_in_several_pieces_is_the_same(monkeypatch):
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
def test_fit_temperature_that_photos_do_not_determine_raises(
    logits, labels, message):
  with pytest.raises(calibration.NoTemperature, match=message):
    calibration.fit_temperature(np.array(logits), labels)


def test_fit_temperature_of_non_finite_logits_raises_input_error():
  with pytest.raises(InputError, match='not finite'):
    calibration.fit_temperature(np.array([[np.nan, 1.], [0., 1.]]), [0, 1])


def test_reliability_equals_counts_by_hand():
  scores = np.array([[0.5, 0.5], [0.6, 0.4], [0.95, 0.05], [0.1, 0.9]])
  bins = calibration.reliability(scores, [0, 1, 0, 1], num_bins=10)
  assert [b.photos for b in bins] == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
  assert (bins[4].low, bins[4].high) == (0.4, 0.5)  # 0.5 is in the lower bin.
  assert (bins[5].score, bins[5].accuracy) == (0.6, 0.0)
  assert bins[0].score is bins[0].accuracy is None
  # |0.5 - 1|, |0.6 - 0|, |0.9 - 1| and |0.95 - 1|, a quarter each.
  assert calibration.expected_calibration_error(bins) == pytest.approx(
      (0.5 + 0.6 + 0.1 + 0.05) / 4)


def test_reliability_has_as_many_bins_as_photos_allow_with_scores_0_and_1():
  for photos, expected in ((2, 4), (143, 7), (300, 15), (5000, 15)):
    scores = np.zeros([photos, 2])
    scores[0, 0] = 1.0
    bins = calibration.reliability(scores, [0] * photos)
    assert len(bins) == expected
    assert (bins[0].photos, bins[-1].photos) == (photos - 1, 1)


def test_calibration_error_falls_with_fitted_temperature():
  logits, labels = sampled(3.0)
  temperature = calibration.fit_temperature(logits, labels)
  before, after = (calibration.expected_calibration_error(
      calibration.reliability(calibration.softmax(logits, t), labels))
                   for t in (1.0, temperature))
  assert before > 0.15
  assert after < 0.03


def test_choose_threshold_returns_lowest_that_reaches_target():
  scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
  right = [True, True, False, True, False, False]
  for target, expected in ((1.0, (0.8, 2, 2)), (0.75, (0.6, 4, 3)),
                           (0.5, (0.4, 6, 3)), (0.0, (0.4, 6, 3))):
    choice = calibration.choose_threshold(scores, right, target)
    assert tuple(choice)[1:] == expected


def test_choose_threshold_accepts_equal_scores_together_or_none():
  choice = calibration.choose_threshold([0.9, 0.8, 0.8], [1, 1, 0], 0.9)
  assert (choice.threshold, choice.photos) == (0.9, 1)
  choice = calibration.choose_threshold([0.8, 0.8], [True, False], 0.9)
  assert tuple(choice) == (0.9, None, 0, 0)


def test_apply_threshold_counts_accepted_photos():
  choice = calibration.apply_threshold([0.9, 0.7, 0.1], [False, True, True],
                                       0.95, 0.7)
  assert tuple(choice) == (0.95, 0.7, 2, 1)
  assert calibration.apply_threshold([0.9], [True], 0.5, None).photos == 0


@pytest.fixture
def checkpoint(tmp_path):
  return kit.save_checkpoint(tmp_path, 'cifarnet')


def test_calibrate_saved_temperature_is_used_for_same_weights_only(
    checkpoint, tmp_path):
  logits, labels = sampled(2.0, photos=500)
  fitted = calibration.calibrate(logits, labels, 'validation', checkpoint)
  assert (fitted.split, fitted.photos, fitted.step) == ('validation', 500, 7)
  assert fitted.ece_after < fitted.ece_before
  calibration.save(checkpoint, fitted)
  assert calibration.load(checkpoint) == fitted
  assert 'calibration.json' in os.listdir(str(tmp_path))
  temperature, note = calibration.temperature_of(checkpoint)
  assert temperature == fitted.temperature
  assert '500 photos of split validation' in note
  temperature, note = calibration.temperature_of(checkpoint, 0.99)
  assert temperature is None
  assert 'is for --moving_average_decay=None, not 0.99' in note
  # Other weights of the same name.
  with open(checkpoint + '.index', 'ab') as stream:
    stream.write(b'x')
  temperature, note = calibration.temperature_of(checkpoint)
  assert temperature is None
  assert 'is of other weights (step 7)' in note


def test_digest_differs_between_weights_of_the_same_shape(tmp_path):
  digests = []
  for number, value in enumerate((1.0, 2.0, 1.0)):
    with tf.Graph().as_default(), tf.Session() as session:
      variable = tf.get_variable('w', initializer=[value] * 3)
      session.run(variable.initializer)
      digests.append(checkpoints.digest(tf.train.Saver().save(
          session, str(tmp_path / ('%d.ckpt' % number)))))
  assert digests[0] == digests[2] != digests[1]


def test_temperature_of_without_calibration_tells_how_to_fit_one(
    checkpoint):
  temperature, note = calibration.temperature_of(checkpoint)
  assert temperature is None
  assert 'calibration.json does not exist; ./report.sh fits one' in note


@pytest.mark.parametrize('text', [
    '', '[]', '{}', '{"temperature": 1}',
    json.dumps(dict.fromkeys(calibration.Calibration._fields, 0)),
    json.dumps(dict.fromkeys(calibration.Calibration._fields, 'x'))])
def test_load_damaged_calibration_raises_one_line_error(
    checkpoint, tmp_path, text):
  (tmp_path / 'calibration.json').write_text(text)
  with pytest.raises(
      InputError, match='is damaged .*writes it again') as caught:
    calibration.load(checkpoint)
  assert '\n' not in str(caught.value)
  temperature, note = calibration.temperature_of(checkpoint)
  assert (temperature, note) == (None, 'no temperature: %s' % caught.value)
