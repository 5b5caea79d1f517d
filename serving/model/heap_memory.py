"""Returns memory that uploads have used to the system.

The C library (glibc) keeps freed memory: up to 64 MiB at the end of each
thread's arena, and malloc_trim reaches that only in the first arena. After some
hundred large uploads this is 100 MB and more. Therefore there is only one
arena, and it is trimmed periodically. A low threshold for mmap would also work,
but then the network's buffers, too, would be mapped again for each photo.

TensorFlow 2 has an allocator of its own where it uses oneDNN (by default on
processors with AVX512 VNNI, AVX VNNI or AMX), which never returns memory. It is
switched off here, which has no measurable cost.
"""

import ctypes
import os
import threading
from typing import Optional

# Seconds until the heap is trimmed: each time costs a few milliseconds, and a
# few more to fault the network's buffers in again.
_SECONDS = 10


# From malloc.h.
_M_ARENA_MAX = -8


def use_one_arena() -> None:
  """Makes threads that start from now on share one arena.

  Threads use the existing arenas, so a program calls this before it loads a
  network. TensorFlow then takes its memory from there, too.
  """
  os.environ.setdefault('TF_ONEDNN_USE_SYSTEM_ALLOCATOR', '1')
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:  # glibc has it.
    mallopt(_M_ARENA_MAX, 1)


def trim_heap() -> None:
  """Returns freed memory to the system now."""
  # Only in glibc; other C libraries return memory by themselves.
  malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if malloc_trim is not None:
    malloc_trim(ctypes.c_size_t(0))


class HeapTrimmer:
  """Trims the heap some seconds after use; safe to use from several threads."""

  def __init__(self, seconds: float = _SECONDS):
    self._seconds = seconds
    self._timer: Optional[threading.Timer] = None
    self._lock = threading.Lock()

  def trim(self) -> None:
    """Trims the heap after some seconds, once for all calls until then.

    Not at once: photos of requests that were given up may still be in progress.
    """
    with self._lock:
      if self._timer:
        return
      timer = threading.Timer(self._seconds, self._trim_now)
      timer.daemon = True
      try:
        timer.start()
      except RuntimeError:  # No thread can be started; the next call retries.
        return
      self._timer = timer

  def _trim_now(self) -> None:
    with self._lock:
      self._timer = None
    trim_heap()
