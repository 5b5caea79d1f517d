"""Tests of benchmarks/input_speed.py, on a few photos."""

import numpy as np
import pytest

from benchmarks import input_speed
from compat import tf
from datasets import dataset_factory
from datasets.conversion import convert_photos
from kits import dataset_kit


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp('input_speed')
  dataset_kit.make_folder(folder / 'pets', {'cat': 20, 'dog': 20})
  convert_photos.convert(str(folder), 'pets', num_shards=2)
  return dataset_factory.get_dataset('pets', 'train', str(folder))


SETTINGS = input_speed.Settings(image_size=8, batch_size=4, num_batches=6,
                                num_readers=2, num_threads=2)


@pytest.mark.parametrize('name, function', input_speed.METHODS)
def test_methods_yield_distorted_photos(dataset, name, function):
  with tf.Graph().as_default(), tf.Session() as session:
    images = [output for output in function(dataset, SETTINGS).outputs
              if output.shape.ndims == 4][0]
    session.run(tf.tables_initializer())
    coordinator = tf.train.Coordinator()
    threads = input_speed.start_queues(session, coordinator)
    batches = np.concatenate([session.run(images) for _ in range(10)])
    input_speed.stop_queues(session, coordinator, threads)
  assert batches.shape == (40, 8, 8, 3)
  low, high = ((0, 255) if 'on_device' in name else
               (-123.68, 255 - 103.94) if name.startswith('vgg') else (-1, 1))
  assert batches.dtype == (np.uint8 if 'on_device' in name else np.float32)
  assert low - 0.01 <= batches.min() and batches.max() <= high + 0.01
  # vgg's crops are small parts of the photos.
  is_recoloured = low == -1
  assert np.ptp(batches) > (0.9 if is_recoloured else 0.3) * (high - low)
  assert len({image.tobytes() for image in batches}) == 40


def test_compare_measures_each_method_once_per_round(dataset, capsys):
  figures = input_speed.compare(dataset, SETTINGS, rounds=2)
  assert list(figures) == [
      '2017', 'this project', 'this project, --preprocess_on_device',
      '--nofast_mode', '--nofast_mode, --preprocess_on_device',
      'vgg', 'vgg, --preprocess_on_device']
  for turns in figures.values():
    assert len(turns) == 2
    assert all(10 < turn.speed < 1e6 and 0 < turn.milliseconds < 100
               for turn in turns)
  assert capsys.readouterr().out.count('photos/s') == 14


def test_ratios_are_the_medians_of_the_rounds():
  turns = {'2017': [input_speed.Turn(100, 8), input_speed.Turn(200, 6),
                    input_speed.Turn(50, 9)],
           'this project': [input_speed.Turn(150, 4), input_speed.Turn(400, 2),
                            input_speed.Turn(90, 6)]}
  assert input_speed.ratios(turns) == (1.8, 2.0)
