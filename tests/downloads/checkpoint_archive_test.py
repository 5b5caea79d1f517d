"""Tests of downloads/checkpoint_archive.py, download_checkpoint.py and .sh."""

import glob
import os
import subprocess
import threading

import pytest

from common import checkpoint_files
from common.errors import InputError
from compat import tf
from downloads import archives, checkpoint_archive, fetch
from kits import download_kit
from kits.helpers import ROOT, parsed_flags, run_program
from nets import nets_factory
from runs import checkpoints
from tools import download_checkpoint


def make_files(folder, version, name, value=1.0):
  """Returns {file name: bytes} of a checkpoint with one variable `x`."""
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.get_variable('x', [], initializer=tf.constant_initializer(
        value))
    session.run(variable.initializer)
    tf.train.Saver(write_version=version).save(
        session, str(folder / name), write_meta_graph=False, write_state=False)
  contents = {os.path.basename(path): open(path, 'rb').read()
              for path in glob.glob(str(folder / name) + '*')}
  for file in contents:
    (folder / file).unlink()
  return contents


@pytest.fixture
def server(monkeypatch, tmp_path):
  """Serves two V1 and two V2 archives with the layout of the published ones."""
  monkeypatch.setattr(fetch, 'WAITS', (0,) * 3)
  monkeypatch.setenv('no_proxy', '*')
  source_dir = tmp_path / 'made'
  source_dir.mkdir()
  with download_kit.running() as kit:
    for name, version, prefix, value in (
        ('inception_v4', tf.train.SaverDef.V1, '', 4),
        ('inception_resnet_v2', tf.train.SaverDef.V1, '', 2),
        ('mobilenet_v1_1.0_224', tf.train.SaverDef.V2, './', 224),
        ('mobilenet_v1_1.0_192', tf.train.SaverDef.V2, './', 192)):
      network, row = nets_factory.find_checkpoint(name)
      archive = row.url.rpartition('/')[2]
      files = make_files(source_dir, version, row.file, value)
      files.update({'eval.graph': b'x', row.file + '.meta': b'x'})
      kit.files['/' + archive] = download_kit.tar_gz(
          {prefix + file: data for file, data in files.items()})
      network_row = nets_factory.NETWORKS[network]
      monkeypatch.setitem(nets_factory.NETWORKS, network, (
          network_row._replace(checkpoints=tuple(
              c._replace(url=kit.url + '/' + archive) if c == row else c
              for c in network_row.checkpoints))))
    yield kit


def files_in(folder):
  """Returns the names of the files in a folder, except recorded checksums."""
  return sorted(name for name in os.listdir(str(folder))
                if not name.endswith('.sha256'))


def read_x(prefix):
  return float(checkpoint_files.open_reader(prefix).get_tensor('x'))


def download(name, folder):
  """Downloads a checkpoint by name as the program does; returns its path."""
  network, row = nets_factory.find_checkpoint(name)
  return checkpoint_archive.download(row.url, row.file, folder, row.name,
                                     network)


def test_download_single_file_checkpoint_is_unpacked(server, tmp_path):
  server.behaviours[:] = [{'status': 503}, {'cut': 50}]
  folder = tmp_path / 'new' / 'checkpoints'
  prefix = download('inception_v4', str(folder))
  assert prefix == str(folder / 'inception_v4.ckpt')
  assert sorted(os.listdir(str(folder))) == [
      'inception_v4.ckpt', 'inception_v4_2016_09_09.tar.gz.sha256']
  assert read_x(prefix) == 4


def test_download_with_another_checksum_than_before_is_refused(
    server, tmp_path):
  prefix = download('inception_v4', str(tmp_path))
  record = tmp_path / 'inception_v4_2016_09_09.tar.gz.sha256'
  os.remove(prefix)
  archive = '/inception_v4_2016_09_09.tar.gz'
  # Still a valid archive: gzip stores the time in byte 4.
  data = bytearray(server.files[archive])
  data[4] ^= 1
  server.files[archive] = bytes(data)
  with pytest.raises(InputError) as caught:
    download('inception_v4', str(tmp_path))
  assert ('as at its first download; remove %s to accept another file' %
          record) in str(caught.value) and '\n' not in str(caught.value)
  assert files_in(tmp_path) == ['made']
  record.unlink()
  assert read_x(download('inception_v4', str(tmp_path))) == 4
  assert record.read_text() == '%s  %s\n' % (
      download_kit.sha256(bytes(data)), archive[1:])


