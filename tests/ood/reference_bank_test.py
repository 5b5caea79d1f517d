"""Tests of ood/reference_bank.py: selection, scores, threshold and file."""

import os

import numpy as np
import pytest

from common.errors import InputError
from kits import serving_kit as kit
from ood import reference_bank

# Unusual file names: not ASCII, not UTF-8, empty, with a comma.
NAMES = ['a/蒲公英.jpg', 'a/\udcff\udc80.jpg', '', 'b/x,"y".jpg', 'b/2.jpg',
         'c/3.jpg']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  return kit.save_checkpoint(tmp_path_factory.mktemp('train'), 'cifarnet')


def make_bank(photos=40, seed=0, width=8):
  """Returns a Bank of random features."""
  rng = np.random.RandomState(seed)
  return reference_bank.assemble(rng.normal(size=(photos, width)),
                                 np.arange(photos) % 3)


def cosine(a, b):
  return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


# Photos per class, limit of all photos, photos per class that are chosen.
@pytest.mark.parametrize('counts, limit, expected', [
    ([4, 4], 100, [4, 4]),
    ([3, 500, 500], 203, [3, 100, 100]),
    ([50, 2, 90, 90], 101, [33, 2, 33, 33]),
    ([0, 40, 0, 40], 30, [0, 15, 0, 15]),
    ([9] * 6, 12, [reference_bank.LEAST_A_CLASS] * 6),
    ([2, 9, 9], 3, [2] + [reference_bank.LEAST_A_CLASS] * 2),
    ([1], 100, [1]),
])
def test_choose_takes_equally_many_photos_per_class_up_to_the_limit(
    counts, limit, expected):
  labels = np.random.RandomState(1).permutation(
      np.repeat(np.arange(len(counts)), counts))
  chosen = reference_bank.choose(labels, limit)
  assert np.bincount(labels[chosen],
                     minlength=len(counts)).tolist() == expected
  assert np.all(np.diff(chosen) > 0)
  np.testing.assert_array_equal(chosen, reference_bank.choose(labels, limit))


def test_choose_takes_photos_spread_over_the_whole_class():
  chosen = reference_bank.choose(np.zeros(1000, int), 100)
  assert len(chosen) == 100
  assert np.histogram(chosen, 4, (0, 1000))[0].min() > 10


def test_choose_of_no_photos_is_empty():
  assert len(reference_bank.choose(np.zeros([0], np.int64))) == 0
  assert len(reference_bank.choose([])) == 0


def test_local_density_excludes_the_photo_itself():
  bank = make_bank()
  assert bank.num_neighbours == reference_bank.NUM_NEIGHBOURS
  for row, density in zip(bank.features, bank.local_density):
    others = [cosine(row, other) for other in bank.features
              if other is not row and not np.array_equal(other, row)]
    expected = np.mean(sorted(others)[-bank.num_neighbours:])
    assert density == pytest.approx(expected, abs=1e-6)
  # No photos are similar: counting the photo itself would give more than 0.
  assert reference_bank.assemble(np.eye(4), [0, 1, 2, 3]).local_density == (
      pytest.approx(np.zeros(4)))


def test_local_density_includes_identical_photos():
  bank = reference_bank.assemble([[1.0, 0.0], [2.0, 0.0]], [0, 1])
  assert bank.num_neighbours == 1
  assert bank.local_density == pytest.approx([1.0, 1.0])


def test_similarities_do_not_depend_on_the_number_of_rows_per_step(monkeypatch):
  bank, photos = make_bank(), np.random.RandomState(5).normal(size=(23, 8))
  similarities = reference_bank.similarities(bank, photos)
  monkeypatch.setattr(reference_bank, '_ROWS', 7)
  np.testing.assert_allclose(make_bank().local_density, bank.local_density,
                             atol=1e-6)
  np.testing.assert_allclose(reference_bank.similarities(bank, photos),
                             similarities, atol=1e-6)


@pytest.mark.parametrize('photos', [2, 5, 11, 60])
def test_similarities_follow_the_definition(photos):
  bank = make_bank(photos)
  assert bank.num_neighbours == min(10, photos - 1)
  features = np.random.RandomState(7).normal(size=(9, 8)) * 30
  expected = []
  for row in features:
    nearest = sorted(((cosine(row, other), index)
                      for index, other in enumerate(bank.features)),
                     reverse=True)[:bank.num_neighbours]
    expected.append(np.mean([
        value - reference_bank.LOCAL_SHARE * bank.local_density[index]
        for value, index in nearest]))
  np.testing.assert_allclose(reference_bank.similarities(bank, features),
                             expected, atol=1e-6)
  assert len(reference_bank.similarities(bank, np.zeros([0, 8]))) == 0


