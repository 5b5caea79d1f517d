"""Gives memory that uploads have used back to the system.

The C library (glibc) keeps what was freed: in each thread's arena up to 64 MiB
at its end, which malloc_trim reaches in the first arena only. After some
hundred large uploads that is 100 MB and more. So there is one arena, and it is
trimmed now and then. A low threshold for mmap would do as well, but then the
network's buffers, too, would be mapped anew for each photo.

TensorFlow 2 has an allocator of its own where it uses oneDNN (by default on
processors with AVX512 VNNI, AVX VNNI or AMX), which never gives anything back.
It is switched off here, which costs no time that can be measured.
"""

import ctypes
import os
import threading
import time

# Seconds between two times: each costs some milliseconds, and the network some
# to fault its buffers in again.
_SECONDS = 10


# Of malloc.h.
_M_ARENA_MAX = -8


def use_one_arena():
  """Has the threads that start from now on make no arenas of their own.

  They share what is there; so a program does this before it loads a network.
  TensorFlow then takes its memory from there, too.
  """
  os.environ.setdefault('TF_ONEDNN_USE_SYSTEM_ALLOCATOR', '1')
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:  # As in glibc.
    mallopt(_M_ARENA_MAX, 1)


class Trimmer:
  """Trims the heap now and then; safe to use from several threads."""

  def __init__(self, seconds=_SECONDS):
    self._seconds = seconds
    self._last = time.monotonic()
    self._timer = None
    self._lock = threading.Lock()
    # Of glibc; other C libraries give memory back by themselves.
    self._trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)

  def trim(self):
    """Trims; once some seconds have passed, where it was done just before.

    Returns:
      Whether it was done at once.
    """
    with self._lock:
      if self._trim is None or self._timer:
        return False
      wait = self._seconds - (time.monotonic() - self._last)
      if wait > 0:
        self._timer = threading.Timer(wait, self._trim_now)
        self._timer.daemon = True
        self._timer.start()
        return False
    self._trim_now()
    return True

  def _trim_now(self):
    with self._lock:
      self._last, self._timer = time.monotonic(), None
    self._trim(ctypes.c_size_t(0))
