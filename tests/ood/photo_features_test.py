"""Tests of ood/photo_features.py: from the feature cache and from photos."""

import os

import numpy as np
import pytest

from common import checkpoint_files
from compat import tf
from datasets import dataset_factory
from datasets.conversion import convert_photos
from kits.trained_kit import CLASSES, NAME, colour_photo, make_photos
from ood import photo_features
from runs import checkpoints, feature_cache

pytestmark = pytest.mark.slow

PHOTOS = {'train': 30, 'validation': 21, 'test': 9}


def datasets(data):
  return {split: dataset_factory.get_dataset(NAME, split, data)
          for split in ('train', 'validation')}


@pytest.mark.parametrize('folder, decay', [('', None), ('best', None),
                                           ('', 0.9), ('best', 0.9)])
def test_features_of_the_cache_equal_those_of_photos(data, run, train_dir,
                                                     folder, decay):
  prefix = checkpoints.newest(os.path.join(train_dir, folder))
  cached = photo_features.from_cache(run, prefix, datasets(data), decay)
  assert sorted(cached) == ['train', 'validation']
  for split, dataset in datasets(data).items():
    computed = photo_features.from_photos(run, prefix, dataset, 7,
                                          moving_average_decay=decay)
    for features in (cached[split], computed):
      assert len(features.values) == len(features.logits) == PHOTOS[split]
      assert features.positions.tolist() == list(range(PHOTOS[split]))
    np.testing.assert_allclose(cached[split].values, computed.values, atol=1e-5)
    np.testing.assert_allclose(cached[split].logits, computed.logits, atol=1e-5)
    assert cached[split].labels.tolist() == computed.labels.tolist()
    assert cached[split].filenames == computed.filenames
    assert [CLASSES[label] for label in computed.labels] == [
        name.split('/')[0] for name in computed.filenames]


def test_moving_averages_change_the_logits(data, run, checkpoint):
  plain, averaged = (
      photo_features.from_cache(run, checkpoint, datasets(data), decay)['train']
      for decay in (None, 0.9))
  assert np.abs(plain.logits - averaged.logits).max() > 1e-3


def test_features_of_chosen_photos_are_equal_from_cache_and_photos(data, run,
                                                                   checkpoint):
  chosen = np.array([0, 3, 17, 29])
  cached = photo_features.from_cache(run, checkpoint, datasets(data), choose={
      'train': lambda labels: chosen[:len(labels)]})
  computed = photo_features.from_photos(
      run, checkpoint, datasets(data)['train'], 3, keep=chosen)
  all_photos = photo_features.from_photos(run, checkpoint,
                                          datasets(data)['train'], 30)
  for got in (cached['train'], computed):
    np.testing.assert_allclose(got.values, all_photos.values[chosen], atol=1e-5)
    assert got.labels.tolist() == all_photos.labels[chosen].tolist()
    assert got.filenames == [all_photos.filenames[position]
                             for position in chosen]
    assert got.positions.tolist() == chosen.tolist()
  assert len(cached['validation'].values) == PHOTOS['validation']


def _change_weights(train_dir, pattern):
  """Changes the variables of the newest checkpoint that contain `pattern`."""
  prefix = checkpoints.newest(train_dir)
  reader = checkpoint_files.open_reader(prefix)
  with tf.Graph().as_default(), tf.Session() as session:
    variables = {}
    for name in reader.get_variable_to_shape_map():
      value = reader.get_tensor(name)
      variables[name] = tf.Variable(
          value * 1.01 if pattern in name else value, name='v')
    session.run(tf.global_variables_initializer())
    tf.train.Saver(variables).save(session, prefix, write_meta_graph=False)


def test_cache_of_other_weights_is_not_used(data, run, train_dir, checkpoint):
  _change_weights(train_dir, 'CifarNet/logits')
  assert photo_features.from_cache(run, checkpoint, datasets(data)) is not None
  _change_weights(train_dir, 'CifarNet/conv2')
  assert photo_features.from_cache(run, checkpoint, datasets(data)) is None


def test_cache_of_other_records_is_not_used(run, checkpoint, tmp_path):
  make_photos(tmp_path / NAME, 20)
  (tmp_path / NAME / 'red' / '03.jpg').write_bytes(colour_photo(2, 77))
  convert_photos.convert(str(tmp_path), NAME, percent_validation=35,
                         percent_test=15)
  assert photo_features.from_cache(
      run, checkpoint, datasets(str(tmp_path))) is None


@pytest.mark.parametrize('change', [
    {'preprocessing_name': 'inception'}, {'image_size': 40},
    {'labels_offset': 1}, {'model_name': 'lenet'}])
def test_cache_of_other_settings_is_not_used(data, run, checkpoint, change):
  assert photo_features.from_cache(run._replace(**change), checkpoint,
                                   datasets(data)) is None


@pytest.mark.parametrize('damage', ['{', '{}', '[]', None, 'no folder', 'less'])
def test_cache_that_is_damaged_or_missing_is_not_used(data, run, train_dir,
                                                      checkpoint, damage):
  path = os.path.join(train_dir, 'features.json')
  use = feature_cache.load_use(train_dir)
  if damage is None:
    os.remove(path)
  elif damage == 'no folder':
    feature_cache.save_use(train_dir, use._replace(
        folders={split: '/no/where' for split in use.folders}))
  elif damage == 'less':
    feature_cache.save_use(train_dir, use._replace(
        folders={'train': use.folders['train']}))
  else:
    with open(path, 'w') as stream:
      stream.write(damage)
  assert photo_features.from_cache(run, checkpoint, datasets(data)) is None
