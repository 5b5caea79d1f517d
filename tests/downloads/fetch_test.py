"""Tests of downloads/fetch.py against a local server that misbehaves."""

import contextlib
import gzip
import io
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from common import locks
from common.errors import InputError
from downloads import archives, fetch
from kits import download_kit
from kits.helpers import ROOT

CONTENT = random.Random(0).getrandbits(8 * 300000).to_bytes(300000, 'big')
NAME = 'x.bin'
WRITTEN = [NAME, NAME + '.downloaded', NAME + '.sha256']


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
  monkeypatch.setattr(fetch, 'WAITS', (0,) * 3)
  for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY',
               'all_proxy', 'ALL_PROXY'):
    monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
  with download_kit.running() as kit:
    kit.files['/' + NAME] = CONTENT
    yield kit


def get(server, tmp_path, *behaviours, **options):
  """Downloads from a server with the given misbehaviours; returns the path."""
  server.behaviours[:] = behaviours
  path = tmp_path / NAME
  assert fetch.fetch([server.url + '/' + NAME], str(path), **options)
  return path


def ranges(server):
  return [headers.get('Range') for _, headers in server.requests]


def test_fetch_writes_the_file_and_nothing_else(server, tmp_path, capfd):
  path = get(server, tmp_path / 'new' / 'folder', size=len(CONTENT))
  assert path.read_bytes() == CONTENT
  assert sorted(os.listdir(str(path.parent))) == WRITTEN
  lines = capfd.readouterr().err.splitlines()
  assert lines[0] == 'Downloading %s/%s' % (server.url, NAME)
  assert lines[1].startswith('x.bin: 100 % of 0.3 MB, ')
  assert lines[1].endswith(' MB/s')


def test_fetch_existing_file_needs_no_network(tmp_path):
  (tmp_path / NAME).write_bytes(b'mine')
  assert not fetch.fetch(['http://127.0.0.1:1/x'], str(tmp_path / NAME),
                         size=9, check=lambda path: None)
  assert (tmp_path / NAME).read_bytes() == b'mine'


def test_fetch_damaged_existing_file_is_named_in_the_error_and_kept(tmp_path):
  (tmp_path / NAME).write_bytes(b'mine')
  with pytest.raises(InputError, match='x.bin is damaged.*remove the file'):
    fetch.fetch(['http://127.0.0.1:1/x'], str(tmp_path / NAME),
                check=archives.check_gzip)
  assert (tmp_path / NAME).read_bytes() == b'mine'


def test_fetch_folder_in_place_of_the_file_is_an_error(tmp_path):
  with pytest.raises(InputError, match='is in the way'):
    fetch.fetch(['http://127.0.0.1:1/x'], str(tmp_path))


def test_fetch_cut_connections_are_resumed_where_they_ended(server, tmp_path):
  path = get(server, tmp_path, {'cut': 100000}, {'cut': 50000}, {'cut': 1},
             {'cut': 70000})
  assert path.read_bytes() == CONTENT
  assert ranges(server) == [None, 'bytes=100000-', 'bytes=150000-',
                            'bytes=150001-', 'bytes=220001-']
  assert sorted(os.listdir(str(tmp_path))) == WRITTEN


def test_fetch_with_many_cuts_continues_as_long_as_bytes_arrive(
    server, tmp_path):
  # More cuts than tries, but each request received something.
  path = get(server, tmp_path, *[{'cut': 20000}] * 12)
  assert path.read_bytes() == CONTENT
  assert len(server.requests) == 13


def test_fetch_is_resumed_by_a_later_run(server, tmp_path):
  with pytest.raises(InputError, match='connection cut after 1000 of 300000'):
    get(server, tmp_path, {'cut': 1000}, *[{'cut': 0}] * 10)
  assert (tmp_path / (NAME + '.part')).read_bytes() == CONTENT[:1000]
  del server.requests[:]
  assert get(server, tmp_path).read_bytes() == CONTENT
  assert ranges(server) == ['bytes=1000-']