def test_download_checkpoint_with_other_name_in_the_archive_is_renamed(
    server, tmp_path):
  prefix = download('inception_resnet_v2', str(tmp_path / 'c'))
  assert files_in(tmp_path / 'c') == ['inception_resnet_v2.ckpt']
  assert read_x(prefix) == 2


def test_download_v2_checkpoint_is_also_linked_by_the_networks_name(
    server, tmp_path):
  folder = tmp_path / 'c'
  prefix = download('mobilenet_v1', str(folder))
  assert prefix == str(folder / 'mobilenet_v1.ckpt')
  files = ['.data-00000-of-00001', '.index']
  assert files_in(folder) == (
      ['mobilenet_v1.ckpt' + file for file in files] +
      ['mobilenet_v1_1.0_224.ckpt' + file for file in files])
  assert read_x(prefix) == 224
  # Another checkpoint of the network takes over its name; both are kept.
  assert download('mobilenet_v1_1.0_192', str(folder)) == prefix
  assert read_x(prefix) == 192
  assert read_x(str(folder / 'mobilenet_v1_1.0_224.ckpt')) == 224
  # The change back needs no download.
  del server.requests[:]
  download('mobilenet_v1_1.0_224', str(folder))
  assert read_x(prefix) == 224 and not server.requests


def test_download_keeps_a_file_of_the_user(server, tmp_path):
  own = tmp_path / 'mobilenet_v1.ckpt.index'
  own.write_bytes(b'mine')
  prefix = download('mobilenet_v1', str(tmp_path))
  assert prefix == str(tmp_path / 'mobilenet_v1_1.0_224.ckpt')
  assert own.read_bytes() == b'mine' and read_x(prefix) == 224


def test_download_again_needs_no_network(server, tmp_path):
  download('inception_v4', str(tmp_path))
  del server.requests[:]
  assert read_x(download('inception_v4', str(tmp_path))) == 4
  assert not server.requests


def test_download_archive_of_the_user_is_used_and_kept(tmp_path, monkeypatch):
  data = download_kit.tar_gz(make_files(
      tmp_path, tf.train.SaverDef.V1, 'vgg_16.ckpt', 16))
  archive = tmp_path / 'vgg_16_2016_08_28.tar.gz'
  archive.write_bytes(data)
  monkeypatch.setattr(fetch.socket, 'getaddrinfo',
                      lambda *_, **__: pytest.fail('asked the network'))
  assert read_x(download('vgg_16', str(tmp_path))) == 16
  assert archive.read_bytes() == data


def test_download_only_checkpoint_of_an_archive_is_used_whatever_its_name(
    tmp_path):
  (tmp_path / 'vgg_16_2016_08_28.tar.gz').write_bytes(download_kit.tar_gz({
      'deep/' + name: data for name, data in make_files(
          tmp_path, tf.train.SaverDef.V2, 'renamed', 7).items()}))
  assert read_x(download('vgg_16', str(tmp_path))) == 7


def test_download_checkpoint_of_unknown_name_must_be_the_only_one(tmp_path):
  archive = tmp_path / 'quantized_v2_96_35.tgz'
  files = make_files(tmp_path, tf.train.SaverDef.V2, 'model.ckpt-7', 7)
  archive.write_bytes(download_kit.tar_gz(dict(files, **{'a.ckpt': b''})))
  with pytest.raises(InputError, match='no checkpoint or several; it has a.c'):
    download('quantized_v2_96_35', str(tmp_path))
  archive.write_bytes(download_kit.tar_gz(files))
  assert read_x(download('quantized_v2_96_35', str(tmp_path))) == 7


