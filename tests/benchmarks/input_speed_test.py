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
  del name
  with tf.Graph().as_default(), tf.Session() as session:
    images = [output for output in function(dataset, SETTINGS).outputs
              if output.dtype == tf.float32][0]
    session.run(tf.tables_initializer())
    coordinator = tf.train.Coordinator()
    threads = input_speed.start_queues(session, coordinator)
    batches = np.concatenate([session.run(images) for _ in range(10)])
    input_speed.stop_queues(session, coordinator, threads)
  assert batches.shape == (40, 8, 8, 3)
  assert -1 <= batches.min() < -0.9 and 0.9 < batches.max() <= 1
  assert len({image.tobytes() for image in batches}) == 40


def test_compare_measures_each_method_once_per_round(dataset, capsys):
  figures = input_speed.compare(dataset, SETTINGS, rounds=2)
  assert sorted(figures) == ['2017', 'this project']
  for turns in figures.values():
    assert len(turns) == 2
    assert all(10 < turn.speed < 1e6 and 0 < turn.milliseconds < 100
               for turn in turns)
  assert capsys.readouterr().out.count('photos/s') == 4


def test_ratios_are_the_medians_of_the_rounds():
  turns = {'2017': [input_speed.Turn(100, 8), input_speed.Turn(200, 6),
                    input_speed.Turn(50, 9)],
           'this project': [input_speed.Turn(150, 4), input_speed.Turn(400, 2),
                            input_speed.Turn(90, 6)]}
  assert input_speed.ratios(turns) == (1.8, 2.0)
