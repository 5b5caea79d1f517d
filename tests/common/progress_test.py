"""Tests of common/progress.py: the lines, and the bars on a terminal."""

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
  assert capsys.readouterr().err == 'checked 2 of 2000 photos, 0.1 photos/s\n'


@pytest.mark.parametrize('total, state', [(8000000, 'x.tgz: 75 % of 8.0 MB'),
                                          (None, 'x.tgz: 6.0 MB')])
def test_progress_in_bytes_excludes_earlier_ones_from_the_speed(
    capsys, total, state):
  with progress.Progress('x.tgz', total, in_bytes=True, done=2000000) as bar:
    _pass_time(bar, 20)
    bar.add(4000000)
    assert capsys.readouterr().err == state + ', 0.2 MB/s\n'
  # The last line gives the final state.
  assert capsys.readouterr().err == state + ', 0.2 MB/s\n'


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
