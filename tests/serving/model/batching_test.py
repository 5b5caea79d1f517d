"""Tests of batching.py: batches of photos from several threads."""

import gc
import threading
import time
import weakref

import pytest

from common.errors import InputError
from serving.model import batching
from serving.model.batching import Batcher, Busy, SessionFailed, ShuttingDown
from serving.model.deadlines import ClientDisconnected, Deadline, TimedOut


class Session:
  """Doubles numbers, each call noted; can be held up and made to fail."""

  def __init__(self):
    self.batches = []
    self.open = threading.Event()
    self.open.set()
    self.entered = threading.Semaphore(0)
    self.bad = ()
    self.gates = {}  # By number: a threading.Event that it waits for.

  def predict(self, batch):
    self.batches.append(list(batch))
    self.entered.release()
    assert self.open.wait(20)
    assert all(self.gates[number].wait(20) for number in batch
               if number in self.gates)
    if set(batch) & set(self.bad):
      raise RuntimeError('no more\nmemory')
    return [2 * number for number in batch]


@pytest.fixture
def session():
  session = Session()
  yield session
  session.open.set()


@pytest.fixture
def make(session):
  """Makes a Batcher of the session; all are closed at the end."""
  made = []

  def make(**options):
    made.append(Batcher(session.predict, **options))
    return made[-1]

  yield make
  session.open.set()
  for batcher in made:
    assert batcher.close(20)


class Caller(threading.Thread):
  """Submits numbers in a thread of its own."""

  def __init__(self, batcher, *numbers, prepare=None, deadline=None):
    super().__init__(daemon=True)
    self._batcher, self._numbers = batcher, numbers
    self._options = (prepare or same, deadline)
    self.results = self.error = None
    self.start()

  def run(self):
    try:
      self.results = self._batcher.submit(self._numbers, *self._options)
    except (Busy, ShuttingDown, SessionFailed, ClientDisconnected,
            TimedOut) as error:
      self.error = error

  def end(self):
    self.join(20)
    assert not self.is_alive()
    return self.results


def same(number):
  return number


class Door:
  """Prepares numbers once it is opened.

  Attributes:
    reached: threading.Semaphore, released by each that is to be prepared.
  """

  def __init__(self):
    self.reached = threading.Semaphore(0)
    self._open = threading.Event()

  def prepare(self, number):
    self.reached.release()
    assert self._open.wait(20)
    return number

  def open(self):
    self._open.set()


def wait_until(condition):
  for _ in range(2000):
    if condition():
      return
    time.sleep(0.005)
  raise AssertionError('it did not come true in 10 s')


def hold(session, batcher, number=0):
  """Has the session hold a first photo; returns its Caller."""
  session.open.clear()
  first = Caller(batcher, number)
  assert session.entered.acquire(timeout=20)
  return first


def fill(batcher, numbers):
  """Queues one photo after the other; returns their Callers."""
  callers = []
  for number in numbers:
    before = batcher.counts()['queue_length']
    callers.append(Caller(batcher, number))
    wait_until(lambda before=before:
               batcher.counts()['queue_length'] == before + 1)
    time.sleep(0.02)  # Accepted; and now queued.
  return callers


def test_submit_photos_of_one_request_are_one_batch(make, session):
  assert make(batch_size=4).submit([3, 1, 2], same) == [6, 2, 4]
  assert session.batches == [[3, 1, 2]]


def test_submit_nothing_gives_nothing(make, session):
  assert make().submit([], same) == []
  assert session.batches == []


def test_submit_more_than_a_batch_keeps_the_order(make, session):
  numbers = list(range(10))
  assert make(batch_size=4).submit(numbers, same) == [2 * n for n in numbers]
  assert sum(session.batches, []) == numbers
  assert max(map(len, session.batches)) == 4


def test_submit_waiting_photos_are_grouped_in_their_order(make, session):
  batcher = make(batch_size=3, window_secs=0)
  first = hold(session, batcher)
  others = fill(batcher, [1, 2, 3, 4])
  session.open.set()
  assert first.end() == [0]
  assert [caller.end() for caller in others] == [[2], [4], [6], [8]]
  assert session.batches == [[0], [1, 2, 3], [4]]


def test_submit_two_threads_inside_the_window_share_a_batch(make, session):
  batcher, door = make(batch_size=8, window_secs=20), Door()
  late = Caller(batcher, 1, prepare=door.prepare)
  assert door.reached.acquire(timeout=20)
  early, = fill(batcher, [2])
  door.open()
  assert [late.end(), early.end()] == [[2], [4]]
  assert session.batches == [[2, 1]]