@pytest.mark.parametrize('files,message', [
    ({'readme': b''}, 'has no checkpoint vgg_16.ckpt; it has readme'),
    ({'a.ckpt': b'', 'b.ckpt': b''}, 'has no checkpoint vgg_16.ckpt; it has'),
    ({'vgg_16.ckpt': b'rubbish'}, 'vgg_16.ckpt in .* is damaged'),
    ({'vgg_16.ckpt.index': b'rubbish'}, 'vgg_16.ckpt in .* lacks files'),
    ({'/vgg_16.ckpt': b'x'}, 'leaves the folder'),
], ids=['none', 'two', 'damaged', 'half', 'hostile'])
def test_download_unusable_archive_gives_one_line_error(
    tmp_path, files, message):
  archive = tmp_path / 'vgg_16_2016_08_28.tar.gz'
  archive.write_bytes(download_kit.tar_gz(files))
  with pytest.raises(InputError, match=message) as caught:
    download('vgg_16', str(tmp_path))
  assert '\n' not in str(caught.value)
  assert os.listdir(str(tmp_path)) == [archive.name]


def interrupt(*_):
  raise KeyboardInterrupt


@pytest.mark.parametrize('module,step', [
    (archives, 'unpack'), (checkpoint_archive, '_publish'),
    (checkpoint_archive.marks, 'remove_downloaded')], ids=str)