def test_nearest_returns_the_photo_itself_first():
  bank = make_bank()
  indices, cosines = reference_bank.nearest(bank, bank.features[[4, 30]] * 5, 3)
  assert indices[:, 0].tolist() == [4, 30]
  np.testing.assert_allclose(cosines[:, 0], 1.0, atol=1e-6)
  assert np.all(np.diff(cosines, axis=1) <= 0)
  for row, row_indices in zip(bank.features[[4, 30]], indices):
    cosines_to_all = [cosine(row, other) for other in bank.features]
    assert sorted(cosines_to_all)[-3:] == pytest.approx(
        sorted(cosines_to_all[index] for index in row_indices), abs=1e-6)


def test_scores_are_the_soft_minimum_of_standardized_values():
  bank = make_bank()._replace(
      center=np.array([0.5, 4.0], np.float32),
      spread=np.array([0.1, 2.0], np.float32))
  similarities, logits = [0.6, 0.2, 0.5], [[0, 2.0], [9.0, -1], [4.0, 4.0]]
  expected = []
  for similarity, largest in zip(similarities, [2.0, 9.0, 4.0]):
    a, b = (similarity - 0.5) / 0.1, (largest - 4.0) / 2.0
    expected.append(-0.5 * np.log(np.exp(-2 * a) + np.exp(-2 * b)))
  scores = reference_bank.scores(bank, np.float32(similarities),
                                 np.float32(logits))
  np.testing.assert_allclose(scores, expected, rtol=1e-5)
  # Close to the smaller one, and never above it.
  assert -1.4 < scores[0] <= -1.0 and scores[1] == pytest.approx(-3, abs=1e-3)


@pytest.mark.parametrize('photos, refused', [
    (1, 0), (6, 0), (19, 0), (20, 1), (40, 2), (100, 5), (287, 14)])
def test_threshold_accepts_95_percent_and_no_more_photos_than_needed(photos,
                                                                     refused):
  rng = np.random.RandomState(photos)
  similarities, logits = rng.rand(photos), rng.normal(size=(photos, 3))
  bank = reference_bank.set_threshold(make_bank(), similarities, logits,
                                      'validation')
  scores = reference_bank.scores(bank, similarities, logits)
  accepted = scores >= bank.threshold
  assert (bank.photos, bank.refused, bank.split) == (photos, refused,
                                                     'validation')
  assert np.sum(~accepted) == refused
  assert np.mean(accepted) >= reference_bank.ACCEPTED
  assert (accepted.sum() - 1) / photos < reference_bank.ACCEPTED
  # Another order of the sums may change the last digits.
  assert scores[accepted].min() - bank.threshold > 1e-6
  if refused:
    assert bank.threshold - scores[~accepted].max() > 1e-6
  # Center and spread standardize the scores.
  values = np.stack([similarities, logits.max(axis=1)], axis=1)
  np.testing.assert_allclose(bank.center, values.mean(axis=0), rtol=1e-5)
  if photos > 1:
    np.testing.assert_allclose(bank.spread, values.std(axis=0), rtol=1e-5)


def test_threshold_of_identical_photos_refuses_none():
  bank = reference_bank.set_threshold(
      make_bank(), np.full(40, 0.3), np.tile([1.0, 2.0], (40, 1)), 'validation')
  assert bank.refused == 0 and np.isfinite(bank.threshold)
  scores = reference_bank.scores(bank, np.full(40, 0.3 - 1e-8),
                                 np.tile([1.0, 2.0], (40, 1)))
  assert np.all(scores >= bank.threshold)
  assert not np.any(reference_bank.scores(
      bank, np.float32([0.2]), [[1.0, 2.0]]) >= bank.threshold)


def test_threshold_without_photos_is_refused():
  with pytest.raises(InputError, match='no photo to set the threshold with'):
    reference_bank.set_threshold(make_bank(), [], np.zeros([0, 3]),
                                 'validation')


@pytest.mark.parametrize('count', [0, 1])
def test_assemble_of_fewer_than_two_photos_is_refused(count):
  with pytest.raises(InputError, match='at least two training photos .* %d' %
                     count):
    reference_bank.assemble(np.ones([count, 4]), [0] * count)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value):
  features = np.ones([3, 4])
  features[1, 2] = value
  for use in (lambda: reference_bank.assemble(features, [0, 1, 2]),
              lambda: reference_bank.similarities(make_bank(width=4), features),
              lambda: reference_bank.nearest(make_bank(width=4), features, 1)):
    with pytest.raises(InputError, match='not finite'):
      use()


def test_features_that_are_all_zero_have_cosine_0():
  bank = make_bank()
  similarities = reference_bank.similarities(bank, np.zeros([1, 8]))
  cosines = reference_bank.nearest(bank, np.zeros([1, 8]), 1)[1]
  assert np.isfinite(similarities[0]) and cosines[0, 0] == 0.0


