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

# Seconds until it is trimmed: each time costs some milliseconds, and some to
# fault the network's buffers in again.
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
  """Trims the heap some seconds after use; safe to use from several threads."""

  def __init__(self, seconds=_SECONDS):
    self._seconds = seconds
    self._timer = None
    self._lock = threading.Lock()
    # Of glibc; other C libraries give memory back by themselves.
    self._trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)

  def trim(self):
    """Trims in some seconds, once for all calls until then.

    Not at once: a photo that nobody waits for any more may still be worked on.
    """
    with self._lock:
      if self._trim is None or self._timer:
        return
      timer = threading.Timer(self._seconds, self._trim_now)
      timer.daemon = True
      try:
        timer.start()
      except RuntimeError:  # No thread can be had; the next call tries again.
        return
      self._timer = timer

  def _trim_now(self):
    with self._lock:
      self._timer = None
    self._trim(ctypes.c_size_t(0))
