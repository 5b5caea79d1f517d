"""Tests of conversion/splits.py: counts, duplicates and former splits."""

import collections

import pytest

from common.errors import InputError
from datasets.conversion import splits
from datasets.photo_files import photo_folder


def group(number, size=1, class_name='cat'):
  """Returns photos with equal pixels, whose bytes differ."""
  return [photo_folder.CheckedPhoto(
      '%s/%d_%d.jpg' % (class_name, number, copy), class_name,
      '%d_%d' % (number, copy), 1, 10, 12, True, 'look %d' % number)
          for copy in range(size)]


def assign(sizes, validation=10, test=0, seed=0, former=None):
  return splits.assign([group(number, size) for number, size in
                        enumerate(sizes)],
                       {'validation': validation, 'test': test}, seed, former)


def counts(split_of):
  split_counts = collections.Counter(split_of.values())
  return tuple(split_counts[split] for split in splits.SPLITS)


@pytest.mark.parametrize('count, percents, wanted', [
    (1, (10, 0), (1, 0, 0)), (2, (10, 0), (1, 1, 0)), (3, (10, 0), (2, 1, 0)),
    (14, (10, 0), (13, 1, 0)), (16, (10, 0), (14, 2, 0)),
    (100, (10, 0), (90, 10, 0)), (100, (0, 0), (100, 0, 0)),
    (100, (0, 20), (80, 0, 20)), (100, (10, 20), (70, 10, 20)),
    (3, (10, 10), (1, 1, 1)), (5, (98, 1), (1, 3, 1)),
    (2, (10, 10), (1, 0, 1)), (100, (9.6, 0), (90, 10, 0))])
def test_assign_gives_the_counts_of_a_class(count, percents, wanted):
  assert counts(assign([1] * count, *percents)) == wanted


def test_assign_depends_on_content_and_seed_only():
  first = assign([1] * 40, 20, 20)
  groups = [group(number) for number in reversed(range(40))]
  renamed = [[photo._replace(file='x/' + photo.file) for photo in members]
             for members in groups]
  again = splits.assign(renamed, {'validation': 20, 'test': 20}, 0)
  assert again == {'x/' + file: split for file, split in first.items()}
  assert assign([1] * 40, 20, 20, seed=1) != first


def test_assign_keeps_equal_photos_together():
  for seed in range(20):
    split_of = assign([3] * 10, 30, 30, seed)
    assert counts(split_of) == (12, 9, 9)
    for number in range(10):
      assert len({split_of['cat/%d_%d.jpg' % (number, copy)]
                  for copy in range(3)}) == 1


@pytest.mark.parametrize('sizes, percents, wanted', [
    ([2, 2], (10, 0), (2, 2, 0)), ([5, 2], (10, 0), (5, 2, 0)),
    ([2, 2, 1], (10, 10), (2, 1, 2)), ([3], (50, 0), (3, 0, 0)),
    ([4, 4], (0, 10), (4, 0, 4))])
def test_assign_with_large_groups_leaves_no_split_empty(
    sizes, percents, wanted):
  assert counts(assign(sizes, *percents)) == wanted


def former_lookup(split_of):
  by_digest = {file[len('cat/'):-len('.jpg')]: split
               for file, split in split_of.items()}
  return lambda photo: by_digest.get(photo.digest)


@pytest.mark.parametrize('before, after', [(20, 21), (20, 60), (60, 20)])
def test_assign_with_former_splits_moves_no_photo(before, after):
  first = assign([1] * before, 20, 10)
  second = assign([1] * after, 20, 10, former=former_lookup(first))
  for file in set(first) & set(second):
    assert second[file] == first[file]
  if after > before:
    assert counts(second) == (round(after * .7), round(after * .2),
                              round(after * .1))


def test_assign_group_with_a_former_training_photo_stays_in_training():
  """Its copies with other bytes were in another split, or are new."""
  former = {'0_0': 'validation', '0_1': 'train', '1_1': 'test',
            '2_1': 'validation', '2_0': 'test'}
  split_of = assign([2, 2, 2] + [1] * 20, 10, 10,
                    former=lambda photo: former.get(photo.digest))
  wanted = {0: 'train', 1: 'test', 2: 'validation'}
  for number, split in wanted.items():
    for copy in range(2):
      assert split_of['cat/%d_%d.jpg' % (number, copy)] == split


def check_cats(sizes, was_kept=None, **percents):
  """Calls splits.check for cats in groups of `sizes`, and for 9 dogs."""
  percents = dict({'validation': 0, 'test': 0}, **percents)
  by_class = {'dog': [group(number, 1, 'dog') for number in range(9)],
              'cat': [group(number, size) for number, size in enumerate(sizes)]}
  split_of = {}
  for groups in by_class.values():
    split_of.update(splits.assign(groups, percents, 0))
  splits.check(by_class, split_of, percents, was_kept, '/data/pets')


@pytest.mark.parametrize('sizes, percents', [
    ([1], {}), ([1, 1], {'validation': 1}), ([5, 5], {'test': 1}),
    ([1, 1, 1], {'validation': 50, 'test': 49})], ids=str)
def test_check_with_enough_photos_passes(sizes, percents):
  check_cats(sizes, **percents)


@pytest.mark.parametrize('sizes, percents, message', [
    ([1], {'validation': 1}, r"train, validation in these.*'cat' \(1\); add"),
    ([9], {'test': 1}, r"train, test in .*'cat' \(1\)"),
    ([1, 1], {'validation': 1, 'test': 1},
     r"train, validation, test in .*'cat' \(2\)")], ids=str)
def test_check_with_too_few_photos_names_the_class(sizes, percents, message):
  message = '^/data/pets: .* splits ' + message
  with pytest.raises(InputError, match=message) as caught:
    check_cats(sizes, **percents)
  assert 'dog' not in str(caught.value)


def test_check_after_a_former_conversion_says_how_to_split_again():
  with pytest.raises(InputError, match='delete /d/pets.json to split all'):
    check_cats([1], validation=1, was_kept='/d/pets.json')


def test_check_with_many_classes_names_only_the_first_five():
  by_class = {'c%02d' % number: [group(0, 1, 'c%02d' % number)]
              for number in range(30)}
  split_of = {photo.file: 'train' for groups in by_class.values()
              for photo in groups[0]}
  with pytest.raises(InputError, match=r"'c00' .*'c04' \(1\), \.\.\.;"):
    splits.check(by_class, split_of, {'validation': 10, 'test': 0}, None, 'x')
