"""Tests of training a head again after photos or classes were added."""

import os
import shutil

import numpy as np
import pytest

from common.errors import InputError
from datasets.conversion import convert_photos
from kits.run_kit import evaluations, tiny_networks
from kits.trained_kit import CLASSES, NAME, colour_photo, make_photos, train
from runs import checkpoints, feature_cache, run_info
from training import former_run, head_loop, validation_history

# The auxiliary head is trained too: otherwise its logits would be features.
CACHED = ['--cache_features', '--trainable_scopes=Head/logits,Aux']

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', autouse=True)
def tiny():
  with tiny_networks():
    yield


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """A checkpoint to start from."""
  folder = tmp_path_factory.mktemp('published')
  make_photos(folder / NAME)
  convert_photos.convert(str(folder), NAME, percent_validation=30)
  return train(str(folder), folder / 'train', '--max_number_of_steps=1')


@pytest.fixture
def data(tmp_path):
  make_photos(tmp_path / NAME)
  convert(tmp_path)
  return tmp_path


def convert(data):
  convert_photos.convert(str(data), NAME, percent_validation=30)


def add_photos(data, folder, label, numbers):
  (data / NAME / folder).mkdir(exist_ok=True)
  for number in numbers:
    (data / NAME / folder / ('%d.jpg' % number)).write_bytes(
        colour_photo(label, number))


def train_head(data, published, *more):
  return train(str(data), data / 'train', *CACHED,
               '--checkpoint_path=' + published,
               '--checkpoint_exclude_scopes=Head/logits,Aux',
               '--early_stop_evals=2', '--evaluate_every_n_steps=5', *more)


def caches(parent, split):
  """Returns the complete caches of a split: {number of photos: cache}."""
  found = (feature_cache.open_cache(str(parent / name), split=split)
           for name in os.listdir(str(parent)))
  return {cache.num_photos: cache for cache in found if cache}


def test_run_on_added_photos_computes_only_these_and_trains_on(
    data, published, log):
  first = train_head(data, published)
  before = evaluations(data / 'train')
  log.clear()
  train_head(data, published)
  assert 'Nothing to do' in log.text
  add_photos(data, 'red', 2, range(70, 75))
  convert(data)
  computed = []
  forward = head_loop._append
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(head_loop, '_append', lambda writer, photos, *more: (
        computed.extend(photos['filename']), forward(writer, photos, *more)))
    log.clear()
    second = train_head(data, published)
  assert 'Nothing to do' not in log.text and 'Stopping: ' in log.text
  assert sorted(computed) == [b'red/%d.jpg' % n for n in range(70, 75)]
  assert (checkpoints.read_global_step(second) >
          checkpoints.read_global_step(first))
  after = evaluations(data / 'train')
  assert after[:len(before)] == before
  assert len({line['data'] for line in after}) == 2
  best = validation_history.read_best(str(data / 'train' / 'best'))
  assert best in after[len(before):]
  # The same rows as if all had been computed.
  train(str(data), data / 'other', *CACHED, '--checkpoint_path=' + published,
        '--checkpoint_exclude_scopes=Head/logits,Aux',
        '--max_number_of_steps=1',
        '--feature_cache_dir=%s' % (data / 'cache'))
  for split in ('train', 'validation'):
    all_computed = caches(data / 'cache', split)
    size = max(all_computed)
    reused = caches(data / (NAME + '_features'), split)[size]
    assert reused.filenames() == all_computed[size].filenames()
    np.testing.assert_array_equal(reused.labels(), all_computed[size].labels())
    np.testing.assert_array_equal(reused.features()[0],
                                  all_computed[size].features()[0])


def test_run_with_a_new_class_begins_again_in_the_same_folder(
    data, published, log):
  train_head(data, published)
  add_photos(data, 'black', 0, range(90, 98))  # The first of the classes.
  convert(data)
  log.clear()
  train_head(data, published)
  assert 'New classes: black. Training begins again' in log.text
  labels = ['black'] + CLASSES
  assert run_info.load(str(data / 'train')).labels == labels
  former = data / 'train' / '3_classes'
  assert run_info.load(str(former)).labels == CLASSES
  assert checkpoints.newest(str(former)) and (former / 'best').is_dir()
  cache = max(caches(data / (NAME + '_features'), 'train').items())[1]
  assert [labels.index(name.split('/')[0])
          for name in cache.filenames()] == list(cache.labels())
  assert 'The features of ' in log.text


def test_run_without_one_of_its_classes_is_an_error(data, published):
  train_head(data, published)
  shutil.rmtree(str(data / NAME / 'blue'))
  convert(data)
  with pytest.raises(InputError, match='holds a run on the classes'):
    train_head(data, published)


def test_setting_files_aside_continues_after_a_kill(data, published):
  train_head(data, published)
  folder = data / 'train' / '3_classes'
  folder.mkdir()
  os.rename(str(data / 'train' / 'best'), str(folder / 'best'))
  former = run_info.load(str(data / 'train'))
  former_run.set_aside(str(data / 'train'), former, CLASSES + ['x'])
  assert os.listdir(str(data / 'train')) == ['3_classes']
  assert {'best', 'run.json', 'checkpoint'} <= set(os.listdir(str(folder)))
