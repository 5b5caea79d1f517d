"""Tests of training/head_run.py: the runtimes that compute its features."""

import glob
import json
import os
import re

import numpy as np
import pytest

import export_inference_graph
from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from evaluation import run_results
from kits.helpers import parsed_flags
from kits.trained_kit import MOBILENET, make_dataset, train
from ood import photo_features, reference_bank
from runs import checkpoints, feature_cache, run_info
from runtime import forward_pass, openvino_model
from serving.model.classifier import Classifier

# Each trains; on one engine, for the fixtures that they share.
pytestmark = pytest.mark.slow
ONE_ENGINE_BY_TURNS = True

ARGUMENTS = [*MOBILENET, '--cache_features',
             '--trainable_scopes=MobilenetV1/Logits', '--seed=1',
             '--max_number_of_steps=2']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
  """Function of flags that trains; returns the train directory.

  Features of all runs are in one folder.
  """
  features = tmp_path_factory.mktemp('features')

  def run(*more):
    folder = tmp_path_factory.mktemp('train')
    train(data, folder, *ARGUMENTS, '--feature_cache_dir=%s' % features, *more)
    return str(folder)

  return run


def read_features(train_dir):
  """Returns the key and the features of the training photos of a run."""
  use = feature_cache.load_use(train_dir)
  with open(use.folders['train'] + '/key.json') as file:
    key = json.load(file)
  rows, = glob.glob(use.folders['train'] + '/features-*.f32')
  return key, np.fromfile(rows, '<f4')


def test_features_of_both_runtimes_are_equal_and_kept_apart(run):
  dirs = [run('--runtime=' + name) for name in ('tensorflow', 'openvino')]
  (first_key, first), (second_key, second) = map(read_features, dirs)
  assert 'runtime' not in first_key
  assert second_key.pop('runtime') == 'OpenVINO ' + openvino_model.version()
  assert first_key == second_key
  assert np.abs(first).max() > 0
  np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
  assert [run_info.load(folder).precision for folder in dirs] == [
      'float32', 'float32']


def test_resumed_run_takes_its_features_from_the_cache(run, data, log):
  folder = run()
  log.clear()
  train(data, folder, *ARGUMENTS, '--max_number_of_steps=3',
        '--feature_cache_dir=' + feature_cache.load_use(
            folder).folders['train'] + '/..')
  assert checkpoints.newest(folder).endswith('-3')
  assert 'Computing the features' not in log.text


def test_network_that_openvino_cannot_run_is_run_by_tensorflow(
    run, monkeypatch, log):
  def refuse(*arguments):
    raise openvino_model.UnsupportedGraph('no such operation')

  monkeypatch.setattr(openvino_model, 'OpenVinoModel', refuse)
  key, features = read_features(run('--seed=2'))
  assert 'runtime' not in key and np.abs(features).max() > 0
  assert log.text.count('OpenVINO cannot run this graph (no such operation): '
                        'TensorFlow ' + tf.__version__) == 1
  assert 'Forward passes: TensorFlow' in log.text


def test_features_of_the_run_are_those_that_evaluation_computes(run, data):
  folder = run()
  _, cached = read_features(folder)
  info = run_info.load(folder)
  computed = photo_features.from_photos(
      info, checkpoints.newest(folder), dataset_factory.get_dataset(
          info.dataset_name, 'train', data), 5)
  np.testing.assert_array_equal(np.ravel(computed.values), cached)


def test_complete_features_of_tensorflow_are_used(run, log):
  # An older version computed them, or OpenVINO cannot run the network.
  run('--runtime=tensorflow', '--seed=3')
  log.clear()
  key, _ = read_features(run('--seed=3'))
  assert 'runtime' not in key
  assert 'Computing the features' not in log.text


def test_precision_of_a_run_holds_for_all_steps_after_it(run, data, monkeypatch,
                                                         tmp_path, log):
  # OpenVINO computes with float32 if the processor lacks the instructions.
  monkeypatch.setattr(openvino_model, 'supports_bfloat16', lambda: True)
  folder = run('--precision=auto')
  key, _ = read_features(folder)
  assert (key['precision'], run_info.load(folder).precision) == (
      'bfloat16', 'bfloat16')
  again = [data, folder, *ARGUMENTS, '--max_number_of_steps=3',
           '--feature_cache_dir=' + os.path.dirname(
               feature_cache.load_use(folder).folders['train'])]
  with pytest.raises(InputError, match='--precision=bfloat16, now it is float'):
    train(*again)
  log.clear()
  train(*again, '--precision=auto')
  assert 'Computing the features' not in log.text
  assert run_info.load(folder).precision == 'bfloat16'
  options = forward_pass.Options()
  run_results.measure(run_info.load(folder), checkpoints.newest(folder),
                      'colours', data, 5, options=options)
  assert re.search('Forward passes: OpenVINO .*, bfloat16', log.text)
  path = str(tmp_path / 'frozen.pb')
  with parsed_flags(export_inference_graph.define_flags,
                    '--checkpoint_path=' + folder, '--input_type=encoded',
                    '--precision=auto', '--frozen_file=' + path):
    export_inference_graph.main([])
  classifier = Classifier.from_frozen_graph(path)
  assert (classifier.info.precision, classifier.choice.precision) == (
      'bfloat16', 'bfloat16')
  assert classifier.info.known
  assert reference_bank.load(checkpoints.newest(folder),
                             precision='float32') is None
  monkeypatch.setattr(openvino_model, 'supports_bfloat16', lambda: False)
  assert Classifier.from_frozen_graph(path).choice.precision == 'float32'
