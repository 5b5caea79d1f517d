"""Tests of label_scores.py and label_check.py on made features."""

import numpy as np
import pytest

from datasets.photo_files import near_photos
from evaluation import label_check, label_scores
from kits import scene_kit

CLASSES = 3


def make(per_class=40, spread=0.5, seed=0):
  """Returns features around one centre per class, and their labels."""
  rng = np.random.RandomState(seed)
  labels = np.repeat(np.arange(CLASSES), per_class)
  return (1 + np.eye(CLASSES, 12)[labels] * 3 +
          rng.normal(scale=spread, size=(len(labels), 12))), labels


def photos(features, labels, splits=None):
  splits = splits or ['train'] * len(labels)
  return label_check.Photos(
      splits, ['%d.jpg' % n for n in range(len(labels))], labels,
      np.arange(len(labels)), features, np.ones(len(labels), bool))


def blank(number):
  return np.zeros([number, near_photos.SIDE, near_photos.SIDE], np.uint8)


def test_score_planted_wrong_labels_are_first_with_the_true_class():
  features, labels = make()
  planted, is_wrong = label_scores.plant(labels, 0.05, CLASSES, seed=3)
  assert is_wrong.sum() == 6 and np.all(planted[is_wrong] != labels[is_wrong])
  assert np.array_equal(planted[~is_wrong], labels[~is_wrong])
  scores = label_scores.score(features, planted, CLASSES)
  first = np.argsort(-scores.suspicion)[:6]
  assert set(first) == set(np.flatnonzero(is_wrong))
  assert np.array_equal(scores.suggested[first], labels[first])
  assert scores.suspicion[first].min() > 0.5
  assert scores.suspicion[~is_wrong].max() < 0.5
  assert scores.expected == pytest.approx(6, abs=1)


def test_score_is_the_same_for_the_same_seed():
  features, labels = make(10, spread=3)
  one, same, other = (label_scores.score(features, labels, CLASSES, seed=seed)
                      for seed in (1, 1, 2))
  assert np.array_equal(one.probabilities, same.probabilities)
  assert not np.array_equal(one.probabilities, other.probabilities)
  np.testing.assert_allclose(one.probabilities.sum(axis=1), 1)


def test_plant_similar_classes_get_the_given_label():
  labels = np.array([0, 1, 2] * 10)
  planted, is_wrong = label_scores.plant(labels, 0.5, 3, 0, np.array([2, 0, 1]))
  assert is_wrong.sum() == 15
  assert np.array_equal(planted[is_wrong], (labels[is_wrong] + 2) % 3)


def test_expected_errors_counts_confident_photos_of_other_classes():
  probabilities = np.array([[.9, .1], [.8, .2], [.1, .9], [.7, .3],
                            [.2, .8], [.1, .9], [.4, .6], [.3, .7]])
  labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
  # Means of the own class: 0.625 and 0.75. The third photo is confidently of
  # class 1; the last two are confident in none.
  assert label_scores.expected_errors(probabilities, labels) == pytest.approx(
      4 * 1 / 4)


def test_find_neighbours_are_the_nearest_others_in_order():
  features, _ = make(20)
  found = label_scores.find_neighbours(features)
  rows = features / np.linalg.norm(features, axis=1, keepdims=True)
  cosines = rows @ rows.T
  np.fill_diagonal(cosines, -2)
  expected = np.argsort(-cosines, axis=1)[:, :label_scores.NUM_NEIGHBOURS]
  assert np.array_equal(found.rows, expected)
  np.testing.assert_allclose(
      found.cosines, np.take_along_axis(cosines, expected, 1), atol=1e-6)


@pytest.mark.parametrize('labels', [[0, 1], [0, 0, 1], [0, 2, 2, 2]])
def test_find_with_hardly_any_photos_has_results(labels):
  features = np.random.RandomState(0).normal(size=(len(labels), 4))
  found = label_check.find(photos(features, np.array(labels)), CLASSES,
                           blank(len(labels)))
  assert np.isfinite(found.expected) and found.planted[0] == 1


def test_find_outlier_and_classes_that_cannot_be_told_apart():
  features, labels = make()
  labels[:80] = np.random.RandomState(1).permutation(labels[:80])
  features[:80] = features[np.random.RandomState(2).permutation(80)]
  features[100] = -features[100]
  found = label_check.find(photos(features, labels), CLASSES,
                           blank(len(labels)))
  assert found.outliers[0][0] == 100
  assert [(pair.first, pair.second, pair.is_chance)
          for pair in found.alike[:1]] == [(0, 1, True)]
  assert not any(pair.is_chance for pair in found.alike[1:])


def test_find_accuracy_without_near_duplicates_of_training_photos():
  features, labels = make(4)
  sketches = blank(12)
  for number, seed in ((0, 1), (5, 1), (6, 2), (7, 2), (9, 3)):
    sketches[number] = near_photos.sketch(
        scene_kit.encode(scene_kit.scene(seed)))
  checked = photos(features, labels,
                   ['train'] * 5 + ['validation'] * 5 + ['test'] * 2)
  checked.is_right[[6, 7, 11]] = False
  found = label_check.find(checked, CLASSES, sketches)
  assert found.groups == [[0, 5], [6, 7]]
  # Only photo 5 resembles a training photo.
  assert found.accuracies == [('validation', 5, 0.6, 4, 0.5),
                              ('test', 2, 0.5, 2, 0.5)]
