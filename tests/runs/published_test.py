"""Tests of runs/published.py, download_checkpoint.py and .sh."""

import glob
import os
import subprocess
import threading

import pytest

from common.errors import InputError
from compat import tf
from downloads import archives, fetch
from kits import download_kit
from kits.helpers import ROOT, parsed_flags, run_program
from runs import checkpoints, published
from tools import download_checkpoint

# slim's README of 2018, its table of pre-trained models, and the networks that
# have a row in its nets_factory.
README_NAMES = [
    'inception_v1', 'inception_v2', 'inception_v3', 'inception_v4',
    'inception_resnet_v2', 'resnet_v1_50', 'resnet_v1_101', 'resnet_v1_152',
    'resnet_v2_50', 'resnet_v2_101', 'resnet_v2_152', 'vgg_16', 'vgg_19',
    'mobilenet_v1_1.0_224', 'mobilenet_v1_0.5_160', 'mobilenet_v1_0.25_128',
    'mobilenet_v2_1.4_224', 'mobilenet_v2_1.0_224', 'nasnet-a_mobile',
    'nasnet-a_large', 'pnasnet-5_large', 'pnasnet-5_mobile']


def checkpoint_files(folder, version, name, value=1.0):
  """Returns {file name: bytes} of a checkpoint with one variable `x`."""
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.get_variable('x', [], initializer=tf.constant_initializer(
        value))
    session.run(variable.initializer)
    tf.train.Saver(write_version=version).save(
        session, str(folder / name), write_meta_graph=False, write_state=False)
  found = {os.path.basename(path): open(path, 'rb').read()
           for path in glob.glob(str(folder / name) + '*')}
  for file in found:
    (folder / file).unlink()
  return found


@pytest.fixture
def server(monkeypatch, tmp_path):
  """Serves two V1 and two V2 archives as the published ones are."""
  monkeypatch.setattr(fetch, 'WAITS', (0,) * 3)
  monkeypatch.setenv('no_proxy', '*')
  made = tmp_path / 'made'
  made.mkdir()
  with download_kit.running() as kit:
    for name, version, prefix, value in (
        ('inception_v4', tf.train.SaverDef.V1, '', 4),
        ('inception_resnet_v2', tf.train.SaverDef.V1, '', 2),
        ('mobilenet_v1_1.0_224', tf.train.SaverDef.V2, './', 224),
        ('mobilenet_v1_1.0_192', tf.train.SaverDef.V2, './', 192)):
      row = published.PUBLISHED[name]
      archive = row.url.rpartition('/')[2]
      files = checkpoint_files(made, version, row.checkpoint, value)
      files.update({'eval.graph': b'x', row.checkpoint + '.meta': b'x'})
      kit.files['/' + archive] = download_kit.tar_gz(
          {prefix + file: data for file, data in files.items()})
      monkeypatch.setitem(published.PUBLISHED, name,
                          row._replace(url=kit.url + '/' + archive))
    yield kit


def files_in(folder):
  """Returns the names of the files there, without recorded checksums."""
  return sorted(name for name in os.listdir(str(folder))
                if not name.endswith('.sha256'))


def read_x(prefix):
  return float(checkpoints.open_reader(prefix).get_tensor('x'))


def test_table_has_every_checkpoint_of_slims_readme():
  assert set(README_NAMES) <= set(published.PUBLISHED)


def test_table_addresses_are_distinct_and_whole():
  urls = [row.url for row in published.PUBLISHED.values()]
  assert len(set(urls)) == len(urls)
  for name, row in published.PUBLISHED.items():
    file = row.url.rpartition('/')[2]
    assert row.url.startswith('https://storage.googleapis.com/')
    assert file.startswith(name) and file.endswith(('.tar.gz', '.tgz'))
    assert row.checkpoint.endswith('.ckpt')


def test_find_network_means_its_largest_checkpoint():
  assert published.find('mobilenet_v1')[0] == 'mobilenet_v1_1.0_224'
  assert published.find('mobilenet_v1_025')[0] == 'mobilenet_v1_0.25_224'
  assert published.find('nasnet_mobile')[1].url.endswith(
      '/models/nasnet-a_mobile_04_10_2017.tar.gz')
  assert published.find('inception_v4')[1].url == (
      'https://storage.googleapis.com/download.tensorflow.org/models/'
      'inception_v4_2016_09_09.tar.gz')


