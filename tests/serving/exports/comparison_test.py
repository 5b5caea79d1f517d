"""Tests of serving/exports/comparison.py: scores of two precisions."""

import re

import numpy as np
import pytest

import export_inference_graph
from compat import tf
from datasets import dataset_factory
from kits import serving_kit as kit
from kits.trained_kit import CLASSES, NAME, make_dataset
from runs import run_info
from runtime import forward_pass, openvino_model, tensorflow_session
from serving.exports import comparison
from serving.model import inference_graph

COMPUTES_BFLOAT16 = any(module.supports_bfloat16() for module in (
    [openvino_model] * openvino_model.is_installed() + [tensorflow_session]))
needs_bfloat16 = pytest.mark.skipif(
    not COMPUTES_BFLOAT16, reason='neither runtime computes with bfloat16 here')
NUM_PHOTOS = 9


@pytest.fixture(scope='module')
def train_dir(tmp_path_factory):
  """A train directory whose run.json records bfloat16 and a data set."""
  data = make_dataset(tmp_path_factory.mktemp('data'))
  folder = str(tmp_path_factory.mktemp('train'))
  kit.save_checkpoint(folder, 'cifarnet', CLASSES)
  run_info.save(folder, run_info.load(folder)._replace(
      dataset_name=NAME, dataset_dir=data, precision='bfloat16'))
  return folder


@pytest.fixture(scope='module')
def dataset(train_dir):
  return dataset_factory.get_dataset(NAME, 'validation',
                                     run_info.load(train_dir).dataset_dir)


def export(train_dir, tmp_path, *flags):
  assert kit.run(
      export_inference_graph, '--checkpoint_path=' + train_dir,
      '--precision=auto', '--known=off', '--frozen_file=%s' % (
          tmp_path / 'a.pb'), *flags) == 0


@pytest.mark.parametrize('batch_size, max_photos', [
    (1, None), (4, None), (4, 6), (20, 6)])
def test_compare_counts_the_differences_of_each_photo(
    train_dir, dataset, batch_size, max_photos):
  expected_labels = [0] * 3 + [1] * 3 + [2] * 3
  rng = np.random.RandomState(3)
  first, second = {}, {}

  def remember(table):
    def scores(images):
      return np.array([table.setdefault(image.tobytes(), rng.dirichlet([1] * 3))
                       for image in images], np.float32)
    return scores

  with tf.Graph().as_default():
    info = inference_graph.build('cifarnet', CLASSES)
  found = comparison.compare(remember(first), remember(second), dataset, info,
                             max_photos, batch_size)
  count = max_photos or NUM_PHOTOS
  assert list(first) == list(second) and len(first) == found.photos == count
  a, b = (np.array(list(table.values())) for table in (first, second))
  labels = photo_labels(dataset)[:count]
  assert sorted(photo_labels(dataset)) == expected_labels
  assert found[1:4] == (np.sum(a.argmax(1) == labels),
                        np.sum(b.argmax(1) == labels),
                        np.sum(a.argmax(1) != b.argmax(1)))
  np.testing.assert_allclose(
      found[4:], [np.abs(a - b).max(), np.abs(a - b).mean()], rtol=1e-5)


def photo_labels(dataset):
  return [tf.train.Example.FromString(record).features.feature[
      'image/class/label'].int64_list.value[0]
          for path in dataset.data_sources
          for record in tf.python_io.tf_record_iterator(path)]


@needs_bfloat16
@pytest.mark.parametrize('input_type', ['encoded', 'float'])
def test_export_prints_how_bfloat16_differs(train_dir, tmp_path, capsys,
                                            dataset, input_type):
  export(train_dir, tmp_path, '--input_type=' + input_type)
  line = capsys.readouterr().out.splitlines()[-1]
  graph_def = tf.GraphDef.FromString((tmp_path / 'a.pb').read_bytes())
  choice, found = comparison.compare_precisions(graph_def, dataset,
                                                forward_pass.DEFAULT)
  assert (choice.precision, found.photos) == ('bfloat16', NUM_PHOTOS)
  assert 0 < found.mean_difference < found.largest_difference < 0.1
  assert line == (
      'bfloat16 and float32 on 9 validation photos (%s): photos with different '
      'answers: %d; probabilities differ by at most %.4f, on average by %.4f' %
      (choice.name(), found.disagreed, found.largest_difference,
       found.mean_difference))


@needs_bfloat16
def test_export_compares_a_graph_of_one_batch_size(train_dir, tmp_path, capsys):
  export(train_dir, tmp_path, '--batch_size=4')
  assert 'bfloat16 and float32 on 9 validation photos (' in (
      capsys.readouterr().out)


@pytest.mark.parametrize('flags', [
    ['--precision=float32'], ['--nocompare_precision']], ids=str)
def test_export_without_a_comparison_prints_nothing_about_it(
    train_dir, tmp_path, capsys, flags):
  export(train_dir, tmp_path, *flags)
  assert 'float32 on' not in capsys.readouterr().out


@pytest.mark.parametrize('changes, supports, reason', [
    ({}, False, 'this machine cannot compute this graph with bfloat16'),
    ({'dataset_dir': '/no/where'}, True,
     "data set 'colours' in /no/where has no validation photos"),
    ({'labels': ['x', 'y', 'z']}, True,
     r'the network has the classes .* and colours has'),
])
def test_export_that_cannot_compare_prints_the_reason(
    train_dir, tmp_path, capsys, monkeypatch, changes, supports, reason):
  for module in (openvino_model, tensorflow_session):
    monkeypatch.setattr(module, 'supports_bfloat16', lambda: supports)
  run = run_info.load(train_dir)
  folder = str(tmp_path / 'train')
  kit.save_checkpoint(folder, 'cifarnet', CLASSES)
  run_info.save(folder, run._replace(**changes))
  export(folder, tmp_path)
  line = capsys.readouterr().out.splitlines()[-1]
  assert line.startswith('bfloat16 not compared with float32: ')
  assert re.search(reason, line), line


def test_find_photos_uses_the_first_split_with_photos(train_dir):
  run = run_info.load(train_dir)
  split, found = comparison.find_photos(run, ['test', 'validation', 'train'])
  assert (split, found.num_samples) == ('validation', NUM_PHOTOS)
  split, reason = comparison.find_photos(run, ['test'])
  assert split is None and reason.endswith('has no test photos')