def test_fetch_complete_part_file_needs_no_request(server, tmp_path):
  # As if the first run was killed between the last byte and the rename.
  path = get(server, tmp_path)
  with pytest.raises(InputError):
    get(server, tmp_path / '2', *[{'cut': 5}] + [{'cut': 0}] * 10)
  os.replace(str(path), str(tmp_path / '2' / (NAME + '.part')))
  del server.requests[:]
  assert get(server, tmp_path / '2').read_bytes() == CONTENT
  assert not server.requests


def test_fetch_server_that_ignores_range_starts_from_the_beginning(server,
                                                                   tmp_path):
  path = get(server, tmp_path, {'cut': 100000}, {'ignore_range': True})
  assert path.read_bytes() == CONTENT


def test_fetch_server_that_ignores_range_and_always_cuts_is_an_error(
    server, tmp_path):
  with pytest.raises(InputError, match='connection cut after 9000 of 300000'):
    get(server, tmp_path, *[{'cut': 9000, 'ignore_range': True}] * 99)
  assert len(server.requests) == 1 + len(fetch.WAITS)


DATE = {'Last-Modified': 'yesterday'}


@pytest.mark.parametrize('validators,second', [
    ({}, {}),  # The server compares If-Range, and sends the whole file.
    # Servers that ignore If-Range, or send wrong headers.
    (DATE, {'validators': dict(DATE, ETag='"other"')}),
    (DATE, {'validators': DATE, 'content_range': 'bytes 7-299999/300000'}),
    (DATE, {'validators': DATE, 'content_range': 'bytes 5000-299999/299999'}),
    (DATE, {'validators': DATE, 'content_range': 'nonsense'}),
], ids=['content', 'version', 'place', 'length', 'header'])
def test_fetch_file_that_changed_between_requests_is_not_mixed(
    server, tmp_path, validators, second):
  new = server.files['/' + NAME] = CONTENT[::-1]
  first = {'cut': 5000, 'body': CONTENT}
  if validators:
    first['validators'] = validators
  path = get(server, tmp_path, first, second)
  assert ranges(server)[1] == 'bytes=5000-'
  assert path.read_bytes() == new


@pytest.mark.parametrize('validators,if_range', [
    ({'ETag': '"strong"'}, '"strong"'),
    ({'ETag': 'W/"weak"', 'Last-Modified': 'a day'}, 'a day'),
    ({}, None)])  # Only the length can be compared.
def test_fetch_resumed_asks_for_the_same_version(
    server, tmp_path, validators, if_range):
  path = get(server, tmp_path, {'cut': 5000, 'validators': validators},
             {'validators': validators})
  assert path.read_bytes() == CONTENT
  assert server.requests[1][1].get('If-Range') == if_range
  assert ranges(server) == [None, 'bytes=5000-']


def test_fetch_without_length_or_version_is_not_resumed(server, tmp_path):
  gzipped = gzip.compress(CONTENT)
  unversioned = {'validators': {}, 'length': None, 'body': gzipped}
  path = get(server, tmp_path, dict(unversioned, cut=5000), unversioned,
             check=archives.check_gzip)
  assert path.read_bytes() == gzipped
  assert ranges(server) == [None, None]


@pytest.mark.parametrize('status', [500, 503, 429])
def test_fetch_busy_server_is_tried_again(server, tmp_path, status):
  path = get(server, tmp_path, {'status': status}, {'status': status})
  assert path.read_bytes() == CONTENT


def test_fetch_waits_as_long_as_the_server_asks(server, tmp_path, capfd):
  slept = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fetch.time, 'sleep', slept.append)
    get(server, tmp_path, {'status': 503, 'headers': {'Retry-After': '7'}},
        {'status': 503, 'headers': {'Retry-After': '999999'}})
  assert slept == [7, 120]
  assert 'HTTP 503 Service Unavailable; trying again in 7 s' in (
      capfd.readouterr().err)


