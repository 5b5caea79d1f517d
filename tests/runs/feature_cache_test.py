"""Tests of feature_cache.py: incomplete caches, kills, reading in blocks."""

import errno
import logging
import os

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from runs import feature_cache
from runs.feature_cache import FeatureCache

SHAPES = [(2, 2, 3), (5,)]


def _cache(folder, photos=10, views=1, **key):
  return FeatureCache(str(folder), dict({'network': 'lenet'}, **key), SHAPES,
                      photos, views)


def _rows(start, end):
  """Returns features whose first value is the row's number."""
  number = np.arange(start, end, dtype=np.float32)
  return [np.stack([number] * 12, 1).reshape(-1, 2, 2, 3),
          np.stack([number] * 5, 1)]


def _append(writer, count, photos=10):
  rows = np.arange(writer.rows, writer.rows + count)
  writer.append(_rows(rows[0], rows[-1] + 1), rows % photos % 3,
                ['写/%d\n.jpg' % (row % photos) for row in rows])


def _fill(cache, step=3):
  with cache.fill() as writer:
    while writer.rows < cache.num_rows:
      _append(writer, min(step, cache.num_rows - writer.rows),
              cache.num_photos)


def test_cache_filled_returns_appended_rows(tmp_path):
  cache = _cache(tmp_path, views=2)
  assert not cache.is_complete()
  _fill(cache)
  cache = _cache(tmp_path, views=2)
  assert cache.is_complete()
  assert cache.labels().tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
  assert cache.filenames()[9] == '写/9\n.jpg' and len(cache.filenames()) == 10
  for actual, expected in zip(cache.features(), _rows(0, 20)):
    np.testing.assert_array_equal(actual, expected)
  on_disk = sum(os.path.getsize(os.path.join(cache.folder, name))
                for name in os.listdir(cache.folder)
                if name.startswith(('features', 'labels')))
  assert on_disk == cache.num_bytes == 20 * (17 * 4 + 8)


def test_cache_in_16_bits_takes_half_the_space_and_has_no_infinity(tmp_path):
  cache = _cache(tmp_path, dtype='float16')
  with cache.fill() as writer:
    writer.append([np.full((10,) + shape, value, np.float32)
                   for shape, value in zip(SHAPES, (1e6, 0.1))],
                  np.arange(10), ['a.jpg'] * 10)
  assert cache.num_bytes == 10 * (17 * 2 + 8)
  opened = feature_cache.open_cache(cache.folder, dtype='float16')
  for batch in (next(opened.batches(4)), next(opened.training_batches(
      4, np.random.RandomState(0)))):
    assert {array.dtype for array in batch.features} == {np.dtype('float32')}
    assert batch.features[0].max() == 65504
    np.testing.assert_allclose(batch.features[1], 0.1, rtol=1e-3)
  assert not _cache(tmp_path).rows()  # That in 32 bits is another one.


