"""Tests of the shell scripts: training to classification, setup, errors."""

import contextlib
import glob
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

from datasets import manifest
from kits import public_kit
from kits.helpers import ROOT
from kits.script_kit import run_script
from kits.trained_kit import CLASSES, NAME, make_photos

# Programs that setup.sh calls, without any Python.
SETUP_TOOLS = ['basename', 'bash', 'cat', 'cmp', 'cp', 'dirname', 'env',
               'flock', 'grep', 'ls', 'rm', 'sed', 'uname']


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
  """Returns the environment of scripts, after converting a tiny data set."""
  folder = tmp_path_factory.mktemp('with space')
  make_photos(folder / 'photos')
  variables = dict(
      os.environ, MODEL_NAME='cifarnet', DATASET_NAME=NAME,
      DATASET_DIR=str(folder / 'data'), OUTPUT_DIR=str(folder / 'out'),
      PHOTOS_DIR=str(folder / 'photos'), PHOTOS_LAYOUT='classes',
      LOG_FILE=str(folder / 'output.log'), CHECKPOINT_PATH='', BATCH_SIZE='4',
      PERCENT_VALIDATION='30', UPLOAD_FOLDER=str(folder / 'upload'))
  run_script('convert_tfrecord.sh', env=variables)
  saved = manifest.load(variables['DATASET_DIR'], NAME)
  assert (saved.photos_dir, saved.photos_layout) == (
      variables['PHOTOS_DIR'], 'classes')
  return variables


@pytest.fixture
def training(chain):
  """Runs a training in the background; yields what run_train.sh printed."""
  yield run_script('run_train.sh', '--log_every_n_steps=1', env=chain).stdout
  run_script('stop_train.sh', env=chain)


def read_log(chain):
  with open(chain['LOG_FILE']) as stream:
    return stream.read()


def wait_for(condition, seconds=60):
  end = time.time() + seconds
  while not condition():
    assert time.time() < end
    time.sleep(0.1)


def is_running(pid):
  """Returns whether a process exists and is not a zombie."""
  try:
    with open('/proc/%d/stat' % pid) as stream:
      return stream.read().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


@pytest.mark.slow
def test_scripts_from_photos_to_an_upload_page(chain, training):
  pid = int(re.search(r'process (\d+) in', training).group(1))
  wait_for(lambda: 'global step 3:' in read_log(chain))

  # A second trainer is refused, and the first continues.
  second = run_script('run_train.sh', env=chain, check=False)
  assert second.returncode == 1
  assert 'process %d already trains' % pid in second.stderr
  assert 'Traceback' not in second.stderr
  assert is_running(pid)

  assert 'Stopped' in run_script('stop_train.sh', env=chain).stdout
  wait_for(lambda: not is_running(pid), seconds=10)
  assert 'SIGTERM: stopping' in read_log(chain)
  assert 'Traceback' not in read_log(chain)

  once = dict(chain, EVAL_INTERVAL_SECS='')
  stdout = run_script('run_eval.sh', env=once).stdout
  assert re.match(r'eval/Accuracy\[[\d.]+\]\neval/Recall_5\[1\]\n', stdout)

  run_script('export_freeze.sh', env=chain)
  export = os.path.join(chain['OUTPUT_DIR'], 'export')
  assert sorted(os.listdir(export)) == [
      'my_cifarnet.pb', 'my_cifarnet_freeze.examples',
      'my_cifarnet_freeze.label', 'my_cifarnet_freeze.md',
      'my_cifarnet_freeze.pb']
  with open(os.path.join(export, 'my_cifarnet_freeze.label')) as stream:
    assert stream.read() == ''.join(
        '%d:%s\n' % row for row in enumerate(CLASSES))
  photo = os.path.join(chain['PHOTOS_DIR'], 'red', '00.jpg')
  stdout = run_script('classify.sh', photo, '--format=csv', env=chain).stdout
  assert stdout.splitlines()[0] == (
      'file,rank,label,score,known,similarity')
  assert stdout.count(photo) == len(CLASSES)
  _upload_to_server(chain)


