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
  """Fake session that doubles numbers.

  Attributes:
    batches: list of the batches so far.
    open: threading.Event that every batch waits for.
    entered: threading.Semaphore, released at the start of each batch.
    bad: numbers that make their batch fail.
    gates: {number: threading.Event that its batch waits for}.
  """

  def __init__(self):
    self.batches = []
    self.open = threading.Event()
    self.open.set()
    self.entered = threading.Semaphore(0)
    self.bad = ()
    self.gates = {}

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
def make_batcher(session):
  """Function that makes a Batcher of the session; closes them at the end."""
  batchers = []

  def make_batcher(**options):
    batchers.append(Batcher(session.predict, **options))
    return batchers[-1]

  yield make_batcher
  session.open.set()
  for batcher in batchers:
    assert batcher.close(20)


class Caller(threading.Thread):
  """Thread that submits numbers.

  Attributes:
    results: of the numbers; None: there are none yet, or `error` was raised.
    error: exception that `submit` raised; None: it has not raised one.
  """

  def __init__(self, batcher, *numbers, prepare=None, deadline=None):
    super().__init__(daemon=True)
    self._batcher, self._numbers = batcher, numbers
    self._options = (prepare or identity, deadline)
    self.results = self.error = None
    self.start()

  def run(self):
    try:
      self.results = self._batcher.submit(self._numbers, *self._options)
    except (Busy, ShuttingDown, SessionFailed, ClientDisconnected,
            TimedOut) as error:
      self.error = error

  def wait(self):
    """Waits for the end of the thread; returns the results."""
    self.join(20)
    assert not self.is_alive()
    return self.results


def identity(number):
  return number


