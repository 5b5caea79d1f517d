"""Tests of near_photos.py: which pairs are near duplicates."""

import numpy as np
import pytest

from datasets.photo_files import near_photos
from kits import dataset_kit, scene_kit


def find(*encoded, near=None):
  return near_photos.find_pairs(
      np.stack([near_photos.sketch(data) for data in encoded]), near)


@pytest.mark.parametrize('change, kind', [
    (scene_kit.resized, 'copy'), (scene_kit.compressed, 'copy'),
    (scene_kit.mirrored, 'mirrored')])
def test_find_pairs_changed_copy_is_found_by_its_hash(change, kind):
  images = [scene_kit.scene(seed) for seed in range(6)]
  pairs = find(*map(scene_kit.encode, images), change(images[2]))
  assert [pair[:3] for pair in pairs] == [(2, 6, kind)]
  assert pairs[0].similarity > 0.95


def test_find_pairs_crop_is_found_if_the_features_are_similar():
  image = scene_kit.scene(1)
  encoded = [scene_kit.encode(image), scene_kit.encode(scene_kit.scene(2)),
             scene_kit.cropped(image)]
  near = {(0, 1): 0.8, (2, 0): 0.8, (1, 2): 0.8}
  assert [pair[:3] for pair in find(*encoded, near=near)] == [(0, 2, 'crop')]
  assert find(*encoded) == []


def test_find_pairs_burst_needs_nearly_equal_features():
  image = scene_kit.scene(1, (170, 112))
  frames = [scene_kit.encode(image.crop((x, 0, x + 141, 112))) for x in (0, 12)]
  kinds = [[pair.kind for pair in find(*frames, near={(0, 1): cosine})]
           for cosine in (0.95, 0.8)]
  assert kinds == [['burst'], []]


def test_find_pairs_blank_and_noisy_photos_are_no_copies():
  blank = scene_kit.encode(scene_kit.scene(0).point(lambda value: 255))
  noise = [dataset_kit.photo_bytes(number, size=(90, 80))
           for number in range(8)]
  assert find(blank, blank, *noise) == []


def test_sketch_of_a_damaged_photo_is_none():
  assert near_photos.sketch(b'no photo') is None
  assert near_photos.sketch(scene_kit.encode(scene_kit.scene(0))[:300]) is None


def test_group_joins_pairs_that_share_a_photo():
  pairs = [near_photos.Pair(first, second, 'copy', 1.0)
           for first, second in ((4, 7), (0, 2), (2, 9), (1, 7), (0, 9))]
  assert near_photos.group(pairs) == [[0, 2, 9], [1, 4, 7]]
  assert near_photos.group([]) == []
