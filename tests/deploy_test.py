"""The files of deploy/: they fit the server, and systemd accepts the unit.

IMAGE_TEST=1 also follows the Dockerfile in a clean Debian: docs/deploy.md.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import server_load_kit as load_kit
import service_kit as kit

from serving.app import create_app

ROOT = load_kit.ROOT
DRAIN_SECS = 30  # Default of --drain_secs.


def read(*names):
  with open(os.path.join(ROOT, *names), encoding='utf-8') as file:
    return file.read()


def dockerfile():
  """Returns its instructions, a list of pairs of name and text."""
  text = re.sub('(?m)^#.*\n', '', read('deploy', 'Dockerfile'))
  return [tuple(line.split(None, 1))
          for line in text.replace('\\\n', '').splitlines() if line]


def entry_point():
  return json.loads(dict(dockerfile())['ENTRYPOINT'])


def kubernetes_flags():
  return re.findall(r'- (--\S+)', read('deploy', 'kubernetes.yaml'))


def copy_sources(target):
  """Copies what .dockerignore, a list of what is allowed, leaves."""
  first, *names, last = [line for line in read('.dockerignore').splitlines()
                         if not line.startswith('#')]
  assert (first, last) == ('*', '**/__pycache__')
  for name in names:
    assert name[0] == '!'
    source, copy = os.path.join(ROOT, name[1:]), str(target / name[1:])
    if os.path.isdir(source):
      shutil.copytree(source, copy,
                      ignore=shutil.ignore_patterns('__pycache__'))
    else:
      shutil.copy(source, copy)


@pytest.fixture
def model(tmp_path):
  """A folder with the graph that the manifest names, and a photo."""
  graph = load_kit.export(tmp_path, 'graph')
  folder = tmp_path / 'model'
  folder.mkdir()
  shutil.copy(str(graph), str(folder / 'my_inception_v4_freeze.pb'))
  (folder / 'photo.jpg').write_bytes(kit.photo(size=(64, 48)))
  return folder


def test_flags_are_the_servers():
  known = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", read('server.py')))
  unit = re.search('(?m)^ExecStart=.*', read('deploy', 'classifier.service'))
  used = re.findall(r'--(\w+)', ' '.join(
      [unit.group(), *entry_point(), *kubernetes_flags()]))
  assert len(used) >= 8
  assert set(used) <= known


def test_image_is_not_of_root_and_has_the_pinned_packages():
  steps = dockerfile()
  names = [name for name, _ in steps]
  assert steps[0] == ('FROM', 'python:3.11-slim')
  assert not re.match('0|root', dict(steps)['USER'])
  assert names.index('USER') > names.index('RUN')
  assert [text for name, text in steps if name == 'RUN'] == [
      'pip install --no-cache-dir -r requirements-tf2.txt']
  assert '/healthz' in dict(steps)['HEALTHCHECK']


def test_time_to_end_is_longer_than_the_server_drains():
  assert "'drain_secs', %d.0" % DRAIN_SECS in read('server.py')
  unit = read('deploy', 'classifier.service')
  assert int(re.search(r'TimeoutStopSec=(\d+)', unit).group(1)) > DRAIN_SECS
  manifest = read('deploy', 'kubernetes.yaml')
  pause = int(re.search(r"\[sleep, '(\d+)'\]", manifest).group(1))
  seconds = re.search(r'terminationGracePeriodSeconds: (\d+)', manifest)
  assert int(seconds.group(1)) > pause + DRAIN_SECS


def test_manifest_probes_what_the_server_answers():
  manifest = read('deploy', 'kubernetes.yaml')
  routes = {rule.rule for rule in
            create_app(kit.FakeService()).url_map.iter_rules()}
  probes = re.findall(r'(\w+)Probe:\n\s+httpGet: {path: (\S+),', manifest)
  assert probes == [('startup', '/readyz'), ('liveness', '/healthz'),
                    ('readiness', '/readyz')]
  assert {path for _, path in probes} <= routes
  for line in ('runAsNonRoot: true', 'readOnlyRootFilesystem: true',
               'allowPrivilegeEscalation: false',
               'capabilities: {drop: [ALL]}'):
    assert manifest.count(line) == 1, line


@pytest.mark.skipif(not shutil.which('systemd-analyze'),
                    reason='needs systemd-analyze on the path')
def test_systemd_accepts_the_unit(tmp_path):
  unit = tmp_path / 'classifier.service'
  unit.write_text(read('deploy', 'classifier.service').replace(
      '/opt/classifier/.venv-tf2/bin/python', sys.executable))
  # 10 times the exposure at most, of 100 for an unlimited service.
  for check in (['verify'], ['security', '--offline=true', '--threshold=15']):
    done = subprocess.run(
        ['systemd-analyze', '--no-pager', *check, str(unit)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert check != ['verify'] or not done.stdout, done.stdout


@pytest.mark.slow
def test_sources_of_the_image_are_all_that_the_server_needs(tmp_path, model):
  folder = tmp_path / 'app'
  folder.mkdir()
  copy_sources(folder)
  command = [sys.executable, *entry_point()[1:-1], '--model_dir=%s' % model,
             *kubernetes_flags(), '--host=127.0.0.1', '--port=0']
  with subprocess.Popen(command, cwd=str(folder), text=True,
                        stdout=subprocess.PIPE) as server:
    try:
      port = re.search(r'port (\d+)', server.stdout.readline()).group(1)
      data = (model / 'photo.jpg').read_bytes()
      assert load_kit.upload(int(port), data)[0] == 200
      server.terminate()
      assert server.wait(30) == 0
    finally:
      server.kill()


# Limits as in the manifest, and nothing can be written.
_CONTAINER = '''
set -e
ip link set lo up
mount --bind "$1" "$1"
mount --bind "$2" "$1/model"
mount -t proc proc "$1/proc"
mount -o remount,bind,ro "$1"
root=$1
shift 2
exec chroot "$root" "$@"
'''


@pytest.mark.skipif(not os.environ.get('IMAGE_TEST'), reason='IMAGE_TEST=1, as '
                    'root: makes a Debian and downloads 600 MB')
def test_steps_of_the_dockerfile_make_what_serves(tmp_path, model):
  root = tmp_path / 'root'
  plain = ['env', '-i', 'PATH=/usr/local/bin:/usr/bin:/bin:/sbin']
  run = subprocess.check_call
  run(['debootstrap', '--variant=minbase',
       '--include=ca-certificates,python3-venv', 'bookworm', str(root)])
  # pip and python are where python:3.11-slim has them.
  run(['chroot', str(root), *plain, 'python3', '-m', 'venv', '/usr/local'])
  for name in ('/etc/resolv.conf', '/etc/ssl/certs/ca-certificates.crt'):
    shutil.copy(name, str(root) + name)
  (root / 'model').mkdir()
  for name, text in dockerfile():
    if name == 'WORKDIR':
      work = root / text[1:]
      work.mkdir()
      inside = plain + ['--chdir=' + text]
    elif name == 'COPY' and text == '. .':
      copy_sources(work)
    elif name == 'COPY':
      shutil.copy(os.path.join(ROOT, text.split()[0]), str(work))
    elif name == 'RUN':
      run(['chroot', str(root), *inside, 'sh', '-c', text])
    elif name == 'USER':
      user, group = text.split(':')
      inside += ['setpriv', '--reuid=' + user, '--regid=' + group,
                 '--clear-groups', '--no-new-privs', '--bounding-set=-all',
                 '--inh-caps=-all']
    else:
      assert name in ('FROM', 'EXPOSE', 'HEALTHCHECK', 'ENTRYPOINT')
  check = re.search(r'CMD (\[.*)', dict(dockerfile())['HEALTHCHECK']).group(1)
  with subprocess.Popen(
      ['unshare', '--mount', '--net', 'sh', '-c', _CONTAINER, 'sh', str(root),
       str(model), *inside, *entry_point()], stdout=subprocess.PIPE) as server:
    try:
      assert server.stdout.readline() == b'listening on port 5001\n'
      enter = ['nsenter', '--target=%d' % server.pid, '--mount', '--net',
               'chroot', str(root)]
      run([*enter, *inside, *json.loads(check)])
      reply = json.loads(subprocess.check_output([
          *enter, *inside, 'python', '-c', 'import http.client as h; '
          "c = h.HTTPConnection('127.0.0.1', 5001); c.request('POST', "
          "'/api/classify', open('/model/photo.jpg', 'rb')); "
          'print(c.getresponse().read().decode())']).decode())
      assert len(reply['photos'][0]['classes']) > 1
      assert subprocess.call([*enter, 'touch', '/app/written']) != 0
      server.terminate()
      assert server.wait(40) == 0
    finally:
      server.kill()
  assert not glob.glob(str(root / 'app' / '**' / '__pycache__'), recursive=True)
