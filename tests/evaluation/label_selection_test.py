"""Tests of label_selection.py on made scores and features."""


import numpy as np
import pytest

from datasets.photo_files import near_photos
from evaluation import label_selection
from kits import scene_kit


def scores_of(margins):
  """Returns the scores of two classes with these margins."""
  best = (1 + np.asarray(margins)) / 2
  return np.stack([best, 1 - best], axis=1)


def sketches(*encoded):
  return np.stack([near_photos.sketch(data) for data in encoded])


def test_margins_are_the_lead_of_the_best_class():
  np.testing.assert_allclose(label_selection.margins(np.array(
      [[.2, .7, .1], [.4, .4, .2], [.1, .3, .6]])), [.5, 0, .3])
  np.testing.assert_allclose(label_selection.margins(np.ones([2, 1])), 1)


def test_choose_unlike_photos_takes_the_least_certain_first():
  margins = np.random.RandomState(0).permutation(20) / 20
  chosen = label_selection.choose(scores_of(margins), np.eye(20), 5)
  assert margins[chosen].tolist() == [0, .05, .1, .15, .2]


def test_choose_takes_one_photo_of_each_burst_before_the_second_of_one():
  rng = np.random.RandomState(1)
  burst = np.repeat(np.arange(4), 5)
  features = np.eye(8)[burst] + rng.normal(scale=0.02, size=(20, 8))
  # The first burst is the least certain one.
  margins = 0.1 * burst + rng.uniform(0, 0.05, 20)
  chosen = label_selection.choose(scores_of(margins), features, 4)
  assert sorted(burst[chosen]) == [0, 1, 2, 3]
  assert chosen[0] == margins.argmin()


def test_choose_prefers_an_uncertain_near_photo_to_a_certain_one():
  features = np.array([[1, 0, 0], [1, 0.6, 0], [0, 0, 1]])
  assert label_selection.choose(
      scores_of([0, 0.05, 0.99]), features, 2) == [0, 1]


@pytest.mark.parametrize('features', [
    np.zeros([6, 3]), np.ones([6, 3]), np.eye(6)], ids=['0', 'equal', 'unlike'])
def test_choose_more_than_there_are_returns_each_once(features):
  scores = scores_of(np.linspace(0, 1, 6))
  assert sorted(label_selection.choose(scores, features, 9)) == list(range(6))
  assert label_selection.choose(scores, features, 9) == label_selection.choose(
      scores, features, 9)


def test_without_copies_keeps_the_least_certain_of_copies():
  first, second = scene_kit.scene(1), scene_kit.scene(2)
  found = sketches(scene_kit.encode(first), scene_kit.resized(first),
                   scene_kit.encode(second), scene_kit.mirrored(first))
  assert label_selection.without_copies(
      found, [], np.array([.1, .9, .3, .5])).tolist() == [1, 2]


def test_without_copies_keeps_none_that_is_labelled():
  first, second = scene_kit.scene(1), scene_kit.scene(2)
  found = sketches(scene_kit.resized(first), scene_kit.encode(second))
  labelled = [near_photos.sketch(scene_kit.encode(scene))
              for scene in (scene_kit.scene(3), first)]
  assert label_selection.without_copies(
      found, labelled, np.zeros(2)).tolist() == [1]