def test_download_single_file_checkpoint(server, tmp_path):
  server.behaviours[:] = [{'status': 503}, {'cut': 50}]
  folder = tmp_path / 'new' / 'checkpoints'
  prefix = published.download('inception_v4', str(folder))
  assert prefix == str(folder / 'inception_v4.ckpt')
  assert sorted(os.listdir(str(folder))) == [
      'inception_v4.ckpt', 'inception_v4_2016_09_09.tar.gz.sha256']
  assert read_x(prefix) == 4


def test_download_of_another_checksum_than_before_is_refused(server, tmp_path):
  prefix = published.download('inception_v4', str(tmp_path))
  record = tmp_path / 'inception_v4_2016_09_09.tar.gz.sha256'
  os.remove(prefix)
  archive = '/inception_v4_2016_09_09.tar.gz'
  # Still a sound archive: gzip notes the time of writing.
  data = bytearray(server.files[archive])
  data[4] ^= 1
  server.files[archive] = bytes(data)
  with pytest.raises(InputError) as raised:
    published.download('inception_v4', str(tmp_path))
  assert ('as at its first download; remove %s to accept another file' %
          record) in str(raised.value) and '\n' not in str(raised.value)
  assert files_in(tmp_path) == ['made']
  record.unlink()
  assert read_x(published.download('inception_v4', str(tmp_path))) == 4
  assert record.read_text() == '%s  %s\n' % (
      download_kit.sha256(bytes(data)), archive[1:])


def test_download_other_name_in_the_archive(server, tmp_path):
  prefix = published.download('inception_resnet_v2', str(tmp_path / 'c'))
  assert files_in(tmp_path / 'c') == ['inception_resnet_v2.ckpt']
  assert read_x(prefix) == 2


def test_download_v2_checkpoint_has_the_networks_name_too(server, tmp_path):
  folder = tmp_path / 'c'
  prefix = published.download('mobilenet_v1', str(folder))
  assert prefix == str(folder / 'mobilenet_v1.ckpt')
  files = ['.data-00000-of-00001', '.index']
  assert files_in(folder) == (
      ['mobilenet_v1.ckpt' + file for file in files] +
      ['mobilenet_v1_1.0_224.ckpt' + file for file in files])
  assert read_x(prefix) == 224
  # Another one of the same network takes the name over; both stay.
  assert published.download('mobilenet_v1_1.0_192', str(folder)) == prefix
  assert read_x(prefix) == 192
  assert read_x(str(folder / 'mobilenet_v1_1.0_224.ckpt')) == 224
  # And back, without the network.
  del server.requests[:]
  published.download('mobilenet_v1_1.0_224', str(folder))
  assert read_x(prefix) == 224 and not server.requests


def test_download_leaves_a_file_of_the_user_alone(server, tmp_path):
  own = tmp_path / 'mobilenet_v1.ckpt.index'
  own.write_bytes(b'mine')
  prefix = published.download('mobilenet_v1', str(tmp_path))
  assert prefix == str(tmp_path / 'mobilenet_v1_1.0_224.ckpt')
  assert own.read_bytes() == b'mine' and read_x(prefix) == 224


def test_download_again_needs_no_network(server, tmp_path):
  published.download('inception_v4', str(tmp_path))
  del server.requests[:]
  assert read_x(published.download('inception_v4', str(tmp_path))) == 4
  assert not server.requests


def test_download_archive_of_the_user_is_used_and_kept(tmp_path, monkeypatch):
  data = download_kit.tar_gz(checkpoint_files(
      tmp_path, tf.train.SaverDef.V1, 'vgg_16.ckpt', 16))
  archive = tmp_path / 'vgg_16_2016_08_28.tar.gz'
  archive.write_bytes(data)
  monkeypatch.setattr(fetch.socket, 'getaddrinfo',
                      lambda *_, **__: pytest.fail('asked the network'))
  assert read_x(published.download('vgg_16', str(tmp_path))) == 16
  assert archive.read_bytes() == data


def test_download_checkpoint_of_another_name_is_taken_if_it_is_the_only_one(
    tmp_path):
  (tmp_path / 'vgg_16_2016_08_28.tar.gz').write_bytes(download_kit.tar_gz({
      'deep/' + name: data for name, data in checkpoint_files(
          tmp_path, tf.train.SaverDef.V2, 'renamed', 7).items()}))
  assert read_x(published.download('vgg_16', str(tmp_path))) == 7


