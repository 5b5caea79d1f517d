"""Tests of --quantize_delay and --quantize."""

import re

import numpy as np
import pytest

import eval_image_classifier
import export_inference_graph
from common.errors import InputError
from compat import tf
from kits import serving_kit
from kits.helpers import parsed_flags
from kits.trained_kit import (
  CLASSES,
  MOBILENET,
  colour_photo,
  make_dataset,
  read_variables,
  train,
)
from nets import quantization
from runs import run_info
from serving.model import graph_files
from serving.model.classifier import Classifier

on_tf1 = pytest.mark.engine('tf1')
KERNEL = 'CifarNet/conv1/weights'
SEEDED = ['--seed=1', '--session_threads=1', '--max_number_of_steps=2']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
  """Returns the train directory of a run that quantizes from the start on."""
  folder = str(tmp_path_factory.mktemp('run'))
  train(data, folder, '--quantize_delay=0', '--evaluate_every_n_steps=2',
        *SEEDED)
  return folder


@pytest.fixture(scope='module')
def plain(data, tmp_path_factory):
  """Returns the train directory of the same run without quantization."""
  folder = str(tmp_path_factory.mktemp('plain'))
  train(data, folder, *SEEDED)
  return folder


def evaluate(run, eval_dir, *flags):
  """Returns the predictions of an evaluation as text."""
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % run, '--eval_dir=%s' % eval_dir,
                    '--dataset_split_name=validation', '--known=off', *flags):
    eval_image_classifier.main([])
  return (eval_dir / 'predictions-validation-2.csv').read_text()


@on_tf1
def test_training_quantizes_from_the_delay_on(data, run, plain, tmp_path):
  later = str(tmp_path)
  train(data, later, '--quantize_delay=9', *SEEDED)
  kernels = {folder: read_variables(folder + '/model.ckpt-2')[KERNEL]
             for folder in (plain, later, run)}
  np.testing.assert_allclose(kernels[plain], kernels[later], atol=1e-7)
  assert np.abs(kernels[plain] - kernels[run]).max() > 1e-5
  assert [run_info.load(folder).quantize
          for folder in (plain, later, run)] == [False, True, True]
  with pytest.raises(InputError, match='holds a run without --quantize_delay: '
                     'train as before, or in another'):
    train(data, plain, '--quantize_delay=0')
  train(data, tmp_path / 'tuned', '--quantize_delay=0', *SEEDED,
        '--checkpoint_path=' + plain)  # Without ranges.


@on_tf1
def test_evaluation_quantizes_as_the_run_unless_told_otherwise(
    run, plain, tmp_path):
  quantized = evaluate(run, tmp_path, '--quantize')
  assert evaluate(run, tmp_path) == quantized
  assert evaluate(run, tmp_path, '--noquantize') != quantized
  with pytest.raises(InputError, match='was trained without --quantize_delay'):
    evaluate(plain, tmp_path, '--quantize')


@on_tf1
@pytest.mark.slow
def test_export_quantized_graph_folds_batch_norm(data, tmp_path):
  run = str(tmp_path / 'run')
  train(data, run, '--quantize_delay=0', *SEEDED, *MOBILENET)
  check_quantized_export(run, tmp_path, 28)


@on_tf1
def test_export_quantized_graph_answers_as_the_checkpoint(run, tmp_path):
  check_quantized_export(run, tmp_path, 5)


def check_quantized_export(run, tmp_path, num_layers):
  """Exports a run, and checks its layers and that it answers like the run."""
  frozen = str(tmp_path / 'frozen.pb')
  assert serving_kit.run(
      export_inference_graph, '--checkpoint_path=' + run, '--quantize',
      '--input_type=encoded', '--frozen_file=' + frozen) == 0
  with tf.Graph().as_default() as graph, tf.Session() as session:
    graph_files.import_into_default(graph_files.read_frozen(frozen, 'graph'))
    names = [op.name for op in graph.get_operations()
             if re.search('weights_quant/FakeQuantWithMinMaxVars$', op.name)]
    assert len(names) == num_layers
    for name in names[:3]:
      assert 2 < len(np.unique(session.run(name + ':0'))) <= 256
    assert not [op for op in graph.get_operations()
                if op.type.startswith('FusedBatchNorm')]
  photos = [colour_photo(label, 77) for label in range(len(CLASSES))]
  np.testing.assert_allclose(
      Classifier.from_frozen_graph(frozen).classify(photos),
      Classifier.from_checkpoint(run).classify(photos), atol=1e-6)


@pytest.mark.parametrize('flags, reason', [
    (['--cache_features', '--train_classifier_only'],
     '--cache_features, frozen layers$'),
    (['--trainable_scopes=CifarNet/logits'], 'frozen layers$'),
    (['--max_number_of_steps=1', '--finetune_all_steps=1'],
     '--finetune_all_steps$'),
    (['--num_clones=2', '--clone_on_cpu'], 'several clones, workers'),
])
def test_quantize_delay_with_layers_that_are_not_trained_is_refused(
    data, tmp_path, flags, reason):
  with pytest.raises(InputError, match='--quantize_delay=5 trains all layers .*'
                     'it cannot be used with ' + reason):
    train(data, tmp_path, '--quantize_delay=5', *flags)


@pytest.mark.engine('tf2')
def test_quantize_on_tensorflow_2_error_says_what_to_use(data, tmp_path):
  advice = 'use ENGINE=tf1, or .* scripts/export_tflite.sh --quantize=int8$'
  with pytest.raises(InputError, match=advice) as caught:
    quantization.library()
  assert '\n' not in str(caught.value)
  with pytest.raises(InputError, match=advice):
    train(data, tmp_path / 'new', '--quantize_delay=0')
  prefix = train(data, tmp_path, '--max_number_of_steps=1')
  info = run_info.load(str(tmp_path))
  run_info.save(str(tmp_path), info._replace(quantize=True))
  with pytest.raises(InputError, match=advice):
    evaluate(prefix, tmp_path)
  with pytest.raises(InputError, match=advice):
    serving_kit.run(export_inference_graph, '--checkpoint_path=' + prefix,
                    '--known=off', '--frozen_file=%s' % (tmp_path / 'a.pb'))
