"""Tests of common/progress.py: the lines, and the bars on a terminal."""

import fcntl
import logging
import os
import pty
import select
import struct
import termios
import time

import pytest

from common import progress


def _pass_time(bar, seconds):
  """Moves the start and the last printed line `seconds` into the past."""
  bar._last -= seconds
  bar._start -= seconds


def test_progress_without_terminal_prints_occasional_lines(capsys):
  with progress.Progress('checked', 2000) as bar:
    bar.add()
    assert capsys.readouterr().err == ''
    _pass_time(bar, 20)
    bar.add()
    bar.add()
    line = capsys.readouterr().err
  assert line == 'checked: 2 of 2000 photos, 0.1 photos/s, 5:33:00 left\n'
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('total, state', [
    (8000000, 'x.tgz: 75 % of 8.0 MB, 0.2 MB/s, 00:10 left'),
    (None, 'x.tgz: 6.0 MB, 0.2 MB/s')])
def test_progress_in_bytes_excludes_earlier_ones_from_the_speed(
    capsys, total, state):
  with progress.Progress('x.tgz', total, in_bytes=True, done=2000000) as bar:
    _pass_time(bar, 20)
    bar.add(4000000)
    assert capsys.readouterr().err == state + '\n'
  # The last line gives the final state.
  assert capsys.readouterr().err == state + '\n'


@pytest.mark.parametrize('options, texts', [
    ({'total': 3}, ['written', '3/3', ' photos/s']),
    ({'total': 2003000, 'in_bytes': True, 'done': 2000000},
     ['written', '2.00M/2.00M', 'B/s'])])
def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch, options, texts):
  monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True,
                      raising=False)
  with progress.Progress('written', **options) as bar:
    for _ in range(3):
      time.sleep(0.06)
      bar.add(1000 if 'done' in options else 1)
  last_line = capsys.readouterr().err.split('\r')[-1]
  assert [text for text in texts if text not in last_line] == []


def test_progress_lines_become_rare_in_long_work(capsys):
  with progress.Progress('checked', 2000) as bar:
    _pass_time(bar, 20)
    bar._start -= 980
    bar.add()
  assert capsys.readouterr().err == ''


def test_progress_total_can_change_and_be_unknown(capsys):
  with progress.Progress('trained', None) as bar:
    _pass_time(bar, 20)
    bar.add(10)
    _pass_time(bar, 20)
    bar.add(10, total=40)
  assert capsys.readouterr().err == (
      'trained: 10 photos, 0.5 photos/s\n'
      'trained: 20 of 40 photos, 0.5 photos/s, 00:40 left\n')


def test_progress_of_logged_work_has_no_lines_without_terminal(capsys):
  with progress.Progress('trained', 9, is_logged=True) as bar:
    _pass_time(bar, 20)
    bar.add()
  assert capsys.readouterr().err == ''


def test_progress_uses_the_file_descriptor_of_the_environment(
    capsys, monkeypatch):
  reader, writer = os.pipe()
  monkeypatch.setenv('PROGRESS_FD', str(writer))
  with progress.Progress('trained', 9, is_logged=True) as bar:
    _pass_time(bar, 20)
    bar.add()
    assert os.read(reader, 100).startswith(b'trained: 1 of 9 photos, ')
    os.close(reader)  # Does not end the work.
    _pass_time(bar, 20)
    bar.add()
  os.close(writer)
  with progress.Progress('trained', 9) as bar:  # It is not open any more.
    _pass_time(bar, 20)
    bar.add()
  assert capsys.readouterr().err.startswith('trained: 1 of 9 photos, ')


def test_progress_bar_on_another_terminal_is_removed_at_the_end(
    capsys, monkeypatch):
  reader, writer = pty.openpty()
  fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
  monkeypatch.setenv('PROGRESS_FD', str(writer))
  with progress.Progress('written', 3) as bar:
    for _ in range(3):
      time.sleep(0.12)
      bar.add()
  shown = b''
  while select.select([reader], [], [], 0.5)[0]:
    shown += os.read(reader, 10000)
  shown = shown.decode().split('\r')
  assert 'photos/s, 00:00 left' in ''.join(shown)
  assert not shown[-1].strip() and not shown[-2].strip()
  assert capsys.readouterr().err == ''
  os.close(writer)
  os.close(reader)


def test_log_lines_are_written_above_the_bar(capsys, monkeypatch):
  monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True,
                      raising=False)
  handler = logging.StreamHandler(progress.sys.stderr)
  logger = logging.getLogger('tensorflow')
  monkeypatch.setattr(logger, 'handlers', [handler])
  with progress.Progress('trained', 3):
    logger.warning('global step 10')
  # The bar is removed, and drawn again on the next line.
  assert '\rglobal step 10\n\rtrained:' in capsys.readouterr().err
  assert logger.handlers == [handler]
