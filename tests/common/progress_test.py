"""Tests of common/progress.py: the lines, and the bars on a terminal."""

import time

import pytest

from common import progress


def _later(shown, seconds):
  """Makes it so many seconds since the start and the last line."""
  shown._last -= seconds
  shown._start -= seconds


def test_progress_without_terminal_prints_a_line_now_and_then(capsys):
  with progress.Progress('checked', 2000) as shown:
    shown.add()
    assert capsys.readouterr().err == ''
    _later(shown, 20)
    shown.add()
    shown.add()
  assert capsys.readouterr().err == 'checked 2 of 2000 photos, 0.1 photos/s\n'


@pytest.mark.parametrize('total, state', [(8000000, 'x.tgz: 75 % of 8.0 MB'),
                                          (None, 'x.tgz: 6.0 MB')])
def test_progress_in_bytes_does_not_count_the_earlier_ones_as_speed(
    capsys, total, state):
  with progress.Progress('x.tgz', total, in_bytes=True, done=2000000) as shown:
    _later(shown, 20)
    shown.add(4000000)
    assert capsys.readouterr().err == state + ', 0.2 MB/s\n'
  # A last line says how it ended.
  assert capsys.readouterr().err == state + ', 0.2 MB/s\n'


@pytest.mark.parametrize('options, found', [
    ({'total': 3}, ['written', '3/3', ' photos/s']),
    ({'total': 2003000, 'in_bytes': True, 'done': 2000000},
     ['written', '2.00M/2.00M', 'B/s'])])
def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch, options, found):
  monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True,
                      raising=False)
  with progress.Progress('written', **options) as shown:
    for _ in range(3):
      time.sleep(0.06)
      shown.add(1000 if 'done' in options else 1)
  last = capsys.readouterr().err.split('\r')[-1]
  assert [text for text in found if text not in last] == []