def _upload_to_server(chain):
  """Starts server.sh, uploads a photo as the page does, stops the server."""
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    port = str(listener.getsockname()[1])
  env = dict(chain, SERVER_PORT=port, SERVER_HOST='127.0.0.1')
  server = subprocess.Popen([os.path.join(ROOT, 'server.sh')], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)
  try:
    for line in server.stdout:
      if 'listening on port ' + port in line:
        break
    photo = os.path.join(chain['PHOTOS_DIR'], 'red', '00.jpg')
    done = subprocess.run(
        [sys.executable, '-m', 'tools.upload_photo', '--photo=' + photo,
         '--url=http://127.0.0.1:%s/' % port],
        cwd=ROOT, capture_output=True, text=True)
  finally:
    server.terminate()
    server.stdout.read()
  assert server.wait() == 0
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == 'HTTP 200'
  assert set(CLASSES) <= set(lines)
  assert sum(line.endswith(' %') for line in lines) == len(CLASSES)


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_scripts_from_mnist_files_to_evaluation_of_the_test_split(tmp_path):
  for name, data in public_kit.mnist_files().items():
    (tmp_path / name).write_bytes(data)
  variables = dict(
      os.environ, MODEL_NAME='lenet', DATASET_NAME='mnist', CHECKPOINT_PATH='',
      DATASET_DIR=str(tmp_path), OUTPUT_DIR=str(tmp_path / 'out'),
      LOG_FILE=str(tmp_path / 'output.log'), BATCH_SIZE='4',
      MAX_NUMBER_OF_STEPS='2', EVAL_INTERVAL_SECS='')
  for name in ('EVAL_SPLIT', 'PERCENT_VALIDATION'):
    variables.pop(name, None)
  stdout = run_script('convert_tfrecord.sh', env=variables).stdout
  assert stdout.splitlines()[0].split() == ['photos', 'train', 'test']
  run_script('run_train.sh', env=variables)
  wait_for(lambda: (tmp_path / 'out' / 'train' / 'model.ckpt-2.index').exists())
  done = run_script('run_eval.sh', env=variables)
  assert 'Evaluating split test of mnist: 10 photos' in done.stderr
  assert done.stdout.startswith('eval/Accuracy[')


@pytest.fixture(scope='module')
def stubbed(tmp_path_factory):
  """Returns a folder with the scripts; its Python prints its arguments."""
  folder = tmp_path_factory.mktemp('stubbed')
  for path in glob.glob(os.path.join(ROOT, '*.sh')):
    shutil.copy(path, str(folder))
  shutil.copytree(os.path.join(ROOT, 'scripts'), str(folder / 'scripts'))
  stubs = {'setup.sh': '', 'export_freeze.sh': '',
           '.venv/bin/python': 'printf "%s\\n" "$@"'}
  stubs['.venv-tf2/bin/python'] = stubs['.venv/bin/python']
  for name, text in stubs.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/usr/bin/env bash\n' + text + '\n')
    path.chmod(0o755)
  (folder / 'train').mkdir()
  return folder


