"""Tests of --use_grayscale, from training to the classification of a photo."""

import json
import os
import shutil

import numpy as np
import pytest

import eval_image_classifier
import export_inference_graph
from common.errors import InputError
from kits import serving_kit
from kits.helpers import parsed_flags
from kits.trained_kit import (
  CLASSES,
  colour_photo,
  make_dataset,
  read_variables,
  train,
)
from runs import run_info
from serving.model.classifier import Classifier

KERNEL = 'CifarNet/conv1/weights'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
  """Returns the train directory of a run on grey photos."""
  folder = str(tmp_path_factory.mktemp('run'))
  train(data, folder, '--use_grayscale', '--max_number_of_steps=2',
        '--evaluate_every_n_steps=2')
  return folder


def evaluate(run, eval_dir, *flags):
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=' + run, '--eval_dir=%s' % eval_dir,
                    '--dataset_split_name=validation', *flags):
    eval_image_classifier.main([])


def test_training_on_grey_photos_has_one_channel_and_says_so(run):
  assert run_info.load(run).use_grayscale
  assert read_variables(os.path.join(run, 'model.ckpt-2'))[KERNEL].shape[2] == 1
  with open(os.path.join(run, 'validation.jsonl')) as stream:
    assert 0 <= json.loads(stream.readline())['accuracy'] <= 1


def test_training_goes_on_only_with_the_flag(data, run, tmp_path):
  copy = shutil.copytree(run, str(tmp_path / 'run'))
  with pytest.raises(InputError, match='with --use_grayscale=True, now it is '
                     'False'):
    train(data, copy, '--max_number_of_steps=3')
  assert train(data, copy, '--use_grayscale',
               '--max_number_of_steps=3').endswith('-3')


def test_checkpoint_of_the_other_colours_is_refused(data, run, tmp_path):
  colour = str(tmp_path / 'colour')
  train(data, colour, '--max_number_of_steps=1')
  for flag, path, advice in (
      ('--use_grayscale', colour,
       r'\[5, 5, 3, 64\], network \[5, 5, 1, 64\].*; its network takes colour '
       'photos: omit --use_grayscale'),
      ('--nouse_grayscale', run, 'its network takes grey photos: .* need '
       '--use_grayscale$')):
    with pytest.raises(InputError, match=advice):
      train(data, tmp_path / 'new', flag, '--checkpoint_path=' + path,
            '--max_number_of_steps=1')
  os.remove(run_info.path(colour))  # As of a published checkpoint.
  with pytest.raises(InputError, match='its network takes colour photos'):
    serving_kit.run(
        export_inference_graph, '--checkpoint_path=' + colour,
        '--model_name=cifarnet', '--use_grayscale', '--dataset_name=colours',
        '--dataset_dir=' + data, '--frozen_file=%s' % (tmp_path / 'a.pb'))


def test_evaluation_takes_the_flag_from_the_run(run, tmp_path):
  evaluate(run, tmp_path)
  for flags in ([], ['--use_grayscale']):
    evaluate(run, tmp_path, '--known=off', *flags)
  with open(str(tmp_path / 'metrics.jsonl')) as stream:
    accuracies = {json.loads(line)['accuracy'] for line in stream}
  assert len(accuracies) == 1
  with pytest.raises(InputError, match='--use_grayscale=False, but the run in '
                     '.* was trained with True; omit the flag'):
    evaluate(run, tmp_path, '--nouse_grayscale')


@pytest.mark.parametrize('input_type', ['float', 'encoded'])
def test_frozen_graph_classifies_colour_photos_as_the_checkpoint(
    run, tmp_path, input_type):
  frozen = str(tmp_path / 'frozen.pb')
  assert serving_kit.run(
      export_inference_graph, '--checkpoint_path=' + run,
      '--input_type=' + input_type, '--frozen_file=' + frozen,
      '--noexamples') == 0
  photos = [colour_photo(label, 77) for label in range(len(CLASSES))]
  graph = Classifier.from_frozen_graph(frozen)
  assert graph.info.channels == 1 and graph.info.known
  scores = graph.classify(photos)
  np.testing.assert_allclose(
      scores, Classifier.from_checkpoint(run).classify(photos), atol=1e-6)
  assert np.ptp(scores, axis=0).max() > 1e-5
  with pytest.raises(InputError, match='--use_grayscale=False, but the run'):
    serving_kit.run(export_inference_graph, '--checkpoint_path=' + run,
                    '--frozen_file=' + frozen, '--nouse_grayscale')