def test_submit_does_not_wait_for_photos_beyond_the_window(make, session):
  batcher, door = make(batch_size=8, window_secs=0.01), Door()
  late = Caller(batcher, 1, prepare=door.prepare)
  assert door.reached.acquire(timeout=20)
  assert batcher.submit([2], same) == [4]
  door.open()
  assert late.end() == [2]
  assert session.batches == [[2], [1]]


def test_submit_all_accepted_photos_in_hand_do_not_wait_for_the_window(make):
  batcher = make(batch_size=8, window_secs=1000)
  caller = Caller(batcher, 1, 2, prepare=lambda number:
                  InputError('no photo') if number == 2 else number)
  assert caller.end()[0] == 2
  with pytest.raises(ZeroDivisionError):
    batcher.submit([1, 2, 3], lambda number: number // (number - 2))
  assert Caller(batcher, 5).end() == [10]


def test_submit_small_photos_do_not_wait_for_large_ones(make, session):
  batcher = make(weigh=abs, large=10, window_secs=1000)
  door = Door()
  decoded = Caller(batcher, 11, prepare=door.prepare)
  assert door.reached.acquire(timeout=20)
  session.gates[12] = threading.Event()
  classified = Caller(batcher, 12)
  assert session.entered.acquire(timeout=20)
  assert Caller(batcher, 1, 2).end() == [2, 4]
  door.open()
  session.gates[12].set()
  assert (classified.end(), decoded.end()) == ([24], [22])
  assert session.batches[0] == [12]
  assert session.batches[-1] == [11]


def test_submit_requests_take_turns_by_weight(make, session):
  batcher = make(weigh=abs, window_secs=0, batch_size=1, large=10 ** 8)
  first = hold(session, batcher)
  many = Caller(batcher, *range(1000001, 1000007))
  wait_until(lambda: batcher.counts()['queue_length'] == 7)
  large = Caller(batcher, 10 ** 9)
  assert session.entered.acquire(timeout=20)
  few = fill(batcher, [1, 2])
  session.open.set()
  for caller in [first, many, large, *few]:
    assert caller.end()
  order = [number for batch in session.batches for number in batch]
  assert max(order.index(1), order.index(2)) < order.index(1000002)
  assert sorted(order) == [0, 1, 2, *range(1000001, 1000007), 10 ** 9]


def test_submit_pixel_budget_leaves_room_for_smaller_requests(make, session):
  batcher = make(weigh=abs, max_weight=100)
  first = hold(session, batcher, 1000)  # Counts 50; alone it is accepted.
  with pytest.raises(Busy):
    batcher.submit([26], same)
  callers = fill(batcher, [25, 12])
  with pytest.raises(Busy):
    batcher.submit([7], same)
  callers += fill(batcher, [6])
  session.open.set()
  assert [caller.end() for caller in [first, *callers]] == [
      [2000], [50], [24], [12]]
  assert batcher.submit([1000], same) == [2000]
  assert batcher.counts()['refused'] == 2


def test_submit_full_batch_does_not_wait_for_the_window(make, session):
  batcher = make(batch_size=2, window_secs=30)
  callers = [Caller(batcher, number) for number in (1, 2)]
  assert [caller.end() for caller in callers] == [[2], [4]]


def test_submit_batch_holds_no_more_than_its_weight(make, session):
  batcher = make(batch_size=4, weigh=abs, large=5)
  numbers = [3, 4, 3, 1, 5, 5, 4, 1, 0, 0, 0]
  assert batcher.submit(numbers, same) == [2 * n for n in numbers]
  assert session.batches == [[3, 4, 3], [1, 5], [5, 4, 1, 0], [0, 0]]


def test_submit_full_queue_says_when_to_come_again(make, session):
  batcher = make(max_queue=3, window_secs=0, seconds_per_photo=1.5)
  hold(session, batcher)
  fill(batcher, [1, 2])
  prepared = []
  with pytest.raises(Busy) as caught:
    batcher.submit([3], prepared.append)
  assert caught.value.retry_after == 5  # 3 photos of 1.5 s, rounded up.
  assert prepared == []
  assert batcher.counts() == dict(queue_length=3, queue_limit=3, refused=1,
                                  batches=0, photos=0, timed_out=0, left=0)


def test_busy_without_a_measurement_says_a_second(make, session):
  batcher = make(max_queue=1)
  hold(session, batcher)
  with pytest.raises(Busy, match='in 1 s') as caught:
    batcher.submit([1], same)
  assert caught.value.retry_after == 1


def test_retry_after_follows_the_measured_seconds(make, session):
  batcher = make(max_queue=2, window_secs=0)
  first = hold(session, batcher)
  time.sleep(1.2)
  session.open.set()
  first.end()
  hold(session, batcher)
  fill(batcher, [1])
  with pytest.raises(Busy) as caught:
    batcher.submit([2], same)
  assert caught.value.retry_after == 3


def test_submit_request_larger_than_the_queue_waits_for_an_empty_one(
    make, session):
  batcher = make(max_queue=2)
  assert batcher.submit([1, 2, 3], same) == [2, 4, 6]
  hold(session, batcher)
  with pytest.raises(Busy):
    batcher.submit([1, 2, 3], same)


def test_submit_answered_photos_make_room(make):
  batcher = make(max_queue=1, window_secs=0)
  assert [batcher.submit([n], same) for n in range(5)] == [
      [2 * n] for n in range(5)]
  assert batcher.counts() == dict(queue_length=0, queue_limit=1, refused=0,
                                  batches=5, photos=5, timed_out=0, left=0)


def test_prepare_error_of_a_photo_is_its_result_only(make, session):
  error = InputError('no photo')
  results = make().submit([1, 2, 3], lambda n: error if n == 2 else n)
  assert results == [2, error, 6]
  assert session.batches == [[1, 3]]


def test_prepare_error_of_all_photos_needs_no_session(make, session):
  error = InputError('no photo')
  assert make().submit([1], lambda _: error) == [error]
  assert session.batches == []


def test_prepare_that_raises_leaves_no_room_taken(make):
  batcher = make(max_queue=1)
  with pytest.raises(ZeroDivisionError):
    batcher.submit([1], lambda _: 1 // 0)
  assert batcher.submit([1], same) == [2]


def test_failure_of_one_photo_spoils_only_itself(make, session):
  session.bad = (2,)
  batcher = make(batch_size=8, window_secs=0)
  first = hold(session, batcher)
  callers = fill(batcher, [1, 2, 3])
  session.open.set()
  assert first.end() == [0]
  assert [caller.end() for caller in callers] == [[2], None, [6]]
  assert str(callers[1].error) == 'RuntimeError: no more\nmemory'
  assert session.batches == [[0], [1, 2, 3], [1], [2], [3]]


def test_failure_of_the_session_answers_all_and_goes_on(make, session, log):
  session.bad = (1, 2, 3)
  batcher = make(batch_size=8, window_secs=0)
  hold(session, batcher)
  callers = fill(batcher, [1, 2, 3])
  session.open.set()
  for caller in callers:
    caller.end()
    assert isinstance(caller.error, SessionFailed)
  assert batcher.submit([4], same) == [8]
  assert 'failed on a photo: RuntimeError: no more memory' in log.text


def test_failure_of_both_threads_on_one_request_goes_on(make, session, log,
                                                        monkeypatch):
  session.bad = (1, 99)
  both = threading.Barrier(2)
  error = batching.tf.logging.error
  # Both are in the context of the request when they log.
  monkeypatch.setattr(batching.tf.logging, 'error',
                      lambda *values: (both.wait(20), error(*values)))
  batcher = make(weigh=abs, large=10, window_secs=0)
  caller = Caller(batcher, 99, 1)
  caller.end()
  assert isinstance(caller.error, SessionFailed)
  assert log.text.count('failed on a photo') == 2
  assert batcher.run_between_batches(lambda: 7) == 7
  assert batcher.submit([3, 98], same) == [6, 196]


class Photo(float):
  """A number to which there can be weak references."""


@pytest.mark.parametrize('ends', ['left', 'failed'])
def test_photos_are_freed_where_the_request_before_them_failed(make, session,
                                                               ends):
  gone = threading.Event()
  session.bad = (1,) if ends == 'failed' else ()
  batcher = make(window_secs=0)
  first = hold(session, batcher)
  leaving = Caller(batcher, 1, deadline=Deadline(is_disconnected=gone.is_set))
  wait_until(lambda: batcher.counts()['queue_length'] == 2)
  others = [Photo(number) for number in (2, 3)]
  left = [weakref.ref(photo) for photo in others]
  callers = [Caller(batcher, photo) for photo in others]
  wait_until(lambda: batcher.counts()['queue_length'] == 4)
  gc.disable()
  try:
    if ends == 'left':
      gone.set()
      time.sleep(0.1)  # It is not looked at again for a moment.
    session.open.set()
    for caller in [first, leaving, *callers]:
      caller.end()
    assert isinstance(leaving.error, ClientDisconnected if ends == 'left' else
                      SessionFailed)
    session.batches.clear()
    for caller in callers:
      caller._numbers = ()
    del others, callers, caller
    wait_until(lambda: not any(photo() for photo in left))
  finally:
    gc.enable()


def test_submit_small_photo_beside_a_large_one_keeps_its_turn(make, session):
  batcher = make(weigh=abs, large=10 ** 8, window_secs=0, batch_size=1)
  for _ in range(20):  # They bring the order of the large photos far ahead.
    batcher.submit([10 ** 9], same)
  first = hold(session, batcher)
  session.gates[10 ** 9] = threading.Event()
  mixed = Caller(batcher, 10 ** 9, 1)
  wait_until(lambda: batcher.counts()['queue_length'] == 3)
  others = fill(batcher, range(2, 12))
  session.open.set()
  session.gates[10 ** 9].set()
  for caller in [first, mixed, *others]:
    caller.end()
  small = [batch[0] for batch in session.batches if batch[0] < 100]
  assert small.index(1) == 1


def test_failure_too_few_results_is_no_answer(make, session):
  session.predict = None
  batcher = Batcher(lambda batch: batch[1:], window_secs=0)
  with pytest.raises(SessionFailed, match='0 results of 1 photos'):
    batcher.submit([1], same)
  assert batcher.close(20)


def test_close_answers_what_was_accepted_and_then_refuses(make, session):
  batcher = make(batch_size=2, window_secs=0)
  first = hold(session, batcher)
  others = fill(batcher, [1, 2, 3])
  assert not batcher.close(timeout=0.05)
  with pytest.raises(ShuttingDown):
    batcher.submit([4], same)
  session.open.set()
  assert batcher.close(20)
  assert first.end() == [0]
  assert [caller.end() for caller in others] == [[2], [4], [6]]
  with pytest.raises(ShuttingDown):
    batcher.submit([4], same)
  with pytest.raises(ShuttingDown):
    batcher.run_between_batches(list)


def test_close_does_not_wait_for_the_window(make):
  batcher = make(window_secs=30)
  caller, = fill(batcher, [1])
  start = time.monotonic()
  assert batcher.close(20)
  assert caller.end() == [2]
  assert time.monotonic() - start < 5


def test_close_waits_for_a_photo_that_is_still_prepared(make):
  batcher = make(window_secs=0)
  go, results = threading.Event(), []

  def slowly(number):
    assert go.wait(20)
    return number

  thread = threading.Thread(
      target=lambda: results.append(batcher.submit([1], slowly)))
  thread.start()
  wait_until(lambda: batcher.counts()['queue_length'])
  assert not batcher.close(timeout=0.1)
  go.set()
  thread.join(20)
  assert batcher.close(20)
  assert results == [[2]]


def test_run_between_batches_comes_before_the_next_batch(make, session):
  batcher = make(batch_size=2, window_secs=0)
  hold(session, batcher)
  waiting = fill(batcher, [1])
  seen = []
  callback = threading.Thread(target=lambda: seen.append(
      batcher.run_between_batches(lambda: list(session.batches))))
  callback.start()
  time.sleep(0.1)
  assert seen == []
  session.open.set()
  callback.join(20)
  assert seen == [[[0]]]
  assert waiting[0].end() == [2]


def test_run_between_batches_waits_for_both_threads(make, session):
  batcher = make(weigh=abs, large=10, window_secs=0)
  first = hold(session, batcher)
  large = Caller(batcher, 11)
  assert session.entered.acquire(timeout=20)
  seen, called = [], threading.Event()

  def function():
    seen.append(list(session.batches))
    called.set()

  callback = threading.Thread(target=batcher.run_between_batches,
                              args=(function,))
  callback.start()
  assert not called.wait(0.1)
  session.open.set()
  callback.join(20)
  assert seen == [[[0], [11]]]
  assert (first.end(), large.end()) == ([0], [22])


@pytest.mark.parametrize('error, count', [(TimedOut, 'timed_out'),
                                          (ClientDisconnected, 'left')])
def test_given_up_request_is_taken_out_of_the_queue(make, session, monkeypatch,
                                                    error, count):
  monkeypatch.setattr('serving.model.deadlines._CHECK_SECS', 0.01)
  batcher, gone = make(batch_size=2, window_secs=0), threading.Event()
  first = hold(session, batcher)
  deadline = (Deadline(0.2) if error is TimedOut else
              Deadline(is_disconnected=gone.is_set))
  given_up = Caller(batcher, 1, 2, 3, deadline=deadline)
  wait_until(lambda: batcher.counts()['queue_length'] == 4)
  gone.set()
  given_up.end()
  assert isinstance(given_up.error, error)
  assert batcher.counts()['queue_length'] == 1
  assert batcher.counts()[count] == 1
  session.open.set()
  assert first.end() == [0]
  assert batcher.submit([4], same) == [8]
  assert session.batches == [[0], [4]]


def test_client_that_leaves_in_the_queue_is_not_classified(make, session):
  batcher, gone = make(window_secs=0), threading.Event()
  first = hold(session, batcher)
  left = Caller(batcher, 1, deadline=Deadline(is_disconnected=gone.is_set))
  wait_until(lambda: batcher.counts()['queue_length'] == 2)
  others = fill(batcher, [2])
  gone.set()
  time.sleep(0.1)  # It is not looked at again for a moment.
  session.open.set()
  assert (first.end(), others[0].end(), left.end()) == ([0], [4], None)
  assert isinstance(left.error, ClientDisconnected)
  assert session.batches == [[0], [2]]


def test_client_that_has_left_is_not_prepared(make):
  batcher, prepared = make(), []
  with pytest.raises(ClientDisconnected):
    batcher.submit([1], prepared.append, Deadline(is_disconnected=lambda: True))
  with pytest.raises(TimedOut):
    batcher.submit([1], prepared.append, Deadline(0))
  assert prepared == []
  assert batcher.submit([1], same) == [2]


def test_run_between_batches_error_is_the_callers(make):
  batcher = make(window_secs=0)
  with pytest.raises(ZeroDivisionError):
    batcher.run_between_batches(lambda: 1 // 0)
  assert batcher.submit([1], same) == [2]


def test_many_threads_each_get_their_own_answer(make, session):
  batcher = make(batch_size=8, max_queue=64, window_secs=0.001)
  wrong = []

  def client(seed):
    for turn in range(50):
      number = 1000 * seed + turn
      if batcher.submit([number, -number], same) != [2 * number, -2 * number]:
        wrong.append(number)

  threads = [threading.Thread(target=client, args=(seed,))
             for seed in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert wrong == []
  assert batcher.counts()['photos'] == 16 * 50 * 2
  assert len(session.batches) < 16 * 50


def test_runs_share_what_is_accepted(make, session):
  batcher = make(batch_size=8, runs=2, window_secs=20)
  session.open.clear()
  door = Door()
  callers = [Caller(batcher, number, prepare=door.prepare)
             for number in range(8)]
  for _ in callers:
    assert door.reached.acquire(timeout=20)
  door.open()
  for _ in range(2):
    assert session.entered.acquire(timeout=20)
  assert list(map(len, session.batches)) == [4, 4]
  session.open.set()
  assert [caller.end() for caller in callers] == [[2 * n] for n in range(8)]


def test_runs_few_photos_wait_for_the_end_of_another_batch(make, session):
  batcher = make(batch_size=8, runs=2, window_secs=20)
  session.open.clear()
  gate = session.gates[0] = threading.Event()
  first = hold(session, batcher)
  session.open.set()  # The gate still holds the first batch.
  door = Door()
  others = [Caller(batcher, number, prepare=door.prepare)
            for number in range(1, 6)]
  for _ in others:
    assert door.reached.acquire(timeout=20)
  late = fill(batcher, [6])
  time.sleep(0.1)
  assert session.batches == [[0]]  # Six are accepted, so three make a batch.
  gate.set()
  assert first.end() == [0]
  door.open()
  assert [caller.end() for caller in others + late] == [
      [2 * n] for n in range(1, 7)]


def test_runs_run_between_batches_waits_for_all_of_them(make, session):
  batcher = make(batch_size=1, runs=2)
  gates = [session.gates.setdefault(n, threading.Event()) for n in (1, 2)]
  callers = [Caller(batcher, number) for number in (1, 2)]
  for _ in callers:
    assert session.entered.acquire(timeout=20)
  called = threading.Event()
  callback = threading.Thread(target=batcher.run_between_batches,
                              args=(called.set,), daemon=True)
  callback.start()
  gates[0].set()
  assert callers[0].end() == [2]
  assert not called.wait(0.1)
  gates[1].set()
  assert called.wait(20)
