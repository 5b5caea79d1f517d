"""Tests of slim's examples in scripts/: the programs that they run."""

import os
import shutil
import subprocess

import pytest

from common import checkpoint_files
from compat import tf
from datasets.conversion import draw_flowers
from kits import public_kit, serving_kit
from kits.helpers import ROOT

# Scripts replaced by stubs, which append a line with the values of
# RECORDED_VARIABLES to `calls`.
STUBBED_SCRIPTS = (
    'scripts/download_checkpoint.sh', 'convert_tfrecord.sh', 'run_train.sh',
    'run_eval.sh', 'stop_train.sh')
RECORDED_VARIABLES = (
    'MODEL_NAME', 'DATASET_NAME', 'CHECKPOINT_PATH', 'TRAIN_DIR', 'EVAL_DIR',
    'BATCH_SIZE', 'OPTIMIZER', 'LEARNING_RATE', 'MAX_NUMBER_OF_STEPS',
    'EVAL_INTERVAL_SECS', 'TRAINABLE_SCOPES', 'CHECKPOINT_EXCLUDE_SCOPES')
STUB = """#!/usr/bin/env bash
{
  printf '%s' "${0##*/}"
  for name in NAMES; do printf '|%s' "${name}=${!name-unset}"; done
  printf '|%s' "$@"
  echo
} >>calls
if [[ "$0" == *run_train.sh ]]; then
  echo "${TRAINING_LOG:-Finished training!}" >>"${LOG_FILE}"
fi
"""
# Values of slim's scripts: network, steps of the training of the classifier and
# of all layers, and learning rate of the latter.
FLOWERS = {
    'finetune_inception_v1_on_flowers.sh':
        ('inception_v1', '2000', '1000', '0.001'),
    'finetune_inception_v3_on_flowers.sh':
        ('inception_v3', '1000', '500', '0.0001'),
    'finetune_inception_v4_on_flowers.sh':
        ('inception_v4', '1000', '500', '0.0001'),
    'finetune_inception_resnet_v2_on_flowers.sh':
        ('inception_resnet_v2', '1000', '500', '0.0001'),
    'finetune_resnet_v1_50_on_flowers.sh':
        ('resnet_v1_50', '3000', '1000', '0.001'),
}


@pytest.fixture
def project(tmp_path):
  """Returns a folder with scripts/, and stubs of the scripts that it calls."""
  shutil.copytree(os.path.join(ROOT, 'scripts'), str(tmp_path / 'scripts'))
  shutil.copy(os.path.join(ROOT, 'env_set.sh'), str(tmp_path))
  stubs = dict.fromkeys(
      STUBBED_SCRIPTS, STUB.replace('NAMES', ' '.join(RECORDED_VARIABLES)))
  for name in ('setup.sh', '.venv/bin/python', '.venv-tf2/bin/python'):
    stubs[name] = '#!/usr/bin/env bash\n'
  for name, text in stubs.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
  return tmp_path


def run(project, name, *arguments, **variables):
  """Runs a script; returns its CompletedProcess and the calls that it made.

  A call is (script, {variable: value}, [arguments]).
  """
  env = {key: value for key, value in os.environ.items()
         if key not in (*RECORDED_VARIABLES, 'RUNS_DIR')}
  done = subprocess.run([str(project / 'scripts' / name), *arguments],
                        env=dict(env, **variables), capture_output=True,
                        text=True, cwd=str(project))
  calls = []
  for line in (project / 'calls').read_text().splitlines():
    script, *parts = line.split('|')
    count = len(RECORDED_VARIABLES)
    calls.append((script, dict(part.split('=', 1) for part in parts[:count]),
                  [part for part in parts[count:] if part]))
  return done, calls


@pytest.mark.parametrize('name', sorted(FLOWERS))
def test_finetune_trains_the_classifier_then_all_layers(project, name):
  model, first_steps, all_steps, all_rate = FLOWERS[name]
  done, calls = run(project, name, '--clone_on_cpu')
  assert done.returncode == 0, done.stderr
  assert [call[0] for call in calls] == [
      'download_checkpoint.sh', 'convert_tfrecord.sh', 'run_train.sh',
      'run_eval.sh', 'run_train.sh', 'run_eval.sh']
  for _, variables, _ in calls[1:]:
    assert variables['MODEL_NAME'] == model
    assert variables['DATASET_NAME'] == 'flowers'
  (_, first, first_flags), (_, evaluation, _) = calls[2:4]
  train_dir = str(project / 'output' / ('flowers_' + model) / 'train')
  assert first['TRAIN_DIR'] == evaluation['TRAIN_DIR'] == train_dir
  assert first['CHECKPOINT_PATH'] == str(
      project / 'checkpoints' / (model + '.ckpt'))
  assert (first['LEARNING_RATE'], first['OPTIMIZER']) == ('0.01', 'rmsprop')
  assert first['BATCH_SIZE'] == '32'
  assert first['TRAINABLE_SCOPES'] == 'unset'  # Those of the registry.
  assert first['MAX_NUMBER_OF_STEPS'] == evaluation['EVAL_INTERVAL_SECS'] == ''
  assert '--max_number_of_steps=' + first_steps in first_flags
  (_, second, second_flags), (_, evaluation, _) = calls[4:]
  assert second['CHECKPOINT_PATH'] == train_dir
  assert second['TRAIN_DIR'] == evaluation['TRAIN_DIR'] == train_dir + '/all'
  assert evaluation['EVAL_DIR'] != calls[3][1]['EVAL_DIR']
  assert second['LEARNING_RATE'] == all_rate
  assert second['TRAINABLE_SCOPES'] == ''  # All layers.
  assert second['CHECKPOINT_EXCLUDE_SCOPES'] == ''  # The new classifier too.
  assert '--max_number_of_steps=' + all_steps in second_flags
  assert first_flags[-1] == second_flags[-1] == '--clone_on_cpu'


