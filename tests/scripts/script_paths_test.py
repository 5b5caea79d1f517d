"""Tests of the shell scripts: paths are relative to the current folder."""

import glob
import os
import shutil
import signal
import subprocess
import sys

import pytest

from kits.helpers import ROOT

# Prints its folder and arguments, then the lines for which run_train.sh waits.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "in ${PWD}" "$@" 'Training on CPU:0' 'Finished training!'
"""
# Locks a file and writes its process id there, as the trainer does.
HOLDER = """
import fcntl, os, sys, time
with open(sys.argv[1], 'w') as file:
  fcntl.flock(file, fcntl.LOCK_EX)
  print(os.getpid(), file=file, flush=True)
  print('held', flush=True)
  time.sleep(60)
"""
# Relative paths that the command line of the program must contain unchanged.
VARIABLES = {
    'DATASET_DIR': 'my data', 'OUTPUT_DIR': 'my out', 'LOG_FILE': 'logs/x.log',
    'CHECKPOINT_PATH': 'start/x.ckpt', 'UPLOAD_FOLDER': 'up',
    'INBOX': 'my inbox'}
FLAG = '--a_path=rel/a b'

# Rows: script, and the arguments of its program that variables or defaults set.
CASES = [
    ('classify.sh', ['--frozen_graph=my out/export/my_lenet_freeze.pb']),
    ('label_next.sh', ['--frozen_graph=my out/export/my_lenet_freeze.pb',
                       '--dataset_dir=my data']),
    ('convert_tfrecord.sh', ['--dataset_dir=my data']),
    ('run_eval.sh', ['--eval_dir=my out/eval', '--dataset_dir=my data']),
    ('report.sh', ['--train_dir=my out/train', '--eval_dir=my out/eval']),
    ('check_labels.sh', ['--train_dir=my out/train', '--dataset_dir=my data']),
    ('review_inbox.sh', ['--inbox=my inbox', '--dataset_dir=my data']),
    ('export_freeze.sh', ['--frozen_file=my out/export/my_lenet_freeze.pb',
                          '--output_file=my out/export/my_lenet.pb']),
    ('scripts/export_tflite.sh',
     ['--tflite_file=my out/export/my_lenet.tflite']),
    ('scripts/export_onnx.sh', ['--onnx_file=my out/export/my_lenet.onnx']),
    ('scripts/export_saved_model.sh',
     ['--saved_model_dir=my out/export/saved_model/my_lenet']),
    ('server.sh', ['--model_name=my out/export/my_lenet_freeze.pb',
                   '--upload_folder=up', '--inbox=my inbox']),
    ('scripts/run_cluster.sh', [
        '--train_dir=my out/train', '--task_logs=my out/logs',
        '--checkpoint_path=start/x.ckpt']),
    ('scripts/download_checkpoint.sh', ['--model_name=lenet']),
    ('benchmarks/server', ['--frozen_file=my out/export/my_lenet_freeze.pb']),
    ('benchmarks/unknown', ['--checkpoint_path=start/x.ckpt']),
    ('benchmarks/input', []),
]


def test_relative_prints_paths_below_the_current_folder_relative_to_it(
    tmp_path):
  code = 'source %s/scripts/help.sh; for f in "$@"; do relative "$f"; done'
  names = ['%s/a b' % tmp_path, '%sx/y' % tmp_path, 'c', str(tmp_path)]
  done = subprocess.run(['bash', '-euc', code % ROOT, 'x', *names],
                        cwd=str(tmp_path), capture_output=True, text=True)
  assert done.stdout.splitlines() == ['a b', *names[1:]]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
  """Returns a folder with the scripts and a Python that prints its call."""
  folder = tmp_path_factory.mktemp('the project')
  for name in ('scripts', 'benchmarks'):
    shutil.copytree(os.path.join(ROOT, name), str(folder / name))
  for path in glob.glob(os.path.join(ROOT, '*.sh')):
    shutil.copy(path, str(folder))
  for name in ('.venv', '.venv-tf2'):
    path = folder / name / 'bin' / 'python'
    path.parent.mkdir(parents=True)
    path.write_text(PYTHON)
    path.chmod(0o755)
  (folder / 'setup.sh').write_text('#!/usr/bin/env bash\n')
  return folder


def run(project, cwd, name, *arguments, **variables):
  """Runs a script of the project from another folder, by a relative path.

  Args:
    project: the fixture.
    cwd: current folder of the script.
    name: path of the script in the project.
    *arguments: its command line.
    **variables: environment variables, in addition to MODEL_NAME.

  Returns:
    The lines of its stdout.
  """
  env = {key: value for key, value in os.environ.items()
         if key in ('PATH', 'HOME', 'ENGINE')}
  env.update(MODEL_NAME='lenet', CDPATH=str(project), **variables)
  done = subprocess.run(
      [os.path.relpath(str(project / name), str(cwd)), *arguments], env=env,
      cwd=str(cwd), capture_output=True, text=True, stdin=subprocess.DEVNULL)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout.splitlines()


@pytest.mark.parametrize('name,expected', CASES,
                         ids=[name for name, _ in CASES])
def test_script_relative_paths_are_relative_to_the_current_folder(
    project, tmp_path, name, expected):
  lines = run(project, tmp_path, name, FLAG, 'a photo.jpg', **VARIABLES)
  start = len(lines) - 1 - lines[::-1].index('in %s' % tmp_path)
  program = lines[start + 1] if lines[start + 1] != '-u' else lines[start + 2]
  assert program.startswith(str(project) + '/')
  assert {FLAG, 'a photo.jpg', *expected} <= set(lines[start:])
  assert not os.listdir(str(tmp_path))  # Only the program would write files.


def test_script_default_paths_are_in_the_project(project, tmp_path):
  lines = run(project, tmp_path, 'run_eval.sh')
  output = str(project / 'output' / 'my_flower_5_lenet')
  assert {'in %s' % tmp_path, '--dataset_dir=%s' % (project / 'data'),
          '--eval_dir=%s/eval' % output} <= set(lines)


@pytest.mark.parametrize('name,trainings', [
    ('run_train.sh', 1), ('scripts/finetune_inception_v1_on_flowers.sh', 2),
    ('scripts/train_lenet_on_mnist.sh', 1)])
def test_run_train_in_the_background_keeps_the_current_folder(
    project, tmp_path, name, trainings):
  (tmp_path / 'start').mkdir()
  (tmp_path / 'start' / 'x.ckpt').write_text('')
  run(project, tmp_path, name, FLAG, **VARIABLES)
  log = (tmp_path / 'logs' / 'x.log').read_text().splitlines()
  assert log.count('in %s' % tmp_path) == log.count(FLAG) == trainings
  assert {'--train_dir=my out/train', '--dataset_dir=my data'} <= set(log)
  if 'lenet' not in name:
    assert '--checkpoint_path=start/x.ckpt' in log
  assert os.listdir(str(tmp_path)) in (['start', 'logs'], ['logs', 'start'])


def test_stop_train_relative_train_dir_is_in_current_folder(project, tmp_path):
  (tmp_path / 'run').mkdir()
  pid_file = tmp_path / 'run' / 'train.pid'
  pid_file.write_text('1\n')  # As a killed trainer leaves it.
  expected = ['No training is running in run']
  assert run(project, tmp_path, 'stop_train.sh', TRAIN_DIR='run') == expected
  with subprocess.Popen([sys.executable, '-c', HOLDER, str(pid_file)],
                        stdout=subprocess.PIPE) as trainer:
    trainer.stdout.readline()
    assert run(project, tmp_path, 'stop_train.sh', TRAIN_DIR='run') == [
        'Asked process %d to stop; it saves a last checkpoint' % trainer.pid,
        'Stopped']
  assert trainer.returncode == -signal.SIGTERM
  pid_file.unlink()
  assert run(project, tmp_path, 'stop_train.sh', TRAIN_DIR='run') == expected
  assert not os.listdir(str(tmp_path / 'run'))


def test_run_train_log_that_cannot_be_written_is_one_line_error(
    project, tmp_path):
  (tmp_path / 'file').write_text('')
  done = subprocess.run(
      [str(project / 'run_train.sh')], cwd=str(tmp_path),
      env=dict(os.environ, LOG_FILE='file/x.log'), capture_output=True,
      text=True)
  assert done.returncode == 1
  assert done.stderr == (
      'run_train.sh: error: cannot write to LOG_FILE=file/x.log\n')
  assert not done.stdout