def save_bank(checkpoint, decay=None):
  rng = np.random.RandomState(3)
  bank = reference_bank.build(
      rng.normal(size=(6, 5)), [0, 0, 1, 1, 2, 2], NAMES, [3, 1, 4, 10, 5, 9],
      checkpoint, 'of these records', decay)
  bank = reference_bank.set_threshold(bank, rng.rand(21), rng.rand(21, 3),
                                      'validation')
  reference_bank.save(checkpoint, bank)
  return bank


@pytest.mark.parametrize('decay', [None, 0.99])
def test_load_returns_the_saved_bank(checkpoint, decay):
  bank = save_bank(checkpoint, decay)
  folder = os.path.dirname(checkpoint)
  assert not [name for name in os.listdir(folder) if 'tmp' in name]
  for records in (None, 'of these records'):
    loaded = reference_bank.load(checkpoint, records, decay)
    for name, value in bank._asdict().items():
      loaded_value = getattr(loaded, name)
      if isinstance(value, np.ndarray):
        assert loaded_value.dtype == value.dtype, name
        np.testing.assert_array_equal(loaded_value, value)
      else:
        assert (type(loaded_value), loaded_value) == (type(value), value), name


def test_file_has_the_keys_of_format_1(checkpoint):
  save_bank(checkpoint, 0.99)
  with np.load(reference_bank.path(checkpoint)) as stored:
    assert sorted(stored.files) == sorted(
        'form features labels filenames positions usual num_neighbours center '
        'spread threshold photos refused split step digest records '
        'moving_average_decay'.split())
    assert int(stored['form']) == 1


def test_load_of_other_records_or_averages_returns_none(checkpoint):
  save_bank(checkpoint)
  assert reference_bank.load(checkpoint, 'of others') is None
  assert reference_bank.load(checkpoint, moving_average_decay=0.9) is None
  assert reference_bank.load(checkpoint, moving_average_decay=0) is not None
  save_bank(checkpoint, 0.9)
  assert reference_bank.load(checkpoint) is None
  assert reference_bank.load(checkpoint, moving_average_decay=0.99) is None


def test_load_of_other_weights_returns_none(tmp_path, checkpoint):
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet')
  save_bank(prefix)
  assert reference_bank.load(prefix) is not None
  for suffix in ('.index', '.data-00000-of-00001'):
    with open(checkpoint + suffix, 'rb') as source:
      contents = source.read()
    with open(prefix + suffix, 'wb') as target:
      target.write(contents)
  with open(prefix + '.index', 'ab') as target:
    target.write(b'x')
  assert reference_bank.load(prefix) is None


def _truncate(data):
  return data[:len(data) // 2]


def _flip_a_bit(data):
  middle = data.index(b'features.npy') + 200
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]


def _mark_as_encrypted(data):
  position = data.rindex(b'PK\x01\x02') + 8
  return data[:position] + b'\x01' + data[position + 1:]


@pytest.mark.parametrize('damage', [
    _truncate, _flip_a_bit, _mark_as_encrypted, lambda data: b'',
    lambda data: b'{}', lambda data: b'\x93NUMPY' + data])
def test_load_of_a_damaged_file_returns_none(checkpoint, damage, capfd):
  save_bank(checkpoint)
  path = reference_bank.path(checkpoint)
  with open(path, 'rb') as stream:
    data = stream.read()
  with open(path, 'wb') as stream:
    stream.write(damage(data))
  capfd.readouterr()
  assert reference_bank.load(checkpoint) is None
  assert capfd.readouterr().err == ''
  save_bank(checkpoint)
  assert reference_bank.load(checkpoint) is not None


@pytest.mark.parametrize('missing', ['form', 'features', 'threshold'])
def test_load_of_a_file_without_an_array_returns_none(checkpoint, missing):
  save_bank(checkpoint)
  path = reference_bank.path(checkpoint)
  with np.load(path) as stored:
    arrays = {name: stored[name] for name in stored.files if name != missing}
  with open(path, 'wb') as stream:
    np.savez(stream, **arrays)
  assert reference_bank.load(checkpoint) is None


def test_load_of_another_format_or_no_file_returns_none(checkpoint,
                                                        monkeypatch):
  save_bank(checkpoint)
  monkeypatch.setattr(reference_bank, '_FORM', reference_bank._FORM + 1)
  assert reference_bank.load(checkpoint) is None
  os.remove(reference_bank.path(checkpoint))
  assert reference_bank.load(checkpoint) is None


def test_save_that_fails_keeps_the_old_file(checkpoint, monkeypatch):
  bank = save_bank(checkpoint)
  before = sorted(os.listdir(os.path.dirname(checkpoint)))

  def fill_the_disk(stream, **_):
    stream.write(b'PK')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'savez', fill_the_disk)
  with pytest.raises(OSError):
    reference_bank.save(checkpoint, bank._replace(threshold=9.0))
  assert reference_bank.load(checkpoint).threshold == bank.threshold
  assert sorted(os.listdir(os.path.dirname(checkpoint))) == before