def test_fetch_server_that_stays_busy_is_an_error(server, tmp_path):
  with pytest.raises(InputError, match='HTTP 503'):
    get(server, tmp_path, *[{'status': 503}] * 99)
  assert len(server.requests) == 1 + len(fetch.WAITS)
  assert os.listdir(str(tmp_path)) == []


def test_fetch_missing_file_is_requested_once(server, tmp_path):
  path = tmp_path / 'gone.tgz'
  with pytest.raises(InputError) as caught:
    fetch.fetch([server.url + '/gone.tgz'], str(path))
  message = str(caught.value)
  assert '%s/gone.tgz: HTTP 404 Not Found' % server.url in message
  assert 'put it at %s' % path in message and '\n' not in message
  assert len(server.requests) == 1
  assert os.listdir(str(tmp_path)) == []


def test_fetch_second_address_is_used_if_the_first_fails(server, tmp_path):
  path = tmp_path / NAME
  assert fetch.fetch([server.url + '/gone', server.url + '/' + NAME], str(path))
  assert path.read_bytes() == CONTENT


def two_addresses(server):
  """Returns two addresses of the file; the first fails after 200,000 bytes."""
  server.files['/mirror/' + NAME] = CONTENT
  server.behaviours[:] = [{'cut': 200000}, {'status': 404}]
  return [server.url + '/' + NAME, server.url + '/mirror/' + NAME]


def test_fetch_second_address_resumes_where_the_first_failed(server, tmp_path):
  urls = two_addresses(server)
  assert fetch.fetch(urls, str(tmp_path / NAME))
  assert (tmp_path / NAME).read_bytes() == CONTENT
  assert ranges(server) == [None, 'bytes=200000-', 'bytes=200000-']
  assert sorted(os.listdir(str(tmp_path))) == WRITTEN


def test_fetch_second_address_of_another_version_is_not_mixed(server, tmp_path):
  urls = two_addresses(server)
  new = server.files['/mirror/' + NAME] = CONTENT[::-1]
  # It starts from the beginning, and more cuts than tries are not a failure.
  server.behaviours += [{'cut': 20000}] * 9
  assert fetch.fetch(urls, str(tmp_path / NAME))
  assert (tmp_path / NAME).read_bytes() == new


@pytest.mark.parametrize('second', [
    {'status': 404}, {'status': 503}, {'cut': 0, 'ignore_range': True},
    {'body': b'<html>log in', 'ignore_range': True}], ids=str)
def test_fetch_second_address_that_fails_keeps_the_part_of_the_first(
    server, tmp_path, second):
  urls = two_addresses(server)
  server.behaviours += [second] * 9
  with pytest.raises(InputError, match='cannot download'):
    fetch.fetch(urls, str(tmp_path / NAME), size=len(CONTENT))
  part = tmp_path / (NAME + '.part')
  assert part.read_bytes() == CONTENT[:200000]
  del server.requests[:], server.behaviours[:]
  assert fetch.fetch(urls, str(tmp_path / NAME), size=len(CONTENT))
  assert (tmp_path / NAME).read_bytes() == CONTENT
  assert ranges(server) == ['bytes=200000-']


@contextlib.contextmanager
def full_disk(size):
  """Limits files to `size` bytes: a write stores only what fits."""
  former = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_fetch_full_disk_gives_one_line_error_and_is_resumed_later(
    server, tmp_path):
  checked = []
  part = tmp_path / (NAME + '.part')
  with full_disk(150000), pytest.raises(InputError) as caught:
    get(server, tmp_path, check=checked.append)
  assert re.fullmatch('cannot write %s: File too large; the received '
                      'part is kept, run this again to continue' % part,
                      str(caught.value))
  assert part.read_bytes() == CONTENT[:150000]
  assert len(server.requests) == 1 and not checked
  assert get(server, tmp_path, check=checked.append).read_bytes() == CONTENT
  assert ranges(server)[1] == 'bytes=150000-'
  assert checked == [str(part)]