def test_finetune_existing_checkpoint_is_not_downloaded(project):
  folder = project / 'checkpoints'
  folder.mkdir()
  for name in ('inception_v3.ckpt', 'inception_v3.ckpt.index'):
    (folder / name).write_text('')
    _, calls = run(project, 'finetune_inception_v3_on_flowers.sh')
    assert calls[0][0] == 'convert_tfrecord.sh'
    (folder / name).unlink()
    (project / 'calls').unlink()


@pytest.mark.parametrize('name,model,dataset,expected,flags', [
    ('train_lenet_on_mnist.sh', 'lenet', 'mnist', ('50', 'sgd', '0.01'),
     ['--max_number_of_steps=20000', '--weight_decay=0']),
    ('train_cifarnet_on_cifar10.sh', 'cifarnet', 'cifar10',
     ('128', 'sgd', '0.1'),
     ['--max_number_of_steps=100000', '--weight_decay=0.004',
      '--learning_rate_decay_type=exponential',
      '--learning_rate_decay_factor=0.1', '--num_epochs_per_decay=200']),
])
def test_train_starts_from_scratch_and_evaluates(project, name, model, dataset,
                                                 expected, flags):
  done, calls = run(project, name, '--clone_on_cpu')
  assert done.returncode == 0, done.stderr
  assert [call[0] for call in calls] == [
      'convert_tfrecord.sh', 'run_train.sh', 'run_eval.sh']
  _, variables, arguments = calls[1]
  assert (variables['MODEL_NAME'], variables['DATASET_NAME']) == (model,
                                                                  dataset)
  assert variables['CHECKPOINT_PATH'] == ''
  assert tuple(variables[key] for key in (
      'BATCH_SIZE', 'OPTIMIZER', 'LEARNING_RATE')) == expected
  assert set(flags) <= set(arguments)
  assert arguments[-1] == '--clone_on_cpu'
  assert calls[2][1]['TRAIN_DIR'] == variables['TRAIN_DIR']
  assert calls[2][1]['EVAL_INTERVAL_SECS'] == ''


@pytest.mark.parametrize('name', ['finetune_inception_v1_on_flowers.sh',
                                  'train_lenet_on_mnist.sh'])
def test_example_training_that_ends_early_is_not_evaluated(project, name):
  done, calls = run(project, name, TRAINING_LOG='Traceback')
  assert done.returncode == 1
  assert name + ': error: training ended early; the reason is at' in done.stderr
  # stop_train.sh is called only if the script is interrupted.
  assert calls[-1][0] == 'run_train.sh'


def test_train_from_scratch_without_steps_is_one_line_error(project):
  done = subprocess.run([str(project / 'scripts' / 'train_from_scratch.sh')],
                        capture_output=True, text=True,
                        env={key: value for key, value in os.environ.items()
                             if key != 'STEPS'})
  assert done.returncode == 1
  assert done.stderr.startswith('train_from_scratch.sh: error: give STEPS=')


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_finetune_inception_v1_end_to_end(tmp_path):
  flowers = tmp_path / 'data' / 'flowers'
  draw_flowers.draw_all(str(flowers), per_class=8)
  prefix = serving_kit.save_checkpoint(
      tmp_path / 'published', 'inception_v1', size=224, with_run=False,
      labels=['%d' % number for number in range(1001)])
  done = subprocess.run(
      [os.path.join(ROOT, 'scripts', 'finetune_inception_v1_on_flowers.sh'),
       '--train_image_size=193'],
      env=dict(os.environ, CHECKPOINT_PATH=prefix, BATCH_SIZE='2',
               CLASSIFIER_STEPS='3', ALL_STEPS='2', PERCENT_VALIDATION='20',
               DATASET_DIR=str(tmp_path / 'data'),
               OUTPUT_DIR=str(tmp_path / 'out'),
               LOG_FILE=str(tmp_path / 'logs' / 'output.log')),
      capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.count('eval/Accuracy[') == 2
  train_dir = tmp_path / 'out' / 'train'
  before = tf.train.load_checkpoint(prefix)
  first = checkpoint_files.open_reader(str(train_dir / 'model.ckpt-3'))
  second = checkpoint_files.open_reader(str(train_dir / 'all' / 'model.ckpt-2'))
  backbone = 'InceptionV1/Conv2d_1a_7x7/weights'
  assert (first.get_tensor(backbone) == before.get_tensor(backbone)).all()
  assert (second.get_tensor(backbone) != first.get_tensor(backbone)).any()
  assert first.get_tensor('InceptionV1/Logits/Conv2d_0c_1x1/biases').shape == (
      5,)


@pytest.mark.slow
@pytest.mark.engine('tf2')
def test_train_lenet_end_to_end(tmp_path):
  for name, data in public_kit.mnist_files().items():
    (tmp_path / name).write_bytes(data)
  done = subprocess.run(
      [os.path.join(ROOT, 'scripts', 'train_lenet_on_mnist.sh')],
      env=dict(os.environ, DATASET_DIR=str(tmp_path), STEPS='3',
               BATCH_SIZE='4', OUTPUT_DIR=str(tmp_path / 'out'),
               LOG_FILE=str(tmp_path / 'output.log')),
      capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'Evaluating split test of mnist' in done.stderr
  assert done.stdout.count('eval/Accuracy[') == 1