@pytest.mark.parametrize('files,message', [
    ({'readme': b''}, 'has no checkpoint vgg_16.ckpt; it has readme'),
    ({'a.ckpt': b'', 'b.ckpt': b''}, 'has no checkpoint vgg_16.ckpt; it has'),
    ({'vgg_16.ckpt': b'rubbish'}, 'vgg_16.ckpt in .* is damaged'),
    ({'vgg_16.ckpt.index': b'rubbish'}, 'vgg_16.ckpt in .* lacks files'),
    ({'/vgg_16.ckpt': b'x'}, 'leaves the folder'),
], ids=['none', 'two', 'damaged', 'half', 'hostile'])
def test_download_archive_that_will_not_do_is_one_line(tmp_path, files,
                                                       message):
  archive = tmp_path / 'vgg_16_2016_08_28.tar.gz'
  archive.write_bytes(download_kit.tar_gz(files))
  with pytest.raises(InputError, match=message) as raised:
    published.download('vgg_16', str(tmp_path))
  assert '\n' not in str(raised.value)
  assert os.listdir(str(tmp_path)) == [archive.name]


def killed(*_):
  raise KeyboardInterrupt


@pytest.mark.parametrize('module,step', [
    (archives, 'unpack'), (published, '_publish'),
    (published.marks, 'remove_downloaded')], ids=str)
def test_download_killed_starts_again_and_leaves_no_archive(
    server, tmp_path, monkeypatch, module, step):
  with monkeypatch.context() as patch:
    patch.setattr(module, step, killed)
    with pytest.raises(KeyboardInterrupt):
      published.download('inception_v4', str(tmp_path / 'c'))
  assert checkpoints.is_checkpoint(str(tmp_path / 'c' / 'inception_v4.ckpt')) \
      == (step == 'remove_downloaded')
  del server.requests[:]
  assert read_x(published.download('inception_v4', str(tmp_path / 'c'))) == 4
  assert not server.requests  # The archive had come already.
  assert files_in(tmp_path / 'c') == ['inception_v4.ckpt']


def test_download_while_another_one_unpacks_is_one_line(server, tmp_path,
                                                        monkeypatch):
  unpack, tried = archives.unpack, []

  def slow(*args):
    with monkeypatch.context() as patch:
      patch.setattr(archives, 'unpack', unpack)
      with pytest.raises(InputError, match='another process is downloading the '
                         'checkpoint .*mobilenet_v1_1.0_224.ckpt: ') as raised:
        published.download('mobilenet_v1', str(tmp_path / 'c'))
      # Another one of the same network may come meanwhile.
      published.download('mobilenet_v1_1.0_192', str(tmp_path / 'c'))
    tried.append(str(raised.value))
    return unpack(*args)

  monkeypatch.setattr(archives, 'unpack', slow)
  assert read_x(published.download('mobilenet_v1', str(tmp_path / 'c'))) == 224
  assert len(tried) == 1 and '\n' not in tried[0]
  files = files_in(tmp_path / 'c')
  assert len(files) == 6 and all(name.startswith('mob') for name in files)


def test_download_data_cut_short_is_unpacked_again(server, tmp_path):
  folder = tmp_path / 'c'
  prefix = published.download('mobilenet_v1', str(folder))
  before = sorted(os.listdir(str(folder)))
  data = folder / 'mobilenet_v1_1.0_224.ckpt.data-00000-of-00001'
  os.truncate(str(data), 3)
  # And a remnant that no longer belongs to it.
  (folder / 'mobilenet_v1_1.0_224.ckpt.data-00001-of-00002').write_bytes(b'x')
  assert published.download('mobilenet_v1', str(folder)) == prefix
  assert read_x(prefix) == 224 and data.stat().st_size == 4
  assert sorted(os.listdir(str(folder))) == before


def test_download_archive_with_data_cut_short_will_not_do(tmp_path):
  files = checkpoint_files(tmp_path, tf.train.SaverDef.V2, 'vgg_16.ckpt')
  files['vgg_16.ckpt.data-00000-of-00001'] = b'abc'
  (tmp_path / 'vgg_16_2016_08_28.tar.gz').write_bytes(
      download_kit.tar_gz(files))
  with pytest.raises(InputError, match='vgg_16.ckpt in .* is damaged'):
    published.download('vgg_16', str(tmp_path))
  assert os.listdir(str(tmp_path)) == ['vgg_16_2016_08_28.tar.gz']