def test_fetch_short_writes_lose_nothing(server, tmp_path, monkeypatch):
  class ShortWrites(io.FileIO):
    def write(self, data):
      return super().write(bytes(data)[:1000])

  monkeypatch.setattr(fetch, 'open', lambda path, mode='r', **_: (
      ShortWrites(path, 'a') if mode == 'ab' else open(path, mode)),
                      raising=False)
  assert get(server, tmp_path).read_bytes() == CONTENT


def test_fetch_without_network_names_all_addresses_and_the_path(
    tmp_path, monkeypatch):
  def fail_lookup(*_, **__):
    raise fetch.socket.gaierror(-3, 'Temporary failure in name resolution')

  monkeypatch.setattr(fetch.socket, 'getaddrinfo', fail_lookup)
  monkeypatch.setattr(fetch.time, 'sleep', lambda _: pytest.fail('waited'))
  with pytest.raises(InputError) as caught:
    fetch.fetch(['http://a.invalid/x', 'http://b.invalid/x'],
                str(tmp_path / NAME))
  message = str(caught.value)
  assert 'http://a.invalid/x: Temporary failure in name resolution' in message
  assert 'http://b.invalid/x' in message
  assert 'put it at %s' % (tmp_path / NAME) in message


def test_fetch_refused_connection_is_tried_again(tmp_path, capfd):
  with pytest.raises(InputError, match='Connection refused'):
    fetch.fetch(['http://127.0.0.1:1/x'], str(tmp_path / NAME))
  assert capfd.readouterr().err.count('trying again') == len(fetch.WAITS)


@pytest.mark.parametrize('url', ['nonsense', 'gopher://x/y'])
def test_fetch_invalid_address_is_an_error(tmp_path, url):
  with pytest.raises(InputError, match='cannot download x.bin'):
    fetch.fetch([url], str(tmp_path / NAME))


def test_fetch_other_size_than_expected_is_refused(server, tmp_path):
  with pytest.raises(InputError,
                     match='it offers 300000 bytes, but 300001 are expected'):
    get(server, tmp_path, size=300001)
  assert os.listdir(str(tmp_path)) == []


def test_fetch_known_size_reveals_a_cut_without_content_length(
    server, tmp_path):
  hidden = {'length': None, 'cut': 5000}
  path = get(server, tmp_path, hidden, size=len(CONTENT))
  assert path.read_bytes() == CONTENT


def test_fetch_damaged_transfer_is_repeated_once(server, tmp_path):
  gzipped = gzip.compress(CONTENT)
  broken = gzipped[:1000] + b'!' + gzipped[1001:]
  path = get(server, tmp_path, {'body': broken}, {'body': gzipped},
             check=archives.check_gzip)
  assert path.read_bytes() == gzipped
  with pytest.raises(InputError, match='not a gzip archive'):
    get(server, tmp_path / '2', *[{'body': b'<html>log in'}] * 9,
        check=archives.check_gzip)
  assert os.listdir(str(tmp_path / '2')) == []


def test_fetch_known_checksum_is_required_of_every_address(server, tmp_path):
  server.files['/other'] = CONTENT[:-1] + b'!'
  sha256 = download_kit.sha256(CONTENT)
  path = tmp_path / NAME
  assert fetch.fetch([server.url + '/other', server.url + '/' + NAME],
                     str(path), sha256=sha256)
  assert path.read_bytes() == CONTENT
  # The caller knows the checksum, so it is not recorded.
  assert sorted(os.listdir(str(tmp_path))) == [NAME, NAME + '.downloaded']
  with pytest.raises(InputError, match='the SHA-256 of x.bin is %s, expected '
                     '%s[)]' % (sha256, '0' * 64)):
    get(server, tmp_path / '2', sha256='0' * 64)
  assert os.listdir(str(tmp_path / '2')) == []