class PrepareLatch:
  """A `prepare` function that blocks until `open` is called.

  Attributes:
    reached: threading.Semaphore, released at the start of each call.
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
  raise AssertionError('the condition is still false after 10 s')


def block_session(session, batcher, number=0):
  """Submits a photo that the session blocks on; returns its Caller."""
  session.open.clear()
  first = Caller(batcher, number)
  assert session.entered.acquire(timeout=20)
  return first


def enqueue(batcher, numbers):
  """Queues photos one after the other; returns their Callers."""
  callers = []
  for number in numbers:
    before = batcher.counts()['queue_length']
    callers.append(Caller(batcher, number))
    wait_until(lambda before=before:
               batcher.counts()['queue_length'] == before + 1)
    time.sleep(0.02)  # It is accepted; let it be queued.
  return callers


def test_submit_photos_of_one_request_form_one_batch(make_batcher, session):
  assert make_batcher(batch_size=4).submit([3, 1, 2], identity) == [6, 2, 4]
  assert session.batches == [[3, 1, 2]]


def test_submit_no_photos_returns_empty_list(make_batcher, session):
  assert make_batcher().submit([], identity) == []
  assert session.batches == []


def test_submit_more_than_one_batch_keeps_the_order(make_batcher, session):
  numbers = list(range(10))
  assert make_batcher(batch_size=4).submit(numbers, identity) == [
      2 * n for n in numbers]
  assert sum(session.batches, []) == numbers
  assert max(map(len, session.batches)) == 4


def test_submit_queued_photos_are_batched_in_order(make_batcher, session):
  batcher = make_batcher(batch_size=3, window_secs=0)
  first = block_session(session, batcher)
  others = enqueue(batcher, [1, 2, 3, 4])
  session.open.set()
  assert first.wait() == [0]
  assert [caller.wait() for caller in others] == [[2], [4], [6], [8]]
  assert session.batches == [[0], [1, 2, 3], [4]]


def test_submit_two_threads_within_the_window_share_a_batch(make_batcher,
                                                            session):
  batcher, latch = make_batcher(batch_size=8, window_secs=20), PrepareLatch()
  late = Caller(batcher, 1, prepare=latch.prepare)
  assert latch.reached.acquire(timeout=20)
  early, = enqueue(batcher, [2])
  latch.open()
  assert [late.wait(), early.wait()] == [[2], [4]]
  assert session.batches == [[2, 1]]


def test_submit_does_not_wait_longer_than_the_window(make_batcher, session):
  batcher, latch = make_batcher(batch_size=8, window_secs=0.01), PrepareLatch()
  late = Caller(batcher, 1, prepare=latch.prepare)
  assert latch.reached.acquire(timeout=20)
  assert batcher.submit([2], identity) == [4]
  latch.open()
  assert late.wait() == [2]
  assert session.batches == [[2], [1]]


def test_submit_all_accepted_photos_prepared_does_not_wait_for_the_window(
    make_batcher):
  batcher = make_batcher(batch_size=8, window_secs=1000)
  caller = Caller(batcher, 1, 2, prepare=lambda number:
                  InputError('no photo') if number == 2 else number)
  assert caller.wait()[0] == 2
  with pytest.raises(ZeroDivisionError):
    batcher.submit([1, 2, 3], lambda number: number // (number - 2))
  assert Caller(batcher, 5).wait() == [10]


def test_submit_small_photos_do_not_wait_for_large_ones(make_batcher, session):
  batcher = make_batcher(weigh=abs, large=10, window_secs=1000)
  latch = PrepareLatch()
  preparing = Caller(batcher, 11, prepare=latch.prepare)
  assert latch.reached.acquire(timeout=20)
  session.gates[12] = threading.Event()
  classifying = Caller(batcher, 12)
  assert session.entered.acquire(timeout=20)
  assert Caller(batcher, 1, 2).wait() == [2, 4]
  latch.open()
  session.gates[12].set()
  assert (classifying.wait(), preparing.wait()) == ([24], [22])
  assert session.batches[0] == [12]
  assert session.batches[-1] == [11]


def test_submit_requests_share_the_session_by_weight(make_batcher, session):
  batcher = make_batcher(weigh=abs, window_secs=0, batch_size=1, large=10 ** 8)
  first = block_session(session, batcher)
  many_photos = Caller(batcher, *range(1000001, 1000007))
  wait_until(lambda: batcher.counts()['queue_length'] == 7)
  large_photo = Caller(batcher, 10 ** 9)
  assert session.entered.acquire(timeout=20)
  small_requests = enqueue(batcher, [1, 2])
  session.open.set()
  for caller in [first, many_photos, large_photo, *small_requests]:
    assert caller.wait()
  order = [number for batch in session.batches for number in batch]
  assert max(order.index(1), order.index(2)) < order.index(1000002)
  assert sorted(order) == [0, 1, 2, *range(1000001, 1000007), 10 ** 9]


def test_submit_pixel_budget_leaves_room_for_smaller_requests(make_batcher,
                                                              session):
  batcher = make_batcher(weigh=abs, max_weight=100)
  # Accepted although it is too heavy, as nothing else waits; counts as 50.
  first = block_session(session, batcher, 1000)
  with pytest.raises(Busy):
    batcher.submit([26], identity)
  callers = enqueue(batcher, [25, 12])
  with pytest.raises(Busy):
    batcher.submit([7], identity)
  callers += enqueue(batcher, [6])
  session.open.set()
  assert [caller.wait() for caller in [first, *callers]] == [
      [2000], [50], [24], [12]]
  assert batcher.submit([1000], identity) == [2000]
  assert batcher.counts()['refused'] == 2


def test_submit_full_batch_does_not_wait_for_the_window(make_batcher, session):
  batcher = make_batcher(batch_size=2, window_secs=30)
  callers = [Caller(batcher, number) for number in (1, 2)]
  assert [caller.wait() for caller in callers] == [[2], [4]]


def test_submit_weight_of_a_batch_is_limited(make_batcher, session):
  batcher = make_batcher(batch_size=4, weigh=abs, large=5)
  numbers = [3, 4, 3, 1, 5, 5, 4, 1, 0, 0, 0]
  assert batcher.submit(numbers, identity) == [2 * n for n in numbers]
  assert session.batches == [[3, 4, 3], [1, 5], [5, 4, 1, 0], [0, 0]]


def test_submit_full_queue_raises_busy_with_retry_after(make_batcher, session):
  batcher = make_batcher(max_queue=3, window_secs=0, seconds_per_photo=1.5)
  block_session(session, batcher)
  enqueue(batcher, [1, 2])
  prepared = []
  with pytest.raises(Busy) as caught:
    batcher.submit([3], prepared.append)
  assert caught.value.retry_after == 5  # 3 photos of 1.5 s, rounded up.
  assert prepared == []
  assert batcher.counts() == dict(queue_length=3, queue_limit=3, refused=1,
                                  batches=0, photos=0, timed_out=0, left=0)


def test_retry_after_without_measurement_is_one_second(make_batcher, session):
  batcher = make_batcher(max_queue=1)
  block_session(session, batcher)
  with pytest.raises(Busy, match='in 1 s') as caught:
    batcher.submit([1], identity)
  assert caught.value.retry_after == 1


def test_retry_after_uses_the_measured_seconds(make_batcher, session):
  batcher = make_batcher(max_queue=2, window_secs=0)
  first = block_session(session, batcher)
  time.sleep(1.2)
  session.open.set()
  first.wait()
  block_session(session, batcher)
  enqueue(batcher, [1])
  with pytest.raises(Busy) as caught:
    batcher.submit([2], identity)
  assert caught.value.retry_after == 3


def test_submit_request_larger_than_the_queue_needs_an_empty_queue(
    make_batcher, session):
  batcher = make_batcher(max_queue=2)
  assert batcher.submit([1, 2, 3], identity) == [2, 4, 6]
  block_session(session, batcher)
  with pytest.raises(Busy):
    batcher.submit([1, 2, 3], identity)


def test_submit_answered_photos_make_room(make_batcher):
  batcher = make_batcher(max_queue=1, window_secs=0)
  assert [batcher.submit([n], identity) for n in range(5)] == [
      [2 * n] for n in range(5)]
  assert batcher.counts() == dict(queue_length=0, queue_limit=1, refused=0,
                                  batches=5, photos=5, timed_out=0, left=0)


def test_prepare_error_is_the_result_of_that_photo_only(make_batcher, session):
  error = InputError('no photo')
  results = make_batcher().submit([1, 2, 3], lambda n: error if n == 2 else n)
  assert results == [2, error, 6]
  assert session.batches == [[1, 3]]


def test_prepare_error_of_all_photos_skips_the_session(make_batcher, session):
  error = InputError('no photo')
  assert make_batcher().submit([1], lambda _: error) == [error]
  assert session.batches == []


def test_prepare_raising_an_exception_makes_room_in_the_queue(make_batcher):
  batcher = make_batcher(max_queue=1)
  with pytest.raises(ZeroDivisionError):
    batcher.submit([1], lambda _: 1 // 0)
  assert batcher.submit([1], identity) == [2]


def test_session_failure_on_one_photo_fails_that_photo_only(make_batcher,
                                                            session):
  session.bad = (2,)
  batcher = make_batcher(batch_size=8, window_secs=0)
  first = block_session(session, batcher)
  callers = enqueue(batcher, [1, 2, 3])
  session.open.set()
  assert first.wait() == [0]
  assert [caller.wait() for caller in callers] == [[2], None, [6]]
  assert str(callers[1].error) == 'RuntimeError: no more\nmemory'
  assert session.batches == [[0], [1, 2, 3], [1], [2], [3]]


def test_session_failure_on_a_whole_batch_does_not_stop_the_batcher(
    make_batcher, session, log):
  session.bad = (1, 2, 3)
  batcher = make_batcher(batch_size=8, window_secs=0)
  block_session(session, batcher)
  callers = enqueue(batcher, [1, 2, 3])
  session.open.set()
  for caller in callers:
    caller.wait()
    assert isinstance(caller.error, SessionFailed)
  assert batcher.submit([4], identity) == [8]
  assert 'failed on a photo: RuntimeError: no more memory' in log.text


def test_session_failure_in_both_threads_does_not_stop_the_batcher(
    make_batcher, session, log, monkeypatch):
  session.bad = (1, 99)
  barrier = threading.Barrier(2)
  log_error = batching.tf.logging.error
  # Both threads log at the same time, in the context of the same request.
  monkeypatch.setattr(batching.tf.logging, 'error',
                      lambda *values: (barrier.wait(20), log_error(*values)))
  batcher = make_batcher(weigh=abs, large=10, window_secs=0)
  caller = Caller(batcher, 99, 1)
  caller.wait()
  assert isinstance(caller.error, SessionFailed)
  assert log.text.count('failed on a photo') == 2
  assert batcher.run_between_batches(lambda: 7) == 7
  assert batcher.submit([3, 98], identity) == [6, 196]


class Photo(float):
  """A number that supports weak references."""


@pytest.mark.parametrize('cause', ['left', 'failed'])
def test_photos_after_a_failed_request_are_freed(make_batcher, session, cause):
  disconnected = threading.Event()
  session.bad = (1,) if cause == 'failed' else ()
  batcher = make_batcher(window_secs=0)
  first = block_session(session, batcher)
  failed = Caller(batcher, 1,
                  deadline=Deadline(is_disconnected=disconnected.is_set))
  wait_until(lambda: batcher.counts()['queue_length'] == 2)
  others = [Photo(number) for number in (2, 3)]
  references = [weakref.ref(photo) for photo in others]
  callers = [Caller(batcher, photo) for photo in others]
  wait_until(lambda: batcher.counts()['queue_length'] == 4)
  gc.disable()
  try:
    if cause == 'left':
      disconnected.set()
      time.sleep(0.1)  # For _MIN_CHECK_SECS, it is not checked again.
    session.open.set()
    for caller in [first, failed, *callers]:
      caller.wait()
    assert isinstance(failed.error, ClientDisconnected if cause == 'left' else
                      SessionFailed)
    session.batches.clear()
    for caller in callers:
      caller._numbers = ()
    del others, callers, caller
    wait_until(lambda: not any(photo() for photo in references))
  finally:
    gc.enable()


def test_submit_small_photo_with_a_large_one_keeps_its_turn(make_batcher,
                                                            session):
  batcher = make_batcher(weigh=abs, large=10 ** 8, window_secs=0, batch_size=1)
  for _ in range(20):  # Their weight raises the tags of large photos.
    batcher.submit([10 ** 9], identity)
  first = block_session(session, batcher)
  session.gates[10 ** 9] = threading.Event()
  mixed = Caller(batcher, 10 ** 9, 1)
  wait_until(lambda: batcher.counts()['queue_length'] == 3)
  others = enqueue(batcher, range(2, 12))
  session.open.set()
  session.gates[10 ** 9].set()
  for caller in [first, mixed, *others]:
    caller.wait()
  small_order = [batch[0] for batch in session.batches if batch[0] < 100]
  assert small_order.index(1) == 1


def test_session_with_too_few_results_raises_session_failed(make_batcher,
                                                            session):
  session.predict = None
  batcher = Batcher(lambda batch: batch[1:], window_secs=0)
  with pytest.raises(SessionFailed, match='0 results of 1 photos'):
    batcher.submit([1], identity)
  assert batcher.close(20)


def test_close_answers_accepted_photos_and_refuses_new_ones(make_batcher,
                                                            session):
  batcher = make_batcher(batch_size=2, window_secs=0)
  first = block_session(session, batcher)
  others = enqueue(batcher, [1, 2, 3])
  assert not batcher.close(timeout=0.05)
  with pytest.raises(ShuttingDown):
    batcher.submit([4], identity)
  session.open.set()
  assert batcher.close(20)
  assert first.wait() == [0]
  assert [caller.wait() for caller in others] == [[2], [4], [6]]
  with pytest.raises(ShuttingDown):
    batcher.submit([4], identity)
  with pytest.raises(ShuttingDown):
    batcher.run_between_batches(list)


@pytest.mark.parametrize('window_secs', [0, 30])
def test_close_waits_for_a_photo_in_preparation_but_not_for_the_window(
    make_batcher, window_secs):
  batcher = make_batcher(window_secs=window_secs)
  go, results = threading.Event(), []

  def prepare_slowly(number):
    assert number == 1 or go.wait(20)
    return number

  thread = threading.Thread(
      target=lambda: results.append(batcher.submit([1, 2], prepare_slowly)))
  thread.start()
  wait_until(lambda: batcher.counts()['queue_length'] == 2)
  assert not batcher.close(timeout=0.1)
  start = time.monotonic()
  go.set()
  thread.join(20)
  assert batcher.close(20)
  assert results == [[2, 4]]
  assert time.monotonic() - start < 5


def test_run_between_batches_runs_before_the_next_batch(make_batcher, session):
  batcher = make_batcher(batch_size=2, window_secs=0)
  block_session(session, batcher)
  callers = enqueue(batcher, [1])
  batches_seen = []
  callback = threading.Thread(target=lambda: batches_seen.append(
      batcher.run_between_batches(lambda: list(session.batches))))
  callback.start()
  time.sleep(0.1)
  assert batches_seen == []
  session.open.set()
  callback.join(20)
  assert batches_seen == [[[0]]]
  assert callers[0].wait() == [2]


def test_run_between_batches_waits_for_both_threads(make_batcher, session):
  batcher = make_batcher(weigh=abs, large=10, window_secs=0)
  first = block_session(session, batcher)
  large = Caller(batcher, 11)
  assert session.entered.acquire(timeout=20)
  batches_seen, called = [], threading.Event()

  def function():
    batches_seen.append(list(session.batches))
    called.set()

  callback = threading.Thread(target=batcher.run_between_batches,
                              args=(function,))
  callback.start()
  assert not called.wait(0.1)
  session.open.set()
  callback.join(20)
  assert batches_seen == [[[0], [11]]]
  assert (first.wait(), large.wait()) == ([0], [22])


@pytest.mark.parametrize('error, counter', [(TimedOut, 'timed_out'),
                                            (ClientDisconnected, 'left')])
def test_abandoned_request_is_removed_from_the_queue(
    make_batcher, session, monkeypatch, error, counter):
  monkeypatch.setattr('serving.model.deadlines._CHECK_SECS', 0.01)
  batcher = make_batcher(batch_size=2, window_secs=0)
  disconnected = threading.Event()
  first = block_session(session, batcher)
  deadline = (Deadline(0.2) if error is TimedOut else
              Deadline(is_disconnected=disconnected.is_set))
  abandoned = Caller(batcher, 1, 2, 3, deadline=deadline)
  wait_until(lambda: batcher.counts()['queue_length'] == 4)
  disconnected.set()
  abandoned.wait()
  assert isinstance(abandoned.error, error)
  assert batcher.counts()['queue_length'] == 1
  assert batcher.counts()[counter] == 1
  session.open.set()
  assert first.wait() == [0]
  assert batcher.submit([4], identity) == [8]
  assert session.batches == [[0], [4]]


def test_request_of_a_client_that_disconnects_is_not_classified(
    make_batcher, session):
  batcher, disconnected = make_batcher(window_secs=0), threading.Event()
  first = block_session(session, batcher)
  leaving = Caller(batcher, 1,
                   deadline=Deadline(is_disconnected=disconnected.is_set))
  wait_until(lambda: batcher.counts()['queue_length'] == 2)
  others = enqueue(batcher, [2])
  disconnected.set()
  time.sleep(0.1)  # For _MIN_CHECK_SECS, it is not checked again.
  session.open.set()
  assert (first.wait(), others[0].wait(), leaving.wait()) == ([0], [4], None)
  assert isinstance(leaving.error, ClientDisconnected)
  assert session.batches == [[0], [2]]


def test_submit_after_disconnect_or_deadline_prepares_nothing(make_batcher):
  batcher, prepared = make_batcher(), []
  with pytest.raises(ClientDisconnected):
    batcher.submit([1], prepared.append, Deadline(is_disconnected=lambda: True))
  with pytest.raises(TimedOut):
    batcher.submit([1], prepared.append, Deadline(0))
  assert prepared == []
  assert batcher.submit([1], identity) == [2]


def test_run_between_batches_raises_the_error_of_the_function(make_batcher):
  batcher = make_batcher(window_secs=0)
  with pytest.raises(ZeroDivisionError):
    batcher.run_between_batches(lambda: 1 // 0)
  assert batcher.submit([1], identity) == [2]


def test_submit_from_many_threads_returns_their_own_results(make_batcher,
                                                            session):
  batcher = make_batcher(batch_size=8, max_queue=64, window_secs=0.001)
  wrong_numbers = []

  def client(seed):
    for turn in range(50):
      number = 1000 * seed + turn
      results = batcher.submit([number, -number], identity)
      if results != [2 * number, -2 * number]:
        wrong_numbers.append(number)

  threads = [threading.Thread(target=client, args=(seed,))
             for seed in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert wrong_numbers == []
  assert batcher.counts()['photos'] == 16 * 50 * 2
  assert len(session.batches) < 16 * 50


def test_runs_share_the_accepted_photos_equally(make_batcher, session):
  batcher = make_batcher(batch_size=8, runs=2, window_secs=20)
  session.open.clear()
  latch = PrepareLatch()
  callers = [Caller(batcher, number, prepare=latch.prepare)
             for number in range(8)]
  for _ in callers:
    assert latch.reached.acquire(timeout=20)
  latch.open()
  for _ in range(2):
    assert session.entered.acquire(timeout=20)
  assert list(map(len, session.batches)) == [4, 4]
  session.open.set()
  assert [caller.wait() for caller in callers] == [[2 * n] for n in range(8)]


def test_runs_partial_batch_waits_for_the_running_batch(make_batcher, session):
  batcher = make_batcher(batch_size=8, runs=2, window_secs=20)
  session.open.clear()
  gate = session.gates[0] = threading.Event()
  first = block_session(session, batcher)
  session.open.set()  # The gate still blocks the first batch.
  latch = PrepareLatch()
  others = [Caller(batcher, number, prepare=latch.prepare)
            for number in range(1, 6)]
  for _ in others:
    assert latch.reached.acquire(timeout=20)
  late = enqueue(batcher, [6])
  time.sleep(0.1)
  assert session.batches == [[0]]  # Six are accepted, so a batch needs three.
  gate.set()
  assert first.wait() == [0]
  latch.open()
  assert [caller.wait() for caller in others + late] == [
      [2 * n] for n in range(1, 7)]


def test_run_between_batches_waits_for_all_runs(make_batcher, session):
  batcher = make_batcher(batch_size=1, runs=2)
  gates = [session.gates.setdefault(n, threading.Event()) for n in (1, 2)]
  callers = [Caller(batcher, number) for number in (1, 2)]
  for _ in callers:
    assert session.entered.acquire(timeout=20)
  called = threading.Event()
  callback = threading.Thread(target=batcher.run_between_batches,
                              args=(called.set,), daemon=True)
  callback.start()
  gates[0].set()
  assert callers[0].wait() == [2]
  assert not called.wait(0.1)
  gates[1].set()
  assert called.wait(20)
