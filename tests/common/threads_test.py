"""Tests of common/threads.py: order, and errors that end the work."""

import threading
import time

import pytest

from common import threads


def test_map_in_threads_keeps_the_order_and_uses_threads():
  used = set()

  def square(number):
    used.add(threading.get_ident())
    time.sleep(0.002 * (number % 3))
    return number * number

  numbers = list(range(1000))
  assert list(threads.map_in_threads(square, numbers, 'squared')) == [
      number * number for number in numbers]
  assert len(used) > 1 and threading.get_ident() not in used


@pytest.mark.parametrize('error', [ValueError('odd'), SystemExit('killed')])
def test_in_threads_error_ends_the_work(error):
  begun = []

  def work(number):
    begun.append(number)
    raise error

  for run in (lambda: list(threads.map_in_threads(work, range(10000), 'x')),
              lambda: threads.run_in_threads(work, range(10000))):
    with pytest.raises(type(error)):
      run()
    count = len(begun)
    assert count < 5000
    time.sleep(0.05)
    assert len(begun) == count  # No thread runs on.
