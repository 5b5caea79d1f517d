"""Tests of common/files.py: files are written completely or not at all."""

import concurrent.futures
import hashlib
import os
import signal
import subprocess
import sys
import zipfile

import pytest

from common import files
from common.errors import InputError
from kits.helpers import ROOT


def _raise_disk_full(_):
  raise OSError(28, 'No space left on device')


def _names(folder):
  return sorted(os.listdir(str(folder)))


def test_replacing_keeps_the_old_file_until_the_block_ends(tmp_path):
  path = tmp_path / 'a'
  path.write_bytes(b'old')
  with files.replacing(str(path)) as part:
    part.write(b'new')
    part.flush()
    assert path.read_bytes() == b'old' and _names(tmp_path) == ['a', 'a.part']
  assert path.read_bytes() == b'new' and _names(tmp_path) == ['a']


@pytest.mark.parametrize('error', [KeyError('x'), KeyboardInterrupt()])
def test_replacing_after_an_error_keeps_the_old_file(tmp_path, error):
  path = tmp_path / 'a'
  path.write_bytes(b'old')
  with pytest.raises(type(error)), files.replacing(str(path)) as part:
    part.write(b'half')
    raise error
  assert path.read_bytes() == b'old' and _names(tmp_path) == ['a']


def test_replacing_supports_seeking_back_for_zip_files(tmp_path):
  path = str(tmp_path / 'a.zip')
  with files.replacing(path) as part, zipfile.ZipFile(part, 'w') as archive:
    with archive.open('x', 'w') as member:  # Its size is written afterwards.
      member.write(b'content')
  with zipfile.ZipFile(path) as archive:
    assert archive.testzip() is None and archive.read('x') == b'content'


def test_replacing_accepts_content_written_by_file_name(tmp_path):
  path = tmp_path / 'a'
  (tmp_path / 'a.part').write_bytes(b'left by a killed process')
  with files.replacing(str(path)) as part, open(part.name, 'wb') as other:
    other.write(b'content')
  assert path.read_bytes() == b'content' and _names(tmp_path) == ['a']


def test_replacing_waits_for_another_process_and_takes_over_if_it_dies(
    tmp_path):
  path = str(tmp_path / 'a')
  process = subprocess.Popen(
      [sys.executable, '-c', 'import sys, time; from common import files\n'
       'with files.replacing(sys.argv[1]) as part:\n'
       '  part.write(b"x" * 100)\n  part.flush()\n  print(flush=True)\n'
       '  time.sleep(99)', path], cwd=ROOT, stdout=subprocess.PIPE)
  process.stdout.readline()
  with concurrent.futures.ThreadPoolExecutor() as executor:
    future = executor.submit(files.write_bytes, path, b'mine')
    with pytest.raises(concurrent.futures.TimeoutError):
      future.result(timeout=0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    future.result(timeout=20)
  assert (tmp_path / 'a').read_bytes() == b'mine' and _names(tmp_path) == ['a']


def test_replacing_on_a_full_disk_names_the_file(tmp_path, monkeypatch):
  path = str(tmp_path / 'a')
  monkeypatch.setattr(os, 'fsync', _raise_disk_full)
  with pytest.raises(OSError, match='No space left') as caught:
    files.write_bytes(path, b'x')
  assert caught.value.filename == path and _names(tmp_path) == []


def test_replacing_in_a_missing_folder_names_the_file(tmp_path):
  path = str(tmp_path / 'nowhere' / 'a')
  with pytest.raises(FileNotFoundError) as caught:
    files.write_bytes(path, b'x')
  assert caught.value.filename == path


def test_replacing_error_about_another_file_keeps_its_name(tmp_path):
  with pytest.raises(FileNotFoundError) as caught:
    with files.replacing(str(tmp_path / 'a')):
      files.sha256_of(str(tmp_path / 'b'))
  assert caught.value.filename == str(tmp_path / 'b')


def test_write_text_failure_leaves_no_temporary_file(tmp_path, monkeypatch):
  path = tmp_path / 'labels.txt'
  files.write_text(str(path), 'old\n')
  monkeypatch.setattr(os, 'fsync', _raise_disk_full)
  with pytest.raises(OSError, match='No space left'):
    files.write_text(str(path), 'new\n')
  assert _names(tmp_path) == ['labels.txt']
  assert path.read_text() == 'old\n'


def test_write_text_replaces_the_leftover_of_a_killed_process(tmp_path):
  (tmp_path / 'labels.txt.part').write_text('much longer than the text\n')
  files.write_text(str(tmp_path / 'labels.txt'), 'short \u849c\n')
  assert _names(tmp_path) == ['labels.txt']
  assert (tmp_path / 'labels.txt').read_bytes() == b'short \xe8\x92\x9c\n'


def test_write_text_from_many_threads_leaves_one_whole_text(tmp_path):
  path = str(tmp_path / 'labels.txt')
  texts = [('%d' % number) * 5000 * number for number in range(1, 9)]
  with concurrent.futures.ThreadPoolExecutor(8) as executor:
    list(executor.map(lambda text: files.write_text(path, text), texts * 20))
  assert _names(tmp_path) == ['labels.txt']
  assert (tmp_path / 'labels.txt').read_text() in texts


def test_write_output_creates_the_folder(tmp_path):
  files.write_output(str(tmp_path / 'new' / 'folder' / 'a'), b'\xff')
  assert (tmp_path / 'new' / 'folder' / 'a').read_bytes() == b'\xff'
  assert _names(tmp_path / 'new' / 'folder') == ['a']


@pytest.mark.parametrize('name, reason', [
    ('file/a', 'Not a directory|File exists'), ('folder', 'Is a directory')])
def test_write_output_unwritable_path_is_an_input_error(tmp_path, name, reason):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  path = str(tmp_path / name)
  with pytest.raises(InputError, match='^cannot write %s: (%s)$' % (path,
                                                                    reason)):
    files.write_output(path, b'x')
  assert _names(tmp_path) == ['file', 'folder']


def test_read_missing_file_error_names_its_kind_and_path(tmp_path):
  (tmp_path / 'a').write_bytes(b'x')
  assert files.read(str(tmp_path / 'a'), 'photo --image') == b'x'
  with pytest.raises(InputError, match="^cannot read the photo --image '.*/b': "
                                       'No such file or directory$'):
    files.read(str(tmp_path / 'b'), 'photo --image')


@pytest.mark.parametrize('size', [0, 3, 2 ** 20 + 1])
def test_sha256_of_covers_all_bytes(tmp_path, size):
  data = bytes(range(251)) * (size // 251 + 1)
  (tmp_path / 'a').write_bytes(data[:size])
  assert files.sha256_of(str(tmp_path / 'a')) == hashlib.sha256(
      data[:size]).hexdigest()
