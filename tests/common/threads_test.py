"""Tests of common/threads.py: order, and errors that stop the work."""

import threading
import time

import pytest

from common import threads


def test_map_in_threads_keeps_order_and_uses_several_threads():
  thread_ids = set()

  def square(number):
    thread_ids.add(threading.get_ident())
    time.sleep(0.002 * (number % 3))
    return number * number

  numbers = list(range(1000))
  assert list(threads.map_in_threads(square, numbers, 'squared')) == [
      number * number for number in numbers]
  assert len(thread_ids) > 1 and threading.get_ident() not in thread_ids


@pytest.mark.parametrize('error', [ValueError('odd'), SystemExit('killed')])
def test_threads_error_stops_the_remaining_work(error):
  started = []

  def work(number):
    started.append(number)
    raise error

  for run in (lambda: list(threads.map_in_threads(work, range(10000), 'x')),
              lambda: threads.run_in_threads(work, range(10000))):
    with pytest.raises(type(error)):
      run()
    count = len(started)
    assert count < 5000
    time.sleep(0.05)
    assert len(started) == count  # No thread is still running.