def test_download_two_of_a_network_at_once_link_one_of_them(server, tmp_path):
  names = ['mobilenet_v1_1.0_192', 'mobilenet_v1_1.0_224']
  done = []

  def again(name):
    for _ in range(40):
      done.append(published.download(name, str(tmp_path / 'c')))

  for name in names:
    published.download(name, str(tmp_path / 'c'))
  threads = [threading.Thread(target=again, args=[name]) for name in names]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert done == [str(tmp_path / 'c' / 'mobilenet_v1.ckpt')] * 80
  links = {os.readlink(str(path)).partition('.ckpt')[0]
           for path in (tmp_path / 'c').glob('mobilenet_v1.ckpt*')}
  assert len(links) == 1 and links < set(names)


def test_program_says_where_it_is_and_what_to_do(server, tmp_path, capsys):
  with parsed_flags(download_checkpoint.define_flags,
                    '--checkpoint_dir=%s' % tmp_path):
    download_checkpoint.main(['x', 'mobilenet_v1_1.0_192'])
    with pytest.raises(InputError, match='got 0 names, one is needed'):
      download_checkpoint.main(['x'])
  shown = capsys.readouterr().out
  assert shown.startswith('%s/mobilenet_v1.ckpt from http://' % tmp_path)
  assert 'MODEL_NAME=mobilenet_v1 CHECKPOINT_PATH=' in shown


def test_program_unknown_model_is_one_line_with_the_known():
  done = run_program('tools/download_checkpoint.py', 'nope')
  assert done.returncode == 1 and done.stdout == ''
  assert done.stderr.startswith("download_checkpoint.py: error: unknown "
                                "published checkpoint 'nope'; known: ")
  assert done.stderr.count('\n') == 1
  for name in README_NAMES:
    assert name in done.stderr


def test_script_help_and_env_set_finds_what_it_brings(tmp_path):
  script = os.path.join(ROOT, 'scripts', 'download_checkpoint.sh')
  shown = subprocess.run([script, '--help'], capture_output=True, text=True)
  assert shown.returncode == 0
  assert 'usage: scripts/download_checkpoint.sh [MODEL]' in shown.stdout
  assert '--checkpoint_dir' in shown.stdout
  # MODEL_NAME is what it brings without a name; the archive lies there.
  (tmp_path / 'vgg_19_2016_08_28.tar.gz').write_bytes(download_kit.tar_gz(
      checkpoint_files(tmp_path, tf.train.SaverDef.V1, 'vgg_19.ckpt')))
  env = dict(os.environ, MODEL_NAME='vgg_19')
  done = subprocess.run([script, '--checkpoint_dir=%s' % tmp_path], env=env,
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('%s/vgg_19.ckpt from ' % tmp_path)
  # The same names as the default of CHECKPOINT_PATH.
  env.pop('CHECKPOINT_PATH', None)
  where = subprocess.run(
      ['bash', '-euc', 'source %s/env_set.sh; echo "$CHECKPOINT_PATH"' % ROOT],
      env=env, capture_output=True, text=True, check=True).stdout.strip()
  with parsed_flags(download_checkpoint.define_flags) as values:
    assert where == os.path.join(values.checkpoint_dir, 'vgg_19.ckpt')


@pytest.mark.parametrize('before', [['--checkpoint_dir=%s'],
                                    ['--checkpoint_dir', '%s']], ids=str)
def test_script_takes_a_name_behind_the_flags(tmp_path, before):
  (tmp_path / 'vgg_19_2016_08_28.tar.gz').write_bytes(download_kit.tar_gz(
      checkpoint_files(tmp_path, tf.train.SaverDef.V1, 'vgg_19.ckpt')))
  done = subprocess.run(
      [os.path.join(ROOT, 'scripts', 'download_checkpoint.sh')] +
      [word.replace('%s', str(tmp_path)) for word in before] + ['vgg_19'],
      env=dict(os.environ, MODEL_NAME='vgg_16'), capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('%s/vgg_19.ckpt from ' % tmp_path)
