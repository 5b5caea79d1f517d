"""Tests of deploy/: consistency with the server, and the checks of systemd.

IMAGE_TEST=1 also runs the steps of the Dockerfile in a clean Debian, see
docs/deploy.md.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import train_image_classifier
from kits import server_load_kit as load_kit
from kits import service_kit as kit
from kits.helpers import parsed_flags
from serving.web.app import create_app

ROOT = load_kit.ROOT


def read(*names):
  with open(os.path.join(ROOT, *names), encoding='utf-8') as file:
    return file.read()


MANIFEST = read('deploy', 'kubernetes.yaml')
MANIFEST_FLAGS = re.findall(r'- (--\S+)', MANIFEST)
JOB = read('deploy', 'tfjob.yaml')
UNIT = read('deploy', 'classifier.service')
# The instructions of the Dockerfile: pairs of name and arguments.
STEPS = re.findall(r'(?m)^([A-Z]+) (.*)', read('deploy', 'Dockerfile').replace(
    '\\\n', ''))
ENTRY_POINT = json.loads(dict(STEPS)['ENTRYPOINT'])


def copy_sources(target):
  """Copies the files that .dockerignore, an allowlist, admits."""
  lines = re.findall('(?m)^[^#\n].*', read('.dockerignore'))
  assert (lines[0], lines[-1]) == ('*', '**/__pycache__')
  for line in lines[1:-1]:
    assert line[0] == '!'
    source, copy = os.path.join(ROOT, line[1:]), str(target / line[1:])
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    if os.path.isdir(source):
      shutil.copytree(source, copy,
                      ignore=shutil.ignore_patterns('__pycache__'))
    else:
      shutil.copy(source, copy)


@pytest.fixture
def model(tmp_path):
  """A folder with the graph that the manifest names, and a photo."""
  folder = tmp_path / 'model'
  graph = load_kit.export(tmp_path, 'graph')
  folder.mkdir()
  shutil.copy(str(graph), str(folder / 'my_inception_v4_freeze.pb'))
  (folder / 'photo.jpg').write_bytes(kit.photo(size=(64, 48)))
  return folder


def test_flags_and_timeouts_agree_with_the_server():
  server_source = read('server.py')
  used_flags = re.findall(r'--(\w+)', ' '.join(
      re.findall('(?m)^ExecStart=.*', UNIT) + ENTRY_POINT + MANIFEST_FLAGS))
  assert len(used_flags) >= 8
  assert set(used_flags) <= set(
      re.findall(r"DEFINE_\w+\(\s*'(\w+)'", server_source))
  drain = float(re.search(r"'drain_secs', ([\d.]+)", server_source).group(1))
  assert int(re.search(r'TimeoutStopSec=(\d+)', UNIT).group(1)) > drain
  pause, grace = [int(re.search(pattern, MANIFEST).group(1)) for pattern in (
      r"\[sleep, '(\d+)'\]", r'terminationGracePeriodSeconds: (\d+)')]
  assert grace > pause + drain


def test_image_runs_as_non_root_with_pinned_packages():
  assert STEPS[0] == ('FROM', 'python:3.11-slim')
  assert not re.match('0|root', dict(STEPS)['USER'])
  assert [text for name, text in STEPS if name == 'RUN'] == [
      'pip install --no-cache-dir -r requirements.txt']


def test_probes_request_existing_routes():
  probes = re.findall(r'(\w+)Probe:\n\s+httpGet: {path: (\S+),', MANIFEST)
  assert probes == [('startup', '/readyz'), ('liveness', '/healthz'),
                    ('readiness', '/readyz')]
  rules = create_app(kit.FakeService()).url_map.iter_rules()
  assert {'/healthz', '/readyz'} <= {rule.rule for rule in rules}
  assert "'/healthz'" in dict(STEPS)['HEALTHCHECK']


@pytest.mark.skipif(not shutil.which('systemd-analyze'),
                    reason='needs systemd-analyze on the path')
# The threshold is in tenths: an exposure of at most 1.5 out of 10.
@pytest.mark.parametrize('check', ['verify', 'security --offline=true '
                                   '--threshold=15'])
def test_systemd_accepts_the_unit(tmp_path, check):
  unit = tmp_path / 'classifier.service'
  unit.write_text(UNIT.replace('/opt/classifier/.venv-tf2/bin/python',
                               sys.executable))
  result = subprocess.run(['systemd-analyze', *check.split(), str(unit)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  assert result.returncode == 0, result.stdout.decode()
  assert check != 'verify' or not result.stdout, result.stdout.decode()


def imported_files(name):
  """Returns the files of the project that a module and its imports need."""
  path = os.path.join(ROOT, *name.split('.'))
  if os.path.isdir(path):
    path = os.path.join(path, '__init__')
  paths, pending = set(), [path + '.py']
  while pending:
    path = pending.pop()
    if path in paths or not os.path.isfile(path):
      continue
    paths.add(path)
    with open(path, encoding='utf-8') as file:
      tree = ast.parse(file.read())
    for node in ast.walk(tree):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module] + ['%s.%s' % (node.module, alias.name)
                                 for alias in node.names]
      for name in names:
        base = os.path.join(ROOT, *name.split('.'))
        pending += [base + '.py', os.path.join(base, '__init__.py')]
  return {os.path.relpath(path, ROOT) for path in paths}


@pytest.mark.parametrize('program, package, names', [
    ('server', 'serving', ['.dockerignore']),
    ('train_image_classifier', 'training',
     ['deploy', 'Dockerfile.train.dockerignore'])])
def test_image_packages_are_those_that_the_program_imports(program, package,
                                                           names):
  imported = {path.split(os.sep)[0] for path in imported_files(program)}
  copied = {line[1:] for line in read(*names).split('\n')
            if line.startswith('!') and not line.startswith('!requirements')}
  assert package in imported
  assert copied == imported


def test_training_image_and_job_agree_with_the_trainer():
  assert 'ENTRYPOINT ["python", "-u", "train_image_classifier.py"]\n' in read(
      'deploy', 'Dockerfile.train')
  with parsed_flags(train_image_classifier.define_flags,
                    *re.findall(r'- (--\S+)', JOB)) as values:
    given = train_image_classifier.config_from_flags().given
    assert values.startup_timeout == 1800 and len(given) == 9
  mounts = re.findall(r'mountPath: (\S+?)[,}]', JOB)
  assert mounts == ['/data', '/runs', '/tmp']
  for path in (given['dataset_dir'], given['checkpoint_path'],
               given['train_dir']):
    assert path.startswith(tuple(mounts[:2]))
  # Names that the operator looks for.
  assert re.findall(r'- name: (\S+)\n +image:', JOB) == ['tensorflow']
  assert '{name: tfjob-port, containerPort: 2222}' in JOB
  assert re.findall(r'(?m)^    (\w+):\n      replicas', JOB) == [
      'Chief', 'Worker', 'PS']


@pytest.mark.slow
def test_image_files_are_sufficient_to_serve(tmp_path, model):
  folder = tmp_path / 'app'
  folder.mkdir()
  copy_sources(folder)
  command = [sys.executable, *ENTRY_POINT[1:], *MANIFEST_FLAGS,
             '--model_dir=%s' % model, '--host=127.0.0.1', '--port=0']
  with subprocess.Popen(command, cwd=str(folder), text=True,
                        stdout=subprocess.PIPE) as server:
    try:
      port = re.search(r'port (\d+)', server.stdout.readline()).group(1)
      data = (model / 'photo.jpg').read_bytes()
      assert load_kit.upload(int(port), data)[0] == 200
    finally:
      server.kill()


# Runs a command in the image: read-only except for /tmp, with the folder of the
# model, in a separate network.
_CONTAINER = '''
set -e
ip link set lo up
mount --bind "$1" "$1"
mount --bind "$2" "$1/model"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
mount -o remount,bind,ro "$1"
root=$1
shift 2
exec chroot "$root" "$@"
'''

_UPLOAD = '''
import http.client
connection = http.client.HTTPConnection('127.0.0.1', 5001)
connection.request('POST', '/api/classify', open('/model/photo.jpg', 'rb'))
print(connection.getresponse().read().decode())
'''


@pytest.mark.skipif(not os.environ.get('IMAGE_TEST'), reason='needs '
                    'IMAGE_TEST=1 and root; installs Debian, downloads 600 MB')
def test_dockerfile_steps_build_a_working_server(tmp_path, model):
  root, run = tmp_path / 'root', subprocess.check_call
  run(['debootstrap', '--variant=minbase',
       '--include=ca-certificates,python3-venv', 'bookworm', str(root)])
  # python and pip have the same paths as in python:3.11-slim.
  run(['chroot', str(root), 'python3', '-m', 'venv', '/usr/local'])
  for name in ('/etc/resolv.conf', '/etc/ssl/certs/ca-certificates.crt'):
    shutil.copy(name, str(root) + name)
  (root / 'model').mkdir()
  work_folder = root / dict(STEPS)['WORKDIR'][1:]
  work_folder.mkdir()
  in_image = ['env', '-i', '--chdir=' + dict(STEPS)['WORKDIR'],
              'PATH=/usr/local/bin:/usr/bin:/bin:/sbin']
  for name, arguments in STEPS:
    if name == 'COPY' and arguments == '. .':
      copy_sources(work_folder)
    elif name == 'COPY':
      source, target = arguments.split()
      shutil.copy(os.path.join(ROOT, source), str(work_folder / target))
    elif name == 'RUN':
      run(['chroot', str(root), *in_image, 'sh', '-c', arguments])
    elif name == 'USER':
      user, group = arguments.split(':')
      in_image += ['setpriv', '--reuid=' + user, '--regid=' + group,
                   '--clear-groups', '--no-new-privs', '--bounding-set=-all',
                   '--inh-caps=-all']
    else:
      assert name in ('FROM', 'WORKDIR', 'EXPOSE', 'HEALTHCHECK', 'ENTRYPOINT')
  with subprocess.Popen(
      ['unshare', '--mount', '--net', 'sh', '-c', _CONTAINER, 'sh', str(root),
       str(model), *in_image, *ENTRY_POINT], stdout=subprocess.PIPE) as server:
    try:
      assert server.stdout.readline() == b'listening on port 5001\n'
      in_container = ['nsenter', '--target=%d' % server.pid, '--mount', '--net',
                      'chroot', str(root)]
      check = dict(STEPS)['HEALTHCHECK'].partition('CMD ')[2]
      run([*in_container, *in_image, *json.loads(check)])
      result = json.loads(subprocess.check_output(
          [*in_container, *in_image, 'python', '-c', _UPLOAD]).decode())
      assert len(result['photos'][0]['classes']) > 1
      assert subprocess.call([*in_container, 'touch', '/app/written']) != 0
      server.terminate()
      assert server.wait(40) == 0
    finally:
      server.kill()
