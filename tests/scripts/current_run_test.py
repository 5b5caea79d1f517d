"""Tests of the run that scripts use: the current one, RUN=NAME, variables."""

import glob
import os
import shutil
import signal
import subprocess
import sys

import pytest

from kits.helpers import ROOT
from kits.run_folder_kit import make_run, start

# Runs the list of runs; of other programs it prints the arguments, and the line
# for which run_train.sh waits.
PYTHON = """#!/usr/bin/env bash
case "$1" in
  */list_runs.py | -c) exec %s "$@" ;;
  *) printf '%%s\\n' "$@" 'Training on CPU:0' ;;
esac
[[ "$*" != *train_image* ]] || sleep 0.7  # run_train.sh looks each 0.5 s.
""" % sys.executable

SCRIPTS = {'run_eval.sh': '--checkpoint_path={}/train',
           'report.sh': '--train_dir={}/train',
           'check_labels.sh': '--train_dir={}/train',
           'review_inbox.sh': '--dataset_name=pets',
           'export_freeze.sh': '--frozen_file={}/export/my_lenet_freeze.pb',
           'label_next.sh': '--frozen_graph={}/export/my_lenet_freeze.pb',
           'classify.sh': '--frozen_graph={}/export/my_lenet_freeze.pb',
           'server.sh': '--label_file={}/export/my_lenet_freeze.label',
           'run_tensorboard.sh': '--eval_dir={}/eval',
           'scripts/export_onnx.sh': '--run_name=dogs',
           'scripts/export_tflite.sh': '--dataset_name=pets'}


@pytest.fixture
def project(tmp_path):
  """Returns a copy of the scripts, with the runs cats and dogs in output/.

  The current one is dogs.
  """
  for name in ('scripts', 'tools', 'runs', 'common', 'evaluation'):
    shutil.copytree(os.path.join(ROOT, name), str(tmp_path / name))
  (tmp_path / 'nets').mkdir()
  shutil.copy(os.path.join(ROOT, 'nets', 'networks.py'), str(tmp_path / 'nets'))
  for path in glob.glob(os.path.join(ROOT, '*.sh')):
    shutil.copy(path, str(tmp_path))
  (tmp_path / 'setup.sh').write_text('#!/usr/bin/env bash\n')
  for name in ('.venv', '.venv-tf2'):
    path = tmp_path / name / 'bin' / 'python'
    path.parent.mkdir(parents=True)
    path.write_text(PYTHON)
    path.chmod(0o755)
  output = tmp_path / 'output'
  start(output, *(make_run(output, name) for name in ('cats', 'dogs')))
  return tmp_path


def environment(**variables):
  """Returns an environment with these variables, and none of the tests."""
  return dict({key: value for key, value in os.environ.items()
               if key in ('PATH', 'HOME', 'ENGINE')}, **variables)


def run(project, name, *arguments, **variables):
  """Runs a script of the project; returns its CompletedProcess."""
  return subprocess.run(
      [str(project / name), *arguments], env=environment(**variables),
      cwd=str(project), stdin=subprocess.DEVNULL, capture_output=True,
      text=True, errors='surrogateescape')


@pytest.mark.parametrize('name', SCRIPTS)
def test_script_without_variables_uses_the_current_run_and_says_so(
    project, name):
  line = ('%s: run dogs: pets, lenet, step 40, accuracy 0.7500 on validation '
          'photos' % os.path.basename(name))
  done = run(project, name)
  assert done.returncode == 0
  assert done.stderr.splitlines()[0] == line
  assert SCRIPTS[name].format(project / 'output' / 'dogs') in (
      done.stdout.splitlines())


def test_run_names_another_run_and_variables_override_its_settings(project):
  done = run(project, 'run_eval.sh', RUN='cats', EVAL_DIR='mine',
             DATASET_DIR='moved')
  assert done.stderr.startswith('run_eval.sh: run cats: pets, lenet, ')
  assert {'--checkpoint_path=%s/output/cats/train' % project,
          '--eval_dir=mine', '--dataset_dir=moved', '--model_name=lenet'} <= (
              set(done.stdout.splitlines()))


@pytest.mark.parametrize('variables', [
    {'MODEL_NAME': 'lenet'}, {'DATASET_NAME': 'pets'}, {'OUTPUT_DIR': 'out'},
    {'TRAIN_DIR': 'train'}], ids=str)