def test_fetch_checksum_of_the_first_download_is_recorded(server, tmp_path):
  path = get(server, tmp_path)
  record = tmp_path / (NAME + '.sha256')
  assert record.read_text() == '%s  %s\n' % (download_kit.sha256(CONTENT), NAME)
  path.unlink()
  get(server, tmp_path)
  path.unlink()
  server.files['/' + NAME] = CONTENT[:-1] + b'!'
  with pytest.raises(InputError, match='remove .*x.bin.sha256 to accept'):
    get(server, tmp_path)
  assert not path.exists()
  record.write_text('half a li')  # As a killed process leaves it.
  get(server, tmp_path)
  assert record.read_text().startswith(download_kit.sha256(
      server.files['/' + NAME]))


def test_fetch_checksum_record_that_cannot_be_read_is_an_error(
    server, tmp_path):
  (tmp_path / (NAME + '.sha256')).mkdir()
  with pytest.raises(InputError, match='cannot read .*x.bin.sha256: '):
    get(server, tmp_path)


def test_fetch_uses_the_proxy_of_the_environment(server, tmp_path, monkeypatch):
  monkeypatch.setenv('http_proxy', server.url)
  monkeypatch.delenv('no_proxy', raising=False)
  path = tmp_path / NAME
  assert fetch.fetch(['http://far.invalid/x.bin'], str(path))
  assert path.read_bytes() == CONTENT
  assert server.requests[0][0] == 'http://far.invalid/x.bin'


def test_fetch_ctrl_c_leaves_a_part_that_is_resumed(server, tmp_path):
  server.behaviours[:] = [{'pause': 0.02}]  # 6 s in all.
  path = tmp_path / NAME
  program = subprocess.Popen(
      [sys.executable, '-c', 'import sys; from downloads import fetch\n'
       'fetch.fetch(sys.argv[1:2], sys.argv[2])',
       server.url + '/' + NAME, str(path)], cwd=ROOT,
      stderr=subprocess.DEVNULL,
      # Processes that the shell starts in the background ignore Ctrl-C.
      preexec_fn=lambda: signal.signal(signal.SIGINT,
                                       signal.default_int_handler))
  part = tmp_path / (NAME + '.part')
  end = time.time() + 20
  while not (part.exists() and part.stat().st_size):
    assert time.time() < end
    time.sleep(0.01)
  # Meanwhile another run is refused.
  with pytest.raises(InputError, match='another process is downloading'):
    get(server, tmp_path)
  program.send_signal(signal.SIGINT)
  assert program.wait(timeout=20) != 0
  part_size = part.stat().st_size
  assert 0 < part_size < len(CONTENT)
  assert get(server, tmp_path).read_bytes() == CONTENT
  assert ranges(server)[-1] == 'bytes=%d-' % part_size


def test_fetch_folder_that_cannot_be_written_is_an_error(server, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write .*file/x.bin.part'):
    get(server, tmp_path / 'file')


def test_fetch_just_after_another_process_finished_succeeds(
    server, tmp_path, monkeypatch):
  """The other process moves its part file after we open, before we lock it."""
  flock = locks.fcntl.flock
  path, part = tmp_path / NAME, tmp_path / (NAME + '.part')

  def move_then_lock(opened, operation):
    if part.exists() and not path.exists():
      os.replace(str(part), str(path))
      path.write_bytes(b'from the other process')
    flock(opened, operation)

  monkeypatch.setattr(locks.fcntl, 'flock', move_then_lock)
  assert not fetch.fetch([server.url + '/' + NAME], str(path))
  assert path.read_bytes() == b'from the other process'
  assert os.listdir(str(tmp_path)) == [NAME] and not server.requests