def run_stubbed(stubbed, name, **variables):
  """Runs a script of `stubbed` with TRAIN_DIR; returns its CompletedProcess."""
  return subprocess.run(
      [str(stubbed / name)], env=dict(os.environ, **dict(
          dict(TRAIN_DIR=str(stubbed / 'train'),
               OUTPUT_DIR=str(stubbed / 'out')), **variables)),
      capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize('name', [
    'run_eval.sh', 'scripts/export_tflite.sh',
    'scripts/export_saved_model.sh', 'scripts/export_onnx.sh', 'report.sh',
    'check_labels.sh'])
def test_scripts_pass_on_the_choice_of_checkpoint_that_is_set(stubbed, name):
  folder = '--%s=%s' % ('train_dir' if name in (
      'report.sh', 'check_labels.sh') else 'checkpoint_path', stubbed / 'train')
  for choice, expected in (('', []), ('best', ['--which_checkpoint=best']),
                           ('newest', ['--which_checkpoint=newest'])):
    done = run_stubbed(stubbed, name, CHECKPOINT=choice)
    flags = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert folder in flags
    assert [flag for flag in flags if 'which' in flag] == expected


@pytest.mark.parametrize('name', ['run_eval.sh', 'quickstart.sh',
                                  'export_freeze.sh'])
@pytest.mark.parametrize('variables, message', [
    ({'EVAL': 'best'}, 'EVAL=best: give CHECKPOINT=best or CHECKPOINT=newest '),
    ({'EXPORT': ''}, 'EXPORT=: give CHECKPOINT=best or CHECKPOINT=newest '),
    ({'CHECKPOINT': 'good'},
     "CHECKPOINT is 'good', accepted are best and newest; --checkpoint_path="),
])
def test_scripts_invalid_choice_of_checkpoint_is_one_line_error(
    chain, name, variables, message):
  done = run_script(name, env=dict(chain, SERVER_PORT='0', **variables),
                    check=False)
  assert done.returncode == 1
  assert done.stderr.startswith('%s: error: %s' % (name, message))
  assert done.stderr.count('\n') == 1 and not done.stdout


def test_run_train_with_a_wrong_flag_prints_the_error_and_fails(chain):
  env = dict(chain, TRAIN_DIR=chain['OUTPUT_DIR'] + '/mistake')
  done = run_script('run_train.sh', '--checkpoint_path=/no/where', env=env,
                    check=False)
  assert done.returncode == 1
  assert 'error: no checkpoint at /no/where' in done.stderr


def test_run_train_with_train_dir_as_a_flag_error_names_the_variable(chain):
  done = run_script('run_train.sh', '--train_dir=/tmp/x', env=chain,
                    check=False)
  assert done.returncode == 1
  assert 'give TRAIN_DIR=/tmp/x in front of the command' in done.stderr


@pytest.mark.slow
def test_setup_after_a_failed_installation_fails_again(bare_machine):
  folder, env = bare_machine
  for name in glob.glob(str(folder / 'requirements' / '*.txt')):
    with open(name, 'w') as stream:
      stream.write('no-such-package-here==99\n')
  env = dict(env, PATH=env['PATH'] + ':/usr/bin', PIP_NO_INDEX='1',
             PYTHON=os.path.realpath(sys.executable))
  for arguments in ([], ['--onnx']):
    done = run_setup((folder, env), *arguments)
    assert done.returncode != 0
    assert ('-onnx.txt (' in done.stdout) == bool(arguments)
    assert 'Ready' not in done.stdout
    assert 'ERROR: No matching distribution' in done.stdout + done.stderr
  # On a terminal, pip's output is in a file; its end is shown.
  reader, terminal = pty.openpty()
  status = subprocess.call([str(folder / 'setup.sh')], env=env, stdout=terminal,
                           stderr=terminal)
  assert status != 0
  os.close(terminal)
  output = b''
  with contextlib.suppress(OSError):  # At the end.
    while True:
      output += os.read(reader, 100000)
  os.close(reader)
  assert b'ERROR: No matching distribution' in output


def test_stop_train_without_training_prints_that_none_is_running(chain):
  env = dict(chain, TRAIN_DIR='/no/where')
  assert run_script('stop_train.sh', env=env).stdout == (
      'No training is running in /no/where\n')


def test_env_set_variables_win_and_default_names_contain_the_network():
  code = 'source %s/env_set.sh; echo "$FROZEN_FILE|$TRAIN_DIR|$CHECKPOINT_PATH"'
  env = {key: value for key, value in os.environ.items()
         if key not in ('MODEL_NAME', 'CHECKPOINT_PATH', 'RUNS_DIR')}
  stdout = subprocess.run(
      ['bash', '-euc', code % ROOT], capture_output=True, text=True, check=True,
      env=dict(env, MODEL_NAME='lenet', TRAIN_DIR='/x')).stdout
  assert stdout == (
      '%s/output/my_flower_5_lenet/export/my_lenet_freeze.pb|/x|'
      '%s/checkpoints/lenet.ckpt\n' % (ROOT, ROOT))


def test_setup_without_changes_takes_less_than_a_second():
  start = time.time()
  run_script('setup.sh', '--quiet')
  assert time.time() - start < 1


@pytest.fixture
def bare_machine(tmp_path):
  """Returns a copy of setup.sh's folder, and an environment without Python."""
  for name in ('requirements', 'scripts'):
    shutil.copytree(os.path.join(ROOT, name), str(tmp_path / name))
  for name in ('setup.sh', 'env_set.sh'):
    shutil.copy(os.path.join(ROOT, name), str(tmp_path))
  tools = tmp_path / 'bin'
  tools.mkdir()
  for tool in SETUP_TOOLS:
    (tools / tool).symlink_to(shutil.which(tool))
  return tmp_path, {'PATH': str(tools), 'HOME': str(tmp_path)}


def run_setup(bare_machine, *arguments, **variables):
  folder, env = bare_machine
  return subprocess.run([str(folder / 'setup.sh'), *arguments],
                        env=dict(env, **variables), capture_output=True,
                        text=True)


def write_python(path, version):
  """Writes a stub that claims to be a Python, and fails when it is used.

  Args:
    path: pathlib.Path.
    version: of the Python, such as '3.7'.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  # engine.sh runs `python -c CODE VERSION ...`, which succeeds if the Python is
  # of one of these versions.
  path.write_text("""#!/usr/bin/env bash
if [[ "$1" == -c ]]; then [[ " ${*:3} " == *" %s "* ]]; exit; fi
echo "$0 asked for: $*"; exit 3
""" % version)
  path.chmod(0o755)


@pytest.mark.parametrize('engine,version,others', [
    ('', '3.7', 'or install a Python 3.10 to 3.13, to use TensorFlow 2'),
    ('tf1', '3.7', 'or give ENGINE=tf2, which needs a Python 3.10 to 3.13'),
    ('tf2', '3.12', 'no Python 3.12 or 3.13 or 3.11 or 3.10 found')])
def test_setup_without_python_error_says_how_to_get_it(
    bare_machine, engine, version, others):
  done = run_setup(bare_machine, ENGINE=engine)
  assert done.returncode == 1
  assert 'error: no Python %s' % version in done.stderr
  assert others in done.stderr
  for command in ('uv python install %s', 'pyenv install %s', 'python=%s'):
    assert command % version in done.stderr


@pytest.mark.parametrize('engine,versions,venv', [
    ('', ['3.7'], '.venv'), ('', ['3.7', '3.12'], '.venv'),
    ('', ['3.12'], '.venv-tf2'), ('', ['3.10', '3.14'], '.venv-tf2'),
    ('tf2', ['3.7', '3.13'], '.venv-tf2')], ids=str)
def test_setup_engine_depends_on_the_pythons_that_exist(bare_machine, engine,
                                                        versions, venv):
  folder, _ = bare_machine
  for version in versions:
    write_python(folder / 'bin' / ('python' + version), version)
  done = run_setup(bare_machine, ENGINE=engine)
  assert done.returncode == 3
  assert done.stdout.endswith('asked for: -m venv %s\n' % (folder / venv))
  # The reason is given only if the user did not choose the engine.
  reason = 'No Python 3.7 found, so TensorFlow 2 runs instead of 1.15'
  assert (reason in done.stderr) == (not engine and '3.7' not in versions)


@pytest.mark.parametrize('engine,version,venv', [
    ('tf1', '3.7', '.venv'), ('tf2', '3.12', '.venv-tf2')])
def test_env_set_engine_is_that_of_the_existing_environment(
    bare_machine, engine, version, venv):
  folder, env = bare_machine
  write_python(folder / venv / 'bin' / 'python', version)
  code = 'source "$HOME/env_set.sh"; echo "$ENGINE|$VENV_PYTHON"'
  done = subprocess.run(['bash', '-euc', code], env=env, capture_output=True,
                        text=True, check=True)
  assert done.stdout == '%s|%s/%s/bin/python\n' % (engine, folder, venv)


def test_setup_engine_is_that_of_the_given_python(bare_machine):
  folder, _ = bare_machine
  write_python(folder / '.venv' / 'bin' / 'python', '3.7')
  python = folder / 'mine' / 'python'
  write_python(python, '3.11')
  done = run_setup(bare_machine, PYTHON=str(python))
  assert 'PYTHON is %s, no Python 3.7, so TensorFlow 2' % python in done.stderr
  assert done.stdout.endswith(
      'asked for: -m venv %s\n' % (folder / '.venv-tf2'))
  done = run_setup(bare_machine, PYTHON='/no/where')
  assert done.returncode == 1
  assert done.stderr == ("setup.sh: error: PYTHON is '/no/where', which is not "
                         'a Python 3.7, as TensorFlow 1.15 requires\n')


@pytest.mark.parametrize('versions, variables, arguments, engine', [
    (['3.7', '3.12'], {}, [], 'tf2'), (['3.12'], {}, [], 'tf2'),
    (['3.7'], {}, [], 'tf1'),
    (['3.7', '3.12'], {'ENGINE': 'tf1'}, [], 'tf1'),
    (['3.7', '3.12'], {'SETUP_STATUS': '1'}, [], 'tf1'),  # As without network.
    (['3.7', '3.12'], {'SERVER_HOST': '127.0.0.1'}, [], 'local'),
    (['3.7', '3.12'], {}, ['--host', 'localhost'], 'local'),
    (['3.7', '3.12'], {'SERVER_HOST': '::1'}, ['--host=192.168.7.8'], 'tf2')],
                         ids=str)
def test_server_that_is_not_local_uses_the_engine_with_security_fixes(
    bare_machine, versions, variables, arguments, engine):
  folder, env = bare_machine
  shutil.copy(os.path.join(ROOT, 'server.sh'), str(folder))
  # It fails for TensorFlow 2 with the status SETUP_STATUS, if that is set.
  (folder / 'setup.sh').write_text(
      '#!/usr/bin/env bash\n[[ "${ENGINE}" == tf1 ]] || '
      'exit "${SETUP_STATUS:-0}"\n')
  for version in versions:
    venv = '.venv' if version == '3.7' else '.venv-tf2'
    write_python(folder / venv / 'bin' / 'python', version)
  done = subprocess.run([str(folder / 'server.sh'), *arguments],
                        env=dict(env, **variables), capture_output=True,
                        text=True)
  venv = '.venv-tf2' if engine == 'tf2' else '.venv'
  assert done.stdout.startswith('%s/%s/bin/python asked for: %s/server.py' %
                                (folder, venv, folder))
  warning = re.search('warning: others can reach 0.0.0.0, .*CVE-', done.stderr)
  assert bool(warning) == (engine == 'tf1')
  reason = 'so TensorFlow 2 serves, whose packages get security fixes'
  assert (reason in done.stderr) == (
      'SETUP_STATUS' in variables or engine == 'tf2' and '3.7' in versions)


def test_setup_unknown_engine_is_one_line_error(bare_machine):
  done = run_setup(bare_machine, ENGINE='tf3')
  assert done.returncode == 1
  assert done.stderr == ("setup.sh: error: ENGINE is 'tf3', accepted are tf1 "
                         "and tf2\n")


@pytest.mark.parametrize('engine,version,venv', [
    ('tf1', '3.7', '.venv'), ('tf2', '3.11', '.venv-tf2')])
def test_setup_finds_a_python_of_pyenv(bare_machine, engine, version, venv):
  folder, _ = bare_machine
  write_python(folder / '.pyenv' / 'versions' / (version + '.99') / 'bin' /
               'python', version)
  done = run_setup(bare_machine, ENGINE=engine)
  assert done.returncode == 3
  assert 'asked for: -m venv %s\n' % (folder / venv) in done.stdout


@pytest.mark.parametrize('tool,answer', [
    ('uv', '[[ "$*" == "python find 3.7" ]] && echo "$HOME/found/bin/python"'),
    ('conda', '[[ "$*" == "env list" ]] && echo "py37    $HOME/found"'),
])
def test_setup_finds_a_python_of_uv_and_conda(bare_machine, tool, answer):
  folder, _ = bare_machine
  write_python(folder / 'found' / 'bin' / 'python', '3.7')
  (folder / 'bin' / tool).write_text('#!/usr/bin/env bash\n%s\n' % answer)
  (folder / 'bin' / tool).chmod(0o755)
  done = run_setup(bare_machine)
  assert done.returncode == 3
  assert 'asked for: -m venv %s\n' % (folder / '.venv') in done.stdout


def test_setup_incomplete_environment_is_made_again(bare_machine):
  folder, _ = bare_machine
  write_python(folder / '.venv' / 'bin' / 'python', '3.7')  # It has no pip.
  write_python(folder / '.pyenv' / 'versions' / '3.7.99' / 'bin' / 'python',
               '3.7')
  done = run_setup(bare_machine)
  assert done.returncode == 3
  assert 'asked for: -m venv %s\n' % (folder / '.venv') in done.stdout
  assert not (folder / '.venv').exists()


def test_setup_on_another_system_is_an_error(bare_machine):
  folder, env = bare_machine
  (folder / 'bin' / 'uname').unlink()
  (folder / 'bin' / 'uname').write_text(
      '#!/usr/bin/env bash\necho Darwin arm64\n')
  (folder / 'bin' / 'uname').chmod(0o755)
  done = run_setup((folder, env))
  assert done.returncode == 1
  assert 'this is Darwin arm64' in done.stderr
  assert 'Linux x86_64 only' in done.stderr


@pytest.mark.parametrize('arguments,message', [
    (['--nope'], 'unknown argument --nope'),
    (['--photos', '/', '--checkpoint', '/no/x'], '--checkpoint /no/x: no such'),
    (['--photos'], '--photos needs a folder'),
    (['--photos', '/no/where'], '--photos /no/where: no such folder'),
    (['--checkpoint', 'x'], '--checkpoint needs --photos'),
    (['--network=lenet'], '--network needs --photos'),
    (['--from_scratch'], '--from_scratch needs --photos'),
    (['--photos', '/', '--from_scratch', '--checkpoint', ROOT + '/LICENSE'],
     '--checkpoint and --from_scratch exclude each other'),
])
def test_quickstart_wrong_argument_is_one_line_error(arguments, message):
  done = run_script('quickstart.sh', *arguments, check=False)
  assert done.returncode == 1
  assert done.stderr.startswith('quickstart.sh: error: ' + message)
  assert done.stderr.count('\n') == 1


@pytest.fixture
def failing(stubbed, tmp_path):
  """Runs quickstart.sh in `stubbed`, in which a step fails with status 3."""
  (stubbed / 'convert_tfrecord.sh').write_text(
      '#!/usr/bin/env bash\nprintf "INFO:tensorflow:line %d\\n" {1..40}\n'
      'echo "WARNING:tensorflow:odd"\necho "x: error: no photos" >&2\nexit 3\n')

  def run(*arguments):
    return subprocess.run(
        [str(stubbed / 'quickstart.sh'), *arguments],
        env=dict(os.environ, SERVER_PORT='0', RUNS_DIR=str(tmp_path / 'out')),
        cwd=str(tmp_path), capture_output=True, text=True)

  yield run
  shutil.copy(os.path.join(ROOT, 'convert_tfrecord.sh'), str(stubbed))


def test_quickstart_failed_step_shows_its_last_lines_and_the_log(
    failing, tmp_path):
  done = failing()
  assert done.returncode == 3
  lines = done.stderr.splitlines()
  assert lines[-2:] == [
      'x: error: no photos', 'quickstart.sh: error: convert_tfrecord.sh ended '
      'with status 3; its output is in out/quickstart/quickstart.log']
  assert 'INFO:tensorflow:line 40' in lines and len(lines) == 16
  assert 'INFO' not in done.stdout
  assert done.stdout.splitlines()[-1] == (
      '== convert_tfrecord.sh: photos to TFRecord')
  log = (tmp_path / 'out' / 'quickstart' / 'quickstart.log').read_text()
  assert 'line 1\n' in log and 'x: error: no photos' in log


def test_quickstart_verbose_shows_all_output(failing, tmp_path):
  done = failing('--verbose')
  assert done.returncode == 3
  assert 'INFO:tensorflow:line 1\n' in done.stdout
  assert done.stderr == 'x: error: no photos\n'
  assert not (tmp_path / 'out' / 'quickstart' / 'quickstart.log').exists()


@pytest.mark.slow
def test_quickstart_trains_on_the_sample_and_serves(tmp_path):
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    port = str(listener.getsockname()[1])
  env = {key: value for key, value in os.environ.items()
         if key in ('PATH', 'HOME', 'LANG', 'ENGINE', 'RUNS_DIR')}
  env.update(SERVER_PORT=port, DATASET_DIR=str(tmp_path / 'data'),
             OUTPUT_DIR=str(tmp_path / 'out'),
             LOG_FILE=str(tmp_path / 'output.log'))
  done = subprocess.run([os.path.join(ROOT, 'quickstart.sh'), '--no_serve'],
                        env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  with open(str(tmp_path / 'out' / 'eval' / 'metrics.jsonl')) as stream:
    result = json.loads(stream.read().splitlines()[-1])
  assert result['accuracy'] >= 0.9
  assert '\nHTTP 200: ' in done.stdout
  assert 'No such file' not in done.stderr
  # Progress and results fit two screens; all output is in the log.
  shown = done.stdout + done.stderr
  assert sum(len(line) // 80 + 1 for line in shown.splitlines()) <= 80
  assert 'eval/Accuracy[' in done.stdout and 'INFO:' not in shown
  log = re.search(r'written to (\S+quickstart.log)\n', done.stdout).group(1)
  with open(log) as stream:
    text = stream.read()
  assert 'INFO:tensorflow:Restoring parameters' in text
  assert 'Confused most often' in text or '100.0 %' in text