def test_variables_that_name_a_run_work_as_without_a_current_run(
    project, variables):
  with_current = run(project, 'run_eval.sh', **variables)
  (project / 'output' / 'runs.tsv').unlink()
  without = run(project, 'run_eval.sh', **variables)
  assert not with_current.stderr
  assert with_current.stdout == without.stdout


def test_graph_that_is_given_is_not_said_to_be_of_the_current_run(project):
  done = run(project, 'classify.sh', FROZEN_FILE='x.pb')
  assert '--frozen_graph=x.pb' in done.stdout and not done.stderr


def test_training_becomes_the_current_run(project):
  for script, variables, name in (
      ('run_train.sh', dict(MODEL_NAME='vgg_a', OUTPUT_DIR='a b/own'), 'own'),
      ('run_train.sh', dict(RUN='cats'), 'cats'),
      ('run_train.sh', dict(RUN='new', MODEL_NAME='lenet'), 'new'),
      ('scripts/run_cluster.sh', dict(RUN='dogs'), 'dogs')):
    done = run(project, script, LOG_FILE=str(project / 'log'), **variables)
    assert done.returncode == 0, done.stderr
    folder = (project / variables['OUTPUT_DIR'] if 'OUTPUT_DIR' in variables
              else project / 'output' / name)
    if not folder.exists():  # The trainer, which did not run, makes it.
      make_run(folder.parent, folder.name)
    assert run(project, 'classify.sh').stderr.startswith(
        'classify.sh: run %s: ' % name)
  log = (project / 'log').read_text().splitlines()
  assert '--train_dir=%s/output/cats/train' % project in log
  assert '--train_dir=%s/output/new/train' % project in log


def test_run_without_known_beginning_does_not_train_all_layers(project):
  facts = project / 'output' / 'cats' / 'train' / 'run.json'
  log = project / 'log'
  for content, name in (('{"model_name": "lenet"}', 'checkpoints/lenet.ckpt'),
                        ('{"model_name": "lenet", "checkpoint_path": "/gone"}',
                         'checkpoints/lenet.ckpt'),
                        ('{"model_name": "lenet", "checkpoint_path": null}',
                         None)):
    facts.write_text(content)
    log.write_text('')
    run(project, 'run_train.sh', RUN='cats', LOG_FILE=str(log))
    assert ('--checkpoint_path=%s/%s' % (project, name) in log.read_text()) == (
        name is not None)


def test_moved_project_uses_its_own_data_and_log(project):
  train = project / 'output' / 'moved' / 'train'
  make_run(project / 'output', 'moved', dataset_dir='/gone/data')
  with (project / 'output' / 'runs.tsv').open('a') as stream:
    stream.write('\t%s\t\t\t/gone/output.log\n' % train)
  done = run(project, 'run_eval.sh')
  assert '--dataset_dir=%s/data' % project in done.stdout.splitlines()
  assert run(project, 'run_train.sh', RUN='moved').returncode == 0
  assert (project / 'output.log').exists()


def test_new_run_can_be_stopped_before_it_has_facts(project):
  train = project / 'output' / 'fresh' / 'train'
  train.mkdir(parents=True)
  (train / 'train.pid').write_text('1\n')
  done = run(project, 'stop_train.sh', RUN='fresh')
  assert done.stdout == 'No training is running in output/fresh/train\n'
  done = run(project, 'stop_train.sh', RUN='dosg')
  assert done.returncode == 1 and 'did you mean dogs?' in done.stderr


def test_interrupted_wait_names_the_training_that_continues(project):
  for name in ('.venv', '.venv-tf2'):
    path = project / name / 'bin' / 'python'
    path.write_text(PYTHON.replace("'Training on CPU:0' ;;", "x; sleep 2 ;;"))
  output = make_run(project / 'output', 'my own').parent
  with subprocess.Popen(
      ['./run_train.sh'], cwd=str(project),
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
      env=environment(MODEL_NAME='lenet', OUTPUT_DIR=str(output)),
      stdout=subprocess.PIPE, text=True) as waiting:
    assert waiting.stdout.readline().endswith('until it begins\n')
    waiting.send_signal(signal.SIGINT)
    assert 'TRAIN_DIR=output/my\\ own/train ./stop_train.sh stops' in (
        waiting.stdout.read())
  assert run(project, 'classify.sh').stderr.startswith(
      'classify.sh: run my own: ')


