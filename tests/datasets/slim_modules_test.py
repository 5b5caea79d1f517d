"""Tests of the modules that slim's programs import: flowers and so on."""

import inspect

import numpy as np
import pytest

from common.errors import InputError
from compat import slim, tf
from datasets import dataset_factory, flowers, imagenet, public_sets
from datasets.conversion import convert_photos, public
from kits import coco_kit, dataset_kit, imagenet_kit

# The example of slim's README, "Creating a TF-Slim Dataset Descriptor", after
# its imports.
EXAMPLE = """
# Selects the 'validation' dataset.
dataset = flowers.get_split('validation', DATA_DIR)

# Creates a TF-Slim DataProvider which reads the dataset in the background
# during both training and testing.
provider = slim.dataset_data_provider.DatasetDataProvider(dataset)
[image, label] = provider.get(['image', 'label'])
"""
# As in the README until 2019, and as it must be since.
CONTRIB = """
import tensorflow as tf
from datasets import flowers

slim = tf.contrib.slim
"""
TF_SLIM = """
import tensorflow.compat.v1 as tf
import tf_slim as slim
from datasets import flowers
"""


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Returns a folder with 6 validation photos under the name flowers."""
  folder = tmp_path_factory.mktemp('data')
  dataset_kit.make_folder(folder / 'flowers', dict.fromkeys(
      public_sets.FLOWERS_LABELS[:2], 6))
  convert_photos.convert(str(folder), 'flowers', percent_validation=50)
  return str(folder)


@pytest.mark.parametrize('imports', [
    TF_SLIM, pytest.param(CONTRIB, marks=pytest.mark.engine('tf1'))],
    ids=['tf_slim', 'contrib'])
@pytest.mark.parametrize('session', ['queue runners', 'monitored'])
def test_example_of_slims_readme_reads_photos(data_dir, imports, session):
  names = {'DATA_DIR': data_dir}
  with tf.Graph().as_default():
    exec(imports + EXAMPLE, names)
    items = [names['image'], names['label']]
    if session == 'monitored':
      with tf.train.MonitoredSession() as monitored:
        rows = [monitored.run(items) for _ in range(12)]
    else:
      with tf.Session() as plain:
        coordinator = tf.train.Coordinator()
        threads = tf.train.start_queue_runners(plain, coordinator)
        rows = [plain.run(items) for _ in range(12)]
        coordinator.request_stop()
        coordinator.join(threads)
  assert names['dataset'].num_samples == 6
  assert {label for _, label in rows} <= {0, 1}
  for image, _ in rows:
    assert image.shape == (10, 12, 3) and image.dtype == np.uint8


def test_datasets_map_has_a_module_per_public_set():
  assert set(dataset_factory.datasets_map) == set(public_sets.PUBLIC_SETS)
  assert dataset_factory.datasets_map['flowers'] is flowers
  for name, module in dataset_factory.datasets_map.items():
    assert module.__name__ == 'datasets.' + name
    parameters = inspect.signature(module.get_split).parameters
    assert list(parameters) == ['split_name', 'dataset_dir', 'file_pattern',
                                'reader']
    assert parameters['file_pattern'].default is None
    assert parameters['reader'].default is None


def test_get_split_equals_get_dataset(data_dir):
  for module in (flowers, dataset_factory.datasets_map['flowers']):
    dataset = module.get_split('train', data_dir,
                               file_pattern='flowers_%s-*-of-*', reader=None)
    assert isinstance(dataset, slim.dataset.Dataset)
    assert dataset.data_sources == dataset_factory.get_dataset(
        'flowers', 'train', data_dir).data_sources
    assert dataset.labels_to_names == {0: 'daisy', 1: 'dandelion'}
  with pytest.raises(ValueError, match="split of data set 'flowers' 'test'"):
    flowers.get_split('test', data_dir)


def read_items(dataset, *items):
  """Returns the rows of one epoch of a Dataset, in order."""
  with tf.Graph().as_default():
    provider = slim.dataset_data_provider.DatasetDataProvider(
        dataset, shuffle=False, num_epochs=1)
    tensors = provider.get(list(items))
    with tf.train.MonitoredSession() as session:
      return [session.run(tensors) for _ in range(dataset.num_samples)]


def test_get_split_visualwakewords_has_slims_items(tmp_path):
  coco_kit.put_archives(tmp_path)
  public.convert('visualwakewords', str(tmp_path))
  module = dataset_factory.datasets_map['visualwakewords']
  dataset = module.get_split('train', str(tmp_path))
  assert sorted(dataset.items_to_descriptions) == [
      'filename', 'image', 'label', 'object/bbox']
  rows = read_items(dataset, 'image', 'label', 'object/bbox')
  assert [label for _, label, _ in rows] == [1, 0, 0, 1, 0]
  assert [boxes.shape for _, _, boxes in rows] == [
      (1, 4), (0, 4), (0, 4), (2, 4), (0, 4)]
  # ymin, xmin, ymax, xmax of x 3, y 2.5, 6 x 5 pixels of 12 x 10.
  np.testing.assert_allclose(rows[0][2], [[0.25, 0.25, 0.75, 0.75]])
  assert {image.shape for image, _, _ in rows} == {(10, 12, 3)}


def test_get_split_imagenet_has_slims_items(tmp_path):
  imagenet_kit.make_tree(tmp_path)
  imagenet_kit.convert(tmp_path, tmp_path)
  rows = read_items(imagenet.get_split('train', str(tmp_path)), 'label',
                    'label_text', 'object/bbox', 'object/label')
  assert {(label, text) for label, text, _, _ in rows} == {
      (1, b'tench'), (135, b'crane'), (518, b'crane')}
  (_, _, boxes, labels), = [row for row in rows if len(row[3])]
  np.testing.assert_allclose(boxes, [[0.5, 0.25, 1, 0.75], [0.125, 0, 0.625,
                                                            0.5]])
  assert list(labels) == [1, 1]


def test_create_readable_names_are_those_of_the_labels():
  names = imagenet.create_readable_names_for_imagenet_labels()
  assert list(names) == list(range(1001))
  assert (names[0], names[1]) == ('background', 'tench')


def test_get_split_of_a_folder_without_records_names_the_command(tmp_path):
  with pytest.raises(InputError, match='--dataset_name=visualwakewords --data'):
    dataset_factory.datasets_map['visualwakewords'].get_split(
        'val', str(tmp_path))
