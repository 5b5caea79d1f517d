"""Tests of benchmarks/convert_speed.py, on a few photos."""

import os

from benchmarks import convert_speed
from compat import tf
from kits import dataset_kit


def labels_by_file(folder):
  """Returns {file name: [label, height, width]} of the records in a folder."""
  labels = {}
  for name in os.listdir(str(folder)):
    if name.endswith('.tfrecord'):
      for record in tf.python_io.tf_record_iterator(str(folder / name)):
        feature = tf.train.Example.FromString(record).features.feature
        labels[feature['image/filename'].bytes_list.value[0]] = [
            feature[key].int64_list.value[0] for key in (
                'image/class/label', 'image/height', 'image/width')]
  return labels


def test_methods_write_the_same_photos(tmp_path):
  dataset_kit.make_folder(tmp_path / 'pets', {'cat': 40, 'dog': 20})
  written = []
  for name, function in convert_speed.METHODS:
    (tmp_path / name).mkdir()
    assert function(str(tmp_path / 'pets'), str(tmp_path / name)) == 60
    written.append(labels_by_file(tmp_path / name))
    shards = [file for file in os.listdir(str(tmp_path / name))
              if file.endswith('.tfrecord')]
    assert len(shards) == 2 * convert_speed.NUM_SHARDS
  assert written[0] == written[1] and len(written[0]) == 60
  assert written[0][b'dog/000.jpg'] == [1, 10, 12]


def test_compare_returns_the_speed_of_both_methods(tmp_path, capsys):
  dataset_kit.make_folder(tmp_path / 'pets', {'cat': 40, 'dog': 20})
  speeds = convert_speed.compare(str(tmp_path / 'pets'), rounds=2)
  assert set(speeds) == {'2017', 'this project'}
  assert all(1 < speed < 1e6 for speed in speeds.values())
  assert capsys.readouterr().out.count('photos/s') == 4
