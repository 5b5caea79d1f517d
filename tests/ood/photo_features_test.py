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
def test_features_of_the_cache_are_those_of_the_network(
    data, run, train_dir, folder, decay):
  prefix = checkpoints.newest(os.path.join(train_dir, folder))
  kept = photo_features.from_cache(run, prefix, datasets(data), decay)
  assert sorted(kept) == ['train', 'validation']
  for split, dataset in datasets(data).items():
    computed = photo_features.from_photos(run, prefix, dataset, 7,
                                          moving_average_decay=decay)
    for found in (kept[split], computed):
      assert len(found.values) == len(found.logits) == PHOTOS[split]
      assert found.positions.tolist() == list(range(PHOTOS[split]))
    np.testing.assert_allclose(kept[split].values, computed.values, atol=1e-5)
    np.testing.assert_allclose(kept[split].logits, computed.logits, atol=1e-5)
    assert kept[split].labels.tolist() == computed.labels.tolist()
    assert kept[split].filenames == computed.filenames
    assert [CLASSES[label] for label in computed.labels] == [
        name.split('/')[0] for name in computed.filenames]


def test_averages_give_other_logits_than_the_variables(data, run, checkpoint):
  plain, averaged = (
      photo_features.from_cache(run, checkpoint, datasets(data), decay)['train']
      for decay in (None, 0.9))
  assert np.abs(plain.logits - averaged.logits).max() > 1e-3


def test_some_photos_of_cache_and_network_are_the_same(data, run, checkpoint):
  some = np.array([0, 3, 17, 29])
  kept = photo_features.from_cache(run, checkpoint, datasets(data), choose={
      'train': lambda labels: some[:len(labels)]})
  computed = photo_features.from_photos(
      run, checkpoint, datasets(data)['train'], 3, keep=some)
  every = photo_features.from_photos(run, checkpoint, datasets(data)['train'],
                                     30)
  for found in (kept['train'], computed):
    np.testing.assert_allclose(found.values, every.values[some], atol=1e-5)
    assert found.labels.tolist() == every.labels[some].tolist()
    assert found.filenames == [every.filenames[place] for place in some]
    assert found.positions.tolist() == some.tolist()
  assert len(kept['validation'].values) == PHOTOS['validation']


def _change_weights(train_dir, pattern):
  """Writes the newest checkpoint again, with other values of a variable."""
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
def test_cache_of_other_facts_is_not_used(data, run, checkpoint, change):
  assert photo_features.from_cache(run._replace(**change), checkpoint,
                                   datasets(data)) is None


@pytest.mark.parametrize('damage', ['{', '{}', '[]', None, 'no folder', 'less'])
def test_cache_that_is_damaged_or_gone_is_not_used(data, run, train_dir,
                                                   checkpoint, damage):
  name = os.path.join(train_dir, 'features.json')
  use = feature_cache.load_use(train_dir)
  if damage is None:
    os.remove(name)
  elif damage == 'no folder':
    feature_cache.save_use(train_dir, use._replace(
        folders={split: '/no/where' for split in use.folders}))
  elif damage == 'less':
    feature_cache.save_use(train_dir, use._replace(
        folders={'train': use.folders['train']}))
  else:
    with open(name, 'w') as stream:
      stream.write(damage)
  assert photo_features.from_cache(run, checkpoint, datasets(data)) is None
