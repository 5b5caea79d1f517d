"""Tests of evaluation/metrics.py."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from evaluation import metrics


def random_case(classes=7, photos=300):
  rng = np.random.RandomState(3)
  probabilities = rng.dirichlet(np.ones(classes), photos)
  return rng.randint(0, classes, photos), probabilities


def test_compute_agrees_with_scikit_learn():
  labels, probabilities = random_case()
  names = list('abcdefg')
  computed = metrics.compute(labels, probabilities, names)
  predicted = probabilities.argmax(axis=1)
  assert computed.photos == 300
  assert computed.accuracy == pytest.approx(
      sklearn_metrics.accuracy_score(labels, predicted))
  assert computed.recall_5 == pytest.approx(
      sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5))
  np.testing.assert_array_equal(
      computed.confusion, sklearn_metrics.confusion_matrix(labels, predicted))
  precision, recall, _, present = (
      sklearn_metrics.precision_recall_fscore_support(labels, predicted))
  assert [c.precision for c in computed.classes] == pytest.approx(precision)
  assert [c.recall for c in computed.classes] == pytest.approx(recall)
  assert [c.photos for c in computed.classes] == list(present)


def test_class_metrics_without_prediction_or_photo_is_none():
  confusion = metrics.confusion_matrix([0, 0, 1], [0, 0, 0], 3)
  rows = metrics.class_metrics(confusion, ['a', 'b', 'c'])
  assert (rows[0].precision, rows[0].recall) == (pytest.approx(2 / 3), 1.0)
  assert (rows[1].precision, rows[1].recall) == (None, 0.0)
  assert (rows[2].precision, rows[2].recall) == (None, None)


def test_recall_at_equal_probabilities_gives_no_credit():
  probabilities = np.full([4, 10], 0.1)
  assert metrics.recall_at([9, 9, 9, 9], probabilities, 5) == 0.0
  assert metrics.recall_at([0, 4, 5, 9], probabilities, 5) == 0.5


def test_recall_at_with_few_classes_is_one():
  labels, probabilities = random_case(classes=4)
  assert metrics.recall_at(labels, probabilities, 5) == 1.0


def test_compute_without_photos_raises():
  with pytest.raises(ValueError, match='no photo'):
    metrics.compute([], np.zeros([0, 2]), ['a', 'b'])


def test_wilson_interval_matches_published_figures():
  # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
  for right, total, low, high in ((81, 263, 0.2553, 0.3662),
                                  (15, 148, 0.0624, 0.1605),
                                  (0, 20, 0.0, 0.1611),
                                  (1, 29, 0.0061, 0.1718)):
    interval = metrics.wilson_interval(right, total)
    assert interval == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_all_right_ends_at_one():
  low, high = metrics.wilson_interval(20, 20)
  assert low == pytest.approx(1 - 0.1611, abs=5e-5)
  assert high == pytest.approx(1.0)