def test_cache_batches_are_first_views_in_order(tmp_path):
  cache = _cache(tmp_path, views=2)
  _fill(cache)
  batches = list(cache.batches(4))
  assert [batch.features[1][:, 0].tolist() for batch in batches] == [
      [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
  assert [batch.labels.tolist() for batch in batches] == [
      [0, 1, 2, 0], [1, 2, 0, 1], [2, 0]]


@pytest.mark.parametrize('memory', [17 * 4 * 4, 1 << 20])
def test_cache_training_batches_have_each_row_once_per_epoch(
    tmp_path, memory, monkeypatch):
  monkeypatch.setattr(feature_cache, '_SHUFFLE_BYTES', memory)
  cache = _cache(tmp_path, photos=9, views=2)
  _fill(cache)
  batches = cache.training_batches(6, np.random.RandomState(0))
  epochs = []
  for _ in range(2):
    rows = []
    for _ in range(3):
      batch = next(batches)
      row_numbers = batch.features[1][:, 0].astype(int)
      np.testing.assert_array_equal(batch.features[0][:, 0, 0, 0], row_numbers)
      np.testing.assert_array_equal(batch.labels, row_numbers % 9 % 3)
      rows += row_numbers.tolist()
    assert sorted(rows) == list(range(18))
    epochs.append(rows)
  assert epochs[0] != epochs[1] != list(range(18))


def test_cache_training_batches_with_same_seed_are_equal(tmp_path):
  cache = _cache(tmp_path)
  _fill(cache)
  first, second, other = [
      next(cache.training_batches(10, np.random.RandomState(seed)))
      .features[1][:, 0].tolist() for seed in (1, 1, 2)]
  assert first == second != other


def test_cache_batch_larger_than_split_continues_in_next_epoch(tmp_path):
  cache = _cache(tmp_path, photos=3)
  _fill(cache)
  batch = next(cache.training_batches(8, np.random.RandomState(0)))
  counts = np.bincount(batch.features[1][:, 0].astype(int))
  assert sum(counts) == 8 and min(counts) >= 2


def test_cache_interrupted_continues_after_saved_rows(tmp_path):
  cache = _cache(tmp_path)
  with pytest.raises(KeyboardInterrupt):
    with cache.fill() as writer:
      _append(writer, 4)
      raise KeyboardInterrupt
  assert not cache.is_complete()
  with cache.fill() as writer:
    assert writer.rows == 4
    _append(writer, 6)
  assert cache.is_complete()
  np.testing.assert_array_equal(cache.features()[1], _rows(0, 10)[1])
  assert len(cache.filenames()) == 10


def test_cache_killed_before_save_drops_unsaved_rows(tmp_path):
  cache = _cache(tmp_path)
  with cache.fill() as writer:
    _append(writer, 4)
    writer.save()
    _append(writer, 3)
    for stream in writer._files + [writer._names]:
      stream.flush()
    # As if the process were killed here: nothing more is written.
    writer.save = lambda: None
  assert os.path.getsize(cache._feature_path(1)) == 7 * 20
  with cache.fill() as writer:
    assert writer.rows == 4
    _append(writer, 6)
  np.testing.assert_array_equal(cache.features()[0], _rows(0, 10)[0])
  assert cache.filenames() == ['写/%d\n.jpg' % row for row in range(10)]


@pytest.mark.parametrize('name', ['features-0.f32', 'features-1.f32',
                                  'labels.i64', 'rows.json', 'key.json'])
def test_cache_with_truncated_file_is_filled_again(tmp_path, name):
  cache = _cache(tmp_path)
  _fill(cache)
  path = os.path.join(cache.folder, name)
  with open(path, 'r+b') as file:
    file.truncate(os.path.getsize(path) - 1)
  assert cache.rows() == 0
  _fill(cache)
  assert cache.is_complete()
  np.testing.assert_array_equal(cache.features()[0], _rows(0, 10)[0])


@pytest.mark.parametrize('change', [
    dict(network='other'), dict(photos=11), dict(views=2)])
def test_cache_with_different_key_is_not_shared(tmp_path, change):
  _fill(_cache(tmp_path))
  assert _cache(tmp_path).is_complete()
  assert not _cache(tmp_path, **change).is_complete()


def test_check_room_for_cache_larger_than_disk_raises_input_error(tmp_path):
  cache = _cache(tmp_path / 'not' / 'yet', photos=10 ** 15)
  with pytest.raises(InputError, match='MB are free; .*feature_cache_dir'):
    feature_cache.check_room([cache])
  feature_cache.check_room([_cache(tmp_path)])


def test_cache_folder_that_cannot_be_created_raises_input_error(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(InputError, match='cannot write to the feature cache'):
    _fill(_cache(tmp_path / 'file'))


def test_cache_on_full_disk_raises_input_error(tmp_path):
  cache = _cache(tmp_path)

  def fail():
    raise OSError(errno.ENOSPC, 'No space left on device')

  with pytest.raises(InputError, match='cannot write .*No space left'):
    with cache.fill() as writer:
      _append(writer, 4)
      writer.save()
      writer.save = fail
  assert cache.rows() == 4


def test_cache_waits_for_another_process_until_stop_is_requested(
    tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(feature_cache, '_WAIT_SECS', 0.01)
  caplog.set_level(logging.INFO, logger='tensorflow')
  tf.logging.set_verbosity('INFO')
  stop_requests = iter([False, False, True])
  with _cache(tmp_path).fill() as writer:
    with _cache(tmp_path).fill(lambda: next(stop_requests)) as second_writer:
      assert second_writer is None
    _append(writer, 10)
  assert caplog.text.count('Another process is filling') == 1
  with _cache(tmp_path).fill() as writer:
    assert writer.rows == 10


def test_fingerprint_records_changes_with_data(tmp_path):
  def write(name, *records):
    with tf.python_io.TFRecordWriter(str(tmp_path / name)) as writer:
      for record in records:
        writer.write(record)
    return str(tmp_path / name)

  path = write('one', b'abc', b'def')
  fingerprints = [feature_cache.fingerprint_records(paths) for paths in (
      [path], [write('same', b'abc', b'def')], [write('other', b'abd', b'def')],
      [write('order', b'def', b'abc')], [write('first', b'abc'), path])]
  assert fingerprints[0] == fingerprints[1]
  assert len(set(fingerprints)) == 4
  with pytest.raises(InputError, match='gone'):
    feature_cache.fingerprint_records([str(tmp_path / 'gone')])


def test_fingerprint_values_changes_with_name_shape_and_value():
  value = np.arange(6, dtype=np.float32)
  fingerprints = {feature_cache.fingerprint_values([pair]) for pair in (
      ('a', value), ('b', value), ('a', value.reshape(2, 3)), ('a', value + 1))}
  assert len(fingerprints) == 4