def test_folders_with_unusual_names_are_remembered_and_listed(project):
  name = '-\udcff'  # A byte that is no UTF-8.
  make_run(project, name)
  done = run(project, 'run_train.sh', MODEL_NAME='lenet', OUTPUT_DIR=name)
  assert done.returncode == 0 and 'realpath' not in done.stderr
  listed = subprocess.run(
      [str(project / 'runs.sh')], env=environment(LC_ALL='C.UTF-8'), check=True,
      stdout=subprocess.PIPE).stdout
  assert listed.count(b'-\xff') == 2
  make_run(project / 'output', 'odd', dataset_name='a\nb')
  done = run(project, 'run_eval.sh', RUN='odd')
  assert '--dataset_name=a b' in done.stdout.splitlines()


def test_training_that_fails_does_not_become_the_current_run(project):
  for name in ('.venv', '.venv-tf2'):
    path = project / name / 'bin' / 'python'
    path.write_text(PYTHON.replace("printf '%s", "exit 1; printf '%s"))
  assert run(project, 'run_train.sh', RUN='cats').returncode == 1
  assert run(project, 'runs.sh').stdout.splitlines()[2].startswith('* dogs ')


def test_training_that_cannot_be_remembered_continues(project):
  (project / 'file').write_text('')
  done = run(project, 'run_train.sh', MODEL_NAME='lenet', OUTPUT_DIR='mine',
             RUNS_DIR='file/x')
  assert done.returncode == 0
  assert 'run_train.sh: note: cannot write file/x/runs.tsv' in done.stderr
  assert 'Training as process' in done.stdout


def test_output_dir_of_another_origin_gets_a_number(project):
  code = ('source scripts/find_run.sh; choose_output_dir "$1" "$2"; '
          'echo "${OUTPUT_DIR}"')

  def choose(origin):
    return subprocess.run(
        ['bash', '-euc', code, 'x', 'output/pets_lenet', origin],
        cwd=str(project), capture_output=True, text=True, check=True).stdout

  make_run(project / 'output', 'pets_lenet-2')  # Of run_train.sh.
  assert choose('1 2') == choose('1 2') == 'output/pets_lenet\n'
  assert choose('1 3') == choose('1 3') == 'output/pets_lenet-3\n'
  assert choose('1 2') == 'output/pets_lenet\n'


def test_mistyped_run_or_network_is_one_line_error_with_a_suggestion(project):
  for script, variables, message in (
      ('report.sh', dict(RUN='dosg'), "unknown run 'dosg'; known: cats, dogs; "
       'did you mean dogs?'),
      ('run_train.sh', dict(MODEL_NAME='mobilnet_v1'),
       "unknown network 'mobilnet_v1'; known: alexnet_v2, "),
      ('run_train.sh', dict(RUN='a/b'), "a run cannot be named 'a/b': ")):
    done = run(project, script, **variables)
    assert done.returncode == 1
    assert done.stderr.startswith('%s: error: %s' % (script, message))
    assert done.stderr.count('\n') == 1 and not done.stdout
    assert 'did you mean' in done.stderr or 'named' in message


def test_runs_lists_uses_renames_and_removes(project):
  lines = run(project, 'runs.sh').stdout.splitlines()
  assert lines[0].split() == ['name', 'data', 'set', 'network', 'photos',
                              'accuracy', '95', '%', 'interval', 'date',
                              'size', 'where']
  assert lines[1].split()[:5] == ['cats', 'pets', 'lenet', '-', '0.7500']
  assert lines[2].split()[:2] == ['*', 'dogs']
  assert lines[2].endswith('output/dogs')
  assert run(project, 'runs.sh', '--use', 'cats').stdout.startswith(
      'The current run is cats: pets, lenet, ')
  assert run(project, 'runs.sh', '--rename', 'cats', 'cows').returncode == 0
  # An end of the input is a no.
  code = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)'
  asked = subprocess.run(
      [sys.executable, '-c', code, str(project / 'runs.sh'), '--remove',
       'cows'], env=environment(), input=b'\x04', stdout=subprocess.PIPE,
      timeout=60)
  assert asked.returncode == 1
  assert asked.stdout.decode().endswith('[y/N] \r\nNothing is removed\r\n')
  refused = run(project, 'runs.sh', '--remove', 'cows')
  assert refused.returncode == 1 and 'give --yes' in refused.stderr
  assert run(project, 'runs.sh', '--remove', 'cows', '--yes').returncode == 0
  assert os.listdir(str(project / 'output' / 'dogs')) == ['train']
  assert len(run(project, 'runs.sh').stdout.splitlines()) == 2
  done = run(project, 'runs.sh', '--remove', 'cows', '--yes')
  assert done.returncode == 1
  assert done.stderr.startswith("runs.sh: error: unknown run 'cows'; known: d")