def test_download_after_a_kill_restarts_and_leaves_no_archive(
    server, tmp_path, monkeypatch, module, step):
  with monkeypatch.context() as patch:
    patch.setattr(module, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
      download('inception_v4', str(tmp_path / 'c'))
  assert checkpoints.is_checkpoint(str(tmp_path / 'c' / 'inception_v4.ckpt')) \
      == (step == 'remove_downloaded')
  del server.requests[:]
  assert read_x(download('inception_v4', str(tmp_path / 'c'))) == 4
  assert not server.requests  # The archive was downloaded before the kill.
  assert files_in(tmp_path / 'c') == ['inception_v4.ckpt']


def test_download_while_another_process_unpacks_gives_one_line_error(
    server, tmp_path, monkeypatch):
  unpack, messages = archives.unpack, []

  def unpack_slowly(*args):
    with monkeypatch.context() as patch:
      patch.setattr(archives, 'unpack', unpack)
      with pytest.raises(InputError, match='another process is downloading the '
                         'checkpoint .*mobilenet_v1_1.0_224.ckpt: ') as caught:
        download('mobilenet_v1', str(tmp_path / 'c'))
      # Another checkpoint of the network may be downloaded meanwhile.
      download('mobilenet_v1_1.0_192', str(tmp_path / 'c'))
    messages.append(str(caught.value))
    return unpack(*args)

  monkeypatch.setattr(archives, 'unpack', unpack_slowly)
  assert read_x(download('mobilenet_v1', str(tmp_path / 'c'))) == 224
  assert len(messages) == 1 and '\n' not in messages[0]
  files = files_in(tmp_path / 'c')
  assert len(files) == 6 and all(name.startswith('mob') for name in files)


def test_download_truncated_data_is_unpacked_again(server, tmp_path):
  folder = tmp_path / 'c'
  prefix = download('mobilenet_v1', str(folder))
  before = sorted(os.listdir(str(folder)))
  data = folder / 'mobilenet_v1_1.0_224.ckpt.data-00000-of-00001'
  os.truncate(str(data), 3)
  # A leftover file that no longer belongs to it.
  (folder / 'mobilenet_v1_1.0_224.ckpt.data-00001-of-00002').write_bytes(b'x')
  assert download('mobilenet_v1', str(folder)) == prefix
  assert read_x(prefix) == 224 and data.stat().st_size == 4
  assert sorted(os.listdir(str(folder))) == before


def test_download_archive_with_truncated_data_is_refused(tmp_path):
  files = make_files(tmp_path, tf.train.SaverDef.V2, 'vgg_16.ckpt')
  files['vgg_16.ckpt.data-00000-of-00001'] = b'abc'
  (tmp_path / 'vgg_16_2016_08_28.tar.gz').write_bytes(
      download_kit.tar_gz(files))
  with pytest.raises(InputError, match='vgg_16.ckpt in .* is damaged'):
    download('vgg_16', str(tmp_path))
  assert os.listdir(str(tmp_path)) == ['vgg_16_2016_08_28.tar.gz']


def test_download_two_checkpoints_of_a_network_in_parallel_links_one(
    server, tmp_path):
  names = ['mobilenet_v1_1.0_192', 'mobilenet_v1_1.0_224']
  prefixes = []

  def download_repeatedly(name):
    for _ in range(40):
      prefixes.append(download(name, str(tmp_path / 'c')))

  for name in names:
    download(name, str(tmp_path / 'c'))
  threads = [threading.Thread(target=download_repeatedly, args=[name])
             for name in names]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert prefixes == [str(tmp_path / 'c' / 'mobilenet_v1.ckpt')] * 80
  links = {os.readlink(str(path)).partition('.ckpt')[0]
           for path in (tmp_path / 'c').glob('mobilenet_v1.ckpt*')}
  assert len(links) == 1 and links < set(names)


def test_program_prints_the_path_and_the_next_step(server, tmp_path, capsys):
  with parsed_flags(download_checkpoint.define_flags,
                    '--checkpoint_dir=%s' % tmp_path):
    download_checkpoint.main(['x', 'mobilenet_v1_1.0_192'])
    with pytest.raises(InputError, match='got 0 names, one is needed'):
      download_checkpoint.main(['x'])
  output = capsys.readouterr().out
  assert output.startswith('%s/mobilenet_v1.ckpt from http://' % tmp_path)
  assert 'MODEL_NAME=mobilenet_v1 CHECKPOINT_PATH=' in output


def test_program_unknown_model_error_lists_the_known_names():
  done = run_program('tools/download_checkpoint.py', 'nope')
  assert done.returncode == 1 and done.stdout == ''
  assert done.stderr.startswith("download_checkpoint.py: error: unknown "
                                "published checkpoint 'nope'; known: ")
  assert done.stderr.count('\n') == 1
  for name in nets_factory.checkpoint_names():
    assert name in done.stderr


def test_script_shows_help_and_downloads_to_the_path_of_env_set(tmp_path):
  script = os.path.join(ROOT, 'scripts', 'download_checkpoint.sh')
  help_run = subprocess.run([script, '--help'], capture_output=True, text=True)
  assert help_run.returncode == 0
  assert 'usage: scripts/download_checkpoint.sh [MODEL]' in help_run.stdout
  assert '--checkpoint_dir' in help_run.stdout
  # It defaults to MODEL_NAME, whose archive is already in the folder.
  (tmp_path / 'vgg_19_2016_08_28.tar.gz').write_bytes(download_kit.tar_gz(
      make_files(tmp_path, tf.train.SaverDef.V1, 'vgg_19.ckpt')))
  env = dict(os.environ, MODEL_NAME='vgg_19')
  done = subprocess.run([script, '--checkpoint_dir=%s' % tmp_path], env=env,
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('%s/vgg_19.ckpt from ' % tmp_path)
  # The default of CHECKPOINT_PATH has the same file name.
  env.pop('CHECKPOINT_PATH', None)
  checkpoint_path = subprocess.run(
      ['bash', '-euc', 'source %s/env_set.sh; echo "$CHECKPOINT_PATH"' % ROOT],
      env=env, capture_output=True, text=True, check=True).stdout.strip()
  with parsed_flags(download_checkpoint.define_flags) as values:
    assert checkpoint_path == os.path.join(values.checkpoint_dir, 'vgg_19.ckpt')


@pytest.mark.parametrize('flags', [['--checkpoint_dir=%s'],
                                   ['--checkpoint_dir', '%s']], ids=str)
def test_script_accepts_a_name_after_the_flags(tmp_path, flags):
  (tmp_path / 'vgg_19_2016_08_28.tar.gz').write_bytes(download_kit.tar_gz(
      make_files(tmp_path, tf.train.SaverDef.V1, 'vgg_19.ckpt')))
  done = subprocess.run(
      [os.path.join(ROOT, 'scripts', 'download_checkpoint.sh')] +
      [word.replace('%s', str(tmp_path)) for word in flags] + ['vgg_19'],
      env=dict(os.environ, MODEL_NAME='vgg_16'), capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('%s/vgg_19.ckpt from ' % tmp_path)
