"""Tests of common/progress.py: work in threads, order, errors and output."""

import threading
import time

import pytest

from common import progress


def test_map_in_threads_keeps_the_order_and_uses_threads():
  threads = set()

  def square(number):
    threads.add(threading.get_ident())
    time.sleep(0.002 * (number % 3))
    return number * number

  numbers = list(range(1000))
  assert list(progress.map_in_threads(square, numbers, 'squared')) == [
      number * number for number in numbers]
  assert len(threads) > 1 and threading.get_ident() not in threads


@pytest.mark.parametrize('error', [ValueError('odd'), SystemExit('killed')])
def test_in_threads_error_ends_the_work(error):
  begun = []

  def work(number):
    begun.append(number)
    raise error

  for run in (lambda: list(progress.map_in_threads(work, range(10000), 'x')),
              lambda: progress.run_in_threads(work, range(10000))):
    with pytest.raises(type(error)):
      run()
    count = len(begun)
    assert count < 5000
    time.sleep(0.05)
    assert len(begun) == count  # No thread runs on.


def test_progress_without_terminal_prints_a_line_now_and_then(
    capsys, monkeypatch):
  with progress.Progress('checked', 2000) as shown:
    shown.add()
    assert capsys.readouterr().err == ''
    shown._last -= 11
    shown._start -= 10
    shown.add()
  line = capsys.readouterr().err
  assert line.startswith('checked 2 of 2000 photos, ')
  assert line.endswith(' photos/s\n') and line.count('\n') == 1


def test_progress_on_a_terminal_shows_photos_a_second(capsys, monkeypatch):
  monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True,
                      raising=False)
  with progress.Progress('written', 3) as shown:
    for _ in range(3):
      time.sleep(0.06)
      shown.add()
  assert 'written' in capsys.readouterr().err.split('\r')[-1]
